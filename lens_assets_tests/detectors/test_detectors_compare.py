"""Two detectors on the same rows: DeLong against the kernel it abbreviates and against simulation, pairs, Holm."""

import re

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from lens_assets.science.detectors import measures
from lens_assets.science.detectors.compare import answer, compare, delong, delong_p, holm
from lens_assets.science.detectors.evaluate import thresholds_of
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput

QUICK = Settings(draws=200, fpr_targets=(0.1,))


def pair(rng, m=40, n=120, gain=1.5, share=0.7, gain_b=None):
    """Scores of two detectors that see the same noise to a ``share``."""
    label = np.arange(m + n) < m
    common = rng.normal(size=m + n)
    own = rng.normal(size=(2, m + n))
    gains = np.array([gain, gain if gain_b is None else gain_b])
    return np.sqrt(share) * common + np.sqrt(1 - share) * own + gains[:, None] * label, label


def by_kernel(scores, label):
    """DeLong 1988, equations 4 to 8, as written: the m x n kernel."""
    placed = []
    for s in scores:
        x, y = s[label][:, None], s[~label][None, :]
        placed.append(np.where(x > y, 1.0, np.where(x == y, 0.5, 0.0)))
    v10 = np.array([k.mean(1) for k in placed])
    v01 = np.array([k.mean(0) for k in placed])
    m, n = label.sum(), (~label).sum()
    return v10.mean(1), np.cov(v10) / m + np.cov(v01) / n


@pytest.mark.parametrize("ties", [False, True])
def test_delong_by_ranks_is_delong_by_the_kernel(ties):
    scores, label = pair(np.random.default_rng(0))
    scores = np.round(scores) if ties else scores
    auc, cov = delong(scores, label)
    expected, expected_cov = by_kernel(scores, label)
    np.testing.assert_allclose(auc, expected, rtol=1e-12)
    np.testing.assert_allclose(cov, expected_cov, rtol=1e-10)
    assert auc[0] == pytest.approx(roc_auc_score(label, scores[0]))


def test_the_variance_of_a_difference_is_that_of_many_experiments():
    found, stated = [], []
    for run in range(400):
        d, se, _ = delong_p(*pair(np.random.default_rng(run)))
        found.append(d)
        stated.append(se)
    assert np.mean(stated) == pytest.approx(np.std(found), rel=0.1)


def test_equal_detectors_are_called_different_at_the_stated_rate():
    p = np.array([delong_p(*pair(np.random.default_rng(1000 + run)))[2] for run in range(400)])
    assert 0.02 < (p < 0.05).mean() < 0.085
    assert 0.25 < (p < 0.3).mean() < 0.36


def test_with_a_cluster_a_row_the_clustered_variance_is_delongs():
    scores, label = pair(np.random.default_rng(5))
    plain, clustered = delong(scores, label), delong(scores, label, np.arange(len(label)))
    np.testing.assert_allclose(clustered[0], plain[0])
    np.testing.assert_allclose(clustered[1], plain[1], rtol=1e-9)


def test_the_clustered_variance_is_obuchowskis_formula_cluster_by_cluster():
    """S10 / m + S01 / n + 2 S11 / (m n) of Obuchowski 1997, summed by hand over clusters that hold both classes."""
    scores, label = pair(np.random.default_rng(6), m=30, n=60)
    cluster = np.random.default_rng(7).integers(0, 9, 90)
    m, n, x, y = 30, 60, scores[0][label], scores[0][~label]
    v10, v01 = (x[:, None] > y).mean(1), (x[:, None] > y).mean(0)
    auc = v10.mean()
    p = [(v10[cluster[label] == k] - auc).sum() for k in range(9)]
    q = [(v01[cluster[~label] == k] - auc).sum() for k in range(9)]
    s10, s01, s11 = (9 / 8 * np.dot(a, b) for a, b in ((p, p), (q, q), (p, q)))
    assert delong(scores, label, cluster)[1][0, 0] == pytest.approx(s10 / m**2 + s01 / n**2 + 2 * s11 / (m * n))


def in_bricks(rng, bricks, spread):
    """Two detectors that are as good, one of which likes or dislikes the lenses of a brick; six lenses, ten others in each."""
    label = np.tile(np.arange(16) < 6, bricks)
    at = np.repeat(np.arange(bricks), 16)
    common, own = rng.normal(size=label.size), rng.normal(size=(2, label.size))
    lean = rng.normal(0, spread, (2, bricks))[:, at]
    return 0.8 * common + 0.5 * own + lean * label + 1.5 * label, label, at


@pytest.mark.parametrize("bricks", [10, 30])
def test_bricks_that_one_detector_likes_do_not_make_it_better(bricks):
    p = []
    for run in range(250):
        scores, label, at = in_bricks(np.random.default_rng(run), bricks, 0.5)
        p.append((delong_p(scores, label)[2], delong_p(scores, label, at)[2]))
    plain, clustered = np.mean(np.array(p) < 0.05, axis=0)
    assert plain > 0.12
    assert clustered < 0.085


def test_one_brick_proves_nothing():
    scores, label = pair(np.random.default_rng(3), m=150, n=600, gain=2.0, gain_b=1.0)
    assert delong_p(scores, label, np.zeros(len(label)))[2] == 1.0
    with pytest.raises(BadInput, match="one cluster"):
        delong(scores, label, np.zeros(len(label)))


def test_a_better_detector_is_found_and_the_bootstrap_agrees():
    scores, label = pair(np.random.default_rng(3), m=150, n=600, gain=1.6, gain_b=1.2)
    d, se, p = delong_p(scores, label)
    assert d > 0
    assert p < 0.01
    weights = measures.group_bootstrap(label, np.arange(len(label)), 400, np.random.default_rng(0))
    drawn = []
    for s in scores:
        order = np.argsort(-s, kind="stable")
        r = measures.ranked(s, label)
        drawn.append(np.concatenate([measures.auc_and_ap(r, w[:, order])[0] for w in weights]))
    assert np.std(drawn[0] - drawn[1]) == pytest.approx(se, rel=0.12)


def test_identical_detectors_have_no_difference_and_p_one():
    scores, label = pair(np.random.default_rng(4))
    assert delong_p(np.stack([scores[0], scores[0]]), label) == (0.0, 0.0, 1.0)
    with pytest.raises(BadInput, match="two of each"):
        delong(scores, np.arange(len(label)) == 0)


def test_systems_that_appear_twice_count_once():
    label = np.arange(200) < 100
    groups = np.where(label, np.arange(200) // 10, np.arange(200))
    score = np.random.default_rng(0).normal(size=200) + np.repeat(np.random.default_rng(1).normal(size=20), 10) + label
    order, r = np.argsort(-score, kind="stable"), measures.ranked(score, label)
    spread = {
        name: np.std(np.concatenate([measures.auc_and_ap(r, w[:, order])[0] for w in
                                     measures.group_bootstrap(label, g, 400, np.random.default_rng(0))]))
        for name, g in (("alone", np.arange(200)), ("grouped", groups))
    }  # fmt: skip
    assert spread["grouped"] > 1.3 * spread["alone"]
    for block in measures.group_bootstrap(label, groups, 20, np.random.default_rng(0)):
        assert (block[:, ~label].sum(1) == 100).all()
        assert all(len(np.unique(row[:10])) == 1 for row in block), "members of a group are drawn together"


def test_holm_is_the_step_down_of_its_definition():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, np.nan, 0.9]), [1.0, np.nan, 1.0])


def sample_of(label, rng):
    n = len(label)
    return pl.DataFrame({
        "galaxy_id": [f"1-{i:05d}" for i in range(n)], "label": label.astype(np.int8), "role": ["report"] * n,
        "type": np.where(rng.random(n) < 0.5, "DEV", "SER"), "system_id": [f"s{i}" if x else None for i, x in enumerate(label)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def table():
    """A detector that is better in SER alone."""
    rng = np.random.default_rng(7)
    label = np.arange(1200) < 240
    sample = sample_of(label, rng)
    common, ser = rng.normal(size=1200), (sample["type"] == "SER").to_numpy()
    logits = common + 1.5 * label + np.where(ser, 1.2 * label, 0), common + 1.5 * label + 0.15 * rng.normal(size=1200)
    frames = [
        pl.DataFrame({"galaxy_id": sample["galaxy_id"], "logit": z, "score": 1 / (1 + np.exp(-z))}) for z in logits
    ]
    points = thresholds_of(frames[0]["score"].to_numpy()[~label][:1000], QUICK)
    made = compare(sample.sample(fraction=1, shuffle=True, seed=1), *frames, points, points, QUICK, ("better", "other"))
    return made, frames, sample, points


def one(made, metric="auc", stratum="all", threshold=""):
    return made.filter(
        (pl.col("metric") == metric) & (pl.col("stratum") == stratum) & (pl.col("threshold_name") == threshold)
    ).row(0, named=True)


def test_the_stratum_that_differs_is_named_and_the_one_that_does_not_is_not(table):
    made = table[0]
    assert one(made, stratum="SER")["p_holm"] < 1e-4
    assert one(made, stratum="DEV")["p_holm"] > 0.05
    said = answer(made)
    assert said.startswith("better ranks better than other: AUC")
    assert "type SER" in said
    assert "type DEV" not in said
    assert made["p_holm"].drop_nulls().to_numpy() == pytest.approx(
        np.maximum(
            made["p_holm"].drop_nulls().to_numpy(), made.filter(pl.col("p_holm").is_not_null())["p_paired"].to_numpy()
        )
    )


def test_numbers_are_those_of_the_rows(table):
    made, frames, sample, points = table
    row = one(made)
    assert row["value_a"] == pytest.approx(roc_auc_score(sample["label"], frames[0]["logit"]))
    assert row["metric_difference"] == pytest.approx(row["value_a"] - row["value_b"])
    assert row["lo95"] < row["lo68"] < row["metric_difference"] < row["hi68"] < row["hi95"]
    assert (row["n"], row["n_pos"]) == (1200, 240)
    recall, cut = one(made, "recall", threshold="p0.5"), points.filter(pl.col("name") == "p0.5")["threshold"][0]
    lens = (sample["label"] == 1).to_numpy()
    a, b = ((f["score"].to_numpy() >= cut)[lens] for f in frames)
    only = int((a & ~b).sum()), int((b & ~a).sum())
    assert recall["p_paired"] == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert recall["metric_difference"] == pytest.approx(a.mean() - b.mean())


def test_swapping_the_two_changes_signs_alone(table):
    made, frames, sample, points = table
    back = compare(sample, frames[1], frames[0], points, points, QUICK, ("other", "better"))
    assert one(back)["metric_difference"] == pytest.approx(-one(made)["metric_difference"])
    assert one(back)["p_paired"] == pytest.approx(one(made)["p_paired"])
    assert answer(back).startswith("better ranks better than other: AUC"), "the better one is named first"
    numbers = [
        re.findall(r"AUC ([0-9.]+) against ([0-9.]+), difference ([+-][0-9.]+)", answer(t))[0] for t in (made, back)
    ]
    assert numbers[0] == numbers[1]


def test_bricks_make_every_test_and_interval_of_the_table_more_careful_where_detectors_differ_by_brick():
    rng = np.random.default_rng(11)
    scores, label, at = in_bricks(rng, 12, 0.9)
    sample = sample_of(label, rng)
    ids = sample["galaxy_id"].to_list(), [f"9010-{1000 + b}-{i}" for i, b in enumerate(at)]
    points = pl.DataFrame({"name": ["p0.5"], "threshold": [0.8]})
    rows = []
    for names in ids:
        frame = sample.with_columns(galaxy_id=pl.Series(names))
        a, b = (pl.DataFrame({"galaxy_id": names, "logit": s, "score": 1 / (1 + np.exp(-s))}) for s in scores)
        made = compare(frame, a, b, points, points, QUICK, ("a", "b"))
        rows.append((one(made), one(made, "recall", threshold="p0.5")))
    for before, after in zip(*rows, strict=True):
        assert after["p_rows"] == pytest.approx(before["p_rows"])
        assert after["p_paired"] >= max(before["p_paired"], after["p_rows"])
        assert after["hi95"] - after["lo95"] > 1.2 * (before["hi95"] - before["lo95"])


def test_detectors_that_share_no_set_are_not_compared(table):
    _, frames, sample, points = table
    lenses = sample.filter(pl.col("label") == 1)
    made = compare(lenses, *frames, points, points, QUICK, ("a", "b"))
    assert made.filter(pl.col("metric") == "auc")["why_not"].unique().to_list() == ["one class only"]
    assert "nothing can be said" in answer(made)
