"""N1 and N2: which eligible objects are hard confusers by the catalogue alone.

Each category is a *proxy* named as such; thresholds are in ``settings.N2Thresholds``. An object may carry several
flags, and the primary category is the first of them in the stated priority. N2 is every flagged object, N1 every
other; how many of each train a detector is set by sampling (``sample``), never here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import polars as pl

from lens_assets.science.negatives.attrition import Bool
from lens_assets.science.negatives.rows import Rows
from lens_assets.science.negatives.selection import maskbits_value
from lens_assets.science.negatives.settings import CATEGORIES, N2Thresholds
from lens_assets.science.negatives.strata import need
from lens_assets.science.sieve import Sieve, near_pairs

_NEEDED = (
    "release", "brickid", "objid", "type", "ra", "dec", "flux_r", "mag_r", "gr", "shape_r", "sersic", "ellipticity",
    "maskbits", "ref_cat", "fracflux_g", "fracflux_r", "fracflux_z",
)  # fmt: skip


NEIGHBOUR = ("release", "brickid", "objid", "type", "ra", "dec", "flux_r", "ref_cat")
"""Columns of an object that may be a neighbour."""


def _ge(column: str, bound: float) -> pl.Expr:
    return pl.col(column).is_finite() & (pl.col(column) >= bound)


def _le(column: str, bound: float) -> pl.Expr:
    return pl.col(column).is_finite() & (pl.col(column) <= bound)


def catalogue_flags(t: N2Thresholds) -> dict[str, pl.Expr]:
    """The categories that follow from an object's own row, as expressions; null and NaN never flag."""
    ser, dev, exp = (pl.col("type") == name for name in ("SER", "DEV", "EXP"))
    gr_above = pl.col("gr").is_finite() & (pl.col("gr") > t.spiral_gr_min)
    thin = exp | (ser & pl.col("sersic").is_finite() & (pl.col("sersic") < t.spiral_sersic_max))
    return {
        "ring-proxy": (dev | (ser & _ge("sersic", t.ring_sersic_min))) & _ge("flux_r", t.ring_flux_r_min),
        "edge-on-proxy": _ge("ellipticity", t.edge_on_ellipticity_min) & _ge("shape_r", t.edge_on_radius_min),
        "blue-clumpy-proxy": _le("gr", t.blue_gr_max) & _le("mag_r", t.blue_mag_r_max),
        "large-galaxy-proxy": _ge("shape_r", t.large_radius_min) & _ge("flux_r", t.large_flux_r_min),
        "spiral-proxy": gr_above & _le("gr", t.spiral_gr_max) & _ge("shape_r", t.spiral_radius_min) & thin,
    }


def _pairs(frame: pl.DataFrame, others: pl.DataFrame, arcsec: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row in frame, row in others, separation in arcsec) of all pairs within ``arcsec``, an object with itself left
    out.
    """
    i, j, sep = near_pairs(frame["ra"], frame["dec"], others["ra"], others["dec"], arcsec)
    names = ("release", "brickid", "objid")
    same = np.logical_and.reduce([frame[c].to_numpy()[i] == others[c].to_numpy()[j] for c in names])
    return i[~same], j[~same], sep[~same]


def _bright(t: N2Thresholds) -> pl.Expr:
    return _ge("flux_r", t.neighbour_flux_r_min).fill_null(False)


def _star() -> pl.Expr:
    return ((pl.col("type") == "PSF") & pl.col("ref_cat").is_in(["T2", "GE"])).fill_null(False)


def may_matter(t: N2Thresholds) -> pl.Expr:
    """Whether an object could be a bright neighbour or a star of some other object."""
    return _bright(t) | _star()


def neighbours_of(frame: pl.DataFrame, rows: Rows, t: N2Thresholds) -> pl.DataFrame:
    """Those of ``rows`` that could make an object of ``frame`` a blend or spoil it by their halo: the bright ones and the
    catalogued stars near enough to any, with the columns of :data:`NEIGHBOUR`. A few more than needed may be there."""
    light = rows.columns(("ra", "dec", "flux_r", "type", "ref_cat"))
    ra, dec = light["ra"].to_numpy(), light["dec"].to_numpy()
    flags = light.select(bright=_bright(t), star=_star())
    found = np.zeros(rows.height, bool)
    for kind, arcsec in (
        ("bright", t.neighbour_max_arcsec),
        ("star", max(t.tycho_radius_arcsec, t.gaia_radius_arcsec)),
    ):
        some = flags[kind].to_numpy()
        if some.any():
            found |= Sieve(frame["ra"], frame["dec"], arcsec).maybe(ra, dec, some)
    return rows.rows(np.flatnonzero(found), NEIGHBOUR)


def bright_neighbour(frame: pl.DataFrame, others: pl.DataFrame, t: N2Thresholds) -> Bool:
    """Whether another object lies in the 3-6" annulus with at least the stated flux, absolute and relative to its
    own.
    """
    found = np.zeros(frame.height, bool)
    others = others.filter(_ge("flux_r", t.neighbour_flux_r_min) & pl.col("ra").is_finite() & pl.col("dec").is_finite())
    i, j, sep = _pairs(frame, others, t.neighbour_max_arcsec)
    own = frame["flux_r"].cast(pl.Float64).fill_null(0.0).fill_nan(0.0).to_numpy()
    flux = others["flux_r"].cast(pl.Float64).to_numpy()
    bright = (sep >= t.neighbour_min_arcsec) & (flux[j] >= t.neighbour_flux_ratio_min * own[i])
    found[i[bright]] = True
    return found


def star_neighbour(frame: pl.DataFrame, others: pl.DataFrame, t: N2Thresholds) -> Bool:
    """Whether a Tycho-2 star, or a Gaia star bright enough to leave a halo, lies within its radius (REF_CAT T2, GE)."""
    found = np.zeros(frame.height, bool)
    stars = others.filter(pl.col("ra").is_finite() & pl.col("dec").is_finite() & (pl.col("type") == "PSF"))
    catalogue = pl.col("ref_cat")
    for kind, radius in (
        (catalogue == "T2", t.tycho_radius_arcsec),
        ((catalogue == "GE") & _ge("flux_r", t.gaia_flux_r_min), t.gaia_radius_arcsec),
    ):
        found[_pairs(frame, stars.filter(kind.fill_null(False)), radius)[0]] = True
    return found


def categorise(
    frame: pl.DataFrame,
    thresholds: N2Thresholds,
    *,
    neighbours: pl.DataFrame | None = None,
    priority: tuple[str, ...] = CATEGORIES,
) -> pl.DataFrame:
    """Add ``n2_flags`` (list, in order of priority), ``n2_category`` (the first of them, or null) and ``pool``.

    Parameters
    ----------
    frame : eligible objects with finite positions and the ``sweeps`` columns.
    neighbours : all objects that may be a neighbour or a star, eligible or not (default: ``frame`` itself), with the
        columns of :data:`NEIGHBOUR`.
    """
    need(frame, _NEEDED, "categories of confusers")
    others = frame if neighbours is None else neighbours
    fracflux = pl.any_horizontal(_ge(f"fracflux_{b}", thresholds.fracflux_min).fill_null(False) for b in "grz")
    bits = maskbits_value(thresholds.star_maskbits)
    flags = frame.select(
        *(expr.fill_null(False).alias(name) for name, expr in catalogue_flags(thresholds).items()),
        (fracflux | pl.Series("bright", bright_neighbour(frame, others, thresholds))).alias("merger-blend-proxy"),
        (
            ((pl.col("maskbits").cast(pl.Int64) & bits) != 0).fill_null(False)
            | pl.Series("star", star_neighbour(frame, others, thresholds))
        ).alias("artefact-near-star-proxy"),
    )
    held = flags.select(priority).to_numpy()  # (n, categories), in order of priority
    pattern = held @ (1 << np.arange(len(priority)))
    return frame.with_columns(named.gather(pattern) for named in _of_patterns(priority))


@lru_cache(maxsize=8)
def _of_patterns(priority: tuple[str, ...]) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Flags, category and pool of each pattern of bits."""
    names = [[name for k, name in enumerate(priority) if code >> k & 1] for code in range(1 << len(priority))]
    return (
        pl.Series("n2_flags", names, pl.List(pl.String)),
        pl.Series("n2_category", [n[0] if n else None for n in names], pl.String),
        pl.Series("pool", ["N2" if n else "N1" for n in names], pl.String),
    )
