"""The error of a fit: refits to lenses, and to hosts of the injections, drawn with replacement; every draw is kept.

The draws are the fit's uncertainty as the surface uses it (``completeness.prior_error``): the parameters move together in
them, which intervals of one parameter at a time do not tell.

Lenses drawn again are still as many lenses: a refit weighs them against the pull to the base set as the fit itself does. Their
Kish number halves, because a resample repeats some; with that as their weight the refits had a pull twice as strong, and lay
on its side of the fit (on the demonstration the fitted radius of the sources lay outside the 68 % of its own bootstrap).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.calibration.fit import ALL, Problem, Solution
from lens_assets.science.calibration.settings import Settings
from lens_assets.science.columns.calibration import CALIBRATION_DRAWS
from lens_assets.science.hashing import generator

F64 = npt.NDArray[np.float64]


def bootstrap(problem: Problem, at: Solution, n_lenses: int, settings: Settings) -> F64:
    """Refits (draws, parameters and nuisances in the order of ``ALL``) from ``at``; draw ``d`` is keyed by the seed and ``d``,
    so that more draws leave the first ones as they are."""
    n_hosts = int(problem.host.max()) + 1
    worth = problem.lenses(problem.u)
    out = np.empty((settings.bootstrap_draws, len(ALL)))
    for d in range(settings.bootstrap_draws):
        rng = generator("calibration bootstrap", settings.seed, d)
        times = rng.multinomial(n_lenses, np.full(n_lenses, 1 / n_lenses))
        hosts = rng.multinomial(n_hosts, np.full(n_hosts, 1 / n_hosts)).astype(float)
        u = {g: v * times for g, v in problem.u.items()}
        found = problem.fit(at.values, u=u, hosts=hosts, worth=worth, steps=25)
        out[d] = [found.values[name] for name in ALL]
    return out


def draws_table(draws: F64) -> pl.DataFrame:
    """The draws as the table ``calibration_draws``: one row a draw and parameter."""
    n, m = draws.shape
    return CALIBRATION_DRAWS.conform(
        pl.DataFrame(
            {"draw": np.repeat(np.arange(n), m), "parameter": list(ALL) * n, "drawn_value": draws.ravel()},
            schema_overrides={"parameter": pl.String},
        )
    )
