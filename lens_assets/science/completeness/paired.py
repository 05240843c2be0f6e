r"""Two surfaces on the same injections: which finds more, by how much, and could it be chance.

An injection that both found or both missed says nothing about a difference; of the others, b were found by the first
alone and c by the second alone. McNemar's exact test (McNemar 1947, doi:10.1007/BF02295996) is a binomial test of b
among b + c. It takes injections as independent; injections into one host are not. So beside it stands the exact
sign-flip test over hosts: under no difference, the net count d_h = b_h - c_h of each host is as likely as -d_h. Where
no host has more than one discordant injection the two are the same number.

Effect: C_first - C_second with the adjusted Wald interval of Bonett & Price (2012, doi:10.3102/1076998611411915) on
effective counts: n, b and c are divided by the variance of the difference with hosts as clusters over that without (at
least 1). Without any discordant injection the effective n is the number of hosts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, norm

from lens_assets.science.intervals import Interval

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NAME = "Bonett-Price adjusted Wald on effective counts (hosts as clusters)"


@dataclass(frozen=True)
class Paired:
    """Per group: injections and hosts, how many only the first and only the second found, how many both; the
    difference of the completenesses (first minus second), its effective n and intervals; both probabilities."""

    n: I64
    n_hosts: I64
    only_first: I64
    only_second: I64
    both: I64
    difference: F64
    n_eff: F64
    intervals: dict[float, Interval]
    p_mcnemar: F64
    p_host: F64


def mcnemar(b: npt.ArrayLike, c: npt.ArrayLike) -> F64:
    """Two-sided exact probability of b among b + c at 1/2; 1 where b + c = 0."""
    b, c = np.asarray(b, np.int64), np.asarray(c, np.int64)
    return np.asarray(np.minimum(1.0, 2 * binom.cdf(np.minimum(b, c), b + c, 0.5)))


def sign_flip(net: npt.ArrayLike) -> float:
    """Two-sided exact probability that |sum of s_h d_h| is at least |sum d_h| for random signs s_h.

    ``net`` are the integers d_h. The distribution is a convolution of binomials, one for each |d| that occurs.
    """
    d = np.abs(np.asarray(net, np.int64))
    total, value = int(d.sum()), abs(int(np.sum(net)))
    if total == 0:
        return 1.0
    pmf = np.ones(1)  # over total + sum, in steps of 2: the sum has the parity of the total
    for size, count in zip(*np.unique(d[d > 0], return_counts=True), strict=True):
        one = np.zeros(int(size * count) + 1)
        one[:: int(size)] = binom.pmf(np.arange(count + 1), count, 0.5)
        pmf = np.convolve(pmf, one)
    sums = 2 * np.arange(total + 1) - total
    return float(min(1.0, pmf[np.abs(sums) >= value].sum()))


def compare(
    group: npt.ArrayLike, host: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, n_groups: int,
    levels: tuple[float, ...] = (0.68, 0.95),
) -> Paired:  # fmt: skip
    """Compare two detections of the same injections in each group.

    Parameters
    ----------
    group : int in [0, ``n_groups``), one entry an injection; ``host`` any integers; ``first``, ``second`` : found or not.

    Groups without injections hold ``nan``.
    """
    g, h = np.asarray(group, np.int64), np.asarray(host, np.int64)
    x, y = np.asarray(first, bool), np.asarray(second, bool)
    n = np.bincount(g, minlength=n_groups).astype(np.int64)
    b, c, both = (np.bincount(g, m, n_groups).astype(np.int64) for m in (x & ~y, ~x & y, x & y))
    span = int(h.max()) + 1 if h.size else 1
    pair, inverse = np.unique(g * span + h, return_inverse=True)
    of = pair // span
    n_h = np.bincount(inverse, minlength=pair.size)
    net = np.bincount(inverse, x.astype(float) - y, pair.size)
    n_hosts = np.bincount(of, minlength=n_groups).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = (b - c) / n
        apart = b + c - n * difference**2
        together = np.bincount(of, (net - n_h * difference[of]) ** 2, n_groups)
        cost = np.where(b + c > 0, np.maximum(1.0, together / np.where(apart > 0, apart, np.inf)), n / n_hosts)
        # every injection discordant the same way has no variance to compare: hosts are all there is
        cost = np.where((b + c > 0) & (apart <= 1e-9), n / n_hosts, cost)
        n_eff = n / cost
        p, q = (b / cost + 1) / (n_eff + 2), (c / cost + 1) / (n_eff + 2)
        sd = np.sqrt((p + q - (p - q) ** 2) / (n_eff + 2))
    intervals = {}
    for level in levels:
        z = norm.ppf(0.5 + level / 2)
        lo, hi = np.clip(p - q - z * sd, -1, 1), np.clip(p - q + z * sd, -1, 1)
        intervals[level] = Interval(np.minimum(lo, difference), np.maximum(hi, difference), level, NAME)
    p_host = np.ones(n_groups)
    bounds = np.searchsorted(of, np.arange(n_groups + 1))
    for i in np.flatnonzero(b + c):
        p_host[i] = sign_flip(net[bounds[i] : bounds[i + 1]])
    return Paired(n, n_hosts, b, c, both, difference, n_eff, intervals, mcnemar(b, c), p_host)
