"""The azimuthal residual and the arc measures, on galaxies and arcs of known shape and flux."""

import ast

import numpy as np
import pytest

from lens_assets.science.completeness.detectability import CODE
from lens_assets.science.cutouts.features import annulus_snr
from lens_assets.science.cutouts.settings import HISTORICAL, NormalisationSpec
from lens_assets.science.errors import BadInput
from lens_assets.science.provenance import _SHARED, SCIENCE
from lens_assets.science.realism import azimuth
from lens_assets.science.realism.disc import disc
from lens_assets.science.realism.measure import arc_measures, asinh_magnitude


@pytest.fixture(scope="module")
def scene(sky):
    rng = np.random.default_rng(11)
    n = 120
    return rng, sky.galaxies(rng, n), sky.noise(rng, n), sky.weights(n)


def _annulus_sum(r):
    return r.residual[:, :, disc(101, 101).annulus].sum(axis=2)


def test_the_noise_of_sums_is_that_of_the_white_noise_before_resampling(scene, sky):
    _, _, noise, weights = scene
    _, smooth, total = azimuth.background(noise, weights)
    assert np.median(total / sky.sigma, axis=0) == pytest.approx([1, 1, 1], abs=0.06)
    # independent: the scatter of 3 x 3 box means anywhere in the noise
    boxes = noise[:, :, :99, :99].reshape(len(noise), 3, 33, 3, 33, 3).mean(axis=(3, 5))
    assert np.median(smooth, axis=0) == pytest.approx(boxes.std(axis=(0, 2, 3)), rel=0.04)


def test_a_neighbour_hardly_moves_the_background(scene, sky):
    _, _, noise, weights = scene
    spoiled = noise.copy()
    spoiled[:, :, 8:16, 45:55] += 1.0
    before, after = azimuth.background(noise, weights), azimuth.background(spoiled, weights)
    assert np.median(after[2] / before[2]) == pytest.approx(1, abs=0.06)
    assert np.abs(np.median((after[0] - before[0]) / before[2])) < 0.1


@pytest.mark.parametrize("q", [0.5, 0.7, 0.95])
def test_the_axis_ratio_of_a_gaussian_galaxy_is_recovered(q):
    y, x = np.mgrid[:101, :101] - 50
    angle, s = 0.6, 3.5
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    image = np.exp(-0.5 * (q * u**2 + v**2 / q) / s**2).astype(np.float32)
    d = disc(101, 101)
    found, at = azimuth.shape(image.ravel()[d.flat][None], d)
    assert found[0] == pytest.approx(q, abs=0.02)
    assert np.cos(2 * (at[0] - angle)) > (0.99 if q < 0.9 else 0.5)


def test_smooth_ellipticals_leave_little_and_arcs_leave_most_of_themselves(scene, sky):
    rng, galaxies, noise, weights = scene
    n = len(galaxies)
    none = _annulus_sum(azimuth.residuals(galaxies + noise, weights))[:, 1]
    share = galaxies[:, 1].sum(axis=(1, 2))
    assert np.median(np.abs(none) / share) < 0.05
    arcs = sky.arcs(rng, n, theta=8.0, flux=3.0, span=0.8)
    inside = disc(101, 101)
    truth = arcs.reshape(n, 3, -1)[:, 1, inside.flat][:, inside.annulus].sum(axis=1)
    found = _annulus_sum(azimuth.residuals(galaxies + noise + arcs, weights))[:, 1] - none
    assert 0.55 < np.median(found / truth) < 1.05


def test_a_wide_ring_makes_a_bump_that_the_envelope_leaves_in_the_residual(scene, sky):
    rng, galaxies, noise, weights = scene
    n = len(galaxies)
    rings = sky.arcs(rng, n, theta=11.0, flux=6.0, span=4.0)
    none = _annulus_sum(azimuth.residuals(galaxies + noise, weights))[:, 1]
    found = _annulus_sum(azimuth.residuals(galaxies + noise + rings, weights))[:, 1] - none
    assert np.median(found / 6.0) > 0.3


def test_the_envelope_keeps_every_mixture_of_gaussians_and_cuts_a_bump():
    d = disc(101, 101)
    r = d.centres
    mixture = 3 * np.exp(-(r**2) / 8) + 1 * np.exp(-(r**2) / 40) + 0.2 * np.exp(-(r**2) / 300)
    error = np.full(mixture.shape, 1e-6)
    kept = azimuth.envelope(np.float32(mixture)[None], error[None], r)[0]
    assert kept == pytest.approx(mixture, rel=1e-4)
    bump = mixture + 0.5 * np.exp(-0.5 * (r - 10) ** 2)
    cut = azimuth.envelope(np.float32(bump)[None], error[None], r)[0]
    assert cut[np.argmin(np.abs(r - 10))] < 0.6 * bump[np.argmin(np.abs(r - 10))]


def test_invalid_pixels_do_not_enter(scene):
    _, galaxies, noise, weights = scene
    image, weight = (galaxies + noise)[:20].copy(), weights[:20].copy()
    clean = _annulus_sum(azimuth.residuals(image, weight))
    image[:, :, 55:58, 58:61] = 1e4
    image[:, :, 10, 50] = np.float32(np.nan)
    weight[:, :, 55:58, 58:61] = 0
    weight[:, :, 10, 50] = 0
    found = _annulus_sum(azimuth.residuals(np.nan_to_num(image), weight))
    assert np.abs(found - clean).max() < 0.1 * np.abs(clean).max() + 0.2


def test_the_order_and_batching_of_stamps_do_not_matter(scene):
    _, galaxies, noise, weights = scene
    images = galaxies + noise
    whole = arc_measures(images, weights)
    order = np.random.default_rng(0).permutation(len(images))
    assert arc_measures(images[order], weights[order]).equals(whole[order])
    for n in (1, 2, 7):
        assert arc_measures(images[:n], weights[:n]).equals(whole[:n])


def test_the_annulus_snr_is_that_of_the_cutouts_with_the_detectors_own_background(scene):
    _, galaxies, noise, weights = scene
    images, weights = (galaxies + noise)[:40], weights[:40]
    for spec in (NormalisationSpec(), HISTORICAL):
        m = arc_measures(images, weights, spec)
        want = annulus_snr(images, weights, spec)
        np.testing.assert_array_equal(m.select(f"total_snr_{b}" for b in "grz").to_numpy(), want)
    assert "total_snr_r" not in arc_measures(images, weights).columns
    assert not np.array_equal(annulus_snr(images, weights, HISTORICAL), annulus_snr(images, weights))


def test_colours_radius_and_asymmetry_of_arcs_are_recovered(scene, sky):
    rng, _, noise, weights = scene
    n = 80
    arcs = sky.arcs(rng, n, theta=9.0, flux=8.0, span=0.7, colours=(0.4, 0.2))
    faint = sky.galaxies(rng, n, flux=3.0, q=1.0, size=2.5)
    m = arc_measures(arcs + faint + noise[:n], weights[:n])
    assert m["excess_gr"].median() == pytest.approx(0.4, abs=0.05)
    # the model takes more of the noisy z band; the difference between two colours is what matching compares
    redder = arcs * np.array([1, 1, 10 ** (0.4 * 0.6)], np.float32)[None, :, None, None]
    other = arc_measures(redder + faint + noise[:n], weights[:n])
    assert m["excess_rz"].median() == pytest.approx(0.2, abs=0.2)
    assert other["excess_rz"].median() - m["excess_rz"].median() == pytest.approx(0.6, abs=0.15)
    assert m["arc_radius"].median() == pytest.approx(9.0 * 0.262, abs=0.15)
    assert m["arc_asymmetry"].median() > 0.9
    pairs = arcs + arcs[:, :, ::-1, ::-1]
    both = arc_measures(pairs + faint + noise[:n], weights[:n])
    assert both["arc_asymmetry"].median() < 0.2


def test_asinh_magnitude_is_the_usual_one_when_bright_and_finite_when_negative():
    assert asinh_magnitude(100.0) == pytest.approx(22.5 - 5, abs=1e-4)
    assert np.all(np.isfinite(asinh_magnitude([-1.0, 0.0])))
    assert np.all(np.diff(asinh_magnitude(np.linspace(-1, 1, 50))) < 0)


def test_stamps_too_small_for_an_annulus_are_refused():
    small = np.zeros((1, 3, 41, 41), np.float32)
    with pytest.raises(BadInput, match="too small"):
        azimuth.residuals(small, small + 1)


def test_all_that_makes_the_statistic_of_the_gate_is_in_the_digest_of_what_depends_on_it():
    package = "lens_assets.science."
    names = {package + name.removesuffix(".py").replace("/", ".") for name in (*CODE, *_SHARED)}
    for name in CODE:
        tree = ast.parse((SCIENCE / name).read_text())
        used = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module for module in used if module.startswith(package)} <= names
