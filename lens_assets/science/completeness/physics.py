"""Checks of the finished surface against physics: better data or a brighter arc must not lower the completeness.

At fixed everything else two kinds of step are tested, one-sided: from a shallower to a deeper cell of the same
theta_E and PSF (all pairs), and from a fainter to the next brighter bin of lensed magnitude inside one cell. The test
is Fisher's exact test on effective counts (host reuse allowed for, rounded). So that a fall too small for any single
cell is seen too, each adjacent step is also tested at one theta_E over all cells together (Mantel & Haenszel 1959);
cells at one theta_E have no host in common, cells at different theta_E do, so these are not joined. Holm's step-down
procedure holds the family-wise error over all steps of one check at one operating point. A surface without two
supported neighbours has no rows: untested.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import hypergeom, norm

from lens_assets.science.columns.completeness import PHYSICS
from lens_assets.science.completeness.hostaware import beta_binomial
from lens_assets.science.completeness.marginals import host_counts
from lens_assets.science.completeness.model import LEVELS, Surface
from lens_assets.science.completeness.thresholds import OperatingPoint

F64 = npt.NDArray[np.float64]
_KEYS = (
    "operating_point",
    "check_axis",
    "check_scope",
    "at_theta_e",
    "at_psf",
    "at_depth",
    "step_from",
    "step_to",
    "completeness_from",
    "completeness_to",
    "p_value",
)


def check(surface: Surface) -> pl.DataFrame:
    """All steps that were tested, with their probability before and after Holm, and whether they violate."""
    rows: list[tuple[object, ...]] = []
    for point in surface.points:
        rows += _depth(surface, point)
        rows += _brightness(surface, point)
    frame = pl.DataFrame(rows, schema={k: c.dtype for k in _KEYS for c in PHYSICS.columns if c.name == k}, orient="row")
    parts = [
        part.with_columns(pl.Series("p_holm", holm(part["p_value"].to_numpy()), dtype=pl.Float64))
        for part in frame.partition_by("operating_point", "check_axis", maintain_order=True)
    ]
    if not parts:
        parts = [frame.with_columns(pl.lit(None, pl.Float64).alias("p_holm"))]
    return PHYSICS.conform(
        pl.concat(parts).with_columns((pl.col("p_holm") < surface.settings.family_error).alias("violates"))
    )


def holm(p: F64) -> F64:
    """Holm-adjusted probabilities (Holm 1979): step-down, monotone, at most 1."""
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1, np.maximum.accumulate((p.size - np.arange(p.size)) * p[order])) if p.size else p
    out = np.empty_like(p)
    out[order] = adjusted
    return out


def fall(k_from: F64, n_from: F64, k_to: F64, n_to: F64) -> F64:
    """One-sided Fisher probability of at least as many found in ``from``, given the totals. Counts are rounded."""
    n1, n2 = np.floor(np.asarray(n_from)), np.floor(np.asarray(n_to))
    k1 = np.round(np.asarray(k_from) / np.maximum(n_from, 1e-9) * n1)
    k2 = np.round(np.asarray(k_to) / np.maximum(n_to, 1e-9) * n2)
    return np.asarray(np.clip(hypergeom.sf(k1 - 1, n1 + n2, k1 + k2, n1), 0, 1))


def pooled_fall(k_from: F64, n_from: F64, k_to: F64, n_to: F64) -> float:
    """One-sided Mantel-Haenszel probability over strata, with continuity correction; 1 where nothing can be said."""
    total, found = n_from + n_to, k_from + k_to
    ok = total > 1
    expected = np.sum((n_from * found / np.where(ok, total, 1))[ok])
    variance = np.sum((n_from * n_to * found * (total - found) / np.where(ok, total**2 * (total - 1), 1))[ok])
    if variance <= 0:
        return 1.0
    excess = float(np.sum(k_from[ok]) - expected)
    return float(norm.sf((excess - 0.5) / np.sqrt(variance)))


def _depth(surface: Surface, point: OperatingPoint) -> Iterator[tuple[object, ...]]:
    shape = surface.grid.shape
    cells = surface.cells.filter(pl.col("operating_point") == point.name)
    ok = (cells["support"] == "supported").to_numpy().reshape(shape)
    c = cells["completeness"].fill_null(0.0).to_numpy().reshape(shape)
    n = cells["n_effective"].fill_null(0.0).to_numpy().reshape(shape)
    theta, psf, depth = (a.centres for a in surface.grid.axes)
    for t in range(shape[0]):
        for a, b in combinations(range(shape[2]), 2):
            both = np.flatnonzero(ok[t, :, a] & ok[t, :, b])
            if not both.size:
                continue
            c1, n1, c2, n2 = c[t, both, a], n[t, both, a], c[t, both, b], n[t, both, b]
            for p, x, y, value in zip(both, c1, c2, fall(c1 * n1, n1, c2 * n2, n2), strict=True):
                yield (
                    point.name,
                    "depth",
                    "cell",
                    theta[t],
                    psf[p],
                    None,
                    depth[a],
                    depth[b],
                    float(x),
                    float(y),
                    float(value),
                )
            if b == a + 1 and both.size > 1:
                yield (
                    point.name,
                    "depth",
                    "theta_e",
                    theta[t],
                    None,
                    None,
                    depth[a],
                    depth[b],
                    _mean(c1, n1),
                    _mean(c2, n2),
                    pooled_fall(c1 * n1, n1, c2 * n2, n2),
                )


def _brightness(surface: Surface, point: OperatingPoint) -> Iterator[tuple[object, ...]]:
    edges = np.asarray(surface.settings.brightness_edges)
    members = surface.members.filter(pl.col("injection_mag_r").is_not_null())
    bins = np.searchsorted(edges, members["injection_mag_r"].to_numpy(), side="right") - 1
    members = members.with_columns(pl.Series("bin", bins)).filter(pl.col("bin").is_between(0, edges.size - 2))
    if not members.height:
        return
    n_bins, shape = edges.size - 1, surface.grid.shape
    n_flat = np.zeros((surface.grid.size, n_bins))
    c_flat = np.zeros_like(n_flat)
    for j in range(n_bins):
        counts = host_counts(members.filter(pl.col("bin") == j), point)
        if counts.height:
            cell = surface.grid.flat(*(counts[i].to_numpy() for i in ("i_theta", "i_psf", "i_depth")))
            own = beta_binomial(cell, counts["n"], counts["k"], surface.grid.size, LEVELS)
            n_flat[:, j] = np.nan_to_num(own.n_eff)
            c_flat[:, j] = own.k / np.maximum(own.n, 1)
    first = surface.cells.filter(pl.col("operating_point") == surface.points[0].name)
    ok = (first["support"] == "supported").to_numpy()
    n, c, ok = n_flat.reshape(*shape, n_bins), c_flat.reshape(*shape, n_bins), ok.reshape(shape)
    centre = (edges[:-1] + edges[1:]) / 2
    theta, psf, depth = (a.centres for a in surface.grid.axes)
    for t in range(shape[0]):
        for j in range(n_bins - 1):  # bin j + 1 is the fainter one
            use = np.argwhere(ok[t] & (n[t, :, :, j + 1] >= 1) & (n[t, :, :, j] >= 1))
            if not len(use):
                continue
            at = (t, use[:, 0], use[:, 1])
            c1, n1, c2, n2 = c[(*at, j + 1)], n[(*at, j + 1)], c[(*at, j)], n[(*at, j)]
            for (p, d), x, y, value in zip(use, c1, c2, fall(c1 * n1, n1, c2 * n2, n2), strict=True):
                yield (
                    point.name,
                    "arc brightness",
                    "cell",
                    theta[t],
                    psf[p],
                    depth[d],
                    centre[j + 1],
                    centre[j],
                    float(x),
                    float(y),
                    float(value),
                )
            if len(use) > 1:
                yield (
                    point.name,
                    "arc brightness",
                    "theta_e",
                    theta[t],
                    None,
                    None,
                    centre[j + 1],
                    centre[j],
                    _mean(c1, n1),
                    _mean(c2, n2),
                    pooled_fall(c1 * n1, n1, c2 * n2, n2),
                )


def _mean(c: F64, n: F64) -> float:
    """The pooled fraction, by effective counts."""
    return float(np.clip(np.sum(c * n) / np.sum(n), 0, 1))
