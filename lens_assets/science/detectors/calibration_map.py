"""A calibration map: from a detector's logit to a probability, fitted on the role ``calibrate`` and on nothing else.

``platt``      ``1 / (1 + exp(-(a logit + b)))`` by maximum likelihood with Platt's targets (Platt 1999; Lin, Lin & Weng
               2007, doi:10.1007/s10994-007-5018-6): two numbers, for samples with few lenses.
``isotonic``   the best non-decreasing step function, linear between its blocks (Zadrozny & Elkan 2002): follows any
               shape, needs many lenses; kept away from 0 and 1 by half a count, which no finite sample can tell apart.

Both keep the order of scores (isotonic may tie some), so AUC and thresholds stay what they were; thresholds are set on
the raw score and no map moves them. Like the logit, the probability refers to the class ratio of the training sample
(``log_odds``), whatever the ratio in ``calibrate``; ``shift`` takes it to another (see ``calibration``). With too few
rows of a class there is no map, and the reason is said: never another method in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from lens_assets.science.detectors import measures
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput

F64 = npt.NDArray[np.float64]
FEWEST = {"platt": 10, "isotonic": 100}
"""Fewest lenses and fewest non-lenses for a map: two parameters, and a curve of several steps."""


@dataclass(frozen=True)
class CalibrationMap:
    """``slope`` and ``intercept`` of a Platt map, or the ``knots`` (logit, probability) of an isotonic one."""

    method: str
    n: int
    n_pos: int
    log_odds: float | None = None
    """ln(lenses / non-lenses) of the sample that the probabilities refer to; ``None``: that of ``calibrate`` itself."""
    slope: float = float("nan")
    intercept: float = float("nan")
    knots: tuple[tuple[float, float], ...] = ()

    def probability(self, logit: npt.ArrayLike, shift: float = 0.0) -> F64:
        """Calibrated probabilities (float64) of logits, their log-odds moved by ``shift``."""
        x = np.asarray(logit, float)
        if self.method == "platt":
            return measures.expit(self.slope * x + self.intercept + shift)
        at, value = np.asarray(self.knots, float).T
        p = np.interp(x, at, value)
        return measures.expit(np.log(p / (1 - p)) + shift)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        out: dict[str, Any] = {"method": self.method, "n": self.n, "n_pos": self.n_pos, "role": "calibrate"}
        out["log_odds"] = self.log_odds
        if self.method == "platt":
            return out | {"slope": self.slope, "intercept": self.intercept}
        return out | {"knots": [list(k) for k in self.knots]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> CalibrationMap:
        """From :meth:`as_dict`; :class:`BadInput` where that holds no map."""
        if value.get("method") not in FEWEST:
            raise BadInput(f"no calibration map: {value.get('refused') or value.get('method')}")
        names = ("method", "n", "n_pos", "log_odds", "slope", "intercept")
        return cls(**{k: value[k] for k in names if k in value}, knots=tuple((a, b) for a, b in value.get("knots", ())))


def fit_map(
    logit: npt.ArrayLike, label: npt.ArrayLike, settings: Settings, log_odds: float | None = None
) -> CalibrationMap | str | None:
    """The map that the settings ask for, a reason why there is none, or ``None`` when none is asked for.

    ``log_odds``: of the classes of the training sample; ``None``: those of these rows.
    """
    method = settings.calibration_map
    if method == "none":
        return None
    x, y = np.asarray(logit, float), np.asarray(label).astype(bool)
    n, n_pos = len(y), int(y.sum())
    if min(n_pos, n - n_pos) < FEWEST[method]:
        return (
            f"a {method} map needs {FEWEST[method]} lenses and as many non-lenses with the role calibrate; there are "
            f"{n_pos} and {n - n_pos}"
        )
    offset = 0.0 if log_odds is None else float(np.log(n_pos / (n - n_pos))) - log_odds
    fit = _platt if method == "platt" else _isotonic
    return fit(x, y, offset, log_odds)


def _platt(x: F64, y: npt.NDArray[np.bool_], offset: float, log_odds: float | None) -> CalibrationMap | str:
    n, n_pos = len(y), int(y.sum())
    target = np.where(y, (n_pos + 1) / (n_pos + 2), 1 / (n - n_pos + 2))

    def loss(q: F64) -> tuple[float, F64]:
        z = q[0] * x + q[1] + offset
        residual = measures.expit(z) - target
        return float((np.logaddexp(0, z) - target * z).sum()), np.array([residual @ x, residual.sum()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-8 * n})
    slope, intercept = (float(v) for v in found.x)
    if not slope > 0:
        return f"the scores of the role calibrate fall with the chance of being a lens (slope {slope:.3g})"
    return CalibrationMap("platt", n, n_pos, log_odds, slope, intercept)


def _isotonic(x: F64, y: npt.NDArray[np.bool_], offset: float, log_odds: float | None) -> CalibrationMap:
    n = len(y)
    model = IsotonicRegression(y_min=0.5 / n, y_max=1 - 0.5 / n, out_of_bounds="clip")
    model.fit(x, y.astype(float), sample_weight=np.where(y, np.exp(-offset), 1.0))  # the lenses as many as in training
    knots = tuple((float(a), float(b)) for a, b in zip(model.X_thresholds_, model.y_thresholds_, strict=True))
    return CalibrationMap("isotonic", n, int(y.sum()), log_odds, knots=knots)
