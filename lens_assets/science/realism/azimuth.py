"""What is left of a stamp when an azimuthally smooth galaxy is taken away, against a stationary background.

One residual for everything that asks about arcs (the measures of this room and the detectability gate), applied alike
to real lenses, injections and random galaxies. Deliberately simple, with no fit: a low quantile of the light in
elliptical annuli whose shape comes from windowed second moments, so that an arc over less than about 60 % of the
azimuth does not enter (the median already takes two thirds of a 100-degree arc's excess away). Against rings the
profile is cut by its log-convex envelope: any mixture of concentric Gaussians, hence every Sersic galaxy of index
above 1/2 under a Moffat or Gaussian seeing, has ln I convex in r^2, and a bump does not. What the model cannot do:
tell an arc from a spiral arm, a bar or a companion, or see a full ring so broad and so close in that it makes no
bump.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter
from scipy.stats import norm

from lens_assets.science.errors import BadInput
from lens_assets.science.realism.disc import REACH, Disc, blocks, disc

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
MASK = npt.NDArray[np.bool_]

WINDOW = 4.0
"""Sigma of the Gaussian window of the shape moments, pixels."""
MIN_AXIS_RATIO = 0.4
SMOOTH = 3
"""Side of the box average of the coherence map, pixels: about one seeing disc."""
BLOCK = 4
"""Side of the blocks whose scatter gives the noise of sums: beyond the coadd's noise correlation (lags 1 to 3)."""
LEVEL = 0.35
"""Quantile of the light in an annulus that is taken for the galaxy; its noise bias is added back."""
_QUANTILE_BIAS = float(norm.ppf(1 - LEVEL))
_QUANTILE_ERROR = float(np.sqrt(LEVEL * (1 - LEVEL)) / norm.pdf(norm.ppf(LEVEL)))
"""Standard error of a sample quantile of N normal values, times sqrt(N) / sigma."""
_PIXEL_SHARE = 0.85
"""Per-pixel noise over that of sums: 0.893 after one Lanczos-3 resampling, 0.829 after two (phase-averaged)."""
_MAD = float(1 / norm.ppf(0.75))
_CHUNK = 256


@dataclass(frozen=True)
class Residuals:
    """Stamps minus their azimuthal model; all flux in nanomaggies per pixel, pixels in the order of :class:`Disc`.

    residual, model : (n, 3, p). residual is 0 where the pixel is invalid.
    valid : (n, 3, p).
    level, sigma_smooth, sigma_sum : (n, 3): background level; noise of a :data:`SMOOTH` box mean; and the
        white-equivalent noise per pixel for sums over many pixels (noise of :data:`BLOCK` block means times the
        block's side).
    axis_ratio, angle : (n,) of the elliptical annuli; angle in radians from +x.
    """

    residual: F32
    model: F32
    valid: MASK
    level: F64
    sigma_smooth: F64
    sigma_sum: F64
    axis_ratio: F64
    angle: F64


def _median(values: F32) -> F64:
    """Median along the last axis; nan counts as absent, and all absent gives nan."""
    if np.isfinite(values).all():
        return np.asarray(np.median(values, axis=-1), dtype=np.float64)
    ordered = np.sort(values, axis=-1).astype(np.float64)  # nan last
    count = np.isfinite(ordered).sum(axis=-1)
    last = np.maximum(count - 1, 0)
    low, high = last // 2, np.minimum(count // 2, last)
    pick = [np.take_along_axis(ordered, k[..., None], axis=-1)[..., 0] for k in (low, high)]
    return np.asarray((pick[0] + pick[1]) / 2, dtype=np.float64)


def _robust(values: F32) -> tuple[F64, F64]:
    """Median and 1.4826 MAD along the last axis."""
    centre = _median(values)
    return centre, _MAD * _median(np.abs(values - centre[..., None].astype(np.float32)))


def background(images: F32, invvar: F32) -> tuple[F64, F64, F64]:
    """Level, noise of box means and white-equivalent noise for sums; each (n, 3), nmgy per pixel.

    From the medians and MADs of block means in the background annulus, so that neighbours hardly count and the noise
    correlation of the coadd is included (per-pixel noise understates that of sums by about 1.2 to 1.3). Blocks with an
    invalid pixel are left out.
    """
    n, bands, h, w = images.shape
    flat, weight = images.reshape(n, bands, h * w), invvar.reshape(n, bands, h * w)
    out = []
    for side in (SMOOTH, BLOCK):
        index = blocks(h, w, side)
        means = np.take(flat, index, axis=2).mean(axis=-1)
        good = (np.take(weight, index, axis=2) > 0).all(axis=-1)
        if not good.all():
            means = np.where(good, means, np.float32(np.nan))
        out.append(_robust(means))
    return out[0][0], out[0][1], out[1][1] * BLOCK


def shape(pixels: F32, geometry: Disc) -> tuple[F64, F64]:
    """Axis ratio and angle (radians from +x) from second moments under a round Gaussian window, deconvolved from it.

    For a Gaussian image of covariance C the windowed covariance is (C^-1 + I/w^2)^-1, which is inverted here.
    ``pixels`` is (n, p), background subtracted.
    """
    window = np.exp(-0.5 * (geometry.radius / WINDOW) ** 2).astype(np.float32)
    basis = (window, window * geometry.x**2, window * geometry.y**2, window * geometry.x * geometry.y)
    total, xx, yy, xy = ((pixels * b).sum(axis=1, dtype=np.float64) for b in basis)
    good = total > 0
    safe = np.where(good, total, 1.0)
    xx, yy, xy = xx / safe, yy / safe, xy / safe
    mid, diff = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    floor = 0.25
    big, small = np.maximum(mid + diff, floor), np.maximum(mid - diff, floor)
    inverse_big = np.maximum(1 / big - 1 / WINDOW**2, 1 / REACH**2)
    inverse_small = np.maximum(1 / small - 1 / WINDOW**2, 1 / REACH**2)
    q = np.sqrt(inverse_big / inverse_small)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    return np.where(good, np.clip(q, MIN_AXIS_RATIO, 1.0), 1.0), np.where(good, angle, 0.0)


def envelope(profile: F32, error: F64, radius: F64) -> F32:
    """``profile`` (n, 3, k) cut to the log-convex envelope, in r^2, of ``profile + 2 error``; nodes at ``radius``.

    The lower convex hull of ln I over r^2, taken as the smallest of all chords across each node. Lifting the nodes by
    twice their standard errors keeps noise from cutting: only a significant bump is taken away.
    """
    k = profile.shape[-1]
    x = radius.astype(np.float32) ** 2
    lifted = np.log(np.maximum(profile + 2 * error, 1e-3 * np.maximum(error, 1e-12))).astype(np.float32)
    hull = lifted.copy()
    for j in range(1, k - 1):
        share = ((x[j] - x[:j, None]) / (x[None, j + 1 :] - x[:j, None])).astype(np.float32)
        left, right = lifted[..., :j], lifted[..., j + 1 :]
        chords = left[..., :, None] * (1 - share) + right[..., None, :] * share
        hull[..., j] = np.minimum(hull[..., j], chords.reshape(*chords.shape[:-2], -1).min(axis=-1))
    return np.minimum(profile, np.exp(hull)).astype(np.float32)


def residuals(images: npt.ArrayLike, invvar: npt.ArrayLike) -> Residuals:
    """The azimuthal residuals of stamps (n, 3, h, w), nanomaggies per pixel; vectorised, in bounded memory."""
    im, iv = np.asarray(images, np.float32), np.asarray(invvar, np.float32)
    if im.ndim != 4 or im.shape[1] != 3 or im.shape != iv.shape:
        raise BadInput(f"images {im.shape} and invvar {iv.shape} must both be (n, 3, h, w)")
    parts = [_residuals(im[i : i + _CHUNK], iv[i : i + _CHUNK]) for i in range(0, max(len(im), 1), _CHUNK)]
    if len(parts) == 1:
        return parts[0]
    return Residuals(*(np.concatenate([getattr(p, name) for p in parts]) for name in Residuals.__dataclass_fields__))


def _residuals(images: F32, invvar: F32) -> Residuals:
    n, bands, h, w = images.shape
    geometry = disc(h, w)
    level, sigma_smooth, sigma_sum = background(images, invvar)
    pixels = np.take(images.reshape(n, bands, h * w), geometry.flat, axis=2) - level[:, :, None].astype(np.float32)
    valid = np.take(invvar.reshape(n, bands, h * w), geometry.flat, axis=2) > 0
    pixels = np.where(np.isfinite(level)[:, :, None], pixels, 0)
    if not valid.all():  # an invalid pixel takes the value opposite it, or 0 where that is invalid too
        pixels = np.where(valid, pixels, np.where(valid[:, :, geometry.mirror], pixels[:, :, geometry.mirror], 0))
    q, angle = shape(pixels[:, 1], geometry)
    cos, sin = np.cos(angle).astype(np.float32)[:, None], np.sin(angle).astype(np.float32)[:, None]
    along, across = geometry.x * cos + geometry.y * sin, geometry.y * cos - geometry.x * sin
    qq = q.astype(np.float32)[:, None]
    rank = np.argsort(qq * along**2 + across**2 / qq, axis=1, kind="stable")
    ordered = np.take_along_axis(pixels, rank[:, None, :], axis=2)
    spans = list(pairwise(geometry.edges.tolist()))
    ranks = [int((b - a) * LEVEL) for a, b in spans]
    parts = [np.partition(ordered[:, :, a:b], k, axis=2)[:, :, k] for (a, b), k in zip(spans, ranks, strict=True)]
    lift = _QUANTILE_BIAS * _PIXEL_SHARE * np.nan_to_num(sigma_sum)[:, :, None]
    profile = np.stack(parts, axis=2) + lift.astype(np.float32)
    error = _QUANTILE_ERROR * sigma_sum[:, :, None] / np.sqrt([b - a for a, b in spans])
    profile = envelope(profile, np.nan_to_num(error), geometry.centres)
    model_ordered = np.zeros_like(ordered)
    for nodes, weights in zip(geometry.nodes, geometry.weights, strict=True):
        model_ordered += np.take(profile, nodes, axis=2) * weights
    model = np.empty_like(pixels)
    np.put_along_axis(model, np.broadcast_to(rank[:, None, :], model.shape), model_ordered, axis=2)
    residual = np.where(valid, pixels - model, 0).astype(np.float32)
    return Residuals(residual, model, valid, level, sigma_smooth, sigma_sum, q, angle)


def coherent_map(r: Residuals, height: int, width: int, *, model_error: float, bands: int = 2) -> tuple[F32, F32]:
    """Significance of the residual in the disc: of the ``bands``-th most significant band (n, p), and of each (n, 3,
    p).

    The residual is box-averaged; its error is the background's in quadrature with ``model_error`` times the model,
    for a galaxy is never as smooth as its profile. A pixel that is high in fewer than ``bands`` bands is not high at
    all.
    """
    geometry = disc(height, width)
    n = len(r.residual)
    side = 2 * REACH + 1
    oy, ox = (height - 1) // 2 - REACH, (width - 1) // 2 - REACH
    local = (geometry.flat // width - oy) * side + geometry.flat % width - ox
    out = np.empty_like(r.residual)
    for i in range(0, n, _CHUNK):
        box = np.zeros((len(r.residual[i : i + _CHUNK]), 3, side * side), np.float32)
        box[:, :, local] = r.residual[i : i + _CHUNK]
        smooth = uniform_filter(box.reshape(-1, 3, side, side), size=(1, 1, SMOOTH, SMOOTH), mode="constant")
        mean = smooth.reshape(-1, 3, side * side)[:, :, local]
        sigma = r.sigma_smooth[i : i + _CHUNK, :, None].astype(np.float32)
        error = np.hypot(sigma, np.float32(model_error) * np.maximum(r.model[i : i + _CHUNK], 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            out[i : i + _CHUNK] = np.where(error > 0, mean / error, 0)
    together = np.partition(out, 3 - bands, axis=1)[:, 3 - bands]
    return together, out
