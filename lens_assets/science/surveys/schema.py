"""The schema of a DR10 sweep as far as the platform relies on it, and how the other releases give themselves away.

Source: DR10 `files` page (column list, types, units). A wrong release must be named as such: a DR8 sweep has nearly
the same columns, and a 16-bit MASKBITS silently loses SUB_BLOB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from lens_assets.science.errors import BadInput

TYPES = ("PSF", "REX", "EXP", "DEV", "SER", "DUP")
_GRZ = ("G", "R", "Z")


def _bands(stem: str) -> tuple[str, ...]:
    return tuple(f"{stem}_{b}" for b in _GRZ)


_FLOATS = (
    "EBV", *_bands("FLUX"), "FLUX_W1", *_bands("FLUX_IVAR"), *_bands("MW_TRANSMISSION"), *_bands("FRACFLUX"),
    *_bands("FRACMASKED"), *_bands("PSFSIZE"), *_bands("PSFDEPTH"), *_bands("GALDEPTH"),
    "SHAPE_R", "SHAPE_E1", "SHAPE_E2", "SERSIC",
)  # fmt: skip
FINITE = _FLOATS
"""Columns whose value must be finite for a row to stay."""

FORMATS: dict[str, str] = {
    "RELEASE": "I", "BRICKID": "J", "BRICKNAME": "A", "OBJID": "J", "TYPE": "A", "RA": "D", "DEC": "D",
    **dict.fromkeys(_FLOATS, "E"), **dict.fromkeys(_bands("NOBS"), "I"), "MASKBITS": "J", "FITBITS": "I",
    "REF_CAT": "A",
}  # fmt: skip
"""FITS format letter of every needed column (DR10 `files` page): I int16, J int32, E float32, D float64, A text."""
NEEDED = tuple(FORMATS)


def table_hdu(hdus: fits.HDUList, path: Path) -> fits.BinTableHDU:
    """The first binary table; :class:`BadInput` when there is none."""
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU):
            return hdu
    raise BadInput("no binary table inside: not a sweep", file=str(path))


def guess_release(columns: set[str], formats: dict[str, str]) -> str:
    """Which release a column list comes from, as far as its columns tell; empty when they do not."""
    if {"FRACDEV", "SHAPEDEV_R", "SHAPEEXP_R"} & columns:
        return "DR8 or earlier" if "MASKBITS" in columns else "DR7 or earlier"
    if not any(name.startswith("FLUX_") for name in columns):
        return "not a sweep at all"
    if formats.get("MASKBITS", "").endswith("I") or "NOBS_I" not in columns:
        return "DR9"
    return ""


def check_columns(table: fits.BinTableHDU, path: Path) -> None:
    """Raise :class:`BadInput` naming the first needed column that is missing, mistyped, scaled or in a wrong unit."""
    formats = {c.name.upper(): str(c.format) for c in table.columns}
    names = {c.name for c in table.columns}
    guess = guess_release(set(formats), formats)
    looks = f"; the columns look like {guess}, the platform reads DR10 sweep 10.1" if guess else ""
    for name, letter in FORMATS.items():
        if name not in formats:
            raise BadInput(f"the sweep lacks this column{looks}", file=str(path), column=name)
        if name not in names:
            raise BadInput("column names are upper case in a DR10 sweep", file=str(path), column=name)
        got = formats[name]
        kind, repeat = got.lstrip("0123456789")[:1], got.rstrip("AIJKEDLBX")
        if name == "MASKBITS" and kind == "I":
            raise BadInput(
                f"16-bit MASKBITS: bit 16 (SUB_BLOB) is lost; DR10 has 32 bits{looks}", file=str(path), column=name
            )
        if kind != letter or (kind != "A" and repeat not in ("", "1")):
            raise BadInput(f"FITS format {got!r} instead of {letter!r}{looks}", file=str(path), column=name)
        column = table.columns[name]
        if (column.bscale not in (None, "", 1)) or (column.bzero not in (None, "", 0)):
            raise BadInput("scaled (TSCAL/TZERO); DR10 sweeps hold plain values", file=str(path), column=name)
        unit = (column.unit or "").lower()
        if name.startswith(("PSFDEPTH", "GALDEPTH")) and "mag" in unit.replace("nanomagg", "").replace("nmgy", ""):
            raise BadInput(f"unit {column.unit!r}: a sweep has 1/nmgy^2", file=str(path), column=name)
        if name == "RA" and unit in ("hour", "hours", "h", "hourangle"):
            raise BadInput(f"unit {column.unit!r}: the release has degrees", file=str(path), column=name)


def check_release(release: npt.NDArray[Any], series: int, path: Path) -> None:
    """Raise :class:`BadInput` for a RELEASE outside the series (DR10 is 10000..10999)."""
    wrong = np.flatnonzero(release // 1000 != series)
    if len(wrong):
        row = int(wrong[0])
        number = int(release[row])
        raise BadInput(
            f"RELEASE {number} is of DR{number // 1000}, not DR{series}", file=str(path), column="RELEASE", row=row
        )


def check_depth_units(arrays: dict[str, npt.NDArray[Any]], path: Path) -> None:
    """Raise :class:`BadInput` when PSFDEPTH or GALDEPTH look like magnitudes.

    The brick table has the same names in AB magnitudes. As 1/nmgy^2 the numbers 18..28 in all three bands at once would
    mean the same very shallow depth of 22.3-22.6 mag in g, r and z everywhere, which no survey region has.
    """
    for stem in ("PSFDEPTH", "GALDEPTH"):
        positive = [v[v > 0] for v in (arrays[name] for name in _bands(stem))]
        if all(len(v) for v in positive) and all(
            np.nanquantile(v, 0.01) > 18 and np.nanquantile(v, 0.99) < 28 for v in positive
        ):
            raise BadInput(
                f"values {positive[1].min():.4g}..{positive[1].max():.4g} in every band look like AB magnitudes, "
                "not 1/nmgy^2 (the brick table has magnitudes under the same name)",
                file=str(path), column=f"{stem}_R",
            )  # fmt: skip
