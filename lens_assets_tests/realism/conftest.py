"""Synthetic stamps for the realism tests: smooth elliptical galaxies, correlated coadd-like noise, and arcs or rings.

None of it uses the code under test.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from scipy.ndimage import gaussian_filter

SIGMA = np.array([0.0017, 0.0023, 0.0079])
SIZE = 101


def _lanczos(phase):
    x = np.arange(-3, 4) - phase
    k = np.sinc(x) * np.sinc(x / 3) * (np.abs(x) < 3)
    return k / k.sum()


def correlated_noise(rng, n, sigma=SIGMA, times=2):
    """White noise resampled `times` times by Lanczos-3 at random phases: the coadd's correlation (lag 1 about +0.2)."""
    out = rng.normal(size=(n, 3, SIZE + 24, SIZE + 24)) * np.asarray(sigma)[None, :, None, None]
    for _ in range(times):
        for axis in (2, 3):
            for i in range(n):
                kernel = _lanczos(rng.uniform(0, 1))
                out[i] = _fft(out[i], kernel, axis - 1)
    return out[:, :, 12:-12, 12:-12].astype(np.float32)


def _fft(a, kernel, axis):
    n = a.shape[axis]
    padded = np.zeros(n)
    padded[:7] = kernel
    padded = np.roll(padded, -3)
    shape = [1, 1, 1]
    shape[axis] = n // 2 + 1
    return np.fft.irfft(np.fft.rfft(a, axis=axis) * np.fft.rfft(padded).reshape(shape), n=n, axis=axis)


def galaxies(rng, n, q=None, flux=None, size=None, fwhm=4.8, colours=(1.5, 1.0)):
    """Elliptical exponentials-to-de-Vaucouleurs, seeing-convolved; flux in r, nanomaggies. Returns images and a
    frame."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    q = rng.uniform(0.5, 1, n) if q is None else np.broadcast_to(q, n)
    flux = 10 ** rng.uniform(0.7, 1.5, n) if flux is None else np.broadcast_to(flux, n)
    size = rng.uniform(2.0, 5.0, n) if size is None else np.broadcast_to(size, n)
    pa = rng.uniform(0, np.pi, n)
    index = rng.uniform(1, 4, n)
    out = np.empty((n, 3, SIZE, SIZE))
    for i in range(n):
        u = x * np.cos(pa[i]) + y * np.sin(pa[i])
        v = y * np.cos(pa[i]) - x * np.sin(pa[i])
        r = np.sqrt(q[i] * u**2 + v**2 / q[i]) + 0.2
        light = np.exp(-(2 * index[i] - 1 / 3) * (r / size[i]) ** (1 / index[i]))
        light = gaussian_filter(light, fwhm / 2.3548)
        light *= flux[i] / light.sum()
        for b, scale in enumerate((10 ** (-0.4 * colours[0]), 1.0, 10 ** (0.4 * colours[1]))):
            out[i, b] = light * scale
    return out.astype(np.float32)


def arcs(rng, n, theta=6.0, flux=2.0, span=1.6, width=2.2, colours=(0.3, 0.3)):
    """Arcs (Gaussian in radius and angle) of total r flux `flux`; `span` of pi or more gives a ring."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    radius, phi = np.hypot(x, y), np.arctan2(y, x)
    theta, flux = np.broadcast_to(theta, n), np.broadcast_to(flux, n)
    out = np.empty((n, 3, SIZE, SIZE))
    for i in range(n):
        at = rng.uniform(-np.pi, np.pi)
        d = np.angle(np.exp(1j * (phi - at)))
        light = np.exp(-0.5 * ((radius - theta[i]) / width) ** 2)
        if span < np.pi:
            light = light * np.exp(-0.5 * (d / (span / 2)) ** 2)
        light *= flux[i] / light.sum()
        for b, scale in enumerate((10 ** (-0.4 * colours[0]), 1.0, 10 ** (0.4 * colours[1]))):
            out[i, b] = light * scale
    return out.astype(np.float32)


def weights(n, sigma=SIGMA):
    """Inverse variance of the white noise."""
    return np.broadcast_to((1 / np.asarray(sigma) ** 2)[None, :, None, None], (n, 3, SIZE, SIZE)).astype(np.float32)


def frame(rng, n, prefix="h", **extra):
    """Metadata as the platform carries it."""
    return pl.DataFrame(
        {
            "galaxy_id": [f"{prefix}{i:05d}" for i in range(n)],
            "psfsize_g": rng.normal(1.35, 0.05, n),
            "psfsize_r": rng.normal(1.25, 0.05, n),
            "psfsize_z": rng.normal(1.2, 0.05, n),
            "depth_r": rng.normal(24.0, 0.15, n),
            "depth_g": rng.normal(24.3, 0.15, n),
            "depth_z": rng.normal(23.2, 0.15, n),
            "type": ["DEV"] * n,
            **extra,
        }
    )


@pytest.fixture(scope="session")
def sky():
    """The makers above."""
    return SimpleNamespace(
        noise=correlated_noise, galaxies=galaxies, arcs=arcs, weights=weights, frame=frame, sigma=SIGMA, size=SIZE
    )
