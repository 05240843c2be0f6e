"""The error of fitted priors: densities against scipy and the engine's own draws, weights against drawing again, and an
interval that covers where the fit is wrong by its known error."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hyp
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import rayleigh, truncnorm

from lens_assets.science.audits.closure import closure, summary
from lens_assets.science.audits.judge import fit_error
from lens_assets.science.audits.steps import STEPS
from lens_assets.science.calibration.fit import ALL
from lens_assets.science.calibration.model import BROAD, NAMES, prior_of
from lens_assets.science.columns.audits import CLOSURE
from lens_assets.science.columns.completeness import MARGINALS, SURFACE
from lens_assets.science.completeness.counting import members
from lens_assets.science.completeness.density import OUTERMOST, latents_of, log_density, log_ratio
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.marginals import survey_weighted
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.prior_error import PriorDraws
from lens_assets.science.completeness.recount import Weights, remaining
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.completeness.surface import build_surface
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.batch import plan_batch
from lens_assets.science.injections.distributions import Area, Fixed, LogNormal, Normal, Rayleigh, Uniform
from lens_assets.science.injections.priors import PriorSet, prior_set
from lens_assets.science.injections.settings import Settings as Injections
from lens_assets.science.injections.variants import Variant
from lens_assets.science.intervals import jeffreys
from lens_assets.science.storage import Store

BASE = prior_set("population")
FIT = {
    **BROAD, "r_mean": 22.6, "r_sigma": 0.9, "gr_mean": 0.1, "gr_sigma": 0.3, "rz_mean": 0.2, "rz_sigma": 0.35, "rho": 0.45,
    "re_log": -0.45, "re_dex": 0.28, "beta_hi": 0.55, "clumpy": 0.6, "clump_mean": 0.35,
}  # fmt: skip
OTHER = FIT | {
    "r_mean": 22.9, "r_sigma": 0.8, "gr_mean": 0.2, "rz_mean": 0.1, "rho": 0.6, "re_log": -0.5, "beta_hi": 0.5, "clumpy": 0.45,
    "clump_mean": 0.4,
}  # fmt: skip
SPREAD = {"r_mean": 0.3, "re_log": 0.05, "gr_mean": 0.08, "clumpy": 0.08, "beta_hi": 0.03}
MIXTURE = Variant(name="mixture", summary="x", source="mixture", prior_set="calibrated")
GRID = Settings(theta_e=(1.0, 1.5), psf=(1.2, 1.35), depth=(23.0, 23.5), min_per_cell=100, min_per_stratum=10)
ENGINE = Injections(theta_e=(1.0, 1.5), psf_centres=GRID.psf, depth_centres=GRID.depth, max_host_reuse=100)
THRESHOLDS = pl.DataFrame({"name": ["half", "strict"], "threshold": [0.5, 0.8]})


def fitted(values: dict[str, float]) -> PriorSet:
    return prior_of(values, BASE, "calibrated", "a fit")


def table(rows: list[dict[str, float]]) -> pl.DataFrame:
    """Draws as a calibration keeps them, nuisances and all."""
    flat = [(d, n, float(v.get(n, 0.0))) for d, v in enumerate(rows) for n in ALL]
    return pl.DataFrame(flat, schema=["draw", "parameter", "drawn_value"], orient="row")


def draws(rows: list[dict[str, float]], values: dict[str, float] = FIT) -> PriorDraws:
    return PriorDraws.of(fitted(values), table(rows), mixture=True, colours="normal")


def about(n: int, rng: np.random.Generator, centre: dict[str, float] = FIT) -> list[dict[str, float]]:
    """Draws about a fit with the error ``SPREAD``."""
    out = [centre | {k: centre[k] + s * rng.normal() for k, s in SPREAD.items()} for _ in range(n)]
    return [v | {"clumpy": float(np.clip(v["clumpy"], 0.02, 0.98))} for v in out]


def injections(
    values: dict[str, float], per_cell: int, seed: int, hosts: int = 0, variant: Variant = MIXTURE
) -> pl.DataFrame:
    """The engine's own plan, and a toy detector that finds bright, large, clumpy sources near the caustic."""
    cells = [(i, j) for i in range(2) for j in range(2)]
    each = hosts or per_cell
    rows = pl.DataFrame(
        {
            "galaxy_id": [f"9010-{10 * i + j}-{h}" for i, j in cells for h in range(each)],
            "psf_bin": np.repeat([i for i, _ in cells], each), "depth_bin": np.repeat([j for _, j in cells], each),
        }
    ).with_columns(
        tile=pl.lit("000m005"), type=pl.Series(["DEV", "SER"] * (2 * each)), host_set=pl.lit("random"), q_host=pl.lit(0.8),
        pa_host=pl.lit(30.0), gr=pl.lit(1.2), **{f"mag_{b}": pl.lit(19.0) for b in "grz"},
        **{f"psfsize_{b}": pl.Series(np.repeat([GRID.psf[i] for i, _ in cells], each)) for b in "grz"},
        **{f"depth_{b}": pl.Series(np.repeat([GRID.depth[j] for _, j in cells], each)) for b in "grz"},
    )  # fmt: skip
    engine = ENGINE.model_copy(update={"per_cell": per_cell})
    plan = pl.concat([plan_batch(rows, variant, t, engine, seed, fitted(values)) for t in GRID.theta_e])
    rng = np.random.default_rng(seed)
    noise = rng.logistic(size=plan.height)
    return plan.with_columns(score=pl.Series(expit(logit(plan) + noise)))


def logit(rows: pl.DataFrame) -> np.ndarray:
    r, beta, re = (rows[c].to_numpy() for c in ("source_mag_r", "beta", "source_re"))
    clumpy = (rows["family"] == "clumpy").to_numpy()
    depth = rows["depth_r"].to_numpy() - 23.0
    return 1.6 * (22.9 - r) + 2.0 * (0.35 - beta) + np.log10(re / 0.35) + 0.5 * clumpy + 0.8 * depth


def surface(rows: pl.DataFrame, prior: PriorDraws | None) -> Surface:
    return build_surface(rows, THRESHOLDS, Grid.of(GRID), GRID, {"realism": None}, prior)


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


def test_a_surface_under_draws_that_are_the_fit_itself_has_the_plain_counts_and_the_published_interval(plain):
    s = surface(plain, draws([FIT] * 20))
    for frame in (s.cells.drop_nulls("completeness"), s.marginals.drop_nulls("completeness")):
        frame = frame.filter(pl.col("completeness").is_between(0, 1, closed="none"))
        assert frame.height > 5
        for side in ("lo68", "hi68", "lo95", "hi95"):
            assert frame[f"full_{side}"].equals(frame[f"total_{side}"], check_names=False)
            np.testing.assert_allclose(frame[f"prior_{side}"], frame["completeness"], rtol=1e-13)
        assert (frame["prior_refused"] == 0).all()
        assert (frame["prior_beyond"] == 0).all()
    assert np.array_equal(
        s.cells["prior_effective"].drop_nulls(), s.cells.drop_nulls("prior_effective")["n_injections"]
    )
    assert s.cells.filter(pl.col("operating_point") == "half")["prior_lo68"].to_list() == (
        s.cells.filter(pl.col("operating_point") == "half")["completeness"].to_list()
    )


def test_priors_without_a_fit_have_no_error_rather_than_none(plain):
    s = surface(plain, None)
    for frame, of in ((s.cells, SURFACE), (s.marginals, MARGINALS)):
        mine = [c for c in of.names if c.startswith(("prior_", "full_"))]
        assert len(mine) == 11
        assert frame.select(pl.col(mine).is_null().all()).row(0) == (True,) * 11


def test_the_error_of_the_fit_widens_what_is_published_and_changes_nothing_else(plain):
    rows = about(30, np.random.default_rng(5))
    s, bare = surface(plain, draws(rows)), surface(plain, None)
    rest = [c for c in s.cells.columns if not c.startswith(("prior_", "full_"))]
    assert s.cells.select(rest).equals(bare.cells.select(rest))
    assert SURFACE.violations(s.cells) == MARGINALS.violations(s.marginals) == []
    known = s.cells.drop_nulls("full_lo68")
    assert (known["full_lo68"] <= known["total_lo68"]).all()
    assert (known["full_hi68"] >= known["total_hi68"]).all()
    assert (known["full_hi68"] - known["full_lo68"] > known["total_hi68"] - known["total_lo68"]).mean() > 0.9
    # one cell by hand
    x = latents_of(s.members)
    here = (
        (s.members["i_theta"] == 1).to_numpy()
        & (s.members["i_psf"] == 0).to_numpy()
        & (s.members["i_depth"] == 1).to_numpy()
    )
    found = s.members["injection_score"].to_numpy()[here] >= 0.5
    c, n = [], []
    for values in rows:
        w = np.exp(log_ratio(x, fitted(values), fitted(FIT), mixture=True, colours="normal")[0])[here]
        c.append(np.sum(w * found) / w.sum())
        n.append(w.sum() ** 2 / np.sum(w**2))
    assert min(n) > GRID.prior_min_effective
    row = s.cells.filter(
        (pl.col("operating_point") == "half")
        & (pl.col("i_theta") == 1)
        & (pl.col("i_psf") == 0)
        & (pl.col("i_depth") == 1)
    ).row(0, named=True)
    assert row["prior_lo68"] == pytest.approx(np.quantile(c, 0.16), abs=1e-6)
    assert row["prior_hi95"] == pytest.approx(np.quantile(c, 0.975), abs=1e-6)
    assert row["prior_effective"] == pytest.approx(np.median(n), rel=1e-5)
    down = np.hypot(
        *(np.arcsin(np.sqrt(row["completeness"])) - np.arcsin(np.sqrt(row[b])) for b in ("total_lo68", "prior_lo68"))
    )
    assert row["full_lo68"] == pytest.approx(np.sin(np.arcsin(np.sqrt(row["completeness"])) - down) ** 2, abs=1e-9)


def test_rows_in_another_order_give_the_same_numbers(plain):
    prior = draws(about(20, np.random.default_rng(6)))
    assert surface(plain, prior).cells.equals(surface(plain.reverse(), prior).cells)


def test_a_surface_keeps_its_draws_and_counts_a_survey_with_them(plain, tmp_path):
    s = surface(plain, draws(about(20, np.random.default_rng(7))))
    store = Store(tmp_path)
    with store.draft("surface", "all", made_from={}) as draft:
        s.save(draft)
    again = Surface.load(store.get("surface", "all"))
    conditions = pl.DataFrame({"psf_bin": [0, 1, -1], "depth_bin": [1, 1, -1], "n": [300, 100, 50]})
    before, after = (survey_weighted(x, conditions) for x in (s, again))
    assert before.equals(after)
    one = before.filter((pl.col("operating_point") == "half") & (pl.col("i_axis") == 0)).row(0, named=True)
    assert one["prior_lo68"] < one["completeness"] < one["prior_hi68"]
    assert one["full_lo95"] < one["total_lo95"]


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


@hyp(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=60), st.integers(0, 8), st.sampled_from([0.16, 0.025, 0.25]))
def test_refused_draws_count_as_beyond_either_end(values, refused, tail):
    v = np.array(values)
    bad = np.zeros(v.size, bool)
    bad[: min(refused, v.size - 1)] = True
    lo, hi = remaining(v[None], bad[None], tail)
    place = tail * (v.size - 1)
    if bad.sum() > place:
        assert np.isnan([lo[0], hi[0]]).all()
        return
    if not bad.any():
        assert [lo[0], hi[0]] == pytest.approx(np.quantile(v, [tail, 1 - tail]))
    below, above = (np.sort(np.where(bad, far, v)) for far in (-1.0, 2.0))
    at = place, (v.size - 1) - place
    assert below[int(np.floor(at[0]))] - 1e-12 <= lo[0] <= below[int(np.ceil(at[0]))] + 1e-12
    assert above[int(np.floor(at[1]))] - 1e-12 <= hi[0] <= above[int(np.ceil(at[1]))] + 1e-12


def test_too_uneven_weights_take_the_bound_away_and_say_so(plain):
    far = FIT | {"r_mean": 25.5, "r_sigma": 0.3}
    s = surface(plain, draws([FIT] * 19 + [far]))
    cells = s.cells.drop_nulls("completeness")
    assert (cells["prior_refused"] == 0.05).all()
    assert (
        cells["prior_lo95"].null_count() == cells["full_hi95"].null_count() == cells.height
    )  # 0.05 is more than 0.025
    assert cells["prior_lo68"].null_count() == 0


def test_where_none_are_found_weights_tell_no_shift_and_the_bound_is_that_of_fewer_injections(plain):
    none = plain.with_columns(score=pl.lit(0.1))
    cells = surface(none, draws(about(20, np.random.default_rng(10)))).cells.drop_nulls("completeness")
    assert (cells["completeness"] == 0).all()
    assert cells["prior_hi68"].null_count() == cells.height
    assert (cells["full_lo95"] == 0).all()
    assert (cells["full_hi95"] > cells["total_hi95"]).all()


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


def test_injections_of_another_fit_or_without_what_they_were_drawn_with_are_refused(plain):
    with pytest.raises(BadInput, match="other priors than the fit"):
        surface(plain, draws([FIT], OTHER))
    with pytest.raises(BadInput, match="drawn with"):
        surface(plain.drop("source_re"), draws([FIT]))
    with pytest.raises(BadInput, match="draws without clumpy"):
        PriorDraws.of(
            fitted(FIT), table([FIT]).filter(pl.col("parameter") != "clumpy"), mixture=True, colours="normal"
        ).sets()
    moved = plain.with_columns(source_mag_r=pl.col("source_mag_r") + 6)
    with pytest.raises(BadInput, match="outside the range"):
        surface(moved, draws([OTHER]))


def coverage(runs: int, n: int, n_draws: int, seed: int) -> dict[str, float]:
    """How often the truth lies inside: priors are fitted with a known error round the true ones, injections drawn from the fit."""
    rng = np.random.default_rng(seed)
    truth = members(injections(FIT, 4_000, 999), Grid.of(GRID))[0]
    p = float(np.mean(truth["injection_score"].to_numpy() >= 0.5))
    inside: dict[str, list[bool]] = {f"{k}{level}": [] for k in ("total", "full") for level in (68, 95)}
    for run in range(runs):
        at = about(1, rng)[0]
        seen = members(injections(at, n // 8, 10_000 + run), Grid.of(GRID))[0]
        found = int((seen["injection_score"] >= 0.5).sum())
        c, m = np.array([found / seen.height]), np.array([float(seen.height)])
        total = {level: jeffreys([found], [seen.height], level) for level in (0.68, 0.95)}
        weights = PriorDraws.of(fitted(at), table(about(n_draws, rng, at)), mixture=True, colours="normal").weights(
            seen
        )
        one = weights.counted(seen, [0.5]).grouped(
            seen.select("i_theta", "i_psf", "i_depth").unique().sort(pl.all()), ["i_theta", "i_psf", "i_depth"], np.ones(8),
            np.zeros(8, int), 1, 0,
        )  # fmt: skip
        own = one.columns(c, m, total, 20.0)
        for level in (68, 95):
            inside[f"total{level}"].append(bool(total[level / 100].lo[0] <= p <= total[level / 100].hi[0]))
            inside[f"full{level}"].append(bool(own[f"full_lo{level}"][0] <= p <= own[f"full_hi{level}"][0]))
    return {k: float(np.mean(v)) for k, v in inside.items()}


def test_where_the_fit_is_off_by_its_error_only_the_interval_with_it_covers_the_truth():
    share = coverage(80, 640, 30, 12)
    assert share["total68"] < 0.45
    assert share["total95"] < 0.75
    assert share["full68"] == pytest.approx(0.68, abs=0.12)
    assert share["full95"] > 0.88


@pytest.mark.slow
def test_the_interval_with_the_error_of_the_fit_covers_at_its_nominal_rate():
    share = coverage(500, 1600, 100, 13)
    assert share["total68"] < 0.4
    assert share["full68"] == pytest.approx(0.68, abs=0.06)
    assert share["full95"] == pytest.approx(0.95, abs=0.03)


def test_every_fitted_parameter_of_a_draw_is_used_but_the_wings_which_are_the_variants():
    x = latents_of(members(injections(FIT, 50, 14), Grid.of(GRID))[0])
    for name in NAMES:
        moved, _ = log_ratio(
            x, fitted(FIT | {name: FIT[name] * 1.05 + 0.01}), fitted(FIT), mixture=True, colours="normal"
        )
        assert np.abs(moved).max() > 0 or name == "wings", name


def test_weights_of_no_members_are_no_counts():
    empty = Weights(np.zeros((3, 0), np.float32), np.zeros(3)).counted(
        members(injections(FIT, 8, 15), Grid.of(GRID))[0].clear(), [0.5]
    )
    assert empty.keys.height == 0


def true_lenses(values: dict[str, float], n: int, seed: int) -> pl.DataFrame:
    return injections(values, n, seed).select("theta_e", "psfsize_r", "depth_r", "score")


def test_a_closure_says_whether_the_truth_lies_inside_with_and_without_the_error_of_the_fit(plain):
    truth = true_lenses(
        FIT | {"r_mean": FIT["r_mean"] + 0.4}, 300, 20
    )  # the fit is 0.4 mag too bright, for an error of 0.3
    rows = closure(surface(plain, draws(about(30, np.random.default_rng(21)))), truth)
    assert CLOSURE.violations(rows) == []
    whole = rows.filter(pl.col("closure_level") == "all").row(0, named=True)
    assert (whole["inside68"], whole["full_inside68"], whole["full_inside95"]) == (False, False, True)
    assert whole["p_closure_full"] > 1.2 * whole["p_closure"]
    assert whole["predicted_full_lo95"] < whole["predicted_lo95"] < whole["predicted_completeness"]
    assert whole["true_completeness"] == pytest.approx((truth["score"] >= 0.5).mean())
    said = summary(rows)["with_the_error_of_the_priors"]
    assert said["inside95"] >= summary(rows)["inside95"]["inside"]
    bare = closure(surface(plain, None), truth)
    assert bare["p_closure_full"].null_count() == bare.height
    assert "with_the_error_of_the_priors" not in summary(bare)
    rest = [c for c in bare.columns if "full" not in c]
    assert bare.select(rest).equals(rows.select(rest))


def test_a_row_of_a_closure_whose_cells_have_no_such_bound_has_none(plain):
    far = FIT | {"r_mean": 25.5, "r_sigma": 0.3}
    s = surface(plain, draws([FIT] * 7 + [far] * 3))
    rows = closure(s, true_lenses(FIT, 60, 22))
    assert rows["full_inside68"].null_count() == rows.height
    assert rows["inside68"].null_count() == 0


def test_the_experiment_says_whether_the_error_of_the_fit_holds_what_true_priors_gave(plain):
    s = surface(plain, draws(about(30, np.random.default_rng(23))))
    lenses = true_lenses(FIT, 40, 24)
    point = s.point("half")
    plain_mean = float(s.cells.filter(pl.col("operating_point") == "half")["completeness"].mean())
    for after, inside in ((plain_mean + 0.01, True), (plain_mean - 0.5, False)):
        steps = pl.DataFrame(
            {"closure_step": [STEPS[0][0]], "completeness_before": [plain_mean], "completeness_after": [after]}
        )
        said = fit_error(s, lenses, point, steps)
        assert (said["inside68"], said["inside95"]) == (inside, inside)
        assert said["lo95"] < said["lo68"] < plain_mean < said["hi68"] < said["hi95"]
        assert (said["draws"], said["refused"]) == (30, 0.0)
    assert fit_error(surface(plain, None), lenses, point, steps) is None
