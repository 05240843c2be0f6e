"""Does an injection leave the sky alone? Background pixels and noise power of injected stamps against their untouched
hosts.

An injection is paired with its own host, so a naive test compares a pixel with itself and cannot fail. Here the
pixels of a coarse lattice, spaced beyond the *measured* noise correlation length, are dealt out in two colours like a
chessboard: the injected stamp gives one colour, the untouched host the other (which one, a hash decides). The samples
are independent, every host weighs equally on both sides, and the KS test keeps its level. The noise power spectrum,
where pairing does no harm, is compared as a ratio on the same patches. Both look outside ``CLEAR`` pixels only, away
from arcs and hosts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.stats import ks_2samp

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import seed_of

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
MASK = npt.NDArray[np.bool_]

CLEAR = 25.0
"""Inner radius of the background, pixels: arcs of theta_E 3 arcsec reach about 23 px."""
DETECT = 2.5
"""Neighbours are masked where the host, smoothed by 2 px, exceeds this many sigma; the mask grows by 3 px."""
MAX_LAG = 8
POWER_BINS = np.linspace(0.0, 0.5, 9)
"""Edges of the radial bins of spatial frequency, cycles per pixel."""


@dataclass(frozen=True)
class Sky:
    """Background of the untouched hosts: usable pixels (n, 3, h, w), and their level and scatter (n, 3)."""

    usable: MASK
    level: F64
    sigma: F64


def sky_of(images: F32, invvar: F32) -> Sky:
    """Where the background of each stamp is free of sources, and its median and 1.4826 MAD there (nmgy per pixel)."""
    n, bands, h, w = images.shape
    yy, xx = np.mgrid[:h, :w]
    far = np.hypot(yy - (h - 1) / 2, xx - (w - 1) / 2) >= CLEAR
    usable = np.zeros(images.shape, bool)
    level, sigma = np.full((n, bands), np.nan), np.full((n, bands), np.nan)
    for i in range(n):
        valid = (invvar[i] > 0) & far
        source = np.zeros((h, w), bool)
        for b in range(bands):
            if not valid[b].any():
                continue
            smooth = gaussian_filter(np.where(invvar[i, b] > 0, images[i, b], 0.0), 2.0)
            here = smooth[valid[b]]
            centre = np.median(here)
            source |= (smooth > centre + DETECT * 1.4826 * np.median(np.abs(here - centre))) & far
        source = binary_dilation(source, iterations=3)
        for b in range(bands):
            usable[i, b] = valid[b] & ~source
            values = images[i, b][usable[i, b]]
            if values.size >= 100:
                level[i, b] = np.median(values)
                sigma[i, b] = 1.4826 * np.median(np.abs(values - level[i, b]))
            else:
                usable[i, b] = False
    return Sky(usable, level, sigma)


def correlation(images: F32, sky: Sky) -> F64:
    """Autocorrelation (3, MAX_LAG) of the background at lags 1 to MAX_LAG, mean of both axes, over all stamps."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (images - sky.level[:, :, None, None]) / sky.sigma[:, :, None, None]
    ok = sky.usable & np.isfinite(z)
    z = np.clip(np.where(ok, z, 0), -5, 5)
    out = np.empty((z.shape[1], MAX_LAG))
    for lag in range(1, MAX_LAG + 1):
        top, weight = np.zeros(z.shape[1]), np.zeros(z.shape[1])
        for axis in (2, 3):
            a, b = [slice(None)] * 4, [slice(None)] * 4
            a[axis], b[axis] = slice(lag, None), slice(None, -lag)
            both = ok[tuple(a)] & ok[tuple(b)]
            top += (z[tuple(a)] * z[tuple(b)] * both).sum(axis=(0, 2, 3))
            weight += (0.5 * (z[tuple(a)] ** 2 + z[tuple(b)] ** 2) * both).sum(axis=(0, 2, 3))
        out[:, lag - 1] = np.divide(top, weight, out=np.zeros_like(top), where=weight > 0)
    return out


def spacing(correlations: F64, largest: float) -> int:
    """The smallest lag from which on |autocorrelation| stays below ``largest`` in every band (at most MAX_LAG)."""
    worst = np.abs(correlations).max(axis=0)
    above = np.flatnonzero(worst >= largest)
    return int(min(above[-1] + 2 if len(above) else 1, MAX_LAG))


def lattice_samples(
    injected: F32,
    untouched: F32,
    sky: Sky,
    step: int,
    ids: npt.NDArray[np.str_],
    band: int,
    identity: tuple[object, ...],
) -> tuple[F64, F64]:
    """Standardised background pixels of one band: of the injected stamps, and of the untouched ones at other positions.

    Row i of ``injected`` is made from row i of ``untouched``; both are in units of the untouched host's own sigma.
    """
    h, w = injected.shape[-2:]
    yy, xx = np.mgrid[:h, :w]
    a, b = [], []
    for i in range(len(injected)):
        if not (np.isfinite(sky.sigma[i, band]) and sky.sigma[i, band] > 0):
            continue
        key = seed_of("lattice", *identity, str(ids[i]), band)
        oy, ox, flip = key % step, (key >> 8) % step, (key >> 16) & 1
        on = (yy % step == oy) & (xx % step == ox) & sky.usable[i, band]
        colour = ((yy // step + xx // step) + flip) % 2 == 0
        level, sigma = sky.level[i, band], sky.sigma[i, band]
        a.append((injected[i, band][on & colour].astype(float) - level) / sigma)
        b.append((untouched[i, band][on & ~colour].astype(float) - level) / sigma)
    if not a:
        return np.empty(0), np.empty(0)
    return np.concatenate(a), np.concatenate(b)


def ks(a: F64, b: F64) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov distance and asymptotic p; (nan, nan) with fewer than 50 pixels on a side."""
    if min(len(a), len(b)) < 50:
        return float("nan"), float("nan")
    result = ks_2samp(a, b, method="asymp")
    return float(result.statistic), float(result.pvalue)


def holm(p: F64) -> float:
    """The smallest Holm-adjusted p of several tests; nan where one was not made."""
    values = np.asarray(p, float)
    return float(np.minimum(1.0, len(values) * values.min())) if len(values) else float("nan")


def patch_power(images: F32) -> F64:
    """Radial power of the four corner patches outside CLEAR, per stamp: (n, 3, bins); Hann window, mean taken away."""
    h, w = images.shape[-2:]
    half = (min(h, w) - 1) / 2
    side = int(np.floor(half + 1 - CLEAR / np.sqrt(2)))
    if side < 8:
        raise BadInput(f"stamps of {h} x {w} have no corner patch outside {CLEAR} px")
    window = np.outer(np.hanning(side + 2)[1:-1], np.hanning(side + 2)[1:-1])
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    which = np.digitize(k, POWER_BINS) - 1
    which[(k == 0) | (which >= len(POWER_BINS) - 1)] = -1
    out = np.zeros((*images.shape[:2], len(POWER_BINS) - 1))
    for ys in (slice(0, side), slice(h - side, h)):
        for xs in (slice(0, side), slice(w - side, w)):
            patch = images[:, :, ys, xs].astype(float)
            mean = (patch * window).sum(axis=(2, 3), keepdims=True) / window.sum()
            power = np.abs(np.fft.fft2((patch - mean) * window)) ** 2
            for j in range(out.shape[2]):
                out[:, :, j] += power[:, :, which == j].mean(axis=-1) / 4
    return out


def power_ratio(injected: F64, untouched: F64, rows: npt.NDArray[np.int64] | None = None) -> F64:
    """Ratio (3, bins) of mean noise power, each host weighed by its own untouched power so that bright corners do not
    rule."""
    i, u = (injected, untouched) if rows is None else (injected[rows], untouched[rows])
    scale = np.maximum(np.median(u, axis=2, keepdims=True), 1e-30)
    return np.asarray((i / scale).sum(axis=0) / (u / scale).sum(axis=0), dtype=np.float64)
