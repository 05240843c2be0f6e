"""One stamp from the survey's viewer service: what to ask, and whether the answer is what was asked for.

Pure: no network here (``viewer_fetch``). For sparse positions; thousands of a field are cut from bricks instead, a
hundred times as fast and without burdening a shared service.

The service answers what it was not asked, with status 200 and no flag: text for an unknown layer, other bands when one
of those asked is not known, a smaller size above its limit, planes of zeros where nothing was observed, another
camera's pixels north of +32.375 degrees in the joint layers. (dr10 viewer source, `map/views.py`.) So an answer is taken
only when everything that can be checked agrees; otherwise it is a :class:`Refusal` with a reason that is counted.

Inverse variance. Mode ``subimage``: the coadd's own, as in a brick slice; quality control uses it. Mode ``cutout``: the
service's plane is resampled and summed, which is no variance: only its zeros are used (not covered), together with the
image's exact zeros; the value is a constant per band from the background's scatter (``features.sky_invvar``).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from lens_assets.science.cutouts.cut import OFF_EDGE
from lens_assets.science.cutouts.features import sky_invvar
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.surveys.layout import PIXEL_SCALE

F32 = npt.NDArray[np.float32]

DEC_SPLIT = 32.375
"""Degrees: north of it, in the northern galactic cap, the joint layers serve DR9 BASS/MzLS."""
NORTH = f"another camera: north of +{DEC_SPLIT} the layer holds DR9 BASS/MzLS"
TEXT = "the viewer answered with text"
BANDS = "the viewer answered with other bands"
SIZE = "the viewer answered with another size"
PLACE = "the viewer answered for another position"
BROKEN = "the viewer's answer is cut short or no FITS"
OUTSIDE = "outside the layer"
NO_BRICK = "the primary brick is not in the answer"
_SPLIT_LAYER = re.compile(r"ls-dr\d+(-grz|-gri|-model|-resid)*")
_ID = re.compile(r"[0-9]{4,5}-[0-9]{1,6}-[0-9]{1,9}")
_MODES = {"subimage": "viewer-native", "cutout": "viewer"}


class Refusal(Exception):
    """An answer that is not taken. ``reason`` is counted; ``again``: another try may succeed."""

    def __init__(self, reason: str, detail: str = "", *, again: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.again = reason, detail or reason, again


@dataclass(frozen=True)
class Position:
    """What is asked for: an object of the catalogue (degrees) and its primary brick."""

    galaxy_id: str
    ra: float
    dec: float
    brickname: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.galaxy_id):
            raise BadInput(f"not an id (RELEASE-BRICKID-OBJID): {self.galaxy_id!r}", column="galaxy_id")
        if not (np.isfinite(self.ra) and -90 <= self.dec <= 90):
            raise BadInput(f"not a position: ra={self.ra}, dec={self.dec}", column="ra")


@dataclass(frozen=True)
class ViewerStamp:
    """A stamp that passed every guard: (bands, size, size) float32 in nmgy per pixel and 1 / nmgy^2.

    ``x, y``: the position in pixels of the brick image (mode subimage) or of the stamp (mode cutout); ``dx, dy``: position
    minus centre pixel.
    """

    image: F32
    invvar: F32
    x: float
    y: float
    dx: float
    dy: float


def source_of(settings: Settings) -> str:
    """Value of the index's column ``source``: ``viewer-native`` or ``viewer``."""
    return _MODES[settings.viewer.mode]


def side_asked(settings: Settings) -> int:
    """Pixels on a side that the request names."""
    return settings.size + (2 * settings.viewer.margin if settings.viewer.mode == "subimage" else 0)


def url_of(position: Position, settings: Settings) -> str:
    """The request."""
    v = settings.viewer
    asked = {
        "ra": repr(float(position.ra)),
        "dec": repr(float(position.dec)),
        "layer": v.layer,
        "pixscale": str(PIXEL_SCALE),
        "size": str(side_asked(settings)),
        "bands": "".join(settings.bands),
    }
    flag = "&subimage" if v.mode == "subimage" else "&invvar"
    return f"{v.base_url.rstrip('/')}/fits-cutout?{urlencode(asked)}{flag}"


def refuse_by_position(position: Position, settings: Settings) -> None:
    """Raise :class:`Refusal` where the layer silently holds another camera's pixels."""
    if position.dec <= DEC_SPLIT or not _SPLIT_LAYER.fullmatch(settings.viewer.layer):
        return
    # sin b; north galactic pole at 192.85948, +27.12825 (J2000; Hipparcos, ESA SP-1200, vol. 1, 1.5.3)
    ra, dec, pole = np.radians([position.ra - 192.85948, position.dec, 27.12825])
    if np.sin(dec) * np.sin(pole) + np.cos(dec) * np.cos(pole) * np.cos(ra) > 0:
        raise Refusal(NORTH, f"dec {position.dec:+.4f} in layer {settings.viewer.layer}")


def parse_cutout(body: bytes, headers: Mapping[str, str], position: Position, settings: Settings) -> ViewerStamp:
    """The stamp in an answer of status 200, or a :class:`Refusal`.

    Raises :class:`BadInput` where every further request would fail as well: an unknown layer.
    """
    kind = {k.lower(): v for k, v in headers.items()}.get("content-type", "")
    if not body.startswith(b"SIMPLE  ="):
        words = body[:200].decode("utf-8", "replace").strip()
        if "no such layer" in words.lower():
            raise BadInput(f"the viewer has no layer {settings.viewer.layer!r}", column="layer")
        if not body:
            raise Refusal(BROKEN, "an empty answer", again=True)
        raise Refusal(TEXT, f"{kind or 'no content type'}: {' '.join(words.split())[:120]!r}", again=True)
    if len(body) % 2880:  # FITS standard 4.0, 3.1; astropy reads on without a word
        raise Refusal(BROKEN, f"{len(body)} bytes are no whole number of FITS blocks", again=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        try:
            with fits.open(io.BytesIO(body), lazy_load_hdus=False, memmap=False) as hdus:
                ends = [h.fileinfo()["datLoc"] + h.fileinfo()["datSpan"] for h in hdus]
                if max(ends) > len(body):
                    raise Refusal(BROKEN, f"{len(body)} bytes of {max(ends)}", again=True)
                planes = [(h.header, np.asarray(h.data, np.float32)) for h in hdus if h.header.get("NAXIS", 0) >= 2]
        except (OSError, ValueError, TypeError, KeyError, IndexError, fits.VerifyError) as fault:
            raise Refusal(BROKEN, str(fault)[:120], again=True) from fault
        read = _native if settings.viewer.mode == "subimage" else _resampled
        return read(planes, position, settings)


def _native(planes: list[tuple[fits.Header, F32]], position: Position, settings: Settings) -> ViewerStamp:
    """The stamp out of unresampled slices, one HDU a brick, band and kind."""
    found = {
        (str(h.get("BAND", "")).strip(), str(h.get("IMAGETYP", "")).strip().lower()): (h, data)
        for h, data in planes
        if str(h.get("BRICK", "")).strip() == position.brickname
    }
    if not found:
        bricks = sorted({str(h.get("BRICK", "")).strip() for h, _ in planes})
        raise Refusal(NO_BRICK, f"{position.brickname} is asked for, the answer holds {', '.join(bricks) or 'none'}")
    side, half = settings.size, settings.size // 2
    stamps: dict[str, list[F32]] = {"image": [], "invvar": []}
    places = set()
    for band in settings.bands:
        for kind, chosen in stamps.items():
            if (band, kind) not in found:
                raise Refusal(f"band {band} missing", f"no {kind} of band {band} in brick {position.brickname}")
            header, data = found[band, kind]
            x, y = _pixel(header, position)
            places.add((round(x + _origin(header)[0], 3), round(y + _origin(header)[1], 3)))
            left, top = int(np.floor(x + 0.5)) - half, int(np.floor(y + 0.5)) - half
            height, width = data.shape
            if left < 0 or top < 0 or left + side > width or top + side > height:
                asked = side_asked(settings)
                if height < asked or width < asked:
                    raise Refusal(SIZE, f"{width} x {height} px for {asked}: clamped, or at the edge of the brick")
                raise Refusal(OFF_EDGE, f"pixel {x:.1f}, {y:.1f} of {width} x {height}")
            chosen.append(data[top : top + side, left : left + side])
    if len(places) > 1:
        raise Refusal(PLACE, f"the planes are on different grids: {sorted(places)[:2]}")
    image = np.stack(stamps["image"])
    _refuse_empty(image, settings)
    header = found[settings.bands[0], "image"][0]
    x, y = _pixel(header, position)
    dx, dy = x - np.floor(x + 0.5), y - np.floor(y + 0.5)
    left, top = _origin(header)
    return ViewerStamp(image, np.stack(stamps["invvar"]), x + left, y + top, float(dx), float(dy))


def _origin(header: fits.Header) -> tuple[int, int]:
    """0-based column and line of the brick image at which a slice begins."""
    try:
        return int(header["BRICK_X0"]), int(header["BRICK_Y0"])
    except (KeyError, ValueError, TypeError) as fault:
        raise Refusal(PLACE, "a slice does not say where in its brick it begins") from fault


def _resampled(planes: list[tuple[fits.Header, F32]], position: Position, settings: Settings) -> ViewerStamp:
    """The stamp out of the service's own resampling: a cube, and perhaps one of its inverse variance."""
    if not planes:
        raise Refusal(OUTSIDE, "an answer without an image")
    header, cube = planes[0]
    cube = cube[None] if cube.ndim == 2 else cube
    told, asked = str(header.get("BANDS", "")).strip(), "".join(settings.bands)
    if told != asked or len(cube) != len(asked):
        raise Refusal(BANDS, f"{asked} is asked for, the answer has {told or 'no BANDS'} in {len(cube)} planes")
    if cube.shape[1:] != (settings.size, settings.size):
        raise Refusal(SIZE, f"{cube.shape[2]} x {cube.shape[1]} px for {settings.size}")
    x, y = _pixel(header, position)
    middle = settings.size // 2
    if max(abs(x - middle), abs(y - middle)) > 0.01:
        raise Refusal(PLACE, f"the position lies at pixel {x:.2f}, {y:.2f}")
    _refuse_empty(cube, settings)
    weight = sky_invvar(cube[None], "viewer", settings.normalisation)[0]
    covered = cube != 0
    for other, data in planes[1:]:
        if str(other.get("IMAGETYP", "")).strip().upper() == "INVVAR" and data.shape == cube.shape:
            covered &= data > 0
    return ViewerStamp(cube, np.where(covered, weight, np.float32(0)), x, y, x - middle, y - middle)


def _pixel(header: fits.Header, position: Position) -> tuple[float, float]:
    """0-based pixel of the position, after proof that the grid is the survey's."""
    try:
        wcs = WCS(header, naxis=2)
    except (ValueError, KeyError, MemoryError) as fault:
        raise Refusal(PLACE, f"no usable WCS: {fault}"[:120]) from fault
    if list(wcs.wcs.ctype) != ["RA---TAN", "DEC--TAN"]:
        raise Refusal(PLACE, f"not a gnomonic grid: {list(wcs.wcs.ctype)}")
    scale = np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600
    if abs(scale - PIXEL_SCALE) > 1e-3:
        raise Refusal(SIZE, f"{scale:.4f} arcsec per pixel for {PIXEL_SCALE}")
    x, y = wcs.all_world2pix([[position.ra, position.dec]], 0)[0]
    return float(x), float(y)


def _refuse_empty(image: F32, settings: Settings) -> None:
    for band, share in zip(settings.bands, (image == 0).mean(axis=(1, 2)), strict=True):
        if share > settings.viewer.max_zero:
            raise Refusal(f"band {band} is empty", f"{share:.0%} of the {band} plane is exactly 0")
