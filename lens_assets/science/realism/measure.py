"""The measured properties of the arc annulus, by one estimator each, applied alike to real lenses and to injections.

(A published comparison took the SNR of real stamps over the whole image and that of injections over the arc alone.)
Nothing here knows the truth of an injection. Each name says what it is:

``total_snr_b``        the cutouts' estimator: all light of the annulus, host included, over the sky noise of its sum, the
                       background that of the detector's normalisation;
``annulus_flux_b``     all light above the background between 4 and 16 px, host included, nmgy;
``annulus_gr/rz``      its colours: mag, null where a flux is below 3 sigma;
``excess_flux_b``      what the azimuthal model leaves there, nmgy (low by the part of an arc that the model absorbs);
``excess_snr_b``       the same over its noise, the correlation of the coadd included; ``excess_gr/rz``       its
colours, null where a band's SNR is below the stated limit. The model takes more of a noisy band, so
                       they are bluer in r - z by up to 0.2 mag: alike on both sides only where depth is matched;
``excess_mag_r``       asinh magnitude (Lupton, Gunn & Szalay 1999) of ``excess_flux_r``: defined for any flux, for
matching;
``arc_sb_r``           mean surface brightness of the coherent pixels, mag / arcsec^2;
``arc_width``          2.355 x flux-weighted radial scatter of the coherent pixels, arcsec, seeing included;
``arc_radius``         their flux-weighted radius, arcsec;
``arc_asymmetry``      length of their flux-weighted mean direction: 0 ring or symmetric pair, 1 a single compact image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.cutouts.features import annulus_snr
from lens_assets.science.cutouts.settings import NormalisationSpec
from lens_assets.science.realism.azimuth import coherent_map, residuals
from lens_assets.science.realism.disc import disc
from lens_assets.science.surveys.layout import BANDS, PIXEL_SCALE, ZERO_POINT

SOFTENING = 0.1
"""Softening of the asinh magnitude, nmgy (25 mag): about the noise of a typical r-band annulus sum."""
PIXEL_SIGMA = 2.0
"""A pixel belongs to the arc where two bands exceed this significance: as in the detectability gate."""
MODEL_ERROR = 0.10
"""Error of the azimuthal model as a fraction of the model: as in the detectability gate."""
STRUCTURE = {
    "surface_brightness": "arc_sb_r",
    "arc_width": "arc_width",
    "arc_radius": "arc_radius",
    "tangential_asymmetry": "arc_asymmetry",
}
"""Gate of structure to its measure."""


def asinh_magnitude(flux: npt.ArrayLike, softening: float = SOFTENING) -> npt.NDArray[np.float64]:
    """AB magnitude of ``flux`` (nmgy) that stays finite at and below zero; equals the usual one far above
    ``softening``."""
    x = np.asarray(flux, float)
    return np.asarray(
        ZERO_POINT - 2.5 / np.log(10) * (np.arcsinh(x / (2 * softening)) + np.log(softening)), dtype=np.float64
    )


def _magnitude_difference(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], ok: npt.NDArray[np.bool_]
) -> pl.Series:
    with np.errstate(divide="ignore", invalid="ignore"):
        colour = -2.5 * np.log10(a / b)
    good = ok & (a > 0) & (b > 0)
    return pl.Series(np.where(good, colour, 0.0)).set(pl.Series(~good), None)


def arc_measures(
    images: npt.ArrayLike, invvar: npt.ArrayLike, spec: NormalisationSpec | None = None, *, colour_min_snr: float = 3.0
) -> pl.DataFrame:
    """One row a stamp, in their order, of the measures listed above; null where a measure is not defined.

    images (n, 3, h, w) nanomaggies per pixel in g, r, z; invvar 1/nmgy^2 of the same shape. ``spec`` names the background
    annulus of ``total_snr_b``; without it these columns are left out (there is no default annulus to fall back on).
    """
    im, iv = np.asarray(images, np.float32), np.asarray(invvar, np.float32)
    parts = [_measures(im[i : i + 512], iv[i : i + 512], spec, colour_min_snr) for i in range(0, max(len(im), 1), 512)]
    return pl.concat(parts)


def _measures(
    im: npt.NDArray[np.float32], iv: npt.NDArray[np.float32], spec: NormalisationSpec | None, colour_min_snr: float
) -> pl.DataFrame:
    h, w = im.shape[-2:]
    geometry = disc(h, w)
    r = residuals(im, iv)
    inside = np.flatnonzero(geometry.annulus)
    valid = np.take(r.valid, inside, axis=2)
    left, galaxy = np.take(r.residual, inside, axis=2), np.take(r.model, inside, axis=2)
    noise = r.sigma_sum * np.sqrt(valid.sum(axis=2))
    excess = left.sum(axis=2, dtype=np.float64)
    light = np.where(valid, left + galaxy, 0).sum(axis=2, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr, light_snr = excess / noise, light / noise
    total_snr = None if spec is None else annulus_snr(im, iv, spec)
    columns: dict[str, pl.Series] = {}
    for b, band in enumerate(BANDS):
        if total_snr is not None:
            columns[f"total_snr_{band}"] = _null(total_snr[:, b])
        columns[f"annulus_flux_{band}"] = _null(light[:, b])
        columns[f"excess_flux_{band}"] = _null(excess[:, b])
        columns[f"excess_snr_{band}"] = _null(snr[:, b])
    for name, (a, b) in {"gr": (0, 1), "rz": (1, 2)}.items():
        bright = (light_snr[:, a] > 3) & (light_snr[:, b] > 3)
        seen = (snr[:, a] >= colour_min_snr) & (snr[:, b] >= colour_min_snr)
        columns[f"annulus_{name}"] = _magnitude_difference(light[:, a], light[:, b], bright)
        columns[f"excess_{name}"] = _magnitude_difference(excess[:, a], excess[:, b], seen)
    columns["excess_mag_r"] = _null(asinh_magnitude(excess[:, 1]))
    together, _ = coherent_map(r, h, w, model_error=MODEL_ERROR)
    arc = (np.take(together, inside, axis=1) > PIXEL_SIGMA) & valid[:, 1]
    weight = np.where(arc, np.maximum(left[:, 1], 0), 0).astype(np.float64)
    total, pixels = weight.sum(axis=1), arc.sum(axis=1)
    radius, phi = geometry.radius[inside].astype(float), geometry.phi[inside].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (weight * radius).sum(axis=1) / total
        width = np.sqrt(np.maximum((weight * radius**2).sum(axis=1) / total - mean**2, 0))
        asymmetry = np.hypot((weight * np.cos(phi)).sum(axis=1), (weight * np.sin(phi)).sum(axis=1)) / total
        brightness = ZERO_POINT - 2.5 * np.log10(total / (pixels * PIXEL_SCALE**2))
    seen = pixels >= 5
    columns["arc_pixels"] = pl.Series(pixels.astype(np.int32))
    columns["arc_sb_r"] = _null(np.where(seen, brightness, np.nan))
    columns["arc_width"] = _null(np.where(seen, 2.3548 * width * PIXEL_SCALE, np.nan))
    columns["arc_radius"] = _null(np.where(seen, mean * PIXEL_SCALE, np.nan))
    columns["arc_asymmetry"] = _null(np.where(seen, asymmetry, np.nan))
    return pl.DataFrame(columns)


def _null(values: npt.NDArray[np.float64]) -> pl.Series:
    ok = np.isfinite(values)
    return pl.Series(np.where(ok, values, 0.0), dtype=pl.Float64).set(pl.Series(~ok), None)
