"""Surface brightness at image positions, and how far three quadrature rules may be off in cells round them.

Lens and light put together, with what neither knows: the centre of the lens, where the map jumps, and the images of
negative parity, which may be left out.
"""

from __future__ import annotations

import numpy as np

from lens_assets.science.injections.arithmetic import exp_, log_
from lens_assets.science.injections.compiling import compiled
from lens_assets.science.injections.light import bound_image, shine, shine_bound, shine_image
from lens_assets.science.injections.rays import shoot, stretch_at

BLOCK = 256
"""Positions worked on at a time: small enough for the first cache, and to skip what a component does not reach."""


@compiled()
def brightness(x, y, lens, parts, place, pixels, inner, sb):  # type: ignore[no-untyped-def]
    """Surface brightness (per arcsec^2) at image positions, into ``sb``; ``inner=False``: nothing where det A < 0."""
    bx, by, rr_ = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    a11, a12, a22 = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        s = sb[start:stop]
        shoot(x[start:stop], y[start:stop], lens, not inner, bx, by, a11, a12, a22)
        s[:] = 0.0
        for k in range(parts.shape[0]):
            p = parts[k]
            part = (p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9])
            shine(bx, by, part, s, rr_)
        if pixels.size:
            shine_image(bx, by, place, pixels, s)
        if not inner:
            for i in range(s.size):
                s[i] = 0.0 if a11[i] * a22[i] - a12[i] * a12[i] < 0.0 else s[i]


@compiled()
def _jump(x, y, h, lens, parts, place, pixels):  # type: ignore[no-untyped-def]
    """Range of surface brightness round the edge of a cell: the bound for cells at the centre, where the map jumps."""
    xs = np.array([x - 0.5 * h, x, x + 0.5 * h, x + 0.5 * h, x + 0.5 * h, x, x - 0.5 * h, x - 0.5 * h])
    ys = np.array([y - 0.5 * h, y - 0.5 * h, y - 0.5 * h, y, y + 0.5 * h, y + 0.5 * h, y + 0.5 * h, y])
    total = np.empty(8)
    brightness(xs, ys, lens, parts, place, pixels, True, total)
    return total.max() - total.min()


@compiled()
def _hidden(dx, dy, bx, by, h, lens, parts, place, pixels, spans):  # type: ignore[no-untyped-def]
    """Bound for cells near the lens centre, where the Jacobian of the cell's middle says too little of its inner side.

    The stretch of the map grows as theta_E / r, so a demagnified image may sit between the centre and the middle of the
    cell; it then has a brightness of at most the component's core, or, round an isothermal lens, its flux times its
    magnification r / theta_E.
    """
    r = np.sqrt(dx * dx + dy * dy)
    stretch = stretch_at(max(r - 0.71 * h, 0.1 * h), lens)
    faint = max(r, 0.3 * h) / (max(lens[5], 1e-9) * h * h) if lens[8] >= 2.0 else 1e300
    bound = 0.0
    for k in range(parts.shape[0]):
        px, py, q, c, s, inv_re, inv_n, b, amplitude, flux = parts[k]
        u = c * (bx - px) + s * (by - py)
        v = c * (by - py) - s * (bx - px)
        if np.sqrt(q * u * u + v * v / q) < 0.71 * h * stretch / np.sqrt(q) + 2.0 / inv_re:
            core = amplitude * exp_(b - b * exp_(inv_n * log_(0.1)))
            bound += min(core, flux * faint)
    if pixels.size:
        px, py, _, _, inv, _, _ = place
        size = max(pixels.shape[0], pixels.shape[1]) / inv
        if np.sqrt((bx - px) * (bx - px) + (by - py) * (by - py)) < 0.71 * h * stretch + 0.75 * size:
            bound += min(spans[-1].max() * inv * inv, faint)
    return bound


@compiled()
def bounds(x, y, h, lens, parts, place, pixels, spans, bend, inner, sb, e1, e2, e3):  # type: ignore[no-untyped-def]
    """``brightness`` with the bounds of ``light`` for cells of side ``h`` (arcsec) round the positions."""
    bx, by, a11, a12, a22 = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    rr_, d_ = np.empty(BLOCK), np.empty(BLOCK)
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        xs, ys, s = x[start:stop], y[start:stop], sb[start:stop]
        b1, b2, b3 = e1[start:stop], e2[start:stop], e3[start:stop]
        shoot(xs, ys, lens, True, bx, by, a11, a12, a22)
        for a in (s, b1, b2, b3):
            a[:] = 0.0
        for k in range(parts.shape[0]):
            p = parts[k]
            part = (p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9])
            shine_bound(bx, by, a11, a12, a22, h, part, s, b1, b2, b3, rr_, d_)
        if pixels.size:
            shine_image(bx, by, place, pixels, s)
            m = s.size
            bound_image(bx[:m], by[:m], a11, a12, a22, h, place, spans, bend, b1, b2, b3)
        for i in range(s.size):
            dx = xs[i] - lens[0]
            dy = ys[i] - lens[1]
            if abs(dx) >= 2.5 * h or abs(dy) >= 2.5 * h or lens[5] == 0.0:
                continue
            most = _hidden(dx, dy, bx[i], by[i], h, lens, parts, place, pixels, spans)
            if abs(dx) < 1.5 * h and abs(dy) < 1.5 * h:
                most = max(most, 2.0 * _jump(xs[i], ys[i], h, lens, parts, place, pixels))
            b1[i] = max(b1[i], most)
            b2[i] = max(b2[i], most)
            b3[i] = max(b3[i], most)
        if not inner:
            for i in range(s.size):
                det = a11[i] * a22[i] - a12[i] * a12[i]
                r = np.sqrt((xs[i] - lens[0]) ** 2 + (ys[i] - lens[1]) ** 2) + 1e-12
                if abs(det) < h * (2.0 - a11[i] - a22[i]) / r:
                    b1[i] += s[i]
                    b2[i] += s[i]
                    b3[i] += s[i]
                if det < 0.0:
                    s[i] = 0.0
