"""Can lenses be told from non-lenses without looking at arcs? Classifiers on one part of the network's input each.

The input is frozen: stamps normalised and clipped exactly as the network sees them. Features are rotation invariant and
few, from rings one pixel wide (ring k holds ``k <= r < k + 1`` px): the mean of each band, and, where azimuthal structure
may be used, the scatter about it and the product of neighbouring bands' residuals. Which regions make which gate is
``shortcuts``'s business.

The classifier is ridge regression on kernel features (Nystroem: a Gaussian kernel to landmark rows, Williams & Seeger 2001,
beside the features themselves), so that a shortcut may be curved; its ridge is chosen inside each
training fold by leave-one-out error (exact from the hat matrix). Everything is fitted inside folds; folds keep a group (a
lens system, a galaxy) together. Because the fit is linear in the labels, the permutation null costs one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from lens_assets.science.detectors import crossvalidated, measures
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, seed_of

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
CORE, WIDE_CORE, ANNULUS, HALO, RADIAL = (0, 3), (0, 4), (4, 16), (16, 28), (0, 28)
"""Radii in pixels. The arc annulus is that of ``cutouts.features`` and ``realism.azimuth``; the core ends one pixel before
it, because seeing (FWHM some 5 px) spills arcs into the ring between."""
LANDMARKS = 200
RIDGES = np.geomspace(1e-4, 1e1, 11)
"""Ridges tried, in units of the mean eigenvalue of the feature covariance times the rows."""


@lru_cache(maxsize=8)
def _rings(height: int, width: int, reach: int) -> tuple[npt.NDArray[np.intp], I64, I64]:
    """Flat indices of the pixels at r < ``reach`` ordered by ring, the ring of each, and where each ring starts."""
    y, x = np.ogrid[:height, :width]
    ring = np.hypot(x - width // 2, y - height // 2).astype(np.int64).ravel()
    order = np.argsort(ring, kind="stable")
    order = order[ring[order] < reach]
    return order, ring[order], np.searchsorted(ring[order], np.arange(reach))


def region_features(normalised: F32, region: tuple[int, int], structure: bool) -> F64:
    """Features (n, f) of normalised stamps (n, bands, h, w) in ``region`` (first and last ring, pixels)."""
    n, bands, height, width = normalised.shape
    lo, hi = region
    order, ring, starts = _rings(height, width, hi)
    keep = ring >= lo
    order, ring = order[keep], ring[keep] - lo
    starts = starts[lo:] - starts[lo]
    count = np.diff(np.append(starts, len(order)))
    flux = normalised.reshape(n, bands, -1)[:, :, order].astype(np.float64)
    mean = np.add.reduceat(flux, starts, axis=2) / count
    out = [mean.reshape(n, -1)]
    if structure:
        left = flux - mean[:, :, ring]
        out.append(np.sqrt(np.add.reduceat(left**2, starts, axis=2) / count).reshape(n, -1))
        for b in range(bands - 1):
            out.append(np.add.reduceat(left[:, b] * left[:, b + 1], starts, axis=1) / count)
    return np.concatenate(out, axis=1)


@dataclass(frozen=True)
class Probed(crossvalidated.CrossValidated):
    """The AUC of lenses against non-lenses; ``detail`` says why where it is nan."""

    n: int
    n_pos: int
    groups: int
    folds: int
    detail: str = ""


def nothing(n: int, n_pos: int, why: str) -> Probed:
    """A probe that could not be made."""
    nan = float("nan")
    return Probed(nan, nan, nan, nan, nan, nan, nan, nan, n, n_pos, 0, 0, why)


@threadpool_limits.wrap(limits=1)  # threads change last bits
def probe(
    x: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ids: npt.NDArray[np.str_],
    groups: npt.NDArray[np.str_],
    identity: tuple[Any, ...],
    folds: int = 5,
    permutations: int = 200,
    draws: int = 500,
    fewest: int = 20,
) -> Probed:
    """Cross-validate the classifier on features ``x`` (n, f); ``label`` true for lenses.

    ``ids`` fix the order, so that of the rows does not matter; ``groups`` are kept in one fold and resampled whole. The
    AUC is the mean over folds, weighted by pairs (pooling scores of different fits would bias it). The null permutes labels
    between groups. With fewer than ``fewest`` groups of a class there is no result, and the reason.
    """
    order = np.argsort(ids, kind="stable")
    f, y = np.asarray(x, float)[order], np.asarray(label).astype(bool)[order]
    if not np.isfinite(f).all():
        raise BadInput("a feature is not finite", column="image")
    _, group = np.unique(np.asarray(groups)[order], return_inverse=True)
    n, n_pos = len(y), int(y.sum())
    few = min(len(np.unique(group[y])), len(np.unique(group[~y])))
    if few < max(fewest, folds):
        return nothing(n, n_pos, f"{few} groups of one class, {max(fewest, folds)} are needed")
    first = np.zeros(group.max() + 1, bool)
    first[group] = y  # a group of both classes counts as a lens
    rng = generator("probe-null", *identity)
    shuffled = np.stack([rng.permutation(first)[group] for _ in range(permutations)], axis=1) if permutations else None
    targets = y[:, None] if shuffled is None else np.concatenate([y[:, None], shuffled], axis=1)
    scores, fold = np.full((n, targets.shape[1]), np.nan), np.zeros(n, np.int64)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed_of("probe", *identity) % 2**32)
    for k, (train, test) in enumerate(split.split(f, y, group)):
        z = _kernel_features(f, train, (*identity, k))
        scores[test] = _ridge(z[train], targets[train].astype(float), z[test])
        fold[test] = k
    value = crossvalidated.fold_auc(scores[:, 0], y, fold)
    null = [crossvalidated.fold_auc(scores[:, j], targets[:, j], fold) for j in range(1, targets.shape[1])]
    mean, high, p = crossvalidated.against_null(value, null)
    drawn = _bootstrap(scores[:, 0], y, fold, group, draws, generator("probe-bootstrap", *identity))
    lo68, hi68, lo95, hi95 = (float("nan") if b is None else b for b in measures.percentiles(drawn))
    return Probed(
        auc=value, lo68=lo68, hi68=hi68, lo95=lo95, hi95=hi95, null_mean=mean, null_hi95=high, p_value=p,
        n=n, n_pos=n_pos, groups=int(group.max()) + 1, folds=folds,
    )  # fmt: skip


def _bootstrap(score: F64, label: Mask, fold: I64, group: I64, draws: int, rng: np.random.Generator) -> F64:
    """``fold_auc`` of resampled groups, each class of groups by itself: weights on sorted scores, all draws at once."""
    weights = measures.group_bootstrap(label, group, draws, rng)
    top, pairs = np.zeros(draws), np.zeros(draws)
    for k in range(int(fold.max()) + 1):
        here = np.flatnonzero(fold == k)
        if not 0 < label[here].sum() < len(here):
            continue
        r = measures.ranked(score[here], label[here])
        by_score = here[np.argsort(-score[here], kind="stable")]
        start = 0
        for block in weights:
            w = block[:, by_score]
            size = (w * r.label).sum(1) * (w * ~r.label).sum(1)
            auc = np.nan_to_num(measures.auc_and_ap(r, w)[0])
            top[start : start + len(w)] += auc * size
            pairs[start : start + len(w)] += size
            start += len(w)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(top / pairs, float)


def _kernel_features(x: F64, train: I64, identity: tuple[Any, ...]) -> F64:
    """Standardised features beside their Gaussian kernel to landmark rows, all from the training rows alone."""
    mean, spread = x[train].mean(0), x[train].std(0)
    z = (x - mean) / np.where(spread > 0, spread, 1)
    z = np.clip(z, -6, 6)  # one wild pixel must not be all of a row's distance
    rng = generator("landmarks", *identity)
    chosen = train[rng.choice(len(train), min(LANDMARKS, len(train)), replace=False)]
    apart = cdist(z, z[chosen], "sqeuclidean")
    middle = float(np.median(apart[train])) or 1.0
    kernel = np.exp(-apart / middle)
    values, vectors = eigh(kernel[chosen])
    good = values > 1e-8 * values[-1]
    mapped = kernel @ (vectors[:, good] / np.sqrt(values[good]))
    mapped -= mapped[train].mean(0)
    scale = np.sqrt((mapped[train] ** 2).mean() * mapped.shape[1] / z.shape[1]) or 1.0
    return np.concatenate([z - z[train].mean(0), mapped / scale], axis=1)


def _ridge(z: F64, target: F64, new: F64) -> F64:
    """Scores of ``new`` for every column of ``target``: ridge regression, its strength by leave-one-out error each."""
    centre = target.mean(0)
    y = target - centre
    values, vectors = eigh(z.T @ z)
    values = np.maximum(values, 0)
    u = z @ vectors  # columns orthogonal, squared norms ``values``
    projected = u.T @ y
    best, chosen = np.full(y.shape[1], np.inf), np.zeros((z.shape[1], y.shape[1]))
    for ridge in RIDGES * max(values.mean(), 1e-12):
        shrunk = projected / (values + ridge)[:, None]
        leverage = (u**2 / (values + ridge)).sum(1) + 1 / len(z)
        error = (((y - u @ shrunk) / np.maximum(1 - leverage, 1e-6)[:, None]) ** 2).mean(0)
        better = error < best
        best[better], chosen[:, better] = error[better], shrunk[:, better]
    return np.asarray((new @ vectors) @ chosen, float)
