"""Pixel noise of a coadd: white sky noise after one Lanczos-3 resampling, averaged over sub-pixel phases.

Resampling correlates neighbouring pixels and lowers their scatter: a brick slice has sigma 0.893 / sqrt(invvar) and an
autocorrelation of +0.112, -0.076, +0.027 at lags 1, 2, 3 along each axis. The covariance averaged over phases is
separable, so one symmetric kernel a side, whose power spectrum is the averaged one, gives exactly these numbers
everywhere. Assumption: the average over phases, although a pixel of few exposures sees few of them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def lanczos3(x: npt.ArrayLike) -> F64:
    """The Lanczos-3 kernel, sinc(x) sinc(x / 3) for abs(x) < 3."""
    x = np.asarray(x, float)
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


@lru_cache
def phase_averaged_covariance(phases: int = 256) -> tuple[float, ...]:
    """Autocovariance at lags 0..5 of unit white noise after resampling, averaged over sub-pixel phases."""
    total = np.zeros(6)
    for phase in (np.arange(phases) + 0.5) / phases:
        taps = lanczos3(np.arange(-2, 4) - phase)
        taps = taps / taps.sum()  # the survey's resampler conserves a constant sky
        full = np.correlate(taps, taps, mode="full")[5:]
        total += full
    return tuple(total / phases)


@lru_cache
def kernel(half: int = 8) -> F64:
    """Symmetric kernel (2 half + 1 taps) whose autocovariance is :func:`phase_averaged_covariance`."""
    n = 512
    lags = np.zeros(n)
    covariance = np.array(phase_averaged_covariance())
    lags[:6] = covariance
    lags[-5:] = covariance[:0:-1]
    taps = np.fft.ifft(np.sqrt(np.maximum(np.fft.fft(lags).real, 0))).real
    taps = np.concatenate([taps[-half:], taps[: half + 1]])
    return np.asarray(taps * np.sqrt(covariance[0] / np.sum(taps**2)), float)


def resampled(white: F32) -> F32:
    """Noise as it is in a coadd from white noise (2-D, any scatter a pixel); periodic at the edges, so of uniform
    scatter."""
    weights = kernel().astype(np.float32)
    out = np.empty_like(white)
    correlate1d(white, weights, axis=1, output=out, mode="wrap")
    correlate1d(out, weights, axis=0, output=white, mode="wrap")
    return white
