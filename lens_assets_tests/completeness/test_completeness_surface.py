"""Surfaces: counts by hand, flags, factors, thresholds, verdict."""

import numpy as np
import polars as pl
import pytest

from lens_assets.science.columns.completeness import SURFACE, TWO_FACTOR
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.thresholds import default_point, operating_points
from lens_assets.science.completeness.verdict import Verdict
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Store

AT = ("operating_point", "i_theta", "i_psf", "i_depth")


def test_every_cell_of_the_grid_is_a_row_and_empty_ones_stay_empty(surface):
    assert surface.cells.height == 2 * surface.grid.size
    empty = surface.cells.filter(pl.col("support") == "empty")
    assert set(zip(empty["i_psf"], empty["i_depth"], strict=True)) == {(2, 2)}
    assert empty["completeness"].null_count() == empty.height == 8
    assert empty["total_lo68"].null_count() == empty.height
    assert SURFACE.violations(surface.cells) == []
    assert TWO_FACTOR.violations(surface.two_factor) == []


def test_cells_with_too_few_injections_are_insufficient_and_keep_their_raw_value(surface):
    few = surface.cells.filter((pl.col("i_psf") == 2) & (pl.col("i_depth") == 0))
    assert few["support"].unique().to_list() == ["insufficient"]
    np.testing.assert_allclose(few["completeness"], few["n_found"] / few["n_injections"])
    assert surface.meta["support"] == {"supported": 28, "insufficient": 4, "empty": 4}


def test_counts_equal_those_made_by_hand(surface, simulated):
    raw = simulated.injections(skip=[(2, 2)], few=[(2, 0)])
    row = surface.cells.filter(
        (pl.col("operating_point") == "fpr_1e-3")
        & (pl.col("i_theta") == 2)
        & (pl.col("i_psf") == 1)
        & (pl.col("i_depth") == 0)
    ).row(0, named=True)
    mine = raw.filter((pl.col("theta_e") == 1.5) & (pl.col("psfsize_r") == 1.2) & (pl.col("depth_r") == 22.5))
    assert row["n_injections"] == mine.height == 120
    assert row["n_found"] == mine.filter(pl.col("score") >= 0.7).height
    assert row["n_unique_hosts"] == mine["galaxy_id"].n_unique()
    assert row["mean_score"] == pytest.approx(mine["score"].mean())
    assert row["mean_arc_snr"] == pytest.approx(mine["arc_snr"].mean())


def test_host_aware_intervals_are_wider_than_binomial_ones_and_hold_the_value(surface):
    c = surface.cells.filter(pl.col("support") == "supported")
    own, naive = c["host_hi68"] - c["host_lo68"], c["binomial_hi68"] - c["binomial_lo68"]
    assert (own / naive).median() > 1.1
    for kind in ("host", "total"):
        assert (c[f"{kind}_lo95"] <= c[f"{kind}_lo68"]).all()
        assert ((c[f"{kind}_lo68"] <= c["completeness"]) & (c["completeness"] <= c[f"{kind}_hi68"])).all()


def test_only_a_threshold_with_an_error_widens_the_published_interval(surface):
    fixed = surface.cells.filter(pl.col("operating_point") == "fixed_0.5").drop_nulls("completeness")
    rated = surface.cells.filter(pl.col("operating_point") == "fpr_1e-3").drop_nulls("completeness")
    assert fixed["total_lo68"].equals(fixed["host_lo68"])
    assert "threshold" not in fixed["total_method"][0]
    assert "threshold" in rated["total_method"][0]
    assert (rated["total_hi68"] - rated["total_lo68"] > rated["host_hi68"] - rated["host_lo68"]).mean() > 0.7


@pytest.mark.slow
def test_the_true_completeness_lies_in_the_published_interval_at_its_nominal_rate(build, simulated):
    inside = {68: [], 95: []}
    for seed in range(12):
        s = build(simulated.injections(seed=100 + seed, hosts_per_cell=24))
        c = s.cells.filter(pl.col("operating_point") == "fixed_0.5")
        truth = simulated.true_completeness(c["cell_theta_e"], c["cell_psf"], c["cell_depth"])
        for level, hits in inside.items():
            hits.append(
                np.mean((c[f"total_lo{level}"].to_numpy() <= truth) & (truth <= c[f"total_hi{level}"].to_numpy()))
            )
    assert np.mean(inside[68]) == pytest.approx(0.68, abs=0.09)
    assert np.mean(inside[95]) == pytest.approx(0.95, abs=0.035)


def test_the_two_factors_multiply_to_the_recall_up_to_what_was_found_unobservable(surface):
    t = surface.two_factor.drop_nulls("conditional_completeness")
    product = t["observable_fraction"] * t["conditional_completeness"]
    np.testing.assert_allclose(
        product + t["n_found_unobservable"] / t["n_injections"], t["n_found"] / t["n_injections"]
    )
    assert (
        (t["observable_lo68"] <= t["observable_fraction"]) & (t["observable_fraction"] <= t["observable_hi68"])
    ).all()


def test_without_the_gate_there_are_no_factors(build, simulated):
    t = build(simulated.injections().drop("observable")).two_factor
    for column in ("n_observable", "observable_fraction", "conditional_completeness", "conditional_lo68"):
        assert t[column].null_count() == t.height


def test_hosts_outside_the_grid_are_left_out_and_counted(build, simulated):
    raw = simulated.injections()
    wide = raw.with_columns(
        pl.when(pl.int_range(pl.len()) < 30).then(2.5).otherwise(pl.col("psfsize_r")).alias("psfsize_r"),
        pl.when(pl.int_range(pl.len()) == 40).then(None).otherwise(pl.col("depth_r")).alias("depth_r"),
        pl.when(pl.int_range(pl.len()) == 50).then(float("nan")).otherwise(pl.col("score")).alias("score"),
    )
    s = build(wide)
    assert s.meta["rejected"] == {
        "host's PSF outside the grid": 30,
        "host's depth outside the grid": 1,
        "score is not finite": 1,
    }
    assert s.members.height == raw.height - 32
    assert s.cells.filter(pl.col("operating_point") == "fixed_0.5")["n_injections"].sum() == raw.height - 32


def test_bins_may_stand_for_the_hosts_own_values_but_may_not_contradict_them(build, simulated, surface):
    raw = simulated.injections(skip=[(2, 2)], few=[(2, 0)])
    bins = raw.with_columns(
        pl.Series("psf_bin", surface.grid.psf.index(raw["psfsize_r"])),
        pl.Series("depth_bin", surface.grid.depth.index(raw["depth_r"])),
    )
    assert build(bins.drop("psfsize_r", "depth_r"), simulated.NO_GO).cells.equals(surface.cells)
    with pytest.raises(BadInput, match=r"psf_bin.*lies in bin"):
        build(bins.with_columns((pl.col("psf_bin") + 1).alias("psf_bin")))


def test_the_order_of_rows_does_not_change_a_surface(build, simulated, surface):
    raw = simulated.injections(skip=[(2, 2)], few=[(2, 0)]).sample(fraction=1, shuffle=True, seed=4)
    again = build(raw, simulated.NO_GO)
    for name in ("cells", "two_factor", "marginals", "physics", "members"):
        assert getattr(again, name).equals(getattr(surface, name)), name


def test_repeated_injections_and_missing_columns_are_named(build, simulated):
    raw = simulated.injections()
    with pytest.raises(BadInput, match=r"injection_id.*repeat"):
        build(pl.concat([raw, raw.head(1)]))
    with pytest.raises(BadInput, match="score"):
        build(raw.drop("score"))


def test_a_surface_survives_the_store(surface, tmp_path):
    store = Store(tmp_path)
    with store.draft("completeness_surface", "resnet|sersic".replace("|", "__")) as draft:
        surface.save(draft)
    again = Surface.load(store.get("completeness_surface", "resnet__sersic"))
    assert again.cells.equals(surface.cells)
    assert again.grid == surface.grid
    assert again.points == surface.points
    assert again.verdict == surface.verdict
    assert again.meta["support"] == surface.meta["support"]


def test_a_refused_threshold_has_no_rows_but_is_named_with_its_reason(surface):
    assert surface.meta["refused"] == {"fpr_1e-4": "100000 negatives, needs 1000000"}
    assert surface.cells["operating_point"].unique().sort().to_list() == ["fixed_0.5", "fpr_1e-3"]
    assert surface.meta["default_point"] == "fpr_1e-3"


def test_thresholds_outside_their_own_bounds_and_unknown_ones_are_refused(simulated):
    bad = simulated.THRESHOLDS.with_columns(pl.Series("lo68", [0.6, 0.68, None]))
    with pytest.raises(BadInput, match="do not enclose"):
        operating_points(bad)
    with pytest.raises(BadInput, match=r"fpr_1e-9"):
        operating_points(simulated.THRESHOLDS, ["fpr_1e-9"])
    points, refused = operating_points(simulated.THRESHOLDS, ["fixed_0.5", "fpr_1e-4"])
    assert [p.name for p in points] == ["fixed_0.5"]
    assert list(refused) == ["fpr_1e-4"]
    assert default_point(points, "fpr_1e-4").name == "fixed_0.5"


@pytest.mark.parametrize(
    ("report", "go", "title"),
    [
        (None, False, "NO-GO: realism was not measured"),
        ({"verdict": "go", "gates": [{"name": "probe", "passed": False, "value": 0.9}]}, False, "separable"),
        ({"verdict": "no-go", "gates": {"colour": {"passed": False, "value": 0.4}}}, False, "realism failed: colour"),
        ({"verdict": "go", "gates": [{"name": "probe", "passed": True, "value": 0.6}]}, True, "GO: injections pass"),
        ({"verdict": "go", "gates": [{"name": "probe", "value": None}]}, False, "not measured: probe"),
        (
            {
                "verdict": "go",
                "facts": {"blocking": ["feature_probe"]},
                "gates": [
                    {"name": "feature_probe", "passed": True, "value": 0.6, "status": "pass"},
                    {"name": "arc_width", "passed": None, "value": 3.0, "status": "reported"},
                ],
            },
            True,
            "GO: injections pass every blocking realism gate (probe AUC 0.600)",
        ),
        (
            {
                "verdict": "no-go",
                "facts": {"blocking": ["feature_probe", "arc_snr"]},
                "gates": [
                    {"name": "feature_probe", "passed": False, "value": None, "status": "insufficient"},
                    {"name": "arc_snr", "passed": False, "value": 4.0, "status": "fail"},
                ],
            },
            False,
            "NO-GO: realism failed: arc_snr; not measured: feature_probe",
        ),
        (
            {
                "verdict": "no-go",
                "facts": {"blocking": ["feature_probe"]},
                "gates": [
                    {
                        "name": "feature_probe",
                        "passed": False,
                        "value": 0.871,
                        "lo68": 0.842,
                        "hi68": 0.9,
                        "n_real": 42,
                        "n_injected": 51,
                        "status": "fail",
                    },
                ],
            },
            False,
            "separable from real lenses, probe AUC 0.871 [0.842, 0.900], n 42 real + 51 injected",
        ),
        (
            {"verdict": "go", "facts": {"blocking": ["feature_probe"]}, "gates": []},
            False,
            "not measured: feature_probe",
        ),
    ],
)
def test_a_surface_is_a_go_only_when_every_gate_passed(report, go, title):
    verdict = Verdict.of_report(report)
    assert verdict.go is go
    assert title in verdict.title
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert verdict.tag == ("" if go else "-no-go")
