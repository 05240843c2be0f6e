r"""Intervals that allow for hosts being reused, and for bricks that differ.

Injections into one host share its light, masks and neighbours, so 200 injections into 20 hosts are not 200 independent
trials, and a binomial interval on them is too narrow. Two independent treatments:

``beta_binomial``   the one that is published. Host i gives k_i of n_i with k_i ~ BetaBinomial(n_i; mu, rho), mu the
                    completeness over the population of hosts and rho the correlation inside a host. The marginal
                    posterior of mu under the Jeffreys prior of a binomial (uniform in arcsin sqrt mu) and a uniform
                    prior in rho, on a grid, exactly. With every host used once it *is* the Jeffreys interval; with
                    one host it widens to what one host can tell; k = 0 needs no exception.
``host_bootstrap``  percentile bootstrap over hosts of sum k / sum n: the cross-check. It is degenerate at k = 0 and
                    at k = n, and too narrow for few hosts, which is why it is not the published one.

Simulated with 8 to 200 hosts used 1 to 25 times, mu of 0.03, 0.3 and 0.85 and correlations of 0 to 0.7, the first
covers 0.63 to 0.80 at 68 % in nine of ten cases and 0.89 to 0.995 at 95 %; the extremes at 68 %, 0.49 and 0.90, are
few hosts of correlation 0.7. A binomial interval covers down to 0.08 and 0.16. A Jeffreys interval about k / n on the
effective n was tried too: with hosts of unequal use it covers down to 0.53 and 0.84. The price of the posterior: k /
n need not lie in its middle (0.4 half-widths off at one sigma), and the interval is extended to hold it.

Hosts of one brick share more than a cell's PSF and depth: the other bands' seeing and depth, the PSF's wings, the sky. The
closure experiment found bricks of one cell between 0.07 and 0.19 (chi2 19.5 for 3, hosts as clusters), and intervals over hosts
alone that held the truth in 0.55 of the cells at 68 %. So the same posterior is taken over bricks too, and the published
interval is the hull of both (``clustered``). Where every host has a brick of its own, as in a survey, the two are one.

The likelihood in the (mu, rho) form, without gamma functions (Skellam 1948; Griffiths 1973, doi:10.2307/2529131):

    ln L = sum_j A_j ln(mu(1-rho) + j rho) + B_j ln((1-mu)(1-rho) + j rho) - D_j ln((1-rho) + j rho),

where A_j, B_j, D_j count the hosts with k_i > j, n_i - k_i > j and n_i > j. The binomial constants cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lens_assets.science.intervals import Interval, bootstrap

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NAME = "beta-binomial over hosts, and over bricks: the hull (Jeffreys prior in the mean, uniform in the correlation)"
_N_MU, _N_RHO, _CHUNK, _BLOCK = 1024, 24, 256, 32


@dataclass(frozen=True)
class HostAware:
    """Per group: hosts, injections, posterior mean and standard deviation of mu, effective n, and intervals by level.

    ``n_eff`` is the number of independent trials whose Jeffreys posterior has the same mean and variance:
    m(1-m)/v - 2, never more than n. Groups without injections hold ``nan``.
    """

    n_hosts: I64
    n: I64
    k: I64
    mean: F64
    sd: F64
    n_eff: F64
    intervals: dict[float, Interval]


def beta_binomial(
    group: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    n_groups: int,
    levels: tuple[float, ...] = (0.68, 0.95),
) -> HostAware:
    """Posterior of the mean detection rate of each group, from counts per (group, host).

    Parameters
    ----------
    group : int, one entry per (group, host) pair, in [0, ``n_groups``).
    n, k : injections into that host in that group, and how many were found; 0 <= k <= n, n >= 1.
    """
    g, n_, k_ = (np.asarray(a, np.int64).ravel() for a in (group, n, k))
    if not (g.shape == n_.shape == k_.shape):
        raise ValueError("group, n and k must have one entry per host")
    if np.any((k_ < 0) | (k_ > n_) | (n_ < 1)):
        raise ValueError("needs 0 <= k <= n and n >= 1 for each host")
    if g.size and (g.min() < 0 or g.max() >= n_groups):
        raise ValueError("group outside [0, n_groups)")
    n_hosts = np.bincount(g, minlength=n_groups).astype(np.int64)
    n_tot = np.bincount(g, n_, n_groups).astype(np.int64)
    k_tot = np.bincount(g, k_, n_groups).astype(np.int64)
    mean, sd = np.full(n_groups, np.nan), np.full(n_groups, np.nan)
    tails = np.array([t for level in levels for t in ((1 - level) / 2, (1 + level) / 2)])
    quantiles = np.full((n_groups, tails.size), np.nan)
    filled = np.flatnonzero(n_tot)
    if filled.size:
        row = np.full(n_groups, -1)
        row[filled] = np.arange(filled.size)
        width = int(n_.max())
        counts = [_exceeding(row[g], v, filled.size, width) for v in (k_, n_ - k_, n_)]
        theta = (np.arange(_N_MU) + 0.5) / _N_MU * np.pi / 2
        m, s, q = _posterior(counts, theta, tails)
        # a narrow posterior is integrated again on its own stretch of the grid
        angle = np.arcsin(np.sqrt(np.clip(m, 0, 1)))
        spread = s / np.maximum(np.sin(2 * angle), 1e-6)
        for i in np.flatnonzero(spread < 6 * (theta[1] - theta[0])).tolist():
            lo, hi = max(0.0, angle[i] - 12 * spread[i]), min(np.pi / 2, angle[i] + 12 * spread[i])
            own = lo + (np.arange(_N_MU // 2) + 0.5) / (_N_MU // 2) * (hi - lo)
            m[i : i + 1], s[i : i + 1], q[i : i + 1] = _posterior([c[i : i + 1] for c in counts], own, tails)
        mean[filled], sd[filled], quantiles[filled] = m, s, q
    with np.errstate(invalid="ignore", divide="ignore"):
        raw = k_tot / n_tot  # hosts of very unequal n can draw the mean over hosts from k / n: the interval holds both
        n_eff = np.minimum(np.maximum(mean * (1 - mean) / sd**2 - 2, 0.0), n_tot)
    n_eff = np.where(n_tot > 0, np.where(n_hosts == n_tot, n_tot, n_eff), np.nan)
    out = {}
    for i, level in enumerate(levels):
        lo = np.where((k_tot == 0) & (n_tot > 0), 0.0, np.minimum(quantiles[:, 2 * i], raw))
        hi = np.where((k_tot == n_tot) & (n_tot > 0), 1.0, np.maximum(quantiles[:, 2 * i + 1], raw))
        out[level] = Interval(lo, hi, level, NAME)
    return HostAware(n_hosts, n_tot, k_tot, mean, sd, n_eff, out)


def clustered(
    group: npt.ArrayLike,
    site: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    n_groups: int,
    levels: tuple[float, ...] = (0.68, 0.95),
) -> HostAware:
    """:func:`beta_binomial` over hosts and over the bricks they lie in: hull of the intervals, smaller effective n.

    ``site`` : number of the brick of each (group, host) pair; everything else as there.
    """
    g, s_, n_, k_ = (np.asarray(a, np.int64).ravel() for a in (group, site, n, k))
    hosts = beta_binomial(g, n_, k_, n_groups, levels)
    if not g.size:
        return hosts
    pair, at = np.unique(g * (int(s_.max()) + 1) + s_, return_inverse=True)
    if pair.size == g.size:
        return hosts
    n_b, k_b = (np.bincount(at, a, pair.size).astype(np.int64) for a in (n_, k_))
    bricks = beta_binomial(pair // (int(s_.max()) + 1), n_b, k_b, n_groups, levels)
    intervals = {
        level: Interval(
            np.fmin(own.lo, bricks.intervals[level].lo), np.fmax(own.hi, bricks.intervals[level].hi), level, NAME
        )
        for level, own in hosts.intervals.items()
    }
    return replace(
        hosts, sd=np.fmax(hosts.sd, bricks.sd), n_eff=np.fmin(hosts.n_eff, bricks.n_eff), intervals=intervals
    )


def _exceeding(row: I64, value: I64, n_rows: int, width: int) -> F64:
    """(n_rows, width): how many hosts of each row have ``value`` > j, for j = 0 .. width - 1."""
    histogram = np.bincount(row * (width + 1) + value, minlength=n_rows * (width + 1)).reshape(n_rows, width + 1)
    return np.cumsum(histogram[:, :0:-1], axis=1)[:, ::-1].astype(float)


def _posterior(counts: list[F64], theta: F64, tails: F64) -> tuple[F64, F64, F64]:
    """Mean, sd and quantiles of mu = sin^2(theta) for each row of the three count matrices."""
    mu = np.sin(theta) ** 2
    u = (np.arange(_N_RHO) + 0.5) / _N_RHO
    rho = u**2  # d rho = 2 u du: a uniform prior in rho, finer where rho is small
    n_rows, width = counts[0].shape
    size = theta.size * _N_RHO
    mean, sd, quantiles = np.empty(n_rows), np.empty(n_rows), np.empty((n_rows, tails.size))
    step = theta[1] - theta[0]
    edges = np.append(theta - step / 2, theta[-1] + step / 2)
    for start in range(0, n_rows, _CHUNK):
        part = slice(start, min(start + _CHUNK, n_rows))
        log = np.zeros((part.stop - part.start, size))
        log += np.tile(np.log(u), theta.size)
        for first in range(0, width, _BLOCK):
            j = np.arange(first, min(first + _BLOCK, width))[:, None, None]
            cols = slice(first, first + _BLOCK)
            with np.errstate(divide="ignore"):
                found = np.log(mu[:, None] * (1 - rho) + j * rho).reshape(j.size, size)
                missed = np.log((1 - mu[:, None]) * (1 - rho) + j * rho).reshape(j.size, size)
                either = np.log(np.ones((theta.size, 1)) * (1 - rho) + j * rho).reshape(j.size, size)
            log += counts[0][part, cols] @ found + counts[1][part, cols] @ missed - counts[2][part, cols] @ either
        log -= log.max(axis=1, keepdims=True)
        weight = np.exp(log).reshape(-1, theta.size, _N_RHO).sum(axis=2)
        weight /= weight.sum(axis=1, keepdims=True)
        mean[part] = weight @ mu
        sd[part] = np.sqrt(np.maximum(weight @ mu**2 - mean[part] ** 2, 1e-300))
        cumulative = np.hstack([np.zeros((weight.shape[0], 1)), np.cumsum(weight, axis=1)])
        for i, row in enumerate(cumulative):
            quantiles[start + i] = np.sin(np.interp(tails, row, edges)) ** 2
    return mean, sd, quantiles


def host_bootstrap(
    host: npt.ArrayLike,
    found: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = 1000,
    levels: tuple[float, ...] = (0.68, 0.95),
) -> dict[float, Interval]:
    """Percentile bootstrap of the found fraction over whole hosts, named ``group-bootstrap``: the cross-check."""
    found = np.asarray(found, float)
    return bootstrap(
        lambda rows: float(found[rows].mean()), found.size, rng, groups=np.asarray(host), draws=draws, levels=levels
    )
