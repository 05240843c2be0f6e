"""The attrition table: what each filter removed in turn, what it would have removed alone, and what is left where.

One row a filter (``stage = "filter"``), a stratum (``"stratum"``) and a pool or category (``"pool"``). The tables of
tiles add up: merging is a sum, so the table of a run does not depend on how the sky was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.errors import Rejections, UnbalancedCount

Bool = npt.NDArray[np.bool_]

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "stage": pl.String,
    "step": pl.String,
    "order": pl.Int32,
    "n_in": pl.Int64,
    "removed": pl.Int64,
    "n_left": pl.Int64,
    "removed_alone": pl.Int64,
}

STRATA_FROM, POOLS_FROM = 100, 100_000
"""First ``order`` of the stratum rows and of the pool rows."""


def tally(passes: Sequence[tuple[str, Bool]], n: int) -> tuple[Bool, pl.DataFrame]:
    """Apply filters in order.

    Parameters
    ----------
    passes : (step, whether each of the ``n`` rows passes) in order of application.
    n : rows that came in.

    Returns
    -------
    Which rows pass all, and the ``"filter"`` rows of the attrition table: ``n_in`` before the step, ``removed`` by
    it, the ``n_left`` after it, and ``removed_alone``, what the step would have removed had it been the only one.
    """
    keep = np.ones(n, bool)
    rows, before = [], n
    for order, (step, ok) in enumerate(passes):
        keep &= ok
        left = int(np.count_nonzero(keep))
        rows.append(("filter", step, order, before, before - left, left, n - int(np.count_nonzero(ok))))
        before = left
    return keep, pl.DataFrame(rows, schema=SCHEMA, orient="row")


def tallied(steps: Sequence[str], failed: npt.NDArray[np.int64]) -> pl.DataFrame:
    """The ``"filter"`` rows of :func:`tally` from counts: ``failed[p]`` rows fail the steps whose bits are set in ``p``."""
    pattern = np.arange(len(failed))
    before, rows = int(failed.sum()), []
    for order, step in enumerate(steps):
        left = int(failed[pattern & ((2 << order) - 1) == 0].sum())
        alone = int(failed[pattern >> order & 1 == 1].sum())
        rows.append(("filter", step, order, before, before - left, left, alone))
        before = left
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


class Screened(NamedTuple):
    """A tile's rows after all filters, and the counts on the way."""

    left: pl.DataFrame
    """``sweeps`` rows that pass."""
    filters: pl.DataFrame
    """The ``"filter"`` rows."""
    strata: pl.DataFrame
    """type, nobs_z, n_in, n_left."""
    others: list[pl.DataFrame]
    """Objects that may be neighbours of those that are left (``categories.NEIGHBOUR``)."""


def counted(stage: str, counts: pl.DataFrame, first_order: int) -> pl.DataFrame:
    """Rows of a table from ``step, n_in, n_left`` (counts before and after all filters; null is shown as ``"null"``)."""
    ordered = counts.with_columns(pl.col("step").fill_null("null")).sort("step")
    rows = [
        (stage, step, first_order + i, n_in, n_in - n_left, n_left, None)
        for i, (step, n_in, n_left) in enumerate(ordered.select("step", "n_in", "n_left").iter_rows())
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def merge_attrition(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The table of a run from those of its tiles: counts added up row by row.

    Raises :class:`UnbalancedCount` when a sum contradicts itself (a filter's ``n_in`` is not what the one before left).
    """
    if not tables:
        return pl.DataFrame(schema=SCHEMA)
    filters = [t.filter(pl.col("stage") == "filter")["step"].to_list() for t in tables]
    if any(f != filters[0] for f in filters):
        raise UnbalancedCount(f"tiles were screened by different filters: {sorted({tuple(f) for f in filters})}")
    every = pl.concat([t.select(list(SCHEMA)).cast(SCHEMA) for t in tables])  # type: ignore[arg-type]
    is_filter, is_stratum = pl.col("stage") == "filter", pl.col("stage") == "stratum"
    summed = (
        every.group_by("stage", "step")
        .agg(
            pl.col("order").min(),
            pl.col("n_in", "removed", "n_left").sum(),
            pl.when(pl.col("removed_alone").is_null().any())
            .then(None)
            .otherwise(pl.col("removed_alone").sum())
            .alias("removed_alone"),
        )
        .with_columns(rank=pl.when(is_filter).then(0).when(is_stratum).then(1).otherwise(2))
        .sort("rank", pl.when(is_stratum).then(0).otherwise(pl.col("order")), "step")
    )
    # tiles hold different strata: number those of the union afresh
    merged = summed.with_columns(
        order=pl.when(is_stratum)
        .then(pl.int_range(pl.len()) - int(summed.select(is_filter.sum()).item()) + STRATA_FROM)
        .otherwise(pl.col("order"))
        .cast(pl.Int32)
    ).select(list(SCHEMA))
    reconcile(merged)
    return merged


def reconcile(table: pl.DataFrame) -> None:
    """Raise :class:`UnbalancedCount` unless in = out + removed at every step, and strata and pools add up."""
    steps = table.filter(pl.col("stage") == "filter").sort("order")
    if not steps.height:
        return
    removed = Rejections()
    for name, n in steps.select("step", "removed").iter_rows():
        removed.add(name, n)
    n_in, n_left = int(steps["n_in"][0]), int(steps["n_left"][-1])
    removed.check(n_in, n_left)
    if steps["n_in"].to_list()[1:] != steps["n_left"].to_list()[:-1]:
        raise UnbalancedCount("a filter did not get what the one before it left")
    strata = table.filter(pl.col("stage") == "stratum")
    if strata.height and (strata["n_in"].sum(), strata["n_left"].sum()) != (n_in, n_left):
        raise UnbalancedCount("strata do not add up to the rows that came in and were left")
    pools = table.filter((pl.col("stage") == "pool") & pl.col("step").is_in(["N1", "N2"]))
    if pools.height and pools["n_left"].sum() != n_left:
        raise UnbalancedCount("N1 and N2 do not add up to the rows that were left")
