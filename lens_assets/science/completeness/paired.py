r"""Two surfaces on the same injections: which finds more, by how much, and could it be chance.

An injection that both found or both missed says nothing about a difference; of the others, b were found by the first alone and
c by the second alone. McNemar's exact test takes injections as independent; those into one host, or one brick, are not. So
beside it stand the exact clustered tests over hosts and over bricks (``science.clusters``), and a difference needs all three.
Where no host and no brick has more than one discordant injection the three are the same number.

Effect: C_first - C_second with the adjusted Wald interval of Bonett & Price (2012, doi:10.3102/1076998611411915) on
effective counts: n, b and c are divided by the variance of the difference with clusters over that without (at least 1). Once with
hosts as clusters (without any discordant injection the effective n is the number of hosts), once with bricks, their variance
times K / (K - 1) and Student's t for K bricks; the interval is the hull. Injections on one brick alone say nothing of others: the
interval is then of that brick, and the test over bricks gives 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from lens_assets.science.clusters import few, mcnemar, sign_flip
from lens_assets.science.intervals import Interval

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NAME = "Bonett-Price adjusted Wald on effective counts (hosts, and bricks, as clusters: the hull)"


@dataclass(frozen=True)
class Paired:
    """Per group: injections, hosts and bricks, how many only the first and only the second found, how many both; the
    difference of the completenesses (first minus second), its effective n (the smaller) and intervals; probabilities with
    injections, hosts and bricks as units."""

    n: I64
    n_hosts: I64
    n_bricks: I64
    only_first: I64
    only_second: I64
    both: I64
    difference: F64
    n_eff: F64
    intervals: dict[float, Interval]
    p_mcnemar: F64
    p_host: F64
    p_brick: F64


def compare(
    group: npt.ArrayLike, host: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, n_groups: int,
    levels: tuple[float, ...] = (0.68, 0.95), *, brick: npt.ArrayLike | None = None,
) -> Paired:  # fmt: skip
    """Compare two detections of the same injections in each group.

    Parameters
    ----------
    group : int in [0, ``n_groups``), one entry an injection; ``host``, ``brick`` any integers (default: every host has a brick
        of its own); ``first``, ``second`` : found or not.

    Groups without injections hold ``nan``.
    """
    g = np.asarray(group, np.int64)
    x, y = np.asarray(first, bool), np.asarray(second, bool)
    n = np.bincount(g, minlength=n_groups).astype(np.int64)
    b, c, both = (np.bincount(g, m, n_groups).astype(np.int64) for m in (x & ~y, ~x & y, x & y))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = (b - c) / n
    own = [_over(g, np.asarray(u, np.int64), x, y, b, c, n) for u in ((host,) if brick is None else (host, brick))]
    hosts, bricks = own[0], own[-1]
    apart = bricks.number != hosts.number  # where each host has its own brick the two are one
    few_bricks = np.where(apart & (bricks.number > 1), bricks.number / np.maximum(bricks.number - 1, 1), np.nan)
    intervals = {}
    for level in levels:
        z = norm.ppf(0.5 + level / 2)
        lo, hi = _wald(n, b, c, hosts.cost, np.full(n_groups, z))
        with np.errstate(invalid="ignore"):
            low, high = _wald(n, b, c, bricks.cost * few_bricks, z * few(bricks.number, level))
        intervals[level] = Interval(
            np.fmin(np.fmin(lo, low), difference), np.fmax(np.fmax(hi, high), difference), level, NAME
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        n_eff = np.fmin(n / hosts.cost, n / (bricks.cost * few_bricks))
    return Paired(
        n, hosts.number, bricks.number, b, c, both, difference, n_eff, intervals, mcnemar(b, c), hosts.p, bricks.p
    )


@dataclass(frozen=True)
class _Over:
    """Per group: clusters, the variance of the difference with them over that without, and the exact probability."""

    number: I64
    cost: F64
    p: F64


def _over(g: I64, cluster: I64, x: npt.NDArray[np.bool_], y: npt.NDArray[np.bool_], b: I64, c: I64, n: I64) -> _Over:
    span = int(cluster.max()) + 1 if cluster.size else 1
    pair, inverse = np.unique(g * span + cluster, return_inverse=True)
    of = pair // span
    size = np.bincount(inverse, minlength=pair.size)
    net = np.bincount(inverse, x.astype(float) - y, pair.size)
    number = np.bincount(of, minlength=n.size).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = (b - c) / n
        apart = b + c - n * difference**2
        together = np.bincount(of, (net - size * difference[of]) ** 2, n.size)
        cost = np.where(b + c > 0, np.maximum(1.0, together / np.where(apart > 0, apart, np.inf)), n / number)
        # every injection discordant the same way has no variance to compare: clusters are all there is
        cost = np.where((b + c > 0) & (apart <= 1e-9), n / number, cost)
    p = np.ones(n.size)
    bounds = np.searchsorted(of, np.arange(n.size + 1))
    for i in np.flatnonzero(b + c):
        p[i] = sign_flip(np.rint(net[bounds[i] : bounds[i + 1]]).astype(np.int64))
    return _Over(number, cost, p)


def _wald(n: I64, b: I64, c: I64, cost: F64, z: F64) -> tuple[F64, F64]:
    """Bonett & Price's bounds on counts divided by ``cost``; ``nan`` where that is."""
    with np.errstate(invalid="ignore", divide="ignore"):
        n_eff = n / cost
        p, q = (b / cost + 1) / (n_eff + 2), (c / cost + 1) / (n_eff + 2)
        sd = np.sqrt((p + q - (p - q) ** 2) / (n_eff + 2))
        return np.clip(p - q - z * sd, -1, 1), np.clip(p - q + z * sd, -1, 1)
