"""Does the sample look like what it was drawn from? Report and checks of sky coverage, type mix and mixture.

(A published set of negatives came from one strip of sky and had one TYPE under-sampled seven times over.)
"""

from __future__ import annotations

import numpy as np
import polars as pl

from lens_assets.science.negatives.exclusion import matched_known
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.strata import nobs_bin
from lens_assets.science.sphere import cell_of

SKY_NSIDE = 8
"""Coarse sky cells of the coverage report (7.3 deg)."""


def _axes(frame: pl.DataFrame) -> dict[str, pl.Series]:
    sky = pl.Series(cell_of(frame["ra"].to_numpy(), frame["dec"].to_numpy(), SKY_NSIDE)).cast(pl.String)
    dec = frame.select(((pl.col("dec") / 10).floor() * 10).cast(pl.Int64).cast(pl.String).alias("d"))["d"]
    return {
        "type": frame["type"],
        "nobs_bin": frame.select(nobs_bin().alias("b"))["b"],
        "pool": frame["pool"],
        "dec": dec,
        "sky": sky,
    }


def parent_counts(pool: pl.DataFrame) -> pl.DataFrame:
    """Counts of a tile's pool along each axis of the coverage report (``axis, value, n``); concatenate those of
    tiles.
    """
    parts = [
        s.alias("value").value_counts(name="n").select(pl.lit(axis).alias("axis"), pl.col("value").cast(pl.String), "n")
        for axis, s in _axes(pool).items()
    ]
    return pl.concat(parts).with_columns(pl.col("n").cast(pl.Int64)).sort("axis", "value")


def coverage(sample: pl.DataFrame, parent: pl.DataFrame) -> pl.DataFrame:
    """``axis, value, n_sample, n_parent, share_sample, share_parent, share_weighted``, sorted.

    ``parent`` is :func:`parent_counts` of all tiles. The sample follows the positives' TYPE and nobs_z by design, so
    ``share_weighted`` repeats the sample's share with its ``deployment_weight``: that one must agree with the parent's.
    """
    parent = parent.group_by("axis", "value").agg(pl.col("n").sum().alias("n_parent"))
    weighted = [
        pl.DataFrame({"value": s.cast(pl.String), "w": sample["deployment_weight"]})
        .group_by("value")
        .agg(pl.len().cast(pl.Int64).alias("n_sample"), pl.col("w").sum())
        .with_columns(axis=pl.lit(axis))
        for axis, s in _axes(sample).items()
    ]
    both = parent.join(pl.concat(weighted), on=["axis", "value"], how="full", coalesce=True).with_columns(
        pl.col("n_sample", "n_parent").fill_null(0), pl.col("w").fill_null(0.0)
    )
    return both.select(
        "axis",
        "value",
        "n_sample",
        "n_parent",
        share_sample=pl.col("n_sample") / pl.col("n_sample").sum().over("axis"),
        share_parent=pl.col("n_parent") / pl.col("n_parent").sum().over("axis"),
        share_weighted=pl.col("w") / pl.col("w").sum().over("axis"),
    ).sort("axis", "value")


def coverage_problems(table: pl.DataFrame, *, max_sky_distance: float = 0.25, min_expected: int = 50) -> list[str]:
    """What the coverage report shows to be wrong.

    The sky: total variation distance (half the summed absolute difference of weighted shares) between sample and parent
    above ``max_sky_distance``, or a coarse cell without a single object where at least ``min_expected`` were to be
    expected. Types are judged against their targets, see :func:`strata_problems`.
    """
    problems = []
    total = int(table.filter(pl.col("axis") == "sky")["n_sample"].sum())
    sky = table.filter(pl.col("axis") == "sky")
    distance = 0.5 * float((sky["share_weighted"] - sky["share_parent"]).abs().sum())
    if not np.isfinite(distance) or distance > max_sky_distance:
        problems.append(
            f"the sample covers the sky unlike its parent: total variation {distance:.3f} > {max_sky_distance}"
        )
    holes = sky.filter((pl.col("n_sample") == 0) & (pl.col("share_parent") * total >= min_expected))
    problems += [
        f"no object in sky cell {v}, which holds {s:.1%} of the parent"
        for v, s in holes["value", "share_parent"].iter_rows()
    ]
    return problems


def strata_problems(strata: pl.DataFrame, *, max_shortfall: float = 0.0) -> list[str]:
    """Strata that got less than their target: the share missing over the whole TYPE where it exceeds
    ``max_shortfall``.
    """
    by_type = strata.group_by("type").agg(pl.col("target", "shortfall").sum()).sort("type")
    return [
        f"{kind}: {short} of {target} negatives are missing"
        for kind, target, short in by_type.iter_rows()
        if target and short > max_shortfall * target
    ]


def mix_problems(sample: pl.DataFrame, settings: Settings) -> list[str]:
    """Whether the realised N2 share is the wanted one within ``mix_tolerance`` (or one object, in a small sample)."""
    if not sample.height:
        return ["the sample is empty"]
    share = float((sample["pool"] == "N2").mean())  # type: ignore[arg-type]
    tolerance = max(settings.mix_tolerance, 1 / sample.height)
    if abs(share - settings.n2_share) > tolerance:
        return [f"N2 is {share:.3f} of the sample, wanted {settings.n2_share} +- {tolerance:.3f}"]
    return []


def known_lens_problems(sample: pl.DataFrame, registry: pl.DataFrame, arcsec: float) -> list[str]:
    """Negatives within ``arcsec`` of a known system, by an independent look at the finished sample."""
    index, sep = matched_known(sample.drop("cell", strict=False), registry, arcsec)
    return [
        f"negative {sample['galaxy_id'][int(i)]} lies {sep[i]:.2f} arcsec from a known system"
        for i in np.flatnonzero(index >= 0)
    ]
