"""Matching, the linear probe and the Frechet distance against planted truth and closed forms."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.errors import BadInput
from lens_assets.science.realism.feature_space import feature_gates
from lens_assets.science.realism.frechet import frechet, gaussian_distance
from lens_assets.science.realism.match import Matched, match
from lens_assets.science.realism.probe import auc, halves_control, linear_probe
from lens_assets.science.realism.settings import Settings
from lens_assets.science.realism.stamps import StampSet


def names(prefix, n):
    return np.array([f"{prefix}{i:04d}" for i in range(n)])


def probe(a, b, ga=None, gb=None, **more):
    ia, ib = names("r", len(a)), names("i", len(b))
    options = {"permutations": 40, "draws": 100, "repeats": 2, "identity": ("t",)} | more
    return linear_probe(
        a, b, ids_a=ia, ids_b=ib, groups_a=ia if ga is None else ga, groups_b=ib if gb is None else gb, **options
    )


def test_features_of_one_population_give_chance_and_lie_in_the_null():
    rng = np.random.default_rng(0)
    result = probe(rng.normal(size=(80, 128)), rng.normal(size=(240, 128)))
    assert 0.4 < result.auc < 0.6
    assert result.p_value > 0.05
    assert result.lo95 < 0.5 < result.hi95
    assert result.null_mean == pytest.approx(0.5, abs=0.05)


def test_planted_separable_features_give_an_auc_near_one():
    rng = np.random.default_rng(1)
    direction = rng.normal(size=128)
    b = rng.normal(size=(240, 128)) + 0.5 * direction
    result = probe(rng.normal(size=(80, 128)), b)
    assert result.auc > 0.97
    assert result.p_value <= 1 / 41 + 1e-9


def test_the_auc_agrees_with_the_closed_form_for_shifted_gaussians():
    rng = np.random.default_rng(22)
    shift = 1.0  # AUC = Phi(shift / sqrt 2) = 0.760
    a = np.concatenate([rng.normal(size=(1500, 1)), rng.normal(size=(1500, 2))], axis=1)
    b = np.concatenate([rng.normal(size=(1500, 1)) + shift, rng.normal(size=(1500, 2))], axis=1)
    result = probe(a, b, permutations=0, draws=200)
    direct = (b[:, 0][:, None] > a[:, 0][None]).mean()
    assert direct == pytest.approx(0.760, abs=0.03)
    assert result.auc == pytest.approx(direct, abs=0.01)
    assert result.lo95 < direct < result.hi95


def _host_identity(rng, hosts, copies):
    """Features that hold nothing but who the host is; labels of hosts are arbitrary."""
    home = 3 * rng.normal(size=(hosts, 60))
    return np.repeat(home, copies, axis=0) + 0.1 * rng.normal(size=(hosts * copies, 60)), np.repeat(
        names("g", hosts), copies
    )


def test_grouped_folds_keep_host_identity_from_leaking():
    rng = np.random.default_rng(3)
    a, ga = _host_identity(rng, 20, 10)
    b, gb = _host_identity(rng, 20, 10)
    gb = np.char.add("x", gb)
    options = {"permutations": 0, "draws": 0, "repeats": 4}
    loose = probe(a, b, ga, gb, grouped=False, **options)
    kept = np.mean([
        probe(*_swap(np.random.default_rng(s)), identity=("t", s), **options).auc for s in range(6)
    ])  # fmt: skip
    assert loose.auc > 0.95
    assert 0.3 < kept < 0.7


def _swap(rng):
    a, ga = _host_identity(rng, 20, 10)
    b, gb = _host_identity(rng, 20, 10)
    return a, b, ga, np.char.add("x", gb)


def test_the_permutation_null_knows_that_copies_of_a_host_are_not_independent():
    rng = np.random.default_rng(4)
    a, b, ga, gb = _swap(rng)
    grouped = probe(a, b, ga, gb, permutations=60)
    rows = probe(a, b, permutations=60)
    assert grouped.null_hi95 > 0.6
    assert grouped.null_hi95 > rows.null_hi95 + 0.05


def test_the_order_of_rows_does_not_matter_and_the_identity_does():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(40, 20)), rng.normal(size=(60, 20)) + 0.2
    ia, ib = names("r", 40), names("i", 60)
    options = {"folds": 4, "permutations": 20, "draws": 50, "identity": ("z",)}
    one = linear_probe(a, b, ids_a=ia, ids_b=ib, groups_a=ia, groups_b=ib, **options)
    p, q = rng.permutation(40), rng.permutation(60)
    two = linear_probe(a[p], b[q], ids_a=ia[p], ids_b=ib[q], groups_a=ia[p], groups_b=ib[q], **options)
    assert one == two
    other = linear_probe(a, b, ids_a=ia, ids_b=ib, groups_a=ia, groups_b=ib, **{**options, "identity": ("y",)})
    assert other.fold_aucs != one.fold_aucs


def test_a_class_with_fewer_groups_than_folds_is_refused():
    rng = np.random.default_rng(6)
    with pytest.raises(BadInput, match="fewer than 5 folds"):
        probe(rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), np.repeat(names("g", 4), 10))


def test_halves_of_one_sample_are_near_chance():
    x = np.random.default_rng(7).normal(size=(120, 30))
    i = names("r", 120)
    values = halves_control(x, ids=i, groups=i, identity=("h",), splits=8)
    assert values.shape == (8,)
    assert values.mean() == pytest.approx(0.5, abs=0.08)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_auc_counts_pairs_with_ties_as_half(scores, seed):
    s = np.asarray(scores, float)
    y = np.random.default_rng(seed).integers(0, 2, len(s)).astype(bool)
    got = auc(s, y)
    if y.all() or not y.any():
        assert np.isnan(got)
    else:
        d = s[y][:, None] - s[~y][None]
        assert got == pytest.approx(((d > 0) + 0.5 * (d == 0)).mean())


def test_the_distance_of_two_gaussians_is_the_closed_form():
    # commuting covariances: |dmu|^2 + sum (sqrt l1 - sqrt l2)^2
    rng = np.random.default_rng(8)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    l1, l2 = rng.uniform(0.2, 3, 6), rng.uniform(0.2, 3, 6)
    mu = rng.normal(size=6)
    got = gaussian_distance(np.zeros(6), q @ np.diag(l1) @ q.T, mu, q @ np.diag(l2) @ q.T)
    assert got == pytest.approx((mu**2).sum() + ((np.sqrt(l1) - np.sqrt(l2)) ** 2).sum())
    # non-commuting, 2 x 2: Tr sqrt(S1 S2) = sqrt(Tr(S1 S2) + 2 sqrt(det S1 S2))
    s1, s2 = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.2], [-0.2, 1.5]])
    cross = np.sqrt(np.trace(s1 @ s2) + 2 * np.sqrt(np.linalg.det(s1 @ s2)))
    assert gaussian_distance(np.zeros(2), s1, np.zeros(2), s2) == pytest.approx(np.trace(s1 + s2) - 2 * cross)


def _frechet(a, b, **more):
    ia, ib = names("r", len(a)), names("i", len(b))
    return frechet(a, b, ids_a=ia, ids_b=ib, groups_a=ia, groups_b=ib, identity=("f",), draws=60, **more)


def test_one_population_lies_in_the_real_real_null_and_a_shift_does_not():
    rng = np.random.default_rng(9)
    a, same, moved = rng.normal(size=(100, 200)), rng.normal(size=(300, 200)), rng.normal(size=(300, 200)) + 0.5
    null, away = _frechet(a, same), _frechet(a, moved)
    assert null.components == 10  # a fifth of half of 100
    assert null.matched_median < null.null_hi95
    assert away.matched_median > 3 * away.null_hi95
    assert away.lo95 <= away.value <= away.hi95
    assert null.value < 0.5 * null.plug_in


def test_more_features_than_rows_stay_well_conditioned():
    rng = np.random.default_rng(10)
    result = _frechet(rng.normal(size=(30, 1280)), rng.normal(size=(60, 1280)))
    assert result.components == 3
    assert np.isfinite(result.plug_in)


def _grid(n, m, seed=0):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=n), "y": rng.normal(size=n)}, {"x": rng.normal(size=m) + 0.5, "y": rng.normal(size=m)}


def test_no_pair_exceeds_the_tolerance_and_no_injection_is_used_twice():
    real, injected = _grid(60, 500)
    tolerance = {"x": 0.1, "y": 0.3}
    m = match(real, injected, tolerance, real_ids=names("r", 60), injected_ids=names("i", 500), per_real=4)
    for axis, t in tolerance.items():
        assert np.abs(real[axis][m.pairs[:, 0]] - injected[axis][m.pairs[:, 1]]).max() <= t
    assert len(np.unique(m.pairs[:, 1])) == len(m.pairs)
    assert np.bincount(m.pairs[:, 0]).max() <= 4
    facts = m.facts
    assert facts["n_real_matched"] + sum(facts["real_left_out"].values()) == 60
    assert facts["n_injected_matched"] + sum(facts["injected_left_out"].values()) == 500


def test_matching_removes_a_difference_of_the_populations():
    real, injected = _grid(200, 4000, 1)
    t = {"x": 0.2, "y": 0.2}
    m = match(real, injected, t, real_ids=names("r", 200), injected_ids=names("i", 4000), per_real=3)
    assert injected["x"].mean() - real["x"].mean() > 0.4
    assert abs(m.facts["axes"]["x"]["standardised_difference"]) < 0.1


def test_matching_does_not_depend_on_the_order_of_rows():
    real, injected = _grid(50, 300, 2)
    injected["x"] = np.round(injected["x"], 1)  # ties
    real["x"] = np.round(real["x"], 1)
    ir, ii = names("r", 50), names("i", 300)
    t = {"x": 0.2, "y": 0.5}
    one = match(real, injected, t, real_ids=ir, injected_ids=ii, per_real=2)
    p, q = np.random.default_rng(0).permutation(50), np.random.default_rng(1).permutation(300)
    two = match(
        {k: v[p] for k, v in real.items()},
        {k: v[q] for k, v in injected.items()},
        t,
        real_ids=ir[p],
        injected_ids=ii[q],
        per_real=2,
    )
    as_names = {(ir[i], ii[j]) for i, j in one.pairs}
    assert as_names == {(ir[p][i], ii[q][j]) for i, j in two.pairs}


def test_unmeasured_and_exact_axes_leave_rows_out_with_a_count():
    real, injected = {"x": np.array([0.0, np.nan, 1.0])}, {"x": np.array([0.0, 1.0])}
    m = match(
        real,
        injected,
        {"x": 0.1},
        real_ids=names("r", 3),
        injected_ids=names("i", 2),
        per_real=1,
        real_exact=np.array(["DEV", "DEV", "SER"]),
        injected_exact=np.array(["DEV", "DEV"]),
    )
    assert m.pairs.tolist() == [[0, 0]]
    assert m.facts["real_left_out"] == {"an axis is not measured": 1, "no injection within tolerance": 1}


@pytest.mark.parametrize(("n", "enough"), [(9, False), (10, True)])
def test_too_few_matched_lenses_for_a_frechet_distance_are_insufficient_and_no_error(n, enough):
    """A profile may let the probe judge fewer lenses than a distance of covariances needs."""
    rng = np.random.default_rng(2)

    def stamps(count, prefix):
        frame = pl.DataFrame({"galaxy_id": [f"{prefix}{i:03d}" for i in range(count)], "depth_r": 24.0})
        frame = frame.with_columns(pl.lit(1.3).alias(f"psfsize_{b}") for b in "grz")
        images = rng.normal(size=(count, 3, 21, 21)).astype(np.float32)
        return StampSet.of(images, np.ones_like(images), frame, rng.normal(size=(count, 6)))

    real, injected = stamps(n, "r"), stamps(30, "i")
    rows = Matched(np.arange(n), np.arange(19), np.zeros((0, 2), np.int64), {})
    few = Settings(min_real=8, permutations=20, bootstrap_draws=50, control_splits=2, probe_repeats=1, probe_folds=3)
    probed, distance = feature_gates(real, injected, stamps(4, "h"), None, None, rows, few, ("few",))
    assert (probed.name, distance.name) == ("feature_probe", "feature_frechet")
    assert np.isfinite(probed.value)
    assert np.isfinite(distance.value) == enough
