"""Parity with lenstronomy at converged sampling, over the whole prior and its extremes.

lenstronomy gives the map and the light (``LensModel.ray_shooting``, ``LightModel.surface_brightness``); a quadrature of its
own takes them to convergence: Gauss-Legendre rules of 2 x 2 and 3 x 3 points in cells of half a pixel, halved wherever the
two differ. A uniform grid will not do: at cusps 40 x 40 samples a pixel are still 4e-3 off. It shares with our renderer
only the PSF; ``with_their_psf`` shares nothing.

What does not belong here: rates (``bench``), the tables of the page (``lens_assets.bench.accuracy``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from lens_assets.science.hashing import generator
from lens_assets.science.injections.bench import errors
from lens_assets.science.injections.draws import Draws, parameters
from lens_assets.science.injections.lens import lens_map
from lens_assets.science.injections.priors import load_priors
from lens_assets.science.injections.psf import PsfSpec, convolve, kaiser_bessel
from lens_assets.science.injections.reference import lenstronomy_models
from lens_assets.science.injections.render import SIZE, TIGHT, Accuracy, grid_side, render
from lens_assets.science.injections.scene import Scene, scene_of
from lens_assets.science.injections.spread import NODES, TAPS, WEIGHTS
from lens_assets.science.injections.variants import Variant
from lens_assets.science.surveys.layout import PIXEL_SCALE

F64 = npt.NDArray[np.float64]
PERCENTILES = (50.0, 90.0, 99.0, 100.0)
CONVERGED = 3e-6
"""A cell is halved while its two rules differ by more than this share of the largest flux of any pixel."""
DEEPEST = 14
"""Halvings at most: cells of 8e-6"."""


def prior_scene(name: str, n: int, seed: int = 20261128) -> Scene:
    """n draws of a prior set: isothermal and power-law lenses, smooth and clumpy sources, in turn; theta_E 0.5" to 3"."""
    g = generator("parity", name, seed)
    frames = []
    for i in range(n):
        row = pl.DataFrame({
            "galaxy_id": [f"10000-330000-{i}"], "psf_bin": [0], "depth_bin": [0], "index": [i],
            "q_host": [float(g.uniform(0.4, 1.0))], "pa_host": [float(g.uniform(0.0, 180.0))],
        })  # fmt: skip
        theta, family = float(g.uniform(0.5, 3.0)), np.array(["clumpy" if i % 4 >= 2 else "sersic"])
        variant = Variant(name="parity", summary="", lens="epl" if i % 2 else "sie")
        values = parameters(row, variant, load_priors()[name], theta, family, Draws(row, theta, seed))
        fwhm = float(g.uniform(0.85, 1.8))
        frames.append(
            pl.DataFrame(values).with_columns(
                pl.lit(theta).alias("theta_e"),
                pl.lit(str(family[0])).alias("family"),
                *(pl.lit(fwhm * f).alias(f"psfsize_{b}") for b, f in (("g", 1.09), ("r", 1.0), ("z", 0.95))),
                *(pl.col(c).cast(pl.List(pl.Float64)) for c in ("clump_x", "clump_y", "clump_re", "clump_share")),
            )
        )
    return scene_of(pl.concat(frames))


def corner_scene(n: int, seed: int = 20261128, first: int | None = None) -> Scene:
    """The corner of the prior: n = 4, Re = 0.05", centres on the tangential caustic, at folds and cusps in turn.

    ``first`` : so many of the n draws alone (caustics take their time).
    """
    g = generator("parity corner", seed)
    lens = {
        "theta_e": g.uniform(0.5, 3.0, n), "q_lens": g.uniform(0.4, 0.95, n), "phi_lens": g.uniform(0, np.pi, n),
        "gamma1": g.normal(0, 0.05, n), "gamma2": g.normal(0, 0.05, n), "lens_slope": np.where(np.arange(n) % 4 < 2, 2.0, 2.2),
    }  # fmt: skip
    along = g.uniform(size=n)
    fwhm = g.uniform(0.85, 1.8, n)
    table = {
        **lens, "lens_x": g.normal(0, 0.05, n), "lens_y": g.normal(0, 0.05, n),
        "source_q": g.uniform(0.3, 1.0, n), "source_phi": g.uniform(0, np.pi, n),
        "source_re": np.full(n, 0.05), "source_n": np.full(n, 4.0),
        "source_mag_g": np.full(n, 24.0), "source_mag_r": np.full(n, 23.8), "source_mag_z": np.full(n, 23.6),
        "psfsize_g": 1.09 * fwhm, "psfsize_r": fwhm, "psfsize_z": 0.95 * fwhm,
    }  # fmt: skip
    table = {name: values[:first] for name, values in table.items()}
    drawn = range(len(table["theta_e"]))
    at = np.array([on_caustic({k: float(table[k][i]) for k in lens}, i % 2 == 1, along[i]) for i in drawn])
    return scene_of({**table, "source_x": at[:, 0], "source_y": at[:, 1]})


def on_caustic(lens: dict[str, float], cusp: bool, where: float) -> tuple[float, float]:
    """A source position (arcsec from the lens) on the tangential caustic: its slowest point, a cusp, or at ``where`` of it.

    The critical curve is where det A = 0 first, coming from outside, on each of 720 rays; found by bisection.
    """
    angle = torch.linspace(0, 2 * np.pi, 721, dtype=torch.float64)[:-1]
    names = ("theta_e", "q_lens", "phi_lens", "gamma1", "gamma2", "lens_slope")
    values = [torch.tensor(lens[k], dtype=torch.float64) for k in names]
    low, high = torch.full_like(angle, 0.5 * lens["theta_e"]), torch.full_like(angle, 3.0 * lens["theta_e"])
    for _ in range(60):
        middle = 0.5 * (low + high)
        _, _, a11, a12, a22 = lens_map(middle * torch.cos(angle), middle * torch.sin(angle), *values)
        outside = a11 * a22 - a12 * a12 > 0
        low, high = torch.where(outside, low, middle), torch.where(outside, middle, high)
    bx, by, *_ = lens_map(high * torch.cos(angle), high * torch.sin(angle), *values)
    speed = torch.hypot(bx.roll(-1) - bx.roll(1), by.roll(-1) - by.roll(1))
    k = int(speed.argmin()) if cusp else int(where * 720)
    return float(bx[k]), float(by[k])


def _nodes(cells: F64, side: F64, g: int) -> tuple[F64, F64, F64]:
    """Positions (m, g, g, in pixels) and weights (g, g) of the rule of g x g points in cells (m, 2: column, row)."""
    step = NODES[g - 1, :g]
    x = cells[:, 0, None, None] + side[:, None, None] * step[None, None, :] + np.zeros((1, g, 1))
    y = cells[:, 1, None, None] + side[:, None, None] * step[None, :, None] + np.zeros((1, 1, g))
    return x, y, WEIGHTS[g - 1, :g, None] * WEIGHTS[g - 1, None, :g]


def their_samples(scene: Scene, i: int, size: int = SIZE, converged: float = CONVERGED) -> F64:
    """lenstronomy's light of one injection as weighted points (m, 3): column and row (pixels), flux (of one unit)."""
    model, kwargs = lenstronomy_models(scene, i, PsfSpec(), 2, size, PIXEL_SCALE, 1, kernel_on=None)
    lens, light = model.LensModel, model.SourceModel
    middle = 0.5 * (size - 1)

    def flux(x: F64, y: F64, side: F64) -> F64:
        tx, ty = ((v.ravel() - middle) * PIXEL_SCALE for v in (x, y))
        found = light.surface_brightness(*lens.ray_shooting(tx, ty, kwargs["kwargs_lens"]), kwargs["kwargs_source"])
        area = (side * PIXEL_SCALE) ** 2 / scene.flux[i, 2]
        return np.asarray(found.reshape(x.shape) * area[:, None, None])

    row, column = np.divmod(np.arange((2 * size) ** 2), 2 * size)
    cells = np.stack([column, row], axis=1) / 2 - 0.25
    side = np.full(len(cells), 0.5)
    points: list[F64] = []
    allowed = 0.0
    for depth in range(DEEPEST + 1):
        x, y, w = _nodes(cells, side, 3)
        fine = flux(x, y, side) * w
        x2, y2, w2 = _nodes(cells, side, 2)
        total = fine.sum((1, 2))
        gap = np.abs(total - (flux(x2, y2, side) * w2).sum((1, 2)))
        if depth == 0:
            allowed = converged * float(total.reshape(size, 2, size, 2).sum((1, 3)).max())
        # the first two halvings are also made wherever there is light that a rule could have missed
        again = (gap > allowed) | ((depth < 2) & (total > 300 * allowed))
        if depth == 0:  # an image beside the lens's centre may be smaller than a cell
            away = np.abs(cells - middle - scene.lens[i, :2] / PIXEL_SCALE).max(axis=1)
            again |= away < 1.5
        again &= depth < DEEPEST
        keep = ~again
        points.append(np.stack([v[keep].ravel() for v in (x, y, fine)], axis=1))
        if not again.any():
            break
        quarter = 0.25 * side[again, None]
        parents = cells[again]
        cells = np.concatenate([parents + quarter * np.array(d) for d in ((-1, -1), (1, -1), (-1, 1), (1, 1))])
        side = np.tile(0.5 * side[again], 4)
    return np.concatenate(points)


def their_image(
    scene: Scene, i: int, psf: PsfSpec, size: int = SIZE, converged: float = CONVERGED
) -> tuple[F64, float]:
    """Images (3, size, size) of lenstronomy's light through our PSF, and its magnification inside the stamp."""
    x, y, f = their_samples(scene, i, size, converged).T
    lit = f > 1e-14
    x, y, f = x[lit], y[lit], f[lit]
    n = grid_side(size)
    grid = np.zeros(n * n)
    column, row = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    taps = np.arange(TAPS)
    wx = kaiser_bessel(taps - TAPS // 2 - (x - column)[:, None])
    wy = kaiser_bessel(taps - TAPS // 2 - (y - row)[:, None]) * f[:, None]
    for v in range(TAPS):
        for u in range(TAPS):
            grid += np.bincount((row + v) * n + column + u, wy[:, v] * wx[:, u], minlength=n * n)
    return convolve(grid.reshape(n, n), scene.flux[i], scene.fwhm[i], psf, size, PIXEL_SCALE)


def with_their_psf(scene: Scene, i: int, psf: PsfSpec, m: int = 12) -> F64:
    """lenstronomy alone, its own convolution on its own supersampled grid of m x m a pixel: (size, size), z band."""
    model, kwargs = lenstronomy_models(scene, i, psf, 2, SIZE, PIXEL_SCALE, m)
    return np.asarray(model.image(**kwargs))


def differences(scene: Scene, psf: PsfSpec | None = None, converged: float = CONVERGED) -> dict[str, dict[str, F64]]:
    """Errors of the default and the tight setting against lenstronomy's light at converged sampling, an injection each (n,).

    Per setting: ``relative`` (above 1 % of the peak) and ``of_peak``, worst pixel of the worst band; and ``magnification``,
    absolute relative difference.
    """
    psf = psf or PsfSpec()
    made = [their_image(scene, i, psf, SIZE, converged) for i in range(len(scene))]
    theirs, mu = np.stack([image for image, _ in made]), np.array([m for _, m in made])
    found = {}
    for name, accuracy in (("default", Accuracy()), ("tight", TIGHT)):
        ours = render(scene, psf, accuracy=accuracy)
        relative, of_peak = errors(ours.images, theirs)
        magnification = np.abs(ours.lensed_flux[:, 2] / (scene.flux[:, 2] * mu) - 1)
        found[name] = {"relative": relative, "of_peak": of_peak, "magnification": magnification}
    return found


def parity(scene: Scene, psf: PsfSpec | None = None, converged: float = CONVERGED) -> dict[str, Any]:
    """``differences`` of ``n`` injections: ``relative`` and ``of_peak`` at ``PERCENTILES``, the largest ``magnification``."""
    found: dict[str, Any] = {"n": len(scene)}
    for name, d in differences(scene, psf, converged).items():
        found[name] = {
            "relative": np.percentile(d["relative"], PERCENTILES).tolist(),
            "of_peak": np.percentile(d["of_peak"], PERCENTILES).tolist(),
            "magnification": float(d["magnification"].max()),
        }
    return found
