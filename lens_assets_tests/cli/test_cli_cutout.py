"""``lens-assets cutout``: what it writes, what it says when there is nothing to write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
from typer.testing import CliRunner

from lens_assets.cli import cutout
from lens_assets.science.columns.cutouts import CUTOUT_REJECTED
from lens_assets.science.cutouts.cut import judge
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.write import assemble, save_part
from lens_assets.science.hashing import generator
from lens_assets.science.storage import Store
from lens_assets.science.surveys.layout import brick_at

CELL = brick_at(150.0, 2.0)
IDS = [f"10000-{CELL.brickid}-{k}" for k in (103, 112, 140)]
REJECTED = f"10000-{CELL.brickid}-99"
UNCUT = f"10000-{CELL.brickid}-7"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """An installation with one shard of three stamps, one of them the viewer's, and its sample."""
    root = tmp_path_factory.mktemp("home")
    store = Store(root / "store")
    draw = generator("cli-cutout")
    rows = pl.DataFrame(
        {
            "galaxy_id": IDS,
            "brickname": CELL.name,
            "ra": [CELL.ra + 0.01 * k for k in range(3)],
            "dec": [CELL.dec - 0.01 * k for k in range(3)],
        }
    )
    images = draw.normal(0, 2e-3, (3, 3, 101, 101)).astype(np.float32)
    invvar = np.full_like(images, 2.5e5)
    invvar[1, 2, 3, 4] = 0
    facts = {"x": [60.0] * 3, "y": [70.0] * 3, "dx": [0.25, 0.0, 0.0], "dy": [-0.5, 0.0, 0.0]}
    for k, band in enumerate("grz"):
        facts |= {f"psfsize_{band}": [1.1 + 0.1 * k] * 3, f"nexp_{band}": [3 + k] * 3}
        facts |= {f"image_digest_{band}": [f"{k}" * 64] * 3}
    lost = CUTOUT_REJECTED.conform(
        pl.DataFrame(
            {
                "galaxy_id": [REJECTED],
                "brickname": [CELL.name],
                "reason": ["core"],
                "detail": ["invalid core pixel (z)"],
            }
        )
    )
    with store.draft("cutouts", "150p000", made_from={"a": 1}) as draft:
        part = root / "part"
        save_part(part, *judge(rows, images, invvar, facts, Settings(), "brick", lost))
        assemble(draft, [part], 4, Settings())
    sample = pl.DataFrame(
        {
            "galaxy_id": [*IDS, UNCUT], "tile": "150p000", "label": [1, 0, 0, 0], "tier": ["A", None, None, None],
            "split": ["train", "val", "test", "guard"], "role": "train", "ebv": 0.03, "maskbits": 0, "type": "SER",
            **{f"psfdepth_{b}": 254.0 for b in "grz"}, **{f"galdepth_{b}": 100.0 for b in "grz"},
        }
    )  # fmt: skip
    with store.draft("splits", made_from={"a": 1}) as draft:
        draft.table(sample)
    return root


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "STORE", "CACHE"):
        monkeypatch.delenv(f"LENS_ASSETS_{name}", raising=False)
    app = typer.Typer()
    cutout.register(app)
    app.command("other")(lambda: None)
    return lambda *words: CliRunner().invoke(app, ["cutout", *map(str, words)])


def test_it_writes_pixels_sky_and_provenance_and_says_what_it_wrote(run, home, tmp_path):
    done = run(IDS[0], "--home", home, "--out", "new/folder")
    assert done.exit_code == 0, done.output
    table, picture = (tmp_path / "new" / "folder" / f"cutout-{IDS[0]}.{end}" for end in ("fits", "png"))
    for word in (
        f"{table.relative_to(tmp_path)}",
        f"{picture.relative_to(tmp_path)}",
        "lens or candidate, split train",
    ):
        assert word in done.output
    with fits.open(table, checksum=True) as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "IMAGE", "INVVAR"]
        header = hdus["IMAGE"].header
        shard = Store(home / "store").get("cutouts", "150p000")
        np.testing.assert_array_equal(hdus["IMAGE"].data, np.load(shard.file("image.npy"))[0])
        np.testing.assert_array_equal(hdus["INVVAR"].data, np.load(shard.file("invvar.npy"))[0])
        assert (header["BUNIT"], hdus["INVVAR"].header["BUNIT"]) == ("nanomaggy", "1/nanomaggy^2")
        told = {
            k: header[k]
            for k in ("OBJECT", "BANDS", "RELEASE", "BRICK", "SOURCE", "TILE", "LABEL", "TIER", "SPLIT", "MORPH")
        }
        assert told == {
            "OBJECT": IDS[0], "BANDS": "grz", "RELEASE": 10000, "BRICK": CELL.name, "SOURCE": "brick", "TILE": "150p000",
            "LABEL": 1, "TIER": "A", "SPLIT": "train", "MORPH": "SER",
        }  # fmt: skip
        assert header["SHARDSHA"] == shard.digest
        assert header["IMGSHA_R"] == "1" * 64
        assert header["DEPTH_Z"] == pytest.approx(23.76, abs=0.01)  # 254 / nmgy^2: the sheet's own example
        assert header["PSF_Z"] == pytest.approx(1.3)
        x, y = WCS(header).celestial.all_world2pix([[CELL.ra, CELL.dec]], 0)[0]
        assert (x, y) == pytest.approx((50.25, 49.5), abs=1e-6)
    with Image.open(picture) as shown:
        assert shown.size[0] > 1000
        assert "Lupton" in shown.text["Description"]
        assert shown.text["Title"] == IDS[0]


def test_the_same_object_gives_the_same_bytes(run, home, tmp_path):
    for folder in ("a", "b"):
        assert run(IDS[1], "--home", home, "--out", folder).exit_code == 0
    for end in ("fits", "png"):
        assert len({(tmp_path / f / f"cutout-{IDS[1]}.{end}").read_bytes() for f in "ab"}) == 1


@pytest.mark.parametrize("bad", ["../../etc/passwd", "10000-1", "10000-1-1/../x", "a-b-c", "10000-1-1-1", "10000-1-1 "])
def test_what_is_no_id_is_refused_before_it_becomes_a_path(run, home, tmp_path, bad):
    done = run(bad, "--home", home)
    assert done.exit_code == 2
    assert "is not an id: RELEASE-BRICKID-OBJID" in done.output
    assert not list(tmp_path.rglob("*.fits"))


def test_an_unknown_object_is_answered_with_where_was_looked(run, home):
    done = run("10000-1-1", "--home", home)
    assert done.exit_code == 1
    assert "none of the 3 stamps of 1 tiles (150p000)" in done.output.replace("\n", " ")
    assert str(home / "store") in done.output


def test_a_rejected_object_is_answered_with_the_reason(run, home):
    done = run(REJECTED, "--home", home)
    assert done.exit_code == 1
    assert "rejected in tile 150p000: invalid core pixel (z)" in done.output


def test_an_object_of_the_sample_without_a_stamp_is_told_apart_from_an_unknown_one(run, home):
    done = run(UNCUT, "--home", home)
    assert done.exit_code == 1
    assert "it is in the sample (split guard, tile 150p000), but was not cut" in done.output


def test_an_empty_installation_is_told_how_to_make_stamps(run, tmp_path):
    done = run("10000-1-1", "--home", tmp_path / "nothing")
    assert done.exit_code == 1
    assert "lens-assets demo" in done.output


def test_the_help_teaches_what_the_files_hold(run):
    text = " ".join(run("--help").output.split())
    for word in ("IMAGE", "INVVAR", "nanomaggies per pixel", "--home", "--out", "10000-456273-539", "rejected"):
        assert word in text
