"""Diversity of members and the worth of their spread, on simulated scores of known answer."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import pearsonr, spearmanr

from lens_assets.science.columns.detectors import DIVERSITY, RISK_COVERAGE
from lens_assets.science.detectors import ensemble_diversity, ensemble_figures
from lens_assets.science.detectors.ensemble_combine import LogitMap, Rule
from lens_assets.science.detectors.ensemble_diversity import Point, best_member, diversity, risk_coverage, spread
from lens_assets.science.detectors.evaluate import evaluate
from lens_assets.science.detectors.score import probability
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput

MEMBERS = ("a-s1", "b-s1")
SETTINGS = Settings(draws=200, fpr_targets=(0.1,), negatives_per_rate=10)


def simulated(n=3000, seed=1, same=False, second=1.0):
    """Scored rows of all roles with two members; ``second`` is the signal of the other member."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.2).astype(np.int8)
    common = rng.normal(size=n)
    a = (3 * label + common + rng.normal(size=n) - 3).astype(np.float32)
    b = a if same else (3 * second * label + common + rng.normal(size=n) - 3).astype(np.float32)
    logit = Rule(kind="mean")(np.stack([a, b], 1))
    roles = np.array(["report", "threshold", "calibrate", "select"])[rng.integers(0, 4, n)]
    category = np.where((label == 0) & (np.arange(n) % 3 == 0), "ring-proxy", None)
    return pl.DataFrame(
        {
            "galaxy_id": [f"1-2-{i}" for i in range(n)], "label": label, "role": roles, "logit": logit,
            "score": probability(logit), "a-s1": a, "b-s1": b, "n2_category": category,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def found():
    scores = simulated()
    return scores, diversity(scores, MEMBERS, Rule(kind="mean"), evaluate(scores, SETTINGS).thresholds, SETTINGS, "e")


def value(table, regime, measure, point=""):
    return table.filter(
        (pl.col("set") == "held-out") & (pl.col("regime") == regime) & (pl.col("measure") == measure)
        & (pl.col("threshold_name") == point)
    ).row(0, named=True)  # fmt: skip


def test_correlations_are_those_of_scipy_in_each_regime_with_intervals_that_hold_them(found):
    scores, got = found
    report = scores.filter(pl.col("role") == "report")
    parts = {
        "lenses": report.filter(pl.col("label") == 1), "non-lenses": report.filter(pl.col("label") == 0),
        "ring-proxy": report.filter(pl.col("n2_category") == "ring-proxy"),
    }  # fmt: skip
    for regime, part in parts.items():
        for measure, theirs in (("pearson", pearsonr), ("spearman", spearmanr)):
            row = value(got.table, regime, measure)
            assert row["value"] == pytest.approx(theirs(part["a-s1"], part["b-s1"]).statistic, abs=1e-6)
            assert row["lo95"] < row["lo68"] < row["value"] < row["hi68"] < row["hi95"]
            assert row["n"] == part.height
    pooled = pearsonr(report["a-s1"], report["b-s1"]).statistic
    assert pooled > value(got.table, "lenses", "pearson")["value"] + 0.1, "labels alone correlate: hence the regimes"


def test_disagreement_and_double_faults_are_counts_at_thresholds_of_one_rate(found):
    scores, got = found
    on = scores.filter((pl.col("role") == "threshold") & (pl.col("label") == 0))
    lenses = scores.filter((pl.col("role") == "report") & (pl.col("label") == 1))
    hits = []
    for member in MEMBERS:
        cut = np.sort(on[member])[::-1][int(0.1 * on.height) - 1]
        hits.append(lenses[member].to_numpy() >= cut)
    row = value(got.table, "lenses", "disagreement", "fpr1e-01")
    assert row["value"] == pytest.approx(np.mean(hits[0] != hits[1]))
    assert value(got.table, "lenses", "double_fault", "fpr1e-01")["value"] == pytest.approx(
        np.mean(~hits[0] & ~hits[1])
    )
    assert row["interval"] == "wilson"


def test_rows_near_a_threshold_are_within_a_logit_of_it_and_members_disagree_most_there(found):
    scores, got = found
    near = value(got.table, "near fpr1e-01", "disagreement", "fpr1e-01")
    everyone = value(got.table, "non-lenses", "disagreement", "fpr1e-01")
    assert near["lo68"] > everyone["hi68"]
    on = scores.filter((pl.col("role") == "threshold") & (pl.col("label") == 0))
    cut = np.sort(on["logit"])[::-1][int(0.1 * on.height) - 1]
    report = scores.filter(pl.col("role") == "report")
    assert near["n"] == int(((report["logit"] - cut).abs() <= 1).sum())


def test_members_that_are_one_do_not_differ_and_gain_nothing():
    scores = simulated(same=True)
    got = diversity(scores, MEMBERS, Rule(kind="mean"), evaluate(scores, SETTINGS).thresholds, SETTINGS, "e")
    assert value(got.table, "lenses", "pearson")["value"] == pytest.approx(1.0)
    assert value(got.table, "non-lenses", "disagreement", "fpr1e-01")["value"] == 0
    assert value(got.table, "lenses", "spread")["value"] == 0
    auc = got.gain.filter((pl.col("stratum_axis") == "all") & (pl.col("metric") == "auc")).row(0, named=True)
    assert auc["metric_difference"] == 0
    assert auc["p_paired"] == 1


def test_the_mean_of_two_equal_members_beats_the_better_one_by_an_interval_above_zero(found):
    _, got = found
    auc = got.gain.filter((pl.col("stratum_axis") == "all") & (pl.col("metric") == "auc")).row(0, named=True)
    assert (auc["detector_a"], auc["detector_b"]) == ("e", got.best_member)
    assert auc["metric_difference"] > 0
    assert auc["lo95"] > 0


def test_the_best_member_is_chosen_on_rows_that_do_not_judge_it():
    scores = simulated(second=0.3)
    assert best_member(scores, MEMBERS) == "a-s1"
    cheat = scores.with_columns(
        pl.when(pl.col("role") == "report").then(10.0 * pl.col("label")).otherwise(pl.col("b-s1")).alias("b-s1")
    )
    assert best_member(cheat, MEMBERS) == "a-s1"


def test_the_area_of_a_perfect_order_is_the_least_and_of_no_order_the_risk():
    rng = np.random.default_rng(5)
    n = 4000
    label = np.repeat([0, 1], n // 2)
    logit = np.where(rng.random(n) < 0.2, 1 - 2 * label, 2 * label - 1) * rng.uniform(0.1, 1, n)  # a fifth is wrong
    wrong = (logit >= 0) != (label == 1)
    part = pl.DataFrame({"galaxy_id": [str(i) for i in range(n)], "label": label, "logit": logit})
    told = part.with_columns(_spread=pl.Series(wrong + 0.01 * rng.random(n)))
    blind = part.with_columns(_spread=pl.Series(rng.random(n)))
    e = wrong.mean()
    perfect = e + (1 - e) * np.log(1 - e)  # Geifman et al. 2019, eq. 5
    for frame, area in ((told, perfect), (blind, e)):
        _, rows = risk_coverage(frame, Point("fpr1e-01", 0.0, {}), Settings(draws=100), "e")
        table = {r["measure"]: r for r in rows}
        assert table["aurc_spread"]["value"] == pytest.approx(area, abs=0.012)
        assert table["aurc_perfect"]["value"] == pytest.approx(perfect, abs=0.003)
        assert table["risk"]["value"] == pytest.approx(e, abs=0.01)
        assert table["aurc_spread"]["lo95"] < table["aurc_spread"]["value"] < table["aurc_spread"]["hi95"]
    assert table["aurc_gain_spread"]["lo95"] < 0.02


def test_spread_is_of_what_the_rule_combines():
    frame = pl.DataFrame({"a-s1": [0.0, 1.0], "b-s1": [2.0, 2.0]})
    assert spread(frame, MEMBERS, Rule(kind="mean")).tolist() == [1.0, 0.5]
    half = Rule(kind="calibrated", maps=(LogitMap(knots=((0, 0),)), LogitMap(knots=((0, 0),), slope=0.5)))
    assert spread(frame, MEMBERS, half).tolist() == [0.5, 0.0]


def test_the_tables_follow_the_registry_and_no_value_lacks_a_reason(found):
    _, got = found
    assert DIVERSITY.violations(got.table) == []
    assert RISK_COVERAGE.violations(got.curves) == []
    assert got.table.filter(pl.col("value").is_null() & pl.col("why_not").is_null()).height == 0
    few = simulated(n=40)
    small = diversity(few, MEMBERS, Rule(kind="mean"), evaluate(few, SETTINGS).thresholds, SETTINGS, "e")
    assert small.curves.height == 0
    assert "are needed" in "".join(small.table["why_not"].drop_nulls())
    with pytest.raises(BadInput, match="c-s1"):
        diversity(few, (*MEMBERS, "c-s1"), Rule(kind="mean"), small.table, SETTINGS, "e")


def test_the_figure_is_drawn_with_and_without_thresholds(found, tmp_path):
    scores, got = found
    (path,) = ensemble_figures.draw(tmp_path, "e", got)
    assert path.stat().st_size > 20_000
    strict = Settings(draws=100, fpr_targets=(1e-5,))
    none = diversity(scores, MEMBERS, Rule(kind="mean"), evaluate(scores, strict).thresholds, strict, "e")
    assert ensemble_diversity.points_of(scores, MEMBERS, evaluate(scores, strict).thresholds, strict) == []
    (path,) = ensemble_figures.draw(tmp_path, "e", none)
    assert path.stat().st_size > 10_000
