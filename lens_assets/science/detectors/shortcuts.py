"""The gates of a detector: does it, or could it, tell lenses by anything but their arcs?

**In what it learnt from** (roles ``train`` and ``select``, normalised as the detector sees them; ``probes``):

``metadata_only``        catalogue metadata alone (``splits.shortcut``)
``core_only``            the pixels that arcs hardly reach, r < 3 px (0.79"); ``core_only_wide`` r < 4 px
``outside_arcs``         ring means at r < 3 and 16 <= r < 28 px: the galaxy's own profile
``radial_profile``       ring means at r < 28 px, those of the arcs included
``annulus_only``         4 <= r < 16 px: must be strong, or there is nothing to learn

each over all rows and (``*_matched``) over lenses and non-lenses of the same TYPE, magnitude and colours. Real deflectors
are brighter, redder and of higher Sersic index than random galaxies, so that the first may be red for astrophysical
reasons; what remains after matching is a shortcut of the sample. The matched ones decide. ``radial_profile`` and
``core_only_wide`` are reported only: injections of known arcs into random hosts, where no shortcut can be, reach 0.74 to
0.79 and 0.56 (``docs/decisions/0009``).

**Of the frozen detector itself** (``realism.adversarial``): mean score of untouched hosts (``null_injection``), of lenses
with the arc replaced by galaxy and sky (``arc_suppressed``), and of galaxies with a ring no lens makes
(``adversarial_ring_sharp``, ``adversarial_ring_one_band``).

Colours: green within the bar; yellow beyond it; red where the bound of the 68 % interval nearest the bar lies beyond the
red bar. A gate without enough objects is *insufficient*, which is not green: it forbids promotion as red does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.gates import DETECTOR_GATES
from lens_assets.science.cutouts.normalise import normalise
from lens_assets.science.detectors import probes
from lens_assets.science.detectors.dataset import StampSource
from lens_assets.science.detectors.score import Scorer, conditions_of, probability
from lens_assets.science.detectors.settings import GateSettings
from lens_assets.science.hashing import generator
from lens_assets.science.realism import adversarial
from lens_assets.science.realism.assemble import CONDITIONS, held_out_lenses
from lens_assets.science.realism.gate import GateResult
from lens_assets.science.realism.match import match
from lens_assets.science.realism.settings import Settings as RealismSettings
from lens_assets.science.realism.stamps import StampSet
from lens_assets.science.splits.settings import Settings as SplitSettings
from lens_assets.science.splits.shortcut import ShortcutResult, metadata_shortcut

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
NAN = float("nan")
LEARNT = ("train", "select")
_CHUNK = 256


@dataclass(frozen=True)
class Gate:
    """One gate; fields as the columns of ``detector_gates``, without their prefix."""

    gate: str
    value: float
    lo68: float
    hi68: float
    lo95: float
    hi95: float
    bar: float
    red_bar: float
    unit: str
    better: str
    colour: str
    decides: bool
    n: int
    n_pos: int
    null95: float = NAN
    p: float = NAN
    note: str = ""


def colour_of(value: float, lo68: float, hi68: float, bar: float, red_bar: float, better: str) -> str:
    """The rule of the module's docstring."""
    if not np.isfinite([value, lo68, hi68]).all():
        return "insufficient"
    sign = 1.0 if better == "low" else -1.0
    if sign * value <= sign * bar:
        return "green"
    near = lo68 if better == "low" else hi68
    return "red" if sign * near > sign * red_bar else "yellow"


def table_of(gates: list[Gate]) -> pl.DataFrame:
    """The table ``detector_gates``."""
    own = {"gate", "n", "n_pos"}
    rows = [
        {
            name if name in own else f"gate_{name}": None if isinstance(v, float) and not np.isfinite(v) else v
            for name, v in asdict(g).items()
        }
        for g in gates
    ]
    return DETECTOR_GATES.conform(pl.DataFrame(rows, schema={c.name: c.dtype for c in DETECTOR_GATES.columns}))


def standing(table: pl.DataFrame) -> tuple[str, list[str]]:
    """Colour of the whole (the worst of the gates that decide) and what is wrong, in words."""
    decided = table.filter(pl.col("gate_decides")).sort("gate")
    words = [
        f"{r['gate']} is {r['gate_colour']}: "
        + (r["gate_note"] if r["gate_value"] is None else f"{r['gate_value']:.3f} [{r['gate_lo68']:.3f}, {r['gate_hi68']:.3f}] "
           f"against {r['gate_bar']:g} (red beyond {r['gate_red_bar']:g}), n {r['n']}")
        for r in decided.filter(pl.col("gate_colour") != "green").iter_rows(named=True)
    ]  # fmt: skip
    for colour in ("red", "insufficient", "yellow"):
        if colour in set(decided["gate_colour"]):
            return colour, words
    return "green", words


def detector_gates(
    sample: pl.DataFrame,
    stamps: StampSource,
    scorer: Scorer,
    settings: GateSettings,
    splits: SplitSettings,
    realism: RealismSettings,
) -> pl.DataFrame:
    """All gates of one detector, as the table ``detector_gates``.

    ``sample`` : rows of the split table that have a stamp.
    """
    metadata = metadata_shortcut(sample, splits)
    return table_of(
        [
            _metadata(metadata, settings),
            *probe_gates(sample, stamps, scorer, settings),
            *score_gates(sample, stamps, scorer, settings, realism),
        ]
    )


def _metadata(found: ShortcutResult, s: GateSettings) -> Gate:
    colour = colour_of(found.auc, found.lo68, found.hi68, found.bar, s.red_auc, "low")
    note = f"{found.model}, strata of TYPE and exposures balanced; {found.left_out} objects in strata of one class left out"
    return Gate(
        "metadata_only", found.auc, found.lo68, found.hi68, NAN, NAN, found.bar, s.red_auc, "AUC", "low", colour, True,
        found.n, found.n_positive, note=note,
    )  # fmt: skip


def _features(rows: pl.DataFrame, stamps: StampSource, scorer: Scorer) -> dict[str, F64]:
    """The features of every probe, by its name."""
    parts: dict[str, list[F64]] = {}
    ids = rows["galaxy_id"].to_list()
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        z = normalise(stamps.images(some), scorer.normalisation, valid=stamps.invvar(some) > 0)
        core, halo = probes.region_features(z, probes.CORE, False), probes.region_features(z, probes.HALO, False)
        for name, value in {
            "core_only": probes.region_features(z, probes.CORE, True),
            "core_only_wide": probes.region_features(z, probes.WIDE_CORE, True),
            "outside_arcs": np.concatenate([core, halo], axis=1),
            "radial_profile": probes.region_features(z, probes.RADIAL, False),
            "annulus_only": probes.region_features(z, probes.ANNULUS, True),
        }.items():
            parts.setdefault(name, []).append(value)
    return {name: np.concatenate(values) for name, values in parts.items()}


def probe_gates(sample: pl.DataFrame, stamps: StampSource, scorer: Scorer, s: GateSettings) -> list[Gate]:
    """The probes over all rows and over matched rows."""
    learnt = sample.filter(pl.col("role").is_in(list(LEARNT)))
    lenses = _few(learnt.filter(pl.col("label") == 1), s, "lenses")
    others = learnt.filter(pl.col("label") == 0).sort("galaxy_id")
    pairs, facts = _matched(lenses, others, s)
    random = _few(others, s, "others")
    out: list[Gate] = []
    sides = (("", lenses, random, ""), ("_matched", lenses[pairs[0]], others[pairs[1]], facts))
    for suffix, a, b, note in sides:
        rows = pl.concat([a, b])
        features = _features(rows, stamps, scorer) if a.height and b.height else {}
        ids = np.asarray(rows["galaxy_id"].to_list(), dtype=str)
        for name in ("core_only", "core_only_wide", "outside_arcs", "radial_profile", "annulus_only"):
            if name not in features:
                found = probes.nothing(rows.height, a.height, "no rows")
            else:
                found = probes.probe(
                    features[name], np.arange(rows.height) < a.height, ids=ids, groups=_groups(rows),
                    identity=(name, suffix, s.seed), folds=s.folds, permutations=s.permutations, draws=s.draws,
                    fewest=s.min_groups,
                )  # fmt: skip
            out.append(_of_probe(name, suffix, found, s, note))
    return out


def _of_probe(name: str, suffix: str, found: probes.Probed, s: GateSettings, note: str) -> Gate:
    better = "high" if name == "annulus_only" else "low"
    bar, red = s.bars_of(name)
    colour = colour_of(found.auc, found.lo68, found.hi68, bar, red, better)
    decides = suffix == "_matched" and name in ("core_only", "outside_arcs", "annulus_only")
    words = "; ".join(
        filter(None, (note, f"{found.groups} groups in {found.folds} folds" if found.folds else "", found.detail))
    )
    return Gate(
        f"{name}{suffix}", found.auc, found.lo68, found.hi68, found.lo95, found.hi95, bar, red, "AUC", better, colour,
        decides, found.n, found.n_pos, found.null_hi95, found.p_value, words,
    )  # fmt: skip


def _few(rows: pl.DataFrame, s: GateSettings, what: str) -> pl.DataFrame:
    """At most ``s.most`` rows, by stable hash."""
    rows = rows.sort("galaxy_id")
    if rows.height <= s.most:
        return rows
    return rows[np.sort(generator("gates", what, s.seed).choice(rows.height, s.most, replace=False))]


def _matched(lenses: pl.DataFrame, others: pl.DataFrame, s: GateSettings) -> tuple[tuple[Any, Any], str]:
    """Rows of lenses and of non-lenses of the same TYPE, magnitude and colours, and in words how many."""

    def axes(frame: pl.DataFrame) -> dict[str, F64]:
        return {c: frame[c].cast(pl.Float64).fill_null(NAN).to_numpy() for c in ("mag_r", "gr", "rz")}

    def words(frame: pl.DataFrame, column: str) -> npt.NDArray[np.str_]:
        return np.asarray(frame[column].cast(pl.String).to_list(), dtype=str)

    found = match(
        axes(lenses), axes(others), {"mag_r": s.match_mag, "gr": s.match_colour, "rz": s.match_colour},
        real_ids=words(lenses, "galaxy_id"), injected_ids=words(others, "galaxy_id"), per_real=s.match_each,
        real_exact=words(lenses, "type"), injected_exact=words(others, "type"), identity=("gates", s.seed),
    )  # fmt: skip
    tolerances = f"TYPE, magnitude ({s.match_mag:g}) and colours ({s.match_colour:g})"
    note = f"{len(found.real)} of {lenses.height} lenses matched in {tolerances}"
    return (found.real, found.injected), note


def _groups(rows: pl.DataFrame) -> npt.NDArray[np.str_]:
    own = pl.col("galaxy_id")
    group = pl.coalesce(pl.col("system_id").cast(pl.String), own) if "system_id" in rows.columns else own
    return np.asarray(rows.select(group.alias("g"))["g"].to_list(), dtype=str)


def score_gates(
    sample: pl.DataFrame, stamps: StampSource, scorer: Scorer, s: GateSettings, realism: RealismSettings
) -> list[Gate]:
    """Mean scores of the frozen detector on stamps that must not look like lenses to it."""
    host_rows = _few(sample.filter((pl.col("role") == "host") & (pl.col("label") == 0)), s, "hosts")
    lens_rows = _few(held_out_lenses(sample), s, "held-out")
    hosts, lenses = _stamp_set(host_rows, stamps), _stamp_set(lens_rows, stamps)
    identity = ("gates", s.seed)
    out = []
    for stamp_set, run in (
        (hosts, adversarial.null_injection),
        (lenses, adversarial.arc_suppressed),
        (hosts, adversarial.adversarial_ring),
        (hosts, _one_band),
    ):
        seen = stamp_set.invvar > 0
        told = conditions_of(lens_rows if stamp_set is lenses else host_rows, scorer)

        def score(images: F32, seen: npt.NDArray[np.bool_] = seen, told: pl.DataFrame | None = told) -> F32:
            return probability(scorer.score(images, seen, told))

        before = float(score(stamp_set.images).mean()) if len(stamp_set) else NAN
        out.append(
            _of_score(run(stamp_set, score, realism, identity), before, len(stamp_set) if stamp_set is lenses else 0)
        )
    return out


def _one_band(
    stamps: StampSet, score: adversarial.Score, settings: RealismSettings, identity: tuple[Any, ...]
) -> GateResult:
    return adversarial.adversarial_ring(stamps, score, settings, identity, "one-band")


def _of_score(found: GateResult, before: float, n_pos: int) -> Gate:
    if found.status == "insufficient" or found.bar is None:
        colour, note = "insufficient", str(found.detail.get("reason", ""))
    else:
        colour = colour_of(found.value, found.lo68, found.hi68, found.bar, found.bar, "low")
        note = f"{found.detail['share_above_half']:.3f} of them above 0.5; mean score untouched {before:.3f}"
    return Gate(
        found.name, found.value, found.lo68, found.hi68, found.lo95, found.hi95, found.bar or NAN, found.bar or NAN,
        "mean score", "low", colour, True, found.n_real + found.n_injected, n_pos, note=note,
    )  # fmt: skip


def _stamp_set(rows: pl.DataFrame, stamps: StampSource) -> StampSet:
    ids = rows["galaxy_id"].to_list()
    groups = rows.select(*CONDITIONS).with_columns(group=pl.Series(_groups(rows), dtype=pl.String))
    return StampSet.of(stamps.images(ids), stamps.invvar(ids), groups, what="gates")
