"""Fitting the monotone map of one member's logit, for rules that calibrate before they combine.

Not the map that an evaluation fits on a finished detector's logit (``calibration_map``): that one may tie scores, because
thresholds are not set on it; these decide the score.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from lens_assets.science.detectors.ensemble_combine import F64, LogitMap
from lens_assets.science.detectors.measures import expit
from lens_assets.science.errors import BadInput

Bools = npt.NDArray[np.bool_]


def targets(label: Bools) -> F64:
    """Platt's (1999) targets, (N+ + 1) / (N+ + 2) for a lens and 1 / (N- + 2) for another: finite slopes and weights where
    a line separates the classes."""
    n_pos, n_neg = int(label.sum()), int((~label).sum())
    return np.where(label, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))


def platt(x: F64, label: Bools) -> LogitMap:
    """``slope x + offset`` by maximum likelihood with Platt's targets, at these rows' ratio of classes."""
    target = targets(label)
    centre, width = float(x.mean()), float(x.std()) or 1.0
    u = (x - centre) / width

    def loss(p: F64) -> tuple[float, F64]:
        z = p[0] + p[1] * u
        residual = expit(z) - target
        return float((np.logaddexp(0.0, z) - target * z).sum()), np.array([residual.sum(), (residual * u).sum()])

    start = [np.log(label.mean() / (1 - label.mean())), 1.0]
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-7})
    offset, slope = (float(v) for v in found.x)
    if not slope > 0:
        raise BadInput(f"its logit does not rise with the label on the {len(x)} rows it is calibrated on")
    return LogitMap(knots=((centre, offset),), slope=slope / width)


def isotonic(x: F64, label: Bools) -> LogitMap:
    """Centred isotonic regression on the logit.

    Blocks of the pool-adjacent-violators algorithm become one knot each: the mean logit of the block, and the logit of
    ``(k + 1/2) / (n + 1)`` for k lenses of n. Knots that this shrinkage brings out of order are pooled again.
    """
    order = np.argsort(x, kind="stable")
    xs, ys = x[order], label[order].astype(float)
    steps = IsotonicRegression(increasing=True).fit_transform(xs, ys)
    _, block = np.unique(steps, return_inverse=True)
    n, k = np.bincount(block).astype(float), np.bincount(block, ys)
    at = np.bincount(block, xs) / n
    while True:
        p = (k + 0.5) / (n + 1)
        wrong = np.flatnonzero((np.diff(p) <= 0) | (np.diff(at) <= 0))
        if not len(wrong):
            break
        i = wrong[0]
        at[i] = (at[i] * n[i] + at[i + 1] * n[i + 1]) / (n[i] + n[i + 1])
        n[i], k[i] = n[i] + n[i + 1], k[i] + k[i + 1]
        at, n, k = (np.delete(a, i + 1) for a in (at, n, k))
    if len(p) < 2:
        raise BadInput(f"its logit does not rise with the label on the {len(x)} rows it is calibrated on")
    return LogitMap(knots=tuple(zip(at.tolist(), np.log(p / (1 - p)).tolist(), strict=True)))
