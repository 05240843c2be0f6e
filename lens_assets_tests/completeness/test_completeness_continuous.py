"""The continuous model: monotone everywhere, calibrated, honest outside support, and never in the table's place."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.special import expit, logit
from scipy.stats import norm

from lens_assets.lookup import load_models
from lens_assets.science.completeness.bricks import Bricks, bricks_of
from lens_assets.science.completeness.continuous import MAG_KNOTS, fit, models_of, save_models
from lens_assets.science.errors import BadInput

POINT = "fixed_0.5"


@pytest.fixture(scope="module")
def fitted(surface):
    return fit(surface, "fpr_1e-3", draws=20)


@pytest.fixture(scope="module")
def with_brightness(surface):
    return fit(surface, POINT, draws=2, brightness=True)


@given(st.floats(0.5, 2.0), st.floats(0.825, 1.575), st.floats(22.25, 23.7), st.floats(0.0, 0.3))
def test_every_draw_is_monotone_in_depth_and_seeing(fitted, t, p, d, step):
    for draw in fitted.model.draws:
        one = replace(fitted.model, draws=draw[None])
        c, *_ = one(*(np.array(x) for x in ([t, t, t], [p, p, p + step], [d, d + step, d])))
        assert c[1] >= c[0] - 1e-6
        assert c[2] <= c[0] + 1e-6


def test_below_the_fwhm_a_larger_ring_is_found_no_less_often_and_above_it_the_data_decide(build, simulated):
    raw = simulated.injections(seed=4)
    # a finder that loses the largest rings
    raw = raw.with_columns(pl.when(pl.col("theta_e") > 1.8).then(0.01).otherwise(pl.col("score")).alias("score"))
    model = fit(build(raw, thresholds=simulated.THRESHOLDS.head(1)), POINT, draws=0).model
    c = model(np.array([0.5, 1.0, 1.5, 2.0]), np.full(4, 1.1), np.full(4, 23.0))[0]
    assert c[0] < c[1] < c[2]
    assert c[3] < 0.1


def test_values_are_scipys_interpolation_of_the_knots(fitted):
    rng = np.random.default_rng(0)
    at = [rng.uniform(k[0], k[-1], 200) for k in fitted.model.knots]
    wanted = expit(
        RegularGridInterpolator(fitted.model.knots, fitted.model.draws[0].astype(float))(np.column_stack(at))
    )
    np.testing.assert_allclose(fitted.model(*at)[0], wanted, rtol=1e-6)


def test_it_agrees_with_the_table_and_left_out_hosts_are_found_as_often_as_predicted(fitted):
    own = fitted.agreement
    assert own["n_cells"] == 28
    assert own["chi2"] < 2 * own["n_cells"]
    assert own["inside95"] > 0.9
    rows = fitted.reliability
    assert rows["n"].sum() == 28 * 120
    assert ((rows["lo95"] <= rows["predicted"]) & (rows["predicted"] <= rows["hi95"])).sum() >= 7
    assert rows["found"][0] < rows["found"][9]


def test_it_comes_nearer_to_the_truth_than_the_table_and_its_intervals_hold_it(build, simulated):
    near, far, inside = [], [], []
    for seed in range(3):
        s = build(simulated.injections(seed=seed), thresholds=simulated.THRESHOLDS.head(1))
        where = [s.cells[c].to_numpy() for c in ("cell_theta_e", "cell_psf", "cell_depth")]
        truth = simulated.true_completeness(*where)
        c, lo, hi = fit(s, POINT, draws=40).model(*where, 0.95)
        near.append(np.mean((c - truth) ** 2))
        far.append(np.mean((s.cells["completeness"].to_numpy() - truth) ** 2))
        inside += list((lo <= truth) & (truth <= hi))
    assert np.mean(near) < np.mean(far)
    assert np.mean(inside) > 0.8


def _bricks(rng, places, per_place, hosts, each, tau, host_spread):
    """Residual sums that know the truth: C = 0.3, bricks and hosts that differ in the logit."""
    brick = np.repeat(np.arange(places * per_place), hosts * each)
    host = np.repeat(np.arange(places * per_place * hosts), each)
    effect = rng.normal(0, tau, places * per_place)[brick] + rng.normal(0, host_spread, host.max() + 1)[host]
    found = (rng.random(brick.size) < expit(logit(0.3) + effect)).astype(float)
    place = brick // per_place
    return brick, host, place, found, (np.bincount(place, found) / np.bincount(place))[place]


@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_the_scatter_of_bricks_is_found_apart_from_that_of_their_hosts(tau):
    rng = np.random.default_rng(1)
    own = [bricks_of(*_bricks(rng, 6, 3, 20, 10, tau, 0.5)) for _ in range(60)]
    assert {b.nu for b in own} == {12}
    assert np.mean([b.tau**2 for b in own]) == pytest.approx(
        tau**2, abs=0.045
    )  # max(0, .) lifts the mean where tau is 0
    alone = _bricks(rng, 6, 60, 1, 10, 0.0, 0.5)
    assert bricks_of(*alone).tau == 0


def in_bricks(simulated, seed, per_place=3, tau=0.5):
    """The simulated survey with its hosts in few bricks, which differ by ``tau`` in the logit."""
    rng = np.random.default_rng(1000 + seed)
    raw = simulated.injections(seed=seed)
    number = raw["galaxy_id"].str.extract(r"-(\d+)$").cast(pl.Int64) % per_place
    place = raw["psfsize_r"].rank("dense").cast(pl.Int64) * 10 + raw["depth_r"].rank("dense").cast(pl.Int64)
    brick = (1000 * place + number).to_numpy()
    names, at = np.unique(brick, return_inverse=True)
    score = expit(logit(raw["score"].to_numpy()) + rng.normal(0, tau, names.size)[at])
    ids = [f"9010-{b}-{g.replace('-', '')}" for b, g in zip(brick, raw["galaxy_id"], strict=True)]
    return raw.with_columns(score=pl.Series(score), galaxy_id=pl.Series(ids))


def _with_and_without(s, where, draws, monkeypatch):
    """68 and 95 % bounds by level: with bricks drawn, and with hosts alone."""
    out = []
    for alone in (False, True):
        with monkeypatch.context() as changed:
            if alone:
                changed.setattr(Bricks, "drawn", lambda self, rng: 0.0)
            model = fit(s, POINT, draws=draws).model
        out.append({level: model(*where, level)[1:3] for level in (0.68, 0.95)})
    return out


def test_where_bricks_differ_the_interval_is_wider_than_hosts_alone_make_it(build, simulated, monkeypatch):
    s = build(in_bricks(simulated, 0), thresholds=simulated.THRESHOLDS.head(1))
    where = [s.cells[c].to_numpy() for c in ("cell_theta_e", "cell_psf", "cell_depth")]
    bricks, hosts = (np.mean(b[0.68][1] - b[0.68][0]) for b in _with_and_without(s, where, 12, monkeypatch))
    assert bricks > 1.2 * hosts


@pytest.mark.slow
def test_with_bricks_the_interval_holds_the_truth_more_often_than_with_hosts_alone(build, simulated, monkeypatch):
    inside = {(name, level): [] for name in ("bricks", "hosts") for level in (0.68, 0.95)}
    for seed in range(6):
        s = build(in_bricks(simulated, seed), thresholds=simulated.THRESHOLDS.head(1))
        where = [s.cells[c].to_numpy() for c in ("cell_theta_e", "cell_psf", "cell_depth")]
        # P(found) over hosts and bricks: the scatter of the score is that of all three
        centre = norm.isf(simulated.true_completeness(*where)) * np.hypot(simulated.HOST_SIGMA, 1.0)
        truth = norm.sf(centre / np.sqrt(simulated.HOST_SIGMA**2 + 1 + 0.25))
        for name, bounds in zip(("bricks", "hosts"), _with_and_without(s, where, 60, monkeypatch), strict=True):
            for level, (lo, hi) in bounds.items():
                inside[name, level] += list((lo <= truth) & (truth <= hi))
    assert np.mean(inside["bricks", 0.95]) > 0.80
    for level in (0.68, 0.95):
        assert np.mean(inside["bricks", level]) > np.mean(inside["hosts", level]) + 0.05


def test_the_error_of_the_threshold_widens_the_interval(surface, fitted):
    points = tuple(
        replace(p, lo68=p.cut, hi68=p.cut, lo95=p.cut, hi95=p.cut) if p.name == "fpr_1e-3" else p
        for p in surface.points
    )
    fixed = fit(replace(surface, points=points), "fpr_1e-3", draws=20).model
    where = (np.full(3, 1.5), np.array([0.9, 1.2, 1.2]), np.full(3, 23.0))
    wide, narrow = (np.subtract(*m(*where)[:0:-1]).mean() for m in (fitted.model, fixed))
    assert wide > narrow


def test_given_the_arc_a_brighter_one_is_found_no_less_often(with_brightness):
    knots, draws = with_brightness.brightness
    np.testing.assert_array_equal(knots, MAG_KNOTS)
    assert (np.diff(draws, axis=1) <= 1e-9).all()


def test_models_survive_the_file_without_pickle_and_give_the_same_bytes(fitted, tmp_path):
    for name in ("a", "b"):
        save_models(tmp_path / f"{name}.npz", {"fpr_1e-3": fitted})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = load_models(tmp_path / "a.npz")["fpr_1e-3"]
    np.testing.assert_array_equal(again.draws, fitted.model.draws)


def test_the_same_surface_gives_the_same_model_and_no_support_gives_none(surface, fitted):
    again = fit(surface, "fpr_1e-3", draws=20)
    np.testing.assert_array_equal(again.model.draws, fitted.model.draws)
    empty = replace(surface, cells=surface.cells.with_columns(pl.lit("insufficient").alias("support")))
    with pytest.raises(BadInput, match="supported cells"):
        fit(empty)
    dark = replace(surface, members=surface.members.with_columns(pl.lit(None, pl.Float64).alias("injection_mag_r")))
    with pytest.raises(BadInput, match="lensed magnitude"):
        fit(dark, brightness=True)


def test_a_release_carries_models_only_where_the_settings_ask_for_them(surface):
    assert models_of(surface) == {}
    asked = replace(surface, settings=surface.settings.model_copy(update={"model_draws": 2}))
    found = models_of(asked)
    assert sorted(found) == [p.name for p in surface.points]
    assert all(len(f.model.draws) == 3 for f in found.values())
