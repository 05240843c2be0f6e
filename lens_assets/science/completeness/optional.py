"""Completeness along the optional axes: host TYPE, unlensed and lensed magnitude, source offset.

They are not axes of the grid: a cell of the grid split seven ways holds too few injections for any interval. So each
is a table of its own, all cells pooled, each injection counting once, which is what the injections gave and not what a
survey would. Bins with too few injections are insufficient, bins without any are empty, and both are rows.

What does not belong here: a value by lensed magnitude is a value *given* the arc, not a selection function of lenses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.columns.completeness import OPTIONAL
from lens_assets.science.completeness.combine import with_threshold_error
from lens_assets.science.completeness.marginals import LABELS
from lens_assets.science.completeness.model import LEVELS, Surface, bounds, nulls
from lens_assets.science.completeness.stratified import NAME, stratified
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.errors import BadInput

EDGES: dict[str, tuple[float, ...]] = {
    "injection_source_mag_r": (20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0),
    "injection_mag_r": (17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0),
    "injection_beta": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2),
}
"""Edges of the numeric axes (mag, mag, units of theta_E); half-open bins, what lies outside them is left out."""
CLASSES = "host_type"


def optional_axes(surface: Surface, edges: Mapping[str, Sequence[float]] = EDGES) -> pl.DataFrame:
    """The table of every optional axis the injections of ``surface`` know; an axis that none of them knows has no rows.

    ``edges`` gives the bins of numeric columns of the members. Raises :class:`BadInput` for a column the members do not
    have, or edges that do not increase.
    """
    parts = []
    for name, at in edges.items():
        if name not in surface.members.columns:
            raise BadInput(f"no such axis; there are {', '.join([*EDGES, CLASSES])}", column=name)
        e = np.asarray(at, float)
        if e.size < 2 or np.any(np.diff(e) <= 0):
            raise BadInput(f"edges {list(at)} must increase", column=name)
        known = surface.members.filter(pl.col(name).is_not_null())
        index = np.searchsorted(e, known[name].to_numpy(), side="right") - 1
        place = {"axis_lo": e[:-1], "axis_hi": e[1:], "axis_class": [None] * (e.size - 1)}
        parts += _axis(surface, known.with_columns(pl.Series("bin", index)), name, e.size - 1, place)
    known = surface.members.filter(pl.col(CLASSES).is_not_null())
    names = known[CLASSES].unique().sort().to_list()
    index = np.searchsorted(names, known[CLASSES].to_numpy().astype(str)) if names else np.empty(0, int)
    nothing = np.full(len(names), np.nan)
    place = {"axis_lo": nothing, "axis_hi": nothing, "axis_class": names}
    parts += _axis(surface, known.with_columns(pl.Series("bin", index, dtype=pl.Int64)), CLASSES, len(names), place)
    if not parts:
        return OPTIONAL.conform(pl.DataFrame(schema={c.name: c.dtype for c in OPTIONAL.columns}))
    return OPTIONAL.conform(nulls(pl.concat(parts)))


def _axis(
    surface: Surface, known: pl.DataFrame, axis: str, length: int, place: Mapping[str, Any]
) -> list[pl.DataFrame]:
    known = known.filter(pl.col("bin").is_between(0, length - 1)) if length else known.clear()
    return [_rows(surface, known, axis, length, place, point) for point in surface.points] if known.height else []


def _rows(
    surface: Surface, known: pl.DataFrame, axis: str, length: int, place: Mapping[str, Any], point: OperatingPoint
) -> pl.DataFrame:
    score = pl.col("injection_score")
    cuts = dict(zip(("k", "lo68", "hi68", "lo95", "hi95"), point.cuts, strict=True))
    cell = ["bin", "i_theta", "i_psf", "i_depth"]
    counts = known.group_by([*cell, "host"]).agg(
        pl.len().cast(pl.Int64).alias("n"), *((score >= cut).sum().cast(pl.Int64).alias(c) for c, cut in cuts.items())
    )
    units = counts.group_by(cell).agg(pl.col("n").sum().cast(pl.Float64).alias("weight")).sort(cell).with_row_index("u")
    rows = counts.join(units, on=cell, how="left").sort([*cell, "host"])
    own = stratified(
        rows["u"].to_numpy().astype(np.int64), rows["host"].to_numpy().astype(str), rows["n"].to_numpy(), rows["k"].to_numpy(),
        units["weight"].to_numpy(), units["bin"].to_numpy().astype(np.int64), length,
    )  # fmt: skip
    bins = rows["bin"].to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        at = {c: np.bincount(bins, rows[c].to_numpy(), length) / own.n for c in cuts if c != "k"}
    total = {
        level: with_threshold_error(own.c, own.intervals[level], at[f"hi{tag}"], at[f"lo{tag}"])
        for level, tag in zip(LEVELS, (68, 95), strict=True)
    }
    least = surface.settings.min_per_cell
    return pl.DataFrame(
        {
            "operating_point": [point.name] * length,
            "weighting": [LABELS["injections"]] * length,
            "axis": [axis] * length,
            "i_axis": np.arange(length, dtype=np.int16),
            **{k: pl.Series(k, v, dtype=pl.String if k == "axis_class" else pl.Float64) for k, v in place.items()},
            "n_injections": own.n,
            "n_found": own.k,
            "n_unique_hosts": own.n_hosts,
            "n_effective": own.n_eff,
            "completeness": own.c,
            **bounds("host", own.intervals),
            **bounds("total", total),
            "total_method": [point.total_name(NAME)] * length,
            "support": np.where(own.n == 0, "empty", np.where(own.n < least, "insufficient", "supported")).tolist(),
        }
    )
