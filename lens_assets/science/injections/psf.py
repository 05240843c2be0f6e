"""Point-spread functions as transfer functions: Moffat and Gaussian per band, from the FWHM at the host's position.

Nothing is re-convolved: an injection gets the PSF its host has. The FWHM is PSFSIZE (arcsec). ``pixel="integrate"``
multiplies by the pixel's own response (0.9 % in FWHM at 1.3"); ``pixel="included"`` takes PSFSIZE as the effective PSF,
as a PSFEx model is. Real coadds have wings between Moffat beta 2.5 and 4.5, which is why beta is a variant.

``kind: image`` takes pixels instead, one image a band on the survey's own grid (a PSFEx model of a coadd, for instance):
what a star looks like there, pixel response included, the star in the middle of the central pixel. Light between its
pixels is its band-limited (sinc) interpolation, which is what the survey's sampling can know of it. ``kind: images`` takes
such a file for each host's place, from a folder (``psf_images``).

What does not belong here: measuring PSFs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.fft
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import gamma, ive, kv

from lens_assets.science.errors import BadInput
from lens_assets.science.injections import psf_images
from lens_assets.science.injections.compiling import compiled
from lens_assets.science.injections.spread import NODES, RULES, TAPS, WEIGHTS

F64 = npt.NDArray[np.float64]


class PsfSpec(BaseModel):
    """The shape of the PSF, common to all bands; the FWHM per injection and band travels with the parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["moffat", "gaussian", "image", "images"] = "moffat"
    beta: float = Field(3.5, gt=1.0, le=20.0)
    pixel: Literal["integrate", "included"] = "integrate"
    file: str = ""
    """Of ``kind: image``: a FITS file with an image a band (EXTNAME or BAND ``g``, ``r``, ``z``); the FWHM of the hosts are
    then not used."""
    folder: str = ""
    """Of ``kind: images``: a folder of such files, one a host (``<galaxy_id>.fits``) or one a brick (``<brickid>.fits``); by
    default that of ``LENS_ASSETS_PSF``."""
    sha256: str = Field("", pattern=r"([0-9a-f]{64})?")

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, body: Any) -> Any:
        return psf_images.identified(body) if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _whole(self) -> PsfSpec:
        if (self.kind == "image") != bool(self.file) or (self.folder and self.kind != "images"):
            raise ValueError("a file belongs to `kind: image`, and is needed there; a folder belongs to `kind: images`")
        return self

    def at(self, galaxy_id: str) -> PsfSpec:
        """The PSF at a host's place: itself, but for ``kind: images``."""
        if self.kind != "images":
            return self
        file, sha256 = psf_images.file_of(self.folder, self.sha256, galaxy_id)
        return PsfSpec(kind="image", file=file, sha256=sha256)


_STEP = 1.0 / 256.0
_T_MAX = 64.0


@lru_cache(maxsize=32)
def _profile(kind: str, beta: float) -> F64:
    """Transfer function on a uniform grid of t = k * FWHM (k in rad per arcsec, FWHM in arcsec).

    Moffat: Hankel transform 2 (t/2)^(beta-1) K_(beta-1)(t) / Gamma(beta-1) with t = k alpha (Trujillo et al. 2001,
    doi:10.1046/j.1365-8711.2001.04937.x); Gaussian: exp(-(k sigma)^2 / 2).
    """
    t = np.arange(0.0, _T_MAX + 2 * _STEP, _STEP)
    if kind == "gaussian":
        return np.asarray(np.exp(-0.5 * (t / np.sqrt(8 * np.log(2))) ** 2))
    u = t[1:] / (2 * np.sqrt(2 ** (1 / beta) - 1))
    return np.concatenate([[1.0], 2 * (u / 2) ** (beta - 1) * kv(beta - 1, u) / gamma(beta - 1)])


def transfer(spec: PsfSpec, fwhm: float, k: npt.ArrayLike) -> F64:
    """Radial transfer function at ``k`` (rad / arcsec), without the pixel."""
    if spec.kind in ("image", "images"):
        raise BadInput("a supplied PSF has no radial profile: take another backend", column="psf")
    t = np.asarray(k, dtype=np.float64) * fwhm
    profile = _profile(spec.kind, spec.beta)
    return np.interp(t, np.arange(profile.size) * _STEP, profile, right=0.0)


@lru_cache(maxsize=8)
def window(levels: int) -> tuple[F64, npt.NDArray[np.int64]]:
    """Kaiser-Bessel weights of the samples of every level and rule, times the rule's own, and where each block begins.

    Cells of level L have the side 4^-L; a rule of g points puts g rows a cell. Returns (rows, TAPS) and the first row of
    ``[level, g - 1]``.
    """
    rows: list[F64] = []
    first = np.zeros((levels + 1, RULES), np.int64)
    total = 0
    for level in range(levels + 1):
        n = 4**level
        for g in range(1, RULES + 1):
            offset = ((np.arange(n)[:, None] + 0.5 + NODES[g - 1, :g]) / n - 0.5).ravel()
            weight = np.tile(WEIGHTS[g - 1, :g], n)
            rows.append(weight[:, None] * kaiser_bessel(np.arange(TAPS)[None, :] - TAPS // 2 - offset[:, None]))
            first[level, g - 1] = total
            total += n * g
    return np.ascontiguousarray(np.concatenate(rows)), first


_WIDTH = 6.0
_SHAPE = 13.0
"""Window of 6 pixels; shape parameter for use below ~0.62 of the Nyquist band (pi W (1 - 1/(2 x 1.6)), Beatty et al.
2005)."""


def kaiser_bessel(x: npt.ArrayLike) -> F64:
    """The window at distance ``x`` (pixels), relative to exp(shape)."""
    inside = 1.0 - (2.0 * np.asarray(x, dtype=np.float64) / _WIDTH) ** 2
    root = _SHAPE * np.sqrt(np.clip(inside, 0.0, None))
    return np.where(inside >= 0, ive(0, root) * np.exp(root - _SHAPE), 0.0)


def _kaiser_bessel_transform(k: F64) -> F64:
    """Fourier transform of ``kaiser_bessel`` at ``k`` (rad / pixel)."""
    z2 = _SHAPE**2 - (0.5 * _WIDTH * k) ** 2
    z = np.sqrt(np.abs(z2))
    safe = np.maximum(z, 1e-9)
    shape = np.where(
        z2 > 0,
        np.exp(np.minimum(z, _SHAPE) - _SHAPE) * -np.expm1(-2 * z) / 2 / safe,
        np.sin(z) * np.exp(-_SHAPE) / safe,
    )
    return np.asarray(_WIDTH * shape)


@lru_cache(maxsize=8)
def response(n: int, scale: float, pixel: str) -> tuple[F64, F64]:
    """For an (n, n) real FFT: |k| (rad / arcsec) and pixel response over window transform, both (n, n // 2 + 1)."""
    ky, kx = 2 * np.pi * scipy.fft.fftfreq(n), 2 * np.pi * scipy.fft.rfftfreq(n)

    def axis(k: F64) -> F64:
        box = np.sinc(k / (2 * np.pi)) if pixel == "integrate" else np.ones_like(k)
        return np.asarray(box / _kaiser_bessel_transform(np.abs(k)))

    return np.hypot(ky[:, None], kx[None, :]) / scale, axis(ky)[:, None] * axis(kx)[None, :]


@compiled()
def _apply(spectrum, k, factor, profile, fwhm, amplitude, out):  # type: ignore[no-untyped-def]
    """out[b] = spectrum * factor * amplitude[b] * profile(k * fwhm[b]), linear interpolation (error < 2e-6)."""
    n, m = spectrum.shape
    for b in range(fwhm.size):
        f = fwhm[b] * 256.0
        for j in range(n):
            for i in range(m):
                t = k[j, i] * f
                if t < 16384.0:
                    c = int(t)
                    p = profile[c] + (t - c) * (profile[c + 1] - profile[c])
                    out[b, j, i] = spectrum[j, i] * (factor[j, i] * amplitude[b] * p)
                else:
                    out[b, j, i] = 0.0


def convolve(grid: F64, fluxes: F64, fwhm: F64, spec: PsfSpec, size: int, scale: float) -> tuple[F64, float]:
    """Images (bands, size, size) from one spread grid: times ``fluxes[b]``, through the PSF of ``fwhm[b]`` (arcsec).

    Also the sum of the grid's samples, exact: the light before the PSF.
    """
    if spec.kind == "images":
        raise ValueError("images of many places: ask for the one of a host, spec.at(galaxy_id)")
    n = grid.shape[0]
    k, factor = response(n, scale, "included" if spec.kind == "image" else spec.pixel)
    spectrum = scipy.fft.rfft2(grid, workers=1)
    if spec.kind == "image":
        out = (
            (spectrum * factor)[None]
            * psf_images.image_transfer(spec.file, spec.sha256, n, size)
            * fluxes[:, None, None]
        )
    else:
        out = np.empty((fwhm.size, n, n // 2 + 1), dtype=np.complex128)
        _apply(spectrum, k, factor, _profile(spec.kind, spec.beta), fwhm, fluxes, out)
    image = scipy.fft.irfft2(out, s=(n, n), workers=1)
    edge = TAPS // 2
    return image[:, edge : edge + size, edge : edge + size], float(spectrum[0, 0].real * factor[0, 0])


def tables(spec: PsfSpec, n: int, size: int, scale: float) -> tuple[F64, F64, F64 | npt.NDArray[np.complex128]]:
    """What ``convolve`` multiplies by, for code that does so on another device: |k| (rad / arcsec) and the response over the
    window's transform, both (n, n // 2 + 1), and the radial profile at multiples of 1 / 256 in k * FWHM (0 beyond its last
    but one), or, of a supplied image, the transfer functions (3, n, n // 2 + 1).
    """
    k, factor = response(n, scale, "included" if spec.kind == "image" else spec.pixel)
    return (
        k,
        factor,
        psf_images.image_transfer(spec.file, spec.sha256, n, size)
        if spec.kind == "image"
        else _profile(spec.kind, spec.beta),
    )


def kernel(spec: PsfSpec, fwhm: float, scale: float, size: int = 63) -> F64:
    """The PSF as pixels (size odd, unit sum): for codes that convolve by kernel, and for checks of width and shape."""
    if size % 2 == 0:
        raise ValueError(f"a kernel has an odd side, not {size}")
    if spec.kind in ("image", "images"):
        raise ValueError("a supplied PSF has its own pixels: psf_images.images_of, psf_images.fine_kernel")
    n = scipy.fft.next_fast_len(8 * size, real=True)
    ky, kx = 2 * np.pi * scipy.fft.fftfreq(n), 2 * np.pi * scipy.fft.rfftfreq(n)
    t = transfer(spec, fwhm, np.hypot(ky[:, None], kx[None, :]) / scale)
    if spec.pixel == "integrate":
        t = t * np.sinc(ky / (2 * np.pi))[:, None] * np.sinc(kx / (2 * np.pi))[None, :]
    image = np.roll(scipy.fft.irfft2(t, s=(n, n)), (size // 2, size // 2), axis=(0, 1))[:size, :size]
    image = np.clip(image, 0.0, None)
    return np.asarray(image / image.sum())
