"""Pairs of positions within a small radius, when nearly no position has one.

A sieve marks the cells of a fine grid that discs of the radius touch; whoever is not in a marked cell has no neighbour, which
is nearly everybody, and the few that are left are measured exactly. The grid is cells of about twice the radius on bands of
declination, hashed into a table of bits, so it needs no bounding box, knows RA 0 and the poles, and can say "maybe" to a
position that is far away but never "no" to one that is near.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.sphere import chord, unit_vectors
from lens_assets.science.surveys.kernel import compiled

Bool = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_GOLDEN = numba.uint64(0x9E3779B97F4A7C15)
_SMALLEST_CELL_DEG = 2.0 / 3600
_MARGIN = 1e-9  # relative and in degrees (4 microarcsec): far above rounding, far below any radius
_BITS_PER_CELL = 64
_LARGEST_TABLE = 1 << 27
_MANY = 100_000  # positions that are worth a sieve, and, for each thread, worth a thread


class Sieve:
    """Which positions may lie within ``arcsec`` of any of the centres.

    Parameters
    ----------
    ra, dec : centres, degrees, any RA; those that are not finite or not on the sky are left out.
    arcsec : radius of the discs, at most 10 degrees.

    ``grid`` is what compiled code hands to :func:`in_marked_cell`.
    """

    def __init__(self, ra: npt.ArrayLike, dec: npt.ArrayLike, arcsec: float) -> None:
        a, d = np.atleast_1d(_floats(ra)), np.atleast_1d(_floats(dec))
        good = np.isfinite(a) & (np.abs(d) <= 90)
        a, d = a[good] % 360, d[good]
        radius = arcsec / 3600 * (1 + _MARGIN) + _MARGIN
        if not 0 < radius < 10:
            raise ValueError(f"a sieve is for small discs, not of {arcsec} arcsec")
        self.height = max(2 * radius, _SMALLEST_CELL_DEG)
        bands = int(180 / self.height) + 2
        middle = np.clip((np.arange(bands) + 0.5) * self.height - 90, -90, 90)
        self.across = np.maximum((360 * np.cos(np.radians(middle)) / self.height).astype(np.int64), 1)
        self.start = np.concatenate([[0], np.cumsum(self.across)[:-1]])
        cells = self._touched(a, d, radius)
        self.shift = 64 - max(min(len(cells) * _BITS_PER_CELL, _LARGEST_TABLE).bit_length(), 10)
        self.bits = np.zeros(1 << (64 - self.shift - 3), np.uint8)
        _mark(cells, self.shift, self.bits)
        # multiplied, not divided: the rounding (1e-13 degrees) is far below the margin of the marks
        self.grid = (self.across / 360.0, 1 / self.height, self.across, self.start, self.shift, self.bits)

    def _touched(self, ra: F64, dec: F64, radius: float) -> I64:
        """Cells that the discs touch (a cell may be there more than once)."""
        first = np.floor((np.maximum(dec - radius, -90) + 90) / self.height).astype(np.int64)
        last = np.floor((np.minimum(dec + radius, 90) + 90) / self.height).astype(np.int64)
        with np.errstate(invalid="ignore", divide="ignore"):
            half = np.degrees(np.arcsin(np.sin(np.radians(radius)) / np.cos(np.radians(dec)))) * (1 + _MARGIN) + _MARGIN
        half[np.abs(dec) + radius >= 90] = 180
        half[~(half < 180)] = 180
        out = [np.empty(0, np.int64)]
        for step in range(int((last - first).max(initial=-1)) + 1):
            row = np.flatnonzero(first + step <= last)
            band = first[row] + step
            n = self.across[band]
            left = np.floor((ra[row] - half[row]) * n / 360).astype(np.int64)
            count = np.minimum(np.floor((ra[row] + half[row]) * n / 360).astype(np.int64) - left + 1, n)
            each = np.repeat(np.arange(len(row)), count)
            across = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count) + left[each]
            out.append(self.start[band][each] + across % n[each])
        return np.concatenate(out)

    def maybe(self, ra: npt.ArrayLike, dec: npt.ArrayLike, among: Bool | None = None) -> Bool:
        """False where a position (degrees) has no centre within the radius; a position that is none has none.

        Only positions that are ``among`` those asked for are looked at; the others are False.
        """
        a, d = _floats(ra), _floats(dec)
        out = np.ones(len(a), bool) if among is None else among.copy()

        def ask(part: slice) -> None:
            _ask(a[part], d[part], *self.grid, out[part])

        share = max(-(-len(a) // int(pl.thread_pool_size())), _MANY)
        parts = [slice(at, at + share) for at in range(0, len(a), share)]
        if len(parts) == 1:
            ask(parts[0])
        elif parts:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(ask, parts))
        return out


@compiled
def _mark(cells, shift, bits):  # type: ignore[no-untyped-def]
    for i in range(cells.size):
        at = (numba.uint64(cells[i]) * _GOLDEN) >> numba.uint64(shift)
        bits[at >> numba.uint64(3)] |= numba.uint8(1 << (at & numba.uint64(7)))


@compiled
def in_marked_cell(a, d, scale, bands_per_degree, across, start, shift, bits):  # type: ignore[no-untyped-def]
    """Whether the cell of a position (``a`` in [0, 360), ``d`` in [-90, 90]) is marked; the rest is :attr:`Sieve.grid`."""
    band = numba.int64((d + 90.0) * bands_per_degree)
    cell = min(numba.int64(a * scale[band]), across[band] - 1) + start[band]
    at = (numba.uint64(cell) * _GOLDEN) >> numba.uint64(shift)
    return (bits[at >> numba.uint64(3)] >> (at & numba.uint64(7))) & numba.uint8(1)


@compiled
def _ask(ra, dec, scale, bands_per_degree, across, start, shift, bits, out):  # type: ignore[no-untyped-def]
    for i in range(ra.size):
        if not out[i]:
            continue
        a = ra[i]
        d = dec[i]
        out[i] = False
        if not (d >= -90.0 and d <= 90.0 and a > -1e9 and a < 1e9):
            continue
        if a < 0.0 or a >= 360.0:
            a = a - 360.0 * np.floor(a / 360.0)
        out[i] = in_marked_cell(a, d, scale, bands_per_degree, across, start, shift, bits)


@compiled
def _join(first, second, dec, other_dec, window, limit, i, j):  # type: ignore[no-untyped-def]
    """Pairs of unit vectors (n, 3), both in order of declination, whose squared chord is at most ``limit``, into ``i`` and
    ``j``; returns their number, which may be more than there is room for."""
    found = 0
    low = 0
    for a in range(first.shape[0]):
        while low < second.shape[0] and other_dec[low] < dec[a] - window:
            low += 1
        b = low
        while b < second.shape[0] and other_dec[b] <= dec[a] + window:
            x = first[a, 0] - second[b, 0]
            y = first[a, 1] - second[b, 1]
            z = first[a, 2] - second[b, 2]
            if x * x + y * y + z * z <= limit:
                if found < i.size:
                    i[found] = a
                    j[found] = b
                found += 1
            b += 1
    return found


def _floats(values: npt.ArrayLike) -> F64:
    return np.ascontiguousarray(values, np.float64)


def _sifted(side: tuple[F64, F64], rows: I64, other: tuple[F64, F64], centres: I64, arcsec: float) -> I64:
    """Those ``rows`` of one side that may have one of the ``centres`` of the other nearby."""
    return rows[Sieve(other[0][centres], other[1][centres], arcsec).maybe(side[0][rows], side[1][rows])]


def _southward(side: tuple[F64, F64], rows: I64) -> I64:
    """Usable rows in order of declination."""
    rows = rows[np.isfinite(side[0][rows]) & (np.abs(side[1][rows]) <= 90)]
    return np.asarray(rows[np.argsort(side[1][rows])], np.int64)


def near_pairs(
    ra: npt.ArrayLike, dec: npt.ArrayLike, other_ra: npt.ArrayLike, other_dec: npt.ArrayLike, arcsec: float
) -> tuple[I64, I64, F64]:
    """(row, other row, separation in arcsec) of all pairs within ``arcsec`` (inclusive), sorted by row and other row.

    Positions in degrees; a position that is not finite or not on the sky has no pair.
    """
    none = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    a, b = (_floats(ra), _floats(dec)), (_floats(other_ra), _floats(other_dec))
    if not (a[0].size and b[0].size):
        return none
    (small, large), swapped = ((a, b), False) if a[0].size <= b[0].size else ((b, a), True)
    few, many = np.arange(small[0].size), None
    if large[0].size > _MANY:
        reach = arcsec / 3600 * (1 + _MARGIN) + _MARGIN  # those of the whole sky that lie as far north as the others
        south, north = np.fmin.reduce(large[1]) - reach, np.fmax.reduce(large[1]) + reach
        few = np.flatnonzero((small[1] >= south) & (small[1] <= north))
        many = np.flatnonzero(Sieve(small[0][few], small[1][few], arcsec).maybe(large[0], large[1]))
        few = _sifted(small, few, large, many, arcsec)
        many = _sifted(large, many, small, few, arcsec)
    many = np.arange(large[0].size) if many is None else many
    rows, others = (_southward(a, many), _southward(b, few)) if swapped else (_southward(a, few), _southward(b, many))
    vectors = [unit_vectors(side[0][k], side[1][k]).reshape(-1, 3) for k, side in ((rows, a), (others, b))]
    limit, room = (chord(arcsec) * (1 + 1e-12)) ** 2, 4 * min(len(rows), len(others)) + 1024
    while True:
        i, j = np.empty(room, np.int64), np.empty(room, np.int64)
        n = _join(*vectors, a[1][rows], b[1][others], arcsec / 3600 * (1 + _MARGIN) + _MARGIN, limit, i, j)
        if n <= room:
            break
        room = n
    apart = np.linalg.norm(vectors[0][i[:n]] - vectors[1][j[:n]], axis=-1)
    i, j = rows[i[:n]], others[j[:n]]
    order = np.lexsort((j, i))
    return i[order], j[order], np.degrees(2 * np.arcsin(np.clip(apart[order] / 2, 0, 1))) * 3600
