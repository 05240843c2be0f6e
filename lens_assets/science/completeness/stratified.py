r"""A weighted fraction over strata, with an interval that knows of hosts, and of bricks, that serve several strata.

Value sum_c w_c k_c / n_c. Interval: Jeffreys on the effective counts (C n*, n*) with n* = C(1-C) / V (Korn & Graubard 1998,
Survey Methodology 24, 193), where V = sum_c w_c^2 p_c (1-p_c) / n_eff,c, n_eff,c from the beta-binomial, and V is scaled by the
linearised variance with hosts as clusters over the same without, because one host serves several theta_E cells. The same is
done with bricks as clusters, and the smaller n* counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.completeness.hostaware import HostAware, beta_binomial
from lens_assets.science.completeness.model import LEVELS
from lens_assets.science.hashing import sites_of
from lens_assets.science.intervals import Interval, jeffreys

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
NAME = "jeffreys on effective counts (stratified, hosts or bricks as clusters)"
_CELL = ["i_theta", "i_psf", "i_depth"]


@dataclass(frozen=True)
class Stratified:
    """A weighted fraction per group: value, effective n and intervals by level, and the raw counts behind it."""

    c: F64
    n: I64
    k: I64
    n_hosts: I64
    n_eff: F64
    intervals: dict[float, Interval]


def stratified(
    u: I64, hosts: npt.NDArray[np.str_], n: I64, k: I64, weight: F64, group_of: I64, length: int
) -> Stratified:
    """Sum of w k/n over strata, per group of strata; interval and effective n as in the module's docstring.

    Parameters
    ----------
    u, hosts, n, k : one entry per (stratum, host): the stratum's number, the host's id, its injections and those found.
    weight, group_of : one entry per stratum: its weight (any scale; strata without entries are left out of the sum) and
        its group, in [0, ``length``).
    """
    size = weight.size
    host = np.unique(hosts, return_inverse=True)[1].astype(np.int64)
    own = beta_binomial(u, n, k, size, LEVELS)
    kinds = [(own, u, host, n, k), _by_brick(u, sites_of(hosts), n, k, size)]
    c, n_eff = np.full(length, np.nan), np.full(length, np.nan)
    n_hosts = np.zeros(length, np.int64)
    for g in range(length):
        live = (group_of == g) & (own.n > 0) & (weight > 0)
        if not live.any():
            continue
        w = np.where(live, weight, 0) / weight[live].sum()
        n_hosts[g] = np.unique(host[live[u]]).size
        c[g] = min(1.0, float(np.sum(w[live] * own.k[live] / own.n[live])))
        worth = []
        for kind, at, cluster, n_c, k_c in kinds:  # hosts as clusters, and bricks: whichever is worth less
            rows = np.flatnonzero(live[at])
            alone = _effective_n(w[live], own.n[live], own.k[live], kind.n_eff[live])
            worth.append(alone / _shared_hosts(w, own.n, own.k, at[rows], cluster[rows], n_c[rows], k_c[rows]))
        n_eff[g] = min(worth)
    used = (weight > 0) & (own.n > 0)
    n_all, k_all = (np.bincount(group_of[used], x[used], length).astype(np.int64) for x in (own.n, own.k))
    n_eff = np.where(n_all > 0, np.clip(n_eff, 0, n_all), np.nan)
    intervals = {}
    for level in LEVELS:
        raw = jeffreys(np.nan_to_num(c * n_eff), np.nan_to_num(n_eff), level)
        lo, hi = (np.where(n_all > 0, bound, np.nan) for bound in (raw.lo, raw.hi))
        intervals[level] = Interval(lo, hi, level, NAME)
    return Stratified(c, n_all, k_all, n_hosts, n_eff, intervals)


def _by_brick(u: I64, site: I64, n: I64, k: I64, size: int) -> tuple[HostAware, I64, I64, I64, I64]:
    """Counts per (stratum, brick) and their posterior: posterior, stratum, brick, n, k."""
    width = int(site.max(initial=0)) + 1
    pair, at = np.unique(u * width + site, return_inverse=True)
    n_b, k_b = (np.bincount(at, a, pair.size).astype(np.int64) for a in (n, k))
    return beta_binomial(pair // width, n_b, k_b, size, LEVELS), pair // width, pair % width, n_b, k_b


def fraction(
    members: pl.DataFrame, hit: pl.Expr, by: Literal["i_theta", "i_psf", "i_depth"], length: int
) -> Stratified:
    """Fraction of ``members`` that ``hit``, along one axis, each injection counting once and cells as strata."""
    counts = members.group_by([*_CELL, "host"]).agg(
        pl.len().cast(pl.Int64).alias("n"), hit.sum().cast(pl.Int64).alias("k")
    )
    counts = counts.sort([*_CELL, "host"])
    cells = (
        counts.group_by(_CELL).agg(pl.col("n").sum().cast(pl.Float64).alias("weight")).sort(_CELL).with_row_index("u")
    )
    rows = counts.join(cells, on=_CELL, how="left", maintain_order="left")
    return stratified(
        rows["u"].to_numpy().astype(np.int64), rows["host"].to_numpy().astype(str), rows["n"].to_numpy(), rows["k"].to_numpy(),
        cells["weight"].to_numpy(), cells[by].to_numpy().astype(np.int64), length,
    )  # fmt: skip


def _effective_n(w: F64, n: I64, k: I64, n_eff: F64) -> float:
    """C(1-C)/V of the stratified estimate; each p_c is drawn towards C by one trial, so that V > 0 where k = 0."""
    middle = float(np.clip(np.sum(w * k / n), 0.5 / n.sum(), 1 - 0.5 / n.sum()))
    p = (k + middle) / (n + 1)
    centre = float(np.sum(w * p))
    return float(centre * (1 - centre) / np.sum(w**2 * p * (1 - p) / np.maximum(n_eff, 0.5)))


def _shared_hosts(w: F64, n: I64, k: I64, u: I64, host: I64, n_h: I64, k_h: I64) -> float:
    """What sharing hosts between cells costs: the variance with hosts as clusters over that without, at least 1.

    Cells with one host each, and cells where all or none were found, have no variance to estimate it from. There a
    host is taken to say the same in all cells it serves, the worst case; it also weighs as one more host elsewhere.
    """
    share = w[u] * n_h / np.maximum(n[u], 1)
    worst = max(1.0, float(np.sum(np.bincount(host, share) ** 2) / np.sum(share**2)))
    z = w[u] / np.maximum(n[u], 1) * (k_h - k[u] / np.maximum(n[u], 1) * n_h)
    apart = float(np.sum(z**2))
    if apart <= 1e-12 * float(np.sum(share**2)):
        return worst
    telling = np.unique(host[np.bincount(u)[u] > 1]).size
    own = max(1.0, float(np.sum(np.bincount(host, z) ** 2)) / apart)
    return (telling * own + worst) / (telling + 1)
