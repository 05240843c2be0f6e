"""Noise-free images of galaxies and stars, built in Fourier space at native pixels.

An object is a sum of smooth profiles (elliptical Sersic, whose Hankel transforms GalSim tabulates) and of sets of
round Gaussian knots (arms, rings, clumps, tidal arcs, points). Transfer functions are added, multiplied by the PSF's,
and transformed once a band: exact for a band-limited PSF, so no supersampling is needed. The injection engine knows
none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import galsim
import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.special import gamma

from lens_assets.science.mock.conditions import BandConditions
from lens_assets.science.mock.psf import transfer

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

STAMPS = (32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512)
"""Stamp sides in use: fast transform lengths."""


@dataclass(frozen=True)
class Profile:
    """An elliptical Sersic profile: index, major-axis half-light radius (pixels), axis ratio, position angle (radians
    from +x to +y), fluxes in g, r, z (nanomaggies) and its offset from the object's centre (pixels)."""

    n: float
    re: float
    q: float
    pa: float
    flux: F64
    dx: float = 0.0
    dy: float = 0.0


@dataclass(frozen=True)
class Knots:
    """Round Gaussians of one width (pixels): offsets (pixels), shares that sum to 1, total fluxes in g, r, z."""

    x: F64
    y: F64
    share: F64
    sigma: float
    flux: F64


Component = Profile | Knots


@lru_cache
def _grid(n: int) -> tuple[F64, F64]:
    return np.asarray(2 * np.pi * np.fft.rfftfreq(n), float), np.asarray(2 * np.pi * np.fft.fftfreq(n), float)


_LOG_K = np.linspace(np.log(1e-3), np.log(3e3), 500)


@lru_cache
def sersic_table(n: float) -> F64:
    """Transfer function of a Sersic profile of half-light radius 1 at wave numbers exp(``_LOG_K``)."""
    profile = galsim.Sersic(n, half_light_radius=1.0)
    return np.array([profile.kValue(float(k), 0.0).real for k in np.exp(_LOG_K)])


INDICES = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0])
"""Sersic indices that are drawn: a table each, shared by all galaxies."""


def index_step(n: float) -> float:
    """The one of ``INDICES`` that is drawn for an index ``n``."""
    return float(INDICES[np.argmin(np.abs(INDICES - n))])


@lru_cache(maxsize=256)
def psf_image(n: int, beta: float, ellipticity: tuple[float, float], fwhm_px: float) -> F64:
    """Transfer function of the PSF on the grid of an n-pixel stamp; ``fwhm_px`` is rounded by the caller."""
    kx, ky = _grid(n)
    e1, e2 = ellipticity
    u = kx[None, :] * (1 + e1) + ky[:, None] * e2
    v = kx[None, :] * e2 + ky[:, None] * (1 - e1)
    return transfer(beta, np.hypot(u, v) * fwhm_px)


def psf_at(n: int, c: BandConditions, fwhm_px: float) -> F64:
    """The band's PSF, its width in steps of 0.02 pixel."""
    return psf_image(n, c.beta, c.ellipticity, round(fwhm_px * 50) / 50)


def component_transfer(c: Component, n: int) -> npt.NDArray[Any]:
    """Transfer function (unit flux) of a component on the grid of an n-pixel stamp."""
    kx, ky = _grid(n)
    if isinstance(c, Knots):
        ax = np.exp(-1j * np.outer(c.x, kx)) * c.share[:, None]
        ay = np.exp(-1j * np.outer(ky, c.y))
        soft = np.exp(-0.5 * c.sigma**2 * ky**2)[:, None] * np.exp(-0.5 * c.sigma**2 * kx**2)[None, :]
        return np.asarray((ay @ ax) * soft)
    cos, sin = np.cos(c.pa), np.sin(c.pa)
    major = kx[None, :] * cos + ky[:, None] * sin
    minor = ky[:, None] * cos - kx[None, :] * sin
    k = c.re * np.sqrt(major**2 + (c.q * minor) ** 2)
    t = np.interp(np.log(np.maximum(k, 1e-3)), _LOG_K, sersic_table(index_step(c.n)), right=0.0)
    if c.dx or c.dy:
        t = t * (np.exp(-1j * ky * c.dy)[:, None] * np.exp(-1j * kx * c.dx)[None, :])
    return np.asarray(t)


def draw(parts: Sequence[Component], dx: float, dy: float, n: int, psf: Sequence[F64 | None]) -> list[F32 | None]:
    """Images (n, n), nanomaggies a pixel, one a band, of the sum of components.

    The centre of the object is at pixel (n // 2 + dx, n // 2 + dy); a band whose ``psf`` is ``None`` gives ``None``.
    """
    transfers = [component_transfer(c, n) for c in parts]
    kx, ky = _grid(n)
    shift = np.exp(-1j * ky * (n // 2 + dy))[:, None] * np.exp(-1j * kx * (n // 2 + dx))[None, :]
    taper = edge_taper(n)
    images: list[F32 | None] = []
    for b, p in enumerate(psf):
        if p is None:
            images.append(None)
            continue
        total = sum(c.flux[b] * t for c, t in zip(parts, transfers, strict=True))
        images.append((fft.irfft2(total * p * shift, s=(n, n)) * taper).astype(np.float32))
    return images


@lru_cache
def edge_taper(n: int, width: int = 5) -> F64:
    """1 inside, a smooth fall to 0 over the outermost pixels: faint wings end without a step."""
    ramp = np.ones(n)
    fall = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)
    ramp[:width], ramp[n - width :] = fall, fall[::-1]
    return ramp[:, None] * ramp[None, :]


def stamp_side(parts: Sequence[Component], sigma: Sequence[float], fwhm_px: float, depth: float = 0.3) -> int:
    """The stamp that holds every component down to ``depth`` x sigma a pixel in every band (the largest at most)."""
    half = 4.0 * fwhm_px
    for c in parts:
        if isinstance(c, Knots):
            half = max(half, float(np.hypot(c.x, c.y).max(initial=0)) + 3 * c.sigma + 2.5 * fwhm_px)
            continue
        n = index_step(c.n)
        b = 2 * n - 1 / 3 + 4 / (405 * n)  # Ciotti & Bertin 1999
        faintest = (
            min(depth * s / f for s, f in zip(sigma, c.flux, strict=True) if f > 0) if np.any(c.flux > 0) else 1.0
        )
        effective = b ** (2 * n) / (2 * np.pi * n * c.re**2 * c.q * np.exp(b) * gamma(2 * n))
        reach = c.re * max(0.0, 1 + np.log(max(effective / faintest, 1e-30)) / b) ** n
        half = max(half, min(reach, 14 * c.re + 3 * fwhm_px) + np.hypot(c.dx, c.dy) + 1.5 * fwhm_px)
    return next((s for s in STAMPS if s >= 2 * half + 8), STAMPS[-1])


def paste(canvas: F32, stamp: F32, x: int, y: int) -> None:
    """Add a stamp whose central pixel (n // 2, n // 2) falls on pixel (x, y), clipped at the canvas's edges."""
    n = stamp.shape[0]
    x0, y0 = x - n // 2, y - n // 2
    height, width = canvas.shape
    ax, ay, bx, by = max(x0, 0), max(y0, 0), min(x0 + n, width), min(y0 + n, height)
    if ax < bx and ay < by:
        canvas[ay:by, ax:bx] += stamp[ay - y0 : by - y0, ax - x0 : bx - x0]
