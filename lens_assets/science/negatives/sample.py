"""The stratified sample: per TYPE and nobs_z bin a fixed number of negatives for each training positive.

Inside a stratum the smallest stable hashes are taken, so the rows are the same whatever the engine, the partitioning
or the order of rows, and a survey-sized merge needs only the smallest few of each tile (:func:`tile_candidates`). A
stratum that cannot give its target is filled from the neighbouring nobs_z bin of the same TYPE; what is still missing
is reported.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.mixture import mixture
from lens_assets.science.negatives.selection import SelectionProfile, load_selection, screen
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.strata import NO_EXPOSURE, NOBS_BINS, need, nobs_bin, rank_hash

BINS = (NO_EXPOSURE, *NOBS_BINS)
STRATA_COLUMNS = (
    "type", "stratum_nobs", "n_positive", "target", "available", "available_n1", "available_n2", "drawn", "filled",
    "given", "shortfall", "taken_n1", "taken_n2",
)  # fmt: skip


def pool_counts(pool: pl.DataFrame) -> pl.DataFrame:
    """Members of each (type, stratum_nobs, pool): columns ``type, stratum_nobs, pool, n``. Counts of tiles are added by
    concatenation.
    """
    return (
        pool.group_by("type", nobs_bin().alias("stratum_nobs"), "pool")
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .sort("type", "stratum_nobs", "pool")
    )


def tile_candidates(pool: pl.DataFrame, k: int, settings: Settings) -> pl.DataFrame:
    """The ``k`` smallest hashes of each (type, stratum_nobs, pool) of a tile, sorted by ``galaxy_id``.

    The sample of the union of all tiles' candidates equals that of the full pools when ``k`` is at least
    :func:`candidates_needed` and the full pools' :func:`pool_counts` are handed on.
    """
    ranked = pool.with_columns(rank_hash=pl.Series(rank_hash(pool, settings.seed)), stratum_nobs=nobs_bin())
    place = pl.col("rank_hash").rank("ordinal").over("type", "stratum_nobs", "pool")
    return ranked.filter(place <= k).drop("rank_hash", "stratum_nobs").sort("galaxy_id")


def candidates_needed(positives: pl.DataFrame, settings: Settings, profile: SelectionProfile | None = None) -> int:
    """The largest number of rows that any stratum and pool could have to give: the largest target of a whole TYPE."""
    wanted = targets(positives, settings, profile or load_selection(settings.selection))
    return max(wanted.group_by("type").agg(pl.col("target").sum())["target"].to_list(), default=0)


def targets(positives: pl.DataFrame, settings: Settings, profile: SelectionProfile) -> pl.DataFrame:
    """``type, stratum_nobs, n_positive, target``: training lenses that pass the screen, and the negatives wanted for them."""
    need(positives, ["galaxy_id", "use", "type", "nobs_z"], "positives")
    kept = screen(positives.filter(pl.col("use") == "train"), profile, "positive")[0].unique("galaxy_id")
    counts = kept.group_by("type", nobs_bin().alias("stratum_nobs")).agg(pl.len().cast(pl.Int64).alias("n_positive"))
    return counts.with_columns(
        target=(pl.col("n_positive") * settings.negatives_per_positive).round().cast(pl.Int64)
    ).sort("type", "stratum_nobs")


def stratified_sample(
    pools: pl.DataFrame,
    positives: pl.DataFrame,
    settings: Settings,
    *,
    profile: SelectionProfile | None = None,
    counts: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Draw the negatives.

    Parameters
    ----------
    pools : the pools of all tiles (or their candidates) in one frame, any row order.
    positives : the ``positives`` table; those with ``use == "train"`` that pass the profile's own screen set the
        targets.
    profile : the selection the pools were made under (default: ``settings.selection``).
    counts : :func:`pool_counts` of the full pools, when ``pools`` holds candidates only.

    Returns
    -------
    (sample sorted by ``galaxy_id``, strata table). The sample adds ``stratum_type`` and ``stratum_nobs`` (the stratum
    a row counts for), ``drawn_from`` (the stratum it belongs to, ``TYPE|bin``), ``rank_hash``, and
    ``deployment_weight``: how many objects of the pools the row stands for (available / taken of its own stratum and
    pool), which turns a rate in the sample into a rate in the parent. In the strata table ``drawn + filled +
    shortfall == target`` in every stratum.
    """
    profile = profile or load_selection(settings.selection)
    need(pools, ["galaxy_id", "release", "brickid", "objid", "type", "nobs_z", "pool"], "negative pools")
    doubled = pools["galaxy_id"].is_duplicated()
    if doubled.any():
        row = int(doubled.arg_true()[0])
        raise BadInput(f"{pools['galaxy_id'][row]} is in the pools more than once", column="galaxy_id", row=row)
    strata = _plan(targets(positives, settings, profile), pool_counts(pools) if counts is None else counts, settings)
    ranked = pools.with_columns(rank_hash=pl.Series(rank_hash(pools, settings.seed)), own_bin=nobs_bin())
    quota = pl.concat(
        strata.select(
            "type", own_bin="stratum_nobs", pool=pl.lit(p), quota=f"taken_{p.lower()}", n=f"available_{p.lower()}"
        )
        for p in ("N1", "N2")
    )
    taken = (
        ranked.join(quota, on=["type", "own_bin", "pool"], how="inner")
        .with_columns(place=pl.col("rank_hash").rank("ordinal").over("type", "own_bin", "pool"))
        .filter(pl.col("place") <= pl.col("quota"))
        .with_columns(deployment_weight=pl.col("n") / pl.col("quota"))
        .drop("quota", "n", "place")
    )
    promised = strata.select((pl.col("taken_n1") + pl.col("taken_n2")).sum()).item()
    if taken.height != promised:
        raise BadInput(f"the pools gave {taken.height} of {promised} rows: the counts are not those of these pools")
    strata, served = _account(strata)
    place = pl.col("rank_hash").rank("ordinal").over("type", "own_bin").cast(pl.Int64)
    labelled = (
        taken.with_columns(place=place)
        .sort("type", "own_bin", "place")
        .join(served, on=["type", "own_bin"], how="left")
        .filter((pl.col("place") > pl.col("after")) & (pl.col("place") <= pl.col("until")))
    )
    sample = (
        labelled.with_columns(
            stratum_type=pl.col("type"),
            stratum_nobs=pl.col("serves"),
            drawn_from=pl.concat_str("type", "own_bin", separator="|"),
        )
        .select(*pools.columns, "stratum_type", "stratum_nobs", "drawn_from", "rank_hash", "deployment_weight")
        .sort("galaxy_id")
    )
    if (
        sample.height != promised
        or strata.filter(pl.col("drawn") + pl.col("filled") + pl.col("shortfall") != pl.col("target")).height
    ):
        raise BadInput("the strata table does not account for the sample")
    return sample, strata.select(STRATA_COLUMNS)


def _plan(targets: pl.DataFrame, counts: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """One row a stratum with what it gives: ``own``, ``gifts`` (to which bin how many), ``taken_n1``, ``taken_n2``."""
    have: dict[tuple[str, str, str], int] = {}
    for kind, bin_, pool, n in counts.select("type", "stratum_nobs", "pool", "n").iter_rows():
        have[kind, bin_, pool] = have.get((kind, bin_, pool), 0) + n
    positive = {
        (t, b): (n, k) for t, b, n, k in targets.select("type", "stratum_nobs", "n_positive", "target").iter_rows()
    }
    rows = []
    for kind in sorted({t for t, _ in positive} | {t for t, _, _ in have}):
        n1 = [have.get((kind, b, "N1"), 0) for b in BINS]
        n2 = [have.get((kind, b, "N2"), 0) for b in BINS]
        target = [positive.get((kind, b), (0, 0))[1] for b in BINS]
        own = [min(t, a + b) for t, a, b in zip(target, n1, n2, strict=True)]
        gifts = _fills(target, own, [a + b - o for a, b, o in zip(n1, n2, own, strict=True)], settings.fill_reach)
        for i, b in enumerate(BINS):
            if b == NO_EXPOSURE and not (target[i] or n1[i] + n2[i]):
                continue
            rows.append((kind, b, positive.get((kind, b), (0, 0))[0], target[i], n1[i], n2[i], own[i], gifts[i]))
    schema = ["type", "stratum_nobs", "n_positive", "target", "available_n1", "available_n2", "own", "gifts"]
    want = np.array([r[6] + sum(n for _, n in r[7]) for r in rows], np.int64)
    n1s, n2s = (np.array([r[i] for r in rows], np.int64) for i in (4, 5))
    take1, take2, _ = mixture(want, n1s, n2s, settings.n2_share, settings.max_mix_trim)
    table = pl.DataFrame({name: [r[i] for r in rows] for i, name in enumerate(schema[:-1])}, schema=dict(_PLAN))
    return table.with_columns(
        gifts=pl.Series([[{"to": BINS[j], "n": n} for j, n in r[7]] for r in rows], dtype=_GIFTS),
        taken_n1=pl.Series(take1, dtype=pl.Int64),
        taken_n2=pl.Series(take2, dtype=pl.Int64),
        available=pl.col("available_n1") + pl.col("available_n2"),
    )


_GIFTS = pl.List(pl.Struct({"to": pl.String, "n": pl.Int64}))
_PLAN = (
    ("type", pl.String), ("stratum_nobs", pl.String), ("n_positive", pl.Int64), ("target", pl.Int64),
    ("available_n1", pl.Int64), ("available_n2", pl.Int64), ("own", pl.Int64),
)  # fmt: skip


def _fills(target: list[int], own: list[int], surplus: list[int], reach: int) -> list[list[tuple[int, int]]]:
    """What each bin gives to others, ``[(receiving bin, n), ...]``.

    Bins in need are served from few exposures to many; each asks the nearest bins first, and of two equally near ones
    the one with more to spare (tie: the one with fewer exposures).
    """
    gifts: list[list[tuple[int, int]]] = [[] for _ in target]
    for i in range(len(target)):
        missing = target[i] - own[i]
        for distance in range(1, reach + 1):
            near = [j for j in (i - distance, i + distance) if 0 <= j < len(target)]
            for j in sorted(near, key=lambda j: (-surplus[j], j)):
                n = min(missing, surplus[j])
                if n > 0:
                    gifts[j].append((i, n))
                    surplus[j] -= n
                    missing -= n
    return gifts


def _account(strata: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Settle who was served after the mixture took its toll: the stratum's own target first, then its gifts in order.

    Returns the strata with ``drawn``, ``filled``, ``given`` and ``shortfall``, and the table of which ranks serve whom.
    """
    served, drawn, given = [], [], []
    filled: dict[tuple[str, str], int] = {}
    for kind, b, own, gifts, n1, n2 in strata.select(
        "type", "stratum_nobs", "own", "gifts", "taken_n1", "taken_n2"
    ).iter_rows():
        left, at = n1 + n2, 0
        for to, n in [(b, own), *((g["to"], g["n"]) for g in gifts)]:
            n = min(n, left)
            served.append((kind, b, to, at, at + n))
            if to != b:
                filled[kind, to] = filled.get((kind, to), 0) + n
            left, at = left - n, at + n
        drawn.append(min(own, n1 + n2))
        given.append(n1 + n2 - drawn[-1])
    table = strata.with_columns(
        drawn=pl.Series(drawn, dtype=pl.Int64),
        given=pl.Series(given, dtype=pl.Int64),
        filled=pl.Series(
            [filled.get(key, 0) for key in strata.select("type", "stratum_nobs").iter_rows()], dtype=pl.Int64
        ),
    ).with_columns(shortfall=pl.col("target") - pl.col("drawn") - pl.col("filled"))
    schema = {"type": pl.String, "own_bin": pl.String, "serves": pl.String, "after": pl.Int64, "until": pl.Int64}
    return table, pl.DataFrame(served, schema=schema, orient="row")
