"""Which detector is the champion: the rule, and where each of the others stands against it.

A detector may be champion when none of its deciding gates is red or could not be judged (``shortcuts``); yellow is told, not
forbidden. Of these the champion is the one with the highest lower 95 % bound of the held-out AUC: a better value on fewer
lenses does not win by luck. Where no detector may, there is no champion. Each of the others is compared with the champion
on the same rows (``compare``), so that "not better" can be told from "not distinguishable".

The champion is chosen on the lenses that report it: of k detectors the best bound is flattered by the choice, which is why
``n_candidates`` is recorded. A number for a paper comes from a set that chose nothing (``independent``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from lens_assets.science.columns.detectors import DIFFERENCES
from lens_assets.science.columns.gates import STANDING
from lens_assets.science.detectors.compare import compare
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.shortcuts import standing
from lens_assets.science.detectors.strata import ALL, HELD_OUT
from lens_assets.science.errors import BadInput

BARRED = ("red", "insufficient")


@dataclass(frozen=True)
class Candidate:
    """A detector with what the rule looks at: gates, metrics and thresholds of its evaluation, scores."""

    key: str
    gates: pl.DataFrame
    metrics: pl.DataFrame
    thresholds: pl.DataFrame
    scores: pl.DataFrame


@dataclass(frozen=True)
class Promotion:
    """``champion`` (``None``: nobody may), one row a detector, and the differences of all from the ``reference``: the
    champion, or where there is none the best by the same bound."""

    champion: str | None
    reference: str
    standing: pl.DataFrame
    differences: pl.DataFrame


def promote(candidates: Mapping[str, Candidate], sample: pl.DataFrame, settings: Settings) -> Promotion:
    """Apply the rule; ``sample`` is what ``compare`` takes."""
    if not candidates:
        raise BadInput("no detector has been evaluated and gated")
    colours, words = {}, {}
    for key, c in sorted(candidates.items()):
        colours[key], words[key] = standing(c.gates)
    aucs = {key: _auc(c.metrics) for key, c in sorted(candidates.items())}

    def order(key: str) -> tuple[float, str]:
        low = aucs[key]["lo95"]
        return (-low if low is not None else 2.0, key)

    allowed = [key for key in aucs if colours[key] not in BARRED and aucs[key]["lo95"] is not None]
    champion = min(allowed, key=order) if allowed else None
    reference = champion or min(aucs, key=order)
    parts = []
    ref = candidates[reference]
    for key, c in sorted(candidates.items()):
        if key != reference:
            names = (key, reference)
            parts.append(compare(sample, c.scores, ref.scores, c.thresholds, ref.thresholds, settings, names))
    empty = pl.DataFrame(schema={c.name: c.dtype for c in DIFFERENCES.columns})
    differences = DIFFERENCES.conform(pl.concat([empty, *parts]))
    whole = {
        r["detector_a"]: r
        for r in differences.filter(
            (pl.col("set") == HELD_OUT) & (pl.col("stratum_axis") == ALL) & (pl.col("metric") == "auc")
        ).iter_rows(named=True)
    }
    rows = []
    for key, auc in aucs.items():
        versus = whole.get(key, {})
        rows.append(
            {
                **auc,
                "detector": key,
                "gate_colour": colours[key],
                "champion": key == champion,
                "n_candidates": len(candidates),
                "detector_b": reference,
                "metric_difference": versus.get("metric_difference"),
                "p_paired": versus.get("p_paired"),
                "standing_reason": _reason(key, champion, colours[key], words[key], auc["lo95"] is not None),
            }
        )
    schema = {c.name: c.dtype for c in STANDING.columns}
    return Promotion(champion, reference, STANDING.conform(pl.DataFrame(rows, schema=schema)), differences)


def _auc(metrics: pl.DataFrame) -> dict[str, float | int | None]:
    found = metrics.filter((pl.col("set") == HELD_OUT) & (pl.col("stratum_axis") == ALL) & (pl.col("metric") == "auc"))
    names = ("value", "lo68", "hi68", "lo95", "hi95", "n", "n_pos")
    return found.select(names).row(0, named=True) if found.height else {**dict.fromkeys(names), "n": 0, "n_pos": 0}


def _reason(key: str, champion: str | None, colour: str, words: list[str], measured: bool) -> str:
    told = "; ".join(words)
    if key == champion:
        return "champion: the highest lower 95 % bound of the held-out AUC" + (f" (told: {told})" if told else "")
    if colour in BARRED:
        return f"may not be champion: {told}"
    if not measured:
        return "may not be champion: no held-out AUC"
    return "its lower bound is below the champion's" + (f" (told: {told})" if told else "")
