"""The same sky twice: stamps that share pixels, and stamps that look like the same pixels under two identities.

Three kinds of pairs, by decreasing certainty. *identical*: the same bytes. *overlap*: positions closer than a stamp, so
that some pixels are shared; geometry, not appearance. *alike*: farther apart than a stamp by catalogue, yet the same
picture to within a pixel, a resampling or some noise: an object under a wrong position, another service, a stamp
written twice.

A difference hash of the picture as it is cannot find the last kind: smooth round galaxies all hash alike, and the
wings of large ones correlate at 0.5 to 0.9 though nothing is shared (on a practice sky 855 pairs of galaxies of median
r = 15.7, where the sample's is 19.7; two were duplicates). So the object itself is taken out first. What is left, noise and
neighbours, is what makes a piece of sky unique. Two steps:

1. *likeness*: 20 x 20 blocks of 5 px, each bit set where the block is brighter than its surroundings, blocks inside the
   object's own light unknown. Over the m blocks known in both stamps, ``(agreeing - disagreeing) / sqrt(m)``: a standard
   normal deviate for unrelated skies.
2. *agreement*: for likely pairs, the correlation of the high-passed pixels outside both objects, the best of shifts up
   to 2 px. Unrelated skies reached 0.24 at most among 31 million pairs; the same sky under its own noise once more has
   0.5 or more nineteen times in twenty.

How often both steps are wrong is measured on the stamps at hand (``calibration``). Not found: the same object in
other exposures altogether, when nothing but the object is in the stamp; pictures moved by more than about a pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lens_assets.science.errors import BadInput

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

BLOCK = 5
"""px; blocks of 4 to 8 px were tried: 5 loses least to a shift of a pixel at one false alarm in 1e5 pairs."""
MIN_KNOWN = 0.25
"""Share of the blocks that two stamps must have in common to be compared."""
LIKENESS = 4.0
"""Standard deviations; raised by ``calibration.threshold`` where so many pairs would have to be looked at that it takes too
long."""
AGREEMENT = 0.30
"""Correlation from which two skies are called the same."""
SHIFTS = 2
_CLIP = (-3.0, 5.0)
_SMOOTHED = 0.235
"""Scatter left by a Gaussian of 1.5 px: 0.188 of white noise, 1.25 times that of a coadd's correlated noise."""
_WIDE, _NARROW = 15, 7
"""px; widths over which slow light is removed: before blocks are compared, and before pixels are."""
_TILE = (1024, 8192)


class Prints(NamedTuple):
    """Fingerprints of n stamps: ``sign`` (n, blocks) int8, +1 brighter than the surroundings, -1 not, 0 unknown."""

    sign: npt.NDArray[np.int8]

    @property
    def usable(self) -> Mask:
        """Stamps with enough known blocks to be compared at all (an object may fill its stamp)."""
        return np.asarray((self.sign != 0).mean(axis=1) >= MIN_KNOWN)


def sky_of(planes: F32, valid: Mask) -> tuple[F32, Mask]:
    """Planes (n, h, w) without their central object, in units of the background's scatter, and where they are known.

    The object is the central 8 px and whatever connects to the centre pixel above 2.5 sigma (after smoothing with 1.5
    px), grown by 4 px; other sources stay, clipped at 5 sigma, because their pattern is the best mark of a place. Light
    that is round about the centre or varies over more than 15 px is taken off.
    """
    n, height, width = planes.shape
    y, x = np.ogrid[:height, :width]
    r = np.hypot(x - width // 2, y - height // 2)
    ring, core = r.astype(np.int64).ravel(), r < 8
    square = np.ones((3, 3), bool)
    out, known = np.zeros(planes.shape, np.float32), np.zeros(planes.shape, bool)
    for i in range(n):
        good = valid[i] & np.isfinite(planes[i])
        if good.sum() < MIN_KNOWN * good.size:
            continue
        plane = np.where(good, planes[i], np.median(planes[i][good])).astype(np.float64)
        scatter = noise_of(plane, good)
        if not scatter > 0:
            continue
        smooth = ndimage.gaussian_filter(plane, 1.5)
        level = np.quantile(smooth[good], 0.1) + 1.2816 * _SMOOTHED * scatter
        pieces = ndimage.label(smooth > level + 2.5 * _SMOOTHED * scatter)[0]
        mine = pieces[height // 2, width // 2]
        mask = core | ((pieces == mine) & (mine > 0))
        known[i] = good & ~ndimage.binary_dilation(mask, square, iterations=4)
        rest = _less_rings((plane - level) / scatter, known[i], ring)
        out[i] = np.clip(_less_mean(rest, known[i], _WIDE), *_CLIP)  # before clipping: wings have no edge then
    return out, known


def noise_of(plane: npt.NDArray[np.floating], good: Mask) -> float:
    """Scatter of single pixels, from differences 3 px apart: no gradient enters, nor the resampling's correlation."""
    both = good[:, 3:] & good[:, :-3]
    step = (plane[:, 3:] - plane[:, :-3])[both]
    return 1.4826 * float(np.median(np.abs(step))) / 2**0.5 if step.size else 0.0


def _less_rings(plane: npt.NDArray[np.float64], known: Mask, ring: I64) -> F32:
    """A plane minus its mean in rings of a pixel about the centre, values beyond the clip not counted."""
    flat, use = plane.ravel(), (known & (plane > _CLIP[0]) & (plane < _CLIP[1] * 2)).ravel()
    count = np.bincount(ring[use], minlength=int(ring.max()) + 1)
    total = np.bincount(ring[use], weights=flat[use], minlength=len(count))
    return (flat - (total / np.maximum(count, 1))[ring]).reshape(plane.shape).astype(np.float32)


def fingerprint(sky: F32, known: Mask) -> Prints:
    """Fingerprints of :func:`sky_of`'s result: the sign of each block against the mean of its 3 x 3 surroundings."""
    n, height, width = sky.shape
    rows, columns = height // BLOCK, width // BLOCK
    top, left = (height - rows * BLOCK) // 2, (width - columns * BLOCK) // 2

    def summed(a: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        part = a[:, top : top + rows * BLOCK, left : left + columns * BLOCK]
        blocks: npt.NDArray[np.float64] = part.reshape(n, rows, BLOCK, columns, BLOCK).sum((2, 4), dtype=np.float64)
        return blocks

    count = summed(known.astype(np.float32))
    seen = count >= BLOCK * BLOCK / 2
    block = np.where(seen, summed(sky) / np.maximum(count, 1), 0.0)
    near = ndimage.uniform_filter(block, size=(0, 3, 3), mode="constant")
    share = ndimage.uniform_filter(seen.astype(np.float64), size=(0, 3, 3), mode="constant")
    sign = np.where(block > near / np.maximum(share, 1e-9), 1, -1).astype(np.int8)
    return Prints(np.where(seen, sign, np.int8(0)).reshape(n, rows * columns))


def likely_pairs(
    first: Prints, second: Prints | None = None, likeness: float = LIKENESS
) -> tuple[I64, I64, npt.NDArray[np.float64]]:
    """Pairs (i of ``first``, j of ``second``; i < j when there is one set) and their likeness, at least ``likeness``.

    Exact for any number of stamps: products of +-1 in float32 are whole numbers. Sorted by (i, j).
    """
    b = first if second is None else second
    if first.sign.shape[1] != b.sign.shape[1]:
        raise BadInput("fingerprints of stamps of different sizes cannot be compared")
    floor = int(np.ceil(MIN_KNOWN * first.sign.shape[1]))
    least = likeness * np.sqrt(floor)
    rows: list[I64] = []
    columns: list[I64] = []
    marks: list[npt.NDArray[np.float64]] = []
    for i0 in range(0, len(first.sign), _TILE[0]):
        mine = first.sign[i0 : i0 + _TILE[0]]
        left = mine.astype(np.float32)
        for j0 in range(0, len(b.sign), _TILE[1]):
            other = b.sign[j0 : j0 + _TILE[1]]
            if second is None and j0 + len(other) <= i0:
                continue
            product = left @ other.astype(np.float32).T
            i, j = np.nonzero(product >= least)
            if second is None:
                upper = i + i0 < j + j0
                i, j = i[upper], j[upper]
            common = np.empty(len(i), np.int64)
            for k in range(0, len(i), 65_536):
                s = slice(k, k + 65_536)
                common[s] = np.count_nonzero((mine[i[s]] != 0) & (other[j[s]] != 0), axis=1)
            z = product[i, j] / np.sqrt(np.maximum(common, 1))
            keep = (common >= floor) & (z >= likeness)
            rows.append(i[keep] + i0)
            columns.append(j[keep] + j0)
            marks.append(z[keep].astype(np.float64))
    i, j = (np.concatenate(part) if part else np.empty(0, np.int64) for part in (rows, columns))
    order = np.lexsort((j, i))
    return i[order], j[order], (np.concatenate(marks) if marks else np.empty(0))[order]


def high_pass(sky: F32, known: Mask) -> F32:
    """The sky minus its mean over 7 x 7 known pixels: light that varies slowly is gone, noise and cores are left."""
    return np.stack([_less_mean(a, b, _NARROW) for a, b in zip(sky, known, strict=True)]) if len(sky) else sky


def _less_mean(plane: F32, known: Mask, width: int) -> F32:
    """A plane minus its mean over the known of ``width`` x ``width`` pixels; 0 where unknown."""
    weight = known.astype(np.float32)
    total = ndimage.uniform_filter(np.where(known, plane, np.float32(0)), size=width)
    share = ndimage.uniform_filter(weight, size=width)
    return np.where(known, plane - total / np.maximum(share, np.float32(1e-6)), np.float32(0)).astype(np.float32)


def agreement(first: F32, known_first: Mask, second: F32, known_second: Mask) -> float:
    """Correlation of two high-passed skies (h, w) over pixels known in both, the best of shifts up to 2 px; ``nan``
    with fewer than 500 such pixels."""
    height, width = first.shape
    m, best = SHIFTS, float("nan")
    a, here = first[m:-m, m:-m], known_first[m:-m, m:-m]
    for dy in range(-m, m + 1):
        for dx in range(-m, m + 1):
            at = (slice(m + dy, height - m + dy), slice(m + dx, width - m + dx))
            both = here & known_second[at]
            if int(both.sum()) < 500:
                continue
            u, v = a[both].astype(np.float64), second[at][both].astype(np.float64)
            power = float((u * u).sum() * (v * v).sum())
            if power > 0:
                best = float(np.fmax(best, float((u * v).sum()) / power**0.5))
    return best
