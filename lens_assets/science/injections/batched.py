"""The adaptive renderer for many injections at once, in torch: one code for CPU and GPU (``render(backend="torch")``).

The quadrature of ``quadrature``, rule for rule and bound for bound, over flat lists of the cells of all injections: one
list a level, no loop over injections. Its error against a converged truth is therefore that of the compiled renderer
(``render.Accuracy``), and the two agree to rounding. float64 throughout.

Each pixel owns what is refined inside it: the 7 x 7 window weights of a cell's samples are added up over its sixteen
parts, level by level, and reach the grid one tap at a time with no pixel twice in a list. So there is no atomic addition,
and two runs on one device are the same bytes. Vector widths may differ with the length of a list: a row beside other
rows is the same to rounding (float32 images to about one unit in the last place), not by contract the same bytes, which
the compiled renderer promises.

What does not belong here: the profile and its bounds (``tensors``), point sources, real galaxies (the compiled renderer's).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lens_assets.science.injections.psf import PsfSpec, tables, window
from lens_assets.science.injections.quadrature import MIDPOINT, MOST, WHOLE
from lens_assets.science.injections.scene import Scene
from lens_assets.science.injections.spread import NODES, SPLIT, TAPS, WEIGHTS
from lens_assets.science.injections.tensors import Batch, batch_of, bounds, brightness, reach

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Tensor = torch.Tensor
ROUGH = 3 << 23
"""Bytes that one injection may need at a tolerance of ``LOOSE`` or more, twice what the benchmark's need (10.8 MiB each on an
H200); more components need no more, they are worked on one after another. Where it is not enough, fewer are taken at a time."""
FINE = 3 << 25
"""The same for smaller tolerances."""
LOOSE = 0.1
CPU_CHUNK = 16
"""Injections at a time on a CPU, where larger lists fall out of the caches."""


@dataclass(frozen=True)
class _Frame:
    size: int
    scale: float
    levels: int
    tolerance: float
    table: Tensor
    first: npt.NDArray[np.int64]

    def at(self, cell: Tensor, side: int) -> Tensor:
        """Position (arcsec) of the middles of cells that are ``side`` a pixel (and, with fractions added, of nodes)."""
        return ((cell.to(torch.float64) + 0.5) / side - 0.5 - 0.5 * (self.size - 1)) * self.scale


@dataclass(frozen=True)
class _Cells:
    """Cells of one level: injection, row and column (m,), int64."""

    which: Tensor
    row: Tensor
    column: Tensor

    def __len__(self) -> int:
        return self.which.numel()

    def some(self, k: Tensor) -> _Cells:
        return _Cells(self.which[k], self.row[k], self.column[k])


def render_batched(
    scene: Scene, rows: list[int], psf: PsfSpec, size: int, side: int, scale: float, levels: int, tolerance: float,
    device: str, chunk: int | None = None,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:  # fmt: skip
    """Rows of extended sources, in chunks: (rows, images (n, 3, size, size) float64, magnifications (n,)) on ``device``.

    ``side`` is that of the Fourier grid. Rows are taken in the order of kind of lens and number of components, so that a
    chunk is alike; ``chunk`` is how many at a time (a quarter of the device's free memory, or ``CPU_CHUNK``). A GPU is busy
    from about a thousand on: below, the time is that of launching some four thousand kernels a chunk. Where the memory of the
    device is not enough, half as many are tried.
    """
    count = np.diff(scene.offsets)
    isothermal = (scene.lens[:, 8] == 2.0) | (scene.lens[:, 5] == 0.0)
    order = sorted(rows, key=lambda i: (not isothermal[i], count[i], i))
    if chunk is None:
        chunk = CPU_CHUNK
        if torch.device(device).type == "cuda":
            chunk = max(1, int(torch.cuda.mem_get_info(device)[0]) // 4 // (ROUGH if tolerance >= LOOSE else FINE))
    table, first = window(levels)
    frame = _Frame(size, scale, levels, tolerance, torch.tensor(table, device=device), first)
    start = 0
    while start < len(order):
        part = [i for i in order[start : start + chunk] if isothermal[i] == isothermal[order[start]]]
        try:
            grid = _deposit(batch_of(scene, part, device), frame, side)
            flux, fwhm = (torch.tensor(a[part], device=device) for a in (scene.flux, scene.fwhm))
            images, mu = _convolve(grid, flux, fwhm, psf, size, scale)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            chunk = len(part) // 2
            continue
        start += len(part)
        yield part, images, mu


def _rules(e1: Tensor, e2: Tensor, e3: Tensor, allowed: Tensor, *, last: bool) -> Tensor:
    """``quadrature._rule``: points per axis that are enough, or 0: split."""
    worst = torch.full_like(e1, 3.0 if last else 0.0)
    found = torch.where(e3 <= allowed, 3.0, worst)
    found = torch.where(e2 <= allowed, 2.0, found)
    return torch.where(MIDPOINT * e1 <= allowed, 1.0, found).to(torch.int8)


def _allowed(flux: Tensor, tolerance: float) -> Tensor:
    """``quadrature._floor_of_error`` of pixels (n, s, s): tolerance times the 5 x 5 mean, at least 1 % of its peak."""
    mean = torch.nn.functional.avg_pool2d(flux[:, None].clamp(max=MOST), 5, stride=1, padding=2)[:, 0]
    return tolerance * torch.maximum(mean, 0.01 * mean.amax((1, 2), keepdim=True))


def _around(plane: Tensor, fill: float) -> tuple[Tensor, ...]:
    """The four neighbours of every place of planes (n, s, s)."""
    p = torch.nn.functional.pad(plane, (1, 1, 1, 1), value=fill)
    return p[:, 2:, 1:-1], p[:, :-2, 1:-1], p[:, 1:-1, 2:], p[:, 1:-1, :-2]


def _mended(sb: Tensor, rule: Tensor, weak: Tensor) -> Tensor:
    """End correction of the midpoint rule (h^2 / 24 df/dn) where ``weak`` cells of one sample meet cells with a better rule.

    All (n, s, s); ``rule`` is -1 where there is no cell. Every place gathers, so the order of additions is fixed.
    """
    here = sb / 24.0
    better = (rule != 1) & (rule >= 0)
    lost = sum(b > 0 for b in _around(better.to(sb.dtype), 0.0)) * here
    gained = sum(torch.minimum(here, 4.0 * s) for s in _around(torch.where(weak, here, 0.0), 0.0))
    return torch.where(weak, -lost, 0.0) + torch.where(better, gained, 0.0)


def _patches(cells: _Cells, values: Tensor, g: int, level: int, frame: _Frame) -> Tensor:
    """Window weights (m, TAPS, TAPS) of ``values`` (m, g, g) at the nodes of cells of a level."""
    side = SPLIT**level
    start = int(frame.first[level, g - 1])
    nodes = torch.arange(g, device=values.device)
    wy = frame.table[start + (cells.row % side)[:, None] * g + nodes]
    wx = frame.table[start + (cells.column % side)[:, None] * g + nodes]
    total = torch.zeros((len(cells), TAPS, TAPS), dtype=values.dtype, device=values.device)
    for b in range(g):
        strip = values[:, b, 0, None] * wx[:, 0]
        for a in range(1, g):
            strip = strip + values[:, b, a, None] * wx[:, a]
        total += wy[:, b, :, None] * strip[:, None, :]
    return total


def _gauss(batch: Batch, cells: _Cells, g: int, level: int, frame: _Frame) -> tuple[Tensor, Tensor]:
    """Cells by the rule of g x g points: their window weights and their fluxes."""
    side = SPLIT**level
    nodes = torch.tensor(NODES[g - 1, :g], device=batch.device)
    weights = torch.tensor(WEIGHTS[g - 1, :g], device=batch.device)
    m = len(cells)
    y = frame.at(cells.row[:, None, None] + nodes[None, :, None], side).expand(m, g, g).reshape(-1)
    x = frame.at(cells.column[:, None, None] + nodes[None, None, :], side).expand(m, g, g).reshape(-1)
    sb = brightness(batch, cells.which.repeat_interleave(g * g), x, y).view(m, g, g) * (frame.scale / side) ** 2
    return _patches(cells, sb, g, level, frame), (sb * weights[:, None] * weights).sum((1, 2))


def _deposit(batch: Batch, frame: _Frame, n: int) -> Tensor:
    """The sources of a batch, integrated and spread to grids (b, n, n); pixel (j, i) is at (j + 3, i + 3)."""
    size, scale, device = frame.size, frame.scale, batch.device
    axis = frame.at(torch.arange(size, device=device), 1)
    away = (axis - batch.lens[0, :, None])[:, None, :] ** 2 + (axis - batch.lens[1, :, None])[:, :, None] ** 2
    lit = away < reach(batch, 1.5 * size * scale, 2.0 * scale)[:, None, None] ** 2
    cells = _Cells(*torch.nonzero(lit).unbind(1))
    place = (cells.which * size + cells.row) * size + cells.column
    area = scale * scale
    sb, *e = bounds(batch, cells.which, axis[cells.column], axis[cells.row], scale)
    e1, e2, e3 = (v * area for v in e)
    flux = torch.zeros(lit.numel(), dtype=torch.float64, device=device)
    flux[place] = sb * area
    allowed = _allowed(flux.view(lit.shape), WHOLE * frame.tolerance).view(-1)
    found = _rules(e1, e2, e3, allowed[place], last=frame.levels == 0)
    rule = torch.ones(lit.numel(), dtype=torch.int8, device=device)
    weak = torch.zeros(lit.numel(), dtype=torch.bool, device=device)
    rule[place] = found
    weak[place] = (found == 1) & (MIDPOINT * e1 >= 1e-3 * allowed[place])
    planes = (v.view(lit.shape) for v in (flux, rule, weak))
    plain = torch.where(rule == 1, flux, 0.0) + _mended(*planes).view(-1)
    grid = torch.zeros((lit.shape[0], n, n), dtype=torch.float64, device=device)
    _whole(plain.view(lit.shape), frame.table[0], grid)
    better = torch.nonzero(found != 1)[:, 0]
    cells, found, place = cells.some(better), found[better], place[better]
    patches = torch.zeros((len(cells), TAPS, TAPS), dtype=torch.float64, device=device)
    for g in (2, 3):
        k = torch.nonzero(found == g)[:, 0]
        patches[k], flux[place[k]] = _gauss(batch, cells.some(k), g, 0, frame)
    k = torch.nonzero(found == 0)[:, 0]
    if k.numel():
        patches[k] = _split(batch, cells.some(k), 1, frame, flux.view(lit.shape), allowed)
    corner = (cells.which * n + cells.row) * n + cells.column
    flat = grid.view(-1)
    for v in range(TAPS):
        for u in range(TAPS):  # no place is twice in the list of one tap
            flat[corner + (v * n + u)] += patches[:, v, u]
    return grid


def _whole(plain: Tensor, taps: Tensor, grid: Tensor) -> None:
    """Spread pixels that one sample is enough for."""
    size = plain.shape[-1]
    rows = torch.zeros((plain.shape[0], size, size + TAPS - 1), dtype=plain.dtype, device=plain.device)
    for t in range(TAPS):
        rows[:, :, t : t + size] += taps[t] * plain
    for t in range(TAPS):
        grid[:, t : t + size, : size + TAPS - 1] += taps[t] * rows


def _split(batch: Batch, parents: _Cells, level: int, frame: _Frame, flux: Tensor, allowed: Tensor) -> Tensor:
    """Parents split 4 x 4, and their parts treated alike: window weights (m, TAPS, TAPS) of each parent.

    ``flux`` (b, s, s) are the pixels as known so far and ``allowed`` the error that each may have (flat).
    """
    side, size = SPLIT**level, frame.size
    b, a = (v.reshape(-1) for v in torch.meshgrid(*[torch.arange(SPLIT, device=batch.device)] * 2, indexing="ij"))
    m = len(parents) * SPLIT * SPLIT
    cells = _Cells(
        parents.which.repeat_interleave(SPLIT * SPLIT),
        (parents.row[:, None] * SPLIT + b).view(-1),
        (parents.column[:, None] * SPLIT + a).view(-1),
    )
    h = frame.scale / side
    area = h * h
    sb, e1, e2, e3 = bounds(batch, cells.which, frame.at(cells.column, side), frame.at(cells.row, side), h)
    if level == 1:  # each split pixel is one parent
        flux[parents.which, parents.row, parents.column] = (sb * area).view(-1, SPLIT * SPLIT).sum(1)
        allowed = _allowed(flux, frame.tolerance).view(-1)
    may = allowed[(cells.which * size + cells.row // side) * size + cells.column // side]
    weight = area * side  # an error counts with the side of the cell: errors add along an arc
    rule = _rules(e1 * weight, e2 * weight, e3 * weight, may, last=level == frame.levels)
    value = torch.where(rule == 1, sb, 0.0)
    if level == 1:
        shape = (flux.shape[0], side * size, side * size)
        where = (cells.which * shape[1] + cells.row) * shape[2] + cells.column
        fine = torch.zeros(shape, dtype=sb.dtype, device=sb.device)
        rules = torch.full(shape, -1, dtype=torch.int8, device=sb.device)
        fine.view(-1)[where], rules.view(-1)[where] = sb, rule
        value = value + _mended(fine, rules, rules == 1).view(-1)[where]
    patches = _patches(cells, (value * area).view(m, 1, 1), 1, level, frame)
    for g in (2, 3):
        k = torch.nonzero(rule == g)[:, 0]
        patches[k] += _gauss(batch, cells.some(k), g, level, frame)[0]
    k = torch.nonzero(rule == 0)[:, 0]
    if k.numel():
        patches[k] += _split(batch, cells.some(k), level + 1, frame, flux, allowed)
    return patches.view(len(parents), SPLIT * SPLIT, TAPS, TAPS).sum(1)


def _convolve(grid: Tensor, flux: Tensor, fwhm: Tensor, psf: PsfSpec, size: int, scale: float) -> tuple[Tensor, Tensor]:
    """``psf.convolve`` for grids (b, n, n), fluxes and FWHM (b, 3): images (b, 3, size, size) and the light before it."""
    n = grid.shape[-1]
    k, factor, shape = (torch.tensor(v, device=grid.device) for v in tables(psf, n, size, scale))
    spectrum = torch.fft.rfft2(grid) * factor
    light = spectrum[:, 0, 0].real.clone()
    if psf.kind == "image":
        passed = shape[None]
    else:
        t = k * (fwhm[:, :, None, None] * 256.0)
        c = t.to(torch.int64).clamp(max=shape.numel() - 2)
        passed = torch.where(t < shape.numel() - 2, shape[c] + (t - c) * (shape[c + 1] - shape[c]), 0.0)
    image = torch.fft.irfft2(spectrum[:, None] * passed * flux[:, :, None, None], s=(n, n))
    edge = TAPS // 2
    return image[:, :, edge : edge + size, edge : edge + size], light
