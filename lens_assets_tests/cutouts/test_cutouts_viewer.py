"""What the viewer answers is taken only when it is what was asked for: the guards, one answer at a time."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

from lens_assets.science.cutouts import viewer
from lens_assets.science.cutouts.settings import Settings, ViewerSettings
from lens_assets.science.cutouts.viewer import Position, Refusal, parse_cutout, refuse_by_position, url_of
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.surveys.release import DataRelease

NATIVE = Settings(source="viewer")
RESAMPLED = Settings(source="viewer", viewer=ViewerSettings(mode="cutout"))
FITS = {"Content-Type": "image/fits"}


@pytest.fixture(scope="module")
def place(practice) -> tuple[str, Position]:
    """The root of the practice release and an object well inside a whole brick."""
    root, rows = practice
    row = rows.filter(pl.col("brickname") != rows["brickname"].sort()[-1]).sort("galaxy_id").row(0, named=True)
    return str(root), Position(row["galaxy_id"], row["ra"], row["dec"], row["brickname"])


@pytest.fixture(scope="module")
def native(place, viewer_server) -> bytes:
    root, p = place
    return viewer_server.subimage(root, p.ra, p.dec, 105, "grz")


@pytest.fixture(scope="module")
def cube(place, viewer_server) -> bytes:
    root, p = place
    return viewer_server.resampled(root, p.ra, p.dec, 101, "grz")


def refused(body: bytes, position: Position, settings: Settings, headers: dict = FITS) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_cutout(body, headers, position, settings)
    return caught.value


def edited(body: bytes, change) -> bytes:
    with fits.open(io.BytesIO(body)) as hdus:
        change(hdus)
        stream = io.BytesIO()
        hdus.writeto(stream)
    return stream.getvalue()


def test_native_slices_give_the_pixels_of_the_brick(place, native):
    root, p = place
    got = parse_cutout(native, FITS, p, NATIVE)
    brick = DataRelease(root).brick(p.brickname)
    x, y = (float(v) for v in brick.pixel_of(p.ra, p.dec))
    column, line = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    for k, band in enumerate("grz"):
        part = (slice(line - 50, line + 51), slice(column - 50, column + 51))
        np.testing.assert_array_equal(got.image[k], brick.image(band)[part])
        np.testing.assert_array_equal(got.invvar[k], brick.invvar(band)[part])
    assert (got.x, got.y) == pytest.approx((x, y), abs=1e-6)
    assert (got.dx, got.dy) == pytest.approx((x - column, y - line), abs=1e-6)


def test_a_resampled_stamp_has_a_flat_inverse_variance_from_its_own_background(place, cube):
    _, p = place
    got = parse_cutout(cube, FITS, p, RESAMPLED)
    for k in range(3):
        values = np.unique(got.invvar[k][got.invvar[k] > 0])
        assert len(values) == 1
        scatter = 1.4826 * np.median(np.abs(got.image[k] - np.median(got.image[k])))
        assert values[0] ** -0.5 == pytest.approx(scatter / 0.829, rel=0.05)


def test_uncovered_pixels_of_a_resampled_stamp_are_invalid(place, cube):
    _, p = place

    def change(hdus):
        hdus[0].data[1, 10:12, 20:25] = 0.0
        hdus[1].data[2, 40, 41] = 0.0

    got = parse_cutout(edited(cube, change), FITS, p, RESAMPLED)
    assert (got.invvar[1, 10:12, 20:25] == 0).all()
    assert got.invvar[2, 40, 41] == 0
    assert (got.invvar[0] > 0).all()


@pytest.mark.parametrize("settings", [NATIVE, RESAMPLED])
def test_text_with_status_200_is_no_stamp_and_may_be_asked_again(place, settings):
    found = refused(b"<html><body>busy</body></html>", place[1], settings, {"content-type": "text/html"})
    assert (found.reason, found.again) == (viewer.TEXT, True)
    assert "text/html" in found.detail
    assert "busy" in found.detail


def test_an_unknown_layer_ends_the_run_and_is_named(place):
    settings = Settings(source="viewer", viewer=ViewerSettings(layer="ls-dr99"))
    with pytest.raises(BadInput, match=r"no layer 'ls-dr99'"):
        parse_cutout(b"no such layer", {"Content-Type": "text/html"}, place[1], settings)


def test_a_fallback_to_the_default_bands_is_seen_by_the_planes(place, viewer_server):
    root, p = place
    found = refused(viewer_server.resampled(root, p.ra, p.dec, 101, "griz"), p, RESAMPLED)
    assert (found.reason, found.again) == (viewer.BANDS, False)
    assert "griz in 4 planes" in found.detail


def test_three_planes_of_other_bands_are_seen_by_the_header(place, viewer_server):
    root, p = place
    found = refused(viewer_server.resampled(root, p.ra, p.dec, 101, "grz", told="gri"), p, RESAMPLED)
    assert found.reason == viewer.BANDS


def test_planes_are_those_of_the_header_in_the_order_asked(place, viewer_server):
    root, p = place
    turned = RESAMPLED.model_copy(
        update={"bands": ("z", "g"), "normalisation": RESAMPLED.normalisation.model_copy(update={"bands": ("z", "g")})}
    )
    body = viewer_server.resampled(root, p.ra, p.dec, 101, "zg")
    straight = parse_cutout(viewer_server.resampled(root, p.ra, p.dec, 101, "grz"), FITS, p, RESAMPLED).image
    np.testing.assert_array_equal(parse_cutout(body, FITS, p, turned).image, straight[[2, 0]])


@pytest.mark.parametrize(("settings", "side"), [(NATIVE, 90), (RESAMPLED, 99)])
def test_a_clamped_size_is_refused(place, viewer_server, settings, side):
    root, p = place
    make = viewer_server.subimage if settings is NATIVE else viewer_server.resampled
    found = refused(make(root, p.ra, p.dec, side, "grz"), p, settings)
    assert (found.reason, found.again) == (viewer.SIZE, False)
    assert str(side) in found.detail


@pytest.mark.parametrize("settings", [NATIVE, RESAMPLED])
def test_an_answer_for_another_position_is_refused(place, native, cube, settings):
    _, p = place
    other = Position(p.galaxy_id, p.ra + 0.004, p.dec, p.brickname)
    found = refused(native if settings is NATIVE else cube, other, settings)
    assert found.reason in (viewer.PLACE, viewer.OFF_EDGE)


def test_an_empty_plane_is_refused_and_its_band_named(place, cube, native):
    _, p = place

    def blank(hdus):
        hdus[0].data[2] = 0

    assert refused(edited(cube, blank), p, RESAMPLED).reason == "band z is empty"

    def blank_slice(hdus):
        hdus[1].data[:] = 0

    assert refused(edited(native, blank_slice), p, NATIVE).reason == "band g is empty"


def test_a_band_without_slices_is_missing_as_it_is_for_a_brick(place, viewer_server):
    root, p = place
    assert refused(viewer_server.subimage(root, p.ra, p.dec, 105, "gr"), p, NATIVE).reason == "band z missing"


def test_slices_of_a_neighbouring_brick_are_not_taken(place, viewer_server):
    root, p = place
    found = refused(viewer_server.subimage(root, p.ra, p.dec, 105, "grz", brick="0001m040"), p, NATIVE)
    assert found.reason == viewer.NO_BRICK
    assert "0001m040" in found.detail


def test_a_slice_that_hides_its_place_or_differs_in_grid_is_refused(place, native):
    _, p = place

    def drop(hdus):
        del hdus[1].header["BRICK_X0"]

    def shift(hdus):
        hdus[3].header["BRICK_X0"] += 1

    def coarse(hdus):
        for hdu in hdus[1:]:
            for key in ("PC1_1", "PC2_2", "CDELT1", "CDELT2", "CD1_1", "CD2_2"):
                if key in hdu.header and "DELT" in key:
                    hdu.header[key] *= 2

    for change, reason in ((drop, viewer.PLACE), (shift, viewer.PLACE), (coarse, viewer.SIZE)):
        assert refused(edited(native, change), p, NATIVE).reason == reason


def test_an_answer_cut_anywhere_is_refused_and_asked_again(place, native, cube):
    image = 2880 * (3 * 101 * 101 * 4 // 2880 + 2)  # the first cube with its header; the second one may be absent
    for body, end, settings in ((native, len(native), NATIVE), (cube, image, RESAMPLED)):
        draw = generator("cut", len(body))
        lengths = {0, 1, 9, 80, 2879, 2880, 2881, *draw.integers(0, end - 2881, 40).tolist()}
        lengths |= {k * 2880 for k in range(1, end // 2880 - 1, 7)}
        for length in sorted(lengths):
            found = refused(body[:length], place[1], settings)
            if length % 2880:
                assert found.reason in (viewer.BROKEN, viewer.TEXT), length
                assert found.again
            else:  # at the end of a block the rest may be missing without a trace
                assert found.again or found.reason.startswith(("band", viewer.NO_BRICK, viewer.OUTSIDE)), length


def test_north_of_the_split_the_joint_layer_is_refused_and_the_southern_one_is_not():
    joint = Settings(source="viewer", viewer=ViewerSettings(layer="ls-dr10"))
    cap, plane = Position("10000-1-1", 200.0, 32.4, "x"), Position("10000-1-1", 10.0, 33.0, "x")  # b = +83, -30
    with pytest.raises(Refusal, match="DR9 BASS/MzLS"):
        refuse_by_position(cap, joint)
    refuse_by_position(plane, joint)
    refuse_by_position(cap, NATIVE)
    refuse_by_position(Position("10000-1-1", 200.0, 32.375, "x"), joint)
    for layer in ("ls-dr10-grz", "ls-dr9", "ls-dr10-model"):
        with pytest.raises(Refusal):
            refuse_by_position(cap, Settings(source="viewer", viewer=ViewerSettings(layer=layer)))


def test_the_request_says_what_is_wanted_and_how():
    p = Position("10000-1-1", 0.10618843138217926, -3.9557716846466064, "0001m040")
    native, cut = url_of(p, NATIVE), url_of(p, RESAMPLED)
    assert native.startswith(
        "https://www.legacysurvey.org/viewer/fits-cutout?ra=0.10618843138217926&dec=-3.955771684646"
    )
    assert "size=105" in native
    assert native.endswith("&bands=grz&subimage")
    assert "size=101" in cut
    assert cut.endswith("&invvar")
    assert "layer=ls-dr10-south" in native


@pytest.mark.parametrize("bad", ["../etc/passwd", "10000-1-1/..", "a-b-c", "", "10000-1", "10000-1-1\n"])
def test_an_id_that_is_none_never_becomes_a_file(bad):
    with pytest.raises(BadInput, match="not an id"):
        Position(bad, 0.0, 0.0, "x")


def test_pace_and_patience_do_not_change_what_a_shard_is_made_from_but_the_layer_does():
    base = NATIVE.digest
    assert Settings(source="viewer", viewer=ViewerSettings(rate=9, attempts=2, read_timeout=5)).digest == base
    assert Settings(source="viewer", viewer=ViewerSettings(layer="ls-dr10")).digest != base
    assert RESAMPLED.digest != base
    assert Settings().digest == Settings(viewer=ViewerSettings(layer="ls-dr10")).digest != base


def test_real_viewer_stamps_pass_the_guards_and_their_noise_is_twice_resampled(real_stamps):
    from lens_assets.science.cutouts.features import noise_lags

    lags = []
    for stamp in real_stamps:
        image = np.ascontiguousarray(stamp["cutout"].transpose(2, 0, 1))
        ra, dec = float(stamp["meta_ra"]), float(stamp["meta_dec"])
        header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": 51.0,
                              "CRPIX2": 51.0, "CD1_1": -0.262 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.262 / 3600,
                              "BANDS": "grz"})  # fmt: skip
        stream = io.BytesIO()
        fits.PrimaryHDU(image, header).writeto(stream)
        got = parse_cutout(stream.getvalue(), FITS, Position("10000-1-1", ra, dec, "x"), RESAMPLED)
        np.testing.assert_array_equal(got.image, image)
        lags.append(noise_lags(got.image[None], got.invvar[None]))
    found = pl.concat(lags).median().row(0, named=True)
    for band in "grz":
        assert found[f"noise_lag1_{band}"] == pytest.approx(0.22, abs=0.06)
