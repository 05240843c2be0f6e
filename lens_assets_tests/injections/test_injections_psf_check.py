"""PSF images held against the hosts they are for: what is missing, unreadable, or of another place; and what to fetch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from lens_assets.cli import psf as command
from lens_assets.resources.workspace import Workspace
from lens_assets.science.columns.injections import INJECTION_HOSTS
from lens_assets.science.cutouts.settings import ViewerSettings
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.psf import PsfSpec, kernel
from lens_assets.science.injections.psf_check import examine, fwhm_of, require
from lens_assets.science.injections.psf_images import SETTING
from lens_assets.science.injections.psf_wanted import positions
from lens_assets.science.injections.variants import load_variants
from lens_assets.science.mock.conditions import conditions
from lens_assets.science.mock.footprint import plan
from lens_assets.science.mock.psf_images import write_psf_images
from lens_assets.science.mock.settings import load_size
from lens_assets.science.surveys.layout import PIXEL_SCALE

SEED = 20261123


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The PSF images of the bricks of the smallest practice sky."""
    size = load_size("tiny")
    write_psf_images(tmp_path / "psf", size, plan(size, SEED), SEED)
    return tmp_path / "psf"


def hosts(folder: Path) -> pl.DataFrame:
    """Two hosts in every brick with an image, with the seeing that the sky was made with."""
    size, rows = load_size("tiny"), []
    for made in plan(size, SEED):
        if (folder / f"{made.cell.brickid}.fits").is_file():
            c = conditions(size, made, SEED)
            seen = {f"psfsize_{b}": float(np.median(c[b].psfsize[c[b].psfsize > 0])) for b in "grz"}
            rows += [{"galaxy_id": f"10002-{made.cell.brickid}-{i}", **seen} for i in (1, 2)]
    return pl.DataFrame(rows)


def spec(folder: Path) -> PsfSpec:
    return PsfSpec(kind="images", folder=str(folder))


@pytest.mark.parametrize("fwhm", [0.7, 1.2, 2.0])
@pytest.mark.parametrize("shape", [PsfSpec(kind="gaussian", pixel="included"), PsfSpec(beta=3.5, pixel="included")])
def test_the_width_of_an_image_is_the_fwhm_it_was_made_with(fwhm: float, shape: PsfSpec) -> None:
    assert fwhm_of(kernel(shape, fwhm, PIXEL_SCALE)) * PIXEL_SCALE == pytest.approx(fwhm, rel=0.05)


def test_the_images_of_the_practice_sky_fit_its_hosts(folder: Path) -> None:
    table = hosts(folder)
    shutil.copyfile(next(folder.glob("*.fits")), folder / "999999.fits")
    found = examine(spec(folder), table)
    assert (found.hosts, found.own, found.brick, found.missing, found.unused) == (table.height, 0, table.height, [], 1)
    assert found.problems == []
    for band in "grz":
        np.testing.assert_allclose(found.ratio[f"ratio_{band}"], 1.0, atol=0.06)
    require(spec(folder), pl.concat([table, table]))
    require(PsfSpec(), table)  # no images are asked for


def test_what_is_missing_unreadable_or_of_another_place_is_said_at_once(folder: Path) -> None:
    table = hosts(folder)
    gone, text, wide, own = table["galaxy_id"].to_list()[::2][:4]
    name = {one: folder / f"{one.split('-')[1]}.fits" for one in (gone, text, wide)}
    shutil.copyfile(name[wide], folder / f"{own}.fits")
    name[gone].unlink()
    name[text].write_text("no CCDs overlap the requested position\n")
    narrow = [fits.ImageHDU(kernel(PsfSpec(), 0.3, PIXEL_SCALE), name=f"PSF_{b}") for b in "grz"]
    fits.HDUList([fits.PrimaryHDU(), *narrow]).writeto(name[wide], overwrite=True)
    found = examine(spec(folder), table)
    assert found.missing == [gone, gone.removesuffix("1") + "2"]
    assert list(found.refused) == [name[text].name]
    assert "text where it has no exposure" in found.refused[name[text].name]
    assert found.off["file"].to_list() == [name[wide].name]
    assert (found.own, found.brick) == (1, table.height - 3)
    with pytest.raises(BadInput) as fault:
        require(spec(folder), table)
    for words in ("2 of 22 hosts have no PSF image", gone, "1 files cannot be used", "1 images are not as wide"):
        assert words in str(fault.value)


def test_a_setting_that_names_no_folder_stops_the_variant_of_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, str(tmp_path / "none"))
    variants = load_variants()
    assert variants["sersic-population"].psf.kind == "moffat"
    table = pl.DataFrame({"galaxy_id": ["10002-5-1"], **{f"psfsize_{b}": [1.2] for b in "grz"}})
    with pytest.raises(BadInput, match=f"{SETTING}.*that is there") as fault:
        require(variants["sersic-psf-images"].psf, table)
    assert str(tmp_path / "none") in str(fault.value)


def test_the_image_of_a_brick_is_asked_for_at_the_host_in_its_middle_also_across_ra_0() -> None:
    sample = pl.DataFrame({
        "galaxy_id": ["10002-7-1", "10002-7-2", "10002-7-3", "10002-8-1", "10002-9-1"],
        "ra": [359.9, 0.01, 0.12, 10.0, 20.0], "dec": [0.0, 0.01, 0.0, -5.0, 0.0],
    })  # fmt: skip
    missing = ["10002-7-3", "10002-7-1", "10002-7-2", "10002-8-1"]
    found = positions(missing, sample, ViewerSettings(), "brick")
    assert found["file"].to_list() == ["7.fits", "8.fits"]
    assert found.row(0)[1:3] == (0.01, 0.01)
    assert (
        found["url"][1]
        == "https://www.legacysurvey.org/viewer/coadd-psf/?ra=10.0&dec=-5.0&layer=ls-dr10-south&bands=grz"
    )
    each = positions(missing, sample, ViewerSettings(), "host")
    assert each["file"].to_list() == [f"{name}.fits" for name in sorted(missing)]


class _Store:
    """A store with hosts and a sample."""

    def __init__(self, tables: dict[str, pl.DataFrame]) -> None:
        self.tables = tables

    def find(self, asset: str) -> _Store | None:
        return self.get(asset) if asset in self.tables else None

    def get(self, asset: str) -> _Store:
        return _Store({"": self.tables[asset]})

    def read(self) -> pl.DataFrame:
        return self.tables[""]


def test_the_command_says_what_is_missing_and_where_it_is_to_be_had(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    app = typer.Typer()
    command.register(app)
    table = hosts(folder)
    sample = table.select("galaxy_id").with_columns(ra=pl.lit(30.0), dec=pl.lit(-1.0))
    store: dict[str, pl.DataFrame] = {}
    monkeypatch.setattr(Workspace, "store", lambda self: _Store(store))
    run = CliRunner()
    assert run.invoke(app, ["--folder", str(folder)]).exit_code == 2
    store |= {"injection_hosts": table, "splits": sample}
    assert {"galaxy_id", "psfsize_g", "psfsize_r", "psfsize_z"} <= set(INJECTION_HOSTS.names)
    fit = run.invoke(app, ["--folder", str(folder)])
    assert fit.exit_code == 0
    assert "22 hosts: 0 with an image of their own, 22 with their brick's, 0 without" in fit.output
    assert "width over PSFSIZE in r: median 1.0" in fit.output
    lost = sorted(folder.glob("*.fits"))[0]
    lost.unlink()
    out = tmp_path / "wanted.csv"
    done = run.invoke(app, ["--folder", str(folder), "--wanted", str(out)])
    assert done.exit_code == 1
    assert "2 of 22 hosts have no PSF image" in done.output
    assert pl.read_csv(out)["file"].to_list() == [lost.name]
    monkeypatch.delenv(SETTING, raising=False)
    first = run.invoke(app, ["--wanted", str(out), "--per", "host"])
    assert first.exit_code == 1
    assert pl.read_csv(out).height == 22
    assert run.invoke(app, []).exit_code == 1
