"""The one-tile kernel: from a tile's ``sweeps`` rows to its pool of negatives, and the account of what was removed.

Pure and order-free: shuffling the input rows changes nothing. Runs unchanged in process, in Spark tasks and on a
cluster. The table of a tile and the sweep file itself give the same bytes (:func:`build_pool`, :func:`pool_of_sweep`):
cheap cuts come first, and columns that only survivors need are made for survivors only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from lens_assets.science.columns.surveys import SWEEPS
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.negatives.attrition import POOLS_FROM, STRATA_FROM, Bool, Screened, counted, reconcile, tally
from lens_assets.science.negatives.categories import NEIGHBOUR, categorise, neighbours_of
from lens_assets.science.negatives.exclusion import near_known
from lens_assets.science.negatives.rows import Beside, FrameRows, Rows
from lens_assets.science.negatives.selection import SelectionProfile, filter_columns, passes
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.strata import NOBS_OPEN, need, nobs_bin
from lens_assets.science.negatives.sweeping import cuts_of, screened_sweep
from lens_assets.science.surveys.layout import tile_of_key
from lens_assets.science.surveys.settings import Settings as SurveySettings
from lens_assets.science.surveys.sweeps import open_sweep

_EVERY_ROW = ("ra", "dec", "type", "nobs_z", "flux_r", "ref_cat")
_NEEDED = ("galaxy_id", "release", "brickid", "objid", *_EVERY_ROW)


def build_pool(
    sweeps: pl.DataFrame | Rows,
    registry: pl.DataFrame,
    profile: SelectionProfile,
    settings: Settings,
    *,
    neighbours: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Negatives of one tile, and their attrition table.

    Parameters
    ----------
    sweeps : the ``sweeps`` table of a tile, any row order, or its :class:`Rows`.
    registry : the ``lens_registry`` table; every system counts, of every channel, tier and label.
    neighbours : objects *beside* the tile's own to look for bright neighbours and stars in: the borders of the adjacent
        tiles (:func:`~lens_assets.science.negatives.border.border`). Without them an object within 30 arcsec of the tile's
        edge is judged by what lies on its own side. Objects that are also in ``sweeps`` do no harm.

    Returns
    -------
    (pool sorted by ``galaxy_id``: the sweeps columns with ``selection``, ``pool``, ``n2_category`` and ``n2_flags``;
    attrition). The last filter is ``known_lens``; ``"stratum"`` rows count TYPE|nobs_z bin before and after,
    ``"pool"`` rows the N1, N2 and category counts at the end (a category that found nothing shows as zero, never as
    absent).
    """
    rows = FrameRows(sweeps) if isinstance(sweeps, pl.DataFrame) else sweeps
    cuts = filter_columns(profile, "negative")
    for column in dict.fromkeys([*_NEEDED, *cuts]):
        if column not in rows.names:
            raise BadInput(f"the pool of {profile.name} needs this column", column=column)
    return _pool(_screened(rows, registry, profile, settings, cuts), profile, settings, neighbours)


def _screened(
    rows: Rows, registry: pl.DataFrame, profile: SelectionProfile, settings: Settings, cuts: list[str]
) -> Screened:
    """The rows that pass, by way of columns of all rows."""
    light = rows.columns(list(dict.fromkeys([*cuts, *_EVERY_ROW])))
    steps = passes(light, profile, "negative")
    steps.append(("known_lens", ~near_known(light, registry, settings.exclusion_arcsec)))
    keep, table = tally(steps, rows.height)
    left = rows.rows(np.flatnonzero(keep))
    return Screened(left, table, _strata(light, keep), [neighbours_of(left, rows, settings.n2)])


def _pool(
    screened: Screened, profile: SelectionProfile, settings: Settings, neighbours: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pool and attrition of the rows that passed."""
    left, table, few, others = screened
    if neighbours is not None:
        need(neighbours, NEIGHBOUR, "neighbours")
        others = [*others, neighbours_of(left, Beside(neighbours), settings.n2)]
    pool = categorise(
        left.with_columns(selection=pl.lit(profile.name)),
        settings.n2,
        neighbours=pl.concat([o.select(NEIGHBOUR) for o in others], how="vertical_relaxed"),
        priority=settings.priority,
    ).sort("galaxy_id")
    named = few.group_by(step=pl.concat_str(pl.col("type").cast(pl.String), nobs_bin(), separator="|"))
    strata = counted("stratum", named.agg(pl.col("n_in", "n_left").sum()), STRATA_FROM)
    ends = [("N1", (pool["pool"] == "N1").sum()), ("N2", (pool["pool"] == "N2").sum())]
    ends += [(f"N2:{c}", (pool["n2_category"] == c).sum()) for c in settings.priority]
    ends += [(f"N2 flag:{c}", pool["n2_flags"].list.contains(c).sum()) for c in settings.priority]
    pools = pl.DataFrame(
        [("pool", step, POOLS_FROM + i, int(n), 0, int(n), None) for i, (step, n) in enumerate(ends)],
        schema=table.schema,
        orient="row",
    )
    attrition = pl.concat([table, strata, pools])
    reconcile(attrition)
    return pool, attrition


def pool_of_sweep(
    path: str | Path,
    tile: str,
    registry: pl.DataFrame,
    profile: SelectionProfile,
    settings: Settings,
    *,
    surveys: SurveySettings | None = None,
    neighbours: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame, Rejections]:
    """:func:`build_pool` straight from a sweep file, with the file's rejected rows: the same bytes as by way of the whole
    ``sweeps`` table, with the same guards and errors (:func:`~lens_assets.science.surveys.sweeps.read_sweep`), in a
    fraction of the time.
    """
    cuts = cuts_of(profile, registry, settings, tile_of_key(tile))
    if cuts is not None:
        rows = open_sweep(path, tile, surveys, cuts=cuts)
        if (screened := screened_sweep(rows, registry, profile, settings)) is not None:
            return *_pool(screened, profile, settings, neighbours), rows.rejections
    wanted = [name for name in dict.fromkeys([*filter_columns(profile, "negative"), *_NEEDED]) if name in SWEEPS.names]
    rows = open_sweep(path, tile, surveys, columns=wanted)
    pool, attrition = build_pool(rows, registry, profile, settings, neighbours=neighbours)
    return pool, attrition, rows.rejections


def _strata(light: pl.DataFrame, keep: Bool) -> pl.DataFrame:
    """``type, nobs_z, n_in, n_left`` (null where one is not known)."""
    kind = light["type"]
    if isinstance(kind.dtype, pl.Enum) and not (kind.null_count() or light["nobs_z"].null_count()):  # codes: just count
        few_nobs = np.clip(light["nobs_z"].to_numpy(), 0, NOBS_OPEN)  # the bins do not tell more apart
        code = kind.to_physical().to_numpy().astype(np.int64) * (NOBS_OPEN + 1) + few_nobs
        n = len(kind.dtype.categories) * (NOBS_OPEN + 1)
        n_in, n_left = np.bincount(code, minlength=n), np.bincount(code[keep], minlength=n)
        seen = np.flatnonzero(n_in)
        names = kind.dtype.categories.gather(seen // (NOBS_OPEN + 1)).alias("type")
        nobs = pl.Series("nobs_z", seen % (NOBS_OPEN + 1))
        few = pl.DataFrame([names, nobs, pl.Series("n_in", n_in[seen]), pl.Series("n_left", n_left[seen])])
    else:
        kept = light.select("type", "nobs_z", kept=pl.Series(keep))
        few = kept.group_by("type", "nobs_z").agg(n_in=pl.len(), n_left=pl.col("kept").sum())
    return few
