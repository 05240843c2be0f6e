"""Stamps of one brick: which pixels, which are rejected and why."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lens_assets.science.columns.cutouts import CUTOUTS
from lens_assets.science.cutouts import quality as qc
from lens_assets.science.cutouts.cut import OFF_EDGE, cut_brick
from lens_assets.science.cutouts.fingerprint import stamp_digests
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator

SETTINGS = Settings()


def reasons(rejected: pl.DataFrame) -> dict[str, str]:
    return dict(rejected.select(pl.col("galaxy_id").str.split("-").list.last(), "reason").iter_rows())


def test_a_stamp_is_the_slice_round_the_nearest_pixel_with_the_offset_kept(brick):
    b = brick()
    images, invvar, index, rejected = cut_brick(b, b.rows([(100.3, 120.6), (130.0, 90.5)]), SETTINGS)
    assert rejected.height == 0
    assert images.shape == invvar.shape == (2, 3, 101, 101)
    for k, band in enumerate("grz"):
        np.testing.assert_array_equal(images[0, k], b.image(band)[121 - 50 : 121 + 51, 100 - 50 : 100 + 51])
        np.testing.assert_array_equal(images[1, k], b.image(band)[91 - 50 : 91 + 51, 130 - 50 : 130 + 51])
    np.testing.assert_allclose(index["dx"], [0.3, 0.0], atol=1e-6)
    np.testing.assert_allclose(index["dy"], [-0.4, -0.5], atol=1e-6)
    assert index["source"].to_list() == ["brick", "brick"]
    assert index["release"].to_list() == [10000, 10000]
    assert index["image_digest_z"].to_list() == ["imagez", "imagez"]
    assert CUTOUTS.violations(index.with_columns(dec=pl.lit(2.0))) == []  # the fake grid has pixels for degrees


def test_conditions_are_read_at_the_position(brick):
    b = brick()
    b.planes["psfsize", "r"][120, 100] = 1.77
    b.planes["nexp", "z"][120, 100] = 9
    b.mask[70:80, 60:70] = 2
    b.mask[:, :55] = 1  # outside the primary area: no defect
    index = cut_brick(b, b.rows([(100, 120)]), SETTINGS)[2]
    assert index["psfsize_r"][0] == pytest.approx(1.77)
    assert index["nexp_z"][0] == 9
    assert index["nexp_g"][0] == 3
    assert index["maskbits_fraction"][0] == pytest.approx(100 / 101**2)


def test_big_endian_coadds_give_native_stamps_of_the_same_values(brick):
    plain, foreign = brick(), brick()
    for key, plane in foreign.planes.items():
        foreign.planes[key] = plane.astype(plane.dtype.newbyteorder(">"))
    rows = plain.rows([(100, 120), (90.2, 88.8)])
    a, b = cut_brick(plain, rows, SETTINGS), cut_brick(foreign, rows, SETTINGS)
    assert b[0].dtype == np.dtype("<f4")
    np.testing.assert_array_equal(a[0], b[0])
    assert a[2].equals(b[2])


@pytest.mark.parametrize(
    ("x", "fits"), [(49.4, False), (49.5, True), (50, True), (209, True), (209.49, True), (209.5, False)]
)
def test_the_last_pixel_that_fits_is_kept_and_the_next_rejected(brick, x, fits):
    b = brick()
    for place in ((x, 100.0), (100.0, x)):
        images, _, index, rejected = cut_brick(b, b.rows([place]), SETTINGS)
        assert (len(images), index.height) == ((1, 1) if fits else (0, 0))
        assert rejected["reason"].to_list() == ([] if fits else [OFF_EDGE])


def test_a_missing_band_rejects_every_object_of_the_brick_and_names_it(brick):
    b = brick(missing=("g", "z"))
    images, invvar, index, rejected = cut_brick(b, b.rows([(100, 100), (120, 120)]), SETTINGS)
    assert images.shape == invvar.shape == (0, 3, 101, 101)
    assert index.columns == CUTOUTS.names
    assert rejected["reason"].to_list() == ["band g missing"] * 2
    assert rejected["detail"][0] == "band g missing; band z missing"


def test_one_invalid_pixel_in_the_core_rejects_and_one_just_outside_does_not(brick):
    b = brick()
    b.planes["invvar", "z"][100 + 7, 100] = 0
    b.planes["invvar", "g"][100 + 8, 160] = 0
    _, _, index, rejected = cut_brick(b, b.rows([(100, 100), (160, 100)]), SETTINGS)
    assert reasons(rejected) == {"0": qc.CORE}
    assert rejected["detail"][0] == "invalid pixel in the core (z)"
    assert index["invalid_fraction_g"].to_list() == pytest.approx([1 / 101**2])


def test_two_per_cent_of_the_central_box_is_allowed_and_one_pixel_more_is_not(brick):
    """2 % of 50 x 50 is 50 pixels: one line of the box, which reaches from 25 below the centre to 24 above."""
    b = brick()
    b.planes["invvar", "r"][100 - 25, 100 - 25 : 100 + 25] = 0
    assert cut_brick(b, b.rows([(100, 100)]), SETTINGS)[2].height == 1
    b.planes["invvar", "r"][100 + 24, 100] = np.nan
    assert cut_brick(b, b.rows([(100, 100)]), SETTINGS)[3]["reason"].to_list() == [qc.CENTRE]
    b.planes["invvar", "r"][100 + 24, 100] = 1e6
    b.planes["invvar", "r"][100 + 25, 100] = 0  # beyond the box
    assert cut_brick(b, b.rows([(100, 100)]), SETTINGS)[2].height == 1


def test_validity_is_the_inverse_variance_not_the_value(brick):
    """Zeros with weight are data; junk without weight is kept as it is, and counted."""
    b = brick()
    b.planes["image", "g"][95:106, 95:106] = 0.0
    b.planes["image", "r"][60, 60:90] = 1e30
    b.planes["invvar", "r"][60, 60:90] = 0
    images, _, index, rejected = cut_brick(b, b.rows([(100, 100)]), SETTINGS)
    assert rejected.height == 0
    assert (images[0, 1, 10, 10:40] == np.float32(1e30)).all()
    assert index["invalid_fraction_r"][0] == pytest.approx(30 / 101**2)
    assert index["invalid_fraction_g"][0] == 0


def test_non_finite_pixels_are_invalid_and_counted(brick):
    b = brick()
    b.planes["image", "z"][60, 60:63] = (np.nan, np.inf, -np.inf)
    index = cut_brick(b, b.rows([(100, 100)]), SETTINGS)[2]
    assert index["nan_count_z"][0] == 3
    assert index["invalid_fraction_z"][0] == pytest.approx(3 / 101**2)
    b.planes["image", "z"][101, 101] = np.nan
    assert cut_brick(b, b.rows([(100, 100)]), SETTINGS)[3]["reason"].to_list() == [qc.CORE]


def test_a_stamp_that_could_not_be_normalised_is_rejected_here(brick):
    b = brick()
    b.planes["image", "g"][:] = 0.0
    b.planes["image", "g"][75:126, 75:126] = generator("speck").normal(size=(51, 51))
    rejected = cut_brick(b, b.rows([(100, 100)]), SETTINGS)[3]
    assert rejected["reason"].to_list() == [qc.BACKGROUND]


def test_all_broken_rules_are_in_the_detail(brick):
    b = brick()
    b.planes["invvar", "g"][80:130, 80:130] = 0
    b.planes["invvar", "r"][101, 101] = -1
    rejected = cut_brick(b, b.rows([(100, 100)]), SETTINGS)[3]
    assert rejected["detail"][0] == f"{qc.CORE} (g, r); {qc.CENTRE} (g)"


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 290), st.floats(-30, 290)), max_size=25), st.integers(0, 5))
def test_what_goes_in_comes_out_as_a_stamp_or_with_a_reason(brick, places, holes):
    b = brick()
    draw = generator("holes", holes)
    for _ in range(holes):
        x, y = draw.integers(20, 240, 2)
        b.planes["invvar", "r"][y : y + 6, x : x + 6] = 0
    rows = b.rows(places)
    images, _, index, rejected = cut_brick(b, rows, SETTINGS)
    assert len(images) == index.height
    assert sorted([*index["galaxy_id"], *rejected["galaxy_id"]]) == sorted(rows["galaxy_id"])
    assert rejected["reason"].null_count() == 0
    assert index["stamp_digest"].to_list() == stamp_digests(images)


def test_the_order_of_the_rows_does_not_matter(brick):
    b = brick()
    rows = b.rows([(60 + 10 * i, 70 + 9 * i) for i in range(12)])
    a, c = cut_brick(b, rows, SETTINGS), cut_brick(b, rows.reverse(), SETTINGS)
    np.testing.assert_array_equal(a[0], c[0])
    assert a[2].equals(c[2])


def test_an_object_of_another_brick_is_an_error_not_a_stamp(brick):
    b = brick()
    rows = b.rows([(100, 100)]).with_columns(brickname=pl.lit("0001m002"))
    with pytest.raises(BadInput, match="its primary brick"):
        cut_brick(b, rows, SETTINGS)


def test_a_digest_is_of_values_not_of_byte_order_or_layout():
    stamps = generator("digest").normal(size=(3, 3, 11, 11)).astype(np.float32)
    assert stamp_digests(stamps) == stamp_digests(stamps.astype(">f4")) == stamp_digests(np.asfortranarray(stamps))
    changed = stamps.copy()
    changed[1, 2, 5, 5] = np.nextafter(changed[1, 2, 5, 5], np.float32(9))
    assert [a == b for a, b in zip(stamp_digests(stamps), stamp_digests(changed), strict=True)] == [True, False, True]
