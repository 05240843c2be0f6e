"""How far scores are probabilities: calibration errors of one set or stratum, with their intervals.

``ece``, ``mce``            over bins of equal counts of rows; ``_top0.01`` over the highest 1 % of the scores
``ece_balanced``            the same with both classes made equal, so that the rare class counts
``ece_positive``            bins of equal counts of *lenses*, each weighted by its lenses: the error a lens meets; without
                            it the sea of non-lenses at score 0 hides how wrong the scores of the finds are
``lens_count_ratio``        sum of scores over number of lenses; 1 when the scores can be added up to a count
``*_mapped``, ``*_change``  after the calibration map (``calibration_map``), and mapped minus raw on the same draws

A logit refers to the class ratio of the training sample. Roles take the classes in other shares (injection hosts leave
the report, thresholds take no lens), and one tier or channel is a part of the lenses: that is design, not a fault of the
detector. So scores are judged after their odds are multiplied by the ratio of the odds of the two samples
(Saerens et al. 2002, doi:10.1162/089976602753284446, eq. 2.4): the ``shift`` below.

A subset of one class, or of fewer rows than make two bins, gets a reason instead of a value. Bootstraps resample each
class by itself; because resampling can only add to a mean or maximum of absolute gaps, the interval of an error is moved
back by that bias (median of the draws minus value), never below 0. Which rows, sets and strata is ``evaluate``'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lens_assets.science.detectors import measures
from lens_assets.science.detectors.calibration_map import CalibrationMap
from lens_assets.science.detectors.settings import Settings

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Bounds = tuple[float | None, float | None, float | None, float | None]
NO_BOUNDS: Bounds = (None, None, None, None)
RECENTRED = "class-bootstrap-recentred"
_MOST_DRAWS = 200


@dataclass(frozen=True)
class Error:
    """One calibration error: ``value`` and ``bounds`` (lo68, hi68, lo95, hi95), or the reason in ``why_not``."""

    metric: str
    value: float | None
    bounds: Bounds
    n: int
    n_pos: int
    why_not: str | None = None


Values = dict[str, float]


def log_odds(label: npt.ArrayLike) -> float | None:
    """ln(lenses / non-lenses); ``None`` with one class."""
    y = np.asarray(label).astype(bool)
    n_pos = int(y.sum())
    return float(np.log(n_pos / (len(y) - n_pos))) if 0 < n_pos < len(y) else None


def shift_to(label: npt.ArrayLike, reference: float | None) -> float:
    """From the class ratio of ``reference`` (log-odds; ``None``: not known, no shift) to that of these rows."""
    own = log_odds(label)
    return own - reference if own is not None and reference is not None else 0.0


def errors_of(
    logit: F64,
    label: Mask,
    settings: Settings,
    rng: np.random.Generator | None,
    *,
    shift: float = 0.0,
    tops: bool = False,
    fitted: CalibrationMap | None = None,
) -> list[Error]:
    """All calibration errors of some rows.

    Parameters
    ----------
    rng : for the intervals; ``None``: values without intervals (strata, where they would cost more than they tell).
    shift : log-odds of the classes of these rows (as far as design made them) minus those of the training sample.
    tops : also in the highest fractions of the scores.
    fitted : a calibration map whose effect is judged.
    """
    out = _of_subset("", logit, label, settings, rng, _whole(settings, fitted, shift))
    if tops:
        rank = np.argsort(np.argsort(-logit, kind="stable"), kind="stable")
        for fraction in settings.top_fractions:
            keep = rank < round(fraction * len(logit))
            only = _plain(settings, shift)
            out += _of_subset(f"_top{fraction:g}", logit[keep], label[keep], settings, rng, only)
    return out


def refused(label: Mask, why: str) -> list[Error]:
    """The same names, with a reason."""
    return [Error(name, None, NO_BOUNDS, len(label), int(label.sum()), why) for name in ("ece", "mce", "ece_positive")]


def _of_subset(
    suffix: str,
    logit: F64,
    label: Mask,
    settings: Settings,
    rng: np.random.Generator | None,
    measure: Callable[[F64, Mask], Values],
) -> list[Error]:
    n, n_pos = len(logit), int(label.sum())
    if n_pos in (0, n):
        return [Error(f"{name}{suffix}", None, NO_BOUNDS, n, n_pos, "one class only") for name in ("ece", "mce")]
    values = measure(logit, label)
    missing = {"ece", "mce"} - set(values)
    why = f"{n} rows make no two bins of {settings.min_bin}"
    out = [Error(f"{name}{suffix}", None, NO_BOUNDS, n, n_pos, why) for name in sorted(missing)]
    bounds: Mapping[str, Bounds] = {}
    if rng is not None:
        bounds = _bootstrap(logit, label, settings, rng, measure, list(values))
    return out + [Error(f"{k}{suffix}", v, bounds.get(k, NO_BOUNDS), n, n_pos) for k, v in values.items()]


def _bootstrap(
    logit: F64, label: Mask, settings: Settings, rng: np.random.Generator, measure: Callable[[F64, Mask], Values],
    names: list[str],
) -> dict[str, Bounds]:  # fmt: skip
    groups = [np.flatnonzero(label), np.flatnonzero(~label)]
    drawn = np.full((min(settings.draws, _MOST_DRAWS), len(names)), np.nan)
    for i in range(len(drawn)):
        rows = np.concatenate([g[rng.integers(0, len(g), len(g))] for g in groups])
        values = measure(logit[rows], label[rows])
        drawn[i] = [values.get(name, np.nan) for name in names]
    once = measure(logit, label)
    return {name: _bounds(name, drawn[:, j], once[name]) for j, name in enumerate(names)}


def interval_name(metric: str) -> str:
    """How the interval of a calibration metric was made."""
    return RECENTRED if metric.startswith(("ece", "mce")) and "_change" not in metric else "class-bootstrap"


def _bounds(name: str, drawn: F64, value: float) -> Bounds:
    """Percentiles; those of an error recentred on its value."""
    found = measures.percentiles(drawn)
    if interval_name(name) != RECENTRED or found[0] is None:
        return found
    shift = value - float(np.nanmedian(drawn))
    lo68, hi68, lo95, hi95 = (max(b + shift, 0.0) for b in found if b is not None)
    return lo68, hi68, lo95, hi95


def _plain(s: Settings, shift: float) -> Callable[[F64, Mask], Values]:
    def measure(logit: F64, label: Mask) -> Values:
        return _pair("", measures.expit(logit + shift), label, np.ones(len(logit)), s)

    return measure


def _whole(s: Settings, fitted: CalibrationMap | None, shift: float) -> Callable[[F64, Mask], Values]:
    def measure(logit: F64, label: Mask) -> Values:
        raw = _of_probability(measures.expit(logit + shift), label, s)
        even, weight = measures.balanced(logit + shift, label)
        out = {**raw, **_pair("_balanced", even, label, weight, s)}
        if fitted is not None:
            mapped = _of_probability(fitted.probability(logit, shift), label, s)
            out |= {f"{k}_mapped": v for k, v in mapped.items()}
            out |= {f"{k}_change": mapped[k] - raw[k] for k in ("ece", "ece_positive") if k in mapped and k in raw}
        return out

    return measure


def _of_probability(p: F64, label: Mask, s: Settings) -> Values:
    out = _pair("", p, label, np.ones(len(p)), s)
    bins = measures.positive_bins(p, label, s.calibration_bins, s.min_bin)
    if bins is not None:
        out["ece_positive"], out["mce_positive"] = measures.ece_mce(bins)
    out["lens_count_ratio"] = float(p.sum() / label.sum())
    return out


def _pair(suffix: str, p: F64, label: Mask, weight: F64, s: Settings) -> Values:
    bins = measures.calibration_bins(p, label, weight, s.calibration_bins, s.min_bin)
    if bins is None:
        return {}
    return dict(zip((f"ece{suffix}", f"mce{suffix}"), measures.ece_mce(bins), strict=True))
