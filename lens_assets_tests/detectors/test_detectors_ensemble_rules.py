"""How members' logits become one: against scipy, scikit-learn and by construction."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from lens_assets.science.detectors import ensemble_fit, ensemble_maps
from lens_assets.science.detectors.ensemble_combine import LogitMap, Rule
from lens_assets.science.detectors.ensembles import Combiner, composition, load_ensembles, networks_of, read_ensemble
from lens_assets.science.detectors.recipes import Domain, Interval, load_recipes, parse_detector
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import safe_key

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3)
RULES = {
    "mean": Rule(kind="mean"),
    "mean probability": Rule(kind="mean", scale="probability"),
    "platt": Rule(
        kind="calibrated", maps=tuple(LogitMap(knots=((0.0, b),), slope=a) for a, b in ((0.5, 1), (2, 0), (1, -1)))
    ),
    "isotonic": Rule(kind="calibrated", maps=(LogitMap(knots=((-3, -5), (0, -1), (4, 2))),) * 3),
    "routed": Rule(
        kind="routed",
        maps=(LogitMap(knots=((0.0, 0.0),)),) * 3,
        domains=(
            Domain(about="sharp", any_of=({"psfsize_r": Interval(high=1.3)},)),
            Domain(about="blurred", any_of=({"psfsize_r": Interval(low=1.3)},)),
            None,
        ),
    ),
    "stacked": Rule(kind="stacked", weights=(0.2, 0.0, 1.3), bias=-0.4),
}


def seen(n):
    """Conditions of n rows, sharp and blurred in turn, one not known."""
    return pl.DataFrame(
        {"psfsize_r": [1.0 if i % 2 else 1.6 for i in range(n - 1)] + [None]}, schema={"psfsize_r": pl.Float32}
    )


def simulated(n=3000, members=3, seed=0, skill=(1.0, 1.0, 1.0), n_pos=300, common=1.0):
    """Labels, cells and member logits of which a part is common; ``skill`` is the signal of each member."""
    rng = np.random.default_rng(seed)
    label = np.zeros(n, bool)
    label[rng.choice(n, n_pos, replace=False)] = True
    shared = common * rng.normal(size=n)
    x = np.column_stack([3 * s * label + shared + rng.normal(size=n) - 4 for s in skill[:members]])
    return label, rng.integers(0, 80, n), x


def table_of(label, cell, x):
    names = [f"compact-s{j + 1}" for j in range(x.shape[1])]
    return names, pl.DataFrame(
        {"galaxy_id": [f"1-2-{i}" for i in range(len(label))], "label": label.astype(np.int8), "cell": cell}
    ).with_columns(pl.Series(n, x[:, j].astype(np.float32)) for j, n in enumerate(names))


@pytest.mark.parametrize("kind", ["mean", "mean probability"])
def test_a_mean_of_identical_members_is_the_member(kind):
    x = np.linspace(-40, 40, 101, dtype=np.float32)
    out = RULES[kind](np.column_stack([x] * 3))
    np.testing.assert_allclose(out, x, rtol=2e-7, atol=1e-7)
    if kind == "mean":
        assert np.array_equal(out, x)


def test_a_mean_of_probabilities_is_exact_where_they_are_far_from_0_and_1_and_finite_beyond():
    x = np.array([[-2.0, 0.5, 3.0], [1.0, 1.5, -4.0]])
    np.testing.assert_allclose(RULES["mean probability"](x), logit(expit(x).mean(1)), rtol=1e-6)
    far = RULES["mean probability"](np.array([[60.0, 50.0, 55.0], [700.0, -700.0, 0.0]]))
    assert np.isfinite(far).all()
    assert far[0] == pytest.approx(-np.log(np.exp([-60.0, -50.0, -55.0]).mean()), rel=1e-6)  # of being no lens


@pytest.mark.parametrize("name", RULES)
@given(row=LOGITS, step=st.floats(0, 20), which=st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_no_rule_falls_when_a_member_grows_more_confident(name, row, step, which):
    more = list(row)
    more[which] += step
    low, high = RULES[name](np.array([row, more]), pl.DataFrame({"psfsize_r": [1.0, 1.0]}))
    assert high >= low


@pytest.mark.parametrize("name", RULES)
def test_a_row_has_the_same_bits_alone_and_in_any_company(name):
    x = np.random.default_rng(3).normal(0, 6, (257, 3)).astype(np.float32)
    c = seen(257)
    whole = RULES[name](x, c)
    assert np.array_equal(whole, np.concatenate([RULES[name](x[i : i + 1], c[i : i + 1]) for i in range(len(x))]))
    assert np.array_equal(whole[::-1], RULES[name](np.asfortranarray(x)[::-1], c[::-1]))


def test_a_rule_survives_json_bit_by_bit_and_refuses_what_is_none():
    x = np.random.default_rng(4).normal(0, 6, (50, 3))
    for rule in RULES.values():
        again = Rule.model_validate_json(rule.model_dump_json())
        assert np.array_equal(again(x, seen(50)), rule(x, seen(50)))
    for wrong in (
        {"kind": "stacked"}, {"kind": "mean", "weights": (1.0,)}, {"kind": "stacked", "weights": (1.0, -0.1)},
        {"kind": "stacked", "weights": (0.0, 0.0)}, {"kind": "stacked", "weights": (1.0,), "bias": float("nan")},
        {"kind": "calibrated", "maps": [{"knots": [(0, 0), (1, 0)]}]},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            Rule.model_validate(wrong)
    with pytest.raises(ValueError, match="2 members, the rule is for 3"):
        RULES["stacked"](np.zeros((4, 2)))


def test_a_stamp_is_routed_to_the_members_whose_domain_it_lies_in():
    x = np.array([[1.0, 10.0, 100.0]] * 4)
    seeing = pl.DataFrame({"psfsize_r": [1.0, 1.3, 1.6, None]})
    assert RULES["routed"](x, seeing).tolist() == [50.5, 55.0, 55.0, 100.0]
    lonely = Rule(kind="routed", maps=RULES["routed"].maps[:2], domains=RULES["routed"].domains[:2])
    assert lonely(x[:, :2], seeing).tolist() == [1.0, 10.0, 10.0, 5.5], "not known: everybody is asked"
    assert RULES["routed"].conditions == ("psfsize_r",)
    assert RULES["stacked"].conditions == ()
    for conditions in (None, seeing[:2]):
        with pytest.raises(BadInput, match="psfsize_r"):
            RULES["routed"](x, conditions)


def test_specialists_are_calibrated_in_their_domains_and_beat_their_mean():
    rng = np.random.default_rng(4)
    n = 4000
    label, sharp = rng.random(n) < 0.2, rng.random(n) < 0.5
    noise = rng.normal(size=(n, 2))
    good = np.where(sharp, 4 * label, 0) + noise[:, 0] - 2  # knows nothing outside its domain
    poor = 3 * (np.where(sharp, 0, 4 * label) + noise[:, 1] - 2)  # and this one's logits are three times too large
    names, table = table_of(label, rng.integers(0, 80, n), np.column_stack([good, poor]))
    table = table.with_columns(psfsize_r=pl.Series(np.where(sharp, 1.0, 1.6)))
    domains = RULES["routed"].domains[:2]
    made = ensemble_fit.fit(Combiner(kind="routed"), table, names, seed=1, domains=domains)
    assert made.facts["oof_auc_gain_over_mean"]["lo95"] > 0.01
    assert made.rule.maps[0].slope == pytest.approx(3 * made.rule.maps[1].slope, rel=0.15)
    alone = ensemble_maps.platt(good[sharp], label[sharp])
    assert made.rule.maps[0].slope == pytest.approx(alone.slope, rel=1e-3)
    with pytest.raises(BadInput, match="none has one"):
        ensemble_fit.fit(Combiner(kind="routed"), table, names, seed=1, domains=(None, None))
    few = table.with_columns(psfsize_r=pl.when(pl.col("label") == 1).then(1.0).otherwise(pl.col("psfsize_r")))
    with pytest.raises(BadInput, match=r"has 0 lenses, 10 are needed \(blurred\)"):
        ensemble_fit.fit(Combiner(kind="routed"), few, names, seed=1, domains=domains)


def test_the_weight_of_a_member_is_the_derivative_of_the_combined_logit():
    x = np.array([[0.3, -1.2, 2.0]])
    for rule in (RULES["mean"], RULES["platt"], RULES["stacked"]):
        for j, weight in enumerate(rule.effective_weights(3)):
            up = x.copy()
            up[0, j] += 1.0
            assert float(rule(up)[0] - rule(x)[0]) == pytest.approx(weight, abs=1e-6)
    assert RULES["isotonic"].effective_weights(3) == [None] * 3
    assert RULES["mean probability"].effective_weights(3) == [None] * 3


def test_platts_map_recovers_the_line_that_made_the_labels():
    rng = np.random.default_rng(5)
    x = rng.normal(-1, 3, 60_000)
    label = rng.random(len(x)) < expit(0.6 * x - 1.5)
    made = ensemble_maps.platt(x, label)
    assert made.slope == pytest.approx(0.6, abs=0.02)
    assert float(made(0.0)) == pytest.approx(-1.5, abs=0.05)


def test_the_isotonic_map_follows_a_curve_rises_everywhere_and_ties_nothing():
    rng = np.random.default_rng(6)
    x = rng.normal(0, 3, 40_000)
    true = np.where(x < 0, 0.3 * x - 1, 2 * x - 1)
    label = rng.random(len(x)) < expit(true)
    made = ensemble_maps.isotonic(x, label)
    inner = np.abs(x) < 3
    assert np.abs(expit(made(x[inner])) - expit(true[inner])).mean() < 0.02
    grid = np.linspace(-60, 60, 2001)
    assert (np.diff(made(grid)) > 0).all()


def test_a_member_whose_logit_does_not_rise_with_the_label_is_refused_by_name():
    label, cell, x = simulated()
    x[:, 1] *= -1
    names, table = table_of(label, cell, x)
    for kind in ("platt", "isotonic"):
        with pytest.raises(BadInput, match=r"compact-s2.*does not rise"):
            ensemble_fit.fit(Combiner(kind="calibrated", map=kind), table, names, seed=1)


def test_without_a_pull_the_stacker_is_the_logistic_regression_of_scikit_learn():
    label, _, x = simulated(skill=(1.0, 0.6, 0.3), common=0.0)
    rule = ensemble_fit.stacked(x, label, 1e-9)
    soft = ensemble_maps.targets(label)
    theirs = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(
        np.vstack([x, x]), np.repeat([1, 0], len(x)), np.concatenate([soft, 1 - soft])
    )
    np.testing.assert_allclose(rule.weights, theirs.coef_[0], atol=2e-3)
    assert rule.bias == pytest.approx(float(theirs.intercept_[0]), abs=2e-3)


@pytest.mark.parametrize("kind", ["stacked", "calibrated"])
def test_members_that_separate_the_classes_give_finite_logits(kind):
    label, cell, x = simulated(n=500, n_pos=50, skill=(9.0, 9.0, 9.0))
    names, table = table_of(label, cell, x)
    made = ensemble_fit.fit(Combiner(kind=kind), table, names, seed=1)
    combined = made.rule(x)
    assert combined[label].min() > combined[~label].max()
    assert np.abs(combined).max() < 40


def test_a_strong_pull_gives_all_members_one_weight_and_a_useless_member_gets_none_without_it():
    label, _, x = simulated(skill=(1.0, 1.0, 0.0), common=0.0)
    strong = ensemble_fit.stacked(x, label, 1e9)
    np.testing.assert_allclose(strong.weights, np.mean(strong.weights), rtol=1e-4)
    free = ensemble_fit.stacked(x, label, 1e-9)
    assert free.weights[2] < 0.05 * free.weights[0]
    assert min(free.weights) >= 0


def test_few_rows_keep_equal_weights_and_many_tell_the_better_member():
    few = simulated(n=150, n_pos=12, skill=(1.0, 1.0, 1.0), seed=2)
    names, table = table_of(*few)
    made = ensemble_fit.fit(Combiner(kind="stacked"), table, names, seed=1)
    assert made.facts["strength"] == "equal weights"
    np.testing.assert_allclose(made.rule.weights, np.mean(made.rule.weights))
    many = simulated(n=5000, n_pos=500, skill=(1.0, 1.0, 0.1), common=0.0, seed=2)
    names, table = table_of(*many)
    made = ensemble_fit.fit(Combiner(kind="stacked"), table, names, seed=1)
    assert made.rule.weights[2] < 0.2 * made.rule.weights[0]
    assert made.facts["oof_loss_gain_over_mean"]["lo95"] > 0
    assert made.facts["oof_auc_gain_over_mean"]["lo95"] > 0


def test_on_members_that_know_nothing_the_out_of_fold_gain_is_none_where_the_fitted_rows_flatter():
    """An in-sample judgement of the same fit claims a gain: it is the out-of-fold one that is reported."""
    rng = np.random.default_rng(8)
    label, cell, _ = simulated(n=400, n_pos=60, seed=8)
    x = rng.normal(size=(400, 3)) + 0.05 * label[:, None]
    fold = ensemble_fit.folds_of(cell, label)
    inside = ensemble_fit.stacked(x, label, 1e-9)(x)
    outside = ensemble_fit.out_of_fold(x, fold, lambda r: ensemble_fit.stacked(x[r], label[r], 1e-9))
    loss = [ensemble_fit.cross_entropy(z.astype(float), label).mean() for z in (inside, outside)]
    assert loss[1] > loss[0]
    names, table = table_of(label, cell, x)
    made = ensemble_fit.fit(Combiner(kind="stacked"), table, names, seed=1)
    assert made.facts["oof_auc_gain_over_mean"]["lo68"] <= 0.02


def test_a_row_is_combined_out_of_fold_by_a_rule_that_has_not_seen_its_label():
    label, cell, x = simulated(n=600, n_pos=60)
    fold = ensemble_fit.folds_of(cell, label)

    def combined(y):
        return ensemble_fit.out_of_fold(x, fold, lambda r: ensemble_fit.stacked(x[r], y[r], 1.0))

    before = combined(label)
    flipped = label.copy()
    flipped[fold == 2] ^= np.arange(600)[fold == 2] % 3 == 0
    after = combined(flipped)
    assert np.array_equal(before[fold == 2], after[fold == 2])
    assert not np.array_equal(before[fold != 2], after[fold != 2])


@pytest.mark.parametrize("kind", ["stacked", "calibrated"])
def test_a_fitted_logit_refers_to_the_ratio_of_classes_of_the_training_sample(kind):
    """Non-lenses thinned to a tenth for `calibrate` change the rule by nothing but the noise of the fit."""
    label, cell, x = simulated(n=8000, n_pos=400, seed=5)
    rare = np.log(label.sum() / (~label).sum())
    keep = label | (np.random.default_rng(1).random(len(label)) < 0.1)
    rules = []
    for rows in (np.ones(len(label), bool), keep):
        names, table = table_of(label[rows], cell[rows], x[rows])
        rules.append(ensemble_fit.fit(Combiner(kind=kind), table, names, seed=1, log_odds=rare).rule)
    mean = [float(rule(x).mean()) for rule in rules]
    assert abs(mean[0] - mean[1]) < 0.4, "the ratio of classes differs by ln 10"
    if kind == "stacked":  # a mean of calibrated members is itself underconfident (Ranjan & Gneiting 2010)
        assert expit(rules[1](x)).sum() == pytest.approx(label.sum(), rel=0.15)


def test_folds_keep_cells_whole_share_the_lenses_and_do_not_depend_on_the_order_of_rows():
    label, cell, _ = simulated(n=2000, n_pos=100)
    fold = ensemble_fit.folds_of(cell, label)
    assert all(len(set(fold[cell == c])) == 1 for c in np.unique(cell))
    lenses = np.bincount(fold, label)
    assert lenses.max() - lenses.min() <= max(np.bincount(cell, label))
    order = np.random.default_rng(1).permutation(2000)
    assert np.array_equal(ensemble_fit.folds_of(cell[order], label[order]), fold[order])
    with pytest.raises(BadInput, match="too few sky cells"):
        ensemble_fit.folds_of(np.where(label, 1, cell), label)


def test_a_fit_is_the_same_whatever_the_order_of_the_rows():
    names, table = table_of(*simulated(n=900, n_pos=90))
    one = ensemble_fit.fit(Combiner(kind="stacked"), table, names, seed=1)
    other = ensemble_fit.fit(Combiner(kind="stacked"), table.sample(fraction=1.0, shuffle=True, seed=3), names, seed=1)
    assert one.rule == other.rule
    assert one.facts == other.facts
    assert one.rows.equals(other.rows)


def test_too_few_lenses_stop_the_fit_or_give_a_mean_that_says_why():
    names, table = table_of(*simulated(n=300, n_pos=7))
    with pytest.raises(BadInput, match="has 7 lenses, 10 are needed"):
        ensemble_fit.fit(Combiner(kind="stacked"), table, names, seed=1)
    made = ensemble_fit.fit(Combiner(kind="calibrated", fallback="mean"), table, names, seed=1)
    assert made.rule == Rule(kind="mean")
    assert made.rows is None
    assert made.facts["combiner"] == "mean"
    assert "mean instead of calibrated: the role `calibrate` has 7 lenses" in made.facts["fell_back"]


def test_rows_that_a_member_has_seen_are_refused():
    """A member that memorised the rows of the fit would be given all the weight: it must not come to that."""
    with pytest.raises(BadInput, match="member compact-s2 has seen 1 of the 3 rows"):
        ensemble_fit.refuse_seen(["a", "b", "c"], {"compact-s1": ["d"], "compact-s2": ["c", "x"]})
    ensemble_fit.refuse_seen(["a"], {"compact-s1": ["d"]})
    label, cell, x = simulated(n=800, n_pos=80)
    x[:, 2] = np.where(label, 9.0, -9.0)
    _, table = table_of(label, cell, x)
    made = ensemble_fit.fit(Combiner(kind="stacked"), table, ["compact-s1", "compact-s2", "compact-s3"], seed=1)
    assert made.facts["oof_auc"] == 1.0, "folds alone do not notice: that is why seen rows are refused"


def test_the_packaged_ensembles_name_networks_and_their_keys_are_keys():
    found, recipes = load_ensembles(), load_recipes()
    assert {"mean_compact-e1", "mixed_mean-e1", "mixed_calibrated-e1", "mixed_stacked-e1"} <= set(found)
    for key, ensemble in found.items():
        assert safe_key(key) == key == ensemble.key
        assert composition(key).members == ensemble.members
        for member in ensemble.members:
            assert parse_detector(member, recipes).key == member
    assert composition("compact-s7").members == ("compact-s7",)
    assert networks_of(["compact-s2", "mean_compact-e1"]) == ("compact-s2", "compact-s1", "compact-s3")
    assert len({composition(k).digest for k in (*found, "compact-s1", "compact-s2")}) == len(found) + 2
    with pytest.raises(BadInput, match="names no ensemble"):
        composition("nothing-e1")


def test_a_definition_with_a_fault_names_its_file():
    text = "name: mine\nabout: x\nmembers: [compact-s1, {}]\ncombiner: {{kind: {}}}\n"
    assert read_ensemble(text.format("compact-s2", "mean")).digest
    for members, kind in (("compact-s1", "mean"), ("compact-s2", "median")):
        with pytest.raises(BadInput, match=r"mine\.yaml"):
            read_ensemble(text.format(members, kind), file="mine.yaml")
