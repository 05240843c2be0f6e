"""The distance against scipy, the density against draws, and known priors recovered from simulated observables."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hyp
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.special import ndtr
from scipy.stats import energy_distance

from lens_assets.science.calibration.bootstrap import bootstrap
from lens_assets.science.calibration.distance import Sliced
from lens_assets.science.calibration.fit import ALL, NUISANCES, Problem, begin_at
from lens_assets.science.calibration.model import BROAD, NAMES, PARAMETERS, log_density, prior_of, start_of
from lens_assets.science.calibration.observables import Scale
from lens_assets.science.calibration.settings import Settings
from lens_assets.science.injections.priors import prior_set

SMALL = Settings(directions=24, bootstrap_draws=20)
BRACKETS = SMALL.wings
THETA = np.arange(0.5, 3.01, 0.25)


@hyp(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40))
def test_one_direction_is_the_energy_distance_of_scipy(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n).round(1), rng.normal(0.5, 2, size=m).round(1)
    w, u = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    ours, _ = Sliced.of(x[:, None], y[:, None], 1, 0)(w, u)
    # the one random direction of one dimension is the axis itself, up to its sign
    assert ours == pytest.approx(energy_distance(x, y, w, u) ** 2, abs=1e-9)


def test_the_gradient_of_the_distance_is_that_of_its_differences() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 4)), rng.normal(0.4, 1, size=(20, 4))
    w, u = rng.dirichlet(np.ones(30)), np.full(20, 1 / 20)
    sliced = Sliced.of(x, y, 16, 0)
    value, gradient = sliced(w, u)
    numeric = np.empty(30)
    for i in range(30):
        moved = w.copy()
        moved[i] += 1e-6
        numeric[i] = (sliced(moved, u)[0] - value) / 1e-6
    # only differences between weights count: they sum to one
    assert np.allclose(gradient - gradient.mean(), numeric - numeric.mean(), atol=1e-4)


def latents(values: dict[str, float], n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws of a parameter set by the prior set's own quantile functions (not by the density under test)."""
    s = prior_of(values, prior_set("population"), "x", "x")
    z1, z2 = rng.normal(size=(2, n))
    rho = s.colour_correlation
    clumpy = (rng.random(n) < values["clumpy"]).astype(float)
    return {
        "r": s.r_mag.ppf(rng.random(n)),
        "g_r": s.g_r.ppf(ndtr(z1)),
        "r_z": s.r_z.ppf(ndtr(rho * z1 + np.sqrt(1 - rho**2) * z2)),
        "re_log": np.log10(s.re.ppf(rng.random(n))),
        "beta": s.beta.ppf(rng.random(n)),
        "clumpy": clumpy,
        "clump_fraction": np.where(clumpy > 0, s.clumps.fraction.ppf(rng.random(n)), 0.0),
        "wings": rng.choice(BRACKETS, n),
    }


TRUTH = {
    **BROAD, "r_mean": 22.9, "r_sigma": 0.8, "gr_mean": 0.55, "gr_sigma": 0.25, "rz_mean": 0.4, "rz_sigma": 0.3,
    "rho": 0.4, "re_log": -0.5, "re_dex": 0.2, "beta_hi": 0.6,
}  # fmt: skip


def test_weights_by_the_density_turn_wide_draws_into_the_wanted_ones() -> None:
    rng = np.random.default_rng(2)
    z = latents(dict(BROAD), 60_000, rng)
    w = np.exp(log_density(TRUTH, z, BRACKETS) - log_density(BROAD, z, BRACKETS))
    assert w.mean() == pytest.approx(1, abs=0.05)  # both densities have the same (unwritten) constant
    w /= w.sum()
    direct = latents(TRUTH, 60_000, rng)
    for name in ("r", "g_r", "r_z", "re_log", "beta"):
        mean = float(w @ z[name])
        assert mean == pytest.approx(direct[name].mean(), abs=0.03), name
        assert np.sqrt(w @ (z[name] - mean) ** 2) == pytest.approx(direct[name].std(), abs=0.03), name
    assert np.corrcoef(direct["g_r"], direct["r_z"])[0, 1] == pytest.approx(0.4, abs=0.05)


def test_the_wings_have_the_mean_that_is_asked_for() -> None:
    z = {**latents(dict(BROAD), 3, np.random.default_rng(0)), "wings": np.array(BRACKETS)}
    for mean in (2.6, 3.5, 4.3):
        plain = log_density({**BROAD, "wings": 3.5}, z, BRACKETS)
        p = np.exp(log_density({**BROAD, "wings": mean}, z, BRACKETS) - plain) / 3
        assert p.sum() == pytest.approx(1, abs=1e-6)
        assert p @ np.array(BRACKETS) == pytest.approx(mean, abs=1e-6)


def observed(z: dict[str, np.ndarray], theta: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """A toy telescope: what a lens of these draws looks like, with noise. Visibility falls with magnitude."""
    n = len(theta)
    magnified = z["r"] - 2.5 * np.log10(1 + 1.2 / np.maximum(z["beta"], 0.05))
    mag = magnified + 0.15 * rng.normal(size=n)
    return pl.DataFrame(
        {
            "obs_mag_r": mag,
            "obs_g_r": z["g_r"] + 0.1 * rng.normal(size=n),
            "obs_r_z": z["r_z"] + 0.1 * rng.normal(size=n),
            "obs_visibility": 2.0 + 0.4 * (22.0 - mag) + 0.1 * rng.normal(size=n),
            "obs_surface_brightness": mag + 5 * (z["re_log"] + 0.5) + 0.2 * rng.normal(size=n),
            "obs_width": 1 + 1.5 * 10 ** z["re_log"] + 0.1 * rng.normal(size=n),
            "obs_radius": theta * (1 + 0.3 * z["beta"]) + 0.1 * rng.normal(size=n),
            "obs_asymmetry": z["beta"] + 0.1 * rng.normal(size=n),
            "obs_area": 2 + z["re_log"] - 0.1 * (mag - 22) + 0.05 * rng.normal(size=n),
            "obs_seen": np.ones(n),
        }
    )


def proposals(n: int, rng: np.random.Generator) -> pl.DataFrame:
    z = latents(dict(BROAD), n, rng)
    theta = rng.choice(THETA, n)
    head = pl.DataFrame(
        {
            "source_mag_r": z["r"], "source_mag_g": z["r"] + z["g_r"], "source_mag_z": z["r"] - z["r_z"],
            "source_re": 10 ** z["re_log"], "beta": z["beta"], "clump_fraction": z["clump_fraction"],
            "family": np.where(z["clumpy"] > 0, "clumpy", "sersic"), "psf_wings": z["wings"], "theta_e": theta,
            "galaxy_id": [f"h{i % 90}" for i in range(n)], "coarse_cell": rng.choice([5, 6], n),
            "round": np.zeros(n, int),
        }
    )  # fmt: skip
    return pl.concat([head, observed(z, theta, rng)], how="horizontal")


def lenses(n: int, rng: np.random.Generator, half: float = 2.0) -> pl.DataFrame:
    """A parent of ``4 n``: every fourth found by spectra whatever it looks like; the others by a ramp in visibility."""
    z = latents(TRUTH, 4 * n, rng)
    theta = np.exp(rng.normal(np.log(1.6), 0.3, 4 * n))
    seen = observed(z, theta, rng)
    blind = np.arange(4 * n) % 4 == 0
    found = rng.random(4 * n) < 1 / (1 + np.exp(-(seen["obs_visibility"].to_numpy() - half) / 0.2))
    frame = seen.with_columns(
        blind=pl.Series(blind), imaging=pl.Series(found & ~blind), sampling_weight=pl.lit(1.0),
        coarse_cell=pl.Series(rng.choice([5, 6], 4 * n, p=[0.7, 0.3])),
    )  # fmt: skip
    return frame.filter(pl.col("blind") | pl.col("imaging"))


def problem(real: pl.DataFrame, seed: int = 3) -> Problem:
    start = start_of(prior_set("population"))
    return Problem(proposals(3000, np.random.default_rng(seed)), [BROAD], real, Scale.of(real), start, SMALL)


def test_the_gradient_of_the_fit_is_that_of_its_differences() -> None:
    p = problem(lenses(40, np.random.default_rng(4)))
    begin = {**begin_at(p.start), "r_mean": 23.5, "ramp_half": 1.8}

    def value(x: np.ndarray) -> float:
        v = dict(zip(ALL, x, strict=True))
        s = p.evaluate(v)
        pull = sum(0.5 * SMALL.strength * ((v[q.name] - p.start[q.name]) / q.scale) ** 2 for q in PARAMETERS)
        return s.objective + pull

    at = np.array([begin[n] for n in ALL])
    numeric = approx_fprime(at, value, 1e-5)
    grids = dict(zip(ALL, numeric, strict=True))
    ours = dict(zip(ALL, p.gradient(begin), strict=True))
    for name in ("r_mean", "gr_sigma", "re_log", "beta_hi", "wings", "theta_mean_blind", "ramp_half", "ramp_width"):
        assert ours[name] == pytest.approx(grids[name], rel=0.02, abs=2e-3), name


def test_a_prior_wrong_by_a_magnitude_and_half_a_magnitude_in_colour_is_recovered() -> None:
    real = lenses(140, np.random.default_rng(5))
    p = problem(real)
    assert p.start["r_mean"] - TRUTH["r_mean"] > 1
    assert TRUTH["gr_mean"] - p.start["gr_mean"] > 0.4
    before = p.fit(begin_at(p.start), free=[n[0] for n in NUISANCES])
    after = p.fit(begin_at(p.start))
    assert after.objective < 0.3 * before.objective
    for name, error in {"r_mean": 0.25, "gr_mean": 0.08, "rz_mean": 0.08, "re_log": 0.06, "beta_hi": 0.12}.items():
        assert after.values[name] == pytest.approx(TRUTH[name], abs=error), name
    assert after.values["ramp_half"] == pytest.approx(2.0, abs=0.35)
    assert min(after.effective.values()) > 60


def test_images_alone_leave_the_brightness_open_and_lenses_found_without_them_close_it() -> None:
    real = lenses(140, np.random.default_rng(6), half=2.4)
    images = problem(real.filter(pl.col("imaging")))
    flat = {**begin_at(images.start), "ramp_half": 0.0, "ramp_width": 0.05}  # as if images showed all lenses
    bright = images.fit(flat, free=[n for n in ALL if not n.startswith("ramp")]).values["r_mean"]
    assert bright < TRUTH["r_mean"] - 0.25  # the bright ones are taken for all
    assert (
        images.fit(begin_at(images.start)).values["r_mean"] > bright + 0.5
    )  # a ramp explains the same lenses otherwise
    both = problem(real)
    assert both.fit(begin_at(both.start)).values["r_mean"] == pytest.approx(TRUTH["r_mean"], abs=0.25)


def test_the_order_of_lenses_changes_nothing_but_rounding() -> None:
    real = lenses(60, np.random.default_rng(7))
    values = begin_at(start_of(prior_set("population")))
    a = problem(real).evaluate(values)
    b = problem(real[::-1]).evaluate(values)
    assert a.objective == pytest.approx(b.objective, rel=1e-9)


def test_draws_of_the_fit_lie_round_it_and_not_towards_the_base_set_and_more_draws_keep_the_first() -> None:
    strong = SMALL.model_copy(update={"strength": 4.0, "bootstrap_draws": 20})  # a pull that shows
    start = start_of(prior_set("population"))
    real = lenses(40, np.random.default_rng(8))
    p = Problem(proposals(1500, np.random.default_rng(3)), [BROAD], real, Scale.of(real), start, strong)
    at = p.fit(begin_at(start))
    draws = bootstrap(p, at, real.height, strong)
    assert np.array_equal(bootstrap(p, at, real.height, strong.model_copy(update={"bootstrap_draws": 2})), draws[:2])
    pulled = [n for n in NAMES if abs(at.values[n] - start[n]) > 0.15 * PARAMETERS[NAMES.index(n)].scale]
    assert len(pulled) >= 5
    off = []
    for name in pulled:
        d = draws[:, ALL.index(name)]
        off.append((np.median(d) - at.values[name]) * np.sign(start[name] - at.values[name]) / d.std())
    assert abs(np.mean(off)) < 0.35, dict(zip(pulled, off, strict=True))
