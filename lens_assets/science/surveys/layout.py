"""Where things are in a Legacy Surveys data release: names of sweeps, bricks and coadds, and the closed-form brick
grid.

Pure arithmetic and strings; reading is in ``release``. Facts: legacysurvey.org DR10 `files` page, and the brick grid
checked against BRICKIDs of DR7 sweeps and DR10 stamps (662,174 bricks).
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from lens_assets.science.errors import BadInput

BANDS = ("g", "r", "z")
"""The bands the platform uses, in plane order."""
PIXEL_SCALE = 0.262
"""arcsec per coadd pixel."""
BRICK_PIXELS = 3600
"""Pixels on a side of a brick image; the reader trusts the header instead, so that small practice bricks work."""
ZERO_POINT = 22.5
"""AB magnitude of one nanomaggy."""
EXTINCTION = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}
"""A / E(B-V) per band (DR10 `catalogs` page)."""
SWEEP_DIR = "south/sweep/10.1"
COADD_DIR = "south/coadd"
BRICK_TABLE = "survey-bricks.fits.gz"

_SWEEP = re.compile(r"sweep-(\d{3})([pm])(\d{3})-(\d{3})([pm])(\d{3})\.fits")
_TILE = re.compile(r"(\d{3})([pm])(\d{3})")


@dataclass(frozen=True)
class Tile:
    """The 5 x 5 degree footprint of one sweep file; ``key`` (for instance ``000m005``) is its partition key."""

    ra_min: int
    dec_min: int

    @property
    def key(self) -> str:
        """RA minimum and Dec minimum as in the file name."""
        return f"{self.ra_min:03d}{_sign(self.dec_min)}{abs(self.dec_min):03d}"

    @property
    def file(self) -> str:
        """The sweep's file name."""
        upper = self.dec_min + 5
        return f"sweep-{self.key}-{self.ra_min + 5:03d}{_sign(upper)}{abs(upper):03d}.fits"

    @property
    def path(self) -> str:
        """The sweep's path below the root of the release."""
        return f"{SWEEP_DIR}/{self.file}"


def _sign(dec: float) -> str:
    return "p" if dec >= 0 else "m"


def tile_of_file(name: str) -> Tile:
    """The tile of a sweep file name; :class:`BadInput` when it does not have the form of one."""
    match = _SWEEP.fullmatch(name)
    if not match:
        raise BadInput("not a DR10 sweep name (sweep-RRRsDDD-RRRsDDD.fits)", file=name)
    ra, sign, dec = match.group(1), match.group(2), match.group(3)
    tile = Tile(int(ra), int(dec) if sign == "p" else -int(dec))
    if tile.file != name:
        raise BadInput(f"a DR10 sweep spans 5 x 5 degrees: expected {tile.file}", file=name)
    return tile


def tile_of_key(key: str) -> Tile:
    """The tile of a partition key such as ``000m005``."""
    match = _TILE.fullmatch(key)
    if not match:
        raise BadInput(f"not a tile key: {key!r} (RRRsDDD, for instance 000m005)")
    return Tile(int(match.group(1)), int(match.group(3)) * (1 if match.group(2) == "p" else -1))


def tile_at(ra: float, dec: float) -> Tile:
    """The tile that holds a position (degrees)."""
    return Tile(int(ra % 360 // 5 * 5), int(dec // 5 * 5))


@dataclass(frozen=True)
class BrickCell:
    """One cell of the brick grid; all angles in degrees."""

    name: str
    brickid: int
    ra: float
    dec: float
    ra1: float
    ra2: float
    dec1: float
    dec2: float

    def coadd(self, product: str, band: str | None = None) -> str:
        """Path of a coadd below the root: ``image``, ``invvar``, ``psfsize``, ``nexp`` (with a band) or
        ``maskbits``."""
        stem = f"{COADD_DIR}/{self.name[:3]}/{self.name}/legacysurvey-{self.name}-{product}"
        return f"{stem}-{band}.fits.fz" if band else f"{stem}.fits.fz"


def _columns_in_row(row: int) -> int:
    if row in (0, 720):
        return 1
    edge = max(abs(-90 + 0.25 * row) - 0.125, 0.0)
    n = int(np.ceil(1440 * np.cos(np.radians(edge)) - 1e-9))
    return n + n % 2


_ROW_SIZES = [_columns_in_row(r) for r in range(721)]
_ROW_START = [0, *itertools.accumulate(_ROW_SIZES)]
N_BRICKS = _ROW_START[-1]


def _brick(row: int, col: int) -> BrickCell:
    n = _ROW_SIZES[row]
    dec = -90 + 0.25 * row
    ra1, ra2 = col * 360 / n, (col + 1) * 360 / n
    ra = (col + 0.5) * 360 / n
    name = f"{int(ra * 10 + 1e-9):04d}{_sign(dec)}{int(abs(dec) * 10 + 1e-9):03d}"
    return BrickCell(
        name, 1 + _ROW_START[row] + col, ra, dec, ra1, ra2, max(dec - 0.125, -90.0), min(dec + 0.125, 90.0)
    )


def brick_at(ra: float, dec: float) -> BrickCell:
    """The primary brick of a position: DEC1 <= dec < DEC2 and RA1 <= ra < RA2."""
    if not (np.isfinite(ra) and -90 <= dec <= 90):
        raise BadInput(f"not a position: ra={ra}, dec={dec}")
    row = min(int(np.floor((dec + 90) / 0.25 + 0.5)), 720)
    return _brick(row, int(np.floor((ra % 360) * _ROW_SIZES[row] / 360)) % _ROW_SIZES[row])


def brick_of_id(brickid: int) -> BrickCell:
    """The brick with a BRICKID (1..662174)."""
    if not 1 <= brickid <= N_BRICKS:
        raise BadInput(f"no brick has BRICKID {brickid}")
    row = bisect_right(_ROW_START, brickid - 1) - 1
    return _brick(row, brickid - 1 - _ROW_START[row])


_BRICK_NAME = re.compile(r"(\d{4})([pm])(\d{3})")


def brick_of_name(name: str) -> BrickCell:
    """The brick with a BRICKNAME; :class:`BadInput` when the grid has no brick of that name.

    The name's digits are truncated, so the row and column are searched among the few centres that give them.
    """
    match = _BRICK_NAME.fullmatch(name)
    if match:
        ra, dec = int(match.group(1)) / 10, int(match.group(3)) / 10 * (1 if match.group(2) == "p" else -1)
        for row in range(int((dec - 0.1 + 90) * 4) - 1, int((dec + 0.1 + 90) * 4) + 2):
            if 0 <= row <= 720:
                n = _ROW_SIZES[row]
                for col in range(max(int(ra * n / 360) - 1, 0), min(int((ra + 0.1) * n / 360) + 1, n)):
                    if (brick := _brick(row, col)).name == name:
                        return brick
    raise BadInput(f"no brick is called {name!r} (RRRRsDDD, tenths of a degree of its centre)")
