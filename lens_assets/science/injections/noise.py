"""Photon noise of the arc, with a gain measured per cutout and band.

The host's own noise is already in its pixels; an injected arc adds only its own photons. Their number follows from the
effective gain of the coadd, electrons per nanomaggy: sky noise of variance s^2 per pixel under a sky of S nmgy per
pixel means G = S / s^2. DR10's inverse variance holds sky noise alone and is that of the pixels before resampling, so
s^2 is 1 / invvar; from the pixels themselves, the scatter must first be divided by the resampling factor. Read noise (a
few per cent of the sky for 90 s DECam exposures) is inside s^2 and makes G slightly low.

What does not belong here: sky noise, texture, or anything added where no arc is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from lens_assets.science.errors import BadInput
from lens_assets.science.injections.arithmetic import exp_
from lens_assets.science.injections.compiling import compiled
from lens_assets.science.surveys.layout import BANDS, PIXEL_SCALE, ZERO_POINT

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

SKY_MAG = {"g": 22.04, "r": 20.91, "z": 18.46}
"""ASSUMPTION. Dark-sky surface brightness at CTIO, AB mag / arcsec^2: nominal DECam values, not measured per exposure.
A sky brighter by 0.5 mag means a gain higher by 1.6; carried as a nuisance, not as a correction."""
RESAMPLED_SIGMA = {"brick": 0.893, "viewer": 0.829}
"""Scatter per pixel after one (brick slice) or two (viewer stamp) Lanczos-3 resamplings, relative to before."""
ELECTRONS_PER_S = {"g": 42.0, "r": 51.0, "z": 37.0}
"""ASSUMPTION. Electrons per second per nanomaggy: legacypipe's DECam zero points with a nominal 4.2 electrons per
ADU."""
SELF_TEST_ERROR = 0.15
"""Stated relative error of gain x sky variance against the sky: the two estimates of the variance (inverse variance,
and resampling-corrected scatter of masked pixels) agree to this in real stamps."""
BACKGROUND = (32.5, 45.5)
"""Annulus (pixels) in which a 101-pixel stamp's noise is measured."""


def sky_level(scale: float = PIXEL_SCALE) -> F64:
    """Sky per band (g, r, z), nanomaggies per pixel."""
    return np.array([10 ** (0.4 * (ZERO_POINT - SKY_MAG[b])) * scale**2 for b in BANDS])


def _annulus(size: int) -> npt.NDArray[np.bool_]:
    y, x = np.indices((size, size)) - (size - 1) / 2
    r = np.hypot(x, y)
    inner, outer = (v * size / 101 for v in BACKGROUND)
    return np.asarray((r >= inner) & (r < outer))


def sky_variance(
    images: F32,
    invvar: F32,
    *,
    method: Literal["invvar", "mad"] = "invvar",
    source: Literal["brick", "viewer"] = "brick",
) -> F64:
    """Variance per pixel before resampling (nmgy^2), (n, 3); NaN where a band has no valid background pixel.

    ``invvar``: one over the median inverse variance. ``mad``: scatter (1.4826 MAD) of the background pixels within 3
    sigma of their median, divided by the resampling factor of ``source``.
    """
    n, bands, size, _ = images.shape
    annulus = _annulus(size)
    out = np.full((n, bands), np.nan)
    for i in range(n):
        for b in range(bands):
            weight = invvar[i, b][annulus].astype(np.float64)
            valid = np.isfinite(weight) & (weight > 0)
            if not valid.any():
                continue
            if method == "invvar":
                out[i, b] = 1.0 / np.median(weight[valid])
                continue
            values = images[i, b][annulus][valid].astype(np.float64)
            sigma = 0.0
            for _ in range(10):  # clip sources, then estimate again
                middle = np.median(values)
                sigma = 1.4826 * float(np.median(np.abs(values - middle)))
                kept = values[np.abs(values - middle) <= 3 * sigma]
                if kept.size == values.size:
                    break
                values = kept
            out[i, b] = (sigma / RESAMPLED_SIGMA[source]) ** 2
    return out


def measure_gain(
    images: F32,
    invvar: F32,
    *,
    method: Literal["invvar", "mad"] = "invvar",
    source: Literal["brick", "viewer"] = "brick",
) -> F64:
    """Effective gain (electrons per nanomaggy), (n, 3) float64, from the sky level and the sky variance of each stamp.

    Raises :class:`BadInput` with the row whose noise cannot be measured (quality control rejects such stamps earlier).
    """
    gain = np.asarray(sky_level() / sky_variance(images, invvar, method=method, source=source))
    bad = ~(np.isfinite(gain) & (gain > 0))
    if bad.any():
        row, band = (int(v) for v in np.argwhere(bad)[0])
        raise BadInput(f"no gain: band {BANDS[band]} has no usable background pixel", row=row)
    return gain


def gain_of_exposures(nobs: npt.ArrayLike, seconds: float = 90.0) -> F64:
    """Gain (n, 3) expected of ``nobs`` exposures (n, 3) of nominal length: a cross-check, good to the zero points."""
    return np.asarray(np.asarray(nobs, dtype=np.float64) * seconds * np.array([ELECTRONS_PER_S[b] for b in BANDS]))


@dataclass(frozen=True)
class GainCheck:
    """Gain x independent sky variance / sky level per band, its spread over stamps, and whether it is one within the
    error."""

    ratio: tuple[float, ...]
    spread: tuple[float, ...]
    n: int
    passed: bool


def check_gain(images: F32, invvar: F32, gain: F64, *, source: Literal["brick", "viewer"] = "brick") -> GainCheck:
    """The self-test: gain x sky variance, with the variance from the *pixels*, against the sky.

    A constant gain fails it (150 electrons per nanomaggy is wrong by a factor of some hundred), a gain taken from an
    inverse variance that does not describe the pixels does too.
    """
    ratio = gain * sky_variance(images, invvar, method="mad", source=source) / sky_level()
    middle = np.nanmedian(ratio, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(ratio - middle), axis=0)
    passed = bool(np.all(np.abs(middle - 1.0) <= SELF_TEST_ERROR))
    return GainCheck(tuple(middle.tolist()), tuple(spread.tolist()), len(images), passed)


MANY = 40.0
"""Mean count from which the Poisson distribution is taken by its expansion round the normal one."""


@compiled()
def _excess(mean, deviate):  # type: ignore[no-untyped-def]
    """``deviate`` is the uniform deviate below ``MANY`` counts, and the normal one of the same rank from there on."""
    if mean >= MANY:
        root = math.sqrt(mean)
        z = deviate
        return root * z + (z * z - 1.0) / 6.0 + (z - z * z * z) / (72.0 * root)
    if mean <= 0.0:
        return 0.0
    if deviate <= 1.0 - mean:  # below exp(-mean), so no photon
        return -mean
    p = exp_(-mean)
    total = p
    k = 0
    while deviate > total and k < 400:
        k += 1
        p *= mean / k
        total += p
    return k - mean


@compiled()
def _excesses(mean, deviates, out):  # type: ignore[no-untyped-def]
    for i in range(mean.size):
        out[i] = _excess(mean[i], deviates[i])


def _normal(u: F64) -> F64:
    """Normal deviates of the same rank as uniform ones."""
    return np.asarray(ndtri(np.clip(u, 2.0**-54, 1.0 - 2.0**-53)))


def poisson_excess(mean: F64, u: F64) -> F64:
    """Poisson deviates minus their means, from uniform deviates of the same shape; exactly 0 where the mean is 0.

    Inversion of the distribution function below ``MANY`` counts; above, its Cornish-Fisher expansion (Abramowitz &
    Stegun 26.2.49), whose mean is exact and whose variance is good to 0.2 %.
    """
    out, deviates = np.empty(mean.size), u.ravel().copy()
    many = np.flatnonzero(mean.ravel() >= MANY)
    deviates[many] = _normal(deviates[many])
    _excesses(mean.ravel(), deviates, out)
    return out.reshape(mean.shape)


@compiled()
def _many(arc, gain):  # type: ignore[no-untyped-def]
    """Flat indices of the pixels of ``MANY`` counts or more."""
    n = 0
    found = np.empty(arc.size, np.int64)
    k = 0
    for b in range(arc.shape[0]):
        for j in range(arc.shape[1]):
            for i in range(arc.shape[2]):
                if np.float64(arc[b, j, i]) * gain[b] >= MANY:
                    found[n] = k
                    n += 1
                k += 1
    return found[:n]


@compiled()
def _add(arc, gain, deviates, host, weight, image_out, weight_out):  # type: ignore[no-untyped-def]
    for b in range(arc.shape[0]):
        per_count = 1.0 / gain[b]
        for j in range(arc.shape[1]):
            for i in range(arc.shape[2]):
                light = np.float64(arc[b, j, i])
                if light <= 0.0:
                    image_out[b, j, i] = host[b, j, i]
                    weight_out[b, j, i] = weight[b, j, i]
                    continue
                noise = _excess(light * gain[b], deviates[b, j, i]) * per_count
                image_out[b, j, i] = np.float32(np.float64(host[b, j, i]) + light + noise)
                w = np.float64(weight[b, j, i])
                weight_out[b, j, i] = np.float32(w / (1.0 + w * light * per_count)) if w > 0.0 else weight[b, j, i]


def add_arc(
    host: F32, invvar: F32, arc: F32, gain: F64 | None, rng: np.random.Generator, out: tuple[F32, F32] | None = None
) -> tuple[F32, F32]:
    """Put one arc (3, s, s) on its host: image and inverse variance with the arc's photon noise, into ``out`` where it is given.

    ``gain`` (3,) electrons per nanomaggy, or ``None`` for no photon noise (the inverse variance then stays). The
    deviates come from ``rng``, one per pixel and band whatever the arc, so that variants sharing a key share them.
    Pixels without arc light keep the host's bytes.
    """
    image, weight = out or (np.empty_like(host), np.empty_like(invvar))
    if gain is None:
        image[:], weight[:] = np.where(arc > 0, host + arc, host), invvar
        return image, weight
    gain = np.asarray(gain, dtype=np.float64)
    deviates = rng.random(arc.shape)
    flat, many = deviates.reshape(-1), _many(arc, gain)
    flat[many] = _normal(flat[many])
    _add(arc, gain, deviates, host, invvar, image, weight)
    return image, weight
