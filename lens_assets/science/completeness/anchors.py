"""The two factors on real anchors: confirmed and tier-A lenses that the detector has not learnt from.

recall = P(observable) x P(found | observable) + P(found, not observable), each a count over whole objects with its Wilson
interval. Observable is what the detectability gate says of the lens's own stamp; the rate at which the gate says so of random
galaxies stands beside it, because at a rate of some per cent a lens without a visible arc passes too. Surfaces give the same
factors for injections of a stated population; here they are those of whatever lenses somebody has listed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.columns.anchors import ANCHORS
from lens_assets.science.completeness.detectability import GateSpec, observable
from lens_assets.science.completeness.thresholds import operating_points
from lens_assets.science.errors import BadInput
from lens_assets.science.intervals import wilson

TIERS = ("confirmed", "A")
_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("confirmed and A", TIERS),
    ("confirmed", TIERS[:1]),
    ("A", TIERS[1:]),
)


def anchor_recall(
    sets: dict[str, pl.DataFrame], gates: pl.DataFrame, gate: GateSpec, thresholds: pl.DataFrame
) -> pl.DataFrame:
    """The table ``anchors``: one row a set, tier and operating point.

    Parameters
    ----------
    sets : scored rows by name of the set (held-out, independent, ...): ``galaxy_id, label, tier, score``.
    gates : table ``gate_statistics``; a lens without a statistic cannot be judged and is counted in ``n_unmeasured``.
    thresholds : the detector's operating points; refused ones have no rows.

    A set without a lens of a tier has no row for it. Raises :class:`BadInput` for a missing column.
    """
    points, _ = operating_points(thresholds)
    seen = gates.select("galaxy_id", "gate_statistic")
    rows: list[dict[str, Any]] = []
    for name, frame in sorted(sets.items()):
        for column in ("galaxy_id", "label", "tier", "score"):
            if column not in frame.columns:
                raise BadInput("anchors need this column", column=column)
        lenses = frame.filter((pl.col("label") == 1) & pl.col("tier").is_in(list(TIERS)))
        lenses = lenses.join(seen, on="galaxy_id", how="left", validate="m:1")
        for title, tiers in _ROWS:
            part = lenses.filter(pl.col("tier").is_in(list(tiers)))
            if part.height:
                rows += [_row(name, title, part, p.name, p.cut, gate) for p in points]
    schema = {c.name: c.dtype for c in ANCHORS.columns}
    return ANCHORS.conform(pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame(schema=schema))


def _row(name: str, tiers: str, part: pl.DataFrame, point: str, cut: float, gate: GateSpec) -> dict[str, Any]:
    statistic = part["gate_statistic"].fill_null(np.nan).to_numpy()
    found, judged = part["score"].to_numpy() >= cut, np.isfinite(statistic)
    seen = observable(statistic, gate)
    n, n_seen = int(judged.sum()), int(seen.sum())
    both, hidden = int((found & seen).sum()), int((found & judged & ~seen).sum())
    row: dict[str, Any] = {
        "anchor_set": name, "anchor_tiers": tiers, "operating_point": point, "cut": cut, "n_anchors": n,
        "n_unmeasured": int((~judged).sum()), "n_anchors_observable": n_seen, "n_anchors_found": both + hidden,
        "n_anchors_found_observable": both, "n_anchors_found_unobservable": hidden,
        "gate_false_alarm": gate.false_alarm, "gate_false_alarm_lo95": gate.false_alarm_lo95,
        "gate_false_alarm_hi95": gate.false_alarm_hi95, "n_gate_randoms": gate.n_randoms,
    }  # fmt: skip
    for stem, k, of in (
        ("observable_recall", n_seen, n),
        ("conditional_recall", both, n_seen),
        ("anchor_recall", both + hidden, n),
    ):
        row[stem] = k / of if of else None
        for level in (68, 95):
            own = wilson(k, of, level / 100)
            row |= {
                f"{stem}_lo{level}": float(own.lo) if of else None,
                f"{stem}_hi{level}": float(own.hi) if of else None,
            }
    return row
