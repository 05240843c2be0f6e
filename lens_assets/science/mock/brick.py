"""One brick of the mock sky: its objects drawn, rendered, observed, masked, catalogued and written.

A brick depends on its plan, the size's settings and the seed alone, so that any one can be made again by itself, in
any process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from lens_assets.science.hashing import generator
from lens_assets.science.mock import stars
from lens_assets.science.mock.coadds import BITS, PRODUCTS, wcs_header, write_coadd
from lens_assets.science.mock.conditions import BandConditions, conditions
from lens_assets.science.mock.footprint import BrickPlan
from lens_assets.science.mock.noise import resampled
from lens_assets.science.mock.objects import Painter
from lens_assets.science.mock.settings import MockSize
from lens_assets.science.mock.tractor import measure
from lens_assets.science.surveys.layout import BANDS, BrickCell

F32 = npt.NDArray[np.float32]
MAPS = {"psfsize": "psfsize", "nexp": "nexp", "depth": "psfdepth", "galdepth": "galdepth"}
"""Coadd products that are condition maps, and the map each one is."""


def files_of(cell: BrickCell, bands: tuple[str, ...]) -> list[str]:
    """Paths (below the release's root) of all files of a brick."""
    return [cell.coadd(product, band) for band in bands for product in PRODUCTS] + [cell.coadd("maskbits")]


def make_brick(
    release: Path, size: MockSize, plan: BrickPlan, seed: int
) -> tuple[npt.NDArray[np.void], list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the coadds of a brick; return its sweep rows, and the truth of its objects and of its lenses."""
    n = size.brick_pixels
    wcs = WCS(wcs_header(plan.cell, n))
    seen = conditions(size, plan, seed)
    painter = Painter(size, plan, seed, wcs, seen)
    painter.paint()
    bits = _primary_mask(plan.cell, wcs, n)
    for x, y, gaia in painter.bright_stars:
        radius = stars.mask_radius(gaia) / 0.262
        stars.mask_disc(bits, x, y, radius, BITS["MEDIUM"])
        if gaia < stars.BRIGHT:
            stars.mask_disc(bits, x, y, radius, BITS["BRIGHT"])
    for x, y, re in painter.large_galaxies:
        stars.mask_disc(bits, x, y, 2.5 * re / 0.262, BITS["GALAXY"])
    bad: dict[str, npt.NDArray[np.bool_]] = {}
    for b in plan.bands:
        bad[b] = _observe(release, plan, seed, seen[b], painter, bits, n)
        painter.canvas[b] = np.zeros((1, 1), np.float32)  # free it
    for b in BANDS:
        if b not in bad:
            bad[b] = np.zeros((n, n), np.bool_)
    write_coadd(
        release, plan.cell, "maskbits", None, [bits, np.zeros((n, n), np.uint8), np.zeros((n, n), np.uint8)], {}
    )
    rows, kept = measure(painter.scene, plan, seen, bits, bad, seed)
    objid = np.full(len(painter.scene.x), -1, np.int64)
    objid[kept] = rows["OBJID"]
    return rows, *painter.truth(objid, rows)


def _observe(
    release: Path, plan: BrickPlan, seed: int, c: BandConditions, painter: Painter, bits: npt.NDArray[np.int32], n: int
) -> npt.NDArray[np.bool_]:
    """Turn a band's noise-free canvas into an image with its inverse variance and maps; write all; return the masked
    pixels."""
    rng = generator("mock pixels", seed, plan.cell.brickid, c.band)
    canvas = painter.canvas[c.band]
    nexp = np.ascontiguousarray(c.full("nexp")).astype(np.int16)
    invvar = np.ascontiguousarray(c.full("invvar")).astype(np.float32)
    covered = nexp > 0
    junk: list[npt.NDArray[np.int64]] = []
    for _ in range(int(rng.poisson(0.4 * n / 3600))):
        where = stars.trail_pixels(n, rng)
        y, x = where[:, 0], where[:, 1]
        left = np.maximum(nexp[y, x] - 1, 0)
        invvar[y, x] *= left / np.maximum(nexp[y, x], 1)
        nexp[y, x] = left
        junk.append(where[left == 0])
    for _ in range(int(rng.poisson(6 * n / 3600))):  # bad columns, where few exposures leave nothing
        y0, x0, length = int(rng.integers(n)), int(rng.integers(n)), int(rng.integers(30, 250))
        line = np.arange(x0, min(x0 + length, n))
        junk.append(np.stack([np.full(line.size, y0), line], 1))
    core: list[npt.NDArray[np.int64]] = []
    for x_star, y_star, gaia in painter.bright_stars:
        if gaia < 15.5:
            found = stars.saturated(canvas, c.band, x_star, y_star)
            if found is not None:
                core.append(found)
    with np.errstate(divide="ignore"):
        sigma = np.where(invvar > 0, 1 / np.sqrt(invvar), 0).astype(np.float32)
    white = rng.standard_normal((n, n), dtype=np.float32)
    # photons of the sources: the coadd's gain is sky / sigma^2, so their variance is sigma^2 x flux / sky
    white *= sigma * np.sqrt(1 + np.maximum(canvas, 0) / np.float32(c.sky))
    image = resampled(white)
    image += canvas
    image[~covered] = 0
    bad = ~covered
    for where in junk:
        y, x = where[:, 0], where[:, 1]
        image[y, x] += np.where(covered[y, x], 0.3, 0).astype(np.float32)
        bad[y, x] = True
    for where in core:
        y, x = where[:, 0], where[:, 1]
        level = np.float32(stars.SATURATION[c.band])
        image[y, x] = np.where(covered[y, x], np.maximum(np.minimum(image[y, x], level), 0.3 * level), 0)
        bad[y, x] = True
        bits[y, x] |= 1 << BITS[f"SATUR_{c.band.upper()}"]
    invvar[bad] = 0
    bits[invvar <= 0] |= 1 << BITS[f"ALLMASK_{c.band.upper()}"]
    write_coadd(release, plan.cell, "image", c.band, [image], {})
    write_coadd(release, plan.cell, "invvar", c.band, [invvar], {})
    for product, name in MAPS.items():
        full = nexp if product == "nexp" else np.ascontiguousarray(c.full(name))
        write_coadd(release, plan.cell, product, c.band, [full], {})
    return bad


def _primary_mask(cell: BrickCell, wcs: WCS, n: int) -> npt.NDArray[np.int32]:
    """MASKBITS with NPRIMARY set outside the brick's own area (edges taken as straight: right to a pixel)."""
    bits = np.full((n, n), 1 << BITS["NPRIMARY"], np.int32)
    px, py = wcs.all_world2pix(
        [cell.ra2, cell.ra2, cell.ra1, cell.ra1], [cell.dec1, cell.dec2, cell.dec1, cell.dec2], 0
    )
    rows = np.arange(n)
    west = np.interp(rows, [py[2], py[3]], [px[2], px[3]])
    east = np.interp(rows, [py[0], py[1]], [px[0], px[1]])
    low, high = max(int(np.ceil(py.min())), 0), min(int(np.floor(py.max())) + 1, n)
    columns = np.arange(n)
    for y in range(low, high):
        bits[y, (columns >= east[y]) & (columns <= west[y])] = 0
    return bits
