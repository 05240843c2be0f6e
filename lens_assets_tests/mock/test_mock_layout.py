"""The mock release against the DR10 pages: names, columns, types, units, headers, missing data; read by the survey's
own reader."""

from __future__ import annotations

import gzip
import re

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lens_assets.science.columns.mock import MOCK_LENSES, MOCK_OBJECTS
from lens_assets.science.mock.footprint import bricks_inside, bricks_of_tile, plan, tiles_of
from lens_assets.science.mock.settings import MockSize, load_size
from lens_assets.science.mock.sweepfile import SWEEP_COLUMNS
from lens_assets.science.mock.truth import read_truth
from lens_assets.science.sphere import separation
from lens_assets.science.surveys.layout import brick_at, tile_at, tile_of_key
from lens_assets.science.surveys.release import DataRelease

DR10_COLUMNS = """RELEASE BRICKID BRICKNAME OBJID TYPE RA DEC RA_IVAR DEC_IVAR DCHISQ EBV
FLUX_{b} FLUX_{w} FLUX_IVAR_{b} FLUX_IVAR_{w} MW_TRANSMISSION_{b} MW_TRANSMISSION_{w} NOBS_{b} NOBS_{w} RCHISQ_{b}
RCHISQ_{w} FRACFLUX_{b} FRACFLUX_{w} FRACMASKED_{b} FRACIN_{b} ANYMASK_{b} ALLMASK_{b} WISEMASK_W1 WISEMASK_W2
PSFSIZE_{b} PSFDEPTH_{b} GALDEPTH_{b} PSFDEPTH_W1 PSFDEPTH_W2 WISE_COADD_ID SHAPE_R SHAPE_R_IVAR SHAPE_E1
SHAPE_E1_IVAR SHAPE_E2 SHAPE_E2_IVAR FIBERFLUX_{b} FIBERTOTFLUX_{b} REF_CAT REF_ID REF_EPOCH GAIA_PHOT_G_MEAN_MAG
GAIA_PHOT_G_MEAN_FLUX_OVER_ERROR GAIA_PHOT_BP_MEAN_MAG GAIA_PHOT_BP_MEAN_FLUX_OVER_ERROR GAIA_PHOT_RP_MEAN_MAG
GAIA_PHOT_RP_MEAN_FLUX_OVER_ERROR GAIA_ASTROMETRIC_EXCESS_NOISE GAIA_DUPLICATED_SOURCE GAIA_PHOT_BP_RP_EXCESS_FACTOR
GAIA_ASTROMETRIC_SIGMA5D_MAX GAIA_ASTROMETRIC_PARAMS_SOLVED PARALLAX PARALLAX_IVAR PMRA PMRA_IVAR PMDEC PMDEC_IVAR
MASKBITS FITBITS SERSIC SERSIC_IVAR"""


def expected_columns() -> list[str]:
    out = []
    for name in DR10_COLUMNS.split():
        if "{b}" in name:
            out += [name.format(b=b) for b in "GRIZ"]
        elif "{w}" in name:
            out += [name.format(w=w) for w in ("W1", "W2", "W3", "W4")]
        else:
            out.append(name)
    return out


def test_the_sweep_has_every_dr10_column_in_file_order_upper_case_and_big_endian(written):
    tile = tile_of_key("000m005")
    with fits.open(written.release / tile.path) as hdus:
        table = hdus[1]
        assert table.columns.names == expected_columns()
        raw = table.data.dtype
        assert raw["MASKBITS"] == np.dtype(">i4")
        assert raw["RA"] == np.dtype(">f8")
        assert raw["FLUX_G"] == np.dtype(">f4")
        assert raw["NOBS_Z"] == np.dtype(">i2")
        assert raw["REF_ID"] == np.dtype(">i8")
        assert raw["DCHISQ"].shape == (5,)
        assert table.columns["GAIA_DUPLICATED_SOURCE"].format == "L"
        assert table.columns["TYPE"].format == "3A"
        assert table.columns["PSFDEPTH_R"].unit == "1/nanomaggy^2"
        assert table.columns["PSFSIZE_R"].unit == "arcsec"


def test_no_sweep_column_is_named_twice():
    names = [name for name, _, _ in SWEEP_COLUMNS]
    assert len(set(names)) == len(names)


def test_the_surveys_own_reader_reads_every_tile_without_a_rejection(written):
    release = DataRelease(str(written.release), written.truth.parent / "cache")
    assert set(release.tiles()) == {"000m005", "030m030"}
    for tile in release.tiles():
        frame, rejections = release.sweep(tile)
        assert frame.height > 30
        assert rejections.total == 0, rejections.counts


def test_only_primary_objects_are_in_the_sweeps_and_in_their_own_tile(written):
    for key in written.size.tiles:
        rows = fits.getdata(written.release / tile_of_key(key).path)
        for ra, dec, brickid in zip(rows["RA"], rows["DEC"], rows["BRICKID"], strict=True):
            assert brick_at(float(ra), float(dec)).brickid == brickid
            assert tile_at(float(ra), float(dec)).key == key


def test_objects_are_numbered_from_zero_within_a_brick_and_never_repeat(written):
    for key in written.size.tiles:
        rows = fits.getdata(written.release / tile_of_key(key).path)
        for brickid in np.unique(rows["BRICKID"]):
            objid = rows["OBJID"][rows["BRICKID"] == brickid]
            assert np.array_equal(objid, np.arange(len(objid)))


def test_coadds_hold_their_data_in_hdu_1_with_the_bricks_projection(written):
    p = plan(written.size, 20261123)[1]
    n = written.size.brick_pixels
    with fits.open(written.release / p.cell.coadd("image", "r")) as hdus:
        assert hdus[0].data is None
        header = hdus[1].header
        assert hdus[1].data.shape == (n, n)
        assert hdus[1].data.dtype.newbyteorder("=") == np.float32
        assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
        assert header["CRPIX1"] == header["CRPIX2"] == n / 2 + 0.5
        assert (header["CRVAL1"], header["CRVAL2"]) == (pytest.approx(p.cell.ra), pytest.approx(p.cell.dec))
        assert header["CD1_1"] == pytest.approx(-7.2778e-5, rel=1e-4)
        assert header["CD2_2"] == pytest.approx(7.2778e-5, rel=1e-4)
        assert header["MAGZERO"] == 22.5
        assert header["BUNIT"] == "nanomaggy"
        assert not any(re.match(r"DATE|TIME", key) for key in header)
        x, y = WCS(header).wcs_world2pix(p.cell.ra, p.cell.dec, 0)
        assert (float(x), float(y)) == (pytest.approx((n - 1) / 2), pytest.approx((n - 1) / 2))


@pytest.mark.parametrize(
    ("product", "algorithm"),
    [("image", "RICE_1"), ("invvar", "RICE_1"), ("psfsize", "GZIP_1"), ("depth", "GZIP_1"), ("galdepth", "GZIP_1"),
     ("nexp", "HCOMPRESS_1")],
)  # fmt: skip
def test_coadds_are_compressed_as_the_survey_does(written, product, algorithm):
    p = plan(written.size, 20261123)[1]
    with fits.open(written.release / p.cell.coadd(product, "z"), disable_image_compression=True) as hdus:
        header = hdus[1].header
        assert header["ZCMPTYPE"] == algorithm
        assert header["ZTILE1"] == header["ZTILE2"] == 100
        if product == "image":
            assert header["ZQUANTIZ"] == "SUBTRACTIVE_DITHER_2"
            scale = hdus[1].data["ZSCALE"]
            assert np.allclose(scale[scale > 0], 1e-4)


def test_a_missing_band_has_no_file_and_says_so_in_the_sweep(written):
    p = next(p for p in plan(written.size, 20261123) if p.missing)
    band = p.missing
    found = sorted(f.name for f in (written.release / p.cell.coadd("maskbits")).parent.iterdir())
    assert found
    assert not [f for f in found if f.endswith(f"-{band}.fits.fz")]
    rows = fits.getdata(written.release / p.tile.path)
    rows = rows[rows["BRICKID"] == p.cell.brickid]
    assert len(rows)
    for column in ("FLUX", "FLUX_IVAR", "NOBS", "PSFSIZE", "PSFDEPTH", "GALDEPTH"):
        assert np.all(rows[f"{column}_{band.upper()}"] == 0)
    kept = next(b for b in "grz" if b != band)
    assert np.all(rows[f"NOBS_{kept.upper()}"] > 0)


def test_pixels_without_exposures_are_zero_and_never_nan_while_masked_ones_may_hold_anything(written):
    junk = 0
    for p in plan(written.size, 20261123):
        for b in p.bands:
            image = fits.getdata(written.release / p.cell.coadd("image", b))
            invvar = fits.getdata(written.release / p.cell.coadd("invvar", b))
            nexp = fits.getdata(written.release / p.cell.coadd("nexp", b))
            assert np.isfinite(image).all()
            assert np.all(invvar >= 0)
            uncovered = fits.getdata(written.release / p.cell.coadd("depth", b)) == 0
            assert np.all(image[uncovered] == 0)
            assert np.all(invvar[nexp == 0] == 0)
            junk += int(((invvar == 0) & (image != 0)).sum())
            if p.edge:
                assert uncovered.mean() > 0.1
    assert junk > 0


def test_maskbits_agree_between_image_and_sweep_and_flag_what_is_outside_the_primary_area(written):
    for p in plan(written.size, 20261123):
        with fits.open(written.release / p.cell.coadd("maskbits")) as hdus:
            bits = hdus[1].data
            header = hdus[1].header
            assert len(hdus) == 4  # optical, W1, W2
            assert bits.dtype.newbyteorder("=") == np.int32
        rows = fits.getdata(written.release / p.tile.path)
        rows = rows[rows["BRICKID"] == p.cell.brickid]
        x, y = WCS(header).wcs_world2pix(rows["RA"], rows["DEC"], 0)
        image = bits[np.round(y).astype(int), np.round(x).astype(int)]
        assert (image == rows["MASKBITS"]).mean() > 0.9  # measured positions scatter, so a few sit a pixel off
        assert not np.any(rows["MASKBITS"] & 1)


def test_a_full_size_bricks_rim_is_not_primary():
    from lens_assets.science.mock.brick import _primary_mask
    from lens_assets.science.mock.coadds import wcs_header

    cell = brick_at(150.1, 2.2)
    wcs = WCS(wcs_header(cell, 3600))
    bits = _primary_mask(cell, wcs, 3600)
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 3600, (2, 3000))
    ra, dec = wcs.wcs_pix2world(x, y, 0)
    primary = (ra >= cell.ra1) & (ra < cell.ra2) & (dec >= cell.dec1) & (dec < cell.dec2)
    assert 0.02 < (~primary).mean() < 0.25
    assert ((bits[y, x] & 1 == 0) == primary).mean() > 0.999


def test_the_brick_table_has_the_surveys_columns_and_grid(written):
    with gzip.open(written.release / "survey-bricks.fits.gz") as stream:
        table = fits.open(stream)[1].data
        assert table.columns.names == [
            "BRICKNAME", "BRICKID", "BRICKQ", "BRICKROW", "BRICKCOL", "RA", "DEC", "RA1", "RA2", "DEC1", "DEC2",
        ]  # fmt: skip
        assert len(table) == 4
        for row in table:
            cell = brick_at(float(row["RA"]), float(row["DEC"]))
            assert (cell.name, cell.brickid) == (row["BRICKNAME"], row["BRICKID"])
            assert row["BRICKROW"] == round((row["DEC"] + 90) / 0.25)


def test_truth_is_in_its_own_folder_and_the_release_holds_none_of_it(written):
    names = [p.name for p in written.release.rglob("*") if p.is_file()]
    assert all(n.endswith((".fits", ".fits.fz", ".fits.gz", ".json")) for n in names)
    assert sorted(p.name for p in written.truth.glob("*.parquet")) == ["lenses.parquet", "objects.parquet"]
    text = (written.release / "release.json").read_text()
    assert 'theta_e": [' in text or "theta_e" in text  # settings are stated; positions of lenses are not
    assert "L0000" not in text


def test_truth_tables_conform_to_the_registry_and_point_into_the_sweeps(written):
    lenses = pl.read_parquet(written.truth / "lenses.parquet")
    objects = pl.read_parquet(written.truth / "objects.parquet")
    assert lenses.height == 16
    assert MOCK_LENSES.violations(lenses) == []
    assert MOCK_OBJECTS.violations(objects) == []
    ids = set()
    for key in written.size.tiles:
        rows = fits.getdata(written.release / tile_of_key(key).path)
        ids |= {f"{r}-{b}-{o}" for r, b, o in zip(rows["RELEASE"], rows["BRICKID"], rows["OBJID"], strict=True)}
    known = objects["true_galaxy_id"].drop_nulls().to_list()
    assert sorted(known) == sorted(ids)


def test_catalogued_positions_are_the_true_ones_within_their_errors(written):
    objects = read_truth(written.truth, "objects").drop_nulls("galaxy_id")
    rows = []
    for key in written.size.tiles:
        data = fits.getdata(written.release / tile_of_key(key).path)
        rows += [(f"{r['RELEASE']}-{r['BRICKID']}-{r['OBJID']}", float(r["RA"]), float(r["DEC"])) for r in data]
    both = objects.join(pl.DataFrame(rows, schema=["galaxy_id", "mra", "mdec"], orient="row"), on="galaxy_id")
    assert both.height == objects.height
    assert separation(both["ra"], both["dec"], both["mra"], both["mdec"]).max() < 0.8


def test_bricks_of_a_tile_keep_apart_so_that_they_share_no_split_cell():
    cells = bricks_of_tile(tile_of_key("150p000"), 8, 1)
    for i, a in enumerate(cells):
        for b in cells[:i]:
            assert separation(a.ra, a.dec, b.ra, b.dec) >= 0.6 * 3600


def test_bricks_inside_a_tile_lie_wholly_inside():
    tile = tile_of_key("000m005")
    cells = bricks_inside(tile)
    assert len(cells) > 300
    assert all(c.ra1 >= 0 and c.ra2 <= 5 and c.dec1 >= -5 and c.dec2 <= 0 for c in cells)


def test_more_tiles_leave_the_earlier_ones_as_they_were():
    few = MockSize(name="s", n_tiles=3, bricks_per_tile=2, galaxies=1, lenses=1, faint=1, stars=1)
    many = few.model_copy(update={"n_tiles": 9})
    assert tiles_of(many, 5)[:3] == tiles_of(few, 5)
    assert plan(many, 5)[:6] == plan(few, 5)
    assert len({t.key for t in tiles_of(many, 5)}) == 9


@pytest.mark.parametrize("name", ["tiny", "demo", "survey"])
def test_the_shipped_sizes_load_and_can_be_planned(name):
    size = load_size(name)
    assert size.name == name
    assert len(plan(size, 1)) == size.bricks_per_tile * len(tiles_of(size, 1))


def test_the_demo_fills_many_cells_of_the_grid_and_leaves_a_deep_minority_outside():
    from lens_assets.science.mock.conditions import conditions

    size = load_size("demo")
    inside, psf, depth = [], [], []
    for p in plan(size, 20261123):
        seen = conditions(size, p, 20261123)
        if "r" not in seen:
            continue
        c = seen["r"]
        weight = np.outer(np.diff(c.ys), np.diff(c.xs)).ravel()
        good = c.invvar.ravel() > 0
        d = 22.5 - 2.5 * np.log10(5 / np.sqrt(c.psfdepth.ravel()[good]))
        f = c.psfsize.ravel()[good]
        inside.append(np.average((d >= 22.25) & (d < 24.75) & (f >= 0.825) & (f < 1.875), weights=weight[good]))
        psf.append(np.average(f, weights=weight[good]))
        depth.append(np.average(d, weights=weight[good]))
    assert 0.6 < np.mean(inside) < 0.95
    assert np.ptp(psf) > 0.35
    assert np.sum((np.abs(np.array(depth) - 23.5) < 0.25) & (np.abs(np.array(psf) - 1.35) < 0.2)) >= 4
