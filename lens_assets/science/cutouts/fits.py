"""One object's stamp as a FITS file: image, inverse variance, WCS and provenance, for any other tool.

The WCS is the brick's own (TAN about the brick's centre, 0.262 arcsec, north up) moved to the stamp: nothing is
resampled.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lens_assets.science.cutouts.shard import Shard, ShardSet
from lens_assets.science.surveys.layout import PIXEL_SCALE, brick_of_id

_KEYS = {
    "release": "RELEASE",
    "brickname": "BRICK",
    "source": "SOURCE",
    "ra": "RA",
    "dec": "DEC",
    "stamp_digest": "STAMPSHA",
}


def stamp_wcs(galaxy_id: str, ra: float, dec: float, dx: float, dy: float, size: int) -> WCS:
    """WCS of a stamp whose centre pixel ``size // 2`` lies ``(dx, dy)`` px short of the position (degrees)."""
    cell = brick_of_id(int(galaxy_id.split("-")[1]))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [cell.ra, cell.dec]
    wcs.wcs.cd = np.array([[-1.0, 0.0], [0.0, 1.0]]) * PIXEL_SCALE / 3600
    wcs.wcs.crpix = [0.0, 0.0]
    here = wcs.all_world2pix([[ra, dec]], 0)[0]
    wcs.wcs.crpix = [size // 2 + float(dx) - here[0], size // 2 + float(dy) - here[1]]
    return wcs


def to_fits(shards: Shard | ShardSet, galaxy_id: str, path: str | Path, bands: str = "grz") -> Path:
    """Write one stamp: HDU ``IMAGE`` (nmgy per pixel) and ``INVVAR`` (1/nmgy^2), planes in the order of ``BANDS``."""
    several = ShardSet([shards]) if isinstance(shards, Shard) else shards
    at = several.locate([galaxy_id])
    facts = several.index.row(int(at[0]), named=True)
    image, invvar = several.images(at)[0], several.invvar(at)[0]
    header = stamp_wcs(galaxy_id, facts["ra"], facts["dec"], facts["dx"], facts["dy"], image.shape[-1]).to_header()
    header["OBJECT"] = galaxy_id
    header["BANDS"] = bands
    for name, key in _KEYS.items():
        header[key] = facts[name]
    for band in bands:
        header[f"PSF_{band.upper()}"] = (float(facts[f"psfsize_{band}"]), "arcsec FWHM at the position")
        header[f"NEXP_{band.upper()}"] = facts[f"nexp_{band}"]
        header[f"IMGSHA_{band.upper()}"] = facts[f"image_digest_{band}"] or ""
        header[f"INVSHA_{band.upper()}"] = facts[f"invvar_digest_{band}"] or ""
    hdus = [fits.PrimaryHDU()]
    for name, data, unit in (("IMAGE", image, "nmgy"), ("INVVAR", invvar, "1/nmgy^2")):
        hdu = fits.ImageHDU(np.asarray(data), header=header.copy(), name=name)
        hdu.header["BUNIT"] = unit
        hdus.append(hdu)
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.fits")
    try:
        fits.HDUList(hdus).writeto(scratch, checksum=True)
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
    return target
