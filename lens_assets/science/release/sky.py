"""The conditions of the survey by sky position, small enough to travel with a release."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.release import SKY


def sky_of(sweeps: pl.DataFrame) -> pl.DataFrame:
    """Median and spread of the r-band PSF FWHM and depth in every HEALPix cell (nside 128, nested).

    Parameters
    ----------
    sweeps : ``cell``, ``psfsize_r`` (arcsec; 0 means not observed) and ``depth_r`` (AB mag, nullable) of *all* tiles
        together, since a cell may straddle tiles. Objects without both values do not count.
    """
    psf, depth = pl.col("psfsize_r").cast(pl.Float64), pl.col("depth_r").cast(pl.Float64)
    known = sweeps.select("cell", psf, depth).filter((psf > 0) & psf.is_finite() & depth.is_finite())

    def spread(x: pl.Expr) -> pl.Expr:
        return (x.quantile(0.84, "linear") - x.quantile(0.16, "linear")) / 2

    return SKY.conform(
        known.group_by("cell").agg(
            psf.median().alias("sky_psf"),
            depth.median().alias("sky_depth"),
            spread(psf).alias("sky_psf_spread"),
            spread(depth).alias("sky_depth_spread"),
            pl.len().cast(pl.Int64).alias("sky_objects"),
        )
    )
