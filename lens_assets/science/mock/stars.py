"""Stars: point sources with wings, spikes, saturated cores and bleed trails, and the masks that the survey puts round
them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lens_assets.science.mock.galaxies import fluxes
from lens_assets.science.mock.render import paste
from lens_assets.science.surveys.layout import BANDS, PIXEL_SCALE

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

BRIGHT, MEDIUM = 13.0, 16.0
"""Gaia G limits of the BRIGHT and MEDIUM masks (DR10 `bitmasks` page)."""
WING = {"g": 4.5e-4, "r": 3.3e-4, "z": 3.3e-4}
"""Outer PSF at r^-2, nanomaggies an arcsec^2 at 1" for a star of 1 nanomaggy (DR10 description; z taken as r,
assumption)."""
SATURATION = {"g": 25.0, "r": 35.0, "z": 90.0}
"""Coadd brightness above which a core is masked as saturated, nanomaggies a pixel. Assumption."""


@dataclass(frozen=True)
class Star:
    """A star: Gaia G (mag) and fluxes in g, r, z (nanomaggies, before extinction)."""

    gaia: float
    flux: F64


def star(rng: np.random.Generator) -> Star:
    """A field star; counts rise 0.22 dex a magnitude over 10.5 < G < 21.5 (assumption: a high-latitude field)."""
    slope = 0.22 * np.log(10)
    u = rng.random()
    gaia = 21.5 + np.log(u + (1 - u) * np.exp(-slope * 11.0)) / slope
    gr = float(rng.choice([0.45, 1.35], p=[0.6, 0.4])) + 0.15 * rng.normal()
    rz = 0.45 * gr + (0.6 if gr > 1.0 else 0.0) * rng.random() + 0.04 * rng.normal()
    return Star(float(gaia), fluxes(float(gaia) + 0.1 - rz, rz, gr))


def mask_radius(gaia: float) -> float:
    """Radius (arcsec) of the mask of a star: 1630" x 1.396^-G (legacypipe)."""
    return float(1630.0 * 1.396**-gaia)


def add_wings(canvas: F32, x: float, y: float, flux: float, band: str, sigma: float) -> None:
    """Add the r^-2 wings and the four diffraction spikes of a bright star to an image, out to 0.2 sigma a pixel."""
    amplitude = WING[band] * flux * PIXEL_SCALE**2
    reach = int(min(np.sqrt(amplitude / (0.2 * sigma)) / PIXEL_SCALE, 450))
    if reach < 12:
        return
    iy, ix = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    ix, iy = ix - np.float32(x - round(x)), iy - np.float32(y - round(y))
    r = np.hypot(ix, iy) * PIXEL_SCALE
    edge = np.clip((reach * PIXEL_SCALE - r) / 3.0, 0, 1)
    halo = amplitude / (r**2 + 9.0) * edge
    u, v = (ix + iy) / np.sqrt(2), (ix - iy) / np.sqrt(2)  # the secondary's vanes stand at 45 degrees
    for along, across in ((u, v), (v, u)):
        halo += 14 * amplitude / (along**2 * PIXEL_SCALE**2 + 40) * np.exp(-0.5 * (across / 1.8) ** 2) * edge
    paste(canvas, halo.astype(np.float32), round(x), round(y))


def mask_disc(bits: npt.NDArray[np.int32], x: float, y: float, radius_px: float, bit: int) -> None:
    """Set a MASKBITS bit within a radius of a position (pixels)."""
    n = bits.shape[0]
    x0, x1 = max(int(x - radius_px), 0), min(int(x + radius_px) + 2, n)
    y0, y1 = max(int(y - radius_px), 0), min(int(y + radius_px) + 2, n)
    if x0 < x1 and y0 < y1:
        yy, xx = np.mgrid[y0:y1, x0:x1]
        view = bits[y0:y1, x0:x1]
        view[(xx - x) ** 2 + (yy - y) ** 2 <= radius_px**2] |= 1 << bit


def saturated(canvas: F32, band: str, x: float, y: float) -> npt.NDArray[np.int64] | None:
    """Pixels (n, 2) as (y, x) of a saturated core and its bleed trail (along x, the CCDs' long side), or ``None``."""
    n = canvas.shape[0]
    half = 60
    x0, y0 = max(int(x) - half, 0), max(int(y) - half, 0)
    core = np.argwhere(canvas[y0 : min(int(y) + half, n), x0 : min(int(x) + half, n)] > SATURATION[band])
    if not len(core):
        return None
    core += np.array([y0, x0])
    rows = np.unique(core[:, 0])
    length = int(min(8 * len(core) ** 0.5, 220))
    middle = rows[np.abs(rows - y) <= max(1, len(rows) // 6)]
    xs = np.arange(max(int(x) - length, 0), min(int(x) + length, n))
    trail = np.array([(r, c) for r in middle for c in xs], np.int64).reshape(-1, 2)
    return np.concatenate([core, trail])


def trail_pixels(n: int, rng: np.random.Generator, width: int = 4) -> npt.NDArray[np.int64]:
    """Pixels (k, 2) as (y, x) of a satellite's trail across an n-pixel image."""
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.35, 0.35) * n
    t = np.arange(-n, n, 0.5)
    found = []
    for w in np.arange(-width / 2, width / 2, 0.7):
        x = n / 2 + t * np.cos(angle) - (offset + w) * np.sin(angle)
        y = n / 2 + t * np.sin(angle) + (offset + w) * np.cos(angle)
        inside = (x >= 0) & (x < n - 1) & (y >= 0) & (y < n - 1)
        found.append(np.stack([y[inside], x[inside]], 1).astype(np.int64))
    return np.unique(np.concatenate(found), axis=0)


BANDS_OF = {b: i for i, b in enumerate(BANDS)}
"""Index of each band in a flux vector."""
