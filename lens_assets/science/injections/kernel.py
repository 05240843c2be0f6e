"""The compiled heart of the renderer: adaptive quadrature of a lensed source, deposited on the native pixel grid.

One injection at a time, in float64, with its own loops, so its bytes cannot depend on what else is in the batch, on the
number of threads or on the vector width: only +, -, *, /, sqrt and bit operations are used (IEEE exact; no fused or
reassociated arithmetic), and exp, log and atan are the polynomials below. ``lens`` and ``sources`` state the same
physics readably, in torch; a test holds the two together.

How: the source is evaluated at native pixel centres with a bound on the curvature inside each pixel, taken from the
analytic Jacobian of the lens; pixels whose curvature matters next to the light around them are split 4 x 4, and their
children again, up to ``levels`` times. Each sample is a weighted point; it is spread to the grid with a Kaiser-Bessel
window that ``render`` divides out in Fourier space, so sub-pixel positions survive.

What does not belong here: the PSF, bands, photometry, threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic as _intrinsic

TAPS = 7
"""Pixels over which one sample is spread, per axis."""
DARK = -30.0
"""Logarithm of the brightness relative to that at Re below which a block of positions has no light of a component."""
SPLIT = 4
"""Each refinement splits a cell SPLIT x SPLIT."""
Q_MAX = 1.0 - 1e-8
"""Axis ratios are capped here, so that the isothermal sphere is a stable limit (the error is of order 1 - q)."""
LENS = ("x", "y", "q", "cos", "sin", "theta_e", "gamma1", "gamma2")
"""Order of a lens in the kernel: centre (arcsec), axis ratio, orientation of the major axis, Einstein radius, shear."""
COMPONENT = ("x", "y", "q", "cos", "sin", "inv_re", "inv_n", "b", "amplitude", "flux")
"""Order of a Sersic component: ``amplitude`` is the surface brightness at Re per arcsec^2, ``flux`` its total."""


def compiled(**options: Any) -> Callable[..., Any]:
    """``numba.njit`` that keeps its machine code beside the module, or does without where that cannot be written."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
        except RuntimeError:  # no writable place for the cache: compile in memory
            return numba.njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = _intrinsic


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    """The bits of a float64 as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.int64))

    return types.int64(types.float64), codegen


@intrinsic
def _float(typingctx: Any, n: Any) -> Any:
    """The float64 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.int64), codegen


@compiled()
def log_(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of a positive normal number: 2 atanh((m-1)/(m+1)) on m in [1/sqrt2, sqrt2]; error < 1e-12."""
    n = _bits(x)
    e = _float((n >> 52) | 0x4330000000000000) - 4503599627371519.0  # 2**52 + 1023
    m = _float((n & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000)
    high = m > 1.4142135623730951
    m = 0.5 * m if high else m
    e = e + 1.0 if high else e
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    p = 1.0 / 13.0
    p = p * s + 1.0 / 11.0
    p = p * s + 1.0 / 9.0
    p = p * s + 1.0 / 7.0
    p = p * s + 1.0 / 5.0
    p = p * s + 1.0 / 3.0
    return e * 0.6931471805599453 + 2.0 * (f + f * s * p)


@compiled()
def exp_(x):  # type: ignore[no-untyped-def]
    """Exponential, argument clamped to [-700, 700]: Taylor of degree 10 on |r| <= ln2 / 2; < 1e-12."""
    x = -700.0 if x < -700.0 else x
    x = 700.0 if x > 700.0 else x
    t = x * 1.4426950408889634 + 6755399441055744.0  # 1.5 * 2**52 rounds to the nearest integer
    n = t - 6755399441055744.0
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * _float((_bits(t) << 52) + 0x3FF0000000000000)


@compiled()
def atan_ratio(a, b):  # type: ignore[no-untyped-def]
    """atan(a / b) for a >= 0, b > 0: the rational approximation of Cephes (Moshier), ranges split at tan(3 pi/8),
    0.66."""
    far = a > 2.414213562373095 * b
    middle = (a > 0.66 * b) and not far
    top = -b if far else (a - b if middle else a)
    bottom = a if far else (a + b if middle else b)
    base = 1.5707963267948966 if far else (0.7853981633974483 if middle else 0.0)
    x = top / bottom
    z = x * x
    p = -8.750608600031904122785e-1
    p = p * z - 1.615753718733365076637e1
    p = p * z - 7.500855792314704667340e1
    p = p * z - 1.228866684490136173410e2
    p = p * z - 6.485021904942025371773e1
    q = z + 2.485846490142306297962e1
    q = q * z + 1.650270098316988542046e2
    q = q * z + 4.328810604912902668951e2
    q = q * z + 4.853903996359136964868e2
    q = q * z + 1.945506571482613964425e2
    return base + x + x * (z * p / q)


@compiled()
def shoot(x, y, lens, bx, by, a11, a12, a22):  # type: ignore[no-untyped-def]
    """Source-plane position (relative to the lens) and the symmetric Jacobian of the map, at image positions (arcsec).

    SIE: Kormann, Schneider & Bartelmann 1994, with the intermediate-axis normalisation of Keeton 2001
    (astro-ph/0102341) eq. 33-35; the Hessian of any potential of degree one is 2 kappa t t^T with t the unit tangent.
    Shear about the lens.
    """
    lx, ly, q, c, s, te, g1, g2 = lens
    q = min(q, Q_MAX)
    f = np.sqrt(1.0 - q * q)
    scale = te * np.sqrt(q) / f
    for i in range(x.size):
        dx = x[i] - lx
        dy = y[i] - ly
        u = c * dx + s * dy
        v = c * dy - s * dx
        r2 = u * u + v * v + 1e-24
        w = np.sqrt(q * q * u * u + v * v + 1e-24)
        fu = f * u
        fv = f * v
        au = scale * atan_ratio(abs(fu), w)
        au = -au if fu < 0.0 else au
        av = 0.5 * scale * log_((w + fv) / (w - fv))
        bx[i] = dx - (c * au - s * av) - (g1 * dx + g2 * dy)
        by[i] = dy - (s * au + c * av) - (g2 * dx - g1 * dy)
        k2 = te * np.sqrt(q) / (w * r2)  # 2 kappa / r^2
        a11[i] = 1.0 - k2 * dy * dy - g1
        a22[i] = 1.0 - k2 * dx * dx + g1
        a12[i] = k2 * dx * dy - g2


@compiled()
def _shine(bx, by, a11, a12, a22, h, part, sb, err, rr_, d_):  # type: ignore[no-untyped-def]
    """Add one component's surface brightness to ``sb`` and a bound on its second difference over cells of side ``h``.

    With R the elliptical radius and d the Lipschitz bound of its change inside the cell, the logarithmic slope k of the
    profile gives SB(R+d) - 2 SB(R) + SB(R-d) ~ SB (k d)^2 (1 + (k d)^2 / 12). Cells that may hold the centre are
    bounded by the profile near it, or by all the component's light spread over the cell, whichever is less.
    """
    px, py, q, c, s, inv_re, inv_n, b, amplitude, flux = part
    iq = 1.0 / q
    half = 0.5 * h
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
    nearest = rr_[0]
    cores = 0
    for i in range(sb.size):
        nearest = min(nearest, rr_[i])
        cores += rr_[i] < 2.25 * d_[i] * d_[i]
    if cores == 0 and b - b * exp_(0.5 * inv_n * log_(nearest * inv_re * inv_re)) < DARK:
        return
    for i in range(sb.size):
        rr = rr_[i]
        power = b * exp_(0.5 * inv_n * log_(rr * inv_re * inv_re))
        fade = b - power
        value = amplitude * exp_(-90.0 if fade < -90.0 else fade)  # far from denormals, which are slow
        slope = power * inv_n * d_[i]
        kd2 = slope * slope / rr
        kd2 = 40.0 if kd2 > 40.0 else kd2
        sb[i] += value
        err[i] += value * kd2 * (1.0 + kd2 * (1.0 / 12.0))
    if cores == 0:
        return
    for i in range(sb.size):
        d = d_[i]
        if rr_[i] < 2.25 * d * d:
            near = amplitude * exp_(b - b * exp_(inv_n * log_(0.1 * d * inv_re)))
            slope = b * inv_n * exp_(inv_n * log_(d * inv_re))
            err[i] += min(near, flux / (3.141592653589793 * d * d)) * min(1.0, slope * slope)


@compiled()
def _jump(x, y, h, lens, parts):  # type: ignore[no-untyped-def]
    """Range of surface brightness round the edge of a cell: the bound for cells at the centre, where the map jumps."""
    xs = np.array([x - 0.5 * h, x, x + 0.5 * h, x + 0.5 * h, x + 0.5 * h, x, x - 0.5 * h, x - 0.5 * h])
    ys = np.array([y - 0.5 * h, y - 0.5 * h, y - 0.5 * h, y, y + 0.5 * h, y + 0.5 * h, y + 0.5 * h, y])
    bx, by, a11, a12, a22 = np.empty(8), np.empty(8), np.empty(8), np.empty(8), np.empty(8)
    shoot(xs, ys, lens, bx, by, a11, a12, a22)
    total = np.zeros(8)
    for k in range(parts.shape[0]):
        px, py, q, c, s, inv_re, inv_n, b, amplitude, _ = parts[k]
        for i in range(8):
            u = c * (bx[i] - px) + s * (by[i] - py)
            v = c * (by[i] - py) - s * (bx[i] - px)
            rr = q * u * u + v * v / q + 1e-20
            total[i] += amplitude * exp_(max(b - b * exp_(0.5 * inv_n * log_(rr * inv_re * inv_re)), -90.0))
    return total.max() - total.min()


@compiled()
def _hidden(dx, dy, bx, by, h, lens, parts):  # type: ignore[no-untyped-def]
    """Bound for cells near the lens centre, where the Jacobian of the cell's middle says too little of its inner side.

    The stretch of the map grows as theta_E / r, so a demagnified image may sit between the centre and the middle of the
    cell; it then has a brightness of at most the component's core, or its flux times its magnification r / theta_E.
    """
    r = np.sqrt(dx * dx + dy * dy)
    stretch = 1.0 + lens[5] / (np.sqrt(lens[2]) * max(r - 0.71 * h, 0.1 * h)) + abs(lens[6]) + abs(lens[7])
    bound = 0.0
    for k in range(parts.shape[0]):
        px, py, q, c, s, inv_re, inv_n, b, amplitude, flux = parts[k]
        u = c * (bx - px) + s * (by - py)
        v = c * (by - py) - s * (bx - px)
        if np.sqrt(q * u * u + v * v / q) < 0.71 * h * stretch / np.sqrt(q) + 2.0 / inv_re:
            core = amplitude * exp_(b - b * exp_(inv_n * log_(0.1)))
            bound += min(core, flux * max(r, 0.3 * h) / (max(lens[5], 1e-9) * h * h))
    return bound


BLOCK = 256
"""Positions worked on at a time: small enough for the first cache, and to skip what a component does not reach."""


@compiled()
def evaluate(x, y, h, lens, parts, inner, sb, err):  # type: ignore[no-untyped-def]
    """Surface brightness (per arcsec^2) at image positions and its curvature bound over cells of side ``h`` (arcsec).

    ``inner=False`` removes what is seen with negative parity (det A < 0): the counter-image side of the critical curve.
    """
    bx, by, a11, a12, a22 = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    rr_, d_ = np.empty(BLOCK), np.empty(BLOCK)
    n = x.size
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        m = stop - start
        xs, ys, s, e = x[start:stop], y[start:stop], sb[start:stop], err[start:stop]
        shoot(xs, ys, lens, bx, by, a11, a12, a22)
        s[:] = 0.0
        e[:] = 0.0
        for k in range(parts.shape[0]):
            p = parts[k]
            part = (p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9])
            _shine(bx, by, a11, a12, a22, h, part, s, e, rr_, d_)
        for i in range(m):
            if abs(xs[i] - lens[0]) >= 2.5 * h or abs(ys[i] - lens[1]) >= 2.5 * h or lens[5] == 0.0:
                continue
            e[i] = max(e[i], _hidden(xs[i] - lens[0], ys[i] - lens[1], bx[i], by[i], h, lens, parts))
            if abs(xs[i] - lens[0]) < 1.5 * h and abs(ys[i] - lens[1]) < 1.5 * h:
                e[i] = max(e[i], 2.0 * _jump(xs[i], ys[i], h, lens, parts))
        if not inner:
            for i in range(m):
                det = a11[i] * a22[i] - a12[i] * a12[i]
                r = np.sqrt((xs[i] - lens[0]) ** 2 + (ys[i] - lens[1]) ** 2) + 1e-12
                if abs(det) < h * (2.0 - a11[i] - a22[i]) / r:
                    e[i] += s[i]
                if det < 0.0:
                    s[i] = 0.0


@compiled()
def _floor_of_error(flux, size, tolerance, out):  # type: ignore[no-untyped-def]
    """Per pixel, the curvature that is still allowed: ``tolerance`` times the 5 x 5 mean flux, at least 1 % of its
    peak."""
    rows = np.zeros((size, size))
    peak = 0.0
    for j in range(size):  # five vectorisable passes per axis rather than one running sum, which would round
        for k in range(max(j - 2, 0), min(j + 3, size)):
            for i in range(size):
                rows[j, i] += flux[k, i]
    for j in range(size):
        for i in range(size):
            out[j, i] = rows[j, i]
        for t in range(1, 3):
            for i in range(size - t):
                out[j, i] += rows[j, i + t]
                out[j, i + t] += rows[j, i]
        for i in range(size):
            peak = max(peak, out[j, i])
    for j in range(size):
        for i in range(size):
            out[j, i] = tolerance * 0.04 * max(out[j, i], 0.01 * peak)


@compiled()
def _mend(cells, sb, split, side, value):  # type: ignore[no-untyped-def]
    """End correction of the midpoint rule (h^2 / 24 df/dn) where cells of the first split meet cells that are split
    again."""
    index = np.full((side, side), -1, np.int32)
    for c in range(cells.shape[0]):
        for b in range(SPLIT):
            for a in range(SPLIT):
                index[cells[c, 0] * SPLIT + b, cells[c, 1] * SPLIT + a] = (c * SPLIT + b) * SPLIT + a
    for c in range(cells.shape[0]):
        for b in range(SPLIT):
            for a in range(SPLIT):
                k = (c * SPLIT + b) * SPLIT + a
                if split[k]:
                    continue
                here = sb[k] * (1.0 / 24.0)
                for way in range(4):
                    v = cells[c, 0] * SPLIT + b + (way == 0) - (way == 1)
                    u = cells[c, 1] * SPLIT + a + (way == 2) - (way == 3)
                    if 0 <= v < side and 0 <= u < side:
                        other = index[v, u]
                        if other >= 0 and split[other]:
                            value[k] -= here
                            value[other] += min(sb[other] * (1.0 / 24.0), 4.0 * here)


@compiled()
def deposit(size, scale, lens, parts, inner, levels, tolerance, table, grid, flux):  # type: ignore[no-untyped-def]
    """Quadrature of one lensed source, spread to ``grid``; returns the number of source evaluations.

    Parameters
    ----------
    size, scale : pixels on a side; arcsec per pixel. Pixel (row j, column i) is at ((i, j) - (size - 1) / 2) * scale.
    lens : tuple in the order of ``LENS``; parts : (k, 10) in the order of ``COMPONENT``.
    levels, tolerance : at most so many 4 x 4 splits; what curvature is allowed relative to the light around.
    table : Kaiser-Bessel weights, rows 0, 1..4, 5..20, 21..84, ... for the sub-pixel offsets of each level, TAPS
        columns.
    grid : (m, m) zeros with m >= size + TAPS - 1, receives fluxes; pixel (j, i) is at (j + 3, i + 3).
    flux : (size, size), receives the flux of each pixel before the PSF.
    """
    area = scale * scale
    middle = 0.5 * (size - 1)
    n = size * size
    x = np.empty(n)
    y = np.empty(n)
    for j in range(size):
        for i in range(size):
            x[j * size + i] = (i - middle) * scale
            y[j * size + i] = (j - middle) * scale
    sb = np.empty(n)
    err = np.empty(n)
    evaluate(x, y, scale, lens, parts, inner, sb, err)
    evaluations = n
    for k in range(n):
        flux[k // size, k % size] = sb[k] * area
    allowed = np.empty((size, size))
    _floor_of_error(flux, size, tolerance, allowed)
    cells = np.empty((n, 2), np.int64)
    count = 0
    plain = flux.copy()
    for k in range(n):
        j = k // size
        i = k % size
        if levels > 0 and err[k] * area > allowed[j, i]:
            cells[count, 0] = j
            cells[count, 1] = i
            count += 1
            plain[j, i] = 0.0
            flux[j, i] = 0.0
    for j in range(size):  # where whole and split pixels meet, the end correction of the midpoint rule (h^2 / 24 df/dn)
        for i in range(size):
            k = j * size + i
            here = sb[k] * area * (1.0 / 24.0)
            if err[k] * area > allowed[j, i] or err[k] * area < 1e-3 * allowed[j, i]:
                continue
            for way in range(4):
                v = j + (way == 0) - (way == 1)
                u = i + (way == 2) - (way == 3)
                if 0 <= v < size and 0 <= u < size and err[v * size + u] * area > allowed[v, u]:
                    plain[j, i] -= here
                    plain[v, u] += min(sb[v * size + u] * area * (1.0 / 24.0), 4.0 * here)
    rows = np.zeros((size, size + TAPS - 1))
    for j in range(size):
        for t in range(TAPS):
            w = table[0, t]
            for i in range(size):
                rows[j, i + t] += w * plain[j, i]
    for j in range(size):
        for t in range(TAPS):
            w = table[0, t]
            for i in range(size + TAPS - 1):
                grid[j + t, i] += w * rows[j, i]
    side = 1
    first = 0
    strip = np.empty((SPLIT, TAPS))
    for level in range(1, levels + 1):
        if count == 0:
            break
        first += side  # rows of the table: 1, then 4, 16, 64
        side *= SPLIT
        h = scale / side
        area = h * h
        m = count * SPLIT * SPLIT
        x = np.empty(m)
        y = np.empty(m)
        for c in range(count):
            for b in range(SPLIT):
                for a in range(SPLIT):
                    k = (c * SPLIT + b) * SPLIT + a
                    x[k] = ((cells[c, 1] * SPLIT + a + 0.5) / side - 0.5 - middle) * scale
                    y[k] = ((cells[c, 0] * SPLIT + b + 0.5) / side - 0.5 - middle) * scale
        sb = np.empty(m)
        err = np.empty(m)
        evaluate(x, y, h, lens, parts, inner, sb, err)
        evaluations += m
        for k in range(m):
            c = k // (SPLIT * SPLIT)
            flux[cells[c, 0] * SPLIT // side, cells[c, 1] * SPLIT // side] += sb[k] * area
        if level == 1:
            _floor_of_error(flux, size, tolerance, allowed)
        split = np.empty(m, np.bool_)
        value = np.empty(m)
        children = np.empty((m if level < levels else 0, 2), np.int64)
        refined = 0
        weight = area * side  # curvature counts with the side of the cell: errors add along an arc
        for c in range(count):
            row = cells[c, 0] * SPLIT
            column = cells[c, 1] * SPLIT
            pj = row // side
            pi = column // side
            for b in range(SPLIT):
                for a in range(SPLIT):
                    k = (c * SPLIT + b) * SPLIT + a
                    split[k] = level < levels and err[k] * weight > allowed[pj, pi]
                    value[k] = 0.0 if split[k] else sb[k]
                    if split[k]:
                        children[refined, 0] = row + b
                        children[refined, 1] = column + a
                        refined += 1
                        flux[pj, pi] -= sb[k] * area
        if level == 1 and refined:
            _mend(cells[:count], sb, split, side * size, value)
        for c in range(count):
            row = cells[c, 0] * SPLIT
            column = cells[c, 1] * SPLIT
            pj = row // side
            pi = column // side
            oj = first + row - pj * side
            oi = first + column - pi * side
            for b in range(SPLIT):
                for t in range(TAPS):
                    total = 0.0
                    for a in range(SPLIT):
                        total += value[(c * SPLIT + b) * SPLIT + a] * table[oi + a, t]
                    strip[b, t] = total * area
            for u in range(TAPS):
                for t in range(TAPS):
                    total = 0.0
                    for b in range(SPLIT):
                        total += strip[b, t] * table[oj + b, u]
                    grid[pj + u, pi + t] += total
        cells = children
        count = refined
    return evaluations
