"""The fit: importance weights on wide proposals, so that weighted injections have the real lenses' observables.

For parameters p an injection of latent draws z weighs ``density(z | p) / proposal(z)``, times what is nobody's business
(nuisances): the distribution of Einstein radii of each group, its mix of observing conditions, and, for lenses found in
images, a logistic ramp in log visibility. The weighted energy distance to the real lenses' observables is minimised
(a minimum-distance estimator: consistent without a likelihood, and it does not break where no member of the family is
right), with a weak pull to the base set that decides only what the lenses leave open.

The proposals of all rounds count together, with the mixture of their densities as proposal (Veach & Guibas 1995; Owen &
Zhou 2000, doi:10.1080/01621459.2000.10473909), so that no weight can run away where one of them is thin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp
from threadpoolctl import threadpool_limits

from lens_assets.science.calibration.distance import Sliced
from lens_assets.science.calibration.lenses import GROUPS, group_weights
from lens_assets.science.calibration.model import NAMES, PARAMETERS, latents_of, log_density
from lens_assets.science.calibration.observables import Scale
from lens_assets.science.calibration.settings import Settings

F64 = npt.NDArray[np.float64]

NUISANCES: tuple[tuple[str, float, float, float], ...] = (
    ("theta_mean_blind", np.log(0.5), np.log(3.0), np.log(1.5)),
    ("theta_sigma_blind", 0.15, 1.5, 0.5),
    ("theta_mean_imaging", np.log(0.5), np.log(3.0), np.log(1.5)),
    ("theta_sigma_imaging", 0.15, 1.5, 0.5),
    ("ramp_half", 0.0, 4.0, 1.5),
    ("ramp_width", 0.05, 0.8, 0.3),
)
"""Name, range and start: median and log scatter of the Einstein radii (log arcsec) per group, and the ramp of what is
found in images (log10 of the detectability statistic)."""
ALL = (*NAMES, *(n[0] for n in NUISANCES))


@dataclass(frozen=True)
class Solution:
    """Fitted values by name (parameters and nuisances), the objective, and per group the distance, how many lenses it
    rests on and the effective number of injections."""

    values: dict[str, float]
    objective: float
    distance: dict[str, float]
    lenses: dict[str, float]
    effective: dict[str, float]


class Problem:
    """Proposals and real lenses on common axes. ``rows`` of both sides need the columns of ``sample`` and ``lenses``."""

    def __init__(
        self, proposals: pl.DataFrame, densities: Sequence[Mapping[str, float]], real: pl.DataFrame, scale: Scale,
        start: Mapping[str, float], settings: Settings,
    ) -> None:  # fmt: skip
        self.settings, self.start = settings, dict(start)
        self.z = latents_of(proposals)
        counts = np.bincount(proposals["round"].to_numpy(), minlength=len(densities)).astype(float)
        each = [np.log(c / counts.sum()) + log_density(d, self.z, settings.wings)
                for c, d in zip(counts, densities, strict=True) if c]  # fmt: skip
        self.log_q = logsumexp(np.stack(each), axis=0)
        self.log_theta = np.log(proposals["theta_e"].to_numpy())
        self.visibility = proposals["obs_visibility"].to_numpy()
        _, self.host = np.unique(proposals["galaxy_id"].to_numpy(), return_inverse=True)
        self.x, self.y = scale.matrix(proposals), scale.matrix(real)
        self.cell = proposals["coarse_cell"].to_numpy().astype(int)
        cell = real["coarse_cell"].to_numpy().astype(int)
        known = np.isin(cell, self.cell)
        self.u = {g: np.where(known, v, 0.0) for g, v in group_weights(real).items()}
        self.real_cell = cell
        self.sliced = Sliced.of(self.x, self.y, settings.directions, settings.seed)
        every = np.ones(len(self.y)) / max(len(self.y), 1)
        self.unit = _spread(self.y, every)

    def lenses(self, u: Mapping[str, F64]) -> dict[str, float]:
        """Effective number of lenses per group under weights ``u``."""
        return {g: float(u[g].sum() ** 2 / np.square(u[g]).sum()) if u[g].any() else 0.0 for g in GROUPS}

    def log_weights(self, group: str, v: Mapping[str, float], u: F64, core: F64) -> F64:
        """Unnormalised log weights of the proposals for one group; ``core``: log density ratio."""
        mean, sigma = v[f"theta_mean_{group}"], v[f"theta_sigma_{group}"]
        out = core - 0.5 * ((self.log_theta - mean) / sigma) ** 2 - self.log_theta
        have = np.bincount(self.cell, minlength=max(self.cell.max(), self.real_cell.max()) + 1).astype(float)
        want = np.bincount(np.clip(self.real_cell, 0, None), np.where(self.real_cell >= 0, u, 0.0), minlength=len(have))
        with np.errstate(divide="ignore", invalid="ignore"):
            out = out + np.log(np.where(have > 0, want / have, 0.0))[self.cell]
        if group == "imaging":
            out = out + log_expit((self.visibility - v["ramp_half"]) / v["ramp_width"])
        return np.asarray(out)

    def weights(self, values: Mapping[str, float], u: Mapping[str, F64] | None = None) -> dict[str, F64]:
        """Normalised weights (n,) of the proposals for each group that has lenses."""
        u = self.u if u is None else u
        core = log_density(values, self.z, self.settings.wings) - self.log_q
        found = {}
        for g in GROUPS:
            if u[g].any():
                lw = self.log_weights(g, values, u[g], core)
                found[g] = np.exp(lw - logsumexp(lw))
        return found

    def evaluate(self, values: Mapping[str, float], u: Mapping[str, F64] | None = None) -> Solution:
        """Distances and effective numbers at given values, without fitting."""
        u = self.u if u is None else u
        w = self.weights(values, u)
        distance = {g: self.sliced(w[g], u[g] / u[g].sum())[0] / self.unit for g in w}
        effective = {g: float(1 / np.square(w[g]).sum()) for g in w}
        lenses = self.lenses(u)
        total = sum(lenses[g] * distance[g] for g in w)
        return Solution({n: float(values[n]) for n in ALL}, float(total), distance, lenses, effective)

    @threadpool_limits.wrap(limits=1)
    def fit(
        self, begin: Mapping[str, float], *, u: Mapping[str, F64] | None = None, hosts: F64 | None = None,
        worth: Mapping[str, float] | None = None, free: Sequence[str] = ALL, steps: int = 150,
    ) -> Solution:  # fmt: skip
        """Minimise from ``begin``. ``u``: weights of the lenses (default: their own); ``hosts``: multiplicity of each
        host (a bootstrap); ``worth``: how many lenses each group counts for against the pull (default: the effective
        number under ``u``); ``free``: what may move."""
        u = self.u if u is None else u
        extra = None if hosts is None else np.log(np.maximum(hosts, 1e-300))[self.host]
        lenses = self.lenses(u) if worth is None else worth
        index = [ALL.index(n) for n in free]
        limits = {p.name: (p.lo, p.hi) for p in PARAMETERS} | {n[0]: (n[1], n[2]) for n in NUISANCES}
        span = np.array([limits[n][1] - limits[n][0] for n in ALL])
        low = np.array([limits[n][0] for n in ALL])
        vector = (np.array([begin[n] for n in ALL]) - low) / span

        def values_of(x: F64) -> dict[str, float]:
            full = vector.copy()
            full[index] = x
            return dict(zip(ALL, (low + full * span).tolist(), strict=True))

        def objective(x: F64) -> tuple[float, F64]:
            total, gradient = self._objective(values_of(x), u, lenses, extra)
            return total, (gradient * span)[index]

        found = minimize(
            objective, vector[index], jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(index),
            options={"maxiter": steps, "ftol": 1e-7},
        )  # fmt: skip
        return self.evaluate(values_of(found.x), u)

    def gradient(self, values: Mapping[str, float]) -> F64:
        """Gradient of what is minimised by all parameters and nuisances, in the order of ``ALL``."""
        return self._objective(dict(values), self.u, self.lenses(self.u), None)[1]

    def _objective(
        self, v: dict[str, float], u: Mapping[str, F64], lenses: Mapping[str, float], extra: F64 | None
    ) -> tuple[float, F64]:
        core = log_density(v, self.z, self.settings.wings) - self.log_q
        core = core if extra is None else core + extra
        slopes = self._slopes(v, core, extra)
        total, gradient = 0.0, np.zeros(len(ALL))
        for g in GROUPS:
            if not u[g].any():
                continue
            lw = self.log_weights(g, v, u[g], core)
            w = np.exp(lw - logsumexp(lw))
            value, by_w = self.sliced(w, u[g] / u[g].sum())
            pull = w * (by_w - float(w @ by_w)) * lenses[g] / self.unit
            total += lenses[g] * value / self.unit
            gradient[: len(NAMES)] += slopes @ pull
            self._nuisance_gradient(g, v, pull, gradient)
        for i, p in enumerate(PARAMETERS):
            away = (v[p.name] - self.start[p.name]) / p.scale
            total += 0.5 * self.settings.strength * away**2
            gradient[i] += self.settings.strength * away / p.scale
        return total, gradient

    def _slopes(self, v: dict[str, float], core: F64, extra: F64 | None) -> F64:
        """d log density / d parameter, (parameters, n), by differences (the density is a sum of short formulas)."""
        out = np.empty((len(NAMES), len(core)))
        reference = core + self.log_q - (0.0 if extra is None else extra)
        for i, p in enumerate(PARAMETERS):
            h = 1e-5 * (p.hi - p.lo)
            h = -h if v[p.name] + h > p.hi else h
            out[i] = (log_density({**v, p.name: v[p.name] + h}, self.z, self.settings.wings) - reference) / h
        return out

    def _nuisance_gradient(self, group: str, v: Mapping[str, float], pull: F64, gradient: F64) -> None:
        mean, sigma = v[f"theta_mean_{group}"], v[f"theta_sigma_{group}"]
        t = (self.log_theta - mean) / sigma
        gradient[ALL.index(f"theta_mean_{group}")] += float(pull @ t) / sigma
        gradient[ALL.index(f"theta_sigma_{group}")] += float(pull @ (t * t)) / sigma
        if group == "imaging":
            s = (self.visibility - v["ramp_half"]) / v["ramp_width"]
            below = np.exp(log_expit(-s))
            gradient[ALL.index("ramp_half")] -= float(pull @ below) / v["ramp_width"]
            gradient[ALL.index("ramp_width")] -= float(pull @ (below * s)) / v["ramp_width"]


def _spread(y: F64, u: F64) -> float:
    """Mean |Y - Y'| of the projections on the axes: the unit of the distance."""
    total = 0.0
    for k in range(y.shape[1]):
        order = np.argsort(y[:, k], kind="stable")
        f = np.cumsum(u[order])[:-1]
        total += 2.0 * float((f * (1 - f) * np.diff(y[order, k])).sum())
    return float(total / y.shape[1])


def begin_at(start: Mapping[str, float]) -> dict[str, float]:
    """Parameters of ``start`` and the nuisances where they begin."""
    return {**start, **{n[0]: n[3] for n in NUISANCES}}
