"""Singular isothermal ellipsoid with external shear: the equations, in torch, on any device and any batch shape.

The readable statement of the physics. The compiled renderer repeats it (``kernel.shoot``) and a test holds both, and
lenstronomy, together. All angles in arcsec, orientations in radians from +x (increasing column) towards +y (increasing
row). ``theta_e`` is the Einstein radius of the intermediate-axis convention: kappa = theta_e sqrt(q) / (2 sqrt(q^2 u^2
+ v^2)), which conserves the mass inside the critical curve as q changes and is lenstronomy's.
"""

from __future__ import annotations

import torch

from lens_assets.science.injections.kernel import Q_MAX

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


def shear_deflection(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor) -> tuple[Tensor, Tensor]:
    """Deflection (arcsec) of a constant external shear about the lens centre (Keeton 2001 eq. 76)."""
    return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y


def shoot(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, phi: Tensor, gamma1: Tensor, gamma2: Tensor
) -> tuple[Tensor, Tensor]:
    """Source-plane position beta = theta - alpha(theta), all relative to the lens centre (arcsec)."""
    ax, ay = sie_deflection(x, y, theta_e, q, phi)
    sx, sy = shear_deflection(x, y, gamma1, gamma2)
    return x - ax - sx, y - ay - sy


def jacobian(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, phi: Tensor, gamma1: Tensor, gamma2: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(A11, A12, A22) of the lens map; signed magnification is 1 / (A11 A22 - A12^2).

    The potential of an isothermal lens is homogeneous of degree one, so its Hessian is 2 kappa t t^T (t: unit tangent).
    """
    q = torch.clamp(q, max=Q_MAX)
    c, s = torch.cos(phi), torch.sin(phi)
    u, v = c * x + s * y, c * y - s * x
    r2 = u * u + v * v + 1e-24
    k = theta_e * torch.sqrt(q) / (torch.sqrt(q * q * u * u + v * v + 1e-24) * r2)
    return 1 - k * y * y - gamma1, k * x * y - gamma2, 1 - k * x * x + gamma1
