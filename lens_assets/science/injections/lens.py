"""Elliptical lenses, isothermal or of another power law, with external shear: the equations, in torch, for any device
and any batch shape.

The readable statement of the physics. The compiled renderer repeats it (``rays.shoot``) and a test holds both, and
lenstronomy, together. All angles in arcsec, orientations in radians from +x (increasing column) towards +y (increasing
row). ``theta_e`` is the Einstein radius of the intermediate-axis convention: kappa = theta_e sqrt(q) / (2 sqrt(q^2 u^2
+ v^2)), which conserves the mass inside the critical curve as q changes and is lenstronomy's.
"""

from __future__ import annotations

import torch

from lens_assets.science.injections.rays import Q_MAX, SERIES_ERROR

Tensor = torch.Tensor


def sie_deflection(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection (arcsec) at positions relative to the lens centre.

    Kormann, Schneider & Bartelmann 1994 (A&A 284, 285); Keeton 2001 (astro-ph/0102341) eqs. 33-35 with zero core. The
    axis ratio is capped at 1 - 1e-8, where atan(f x / w) / f has reached the isothermal sphere's x / r to that order.
    """
    q = torch.clamp(q, max=Q_MAX)
    f = torch.sqrt(1 - q * q)
    c, s = torch.cos(phi), torch.sin(phi)
    u, v = c * x + s * y, c * y - s * x
    w = torch.sqrt(q * q * u * u + v * v + 1e-24)
    scale = theta_e * torch.sqrt(q) / f
    au, av = scale * torch.atan(f * u / w), scale * torch.atanh(f * v / w)
    return c * au - s * av, s * au + c * av


def epl_deflection(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, phi: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Deflection (arcsec) of an elliptical power law, kappa = (3 - slope) / 2 (b / R)^(slope - 1), b = theta_E sqrt(q).

    R^2 = q^2 u^2 + v^2. Tessore & Metcalf 2015 (A&A 580, A79) eq. 13 and 29: a series in (1 - q) / (1 + q), until it adds
    less than ``SERIES_ERROR``. ``slope`` is that of the density in three dimensions; 2 is isothermal.
    """
    c, s = torch.cos(phi), torch.sin(phi)
    u, v = q * (c * x + s * y), c * y - s * x
    t = slope - 1
    r = torch.sqrt(u * u + v * v + 1e-24)
    f = (1 - q) / (1 + q)
    turn = torch.complex(u / r, v / r)
    term = turn
    total, k = term, 1
    while float(f.max()) ** k > SERIES_ERROR and k < 400:
        term = -f * (2 * k - (2 - t)) / (2 * k + (2 - t)) * turn * turn * term
        total, k = total + term, k + 1
    b = theta_e * torch.sqrt(q)
    alpha = 2 * b / (1 + q) * (b / r + 1e-300) ** (t - 1) * total
    return c * alpha.real - s * alpha.imag, s * alpha.real + c * alpha.imag


def deflection(x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, phi: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection (arcsec) by the closed form where all lenses are isothermal, by the series otherwise."""
    if bool((slope == 2).all()):
        return sie_deflection(x, y, theta_e, q, phi)
    return epl_deflection(x, y, theta_e, q, phi, slope)


def shear_deflection(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection (arcsec) of a constant external shear about the lens centre (Keeton 2001 eq. 76)."""
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def shoot(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, phi: Tensor, gamma1: Tensor, gamma2: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Source-plane position beta = theta - alpha(theta), all relative to the lens centre (arcsec)."""
    ax, ay = deflection(x, y, theta_e, q, phi, slope)
    sx, sy = shear_deflection(x, y, gamma1, gamma2)
    return x - ax - sx, y - ay - sy


def lens_map(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, phi: Tensor, gamma1: Tensor, gamma2: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``shoot`` and ``jacobian`` from one evaluation of the deflection: (beta_x, beta_y, A11, A12, A22)."""
    q = torch.clamp(q, max=Q_MAX)
    c, s = torch.cos(phi), torch.sin(phi)
    u, v = c * x + s * y, c * y - s * x
    r2 = u * u + v * v + 1e-24
    t = slope - 1
    big = torch.sqrt(q * q * u * u + v * v + 1e-24)
    kappa = (2 - t) / 2 * (theta_e * torch.sqrt(q) / big) ** t
    ax, ay = deflection(x, y, theta_e, q, phi, slope)
    sx, sy = shear_deflection(x, y, gamma1, gamma2)
    wx, wy = (1 - t) * ax - kappa * x, (1 - t) * ay - kappa * y
    s1, s2 = (wx * x - wy * y) / r2, (wx * y + wy * x) / r2
    return x - ax - sx, y - ay - sy, 1 - kappa - s1 - gamma1, -s2 - gamma2, 1 - kappa + s1 + gamma1


def jacobian(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, phi: Tensor, gamma1: Tensor, gamma2: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(A11, A12, A22) of the lens map; signed magnification is 1 / (A11 A22 - A12^2).

    The potential of a power law is homogeneous of degree 3 - slope, so its Hessian H obeys H r = (2 - slope) alpha, and its
    trace is 2 kappa: three equations for three numbers. (An isothermal lens: 2 kappa t t^T, t the unit tangent.)
    """
    return lens_map(x, y, theta_e, q, phi, gamma1, gamma2, slope)[2:]
