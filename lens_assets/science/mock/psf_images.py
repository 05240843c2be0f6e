"""PSF images of a practice sky's bricks, in the layout of the viewer's ``coadd-psf``: what the sky was made with, not a fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import fft

from lens_assets.science.errors import BadInput
from lens_assets.science.mock.conditions import BandConditions, conditions
from lens_assets.science.mock.footprint import BrickPlan
from lens_assets.science.mock.render import psf_at
from lens_assets.science.mock.settings import MockSize
from lens_assets.science.surveys.layout import BANDS, PIXEL_SCALE

F64 = npt.NDArray[np.float64]
SIDE = 63
"""Pixels a side, as the service gives them."""


def brick_psf(c: BandConditions) -> F64:
    """The PSF of a band at a brick's median width, (``SIDE``, ``SIDE``), unit sum, star in the middle of the central pixel."""
    seen = c.psfsize[c.psfsize > 0]
    if not seen.size:
        raise BadInput("a band without exposures has no PSF", column=f"psfsize_{c.band}")
    n = fft.next_fast_len(4 * SIDE, real=True)
    image = fft.irfft2(psf_at(n, c, float(np.median(seen)) / PIXEL_SCALE), s=(n, n))
    image = np.roll(image, (SIDE // 2, SIDE // 2), (0, 1))[:SIDE, :SIDE]
    return np.asarray(image / image.sum())


def write_psf_images(folder: Path, size: MockSize, plans: list[BrickPlan], seed: int) -> list[Path]:
    """One file ``<brickid>.fits`` a brick that was observed in all bands, HDUs named by band, from its identity alone."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for plan in plans:
        bands = conditions(size, plan, seed)
        if set(bands) != set(BANDS):
            continue  # nothing of such a brick becomes a stamp
        path = folder / f"{plan.cell.brickid}.fits"
        hdus = [fits.ImageHDU(brick_psf(bands[b]).astype(np.float32), name=f"PSF_{b}") for b in BANDS]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
        made.append(path)
    return made
