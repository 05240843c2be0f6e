"""The survey's own joint distribution of observing conditions and type: what survey-weighted completeness is weighted
by.

Values outside the grid are counted in bins of their own, never snapped to the edge bin: see ``settings`` for their
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.surveys import CONDITIONS
from lens_assets.science.surveys.settings import BELOW_BIN, MISSING_BIN, Settings


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
