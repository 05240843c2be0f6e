"""Physics checks: planted falls are found and listed, noise is not."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import fisher_exact

from lens_assets.science.completeness.physics import fall, holm, pooled_fall


def test_a_surface_that_obeys_physics_has_no_violation(surface):
    assert surface.physics.height > 50
    assert surface.violations.height == 0
    assert set(surface.physics["check_axis"]) == {"depth", "arc brightness"}


def test_a_fall_with_depth_planted_in_one_cell_is_listed_as_that_cell(build, simulated):
    raw = simulated.injections()
    here = (pl.col("theta_e") == 2.0) & (pl.col("psfsize_r") == 0.9) & (pl.col("depth_r") == 23.5)
    s = build(raw.with_columns(pl.when(here).then(pl.col("score") * 0.3).otherwise(pl.col("score")).alias("score")))
    cells = s.violations.filter((pl.col("check_scope") == "cell") & (pl.col("check_axis") == "depth"))
    assert cells.height >= 2
    assert cells["at_theta_e"].unique().to_list() == [2.0]
    assert cells["at_psf"].unique().to_list() == [0.9]
    assert cells["step_to"].unique().to_list() == [23.5]
    assert (cells["completeness_from"] > cells["completeness_to"]).all()


def test_a_fall_too_small_for_any_cell_is_seen_over_all_of_them(build, simulated):
    raw = simulated.injections(hosts_per_cell=110)
    deepest = pl.col("depth_r") == 23.5
    lower = 1 / (1 + (-((pl.col("score") / (1 - pl.col("score"))).log() - 1.7)).exp())
    s = build(raw.with_columns(pl.when(deepest).then(lower).otherwise(pl.col("score")).alias("score")))
    assert s.violations.filter((pl.col("check_scope") == "theta_e") & (pl.col("check_axis") == "depth")).height >= 1


def test_bright_arcs_that_are_lost_are_found_out(build, simulated):
    raw = simulated.injections()
    bright = pl.col("lensed_mag_r") < 22.0
    s = build(raw.with_columns(pl.when(bright).then(pl.col("score") * 0.2).otherwise(pl.col("score")).alias("score")))
    assert s.violations.filter(pl.col("check_axis") == "arc brightness").height >= 1


def test_a_surface_without_neighbours_is_untested_not_passed(build, simulated):
    only = simulated.injections().filter(pl.col("depth_r") == 23.0).drop("lensed_mag_r")
    assert build(only).physics.height == 0


def test_the_single_step_test_is_fishers():
    k1, n1, k2, n2 = 60, 120, 35, 110
    exact = fisher_exact([[k1, n1 - k1], [k2, n2 - k2]], alternative="greater").pvalue
    assert fall(np.array([k1]), np.array([n1]), np.array([k2]), np.array([n2]))[0] == pytest.approx(exact)


def test_without_a_fall_the_tests_reject_at_most_at_their_level():
    rng = np.random.default_rng(0)
    n = np.full(20_000, 80.0)
    a, b = rng.binomial(80, 0.3, 20_000).astype(float), rng.binomial(80, 0.3, 20_000).astype(float)
    assert np.mean(fall(a, n, b, n) < 0.05) < 0.05
    a, b, n = a.reshape(2000, 10), b.reshape(2000, 10), n.reshape(2000, 10)
    assert np.mean([pooled_fall(*x) < 0.05 for x in zip(a, n, b, n, strict=True)]) < 0.06


def test_holms_allowance_is_the_textbook_one():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([])).size == 0
