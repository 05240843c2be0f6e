"""Positions on the sphere against astropy's SkyCoord, and HEALPix cells against the paper's own formulae."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from lens_assets.science import sphere

POSITION = st.tuples(st.floats(0, 360, exclude_max=True), st.floats(-90, 90))


def some(n, seed, ra=(0, 360), dec=(-90, 90)):
    rng = np.random.default_rng(seed)
    return rng.uniform(*ra, n), rng.uniform(*dec, n)


@given(POSITION, POSITION)
def test_separation_is_that_of_astropy(a, b):
    ours = sphere.separation(*a, *b)
    theirs = SkyCoord(*a, unit="deg").separation(SkyCoord(*b, unit="deg")).arcsec
    # near the antipode a chord loses half its digits: 1e-8 rad is the float limit there
    assert ours == pytest.approx(theirs, abs=1e-6 if theirs < 3600 * 170 else 5e-3)


@pytest.mark.parametrize("arcsec", [0.001, 1.0, 11.0, 3600.0])
def test_a_small_step_keeps_its_length_at_the_pole_and_across_ra_zero(arcsec):
    start = SkyCoord([0.0, 359.999999, 200.0], [0.0, 10.0, -60.0], unit="deg")
    end = start.directional_offset_by(33 * u.deg, arcsec * u.arcsec)
    got = sphere.separation(start.ra.deg, start.dec.deg, end.ra.deg, end.dec.deg)
    assert got == pytest.approx(np.full(3, arcsec), rel=1e-9, abs=1e-8)
    half = arcsec / 7200  # over the pole along one great circle
    assert sphere.separation(120, 90 - half, 300, 90 - half) == pytest.approx(arcsec, rel=1e-9, abs=1e-8)
    assert sphere.separation(10, -90 + 2 * half, 10, -90) == pytest.approx(arcsec, rel=1e-9, abs=1e-8)


def nested_cell(ra, dec, nside):
    """Gorski et al. 2005 (doi:10.1086/427976), section 4: base face and position on it, bits interleaved."""
    z, tt = np.sin(np.radians(dec)), (ra % 360) / 90
    if abs(z) <= 2 / 3:
        jp, jm = (int(np.floor(nside * (0.5 + tt + s * 0.75 * z))) for s in (-1, 1))
        fp, fm = jp // nside, jm // nside
        face = (fp % 4) + 4 if fp == fm else fp if fp < fm else fm + 8
        x, y = jm % nside, nside - jp % nside - 1
    else:
        quarter = min(3, int(tt))
        part, width = tt - quarter, nside * np.sqrt(3 * (1 - abs(z)))
        jp, jm = (min(int(f * width), nside - 1) for f in (part, 1 - part))
        face, x, y = (quarter, nside - jm - 1, nside - jp - 1) if z > 0 else (quarter + 8, jp, jm)
    return face * nside**2 + sum(((x >> k & 1) << 2 * k) | ((y >> k & 1) << 2 * k + 1) for k in range(30))


@pytest.mark.parametrize("nside", [128, 1024, 4096])
def test_cells_follow_the_formulae_of_the_healpix_paper_in_nested_order(nside):
    ra, dec = some(2000, 1)
    dec[:300] = np.where(dec[:300] > 0, 90, -90) - np.sign(dec[:300]) * 5 * np.abs(dec[:300]) / 90
    assert sphere.cell_of(ra, dec, nside).tolist() == [nested_cell(*p, nside) for p in zip(ra, dec, strict=True)]


@pytest.mark.parametrize(("ra", "dec"), [((0, 2), (0, 2)), ((359.5, 360), (-1, 1)), ((0, 360), (89, 90))])
def test_the_nearest_is_the_one_astropy_finds(ra, dec):
    a, b = some(300, 2, ra, dec), some(200, 3, ra, dec)
    index, sep = sphere.nearest(*a, *b)
    theirs, d2d, _ = SkyCoord(*a, unit="deg").match_to_catalog_sky(SkyCoord(*b, unit="deg"))
    assert np.array_equal(index, theirs)
    assert sep == pytest.approx(d2d.arcsec, rel=1e-7)


def test_nothing_is_nearest_to_an_empty_list():
    index, sep = sphere.nearest([1.0, 2.0], [3.0, 4.0], [], [])
    assert index.tolist() == [-1, -1]
    assert np.isinf(sep).all()
    assert not sphere.within([1.0], [3.0], [], [], 1e9).any()


def test_within_agrees_with_all_pairs():
    a, b = some(400, 4, (0, 0.05), (0, 0.05)), some(50, 5, (0, 0.05), (0, 0.05))
    theirs = SkyCoord(*a, unit="deg")[:, None].separation(SkyCoord(*b, unit="deg")[None, :]).arcsec.min(axis=1) <= 11
    assert 0 < theirs.sum() < 400
    assert np.array_equal(sphere.within(*a, *b, 11.0), theirs)


def test_friends_of_friends_are_the_connected_components_of_all_pairs():
    ra, dec = some(300, 6, (359.98, 360.02), (-0.02, 0.02))
    ra = ra % 360
    c = SkyCoord(ra, dec, unit="deg")
    linked = c[:, None].separation(c[None, :]).arcsec <= 8
    expected = np.arange(300)  # flood fill
    for _ in range(300):
        smallest = np.where(linked, expected[None, :], 300).min(axis=1)
        if np.array_equal(smallest, expected):
            break
        expected = smallest
    got = sphere.friends_of_friends(ra, dec, 8)
    assert 1 < len(set(got)) < 300
    assert all((got == got[i]).tolist() == (expected == expected[i]).tolist() for i in range(300))


def test_friends_of_nobody():
    assert sphere.friends_of_friends([], [], 5).size == 0
    assert len(set(sphere.friends_of_friends([1.0, 2.0], [0.0, 0.0], 5))) == 2
