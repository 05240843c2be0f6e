"""Measures of a classifier and their intervals: AUC, average precision, calibration error, thresholds for a rate.

Bootstraps resample each class by itself (the sample's ratio of classes is a design, not a draw) and all draws are
done at once as weights on the sorted scores. Pure functions on arrays; which rows, sets and strata is ``evaluate``'s
business.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, norm, t

from lens_assets.science.errors import BadInput

F64 = npt.NDArray[np.float64]
LEVELS = (0.68, 0.95)
_CELLS = 4_000_000  # draws x rows at a time: 32 MB


class Ranked(NamedTuple):
    """Scores in falling order, with their labels and the last row of each group of equal scores."""

    score: F64
    label: npt.NDArray[np.bool_]
    last: npt.NDArray[np.bool_]


def ranked(score: npt.ArrayLike, label: npt.ArrayLike) -> Ranked:
    """Sort by falling score."""
    s, y = np.asarray(score, float), np.asarray(label).astype(bool)
    if not np.isfinite(s).all():
        raise BadInput("a score is not finite", column="logit")
    order = np.argsort(-s, kind="stable")
    s = s[order]
    return Ranked(s, y[order], np.append(s[1:] != s[:-1], True))


def auc_and_ap(r: Ranked, weights: F64) -> tuple[F64, F64]:
    """ROC AUC (ties count half) and average precision of each row of ``weights`` (draws, n).

    AUC is the Mann-Whitney statistic; AP = sum over thresholds of precision x step in recall (as scikit-learn defines
    it).
    """
    tp = np.cumsum(weights * r.label, axis=1)[:, r.last]
    fp = np.cumsum(weights * ~r.label, axis=1)[:, r.last]
    positives, negatives = tp[:, -1], fp[:, -1]
    step_tp = np.diff(tp, axis=1, prepend=0.0)
    step_fp = np.diff(fp, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (step_fp * (tp - step_tp / 2)).sum(1) / (positives * negatives)
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0.0)
        return auc, (precision * step_tp).sum(1) / positives


def class_bootstrap(label: npt.NDArray[np.bool_], draws: int, rng: np.random.Generator) -> list[F64]:
    """Weights (k, n) of ``draws`` resamples within each class, in blocks of bounded size."""
    n, blocks = len(label), []
    groups = [np.flatnonzero(label), np.flatnonzero(~label)]
    per_block = max(1, _CELLS // max(n, 1))
    for start in range(0, draws, per_block):
        k = min(per_block, draws - start)
        weights = np.zeros((k, n))
        for rows in groups:
            if len(rows):
                picked = rows[rng.integers(0, len(rows), (k, len(rows)))]
                flat = (np.arange(k)[:, None] * n + picked).ravel()
                weights += np.bincount(flat, minlength=k * n).reshape(k, n)
        blocks.append(weights)
    return blocks


def group_bootstrap(
    label: npt.NDArray[np.bool_], groups: npt.ArrayLike, draws: int, rng: np.random.Generator
) -> list[F64]:
    """As :func:`class_bootstrap`, resampling whole ``groups`` (a lens system, a galaxy) within each class."""
    n, blocks = len(label), []
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sides = [
        (rows, *np.unique(group[rows], return_inverse=True)) for rows in (label.nonzero()[0], (~label).nonzero()[0])
    ]
    per_block = max(1, _CELLS // max(n, 1))
    for start in range(0, draws, per_block):
        k = min(per_block, draws - start)
        weights = np.zeros((k, n))
        for rows, names, inverse in sides:
            if len(names):
                flat = (np.arange(k)[:, None] * len(names) + rng.integers(0, len(names), (k, len(names)))).ravel()
                counts = np.bincount(flat, minlength=k * len(names)).reshape(k, -1)
                weights[:, rows] = counts[:, inverse]
        blocks.append(weights)
    return blocks


def cluster_bootstrap(clusters: npt.ArrayLike, draws: int, rng: np.random.Generator) -> list[F64]:
    """Weights (draws, n) in blocks, whole ``clusters`` (bricks) drawn with replacement, both classes of one together.

    A draw may lack a class; measures of it are then nan.
    """
    _, at = np.unique(np.asarray(clusters), return_inverse=True)
    number, blocks = int(at.max()) + 1, []
    per_block = max(1, _CELLS // at.size)
    for start in range(0, draws, per_block):
        k = min(per_block, draws - start)
        picked = rng.multinomial(number, np.full(number, 1 / number), k).astype(float)
        blocks.append(picked[:, at])
    return blocks


def percentiles(values: npt.ArrayLike) -> tuple[float | None, float | None, float | None, float | None]:
    """lo68, hi68, lo95, hi95 of bootstrap values; ``None`` where fewer than half are finite."""
    v = np.asarray(values, float)
    finite = v[np.isfinite(v)]
    if finite.size < max(2, v.size / 2):
        return None, None, None, None
    tails = [(1 - LEVELS[0]) / 2, (1 + LEVELS[0]) / 2, (1 - LEVELS[1]) / 2, (1 + LEVELS[1]) / 2]
    lo68, hi68, lo95, hi95 = (float(q) for q in np.quantile(finite, tails))
    return lo68, hi68, lo95, hi95


class Bins(NamedTuple):
    """Calibration bins of equal counts: mean probability, fraction of positives, weight of each, and their edges."""

    probability: F64
    fraction: F64
    weight: F64
    rows: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int64]


def calibration_bins(
    probability: F64, label: npt.NDArray[np.bool_], weight: F64, bins: int, fewest: int
) -> Bins | None:
    """Adaptive bins: equal numbers of rows in order of probability, at least ``fewest`` in each; ``None`` below two
    bins.

    Equal probabilities stay together, so that ties cannot be split to look calibrated.
    """
    n = len(probability)
    bins = min(bins, n // fewest)
    if bins < 2:
        return None
    order = np.argsort(probability, kind="stable")
    p, y, w = probability[order], label[order], weight[order]
    cuts = np.searchsorted(p, p[np.round(np.linspace(0, n, bins + 1)[1:-1]).astype(int)], side="left")
    cuts = np.unique(cuts[(cuts > 0) & (cuts < n)])
    starts = np.concatenate([[0], cuts]).astype(int)
    if len(starts) < 2:
        return None
    total = np.add.reduceat(w, starts)
    return Bins(
        np.add.reduceat(w * p, starts) / total,
        np.add.reduceat(w * y, starts) / total,
        total / total.sum(),
        np.diff(np.append(starts, n)),
        np.add.reduceat(y.astype(np.int64), starts),
    )


def positive_bins(probability: F64, label: npt.NDArray[np.bool_], bins: int, fewest: int) -> Bins | None:
    """Bins that hold equal numbers of *lenses* (at least ``fewest``), weighted by them; ``None`` below two bins.

    The edges lie at lenses; the lowest bin also takes every row below the lowest lens.
    """
    own = np.sort(probability[label])
    bins = min(bins, len(own) // fewest)
    if bins < 2:
        return None
    edges = np.unique(own[np.round(np.linspace(0, len(own), bins + 1)[1:-1]).astype(int)])
    which = np.searchsorted(edges, probability, side="right")
    rows = np.bincount(which, minlength=len(edges) + 1)
    positives = np.bincount(which[label], minlength=len(rows))
    total = np.bincount(which, weights=probability, minlength=len(rows))
    keep = rows > 0
    if keep.sum() < 2:
        return None
    rows, positives, total = rows[keep], positives[keep], total[keep]
    return Bins(total / rows, positives / rows, positives / positives.sum(), rows, positives)


def ece_mce(bins: Bins) -> tuple[float, float]:
    """Expected and maximum calibration error (Naeini et al. 2015): weighted mean and maximum of |fraction -
    probability|."""
    gap = np.abs(bins.fraction - bins.probability)
    return float((bins.weight * gap).sum()), float(gap.max())


def balanced(logit: F64, label: npt.NDArray[np.bool_]) -> tuple[F64, F64]:
    """Probabilities at even odds and weights that make the classes equal, so that the rare class counts in an ECE."""
    odds = np.log(label.sum() / (~label).sum())
    weight = np.where(label, 0.5 / label.sum(), 0.5 / (~label).sum())
    return expit(logit - odds), weight


def expit(x: F64) -> F64:
    """``1 / (1 + exp(-x))`` without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


class Negatives(NamedTuple):
    """Negatives that set thresholds: (n,) scores, and the number of each one's brick."""

    score: F64
    brick: npt.NDArray[np.int64]

    def resampled(self, rng: np.random.Generator) -> F64:
        """Scores of as many bricks, drawn with replacement (of as many rows where there is one brick)."""
        order = np.argsort(self.brick, kind="stable")
        parts = np.split(self.score[order], np.cumsum(np.bincount(self.brick))[:-1])
        if len(parts) < 2:
            return rng.choice(self.score, len(self.score))
        return np.concatenate([parts[i] for i in rng.integers(0, len(parts), len(parts))])


class RateThreshold(NamedTuple):
    """A threshold for a false-positive rate; ``score >= value`` is a detection. ``bounds`` are lo68, hi68, lo95,
    hi95; ``worth`` is the number of independent negatives that the interval takes them for."""

    value: float
    bounds: tuple[float, float, float, float]
    above: int
    worth: float


def rate_threshold(negatives: npt.ArrayLike, rate: float, bricks: npt.ArrayLike | None = None) -> RateThreshold:
    """The lowest score that at most ``rate`` of the negatives reach, with its interval.

    The number of n independent negatives above the true (1 - f) quantile is Binomial(n, f), so order statistics at its
    quantiles bound the threshold, whatever the distribution (David & Nagaraja 2003, section 7.1). Negatives of one
    brick are not independent (one seeing, one depth, one sky): with ``bricks`` (the number of each one's brick) they count
    as n over the :func:`design_effect`, and few bricks widen the interval as Student's t does. Ties move the threshold up,
    never the rate.
    """
    scores = np.asarray(negatives, float)
    s = np.sort(scores)[::-1]
    n = len(s)
    value = _reached_by(s, _allowed(n, rate))
    effect, groups = (1.0, n) if bricks is None else design_effect(scores >= value, np.asarray(bricks))
    bounds = []
    for level in LEVELS:
        tail = (1 - level) / 2
        wider = 1.0 if effect == 1.0 else (t.ppf(1 - tail, groups - 1) / norm.ppf(1 - tail)) ** 2
        m = max(round(n / (effect * wider)), 1)
        most, least = int(binom.ppf(1 - tail, m, rate)) + 1, int(binom.ppf(tail, m, rate))
        bounds += [_reached_by(s, most * n // m), _reached_by(s, least * n // m)]
    lo68, hi68, lo95, hi95 = bounds
    inner = min(lo68, value), max(hi68, value)
    return RateThreshold(value, (*inner, min(lo95, inner[0]), max(hi95, inner[1])), int((s >= value).sum()), n / effect)


def design_effect(above: npt.NDArray[np.bool_], bricks: npt.NDArray[Any]) -> tuple[float, int]:
    """How many times the variance of the share ``above`` is that of independent rows, at least 1, and the number of bricks.

    The share is a ratio of two sums over bricks; its variance is B / (B - 1) sum_b (k_b - p n_b)^2 / n^2 (Cochran 1977,
    section 6.4 and chapter 9A; Kish 1965 for the name). One brick says nothing of this and gives 1.
    """
    _, at = np.unique(bricks, return_inverse=True)
    number, n, p = int(at.max(initial=0)) + 1, len(above), float(above.mean())
    if number < 2 or not 0 < p < 1:
        return 1.0, number
    k, size = np.bincount(at, above), np.bincount(at)
    variance = number / (number - 1) * float(((k - p * size) ** 2).sum()) / n**2
    return max(variance / (p * (1 - p) / n), 1.0), number


def rate_threshold_value(negatives: npt.ArrayLike, rate: float) -> float:
    """The value of :func:`rate_threshold` alone."""
    s = np.sort(np.asarray(negatives, float))[::-1]
    return _reached_by(s, _allowed(len(s), rate))


def _allowed(n: int, rate: float) -> int:
    return int(np.floor(rate * n + 1e-9))


def _reached_by(falling: F64, k: int) -> float:
    """The lowest score that at most ``k`` of the (falling) scores reach; just above the highest for k = 0."""
    n = len(falling)
    k = min(max(k, 0), n)
    if k < n:
        k = int(np.searchsorted(-falling, -falling[k], side="left"))  # rows strictly above the (k + 1)-th
    return float(falling[k - 1]) if k else float(np.nextafter(falling[0], np.inf))
