"""The confuser proxies: each threshold from both sides, priority, neighbours and stars."""

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from lens_assets.science.negatives.categories import categorise
from lens_assets.science.negatives.settings import CATEGORIES, N2Thresholds, Settings

T = N2Thresholds()


def flags(frame, **more):
    return categorise(frame, T, **more)["n2_flags"].to_list()


def test_an_ordinary_galaxy_is_in_n1(sky):
    got = categorise(sky.eligible(5, 1), T)
    assert got["pool"].unique().to_list() == ["N1"]
    assert got["n2_category"].null_count() == 5
    assert got["n2_flags"].to_list() == [[]] * 5


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("ring-proxy", {"type": "DEV", "flux_r": 5.0}, {"flux_r": 4.99}),
        ("ring-proxy", {"type": "SER", "sersic": 4.0, "flux_r": 5.0}, {"sersic": 3.99}),
        ("ring-proxy", {"type": "DEV", "flux_r": 5.0}, {"type": "EXP"}),
        ("edge-on-proxy", {"shape_e1": 0.3, "shape_e2": -0.4001, "shape_r": 0.61}, {"shape_r": 0.59}),
        ("edge-on-proxy", {"shape_e1": 0.3, "shape_e2": -0.4001, "shape_r": 0.61}, {"shape_e2": -0.399}),
        ("blue-clumpy-proxy", {"flux_g": 7.0, "flux_r": 10.0}, {"flux_g": 6.9}),
        ("blue-clumpy-proxy", {"flux_g": 5.0, "flux_r": 6.32}, {"flux_r": 6.30}),
        ("large-galaxy-proxy", {"shape_r": 2.0, "flux_r": 3.0, "flux_g": 1.0}, {"shape_r": 1.99}),
        ("large-galaxy-proxy", {"shape_r": 2.0, "flux_r": 3.0, "flux_g": 1.0}, {"flux_r": 2.99}),
        ("spiral-proxy", {"type": "EXP", "flux_g": 8.0, "shape_r": 0.81}, {"flux_g": 7.8}),
        ("spiral-proxy", {"type": "EXP", "flux_g": 8.0, "shape_r": 0.81}, {"flux_g": 10.5}),
        ("spiral-proxy", {"type": "SER", "sersic": 1.99, "flux_g": 8.0, "shape_r": 0.81}, {"sersic": 2.0}),
        ("spiral-proxy", {"type": "EXP", "flux_g": 8.0, "shape_r": 0.81}, {"shape_r": 0.79}),
        ("merger-blend-proxy", {"fracflux_g": 0.5}, {"fracflux_g": 0.499}),
        ("merger-blend-proxy", {"fracflux_z": 0.5}, {"fracflux_z": 0.499}),
        ("artefact-near-star-proxy", {"maskbits": 1 << 1}, {"maskbits": 1 << 2}),
        ("artefact-near-star-proxy", {"maskbits": 1 << 11 | 1}, {"maskbits": 1}),
    ],
)
def test_each_threshold_divides_where_it_says(sky, name, inside, outside):
    assert name in flags(sky.eligible(1, 1, **inside))[0]
    assert name not in flags(sky.eligible(1, 1, **{**inside, **outside}))[0]


@pytest.mark.parametrize("column", ["gr", "mag_r", "shape_r", "sersic", "ellipticity", "flux_r", "fracflux_r"])
@pytest.mark.parametrize("bad", [float("nan"), None])
def test_what_is_not_measured_never_flags(sky, column, bad):
    frame = sky.eligible(1, 1, type="SER", sersic=1.0).with_columns(pl.lit(bad, dtype=pl.Float64).alias(column))
    assert flags(frame) == [[]]


def test_the_primary_category_is_the_first_flag_in_the_stated_priority(sky):
    frame = sky.eligible(1, 1, type="DEV", shape_r=3.0, shape_e1=0.6, maskbits=2)
    got = categorise(frame, T)
    assert got["n2_flags"][0].to_list() == [
        "artefact-near-star-proxy",
        "edge-on-proxy",
        "large-galaxy-proxy",
        "ring-proxy",
    ]
    assert got["n2_category"][0] == "artefact-near-star-proxy"
    got = categorise(frame, T, priority=tuple(reversed(CATEGORIES)))
    assert got["n2_category"][0] == "ring-proxy"
    assert sorted(got["n2_flags"][0]) == sorted(categorise(frame, T)["n2_flags"][0])
    with pytest.raises(ValueError, match="each category once"):
        Settings(priority=CATEGORIES[1:])


def test_every_category_is_named_a_proxy():
    assert all(name.endswith("-proxy") for name in CATEGORIES)


def around(ra, dec, arcsec, angle=40):
    p = SkyCoord(ra, dec, unit="deg").directional_offset_by(angle * u.deg, arcsec * u.arcsec)
    return p.ra.deg, p.dec.deg


@pytest.mark.parametrize(
    ("arcsec", "flux", "flagged"),
    [(2.99, 15, False), (3.01, 15, True), (5.99, 15, True), (6.01, 15, False), (4.0, 3.01, True), (4.0, 2.99, False)],
)
@pytest.mark.parametrize("place", [(151.0, 2.0), (0.0001, -1.0), (200.0, 80.0)])
def test_a_bright_neighbour_counts_between_3_and_6_arcsec(sky, arcsec, flux, flagged, place):
    ra, dec = around(*place, arcsec)
    both = sky.eligible(2, 1, ra=(0, 1), type="REX", flux_r=[15.0, flux])
    both = both.with_columns(ra=pl.Series([place[0], ra]), dec=pl.Series([place[1], dec]))
    assert ("merger-blend-proxy" in flags(both)[0]) is flagged
    alone = categorise(both[:1], T, neighbours=both)
    assert ("merger-blend-proxy" in alone["n2_flags"][0].to_list()) is flagged


def test_a_neighbour_below_the_floor_is_not_bright(sky):
    ra, dec = around(151.0, 2.0, 4.0)
    for flux, flagged in ((1.001, True), (0.999, False)):
        both = sky.eligible(2, 1, flux_r=[3.0, flux], flux_g=1.0).with_columns(
            ra=pl.Series([151.0, ra]), dec=pl.Series([2.0, dec])
        )
        assert ("merger-blend-proxy" in flags(both)[0]) is flagged


@pytest.mark.parametrize(
    ("cat", "kind", "arcsec", "flux", "flagged"),
    [
        ("T2", "PSF", 29.9, 1.0, True),
        ("T2", "PSF", 30.1, 1.0, False),
        ("GE", "PSF", 9.9, 160.0, True),
        ("GE", "PSF", 10.1, 160.0, False),
        ("GE", "PSF", 9.9, 157.0, False),
        ("GE", "SER", 9.9, 160.0, False),
        ("L3", "PSF", 9.9, 160.0, False),
        ("", "PSF", 9.9, 160.0, False),
    ],
)
def test_a_star_of_a_reference_catalogue_spoils_its_neighbourhood(sky, cat, kind, arcsec, flux, flagged):
    ra, dec = around(151.0, 2.0, arcsec)
    both = sky.eligible(2, 1, type=["REX", kind], ref_cat=["", cat], flux_r=[15.0, flux]).with_columns(
        ra=pl.Series([151.0, ra]), dec=pl.Series([2.0, dec])
    )
    assert ("artefact-near-star-proxy" in flags(both[:1], neighbours=both)[0]) is flagged


def test_neighbours_agree_with_all_pairs(sky):
    frame = sky.sweeps(600, 8, ra=(150, 150.06), dec=(0, 0.06))
    c = SkyCoord(frame["ra"].to_numpy(), frame["dec"].to_numpy(), unit="deg")
    sep = c[:, None].separation(c[None, :]).arcsec
    flux = frame["flux_r"].to_numpy()
    pair = (sep >= 3) & (sep <= 6) & (flux[None, :] >= 1) & (flux[None, :] >= 0.2 * flux[:, None])
    np.fill_diagonal(pair, False)
    frame = frame.with_columns(pl.lit(0.0).alias(f"fracflux_{b}") for b in "grz")
    got = [("merger-blend-proxy" in f) for f in flags(frame)]
    assert 20 < sum(got) < 580
    assert got == pair.any(axis=1).tolist()
