"""From a stamp of a real galaxy to its source plane: point-spread function out, noise out, sky out.

1. The stamp's point-spread function is divided out in Fourier space and a narrow Gaussian (``target_fwhm``) put in its
   place, as ``galsim.RealGalaxy`` does. Without (``deconvolve: false``) the stamp is taken as it is and its
   point-spread function counts as part of the galaxy; it is shrunk with it.
2. The segment: pixels connected with the brightest one near the middle, above ``SEGMENT`` sigma in the stamp smoothed by
   two pixels, grown by ``GROW`` pixels. Outside is zero: light further out is lost (``kept`` says how much of the stamp's
   sum stays).
3. Inside, noise is removed by hard thresholding of a starlet transform (isotropic undecimated wavelets with a B3 spline;
   Starck & Murtagh 2006, Astronomical Image and Data Analysis, ch. 2) at ``THRESHOLD`` times the noise of each scale, which
   is measured outside the segment, so correlated noise is what it is. Structure fainter than that is lost with it.
4. Negative pixels are zero, and the sum is one.

What does not belong here: catalogues, the lens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lens_assets.science.injections.planes import BORDER, Plane
from lens_assets.science.injections.settings import GalaxySettings

F64 = npt.NDArray[np.float64]
SEGMENT = 2.0
GROW = 4
THRESHOLD = 3.0
SCALES = 4
_B3 = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0


class Refused(ValueError):
    """A stamp that cannot be a source, with the reason."""


def sharpen(image: F64, psf: F64, scale: float, target_fwhm: float) -> F64:
    """``image`` with its point-spread function ``psf`` (pixels of the same scale, arcsec) replaced by a round Gaussian."""
    import galsim

    galaxy = galsim.InterpolatedImage(galsim.Image(image, scale=scale), x_interpolant="lanczos15")
    blur = galsim.InterpolatedImage(
        galsim.Image(np.ascontiguousarray(psf), scale=scale), x_interpolant="lanczos15", flux=1.0
    )
    sharp = galsim.Convolve([galaxy, galsim.Deconvolve(blur), galsim.Gaussian(fwhm=target_fwhm)])
    drawn = sharp.drawImage(nx=image.shape[1], ny=image.shape[0], scale=scale, method="no_pixel", dtype=float)
    return np.asarray(drawn.array, dtype=np.float64)


def starlet(image: F64, scales: int) -> list[F64]:
    """Detail images of the isotropic undecimated wavelet transform and the smooth rest; they add up to the image."""
    details, smooth = [], image
    for level in range(scales):
        taps = np.zeros(4 * (1 << level) + 1)
        taps[:: 1 << level] = _B3
        rest = ndimage.convolve1d(ndimage.convolve1d(smooth, taps, axis=0, mode="mirror"), taps, axis=1, mode="mirror")
        details.append(smooth - rest)
        smooth = rest
    return [*details, smooth]


def _sigma(values: F64) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def segment(image: F64) -> npt.NDArray[np.bool_]:
    """The galaxy's pixels. Raises :class:`Refused` where nothing stands out near the middle."""
    smooth = ndimage.gaussian_filter(image, 2.0)
    above = smooth - np.median(smooth) > SEGMENT * _sigma(smooth)
    labels, _ = ndimage.label(above)
    height, width = image.shape
    near = (slice(height // 3, height - height // 3), slice(width // 3, width - width // 3))
    bright = np.where(above, smooth, -np.inf)[near]
    j, i = np.unravel_index(int(bright.argmax()), bright.shape)
    if not np.isfinite(bright[j, i]):
        raise Refused("nothing above the noise in the middle")
    found = labels == labels[near][j, i]
    return np.asarray(ndimage.binary_dilation(found, iterations=GROW))


def half_light_radius(pixels: F64, centre: tuple[float, float]) -> float:
    """Radius (pixels) of the circle round ``centre`` that holds half of the light: pixels sorted by distance, summed."""
    y, x = np.indices(pixels.shape)
    r = np.hypot(x - centre[0], y - centre[1]).ravel()
    order = np.argsort(r, kind="stable")
    light = np.cumsum(pixels.ravel()[order])
    return float(np.interp(0.5 * light[-1], light, r[order]))


def axis_ratio(pixels: F64, centre: tuple[float, float]) -> float:
    """Axis ratio from second moments."""
    y, x = np.indices(pixels.shape)
    dx, dy, total = x - centre[0], y - centre[1], pixels.sum()
    xx, yy, xy = ((pixels * a).sum() / total for a in (dx * dx, dy * dy, dx * dy))
    least, most = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    return float(np.sqrt(max(least, 1e-12) / max(most, 1e-12)))


def plane_of(image: F64, psf: F64 | None, scale: float, settings: GalaxySettings) -> tuple[Plane, float, float, float]:
    """Source plane, half-light radius (arcsec), axis ratio, and the share of the stamp's light that is kept.

    Raises :class:`Refused` with the reason.
    """
    if not np.isfinite(image).all():
        raise Refused("pixels that are not finite")
    sharp = image if psf is None else sharpen(image, psf, scale, settings.target_fwhm)
    inside = segment(sharp)
    outside = ~ndimage.binary_dilation(inside, iterations=GROW)
    if outside.sum() < 0.1 * image.size or inside[[0, -1]].any() or inside[:, [0, -1]].any():
        raise Refused("the galaxy reaches the edge of its stamp")
    sharp = sharp - np.median(sharp[outside])
    total = np.zeros_like(sharp)
    *details, smooth = starlet(sharp, SCALES)
    for detail in details:
        total += np.where(np.abs(detail) >= THRESHOLD * _sigma(detail[outside]), detail, 0.0)
    soft = ndimage.gaussian_filter(inside.astype(np.float64), 1.0)
    clean = np.clip(total + smooth, 0.0, None) * soft
    clean[soft < 1e-3] = 0.0
    if not clean.sum() > 0:
        raise Refused("no light left above the noise")
    kept = float(clean.sum() / max(sharp.sum(), 1e-300))
    rows, columns = (np.flatnonzero(clean.any(axis=a)) for a in (1, 0))
    cut = np.pad(clean[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], BORDER)
    pixels = np.ascontiguousarray(cut / cut.sum())
    y, x = np.indices(pixels.shape)
    centre = (float((pixels * x).sum()), float((pixels * y).sum()))
    radius = half_light_radius(pixels, centre) * scale
    if radius < settings.least_radius:
        raise Refused("smaller than can be resolved")
    return Plane(pixels, scale, centre), radius, axis_ratio(pixels, centre), kept
