"""The realism report: all gates on matched samples, and one verdict, go or no-go, with its reasons.

Gates 1-4 compare at matched observing conditions (PSF and depth) and arc radius, gates of feature space also at matched
lensed brightness. Whatever could not be measured counts against: a blocking gate that is insufficient is a reason for no-go.
A surface may still be made under no-go; ``verdict_allows`` says so and keeps the reason.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.realism import REALISM_GATES, REALISM_MEASURES
from lens_assets.science.cutouts.settings import NormalisationSpec
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.realism import gates as g
from lens_assets.science.realism.background_gates import background_gates
from lens_assets.science.realism.feature_space import feature_gates
from lens_assets.science.realism.gate import GateResult
from lens_assets.science.realism.match import Matched, match
from lens_assets.science.realism.measure import STRUCTURE, arc_measures
from lens_assets.science.realism.settings import GATES, Override, Settings
from lens_assets.science.realism.sources import source_counts
from lens_assets.science.realism.stamps import StampSet

F64 = npt.NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True)
class RealismReport:
    """The verdict and everything behind it. ``measures`` (one row a stamp) is not part of the JSON."""

    verdict: Literal["go", "no-go"]
    reasons: list[str]
    gates: list[GateResult]
    facts: dict[str, Any]
    measures: pl.DataFrame = field(repr=False, compare=False)

    def gate(self, name: str) -> GateResult:
        """One gate by name."""
        return next(x for x in self.gates if x.name == name)

    def with_gate(self, gate: GateResult) -> RealismReport:
        """The same report with one more gate, which decides nothing (the blinded panel's votes come later)."""
        if gate.name in self.facts["blocking"]:
            raise BadInput(f"gate {gate.name} blocks: it belongs into the verdict, not beside it")
        rest = [x for x in self.gates if x.name != gate.name]
        return replace(self, gates=sorted([*rest, gate], key=lambda x: GATES.index(x.name)))

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, six significant digits, nan as null; the same inputs give the same bytes."""
        value = {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "gates": [x.as_dict() for x in self.gates],
            "facts": self.facts,
        }
        return json.dumps(_plain(value), sort_keys=True, indent=1, allow_nan=False)

    def table(self) -> pl.DataFrame:
        """One row a gate, as the table ``realism_gates``."""
        rows = []
        for x in self.gates:
            row = {c.name: _plain(getattr(x, c.name.removeprefix("gate_"), None)) for c in REALISM_GATES.columns}
            rows.append(row | {"gate": x.name, "gate_blocking": x.name in self.facts["blocking"]})
        schema = {c.name: c.dtype for c in REALISM_GATES.columns}
        return REALISM_GATES.conform(pl.DataFrame(rows, schema=schema))

    @property
    def banner(self) -> str:
        """What a surface made under this verdict must say in its header and on its plots; empty under go."""
        return "" if self.verdict == "go" else "REALISM NO-GO: " + "; ".join(self.reasons)

    @property
    def tag(self) -> str:
        """What its name must carry: ``go`` or ``nogo``."""
        return "go" if self.verdict == "go" else "nogo"


def verdict_allows(report: RealismReport, override: Override) -> tuple[bool, str]:
    """Whether what depends on the verdict may be made, and the reason to record with it."""
    if report.verdict == "go":
        return True, "go"
    if override.allow:
        return True, f"no-go overridden: {override.reason.strip()}"
    return False, "no-go: " + "; ".join(report.reasons)


def realism_report(
    real: StampSet,
    injected: StampSet,
    hosts: StampSet,
    negatives_features: npt.ArrayLike | None,
    settings: Settings,
    identity: str | tuple[Any, ...],
    *,
    normalisation: NormalisationSpec,
    negatives_groups: npt.ArrayLike | None = None,
) -> RealismReport:
    """Judge ``injected`` against ``real`` lenses.

    real : held-out confirmed and tier-A lenses. injected : injections, ``galaxy_id`` their host. hosts : the same hosts
    untouched, unique by ``galaxy_id``. All three with features for gate 5. negatives_features : (n, d) of other real
    negatives, for the host-only control (``negatives_groups`` their ids; default: each row its own).
    identity : names the report (detector, variant, ...) and seeds all that is drawn.
    normalisation : the detector's; the background of ``annulus_snr`` is its annulus.
    """
    if hosts.frame["galaxy_id"].n_unique() != len(hosts):
        raise BadInput("hosts: an untouched host appears twice", column="galaxy_id")
    key: tuple[Any, ...] = ("realism", settings.seed, *(identity if isinstance(identity, tuple) else (identity,)))
    facts: dict[str, Any] = {
        "identity": list(key),
        "settings": settings.model_dump(mode="json"),
        "settings_digest": digest(settings)[:16],
        "blocking": list(settings.blocking),
        "n": {"real": len(real), "injected": len(injected), "hosts": len(hosts)},
    }
    real, injected, facts["observable"] = _observable(real, injected, settings)
    m_real, m_inj = (
        arc_measures(s.images, s.invvar, normalisation, colour_min_snr=settings.colour_min_snr)
        for s in (real, injected)
    )
    conditions = _matched(real, injected, m_real, m_inj, settings, key, brightness=False)
    bright = _matched(real, injected, m_real, m_inj, settings, key, brightness=True)
    facts["matching"] = {"conditions": conditions.facts, "brightness": bright.facts}

    results = _population_gates(real, injected, m_real, m_inj, conditions, settings, key)
    background, facts["background"] = background_gates(injected, hosts, settings, key)
    results += background
    results += feature_gates(real, injected, hosts, negatives_features, negatives_groups, bright, settings, key)
    results.sort(key=lambda x: GATES.index(x.name))
    reasons = []
    for x in results:
        if x.name in settings.blocking and x.passed is not True:
            if x.status == "insufficient":
                reasons.append(f"{x.name}: insufficient ({x.detail['reason']})")
            else:
                sign = ">" if x.better == "low" else "<="
                reasons.append(f"{x.name}: {x.value:.3g} {sign} {x.bar:.3g}{' ' + x.unit if x.unit else ''}")
    facts["sources"] = sources = source_counts(injected, conditions, settings)
    if sources and sources["distinct"] < settings.min_sources:
        reasons.append(
            f"sources: {sources['distinct']} distinct real galaxies, at least {settings.min_sources} are needed"
        )
    measures = pl.concat(
        [
            _labelled(real, m_real, "real", conditions.real, bright.real),
            _labelled(injected, m_inj, "injected", conditions.injected, bright.injected),
        ]
    )
    return RealismReport("no-go" if reasons else "go", reasons, results, facts, REALISM_MEASURES.conform(measures))


def _observable(real: StampSet, injected: StampSet, settings: Settings) -> tuple[StampSet, StampSet, dict[str, Any]]:
    if not (settings.observable_only and real.has(["observable"]) and injected.has(["observable"])):
        return real, injected, {"applied": False}
    keep = [s.frame["observable"].fill_null(False).to_numpy().astype(bool) for s in (real, injected)]
    facts = {"applied": True, "real": [int(keep[0].sum()), len(real)], "injected": [int(keep[1].sum()), len(injected)]}
    return real.take(keep[0]), injected.take(keep[1]), facts


def _column(frame: pl.DataFrame, name: str) -> F64:
    return frame[name].cast(pl.Float64).fill_null(NAN).to_numpy().astype(np.float64)


def _matched(
    real: StampSet,
    injected: StampSet,
    m_real: pl.DataFrame,
    m_inj: pl.DataFrame,
    settings: Settings,
    key: tuple[Any, ...],
    *,
    brightness: bool,
) -> Matched:
    t = settings.matching
    tolerance = {"psfsize_r": t.psfsize_arcsec, "depth_r": t.depth_mag}
    sides: list[dict[str, F64]] = [{a: s.column(a) for a in tolerance} for s in (real, injected)]
    measured = {"arc_radius": t.radius_arcsec} | ({"excess_mag_r": t.brightness_mag} if brightness else {})
    for name, reach in measured.items():
        if reach is not None:
            tolerance[name] = reach
            for side, measures in zip(sides, (m_real, m_inj), strict=True):
                side[name] = _column(measures, name)
    exact = (
        [None, None]
        if not t.exact
        else [
            np.asarray(["\x1f".join(map(str, row)) for row in s.frame.select(t.exact).rows()], dtype=str)
            for s in (real, injected)
        ]
    )
    return match(
        sides[0],
        sides[1],
        tolerance,
        real_ids=real.strings("id"),
        injected_ids=injected.strings("id"),
        per_real=t.per_real,
        real_exact=exact[0],
        injected_exact=exact[1],
        identity=(*key, brightness),
    )


def _population_gates(
    real: StampSet,
    injected: StampSet,
    m_real: pl.DataFrame,
    m_inj: pl.DataFrame,
    m: Matched,
    s: Settings,
    key: tuple[Any, ...],
) -> list[GateResult]:
    a, b = m_real[m.real], m_inj[m.injected]
    ga, gb = real.strings("group")[m.real], injected.strings("group")[m.injected]
    out = [
        g.snr_gate("arc_snr", _column(a, "excess_snr_r"), _column(b, "excess_snr_r"), ga, gb, s, key),
        g.snr_gate("annulus_snr", _column(a, "total_snr_r"), _column(b, "total_snr_r"), ga, gb, s, key),
    ]
    for name, stem in (("annulus_colour", "annulus"), ("arc_colour", "excess")):
        colours = [{c: _column(m_, f"{stem}_{c}") for c in ("gr", "rz")} for m_ in (a, b)]
        out.append(g.colour_gate(name, colours[0], colours[1], ga, gb, s, key))
    for name, measure in STRUCTURE.items():
        out.append(g.distance_gate(name, _column(a, measure), _column(b, measure), ga, gb, s, key))
    return out


def _labelled(stamps: StampSet, measures: pl.DataFrame, side: str, conditions: Any, bright: Any) -> pl.DataFrame:
    flags = {
        name: np.isin(np.arange(len(stamps)), rows)
        for name, rows in (("conditions", conditions), ("brightness", bright))
    }
    head = stamps.frame.select(pl.col("id").cast(pl.String), pl.col("galaxy_id").cast(pl.String))
    return pl.concat(
        [
            head.with_columns(
                side=pl.lit(side),
                matched_conditions=pl.Series(flags["conditions"]),
                matched_brightness=pl.Series(flags["brightness"]),
            ),
            measures,
        ],
        how="horizontal",
    )


def _plain(value: Any) -> Any:
    """JSON types only; floats to six significant digits, not finite as None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    if value is None or isinstance(value, str):
        return value
    return _plain(asdict(value))
