"""The lens and the renderer against analytic limits, lenstronomy, torch and galsim."""

from __future__ import annotations

from pathlib import Path

import galsim
import numpy as np
import numpy.typing as npt
import pytest
import torch
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy.integrate import quad
from scipy.optimize import brentq

from lens_assets.science.errors import BadInput
from lens_assets.science.injections import arithmetic as compiled
from lens_assets.science.injections import lens, psf, rays, sources
from lens_assets.science.injections.bench import TRUTH, bench_scene, errors
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.injections.render import TIGHT, Accuracy, render
from lens_assets.science.injections.scene import scene_of

SCALE = 0.262
SPECS = [PsfSpec(beta=2.5), PsfSpec(beta=3.5), PsfSpec(beta=4.5), PsfSpec(kind="gaussian")]


def params(n: int = 1, **changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "theta_e": 1.3, "q_lens": 0.7, "phi_lens": 0.6, "lens_x": 0.04, "lens_y": -0.03, "gamma1": 0.03,
        "gamma2": -0.04,
        "source_x": 0.25, "source_y": -0.1, "source_q": 0.6, "source_phi": 1.1, "source_re": 0.3, "source_n": 1.0,
        "source_mag_g": 23.5, "source_mag_r": 23.0, "source_mag_z": 22.5,
        "psfsize_g": 1.4, "psfsize_r": 1.25, "psfsize_z": 1.1,
    }  # fmt: skip
    base.update(changes)
    return {k: np.broadcast_to(np.asarray(v), (n,)) if not isinstance(v, list) else v for k, v in base.items()}


def t(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@given(x=st.floats(1e-12, 1e12), e=st.floats(-650, 650), a=st.floats(0, 1e8))
@settings(max_examples=200, deadline=None)
def test_own_log_exp_and_atan_agree_with_the_library(x: float, e: float, a: float) -> None:
    assert compiled.log_(x) == pytest.approx(np.log(x), rel=1e-11, abs=1e-11)
    assert compiled.exp_(e) == pytest.approx(np.exp(e), rel=1e-11)
    assert compiled.atan_ratio(a, 1.0) == pytest.approx(np.arctan(a), rel=1e-14, abs=1e-300)


@pytest.mark.parametrize("q", [0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("phi", [0.0, 0.4, 1.2, np.pi / 2, 2.5])
def test_deflection_equals_lenstronomy_for_all_shapes_and_angles(q: float, phi: float) -> None:
    grid = np.linspace(-4.05, 4.0, 24)
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    e1, e2 = phi_q2_ellipticity(phi, q)
    model = LensModel(["SIE", "SHEAR"])
    kwargs = [{"theta_E": 1.4, "e1": e1, "e2": e2, "center_x": 0.1, "center_y": -0.2},
              {"gamma1": 0.05, "gamma2": -0.03, "ra_0": 0.1, "dec_0": -0.2}]  # fmt: skip
    bx, by = model.ray_shooting(x, y, kwargs)
    ours = lens.shoot(torch.tensor(x - 0.1), torch.tensor(y + 0.2), t(1.4), t(q), t(phi), t(0.05), t(-0.03), t(2.0))
    np.testing.assert_allclose(ours[0].numpy() + 0.1, bx, atol=2e-5)
    np.testing.assert_allclose(ours[1].numpy() - 0.2, by, atol=2e-5)
    fxx, fxy, _, fyy = model.hessian(x, y, kwargs)
    a11, a12, a22 = lens.jacobian(
        torch.tensor(x - 0.1), torch.tensor(y + 0.2), t(1.4), t(q), t(phi), t(0.05), t(-0.03), t(2.0)
    )
    far = np.hypot(x - 0.1, y + 0.2) > 0.3
    for got, want in ((a11, 1 - fxx), (a12, -fxy), (a22, 1 - fyy)):
        np.testing.assert_allclose(got.numpy()[far], want[far], atol=3e-4)


def test_the_compiled_lens_is_the_stated_lens() -> None:
    g = np.random.default_rng(1)
    x, y = g.uniform(-6, 6, (2, 5000))
    for q in (0.2, 0.6, 0.97, 1.0):
        out = [np.empty(5000) for _ in range(5)]
        rays.shoot(x, y, (0.1, 0.2, q, np.cos(0.7), np.sin(0.7), 1.7, 0.04, -0.06, 2.0), True, *out)
        args = (torch.tensor(x - 0.1), torch.tensor(y - 0.2), t(1.7), t(q), t(0.7), t(0.04), t(-0.06), t(2.0))
        want = (*lens.shoot(*args), *lens.jacobian(*args))
        for got, w in zip(out, want, strict=True):
            np.testing.assert_allclose(got, w.numpy(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("q", [1.0, 1 - 1e-12, 1 - 1e-8, 1 - 1e-5])
def test_the_round_limit_is_the_isothermal_sphere(q: float) -> None:
    x, y = np.random.default_rng(2).uniform(-3, 3, (2, 1000))
    ax, ay = lens.sie_deflection(torch.tensor(x), torch.tensor(y), t(1.2), t(q), t(0.9))
    r = np.hypot(x, y)
    np.testing.assert_allclose(ax.numpy(), 1.2 * x / r, atol=3 * (1 - q) + 1e-6)
    np.testing.assert_allclose(ay.numpy(), 1.2 * y / r, atol=3 * (1 - q) + 1e-6)


@pytest.mark.parametrize("n", [0.5, 1.0, 2.2, 4.0])
def test_half_of_a_sersic_source_is_inside_re_and_its_flux_is_one(n: float) -> None:
    part = sources.components(0.0, 0.0, 0.55, 0.3, 0.4, n, 1.0)

    def ring(radius: float) -> float:  # along the circularised radius
        sb = sources.brightness(
            t(radius * np.cos(0.3) / np.sqrt(0.55)), t(radius * np.sin(0.3) / np.sqrt(0.55)), torch.tensor(part)
        )
        return 2 * np.pi * radius * float(sb)

    assert quad(ring, 0, 0.4, epsabs=1e-10)[0] == pytest.approx(0.5, abs=1e-6)
    assert quad(ring, 0, 0.4)[0] + quad(ring, 0.4, 200, limit=400)[0] == pytest.approx(1.0, abs=2e-3)


def test_clumps_conserve_the_flux() -> None:
    g = np.random.default_rng(3)
    smooth = sources.components(0.1, 0.0, 0.7, 0.2, 0.3, 1.0, 1.0)
    parts = sources.with_clumps(
        smooth, 0.45, g.normal(0, 0.2, 4), g.normal(0, 0.2, 4), g.uniform(0.02, 0.06, 4), g.uniform(0.2, 1, 4)
    )
    assert parts.shape == (5, 10)
    axis = torch.linspace(-3, 3, 901, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    assert float(sources.brightness(x, y, torch.tensor(parts)).sum() * (6 / 900) ** 2) == pytest.approx(1.0, abs=5e-3)


def test_unlensed_flux_comes_back_as_the_einstein_radius_vanishes() -> None:
    out = render(params(theta_e=0.0, gamma1=0.0, gamma2=0.0), PsfSpec(beta=4.5))
    np.testing.assert_allclose(out.lensed_flux, out.unlensed_flux, rtol=2e-3)
    np.testing.assert_allclose(out.images.sum(axis=(2, 3)), out.unlensed_flux, rtol=5e-3)
    np.testing.assert_allclose(out.unlensed_flux[0], 10 ** (0.4 * (22.5 - np.array([23.5, 23.0, 22.5]))))


@pytest.mark.parametrize("beta", [0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("source", ["compact", "point"])
def test_flux_ratio_of_a_small_source_is_two_theta_e_over_beta(beta: float, source: str) -> None:
    """SIS: mu+ + |mu-| = 2 theta_E / beta for beta < theta_E (Schneider, Kochanek & Wambsganss 2006, sec. B.1)."""
    p = params(
        q_lens=1.0, gamma1=0.0, gamma2=0.0, theta_e=1.5, source_x=1.5 * beta, source_y=0.0, source_re=0.015,
        source_n=0.5, source_q=1.0, family=["point" if source == "point" else "sersic"],
    )  # fmt: skip
    out = render(p)
    assert out.lensed_flux[0, 1] / out.unlensed_flux[0, 1] == pytest.approx(2 / beta, rel=0.01)
    assert out.images[0, 1].sum() / out.unlensed_flux[0, 1] == pytest.approx(2 / beta, rel=0.01)


def test_without_the_inner_image_a_sphere_magnifies_by_the_outer_image_alone() -> None:
    p = params(
        q_lens=1.0, gamma1=0.0, gamma2=0.0, theta_e=1.5, source_x=0.75, source_y=0.0, source_re=0.015, source_n=0.5
    )
    for family in ("sersic", "point"):
        out = render({**p, "family": [family], "inner_image": [False]})
        assert out.lensed_flux[0, 1] / out.unlensed_flux[0, 1] == pytest.approx(1 + 1.5 / 0.75, rel=0.01)


def test_point_images_are_those_of_lenstronomys_solver() -> None:
    g = np.random.default_rng(4)
    for _ in range(8):
        q, phi, te = g.uniform(0.4, 0.95), g.uniform(0, np.pi), g.uniform(0.6, 2.5)
        g1, g2 = g.normal(0, 0.05, 2)
        sx, sy = g.normal(0, 0.25 * te, 2)
        ours = sources.point_images((0.0, 0.0, q, np.cos(phi), np.sin(phi), te, g1, g2, 2.0), sx, sy)
        e1, e2 = phi_q2_ellipticity(phi, q)
        model = LensModel(["SIE", "SHEAR"])
        kwargs = [{"theta_E": te, "e1": e1, "e2": e2, "center_x": 0, "center_y": 0}, {"gamma1": g1, "gamma2": g2}]
        x, y = LensEquationSolver(model).image_position_from_source(
            sx, sy, kwargs, min_distance=0.02, search_window=6 * te, precision_limit=1e-12, num_iter_max=200
        )
        mu = model.magnification(x, y, kwargs)
        real = np.hypot(x, y) > 0.02  # the solver may return the singular centre
        order = np.lexsort((y[real], x[real]))
        mine = ours[np.lexsort((ours[:, 1], ours[:, 0]))]
        assert len(mine) == real.sum()
        np.testing.assert_allclose(mine[:, 0], x[real][order], atol=1e-4)
        np.testing.assert_allclose(mine[:, 1], y[real][order], atol=1e-4)
        np.testing.assert_allclose(mine[:, 2], mu[real][order], rtol=5e-3)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_psf_is_galsims_with_pixels_unit_sum_and_the_width_of_the_catalogue(spec: PsfSpec) -> None:
    fwhm = 1.3
    kernel = psf.kernel(spec, fwhm, SCALE, 63)
    profile = galsim.Moffat(beta=spec.beta, fwhm=fwhm) if spec.kind == "moffat" else galsim.Gaussian(fwhm=fwhm)
    want = profile.drawImage(nx=63, ny=63, scale=SCALE).array
    assert kernel.shape[0] < 101
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(kernel - want / want.sum()).max() < 2e-4 * want.max()
    bare = psf.kernel(spec.model_copy(update={"pixel": "included"}), fwhm, SCALE / 8, 401)[200]
    width = np.interp(-0.5 * bare.max(), -bare[200:], np.arange(201)) * 2 * SCALE / 8
    assert width == pytest.approx(fwhm, rel=5e-3)


@pytest.mark.parametrize("spec", SPECS[::3], ids=str)
def test_point_images_land_where_galsim_draws_them(spec: PsfSpec) -> None:
    p = params(family=["point"])
    out = render(p, spec).images[0, 1]
    lens_tuple = tuple(scene_of(p).lens[0])
    total = np.zeros((101, 101))
    for x, y, mu in sources.point_images(lens_tuple, 0.25, -0.1):
        profile = galsim.Moffat(beta=spec.beta, fwhm=1.25) if spec.kind == "moffat" else galsim.Gaussian(fwhm=1.25)
        image = profile.shift(x, y) * (abs(mu) * 10 ** (0.4 * (22.5 - 23.0)))
        total += image.drawImage(nx=101, ny=101, scale=SCALE, dtype=float).array
    assert np.abs(out - total).max() < 1e-3 * total.max()


@pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")  # inside lenstronomy
def test_extended_arcs_agree_with_the_dense_torch_renderer_and_with_lenstronomy() -> None:
    g = np.random.default_rng(6)
    p = params(
        4,
        theta_e=g.uniform(0.7, 2.5, 4),
        q_lens=g.uniform(0.4, 1, 4),
        source_x=g.normal(0, 0.3, 4),
        source_re=g.uniform(0.25, 0.6, 4),
    )
    dense = render(p, backend="dense", supersampling=8)
    for accuracy, bar in ((Accuracy(), 1e-2), (TIGHT, 3e-3)):
        ours = render(p, accuracy=accuracy)
        assert errors(ours.images, dense.images)[0].max() < bar
        np.testing.assert_allclose(ours.lensed_flux, dense.lensed_flux, rtol=3e-3)
    few = {k: v[:2] for k, v in p.items()}
    theirs, ours = render(few, backend="lenstronomy", supersampling=5), render(few)
    assert errors(ours.images, theirs.images)[1].max() < 2e-2
    np.testing.assert_allclose(ours.lensed_flux, theirs.lensed_flux, rtol=1e-2)


def test_clumpy_arcs_agree_with_the_dense_renderer() -> None:
    p = params(
        1, family=["clumpy"], clump_fraction=[0.5], clump_x=[[0.1, -0.2]], clump_y=[[0.05, 0.1]],
        clump_re=[[0.05, 0.08]], clump_share=[[1.0, 0.5]],
    )  # fmt: skip
    dense = render(p, backend="dense", supersampling=16)
    assert errors(render(p).images, dense.images)[0].max() < 1.5e-2


def test_the_stated_accuracy_holds_for_compact_and_smooth_sources() -> None:
    scene = bench_scene().part(20, 120)
    truth = render(scene, accuracy=TRUTH).images
    relative, _ = errors(render(scene).images, truth)
    assert np.percentile(relative, 99) < 1e-2
    assert np.percentile(errors(render(scene, accuracy=TIGHT).images, truth)[1], 99) < 1.2e-3
    coarse = errors(render(scene, accuracy=Accuracy(1, 2.0)).images, truth)[0]
    assert np.percentile(coarse, 90) > 5 * np.percentile(relative, 90)  # the measure can tell


@pytest.mark.slow
def test_the_converged_truth_is_that_of_a_uniform_grid() -> None:
    scene = bench_scene().part(58, 66)
    truth = render(scene, accuracy=TRUTH).images
    dense = render(scene, backend="dense", supersampling=40).images
    assert np.median(errors(dense, truth)[0]) < 1e-3


def test_an_injection_alone_in_a_batch_and_in_threads_is_the_same_bytes() -> None:
    scene = bench_scene().part(40, 80)
    batch = render(scene, threads=1).images
    assert render(scene, threads=3).images.tobytes() == batch.tobytes()
    for i in (0, 17, 39):
        assert render(scene.part(i, i + 1)).images[0].tobytes() == batch[i].tobytes()


def test_bands_share_a_shape_and_scale_with_flux() -> None:
    out = render(params(psfsize_g=1.2, psfsize_r=1.2, psfsize_z=1.2)).images[0]
    np.testing.assert_allclose(out[1], out[0] * 10**0.2, rtol=1e-5)


def test_no_light_gives_exact_zeros() -> None:
    out = render(params(source_mag_g=np.inf, source_mag_r=np.inf, source_mag_z=np.inf))
    assert not out.images.any()


@pytest.mark.parametrize(
    ("column", "value"), [("q_lens", 1.2), ("source_re", 0.0), ("psfsize_g", np.nan), ("theta_e", -1.0)]
)
def test_a_bad_parameter_is_named_with_its_row(column: str, value: float) -> None:
    bad: npt.NDArray[np.float64] = np.array(params(3)[column], dtype=float)
    bad[1] = value
    with pytest.raises(BadInput, match=column) as caught:
        render({**params(3), column: bad})
    assert caught.value.row == 1


def test_surface_brightness_is_conserved_inside_a_large_uniform_source() -> None:
    """A source that fills the caustics has the same brightness lensed or not: the definition of lensing."""
    big = params(
        source_re=8.0, source_n=0.5, source_q=1.0, source_x=0.0, source_y=0.0, q_lens=1.0, gamma1=0.0, gamma2=0.0
    )
    lensed, bare = render(big).images[0, 1], render({**big, "theta_e": np.array([0.0])}).images[0, 1]
    assert lensed[50, 50] == pytest.approx(bare[50, 50], rel=0.03)


def test_the_flux_of_a_lensed_arc_is_that_of_a_polar_quadrature() -> None:
    """Total lensed flux from rings round the lens, a grid that shares nothing with the stamp's pixels."""
    p = params(source_re=0.35, source_n=0.8)
    part = torch.tensor(scene_of(p).parts)
    n = 1200
    radius = (torch.arange(n, dtype=torch.float64) + 0.5) * (7.0 / n)
    angle = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * np.pi / n)
    r, a = torch.meshgrid(radius, angle, indexing="ij")
    bx, by = lens.shoot(r * torch.cos(a), r * torch.sin(a), t(1.3), t(0.7), t(0.6), t(0.03), t(-0.04), t(2.0))
    want = float((r * sources.brightness(bx, by, part)).sum() * (7.0 / n) * (2 * np.pi / n))
    out = render(p)
    assert out.lensed_flux[0, 1] / out.unlensed_flux[0, 1] == pytest.approx(want, rel=3e-3)


# --- power-law lenses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("slope", [1.4, 1.8, 2.05, 2.5])
def test_power_laws_compiled_and_stated_are_lenstronomys(q: float, slope: float) -> None:
    x, y = np.random.default_rng(11).uniform(-5, 5, (2, 2000))
    phi, te = 0.8, 1.5
    e1, e2 = phi_q2_ellipticity(phi, q)
    model = LensModel(["EPL", "SHEAR"])
    kwargs = [{"theta_E": te, "gamma": slope, "e1": e1, "e2": e2, "center_x": 0.1, "center_y": -0.2},
              {"gamma1": 0.05, "gamma2": -0.03, "ra_0": 0.1, "dec_0": -0.2}]  # fmt: skip
    bx, by = model.ray_shooting(x, y, kwargs)
    fxx, fxy, _, fyy = model.hessian(x, y, kwargs)
    want = (bx - 0.1, by + 0.2, 1 - fxx, -fxy, 1 - fyy)
    out = [np.empty(2000) for _ in range(5)]
    rays.shoot(x, y, (0.1, -0.2, q, np.cos(phi), np.sin(phi), te, 0.05, -0.03, slope), True, *out)
    args = (torch.tensor(x - 0.1), torch.tensor(y + 0.2), t(te), t(q), t(phi), t(0.05), t(-0.03), t(slope))
    stated = (*lens.shoot(*args), *lens.jacobian(*args))
    for got, readable, w in zip(out, stated, want, strict=True):
        np.testing.assert_allclose(got, w, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(readable.numpy(), w, rtol=1e-8, atol=1e-8)


def test_an_isothermal_power_law_is_the_isothermal_lens() -> None:
    x, y = np.random.default_rng(12).uniform(-5, 5, (2, 2000))
    for q in (0.3, 0.7, 0.97):
        a, b = ([np.empty(2000) for _ in range(5)] for _ in range(2))
        for out, slope in ((a, 2.0), (b, 2.0 + 1e-12)):
            rays.shoot(x, y, (0.0, 0.0, q, np.cos(0.4), np.sin(0.4), 1.2, 0.02, 0.03, slope), True, *out)
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-8)


@pytest.mark.parametrize("slope", [1.7, 2.3])
def test_point_images_of_a_power_law_are_those_of_lenstronomys_solver(slope: float) -> None:
    g = np.random.default_rng(13)
    model = LensModel(["EPL", "SHEAR"])
    for _ in range(4):
        q, phi, te = g.uniform(0.4, 0.95), g.uniform(0, np.pi), g.uniform(0.6, 2.5)
        g1, g2 = g.normal(0, 0.05, 2)
        sx, sy = g.normal(0, 0.25 * te, 2)
        ours = sources.point_images((0.0137, -0.0091, q, np.cos(phi), np.sin(phi), te, g1, g2, slope), sx, sy)
        e1, e2 = phi_q2_ellipticity(phi, q)
        kwargs = [{"theta_E": te, "gamma": slope, "e1": e1, "e2": e2, "center_x": 0.0137, "center_y": -0.0091},
                  {"gamma1": g1, "gamma2": g2, "ra_0": 0.0137, "dec_0": -0.0091}]  # fmt: skip
        x, y = LensEquationSolver(model).image_position_from_source(
            sx + 0.0137,
            sy - 0.0091,
            kwargs,
            min_distance=0.02,
            search_window=6 * te,
            precision_limit=1e-12,
            num_iter_max=200,
        )
        mu = model.magnification(x, y, kwargs)
        seen = np.abs(mu) > 1e-3  # the solver may return the singular centre; a shallow lens has a faint image near it
        mine = ours[np.abs(ours[:, 2]) > 1e-3]
        order, mine = np.lexsort((y[seen], x[seen])), mine[np.lexsort((mine[:, 1], mine[:, 0]))]
        assert len(mine) == seen.sum()
        np.testing.assert_allclose(mine[:, :2], np.stack([x[seen][order], y[seen][order]], 1), atol=1e-4)
        np.testing.assert_allclose(mine[:, 2], mu[seen][order], rtol=5e-3)


@pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")  # inside lenstronomy
def test_arcs_of_power_laws_agree_with_the_dense_renderer_and_with_lenstronomy() -> None:
    p = params(2, lens_slope=np.array([1.7, 2.4]), source_re=0.35)
    ours, dense = render(p), render(p, backend="dense", supersampling=10)
    assert errors(ours.images, dense.images)[0].max() < 5e-3
    theirs = render(p, backend="lenstronomy", supersampling=5)
    assert errors(ours.images, theirs.images)[1].max() < 2e-2
    np.testing.assert_allclose(ours.lensed_flux, theirs.lensed_flux, rtol=1e-2)
    assert not np.allclose(ours.lensed_flux[0], ours.lensed_flux[1], rtol=0.02)  # the slope matters


@pytest.mark.parametrize("slope", [1.6, 2.5])
def test_a_round_power_law_magnifies_a_small_source_as_its_equation_says(slope: float) -> None:
    """alpha = theta_E (r / theta_E)^(2 - slope): images by bisection of beta = r - alpha, mu = (r / beta) dr/dbeta."""
    te, beta, t1 = 1.4, 0.25, 2.0 - slope

    def source(r: float) -> float:
        return r - te * np.sign(r) * (abs(r) / te) ** t1

    roots = [brentq(lambda r: source(r) - beta, 0.3 * te + beta, 4 * te), brentq(lambda r: source(r) - beta, -te, -0.2)]
    mu = sum(abs(r / beta / (1 - t1 * (abs(r) / te) ** (t1 - 1))) for r in roots)
    p = params(
        q_lens=1.0, gamma1=0.0, gamma2=0.0, theta_e=te, lens_slope=slope, source_x=beta, source_y=0.0,
        source_re=0.015, source_n=0.5, source_q=1.0,
    )  # fmt: skip
    inner = 0.02 if slope < 2 else 0.0  # a shallow lens has a third image near its centre, faint
    assert render(p).lensed_flux[0, 1] / render(p).unlensed_flux[0, 1] == pytest.approx(mu, rel=0.01 + inner)


# --- supplied PSF images ---------------------------------------------------------------------------------------------


def psf_file(folder: Path, images: dict[str, npt.NDArray[np.float64]]) -> str:
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(i, name=f"PSF_{b}") for b, i in images.items())]).writeto(
        folder / "psf.fits"
    )
    return str(folder / "psf.fits")


def test_a_supplied_psf_image_gives_what_its_profile_gives(tmp_path: Path) -> None:
    """Pixels of a Moffat, one a band, against the analytic Moffat: point images, and an arc."""
    spec = PsfSpec(beta=4.5)
    p = params(psfsize_g=1.4, psfsize_r=1.25, psfsize_z=1.1)
    pixels = {b: psf.kernel(spec, float(p[f"psfsize_{b}"][0]), SCALE, 63) for b in "grz"}
    given = PsfSpec(kind="image", file=psf_file(tmp_path, pixels))
    for family in ("sersic", "point"):
        ours, want = render({**p, "family": [family]}, given).images, render({**p, "family": [family]}, spec).images
        assert errors(ours, want)[1].max() < 2e-3
    one, other = (PsfSpec(kind="image", file=given.file, sha256=s) for s in (given.sha256, ""))
    assert one == other


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((63, 63), 1.0), "sum is one"), (np.eye(64) / 64, "odd side"), (np.full((63, 63), np.nan), "finite"),
        (np.roll(galsim.Gaussian(fwhm=4.0).drawImage(nx=63, ny=63, scale=1.0).array, 1, 0), "middle"),
    ],
)  # fmt: skip
def test_pixels_that_are_no_psf_are_refused(tmp_path: Path, image: npt.NDArray[np.float64], message: str) -> None:
    spec = PsfSpec(kind="image", file=psf_file(tmp_path, dict.fromkeys("grz", image)))
    with pytest.raises(BadInput, match=message):
        render(params(), spec)


def test_a_psf_image_is_smaller_than_the_stamp_and_has_all_bands(tmp_path: Path) -> None:
    image = galsim.Gaussian(fwhm=4.0).drawImage(nx=63, ny=63, scale=1.0, dtype=float).array
    whole = PsfSpec(kind="image", file=psf_file(tmp_path, dict.fromkeys("grz", image)))
    with pytest.raises(BadInput, match="not smaller than a stamp of 63"):
        render(params(), whole, size=63)
    (tmp_path / "two").mkdir()
    with pytest.raises(BadInput, match="no PSF of band z"):
        render(params(), PsfSpec(kind="image", file=psf_file(tmp_path / "two", dict.fromkeys("gr", image))))
    with pytest.raises(ValueError, match="belongs to"):
        PsfSpec(kind="moffat", file=whole.file)
