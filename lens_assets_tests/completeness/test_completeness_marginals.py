"""Marginals: from raw counts, under stated weights, with honest intervals."""

import numpy as np
import polars as pl
import pytest

from lens_assets.science.completeness.marginals import marginal, per_tile, survey_weighted
from lens_assets.science.errors import BadInput

POINT = "fixed_0.5"


def at(frame, **where):
    for key, value in where.items():
        frame = frame.filter(pl.col(key) == value)
    return frame


def test_a_marginal_without_weights_is_refused(surface):
    with pytest.raises(ValueError, match="stated weights"):
        marginal(surface, "depth")
    with pytest.raises(ValueError, match="unknown weights"):
        marginal(surface, "depth", "grid")


@pytest.mark.parametrize(
    ("axis", "column"), [("theta_e", "theta_e"), ("psf", "psfsize_r"), ("depth", "depth_r"), ("all", None)]
)
def test_marginals_equal_hand_counts(surface, simulated, axis, column):
    raw = simulated.injections(skip=[(2, 2)], few=[(2, 0)])
    own = at(surface.marginals, operating_point=POINT, axis=axis).sort("i_axis")
    by = raw.group_by(pl.lit(0) if column is None else column).agg(
        pl.len().alias("n"), (pl.col("score") >= 0.5).sum().alias("k")
    )
    by = by.sort(by.columns[0])
    assert own["n_injections"].to_list() == by["n"].to_list()
    assert own["n_found"].to_list() == by["k"].to_list()
    np.testing.assert_allclose(own["completeness"], by["k"] / by["n"])
    assert own["n_unique_hosts"].max() <= raw["galaxy_id"].n_unique()


def test_weights_by_condition_equal_the_sum_by_hand(surface):
    weights = pl.DataFrame({"i_psf": [0, 1, 1], "i_depth": [0, 0, 1], "weight": [1.0, 2.0, 5.0]})
    own = at(marginal(surface, "theta_e", weights, label="three conditions"), operating_point=POINT, i_axis=1)
    cells = at(surface.cells, operating_point=POINT, i_theta=1)
    values = [at(cells, i_psf=p, i_depth=d)["completeness"][0] for p, d in ((0, 0), (1, 0), (1, 1))]
    assert own["completeness"][0] == pytest.approx(np.dot(values, [1, 2, 5]) / 8)
    assert own["weighting"][0] == "three conditions"
    assert own["share_supported"][0] == 1


def test_weight_in_unsupported_cells_is_stated_and_never_filled_in(surface):
    weights = pl.DataFrame({"i_psf": [0, 2, 2], "i_depth": [0, 2, 0], "weight": [6.0, 3.0, 1.0]})
    own = at(marginal(surface, "theta_e", weights), operating_point=POINT, i_axis=2)
    cell = at(surface.cells, operating_point=POINT, i_theta=2, i_psf=0, i_depth=0)
    assert own["share_supported"][0] == pytest.approx(0.6)
    assert own["completeness"][0] == pytest.approx(cell["completeness"][0])


def test_one_cell_alone_has_about_its_own_interval(surface):
    weights = pl.DataFrame({"i_psf": [1], "i_depth": [1], "weight": [1.0]})
    own = at(marginal(surface, "theta_e", weights), operating_point=POINT, i_axis=2).row(0, named=True)
    cell = at(surface.cells, operating_point=POINT, i_theta=2, i_psf=1, i_depth=1).row(0, named=True)
    assert own["n_effective"] == pytest.approx(cell["n_effective"], rel=0.15)
    assert own["total_lo68"] == pytest.approx(cell["total_lo68"], abs=0.02)
    assert own["total_hi68"] == pytest.approx(cell["total_hi68"], abs=0.02)


@pytest.mark.parametrize(
    "weights",
    [
        {"i_psf": [0, 0], "weight": [1.0, 2.0]},
        {"i_psf": [0, 1], "weight": [1.0, -2.0]},
        {"i_psf": [0], "weight": [0.0]},
        {"i_psf": [7], "weight": [1.0]},
        {"weight": [1.0]},
    ],
)
def test_impossible_weights_are_refused(surface, weights):
    with pytest.raises(BadInput):
        marginal(surface, "theta_e", pl.DataFrame(weights))


def test_survey_weights_state_what_lies_outside_and_bound_it(surface):
    conditions = pl.DataFrame(
        {"psf_bin": [0, 1, 2, 2, -1, 3, None], "depth_bin": [0, 1, 2, 0, 1, 0, 2], "n": [30, 30, 10, 10, 10, 5, 5]}
    )
    own = at(survey_weighted(surface, conditions), operating_point=POINT).sort("i_axis")
    row = own.row(1, named=True)
    cells = at(surface.cells, operating_point=POINT, i_theta=1)
    value = np.mean([at(cells, i_psf=i, i_depth=i)["completeness"][0] for i in (0, 1)])
    assert row["completeness"] == pytest.approx(value)
    assert row["share_supported"] == pytest.approx(0.6)
    assert row["share_outside"] == pytest.approx(0.2)
    assert row["share_empty"] == pytest.approx(0.1)
    assert row["share_insufficient"] == pytest.approx(0.1)
    assert row["bound_lo"] == pytest.approx(0.6 * value)
    assert row["bound_hi"] == pytest.approx(0.6 * value + 0.4)


def test_survey_weights_by_type_use_each_type_of_a_cell_by_its_own_number(surface, simulated):
    conditions = pl.DataFrame({"psf_bin": [0, 0], "depth_bin": [1, 1], "type": ["DEV", "SER"], "n": [90, 10]})
    own = at(survey_weighted(surface, conditions), operating_point=POINT).sort("i_axis").row(1, named=True)
    raw = simulated.injections(skip=[(2, 2)], few=[(2, 0)])
    raw = at(raw, theta_e=1.0, psfsize_r=0.9, depth_r=23.0)
    rate = {t: (at(raw, type=t)["score"] >= 0.5).mean() for t in ("DEV", "SER")}
    assert own["completeness"] == pytest.approx(0.9 * rate["DEV"] + 0.1 * rate["SER"])
    assert "TYPE" in own["weighting"]


def test_a_type_with_enough_injections_does_not_speak_for_a_cell_with_too_few(build, simulated):
    """90 injections in a cell that needs 100: its two TYPEs have 30 and more each, and still it is insufficient."""
    raw = simulated.injections(seed=8)
    here = (raw["psfsize_r"] == 0.9) & (raw["depth_r"] == 23.0)
    few = pl.concat(
        [raw.filter(~here), raw.filter(here).group_by("theta_e", maintain_order=True).head(90).select(raw.columns)]
    )
    conditions = pl.DataFrame(
        {"psf_bin": [0, 0, 1], "depth_bin": [1, 1, 1], "type": ["DEV", "SER", "DEV"], "n": [30, 20, 50]}
    )
    own = at(survey_weighted(build(few), conditions), operating_point=POINT)
    assert own["share_supported"].to_list() == pytest.approx([0.5] * 4)
    assert own["share_insufficient"].to_list() == pytest.approx([0.5] * 4)


def test_one_tile_recomputed_by_hand_from_its_objects(surface, simulated):
    """From the raw injections and a list of objects, with nothing of the platform but its numbers to compare with."""
    objects = {"000m005": [(0, 0)] * 5 + [(1, 1)] * 3 + [(2, 2)] * 1 + [(0, 7)] * 1, "000p000": [(1, 0)] * 6}
    tables = {
        tile: pl.DataFrame(rows, schema=["psf_bin", "depth_bin"], orient="row")
        .group_by("psf_bin", "depth_bin")
        .agg(pl.len().alias("n"))
        for tile, rows in objects.items()
    }
    tables["000p005"] = tables["000p000"].head(0)
    raw = simulated.injections(skip=[(2, 2)], few=[(2, 0)])

    def rate(theta_e, psf, depth):
        scores = [
            s
            for t, p, d, s in zip(raw["theta_e"], raw["psfsize_r"], raw["depth_r"], raw["score"], strict=True)
            if (t, p, d) == (theta_e, psf, depth)
        ]
        return sum(s >= 0.5 for s in scores) / len(scores)

    own = per_tile(surface, tables)
    assert own["tile"].unique().sort().to_list() == ["*", "000m005", "000p000"]
    row = at(own, tile="000m005", operating_point=POINT, i_axis=2).row(0, named=True)
    by_hand = (5 * rate(1.5, 0.9, 22.5) + 3 * rate(1.5, 1.2, 23.0)) / 8
    assert row["completeness"] == pytest.approx(by_hand, abs=1e-12)
    assert row["share_supported"] == pytest.approx(0.8)
    assert (row["share_empty"], row["share_outside"]) == (pytest.approx(0.1), pytest.approx(0.1))
    assert row["bound_lo"] == pytest.approx(0.8 * by_hand)
    whole = at(own, tile="*", operating_point=POINT, i_axis=2).row(0, named=True)
    together = (5 * rate(1.5, 0.9, 22.5) + 3 * rate(1.5, 1.2, 23.0) + 6 * rate(1.5, 1.2, 22.5)) / 14
    assert whole["completeness"] == pytest.approx(together, abs=1e-12)
    with pytest.raises(BadInput, match="one tile"):
        per_tile(surface, {})


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["theta_e", "all"])
def test_weighted_values_cover_the_truth_at_the_nominal_rate_although_cells_share_hosts(build, simulated, axis):
    weights = pl.DataFrame({"i_psf": [0, 1, 2], "i_depth": [0, 1, 2], "weight": [0.5, 0.3, 0.2]})
    psf, depth = simulated.SMALL.psf, simulated.SMALL.depth
    per_theta = [
        sum(w * simulated.true_completeness(t, psf[i], depth[i]) for i, w in enumerate((0.5, 0.3, 0.2)))
        for t in simulated.SMALL.theta_e
    ]
    truth = np.array(per_theta if axis == "theta_e" else [np.mean(per_theta)])
    inside = {68: [], 95: []}
    for seed in range(60 if axis == "all" else 20):
        raw = simulated.injections(seed=500 + seed, per_cell=100)
        raw = raw.filter(
            pl.struct("psfsize_r", "depth_r").is_in([{"psfsize_r": psf[i], "depth_r": depth[i]} for i in range(3)])
        )
        own = at(marginal(build(raw, thresholds=simulated.THRESHOLDS.head(1)), axis, weights), operating_point=POINT)
        for level, hits in inside.items():
            hits += list((own[f"total_lo{level}"].to_numpy() <= truth) & (truth <= own[f"total_hi{level}"].to_numpy()))
    assert np.mean(inside[68]) > 0.58
    assert np.mean(inside[68]) < 0.82
    assert np.mean(inside[95]) > 0.89


@pytest.mark.parametrize("score", [0.99, 0.01])
def test_one_host_in_every_cell_says_no_more_than_one_host(build, simulated, score):
    """Eleven cells of one Einstein radius each, one galaxy behind all of them: found always, or never."""
    raw = simulated.injections(hosts_per_cell=1).filter((pl.col("psfsize_r") == 0.9) & (pl.col("depth_r") == 23.0))
    raw = raw.with_columns(pl.lit(score).alias("score"))
    own = at(build(raw, thresholds=simulated.THRESHOLDS.head(1)).marginals, axis="all", operating_point=POINT)
    row = own.row(0, named=True)
    assert row["n_unique_hosts"] == 1
    assert row["n_effective"] < 3
    assert row["total_hi95"] - row["total_lo95"] > 0.5
