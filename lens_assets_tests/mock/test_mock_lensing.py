"""The mock's lenses against analytic lensing and brute-force rendering, and how they differ from the injection
engine's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.signal import fftconvolve

from lens_assets.science.hashing import generator
from lens_assets.science.mock.deflectors import Deflector, deflector_light, dispersion
from lens_assets.science.mock.lensing import arcs, brightness, draw_arcs, make_lens
from lens_assets.science.mock.psf import transfer
from lens_assets.science.mock.settings import Settings

SETTINGS = Settings(quasar_share=0.0)


def lens_of(i: int, settings: Settings = SETTINGS):
    rng = generator("test lens", i)
    return make_lens(deflector_light(settings, rng), settings, rng)


def gaussian_grid(n: int, sigma: float) -> np.ndarray:
    kx, ky = 2 * np.pi * np.fft.rfftfreq(n), 2 * np.pi * np.fft.fftfreq(n)
    return np.exp(-0.5 * sigma**2 * (kx[None] ** 2 + ky[:, None] ** 2))


def test_an_isothermal_sphere_magnifies_a_compact_source_by_two_theta_over_beta():
    lens = lens_of(1)
    theta, beta = 1.2, 0.6
    d = dataclasses.replace(lens.deflector, theta_e=theta)
    simple = dataclasses.replace(
        lens, deflector=d, models=["SIS"], keywords=[{"theta_E": theta, "center_x": 0.0, "center_y": 0.0}],
        beta=(beta, 0.0), clumps=[(beta, 0.0, 0.06, 1.0, 0.0, 0.5, np.ones(3))], truth={**lens.truth, "source_re": 0.1},
    )  # fmt: skip
    _, total, _ = arcs(simple)
    assert total == pytest.approx(np.full(3, 2 * theta / beta), rel=0.015)


def test_arcs_agree_with_brute_force_ray_shooting_at_twelve_times_the_sampling():
    from lenstronomy.LensModel.lens_model import LensModel

    lens, sigma = lens_of(3), 2.2
    spectrum, total, _ = arcs(lens)
    n = spectrum.shape[1]
    ours = draw_arcs(spectrum, [], None, 0.0, 0.0, [gaussian_grid(n, sigma)] * 3)
    over = 12
    axis = (np.arange(n * over) - n * over / 2) * 0.262 / over
    x, y = np.meshgrid(axis, axis)
    bx, by = LensModel(lens.models).ray_shooting(x.ravel(), y.ravel(), lens.keywords)
    fine = brightness(np.reshape(bx, x.shape), np.reshape(by, x.shape), lens.clumps)[1] * (0.262 / over) ** 2
    t = np.arange(-8 * 2.2 * over, 8 * 2.2 * over + 1)
    kernel = np.exp(-0.5 * (t / (sigma * over)) ** 2)
    kernel /= kernel.sum()
    blurred = fftconvolve(fftconvolve(fine, kernel[None], mode="same"), kernel[:, None], mode="same")
    theirs = blurred[::over, ::over] * over**2
    inner = slice(6, -6)
    assert np.abs(ours[1] - theirs)[inner, inner].max() < 0.01 * theirs.max()
    assert total[1] == pytest.approx(fine.sum(), rel=0.01)


def test_the_lensed_flux_of_the_stamp_is_the_stated_total():
    for i in range(4):
        spectrum, total, _ = arcs(lens_of(i))
        n = spectrum.shape[1]
        image = draw_arcs(spectrum, [], None, 0.4, -0.3, [gaussian_grid(n, 1.5)] * 3)
        assert [float(im.sum()) for im in image] == pytest.approx(total.tolist(), rel=0.03)


def test_quasars_have_at_least_two_images_and_their_magnifications_add_up():
    settings = Settings(quasar_share=1.0, beta_max=0.5)
    for i in range(4):
        lens = lens_of(i, settings)
        _, total, points = arcs(lens)
        assert 2 <= len(points) <= 5
        assert total[1] > lens.source_flux[1] * sum(m for _, _, m in points)


def test_dispersion_inverts_the_einstein_radius():
    sigma = dispersion(1.2, 0.5, 2.0)
    assert 200 < sigma < 290
    assert dispersion(2.4, 0.5, 2.0) == pytest.approx(sigma * np.sqrt(2))


def test_no_true_lens_is_a_plain_isothermal_ellipsoid_or_a_smooth_sersic_source():
    for i in range(20):
        lens = lens_of(i)
        assert lens.models[:2] == ["EPL_MULTIPOLE_M3M4", "SHEAR"]
        assert abs(lens.keywords[0]["gamma"] - 2) > 1e-3
        assert lens.keywords[0]["a4_a"] != 0
        assert len(lens.clumps) >= 5


def test_source_positions_fill_their_disc_evenly():
    """beta^2 is uniform where positions are area-weighted."""
    fractions = [
        np.hypot(*lens.beta) / (lens.deflector.theta_e * SETTINGS.beta_max) for lens in (lens_of(i) for i in range(400))
    ]
    assert np.mean(np.square(fractions)) == pytest.approx(0.5, abs=0.05)
    assert max(fractions) <= 1


def test_deflectors_look_like_the_published_candidates():
    """Medians and 5-95 % of 1,312 candidates (Huang et al. 2021): z 18.64 (16.64-19.79), g-r 1.62, r-z 1.13."""
    rng = generator("test deflectors")
    made: list[Deflector] = [deflector_light(Settings(), rng) for _ in range(1500)]
    mag = 22.5 - 2.5 * np.log10(np.array([d.flux for d in made]))
    assert np.percentile(mag[:, 2], [5, 50, 95]) == pytest.approx([16.64, 18.64, 19.79], abs=0.35)
    assert np.median(mag[:, 0] - mag[:, 1]) == pytest.approx(1.62, abs=0.12)
    assert np.median(mag[:, 1] - mag[:, 2]) == pytest.approx(1.13, abs=0.15)


def test_the_psf_table_is_a_moffat():
    import galsim

    k = np.array([0.1, 0.7, 1.9, 4.0])
    profile = galsim.Moffat(beta=2.7, fwhm=1.0)
    assert transfer(2.7, k) == pytest.approx([profile.kValue(float(v), 0).real for v in k], abs=2e-4)
