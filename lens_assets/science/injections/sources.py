"""Source families: smooth Sersic, Sersic with clumps, point source.

A source is a set of Sersic components that share one unit of flux; bands multiply it, so a source has one shape in all
bands (colour gradients would need one quadrature per colour). Real galaxies are in ``planes``.

What does not belong here: the lens, the PSF, priors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import gamma, gammaincinv

from lens_assets.science.injections.compiling import compiled
from lens_assets.science.injections.rays import shoot

F64 = npt.NDArray[np.float64]
MAX_MAGNIFICATION = 500.0
"""Cap of one point image's magnification: a quasar has a finite size, and an image on the caustic has none."""


def sersic_b(n: npt.ArrayLike) -> F64:
    """b_n such that Re holds half the light: P(2n, b) = 1/2, solved exactly (Ciotti & Bertin 1999 is its series)."""
    return np.asarray(gammaincinv(2.0 * np.asarray(n, dtype=np.float64), 0.5))


def sersic_amplitude(flux: npt.ArrayLike, re: npt.ArrayLike, n: npt.ArrayLike) -> F64:
    """Surface brightness at Re (flux / arcsec^2) of a Sersic profile of total ``flux`` (Graham & Driver 2005 eq. 4).

    Re is the circularised radius (R^2 = q u^2 + v^2 / q), so the total does not depend on the axis ratio.
    """
    n = np.asarray(n, dtype=np.float64)
    b = sersic_b(n)
    return np.asarray(flux / (2 * np.pi * n * np.square(re) * np.exp(b) * b ** (-2 * n) * gamma(2 * n)))


def components(
    x: npt.ArrayLike, y: npt.ArrayLike, q: npt.ArrayLike, phi: npt.ArrayLike,
    re: npt.ArrayLike, n: npt.ArrayLike, flux: npt.ArrayLike,
) -> F64:  # fmt: skip
    """Sersic components (k, 10) in the order of ``light.COMPONENT``; positions and radii in arcsec, phi in radians."""
    x, y, q, phi, re, n, flux = np.broadcast_arrays(
        *(np.asarray(a, dtype=np.float64) for a in (x, y, q, phi, re, n, flux))
    )
    columns = (x, y, q, np.cos(phi), np.sin(phi), 1 / re, 1 / n, sersic_b(n), sersic_amplitude(flux, re, n), flux)
    return np.ascontiguousarray(np.stack(columns, axis=-1))


def brightness(bx: torch.Tensor, by: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Surface brightness (per arcsec^2) of components (k, 10) at source positions of any shape: the readable
    statement."""
    total = torch.zeros_like(bx)
    for x, y, q, c, s, inv_re, inv_n, b, amplitude, _ in parts.unbind(0) if parts.ndim == 2 else [parts]:
        u, v = c * (bx - x) + s * (by - y), c * (by - y) - s * (bx - x)
        r = torch.sqrt(q * u * u + v * v / q + 1e-20)
        total = total + amplitude * torch.exp(-b * ((r * inv_re) ** inv_n - 1))
    return total


def with_clumps(
    smooth: F64, fraction: float, x: npt.ArrayLike, y: npt.ArrayLike, re: npt.ArrayLike, share: npt.ArrayLike
) -> F64:
    """A smooth component (10,) that gives ``fraction`` of its flux to round Gaussian clumps; the total is conserved.

    ``x, y`` (arcsec) are relative to the source's centre, ``share`` the clumps' relative fluxes.
    """
    share = np.asarray(share, dtype=np.float64)
    if share.size == 0 or fraction == 0.0:
        return np.atleast_2d(smooth)
    host = smooth.copy()
    host[8:10] *= 1.0 - fraction
    flux = smooth[9] * fraction * share / share.sum()
    clumps = components(smooth[0] + np.asarray(x), smooth[1] + np.asarray(y), 1.0, 0.0, re, 0.5, flux)
    return np.concatenate([host[None], clumps])


_STEP = 0.05


@compiled()
def _solve(lens, sx, sy, half, step, found):  # type: ignore[no-untyped-def]
    """Newton from every cell whose image may hold the source; (x, y, signed magnification) per image; returns the
    count."""
    side = int(np.ceil(2.0 * half / step))
    x, y = np.empty(side), np.empty(side)
    bx, by, a11, a12, a22 = np.empty(side), np.empty(side), np.empty(side), np.empty(side), np.empty(side)
    px, py, pbx, pby = np.empty(1), np.empty(1), np.empty(1), np.empty(1)
    p11, p12, p22 = np.empty(1), np.empty(1), np.empty(1)
    count = 0
    for j in range(side):
        for i in range(side):
            x[i] = lens[0] - half + (i + 0.5) * step
            y[i] = lens[1] - half + (j + 0.5) * step
        shoot(x, y, lens, True, bx, by, a11, a12, a22)
        for i in range(side):
            reach = 0.75 * step * (abs(a11[i]) + 2.0 * abs(a12[i]) + abs(a22[i])) + 0.1 * step
            if abs(bx[i] - sx) > reach or abs(by[i] - sy) > reach:
                continue
            px[0], py[0] = x[i], y[i]
            for _ in range(60):
                shoot(px, py, lens, True, pbx, pby, p11, p12, p22)
                det = p11[0] * p22[0] - p12[0] * p12[0]
                ex, ey = sx - pbx[0], sy - pby[0]
                if abs(ex) + abs(ey) < 1e-12 or det == 0.0:
                    break
                dx = (p22[0] * ex - p12[0] * ey) / det
                dy = (p11[0] * ey - p12[0] * ex) / det
                size = np.sqrt(dx * dx + dy * dy)
                damp = min(1.0, 2.0 * step / size) if size > 0.0 else 0.0
                px[0] += damp * dx
                py[0] += damp * dy
            shoot(px, py, lens, True, pbx, pby, p11, p12, p22)
            det = p11[0] * p22[0] - p12[0] * p12[0]
            away = np.sqrt((px[0] - lens[0]) ** 2 + (py[0] - lens[1]) ** 2)
            fresh = abs(sx - pbx[0]) + abs(sy - pby[0]) < 1e-9 and det != 0.0 and 1e-4 < away < 2.0 * half
            for k in range(count):
                if abs(found[k, 0] - px[0]) + abs(found[k, 1] - py[0]) < 1e-5:
                    fresh = False
            if fresh and count < found.shape[0]:
                found[count, 0], found[count, 1], found[count, 2] = px[0], py[0], 1.0 / det
                count += 1
    return count


def point_images(lens: tuple[float, ...], x: float, y: float) -> F64:
    """Images (k, 3) of a point source: position (arcsec, stamp frame) and signed magnification, sorted by it.

    ``lens`` in the order of ``rays.LENS``; the source at ``x, y`` relative to the lens. A search at 0.05" finds the
    cells, Newton's method the images to 1e-9"; |magnification| is capped at ``MAX_MAGNIFICATION``.
    """
    found = np.zeros((16, 3))
    half = 2.5 * lens[5] + 1.5 * float(np.hypot(x, y)) + 0.5
    count = _solve(lens, x, y, half, _STEP, found)
    images = found[:count]
    images[:, 2] = np.clip(images[:, 2], -MAX_MAGNIFICATION, MAX_MAGNIFICATION)
    return images[np.lexsort((images[:, 1], images[:, 0], images[:, 2]))]
