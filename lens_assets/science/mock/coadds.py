"""Coadd files of one brick: names, headers, units and compression of DR10 (legacypipe `coadds`), nothing random and
no dates."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from lens_assets.science.hashing import seed_of
from lens_assets.science.surveys.layout import PIXEL_SCALE, BrickCell

TILE = (100, 100)
UNITS = {
    "image": "nanomaggy", "invvar": "1/nanomaggy^2", "depth": "1/nanomaggy^2", "galdepth": "1/nanomaggy^2",
    "psfsize": "arcsec", "nexp": "", "maskbits": "",
}  # fmt: skip
PRODUCTS = ("image", "invvar", "psfsize", "nexp", "depth", "galdepth")
"""Products of each band, in the order in which they are written."""
BITS = {
    "NPRIMARY": 0, "BRIGHT": 1, "SATUR_G": 2, "SATUR_R": 3, "SATUR_Z": 4, "ALLMASK_G": 5, "ALLMASK_R": 6,
    "ALLMASK_Z": 7, "BAILOUT": 10, "MEDIUM": 11, "GALAXY": 12,
}  # fmt: skip
"""MASKBITS that the mock sets (DR10 `bitmasks` page)."""


def wcs_header(cell: BrickCell, n: int) -> fits.Header:
    """The brick's TAN projection on n x n pixels: centre at CRPIX = (n + 1) / 2, North up, East left."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = cell.ra, cell.dec
    header["CRPIX1"] = header["CRPIX2"] = (n + 1) / 2
    step = PIXEL_SCALE / 3600
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -step, 0.0, 0.0, step
    header["CUNIT1"] = header["CUNIT2"] = "deg"
    header["EQUINOX"], header["RADESYS"] = 2000.0, "ICRS"
    return header


def _header(cell: BrickCell, n: int, product: str, band: str | None, cards: dict[str, object]) -> fits.Header:
    header = wcs_header(cell, n)
    header["SURVEY"], header["BRICK"], header["BRICKID"] = "MOCK", cell.name, cell.brickid
    header["RAMIN"], header["RAMAX"], header["DECMIN"], header["DECMAX"] = cell.ra1, cell.ra2, cell.dec1, cell.dec2
    header["IMAGEW"] = header["IMAGEH"] = n
    header["IMTYPE"] = product
    header["TELESCOP"], header["INSTRUME"] = "Mock 4m", "decam"
    if band:
        header["FILTER"] = band
        header["MAGZERO"] = (22.5, "AB zero point of a nanomaggy")
    if UNITS[product]:
        header["BUNIT"] = UNITS[product]
    for key, value in cards.items():
        header[key] = value
    return header


def compressed(data: npt.NDArray[np.generic], product: str, header: fits.Header, seed: int) -> fits.CompImageHDU:
    """HDU 1 of a coadd: RICE at an absolute 1e-4 nmgy for images, RICE q = 16 for invvar, lossless for the rest."""
    options: dict[str, object] = {"tile_shape": TILE}
    if product == "image":
        options |= {
            "compression_type": "RICE_1",
            "quantize_level": -1e-4,
            "quantize_method": 2,
            "dither_seed": 1 + seed % 10_000,
        }
    elif product == "invvar":
        options |= {
            "compression_type": "RICE_1",
            "quantize_level": 16.0,
            "quantize_method": 2,
            "dither_seed": 1 + seed % 10_000,
        }
    elif product in ("nexp", "maskbits"):
        options |= {"compression_type": "HCOMPRESS_1"}
    else:
        options |= {"compression_type": "GZIP_1", "quantize_level": 0.0}
    return fits.CompImageHDU(data, header, **options)


def write_coadd(
    root: Path,
    cell: BrickCell,
    product: str,
    band: str | None,
    planes: list[npt.NDArray[np.generic]],
    cards: dict[str, object],
) -> None:
    """Write one coadd (several planes become HDUs 1, 2, ...) to a temporary name, then rename it."""
    path = root / cell.coadd(product, band)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = _header(cell, planes[0].shape[0], product, band, cards)
    dither = seed_of("dither", cell.brickid, product, band)
    hdus = [fits.PrimaryHDU(), *(compressed(p, product, header, dither + i) for i, p in enumerate(planes))]
    raw = io.BytesIO()
    fits.HDUList(hdus).writeto(raw)
    data = without_times(raw.getvalue())
    replace_with(path, lambda scratch: scratch.write_bytes(data))


def without_times(data: bytes) -> bytes:
    """A compressed FITS file with the clock time taken out of its gzip streams (bytes 4-7 of each; RFC 1952): astropy
    stamps every tile that it packs with gzip, so the same image would never give the same bytes twice."""
    out = bytearray(data)
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        for hdu in hdus[1:]:
            heap = hdu.fileinfo()["datLoc"] + hdu.header.get("THEAP", hdu.header["NAXIS1"] * hdu.header["NAXIS2"])
            packed = ["GZIP_COMPRESSED_DATA"] if "GZIP_COMPRESSED_DATA" in hdu.columns.names else []
            if hdu.header["ZCMPTYPE"].startswith("GZIP"):
                packed.append("COMPRESSED_DATA")
            for name in packed:
                descriptors = np.asarray(hdu.data).view(np.ndarray)[name]
                for length, offset in descriptors.tolist():
                    if length:
                        at = heap + offset
                        if out[at : at + 3] != b"\x1f\x8b\x08":
                            raise ValueError(f"no gzip stream at byte {at}")
                        out[at + 4 : at + 8] = bytes(4)
    return bytes(out)


def replace_with(path: Path, write) -> None:  # type: ignore[no-untyped-def]
    """Call ``write(scratch)`` beside ``path`` and rename: the file is whole or absent when a process dies at any
    moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
