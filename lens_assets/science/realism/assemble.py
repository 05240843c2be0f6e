"""From the platform's tables to the three sets of stamps that the realism report compares.

Real: held-out confirmed and tier-A lenses (never trained on). Injected: a bounded number of injections by smallest
stable hash, re-rendered. Hosts: the same hosts untouched. All through one reader, one gate and one frozen detector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.completeness.detectability import GateSpec, gate_statistic, observable
from lens_assets.science.detectors.score import Scorer
from lens_assets.science.hashing import generator
from lens_assets.science.injections.batch import StampSource, inject
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.injections.variants import Variant
from lens_assets.science.realism.panel import Panel, assemble
from lens_assets.science.realism.report import RealismReport
from lens_assets.science.realism.settings import Settings
from lens_assets.science.realism.stamps import StampSet

CONDITIONS = ["galaxy_id", "psfsize_g", "psfsize_r", "psfsize_z", "depth_r"]
TIERS = ("confirmed", "A")


def held_out_lenses(sample: pl.DataFrame) -> pl.DataFrame:
    """Rows of lenses that may judge realism: confirmed or tier A, in no training or guard split, galaxy-scale arcs."""
    return sample.filter(
        (pl.col("label") == 1) & pl.col("tier").is_in(TIERS) & pl.col("split").is_in(["val", "test", "evaluation"])
    ).sort("galaxy_id")


def real_set(rows: pl.DataFrame, stamps: StampSource, scorer: Scorer, gate: GateSpec, what: str) -> StampSet:
    """Stamps of catalogue objects with conditions, the gate's word and the detector's features."""
    ids = rows["galaxy_id"].to_list()
    images, invvar = stamps.images(ids), stamps.invvar(ids)
    frame = rows.select(*CONDITIONS, *(["tier"] if "tier" in rows.columns else [])).with_columns(
        observable=pl.Series(observable(gate_statistic(images, invvar).total, gate))
    )
    return StampSet.of(images, invvar, frame, scorer.features(images, invvar > 0), what=what)


def injected_set(
    batches: pl.DataFrame,
    stamps: StampSource,
    scorer: Scorer,
    gate: GateSpec,
    settings: InjectionSettings,
    variant: Variant,
    *,
    most: int,
    seed: int,
) -> StampSet:
    """At most ``most`` injections of a variant, drawn by stable hash, rendered again with their features."""
    rows = batches.sort("injection_id")
    if rows.height > most:
        chosen = generator("realism injections", variant.name, seed).choice(rows.height, most, replace=False)
        rows = rows[np.sort(chosen)]
    images, invvar = [], []
    for chunk in inject(rows, stamps, settings, variant):
        images.append(chunk.images)
        invvar.append(chunk.invvar)
    im, iv = np.concatenate(images), np.concatenate(invvar)
    frame = rows.select(
        pl.col("injection_id").alias("id"), *CONDITIONS, pl.col("arc_snr"), pl.col("lensed_mag_r"), pl.col("theta_e")
    ).with_columns(observable=pl.Series(observable(gate_statistic(im, iv).total, gate)))
    return StampSet.of(im, iv, frame, scorer.features(im, iv > 0), what="injected")


def other_negatives(sample: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """Real non-lenses that neither train nor host, for the host-only control: at most ``most``, by stable hash."""
    rows = sample.filter(
        (pl.col("label") == 0) & pl.col("split").is_in(["val", "test"]) & (pl.col("role") != "host")
    ).sort("galaxy_id")
    if rows.height > most:
        rows = rows[np.sort(generator("realism negatives", seed).choice(rows.height, most, replace=False))]
    return rows


def features_of(rows: pl.DataFrame, stamps: StampSource, scorer: Scorer) -> npt.NDArray[np.float32]:
    """Penultimate features (n, f) of catalogue objects."""
    ids = rows["galaxy_id"].to_list()
    return scorer.features(stamps.images(ids), stamps.invvar(ids) > 0)


def panel_of(report: RealismReport, real: StampSet, injected: StampSet, settings: Settings) -> Panel | None:
    """The blinded panel of stamps matched in conditions and brightness; ``None`` where there are too few of either kind."""
    matched = report.measures.filter(pl.col("matched_brightness"))
    sides = []
    for side, stamps in (("real", real), ("injected", injected)):
        ids = set(matched.filter(pl.col("side") == side)["id"].to_list())
        sides.append(stamps.take(np.array([i in ids for i in stamps.frame["id"]], dtype=bool)))
    if min(len(sides[0]), sides[1].frame["group"].n_unique()) < settings.panel_size - settings.panel_size // 2:
        return None
    return assemble(sides[0], sides[1], settings.panel_size, tuple(report.facts["identity"]))
