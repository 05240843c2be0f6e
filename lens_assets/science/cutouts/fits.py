"""One object's stamp as a FITS file: image, inverse variance, WCS and provenance, for any other tool.

The WCS of a slice is the brick's own (TAN about the brick's centre, 0.262 arcsec, north up) moved to the stamp: nothing
is resampled. That of a stamp the viewer resampled is TAN about the object. What the catalogue knows of the place
(depths, extinction, exposures, class and split) is written when a row of the sample is given.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lens_assets import __version__
from lens_assets.science.cutouts.shard import Shard, ShardSet
from lens_assets.science.surveys.layout import PIXEL_SCALE, ZERO_POINT, brick_of_id

_KEYS = {
    "release": "RELEASE",
    "brickname": "BRICK",
    "source": "SOURCE",
    "ra": "RA",
    "dec": "DEC",
    "stamp_digest": "STAMPSHA",
}


_SAMPLE: dict[str, tuple[str, str]] = {
    "ebv": ("EBV", "mag, SFD98"),
    "maskbits": ("MASKBITS", "of the object"),
    "type": ("MORPH", "Tractor TYPE"),
    "tile": ("TILE", "sweep of the object"),
    "label": ("LABEL", "1 lens or candidate, 0 not"),
    "tier": ("TIER", "of the lens"),
    "split": ("SPLIT", "of the sample"),
    "role": ("ROLE", "of the object in it"),
}


def stamp_wcs(
    galaxy_id: str, ra: float, dec: float, dx: float, dy: float, size: int, *, resampled: bool = False
) -> WCS:
    """WCS of a stamp whose centre pixel ``size // 2`` lies ``(dx, dy)`` px short of the position (degrees).

    ``resampled``: the grid is TAN about the position itself, not about the brick's centre.
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    if resampled:
        wcs.wcs.crval = [ra, dec]
    else:
        cell = brick_of_id(int(galaxy_id.split("-")[1]))
        wcs.wcs.crval = [cell.ra, cell.dec]
    wcs.wcs.cd = np.array([[-1.0, 0.0], [0.0, 1.0]]) * PIXEL_SCALE / 3600
    wcs.wcs.crpix = [0.0, 0.0]
    here = wcs.all_world2pix([[ra, dec]], 0)[0]
    wcs.wcs.crpix = [size // 2 + float(dx) - here[0], size // 2 + float(dy) - here[1]]
    return wcs


def to_fits(
    shards: Shard | ShardSet,
    galaxy_id: str,
    path: str | Path,
    bands: str = "grz",
    sample: Mapping[str, Any] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write one stamp: HDU ``IMAGE`` (nanomaggies per pixel, AB zero point 22.5) and ``INVVAR`` (their inverse square),
    planes in the order of ``BANDS``.

    ``sample``: the object's row of the sample table. ``provenance``: further header cards (key -> text), for instance the
    digest of the shard.
    """
    several = ShardSet([shards]) if isinstance(shards, Shard) else shards
    at = several.locate([galaxy_id])
    facts = several.index.row(int(at[0]), named=True)
    known = {name: facts[name] for name in facts if name == "ebv" or name.startswith(("psfdepth_", "galdepth_"))}
    known |= {name: value for name, value in (sample or {}).items() if value is not None}
    image, invvar = several.images(at)[0], several.invvar(at)[0]
    ra, dec, dx, dy = (float(facts[name]) for name in ("ra", "dec", "dx", "dy"))
    wcs = stamp_wcs(galaxy_id, ra, dec, dx, dy, image.shape[-1], resampled=facts["source"] == "viewer")
    header = wcs.to_header()
    header["OBJECT"] = galaxy_id
    header["BANDS"] = bands
    header["MAGZERO"] = (ZERO_POINT, "AB magnitude of one nanomaggy")
    for name, key in _KEYS.items():
        header[key] = facts[name]
    for band in bands:
        up = band.upper()
        header[f"PSF_{up}"] = (float(facts[f"psfsize_{band}"]), "arcsec FWHM at the position")
        header[f"NEXP_{up}"] = (facts[f"nexp_{band}"], "exposures at the position")
        for key, name, what in (("DEPTH", "psfdepth", "point source"), ("GDEP", "galdepth", "galaxy")):
            if (depth := _depth(known.get(f"{name}_{band}"))) is not None:
                header[f"{key}_{up}"] = (depth, f"AB mag, 5 sigma, {what}")
        header[f"BAD_{up}"] = (float(facts[f"invalid_fraction_{band}"]), "share of invalid pixels")
        header[f"IMGSHA_{up}"] = facts[f"image_digest_{band}"] or ""
        header[f"INVSHA_{up}"] = facts[f"invvar_digest_{band}"] or ""
    if facts["maskbits_fraction"] is not None:
        header["MASKFRAC"] = (float(facts["maskbits_fraction"]), "share of pixels with a MASKBITS bit")
    for name, (key, comment) in _SAMPLE.items():
        if known.get(name) is not None:
            header[key] = (known[name], comment)
    for key, text in (provenance or {}).items():
        header[key] = text
    header["CREATOR"] = f"lens-assets {__version__}"
    hdus = [fits.PrimaryHDU()]
    for name, data, unit in (("IMAGE", image, "nanomaggy"), ("INVVAR", invvar, "1/nanomaggy^2")):
        hdu = fits.ImageHDU(np.asarray(data), header=header.copy(), name=name)
        hdu.header["BUNIT"] = unit
        hdu.add_checksum(when="")  # no date of writing: the same stamp gives the same bytes
        hdus.append(hdu)
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.fits")
    try:
        fits.HDUList(hdus).writeto(scratch)
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
    return target


def _depth(ivar: float | None) -> float | None:
    """AB magnitude of 5 sigma from a depth in 1 / nmgy^2 (DR10 `catalogs` page); None without one."""
    return 22.5 - 2.5 * math.log10(5 / math.sqrt(ivar)) if ivar and ivar > 0 else None
