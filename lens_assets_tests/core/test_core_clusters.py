"""Paired outcomes in clusters: exact where it can be counted, and of the stated size where it is simulated."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from lens_assets.science.clusters import compare_found, few, mcnemar, sign_flip


def statistic(net):
    """The modified Obuchowski statistic (Yang, Sun & Hardin 2010): what the exact test is the exact test of."""
    d = np.asarray(net, float)
    return d.sum() ** 2 / (d**2).sum() if d.any() else 0.0


def test_mcnemar_is_scipys_binomial_test():
    b, c = np.array([0, 3, 10, 60, 0]), np.array([0, 9, 10, 30, 8])
    wanted = [binomtest(int(x), int(x + y), 0.5).pvalue if x + y else 1.0 for x, y in zip(b, c, strict=True)]
    np.testing.assert_allclose(mcnemar(b, c), wanted)


@pytest.mark.parametrize("net", [[3, -1, 2], [1, 1, 1, 1, -1], [5], [0, 0], [2, 2, -4, 1, 1], [-7, 3, 3, 0, 2, 1]])
def test_the_sign_flip_test_is_the_count_over_all_signs(net):
    sums = [abs(np.dot(signs, net)) for signs in product((-1, 1), repeat=len(net))]
    assert sign_flip(net) == pytest.approx(np.mean(np.array(sums) >= abs(sum(net))))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_changing_signs_leaves_the_order_of_the_obuchowski_statistic(net):
    """The sign-flip test is the exact test of Yang, Sun & Hardin's statistic: as many sign changes reach its value."""
    mine = statistic(net)
    every = [statistic(np.multiply(signs, net)) for signs in product((-1, 1), repeat=len(net))]
    assert sign_flip(net) == pytest.approx(np.mean(np.array(every) >= mine - 1e-9))


def test_the_statistic_is_that_of_a_worked_table():
    """b and c of five clusters; (sum d)^2 / sum d^2 by hand: d = 3, 2, -1, 0, 4 gives 64 / 30."""
    b, c = np.array([4, 2, 0, 1, 5]), np.array([1, 0, 1, 1, 1])
    assert statistic(b - c) == pytest.approx(64 / 30)
    assert statistic([0, 0]) == 0


def test_with_every_object_a_cluster_of_its_own_it_is_mcnemars_exact_test():
    rng = np.random.default_rng(4)
    x, y = rng.random((2, 200)) < [[0.5], [0.62]]
    own = compare_found(x, y, np.arange(200))
    assert own.clusterings[0] == pytest.approx(own.rows, rel=1e-9)
    assert own.p == max(own.rows, own.clusterings[0])


def _pairs(rng, clusters, skewed, gain=0.0):
    """Two finders whose difference varies over clusters of unequal size, with mean ``gain``: normal, or not symmetric."""
    size = rng.integers(5, 40, clusters)
    at = np.repeat(np.arange(clusters), size)
    lean = 0.12 * (rng.exponential(1, clusters) - 1 if skewed else np.clip(rng.normal(0, 1, clusters), -3, 3))
    u = rng.random(at.size)
    common = np.where(rng.random(at.size) < 0.7, u, rng.random(at.size))
    return u < np.clip(0.4 + gain + lean[at], 0, 1), common < 0.4, at


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("clusters", [8, 14, 30])
def test_with_few_clusters_the_exact_test_keeps_its_level_and_mcnemars_does_not(clusters, skewed):
    rng = np.random.default_rng(clusters)
    p = []
    for _ in range(500):
        own = compare_found(*_pairs(rng, clusters, skewed))
        p.append((own.rows, own.clusterings[0]))
    plain, clustered = np.mean(np.array(p) < 0.05, axis=0)
    assert 0.01 < clustered < 0.07
    assert plain > 0.13


def test_a_difference_common_to_all_clusters_is_found():
    rng = np.random.default_rng(9)
    p = [compare_found(*_pairs(rng, 14, False, gain=0.2)).p for _ in range(100)]
    assert np.mean(np.array(p) < 0.05) > 0.7


def test_five_clusters_cannot_prove_anything_at_one_in_twenty():
    assert sign_flip([9, 9, 9, 9, 9]) == pytest.approx(2 / 2**5)
    assert sign_flip([40]) == 1.0


def test_few_clusters_widen_as_students_t():
    assert few([2, 9], 0.95)[0] == pytest.approx(12.706 / 1.95996, rel=1e-3)
    assert few(10**7, 0.68) == pytest.approx(1, abs=1e-4)
    assert np.isinf(few(1, 0.95))
