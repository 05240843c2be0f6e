"""Densities against scipy and the engine's own draws, and what weights cannot do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.integrate import quad
from scipy.stats import rayleigh, truncnorm

from lens_assets.science.calibration.model import NAMES
from lens_assets.science.completeness.counting import members
from lens_assets.science.completeness.density import OUTERMOST, latents_of, log_density, log_ratio
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.distributions import Area, Fixed, LogNormal, Normal, Rayleigh, Uniform

spec = importlib.util.spec_from_file_location("fitted_survey", Path(__file__).with_name("fitted.py"))
survey = importlib.util.module_from_spec(spec)
spec.loader.exec_module(survey)
FIT = survey.FIT
OTHER = survey.OTHER
GRID = survey.GRID
fitted = survey.fitted
draws = survey.draws
injections = survey.injections
surface = survey.surface


@pytest.fixture(scope="module")
def plain() -> pl.DataFrame:
    return injections(FIT, 150, 1, hosts=40)


@pytest.mark.parametrize(
    ("prior", "against"),
    [
        (Uniform(kind="uniform", lo=0.2, hi=0.7), None),
        (Area(kind="area", lo=0.1, hi=0.6), None),
        (Normal(kind="normal", mean=2.4, sigma=0.8, lo=2.0, hi=5.0), truncnorm(-0.5, 3.25, 2.4, 0.8)),
        (Normal(kind="normal", mean=0.1, sigma=0.3), truncnorm(-np.inf, np.inf, 0.1, 0.3)),
        (LogNormal(kind="lognormal", median=0.3, dex=0.3, lo=0.03, hi=1.5), None),
        (Rayleigh(kind="one-minus-rayleigh", scale=0.3, lo=0.2), None),
    ],
)
def test_a_density_integrates_to_the_quantiles_of_the_same_distribution(prior, against):
    lo, middle = (float(prior.ppf(np.array(u))) for u in (1e-9, 0.37))
    mass = quad(lambda x: np.exp(log_density(prior, np.array([x]))[0]), lo, middle, limit=200)[0]
    assert mass == pytest.approx(0.37, abs=1e-5)
    if against is not None:
        x = np.linspace(lo, middle, 7)
        np.testing.assert_allclose(log_density(prior, x), against.logpdf(x), rtol=1e-9)
    if isinstance(prior, Rayleigh):
        x = np.linspace(0.3, 0.9, 5)
        np.testing.assert_allclose(
            log_density(prior, x), rayleigh(scale=0.3).logpdf(1 - x) - np.log(rayleigh(scale=0.3).cdf(0.8)), rtol=1e-9
        )


def test_outside_its_range_a_distribution_has_no_density_and_a_fixed_value_none_at_all():
    assert log_density(Area(kind="area", lo=0.1, hi=0.6), np.array([0.05, 0.7])).tolist() == [-np.inf, -np.inf]
    with pytest.raises(BadInput, match="no density"):
        log_density(Fixed(kind="fixed", value=2.0), np.array([2.0]))


def test_weights_turn_the_engines_draws_of_one_set_into_those_of_another_and_the_found_share_too():
    have, want = injections(FIT, 1200, 3), injections(OTHER, 1200, 4)
    seen, direct = (members(rows, Grid.of(GRID))[0] for rows in (have, want))
    x, y = latents_of(seen), latents_of(direct)
    log, beyond = log_ratio(x, fitted(OTHER), fitted(FIT), mixture=True, colours="normal")
    w = np.exp(log)
    assert beyond == 0.0
    n = (w.sum() ** 2 / (w**2).sum(), len(y["beta"]))
    assert w.mean() == pytest.approx(1.0, abs=4 * w.std() / np.sqrt(len(w)))
    for name in ("r_mag", "g_r", "r_z", "re", "beta", "is_clumpy", "fraction"):
        mean, error = np.average(x[name], weights=w), y[name].std() * np.hypot(n[0] ** -0.5, n[1] ** -0.5)
        assert mean == pytest.approx(y[name].mean(), abs=4 * error), name
        spread = np.sqrt(np.average((x[name] - mean) ** 2, weights=w))
        assert spread == pytest.approx(y[name].std(), rel=0.08), name
    both = np.cov(x["g_r"], x["r_z"], aweights=w)
    assert both[0, 1] / np.sqrt(both[0, 0] * both[1, 1]) == pytest.approx(
        np.corrcoef(y["g_r"], y["r_z"])[0, 1], abs=0.04
    )
    found, truth = (f["injection_score"].to_numpy() >= 0.5 for f in (seen, direct))
    error = 0.5 * np.hypot(n[0] ** -0.5, n[1] ** -0.5)
    assert abs(found.mean() - truth.mean()) > 5 * error  # the two sets do differ
    assert np.average(found, weights=w) == pytest.approx(truth.mean(), abs=3 * error)


def test_draws_that_reach_beyond_all_injections_say_how_much_and_bound_what_lies_there(plain):
    wide, narrow = FIT | {"beta_hi": 0.65}, FIT | {"beta_hi": 0.45}
    seen = members(injections(FIT, 1500, 8), Grid.of(GRID))[0]
    x, found = latents_of(seen), seen["injection_score"].to_numpy() >= 0.5
    log, beyond = log_ratio(x, fitted(wide), fitted(FIT), mixture=True, colours="normal")
    w = np.exp(log)
    assert beyond == pytest.approx(1 - (0.55 / 0.65) ** 2)
    assert w.mean() == pytest.approx(1.0, abs=0.01)
    edge = found[x["beta"] ** 2 > (1 - OUTERMOST) * 0.55**2].mean()
    assert np.average(found, weights=w) == pytest.approx((1 - beyond) * found.mean() + beyond * edge, abs=0.01)
    direct = members(injections(wide, 1500, 9), Grid.of(GRID))[0]["injection_score"].to_numpy() >= 0.5
    assert found.mean() - direct.mean() > 0.02
    assert 0 < np.average(found, weights=w) - direct.mean() < 0.3 * (found.mean() - direct.mean()) + 0.01
    log, beyond = log_ratio(x, fitted(narrow), fitted(FIT), mixture=True, colours="normal")
    assert beyond == 0.0
    assert np.average(found, weights=np.exp(log)) == pytest.approx(found[x["beta"] <= 0.45].mean(), abs=1e-9)
    s = surface(plain, draws([wide] * 10 + [FIT] * 10))
    assert s.cells["prior_beyond"].drop_nulls().unique().to_list() == [pytest.approx((1 - (0.55 / 0.65) ** 2) / 2)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shear": Normal(kind="normal", mean=0.0, sigma=0.08)}, "do not account"),
        ({"families": {"sersic": 0.5, "clumpy": 0.4, "point": 0.1}}, "no injection is of the family"),
        ({"re": LogNormal(kind="lognormal", median=0.3, dex=0.3, lo=0.03, hi=2.5)}, "reaches from"),
    ],
)
def test_sets_that_differ_in_what_has_no_ratio_are_refused_by_name(plain, change, words):
    x = latents_of(members(plain, Grid.of(GRID))[0])
    other = fitted(FIT).model_copy(update=change)
    with pytest.raises(BadInput, match=words):
        log_ratio(x, other, fitted(FIT), mixture=True, colours="normal")


def test_every_fitted_parameter_of_a_draw_is_used_but_the_wings_which_are_the_variants():
    x = latents_of(members(injections(FIT, 50, 14), Grid.of(GRID))[0])
    for name in NAMES:
        moved, _ = log_ratio(
            x, fitted(FIT | {name: FIT[name] * 1.05 + 0.01}), fitted(FIT), mixture=True, colours="normal"
        )
        assert np.abs(moved).max() > 0 or name == "wings", name
