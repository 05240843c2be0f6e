"""Squares out of a tile-compressed image: each read by itself, or the whole image once, whichever costs less.

Both ways give the same bytes (a tile decompresses alone, its dither included), so the choice is one of time only. Costs are
counted in tiles decompressed. A section costs more than its tiles: astropy finds them, copies them and cuts. Measured on
3600 x 3600 px (astropy 8.0, processor time, 2026-11-28): one stamp of 101 px 0.64 ms from 100 x 100 tiles and 4.5 ms from rows,
one pixel 0.27 ms; the whole image 105, 124 and 50 ms. So sections win below about 130 stamps a brick with the survey's tiles
(measured 160), 28 with row tiles (27), and 200 single pixels (190).

Remote releases: a brick's files are fetched whole into the cache first, because their SHA-256 (the provenance of every
stamp) and their DATASUM need every byte. What is chosen here is then the same as for a local release.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

I64 = npt.NDArray[np.int64]
PER_TILE, PER_SECTION = 1.25, 5.0
"""Cost of a section in tiles of a whole decompression: ``PER_TILE`` for each tile it touches, and ``PER_SECTION``."""


class _Sectioned(Protocol):
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def data(self) -> Any: ...
    @property
    def section(self) -> Any: ...


def tiles_touched(top: I64, left: I64, side: int, tile: tuple[int, int]) -> int:
    """Tiles of ``tile`` (rows, columns) that squares of ``side`` pixels touch, each square counted by itself."""
    rows = (top + side - 1) // tile[0] - top // tile[0] + 1
    columns = (left + side - 1) // tile[1] - left // tile[1] + 1
    return int((rows * columns).sum())


def sections_pay(top: I64, left: I64, side: int, shape: tuple[int, int], tile: tuple[int, int]) -> bool:
    """Whether reading these squares one by one costs less than decompressing the whole image."""
    whole = -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])
    return PER_TILE * tiles_touched(top, left, side, tile) + PER_SECTION * len(top) < whole


def squares(hdu: _Sectioned, top: I64, left: I64, side: int, *, sections: bool | None = None) -> npt.NDArray[Any]:
    """Copies of ``image[top : top + side, left : left + side]``, (n, side, side) in the image's own dtype, in native byte order.

    ``sections``: read them one by one (true), from the whole image (false), or as :func:`sections_pay` says (None). An image
    that is not compressed is always read whole: it is a copy of its bytes.
    """
    tile = getattr(hdu, "tile_shape", None)
    if sections is None:
        sections = tile is not None and sections_pay(top, left, side, hdu.shape, tile)
    if sections or not len(top):
        section = hdu.section
        found = [section[y : y + side, x : x + side] for y, x in zip(top.tolist(), left.tolist(), strict=True)]
        copies = np.stack(found) if found else np.empty((0, side, side), np.float32)
    else:
        copies = sliding_window_view(np.asarray(hdu.data), (side, side))[top, left]
    return copies.astype(copies.dtype.newbyteorder("="), copy=False)
