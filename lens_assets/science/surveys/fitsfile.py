"""What a FITS file must be before anything is read from it: FITS at all, complete, and with the bytes its DATASUM
promises.

astropy only warns when a file is shorter than its headers say and then pads or fails late; a survey loses days to that.
Nothing here knows what the file means: sweeps and bricks do.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from lens_assets.science.errors import BadInput

_BLOCK = 2880
_PIECE = 1 << 20


def check_magic(path: Path) -> None:
    """Raise :class:`BadInput` when the file is absent, empty, a web page (a server's error with status 200) or not
    FITS."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(512)
    except FileNotFoundError as fault:
        raise BadInput("no such file", file=str(path)) from fault
    except OSError as fault:
        raise BadInput(f"cannot be read: {fault}", file=str(path)) from fault
    if not head:
        raise BadInput("the file is empty", file=str(path))
    if head.lstrip()[:1] == b"<":
        raise BadInput("a web page, not a FITS file: the server answered with text", file=str(path))
    if head.startswith(b"\x1f\x8b"):
        raise BadInput("gzip-compressed; the release has it uncompressed: gunzip it first", file=str(path))
    if not head.startswith(b"SIMPLE  ="):
        raise BadInput(f"not a FITS file (starts with {head[:16]!r})", file=str(path))


@contextlib.contextmanager
def opened(path: Path, *, verify_datasum: bool = True) -> Iterator[fits.HDUList]:
    """Open a FITS file (compressed images as their binary tables) after proving that it is whole.

    ``verify_datasum`` may be false for a reader that sums the bytes itself while it reads them (:func:`promised`,
    :func:`folded`). Raises :class:`BadInput` for a file that is not FITS, shorter than its headers say, cut inside a header,
    or (with ``verify_datasum``) whose bytes differ from a DATASUM it carries.
    """
    check_magic(path)
    size = path.stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        try:
            hdus = fits.open(path, memmap=True, lazy_load_hdus=False, disable_image_compression=True)
        except (OSError, ValueError, KeyError, IndexError, TypeError) as fault:
            raise BadInput(f"truncated or corrupt FITS: {fault}", file=str(path)) from fault
        try:
            end = 0
            for hdu in hdus:
                try:
                    info = hdu.fileinfo()
                    end = int(info["datLoc"]) + int(info["datSpan"])
                except (TypeError, KeyError, AttributeError, ValueError, fits.VerifyError) as fault:
                    raise BadInput(f"truncated or corrupt FITS: {fault}", file=str(path)) from fault
                if end > size:
                    raise BadInput(f"truncated: {size} bytes of {end}", file=str(path))
            if size - end >= _BLOCK or (size - end and _junk_after(path, end)):
                raise BadInput(f"corrupt: {size - end} bytes after the last readable HDU", file=str(path))
            if verify_datasum:
                verify(hdus, path)
            yield hdus
        finally:
            hdus.close()


def _junk_after(path: Path, end: int) -> bool:
    with open(path, "rb") as stream:
        stream.seek(end)
        return bool(stream.read(_BLOCK).strip(b"\0 "))


def promised(header: fits.Header, path: Path) -> int | None:
    """The DATASUM of a header; ``None`` without one, :class:`BadInput` for one that is not a number."""
    if "DATASUM" not in header:
        return None
    try:
        return int(header["DATASUM"])
    except (TypeError, ValueError) as fault:
        raise BadInput(f"corrupt: DATASUM is {header['DATASUM']!r}, not a number", file=str(path)) from fault


def folded(total: int) -> int:
    """The ones' complement sum of 32-bit words from their plain sum (FITS standard 4.0, appendix J): carries are added
    back until none is left."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def check_sum(found: int, header: fits.Header, number: int, path: Path) -> None:
    """Raise :class:`BadInput` when the :func:`folded` sum of an HDU's data differs from the DATASUM it carries."""
    if (wanted := promised(header, path)) is not None and found != wanted:
        raise BadInput(f"corrupt: the bytes of HDU {number} differ from its DATASUM", file=str(path))


def verify(hdus: fits.HDUList, path: Path, *, leave_out: int | None = None) -> None:
    """Raise :class:`BadInput` when the bytes of an HDU (but ``leave_out``) differ from the DATASUM it carries."""
    with open(path, "rb") as stream:
        for number, hdu in enumerate(hdus):
            if number == leave_out or promised(hdu.header, path) is None:
                continue
            info = hdu.fileinfo()
            stream.seek(int(info["datLoc"]))
            total, left = 0, int(info["datSpan"])
            while left:
                piece = stream.read(min(left, _PIECE))
                if len(piece) % 4 or not piece:
                    raise BadInput(f"truncated: HDU {number} ends {left - len(piece)} bytes early", file=str(path))
                total += int(np.frombuffer(piece, ">u4").sum(dtype=np.uint64))
                left -= len(piece)
            check_sum(folded(total), hdu.header, number, path)
