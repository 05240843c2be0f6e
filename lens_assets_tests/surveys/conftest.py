"""Builders of small but real FITS sweeps and bricks, in the layout of DR10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lens_assets.science.surveys import schema
from lens_assets.science.surveys.layout import BrickCell, brick_at, tile_of_key

_NUMPY = {"I": ">i2", "J": ">i4", "E": ">f4", "D": ">f8"}
_TEXT = {"BRICKNAME": 8, "TYPE": 3, "REF_CAT": 2}


def sweep_columns(n: int, tile: str = "010m005", seed: int = 1) -> dict[str, np.ndarray]:
    """Plausible values of every needed column for ``n`` objects of a tile."""
    rng = np.random.default_rng(seed)
    t = tile_of_key(tile)
    ra, dec = t.ra_min + 5 * rng.random(n), t.dec_min + 5 * rng.random(n)
    cells = [brick_at(float(r), float(d)) for r, d in zip(ra, dec, strict=True)]
    out: dict[str, np.ndarray] = {name: rng.random(n) + 0.5 for name in schema.FINITE}
    out |= {
        "RELEASE": np.full(n, 10000), "BRICKID": np.array([c.brickid for c in cells], int), "RA": ra, "DEC": dec,
        "BRICKNAME": np.array([c.name for c in cells], "S8"), "OBJID": np.arange(n),
        "TYPE": np.array(["PSF", "REX", "EXP", "DEV", "SER"] * n, "S3")[:n], "MASKBITS": rng.integers(0, 1 << 17, n),
        "FITBITS": np.zeros(n, int), "REF_CAT": np.array(["", "GE"] * n, "S2")[:n],
        "SHAPE_E1": rng.normal(0, 0.2, n), "SHAPE_E2": rng.normal(0, 0.2, n),
    }  # fmt: skip
    for b in "GRZ":
        out |= {f"NOBS_{b}": rng.integers(0, 14, n), f"MW_TRANSMISSION_{b}": np.full(n, 0.9)}
        out |= {f"PSFDEPTH_{b}": 10 ** rng.uniform(2, 3.5, n), f"GALDEPTH_{b}": 10 ** rng.uniform(1.8, 3.2, n)}
        out |= {f"PSFSIZE_{b}": rng.uniform(0.7, 2.0, n), f"FLUX_{b}": rng.normal(20, 15, n)}
    return out


def write_sweep(
    folder: Path, columns: dict[str, np.ndarray], tile: str = "010m005", formats: dict[str, str] | None = None,
    units: dict[str, str] | None = None, extra: bool = True,
) -> Path:  # fmt: skip
    """Write columns as the sweep of a tile; ``extra`` adds DR10 columns that the reader must skip over."""
    formats, units = {**schema.FORMATS, **(formats or {})}, units or {}
    made = []
    for name, values in columns.items():
        letter = formats.get(name, "E")
        form = f"{_TEXT.get(name, 4)}A" if letter == "A" else letter
        array = values if letter == "A" else values.astype(_NUMPY[letter])
        made.append(fits.Column(name, form, array=array, unit=units.get(name)))
    if extra:
        n = len(next(iter(columns.values())))
        made.insert(3, fits.Column("DCHISQ", "5E", array=np.ones((n, 5), ">f4")))
        made.append(fits.Column("NOBS_I", "I", array=np.zeros(n, ">i2")))
        made.append(fits.Column("GAIA_DUPLICATED_SOURCE", "L", array=np.zeros(n, bool)))
    path = folder / tile_of_key(tile).path
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.BinTableHDU.from_columns(made).writeto(path, overwrite=True)
    return path


def brick_header(cell: BrickCell, shape: tuple[int, int]) -> fits.Header:
    """TAN header of a coadd, the brick's centre in the middle."""
    header = fits.Header()
    for key, value in {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": cell.ra, "CRVAL2": cell.dec, "CRPIX1": (shape[1] + 1) / 2,
        "CRPIX2": (shape[0] + 1) / 2, "CD1_1": -0.262 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.262 / 3600,
        "BRICK": cell.name, "MAGZERO": 22.5, "BUNIT": "nanomaggy",
    }.items():  # fmt: skip
        header[key] = value
    return header


def write_brick(
    folder: Path, cell: BrickCell, shape: tuple[int, int] = (220, 240), bands: str = "grz", checksum: bool = True
) -> dict[str, np.ndarray]:
    """Write a brick's coadds (Rice-compressed as the survey does) and return the images by band."""
    rng = np.random.default_rng(cell.brickid)
    images = {}
    for band in bands:
        for product in ("image", "invvar", "psfsize", "nexp"):
            header = brick_header(cell, shape)
            header["IMTYPE"] = product
            if product == "image":
                data = images[band] = rng.normal(0, 0.003, shape).astype(np.float32)
                how = {"compression_type": "RICE_1", "quantize_level": -1e-4, "quantize_method": 2, "dither_seed": 7}
            elif product == "nexp":
                data, how = np.full(shape, 4, np.int16), {"compression_type": "HCOMPRESS_1"}
            else:
                data = np.full(shape, 1.1e5 if product == "invvar" else 1.3, np.float32)
                how = {"compression_type": "GZIP_1", "quantize_level": 0}
            _write(folder, cell.coadd(product, band), data, header, how, checksum)
    mask = np.zeros(shape, np.int32)
    mask[5, 7] = 1 << 16
    _write(folder, cell.coadd("maskbits"), mask, brick_header(cell, shape), {"compression_type": "GZIP_1"}, checksum)
    return images


def _write(folder: Path, relative: str, data: np.ndarray, header: fits.Header, how: dict, checksum: bool) -> None:  # type: ignore[type-arg]
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = fits.CompImageHDU(data, header, tile_shape=(100, 100), **how)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, checksum=checksum, overwrite=True)


@pytest.fixture(scope="session")
def sweep_builder():
    """(columns, write): values of a sweep, and how to write them."""
    return sweep_columns, write_sweep


@pytest.fixture(scope="session")
def brick_builder():
    """Write a brick's coadds under a root."""
    return write_brick
