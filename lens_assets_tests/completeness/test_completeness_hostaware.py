"""Host-aware intervals: equal to Jeffreys where hosts are not reused, honest where they are."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import betabinom

from lens_assets.science.completeness.combine import SUFFIX, with_threshold_error
from lens_assets.science.completeness.hostaware import NAME, beta_binomial, clustered, host_bootstrap
from lens_assets.science.hashing import sites_of
from lens_assets.science.intervals import jeffreys


def simulate(rng, mu, rho, hosts, per_host, runs):
    """Counts of ``runs`` cells whose hosts have detection rates from a Beta with mean mu and correlation rho."""
    s = (1 - rho) / rho if rho else np.inf
    rate = np.full((runs, hosts), mu) if not rho else rng.beta(mu * s, (1 - mu) * s, (runs, hosts))
    return rng.binomial(per_host, rate)


def covered(interval, mu):
    return float(np.mean((interval.lo <= mu) & (mu <= interval.hi)))


@pytest.mark.parametrize("k", [0, 1, 7, 150, 199, 200])
def test_with_every_host_used_once_it_is_the_jeffreys_interval(k):
    found = (np.arange(200) < k).astype(int)
    own = beta_binomial(np.zeros(200, int), np.ones(200, int), found, 1)
    for level in (0.68, 0.95):
        exact = jeffreys(k, 200, level)
        np.testing.assert_allclose(own.intervals[level].lo, exact.lo, atol=2e-4)
        np.testing.assert_allclose(own.intervals[level].hi, exact.hi, atol=2e-4)
    assert own.n_eff[0] == 200


def test_the_posterior_mean_equals_a_direct_double_integral():
    n, k = np.array([10, 10, 5, 8]), np.array([9, 1, 2, 8])

    def likelihood(mu, rho):
        s = (1 - rho) / rho
        return np.prod(betabinom.pmf(k, n, mu * s, (1 - mu) * s))

    def over_rho(mu):
        return quad(lambda rho: likelihood(mu, rho), 1e-6, 1 - 1e-9, limit=100)[0]

    angle = (np.arange(200) + 0.5) / 200 * np.pi / 2
    weight = np.array([over_rho(np.sin(a) ** 2) for a in angle])
    mean = np.sum(weight * np.sin(angle) ** 2) / weight.sum()
    own = beta_binomial(np.zeros(4, int), n, k, 1)
    assert own.mean[0] == pytest.approx(mean, abs=2e-3)


@pytest.mark.parametrize("mu", [0.1, 0.5, 0.85])
@pytest.mark.parametrize(("hosts", "per_host", "rho"), [(20, 10, 0.3), (60, 4, 0.3), (40, 10, 0.1)])
def test_reused_hosts_are_covered_at_the_nominal_rate_and_a_binomial_interval_does_not_cover(mu, hosts, per_host, rho):
    runs = 800
    k = simulate(np.random.default_rng(11), mu, rho, hosts, per_host, runs)
    own = beta_binomial(np.repeat(np.arange(runs), hosts), np.full(k.size, per_host), k.ravel(), runs)
    naive = jeffreys(own.k, own.n, 0.95)
    assert covered(own.intervals[0.95], mu) == pytest.approx(0.95, abs=0.03)
    assert covered(own.intervals[0.68], mu) == pytest.approx(0.68, abs=0.06)
    assert covered(naive, mu) < 0.91
    assert np.all(own.n_eff < own.n)


@pytest.mark.parametrize(("hosts", "per_host"), [(4, 50), (8, 25)])
@pytest.mark.parametrize("rho", [0.1, 0.3])
def test_with_a_handful_of_hosts_the_interval_still_covers_where_a_binomial_one_is_worthless(hosts, per_host, rho):
    for mu in (0.1, 0.5):
        k = simulate(np.random.default_rng(5), mu, rho, hosts, per_host, 400)
        own = beta_binomial(np.repeat(np.arange(400), hosts), np.full(k.size, per_host), k.ravel(), 400)
        assert covered(own.intervals[0.95], mu) >= 0.93
        assert 0.64 <= covered(own.intervals[0.68], mu) <= 0.86
        assert covered(jeffreys(own.k, own.n, 0.95), mu) < 0.75


def test_independent_injections_into_reused_hosts_are_not_made_much_wider():
    k = simulate(np.random.default_rng(3), 0.4, 0.0, 200, 5, 200)
    own = beta_binomial(np.repeat(np.arange(200), 200), np.full(k.size, 5), k.ravel(), 200)
    assert 0.9 < np.median(own.n_eff / own.n) <= 1
    assert covered(own.intervals[0.68], 0.4) == pytest.approx(0.68, abs=0.08)


def test_one_host_says_little_however_often_it_is_used():
    once, often = beta_binomial([0], [1], [1], 1), beta_binomial([0], [200], [200], 1)
    assert often.n_eff[0] < 20
    assert once.intervals[0.95].lo < often.intervals[0.95].lo < jeffreys(200, 200, 0.95).lo


def test_nothing_found_gives_a_bound_of_zero_and_an_upper_one_that_knows_of_the_reuse():
    own = beta_binomial(np.zeros(10, int), np.full(10, 20), np.zeros(10, int), 1)
    assert own.intervals[0.95].lo[0] == 0
    assert own.intervals[0.95].hi[0] > jeffreys(0, 200, 0.95).hi


def test_an_empty_group_has_no_numbers():
    own = beta_binomial([1], [5], [2], 3)
    assert np.isnan(own.n_eff[[0, 2]]).all()
    assert np.isnan(own.intervals[0.68].lo[[0, 2]]).all()
    assert own.intervals[0.68].name == NAME


def test_a_very_narrow_posterior_is_still_resolved():
    rng = np.random.default_rng(5)
    k = rng.binomial(1, 0.3, 60_000)
    own = beta_binomial(np.zeros(k.size, int), np.ones(k.size, int), k, 1)
    exact = jeffreys(k.sum(), k.size, 0.95)
    np.testing.assert_allclose([own.intervals[0.95].lo[0], own.intervals[0.95].hi[0]], [exact.lo, exact.hi], atol=2e-5)


def test_the_order_of_hosts_does_not_matter():
    rng = np.random.default_rng(2)
    group, n = rng.integers(0, 5, 100), rng.integers(1, 9, 100)
    k = rng.integers(0, n + 1)
    mixed = rng.permutation(100)
    a, b = beta_binomial(group, n, k, 5), beta_binomial(group[mixed], n[mixed], k[mixed], 5)
    np.testing.assert_array_equal(a.intervals[0.68].lo, b.intervals[0.68].lo)


def test_the_bootstrap_over_hosts_agrees_where_hosts_are_many():
    rng = np.random.default_rng(8)
    k = simulate(rng, 0.4, 0.2, 150, 5, 1)[0]
    own = beta_binomial(np.zeros(150, int), np.full(150, 5), k, 1).intervals[0.68]
    host = np.repeat(np.arange(150), 5)
    found = np.concatenate([np.arange(5) < x for x in k])
    boot = host_bootstrap(host, found, rng, draws=600)[0.68]
    assert boot.name == "group-bootstrap"
    np.testing.assert_allclose([own.lo[0], own.hi[0]], [boot.lo, boot.hi], atol=0.012)


@pytest.mark.parametrize("bad", [([0], [3], [4]), ([0], [0], [0]), ([2], [3], [1])])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(ValueError, match=r"0 <= k|group"):
        beta_binomial(*bad, 2)


def test_the_error_of_a_threshold_is_added_where_it_moves_the_completeness_and_named():
    own = jeffreys([50, 50], [100, 100], 0.68)
    both = with_threshold_error([0.5, 0.5], own, [0.44, 0.5], [0.57, 0.5])
    assert both.name == "jeffreys" + SUFFIX
    assert both.lo[0] < own.lo[0] < own.hi[0] < both.hi[0]
    assert (both.lo[1], both.hi[1]) == (own.lo[1], own.hi[1])


def test_a_threshold_set_on_few_negatives_is_covered_only_with_its_own_error():
    rng = np.random.default_rng(21)
    from scipy.stats import norm

    f, n_neg, n_inj, mu = 0.01, 2000, 1500, 2.5
    truth = norm.sf(norm.isf(f) - mu)
    with_, without = [], []
    for _ in range(400):
        neg = np.sort(rng.normal(0, 1, n_neg))[::-1]
        inj = rng.normal(mu, 1, n_inj)
        m = f * n_neg
        lo, hi = neg[int(m + np.sqrt(m)) - 1], neg[int(m - np.sqrt(m)) - 1]
        c, strict, loose = ((inj >= t).mean() for t in (neg[int(m) - 1], hi, lo))
        own = jeffreys(round(c * n_inj), n_inj, 0.68)
        both = with_threshold_error(c, own, strict, loose)
        without.append(own.lo <= truth <= own.hi)
        with_.append(both.lo <= truth <= both.hi)
    assert np.mean(without) < 0.5
    assert np.mean(with_) == pytest.approx(0.68, abs=0.07)


@pytest.mark.parametrize(("bricks", "spread"), [(6, 0.1), (12, 0.09), (12, 0.0)])
def test_where_bricks_differ_hosts_as_clusters_are_too_sure_and_bricks_beside_them_are_not(bricks, spread):
    rng = np.random.default_rng(9)
    hosts_per_brick, mu, runs = 15, 0.2, 300
    inside, alone = [], []
    for _ in range(runs):
        s = mu * (1 - mu) / max(spread, 1e-9) ** 2 - 1
        rate = rng.beta(mu * s, (1 - mu) * s, bricks) if spread else np.full(bricks, mu)
        k = rng.binomial(2, np.repeat(rate, hosts_per_brick))
        site = np.repeat(np.arange(bricks), hosts_per_brick)
        both = clustered(np.zeros(k.size, int), site, np.full(k.size, 2), k, 1)
        hosts = beta_binomial(np.zeros(k.size, int), np.full(k.size, 2), k, 1)
        assert both.intervals[0.95].lo[0] <= hosts.intervals[0.95].lo[0]
        assert both.n_eff[0] <= hosts.n_eff[0]
        inside.append([covered(both.intervals[lv], mu) for lv in (0.68, 0.95)])
        alone.append([covered(hosts.intervals[lv], mu) for lv in (0.68, 0.95)])
    got, bare = np.mean(inside, axis=0), np.mean(alone, axis=0)
    assert got[0] >= 0.64
    assert got[1] >= 0.92
    if spread:
        assert bare[1] < 0.9
        assert bare[1] < got[1]


def test_a_brick_for_every_host_changes_nothing_and_ids_name_their_brick():
    rng = np.random.default_rng(4)
    k = rng.binomial(3, 0.3, 50)
    zeros, n = np.zeros(50, int), np.full(50, 3)
    a, b = clustered(zeros, np.arange(50), n, k, 1), beta_binomial(zeros, n, k, 1)
    assert (a.intervals[0.68].lo[0], a.n_eff[0]) == (b.intervals[0.68].lo[0], b.n_eff[0])
    sites = sites_of(["10000-7-1", "10000-7-2", "10000-8-1", "9010-7-1", "a host", "another"])
    assert sites[0] == sites[1]
    assert np.unique(sites).size == 5
