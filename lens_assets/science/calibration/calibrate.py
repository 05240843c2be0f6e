"""The whole calibration: halves, hosts, rounds of proposals, the fit with its bootstrap, and the judgement.

Population Monte Carlo (Cappe et al. 2004): each round proposes from a widened copy of the last fit, and the rounds end
when the distance on a validation fold of the fitting half no longer falls. The judging half is looked at once, after
everything is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.calibration.bootstrap import bootstrap, draws_table
from lens_assets.science.calibration.fit import ALL, NUISANCES, Problem, Solution, begin_at
from lens_assets.science.calibration.hosts import HostMatch, core_properties, early_types, like_lenses
from lens_assets.science.calibration.judge import judge
from lens_assets.science.calibration.lenses import FIT, JUDGE, Lenses, check_halves
from lens_assets.science.calibration.model import BROAD, PARAMETERS, prior_of, start_of
from lens_assets.science.calibration.observables import Scale
from lens_assets.science.calibration.sample import cells_of, observe_lenses, proposal_hosts, propose
from lens_assets.science.calibration.settings import Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.batch import StampSource
from lens_assets.science.injections.priors import PriorSet, prior_set
from lens_assets.science.injections.settings import Settings as InjectionSettings

F64 = npt.NDArray[np.float64]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """The fitted prior set and everything behind it.

    ``parameters``, ``draws``, ``rounds``, ``judgement``: tables of the column registry. ``keep``: ids of the hosts that resemble
    lens galaxies. ``judges``: ids of the lenses that took no part. ``facts``: plain numbers.
    """

    priors: PriorSet
    parameters: pl.DataFrame
    draws: pl.DataFrame
    rounds: pl.DataFrame
    judgement: pl.DataFrame
    lenses: pl.DataFrame
    keep: list[str]
    facts: dict[str, Any]


def calibrate(
    sample: pl.DataFrame, lenses: Lenses, stamps: StampSource, injections: InjectionSettings, settings: Settings,
    log: Log = lambda line: None,
) -> Calibration:  # fmt: skip
    """Fit the prior set to the fitting half of ``lenses`` and judge it on the other.

    sample : the table ``splits`` of objects with a stamp (hosts are those of its host role).
    Raises :class:`BadInput` when the fitting half holds fewer than ``settings.min_lenses`` lenses.
    """
    half = {name: _observed(lenses.half(name), stamps) for name in (FIT, JUDGE)}
    check_halves(half[FIT], half[JUDGE])
    if half[FIT].height < settings.min_lenses:
        raise BadInput(
            f"{half[FIT].height} held-out lenses in the fitting half, at least {settings.min_lenses} are needed"
        )
    hosts, match = _hosts(sample, half[FIT], stamps, injections, settings)
    base = prior_set(settings.base)
    start = start_of(base)
    scale = Scale.of(half[FIT])
    cells, counts = np.unique(half[FIT]["coarse_cell"].to_numpy(), return_counts=True)
    shares = {int(c): float(n) for c, n in zip(cells, counts, strict=True) if c >= 0}

    fold = half[FIT]["fold"].to_numpy()
    learn, check = half[FIT].filter(pl.Series(~fold)), half[FIT].filter(pl.Series(fold))
    densities: list[Mapping[str, float]] = []
    proposals = pl.DataFrame()
    rounds: list[dict[str, Any]] = []
    proposal: Mapping[str, float] = BROAD
    best = np.inf
    values = begin_at(start)
    for number in range(settings.rounds):
        drawn = propose(
            hosts, shares, prior_of(proposal, base, "proposal", "calibration"), number, stamps, injections, settings
        )
        densities.append(proposal)
        proposals = drawn if proposals.is_empty() else pl.concat([proposals, drawn])
        fitted = Problem(proposals, densities, learn, scale, start, settings).fit(values)
        values = fitted.values
        unseen = Problem(proposals, densities, check, scale, start, settings).evaluate(values)
        row = _round(number, drawn.height, fitted, unseen)
        rounds.append(row)
        log("round {round}: {n_proposals} proposals, validation distance {validation_distance:.4f}".format(**row))
        if best - row["validation_distance"] < settings.least_gain * row["validation_distance"] and number:
            break
        best = min(best, row["validation_distance"])
        proposal = _widened(values)

    whole = Problem(proposals, densities, half[FIT], scale, start, settings)
    before = whole.fit(begin_at(start), free=[n[0] for n in NUISANCES])
    after = whole.fit(values)
    draws = bootstrap(whole, after, half[FIT].height, settings)
    shares_of_base = _share_of_base(whole, after)
    log(f"fitted on {half[FIT].height} lenses; {settings.bootstrap_draws} draws of the bootstrap")
    unseen_half = Problem(proposals, densities, half[JUDGE], scale, start, settings)
    judgement = judge(unseen_half, half[JUDGE], proposals, before.values, after.values, settings)
    reference = f"{base.name} fitted to {half[FIT].height} held-out lenses (calibration, seed {settings.seed})"
    facts = {
        "n": {FIT: half[FIT].height, JUDGE: half[JUDGE].height, "hosts": hosts.height, "proposals": proposals.height},
        "blind": {name: int(half[name]["blind"].sum()) for name in half},
        "rejected": lenses.rejected.counts,
        "hosts": match.balance,
        "before": _plain(before),
        "after": _plain(after),
        "warnings": _warnings(after, half[FIT], settings),
    }
    return Calibration(
        priors=prior_of(after.values, base, "calibrated", reference),
        parameters=_parameters(start, after, draws, shares_of_base),
        draws=draws_table(draws),
        rounds=pl.DataFrame(rounds),
        judgement=judgement,
        lenses=pl.concat([f.select("galaxy_id", "system_id", "half", "blind", "imaging", "sampling_weight") for f in half.values()])
        .sort("galaxy_id"),
        keep=sorted(hosts["galaxy_id"].to_list()),
        facts=facts,
    )  # fmt: skip


def _observed(rows: pl.DataFrame, stamps: StampSource) -> pl.DataFrame:
    cell = cells_of(rows["psfsize_r"].to_numpy(), rows["depth_r"].cast(pl.Float64).to_numpy())
    return pl.concat([rows.with_columns(coarse_cell=pl.Series(cell)), observe_lenses(rows, stamps)], how="horizontal")


def _hosts(
    sample: pl.DataFrame, lenses: pl.DataFrame, stamps: StampSource, injections: InjectionSettings, settings: Settings
) -> tuple[pl.DataFrame, HostMatch]:
    hosts = proposal_hosts(sample, injections)
    if settings.early_hosts:
        hosts = early_types(hosts, sample)
    rows = hosts.select("galaxy_id").join(sample, on="galaxy_id", how="left", maintain_order="left")
    cores = [core_properties(stamps.images(f["galaxy_id"].to_list())) for f in (rows, lenses)]
    match = like_lenses(rows, cores[0], lenses, cores[1], settings)
    return hosts.filter(pl.Series(match.keep)), match


def _widened(values: Mapping[str, float]) -> dict[str, float]:
    """A proposal around a fit: scatters 1.3 times as wide, families and wings in equal parts, offsets up to the edge."""
    wide = {p.name: values[p.name] for p in PARAMETERS}
    for name in ("r_sigma", "gr_sigma", "rz_sigma", "re_dex"):
        limit = next(p.hi for p in PARAMETERS if p.name == name)
        wide[name] = min(1.3 * wide[name], limit)
    return wide | {"clumpy": BROAD["clumpy"], "wings": BROAD["wings"], "beta_hi": BROAD["beta_hi"]}


def _share_of_base(problem: Problem, at: Solution) -> dict[str, float]:
    """How far each parameter follows when the base set's value is moved: 0 where the lenses decide, 1 where the base
    set does. A parameter that nothing constrains has a narrow bootstrap (the pull holds it), and this tells it."""
    start = dict(problem.start)
    found = {}
    for p in PARAMETERS:
        step = (0.25 if start[p.name] + 0.25 * p.scale <= p.hi else -0.25) * p.scale
        problem.start = {**start, p.name: start[p.name] + step}
        found[p.name] = float(
            np.clip((problem.fit(at.values, steps=25).values[p.name] - at.values[p.name]) / step, 0, 1)
        )
    problem.start = start
    return found


def _parameters(
    start: Mapping[str, float], after: Solution, draws: F64, base_share: Mapping[str, float]
) -> pl.DataFrame:
    rows = []
    known = {p.name: p for p in PARAMETERS}
    for i, name in enumerate(ALL):
        lo68, hi68, lo95, hi95 = np.quantile(draws[:, i], [0.16, 0.84, 0.025, 0.975])
        p = known.get(name)
        rows.append(
            {
                "parameter": name,
                "parameter_meaning": p.meaning if p else _nuisance(name),
                "parameter_unit": p.unit if p else "1",
                "base_value": start.get(name),
                "fitted_value": after.values[name],
                "fitted_lo68": float(lo68),
                "fitted_hi68": float(hi68),
                "fitted_lo95": float(lo95),
                "fitted_hi95": float(hi95),
                "base_share": base_share.get(name),
                "identified": base_share[name] < 0.5 if p else None,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _nuisance(name: str) -> str:
    words = {"theta_mean": "log median Einstein radius of the", "theta_sigma": "its log scatter of the"}
    for stem, told in words.items():
        if name.startswith(stem):
            return f"nuisance: {told} {name.removeprefix(stem + '_')} group"
    return {
        "ramp_half": "nuisance: log10 visibility at which half are found in images",
        "ramp_width": "nuisance: width of that ramp",
    }[name]


def _round(number: int, n: int, fitted: Solution, unseen: Solution) -> dict[str, Any]:
    return {
        "round": number,
        "n_proposals": n,
        "fit_distance": fitted.objective / max(sum(fitted.lenses.values()), 1e-9),
        "validation_distance": unseen.objective / max(sum(unseen.lenses.values()), 1e-9),
        "n_validation": sum(unseen.lenses.values()),
        **{f"effective_{g}": fitted.effective.get(g) for g in ("blind", "imaging")},
    }


def _warnings(after: Solution, real: pl.DataFrame, settings: Settings) -> list[str]:
    out = []
    for group, size in after.effective.items():
        if size < settings.min_effective:
            out.append(f"{group}: {size:.0f} effective injections, fewer than {settings.min_effective:.0f}")
    blind = int(real["blind"].sum())
    if blind < settings.min_blind:
        out.append(
            f"{blind} lenses found without images, fewer than {settings.min_blind}: how many sources are faint is an "
            "extrapolation of the family beyond what images show"
        )
    return out


def _plain(s: Solution) -> dict[str, Any]:
    return {
        "values": s.values, "objective": s.objective, "distance": s.distance, "lenses": s.lenses,
        "effective": s.effective,
    }  # fmt: skip
