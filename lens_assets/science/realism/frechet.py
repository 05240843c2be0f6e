"""A regularised Frechet distance between feature clouds, with its null.

``|mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2)`` (Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X). With more
features than rows the covariances are singular and the number means nothing, so both clouds are standardised and
reduced by a PCA fitted to them together, to at most a fifth of the smaller sample, and the covariances are shrunk
(Ledoit & Wolf 2004). The distance of two finite samples of one population is not zero: it is therefore also computed
between random halves of the real sample, and between a half of it and as many injections, which can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator

FEWEST = 10
"""Rows a side: with fewer the distance is refused."""

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frechet:
    """``value`` is corrected for the bootstrap's bias, ``plug_in`` is not; ``matched_*`` and ``null_*`` are plug-in
    values at the common size ``n_common``."""

    value: float
    plug_in: float
    lo68: float
    hi68: float
    lo95: float
    hi95: float
    components: int
    matched_median: float
    null_median: float
    null_hi95: float
    n_common: int


def gaussian_distance(mu1: F64, cov1: F64, mu2: F64, cov2: F64) -> float:
    """The Frechet distance (squared 2-Wasserstein) of two normal distributions."""
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov2 @ root), 0, None)).sum()
    return float(max(((mu1 - mu2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * cross, 0.0))


def sample_distance(a: F64, b: F64) -> float:
    """The distance of two samples (n, k), (m, k) by their means and Ledoit-Wolf covariances."""
    return gaussian_distance(a.mean(axis=0), _shrunk(a), b.mean(axis=0), _shrunk(b))


def _shrunk(x: F64) -> F64:
    return np.atleast_2d(np.asarray(LedoitWolf().fit(x).covariance_, dtype=np.float64))


def reduce_together(a: F64, b: F64, components: int) -> tuple[F64, F64]:
    """Both samples standardised and projected by one PCA fitted to the two together."""
    pipe = make_pipeline(StandardScaler(), PCA(n_components=components, svd_solver="full"))
    z = pipe.fit_transform(np.concatenate([a, b]))
    return np.asarray(z[: len(a)], float), np.asarray(z[len(a) :], float)


@threadpool_limits.wrap(limits=1)
def frechet(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    ids_a: npt.NDArray[np.str_],
    ids_b: npt.NDArray[np.str_],
    groups_a: npt.NDArray[np.str_],
    groups_b: npt.NDArray[np.str_],
    identity: tuple[Any, ...],
    draws: int = 500,
    max_components: int = 64,
) -> Frechet:
    """Distance of ``a`` (the real sample) and ``b``; dimensions as many as a fifth of the smaller *half* sample allows.

    Raises :class:`BadInput` with fewer than 10 rows in either sample. The bootstrap interval is the basic one, since
    resampling only ever adds distance; it and the value, less the same bias, are cut at 0.
    """
    x, y = (
        np.asarray(a, float)[np.argsort(ids_a, kind="stable")],
        np.asarray(b, float)[np.argsort(ids_b, kind="stable")],
    )
    ga = np.asarray(groups_a)[np.argsort(ids_a, kind="stable")]
    gb = np.asarray(groups_b)[np.argsort(ids_b, kind="stable")]
    if min(len(x), len(y)) < FEWEST:
        raise BadInput(f"a Frechet distance of {len(x)} and {len(y)} rows means nothing")
    common = min(len(x) // 2, len(y))
    components = max(1, min(x.shape[1], max_components, common // 5))
    x, y = reduce_together(x, y, components)
    value = sample_distance(x, y)
    rng = generator("frechet", *identity)
    boot, null, matched = [], [], []
    ma = [np.flatnonzero(ga == g) for g in np.unique(ga)]
    mb = [np.flatnonzero(gb == g) for g in np.unique(gb)]
    for _ in range(draws):
        i = np.concatenate([ma[j] for j in rng.integers(0, len(ma), len(ma))])
        j = np.concatenate([mb[k] for k in rng.integers(0, len(mb), len(mb))])
        boot.append(sample_distance(x[i], y[j]))
        shuffled = rng.permutation(len(x))
        first, second = shuffled[:common], shuffled[common : 2 * common]
        null.append(sample_distance(x[first], x[second]))
        matched.append(sample_distance(x[first], y[rng.permutation(len(y))[:common]]))
    q = np.quantile(boot, [0.16, 0.84, 0.025, 0.975])
    basic = np.maximum(2 * value - q, 0)
    return Frechet(
        value=max(2 * value - float(np.mean(boot)), 0.0),
        plug_in=value,
        lo68=float(basic[1]),
        hi68=float(basic[0]),
        lo95=float(basic[3]),
        hi95=float(basic[2]),
        components=components,
        matched_median=float(np.median(matched)),
        null_median=float(np.median(null)),
        null_hi95=float(np.quantile(null, 0.95)),
        n_common=common,
    )
