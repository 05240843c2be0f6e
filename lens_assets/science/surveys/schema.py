"""The schema of a DR10 sweep as far as the platform relies on it, and how the other releases give themselves away.

Source: DR10 `files` page (column list, types, units). A wrong release must be named as such: a DR8 sweep has nearly
the same columns, and a 16-bit MASKBITS silently loses SUB_BLOB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from lens_assets.science.errors import BadInput

_STRING = re.compile("'((?:[^']|'')*)'")
_TFORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")

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


_BYTES = {"L": 1, "X": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_TEXT_BYTES = 8  # the longest text of a sweep


@dataclass(frozen=True)
class Field:
    """A column of a binary table as its header describes it; ``offset`` and ``size`` are bytes inside a row."""

    name: str
    format: str
    letter: str
    repeat: int
    offset: int
    size: int
    unit: str
    scaled: bool


def fields_of(header: fits.Header, path: Path) -> dict[str, Field]:
    """The columns of a binary table by name, in file order (FITS standard 4.0, section 7.3).

    Straight from the header's text: astropy's own column objects cost ten times the reading of a sweep, and its values of some four
    hundred cards as much as a fifth of it. Raises
    :class:`BadInput` for a format that does not exist, a name that occurs twice, or columns that do not fill the row.
    """
    cards = _values(header.tostring(sep="", endcard=False, padding=False))
    out: dict[str, Field] = {}
    offset = 0
    for i in range(1, int(cards.get("TFIELDS", 0)) + 1):
        name, form = str(cards.get(f"TTYPE{i}", f"(column {i})")).strip(), str(cards.get(f"TFORM{i}", "")).strip()
        match = _TFORM.match(form)
        if not match:
            raise BadInput(f"there is no FITS format {form!r}", file=str(path), column=name)
        repeat, letter = int(match[1] or 1), match[2]
        size = -(-repeat // 8) if letter == "X" else repeat * _BYTES[letter]
        if name in out:
            raise BadInput("the sweep has two columns of this name", file=str(path), column=name)
        scaled = float(cards.get(f"TSCAL{i}", "1")) != 1 or float(cards.get(f"TZERO{i}", "0")) != 0
        out[name] = Field(name, form, letter, repeat, offset, size, str(cards.get(f"TUNIT{i}", "")), scaled)
        offset += size
    if offset != int(cards["NAXIS1"]):
        raise BadInput(f"rows of {cards['NAXIS1']} bytes but columns of {offset}", file=str(path))
    return out


def _values(text: str) -> dict[str, str]:
    """Keyword -> value of the fixed-format cards of a header (FITS standard 4.0, section 4.2), as text: strings without their
    quotes and trailing blanks, numbers as written. Comments, and cards without a value, are left out."""
    out = {}
    for at in range(0, len(text), 80):
        if text[at + 8 : at + 10] == "= ":
            body = text[at + 10 : at + 80].lstrip()
            if match := _STRING.match(body):
                value = match[1].replace("''", "'").rstrip()
            else:
                value = body.partition("/")[0].strip().replace("D", "E")
            out[text[at : at + 8].rstrip()] = value
    return out


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


def check_columns(fields: dict[str, Field], path: Path) -> None:
    """Raise :class:`BadInput` naming the first needed column that is missing, mistyped, scaled or in a wrong unit."""
    formats = {name.upper(): field.format for name, field in fields.items()}
    guess = guess_release(set(formats), formats)
    looks = f"; the columns look like {guess}, the platform reads DR10 sweep 10.1" if guess else ""
    for name, letter in FORMATS.items():
        if name not in formats:
            raise BadInput(f"the sweep lacks this column{looks}", file=str(path), column=name)
        if name not in fields:
            raise BadInput("column names are upper case in a DR10 sweep", file=str(path), column=name)
        field = fields[name]
        if name == "MASKBITS" and field.letter == "I":
            raise BadInput(
                f"16-bit MASKBITS: bit 16 (SUB_BLOB) is lost; DR10 has 32 bits{looks}", file=str(path), column=name
            )
        wide = field.repeat > _TEXT_BYTES if letter == "A" else field.repeat != 1
        if field.letter != letter or wide or not field.repeat:
            raise BadInput(f"FITS format {field.format!r} instead of {letter!r}{looks}", file=str(path), column=name)
        if field.scaled:
            raise BadInput("scaled (TSCAL/TZERO); DR10 sweeps hold plain values", file=str(path), column=name)
        unit = field.unit.lower()
        if name.startswith(("PSFDEPTH", "GALDEPTH")) and "mag" in unit.replace("nanomagg", "").replace("nmgy", ""):
            raise BadInput(f"unit {field.unit!r}: a sweep has 1/nmgy^2", file=str(path), column=name)
        if name == "RA" and unit in ("hour", "hours", "h", "hourangle"):
            raise BadInput(f"unit {field.unit!r}: the release has degrees", file=str(path), column=name)


def check_release(release: npt.NDArray[Any], rows: npt.NDArray[Any], series: int, path: Path) -> None:
    """Raise :class:`BadInput` for a RELEASE outside the series (DR10 is 10000..10999); ``rows`` are those it stands in."""
    wrong = np.flatnonzero(release // 1000 != series)
    if len(wrong):
        number, row = int(release[wrong[0]]), int(rows[wrong[0]])
        raise BadInput(
            f"RELEASE {number} is of DR{number // 1000}, not DR{series}", file=str(path), column="RELEASE", row=row
        )


def like_magnitudes(positive: int, magnitude: int) -> bool:
    """Whether at least 98 % of the positive values of a depth column lie between 18 and 28."""
    return positive > 0 and magnitude >= 0.98 * positive


def check_depth_units(arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Raise :class:`BadInput` when PSFDEPTH or GALDEPTH look like magnitudes.

    The brick table has the same names in AB magnitudes. As 1/nmgy^2 the numbers 18..28 in all three bands at once would
    mean the same very shallow depth of 22.3-22.6 mag in g, r and z everywhere, which no survey region has.
    """
    for stem in ("PSFDEPTH", "GALDEPTH"):
        values = [arrays[name] for name in _bands(stem)]
        if all(like_magnitudes(int((v > 0).sum()), int(((v > 18) & (v < 28)).sum())) for v in values):
            positive = values[1][values[1] > 0]
            raise BadInput(
                f"values {positive.min():.4g}..{positive.max():.4g} in every band look like AB magnitudes, "
                "not 1/nmgy^2 (the brick table has magnitudes under the same name)",
                file=str(path), column=f"{stem}_R",
            )  # fmt: skip
