"""The sensitivity band: ranges that are those of the tables, paired tests that hold their level and see what is there."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lens_assets.science.columns.sensitivity import BAND_CELLS, BAND_MARGINALS, PAIRS
from lens_assets.science.completeness.band_figure import band_figure
from lens_assets.science.completeness.figures import save
from lens_assets.science.completeness.paired import compare
from lens_assets.science.completeness.sensitivity import sensitivity
from lens_assets.science.errors import BadInput

POINT = "fixed_0.5"


@pytest.fixture(scope="module")
def surfaces(build, simulated):
    def made(detector, variant, without=None, **how):
        raw = simulated.injections(**how)
        if without:
            raw = raw.filter(~((pl.col("psfsize_r") == without[0]) & (pl.col("depth_r") == without[1])))
        ids = pl.lit(f"{variant}|") + pl.col("injection_id")
        points = simulated.THRESHOLDS.head(2)
        raw = raw.with_columns(ids.alias("injection_id"))
        return build(raw, simulated.NO_GO, points, detector=detector, variant=variant)

    others = made("resnet", "other-hosts", seed=9)
    return {
        "resnet|sersic": made("resnet", "sersic"),
        "resnet|clumpy": made("resnet", "clumpy", shift=-0.5),
        "resnet|other-hosts": replace(others, members=others.members.with_columns(pl.col("host") + "-other")),
        "compact|sersic": made("compact", "sersic", shift=0.02, without=(0.9, 22.5)),
    }


@pytest.fixture(scope="module")
def found(surfaces):
    conditions = pl.DataFrame({"psf_bin": [0, 1], "depth_bin": [0, 1], "n": [70, 30]})
    return sensitivity(surfaces, "resnet|sersic", conditions)


def test_with_one_injection_a_host_both_tests_are_the_same_number():
    rng = np.random.default_rng(1)
    x, y = rng.random((2, 300)) < [[0.5], [0.6]]
    own = compare(np.arange(300) % 3, np.arange(300), x, y, 4)
    np.testing.assert_allclose(own.p_host, own.p_mcnemar, rtol=1e-9)
    assert np.isnan(own.difference[3])
    np.testing.assert_array_equal(own.n_eff[:3], own.n[:3])


def _draw(rng, hosts, per_host, shift, spread):
    """Host effects on the difference between the two, so that injections into one host agree about it."""
    host = np.repeat(np.arange(hosts), per_host)
    common = rng.normal(0, 1, host.size)
    lean = rng.normal(0, spread, hosts)[host]
    x = common + rng.normal(0, 0.4, host.size) + lean > 0
    y = common + rng.normal(0, 0.4, host.size) - shift > 0
    return host, x, y


def test_with_reused_hosts_only_the_host_wise_test_keeps_its_level():
    rng = np.random.default_rng(2)
    p = []
    for _ in range(200):
        host, x, y = _draw(rng, 40, 20, 0.0, 0.6)
        own = compare(np.zeros(host.size, int), host, x, y, 1)
        p.append((own.p_mcnemar[0], own.p_host[0]))
    alone, by_host = np.mean(np.array(p) < 0.05, axis=0)
    assert by_host < 0.10
    assert alone > 2 * by_host


def test_bricks_whose_difference_varies_are_no_evidence_though_hosts_say_so_and_the_interval_holds_the_truth():
    """12 bricks of 30 hosts, the mean difference over bricks 0: what hosts call a difference is that of these bricks."""
    rng = np.random.default_rng(5)
    p, inside = [], {0.68: [], 0.95: []}
    for _ in range(300):
        brick = np.repeat(np.arange(12), 30)
        u = rng.random(brick.size)
        x, y = u < np.clip(0.4 + rng.normal(0, 0.1, 12), 0, 1)[brick], u < 0.4
        own = compare(np.zeros(brick.size, int), np.arange(brick.size), x, y, 1, brick=brick)
        p.append((own.p_host[0], own.p_brick[0]))
        for level, hits in inside.items():
            hits.append(own.intervals[level].lo[0] <= 0 <= own.intervals[level].hi[0])
    hosts, bricks = np.mean(np.array(p) < 0.05, axis=0)
    assert hosts > 0.3
    assert bricks < 0.075
    assert 0.62 < np.mean(inside[0.68]) < 0.82
    assert np.mean(inside[0.95]) > 0.92


def test_one_brick_says_nothing_of_others_and_hosts_with_a_brick_each_are_as_before():
    rng = np.random.default_rng(6)
    x, y = rng.random((2, 200)) < [[0.7], [0.4]]
    zeros, host = np.zeros(200, int), np.arange(200) // 2
    before, single, each = (compare(zeros, host, x, y, 1, brick=b) for b in (None, zeros, host))
    assert single.p_host[0] == before.p_host[0] < 1e-3
    assert (single.p_brick[0], single.n_bricks[0]) == (1.0, 1)
    assert each.p_brick[0] == before.p_host[0]
    for level in (0.68, 0.95):
        assert each.intervals[level].lo == before.intervals[level].lo == single.intervals[level].lo


@pytest.mark.parametrize(("hosts", "per_host", "spread"), [(300, 1, 0.0), (40, 10, 0.5), (60, 4, 0.0)])
def test_the_interval_of_a_difference_covers_it_at_the_nominal_rate(hosts, per_host, spread):
    rng = np.random.default_rng(3)
    big = [_draw(rng, 20000, 1, 0.3, spread) for _ in range(10)]
    truth = np.mean([x.mean() - y.mean() for _, x, y in big])
    inside = {0.68: [], 0.95: []}
    for _ in range(300):
        host, x, y = _draw(rng, hosts, per_host, 0.3, spread)
        own = compare(np.zeros(host.size, int), host, x, y, 1)
        for level, hits in inside.items():
            hits.append(own.intervals[level].lo[0] <= truth <= own.intervals[level].hi[0])
    assert 0.60 < np.mean(inside[0.68]) < 0.80
    assert np.mean(inside[0.95]) > 0.90


def test_the_band_of_a_cell_is_the_range_of_the_surfaces_that_support_it(found, surfaces):
    family = ["resnet|clumpy", "resnet|other-hosts", "resnet|sersic"]
    where = {"operating_point": POINT, "i_theta": 2, "i_psf": 0, "i_depth": 0}
    own = found.cells.filter(**where, band_family="variants").row(0, named=True)
    values = {n: surfaces[n].cells.filter(**where)["completeness"][0] for n in family}
    assert (own["band_lowest"], own["band_highest"]) == (min(values.values()), max(values.values()))
    assert own["band_median"] == np.median(list(values.values()))
    assert own["lowest_surface"] == min(values, key=values.get) == "resnet|clumpy"
    assert own["completeness"] == values["resnet|sersic"]
    alone = found.cells.filter(**where, band_family="detectors").row(0, named=True)
    assert alone["n_surfaces"] == 1  # the other detector has nothing in this cell


def test_marginals_are_counted_in_cells_that_every_surface_supports(found, surfaces):
    row = found.marginals.filter(
        (pl.col("operating_point") == POINT) & (pl.col("band_family") == "detectors") & (pl.col("axis") == "all")
        & pl.col("weighting").str.starts_with("injections")
    ).row(0, named=True)  # fmt: skip
    rates = []
    for name in ("resnet|sersic", "compact|sersic"):
        m = surfaces[name].members.filter(~((pl.col("i_psf") == 0) & (pl.col("i_depth") == 0)))
        rates.append((m["injection_score"] >= 0.5).mean())
    assert (row["band_lowest"], row["band_highest"]) == (pytest.approx(min(rates)), pytest.approx(max(rates)))
    assert found.marginals["weighting"].str.starts_with("survey").any()


def test_a_planted_shift_differs_and_a_negligible_one_does_not(found):
    pairs = found.pairs.filter(operating_point=POINT, pair_scope="all")
    planted = pairs.filter(surface_a="resnet|clumpy", surface_b="resnet|sersic").row(0, named=True)
    assert planted["differs"]
    assert planted["n_pairs"] == 9 * 4 * 120
    assert planted["n_only_a"] == 0
    assert planted["paired_lo95"] < planted["paired_difference"] < planted["paired_hi95"] < 0
    small = pairs.filter(surface_a="compact|sersic", surface_b="resnet|sersic").row(0, named=True)
    assert small["n_pairs"] == 8 * 4 * 120
    assert abs(small["paired_difference"]) < 0.02
    # detector and variant both differ: not a pair
    assert not pairs.filter(surface_a="compact|sersic", surface_b="resnet|clumpy").height


def test_surfaces_with_other_hosts_share_nothing_and_are_not_tested(found):
    own = found.pairs.filter(surface_a="resnet|other-hosts", surface_b="resnet|sersic")
    assert own["n_pairs"].to_list() == [0, 0]
    assert own["p_mcnemar"].null_count() == own["p_host_holm"].null_count() == own["p_brick_holm"].null_count() == 2
    assert not own["differs"].any()


def test_pairs_by_cell_hold_the_same_injections_and_the_tables_conform(found):
    cells = found.pairs.filter(pair_scope="cell", surface_a="resnet|clumpy", operating_point=POINT)
    assert cells["n_pairs"].to_list() == [120] * 36
    assert (cells["p_mcnemar_holm"] >= cells["p_mcnemar"]).all()
    for table, frame in ((BAND_CELLS, found.cells), (BAND_MARGINALS, found.marginals), (PAIRS, found.pairs)):
        assert table.violations(frame) == []


def test_what_cannot_be_compared_is_refused(surfaces, build, simulated):
    with pytest.raises(BadInput, match="no surface"):
        sensitivity(surfaces, "x")
    twice = {"a": surfaces["resnet|sersic"], "b": surfaces["resnet|sersic"]}
    with pytest.raises(BadInput, match="same detector and variant"):
        sensitivity(twice, "a")
    alone = sensitivity({"a": surfaces["resnet|sersic"]}, "a")
    assert alone.cells.height == alone.marginals.height == alone.pairs.height == 0
    assert band_figure(alone, POINT, surfaces["resnet|sersic"].verdict) is None


def test_the_figure_says_no_go_and_is_reproducible(found, surfaces, tmp_path):
    for name in ("a", "b"):
        figure = band_figure(found, POINT, surfaces["resnet|sersic"].verdict)
        assert any("NO-GO" in t.get_text() for t in figure.texts)
        save(figure, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
