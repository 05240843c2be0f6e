"""The closed-form brick grid, against published BRICKIDs and names."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.errors import BadInput
from lens_assets.science.mock.coadds import wcs_header
from lens_assets.science.surveys import layout
from lens_assets.science.surveys.bricktable import brick_table

POSITION = st.tuples(st.floats(0, 360, exclude_max=True), st.floats(-90, 90))


def test_the_sky_has_662174_bricks():
    assert layout.N_BRICKS == 662_174


@pytest.mark.parametrize(
    ("name", "brickid"),
    [("0959p805", 657438), ("3145m032", 312906), ("3381m017", 321640), ("3263m005", 328793)],
)
def test_published_brickids_are_reproduced(name, brickid):
    assert layout.brick_of_id(brickid).name == name
    assert layout.brick_of_name(name).brickid == brickid


def test_the_example_brick_stands_in_row_682_column_64():
    cell = layout.brick_of_name("0959p805")
    assert (cell.dec + 90) / 0.25 == pytest.approx(682)
    assert cell.ra1 * 242 / 360 == pytest.approx(64)


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (0.1875, -4.0, "0001m040"), (0.15, -5.95, "0001m060"), (0.16, -37.3, "0001m372"), (0.375, -0.56, "0003m005"),
        (0.7, 27.09, "0006p270"), (359.87, -3.05, "3598m030"),
    ],
)  # fmt: skip
def test_the_bricks_of_six_real_stamps_have_their_names(ra, dec, name):
    assert layout.brick_at(ra, dec).name == name


@settings(deadline=None)
@given(POSITION)
def test_the_brick_of_a_position_contains_it(position):
    ra, dec = position
    cell = layout.brick_at(ra, dec)
    assert cell.dec1 <= dec
    assert dec < cell.dec2 or cell.dec2 == 90
    assert cell.ra1 - 1e-9 <= ra <= cell.ra2 + 1e-9


@settings(deadline=None)
@given(st.integers(1, layout.N_BRICKS))
def test_a_brick_is_found_by_id_position_and_name(brickid):
    cell = layout.brick_of_id(brickid)
    assert cell.brickid == brickid
    assert layout.brick_at(cell.ra, cell.dec) == cell
    assert layout.brick_of_name(cell.name) == cell


@settings(deadline=None)
@given(st.integers(1, layout.N_BRICKS - 1))
def test_bricks_of_a_row_share_an_edge_and_leave_no_gap(brickid):
    a, b = layout.brick_of_id(brickid), layout.brick_of_id(brickid + 1)
    assert (a.ra2 == b.ra1) if a.dec == b.dec else (a.ra2 == pytest.approx(360) and b.ra1 == 0 and a.dec2 == b.dec1)


def test_the_areas_of_all_bricks_add_up_to_the_sky():
    table = brick_table()
    ra = np.radians(table["ra2"].to_numpy() - table["ra1"].to_numpy())
    area = ra * (np.sin(np.radians(table["dec2"].to_numpy())) - np.sin(np.radians(table["dec1"].to_numpy())))
    assert area.sum() == pytest.approx(4 * np.pi, rel=1e-12)
    assert table["brickname"].n_unique() == layout.N_BRICKS


@pytest.mark.parametrize("name", ["0960p805", "959p805", "9999p000", "0959q805", "../etc/passwd", ""])
def test_a_name_that_no_brick_has_is_refused(name):
    with pytest.raises(BadInput, match="no brick is called"):
        layout.brick_of_name(name)


@settings(deadline=None)
@given(POSITION)
def test_a_tile_key_round_trips_through_its_file_name(position):
    tile = layout.tile_at(*position)
    assert layout.tile_of_file(tile.file) == tile == layout.tile_of_key(tile.key)


def test_a_dr9_sweep_name_is_refused():
    with pytest.raises(BadInput, match="5 x 5 degrees"):
        layout.tile_of_file("sweep-000m005-010p000.fits")


def test_a_stamp_at_the_very_edge_of_its_primary_brick_fits_into_the_bricks_image():
    """Margins by the TAN projection on 3600 x 3600 px (facts of DR10: at least 72 px below 80 degrees, 63 at -85)."""
    least = {}
    for dec in (-85.0, -79.9, -60.1, -30.0, -0.2, 0.1, 20.0, 34.4):
        for ra in (0.05, 77.7, 200.0, 359.95):
            cell = layout.brick_at(ra, dec)
            side = np.linspace(0, 1, 9)
            edge = [cell.ra1 + (cell.ra2 - cell.ra1) * side, cell.dec1 + (cell.dec2 - cell.dec1) * side]
            x, y = (v.ravel() for v in np.meshgrid(*edge))
            px, py = WCS(wcs_header(cell, layout.BRICK_PIXELS)).all_world2pix(x, y, 0)
            inside = np.concatenate([px, py, layout.BRICK_PIXELS - 1 - px, layout.BRICK_PIXELS - 1 - py])
            least[dec] = min(least.get(dec, np.inf), inside.min())
    assert min(least.values()) > 101 // 2 + 1
    assert min(margin for dec, margin in least.items() if abs(dec) < 80) == pytest.approx(72, abs=2)
