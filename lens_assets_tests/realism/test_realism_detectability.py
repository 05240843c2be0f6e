"""The detectability gate on synthetic arcs and smooth ellipticals in correlated noise."""

import time

import numpy as np
import pytest

from lens_assets.science.completeness.detectability import (
    GateSettings,
    GateSpec,
    calibrate_gate,
    gate_statistic,
    observable,
)
from lens_assets.science.errors import BadInput


@pytest.fixture(scope="module")
def stamps(sky):
    rng = np.random.default_rng(21)
    n = 400
    return rng, sky.galaxies(rng, n) + sky.noise(rng, n), sky.weights(n)


def test_bright_arcs_pass_and_the_false_alarm_rate_holds_on_held_out_galaxies(stamps, sky):
    rng, images, weights = stamps
    stat = gate_statistic(images, weights).total
    arcs = sky.arcs(rng, 200, flux=2.0)
    lens = gate_statistic(images[:200] + arcs, weights[:200]).total
    spec = calibrate_gate(lens, stat[:200], 0.1, stat_randoms_held_out=stat[200:], min_expected=20)
    assert spec.false_alarm_lo95 <= 0.1 <= spec.false_alarm_hi95
    assert spec.lens_fraction > 0.9
    assert spec.k_lenses == observable(lens, spec).sum()
    assert spec.false_alarm_on == "held-out random galaxies"
    assert spec.interval == "wilson"


def test_the_share_of_observable_arcs_rises_with_flux_and_depth(stamps, sky):
    rng, images, weights = stamps
    threshold = np.quantile(gate_statistic(images, weights).total, 0.95)
    shares = []
    for flux in (0.2, 0.6, 2.0):
        arcs = sky.arcs(np.random.default_rng(1), len(images), flux=flux)
        shares.append((gate_statistic(images + arcs, weights).total > threshold).mean())
    assert shares[0] < shares[1] < shares[2]
    noisy = images + 2 * sky.noise(rng, len(images))
    arcs = sky.arcs(np.random.default_rng(1), len(images), flux=0.6)
    assert (gate_statistic(noisy + arcs, weights / 5).total > threshold).mean() < shares[1] - 0.1


def test_an_arc_in_one_band_only_is_not_seen(stamps, sky):
    rng, images, weights = stamps
    base = gate_statistic(images, weights).total
    one = np.zeros_like(images)
    one[:, 1] = sky.arcs(rng, len(images), flux=1.5)[:, 1]
    gained = gate_statistic(images + one, weights).total - base
    full = gate_statistic(images + sky.arcs(rng, len(images), flux=1.5), weights).total - base
    assert np.median(gained) < 0.15 * np.median(full)


def test_pure_correlated_noise_gives_almost_nothing(sky):
    rng = np.random.default_rng(3)
    noise = sky.noise(rng, 200)
    stat = gate_statistic(noise, sky.weights(200)).total
    # 753 pixels, each the second of three bands above 2 sigma: 3 x 0.0228^2 of them by chance, about 2.4 sigma each
    assert np.median(stat) < 5
    assert np.quantile(stat, 0.99) < 10


def test_the_statistic_is_in_units_of_noise(stamps):
    _, images, weights = stamps
    a = gate_statistic(images[:50], weights[:50])
    b = gate_statistic(images[:50] * 1000, weights[:50] / 1e6)
    assert b.total == pytest.approx(a.total, rel=1e-3, abs=0.05)
    assert a.per_band.shape == (50, 3)


def test_a_stamp_without_background_is_not_measured_and_not_observable(stamps):
    _, images, weights = stamps
    blind = np.zeros_like(weights[:2])
    stat = gate_statistic(images[:2], blind).total
    assert np.isnan(stat).all()
    spec = calibrate_gate([5.0], np.arange(1000.0), 0.1)
    assert not observable(stat, spec).any()


def test_the_achieved_rate_never_exceeds_the_target_on_the_calibrating_sample():
    rng = np.random.default_rng(0)
    for rate in (0.013, 0.05, 0.21):
        stat = np.round(rng.exponential(size=9000), 2)  # with ties
        spec = calibrate_gate(rng.exponential(size=40) * 3, stat, rate)
        assert spec.false_alarm <= rate
        assert spec.false_alarm == (stat > spec.threshold).mean()


def test_too_few_randoms_for_the_rate_are_refused():
    with pytest.raises(BadInput, match="needs 10000 random galaxies"):
        calibrate_gate([1.0], np.arange(9999.0), 0.01)


def test_a_gate_refuses_other_settings_and_survives_json():
    spec = calibrate_gate([1.0, np.nan], np.arange(1000.0), 0.1)
    assert spec.not_measured == 1
    assert GateSpec.from_json(spec.to_json()) == spec
    assert observable([950.0], spec, GateSettings()).tolist() == [True]
    with pytest.raises(BadInput, match="other settings"):
        observable([950.0], spec, GateSettings(pixel_sigma=3))


def test_it_is_fast(stamps):
    _, images, weights = stamps
    gate_statistic(images[:20], weights[:20])
    best = min(_cpu(lambda: gate_statistic(images, weights)) for _ in range(3))
    assert len(images) / best > 700  # about 3,000 a second on an idle core; the margin is for shared machines


def _cpu(call):
    start = time.process_time()
    call()
    return time.process_time() - start
