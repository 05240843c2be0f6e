"""Measures against independent code, thresholds and their refusal, sets that stay apart."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, roc_auc_score

from lens_assets.science.columns.detectors import CURVES, METRICS, SCORES, THRESHOLDS
from lens_assets.science.detectors import figures, measures
from lens_assets.science.detectors.evaluate import evaluate, rate_name, thresholds_of
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.intervals import wilson

QUICK = Settings(draws=100, fpr_targets=(0.1, 0.01))


def scored(n=6000, share=0.05, seed=0):
    """Scores whose logit is calibrated: lenses are drawn with the probability that the logit states."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-4.5, 2.5, n).astype(np.float32)
    label = (rng.random(n) < 1 / (1 + np.exp(-logit.astype(float)))).astype(np.int8)
    lens = label == 1
    role = np.where(np.arange(n) % 2 == 0, "report", np.where(np.arange(n) % 4 == 1, "threshold", "calibrate"))
    role = role.astype("U16")
    role[lens & (role == "threshold")] = "evaluation"
    role[lens & (role == "calibrate") & (np.arange(n) % 8 == 3)] = "evaluation"
    return pl.DataFrame(
        {
            "galaxy_id": [f"10000-1-{i}" for i in range(n)],
            "logit": logit,
            "score": (1 / (1 + np.exp(-logit.astype(float)))).astype(np.float32),
            "label": label,
            "role": role,
            "tier": [("A" if u < 0.5 else "B") if x else None for x, u in zip(lens, rng.random(n), strict=True)],
            "type": np.where(lens | (rng.random(n) < 0.8), "DEV", "REX"),
            "channels": [["single-fibre"] if x and i % 3 else (["imaging"] if x else []) for i, x in enumerate(lens)],
            "independent": [bool(i % 3) if x else None for i, x in enumerate(lens)],
            "psfsize_r": rng.uniform(0.9, 1.8, n),
            "depth_r": rng.uniform(22.5, 24.5, n),
            "nobs_z": rng.integers(1, 15, n),
            "n2_category": ["ring" if u < 0.2 and not x else None for x, u in zip(lens, rng.random(n), strict=True)],
        },
        strict=False,
    )


@pytest.fixture(scope="module")
def frame():
    return scored()


@pytest.fixture(scope="module")
def evaluation(frame):
    return evaluate(frame, QUICK)


def pick(evaluation, metric, name="held-out", axis="all", stratum="all", threshold="", interval=None):
    rows = evaluation.metrics.filter(
        (pl.col("set") == name) & (pl.col("stratum_axis") == axis) & (pl.col("stratum") == stratum)
        & (pl.col("metric") == metric) & (pl.col("threshold_name") == threshold)
    )  # fmt: skip
    if interval:
        rows = rows.filter(pl.col("interval") == interval)
    return rows.row(0, named=True)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60))
def test_auc_and_average_precision_are_scikit_learns_ties_included(pairs):
    score, label = (np.array(v) for v in zip(*pairs, strict=True))
    if label.all() or not label.any():
        return
    auc, ap = measures.auc_and_ap(measures.ranked(score, label), np.ones((1, len(score))))
    assert auc[0] == pytest.approx(roc_auc_score(label, score))
    assert ap[0] == pytest.approx(average_precision_score(label, score))


def test_weights_count_like_repeated_rows():
    rng = np.random.default_rng(1)
    score, label, times = rng.integers(0, 20, 80), rng.random(80) < 0.3, rng.integers(0, 4, 80)
    order = np.argsort(-score, kind="stable")
    auc, ap = measures.auc_and_ap(measures.ranked(score, label), times[order][None].astype(float))
    again = np.repeat(np.arange(80), times)
    assert auc[0] == pytest.approx(roc_auc_score(label[again], score[again]))
    assert ap[0] == pytest.approx(average_precision_score(label[again], score[again]))


def test_the_bootstrap_interval_of_the_auc_covers_the_truth_at_its_rate():
    truth, hits, runs = norm.cdf(1.5 / np.sqrt(2)), 0, 200
    for run in range(runs):
        rng = np.random.default_rng(run)
        label = np.arange(240) < 60
        score = rng.normal(0, 1, 240) + 1.5 * label
        order = np.argsort(-score, kind="stable")
        r = measures.ranked(score, label)
        drawn = [measures.auc_and_ap(r, w[:, order])[0] for w in measures.class_bootstrap(label, 200, rng)]
        lo, hi = measures.percentiles(np.concatenate(drawn))[:2]
        hits += lo <= truth <= hi
    assert 0.58 < hits / runs < 0.78  # 0.68 +- 3 sigma


def test_a_resample_keeps_the_number_of_each_class():
    label = np.arange(50) < 7
    for block in measures.class_bootstrap(label, 30, np.random.default_rng(0)):
        assert (block[:, label].sum(1) == 7).all()
        assert (block[:, ~label].sum(1) == 43).all()


@given(st.lists(st.integers(0, 12), min_size=20, max_size=200), st.sampled_from([0.05, 0.1, 0.3]))
def test_a_rate_is_never_exceeded_on_its_own_negatives(scores, rate):
    found = measures.rate_threshold(scores, rate)
    assert (np.array(scores) >= found.value).sum() == found.above <= rate * len(scores) + 1e-6
    lower = [s for s in set(scores) if s < found.value]
    if lower:
        assert (np.array(scores) >= max(lower)).sum() > rate * len(scores) - 1e-6, "a lower threshold would have done"
    lo68, hi68, lo95, hi95 = found.bounds
    assert lo95 <= lo68 <= found.value <= hi68 <= hi95
    assert found.value == measures.rate_threshold_value(scores, rate)


def test_the_interval_of_a_threshold_covers_the_true_quantile_at_its_rate():
    truth, hits = norm.ppf(0.9), np.zeros(2)
    for run in range(400):
        bounds = measures.rate_threshold(np.random.default_rng(run).normal(size=1000), 0.1).bounds
        hits += [bounds[0] <= truth <= bounds[1], bounds[2] <= truth <= bounds[3]]
    assert 0.62 < hits[0] / 400 < 0.78
    assert 0.92 < hits[1] / 400 <= 1


@pytest.mark.parametrize("bricks", [8, 30])
def test_the_interval_of_a_threshold_knows_that_negatives_of_a_brick_are_alike(bricks):
    """Scores are a normal of their own plus one common to their brick (intraclass correlation 0.2): variance 1."""
    truth, runs = norm.ppf(0.9), 400
    hits, blind = np.zeros(2), np.zeros(2)
    for run in range(runs):
        rng = np.random.default_rng(run)
        brick = np.repeat(np.arange(bricks), 1200 // bricks)
        scores = np.sqrt(0.2) * rng.normal(size=bricks)[brick] + np.sqrt(0.8) * rng.normal(size=brick.size)
        for counts, by in ((hits, brick), (blind, None)):
            bounds = measures.rate_threshold(scores, 0.1, by).bounds
            counts += [bounds[0] <= truth <= bounds[1], bounds[2] <= truth <= bounds[3]]
    assert hits[0] / runs > 0.60
    assert hits[1] / runs > 0.88
    assert blind[1] / runs < 0.75, "rows taken as independent would not have covered: the test would prove nothing"


def test_bricks_change_nothing_where_negatives_are_independent_or_one_brick_is_all():
    scores = np.random.default_rng(3).normal(size=2000)
    alone = measures.rate_threshold(scores, 0.1)
    assert measures.rate_threshold(scores, 0.1, np.zeros(2000, int)) == alone
    own = measures.rate_threshold(scores, 0.1, np.arange(2000))
    assert own.value == alone.value
    assert own.worth == pytest.approx(2000, rel=1e-3)
    assert np.allclose(own.bounds, alone.bounds, atol=0.01)


def test_a_threshold_without_enough_negatives_is_refused_with_its_reason():
    table = thresholds_of(np.linspace(0, 1, 2400), Settings(fpr_targets=(0.1, 0.01, 1e-3)))
    refused = table.filter(pl.col("refused").is_not_null())
    assert refused["name"].to_list() == ["fpr1e-02", "fpr1e-03"]
    assert refused["threshold"].null_count() == 2
    assert refused["refused"][0] == "a rate of 0.01 needs 10000 negatives with the role threshold; there are 2400"
    assert table.filter(pl.col("name") == "fpr1e-01")["n_above"][0] == 240
    enough = thresholds_of(np.linspace(0, 1, 10_000), Settings(fpr_targets=(0.01,)))
    assert enough["refused"].null_count() == enough.height
    assert thresholds_of(np.linspace(0, 1, 9_999), Settings(fpr_targets=(0.01,)))["refused"].null_count() == 3


def test_rates_have_short_names():
    assert [rate_name(f) for f in (1e-3, 0.05, 0.1, 0.015)] == ["fpr1e-03", "fpr5e-02", "fpr1e-01", "fpr1.5e-02"]


def test_recall_and_false_positive_rate_carry_wilson_intervals(frame, evaluation):
    report = frame.filter(pl.col("role") == "report")
    lenses = report.filter(pl.col("label") == 1)
    k = int((lenses["score"] >= 0.5).sum())
    row = pick(evaluation, "recall", threshold="p0.5")
    assert row["value"] == pytest.approx(k / lenses.height)
    assert (row["lo95"], row["hi95"]) == pytest.approx(wilson(k, lenses.height, 0.95)[:2])
    assert row["interval"] == "wilson"
    rate = pick(evaluation, "fpr", threshold="fpr1e-01")
    assert rate["lo95"] < 0.1 < rate["hi95"]


def test_the_error_of_a_measured_threshold_widens_the_recall(evaluation):
    plain = pick(evaluation, "recall", threshold="fpr1e-01", interval="wilson")
    wide = pick(evaluation, "recall", threshold="fpr1e-01", interval="bootstrap-with-threshold")
    assert plain["value"] == pytest.approx(wide["value"])
    assert wide["lo68"] <= wide["value"] <= wide["hi68"]


def test_auc_of_the_report_is_that_of_its_rows_alone(frame, evaluation):
    report = frame.filter(pl.col("role") == "report")
    row = pick(evaluation, "auc")
    assert row["value"] == pytest.approx(roc_auc_score(report["label"], report["logit"]))
    assert row["lo95"] < row["lo68"] < row["value"] < row["hi68"] < row["hi95"]


def test_held_out_and_independent_lenses_are_never_in_one_set(frame, evaluation):
    lenses = frame.filter(pl.col("label") == 1)
    counts = {name: pick(evaluation, "auc", name)["n_pos"] for name in ("held-out", "independent", "evaluation")}
    away = pl.col("role") == "evaluation"
    assert counts == {
        "held-out": lenses.filter(pl.col("role") == "report").height,
        "independent": lenses.filter(away & pl.col("independent")).height,
        "evaluation": lenses.filter(away & ~pl.col("independent")).height,
    }
    unknown = evaluate(frame.drop("independent"), QUICK)
    assert set(unknown.metrics["set"]) == {"held-out", "evaluation"}, "called independent without a proof"


def lying_about(frame, role):
    there = pl.col("role") == role
    return frame.with_columns(
        logit=pl.when(there).then(9.0).otherwise("logit").cast(pl.Float32),
        label=pl.when(there).then(1 - pl.col("label")).otherwise("label").cast(pl.Int8),
    ).sample(fraction=1, shuffle=True, seed=2)


def test_rows_of_other_roles_change_nothing(frame, evaluation):
    more = scored(500, seed=9).with_columns(galaxy_id=pl.lit("host-") + pl.col("galaxy_id"), role=pl.lit("host"))
    again = evaluate(lying_about(pl.concat([frame, more]), "host"), QUICK)
    assert again.metrics.equals(evaluation.metrics)
    assert again.thresholds.equals(evaluation.thresholds)
    assert again.curves.equals(evaluation.curves)
    assert again.calibration() == evaluation.calibration()


def test_the_calibrate_role_moves_the_map_and_nothing_else(frame, evaluation):
    again = evaluate(lying_about(frame, "calibrate"), QUICK)
    assert again.calibration() != evaluation.calibration()
    assert again.thresholds.equals(evaluation.thresholds)
    of_map = pl.col("metric").str.contains("_mapped|_change")
    assert again.metrics.filter(~of_map).equals(evaluation.metrics.filter(~of_map))


def test_a_stratum_of_one_class_has_a_reason_and_no_auc(evaluation):
    row = pick(evaluation, "auc", axis="type", stratum="REX")  # all lenses are DEV
    assert row["value"] is None
    assert row["lo68"] is None
    assert row["why_not"] == "one class only"
    assert pick(evaluation, "ece", axis="type", stratum="REX")["why_not"] == "one class only"
    assert pick(evaluation, "fpr", axis="type", stratum="REX", threshold="p0.5")["value"] is not None
    nulls = evaluation.metrics.filter(pl.col("value").is_null())
    assert nulls["why_not"].null_count() == 0
    assert evaluation.metrics.filter(pl.col("value").is_not_null())["why_not"].null_count() > 0


def test_every_stratum_asked_for_is_there(evaluation):
    axes = set(evaluation.metrics["stratum_axis"])
    assert axes == {"all", "tier", "channel", "type", "psf_r", "depth_r", "nobs_z", "n2_category"}
    bins = evaluation.metrics.filter(pl.col("stratum_axis") == "nobs_z")["stratum"].unique().sort().to_list()
    assert bins == ["1-2", "11+", "3-5", "6-10"]


def test_calibrated_scores_have_a_small_calibration_error_and_shifted_ones_have_not(frame):
    good = pick(evaluate(frame, QUICK), "ece")
    bad = frame.with_columns(logit=pl.col("logit") + 2, score=(1 / (1 + (-pl.col("logit") - 2).exp())).cast(pl.Float32))
    worse = pick(evaluate(bad, QUICK), "ece")
    assert good["value"] < 0.015 < 0.05 < worse["value"]
    assert good["lo68"] <= good["hi68"]
    even = pick(evaluate(bad, QUICK), "ece_balanced")
    assert even["value"] > 0.05


def test_calibration_bins_are_scikit_learns_quantile_bins():
    rng = np.random.default_rng(4)
    p = rng.random(1000)
    y = rng.random(1000) < p
    bins = measures.calibration_bins(p, y, np.ones(1000), 10, 10)
    fraction, mean = calibration_curve(y, p, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(bins.probability, mean, atol=2e-3)
    np.testing.assert_allclose(bins.fraction, fraction, atol=0.011)
    assert bins.rows.sum() == 1000


def test_equal_scores_are_not_split_to_look_calibrated():
    p = np.array([0.1] * 50 + [0.9] * 50)
    bins = measures.calibration_bins(p, p > 0.5, np.ones(100), 10, 5)
    assert bins.rows.tolist() == [50, 50]
    assert measures.calibration_bins(np.full(100, 0.5), p > 0.5, np.ones(100), 10, 5) is None


def test_the_tables_are_those_of_the_column_registry(frame, evaluation):
    for table, made in (
        (METRICS, evaluation.metrics),
        (THRESHOLDS, evaluation.thresholds),
        (CURVES, evaluation.curves),
    ):
        assert set(made.columns) == set(table.names), table.name
        assert table.conform(made).height == made.height
        assert table.violations(made) == []
    assert SCORES.violations(SCORES.conform(frame)) == []


def test_scores_that_are_not_finite_or_repeated_are_refused(frame):
    with pytest.raises(BadInput, match="not finite"):
        evaluate(frame.with_columns(logit=pl.lit(float("nan"))), QUICK)
    with pytest.raises(BadInput, match="twice"):
        evaluate(pl.concat([frame, frame]), QUICK)
    with pytest.raises(BadInput, match="role"):
        evaluate(frame.drop("role"), QUICK)


def test_the_figures_are_drawn_and_drawn_alike(evaluation, trained, tmp_path):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        made.append([p.read_bytes() for p in figures.draw(folder, "tiny-s1", evaluation, trained.history)])
    assert len(made[0]) == 6
    assert made[0] == made[1]
    assert all(png[:8] == b"\x89PNG\r\n\x1a\n" and len(png) > 8000 for png in made[0])
