"""Pixels of the mock against independent truth: noise statistics of DR10, GalSim's renderer, catalogue fluxes, PSF
and depth."""

from __future__ import annotations

from pathlib import Path

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lens_assets.science.mock.brick import make_brick
from lens_assets.science.mock.conditions import conditions
from lens_assets.science.mock.footprint import BrickPlan, plan
from lens_assets.science.mock.noise import kernel, phase_averaged_covariance, resampled
from lens_assets.science.mock.psf import exponential_norm2, point_norm2, transfer
from lens_assets.science.mock.render import Knots, Profile, draw, paste, stamp_side

SEED = 20261123
PIX = 0.262


def sersic_image(
    n: int, index: float, re: float, q: float, pa: float, beta: float, fwhm: float, dx: float, dy: float
) -> np.ndarray:
    """GalSim's drawing of the same profile (pixel scale 1, no pixel response: the PSF already holds it)."""
    galaxy = galsim.Sersic(index, half_light_radius=re * np.sqrt(q)).shear(q=q, beta=pa * galsim.radians)
    both = galsim.Convolve(galaxy, galsim.Moffat(beta=beta, fwhm=fwhm)).shift(
        dx + 0.5 * (n % 2 == 0), dy + 0.5 * (n % 2 == 0)
    )
    return both.drawImage(nx=n, ny=n, scale=1.0, method="no_pixel").array


def psf_grid(n: int, beta: float, fwhm: float) -> np.ndarray:
    kx, ky = 2 * np.pi * np.fft.rfftfreq(n), 2 * np.pi * np.fft.fftfreq(n)
    return transfer(beta, np.hypot(kx[None], ky[:, None]) * fwhm)


@pytest.mark.parametrize(
    ("index", "re", "q", "pa"), [(1.0, 5.0, 0.5, 0.7), (4.0, 3.0, 0.8, 2.0), (0.5, 2.0, 1.0, 0.0), (2.5, 6.0, 0.3, 1.2)]
)
def test_a_drawn_profile_agrees_with_galsim(index, re, q, pa):
    n, beta, fwhm = 128, 3.0, 5.0
    ours = draw([Profile(index, re, q, pa, np.array([1.0, 2.0, 3.0]))], 0.3, -0.2, n, [psf_grid(n, beta, fwhm)] * 3)
    theirs = sersic_image(n, index, re, q, pa, beta, fwhm, 0.3, -0.2)
    inner = slice(8, -8)
    assert np.abs(ours[0] - theirs)[inner, inner].max() < 6e-3 * theirs.max()
    assert ours[2] == pytest.approx(3 * ours[0], abs=1e-6)


def test_knots_are_gaussians_where_they_should_be_and_keep_their_flux():
    n = 96
    knots = Knots(np.array([10.0, -8.0]), np.array([0.0, 6.0]), np.array([0.75, 0.25]), 1.0, np.full(3, 8.0))
    image = draw([knots], 0.0, 0.0, n, [psf_grid(n, 4.0, 4.0)] * 3)[1]
    assert image.sum() == pytest.approx(8.0, rel=5e-3)
    y, x = np.unravel_index(image.argmax(), image.shape)
    assert (x, y) == (n // 2 + 10, n // 2)
    assert image[n // 2 + 6, n // 2 - 8] == pytest.approx(image.max() / 3, rel=0.05)


def test_a_stamp_is_large_enough_for_its_galaxy():
    faint = [Profile(1.0, 3.0, 1.0, 0.0, np.full(3, 2.0))]
    bright = [Profile(4.0, 12.0, 1.0, 0.0, np.full(3, 800.0))]
    sigma = [0.003, 0.005, 0.01]
    assert stamp_side(faint, sigma, 5.0) < stamp_side(bright, sigma, 5.0)
    side = stamp_side(bright, sigma, 5.0)
    image = draw(bright, 0.0, 0.0, side, [psf_grid(side, 3.0, 5.0)] * 3)[0]
    assert image.sum() > 0.85 * 800


def test_pasting_clips_at_the_edges():
    canvas = np.zeros((20, 20), np.float32)
    paste(canvas, np.ones((8, 8), np.float32), 1, 19)
    assert canvas.sum() == 5 * 5
    paste(canvas, np.ones((8, 8), np.float32), 100, 100)
    assert canvas.sum() == 25


def test_norms_of_the_psf_agree_with_sums_over_pixels():
    beta, fwhm = 3.3, 1.3
    n = 256
    psf = galsim.Moffat(beta=beta, fwhm=fwhm).drawImage(nx=n, ny=n, scale=PIX, method="no_pixel").array
    assert float(point_norm2(beta, fwhm)) == pytest.approx(np.sum(psf.astype(float) ** 2), rel=5e-3)
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=0.45), galsim.Moffat(beta=beta, fwhm=fwhm))
    seen = galaxy.drawImage(nx=n, ny=n, scale=PIX, method="no_pixel").array
    assert float(exponential_norm2(beta, fwhm)) == pytest.approx(np.sum(seen.astype(float) ** 2), rel=1e-2)


def test_resampled_noise_has_the_lanczos_numbers():
    c = np.array(phase_averaged_covariance())
    assert c[0] == pytest.approx(0.893, abs=1e-3)  # variance a side: scatter in two dimensions is 0.893 as well
    assert c[1:4] / c[0] == pytest.approx([0.112, -0.076, 0.027], abs=1e-3)
    assert kernel().sum() == pytest.approx(1.0, abs=1e-3)  # block means keep the scatter that invvar says
    rng = np.random.default_rng(0)
    noise = resampled(rng.standard_normal((1500, 1500), dtype=np.float32))
    assert noise.std() == pytest.approx(0.893, abs=3e-3)


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory, make):
    """A brick of little else than sky and stars, large enough for statistics."""
    root: Path = tmp_path_factory.mktemp("sky")
    size = make(
        tiles=("150p000",), deep_tiles=(), bricks_per_tile=2, brick_pixels=1100, galaxies=25, lenses=1, faint=0,
        stars=60, missing_band=0, survey_edge=0,
    )  # fmt: skip
    p = plan(size, SEED)[0]
    rows, objects, _ = make_brick(root, size, p, SEED)
    return root, size, p, rows, objects


def data(root: Path, p: BrickPlan, product: str, band: str) -> np.ndarray:
    return np.asarray(fits.getdata(root / p.cell.coadd(product, band)))


def far_from_objects(sky_, band: str) -> np.ndarray:
    root, _, p, _, objects = sky_
    image = data(root, p, "image", band)
    wcs = WCS(fits.getheader(root / p.cell.coadd("image", band), 1))
    empty = data(root, p, "invvar", band) > 0
    yy, xx = np.mgrid[: image.shape[0], : image.shape[1]]
    for o in objects:
        x, y = wcs.wcs_world2pix(o["ra"], o["dec"], 0)
        flux = 10 ** (0.4 * (22.5 - (o["mag_z"] or 30)))
        reach = 18 + 9 * max(np.log10(max(flux, 1)), 0) ** 2 + 6 * o["re"] / PIX
        empty &= (xx - x) ** 2 + (yy - y) ** 2 > reach**2
    return empty


@pytest.mark.parametrize("band", ["g", "r", "z"])
def test_pixel_scatter_and_correlation_of_a_brick_are_those_of_one_resampling(sky, band):
    root, _, p, _, _ = sky
    empty = far_from_objects(sky, band)
    assert empty.mean() > 0.3
    scaled = data(root, p, "image", band) * np.sqrt(data(root, p, "invvar", band))
    values = scaled[empty]
    assert 1.4826 * np.median(np.abs(values - np.median(values))) == pytest.approx(0.893, abs=0.012)
    for lag, expected in ((1, 0.112), (2, -0.076), (3, 0.027), (5, 0.0)):
        both = empty[:, lag:] & empty[:, :-lag]
        a, b = scaled[:, lag:][both], scaled[:, :-lag][both]
        keep = (np.abs(a) < 5) & (np.abs(b) < 5)
        assert np.corrcoef(a[keep], b[keep])[0, 1] == pytest.approx(expected, abs=0.012)


def test_blocks_of_pixels_scatter_as_invvar_says(sky):
    root, _, p, _, _ = sky
    empty = far_from_objects(sky, "r")
    scaled = data(root, p, "image", "r") * np.sqrt(data(root, p, "invvar", "r"))
    n = 1100 // 10 * 10
    blocks = scaled[:n, :n].reshape(n // 10, 10, n // 10, 10).swapaxes(1, 2).reshape(-1, 100)
    whole = empty[:n, :n].reshape(n // 10, 10, n // 10, 10).swapaxes(1, 2).reshape(-1, 100).all(axis=1)
    means = blocks[whole].mean(axis=1) * 10
    assert whole.sum() > 300
    assert 1.4826 * np.median(np.abs(means - np.median(means))) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("band", ["g", "r", "z"])
def test_depth_maps_agree_with_invvar_and_seeing(sky, band):
    """PSFDEPTH = invvar x sum(p^2): exact a single exposure, so close for the mean of several of like width."""
    root, size, p, _, _ = sky
    c = conditions(size, p, SEED)[band]
    good = c.invvar > 0
    implied = c.invvar * point_norm2(c.beta, np.where(good, c.psfsize, 1.0))
    assert implied[good] == pytest.approx(c.psfdepth[good], rel=0.03)
    assert np.all(c.galdepth[good] < c.psfdepth[good])
    depth = data(root, p, "depth", band)
    assert set(np.unique(depth)) <= set(np.unique(c.psfdepth))
    magnitude = 22.5 - 2.5 * np.log10(5 / np.sqrt(np.median(depth[depth > 0])))
    assert 22.0 < magnitude < 26.0


def test_stars_are_as_wide_as_the_psfsize_map_says(sky):
    root, _, p, _, objects = sky
    image, invvar = data(root, p, "image", "r"), data(root, p, "invvar", "r")
    wcs = WCS(fits.getheader(root / p.cell.coadd("image", "r"), 1))
    ratios = []
    size_map = data(root, p, "psfsize", "r")
    for o in objects:
        if o["class"] != "star" or not 16.5 < (o["mag_r"] or 99) < 20.0:
            continue
        x, y = (float(v) for v in wcs.wcs_world2pix(o["ra"], o["dec"], 0))
        i, j = round(x), round(y)
        stamp, weight = image[j - 20 : j + 21, i - 20 : i + 21], invvar[j - 20 : j + 21, i - 20 : i + 21]
        if stamp.shape != (41, 41) or weight.min() <= 0:
            continue
        try:
            found = galsim.Image(np.ascontiguousarray(stamp, np.float64)).FindAdaptiveMom(weight=None, strict=False)
        except galsim.GalSimError:
            continue
        model = galsim.Moffat(beta=conditions_beta(sky, "r"), fwhm=float(size_map[j, i]) / PIX)
        expected = model.drawImage(nx=41, ny=41, scale=1.0, method="no_pixel").FindAdaptiveMom().moments_sigma
        if found.moments_status == 0:
            ratios.append(found.moments_sigma / expected)
    assert len(ratios) >= 5
    assert np.median(ratios) == pytest.approx(1.0, abs=0.03)


def conditions_beta(sky_, band: str) -> float:
    _, size, p, _, _ = sky_
    return conditions(size, p, SEED)[band].beta


@pytest.mark.parametrize("band", ["g", "r", "z"])
def test_light_in_the_image_is_the_flux_in_the_catalogue(sky, band):
    """Large apertures on isolated, compact objects against FLUX: the units of both are nanomaggies."""
    root, _, p, rows, _ = sky
    image, invvar = data(root, p, "image", band), data(root, p, "invvar", band)
    wcs = WCS(fits.getheader(root / p.cell.coadd("image", band), 1))
    x, y = wcs.wcs_world2pix(rows["RA"], rows["DEC"], 0)
    flux = rows[f"FLUX_{band.upper()}"]
    yy, xx = np.mgrid[:61, :61] - 30
    disc, ring = np.hypot(xx, yy) <= 20, (np.hypot(xx, yy) > 22) & (np.hypot(xx, yy) < 30)
    ratios = []
    for k in range(len(rows)):
        d = np.hypot(x - x[k], y - y[k])
        glare = np.sum(np.where((d > 0) & (d < 120), flux, 0) / np.maximum(d, 1) ** 2)
        i, j = round(float(x[k])), round(float(y[k]))
        if not 8 < flux[k] < 500 or np.sort(d)[1] < 60 or rows["SHAPE_R"][k] > 1.2 or glare > 0.2:
            continue
        stamp, weight = image[j - 30 : j + 31, i - 30 : i + 31], invvar[j - 30 : j + 31, i - 30 : i + 31]
        if stamp.shape == (61, 61) and weight.min() > 0:
            ratios.append((stamp[disc].sum() - np.median(stamp[ring]) * disc.sum()) / flux[k])
    assert len(ratios) >= 5
    assert np.median(ratios) == pytest.approx(0.97, abs=0.06)  # an aperture of 5.2" leaves out a little of the wings


def test_bright_pixels_scatter_by_photons_of_a_realistic_gain(sky):
    """Gain = sky / sigma^2: 5e3 to 1e5 electrons a nanomaggy in r, not 150."""
    _, size, p, _, _ = sky
    c = conditions(size, p, SEED)["r"]
    gain = c.sky * np.median(c.invvar[c.invvar > 0])
    assert 2e3 < gain < 1e5
