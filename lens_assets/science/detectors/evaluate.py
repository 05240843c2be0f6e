"""The evaluation of a detector: thresholds, metrics by set and stratum, and curves, each number with its interval.

Sets, never mixed: ``held-out`` (lenses of training channels in the ``report`` role), ``independent`` (evaluation
lenses of channels no training channel knows; rows whose column ``independent`` says so) and ``evaluation``
(evaluation lenses of which that is not known). The negatives of all three are those of the ``report`` role.
Thresholds for a false-positive rate come from the negatives of the ``threshold`` role alone, and are refused where
those are too few; a calibration map comes from the role ``calibrate`` alone, moves no threshold, and its effect is judged
on ``report``. Of the role ``train`` nothing is used but its class ratio, which the logits refer to. No other role is
looked at. A stratum without both classes gets a reason instead of an AUC, an
average precision or a calibration error.

``recall`` and ``fpr`` are counts and carry Wilson intervals; where the threshold was itself measured there is a second
``recall`` row whose bootstrap draws the threshold's negatives anew as well. ``precision`` refers to the sample's
ratio of classes, not to a survey's, and must never be quoted as the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.detectors import calibration, measures
from lens_assets.science.detectors.calibration_map import CalibrationMap, fit_map
from lens_assets.science.detectors.curves import CURVES, curves_of
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.strata import ALL, HELD_OUT, OF_ONE_CLASS, sets_of, strata, with_strata
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, sites_of
from lens_assets.science.intervals import wilson

F64 = npt.NDArray[np.float64]
BOUNDS = ("lo68", "hi68", "lo95", "hi95")
METRICS = {
    "set": pl.String,
    "stratum_axis": pl.String,
    "stratum": pl.String,
    "metric": pl.String,
    "threshold_name": pl.String,
    "value": pl.Float64,
    **dict.fromkeys(BOUNDS, pl.Float64),
    "n": pl.Int64,
    "n_pos": pl.Int64,
    "interval": pl.String,
    "why_not": pl.String,
}
THRESHOLDS = {
    "name": pl.String,
    "fpr_target": pl.Float64,
    "threshold": pl.Float64,
    **dict.fromkeys(BOUNDS, pl.Float64),
    "threshold_logit": pl.Float64,
    "n_negatives": pl.Int64,
    "n_independent": pl.Float64,
    "n_above": pl.Int64,
    "refused": pl.String,
}
_METRIC_KEY = ["set", "stratum_axis", "stratum", "metric", "threshold_name", "interval"]


@dataclass(frozen=True)
class Evaluation:
    """``metrics``, ``thresholds`` and ``curves``; ``fitted`` is the calibration map, why there is none, or ``None``
    where none was asked for."""

    metrics: pl.DataFrame
    thresholds: pl.DataFrame
    curves: pl.DataFrame
    fitted: CalibrationMap | str | None = None

    def calibration(self) -> dict[str, Any]:
        """The calibration map as plain JSON types, or why there is none."""
        if isinstance(self.fitted, CalibrationMap):
            return self.fitted.as_dict()
        return {"method": "none", "refused": self.fitted}


def evaluate(scores: pl.DataFrame, settings: Settings | None = None) -> Evaluation:
    """Evaluate one detector on scored rows of the sample.

    Parameters
    ----------
    scores : galaxy_id, logit, score, label, role; and where known tier, channels (list), type, psfsize_r, depth_r,
        nobs_z,
        n2_category, independent. The order of rows plays no part.

    Returns
    -------
    metrics, thresholds, curves (see ``METRICS``, ``THRESHOLDS``, ``CURVES``). A null value has a reason
        in ``why_not``.
    """
    settings = settings or Settings()
    for column in ("galaxy_id", "logit", "score", "label", "role"):
        if column not in scores.columns:
            raise BadInput("the scores need this column", column=column)
    scores = with_strata(scores.sort("galaxy_id"), settings)
    if scores["galaxy_id"].n_unique() != scores.height:
        raise BadInput("a galaxy is scored twice", column="galaxy_id")
    fault = ~(scores["logit"].is_finite().fill_null(False) & scores["score"].is_finite().fill_null(False))
    if fault.any():
        raise BadInput("a score is not finite", column="logit", row=int(fault.arg_true()[0]))
    on = scores.filter((pl.col("role") == "threshold") & (pl.col("label") == 0))
    negatives = measures.Negatives(on["score"].to_numpy().astype(float), sites_of(on["galaxy_id"].to_list()))
    thresholds = thresholds_of(negatives.score, settings, negatives.brick)
    calibrate = scores.filter(pl.col("role") == "calibrate")
    reference = calibration.log_odds(scores.filter(pl.col("role") == "train")["label"].to_numpy())
    fitted = fit_map(calibrate["logit"].to_numpy(), calibrate["label"].to_numpy(), settings, reference)
    usable = fitted if isinstance(fitted, CalibrationMap) else None
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for name, frame in sets_of(scores).items():
        whole = calibration.shift_to(frame["label"].to_numpy(), reference)
        for axis, stratum, part in strata(frame):
            own = axis in OF_ONE_CLASS  # a part of one class: its class ratio is made by the cut
            shift = calibration.shift_to(part["label"].to_numpy(), reference) if own else whole
            rows += _Stratum(name, axis, stratum, part, settings, shift).rows(thresholds, negatives, usable)
        curves += curves_of(name, frame, settings, usable if name == HELD_OUT else None, whole)
    metrics = pl.DataFrame(rows, schema=METRICS).sort(_METRIC_KEY)
    drawn = pl.DataFrame(curves, schema=CURVES).sort(["set", "curve", "series", "point"])
    return Evaluation(metrics, thresholds, drawn, fitted)


def thresholds_of(negatives: npt.ArrayLike, settings: Settings, bricks: npt.ArrayLike | None = None) -> pl.DataFrame:
    """The operating points on the score: the fixed ones, and one for each false-positive rate the negatives can carry.

    ``score >= threshold`` counts as found. A rate f needs ``negatives_per_rate / f`` negatives; with fewer the row
    has the reason in ``refused`` and no threshold. ``bricks``: the number of each one's brick, for intervals that know that
    negatives of a brick are not independent (``n_independent`` says what they are worth).
    """
    s = np.asarray(negatives, float)
    rows: list[dict[str, Any]] = []
    for p in settings.fixed_thresholds:
        rows.append({"name": f"p{p:g}", "threshold": p, "n_negatives": len(s), "n_above": int((s >= p).sum())})
    for rate in settings.fpr_targets:
        row: dict[str, Any] = {"name": rate_name(rate), "fpr_target": rate, "n_negatives": len(s)}
        needed = int(np.ceil(settings.negatives_per_rate / rate - 1e-9))
        if len(s) < needed:
            row["refused"] = f"a rate of {rate:g} needs {needed} negatives with the role threshold; there are {len(s)}"
        else:
            found = measures.rate_threshold(s, rate, bricks)
            row |= {"threshold": found.value, "n_above": found.above, "n_independent": found.worth}
            row |= dict(zip(BOUNDS, found.bounds, strict=True))
        rows.append(row)
    for row in rows:
        cut = row.get("threshold")
        row["threshold_logit"] = float(np.log(cut / (1 - cut))) if cut is not None and 0 < cut < 1 else None
    return pl.DataFrame(rows, schema=THRESHOLDS).sort("name")


def rate_name(rate: float) -> str:
    """The name of the threshold for a false-positive rate: ``fpr1e-03``."""
    mantissa, exponent = f"{rate:.6e}".split("e")
    return f"fpr{mantissa.rstrip('0').rstrip('.')}e{exponent}"


class _Stratum:
    """The numbers of one stratum of one set."""

    def __init__(
        self, name: str, axis: str, stratum: str, part: pl.DataFrame, settings: Settings, shift: float
    ) -> None:
        self._head = {"set": name, "stratum_axis": axis, "stratum": stratum}
        self._settings, self._shift = settings, shift
        self._logit = part["logit"].to_numpy().astype(float)
        self._score = part["score"].to_numpy().astype(float)
        self._label = part["label"].to_numpy() == 1
        self._n, self._n_pos = part.height, int(self._label.sum())
        self._identity = ("evaluate", settings.seed, name, axis, stratum)

    def rows(
        self, thresholds: pl.DataFrame, negatives: measures.Negatives, fitted: CalibrationMap | None = None
    ) -> list[dict[str, Any]]:
        fewest = min(self._n_pos, self._n - self._n_pos)
        reason = None
        if fewest == 0:
            reason = "one class only"
        elif fewest < self._settings.min_class:
            reason = f"{fewest} rows of one class, {self._settings.min_class} are needed"
        rng = generator(*self._identity)
        weights = [] if reason else measures.class_bootstrap(self._label, self._settings.draws, rng)
        counts = self._counts(thresholds, negatives, weights)
        return [*self._ranking(weights, reason), *counts, *self._calibration(reason, fitted)]

    def _row(self, metric: str, value: float | None = None, **more: Any) -> dict[str, Any]:
        bounds = more.pop("bounds", (None,) * 4)
        base = {"threshold_name": "", "interval": "", "why_not": None, "n": self._n, "n_pos": self._n_pos}
        return {
            **self._head,
            "metric": metric,
            "value": value,
            **base,
            **dict(zip(BOUNDS, bounds, strict=True)),
            **more,
        }

    def _ranking(self, weights: list[F64], reason: str | None) -> list[dict[str, Any]]:
        if reason:
            return [self._row(metric, why_not=reason) for metric in ("auc", "average_precision")]
        order = np.argsort(-self._logit, kind="stable")
        r = measures.ranked(self._logit, self._label)
        once = measures.auc_and_ap(r, np.ones((1, self._n)))
        drawn = [measures.auc_and_ap(r, block[:, order]) for block in weights]
        return [
            self._row(
                metric,
                float(once[i][0]),
                bounds=measures.percentiles(np.concatenate([d[i] for d in drawn])),
                interval="class-bootstrap",
            )
            for i, metric in enumerate(("auc", "average_precision"))
        ]

    def _counts(
        self, thresholds: pl.DataFrame, negatives: measures.Negatives, weights: list[F64]
    ) -> list[dict[str, Any]]:
        out = []
        for point in thresholds.iter_rows(named=True):
            name, cut = point["name"], point["threshold"]
            if cut is None:
                if self._head["stratum_axis"] == ALL:
                    out += [
                        self._row(m, threshold_name=name, why_not=point["refused"])
                        for m in ("recall", "fpr", "precision")
                    ]
                continue
            found = self._score >= cut
            k_pos, k_neg = int(found[self._label].sum()), int(found[~self._label].sum())
            n_neg = self._n - self._n_pos
            if self._n_pos:
                out.append(self._wilson("recall", k_pos, self._n_pos, name))
                if point["fpr_target"] is not None and self._head["stratum_axis"] == ALL:
                    out.append(self._recall_with_threshold(point, negatives))
            if n_neg:
                out.append(self._wilson("fpr", k_neg, n_neg, name))
            if weights:
                out.append(self._precision(found, weights, name))
        return out

    def _wilson(self, metric: str, k: int, n: int, name: str) -> dict[str, Any]:
        a, b = wilson(k, n, 0.68), wilson(k, n, 0.95)
        bounds = (float(a.lo), float(a.hi), float(b.lo), float(b.hi))
        return self._row(metric, k / n, threshold_name=name, bounds=bounds, interval=a.name)

    def _precision(self, found: npt.NDArray[np.bool_], weights: list[F64], name: str) -> dict[str, Any]:
        if not found.any():
            return self._row("precision", threshold_name=name, why_not="nothing is above the threshold")
        good, all_ = found & self._label, found
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = np.concatenate([block[:, good].sum(1) / block[:, all_].sum(1) for block in weights])
        bounds = measures.percentiles(drawn)
        return self._row(
            "precision", good.sum() / all_.sum(), threshold_name=name, bounds=bounds, interval="class-bootstrap"
        )

    def _recall_with_threshold(self, point: dict[str, Any], negatives: measures.Negatives) -> dict[str, Any]:
        rng = generator(*self._identity, point["name"])
        lenses = np.sort(self._score[self._label])
        drawn = np.empty(self._settings.draws)
        for i in range(len(drawn)):
            cut = measures.rate_threshold_value(negatives.resampled(rng), point["fpr_target"])
            again = lenses[rng.integers(0, len(lenses), len(lenses))]
            drawn[i] = (again >= cut).mean()
        return self._row(
            "recall",
            float((lenses >= point["threshold"]).mean()),
            threshold_name=point["name"],
            bounds=measures.percentiles(drawn),
            interval="bootstrap-with-threshold",
        )

    def _calibration(self, reason: str | None, fitted: CalibrationMap | None) -> list[dict[str, Any]]:
        if reason:
            found = calibration.refused(self._label, reason)
        else:
            whole = self._head["stratum_axis"] == ALL
            rng = generator(*self._identity, "calibration") if whole else None
            judged = (
                fitted if whole and self._head["set"] == HELD_OUT else None
            )  # fitted on lenses of the same channels
            found = calibration.errors_of(
                self._logit, self._label, self._settings, rng, shift=self._shift, tops=whole, fitted=judged
            )
        return [
            self._row(
                e.metric, e.value, bounds=e.bounds, why_not=e.why_not, n=e.n, n_pos=e.n_pos,
                interval="" if e.bounds[0] is None else calibration.interval_name(e.metric),
            )
            for e in found
        ]  # fmt: skip
