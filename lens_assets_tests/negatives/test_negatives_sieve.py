"""Who is near whom: the sieve never says no to a neighbour, and the pairs are all pairs."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science import sieve
from lens_assets.science.sieve import Sieve, near_pairs

PLACES = [(0.0, 0.0), (359.9999, 31.0), (150.0, -89.9995), (12.0, 90.0), (200.0, 60.0)]


def cloud(rng, place, n, arcsec):
    """``n`` positions within a few ``arcsec`` of a place, on the sphere."""
    out = SkyCoord(*place, unit="deg").directional_offset_by(
        rng.uniform(0, 360, n) * u.deg, 4 * arcsec * np.sqrt(rng.random(n)) * u.arcsec
    )
    return out.ra.deg, out.dec.deg


@settings(max_examples=60, deadline=None)
@given(
    place=st.sampled_from(PLACES),
    arcsec=st.sampled_from([0.1, 6.0, 11.0, 30.0, 3600.0]),
    n=st.integers(1, 60),
    seed=st.integers(0, 10**6),
    sifted=st.booleans(),
)
def test_pairs_are_those_of_all_separations(place, arcsec, n, seed, sifted):
    rng = np.random.default_rng(seed)
    a, b = cloud(rng, place, n, arcsec), cloud(rng, place, 40, arcsec)
    apart = SkyCoord(*a, unit="deg")[:, None].separation(SkyCoord(*b, unit="deg")[None, :]).arcsec
    clear = np.abs(apart - arcsec).min() > 1e-6
    many, sieve._MANY = sieve._MANY, 0 if sifted else 10**9
    try:
        i, j, sep = near_pairs(*a, *b, arcsec)
        back = near_pairs(*b, *a, arcsec)
    finally:
        sieve._MANY = many
    if clear:
        assert list(zip(i, j, strict=True)) == list(zip(*np.nonzero(apart <= arcsec), strict=True))
        assert sorted(zip(back[1], back[0], strict=True)) == list(zip(i, j, strict=True))
    assert sep == pytest.approx(apart[i, j], abs=1e-5)
    assert not (apart.min(axis=1) <= arcsec)[~Sieve(*b, arcsec).maybe(*a)].any()


def test_a_sieve_lets_little_through_and_only_what_was_asked_for():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(150, 155, 200_000), rng.uniform(0, 5, 200_000)
    lenses = rng.uniform(0, 360, 5000), np.degrees(np.arcsin(rng.uniform(-1, 1, 5000)))
    found = Sieve(*lenses, 11.0).maybe(ra, dec)
    assert found.mean() < 0.03
    among = rng.random(ra.size) < 0.5
    assert np.array_equal(Sieve(*lenses, 11.0).maybe(ra, dec, among), found & among)


def test_positions_that_are_none_are_near_nothing():
    bad = np.array([np.nan, np.inf, 10.0, 10.0]), np.array([0.0, 0.0, np.nan, 91.0])
    near = np.full(4, 10.0), np.zeros(4)
    assert not Sieve(*near, 11.0).maybe(*bad).any()
    assert not Sieve(*bad, 11.0).maybe(*near).any()
    assert len(near_pairs(*bad, *near, 11.0)[0]) == 0
    assert len(near_pairs(*near, *bad, 11.0)[0]) == 0
    assert len(near_pairs(*near, np.empty(0), np.empty(0), 11.0)[0]) == 0


def test_more_pairs_than_expected_are_all_found():
    ra, dec = np.full(90, 10.0), np.full(90, 5.0)
    assert len(near_pairs(ra, dec, ra, dec, 1.0)[0]) == 8100


def test_right_ascensions_of_any_turn_are_the_same_place():
    assert Sieve([-0.001], [0.0], 11.0).maybe([359.999, 719.999, -360.001, 180.0], [0.0] * 4).tolist() == [True] * 3 + [
        False
    ]


@pytest.mark.parametrize("arcsec", [-1.0, np.nan, 36_001.0])
def test_a_radius_that_is_no_small_disc_is_refused(arcsec):
    with pytest.raises(ValueError, match="small discs"):
        Sieve([1.0], [1.0], arcsec)
