"""The curves of an evaluation as rows: ROC, precision-recall, reliability, and histograms of the logit, overall and by
stratum (series ``axis|stratum|class``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.detectors import measures
from lens_assets.science.detectors.calibration_map import CalibrationMap
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.strata import ALL, strata
from lens_assets.science.intervals import wilson

F64 = npt.NDArray[np.float64]
CURVES = {
    "set": pl.String,
    "curve": pl.String,
    "series": pl.String,
    "point": pl.Int32,
    "abscissa": pl.Float64,
    "ordinate": pl.Float64,
    "lo68": pl.Float64,
    "hi68": pl.Float64,
    "n_point": pl.Int64,
}
_CURVE_POINTS = 400


def curves_of(
    name: str, frame: pl.DataFrame, settings: Settings, fitted: CalibrationMap | None = None, shift: float = 0.0
) -> list[dict[str, Any]]:
    """The rows (``CURVES``) of one set, whose strata are columns already; reliability also after the map ``fitted``.

    ``shift``: from the class ratio of the training sample to that of the set (``calibration``).
    """
    logit, label = frame["logit"].to_numpy().astype(float), frame["label"].to_numpy() == 1
    out: list[dict[str, Any]] = []

    def add(curve: str, series: str, x: F64, y: F64, n: Any = None, lo: Any = None, hi: Any = None) -> None:
        for i in range(len(x)):
            row = {
                "set": name,
                "curve": curve,
                "series": series,
                "point": i,
                "abscissa": float(x[i]),
                "ordinate": float(y[i]),
            }
            row |= {"n_point": None if n is None else int(n[i]), "lo68": None if lo is None else float(lo[i])}
            out.append(row | {"hi68": None if hi is None else float(hi[i])})

    edges = np.linspace(min(-20.0, logit.min()), max(20.0, logit.max()), 81)
    for series, rows in (("lenses", label), ("non-lenses", ~label)):
        count = np.histogram(logit[rows], edges)[0]
        add("scores", series, (edges[1:] + edges[:-1]) / 2, count.astype(float), n=count)
    coarse = edges[::2]
    for axis, stratum, part in strata(frame):
        if axis != ALL:
            values, lens = part["logit"].to_numpy().astype(float), part["label"].to_numpy() == 1
            for series, rows in (("lenses", lens), ("non-lenses", ~lens)):
                count = np.histogram(values[rows], coarse)[0]
                middle = (coarse[1:] + coarse[:-1]) / 2
                add("scores_by_stratum", f"{axis}|{stratum}|{series}", middle, count.astype(float), n=count)
    if label.any() and not label.all():
        r = measures.ranked(logit, label)
        tp, fp = np.cumsum(r.label)[r.last], np.cumsum(~r.label)[r.last]
        tpr, fpr, precision = tp / tp[-1], fp / fp[-1], tp / (tp + fp)
        few = _thin(fpr)
        add("roc", "roc", np.append(0.0, fpr[few]), np.append(0.0, tpr[few]))
        few = _thin(tpr)
        add("pr", "pr", tpr[few], precision[few])
        plain = np.ones(len(logit))
        reliable: dict[str, tuple[F64, F64]] = {"sample": (measures.expit(logit + shift), plain)}
        reliable["balanced"] = measures.balanced(logit + shift, label)
        if fitted is not None:
            reliable["mapped"] = fitted.probability(logit, shift), plain
        drawn = {
            series: measures.calibration_bins(p, label, w, settings.calibration_bins, settings.min_bin)
            for series, (p, w) in reliable.items()
        }
        drawn["positive"] = measures.positive_bins(
            reliable["sample"][0], label, settings.calibration_bins, settings.min_bin
        )
        for series, bins in drawn.items():
            if bins is not None:
                span = None if series == "balanced" else wilson(bins.positives, bins.rows, 0.68)
                lo, hi = (None, None) if span is None else (span.lo, span.hi)
                add("reliability", series, bins.probability, bins.fraction, bins.rows, lo, hi)
    return out


def _thin(x: F64) -> npt.NDArray[np.int64]:
    """At most some hundred rows of a curve: all its ends, half of them even in row number and half in log(x)."""
    n = len(x)
    if n <= _CURVE_POINTS:
        return np.arange(n)
    even = np.linspace(0, n - 1, _CURVE_POINTS // 2).astype(int)
    logs = np.searchsorted(x, np.geomspace(max(x[x > 0].min(), 1e-9), x[-1], _CURVE_POINTS // 2)).clip(0, n - 1)
    return np.unique(np.concatenate([even, logs, [0, n - 1]]))
