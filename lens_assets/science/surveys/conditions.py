"""The survey's own joint distribution of observing conditions and type: what survey-weighted completeness is weighted
by.

Values outside the grid are counted in bins of their own, never snapped to the edge bin: see ``settings`` for their
numbers. Tiles add up (:func:`merge`); :func:`shares` says which part of a survey lies outside a grid and on which side;
:func:`check_bins` refuses to weight a grid by bins that are not its own.

Two ranges of depth have names. ``classic`` is the grid of the science contract, section 7 (centres 22.5-24.5), which
leaves out everything deeper than 24.75: the part of DR10 with the depth of DES, whose r depths peak near 25.15 (DR10
description page, histograms). ``dr10`` reaches 25.5 (edge 25.75). The bins of ``classic`` are the first bins of
``dr10``, so a table counted with ``dr10`` serves both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.surveys import CONDITIONS
from lens_assets.science.errors import BadInput
from lens_assets.science.surveys.settings import BELOW_BIN, MISSING_BIN, Settings

DepthRange = Literal["classic", "dr10"]
DEPTH_EDGES: dict[DepthRange, tuple[float, ...]] = {
    "classic": (22.25, 22.75, 23.25, 23.75, 24.25, 24.75),
    "dr10": (22.25, 22.75, 23.25, 23.75, 24.25, 24.75, 25.25, 25.75),
}
"""Edges of the named ranges of r-band depth (5-sigma point source, AB mag)."""


def with_depth(settings: Settings, depth: DepthRange) -> Settings:
    """``settings`` with the depth edges of a named range."""
    return settings.model_copy(update={"depth_edges": DEPTH_EDGES[depth]})


def bin_of(values: npt.ArrayLike, edges: Sequence[float]) -> npt.NDArray[np.int16]:
    """Index of the half-open interval ``[edges[i], edges[i + 1])`` that holds each value.

    ``BELOW_BIN`` (-1) below the first edge, ``len(edges) - 1`` at or above the last, ``MISSING_BIN`` (-9) for ``nan``.
    """
    values = np.asarray(values, float)
    index = np.searchsorted(np.asarray(edges, float), values, side="right") - 1
    index = np.where(index < 0, BELOW_BIN, index)
    return np.where(np.isnan(values), MISSING_BIN, index).astype(np.int16)


def psf_bin(psfsize_r: npt.ArrayLike, settings: Settings) -> npt.NDArray[np.int16]:
    """Bin of the r-band PSF FWHM (arcsec); zero means not observed."""
    size = np.asarray(psfsize_r, float)
    return bin_of(np.where(size > 0, size, np.nan), settings.psf_edges)


def depth_bin(depth_r: npt.ArrayLike, settings: Settings) -> npt.NDArray[np.int16]:
    """Bin of the r-band 5-sigma depth (AB mag; ``nan`` where not observed)."""
    return bin_of(depth_r, settings.depth_edges)


def nobs_bin(nobs_z: npt.ArrayLike, settings: Settings) -> npt.NDArray[np.int16]:
    """Index of the exposure bin; the last one is open (11+)."""
    return bin_of(nobs_z, settings.nobs_edges)


def occupancy(sweeps: pl.DataFrame, settings: Settings | None = None) -> pl.DataFrame:
    """Count objects per (psf_bin, depth_bin, nobs_bin, type): the ``conditions`` table. The counts sum to the rows."""
    settings = settings or Settings()
    depth = sweeps["depth_r"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    frame = pl.DataFrame(
        {
            "psf_bin": psf_bin(sweeps["psfsize_r"].to_numpy(), settings),
            "depth_bin": depth_bin(depth, settings),
            "nobs_bin": nobs_bin(sweeps["nobs_z"].to_numpy(), settings),
            "type": sweeps["type"],
        }
    )
    return CONDITIONS.conform(frame.group_by(list(CONDITIONS.key)).agg(pl.len().alias("n")))


def merge(tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The ``conditions`` of a footprint from those of its tiles, which must have been counted with the same edges. The
    order of the tiles does not matter; no tile at all is an empty table."""
    parts = [CONDITIONS.conform(table) for table in tables]
    if not parts:
        return CONDITIONS.conform(pl.DataFrame(schema={c.name: c.dtype for c in CONDITIONS.columns}))
    return CONDITIONS.conform(pl.concat(parts).group_by(list(CONDITIONS.key)).agg(pl.col("n").sum()))


def _side(column: str, n_bins: int) -> pl.Expr:
    """Where a bin lies on an axis of ``n_bins``: inside, below, above or missing."""
    value = pl.col(column)
    return (
        pl.when(value == MISSING_BIN)
        .then(pl.lit("missing"))
        .when(value < 0)
        .then(pl.lit("below"))
        .when(value >= n_bins)
        .then(pl.lit("above"))
        .otherwise(pl.lit("inside"))
    )


def shares(table: pl.DataFrame, n_psf: int, n_depth: int) -> dict[str, Any]:
    """Which part of a survey a grid of ``n_psf`` x ``n_depth`` conditions holds.

    Returns ``n`` (objects), ``inside`` and ``outside`` (counts that sum to ``n``), ``share_outside`` (``nan`` of an empty
    survey), and the outside counts by axis and side (``psf below`` ... ``depth missing``); an object outside on both
    axes is counted on both, and once in ``outside``.
    """
    sides = table.select(psf=_side("psf_bin", n_psf), depth=_side("depth_bin", n_depth), n=pl.col("n"))
    total = int(sides["n"].sum())
    inside = int(sides.filter((pl.col("psf") == "inside") & (pl.col("depth") == "inside"))["n"].sum())
    found: dict[str, Any] = {
        "n": total, "inside": inside, "outside": total - inside,
        "share_outside": (total - inside) / total if total else float("nan"),
    }  # fmt: skip
    for axis in ("psf", "depth"):
        for side in ("below", "above", "missing"):
            found[f"{axis} {side}"] = int(sides.filter(pl.col(axis) == side)["n"].sum())
    return found


def check_bins(settings: Settings, psf_edges: Sequence[float], depth_edges: Sequence[float]) -> None:
    """Raise :class:`BadInput` unless the cells of a grid are the first bins of ``settings``, axis by axis.

    A grid that reaches farther than the bins would take their "above" for a cell of its own: objects deeper than the last
    edge would be snapped into it, unseen.
    """
    for name, wanted in (("psf_edges", psf_edges), ("depth_edges", depth_edges)):
        have = np.asarray(getattr(settings, name), float)
        want = np.asarray(wanted, float)
        if len(have) < len(want) or not np.allclose(have[: len(want)], want, rtol=0, atol=1e-9):
            raise BadInput(
                f"the grid's edges {want.tolist()} are not the first of the survey's bins {have.tolist()}: set "
                f"surveys.{name} to the grid's, or farther",
                column=name,
            )
