"""The continuous model: monotone everywhere, calibrated, honest outside support, and never in the table's place."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.special import expit

from lens_assets.lookup import load_models
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
