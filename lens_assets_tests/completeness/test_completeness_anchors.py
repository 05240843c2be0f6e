"""Recall on real lenses in two factors: counts by hand, intervals of astropy, the gate's own rate beside them."""

import numpy as np
import polars as pl
import pytest
from astropy.stats import binom_conf_interval

from lens_assets.science.columns.anchors import ANCHORS
from lens_assets.science.completeness.anchors import anchor_recall
from lens_assets.science.completeness.detectability import calibrate_gate
from lens_assets.science.errors import BadInput

THRESHOLDS = pl.DataFrame({"name": ["p0.5", "fpr"], "threshold": [0.5, None], "refused": [None, "too few"]})


@pytest.fixture
def anchors():
    rng = np.random.default_rng(4)
    n = 200
    frame = pl.DataFrame(
        {
            "galaxy_id": [f"1-1-{i}" for i in range(n)],
            "label": (np.arange(n) < 120).astype(int),
            "tier": ["confirmed"] * 40 + ["A"] * 60 + ["B"] * 20 + [None] * 80,
            "score": rng.random(n),
        }
    )
    statistic = rng.gamma(2, 5, n)
    gates = pl.DataFrame({"galaxy_id": frame["galaxy_id"], "gate_statistic": statistic}).with_columns(
        pl.when(pl.col("galaxy_id") == "1-1-3").then(None).otherwise(pl.col("gate_statistic")).alias("gate_statistic")
    )
    gate = calibrate_gate(statistic[:100], rng.gamma(2, 3, 5000), 0.05)
    return frame, gates, gate


def test_both_factors_are_counts_over_lenses_and_multiply_to_the_recall(anchors):
    frame, gates, gate = anchors
    found = anchor_recall({"held-out": frame}, gates, gate, THRESHOLDS)
    assert ANCHORS.violations(found) == []
    assert found["operating_point"].unique().to_list() == ["p0.5"]
    row = found.filter(pl.col("anchor_tiers") == "confirmed and A").row(0, named=True)
    mine = frame.join(gates, on="galaxy_id").filter(pl.col("tier").is_in(["confirmed", "A"]) & (pl.col("label") == 1))
    judged = mine.filter(pl.col("gate_statistic").is_not_null())
    seen = judged.filter(pl.col("gate_statistic") > gate.threshold)
    assert (row["n_anchors"], row["n_unmeasured"]) == (99, 1)
    assert row["observable_recall"] == seen.height / 99
    assert row["conditional_recall"] == (seen["score"] >= 0.5).sum() / seen.height
    assert row["n_anchors_found"] == (judged["score"] >= 0.5).sum()
    product = row["observable_recall"] * row["conditional_recall"]
    assert row["anchor_recall"] == pytest.approx(product + row["n_anchors_found_unobservable"] / 99)
    for stem, k, n in (
        ("observable_recall", seen.height, 99),
        ("conditional_recall", row["n_anchors_found_observable"], seen.height),
    ):
        for level in (68, 95):
            expected = binom_conf_interval(k, n, level / 100, interval="wilson")
            np.testing.assert_allclose([row[f"{stem}_lo{level}"], row[f"{stem}_hi{level}"]], expected, rtol=1e-9)
    assert row["gate_false_alarm"] == gate.false_alarm
    assert row["n_gate_randoms"] == 5000


def test_tiers_add_up_and_a_set_without_lenses_has_no_row(anchors):
    frame, gates, gate = anchors
    found = anchor_recall({"held-out": frame, "none": frame.filter(pl.col("label") == 0)}, gates, gate, THRESHOLDS)
    assert found["anchor_set"].unique().to_list() == ["held-out"]
    counts = dict(found.select("anchor_tiers", "n_anchors_observable").iter_rows())
    assert counts["confirmed"] + counts["A"] == counts["confirmed and A"]


def test_a_lens_nobody_could_see_leaves_the_conditional_recall_open(anchors):
    frame, gates, gate = anchors
    dark = gates.with_columns(gate_statistic=pl.lit(0.0))
    row = anchor_recall({"held-out": frame}, dark, gate, THRESHOLDS).row(0, named=True)
    assert row["observable_recall"] == 0
    assert row["conditional_recall"] is None
    assert row["conditional_recall_lo68"] is None


def test_a_missing_column_is_named(anchors):
    frame, gates, gate = anchors
    with pytest.raises(BadInput, match="tier"):
        anchor_recall({"held-out": frame.drop("tier")}, gates, gate, THRESHOLDS)
