"""The DR10 10.1 sweep: every column in file order with its type and unit, and the file writer.

Source: legacysurvey.org DR10 `files` page. The i band is in the table as in the release and is not observed in the
mock sky.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

BANDS4 = ("G", "R", "I", "Z")
WISE = ("W1", "W2", "W3", "W4")


def _columns() -> list[tuple[str, str, str]]:
    b, w = BANDS4, WISE
    out: list[tuple[str, str, str]] = [
        ("RELEASE", "i2", ""), ("BRICKID", "i4", ""), ("BRICKNAME", "S8", ""), ("OBJID", "i4", ""), ("TYPE", "S3", ""),
        ("RA", "f8", "deg"), ("DEC", "f8", "deg"), ("RA_IVAR", "f4", "1/deg^2"), ("DEC_IVAR", "f4", "1/deg^2"),
        ("DCHISQ", "5f4", ""), ("EBV", "f4", "mag"),
    ]  # fmt: skip
    for stem, unit, kind in (
        ("FLUX", "nanomaggy", "f4"),
        ("FLUX_IVAR", "1/nanomaggy^2", "f4"),
        ("MW_TRANSMISSION", "", "f4"),
    ):
        out += [(f"{stem}_{x}", kind, unit) for x in (*b, *w)]
    out += [(f"NOBS_{x}", "i2", "") for x in (*b, *w)]
    for stem in ("RCHISQ", "FRACFLUX"):
        out += [(f"{stem}_{x}", "f4", "") for x in (*b, *w)]
    for stem in ("FRACMASKED", "FRACIN"):
        out += [(f"{stem}_{x}", "f4", "") for x in b]
    for stem in ("ANYMASK", "ALLMASK"):
        out += [(f"{stem}_{x}", "i2", "") for x in b]
    out += [("WISEMASK_W1", "u1", ""), ("WISEMASK_W2", "u1", "")]
    out += [(f"PSFSIZE_{x}", "f4", "arcsec") for x in b]
    out += [(f"PSFDEPTH_{x}", "f4", "1/nanomaggy^2") for x in b]
    out += [(f"GALDEPTH_{x}", "f4", "1/nanomaggy^2") for x in b]
    out += [("PSFDEPTH_W1", "f4", "1/nanomaggy^2"), ("PSFDEPTH_W2", "f4", "1/nanomaggy^2"), ("WISE_COADD_ID", "S8", "")]
    out += [("SHAPE_R", "f4", "arcsec"), ("SHAPE_R_IVAR", "f4", "1/arcsec^2")]
    out += [(f"SHAPE_{e}{i}", "f4", "") for e in ("E1", "E2") for i in ("", "_IVAR")]
    out += [(f"FIBERFLUX_{x}", "f4", "nanomaggy") for x in b] + [(f"FIBERTOTFLUX_{x}", "f4", "nanomaggy") for x in b]
    out += [("REF_CAT", "S2", ""), ("REF_ID", "i8", ""), ("REF_EPOCH", "f4", "yr")]
    for x in ("G", "BP", "RP"):
        out += [(f"GAIA_PHOT_{x}_MEAN_MAG", "f4", "mag"), (f"GAIA_PHOT_{x}_MEAN_FLUX_OVER_ERROR", "f4", "")]
    out += [
        ("GAIA_ASTROMETRIC_EXCESS_NOISE", "f4", ""), ("GAIA_DUPLICATED_SOURCE", "?", ""),
        ("GAIA_PHOT_BP_RP_EXCESS_FACTOR", "f4", ""), ("GAIA_ASTROMETRIC_SIGMA5D_MAX", "f4", "mas"),
        ("GAIA_ASTROMETRIC_PARAMS_SOLVED", "u1", ""),
    ]  # fmt: skip
    for stem, unit in (("PARALLAX", "mas"), ("PMRA", "mas/yr"), ("PMDEC", "mas/yr")):
        out += [(stem, "f4", unit), (f"{stem}_IVAR", "f4", f"1/({unit})^2")]
    out += [("MASKBITS", "i4", ""), ("FITBITS", "i2", ""), ("SERSIC", "f4", ""), ("SERSIC_IVAR", "f4", "")]
    return out


SWEEP_COLUMNS: tuple[tuple[str, str, str], ...] = tuple(_columns())
"""(name, numpy type, unit) in file order."""
SWEEP_DTYPE = np.dtype(
    [(name, kind[1:], (int(kind[0]),)) if kind[0].isdigit() else (name, kind) for name, kind, _ in SWEEP_COLUMNS]
)
_FITS = {
    "i2": "I",
    "i4": "J",
    "i8": "K",
    "f4": "E",
    "f8": "D",
    "u1": "B",
    "?": "L",
    "S8": "8A",
    "S3": "3A",
    "S2": "2A",
    "5f4": "5E",
}


def write_sweep(path: Path, rows: npt.NDArray[np.void], cards: dict[str, object]) -> None:
    """Write sweep rows (``SWEEP_DTYPE``) as HDU 1 of a FITS file, big-endian as the format demands."""
    columns = [
        fits.Column(name=name, format=_FITS[kind], unit=unit or None, array=rows[name])
        for name, kind, unit in SWEEP_COLUMNS
    ]
    table = fits.BinTableHDU.from_columns(columns, nrows=len(rows), name="SWEEP")
    primary = fits.PrimaryHDU()
    for key, value in cards.items():
        primary.header[key] = value
    fits.HDUList([primary, table]).writeto(path, overwrite=True)
