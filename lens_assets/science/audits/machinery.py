"""The machinery of a surface against a population whose completeness is known to be the surface's own.

Arcs of the surface's own variant on fresh galaxies, one on each: nothing but chance can tell them from its injections. (For
variants on hosts chosen by their light the fresh ones match in TYPE and pool alone, so the test is strict for random hosts.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.audits.instrument import Instrument
from lens_assets.science.audits.twins import score_engine
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.detectors.score import score_rows
from lens_assets.science.hashing import seed_of, uniform
from lens_assets.science.injections.batch import StampSource, plan_batch
from lens_assets.science.injections.hosts import choose_hosts, host_key
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.intervals import wilson


def fresh_hosts(
    galaxies: pl.DataFrame, like: pl.DataFrame, settings: InjectionSettings, seed: int
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
    chosen = choose_hosts(sample.drop("psf_bin", "depth_bin"), settings, "random").hosts
    return chosen, {f"{t} {p}": int(n) for t, p, n in short.sort("type", "pool").iter_rows()}


def own_arcs(instrument: Instrument, fresh: pl.DataFrame, stamps: StampSource, cells: pl.DataFrame) -> pl.DataFrame:
    """One arc of the surface's own variant on every fresh galaxy, theta_E by hash: lenses whose completeness is the
    surface's, independent of each other and of it."""
    settings = instrument.injections.model_copy(update={"per_cell": fresh.height, "max_host_reuse": 1})
    grid = instrument.surface.grid
    radii = [grid.theta_e.centres[i] for i in cells["i_theta"].unique().sort()]
    turn = (
        uniform(host_key(fresh["galaxy_id"]).astype(np.uint64), seed_of("closure theta", settings.seed)) * len(radii)
    ).astype(int)
    parts = []
    for t, theta in enumerate(radii):
        mine = fresh.filter(pl.Series(turn == t)).with_columns(pl.lit(instrument.variant.hosts).alias("host_set"))
        seed = seed_of("closure arcs", settings.seed) >> 2
        rows = plan_batch(mine, instrument.variant, theta, settings, seed, instrument.priors)
        parts.append(score_engine(rows, stamps, instrument.scorer, settings, instrument.variant))
    return pl.concat(parts).select("galaxy_id", "theta_e", "psfsize_r", "depth_r", "score")


def false_positives(
    instrument: Instrument, fresh: pl.DataFrame, stamps: StampSource, point: OperatingPoint
) -> dict[str, Any]:
    score = score_rows(instrument.scorer, fresh["galaxy_id"], stamps)["score"].to_numpy()
    k = int((score >= point.cut).sum())
    own = wilson(k, score.size, 0.95)
    return {"target": point.fpr_target, "on_fresh_galaxies": k / score.size, "lo95": float(own.lo), "hi95": float(own.hi),
            "n": int(score.size), "set_on": point.n_negatives}  # fmt: skip
