"""Supplied images of the PSF: one file for all hosts, or a file for each host's place.

A file holds an image a band on the survey's own grid, as the viewer's ``coadd-psf`` service gives it for a position. Of a
folder, ``<galaxy_id>.fits`` is the host's own and ``<brickid>.fits`` that of its brick; a host that has neither is refused.

What does not belong here: how an image is used (``psf``), whether a folder fits its hosts (``psf_check``), fetching.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Collection
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from astropy.io import fits

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.surveys.layout import BANDS

F64 = npt.NDArray[np.float64]
SETTING = "LENS_ASSETS_PSF"
MISSING = f"PSF images of the hosts' places are wanted and there is no folder of them: set {SETTING} or `psf.folder`"


def identified(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a ``PsfSpec`` with the digest of the pixels they name, where it is not given.

    A folder that is not there has none: who wants an image of it is told, and other variants go on.
    """
    if body.get("kind") == "images":
        folder = str(body.get("folder") or os.environ.get(SETTING, ""))
        if not folder or body.get("sha256") or not Path(folder).is_dir():
            return {**body, "folder": folder}
        return {**body, "folder": folder, "sha256": digest(sorted(_files(folder).items()))}
    if body.get("file") and not body.get("sha256"):
        return {**body, "sha256": hashlib.sha256(_read(str(body["file"]))).hexdigest()}
    return body


def _files(folder: str) -> dict[str, str]:
    """SHA-256 of every file by name; read once while names, sizes and times stay."""
    if not Path(folder).is_dir():
        raise BadInput(f"{MISSING} that is there", file=folder)
    found = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(Path(folder).glob("*.fits"))]
    return _hashed(folder, tuple(found))


@lru_cache(maxsize=4)
def _hashed(folder: str, files: tuple[tuple[str, int, int], ...]) -> dict[str, str]:
    return {name: hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest() for name, _, _ in files}


def file_of(folder: str, sha256: str, galaxy_id: str) -> tuple[str, str]:
    """File and SHA-256 of the PSF of a host (RELEASE-BRICKID-OBJID): its own, or its brick's.

    Raises :class:`BadInput` where there is no folder, no file for the host, or another set of files than ``sha256`` names.
    """
    files = files_of(folder, sha256)
    name = name_for(galaxy_id, files)
    if name is None:
        raise BadInput(
            f"no PSF image for host {galaxy_id!r}, neither its own nor its brick's", file=folder, column="galaxy_id"
        )
    return str(Path(folder).absolute() / name), files[name]


def name_for(galaxy_id: str, files: Collection[str]) -> str | None:
    """The file of a host among ``files``: its own, else its brick's, else none."""
    parts = galaxy_id.split("-")
    for name in (f"{galaxy_id}.fits", f"{parts[1]}.fits" if len(parts) == 3 else ""):
        if name in files:
            return name
    return None


def files_of(folder: str, sha256: str) -> dict[str, str]:
    """SHA-256 of every file of a folder by name, known to be those that ``sha256`` names.

    Raises :class:`BadInput` where there is no such folder, or other files are in it.
    """
    if not folder:
        raise BadInput(MISSING, column="psf")
    return _named(folder, sha256)


@lru_cache(maxsize=4)
def _named(folder: str, sha256: str) -> dict[str, str]:
    """The files of a folder, known to be those that ``sha256`` names; looked at once, for injections ask one by one."""
    files = _files(folder)
    if digest(sorted(files.items())) != sha256:
        raise BadInput("the PSF images are others than when the variant was read", file=folder)
    return files


def _read(file: str) -> bytes:
    folder = resources.files("lens_assets") / "config" / "injections"
    try:
        return Path(file).read_bytes() if Path(file).is_absolute() else (folder / file).read_bytes()
    except OSError as fault:
        raise BadInput("the PSF image cannot be read", file=file) from fault


@lru_cache(maxsize=256)
def images_of(file: str, sha256: str) -> F64:
    """The supplied PSF of each band (g, r, z), (3, s, s), each of unit sum, its star in the middle.

    Raises :class:`BadInput` for another file than was named, a band that is missing, an even side, a sum that is not one to
    2 %, or light that is centred more than half a pixel off.
    """
    raw = _read(file)
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise BadInput(f"the PSF image is another one than sha256 {sha256}", file=file)
    if not raw.startswith(b"SIMPLE"):
        said = raw[:80].decode("ascii", "replace").strip()
        raise BadInput(f"not a FITS file (the viewer answers with text where it has no exposure): {said!r}", file=file)
    found: dict[str, F64] = {}
    with fits.open(io.BytesIO(raw)) as hdus:
        for hdu in hdus:
            if hdu.data is not None and hdu.is_image:
                name = str(hdu.header.get("BAND", hdu.name)).strip().lower()
                found[name[-1:]] = np.asarray(hdu.data, dtype=np.float64)
    for band in BANDS:
        if band not in found:
            raise BadInput(f"no PSF of band {band}; there are {sorted(found)}", file=file)
        check_image(found[band], f"{file} ({band})")
    if len({found[b].shape for b in BANDS}) != 1:
        raise BadInput("the PSF images of the bands have different sizes", file=file)
    return np.stack([found[b] / found[b].sum() for b in BANDS])


def check_image(image: F64, file: str) -> None:
    """That pixels are a PSF: square with a middle, finite, of unit sum (2 %), centred (half a pixel)."""
    if image.ndim != 2 or image.shape[0] != image.shape[1] or image.shape[0] % 2 == 0:
        raise BadInput(f"a PSF image is square with an odd side, not {image.shape}", file=file)
    if not np.isfinite(image).all() or abs(image.sum() - 1.0) > 0.02:
        raise BadInput(f"a PSF image is finite and its sum is one, not {image.sum():.4g}", file=file)
    core = np.where(image > 0.1 * image.max(), image, 0.0)
    y, x = np.indices(image.shape) - image.shape[0] // 2
    off = (float((core * x).sum() / core.sum()), float((core * y).sum() / core.sum()))
    if max(map(abs, off)) > 0.5:
        raise BadInput(
            f"a PSF image has its star in the middle of the central pixel, not {off} pixels from it", file=file
        )


@lru_cache(maxsize=256)
def image_transfer(file: str, sha256: str, n: int, size: int) -> npt.NDArray[np.complex128]:
    """Transfer functions (3, n, n // 2 + 1) of the supplied images; they must be smaller than the stamp."""
    images = images_of(file, sha256)
    side = images.shape[-1]
    if side >= size:
        raise BadInput(f"a PSF image of {side} pixels is not smaller than a stamp of {size}", file=file)
    padded = np.zeros((3, n, n))
    padded[:, :side, :side] = images
    return np.asarray(scipy.fft.rfft2(np.roll(padded, (-(side // 2), -(side // 2)), (1, 2))))


def fine_kernel(file: str, sha256: str, band: int, m: int) -> F64:
    """One band's image on a grid m times finer (m odd; side m s, unit sum), by the band-limited interpolation that ``psf`` means,
    and without the pixel's response: for codes that convolve on m x m samples a pixel and then average them, which puts it back.
    """
    image = images_of(file, sha256)[band]
    side = image.shape[-1]
    room = scipy.fft.next_fast_len(2 * side)
    padded = np.zeros((room, room))
    padded[:side, :side] = image
    k = 2 * np.pi * scipy.fft.fftfreq(room)
    box = np.sinc(k / (2 * np.pi)) / np.sinc(k / (2 * np.pi * m))  # the mean of m samples a pixel
    spectrum = scipy.fft.fft2(np.roll(padded, (-(side // 2), -(side // 2)), (0, 1))) / (box[:, None] * box[None, :])
    spectrum = scipy.fft.fftshift(spectrum)
    wide = np.zeros((m * room, m * room), complex)
    at = m * room // 2 - room // 2
    wide[at : at + room, at : at + room] = spectrum
    fine = np.real(scipy.fft.ifft2(scipy.fft.ifftshift(wide)))
    half = m * side // 2
    fine = np.roll(fine, (half, half), (0, 1))[: 2 * half + 1, : 2 * half + 1]
    return np.asarray(fine / fine.sum())
