"""Columns of the survey catalogue (`sweeps`) and of the observing conditions (`conditions`).

Names are the lower-case DR10 names. Where the release keeps a quantity in another unit elsewhere (PSFDEPTH is
1/nmgy^2 in sweeps and AB magnitudes in the brick table) the unit here is the one of this table.
"""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.registry import Column, Table

_DR10 = "Legacy Surveys DR10 sweep 10.1"
BANDS = ("g", "r", "z")


def _band(stem: str, dtype: type[pl.DataType], unit: str, meaning: str, **more: object) -> tuple[Column, ...]:
    return tuple(Column(f"{stem}_{b}", dtype, unit, f"{meaning} ({b})", _DR10, **more) for b in BANDS)  # type: ignore[arg-type]


GALAXY_ID = Column(
    "galaxy_id", pl.String, "", "canonical identity RELEASE-BRICKID-OBJID", "derived", ucd="meta.id;meta.main"
)
TILE = Column("tile", pl.String, "", "partition key of the sweep file, RRRsDDD", "derived", ucd="meta.id.part")
RELEASE = Column("release", pl.Int16, "", "release number of the brick", _DR10, lo=10000, hi=10999)
BRICKID = Column("brickid", pl.Int32, "", "brick number of the closed-form grid", _DR10, lo=1, hi=662174)
BRICKNAME = Column("brickname", pl.String, "", "brick name", _DR10)
OBJID = Column("objid", pl.Int32, "", "object number inside the brick", _DR10, lo=0)
TYPE = Column("type", pl.String, "", "morphological model: PSF, REX, EXP, DEV, SER", _DR10, ucd="src.class")
RA = Column("ra", pl.Float64, "deg", "right ascension, J2000", _DR10, lo=0, hi=360, ucd="pos.eq.ra;meta.main")
DEC = Column("dec", pl.Float64, "deg", "declination, J2000", _DR10, lo=-90, hi=90, ucd="pos.eq.dec;meta.main")
EBV = Column("ebv", pl.Float32, "mag", "Galactic reddening E(B-V), SFD98", _DR10, lo=0, ucd="phot.color.excess")
FLUX = _band("flux", pl.Float32, "nmgy", "model flux, not dereddened", ucd="phot.flux")
FLUX_W1 = Column("flux_w1", pl.Float32, "nmgy", "forced WISE W1 flux", _DR10, ucd="phot.flux;em.IR.3-4um")
FLUX_IVAR = _band("flux_ivar", pl.Float32, "1/nmgy^2", "inverse variance of the flux", lo=0)
MW_TRANSMISSION = _band("mw_transmission", pl.Float32, "", "Galactic transmission", lo=0, hi=1.0001)
NOBS = _band("nobs", pl.Int16, "", "exposures over the central pixel", lo=0)
FRACFLUX = _band("fracflux", pl.Float32, "", "neighbours' flux over own flux")
FRACMASKED = _band("fracmasked", pl.Float32, "", "profile-weighted share of masked pixels", lo=0)
PSFSIZE = _band("psfsize", pl.Float32, "arcsec", "weighted mean PSF FWHM; 0 without exposures", lo=0, hi=10)
PSFDEPTH = _band("psfdepth", pl.Float32, "1/nmgy^2", "point-source depth as inverse variance", lo=0)
GALDEPTH = _band("galdepth", pl.Float32, "1/nmgy^2", 'galaxy depth (0.45" exponential) as inverse variance', lo=0)
SHAPE_R = Column("shape_r", pl.Float32, "arcsec", "half-light radius; 0 for PSF", _DR10, lo=0, ucd="phys.angSize")
SHAPE_E1 = Column("shape_e1", pl.Float32, "", "ellipticity component 1", _DR10, lo=-1, hi=1)
SHAPE_E2 = Column("shape_e2", pl.Float32, "", "ellipticity component 2", _DR10, lo=-1, hi=1)
SERSIC = Column("sersic", pl.Float32, "", "Sersic index, defined for SER", _DR10, lo=0, hi=10)
MASKBITS = Column("maskbits", pl.Int32, "", "bit mask of the central pixel, 32 bits since DR10", _DR10, ucd="meta.code")
FITBITS = Column("fitbits", pl.Int16, "", "bit mask of the fit", _DR10, ucd="meta.code")
REF_CAT = Column("ref_cat", pl.String, "", "reference catalogue: T2, GE, L3 or empty", _DR10)
MAG = tuple(
    Column(f"mag_{b}", pl.Float64, "mag", f"AB magnitude 22.5 - 2.5 log10 flux_{b}, not dereddened; null for flux <= 0",
           "derived", nullable=True, ucd="phot.mag")
    for b in BANDS
)  # fmt: skip
GR = Column("gr", pl.Float64, "mag", "mag_g - mag_r; null without both", "derived", nullable=True, ucd="phot.color")
RZ = Column("rz", pl.Float64, "mag", "mag_r - mag_z; null without both", "derived", nullable=True, ucd="phot.color")
DEPTH = tuple(
    Column(f"depth_{b}", pl.Float64, "mag", f"5-sigma depth 22.5 - 2.5 log10(5 / sqrt(psfdepth_{b})); null for 0",
           "derived", nullable=True, ucd="phot.mag;stat.max")
    for b in BANDS
)  # fmt: skip
ELLIPTICITY = Column("ellipticity", pl.Float32, "", "sqrt(e1^2 + e2^2)", "derived", lo=0, hi=1.4143)
CELL = Column("cell", pl.Int64, "", "HEALPix cell, nside 128, nested", "derived", lo=0, hi=196607)
ROW = Column("row", pl.Int64, "", "row in the input file, from 0", "derived", lo=0)

SWEEPS_COLUMNS: tuple[Column, ...] = (
    GALAXY_ID, TILE, RELEASE, BRICKID, BRICKNAME, OBJID, TYPE, RA, DEC, EBV, *FLUX, FLUX_W1, *FLUX_IVAR,
    *MW_TRANSMISSION, *NOBS, *FRACFLUX, *FRACMASKED, *PSFSIZE, *PSFDEPTH, *GALDEPTH, SHAPE_R, SHAPE_E1, SHAPE_E2,
    SERSIC, MASKBITS, FITBITS, REF_CAT, *MAG, GR, RZ, *DEPTH, ELLIPTICITY, CELL, ROW,
)  # fmt: skip

PSF_BIN = Column(
    "psf_bin",
    pl.Int16,
    "",
    "index of the r-band PSF bin; -1 below, one past the last above, -9 not measured",
    "settings",
)
DEPTH_BIN = Column(
    "depth_bin",
    pl.Int16,
    "",
    "index of the r-band depth bin; -1 below, one past the last above, -9 not measured",
    "settings",
)
NOBS_BIN = Column("nobs_bin", pl.Int16, "", "index of the z-band exposure bin", "settings", lo=-1)
N = Column("n", pl.Int64, "", "objects", "count", lo=0, ucd="meta.number")

SWEEPS = Table("sweeps", "one primary object of the survey", SWEEPS_COLUMNS, ("galaxy_id",))
CONDITIONS = Table(
    "conditions",
    "one occupied combination of observing conditions and type",
    (PSF_BIN, DEPTH_BIN, NOBS_BIN, TYPE, N),
    ("psf_bin", "depth_bin", "nobs_bin", "type"),
)

COLUMNS = (*SWEEPS_COLUMNS, PSF_BIN, DEPTH_BIN, NOBS_BIN, N)
TABLES = (SWEEPS, CONDITIONS)
