"""One brick's coadds: images, weights, PSF size, exposures and masks as native arrays on one proven pixel grid.

Facts relied on (DR10 `files` page): the data are in HDU 1, Rice-compressed; images are nanomaggies per pixel (MAGZERO
22.5), inverse variance 1/nmgy^2; a band without exposures has no file; where nothing was observed the value is 0,
never NaN, and where invvar is 0 the image may hold anything. What is valid is decided by whoever cuts stamps, not
here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from lens_assets.science.errors import BadInput
from lens_assets.science.storage import sha256_file
from lens_assets.science.surveys import fitsfile
from lens_assets.science.surveys.layout import BANDS, ZERO_POINT, BrickCell
from lens_assets.science.surveys.pieces import squares

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

PRODUCTS = ("image", "invvar", "psfsize", "nexp")
"""Per-band products a stamp needs; a band without image and invvar counts as missing."""
OPTIONAL = ("depth", "galdepth")
"""Per-band maps (1/nmgy^2) that are read when asked for."""
_WCS_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Brick:
    """A brick of a release, opened by :meth:`DataRelease.brick`.

    ``paths`` maps (product, band or "") to a local file; the grid (shape, WCS), units and integrity of each are
    checked when it is read, and that of image and invvar of every band when the brick is opened.
    """

    cell: BrickCell
    paths: Mapping[tuple[str, str], Path]
    verify_datasum: bool = True
    _grid: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not any((p, b) in self.paths for p in ("image", "invvar") for b in BANDS):
            raise BadInput(f"brick {self.cell.name} has no coadd in any of {', '.join(BANDS)}")
        for band in BANDS:
            for product in ("image", "invvar"):
                if (product, band) in self.paths:
                    self._header(product, band)

    @property
    def missing_bands(self) -> tuple[str, ...]:
        """Bands that have no image or no invvar, in plane order."""
        return tuple(b for b in BANDS if not {("image", b), ("invvar", b)} <= set(self.paths))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of every image of the brick."""
        return self._grid["shape"]  # type: ignore[no-any-return]

    @property
    def wcs(self) -> WCS:
        """Celestial WCS of the pixel grid, from the header (TAN, 0.262 arcsec)."""
        return self._grid["wcs"]

    def pixel_of(
        self, ra: npt.ArrayLike, dec: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """0-based (x, y) of positions in degrees; an integer is a pixel's centre, ``array[y, x]`` the pixel."""
        x, y = self.wcs.all_world2pix(np.asarray(ra, float), np.asarray(dec, float), 0)
        return np.asarray(x, float), np.asarray(y, float)

    def image(self, band: str) -> F32:
        """Sky-subtracted image, nanomaggies per pixel, native float32 (rows, columns)."""
        return self._read("image", band)

    def invvar(self, band: str) -> F32:
        """Inverse variance of the sky noise, 1/nmgy^2 per pixel; 0 where nothing valid."""
        return self._read("invvar", band)

    def psfsize(self, band: str) -> F32:
        """PSF FWHM map, arcsec; 0 where nothing was observed."""
        return self._read("psfsize", band)

    def nexp(self, band: str) -> F32:
        """Number of exposures per pixel (as float32)."""
        return self._read("nexp", band)

    def depth(self, band: str, *, galaxy: bool = False) -> F32:
        """Point-source (or galaxy) depth map as inverse variance, 1/nmgy^2."""
        return self._read("galdepth" if galaxy else "depth", band)

    def maskbits(self) -> npt.NDArray[np.int32]:
        """MASKBITS per pixel (optical, HDU 1), native int32."""
        return self._data("maskbits", "").astype(np.int32)

    def windows(
        self, product: str, band: str, top: I64, left: I64, side: int, *, sections: bool | None = None
    ) -> npt.NDArray[Any]:
        """Squares of ``side`` pixels of one map whose first line and column are ``top`` and ``left``: copies, (n, side, side),
        native float32 in the map's unit (``maskbits``, band ``""``: int32).

        They are read one by one or out of the whole map, whichever costs less for their number (``pieces``; ``sections``
        forces one way): same bytes. Raises :class:`BadInput` for what the whole map would, ``IndexError`` for a square that
        reaches beyond the image.
        """
        height, width = self.shape
        if len(top) and (min(top.min(), left.min()) < 0 or top.max() + side > height or left.max() + side > width):
            raise IndexError(
                f"a square of {side} px reaches beyond the {width} x {height} px of brick {self.cell.name}"
            )
        dtype = np.int32 if product == "maskbits" else np.float32
        return self._data(product, band, lambda hdu: squares(hdu, top, left, side, sections=sections)).astype(dtype)

    @cached_property
    def files(self) -> dict[str, str]:
        """SHA-256 of every file of the brick, by file name: the provenance of what is cut from it."""
        return {path.name: sha256_file(path) for _, path in sorted(self.paths.items())}

    def _path(self, product: str, band: str) -> Path:
        if band and band not in BANDS:
            raise BadInput(f"no band {band!r}: {', '.join(BANDS)}")
        try:
            return self.paths[product, band]
        except KeyError:
            name = self.cell.coadd(product, band or None)
            raise BadInput("the release has no such coadd (a band without exposures has none)", file=name) from None

    def _read(self, product: str, band: str) -> F32:
        return self._data(product, band).astype(np.float32)

    def _header(self, product: str, band: str) -> fits.Header:
        """Header of HDU 1 after every check that needs no pixels."""
        path = self._path(product, band)
        with fitsfile.opened(path, verify_datasum=self.verify_datasum) as hdus:
            raw = hdus[1] if len(hdus) > 1 else hdus[0]
            if isinstance(raw, fits.BinTableHDU) and "ZIMAGE" not in raw.header:
                raise BadInput("HDU 1 is a table, not an image", file=str(path))
        with _Images(path) as hdus:
            header = (hdus[1] if len(hdus) > 1 else hdus[0]).header.copy()
        self._check_header(header, product, band, path)
        return header

    def _check_header(self, header: fits.Header, product: str, band: str, path: Path) -> None:
        if header.get("NAXIS") != 2:
            raise BadInput(f"HDU 1 has {header.get('NAXIS')} axes, an image has 2", file=str(path), column="NAXIS")
        promises = [("BRICK", self.cell.name)] + ([("IMTYPE", product)] if product in ("image", "invvar") else [])
        for key, wanted in promises:
            got = str(header.get(key, wanted)).strip()
            if got != wanted:
                raise BadInput(f"header says {got!r}, the name says {wanted!r}", file=str(path), column=key)
        if product in ("image", "invvar"):
            if abs(float(header.get("MAGZERO", ZERO_POINT)) - ZERO_POINT) > 1e-6:
                raise BadInput(f"MAGZERO {header['MAGZERO']}, nanomaggies have 22.5", file=str(path), column="MAGZERO")
            unit = str(header.get("BUNIT", "nanomaggy")).lower()
            if not any(word in unit for word in ("nanomagg", "nmgy")):
                raise BadInput(f"unit {header['BUNIT']!r} instead of nanomaggies", file=str(path), column="BUNIT")
        shape = (int(header["NAXIS2"]), int(header["NAXIS1"]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            wcs = WCS(header)
        if not wcs.has_celestial:
            raise BadInput("no celestial WCS in the header", file=str(path), column="CTYPE1")
        if not self._grid:
            self._grid.update(shape=shape, wcs=wcs, file=path.name)
        if shape != self.shape:
            raise BadInput(f"shape {shape}, but {self._grid['file']} has {self.shape}", file=str(path), column="NAXIS")
        if not wcs.wcs.compare(self.wcs.wcs, tolerance=_WCS_TOLERANCE):
            raise BadInput(f"its WCS differs from that of {self._grid['file']}", file=str(path), column="CRVAL")

    def _data(self, product: str, band: str, read: Callable[[Any], Any] | None = None) -> npt.NDArray[Any]:
        """The map, or what ``read`` takes from its HDU."""
        path = self._path(product, band)
        if not (product in ("image", "invvar") and band):
            self._header(product, band)
        with _Images(path, memmap=read is not None) as hdus:
            hdu = hdus[1] if len(hdus) > 1 else hdus[0]
            try:
                if tuple(hdu.shape) != self.shape:
                    raise BadInput("no pixels where the header announces them", file=str(path))
                data = hdu.data if read is None else read(hdu)
            except (OSError, ValueError, TypeError, IndexError, RuntimeError) as fault:
                raise BadInput(f"truncated or corrupt: {fault}", file=str(path)) from fault
        return np.asarray(data)


class _Images:
    """astropy's decompressed view of a file that :mod:`fitsfile` has already proven whole."""

    def __init__(self, path: Path, *, memmap: bool = False) -> None:
        self.path, self.memmap = path, memmap

    def __enter__(self) -> fits.HDUList:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            self.hdus = fits.open(self.path, memmap=self.memmap)
        return self.hdus

    def __exit__(self, *_: object) -> None:
        self.hdus.close()
