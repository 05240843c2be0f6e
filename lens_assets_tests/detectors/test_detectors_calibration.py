"""The calibration map and the errors it is judged by: fitted on its own rows, honest about what it cannot do."""

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from lens_assets.science.detectors import calibration, measures
from lens_assets.science.detectors.calibration_map import CalibrationMap, fit_map
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput

PLATT, ISOTONIC = Settings(draws=100), Settings(draws=100, calibration_map="isotonic")


def distorted(n=20_000, seed=0, slope=0.6, shift=1.0):
    """Logits whose true log-odds are ``slope * logit + shift``."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-3, 2.5, n)
    return logit, rng.random(n) < expit(slope * logit + shift)


def test_a_platt_map_recovers_the_distortion_and_is_the_logistic_regression():
    logit, label = distorted()
    found = fit_map(logit, label, PLATT)
    assert (found.slope, found.intercept) == pytest.approx((0.6, 1.0), abs=0.06)
    reference = LogisticRegression(C=1e9).fit(logit[:, None], label)
    assert found.slope == pytest.approx(reference.coef_[0, 0], abs=0.01)
    assert found.intercept == pytest.approx(reference.intercept_[0], abs=0.02)


def test_an_isotonic_map_is_scikit_learns_within_its_bounds_and_never_says_never():
    logit, label = distorted(3000)
    found = fit_map(logit, label, ISOTONIC)
    reference = IsotonicRegression(out_of_bounds="clip").fit(logit, label.astype(float))
    at = np.linspace(-12, 6, 200)
    expected = np.clip(reference.predict(at), 0.5 / 3000, 1 - 0.5 / 3000)
    np.testing.assert_allclose(found.probability(at), expected, atol=2e-3)
    assert (np.diff(found.probability(at)) >= 0).all()
    assert 0 < found.probability([-50.0])[0] < found.probability([50.0])[0] < 1


@pytest.mark.parametrize("settings", [PLATT, ISOTONIC])
def test_a_map_mends_calibration_on_rows_it_has_not_seen_and_survives_json(settings):
    fitted = fit_map(*distorted(seed=1), settings)
    logit, label = distorted(seed=2)
    errors = {
        e.metric: e for e in calibration.errors_of(logit, label, settings, np.random.default_rng(0), fitted=fitted)
    }
    assert errors["ece"].value > 0.05 > 0.015 > errors["ece_mapped"].value
    assert errors["ece_change"].value == pytest.approx(errors["ece_mapped"].value - errors["ece"].value)
    assert errors["ece_change"].bounds[3] < 0, "the improvement is beyond its 95 % interval"
    assert errors["lens_count_ratio"].value < 0.9
    assert errors["lens_count_ratio_mapped"].value == pytest.approx(1, abs=0.05)
    again = CalibrationMap.from_dict(json.loads(json.dumps(fitted.as_dict())))
    np.testing.assert_array_equal(again.probability(logit), fitted.probability(logit))


def test_a_map_that_makes_things_worse_is_told_as_worse():
    logit, label = distorted(seed=3, slope=1, shift=0)
    wrong = CalibrationMap("platt", 1, 1, slope=0.3, intercept=0.0)
    errors = {e.metric: e for e in calibration.errors_of(logit, label, PLATT, np.random.default_rng(0), fitted=wrong)}
    assert errors["ece_change"].bounds[2] > 0


def test_too_few_lenses_give_a_reason_and_no_other_method_in_its_place():
    logit, label = distorted(400)
    keep = np.flatnonzero(~label).tolist() + np.flatnonzero(label)[:9].tolist()
    assert "needs 10 lenses" in fit_map(logit[keep], label[keep], PLATT)
    assert "needs 100 lenses" in fit_map(logit[:200], label[:200], ISOTONIC)
    assert fit_map(logit, label, Settings(calibration_map="none")) is None
    with pytest.raises(BadInput, match="no calibration map"):
        CalibrationMap.from_dict({"method": "none", "refused": "too few"})


def test_scores_that_point_the_wrong_way_give_no_map():
    logit, label = distorted(2000)
    assert "fall with the chance" in fit_map(-logit, label, PLATT)


def test_the_error_that_lenses_meet_is_seen_through_a_sea_of_non_lenses():
    rng = np.random.default_rng(5)
    p = np.concatenate([rng.uniform(1e-5, 2e-4, 100_000), rng.uniform(0.8, 1.0, 200)])
    label = np.concatenate(
        [np.zeros(100_000, bool), rng.random(200) < 0.5]
    )  # scores of 0.9 that are right half the time
    label[:20] = True
    logit = np.log(p / (1 - p))
    errors = {e.metric: e.value for e in calibration.errors_of(logit, label, PLATT, None)}
    assert errors["ece"] < 0.005, "nearly all rows are non-lenses with a score of nothing"
    assert errors["ece_positive"] > 0.25


def test_bins_of_lenses_hold_equal_numbers_of_them_and_every_row():
    rng = np.random.default_rng(6)
    p = rng.random(5000)
    label = rng.random(5000) < p**3
    bins = measures.positive_bins(p, label, 10, 10)
    assert bins.rows.sum() == 5000
    assert bins.positives.sum() == label.sum()
    assert np.ptp(bins.positives) <= 2
    np.testing.assert_allclose(bins.weight, bins.positives / label.sum())
    assert measures.positive_bins(p, np.arange(5000) < 19, 10, 10) is None


def test_the_interval_of_an_error_holds_its_value():
    logit, label = distorted(800, seed=8)
    for e in calibration.errors_of(logit, label, PLATT, np.random.default_rng(1), tops=True):
        if e.value is not None and calibration.interval_name(e.metric) == calibration.RECENTRED:
            assert e.bounds[2] <= e.bounds[0] <= e.value <= e.bounds[1] <= e.bounds[3], e


def drawn_at(odds, n=40_000, seed=0):
    """Logits that are calibrated at class log-odds -2, on a sample whose classes come in other shares."""
    rng = np.random.default_rng(seed)
    label = rng.random(n) < expit(odds)
    return rng.normal(0, 2, n) + 4 * label - 2 - 2, label  # equal normals 4 apart, sd 2: log-likelihood ratio x - 2


@pytest.mark.parametrize("settings", [PLATT, ISOTONIC])
def test_a_role_with_another_share_of_lenses_is_no_miscalibration_and_tilts_no_map(settings):
    logit, label = drawn_at(0.5)
    shift = calibration.shift_to(label, -2.0)
    assert shift == pytest.approx(2.5, abs=0.05)
    fitted = fit_map(*drawn_at(1.5, seed=1), settings, -2.0)
    errors = {
        e.metric: e.value for e in calibration.errors_of(logit, label, settings, None, shift=shift, fitted=fitted)
    }
    naive = {e.metric: e.value for e in calibration.errors_of(logit, label, settings, None)}
    assert naive["ece"] > 0.1
    assert errors["ece"] < 0.01
    assert errors["ece_balanced"] < 0.015
    assert errors["ece_mapped"] < 0.015
    assert errors["lens_count_ratio"] == pytest.approx(1, abs=0.02)
    assert errors["lens_count_ratio_mapped"] == pytest.approx(1, abs=0.03)


def test_a_share_that_is_not_known_shifts_nothing():
    assert calibration.shift_to([1, 0], None) == 0.0
    assert calibration.shift_to([1, 1], -2.0) == 0.0
    assert calibration.log_odds(np.array([1, 1, 0, 0, 0, 0])) == pytest.approx(np.log(0.5))
