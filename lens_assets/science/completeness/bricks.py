r"""How much bricks differ beyond their hosts, for a model that must say so where a cell has one brick.

A cell fixes PSF and depth in r; what it leaves open is common to a brick. For residuals r = found - C with sums s_h over hosts and
S_b over bricks, E S_b^2 = sum_h E s_h^2 + tau^2 W_b^2 with W_b = sum C (1 - C) and tau the scatter of bricks in the logit. The fit
follows the mean of each place (PSF and depth cell), so that sums of squares in a place of K bricks and N hosts are too small by
(K - 1) / K and (N - 1) / N, and a place with one brick says nothing:

    tau^2 = sum_places [K / (K - 1) sum S_b^2 - N / (N - 1) sum s_h^2] / sum_places sum W_b^2, at least 0,

(a moment estimator of a variance component: Searle, Casella & McCulloch 1992, chapter 5), with nu = sum (K - 1) degrees of
freedom. Draws take tau^2 nu / chi2_nu for tau^2, as few bricks know their scatter badly. Where every host has a brick of its own
tau is 0 by construction, and hosts are all there is. Without a place of two bricks all bricks are one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bricks:
    """``brick`` (n,) of each injection; the scatter ``tau`` of ``number`` bricks in the logit, with ``nu`` degrees of freedom."""

    brick: I64
    number: int
    tau: float
    nu: int

    def drawn(self, rng: np.random.Generator) -> F64 | float:
        """(n,) offsets in the logit, one draw; 0 where bricks do not differ."""
        if self.tau == 0:
            return 0.0
        tau = self.tau * np.sqrt(self.nu / rng.chisquare(self.nu))
        return np.asarray(rng.normal(0.0, tau, self.number)[self.brick])

    def to_json(self) -> dict[str, Any]:
        """What a model card says of it."""
        return {"n": self.number, "scatter_logit": self.tau, "degrees_of_freedom": self.nu}


def bricks_of(brick: I64, host: I64, place: I64, found: F64, predicted: F64) -> Bricks:
    """Scatter of bricks about ``predicted`` completeness. All (n,): ``brick``, ``host`` and ``place`` are integers from 0."""
    residual, weight = found - predicted, predicted * (1 - predicted)
    number = int(brick.max()) + 1
    if number == np.unique(host).size or number < 2:
        return Bricks(brick, number, 0.0, 0)
    excess, below, nu = _sums(brick, host, place, residual, weight)
    if not nu:
        excess, below, nu = _sums(brick, host, np.zeros_like(place), residual, weight)
    return Bricks(brick, number, float(np.sqrt(max(excess / below, 0.0))) if below > 0 else 0.0, nu)


def _sums(brick: I64, host: I64, place: I64, residual: F64, weight: F64) -> tuple[float, float, int]:
    excess = below = 0.0
    nu = 0
    for here in (np.flatnonzero(place == p) for p in np.unique(place)):
        squares, clusters = [], []
        for unit in (brick, host):
            at = np.unique(unit[here], return_inverse=True)[1]
            squares.append(float((np.bincount(at, residual[here]) ** 2).sum()))
            clusters.append(int(at.max()) + 1)
        (k, n), (by_brick, by_host) = clusters, squares
        if k < 2:
            continue
        excess += k / (k - 1) * by_brick - n / (n - 1) * by_host
        below += float((np.bincount(np.unique(brick[here], return_inverse=True)[1], weight[here]) ** 2).sum())
        nu += k - 1
    return excess, below, nu
