"""The light of a source at source-plane positions, and how well three quadrature rules would integrate it over a cell.

``sources`` states the same profiles readably, in torch; a test holds both together. The bounds are in units in which a
cell evaluated at its middle alone is off by a sixth: ``e1`` for that, ``e2`` and ``e3`` for Gauss-Legendre rules of 2 x 2
and 3 x 3 points. With k the profile's logarithmic slope and d the reach of the cell from its middle, in elliptical
radius, the remainders of the rules (h^3 f''/24, h^5 f''''/4320, h^7 f''''''/2016000, h = 2 d) are (kd)^2 / 6,
(kd)^4 / 270 and (kd)^6 / 31500 of the cell's light.

What does not belong here: the lens, which cells are split.
"""

from __future__ import annotations

import numpy as np

from lens_assets.science.injections.arithmetic import exp_, log_
from lens_assets.science.injections.compiling import compiled

DARK = -22.0
"""Logarithm of the brightness relative to that at Re below which a block of positions has no light of a component."""
COMPONENT = ("x", "y", "q", "cos", "sin", "inv_re", "inv_n", "b", "amplitude", "flux")
"""Order of a Sersic component: ``amplitude`` is the surface brightness at Re per arcsec^2, ``flux`` its total."""
PLACE = ("x", "y", "cos", "sin", "inv_scale", "centre_x", "centre_y")
"""Order of a real galaxy's place: position (arcsec from the lens), turn, pixels per arcsec, its centre in pixels."""
_G2 = 6.0 / 270.0
_G3 = 6.0 / 31500.0


@compiled()
def dark_radius(parts):  # type: ignore[no-untyped-def]
    """Distance from the lens's centre (arcsec, source plane) beyond which no component has light."""
    reach = 0.0
    for k in range(parts.shape[0]):
        px, py, q, _, _, inv_re, inv_n, b, _, _ = parts[k]
        radius = exp_(log_((b - DARK) / b) / inv_n) / inv_re
        reach = max(reach, np.sqrt(px * px + py * py) + radius / np.sqrt(q))
    return reach


@compiled()
def shine(bx, by, part, sb, rr_):  # type: ignore[no-untyped-def]
    """Add one component's surface brightness (per arcsec^2) at source positions to ``sb``."""
    px, py, q, c, s, inv_re, inv_n, b, amplitude, _ = part
    iq = 1.0 / q
    nearest = 1e300
    for i in range(sb.size):
        dx = bx[i] - px
        dy = by[i] - py
        u = c * dx + s * dy
        v = c * dy - s * dx
        rr_[i] = (q * u * u + v * v * iq + 1e-20) * (inv_re * inv_re)
        nearest = min(nearest, rr_[i])
    half = 0.5 * inv_n
    if b - b * exp_(half * log_(nearest)) < DARK:
        return
    for i in range(sb.size):
        fade = b - b * exp_(half * log_(rr_[i]))
        sb[i] += amplitude * exp_(-90.0 if fade < -90.0 else fade)  # far from denormals, which are slow


@compiled()
def shine_bound(bx, by, a11, a12, a22, h, part, sb, e1, e2, e3, rr_, d_):  # type: ignore[no-untyped-def]
    """The same, with the bounds of the three rules for cells of side ``h`` (arcsec).

    d is the Lipschitz bound of the elliptical radius's change inside the cell, from the Jacobian at its middle. The slope
    is taken at the cell's near side. Cells that may hold the centre are bounded by the profile near it, or by all the
    component's light spread over the cell, whichever is less; no rule is trusted there.
    """
    px, py, q, c, s, inv_re, inv_n, b, amplitude, flux = part
    iq = 1.0 / q
    half = 0.5 * h
    nearest = 1e300
    cores = 0
    for i in range(sb.size):
        dx = bx[i] - px
        dy = by[i] - py
        u = c * dx + s * dy
        v = c * dy - s * dx
        ux = c * a11[i] + s * a12[i]
        vx = c * a12[i] - s * a11[i]
        uy = c * a12[i] + s * a22[i]
        vy = c * a22[i] - s * a12[i]
        rr_[i] = q * u * u + v * v * iq + 1e-20
        d_[i] = half * (np.sqrt(q * ux * ux + vx * vx * iq) + np.sqrt(q * uy * uy + vy * vy * iq))
        nearest = min(nearest, rr_[i])
        cores += rr_[i] < 2.25 * d_[i] * d_[i]
    if cores == 0 and b - b * exp_(0.5 * inv_n * log_(nearest * inv_re * inv_re)) < DARK:
        return
    for i in range(sb.size):
        rr = rr_[i]
        power = b * exp_(0.5 * inv_n * log_(rr * inv_re * inv_re))
        fade = b - power
        value = amplitude * exp_(-90.0 if fade < -90.0 else fade)
        r = np.sqrt(rr)
        slope = power * inv_n * d_[i]
        kd2 = (slope * slope + slope * d_[i]) / rr  # the second term: rings bend, and Gaussians bend at their top
        kd2 = 40.0 if kd2 > 40.0 else kd2
        gap = r - d_[i]
        gap = 0.2 * r if gap < 0.2 * r else gap
        near2 = slope * slope / (gap * gap) + 3.0 * slope * d_[i] / rr  # the exponent's own curvature counts too
        near2 = 60.0 if near2 > 60.0 else near2
        sb[i] += value
        e1[i] += value * kd2 * (1.0 + kd2 * (1.0 / 12.0))
        e2[i] += value * (_G2 * near2 * near2)
        e3[i] += value * (_G3 * near2 * near2 * near2)
    if cores == 0:
        return
    for i in range(sb.size):
        d = d_[i]
        if rr_[i] < 2.25 * d * d:
            near = amplitude * exp_(b - b * exp_(inv_n * log_(0.1 * d * inv_re)))
            slope = b * inv_n * exp_(inv_n * log_(d * inv_re))
            core = min(near, flux / (3.141592653589793 * d * d)) * min(1.0, slope * slope)
            e1[i] += core
            e2[i] += core
            e3[i] += core


@compiled()
def _spline(t):  # type: ignore[no-untyped-def]
    """Cubic B-spline weights of the four coefficients round a position with fraction ``t``."""
    o = 1.0 - t
    t2 = t * t
    return (
        o * o * o * (1.0 / 6.0),
        2.0 / 3.0 - t2 + 0.5 * t2 * t,
        2.0 / 3.0 - o * o + 0.5 * o * o * o,
        t2 * t * (1.0 / 6.0),
    )


@compiled()
def shine_image(bx, by, place, pixels, sb):  # type: ignore[no-untyped-def]
    """Add a real galaxy's surface brightness (per arcsec^2; total flux 1) at source positions to ``sb``."""
    px, py, c, s, inv, cx, cy = place
    height, width = pixels.shape
    for i in range(sb.size):
        dx = bx[i] - px
        dy = by[i] - py
        u = (c * dx + s * dy) * inv + cx
        v = (c * dy - s * dx) * inv + cy
        if not (1.0 <= u < width - 2.0 and 1.0 <= v < height - 2.0):
            continue
        iu = int(u)
        iv = int(v)
        a0, a1, a2, a3 = _spline(u - iu)
        b0, b1, b2, b3 = _spline(v - iv)
        total = 0.0
        for j, w in ((0, b0), (1, b1), (2, b2), (3, b3)):
            row = pixels[iv - 1 + j]
            total += w * (a0 * row[iu - 1] + a1 * row[iu] + a2 * row[iu + 1] + a3 * row[iu + 2])
        sb[i] += total * inv * inv


@compiled()
def bound_image(bx, by, a11, a12, a22, h, place, spans, bend, e1, e2, e3):  # type: ignore[no-untyped-def]
    """Bounds of the three rules for a real galaxy over cells of side ``h``.

    A cell that sees less than a pixel is bounded by the second difference there, a larger one by the difference between
    the greatest and the least pixel it may see.
    """
    px, py, c, s, inv, cx, cy = place
    levels, height, width = spans.shape
    half = 0.5 * h * inv
    area = inv * inv
    for i in range(bx.size):
        dx = bx[i] - px
        dy = by[i] - py
        u = (c * dx + s * dy) * inv + cx
        v = (c * dy - s * dx) * inv + cy
        du = half * (abs(c * a11[i] + s * a12[i]) + abs(c * a12[i] + s * a22[i]))
        dv = half * (abs(c * a12[i] - s * a11[i]) + abs(c * a22[i] - s * a12[i]))
        d = max(du, dv)
        if u < -d or v < -d or u > width - 1 + d or v > height - 1 + d:
            continue
        iu = min(max(int(u + 0.5), 0), width - 1)
        iv = min(max(int(v + 0.5), 0), height - 1)
        level = 0
        while level < levels - 1 and (1 << level) < 2.0 * d:
            level += 1
        span = spans[level, iv, iu] * area
        if d < 0.75:
            curved = min(bend[iv, iu] * area * 6.0 * d * d, span)
            e1[i] += curved
            e2[i] += curved * min(0.1, 0.2 * d * d)
            e3[i] += curved * min(0.03, 0.06 * d * d)
        else:
            e1[i] += span
            e2[i] += 0.7 * span
            e3[i] += 0.5 * span
