"""The true lenses: mass, source, and arcs as the sky would show them, before noise.

Mass: elliptical power law with octupole-like multipoles, external shear and now and then a perturber, from
lenstronomy. Never a plain SIE. Sources: star-forming discs of clumps or arms with colour gradients, in the source
plane; or quasars. The supersampled arcs are carried to the survey's pixels in Fourier space (exact for a band-limited
PSF). None of this is the injection engine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from lens_assets.science.mock.deflectors import Deflector
from lens_assets.science.mock.galaxies import fluxes, tint
from lens_assets.science.mock.render import Profile, edge_taper
from lens_assets.science.mock.settings import Settings
from lens_assets.science.surveys.layout import PIXEL_SCALE

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Lens:
    """A lens: deflector, mass model (lenstronomy names and keywords), source (components in arcsec, source plane) and
    truth."""

    deflector: Deflector
    models: list[str]
    keywords: list[dict[str, float]]
    clumps: list[tuple[float, float, float, float, float, float, F64]]
    beta: tuple[float, float]
    source_flux: F64
    truth: dict[str, Any]
    quasar: F64 | None = None
    perturber: Profile | None = None


def make_lens(d: Deflector, s: Settings, rng: Rng) -> Lens:
    """A lens system round a deflector."""
    axis = float(np.clip(d.q + 0.08 * rng.normal(), 0.45, 0.98))
    angle = d.pa + np.radians(10) * rng.normal()
    e = (1 - axis) / (1 + axis)
    gamma = float(np.clip(rng.normal(*s.mass_slope), 1.7, 2.4))
    g1, g2 = s.shear * rng.normal(size=2)
    a3, a4 = s.multipole * rng.normal(size=2) * 0.7, s.multipole * rng.normal()
    models = ["EPL_MULTIPOLE_M3M4", "SHEAR"]
    keywords: list[dict[str, float]] = [
        {
            "theta_E": d.theta_e, "gamma": gamma, "e1": e * np.cos(2 * angle), "e2": e * np.sin(2 * angle),
            "center_x": 0.02 * rng.normal(), "center_y": 0.02 * rng.normal(), "a3_a": float(a3[0]),
            "delta_phi_m3": float(rng.uniform(0, np.pi / 3)), "a4_a": float(a4), "delta_phi_m4": 0.0,
        },
        {"gamma1": float(g1), "gamma2": float(g2)},
    ]  # fmt: skip
    perturber = None
    if rng.random() < s.perturber_share:
        r, at = d.theta_e * rng.uniform(1.6, 4.0), rng.uniform(0, 2 * np.pi)
        x, y, share = float(r * np.cos(at)), float(r * np.sin(at)), float(rng.uniform(0.02, 0.15))
        models.append("SIS")
        keywords.append({"theta_E": d.theta_e * share**0.5 * 0.6, "center_x": x, "center_y": y})
        flux = d.flux * share
        re = max(d.re * share**0.4, 0.2) / PIXEL_SCALE
        perturber = Profile(4.0, re, rng.uniform(0.5, 1), rng.uniform(0, np.pi), flux, x / PIXEL_SCALE, y / PIXEL_SCALE)
    offset, at = s.beta_max * d.theta_e * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    beta = (float(offset * np.cos(at)), float(offset * np.sin(at)))
    quasar = rng.random() < s.quasar_share
    source_flux, gr, rz, dusty = _source_colours(s, rng, bool(quasar))
    re_s = float(np.clip(s.source_re[0] * np.exp(s.source_re[1] * rng.normal()), 0.05, 1.2))
    clumps = _source(beta, re_s, source_flux * (0.25 if quasar else 1.0), rng)
    truth = {
        "kind": "quasar" if quasar else "galaxy",
        "theta_e": d.theta_e,
        "z_lens": d.z,
        "z_source": d.z_source,
        "sigma_v": d.sigma_v,
        "mass_slope": gamma,
        "mass_q": axis,
        "mass_pa": float(np.degrees(angle) % 180),
        "shear": float(np.hypot(g1, g2)),
        "a4_a": float(a4),
        "perturbed": perturber is not None,
        "beta": float(offset),
        "source_re": re_s,
        "source_mag_r": float(22.5 - 2.5 * np.log10(source_flux[1])),
        "source_gr": gr,
        "source_rz": rz,
        "source_dusty": dusty,
        "clumps": len(clumps) - 2,
    }
    return Lens(d, models, keywords, clumps, beta, source_flux, truth, source_flux if quasar else None, perturber)


def _source_colours(s: Settings, rng: Rng, quasar: bool) -> tuple[F64, float, float, bool]:
    mean, scatter, brightest, faintest = s.source_r
    if quasar:
        mean, brightest = mean - 1.3, brightest - 1.3
    mag = 99.0
    while not brightest <= mag <= faintest:
        mag = float(rng.normal(mean, scatter))
    dusty = bool(rng.random() < s.red_sources)
    gr, rz = float(rng.normal(*s.source_gr)) + 0.8 * dusty, float(rng.normal(*s.source_rz)) + 0.5 * dusty
    return fluxes(mag - rz, rz, gr), gr, rz, dusty


def _source(
    beta: tuple[float, float], re: float, flux: F64, rng: Rng
) -> list[tuple[float, float, float, float, float, float, F64]]:
    """Disc, bulge and clumps: (x, y, width, axis ratio, angle, index of the radial law, fluxes), arcsec in the source
    plane.

    Index 1 is an exponential of half-light radius ``width``, index 0.5 a Gaussian of sigma ``width``.
    """
    q, pa = float(rng.uniform(0.3, 1.0)), float(rng.uniform(0, np.pi))
    bulge, clumpy = float(rng.beta(1, 7)), float(rng.uniform(0.15, 0.65))
    out = [
        (*beta, re, q, pa, 1.0, flux * (1 - bulge - clumpy * (1 - bulge))),
        (*beta, 0.2 * re, 0.8, pa, 0.5, tint(flux, rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.4)) * bulge),
    ]
    count = int(rng.integers(3, 15))
    share = np.exp(0.8 * rng.normal(size=count))
    blue = tint(flux, -rng.uniform(0, 0.3), -rng.uniform(0, 0.2)) * clumpy * (1 - bulge)
    if rng.random() < 0.5:  # along two arms
        t = rng.uniform(0.3, 2.2, count)
        theta = 2.2 * t + np.pi * rng.integers(0, 2, count)
        u, v = 0.8 * re * t * np.cos(theta), 0.8 * re * t * np.sin(theta) * q
    else:
        u, v = rng.normal(0, 0.9 * re, count), rng.normal(0, 0.9 * re * q, count)
    for i in range(count):
        x = beta[0] + u[i] * np.cos(pa) - v[i] * np.sin(pa)
        y = beta[1] + u[i] * np.sin(pa) + v[i] * np.cos(pa)
        width = float(np.clip(re * rng.uniform(0.1, 0.3), 0.04, 0.2))
        out.append((float(x), float(y), width, 1.0, 0.0, 0.5, blue * share[i] / share.sum()))
    return out


def brightness(x: F64, y: F64, clumps: list[tuple[float, float, float, float, float, float, F64]]) -> F64:
    """Surface brightness (3, ...), nanomaggies an arcsec^2, of a source at source-plane positions (arcsec)."""
    shapes, mixing = populations(x, y, clumps)
    return np.tensordot(mixing, shapes, axes=1)


def populations(x: F64, y: F64, clumps: list[tuple[float, float, float, float, float, float, F64]]) -> tuple[F64, F64]:
    """A source as three stellar populations (disc, bulge, clumps): shapes (3, ...) and fluxes (band, population)."""
    shapes, mixing = np.zeros((3, *x.shape)), np.zeros((3, 3))
    for i, (cx, cy, width, q, pa, index, flux) in enumerate(clumps):
        group = min(i, 2)
        mixing[:, group] += flux
        dx, dy = x - cx, y - cy
        if index == 1.0:
            h = width / 1.6783469900166605
            r = np.hypot(dx * np.cos(pa) + dy * np.sin(pa), (dy * np.cos(pa) - dx * np.sin(pa)) / q)
            value = np.exp(-r / h) / (2 * np.pi * h**2 * q)
            shapes[group] += flux[1] * value
        else:
            r2 = (dx**2 + dy**2) / width**2
            near = r2 < 30
            shapes[group][near] += flux[1] / (2 * np.pi * width**2) * np.exp(-0.5 * r2[near])
    return shapes, mixing / np.where(mixing[1] > 0, mixing[1], 1.0)


def arc_box(lens: Lens) -> tuple[int, int]:
    """Side of the arcs' stamp (pixels) and supersampling: at least 5 a pixel, more where the system is small."""
    need = 2 * (2.3 * lens.deflector.theta_e + 2.5 * lens.truth["source_re"] + 2.0) / PIXEL_SCALE
    side = next((n for n in (40, 48, 64, 80, 96) if n >= need), 96)
    return side, {40: 6}.get(side, 5)


def arcs(lens: Lens) -> tuple[npt.NDArray[np.complex128], F64, list[tuple[float, float, float]]]:
    """Transfer images of the lensed source: (3, n, n // 2 + 1) before any PSF, total lensed flux a band, and point
    images.

    The phase is that of an image whose centre is the corner of the transform; point images are (x, y in pixels,
    magnification).
    """
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

    n, over = arc_box(lens)
    step = PIXEL_SCALE / over
    axis = (np.arange(n * over) - n * over / 2) * step
    x, y = np.meshgrid(axis, axis)
    model = LensModel(lens.models)
    bx, by = model.ray_shooting(x.ravel(), y.ravel(), lens.keywords)
    shapes, mixing = populations(np.reshape(bx, x.shape), np.reshape(by, x.shape), lens.clumps)
    image = shapes * step**2
    spectrum = fft.rfft2(fft.ifftshift(image, axes=(1, 2)), axes=(1, 2))
    low = np.concatenate([spectrum[:, : n // 2], spectrum[:, -(n // 2) :]], axis=1)[:, :, : n // 2 + 1]
    low, total = np.tensordot(mixing, low, axes=1), mixing @ image.sum(axis=(1, 2))
    points: list[tuple[float, float, float]] = []
    if lens.quasar is not None:
        solver = LensEquationSolver(model)
        px, py = solver.image_position_from_source(
            *lens.beta, lens.keywords, min_distance=0.08, search_window=n * PIXEL_SCALE * 0.9, precision_limit=1e-6
        )
        mu = np.abs(model.magnification(px, py, lens.keywords))
        points = [
            (float(a) / PIXEL_SCALE, float(b) / PIXEL_SCALE, float(m)) for a, b, m in zip(px, py, mu, strict=True)
        ]
        total = total + lens.quasar * sum(p[2] for p in points)
    return low, np.asarray(total), points


def draw_arcs(
    spectrum: npt.NDArray[np.complex128], points: list[tuple[float, float, float]], quasar: F64 | None,
    dx: float, dy: float, psf: list[F64 | None],
) -> list[F32 | None]:  # fmt: skip
    """The arcs' stamps through the PSF, centre at (n // 2 + dx, n // 2 + dy); ``None`` for a band without PSF."""
    n = spectrum.shape[1]
    kx, ky = 2 * np.pi * np.fft.rfftfreq(n), 2 * np.pi * np.fft.fftfreq(n)
    shift = np.exp(-1j * ky * (n // 2 + dy))[:, None] * np.exp(-1j * kx * (n // 2 + dx))[None, :]
    dots = np.zeros((n, n // 2 + 1), complex)
    for x, y, mu in points:
        dots += mu * np.exp(-1j * ky * y)[:, None] * np.exp(-1j * kx * x)[None, :]
    images: list[F32 | None] = []
    for b, p in enumerate(psf):
        if p is None:
            images.append(None)
            continue
        total = spectrum[b] + (quasar[b] * dots if quasar is not None else 0)
        images.append((fft.irfft2(total * p * shift, s=(n, n)) * edge_taper(n)).astype(np.float32))
    return images
