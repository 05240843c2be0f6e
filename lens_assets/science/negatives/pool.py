"""The one-tile kernel: from a tile's ``sweeps`` rows to its pool of negatives, and the account of what was removed.

Pure and order-free: shuffling the input rows changes nothing. Runs unchanged in process, in Spark tasks and on a
cluster.
"""

from __future__ import annotations

import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.attrition import POOLS_FROM, STRATA_FROM, counted, reconcile, tally
from lens_assets.science.negatives.categories import categorise
from lens_assets.science.negatives.exclusion import near_known
from lens_assets.science.negatives.selection import SelectionProfile, passes
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.strata import need, nobs_bin


def build_pool(
    sweeps: pl.DataFrame,
    registry: pl.DataFrame,
    profile: SelectionProfile,
    settings: Settings,
    *,
    neighbours: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Negatives of one tile, and their attrition table.

    Parameters
    ----------
    sweeps : the ``sweeps`` table of a tile, any row order.
    registry : the ``lens_registry`` table; every system counts, of every channel, tier and label.
    neighbours : objects to look for bright neighbours and stars in (default: ``sweeps``).

    Returns
    -------
    (pool sorted by ``galaxy_id``: the sweeps columns with ``selection``, ``pool``, ``n2_category`` and ``n2_flags``;
    attrition). The last filter is ``known_lens``; ``"stratum"`` rows count TYPE|nobs_z bin before and after,
    ``"pool"`` rows the N1, N2 and category counts at the end (a category that found nothing shows as zero, never as
    absent).
    """
    need(sweeps, ["galaxy_id", "release", "brickid", "objid", "nobs_z", "type"], "tile's sweeps")
    doubled = sweeps["galaxy_id"].is_duplicated()
    if doubled.any():
        row = int(doubled.arg_true()[0])
        raise BadInput(f"{sweeps['galaxy_id'][row]} is in the tile more than once", column="galaxy_id", row=row)
    steps = passes(sweeps, profile, "negative")
    steps.append(("known_lens", ~near_known(sweeps, registry, settings.exclusion_arcsec)))
    keep, table = tally(steps, sweeps.height)
    pool = categorise(
        sweeps.filter(keep).with_columns(selection=pl.lit(profile.name)),
        settings.n2,
        neighbours=sweeps if neighbours is None else neighbours,
        priority=settings.priority,
    ).sort("galaxy_id")
    stratum = sweeps.select(pl.concat_str(pl.col("type"), nobs_bin(), separator="|").alias("s"))["s"]
    strata = counted("stratum", stratum, stratum.filter(pl.Series(keep)), STRATA_FROM)
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
