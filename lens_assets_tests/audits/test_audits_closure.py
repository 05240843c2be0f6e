"""Closure: a right surface contains the truth at its nominal rate, a biased one is found out."""

import numpy as np
import polars as pl
import pytest

from lens_assets.science.audits.closure import closure, summary
from lens_assets.science.columns.audits import CLOSURE
from lens_assets.science.errors import BadInput

POINT = "fixed_0.5"


def test_rows_hold_the_lenses_own_cells_and_count_the_rest(surface, simulated):
    truth = simulated.lenses(n=3000)
    frame = closure(surface, truth, POINT)
    assert CLOSURE.violations(frame) == []
    theta = frame.filter(pl.col("closure_level") == "theta_e")
    assert theta["at_theta_e"].to_list() == list(simulated.SMALL.theta_e)
    whole = frame.filter(pl.col("closure_level") == "all").row(0, named=True)
    assert whole["n_true_lenses"] + whole["n_true_unsupported"] == 3000
    assert theta["n_true_lenses"].sum() == whole["n_true_lenses"]
    mine = truth.filter((pl.col("theta_e") == 1.0) & (pl.col("psfsize_r") == 1.2) & (pl.col("depth_r") == 23.0))
    cell = frame.filter(
        (pl.col("closure_level") == "cell")
        & (pl.col("at_theta_e") == 1.0)
        & (pl.col("at_psf") == 1.2)
        & (pl.col("at_depth") == 23.0)
    ).row(0, named=True)
    assert cell["n_true_lenses"] == mine.height
    assert cell["n_true_found"] == mine.filter(pl.col("score") >= 0.5).height
    own = surface.cells.filter(
        (pl.col("operating_point") == POINT)
        & (pl.col("i_theta") == 1)
        & (pl.col("i_psf") == 1)
        & (pl.col("i_depth") == 1)
    )
    assert cell["predicted_completeness"] == own["completeness"][0]
    for level in (68, 95):
        width = own[f"total_hi{level}"][0] - own[f"total_lo{level}"][0]
        assert cell[f"predicted_hi{level}"] - cell[f"predicted_lo{level}"] == pytest.approx(width, rel=0.25)


def test_unsupported_cells_are_not_compared(surface, simulated):
    truth = pl.DataFrame(
        {"theta_e": [1.0] * 50, "psfsize_r": [1.5] * 50, "depth_r": [22.5] * 25 + [23.5] * 25, "score": [0.9] * 50}
    )
    frame = closure(surface, truth, POINT)
    assert frame["n_true_lenses"].sum() == 0
    assert frame.filter(pl.col("at_theta_e") == 1.0)["n_true_unsupported"].to_list() == [50]
    assert summary(frame) == {"closes": None, "compared": 0}


def test_a_lens_that_was_never_scored_counts_as_missed(surface):
    truth = pl.DataFrame(
        {"theta_e": [1.0] * 20, "psfsize_r": [1.2] * 20, "depth_r": [23.0] * 20, "score": [0.99] * 10 + [None] * 10}
    )
    row = closure(surface, truth, POINT).filter(pl.col("closure_level") == "all").row(0, named=True)
    assert (row["n_true_lenses"], row["n_true_found"]) == (20, 10)


def test_a_right_surface_contains_the_truth_at_its_nominal_rate(build, simulated):
    inside = {68: [], 95: []}
    closes = []
    for seed in range(12):
        s = build(simulated.injections(seed=900 + seed), thresholds=simulated.THRESHOLDS.head(1))
        frame = closure(s, simulated.lenses(seed=seed, n=1500), POINT)
        rows = frame.filter(pl.col("closure_level") == "cell")
        for level, hits in inside.items():
            hits += rows[f"inside{level}"].to_list()
        closes.append(summary(frame)["closes"])
    assert 0.64 < np.mean(inside[68]) < 0.84  # counts are whole numbers: at or above nominal
    assert 0.92 < np.mean(inside[95]) <= 1
    assert np.mean(closes) > 0.8


@pytest.mark.parametrize("shift", [-0.7, 0.7])
def test_a_planted_bias_is_flagged(surface, simulated, shift):
    frame = closure(surface, simulated.lenses(n=4000, shift=shift), POINT)
    result = summary(frame)
    assert result["closes"] is False
    assert np.sign(result["difference"]) == np.sign(shift)
    assert frame.filter(pl.col("closure_level") == "theta_e")["inside68"].sum() <= 1


def test_the_error_of_the_threshold_widens_the_prediction(surface, simulated):
    truth = simulated.lenses(n=2000)
    fixed, rated = (closure(surface, truth, p).filter(pl.col("closure_level") == "all") for p in (POINT, "fpr_1e-3"))

    def width(frame):
        return (frame["predicted_hi68"] - frame["predicted_lo68"])[0]

    assert width(rated) > width(fixed)


def test_missing_columns_are_named(surface, simulated):
    with pytest.raises(BadInput, match="depth_r"):
        closure(surface, simulated.lenses().drop("depth_r"))
