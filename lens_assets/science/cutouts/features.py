"""Simple numbers of a stamp that a network could use instead of the arc, and the noise that tells two readers apart.

One estimator each, named, so that real and injected stamps, positives and negatives are measured by the same code.
None is a lens finder. All radii are pixels from the centre pixel ``(h // 2, w // 2)``; a ring k holds ``k <= r < k +
1``, so every radius below is a whole number. Only valid pixels (``quality.valid_pixels``) enter; a feature without
valid pixels, or a colour of a non-positive flux, is null. A stamp's values do not depend on the batch it is in.

| feature (per band b) | estimator |
|---|---|
| `core_4_b`, `core_8_b`, `core_12_b` | mean flux at r < 4, 8, 12 |
| `annulus_b`, `outer_b` | mean flux at 4 <= r < 16 (the arcs') and 16 <= r < 28 |
| `background_b`, `background_mad_b` | median and raw MAD of the normalisation's annulus |
| `radial_gradient_b` | least-squares slope of the ring means against the ring's mean radius, r < 16 (nmgy / px^2) |
| `laplacian_core_b`, `laplacian_annulus_b` | mean square of the 5-point Laplacian at r < 8 and 4 <= r < 16 |
| `asymmetry_b` | rms about the ring means at 4 <= r < 16, over 1.4826 background MAD: about 1 for noise alone |
| `saturated_b` | share of valid pixels that the normalisation clips |
| `edge_b` | (median of the outermost 3-pixel frame - background) / background MAD |
| `p01_b` .. `p99_b`, `median_b`, `mad_b` | of all valid pixels; the MAD is raw |
| `annulus_snr_b` | see :func:`annulus_snr` |
| `colour_gr`, `colour_rz` | annulus colour minus core (r < 4) colour, magnitudes, background subtracted |
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import ndimage

from lens_assets.science.cutouts.normalise import NormalisationSpec, background
from lens_assets.science.cutouts.quality import valid_pixels
from lens_assets.science.errors import BadInput

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
ANNULUS = (4, 16)
OUTER = (16, 28)
MAD_TO_SIGMA = 1.4826
RESAMPLED_SIGMA = {"brick": 0.893, "viewer": 0.829}
"""Per-pixel scatter over true (white) noise after one or two Lanczos-3 resamplings at random phase: sums over many
pixels keep the white noise, single pixels lose this factor. Computed from the kernel; the viewer's was measured
too."""
_PERCENTILES = (1, 5, 25, 75, 95, 99)
_BLOCK = 64


MEANING = {
    "annulus_snr": "flux at 4-16 px over its noise: arcs are there, and so is the deflector",
    "annulus": "mean flux at 4-16 px: arcs are there, and so is the deflector",
    "asymmetry": "light that is not round at 4-16 px: what an arc adds",
    "background_mad": "scatter of the sky: depth, never the galaxy",
    "background": "level of the sky: subtraction, never the galaxy",
    "colour": "annulus colour minus core colour: blue arcs round red deflectors",
    "core_4": "mean flux within 1 arcsec (4 px): the deflector alone",
    "core_8": "mean flux within 2 arcsec (8 px): the deflector, and arcs of small radius",
    "core_12": "mean flux within 3 arcsec (12 px): the deflector and most arcs",
    "edge": "outermost frame against the background: a border left by a reader",
    "laplacian_annulus": "fine structure at 4-16 px",
    "laplacian_core": "fine structure of the core: sharpness, seeing",
    "mad": "scatter of all pixels",
    "median": "median of all pixels",
    "noise_lag": "correlation of neighbouring sky pixels: how often the reader resampled",
    "outer": "mean flux at 16-28 px: haloes and neighbours",
    "p": "percentile of all pixels",
    "radial_gradient": "slope of the profile within 16 px",
    "saturated": "share of pixels that the normalisation clips",
}
"""What a feature measures and what it tells, by the stem of its name."""


def meaning(feature: str) -> str:
    """What a feature measures, in a few words."""
    best = max((stem for stem in MEANING if feature.startswith(stem)), key=len, default="")
    return MEANING.get(best, "")


@lru_cache(maxsize=16)
def _rings(height: int, width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], F64]:
    """Flat indices of the pixels at r < 28 ordered by ring, where each ring starts, and the ring's mean radius."""
    y, x = np.ogrid[:height, :width]
    r = np.hypot(x - width // 2, y - height // 2).ravel()
    ring = r.astype(np.int64)
    order = np.argsort(ring, kind="stable")
    order = order[ring[order] < OUTER[1]]
    starts = np.searchsorted(ring[order], np.arange(int(ring[order[-1]]) + 1))
    mean_radius = np.add.reduceat(r[order], starts) / np.diff(np.append(starts, order.size))
    return order, starts, mean_radius


def annulus_snr(images: F32, invvar: F32, spec: NormalisationSpec | None = None) -> F64:
    """Signal-to-noise of the flux summed over the annulus 4 <= r < 16 px, (n, bands).

    ``sum(image - background) / sqrt(sum(1 / invvar))`` over valid pixels, the background being the median of the
    normalisation's annulus. The coadd's inverse variance states the noise before resampling, which is what a sum over
    many pixels feels: the resampling correlates neighbours and lowers the scatter of single pixels (by 0.893 for a
    brick), but conserves the noise of sums. A per-pixel MAD in its place would overstate the SNR by 1.12 (brick) or
    1.21 (viewer). Sky noise only: no photon noise of the object, and the light of the deflector counts as signal.
    ``nan`` without valid pixels.
    """
    spec = spec or NormalisationSpec()
    level = background(images, spec, valid_pixels(images, invvar))[0].astype(np.float64)
    order, starts, _ = _rings(*images.shape[2:])
    pick = order[starts[ANNULUS[0]] : starts[ANNULUS[1]]]
    flat, weight = (a.reshape(*a.shape[:2], -1)[:, :, pick].astype(np.float64) for a in (images, invvar))
    good = np.isfinite(flat) & np.isfinite(weight) & (weight > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        signal = np.where(good, flat - level[..., None], 0.0).sum(axis=2)
        variance = np.where(good, 1.0 / weight, 0.0).sum(axis=2)
        return np.where(good.any(axis=2), signal / np.sqrt(variance), np.nan)


def shortcut_features(images: F32, invvar: F32, spec: NormalisationSpec | None = None) -> pl.DataFrame:
    """All features of the table above.

    Parameters
    ----------
    images, invvar : (n, bands, h, w), nanomaggies per pixel and inverse square; bands in the order of ``spec.bands``.

    Returns
    -------
    n rows of Float64 columns, null where undefined.
    """
    spec = spec or NormalisationSpec()
    if images.shape[1] != len(spec.bands):
        raise BadInput(f"stamps of {images.shape[1]} bands, {len(spec.bands)} expected")
    blocks = [
        _block(images[start : start + _BLOCK], invvar[start : start + _BLOCK], spec)
        for start in range(0, max(len(images), 1), _BLOCK)
    ]
    frame = pl.DataFrame({name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]})
    return frame.with_columns(pl.when(pl.all().is_finite()).then(pl.all()))


def _block(images: F32, invvar: F32, spec: NormalisationSpec) -> dict[str, F64]:
    n, bands, height, width = images.shape
    good = valid_pixels(images, invvar)
    pixels = np.where(good, images, np.float32(0)).astype(np.float64)
    middle, mad, _ = (a.astype(np.float64) for a in background(images, spec, good))
    order, starts, radius = _rings(height, width)
    weight = good.reshape(n, bands, -1)[:, :, order].astype(np.float64)
    flux = pixels.reshape(n, bands, -1)[:, :, order]
    sums, counts = np.add.reduceat(flux, starts, axis=2), np.add.reduceat(weight, starts, axis=2)
    out: dict[str, F64] = {}

    def put(stem: str, values: F64) -> None:
        for k, band in enumerate(spec.bands):
            out[f"{stem}_{band}"] = np.ascontiguousarray(values[:, k])

    with np.errstate(invalid="ignore", divide="ignore"):

        def mean(lo: int, hi: int) -> F64:
            ratio: F64 = sums[:, :, lo:hi].sum(axis=2) / counts[:, :, lo:hi].sum(axis=2)
            return ratio

        for reach in (4, 8, 12):
            put(f"core_{reach}", mean(0, reach))
        put("annulus", mean(*ANNULUS))
        put("outer", mean(*OUTER))
        put("background", middle)
        put("background_mad", mad)

        profile = sums / counts
        inner = profile[:, :, : ANNULUS[1]]
        offset = radius[: ANNULUS[1]] - radius[: ANNULUS[1]].mean()
        put("radial_gradient", (inner * offset).sum(axis=2) / (offset**2).sum())

        laplacian, sound = _laplacian(pixels, good)
        for name, lo, hi in (("core", 0, 8), ("annulus", *ANNULUS)):
            pick = order[starts[lo] : starts[hi]]
            use = sound.reshape(n, bands, -1)[:, :, pick]
            square = np.where(use, laplacian.reshape(n, bands, -1)[:, :, pick], 0.0) ** 2
            put(f"laplacian_{name}", square.sum(axis=2) / use.sum(axis=2))

        member = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, order.size)))
        ring = (member >= ANNULUS[0]) & (member < ANNULUS[1])
        residual = np.where(weight > 0, flux - profile[:, :, member], 0.0)[:, :, ring]
        rms = np.sqrt((residual**2).sum(axis=2) / counts[:, :, slice(*ANNULUS)].sum(axis=2))
        put("asymmetry", rms / (MAD_TO_SIGMA * mad))

        beyond = np.abs(pixels - middle[..., None, None]) >= spec.clip * mad[..., None, None]
        put("saturated", (beyond & good).sum(axis=(2, 3)) / good.sum(axis=(2, 3)))

        values = np.where(good, pixels, np.nan).reshape(n, bands, -1)
        frame = np.ones((height, width), bool)
        frame[3:-3, 3:-3] = False
        put("edge", (_quantiles(values[:, :, frame.ravel()], (50,))[0] - middle) / mad)
        quantiles = _quantiles(values, (*_PERCENTILES, 50))
        for percent, value in zip(_PERCENTILES, quantiles, strict=False):
            put(f"p{percent:02d}", value)
        put("median", quantiles[-1])
        put("mad", _quantiles(np.abs(values - quantiles[-1][..., None]), (50,))[0])
        put("annulus_snr", annulus_snr(images, invvar, spec))

        core, annulus = mean(0, 4) - middle, mean(*ANNULUS) - middle
        for blue, red in zip(spec.bands[:-1], spec.bands[1:], strict=True):
            b, r = spec.bands.index(blue), spec.bands.index(red)
            ratio = (annulus[:, b] / annulus[:, r]) / (core[:, b] / core[:, r])
            positive = (annulus[:, [b, r]] > 0).all(axis=1) & (core[:, [b, r]] > 0).all(axis=1)
            out[f"colour_{blue}{red}"] = np.where(positive, -2.5 * np.log10(np.where(positive, ratio, 1.0)), np.nan)
    return out


def _laplacian(pixels: F64, good: npt.NDArray[np.bool_]) -> tuple[F64, npt.NDArray[np.bool_]]:
    """5-point Laplacian, and where all five pixels are valid (never on the border)."""
    value, sound = np.zeros_like(pixels), np.zeros_like(good)
    c, n, s, w, e = (
        (..., slice(1, -1), slice(1, -1)), (..., slice(None, -2), slice(1, -1)), (..., slice(2, None), slice(1, -1)),
        (..., slice(1, -1), slice(None, -2)), (..., slice(1, -1), slice(2, None)),
    )  # fmt: skip
    value[c] = pixels[n] + pixels[s] + pixels[w] + pixels[e] - 4 * pixels[c]
    sound[c] = good[n] & good[s] & good[w] & good[e] & good[c]
    return value, sound


def _quantiles(values: F64, percents: tuple[int, ...]) -> list[F64]:
    """Linear-interpolated percentiles along the last axis; ``nan`` counts as absent, all absent gives ``nan``."""
    ordered = np.sort(values, axis=-1)  # nan last
    count = np.isfinite(ordered).sum(axis=-1)
    found = []
    for percent in percents:
        place = np.maximum(count - 1, 0) * (percent / 100)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(count - 1, 0))
        a, b = (np.take_along_axis(ordered, i[..., None], axis=-1)[..., 0] for i in (low, high))
        found.append(a + (b - a) * (place - low))
    return found


def sky_invvar(images: F32, source: str, spec: NormalisationSpec | None = None) -> F32:
    """Inverse variance for stamps that come without one (the viewer's plane is no variance): constant per band.

    ``(RESAMPLED_SIGMA[source] / (1.4826 MAD))^2`` with the MAD of the background annulus, so that it means the same as
    a coadd's. Non-finite pixels get 0.
    """
    mad = background(images, spec or NormalisationSpec())[1].astype(np.float64)
    with np.errstate(divide="ignore"):
        level = (RESAMPLED_SIGMA[source] / (MAD_TO_SIGMA * mad)) ** 2
    full = np.where(np.isfinite(images), level[..., None, None], 0.0)
    return np.where(np.isfinite(full), full, 0.0).astype(np.float32)


def noise_lags(images: F32, invvar: F32, lags: tuple[int, ...] = (1, 2), bands: str = "grz") -> pl.DataFrame:
    """Autocorrelation of the background along lines and columns, ``noise_lag{k}_{band}``: the fingerprint of the
    reader.

    Background: valid, r > half of the half-width, no source (smoothed with a 1.5 px Gaussian, above 3 sigma, grown by
    3 px). One Lanczos-3 resampling gives +0.112 at lag 1 and -0.076 at lag 2, two give +0.196 and -0.128 (+0.22 and
    -0.12 measured in viewer stamps). Null with fewer than 200 pairs.
    """
    n, planes, height, width = images.shape
    y, x = np.ogrid[:height, :width]
    far = np.hypot(x - width // 2, y - height // 2) > min(height, width) / 4
    good = valid_pixels(images, invvar)
    cross = ndimage.generate_binary_structure(2, 1)
    out: dict[str, F64] = {f"noise_lag{k}_{b}": np.full(n, np.nan) for k in lags for b in bands}
    for i in range(n):
        for p in range(planes):
            sky = good[i, p] & far
            if not sky.any():
                continue
            plane = np.where(good[i, p], images[i, p], 0.0).astype(np.float64)
            smooth = ndimage.gaussian_filter(plane, 1.5)
            level = np.median(smooth[sky])
            scatter = MAD_TO_SIGMA * np.median(np.abs(smooth[sky] - level))
            source = ndimage.binary_dilation(smooth > level + 3 * scatter, cross, iterations=3)
            sky &= ~source
            if not sky.any():
                continue
            plane -= np.mean(plane[sky])
            variance = np.mean(plane[sky] ** 2)
            for k in lags:
                pairs = [
                    (plane[:, k:], plane[:, :-k], sky[:, k:] & sky[:, :-k]),
                    (plane[k:], plane[:-k], sky[k:] & sky[:-k]),
                ]
                total = sum(int(m.sum()) for _, _, m in pairs)
                if total >= 200 and variance > 0:
                    out[f"noise_lag{k}_{bands[p]}"][i] = (
                        sum(float((a * b)[m].sum()) for a, b, m in pairs) / total / variance
                    )
    return pl.DataFrame(out).with_columns(pl.when(pl.all().is_finite()).then(pl.all()))
