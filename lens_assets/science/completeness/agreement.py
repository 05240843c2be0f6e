"""Whether a continuous model may stand beside its table: a test of the two, with hosts and with bricks as clusters.

A smooth, monotone surface can be wrong where the table is right: the shape that is imposed may not be the finder's, or the few
hosts of a condition may be unlike those of the next. Cells of one PSF and depth share hosts, so a chi2 over cells taken as
independent says too much. Here the residuals of all cells are tested together, with their covariance over hosts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import chi2

from lens_assets.science.completeness.model import Surface

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEVEL = 0.01
"""A model less probable than this is refused."""
LEAST_INSIDE = 0.9
"""So is one that leaves the table's 95 % interval in more than a tenth of the cells."""


def misfit(cell: I64, host: I64, found: F64, predicted: F64, edf: float) -> tuple[float, float]:
    """Misfit of ``predicted`` to ``found`` over cells, and its probability if the model is right.

    T = R' V^-1 R with R the residual sums of the cells and V their covariance from the residual sums of each host (a cluster-
    robust Wald statistic; Liang & Zeger 1986, doi:10.1093/biomet/73.1.13), against chi2 with cells - ``edf`` degrees of
    freedom. V is made safe where it is poorly known: its diagonal is at least the binomial variance that the model itself
    gives (a cell in which nothing was found has no scatter of its own), and its other elements are shrunk towards none by
    cells / (cells + hosts).
    """
    cells, at = np.unique(cell, return_inverse=True)
    sums = np.zeros((int(host.max()) + 1, cells.size))
    np.add.at(sums, (host, at), found - predicted)
    total, n_hosts = sums.sum(0), np.unique(host).size
    covariance = sums.T @ sums
    own = np.bincount(at, predicted * (1 - predicted), cells.size)
    diagonal = np.maximum(np.maximum(np.diag(covariance), own), 1e-9)
    covariance *= n_hosts / (n_hosts + cells.size)
    np.fill_diagonal(covariance, diagonal)
    value = float(total @ np.linalg.solve(covariance, total))
    return value, float(chi2.sf(value, max(cells.size - edf, 1.0)))


def compared(
    surface: Surface,
    members: pl.DataFrame,
    point: str,
    predicted: F64,
    clusterings: tuple[I64, ...],
    found: F64,
    edf: float,
) -> dict[str, Any]:
    """The model against the table, cell by cell and as a whole; ``refused`` says why it may not be published.

    ``clusterings`` : (n,) numbers of the hosts, and of the bricks, of the injections: the larger of the probabilities stands.
    """
    keys = ["i_theta", "i_psf", "i_depth"]
    mean = members.select(*keys, pl.Series("model", predicted)).group_by(keys).agg(pl.col("model").mean())
    cells = surface.cells.filter((pl.col("operating_point") == point) & (pl.col("support") == "supported"))
    both = cells.join(mean, on=keys, how="inner").sort(keys)
    c, m = both["completeness"].to_numpy(), both["model"].to_numpy()
    lo, hi = both["host_lo68"].to_numpy(), both["host_hi68"].to_numpy()
    sigma = np.maximum(np.where(m > c, hi - c, c - lo), (hi - lo) / 4)
    at = surface.grid.flat(*(members[i].to_numpy() for i in keys))
    value, p = max((misfit(at, unit, found, predicted, edf) for unit in clusterings), key=lambda own: own[1])
    inside95 = float(np.mean((both["host_lo95"].to_numpy() <= m) & (m <= both["host_hi95"].to_numpy())))
    reasons = []
    if p < LEVEL:
        reasons.append(
            f"it contradicts the table (misfit {value:.0f} for {both.height} cells and {edf:.1f} parameters, p {p:.1e})"
        )
    if inside95 < LEAST_INSIDE:
        reasons.append(f"the table's 95 % interval holds it in {inside95:.2f} of {both.height} cells")
    return {
        "chi2": float(np.sum(((c - m) / sigma) ** 2)),
        "misfit": value,
        "p_misfit": p,
        "n_cells": both.height,
        "inside68": float(np.mean((lo <= m) & (m <= hi))),
        "inside95": inside95,
        "refused": "; ".join(reasons),
    }
