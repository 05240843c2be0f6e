"""Probes that a detector must not fall for, each taking a scorer: images (n, 3, h, w) in nanomaggies per pixel to
probabilities (n,). The scorer holds the detector's own normalisation.

``null_injection``     hosts through the injection path with zero flux: they must score as negatives;
``arc_suppressed``     real lenses with the arc replaced by galaxy model and sky: what remains must not score as a lens;
``adversarial_ring``   negatives with a ring no lens makes: not convolved with the seeing and of the host's own
                       colour, or in one band alone.

A failed probe says that the detector reads something other than arcs; it is no statement about completeness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.realism.azimuth import coherent_map, residuals
from lens_assets.science.realism.disc import BACKGROUND, disc
from lens_assets.science.realism.gate import GateResult, decided
from lens_assets.science.realism.measure import MODEL_ERROR
from lens_assets.science.realism.settings import Settings
from lens_assets.science.realism.stamps import StampSet

F32 = npt.NDArray[np.float32]
Score = Callable[[F32], npt.ArrayLike]


def suppress_arcs(stamps: StampSet, identity: tuple[Any, ...], pixel_sigma: float = 1.5) -> F32:
    """The stamps with every coherent excess of the arc annulus replaced by the azimuthal model plus sky.

    The sky of a replaced pixel is another pixel of the same stamp and band from the background annulus, drawn by
    identity, so that the replaced pixels have the noise's distribution (not its correlation).
    """
    h, w = stamps.images.shape[-2:]
    geometry = disc(h, w)
    r = residuals(stamps.images, stamps.invvar)
    together, _ = coherent_map(r, h, w, model_error=MODEL_ERROR)
    out = stamps.images.reshape(len(stamps), 3, h * w).copy()
    yy, xx = np.mgrid[:h, :w]
    half = min(h, w) // 2
    radius = np.hypot(yy - (h - 1) / 2, xx - (w - 1) / 2).ravel()
    pool = np.flatnonzero((radius >= BACKGROUND[0] * half) & (radius < BACKGROUND[1] * half))
    for i, name in enumerate(stamps.strings("id")):
        where = np.flatnonzero((together[i] > pixel_sigma) & geometry.annulus)
        if not len(where):
            continue
        rng = generator("suppress", *identity, str(name))
        for b in range(3):
            sky = stamps.images[i, b].ravel()[pool]
            sky = sky[(stamps.invvar[i, b].ravel()[pool] > 0)]
            spread = 1.4826 * np.median(np.abs(sky - np.median(sky))) if len(sky) else 0.0
            calm = sky[np.abs(sky - np.median(sky)) <= 3 * spread] if len(sky) else sky
            if len(calm):
                out[i, b, geometry.flat[where]] = r.model[i, b, where] + rng.choice(calm, len(where))
    return out.reshape(stamps.images.shape)


def add_ring(
    stamps: StampSet, kind: Literal["sharp", "one-band"], radius: float = 8.0, contrast: float = 5.0, width: float = 1.0
) -> F32:
    """The stamps with a perfect ring of ``radius`` px whose r-band peak is ``contrast`` x the box noise (3 px) of the
    sky.

    ``sharp``: ``width`` px wide with hard edges and the host's own core colour. ``one-band``: r alone, two pixels of
    Gaussian width as seeing would have it.
    """
    h, w = stamps.images.shape[-2:]
    r = residuals(stamps.images, stamps.invvar)
    yy, xx = np.mgrid[:h, :w]
    d = np.hypot(yy - (h - 1) / 2, xx - (w - 1) / 2) - radius
    peak = contrast * 3 * np.nan_to_num(r.sigma_smooth[:, 1])
    out = stamps.images.copy()
    if kind == "one-band":
        out[:, 1] += (peak[:, None, None] * np.exp(-0.5 * (d / 2.0) ** 2)).astype(np.float32)
        return out
    if kind != "sharp":
        raise BadInput(f"no such ring: {kind!r} (sharp, one-band)")
    core = disc(h, w).radius < 3
    colour = np.maximum(r.model[:, :, core].mean(axis=2), 0)
    colour = colour / np.maximum(colour[:, 1:2], 1e-12)
    shape = (np.abs(d) <= width / 2).astype(np.float32)
    out += (colour * peak[:, None])[:, :, None, None].astype(np.float32) * shape
    return out


def _mean_score(
    name: str, images: F32, stamps: StampSet, score: Score, bar: float, settings: Settings, identity: tuple[Any, ...]
) -> GateResult:
    p = np.asarray(score(images), float).ravel()
    if len(p) != len(stamps):
        raise BadInput(f"the scorer returned {len(p)} scores for {len(stamps)} stamps")
    if not np.isfinite(p).all() or p.min(initial=0) < 0 or p.max(initial=0) > 1:
        raise BadInput("the scorer must return probabilities")
    _, groups = np.unique(stamps.strings("group"), return_inverse=True)
    sums, counts = np.bincount(groups, p), np.bincount(groups)
    rng = generator(name, *identity)
    draws = rng.integers(0, len(sums), (settings.bootstrap_draws, len(sums))) if len(sums) else np.empty((0, 0), int)
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1) if len(sums) else np.array([np.nan])
    q = np.quantile(means, [0.16, 0.84, 0.025, 0.975])
    few = "" if len(p) >= settings.min_real else f"{len(p)} stamps, at least {settings.min_real} are needed"
    detail = {"share_above_half": float((p > 0.5).mean()) if len(p) else float("nan"), "n": len(p)}
    n_real, n_injected = (len(p), 0) if name == "arc_suppressed" else (0, len(p))
    value = float(p.mean()) if len(p) else float("nan")
    return decided(
        name,
        value,
        (q[0], q[1], q[2], q[3]),
        bar,
        n_real,
        n_injected,
        unit="mean score",
        detail=detail,
        insufficient=few,
    )


def null_injection(stamps: StampSet, score: Score, settings: Settings, identity: tuple[Any, ...]) -> GateResult:
    """Mean score of zero-flux injections (or untouched hosts, which they must equal bit for bit)."""
    return _mean_score("null_injection", stamps.images, stamps, score, settings.bars.null_score, settings, identity)


def arc_suppressed(lenses: StampSet, score: Score, settings: Settings, identity: tuple[Any, ...]) -> GateResult:
    """Mean score of real lenses after :func:`suppress_arcs`."""
    images = suppress_arcs(lenses, identity)
    return _mean_score("arc_suppressed", images, lenses, score, settings.bars.suppressed_score, settings, identity)


def adversarial_ring(
    hosts: StampSet,
    score: Score,
    settings: Settings,
    identity: tuple[Any, ...],
    kind: Literal["sharp", "one-band"] = "sharp",
) -> GateResult:
    """Mean score of negatives after :func:`add_ring`."""
    images = add_ring(hosts, kind)
    name = f"adversarial_ring_{kind.replace('-', '_')}"
    return _mean_score(name, images, hosts, score, settings.bars.ring_score, settings, identity)
