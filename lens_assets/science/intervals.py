"""Intervals for counted fractions. Each returns its own name, so a table cannot mislabel what it prints.

(A published study printed Jeffreys intervals under the name of Wilson.) Host-aware intervals live in ``completeness``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm

F64 = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """``lo`` and ``hi`` (arrays or numbers) at ``level``, and the ``name`` of the method with its prior."""

    lo: F64
    hi: F64
    level: float
    name: str


def jeffreys(k: npt.ArrayLike, n: npt.ArrayLike, level: float = 0.68) -> Interval:
    """Equal-tailed Beta(k + 1/2, n - k + 1/2) posterior; the bound is 0 at k = 0 and 1 at k = n.

    Brown, Cai & DasGupta 2001 (doi:10.1214/ss/1009213286), section 4.1. ``nan`` where n = 0. Non-integer (effective)
    counts are allowed.
    """
    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    if np.any((k < 0) | (k > n)):
        raise ValueError("jeffreys: needs 0 <= k <= n")
    tail = (1 - level) / 2
    lo = np.where(k == 0, 0.0, beta.ppf(tail, k + 0.5, n - k + 0.5))
    hi = np.where(k == n, 1.0, beta.ppf(1 - tail, k + 0.5, n - k + 0.5))
    empty = n == 0
    return Interval(np.where(empty, np.nan, lo), np.where(empty, np.nan, hi), level, "jeffreys")


def wilson(k: npt.ArrayLike, n: npt.ArrayLike, level: float = 0.68) -> Interval:
    """Wilson score interval (Wilson 1927); ``nan`` where n = 0."""
    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    if np.any((k < 0) | (k > n)):
        raise ValueError("wilson: needs 0 <= k <= n")
    z = float(norm.ppf(0.5 + level / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Interval(np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1), level, "wilson")


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    n: int,
    rng: np.random.Generator,
    *,
    groups: npt.ArrayLike | None = None,
    draws: int = 500,
    levels: tuple[float, ...] = (0.68, 0.95),
) -> dict[float, Interval]:
    """Percentile bootstrap of ``statistic(row_indices)`` over ``n`` rows, resampling whole ``groups`` where given.

    Draws on which the statistic is not finite (for instance a one-class resample) are left out; with fewer than half of
    the draws left the interval is ``nan``.
    """
    if groups is None:
        members = [np.array([i]) for i in range(n)]
        name = "bootstrap"
    else:
        _, inverse = np.unique(np.asarray(groups), return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
        name = "group-bootstrap"
    values = []
    for _ in range(draws):
        picked = rng.integers(0, len(members), len(members))
        if groups is None:
            values.append(statistic(picked))
        else:
            values.append(statistic(np.concatenate([members[i] for i in picked])))
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    out = {}
    for level in levels:
        if finite.size < draws / 2:
            lo = hi = np.float64(np.nan)
        else:
            lo, hi = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
        out[level] = Interval(np.asarray(lo), np.asarray(hi), level, name)
    return out
