"""Intervals against closed forms, astropy, and simulated coverage."""

import numpy as np
import pytest
from astropy.stats import binom_conf_interval
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest

from lens_assets.science.intervals import bootstrap, jeffreys, wilson

COUNT = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNT, st.sampled_from([0.68, 0.95]))
def test_wilson_is_that_of_scipy_and_astropy(kn, level):
    k, n = kn
    ours = wilson(k, n, level)
    theirs = binomtest(k, n).proportion_ci(level, method="wilson")
    assert (float(ours.lo), float(ours.hi)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert (float(ours.lo), float(ours.hi)) == pytest.approx(binom_conf_interval(k, n, level, "wilson"), abs=1e-9)


@given(COUNT, st.sampled_from([0.68, 0.95]))
def test_jeffreys_is_that_of_astropy_inside_and_closed_at_the_ends(kn, level):
    k, n = kn
    ours = jeffreys(k, n, level)
    lo, hi = binom_conf_interval(k, n, level, "jeffreys")
    assert float(ours.lo) == (0 if k == 0 else pytest.approx(lo, abs=1e-9))
    assert float(ours.hi) == (1 if k == n else pytest.approx(hi, abs=1e-9))


def test_a_published_jeffreys_interval_is_told_from_wilson():
    # 100 of 112, printed as "Wilson [0.826, 0.940]" in a study, which is Jeffreys
    assert (float(jeffreys(100, 112, 0.95).lo), float(jeffreys(100, 112, 0.95).hi)) == pytest.approx(
        (0.826, 0.940), abs=1e-3
    )
    assert (float(wilson(100, 112, 0.95).lo), float(wilson(100, 112, 0.95).hi)) == pytest.approx(
        (0.822, 0.938), abs=1e-3
    )
    assert (jeffreys(1, 2).name, wilson(1, 2).name) == ("jeffreys", "wilson")


@pytest.mark.parametrize("method", [jeffreys, wilson])
@pytest.mark.parametrize("level", [0.68, 0.95])
def test_the_mean_coverage_over_the_fraction_is_nominal(method, level):
    n, k = 50, np.arange(51)
    lo, hi, *_ = method(k, n, level)
    p = (np.arange(4000) + 0.5) / 4000
    covered = [binom.pmf(k, n, x)[(lo <= x) & (x <= hi)].sum() for x in p]
    assert np.mean(covered) == pytest.approx(level, abs=0.01)


def test_jeffreys_holds_its_posterior_mass():
    i = jeffreys(7, 20, 0.68)
    assert beta.cdf(i.hi, 7.5, 13.5) - beta.cdf(i.lo, 7.5, 13.5) == pytest.approx(0.68)


@pytest.mark.parametrize("method", [jeffreys, wilson])
def test_nothing_observed_gives_nan_and_impossible_counts_are_refused(method):
    assert np.isnan(method([0, 1], [0, 2]).lo).tolist() == [True, False]
    with pytest.raises(ValueError, match="0 <= k <= n"):
        method(3, 2)
    with pytest.raises(ValueError, match="0 <= k <= n"):
        method(-1, 2)


def test_the_bootstrap_of_a_mean_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        x = rng.normal(size=60)
        i = bootstrap(lambda rows, x=x: float(x[rows].mean()), 60, rng, draws=200)[0.68]
        hits += bool(i.lo <= 0 <= i.hi)
    assert abs(hits / 300 - 0.67) < 4 * np.sqrt(0.68 * 0.32 / 300)


def test_resampling_groups_widens_the_interval_of_values_that_share_them():
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(30), 20)
    x = rng.normal(size=30)[groups]
    free = bootstrap(lambda r: float(x[r].mean()), 600, np.random.default_rng(1))[0.68]
    grouped = bootstrap(lambda r: float(x[r].mean()), 600, np.random.default_rng(1), groups=groups)[0.68]
    assert (grouped.hi - grouped.lo) > 3 * (free.hi - free.lo)
    # the mean of 30 independent values: a half width of one standard error
    assert (grouped.hi - grouped.lo) / 2 == pytest.approx(x[::20].std() / np.sqrt(30), rel=0.2)
    assert (free.name, grouped.name) == ("bootstrap", "group-bootstrap")


def test_a_statistic_that_is_mostly_undefined_has_no_interval():
    i = bootstrap(lambda rows: float("nan") if rows[0] else 1.0, 10, np.random.default_rng(0))[0.95]
    assert np.isnan(i.lo)
    assert np.isnan(i.hi)
