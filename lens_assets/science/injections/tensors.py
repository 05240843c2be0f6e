"""Surface brightness of many lensed sources at once, and how well quadrature rules would do, in torch on any device.

``evaluate`` and ``light`` in another form, for flat lists of (injection, position): the same formulas and the same bounds,
which a test holds together to rounding. The lens is ``lens``'s.

What does not belong here: which cells are split (``batched``), real galaxies and point sources.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lens_assets.science.injections import lens as equations
from lens_assets.science.injections.light import _G2, _G3, DARK
from lens_assets.science.injections.scene import Scene

Tensor = torch.Tensor
_EMPTY = (0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.678, 0.0, 0.0)
"""A component without light, which fills up injections with fewer components than others of their batch."""


@dataclass(frozen=True)
class Batch:
    """Lenses (9, n) and components (k, 10, n) of n injections, float64, on one device; ``inner`` (n,) booleans."""

    lens: Tensor
    parts: Tensor
    inner: Tensor

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.lens.device


def batch_of(scene: Scene, rows: list[int], device: str) -> Batch:
    """Rows of a scene (extended sources of components) on ``device``."""
    starts, stops = scene.offsets[rows], scene.offsets[np.asarray(rows) + 1]
    parts = np.tile(np.array(_EMPTY), (len(rows), int((stops - starts).max()), 1))
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        parts[i, : stop - start] = scene.parts[start:stop]
    lens = scene.lens[rows].copy()
    lens[lens[:, 5] == 0.0, 8] = 2.0  # no mass: the isothermal limit
    return Batch(
        torch.tensor(np.ascontiguousarray(lens.T), device=device),
        torch.tensor(np.ascontiguousarray(parts.transpose(1, 2, 0)), device=device),
        torch.tensor(scene.inner[rows], device=device),
    )


def reach(batch: Batch, farthest: float, step: float) -> Tensor:
    """Per injection, the distance from the lens (arcsec) beyond which its source has no light (n,)."""
    px, py, q, _, _, inv_re, inv_n, b, amplitude, _ = batch.parts.unbind(1)
    radius = ((b - DARK) / b) ** (1 / inv_n) / inv_re
    far = torch.sqrt(px * px + py * py) + radius / torch.sqrt(q)
    dark = torch.where(amplitude > 0, far, 0.0).amax(0)
    r = farthest - step * torch.arange(int(farthest / step) + 1, dtype=torch.float64, device=batch.device)
    bright = (r > 0) & (r * (2.0 - _stretch(r, batch.lens[:, :, None])) > dark[:, None])
    return farthest - step * torch.cumprod(bright.to(torch.int64), 1).sum(1) + step


def _stretch(r: Tensor, lens: Tensor) -> Tensor:
    """``rays.stretch_at``."""
    t = lens[8] - 1.0
    x = lens[5] / (torch.sqrt(lens[2]) * r.clamp(min=1e-9))
    grown = torch.where(t == 1.0, x, (2.0 - t + (1.0 - t).abs()) * (x + 1e-300) ** t)
    return 1.0 + grown + lens[6].abs() + lens[7].abs()


def _shoot(batch: Batch, which: Tensor, x: Tensor, y: Tensor, *, jacobian: bool) -> tuple[Tensor, ...]:
    lx, ly, q, c, s, te, g1, g2, slope = batch.lens[:, which]
    phi = torch.atan2(s, c)
    if jacobian:
        return equations.lens_map(x - lx, y - ly, te, q, phi, g1, g2, slope)
    return equations.shoot(x - lx, y - ly, te, q, phi, g1, g2, slope)


def brightness(batch: Batch, which: Tensor, x: Tensor, y: Tensor, *, all_images: bool = False) -> Tensor:
    """Surface brightness (per arcsec^2) at positions (m,) of the injections ``which`` (m,).

    Images of negative parity are left out where ``inner`` is false, unless ``all_images``.
    """
    cut = not all_images and not bool(batch.inner.all())
    bx, by, *a = _shoot(batch, which, x, y, jacobian=cut)
    sb = torch.zeros_like(bx)
    for part in batch.parts:
        px, py, q, c, s, inv_re, inv_n, b, amplitude, _ = part[:, which]
        u, v = c * (bx - px) + s * (by - py), c * (by - py) - s * (bx - px)
        rr = (q * u * u + v * v / q + 1e-20) * (inv_re * inv_re)
        sb = sb + amplitude * torch.exp((b - b * rr ** (0.5 * inv_n)).clamp(min=-90.0))
    if cut:
        sb = torch.where(~batch.inner[which] & (a[0] * a[2] - a[1] * a[1] < 0), 0.0, sb)
    return sb


def bounds(batch: Batch, which: Tensor, x: Tensor, y: Tensor, h: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``brightness`` at the middles of cells of side ``h`` (arcsec), and the bounds e1, e2, e3 of the three rules there."""
    bx, by, a11, a12, a22 = _shoot(batch, which, x, y, jacobian=True)
    sb, e1, e2, e3 = (torch.zeros_like(bx) for _ in range(4))
    for part in batch.parts:
        px, py, q, c, s, inv_re, inv_n, b, amplitude, flux = part[:, which]
        u, v = c * (bx - px) + s * (by - py), c * (by - py) - s * (bx - px)
        ux, vx = c * a11 + s * a12, c * a12 - s * a11
        uy, vy = c * a12 + s * a22, c * a22 - s * a12
        rr = q * u * u + v * v / q + 1e-20
        d = 0.5 * h * (torch.sqrt(q * ux * ux + vx * vx / q) + torch.sqrt(q * uy * uy + vy * vy / q))
        power = b * (rr * inv_re * inv_re) ** (0.5 * inv_n)
        value = amplitude * torch.exp((b - power).clamp(min=-90.0))
        r = torch.sqrt(rr)
        slope = power * inv_n * d
        kd2 = ((slope * slope + slope * d) / rr).clamp(max=40.0)
        gap = torch.maximum(r - d, 0.2 * r)
        near2 = (slope * slope / (gap * gap) + 3.0 * slope * d / rr).clamp(max=60.0)
        near = amplitude * torch.exp(b - b * (0.1 * d * inv_re) ** inv_n)
        steep = b * inv_n * (d * inv_re) ** inv_n
        core = torch.minimum(near, flux / (np.pi * d * d)) * (steep * steep).clamp(max=1.0)
        core = torch.where(rr < 2.25 * d * d, core, 0.0)
        sb = sb + value
        e1 = e1 + value * kd2 * (1.0 + kd2 / 12.0) + core
        e2 = e2 + value * (_G2 * near2**2) + core
        e3 = e3 + value * (_G3 * near2**3) + core
    dx, dy = x - batch.lens[0, which], y - batch.lens[1, which]
    most = torch.zeros_like(bx)
    near_centre = (dx.abs() < 2.5 * h) & (dy.abs() < 2.5 * h) & (batch.lens[5, which] != 0.0)
    k = torch.nonzero(near_centre)[:, 0]
    most[k] = _hidden(batch, which[k], torch.hypot(dx[k], dy[k]), bx[k], by[k], h)
    k = k[(dx[k].abs() < 1.5 * h) & (dy[k].abs() < 1.5 * h)]
    most[k] = torch.maximum(most[k], 2.0 * _jump(batch, which[k], x[k], y[k], h))
    e1, e2, e3 = (torch.maximum(e, most) for e in (e1, e2, e3))
    if not bool(batch.inner.all()):
        det = a11 * a22 - a12 * a12
        edge = det.abs() < h * (2.0 - a11 - a22) / (torch.hypot(dx, dy) + 1e-12)
        more = torch.where(~batch.inner[which] & edge, sb, 0.0)
        e1, e2, e3 = e1 + more, e2 + more, e3 + more
        sb = torch.where(~batch.inner[which] & (det < 0), 0.0, sb)
    return sb, e1, e2, e3


def _hidden(batch: Batch, which: Tensor, r: Tensor, bx: Tensor, by: Tensor, h: float) -> Tensor:
    """``evaluate._hidden``: what a demagnified image beside the lens's centre may have."""
    lens = batch.lens[:, which]
    stretch = _stretch((r - 0.71 * h).clamp(min=0.1 * h), lens)
    faint = torch.where(lens[8] >= 2.0, r.clamp(min=0.3 * h) / (lens[5].clamp(min=1e-9) * h * h), 1e300)
    bound = torch.zeros_like(bx)
    for part in batch.parts:
        px, py, q, c, s, inv_re, inv_n, b, amplitude, flux = part[:, which]
        u, v = c * (bx - px) + s * (by - py), c * (by - py) - s * (bx - px)
        seen = torch.sqrt(q * u * u + v * v / q) < 0.71 * h * stretch / torch.sqrt(q) + 2.0 / inv_re
        core = torch.minimum(amplitude * torch.exp(b - b * 0.1**inv_n), flux * faint)
        bound = bound + torch.where(seen, core, 0.0)
    return bound


def _jump(batch: Batch, which: Tensor, x: Tensor, y: Tensor, h: float) -> Tensor:
    """``evaluate._jump``: range of brightness round the edge of a cell at the centre, where the map jumps."""
    ways = (
        torch.tensor([[-1, -1], [0, -1], [1, -1], [1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0]], device=x.device) * 0.5 * h
    )
    xs, ys = (x[:, None] + ways[:, 0]).reshape(-1), (y[:, None] + ways[:, 1]).reshape(-1)
    total = brightness(batch, which.repeat_interleave(8), xs, ys, all_images=True).view(-1, 8)
    return total.amax(1) - total.amin(1)
