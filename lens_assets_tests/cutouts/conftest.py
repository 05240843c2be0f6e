"""Bricks of known pixels: arrays for the arithmetic, and a small release on disk for everything that reads files."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.lib.stride_tricks import sliding_window_view

from lens_assets.science.hashing import generator
from lens_assets.science.surveys.layout import BANDS, BrickCell, brick_at

SIDE = 260
RA, DEC = 150.0, 2.0


class ArrayBrick:
    """A brick held in memory on a plain grid: x = ra, y = dec in pixels, so that a test can state positions exactly."""

    def __init__(self, side: int = SIDE, missing: tuple[str, ...] = ()) -> None:
        self.cell = brick_at(RA, DEC)
        self.missing_bands = missing
        self.files = {Path(self.cell.coadd(p, b)).name: f"{p}{b}" for p in ("image", "invvar") for b in BANDS}
        noise = generator("cutouts-brick", side)
        self.planes: dict[tuple[str, str], np.ndarray] = {}
        for k, band in enumerate(BANDS):
            self.planes["image", band] = noise.normal(0, 1e-3, (side, side)).astype(np.float32)
            self.planes["invvar", band] = np.full((side, side), 1e6, np.float32)
            self.planes["psfsize", band] = np.full((side, side), 1.1 + 0.1 * k, np.float32)
            self.planes["nexp", band] = np.full((side, side), 3 + k, np.int16)
        self.mask = np.zeros((side, side), np.int32)

    def image(self, band: str) -> np.ndarray:
        return self.planes["image", band]

    def invvar(self, band: str) -> np.ndarray:
        return self.planes["invvar", band]

    @property
    def shape(self) -> tuple[int, int]:
        return self.mask.shape

    def windows(self, product: str, band: str, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        plane = self.mask if product == "maskbits" else self.planes[product, band]
        return sliding_window_view(plane, (side, side))[top, left]

    def pixel_of(self, ra: Any, dec: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(ra, float), np.asarray(dec, float)

    def rows(self, places: list[tuple[float, float]]) -> pl.DataFrame:
        """One object a place (x, y)."""
        return pl.DataFrame(
            {
                "galaxy_id": [f"10000-{self.cell.brickid}-{i}" for i in range(len(places))],
                "brickname": [self.cell.name] * len(places),
                "ra": [float(x) for x, _ in places],
                "dec": [float(y) for _, y in places],
            },
            schema={"galaxy_id": pl.String, "brickname": pl.String, "ra": pl.Float64, "dec": pl.Float64},
        )


@pytest.fixture(scope="session")
def brick() -> Callable[..., ArrayBrick]:
    return ArrayBrick


def write_brick(root: Path, cell: BrickCell, side: int = SIDE, bands: tuple[str, ...] = BANDS) -> None:
    """A brick as DR10 has it: HDU 1 Rice-compressed, TAN about the brick's centre, north up."""
    noise = generator("cutouts-release", cell.name)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [cell.ra, cell.dec]
    wcs.wcs.crpix = [(side + 1) / 2] * 2
    wcs.wcs.cd = np.array([[-0.262, 0.0], [0.0, 0.262]]) / 3600

    def save(product: str, band: str | None, data: np.ndarray, **how: Any) -> None:
        header = wcs.to_header()
        header["BRICK"] = cell.name
        if product in ("image", "invvar"):
            header["IMTYPE"] = product
            header["MAGZERO"] = 22.5
        path = root / cell.coadd(product, band)
        path.parent.mkdir(parents=True, exist_ok=True)
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, header=header, **how)])
        hdus.writeto(path, overwrite=True)

    for k, band in enumerate(bands):
        image = noise.normal(0, 2e-3, (side, side)).astype(np.float32)
        invvar = np.full((side, side), 2.5e5, np.float32)
        invvar[5:9, 30:36] = 0
        save("image", band, image, compression_type="RICE_1", quantize_level=-1e-4, quantize_method=2, dither_seed=7)
        save("invvar", band, invvar, compression_type="GZIP_1", quantize_level=0)
        save(
            "psfsize",
            band,
            np.full((side, side), 1.2 + 0.1 * k, np.float32),
            compression_type="GZIP_1",
            quantize_level=0,
        )
        save("nexp", band, np.full((side, side), 4 + k, np.int16), compression_type="RICE_1")
    save("maskbits", None, np.zeros((side, side), np.int32), compression_type="RICE_1")


def objects_of(cell: BrickCell, n: int, side: int = SIDE) -> pl.DataFrame:
    """``n`` objects of a brick, away from its edges (the last one is too near to fit a 101 px stamp)."""
    draw = generator("cutouts-objects", cell.name)
    x, y = draw.uniform(55, side - 56, n), draw.uniform(55, side - 56, n)
    x[-1] = 20.0
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [cell.ra, cell.dec]
    wcs.wcs.crpix = [(side + 1) / 2] * 2
    wcs.wcs.cd = np.array([[-0.262, 0.0], [0.0, 0.262]]) / 3600
    ra, dec = wcs.all_pix2world(x, y, 0)
    return pl.DataFrame(
        {
            "galaxy_id": [f"10000-{cell.brickid}-{i}" for i in range(n)],
            "brickname": [cell.name] * n,
            "ra": ra,
            "dec": dec,
            "x_true": x,
            "y_true": y,
        }
    )


@pytest.fixture(scope="session")
def practice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """A release of four bricks (one without z) and the objects asked for: (root, rows)."""
    root = tmp_path_factory.mktemp("release")
    cells = [brick_at(RA + 0.25 * k, DEC) for k in range(4)]
    for k, cell in enumerate(cells):
        write_brick(root, cell, bands=BANDS if k < 3 else ("g", "r"))
    return root, pl.concat([objects_of(cell, 6) for cell in cells]).sample(fraction=1.0, shuffle=True, seed=3)


@pytest.fixture(scope="session")
def real_stamps() -> list[dict[str, Any]]:
    """Real viewer stamps (h, w, band) with what their makers measured; skipped where they are not at hand."""
    repository = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("LENS_ASSETS_REAL_DATA", repository / "../shared/data")) / "stamps"
    files = sorted(folder.glob("*.npz"))
    if not files:
        pytest.skip(f"no real stamps in {folder}; point LENS_ASSETS_REAL_DATA at a folder with stamps/*.npz")
    return [dict(np.load(file)) for file in files]


@pytest.fixture(scope="session")
def viewer_server() -> Any:
    """The module of the misbehaving service."""
    path = Path(__file__).parent / "viewer_server.py"
    spec = importlib.util.spec_from_file_location("viewer_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
