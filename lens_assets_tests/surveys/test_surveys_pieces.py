"""Squares of a coadd: the same bytes section by section as from the whole map, and the cheaper way is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.mock.coadds import compressed, write_coadd
from lens_assets.science.surveys import pieces
from lens_assets.science.surveys.layout import BANDS, brick_at
from lens_assets.science.surveys.release import DataRelease

CELL = brick_at(12.0, -3.0)
SIDE = 330
PRODUCTS = [*((p, "r") for p in ("image", "invvar", "psfsize", "nexp")), ("maskbits", "")]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> DataRelease:
    """A brick of values that differ from pixel to pixel in every map, in the survey's own compression."""
    root = tmp_path_factory.mktemp("release")
    noise = generator("pieces")
    shape = (SIDE, SIDE)
    for band in BANDS:
        sky = noise.normal(0, 3e-3, shape).astype(np.float32)
        sky[40:60, 80:140] = 0  # exact zeros, which the dither must leave alone
        weight = noise.uniform(1e4, 1e5, shape).astype(np.float32)
        weight[40:60, 80:140] = 0
        for product, plane in {
            "image": sky,
            "invvar": weight,
            "psfsize": noise.uniform(1, 2, shape).astype(np.float32),
            "nexp": noise.integers(0, 9, shape).astype(np.int16),
        }.items():
            write_coadd(root, CELL, product, band, [plane], {})
    write_coadd(root, CELL, "maskbits", None, [noise.integers(0, 1 << 20, shape).astype(np.int32)], {})
    return DataRelease(str(root))


@hypothesis_settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(PRODUCTS),
    st.sampled_from([1, 37, 101]),
    st.lists(st.tuples(st.integers(0, SIDE - 101), st.integers(0, SIDE - 101)), max_size=5),
)
def test_sections_and_the_whole_map_give_the_same_bytes(release, of, side, places):
    brick = release.brick(CELL.name)
    places = [*places, (0, 0), (SIDE - side, SIDE - side)]
    top, left = (np.array([p[k] for p in places]) for k in (0, 1))
    one, other = (brick.windows(*of, top, left, side, sections=how) for how in (True, False))
    assert one.dtype == other.dtype == (np.int32 if of[0] == "maskbits" else np.float32)
    assert one.tobytes() == other.tobytes()
    plane = brick.maskbits() if of[0] == "maskbits" else getattr(brick, of[0])(of[1])
    for square, (y, x) in zip(one, places, strict=True):
        np.testing.assert_array_equal(square, plane[y : y + side, x : x + side])


@pytest.mark.parametrize("tile", [(100, 100), (1, SIDE), None])
def test_any_tiling_gives_the_same_bytes(tmp_path, tile):
    """Row tiles, as astropy makes them when nothing is said, and an image that is not compressed."""
    data = generator("tiling").normal(0, 3e-3, (SIDE, SIDE)).astype(np.float32)
    how = {"compression_type": "RICE_1", "quantize_level": 16.0, "quantize_method": 2, "dither_seed": 5}
    made = fits.ImageHDU(data) if tile is None else fits.CompImageHDU(data, tile_shape=tile, **how)
    fits.HDUList([fits.PrimaryHDU(), made]).writeto(tmp_path / "map.fits")
    top, left = np.array([0, 99, 100, 229]), np.array([229, 1, 100, 0])
    with fits.open(tmp_path / "map.fits") as hdus:
        one, other = (pieces.squares(hdus[1], top, left, 101, sections=how) for how in (True, False))
    assert one.tobytes() == other.tobytes()


def test_few_stamps_are_read_by_section_and_many_from_the_whole(release, monkeypatch):
    asked: list[bool] = []
    plain = pieces.sections_pay
    monkeypatch.setattr(pieces, "sections_pay", lambda *a: asked.append(plain(*a)) or asked[-1])
    brick = release.brick(CELL.name)
    places = np.arange(40)
    for n in (1, 40):
        brick.windows("image", "r", places[:n], places[:n], 101)
    assert asked == [True, False]  # 16 tiles in all: one stamp costs 10 of them


@pytest.mark.parametrize(
    ("side", "tile", "lowest", "highest"),
    [(101, (100, 100), 110, 180), (101, (1, 3600), 22, 34), (1, (100, 100), 150, 260)],
)
def test_the_crossover_of_a_dr10_brick_is_where_it_was_measured(side, tile, lowest, highest):
    """Measured: 160 stamps with the survey's tiles, 27 with rows, 190 single pixels (``pieces``)."""
    places = generator("crossover", side).integers(0, 3600 - side, (2, 400))
    pays = [pieces.sections_pay(*places[:, :n], side, (3600, 3600), tile) for n in range(1, 401)]
    assert lowest < pays.index(False) + 1 < highest
    assert pays == sorted(pays, reverse=True)


def test_tiles_are_counted_by_the_square():
    places = np.array([[0, 99, 100, 199], [0, 0, 100, 150]])
    assert pieces.tiles_touched(*places, 101, (100, 100)) == sum(
        len({(y // 100, x // 100) for y in range(t, t + 101) for x in range(u, u + 101)}) for t, u in places.T.tolist()
    )


@pytest.mark.parametrize("place", [(-1, 5), (5, -1), (SIDE - 100, 5), (5, SIDE - 100)])
def test_a_square_beyond_the_image_is_an_error(release, place):
    with pytest.raises(IndexError, match="beyond"):
        release.brick(CELL.name).windows("image", "r", np.array(place[:1]), np.array(place[1:]), 101)


@pytest.mark.parametrize("sections", [True, False])
def test_a_map_on_another_grid_is_refused_either_way(release, tmp_path, sections):
    root = tmp_path / "release"
    for product, band in [*((p, b) for p in ("image", "invvar", "nexp") for b in BANDS), ("maskbits", None)]:
        path = root / CELL.coadd(product, band)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((Path(release.root) / CELL.coadd(product, band)).read_bytes())
    write_coadd(root, CELL, "psfsize", "r", [np.full((SIDE - 1, SIDE), 1.3, np.float32)], {})
    brick = DataRelease(str(root)).brick(CELL.name)
    with pytest.raises(BadInput, match="shape"):
        brick.windows("psfsize", "r", np.array([5]), np.array([5]), 1, sections=sections)


def test_the_coadds_of_the_practice_release_have_the_surveys_tiles():
    assert compressed(np.zeros((200, 200), np.float32), "image", fits.Header(), 1).tile_shape == (100, 100)
