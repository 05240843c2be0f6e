"""The normalisation of stamps for a network: the only function that does it, for training, evaluation, scans,
injections.

"Raw robust": per band, subtract the median of a background annulus, divide by its raw MAD (no factor 1.4826), clip (or, as
"robust asinh", compress: Lupton, Gunn & Szalay 1999, AJ 118, 1406), and set invalid pixels to 0 (the background). Valid is finite
and, where the caller gives a mask, valid there: coadds hold 0.0 or anything at all where invvar = 0, so callers with an inverse
variance pass ``valid = invvar > 0``. The result of a stamp does not depend on the batch it is in. Two modules with two MAD
conventions once scored a network on inputs it had never seen.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lens_assets.science.cutouts.settings import NormalisationSpec, refuse_mismatch
from lens_assets.science.errors import BadInput

__all__ = ["NormalisationSpec", "annulus_pixels", "background", "normalise", "refuse_mismatch"]

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
_FINITE = np.float32(1e30)
_BLOCK = 32  # stamps at a time: 4 MB of 3 x 101 x 101 float32 stay in the cache


@lru_cache(maxsize=64)
def annulus_pixels(spec: NormalisationSpec, height: int, width: int) -> npt.NDArray[np.intp]:
    """Flat indices of the background annulus of a ``height`` x ``width`` stamp; :class:`BadInput` if it is too
    small."""
    inner, outer = spec.radii(height, width)
    y, x = np.ogrid[:height, :width]
    r = np.hypot(x - width // 2, y - height // 2)
    inside = np.flatnonzero((r >= inner) & (r < outer))
    if inside.size < spec.min_pixels:
        raise BadInput(
            f"the annulus {inner:g}-{outer:g} px holds {inside.size} pixels of a {height} x {width} stamp; "
            f"{spec.min_pixels} are needed"
        )
    inside.setflags(write=False)
    return inside


def background(
    images: npt.ArrayLike, spec: NormalisationSpec, valid: Mask | None = None, *, threads: int = 1
) -> tuple[F32, F32, npt.NDArray[np.int64]]:
    """Median, raw MAD and number of valid pixels of the background annulus.

    Parameters
    ----------
    images : (n, bands, h, w), nanomaggies per pixel.
    valid : the same shape; non-finite pixels are invalid in any case.
    threads : the result does not depend on it.

    Returns
    -------
    median, mad : (n, bands) float32, ``nan`` where fewer than ``spec.min_pixels`` pixels are valid.
    count : (n, bands) int64.
    """
    pixels, mask = _checked(images, spec, valid)
    n, bands, height, width = pixels.shape
    annulus = annulus_pixels(spec, height, width)
    median = np.empty((n, bands), np.float32)
    mad = np.empty((n, bands), np.float32)
    count = np.full((n, bands), annulus.size, np.int64)

    def measure(part: slice) -> None:
        ring = pixels[part].reshape(-1, height * width).take(annulus, axis=1)
        good = np.isfinite(ring)
        if mask is not None:
            good &= mask[part].reshape(-1, height * width).take(annulus, axis=1)
        whole = good.all(axis=1)
        middle, spread = np.full(len(ring), np.nan, np.float32), np.full(len(ring), np.nan, np.float32)
        complete = ring if whole.all() else ring[whole]
        if len(complete):
            m = _median(complete)
            middle[whole], spread[whole] = m, _median(np.abs(complete - m[:, None]))
        for row in np.flatnonzero(~whole):
            few = ring[row][good[row]][None]
            count.reshape(-1)[part.start * bands + row] = few.size
            if few.size >= spec.min_pixels:
                m = _median(few)
                middle[row], spread[row] = m[0], _median(np.abs(few - m[:, None]))[0]
        median[part], mad[part] = middle.reshape(-1, bands), spread.reshape(-1, bands)

    _each_block(n, measure, threads)
    return median, mad, count


def normalise(images: npt.ArrayLike, spec: NormalisationSpec, valid: Mask | None = None, *, threads: int = 1) -> F32:
    """``clip((image - median) / MAD)`` per stamp and band (``clip asinh(. / clip)`` for the other kind); invalid pixels become 0.

    Parameters
    ----------
    images : (n, bands, h, w), nanomaggies per pixel, bands in the order of ``spec.bands``. Not changed.
    spec : the specification; the annulus follows the shape of the stamps.
    valid : boolean, the shape of ``images`` (``invvar > 0``); non-finite pixels are invalid in any case.
    threads : of which each does some stamps; the result does not depend on it.

    Returns
    -------
    float32 (n, bands, h, w), finite; within ``+-spec.clip`` for ``raw_robust``.

    Raises
    ------
    BadInput : naming the stamp (``row``) and band whose annulus has too few valid pixels or no scatter. Quality control
        rejects such stamps, so one that reaches this point did not come through it.
    """
    pixels, mask = _checked(images, spec, valid)
    median, mad, count = background(pixels, spec, mask, threads=threads)
    wrong = np.argwhere(~(np.isfinite(mad) & (mad > 0)))
    if len(wrong):
        row, band = (int(i) for i in wrong[0])
        raise BadInput(
            f"{len(wrong)} stamp bands cannot be normalised; first: band {spec.bands[band]}, {count[row, band]} valid "
            f"annulus pixels, MAD {mad[row, band]:g}",
            row=row,
        )
    out = np.empty(pixels.shape, np.float32)

    def write(part: slice) -> None:
        block, source = out[part], pixels[part]
        with np.errstate(invalid="ignore", over="ignore"):
            np.subtract(source, median[part, :, None, None], out=block)
            np.divide(block, mad[part, :, None, None], out=block)
            if spec.kind == "raw_robust":
                np.clip(block, -spec.clip, spec.clip, out=block)
            else:
                np.clip(block, -_FINITE, _FINITE, out=block)
                np.arcsinh(np.divide(block, np.float32(spec.clip), out=block), out=block)
                np.multiply(block, np.float32(spec.clip), out=block)
            whole = np.isfinite(source.sum(axis=(2, 3)))  # a finite sum proves that every pixel is finite
        if not whole.all():
            block[~np.isfinite(source)] = 0.0
        if mask is not None:
            block[~mask[part]] = 0.0

    _each_block(len(pixels), write, threads)
    return out


def _each_block(n: int, work: Callable[[slice], None], threads: int) -> None:
    """``work`` on every block of ``n`` stamps, by ``threads`` threads."""
    blocks = [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]
    if threads <= 1 or len(blocks) < 2:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
        list(pool.map(work, blocks))


def _checked(images: npt.ArrayLike, spec: NormalisationSpec, valid: Mask | None) -> tuple[F32, Mask | None]:
    pixels = np.asarray(images)
    if pixels.ndim != 4 or pixels.shape[1] != len(spec.bands):
        raise BadInput(f"stamps have shape {pixels.shape}; (n, {len(spec.bands)}, height, width) is needed")
    if pixels.dtype.kind != "f" or pixels.dtype.itemsize < 4:
        raise BadInput(f"stamps are {pixels.dtype}; float32 is needed (float16 loses faint arcs)")
    if valid is not None and (valid.shape != pixels.shape or valid.dtype != np.bool_):
        raise BadInput(f"the mask is {valid.dtype} {valid.shape}; bool {pixels.shape} is needed")
    return np.ascontiguousarray(pixels, dtype=np.float32), valid


def _median(rows: F32) -> F32:
    """Median along the last axis, as ``np.median`` defines it, ten times as fast."""
    n = rows.shape[1]
    middle: F32
    if n % 2:
        middle = np.partition(rows, n // 2, axis=1)[:, n // 2]
        return middle
    # One pivot is vectorised by numpy; the two pivots of an even median take eleven times as long.
    upper: F32 = np.partition(rows, n // 2, axis=1)
    below: F32 = upper[:, : n // 2].max(axis=1)
    middle = (below + upper[:, n // 2]) * np.float32(0.5)
    return middle
