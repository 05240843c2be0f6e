"""Two releases at one threshold of one detector: what an error of that threshold does to their difference.

The published errors of both then hold the same error, which moves both the same way and mostly leaves their difference alone. So it
is taken out of each, and put back once, as the change of the difference between the threshold's own bounds. The counts are made
again from the injections that both releases carry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.lookup import SelectionFunction
from lens_assets.science.completeness.combine import angle

F64 = npt.NDArray[np.float64]
_CELL = ["i_theta", "i_psf", "i_depth"]
_PLACE = ["cell_theta_e", "cell_psf", "cell_depth"]
AXES = {"theta_e": "cell_theta_e", "psf": "cell_psf", "depth": "cell_depth"}


def same_threshold(loaded: tuple[SelectionFunction, ...], points: tuple[str, ...]) -> bool:
    """Whether both are of one detector at one cut with the same bounds."""
    a, b = (
        {k: v for k, v in f.operating_points[p].items() if k != "name"} for f, p in zip(loaded, points, strict=True)
    )
    digests = {str(f.header["digests"]["detector"]) for f in loaded}
    return len(digests) == 1 and a == b


def at_bounds(folder: Path, f: SelectionFunction, point: dict[str, Any], cells: pl.DataFrame) -> pl.DataFrame | None:
    """Completeness at the cut (``c0``) and at its 68 % bounds (``c1``, ``c2``) by cell and along each axis; ``None`` without the
    injections. ``cells`` are the rows of the surface. Rows: ``axis`` (``cell``, ``all`` or that of a marginal), ``axis_centre``,
    and the centres of a cell."""
    found = sorted(folder.glob("injections*.parquet"))
    if not found:
        return None
    own = pl.read_parquet(found[0], columns=["surface", *_CELL, "injection_score"]).filter(
        pl.col("surface") == f.surface
    )
    own = own.join(cells.select(*_CELL, *(pl.col(c).round(6) for c in _PLACE)), on=_CELL, how="inner")
    share = [
        (pl.col("injection_score") >= float(point[key])).mean().alias(f"c{i}")
        for i, key in enumerate(("cut", "lo68", "hi68"))
    ]
    nothing = {c: pl.lit(None, pl.Float64).alias(c) for c in ("axis_centre", *_PLACE)}
    parts = [
        own.group_by(_PLACE).agg(share).with_columns(nothing["axis_centre"], axis=pl.lit("cell")),
        own.select(share).with_columns(*nothing.values(), axis=pl.lit("all")),
    ]
    for axis, column in AXES.items():
        rows = own.group_by(column).agg(share).rename({column: "axis_centre"})
        parts.append(rows.with_columns(*(nothing[c] for c in _PLACE), axis=pl.lit(axis)))
    return pl.concat([p.select("axis", "axis_centre", *_PLACE, "c0", "c1", "c2") for p in parts])


def shift(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """By the rows of :func:`at_bounds` that both have: how far the difference moves, at most, on the scale arcsin sqrt C."""
    keys = ["axis", "axis_centre", *_PLACE]
    both = a.join(b, on=keys, how="inner", suffix="_b", nulls_equal=True)
    off = [angle(both[f"c{i}"].to_numpy()) - angle(both[f"c{i}_b"].to_numpy()) for i in range(3)]
    return both.select(keys).with_columns(shift=pl.Series(np.maximum(np.abs(off[1] - off[0]), np.abs(off[2] - off[0]))))
