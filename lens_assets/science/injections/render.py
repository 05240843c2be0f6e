"""Arcs from parameters: one call for truth, for scoring, for one injection or for a million.

Each injection is rendered by itself, in float64, with the same operations whatever surrounds it: rendered alone, in a
batch, by one thread or many, it is the same bytes (``backend="torch"``: the same to rounding). Surface
brightness is conserved by construction (it is evaluated in the source plane), so magnification is an output.
Units: nanomaggies per pixel (AB zero point 22.5).

What does not belong here: hosts, noise, where parameters come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.fft

from lens_assets.science.errors import BadInput
from lens_assets.science.injections import quadrature
from lens_assets.science.injections.psf import PsfSpec, convolve, kaiser_bessel, window
from lens_assets.science.injections.scene import Placed, Scene, scene_of
from lens_assets.science.injections.sources import point_images
from lens_assets.science.injections.spread import TAPS
from lens_assets.science.surveys.layout import PIXEL_SCALE

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
SIZE = 101
FAINTEST = 1e-8
"""Pixels below this fraction of a band's peak are exactly zero: no light, and no photon noise."""


@dataclass(frozen=True)
class Accuracy:
    """How far the quadrature goes: up to ``levels`` 4 x 4 splits while the bound of the error exceeds ``tolerance``.

    Measured against a converged truth (``bench``), 200 draws of which 60 are extreme: the default has a 99th percentile of
    the largest relative error over pixels above 1 % of the peak of 3e-3 (the target is 1e-2); ``TIGHT`` has one of the
    largest error of 2e-4 of the peak (1e-3). The same of the default over the prior sets, 300 draws each: 3e-3; for n = 4,
    Re = 0.05" and centres on a caustic, 300 draws: 5e-3. Backends ``adaptive`` and ``torch`` alike. With intervals:
    ``docs/injections.md``, which ``lens_assets.bench.accuracy`` writes.
    """

    levels: int = 4
    tolerance: float = 0.6


TIGHT = Accuracy(levels=5, tolerance=0.02)


@dataclass(frozen=True)
class Arcs:
    """Rendered arcs: images (n, 3, s, s) float32 nmgy/pixel; unlensed and lensed flux (n, 3) float64 nmgy.

    ``lensed_flux`` is the light inside the stamp before the PSF moves any of it out.
    """

    images: F32
    unlensed_flux: F64
    lensed_flux: F64


def grid_side(size: int) -> int:
    """Side of the Fourier grid: the stamp, the deposition window, and some room.

    The wings of an arc 8" from the centre come back at 7.5" or more from it, below 1e-5 of its brightness.
    """
    return int(scipy.fft.next_fast_len(size + TAPS + 4, real=True))


_NO_PLACE = (0.0,) * 7
_NO_IMAGE = (np.zeros((0, 0)), np.zeros((0, 0, 0)), np.zeros((0, 0)))


def image_of(placed: Placed | None) -> tuple[tuple[float, ...], F64, F64, F64]:
    """What the quadrature needs of a real galaxy: its place (``light.PLACE``), pixels, spans and bend; empty without one."""
    if placed is None:
        return (_NO_PLACE, *_NO_IMAGE)
    plane = placed.plane
    place = (placed.x, placed.y, placed.cos, placed.sin, 1.0 / placed.scale, *plane.centre)
    return place, plane.pixels, plane.spans, plane.bend


def psf_of(scene: Scene, i: int, psf: PsfSpec) -> PsfSpec:
    """The PSF of one injection; of ``kind: images`` that of its host's place."""
    if psf.kind != "images":
        return psf
    if not scene.hosts:
        raise BadInput("PSF images of the hosts' places are wanted, and the table names no hosts", column="galaxy_id")
    return psf.at(scene.hosts[i])


def _one(scene: Scene, i: int, psf: PsfSpec, size: int, scale: float, accuracy: Accuracy) -> tuple[F32, float]:
    """One injection: images (3, s, s) and its magnification inside the stamp."""
    if not scene.flux[i].any():
        return np.zeros((3, size, size), dtype=np.float32), 0.0
    n = grid_side(size)
    grid = np.zeros((n, n))
    lens = tuple(scene.lens[i].tolist())
    inner = bool(scene.inner[i])
    if scene.point[i]:
        _deposit_points(lens, scene.source[i], inner, size, scale, grid)
    else:
        flux = np.zeros((size, size))
        parts = scene.parts[scene.offsets[i] : scene.offsets[i + 1]]
        table, first = window(accuracy.levels)
        place, pixels, spans, bend = image_of(scene.images[i])
        quadrature.deposit(
            size, scale, lens, parts, place, pixels, spans, bend, inner, accuracy.levels, accuracy.tolerance, table, first,
            grid, flux,
        )  # fmt: skip
    image, magnification = convolve(grid, scene.flux[i], scene.fwhm[i], psf_of(scene, i, psf), size, scale)
    peak = image.max(axis=(1, 2), keepdims=True)
    image[image < FAINTEST * peak] = 0.0
    return image.astype(np.float32), magnification


def _deposit_points(lens: tuple[float, ...], source: F64, inner: bool, size: int, scale: float, grid: F64) -> None:
    taps = np.arange(TAPS)
    for x, y, mu in point_images(lens, float(source[0]), float(source[1])):
        if mu < 0 and not inner:
            continue
        column, row = x / scale + 0.5 * (size - 1), y / scale + 0.5 * (size - 1)
        i, j = round(column), round(row)
        if not (0 <= i < size and 0 <= j < size):
            continue
        wx, wy = kaiser_bessel(taps - 3 - (column - i)), kaiser_bessel(taps - 3 - (row - j))
        grid[j : j + TAPS, i : i + TAPS] += abs(mu) * wy[:, None] * wx[None, :]


def _batched(
    scene: Scene, psf: PsfSpec, size: int, scale: float, accuracy: Accuracy, device: str, images: F32, mu: F64
) -> list[int]:
    """Fill the rows that the batched renderer can do; the others (point sources, real galaxies, no flux) are returned."""
    import torch

    from lens_assets.science.injections.batched import render_batched

    lit = scene.flux.any(axis=1) & ~scene.point & np.array([p is None for p in scene.images], dtype=bool)
    ours = np.flatnonzero(lit).tolist()
    by_psf: dict[PsfSpec, list[int]] = {}
    for i in ours:
        by_psf.setdefault(psf_of(scene, i, psf), []).append(i)
    for one, rows in by_psf.items():
        for part, found, light in render_batched(
            scene, rows, one, size, grid_side(size), scale, accuracy.levels, accuracy.tolerance, device
        ):
            peak = found.amax((2, 3), keepdim=True)
            made = torch.where(found < FAINTEST * peak, 0.0, found).to(torch.float32)
            if made.is_cuda:  # to page-locked memory, which is many times quicker
                made = torch.empty(made.shape, dtype=made.dtype, pin_memory=True).copy_(made)
            images[part] = made.numpy()
            mu[part] = light.cpu().numpy()
    return np.flatnonzero(~lit).tolist()


def render(
    params: pl.DataFrame | dict[str, Any] | Scene,
    psf: PsfSpec = PsfSpec(),  # noqa: B008 (frozen)
    *,
    size: int = SIZE,
    scale: float = PIXEL_SCALE,
    accuracy: Accuracy = Accuracy(),
    backend: Literal["adaptive", "torch", "dense", "lenstronomy"] = "adaptive",
    threads: int = 1,
    device: str = "cpu",
    supersampling: int = 4,
) -> Arcs:
    """Render arcs.

    Parameters
    ----------
    params : table of parameters (or a ready :class:`Scene`); ``psfsize_{g,r,z}`` hold each host's own seeing (arcsec).
    backend : ``adaptive`` (compiled, default), ``torch`` (the same quadrature for whole batches on any ``device``; point
        sources and real galaxies still go through the compiled code), ``dense`` (torch, uniform ``supersampling``, any
        ``device``) or ``lenstronomy`` (the community's code, the reference).
    threads : for ``adaptive``; the result does not depend on it.

    Raises :class:`BadInput` for parameters out of their domain.
    """
    scene = params if isinstance(params, Scene) else scene_of(params)
    if backend in ("dense", "lenstronomy"):
        from lens_assets.science.injections import reference

        if backend == "dense":
            images, mu = reference.dense(scene, psf, size, scale, supersampling, device)
        else:
            images, mu = reference.lenstronomy(scene, psf, size, scale, supersampling)
        return Arcs(images, scene.flux, scene.flux * mu[:, None])
    images = np.empty((len(scene), 3, size, size), dtype=np.float32)
    mu = np.empty(len(scene))

    def work(rows: Sequence[int]) -> None:
        for i in rows:
            images[i], mu[i] = _one(scene, i, psf, size, scale, accuracy)

    rows: Sequence[int] = range(len(scene))
    if backend == "torch":
        rows = _batched(scene, psf, size, scale, accuracy, device, images, mu)
    if threads <= 1 or len(rows) < 2:
        work(rows)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, [rows[k : k + 8] for k in range(0, len(rows), 8)]))
    return Arcs(images, scene.flux, scene.flux * mu[:, None])
