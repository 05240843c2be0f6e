"""The stratified sample of a whole survey from small pieces of its tiles, without ever holding the pools of two tiles.

A sample takes the smallest hashes of each stratum, and the smallest of all are among the smallest of each tile. So a tile hands
over few candidates and its counts, and the union is thinned as it grows. How many are enough is not trusted but proven: a
sample that reaches beyond what a tile handed over is refused, never drawn a little wrong. What does not belong here: how
much each stratum gives (``sample``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.sample import (
    BINS,
    candidates_needed,
    pool_counts,
    stratified_sample,
    targets,
    tile_candidates,
)
from lens_assets.science.negatives.selection import SelectionProfile, load_selection
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.strata import nobs_bin, rank_hash

_GROUP = ("type", "stratum_nobs", "pool")
_THIN_AT = 2  # the union is thinned when it holds so many times what it may have to give


def candidate_limits(
    positives: pl.DataFrame, settings: Settings, profile: SelectionProfile | None = None
) -> pl.DataFrame:
    """``type, stratum_nobs, k``: the most objects (N1, N2 or both) a stratum can have to give, whatever the pools hold.

    Its own target and those of the bins of the same TYPE within ``fill_reach``, which it may have to fill: the ``k`` smallest
    hashes of each pool of a stratum in each tile are always enough. For a survey of many tiles far fewer do (about ``k`` times
    the tile's share of the stratum, with some margin); :func:`sample_from_tiles` says so when they do not.
    """
    wanted = targets(positives, settings, profile or load_selection(settings.selection))
    have = {(kind, bin_): n for kind, bin_, n in wanted.select("type", "stratum_nobs", "target").iter_rows()}
    rows = []
    for kind in sorted({k for k, _ in have}):
        for i, bin_ in enumerate(BINS):
            near = BINS[max(i - settings.fill_reach, 0) : i + settings.fill_reach + 1]
            rows.append((kind, bin_, sum(have.get((kind, b), 0) for b in near)))
    return pl.DataFrame(rows, schema={"type": pl.String, "stratum_nobs": pl.String, "k": pl.Int64}, orient="row")


def sample_from_tiles(
    candidates: Iterable[pl.DataFrame],
    counts: Iterable[pl.DataFrame],
    positives: pl.DataFrame,
    settings: Settings,
    *,
    profile: SelectionProfile | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """:func:`~lens_assets.science.negatives.sample.stratified_sample` of all tiles, from the candidates and counts of each.

    Parameters
    ----------
    candidates : per tile its :func:`~lens_assets.science.negatives.sample.tile_candidates`; taken one at a time, so a
        generator that reads them keeps the memory small.
    counts : per tile the :func:`~lens_assets.science.negatives.sample.pool_counts` of its full pool, in the same order.

    Returns
    -------
    (sample, strata), the same as from the full pools in one frame.

    Raises
    ------
    BadInput : the candidates of a tile are not of its counts, or end before the sample does (there were too few).
    """
    profile = profile or load_selection(settings.selection)
    limits = candidate_limits(positives, settings, profile)
    room = max(2 * int(limits["k"].sum()), 1)
    pieces: list[pl.DataFrame] = []
    tables: list[pl.DataFrame] = []
    horizons: list[pl.DataFrame] = []
    for tile, (some, count) in enumerate(zip(candidates, counts, strict=True)):
        ranked = some.with_columns(rank_hash=pl.Series(rank_hash(some, settings.seed)), stratum_nobs=nobs_bin())
        horizons.append(_horizon(ranked, count, tile))
        tables.append(count)
        pieces.append(ranked)
        if sum(p.height for p in pieces) > _THIN_AT * room:
            pieces = [_thinned(pieces, limits)]
    if not pieces:
        raise BadInput("there are no tiles to draw negatives from")
    union = _thinned(pieces, limits).drop("rank_hash", "stratum_nobs")
    sample, strata = stratified_sample(union, positives, settings, profile=profile, counts=pl.concat(tables))
    _prove_enough(sample, pl.concat(horizons))
    return sample, strata


def sample_from_pools(
    pools: Iterable[pl.DataFrame],
    positives: pl.DataFrame,
    settings: Settings,
    *,
    profile: SelectionProfile | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """:func:`sample_from_tiles` from the full pools, of which one is held at a time."""
    k = candidates_needed(positives, settings, profile)
    counts: list[pl.DataFrame] = []

    def pieces() -> Iterator[pl.DataFrame]:
        for pool in pools:
            counts.append(pool_counts(pool))
            yield tile_candidates(pool, k, settings)

    def tables() -> Iterator[pl.DataFrame]:
        at = 0
        while at < len(counts):
            yield counts[at]
            at += 1

    return sample_from_tiles(pieces(), tables(), positives, settings, profile=profile)


def _horizon(ranked: pl.DataFrame, counts: pl.DataFrame, tile: int) -> pl.DataFrame:
    """Up to which hash the candidates of a tile are complete, per stratum and pool; all that are complete are left out."""
    held = ranked.group_by(_GROUP).agg(held=pl.len().cast(pl.Int64), last=pl.col("rank_hash").max())
    both = counts.group_by(_GROUP).agg(pl.col("n").sum()).join(held, on=_GROUP, how="full", coalesce=True)
    both = both.with_columns(pl.col("n", "held").fill_null(0), tile=pl.lit(tile))
    wrong = both.filter(pl.col("held") > pl.col("n"))
    if wrong.height:
        raise BadInput(
            f"tile {tile} has {wrong['held'][0]} candidates where it counted {wrong['n'][0]}: {wrong.row(0)[:3]}"
        )
    return both.filter(pl.col("held") < pl.col("n")).select(*_GROUP, "tile", "held", last=pl.col("last").fill_null(0))


def _thinned(pieces: list[pl.DataFrame], limits: pl.DataFrame) -> pl.DataFrame:
    """The smallest hashes of each stratum and pool, as many as may be needed (equal ones all)."""
    union = pl.concat(pieces)
    order = union.columns
    place = pl.col("rank_hash").rank("min").over(_GROUP)
    return union.join(limits, on=["type", "stratum_nobs"], how="inner").filter(place <= pl.col("k")).select(order)


def _prove_enough(sample: pl.DataFrame, horizons: pl.DataFrame) -> None:
    """Raise :class:`BadInput` when the sample reaches beyond the candidates of a tile that had more."""
    if not sample.height:
        reached = pl.DataFrame(
            schema={"type": pl.String, "stratum_nobs": pl.String, "pool": pl.String, "reach": pl.UInt64}
        )
    else:
        reached = (
            sample.select("type", "pool", "rank_hash", stratum_nobs=nobs_bin())
            .group_by(_GROUP)
            .agg(reach=pl.col("rank_hash").max())
        )
    short = (
        horizons.join(reached, on=_GROUP, how="inner").filter(pl.col("reach") > pl.col("last")).sort(*_GROUP, "tile")
    )
    if short.height:
        kind, bin_, pool, tile, held = short.select(*_GROUP, "tile", "held").row(0)
        raise BadInput(
            f"{held} candidates of {kind}|{bin_} {pool} in tile {tile} are too few: the sample reaches beyond them "
            f"(candidate_limits says how many are always enough)"
        )
