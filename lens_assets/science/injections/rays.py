"""The lens of the renderer: from image positions to source positions, compiled.

``lens`` states the same equations readably, in torch; a test holds both, and lenstronomy, together.
"""

from __future__ import annotations

import numpy as np

from lens_assets.science.injections.arithmetic import atan_ratio, exp_, log_
from lens_assets.science.injections.compiling import compiled

Q_MAX = 1.0 - 1e-8
"""Axis ratios are capped here, so that the isothermal sphere is a stable limit (the error is of order 1 - q)."""
LENS = ("x", "y", "q", "cos", "sin", "theta_e", "gamma1", "gamma2", "slope")
"""Order of a lens in the kernel: centre (arcsec), axis ratio, orientation of the major axis, Einstein radius, shear,
slope of the density (2: isothermal)."""
SERIES_ERROR = 1e-10
"""Terms of the power law's series are added until the next is smaller than this, relative to the first."""


@compiled()
def terms_of(q):  # type: ignore[no-untyped-def]
    """How many terms of the series are used: f^n < ``SERIES_ERROR`` with f = (1 - q) / (1 + q)."""
    f = (1.0 - q) / (1.0 + q)
    power = 1.0
    n = 1
    while power > SERIES_ERROR and n < 400:
        power *= f
        n += 1
    return n


@compiled()
def _isothermal(x, y, lens, jacobian, bx, by, a11, a12, a22):  # type: ignore[no-untyped-def]
    lx, ly, q, c, s, te, g1, g2, _ = lens
    q = min(q, Q_MAX)
    f = np.sqrt(1.0 - q * q)
    scale = te * np.sqrt(q) / f
    for i in range(x.size):
        dx = x[i] - lx
        dy = y[i] - ly
        u = c * dx + s * dy
        v = c * dy - s * dx
        w = np.sqrt(q * q * u * u + v * v + 1e-24)
        fu = f * u
        fv = f * v
        au = scale * atan_ratio(abs(fu), w)
        au = -au if fu < 0.0 else au
        av = 0.5 * scale * log_((w + fv) / (w - fv))
        bx[i] = dx - (c * au - s * av) - (g1 * dx + g2 * dy)
        by[i] = dy - (s * au + c * av) - (g2 * dx - g1 * dy)
    if not jacobian:
        return
    kappa2 = te * np.sqrt(q)
    for i in range(x.size):
        dx = x[i] - lx
        dy = y[i] - ly
        u = c * dx + s * dy
        v = c * dy - s * dx
        w = np.sqrt(q * q * u * u + v * v + 1e-24)
        k2 = kappa2 / (w * (u * u + v * v + 1e-24))  # 2 kappa / r^2
        a11[i] = 1.0 - k2 * dy * dy - g1
        a22[i] = 1.0 - k2 * dx * dx + g1
        a12[i] = k2 * dx * dy - g2


@compiled()
def _power_law(x, y, lens, jacobian, bx, by, a11, a12, a22):  # type: ignore[no-untyped-def]
    lx, ly, q, c, s, te, g1, g2, slope = lens
    t = slope - 1.0
    f = (1.0 - q) / (1.0 + q)
    n = terms_of(q)
    ratio = np.empty(n)
    for k in range(1, n):
        ratio[k] = -f * (2.0 * k - (2.0 - t)) / (2.0 * k + (2.0 - t))
    b = te * np.sqrt(q)
    scale = 2.0 * b / (1.0 + q)
    m = x.size
    er, ei, sr, si, tr, ti = np.empty(m), np.empty(m), np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    for i in range(m):  # the elliptical angle, doubled, in (er, ei); the series and its term, divided by e^(i angle)
        dx = x[i] - lx
        dy = y[i] - ly
        u = q * (c * dx + s * dy)
        v = c * dy - s * dx
        rr = u * u + v * v + 1e-24
        er[i] = (u * u - v * v) / rr
        ei[i] = 2.0 * u * v / rr
        sr[i] = 1.0
        si[i] = 0.0
        tr[i] = 1.0
        ti[i] = 0.0
    for k in range(1, n):
        g = ratio[k]
        for i in range(m):
            real = g * (tr[i] * er[i] - ti[i] * ei[i])
            imag = g * (tr[i] * ei[i] + ti[i] * er[i])
            tr[i] = real
            ti[i] = imag
            sr[i] += real
            si[i] += imag
    for i in range(m):
        dx = x[i] - lx
        dy = y[i] - ly
        u = c * dx + s * dy
        v = c * dy - s * dx
        qu = q * u
        rr = qu * qu + v * v + 1e-24
        fall = exp_(0.5 * (t - 1.0) * log_(b * b / rr + 1e-300))  # (b / R)^(t - 1)
        r = np.sqrt(rr)
        power = scale * fall / r
        au = power * (sr[i] * qu - si[i] * v)
        av = power * (sr[i] * v + si[i] * qu)
        ax = c * au - s * av
        ay = s * au + c * av
        bx[i] = dx - ax - (g1 * dx + g2 * dy)
        by[i] = dy - ay - (g2 * dx - g1 * dy)
        if jacobian:  # the potential is homogeneous: H r = (1 - t) alpha, and the trace of H is 2 kappa
            kappa = 0.5 * (2.0 - t) * fall * b / r
            d2 = dx * dx + dy * dy + 1e-24
            wx = (1.0 - t) * ax - kappa * dx
            wy = (1.0 - t) * ay - kappa * dy
            s1 = (wx * dx - wy * dy) / d2
            s2 = (wx * dy + wy * dx) / d2
            a11[i] = 1.0 - kappa - s1 - g1
            a22[i] = 1.0 - kappa + s1 + g1
            a12[i] = -s2 - g2


@compiled()
def shoot(x, y, lens, jacobian, bx, by, a11, a12, a22):  # type: ignore[no-untyped-def]
    """Source-plane position (relative to the lens) and, if asked for, the symmetric Jacobian, at image positions.

    All in arcsec. Isothermal ellipse: Kormann, Schneider & Bartelmann 1994, with the intermediate-axis normalisation of
    Keeton 2001 (astro-ph/0102341) eq. 33-35; the Hessian of any potential of degree one is 2 kappa t t^T with t the unit
    tangent. Elliptical power law: the series of Tessore & Metcalf 2015 (A&A 580, A79) eq. 13, 23, 29. Shear about the
    lens. A lens of no mass (theta_E = 0) is the isothermal one's limit.
    """
    if lens[8] == 2.0 or lens[5] == 0.0:
        _isothermal(x, y, lens, jacobian, bx, by, a11, a12, a22)
    else:
        _power_law(x, y, lens, jacobian, bx, by, a11, a12, a22)


@compiled()
def stretch_at(r, lens):  # type: ignore[no-untyped-def]
    """Bound of the largest stretch of the map at a distance of at least ``r`` (arcsec) from the lens's centre."""
    t = lens[8] - 1.0
    x = lens[5] / (np.sqrt(lens[2]) * max(r, 1e-9))
    grown = x if t == 1.0 else (2.0 - t + abs(1.0 - t)) * exp_(t * log_(x + 1e-300))
    return 1.0 + grown + abs(lens[6]) + abs(lens[7])
