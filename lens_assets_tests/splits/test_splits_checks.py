"""Every check passes on a sound table and fails on the fault it is for."""

import numpy as np
import polars as pl
import pytest

from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.splits import checks
from lens_assets.science.splits.assign import make_splits
from lens_assets.science.splits.balance import balance
from lens_assets.science.splits.settings import Settings, ShortcutSettings
from lens_assets.science.splits.shortcut import balancing_weights, metadata_shortcut, weighted_auc

S = Settings()
PROFILE = load_selection("paper-iv")


def table_of(sky, n_lens=150, n=1800, lens_more=None, **more):
    place = {"ra": (150, 162), "dec": (-4, 4)}
    varied = {f"nobs_{b}": np.random.default_rng(i).integers(3, 15, n).tolist() for i, b in enumerate("grz")}
    varied_lens = {
        f"nobs_{b}": np.random.default_rng(9 + i).integers(3, 15, n_lens).tolist() for i, b in enumerate("grz")
    }
    ebv = np.random.default_rng(5).uniform(0.01, 0.08, n + n_lens)
    negative = sky.eligible(n, 1, **{**place, "type": ["SER", "REX", "DEV"] * (n // 3), **varied,
                                     "ebv": ebv[:n].tolist(), **more})  # fmt: skip
    negative = negative.with_columns(
        pool=pl.lit("N1"), n2_category=pl.lit(None, dtype=pl.String), deployment_weight=pl.lit(1.0),
        selection=pl.lit("paper-iv"),
    )  # fmt: skip
    lens = sky.eligible(n_lens, 700, **{**place, "type": ["SER", "SER", "DEV"] * (n_lens // 3), **varied_lens,
                                        "ebv": ebv[n:].tolist(), **(lens_more or {})})  # fmt: skip
    use = ["evaluation"] * 12 + ["train"] * (n_lens - 12)
    return make_splits(sky.positives(lens, use), negative, S)[0]


@pytest.fixture(scope="module")
def table(sky):
    return table_of(sky)


def change(table, row, **values):
    """The table with one row's values replaced."""
    at = pl.int_range(pl.len()) == row
    return table.with_columns(
        pl.when(at).then(pl.lit(v, dtype=table.schema[k])).otherwise(pl.col(k)).alias(k) for k, v in values.items()
    )


def where(table, **values):
    """Index of the first row with these values."""
    mask = pl.all_horizontal(pl.col(k) == v for k, v in values.items())
    return int(table.select(mask.arg_max()).item())


def problems(check):
    assert not check.passed
    return check.problems


def test_a_sound_table_passes_every_check(table):
    results = checks.all_checks(table, S, PROFILE)
    assert {name: r.problems for name, r in results.items()} == {name: [] for name in results}
    assert list(results) == [
        "keys_complete", "ids_disjoint", "cells_disjoint", "train_clear_of_evaluation", "splits_apart",
        "shares_achieved", "same_screen",
    ]  # fmt: skip
    assert results["train_clear_of_evaluation"].facts["nearest_arcsec"] > 11
    assert results["splits_apart"].facts["closest_arcsec"] > 40


@pytest.mark.parametrize("column", ["split", "role", "cell", "label", "ra", "galaxy_id"])
def test_a_null_key_is_found(table, column):
    assert f"1 rows have no {column}" in problems(checks.keys_complete(change(table, 5, **{column: None})))


def test_a_role_that_does_not_fit_is_found(table):
    row = where(table, split="train")
    name = table["galaxy_id"][row]
    assert problems(checks.keys_complete(change(table, row, role="host"))) == [f"{name}: role 'host' in split 'train'"]
    row = where(table, split="test", label=1)
    name = table["galaxy_id"][row]
    assert problems(checks.keys_complete(change(table, row, role="host"))) == [f"{name}: a lens with role 'host'"]
    assert not checks.keys_complete(change(table, row, split="Test")).passed


def test_a_galaxy_in_two_splits_is_found(table):
    a, b = where(table, split="train"), where(table, split="test")
    name = table["galaxy_id"][a]
    found = problems(checks.ids_disjoint(change(table, b, galaxy_id=name)))
    assert found == [f"{name} occurs 2 times, in test, train"]


def test_a_cell_in_two_splits_is_found_even_when_the_column_hides_it(table):
    a, b = where(table, split="train", label=0), where(table, split="test", label=0)
    cell = table["cell"][a]
    moved = change(table, b, cell=cell)
    assert f"cell {cell} is in test and train" in problems(checks.cells_disjoint(moved))
    hidden = change(table, b, ra=table["ra"][a], dec=table["dec"][a])
    found = problems(checks.cells_disjoint(hidden))
    assert f"cell {cell} is in test and train" in found
    assert "1 rows carry a cell that is not that of their position" in found


def test_a_picture_in_two_splits_is_found(table):
    digests = table.select("galaxy_id", digest=pl.col("galaxy_id"))
    assert checks.digests_disjoint(table, digests).passed
    a = where(table, split="train")
    for split in ("test", "val", "evaluation"):
        b = where(table, split=split)
        twin = change(digests, b, digest=digests["digest"][a])
        assert len(problems(checks.digests_disjoint(table, twin))) == 1
    assert checks.digests_disjoint(
        table, change(digests, where(table, split="guard"), digest=digests["digest"][a])
    ).passed
    assert problems(checks.digests_disjoint(table, change(digests, a, digest=None))) == ["1 cutouts have no digest"]
    stranger = digests.with_columns(galaxy_id="x" + pl.col("galaxy_id"))
    assert problems(checks.digests_disjoint(table, stranger)) == [
        "none of the digests belongs to an object of the table"
    ]


@pytest.mark.parametrize("split", ["evaluation", "val", "test"])
@pytest.mark.parametrize(("arcsec", "clear"), [(10.9, False), (11.1, True)])
def test_training_next_to_an_evaluation_lens_is_found(table, split, arcsec, clear):
    lens, train = where(table, split=split, label=1), where(table, split="train", label=0)
    near = change(table, train, ra=table["ra"][lens], dec=table["dec"][lens] + arcsec / 3600)
    assert checks.train_clear_of_evaluation(near).passed is clear
    other = where(table, split="guard", label=0)
    assert checks.train_clear_of_evaluation(
        change(table, other, ra=table["ra"][lens], dec=table["dec"][lens] + arcsec / 3600)
    ).passed


def test_splits_that_touch_are_found(table):
    a, b = where(table, split="train", label=0), where(table, split="val", label=0)
    for arcsec, apart in ((39.0, False), (41.0, True)):
        near = change(table, b, ra=table["ra"][a], dec=table["dec"][a] + arcsec / 3600)
        # only the pair may be at fault: nothing else of the table is near
        assert checks.splits_apart(near, 40.0).passed is apart


@pytest.mark.parametrize(("split", "barred"), [("train", True), ("val", True), ("test", False)])
def test_a_stamp_that_reaches_into_that_of_an_evaluation_lens_is_found_unless_both_only_judge(table, split, barred):
    lens, other = where(table, split="evaluation", label=1), where(table, split=split, label=0)
    for arcsec, apart in ((39.0, not barred), (41.0, True)):
        near = change(table, other, ra=table["ra"][lens], dec=table["dec"][lens] + arcsec / 3600)
        assert checks.splits_apart(near, 40.0).passed is apart


def test_inverted_shares_are_found_by_name(table):
    names = {"train": "test", "test": "train"}
    inverted = table.with_columns(pl.col("split").replace(names))
    found = problems(checks.shares_achieved(inverted, S))
    assert any("of the positives are in train, wanted 0.700" in p for p in found)
    assert any("of the negatives are in test, wanted 0.150" in p for p in found)
    only = table.filter(pl.col("label") == 0)
    assert "there are no positives in the splits" in problems(checks.shares_achieved(only, S))
    skewed = table.filter((pl.col("split") != "val") | (pl.col("label") == 1) | (pl.int_range(pl.len()) % 3 == 0))
    assert not checks.shares_achieved(skewed, S).passed


@pytest.mark.parametrize(
    ("label", "values", "step"),
    [
        (1, {"nobs_g": 2}, "nobs_g"),
        (1, {"flux_z": 9.0}, "mag_z"),
        (1, {"dec": 33.0}, "dec_max"),
        (1, {"type": "PSF"}, "type"),
        (0, {"type": "EXP"}, "type"),
        (0, {"nobs_z": 1}, "nobs_z"),
    ],
)
def test_a_cut_on_one_class_alone_is_found(table, label, values, step):
    role = "positive" if label else "negative"
    bad = change(table, where(table, label=label), **values)
    assert problems(checks.same_screen(bad, PROFILE)) == [f"1 {role}s do not pass {step}"]


def test_a_screen_that_needs_what_the_table_lacks_says_so(table):
    odd = PROFILE.model_copy(update={"dereddened": True, "cuts": ()})
    assert checks.same_screen(table, odd).facts["not_checked"] == ["mag_z"]


def test_splits_of_another_depth_are_found(table):
    assert checks.balanced(balance(table)).passed
    deep = table.with_columns(
        pl.when(pl.col("split") == "test").then(pl.col("depth_r") + 1).otherwise("depth_r").alias("depth_r")
    )
    found = problems(checks.balanced(balance(deep)))
    assert {p.split(" of ")[0] for p in found} == {"depth_r"}
    assert all(" in test " in p for p in found)


def test_losses_of_one_class_are_found(table):
    rng = np.random.default_rng(1)
    at_random = table.filter(pl.Series(rng.random(table.height) < 0.9))["galaxy_id"]
    assert checks.losses_alike(table, at_random).passed
    of_lenses = table.filter((pl.col("label") == 0) | pl.Series(rng.random(table.height) < 0.5))["galaxy_id"]
    assert any(p.startswith("label 1") for p in problems(checks.losses_alike(table, of_lenses)))
    south = table.filter((pl.col("dec") > 0) | pl.Series(rng.random(table.height) < 0.5))["galaxy_id"]
    assert any(p.startswith("dec -10") for p in problems(checks.losses_alike(table, south)))


def test_the_weighted_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(2)
    score, label, w = rng.integers(0, 6, 80).astype(float), rng.integers(0, 2, 80), rng.integers(0, 4, 80).astype(float)
    up = score[:, None] - score[None, :]
    pair = (w * (label == 1))[:, None] * (w * (label == 0))[None, :]
    assert weighted_auc(score, label, w) == pytest.approx(((up > 0) * pair + 0.5 * (up == 0) * pair).sum() / pair.sum())
    assert np.isnan(weighted_auc(score, np.ones(80), w))


def test_balancing_weights_even_out_each_stratum_and_drop_those_with_one_class():
    stratum = np.array(["a"] * 10 + ["b"] * 6 + ["c"] * 3)
    label = np.array([1] * 2 + [0] * 8 + [1] * 3 + [0] * 3 + [1] * 3)
    w = balancing_weights(stratum, label)
    for name, n in (("a", 2), ("b", 3)):
        for k in (0, 1):
            assert w[(stratum == name) & (label == k)].sum() == pytest.approx(n)
    assert (w[stratum == "c"] == 0).all()


FAST = Settings(shortcut=ShortcutSettings(draws=100, folds=3))


def test_metadata_that_says_nothing_passes(table):
    result = metadata_shortcut(table, FAST)
    assert result.verdict == "pass"
    assert result.lo68 < 0.60
    assert result.lo68 <= result.auc <= result.hi68
    assert 0.35 < result.auc < 0.65
    assert set(result.models) == {"gradient-boosting", "logistic"}


def test_the_type_mix_alone_is_stratified_away(table):
    """Two of three lenses are SER and one of three negatives: a difference of sampling, not a shortcut."""
    share = [table.filter(pl.col("label") == k).select((pl.col("type") == "SER").mean()).item() for k in (0, 1)]
    assert share[1] > 1.5 * share[0]
    assert metadata_shortcut(table, FAST).passed


@pytest.mark.parametrize(
    ("column", "shift", "group"), [("depth_r", 0.5, "depth"), ("psfsize_z", -0.2, "psfsize"), ("ebv", 0.05, "ebv")]
)
def test_a_class_seen_under_other_conditions_fails_and_the_cause_is_named(table, column, shift, group):
    planted = table.with_columns(
        pl.when(pl.col("label") == 1).then(pl.col(column) + shift).otherwise(pl.col(column)).alias(column)
    )
    result = metadata_shortcut(planted, FAST)
    assert result.verdict == "fail"
    assert result.lo68 > 0.60
    assert next(iter(result.importances)) == group


def test_the_shortcut_does_not_depend_on_the_order_of_rows(table):
    a = metadata_shortcut(table, FAST)
    b = metadata_shortcut(table[np.random.default_rng(3).permutation(table.height)], FAST)
    assert a == b


def test_too_few_lenses_are_insufficient_which_is_not_a_pass(table):
    few = table.filter((pl.col("label") == 0) | (pl.int_range(pl.len()) % 12 == 0))
    result = metadata_shortcut(few, FAST)
    assert result.verdict == "insufficient"
    assert not result.passed
    assert np.isnan(result.auc)


def test_missing_values_do_not_stop_the_test(table):
    holes = table.with_columns(
        pl.when(pl.int_range(pl.len()) % 50 == 0).then(None).otherwise(pl.col("depth_g")).alias("depth_g")
    )
    assert metadata_shortcut(holes, FAST).verdict == "pass"
