"""What the closure experiment says of scores whose truth is planted: a right machinery covers, a wrong prior is named."""

import numpy as np
import polars as pl
import pytest

from lens_assets.science.audits.experiment import _arm
from lens_assets.science.audits.experiment_figure import closure_figure
from lens_assets.science.audits.judge import FRESH, LENSES, REPLICATES, Scored, judge
from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.audits.steps import ALIKE, EXACT, ORDINARY, PUBLISHED, Arm
from lens_assets.science.columns.audits import CLOSURE_ARMS, CLOSURE_CELLS, CLOSURE_STEPS
from lens_assets.science.completeness.figures import save


@pytest.fixture(scope="module")
def scored(build, simulated):
    """The published surface's priors miss 0.8 in the logit; nothing else is wrong. By seed."""

    def make(seed):
        surface = build(simulated.injections(seed=100 + seed), thresholds=simulated.THRESHOLDS.head(1))

        def arm(number, shift):
            own = build(simulated.injections(seed=number + seed, shift=shift), thresholds=simulated.THRESHOLDS.head(1))
            return _arm(own.members, own.point("default"))

        arms = {PUBLISHED: _arm(surface.members, surface.point("default"))}
        arms |= {name: arm(number, 0.8) for name, number in ((ORDINARY, 200), (ALIKE, 300), (EXACT, 400))}

        def lenses(number, shift):
            rows = simulated.lenses(seed=number + seed, n=2500, shift=shift)
            return rows.with_columns(galaxy_id=pl.Series([f"1-{i}-1" for i in range(rows.height)]))

        facts = {"threshold": {"name": "fixed_0.5", "cut": 0.5}}
        return surface, Scored(arms, lenses(500, 0.8), lenses(600, 0.0), facts)

    return make


def test_a_right_machinery_covers_at_the_rate_that_is_expected_and_the_wrong_prior_is_the_step_that_is_named(scored):
    inside, cells, expected = {68: 0, 95: 0}, 0, {68: [], 95: []}
    for seed in range(2):
        surface, given = scored(seed)
        found = judge(surface, given, ClosureSettings(draws=200, seed=seed))
        for table, frame in ((CLOSURE_ARMS, found.arms), (CLOSURE_CELLS, found.cells), (CLOSURE_STEPS, found.steps)):
            assert table.violations(frame) == []
        rows = {(r["closure_arm"], r["closure_against"]): r for r in found.arms.iter_rows(named=True)}
        for against in (FRESH, REPLICATES):
            (row,) = [r for (_, a), r in rows.items() if a == against]
            cells += row["n_compared"]
            for level in inside:
                inside[level] += row[f"n_inside{level}"]
                expected[level].append(row[f"expected_inside{level}"])
        assert rows[PUBLISHED, LENSES]["share_inside95"] < 0.7
        assert rows[EXACT, LENSES]["share_inside95"] > 0.85
        steps = {r["closure_step"][0]: r for r in found.steps.iter_rows(named=True)}
        assert steps["1"]["step_lo95"] > 0.1
        assert abs(steps["2"]["step_difference"]) < 0.05
        assert abs(steps["3"]["step_difference"]) < 0.05
        assert abs(steps["4"]["step_difference"]) < 0.06
    assert inside[68] / cells == pytest.approx(np.mean(expected[68]), abs=0.07)
    assert inside[95] / cells == pytest.approx(np.mean(expected[95]), abs=0.04)


def test_the_figure_can_be_drawn_and_is_the_same_each_time(scored, tmp_path):
    surface, given = scored(0)
    found = judge(surface, given, ClosureSettings(draws=100))
    for name in ("a", "b"):
        save(closure_figure(found, "a title"), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_set_of_hosts_that_meets_no_lens_is_left_out_and_does_not_stop_the_judgement(scored):
    """Known lenses in one cell, whose hosts are few: some of the disjoint sets have nothing to be compared with."""
    surface, given = scored(1)
    known = given.known.filter((pl.col("theta_e") == 1.0) & (pl.col("psfsize_r") == 0.9) & (pl.col("depth_r") == 23.0))
    arm = given.arms[PUBLISHED].rows
    keep = (
        arm.filter(pl.col("i_theta") == 1, pl.col("i_psf") == 0, pl.col("i_depth") == 1)["galaxy_id"]
        .unique()
        .sort()
        .head(2)
    )
    here = (
        pl.col("i_theta").eq(1)
        & pl.col("i_psf").eq(0)
        & pl.col("i_depth").eq(1)
        & ~pl.col("galaxy_id").is_in(keep.to_list())
    )
    arms = {**given.arms, PUBLISHED: Arm(arm.filter(~here))}
    found = judge(surface, Scored(arms, given.lenses, known, given.facts), ClosureSettings(draws=100))
    (row,) = found.arms.filter(pl.col("closure_against") == REPLICATES).to_dicts()
    assert row["n_compared"] <= 2
    none = judge(surface, Scored(arms, given.lenses, known.head(0), given.facts), ClosureSettings(draws=100))
    (row,) = none.arms.filter(pl.col("closure_against") == REPLICATES).to_dicts()
    assert (row["n_compared"], row["predicted_completeness"], row["difference"]) == (0, None, None)
    assert CLOSURE_ARMS.violations(none.arms) == []


def test_lenses_of_one_brick_are_worth_less_than_their_number(scored):
    surface, given = scored(1)
    together = given.lenses.with_columns(galaxy_id=pl.Series([f"1-{i % 6}-{i}" for i in range(given.lenses.height)]))
    apart = judge(surface, given, ClosureSettings(draws=100)).cells
    few = judge(surface, Scored(given.arms, together, given.known, given.facts), ClosureSettings(draws=100)).cells
    where = (pl.col("closure_arm") == EXACT) & (pl.col("closure_level") == "all")
    a, b = apart.filter(where).row(0, named=True), few.filter(where).row(0, named=True)
    assert a["n_true_effective"] == a["n_true_lenses"] == b["n_true_lenses"]
    assert b["n_true_effective"] < 0.7 * a["n_true_lenses"]
    assert b["true_hi68"] - b["true_lo68"] > a["true_hi68"] - a["true_lo68"]
