"""The machinery of a surface against a population whose completeness is known to be the surface's own.

Arcs of the surface's own variant on fresh galaxies: nothing but chance can tell them from its injections. The galaxies have the
mix of TYPE and pool of its hosts. Where the variant chooses its hosts by their light they pass the same choice: the cuts of
``matched``, or for ``calibrated`` the early types, thinned by the light of their cores to resemble the surface's own hosts. What
likeness is left over is a fact of the outcome (standardised differences), and the threshold's false positives are counted before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.audits.instrument import Instrument
from lens_assets.science.audits.twins import score_engine
from lens_assets.science.calibration.hosts import core_properties, early_types, like_lenses
from lens_assets.science.calibration.settings import Settings as CalibrationSettings
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.detectors.score import score_rows
from lens_assets.science.hashing import seed_of, uniform
from lens_assets.science.injections.batch import StampSource, plan_batch
from lens_assets.science.injections.hosts import HostSet, choose_hosts, host_key
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.intervals import wilson


def fresh_hosts(
    galaxies: pl.DataFrame, like: pl.DataFrame, settings: InjectionSettings, seed: int, host_set: HostSet = "random"
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Galaxies of the closure sky as hosts, in the mix of TYPE and pool that the surface's own hosts have in each PSF and
    depth cell, chosen by hash; and by how many each stratum falls short of its share.

    The number is that of the stratum that runs out first, counting strata with at least 5 % of the hosts.
    """
    by = ["psf_bin", "depth_bin", "type", "pool"]
    have = galaxies.group_by(by).agg(pl.len().alias("have"))
    asked = (
        like.group_by(by)
        .agg(pl.len().alias("asked"))
        .join(have, on=by, how="left")
        .with_columns(pl.col("have").fill_null(0))
    )
    place = ["psf_bin", "depth_bin"]
    asked = asked.with_columns(share=pl.col("asked") / pl.col("asked").sum().over(place))
    common = pl.col("share") >= 0.05
    asked = asked.with_columns(
        total=pl.when(common).then(pl.col("have") / pl.col("share")).otherwise(None).min().over(place)
    ).with_columns(quota=(pl.col("total") * pl.col("share")).round().cast(pl.Int64))
    rank = uniform(host_key(galaxies["galaxy_id"]).astype(np.uint64), seed_of("closure fresh", seed))
    rows = galaxies.with_columns(pl.Series("rank_fresh", rank)).join(asked.select(*by, "quota"), on=by, how="inner")
    rows = rows.filter(pl.col("rank_fresh").rank("ordinal").over(by) <= pl.col("quota")).drop("rank_fresh", "quota")
    short = asked.filter(pl.col("have") < pl.col("quota")).group_by("type", "pool").agg(
        (pl.col("quota") - pl.col("have")).sum().alias("short")
    )  # fmt: skip
    sample = rows.with_columns(split=pl.lit("test"), role=pl.lit(settings.host_role), label=pl.lit(0))
    chosen = choose_hosts(sample.drop("psf_bin", "depth_bin"), settings, host_set).hosts
    return chosen, {f"{t} {p}": int(n) for t, p, n in short.sort("type", "pool").iter_rows()}


def fresh_like_own(
    galaxies: pl.DataFrame, instrument: Instrument, stamps: StampSource, seed: int
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Fresh galaxies as the variant of ``instrument`` would choose its hosts, and how alike they are to the surface's own.

    ``instrument.hosts`` needs ``sersic`` beside its own columns. Facts: ``chosen``, ``strata_short`` and, for hosts chosen by the
    light of their cores, ``difference`` (fresh minus own by property, in standard deviations).
    """
    own, how = instrument.hosts, instrument.variant.hosts
    by_light = how == "calibrated"
    if by_light and early_types(own, own).height == own.height:
        galaxies = early_types(galaxies, galaxies)
    among: HostSet = "random" if by_light else how
    fresh, short = fresh_hosts(galaxies, own, instrument.injections, seed, among)
    facts: dict[str, Any] = {"strata_short": short}
    if by_light:
        rows = fresh.join(galaxies.select("galaxy_id", "sersic"), on="galaxy_id", how="left", maintain_order="left")
        cores = core_properties(stamps.images(rows["galaxy_id"].to_list()))
        own_cores = core_properties(instrument.stamps.images(own["galaxy_id"].to_list()))
        match = like_lenses(rows, cores, own, own_cores, CalibrationSettings(seed=seed))
        fresh = fresh.filter(pl.Series(match.keep))
        facts["difference"] = {k: round(v["difference_after"], 3) for k, v in match.balance["properties"].items()}
    return fresh, {"chosen": fresh.height, **facts}


def own_arcs(
    instrument: Instrument, fresh: pl.DataFrame, stamps: StampSource, cells: pl.DataFrame, fewest: int
) -> pl.DataFrame:
    """Arcs of the surface's own variant on every fresh galaxy, theta_E by hash: lenses whose completeness is the
    surface's, independent of it, and of each other within a cell.

    One arc on each galaxy; where that gives a cell fewer than ``fewest`` on average, as many of different theta_E as it takes.
    """
    settings = instrument.injections.model_copy(update={"per_cell": fresh.height, "max_host_reuse": 1})
    grid = instrument.surface.grid
    radii = [grid.theta_e.centres[i] for i in cells["i_theta"].unique().sort()]
    turn = (
        uniform(host_key(fresh["galaxy_id"]).astype(np.uint64), seed_of("closure theta", settings.seed)) * len(radii)
    ).astype(int)
    each = min(len(radii), max(1, int(np.ceil(fewest * cells.height / max(fresh.height, 1)))))
    parts = []
    for t, theta in enumerate(radii):
        mine = fresh.filter(pl.Series((t - turn) % len(radii) < each)).with_columns(
            pl.lit(instrument.variant.hosts).alias("host_set")
        )
        seed = seed_of("closure arcs", settings.seed) >> 2
        rows = plan_batch(mine, instrument.variant, theta, settings, seed, instrument.priors)
        parts.append(score_engine(rows, stamps, instrument.scorer, settings, instrument.elsewhere))
    return pl.concat(parts).select("galaxy_id", "theta_e", "psfsize_r", "depth_r", "score")


def false_positives(
    instrument: Instrument, fresh: pl.DataFrame, stamps: StampSource, point: OperatingPoint
) -> dict[str, Any]:
    score = score_rows(instrument.scorer, fresh["galaxy_id"], stamps)["score"].to_numpy()
    k = int((score >= point.cut).sum())
    own = wilson(k, score.size, 0.95)
    return {"target": point.fpr_target, "on_fresh_galaxies": k / score.size, "lo95": float(own.lo), "hi95": float(own.hi),
            "n": int(score.size), "set_on": point.n_negatives}  # fmt: skip
