"""The AUC of a cross-validated probe, its permutation null, and how it is reported: gates of a detector and realism alike.

What does not belong here: the probes themselves (``detectors.probes``, ``realism.probe``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CrossValidated:
    """A cross-validated AUC with its group bootstrap and its permutation null; ``p_value`` is one-sided."""

    auc: float
    lo68: float
    hi68: float
    lo95: float
    hi95: float
    null_mean: float
    null_hi95: float
    p_value: float


def fold_auc(score: F64, label: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]) -> float:
    """Mean over folds of the AUC (ties half) within each, weighted by its pairs of rows; nan where none has both classes.
    All (n,): scores, whether positive, and the number of the fold a row was scored in.

    Scores of different fits are not on one scale: pooling them would bias the AUC.
    """
    top = weight = 0.0
    for k in np.unique(fold):
        here = fold == k
        y = label[here]
        m, n = int(y.sum()), int((~y).sum())
        if m and n:
            top += float(rankdata(score[here])[y].sum()) - m * (m + 1) / 2
            weight += m * n
    return top / weight if weight else float("nan")


def against_null(value: float, null: npt.ArrayLike) -> tuple[float, float, float]:
    """``null_mean``, ``null_hi95`` and ``p_value`` of a value among those of permuted labels; nan where there are none."""
    v = np.asarray(null, float)
    v = v[np.isfinite(v)]
    if not len(v):
        return (float("nan"),) * 3
    return float(v.mean()), float(np.quantile(v, 0.95)), float((1 + (v >= value).sum()) / (1 + len(v)))
