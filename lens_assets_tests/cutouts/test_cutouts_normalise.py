"""The normalisation against numpy's median, by hand, and under changes it must not feel."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.cutouts.normalise import (
    NormalisationSpec,
    annulus_pixels,
    background,
    normalise,
    refuse_mismatch,
)
from lens_assets.science.cutouts.settings import HISTORICAL, Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator

SPEC = NormalisationSpec()
SMALL = NormalisationSpec(min_pixels=3)


def noise(n: int = 5, side: int = 101, seed: object = 0) -> np.ndarray:
    return generator("normalise", seed).normal(1e-4, 2e-3, (n, 3, side, side)).astype(np.float32)


def by_the_book(images: np.ndarray, inner: float, outer: float, clip: float) -> np.ndarray:
    """The definition, one stamp at a time, in double precision."""
    out = np.zeros(images.shape)
    side = images.shape[-1]
    y, x = np.mgrid[:side, :side] - side // 2
    ring = (np.hypot(x, y) >= inner) & (np.hypot(x, y) < outer)
    for index in np.ndindex(*images.shape[:2]):
        sky = images[index][ring].astype(float)
        middle = np.median(sky)
        out[index] = np.clip((images[index] - middle) / np.median(np.abs(sky - middle)), -clip, clip)
    return out


@pytest.mark.parametrize(("spec", "inner", "outer"), [(SPEC, 32.5, 45.0), (HISTORICAL, 20.0, 32.0)])
def test_it_is_the_definition_with_the_annulus_of_its_variant(spec, inner, outer):
    images = noise()
    images[:, :, 45:56, 45:56] += 0.05
    np.testing.assert_allclose(normalise(images, spec), by_the_book(images, inner, outer, 10.0), rtol=2e-5, atol=2e-6)


def test_the_asinh_kind_is_the_same_for_faint_light_and_keeps_the_order_of_bright():
    """Clipping at 10 MAD flattens lens cores and bright arcs; this is the alternative, not clipped at all."""
    soft = NormalisationSpec(kind="robust_asinh")
    images = noise()
    images[:, 1, 45:56, 45:56] += np.linspace(0, 30, 121, dtype=np.float32).reshape(11, 11)
    expected = 10 * np.arcsinh(by_the_book(images, 32.5, 45.0, np.inf) / 10)
    got = normalise(images, soft)
    np.testing.assert_allclose(got, expected, rtol=3e-5, atol=3e-6)
    hard = normalise(images, SPEC)
    faint = np.abs(hard) < 1
    np.testing.assert_allclose(got[faint], hard[faint], atol=2e-3)
    core = np.s_[0, 1, 46:56, 45:56]
    assert np.unique(hard[core]).tolist() == [10.0]
    assert (np.diff(got[core].ravel()) > 0).all()
    images[0, 0, 50, 50] = np.float32(3e38)
    images[0, 0, 50, 51] = np.inf
    assert np.isfinite(normalise(images, soft)).all()
    with pytest.raises(BadInput, match="kind: 'raw_robust' against 'robust_asinh'"):
        refuse_mismatch(SPEC, soft)


def test_the_annulus_follows_the_size_of_the_stamp():
    assert SPEC.radii(101, 101) == pytest.approx((32.5, 45.0))
    assert SPEC.radii(64, 64) == pytest.approx((20.8, 28.8))
    assert HISTORICAL.radii(101, 101) == (20.0, 32.0)
    assert annulus_pixels(SPEC, 101, 101).size == 3036


def test_golden_vector_a_ramp_has_the_median_and_mad_one_computes_by_hand():
    """On I = x (columns), the annulus is symmetric: median 50; |x - 50| has a median that a count of pixels gives."""
    ramp = np.broadcast_to(np.arange(101, dtype=np.float32), (1, 3, 101, 101))
    y, x = np.mgrid[-50:51, -50:51]
    ring = (x**2 + y**2 >= 32.5**2) & (x**2 + y**2 < 45.0**2)
    mad = sorted(np.abs(x[ring]))[ring.sum() // 2]  # 3036 pixels, the two middle ones are equal
    assert mad == 27
    out = normalise(ramp, SPEC)
    np.testing.assert_array_equal(out[0, 1, 7], ((np.arange(101) - 50) / np.float32(27)).astype(np.float32))


def test_golden_vector_of_a_seeded_stamp_is_the_same_bytes_for_ever():
    """One bit of difference and every detector trained before sees other inputs: name a new kind instead."""
    index = np.arange(3 * 101 * 101, dtype=np.int64).reshape(1, 3, 101, 101)
    images = (((index * 2654435761) % 1009).astype(np.float32) - 504) * np.float32(2.0**-18)
    images[0, :, 48:53, 48:53] += np.float32(0.5)
    out = normalise(images, SPEC)
    assert out.dtype == np.float32
    assert out[0, 0, 50, 50] == 10.0
    np.testing.assert_allclose(out, by_the_book(images, 32.5, 45.0, 10.0), rtol=2e-6, atol=2e-6)
    assert hashlib.sha256(out.astype("<f4").tobytes()).hexdigest() == GOLDEN


GOLDEN = "76053e856740fa92dfd30a7ea4891dda46706d7229a91f1a16063f72e4b962af"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(-9, 10), st.integers(-8, 8), st.sampled_from([17, 20, 21, 33]))
def test_a_change_of_unit_or_of_the_sky_level_changes_no_bit(seed, power, offset, side):
    """Powers of two scale floats exactly, and values and level lie on one grid of 2^-12, so that sums are exact too."""
    plain = (generator("affine", seed).integers(-4096, 4096, (2, 3, side, side)) / 4096).astype(np.float32)
    moved = (plain + np.float32(offset)) * np.float32(2.0**power)
    np.testing.assert_array_equal(normalise(moved, SMALL), normalise(plain, SMALL))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70))
def test_a_stamp_does_not_feel_its_batch(seed, n):
    images = noise(n, 41, seed)
    whole = normalise(images, SMALL)
    k = seed % n
    np.testing.assert_array_equal(normalise(images[k : k + 1], SMALL)[0], whole[k])


def test_the_network_sees_zero_where_pixels_are_invalid_and_their_junk_changes_nothing_else():
    images = noise()
    valid = np.ones(images.shape, bool)
    valid[:, :, 80:90, 30:60] = False  # reaches into the annulus
    clean = normalise(images, SPEC, valid)
    for junk in (1e9, -3.0, np.nan, np.inf, -np.inf):
        dirty = images.copy()
        dirty[~valid] = junk
        np.testing.assert_array_equal(normalise(dirty, SPEC, valid), clean)
    assert (clean[~valid] == 0).all()
    assert (clean[valid] != 0).mean() > 0.99


def test_without_a_mask_only_what_is_not_finite_is_invalid():
    images = noise()
    images[1, 2, 10, 50] = np.nan
    images[1, 2, 50, 50] = np.inf
    out = normalise(images, SPEC)
    assert np.isfinite(out).all()
    assert out[1, 2, 10, 50] == 0
    assert out[1, 2, 50, 50] == 0
    valid = np.isfinite(images)
    np.testing.assert_array_equal(out, normalise(images, SPEC, valid))


def test_big_endian_and_double_stamps_give_the_same_as_native_ones():
    images = noise()
    for other in (images.astype(">f4"), images.astype(np.float64)):
        np.testing.assert_array_equal(normalise(other, SPEC), normalise(images, SPEC))


def test_half_precision_is_refused():
    with pytest.raises(BadInput, match="float16 loses faint arcs"):
        normalise(noise().astype(np.float16), SPEC)


def test_a_background_without_scatter_is_named_by_stamp_and_band():
    images = noise()
    images[3, 2] = 0.25
    with pytest.raises(BadInput, match=r"row 3: 1 stamp bands cannot be normalised; first: band z, 3036 valid"):
        normalise(images, SPEC)


def test_too_few_valid_background_pixels_are_refused_and_counted():
    images, valid = noise(), np.ones((5, 3, 101, 101), bool)
    keep = annulus_pixels(SPEC, 101, 101)[:99]
    valid[2, 0] = False
    valid[2, 0].reshape(-1)[keep] = True
    median, mad, count = background(images, SPEC, valid)
    assert count[2, 0] == 99
    assert np.isnan(median[2, 0])
    assert np.isnan(mad[2, 0])
    assert np.isfinite(mad).sum() == 14
    with pytest.raises(BadInput, match="row 2"):
        normalise(images, SPEC, valid)


def test_a_mask_of_another_shape_and_a_stamp_of_other_bands_are_refused():
    with pytest.raises(BadInput, match="mask"):
        normalise(noise(), SPEC, np.ones((5, 101, 101), bool))
    with pytest.raises(BadInput, match="shape"):
        normalise(noise()[:, :2], SPEC)


def test_the_input_is_left_as_it_was():
    images = noise()
    before = images.copy()
    normalise(images, SPEC, np.ones(images.shape, bool))
    np.testing.assert_array_equal(images, before)


def test_a_scorer_refuses_another_specification_and_says_in_what_it_differs():
    refuse_mismatch(SPEC, NormalisationSpec())
    with pytest.raises(BadInput, match=r"unit: 'half_width' against 'pixel'; inner: 0.65 against 20.0"):
        refuse_mismatch(SPEC, HISTORICAL)
    assert SPEC.digest != HISTORICAL.digest
    assert SPEC.digest == NormalisationSpec(inner=0.65).digest


def test_settings_refuse_an_even_stamp_an_empty_annulus_and_bands_at_odds():
    with pytest.raises(ValueError, match="even"):
        Settings(size=100)
    with pytest.raises(ValueError, match="annulus is empty"):
        NormalisationSpec(inner=0.9, outer=0.9)
    with pytest.raises(ValueError, match="the normalisation has bands"):
        Settings(bands=("g", "r"))
    assert Settings().digest != Settings(core_radius=9).digest
    assert Settings().digest == Settings(bootstrap_draws=99).digest
