"""Bricks: pixels as written, missing bands told, damage and mismatch named."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from lens_assets.science.errors import BadInput
from lens_assets.science.storage import sha256_file
from lens_assets.science.surveys.bricktable import brick_table, read_brick_table, read_observed_bricks
from lens_assets.science.surveys.layout import brick_at
from lens_assets.science.surveys.release import DataRelease
from lens_assets.science.surveys.settings import Settings

CELL = brick_at(12.0, -3.0)


def edit(path, **keys):
    with fits.open(path, disable_image_compression=True) as hdus:
        for key, value in keys.items():
            hdus[1].header[key] = value
        hdus.writeto(path, overwrite=True, checksum=True)


def test_pixels_come_back_within_the_surveys_quantisation(tmp_path, brick_builder):
    images = brick_builder(tmp_path, CELL)
    brick = DataRelease(str(tmp_path)).brick(CELL.name)
    assert brick.missing_bands == ()
    assert brick.shape == (220, 240)
    for band in "grz":
        got = brick.image(band)
        assert got.dtype == np.dtype(np.float32)
        assert got.dtype.isnative
        assert np.abs(got - images[band]).max() <= 0.51e-4  # quantum 1e-4 nmgy
        assert (brick.invvar(band) == np.float32(1.1e5)).all()
        assert (brick.psfsize(band) == np.float32(1.3)).all()
        assert (brick.nexp(band) == 4).all()
    assert brick.maskbits()[5, 7] == 1 << 16
    assert brick.maskbits().sum() == 1 << 16


def test_the_bricks_pixel_grid_is_that_of_astropy(tmp_path, brick_builder):
    brick_builder(tmp_path, CELL)
    brick = DataRelease(str(tmp_path)).brick(CELL.name)
    x, y = brick.pixel_of([CELL.ra, CELL.ra + 0.001], [CELL.dec, CELL.dec + 0.002])
    assert (x[0], y[0]) == (pytest.approx(119.5), pytest.approx(109.5))
    want = brick.wcs.world_to_pixel(SkyCoord(CELL.ra + 0.001, CELL.dec + 0.002, unit="deg"))
    assert x[1] == pytest.approx(float(want[0]))
    assert y[1] == pytest.approx(float(want[1]))
    assert x[1] < x[0]
    assert y[1] > y[0]


def test_a_missing_band_is_told_and_not_filled(tmp_path, brick_builder):
    brick_builder(tmp_path, CELL, bands="gr")
    brick = DataRelease(str(tmp_path)).brick(CELL.name)
    assert brick.missing_bands == ("z",)
    with pytest.raises(BadInput, match=r"image-z\.fits\.fz.*without exposures"):
        brick.image("z")
    with pytest.raises(BadInput, match="no band 'y'"):
        brick.image("y")


def test_an_image_without_its_weights_is_a_missing_band(tmp_path, brick_builder):
    brick_builder(tmp_path, CELL)
    (tmp_path / CELL.coadd("invvar", "g")).unlink()
    assert DataRelease(str(tmp_path)).brick(CELL.name).missing_bands == ("g",)


def test_a_brick_with_no_file_at_all_is_an_error(tmp_path):
    with pytest.raises(BadInput, match="no coadds of brick"):
        DataRelease(str(tmp_path)).brick(CELL.name)


@pytest.mark.parametrize("cut", [10, 4000, 30_000])
def test_a_truncated_coadd_is_named(tmp_path, brick_builder, cut):
    brick_builder(tmp_path, CELL)
    path = tmp_path / CELL.coadd("image", "r")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(BadInput, match=r"truncated|corrupt") as caught:
        DataRelease(str(tmp_path)).brick(CELL.name)
    assert caught.value.file == str(path)


def test_a_truncated_psf_map_is_named_when_it_is_read(tmp_path, brick_builder):
    brick_builder(tmp_path, CELL)
    path = tmp_path / CELL.coadd("psfsize", "r")
    path.write_bytes(path.read_bytes()[:-100])
    brick = DataRelease(str(tmp_path)).brick(CELL.name)
    with pytest.raises(BadInput, match=r"psfsize-r\.fits\.fz"):
        brick.psfsize("r")


def test_flipped_bytes_of_a_coadd_are_found(tmp_path, brick_builder):
    brick_builder(tmp_path, CELL)
    path = tmp_path / CELL.coadd("image", "z")
    content = bytearray(path.read_bytes())
    content[-20_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match="DATASUM"):
        DataRelease(str(tmp_path)).brick(CELL.name)
    DataRelease(str(tmp_path), settings=Settings(verify_datasum=False)).brick(CELL.name)


def test_bands_of_different_shape_are_refused(tmp_path, brick_builder):
    brick_builder(tmp_path / "a", CELL)
    brick_builder(tmp_path / "b", CELL, shape=(200, 240))
    for product in ("image", "invvar"):
        name = CELL.coadd(product, "z")
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(BadInput, match="shape") as caught:
        DataRelease(str(tmp_path / "a")).brick(CELL.name)
    assert caught.value.file.endswith("image-z.fits.fz")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"CRVAL1": 12.1}, "WCS differs"), ({"BUNIT": "counts"}, "nanomaggies"), ({"MAGZERO": 25.0}, "MAGZERO"),
        ({"BRICK": "0959p805"}, "0959p805"), ({"IMTYPE": "model"}, "model"),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_the_brick_is_refused(tmp_path, brick_builder, keys, message):
    brick_builder(tmp_path, CELL)
    path = tmp_path / CELL.coadd("image", "r")
    edit(path, **keys)
    with pytest.raises(BadInput, match=message) as caught:
        DataRelease(str(tmp_path)).brick(CELL.name)
    assert caught.value.file == str(path)


def test_provenance_lists_every_file_with_its_digest(tmp_path, brick_builder):
    brick_builder(tmp_path, CELL, bands="gr")
    brick = DataRelease(str(tmp_path)).brick(CELL.name)
    assert len(brick.files) == 9
    path = tmp_path / CELL.coadd("nexp", "g")
    assert brick.files[path.name] == sha256_file(path)


def brick_fits(path, ids, **changes):
    table = brick_table(np.asarray(ids))
    columns = {name.upper(): table[name].to_numpy() for name in table.columns} | changes
    made = [
        fits.Column(
            n, "8A" if v.dtype.kind in "OU" else "J" if v.dtype.kind == "i" else "D", array=np.asarray(v.tolist())
        )
        for n, v in columns.items()
    ]
    fits.BinTableHDU.from_columns(made).writeto(path, overwrite=True)
    return table


def test_the_brick_table_is_proven_equal_to_the_closed_form(tmp_path):
    path = tmp_path / "survey-bricks.fits.gz"
    table = brick_fits(path, [1, 312906, 657438, 662174])
    assert read_brick_table(path).equals(table)
    brick_fits(path, [1, 312906], RA1=np.array([0.0, 17.0]))
    with pytest.raises(BadInput, match="closed-form") as caught:
        read_brick_table(path)
    assert (caught.value.column, caught.value.row) == ("RA1", 1)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match="truncated"):
        read_brick_table(path)


def observed(path, depth):
    columns = [fits.Column("brickname", "8A", array=["3145m032"]), fits.Column("brickid", "J", array=[312906])]
    columns += [fits.Column("ebv", "E", array=[0.1]), fits.Column("nexp", "J", array=[812])]
    for b in "grz":
        columns += [fits.Column(f"nexp_{b}", "I", array=[0 if b == "z" else 3])]
        columns += [fits.Column(f"{s}_{b}", "E", array=[1.2 if s == "psfsize" else 0.0 if b == "z" else depth])
                    for s in ("psfsize", "psfdepth", "galdepth")]  # fmt: skip
    fits.BinTableHDU.from_columns(columns).writeto(path, overwrite=True)


def test_depths_of_the_per_release_table_are_magnitudes_by_name(tmp_path):
    path = tmp_path / "survey-bricks-dr10-south.fits.gz"
    observed(path, 24.3)
    table = read_observed_bricks(path)
    assert table["psfdepth_r_mag"][0] == pytest.approx(24.3)
    assert table["psfdepth_z_mag"][0] is None
    assert table["nexp_z"][0] == 0
    assert "nexp" not in table.columns
    observed(path, 254.0)
    with pytest.raises(BadInput, match="no AB magnitude"):
        read_observed_bricks(path)
