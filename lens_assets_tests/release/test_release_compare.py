"""Two releases side by side: nothing differs from itself, what was planted is found, chance is not."""

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.completeness.surface import build_surface
from lens_assets.science.errors import BadInput
from lens_assets.science.release.compare import compare_releases
from lens_assets.science.release.compare_page import comparison_page
from lens_assets.science.release.write import write_release
from lens_assets.science.storage import Draft


@pytest.fixture(scope="module")
def releases(build, simulated, tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")

    def make(name, surface, **changed):
        (root / name).mkdir()
        arguments = {
            "name": name, "version": "1.0.0", "realism": simulated.NO_GO, "priors": {"r_mag": {"mean": 24.0}},
            "detector": {"name": "resnet"}, "lineage": {}, "citation": {"title": "t", "authors": [{"name": "n"}]},
        }  # fmt: skip
        write_release(Draft(root / name), surface, **{**arguments, **changed})
        return root / name

    raw = simulated.injections(seed=1, per_cell=150)
    planted = raw.with_columns(
        pl.when((pl.col("theta_e") == 2.0) & (pl.col("psfsize_r") == 0.9))
        .then(0.01)
        .otherwise(pl.col("score"))
        .alias("score")
    )
    deeper = Settings(
        theta_e=simulated.SMALL.theta_e, psf=simulated.SMALL.psf, depth=(22.5, 23.0, 23.5, 24.0), min_per_cell=100
    )
    thresholds = simulated.THRESHOLDS.head(1)
    other = simulated.injections(seed=2, per_cell=150)
    about = {"detector": "resnet", "variant": "sersic", "realism": simulated.NO_GO}
    return {
        "a": make("a", build(raw, simulated.NO_GO, thresholds)),
        "planted": make("planted", build(planted, simulated.NO_GO, thresholds), priors={"r_mag": {"mean": 23.0}}),
        "chance": make("chance", build_surface(other, thresholds, Grid.of(deeper), deeper, about)),
    }


def test_a_release_does_not_differ_from_itself(releases):
    own = compare_releases(releases["a"], releases["a"])
    assert own.summary["cells_tested"] == 36
    assert own.summary["cells_differ"] == 0
    assert own.summary["largest"] == 0
    assert own.summary["injections_shared"] == own.summary["injections_a"]
    assert own.metadata == []
    assert "Nothing: detector, priors, grid" in comparison_page(own)


def test_what_was_planted_is_found_and_nothing_else(releases):
    own = compare_releases(releases["a"], releases["planted"])
    found = own.cells.filter("differs")
    assert set(zip(found["cell_theta_e"], found["cell_psf"], strict=True)) == {(2.0, 0.9)}
    assert found.height == 3
    assert (found["z"] > 3).all()
    assert ("priors.r_mag.mean", "24.0", "23.0") in own.metadata
    page = comparison_page(own)
    assert "3 of 36 tested cells differ" in page
    assert page.count("stroke='#111'") == 3
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched
    assert "<script" not in page


def test_other_injections_of_the_same_finder_differ_as_often_as_chance_has_it_also_across_grids(releases):
    own = compare_releases(releases["a"], releases["chance"])
    assert (own.summary["cells_a"], own.summary["cells_b"], own.summary["cells_common"]) == (36, 48, 36)
    assert own.summary["cells_differ"] == 0
    assert own.summary["beyond_2_sigma"] <= 8
    assert own.summary["injections_shared"] < 0.1 * own.summary["injections_a"]
    assert any(k == "grid depth" for k, _, _ in own.metadata)
    z = own.cells.filter("tested")["z"].to_numpy()
    assert 0.4 < np.std(z) < 1.6


def test_the_error_of_a_common_threshold_is_that_of_the_difference_and_an_own_one_is_of_each(
    build, simulated, tmp_path
):
    """Two surfaces at a threshold with an error, of one detector and of two: the same counts, the sharper test for one."""
    raw = simulated.injections(seed=3, per_cell=150)
    faint = raw.with_columns(score=pl.col("score") * 0.97)
    thresholds = simulated.THRESHOLDS[1:2]
    surfaces = [build(rows, simulated.NO_GO, thresholds) for rows in (raw, faint)]
    found = {}
    for kind, detectors in (("one", ("resnet", "resnet")), ("two", ("resnet", "compact"))):
        folders = []
        for surface, detector in zip(surfaces, detectors, strict=True):
            folders.append(tmp_path / f"{kind}-{len(folders)}")
            folders[-1].mkdir()
            write_release(
                Draft(folders[-1]), surface, name="a", version="1.0.0", realism=simulated.NO_GO, priors={},
                detector={"name": detector}, lineage={}, citation={"title": "t", "authors": [{"name": "n"}]},
            )  # fmt: skip
        found[kind] = compare_releases(*folders)
    one, two = (found[k].summary for k in ("one", "two"))
    assert (one["threshold_common"], two["threshold_common"]) == (True, False)
    assert one["pooled"]["difference"] == two["pooled"]["difference"] > 0
    assert one["pooled"]["z"] > 1.1 * two["pooled"]["z"]
    # by hand, of all injections together: own errors, and the change of the difference between the threshold's bounds
    row, angle = one["pooled"], lambda c: np.arcsin(np.sqrt(c))
    at = {cut: [angle((f["score"].to_numpy() >= cut).mean()) for f in (raw, faint)] for cut in (0.70, 0.68, 0.72)}
    off = {cut: a - b for cut, (a, b) in at.items()}
    common = max(abs(off[0.68] - off[0.70]), abs(off[0.72] - off[0.70]))
    own = (at[0.70][0] - angle(row["host_lo68_a"]), angle(row["host_hi68_b"]) - at[0.70][1])
    assert row["z"] == pytest.approx(off[0.70] / np.sqrt(own[0] ** 2 + own[1] ** 2 + common**2), rel=1e-6)
    assert "one threshold of one detector" in comparison_page(found["one"])
    assert "All injections together" in comparison_page(found["two"])


def test_a_damaged_release_an_unknown_threshold_and_grids_apart_are_refused(releases, simulated, build, tmp_path):
    with pytest.raises(BadInput, match="no threshold"):
        compare_releases(releases["a"], releases["a"], thresholds=("fpr", "default"))
    with pytest.raises(BadInput, match="SHA256SUMS"):
        compare_releases(releases["a"], tmp_path)
    apart = Settings(theta_e=(5.0, 6.0), psf=(0.9, 1.2), depth=(22.5, 23.0), min_per_cell=100)
    raw = simulated.injections(per_cell=5).with_columns(pl.col("theta_e") * 0 + 5.0)
    surface = build(raw, simulated.NO_GO, simulated.THRESHOLDS.head(1), settings=apart)
    (tmp_path / "far").mkdir()
    write_release(
        Draft(tmp_path / "far"), surface, name="far", version="1.0.0", realism=simulated.NO_GO, priors={}, detector={},
        lineage={}, citation={"title": "t", "authors": [{"name": "n"}]},
    )  # fmt: skip
    with pytest.raises(BadInput, match="no cell in common"):
        compare_releases(releases["a"], tmp_path / "far")


def test_the_command_writes_the_page_and_says_the_answer(releases, tmp_path):
    import typer

    from lens_assets.cli import compare

    app = typer.Typer()
    compare.register(app)
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, [str(releases["a"]), str(releases["planted"]), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "3 of 36 tested cells differ" in done.output
    assert out.read_text().startswith("<!doctype html>")
    assert CliRunner().invoke(app, [str(releases["a"]), str(tmp_path)]).exit_code == 1
