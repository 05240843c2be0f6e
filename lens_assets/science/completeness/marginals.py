r"""Completeness along one axis, or over the survey: from raw counts, under weights that are stated.

There is no default weight: an unweighted mean over the grid is not the completeness of any survey (a published study
gave 5 % for a grid of which 43 % was empty), so a marginal without weights is refused. Three ways to weight:

``"injections"``  each injection counts once, so the value is the pooled k / n. What the injections gave, not what a
survey
                  would; insufficient cells count here too.
``"cells"``       every supported cell counts the same.
a frame           ``i_psf``, ``i_depth`` (and ``i_theta``) with ``weight``. For the survey's own conditions, by host
                  TYPE too, there is :func:`survey_weighted`.

Weighted values are sums over *supported* cells (``stratified``); the share of the weight that lies elsewhere is returned
beside them, and never filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.completeness import MARGINALS, SURVEY, TILES
from lens_assets.science.completeness.combine import with_threshold_error
from lens_assets.science.completeness.model import Surface, bounds, nulls
from lens_assets.science.completeness.stratified import NAME, Stratified, stratified
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.errors import BadInput
from lens_assets.science.intervals import Interval

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
AxisName = Literal["theta_e", "psf", "depth", "all"]
AXES: tuple[AxisName, ...] = ("theta_e", "psf", "depth", "all")
FOOTPRINT = "*"
"""Name of the row that is weighted by all tiles together."""
LABELS = {"injections": "injections: each counts once", "cells": "supported cells alike"}
_INDEX = {"theta_e": "i_theta", "psf": "i_psf", "depth": "i_depth"}
_CELL = ["i_theta", "i_psf", "i_depth"]
_BOUNDS = ("lo68", "hi68", "lo95", "hi95")


def standard(surface: Surface) -> pl.DataFrame:
    """The marginals every surface is published with: along each axis and over all, each injection counting once."""
    return pl.concat([marginal(surface, axis, "injections") for axis in AXES])


def marginal(
    surface: Surface,
    axis: AxisName,
    weights: Literal["injections", "cells"] | pl.DataFrame | None = None,
    *,
    label: str | None = None,
) -> pl.DataFrame:
    """Completeness along ``axis`` at every operating point.

    Raises ``ValueError`` without weights, and :class:`BadInput` for weights that are negative, repeat or sum to
    nothing.
    """
    if weights is None:
        raise ValueError("a marginal needs stated weights: 'injections', 'cells', or a frame of weights per condition")
    if isinstance(weights, pl.DataFrame):
        label = label or "given weights"
    elif weights in LABELS:
        label = LABELS[weights]
    else:
        raise ValueError(f"unknown weights {weights!r}")
    rows = []
    for point in surface.points:
        counts = host_counts(surface.members, point)
        rows.append(_weighted_rows(surface, counts, point, axis, _cell_weights(surface, weights), label))
    return MARGINALS.conform(nulls(pl.concat(rows)))


def survey_weighted(surface: Surface, conditions: pl.DataFrame) -> pl.DataFrame:
    """Completeness per theta_E for the survey's own joint distribution of conditions.

    Parameters
    ----------
    conditions : ``psf_bin``, ``depth_bin`` (-1 or null: outside the grid), ``n`` objects, and optionally ``type``;
        with it, and where the injections know their host's TYPE, each TYPE of a cell is weighted by its own number
        of objects. A TYPE is supported where it has ``min_per_stratum`` injections *and* its cell is supported: an insufficient
        cell says nothing by way of its TYPEs either.

    Returns
    -------
    One row per operating point and theta_E: the value *for the supported share*, its interval, the
    shares of the survey that are outside the grid, empty and insufficient, and ``bound_lo`` / ``bound_hi``: the
    completeness of the whole survey if nothing, or everything, were found in the unsupported share.
    """
    for column in ("psf_bin", "depth_bin", "n"):
        if column not in conditions.columns:
            raise BadInput("survey weights need this column", column=column)
    by_type = "type" in conditions.columns and surface.members["host_type"].null_count() == 0
    if conditions["n"].null_count() or (conditions["n"] < 0).any() or conditions["n"].sum() <= 0:
        raise BadInput("numbers of objects must be given, not negative, and not all zero", column="n")
    table = conditions.select(
        pl.col("psf_bin").cast(pl.Int16).fill_null(-1).alias("i_psf"),
        pl.col("depth_bin").cast(pl.Int16).fill_null(-1).alias("i_depth"),
        *([pl.col("type").cast(pl.String).alias("host_type")] if by_type else []),
        pl.col("n").cast(pl.Float64).alias("weight"),
    )
    keys = ["i_psf", "i_depth", *(["host_type"] if by_type else [])]
    table = table.group_by(keys).agg(pl.col("weight").sum()).sort(keys)
    table = table.with_columns(pl.col("weight") / pl.col("weight").sum())
    _, n_psf, n_depth = surface.grid.shape
    inside = pl.col("i_psf").is_between(0, n_psf - 1) & pl.col("i_depth").is_between(0, n_depth - 1)
    outside = float(table.filter(~inside)["weight"].sum())
    within = table.filter(inside)
    least = surface.settings.min_per_stratum if by_type else surface.settings.min_per_cell
    first = surface.cells.filter(pl.col("operating_point") == surface.points[0].name)
    whole = first.select(*(pl.col(i).cast(pl.Int16) for i in _CELL), cell=pl.col("support") == "supported")
    thetas = pl.DataFrame({"i_theta": np.arange(surface.grid.shape[0], dtype=np.int16)})
    label = "survey: PSF x depth" + (" x TYPE" if by_type else "")
    rows = []
    for point in surface.points:
        counts = host_counts(surface.members, point)
        unit = ["i_theta", *keys]
        n_unit = counts.group_by(unit).agg(pl.col("n").sum().alias("n_unit"))
        units = (
            thetas.join(within, how="cross")
            .join(n_unit, on=unit, how="left")
            .with_columns(pl.col("n_unit").fill_null(0))
        )
        units = units.join(whole, on=_CELL, how="left")
        # a TYPE with enough injections does not make up for a cell with too few
        supported = (pl.col("n_unit") >= least) & pl.col("cell").fill_null(False)
        units = units.with_columns(supported.alias("ok"), supported.alias("supported")).drop("cell")
        frame = _weighted_rows(surface, counts, point, "theta_e", units, label, unit=unit, total_weight=1.0)
        shares = units.group_by("i_theta").agg(
            pl.col("weight").filter(pl.col("n_unit") == 0).sum().alias("share_empty"),
            pl.col("weight").filter((pl.col("n_unit") > 0) & ~pl.col("ok")).sum().alias("share_insufficient"),
        )
        rows.append(
            frame.join(shares, left_on="i_axis", right_on="i_theta", how="left").with_columns(
                pl.lit(outside).alias("share_outside"), pl.col("share_empty", "share_insufficient").fill_null(0.0)
            )
        )
    found = (pl.col("completeness").fill_nan(None) * pl.col("share_supported")).fill_null(0.0)
    frame = pl.concat(rows).with_columns(
        found.clip(0, 1).alias("bound_lo"), (found + 1 - pl.col("share_supported")).clip(0, 1).alias("bound_hi")
    )
    return SURVEY.conform(nulls(frame))


def per_tile(surface: Surface, conditions: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """:func:`survey_weighted` of every tile by its own conditions, and of the footprint, the tile ``*``.

    ``conditions`` holds one table a tile; a tile without an object has no row: it has no conditions to weight by.
    """
    if not conditions:
        raise BadInput("weights per tile need at least one tile", column="tile")
    tiles = {tile: table for tile, table in sorted(conditions.items()) if table["n"].sum() > 0}
    tiles[FOOTPRINT] = pl.concat([table.select(conditions_of(table)) for table in conditions.values()])
    parts = [survey_weighted(surface, t).with_columns(pl.lit(tile).alias("tile")) for tile, t in tiles.items()]
    return TILES.conform(pl.concat(parts))


def conditions_of(table: pl.DataFrame) -> list[str]:
    """The columns of a table of conditions that weights are made of."""
    return [c for c in ("psf_bin", "depth_bin", "type", "n") if c in table.columns]


def host_counts(members: pl.DataFrame, point: OperatingPoint) -> pl.DataFrame:
    """Counts per cell and host at one operating point: ``n``, ``k``, and ``k_lo68`` ... at the bounds of the
    threshold."""
    score = pl.col("injection_score")
    return (
        members.group_by([*_CELL, "host_type", "host"])
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            (score >= point.cut).sum().cast(pl.Int64).alias("k"),
            *((score >= getattr(point, b)).sum().cast(pl.Int64).alias(f"k_{b}") for b in _BOUNDS),
        )
        .sort([*_CELL, "host"])
    )


def _cell_weights(surface: Surface, given: Literal["injections", "cells"] | pl.DataFrame) -> pl.DataFrame:
    """Every cell with its ``weight``, whether it is ``supported``, and whether it is used (``ok``).

    Injections each counting once is the one weighting that uses insufficient cells too: it is about the injections.
    """
    cells = surface.cells.filter(pl.col("operating_point") == surface.points[0].name).select(
        *_CELL,
        (pl.col("support") == "supported").alias("supported"),
        pl.col("n_injections").cast(pl.Float64).alias("n"),
    )
    cells = cells.with_columns(pl.col("supported").alias("ok"))
    if isinstance(given, str):
        if given == "injections":
            return cells.with_columns(pl.col("n").alias("weight"), (pl.col("n") > 0).alias("ok"))
        return cells.with_columns(pl.col("supported").cast(pl.Float64).alias("weight"))
    keys = [c for c in _CELL if c in given.columns]
    if not keys or "weight" not in given.columns:
        raise BadInput("weights need `weight` and at least one of i_theta, i_psf, i_depth", column="weight")
    if given.select(keys).is_duplicated().any():
        raise BadInput(f"weights repeat a condition ({', '.join(keys)})", column=keys[0])
    w = given["weight"].cast(pl.Float64)
    if w.null_count() or not w.is_finite().all() or (w < 0).any() or not w.sum() > 0:
        raise BadInput("weights must be finite, not negative, and not all zero", column="weight")
    clean = given.select(*(pl.col(k).cast(pl.Int16) for k in keys), pl.col("weight").cast(pl.Float64))
    lost = clean.join(cells, on=keys, how="anti")["weight"].sum()
    if lost > 0:
        raise BadInput(f"a weight of {lost:g} lies outside the grid; leave it out and state it", column=keys[0])
    return cells.join(clean, on=keys, how="left").with_columns(pl.col("weight").fill_null(0.0))


def _weighted_rows(
    surface: Surface,
    counts: pl.DataFrame,
    point: OperatingPoint,
    axis: AxisName,
    units: pl.DataFrame,
    label: str,
    *,
    unit: Sequence[str] = _CELL,
    total_weight: float | None = None,
) -> pl.DataFrame:
    length = len(getattr(surface.grid, axis)) if axis != "all" else 1
    kept = pl.col(_INDEX[axis]) if axis != "all" else pl.lit(0, pl.Int16)
    units = units.sort(list(unit)).with_columns(kept.cast(pl.Int64).alias("group")).with_row_index("u")
    used = counts.join(
        units.filter(pl.col("ok") & (pl.col("weight") > 0)).select(*unit, "u", "group"), on=list(unit), how="inner"
    )
    used = used.sort("u", "host")
    u = used["u"].to_numpy().astype(np.int64)
    n = used["n"].to_numpy()
    weight, group_of = units["weight"].to_numpy(), units["group"].to_numpy()
    part = stratified(u, used["host"].to_numpy().astype(str), n, used["k"].to_numpy(), weight, group_of, length)
    recount = {b: _weighted_mean(u, n, used[f"k_{b}"].to_numpy(), weight, group_of, length) for b in _BOUNDS}
    backed = np.bincount(group_of, weight * units["supported"].to_numpy(), length)
    whole = np.bincount(group_of, weight, length) if total_weight is None else np.full(length, total_weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(backed / whole, 0, 1)
    total = {
        level: with_threshold_error(part.c, own, recount[f"hi{round(100 * level)}"], recount[f"lo{round(100 * level)}"])
        for level, own in part.intervals.items()
    }
    ok = np.where(units["ok"].to_numpy(), weight, 0.0)
    prior = surface.prior_columns(units, unit, ok, group_of, point, part.c, part.n_eff, total)
    return _rows(surface, point, axis, label, part, total, share).with_columns(
        pl.Series(name, values) for name, values in prior.items()
    )


def _weighted_mean(u: I64, n: I64, k: I64, weight: F64, group_of: I64, length: int) -> F64:
    n_u, k_u = np.bincount(u, n, weight.size), np.bincount(u, k, weight.size)
    live = n_u > 0
    top = np.bincount(group_of[live], (weight[live] * k_u[live] / n_u[live]), length)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(top / np.bincount(group_of[live], weight[live], length), 0, 1))


def _rows(
    surface: Surface, point: OperatingPoint, axis: AxisName, label: str, part: Stratified,
    total: Mapping[float, Interval], share: F64,
) -> pl.DataFrame:  # fmt: skip
    m = part.c.size
    return pl.DataFrame(
        {
            "operating_point": [point.name] * m,
            "weighting": [label] * m,
            "axis": [axis] * m,
            "i_axis": np.arange(m, dtype=np.int16),
            "axis_centre": list(getattr(surface.grid, axis).centres) if axis != "all" else [float("nan")],
            "n_injections": part.n,
            "n_found": part.k,
            "n_unique_hosts": part.n_hosts,
            "n_effective": part.n_eff,
            "completeness": part.c,
            **bounds("host", part.intervals),
            **bounds("total", total),
            "total_method": [point.total_name(NAME)] * m,
            "share_supported": share,
        }
    )
