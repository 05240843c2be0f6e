"""A release directory: names, units, round trips, reproducible bytes, nothing overwritten."""

import json
import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from astropy import units
from astropy.io import fits
from astropy.io.votable import ucd
from astropy.table import Table

from lens_assets.lookup import load
from lens_assets.science.columns.release import RELEASE_SURFACE, TABLES
from lens_assets.science.completeness.continuous import fit
from lens_assets.science.errors import BadInput
from lens_assets.science.release.card import _models
from lens_assets.science.release.publish import ReleaseExistsError, publish, verify
from lens_assets.science.release.sky import sky_of
from lens_assets.science.release.write import write_release
from lens_assets.science.storage import Draft

CITATION = {"title": "A selection function", "authors": [{"name": "The team"}], "license": "CC-BY-4.0"}


@pytest.fixture(scope="session")
def write(surface, simulated):
    def make(folder, surfaces=surface, **changed):
        folder.mkdir(parents=True)
        arguments = {
            "name": "practice-lenses",
            "version": "1.2.0",
            "realism": simulated.NO_GO,
            "priors": {"source_mag": [23, 26]},
            "detector": {"name": "resnet", "seed": 11, "normalisation": {"clip": 10}},
            "lineage": {"injection_batch[sersic|1.00]": "abc"},
            "citation": CITATION,
            "conditions": pl.DataFrame({"psf_bin": [0, 1, -1], "depth_bin": [0, 1, 2], "n": [70, 20, 10]}),
            "sky": sky_of(
                pl.DataFrame({"cell": [5, 5, 7], "psfsize_r": [1.2, 1.3, 0.9], "depth_r": [23.0, 23.2, 22.6]})
            ),
        }
        return write_release(Draft(folder), surfaces, **{**arguments, **changed})

    return make


@pytest.fixture(scope="session")
def release(write, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "it"
    write(folder)
    return folder


def test_under_a_no_go_files_tables_and_name_say_so(release):
    header = json.loads((release / "surface-no-go.json").read_text())
    assert header["name"] == "practice-lenses-no-go"
    assert header["verdict"].startswith("NO-GO: injections separable from real lenses")
    with fits.open(release / "surface-no-go.fits") as hdus:
        assert hdus[1].name == "SURFACE-NO-GO"
    assert Table.read(release / "surface-no-go.ecsv").meta["name"] == "surface-no-go"
    assert not [p.name for p in release.glob("surface*") if "no-go" not in p.name]
    assert not [p.name for p in release.glob("figure*") if "no-go" not in p.name]
    assert "**NO-GO: injections separable" in (release / "MODEL_CARD.md").read_text()


def test_under_a_go_they_do_not(build, simulated, write, tmp_path):
    write(tmp_path / "go", build(simulated.injections(), simulated.GO), realism=simulated.GO)
    assert (tmp_path / "go" / "surface.parquet").is_file()
    assert not list((tmp_path / "go").glob("*no-go*"))


def test_one_no_go_surface_marks_the_whole_table(build, simulated, surface, write, tmp_path):
    good = build(simulated.injections(), simulated.GO, variant="clumpy")
    facts = write(tmp_path / "two", {"a": good, "b": surface}, primary="a", realism=simulated.GO)
    assert facts["name"] == "practice-lenses-no-go"
    frame = pl.read_parquet(tmp_path / "two" / "surface-no-go.parquet")
    assert frame["surface"].unique().sort().to_list() == ["a", "b"]


def test_the_verdict_must_follow_from_the_realism_report(write, simulated, tmp_path):
    with pytest.raises(BadInput, match="its realism report"):
        write(tmp_path / "x", realism=simulated.GO)


def test_fits_gives_back_values_units_and_ucds(release, surface):
    with fits.open(release / "surface-no-go.fits") as hdus:
        data, head = hdus[1].data, hdus[1].header
        assert len(data) == surface.cells.height
        np.testing.assert_array_equal(data["completeness"], surface.cells["completeness"].fill_null(np.nan).to_numpy())
        np.testing.assert_array_equal(data["n_injections"], surface.cells["n_injections"].to_numpy())
        assert list(np.char.strip(data["support"])) == surface.cells["support"].to_list()
        found = {
            head[f"TTYPE{i}"]: (head.get(f"TUNIT{i}", ""), head[f"TUCD{i}"]) for i in range(1, head["TFIELDS"] + 1)
        }
    assert found == {c.name: (c.unit, c.ucd) for c in RELEASE_SURFACE.columns}
    assert found["cell_theta_e"] == ("arcsec", "phys.angSize")


def test_ecsv_gives_back_values_units_and_ucds(release, surface):
    table = Table.read(release / "surface-no-go.ecsv")
    assert table["cell_psf"].unit == units.arcsec
    assert table["cell_depth"].unit == units.mag
    assert table["cell_theta_e"].meta["ucd"] == "phys.angSize"
    np.testing.assert_array_equal(
        np.ma.filled(table["total_lo68"], np.nan), surface.cells["total_lo68"].fill_null(np.nan).to_numpy()
    )
    assert table["completeness"].description


def test_parquet_carries_units_and_the_verdict(release, surface):
    schema = pq.read_schema(release / "surface-no-go.parquet")
    assert schema.field("cell_theta_e").metadata[b"unit"] == b"arcsec"
    assert schema.metadata[b"verdict"].startswith(b"NO-GO")
    assert pl.read_parquet(release / "surface-no-go.parquet").drop("surface").equals(surface.cells)


def test_every_ucd_is_one_the_ivoa_knows():
    for column in {c for table in TABLES for c in table.columns}:
        if column.ucd:
            ucd.parse_ucd(column.ucd, check_controlled_vocabulary=True)


def test_every_unit_is_one_astropy_knows():
    for column in RELEASE_SURFACE.columns:
        units.Unit(column.unit)


def test_the_same_surface_gives_the_same_bytes(release, write, tmp_path):
    write(tmp_path / "again")
    assert (tmp_path / "again" / "SHA256SUMS").read_bytes() == (release / "SHA256SUMS").read_bytes()


def test_citation_and_occupancy_are_what_they_say(release):
    cff = yaml.safe_load((release / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0"
    assert cff["version"] == "1.2.0"
    assert cff["authors"] == CITATION["authors"]
    held = pl.read_parquet(release / "occupancy.parquet")
    assert held.height == 9
    assert held["survey_share"].sum() == pytest.approx(0.9)
    assert held["n_injections"].sum() == 7 * 480 + 40


def test_the_card_gives_the_numbers_of_the_surface_and_its_limits(release, surface):
    card = (release / "MODEL_CARD.md").read_text()
    assert "28 supported (at least 100 injections), 4 insufficient, 4 empty" in card
    assert f"{surface.meta['injections_used']:,} injections" in card
    assert "not a survey precision" in card
    assert "refused" in card


def test_a_damaged_or_incomplete_release_is_named(release, write, tmp_path):
    write(tmp_path / "a")
    assert len(verify(tmp_path / "a")) == len(list(release.iterdir())) - 1
    (tmp_path / "a" / "PRIORS.json").write_text("{}\n")
    with pytest.raises(BadInput, match=r"PRIORS\.json.*differ"):
        publish(tmp_path / "a", tmp_path / "out", "1.2.0")
    (tmp_path / "a" / "PRIORS.json").unlink()
    with pytest.raises(BadInput, match=r"PRIORS\.json.*missing"):
        publish(tmp_path / "a", tmp_path / "out", "1.2.0")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_published_version_is_never_overwritten(release, write, tmp_path):
    out = tmp_path / "releases"
    first = publish(release, out, "1.2.0")
    assert first.name == "practice-lenses-no-go-1.2.0"
    before = {p.name: p.read_bytes() for p in first.iterdir()}
    assert publish(release, out, "1.2.0") == first  # the same bytes again change nothing
    write(tmp_path / "other", priors={"source_mag": [22, 26]})
    with pytest.raises(ReleaseExistsError, match="never overwritten"):
        publish(tmp_path / "other", out, "1.2.0")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == before
    with pytest.raises(BadInput, match=r"written as version 1\.2\.0"):
        publish(release, out, "1.2.1")
    assert [p.name for p in out.iterdir()] == [first.name]


def test_a_version_must_be_semantic(write, tmp_path):
    with pytest.raises(BadInput, match="semver"):
        write(tmp_path / "x", version="v1")


def test_the_sky_table_is_medians_of_what_was_observed():
    sweeps = pl.DataFrame(
        {"cell": [1, 1, 1, 1, 2], "psfsize_r": [1.0, 1.2, 1.4, 0.0, 0.0], "depth_r": [23.0, 23.4, 23.1, 24.0, 23.0]}
    )
    sky = sky_of(sweeps)
    assert sky["cell"].to_list() == [1]
    assert sky.row(0, named=True)["sky_psf"] == pytest.approx(1.2)
    assert sky.row(0, named=True)["sky_depth"] == pytest.approx(23.1)
    assert sky["sky_objects"].to_list() == [3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sky_of(sweeps.head(0)).height == 0


def test_a_release_of_several_surfaces_says_how_far_the_number_moves(build, simulated, surface, write, tmp_path):
    other = build(simulated.injections(skip=[(2, 2)], few=[(2, 0)], shift=-0.6), simulated.NO_GO, variant="clumpy")
    folder = tmp_path / "two"
    write(folder, {"resnet|sersic": surface, "resnet|clumpy": other}, primary="resnet|sersic")
    pairs = pl.read_parquet(folder / "sensitivity_pairs-no-go.parquet")
    whole = pairs.filter((pl.col("pair_scope") == "all") & (pl.col("operating_point") == "fpr_1e-3")).row(0, named=True)
    assert whole["n_pairs"] == surface.members.height
    assert whole["differs"]
    assert whole["surface_a"] == "resnet|clumpy"
    assert whole["paired_hi95"] < 0
    assert pl.read_parquet(folder / "sensitivity_cells-no-go.parquet")["n_surfaces"].max() == 2
    assert (folder / "figure-sensitivity-no-go.png").stat().st_size > 10_000
    card = (folder / "MODEL_CARD.md").read_text()
    assert "## Sensitivity" in card
    assert f"| {whole['n_pairs']} | {whole['paired_difference']:+.4f} |" in card


def test_tiles_and_optional_axes_are_released(release, write, surface, tmp_path):
    assert pl.read_parquet(release / "survey-no-go.parquet")["tile"].unique().to_list() == ["*"]
    optional = pl.read_parquet(release / "optional-no-go.parquet")
    whole = optional.filter((pl.col("axis") == "host_type") & (pl.col("operating_point") == "fixed_0.5"))
    assert whole["n_injections"].sum() == surface.members.height
    tile = pl.DataFrame({"psf_bin": [0, 1], "depth_bin": [0, 1], "n": [70, 20]})
    write(tmp_path / "tiles", tiles={"000m005": tile, "000p000": tile.head(1)})
    assert pl.read_parquet(tmp_path / "tiles" / "survey-no-go.parquet")["tile"].unique().sort().to_list() == [
        "*", "000m005", "000p000",
    ]  # fmt: skip


def test_a_continuous_model_travels_with_the_release_and_never_replaces_the_table(release, write, surface, tmp_path):
    fitted = fit(surface, "fpr_1e-3", draws=10)
    write(tmp_path / "model", models={"fpr_1e-3": fitted})
    f, without = load(tmp_path / "model"), load(release)
    where = {"theta_e": [1.5, 1.0, 9.0], "psf": [1.2, 1.5, 1.2], "depth": [23.0, 22.5, 23.0]}
    table, model = f.completeness(**where), f.completeness(**where, model=True)
    np.testing.assert_array_equal(table.value, without.completeness(**where).value)
    assert list(model.flag) == ["in support", "insufficient", "outside"]
    assert np.isnan(model.value).tolist() == [False, True, True]
    assert model.lo[0] <= model.value[0] <= model.hi[0]
    assert abs(model.value[0] - table.value[0]) < 0.15
    assert model.value[0] != table.value[0]
    with pytest.raises(ValueError, match="no continuous model"):
        without.completeness(**where, model=True)
    with pytest.raises(ValueError, match=r"no continuous model at 'fixed_0\.5'"):
        f.completeness(**where, model=True, threshold="fixed_0.5")
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "## Continuous model" in card
    assert "refused" not in card.split("## Continuous model")[1]
    poor = replace(fitted, agreement={**fitted.agreement, "refused": "it contradicts the table"})
    assert "At fpr_1e-3 the model is refused: it contradicts the table" in "\n".join(_models({"fpr_1e-3": poor}))
    assert json.loads((tmp_path / "model" / "MODEL.json").read_text())["fpr_1e-3"]["n_cells"] == 28
