"""The judgement: real lenses that took no part against injections weighted to the base set and to the fitted one.

The distance is in units of the real sample's own mean |Y - Y'|: two samples of one population, of n lenses, are about
1 / n apart. Nuisances (Einstein radii, the ramp) are those of the fitting half, for either set fitted for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.calibration.distance import Sliced
from lens_assets.science.calibration.fit import Problem
from lens_assets.science.calibration.observables import NAMES
from lens_assets.science.calibration.settings import Settings
from lens_assets.science.hashing import generator

F64 = npt.NDArray[np.float64]
TOGETHER = "all together"


def judge(
    problem: Problem, real: pl.DataFrame, proposals: pl.DataFrame, before: Mapping[str, float],
    after: Mapping[str, float], settings: Settings,
) -> pl.DataFrame:  # fmt: skip
    """One row a group and observable (and one for all together), before and after, with bootstrap intervals over lenses.

    ``problem`` holds the judging half ``real``; ``before`` and ``after`` are values of parameters and nuisances.
    """
    rows = []
    weights = {"before": problem.weights(before), "after": problem.weights(after)}
    n = problem.lenses(problem.u)
    for group in weights["after"]:
        u = problem.u[group] / problem.u[group].sum()
        for name in (TOGETHER, *NAMES):
            if name == TOGETHER:
                sliced = problem.sliced
            else:
                k = list(NAMES).index(name)
                sliced = Sliced.of(problem.x[:, k : k + 1], problem.y[:, k : k + 1], 1, 0)
            row: dict[str, Any] = {
                "selection_group": group,
                "observable_name": name,
                "n_lenses": int((problem.u[group] > 0).sum()),
                "n_effective_lenses": n[group],
                "null_distance": 1.0 / n[group],
            }
            if name != TOGETHER:
                row["real_median"] = _median(real[name], problem.u[group])
            for side in ("before", "after"):
                w = weights[side][group]
                value, lo, hi = _distance(problem, sliced, group, w, u, settings, (group, name))
                row |= {f"distance_{side}": value, f"distance_{side}_lo95": lo, f"distance_{side}_hi95": hi}
                row[f"effective_{side}"] = float(1 / np.square(w).sum())
                if name != TOGETHER:
                    row[f"median_{side}"] = _median(proposals[name], w)
            rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _distance(
    problem: Problem, sliced: Sliced, group: str, w: F64, u: F64, settings: Settings, key: tuple[str, ...]
) -> tuple[float, float, float]:
    """Distance and its 95 % interval over lenses; the same draws for either set, less the bias that resampling adds."""
    unit = problem.unit
    value = sliced(w, u)[0] / unit
    values = []
    m = len(u)
    for d in range(settings.bootstrap_draws):
        times = generator("calibration judgement", settings.seed, *key, d).multinomial(m, np.full(m, 1 / m))
        v = u * times
        if v.sum() > 0:
            values.append(sliced(w, v / v.sum())[0] / unit)
    lo, hi = np.quantile(values, [0.025, 0.975]) - (np.mean(values) - value)
    return float(value), float(max(lo, 0.0)), float(hi)


def _median(column: pl.Series, w: F64) -> float | None:
    """Weighted median of what is measured."""
    v = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    ok = np.isfinite(v) & (w > 0)
    if not ok.any():
        return None
    order = np.argsort(v[ok], kind="stable")
    total = np.cumsum(w[ok][order])
    return float(v[ok][order][np.searchsorted(total, total[-1] / 2)])
