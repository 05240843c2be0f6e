"""A local viewer service that answers as the public one does, its misbehaviour included. Run as a program: ``root port_file
log_file delay`` serves until killed."""

from __future__ import annotations

import io
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy import ndimage

from lens_assets.science.surveys.layout import brick_at

LAYERS = {"ls-dr10", "ls-dr10-south"}
AVAILABLE = "griz"
Answer = tuple[int, dict[str, str], bytes]


@lru_cache(maxsize=64)
def coadd(root: str, ra: float, dec: float, product: str, band: str) -> tuple[np.ndarray, fits.Header] | None:
    path = Path(root) / brick_at(ra, dec).coadd(product, band)
    if not path.is_file():
        return None
    with fits.open(path) as hdus:
        return np.array(hdus[1].data, np.float32), hdus[1].header.copy()


def body_of(hdus: list) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


def subimage(root: str, ra: float, dec: float, size: int, bands: str, brick: str | None = None) -> bytes:
    """As ``MapLayer.write_cutout(subimage=True)`` places its slices."""
    out: list = [fits.PrimaryHDU()]
    for band in bands:
        found = coadd(root, ra, dec, "image", band)
        if found is None:
            continue
        data, header = found
        wcs = WCS(header)
        x, y = wcs.all_world2pix([[ra, dec]], 1)[0]
        height, width = data.shape
        x0, y0 = (int(np.round(v - size / 2)) - 1 for v in (x, y))
        x1, y1 = (int(np.clip(v + size - 1, 0, n - 1)) for v, n in ((x0, width), (y0, height)))
        x0, y0 = (int(np.clip(v, 0, n - 1)) for v, n in ((x0, width), (y0, height)))
        for kind in ("image", "invvar"):
            plane = coadd(root, ra, dec, kind, band)[0][y0 : y1 + 1, x0 : x1 + 1]
            hdu = fits.ImageHDU(plane.astype(">f4"))
            part = wcs.deepcopy()
            part.wcs.crpix = part.wcs.crpix - [x0, y0]
            hdu.header.update(part.to_header())
            hdu.header["BRICK"] = brick or brick_at(ra, dec).name
            hdu.header["BRICK_X0"], hdu.header["BRICK_Y0"] = x0, y0
            hdu.header["BAND"], hdu.header["IMAGETYP"] = band, kind
            out.append(hdu)
    return body_of(out)


def resampled(
    root: str, ra: float, dec: float, size: int, bands: str, told: str | None = None, empty: str = ""
) -> bytes:
    """As the service's stamps: a cube in the order asked, TAN about the position, and a plane of summed weights."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, dec]
    wcs.wcs.crpix = [(size + 1) / 2] * 2
    wcs.wcs.cd = np.array([[-0.262, 0.0], [0.0, 0.262]]) / 3600
    y, x = np.mgrid[:size, :size]
    sky = wcs.all_pix2world(np.column_stack([x.ravel(), y.ravel()]), 0)
    cubes = {"IMAGE": np.zeros((len(bands), size, size), ">f4"), "INVVAR": np.zeros((len(bands), size, size), ">f4")}
    for k, band in enumerate(bands):
        for kind, cube in cubes.items():
            found = coadd(root, ra, dec, kind.lower(), band if band in "grz" else "r")
            if found is None or band in empty:
                continue
            px, py = WCS(found[1]).all_world2pix(sky, 0).T
            cube[k] = ndimage.map_coordinates(found[0], [py, px], order=3 if kind == "IMAGE" else 1).reshape(size, size)
    hdus = [fits.PrimaryHDU(cubes["IMAGE"]), fits.ImageHDU(cubes["INVVAR"])]
    for hdu, kind in zip(hdus, cubes, strict=True):
        hdu.header.update(wcs.to_header())
        hdu.header["BANDS"], hdu.header["IMAGETYP"] = told or bands, kind
        for k, band in enumerate(told or bands):
            hdu.header[f"BAND{k}"] = band
    return body_of(hdus)


class Service:
    """The service on a free port. ``behave``: called as ``behave(n, query, honest)`` with the number of times this
    position was asked before, may return an answer, ``"reset"``, ``"cut"``, ``"slow"`` or None (honest)."""

    def __init__(self, root: Path, behave: Callable | None = None, log: Path | None = None, delay: float = 0.0) -> None:
        self.root, self.behave, self.log, self.delay = str(root), behave or (lambda n, query, honest: None), log, delay
        self.asked: list[tuple[float, float]] = []
        self.agents: set[str] = set()
        self.lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/viewer"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def honest(self, query: dict[str, str]) -> Answer:
        if query.get("layer", "ls-dr9") not in LAYERS:
            return 200, {"Content-Type": "text/html"}, b"no such layer"
        ra, dec, size = float(query["ra"]), float(query["dec"]), min(int(query.get("size", 256)), 3000)
        bands = query.get("bands", AVAILABLE)
        if any(b not in AVAILABLE for b in bands):
            bands = AVAILABLE
        if coadd(self.root, ra, dec, "image", "g") is None:
            return 500, {"Content-Type": "text/html"}, b"<h1>Server Error (500)</h1>"
        make = subimage if "subimage" in query else resampled
        return 200, {"Content-Type": "image/fits"}, make(self.root, ra, dec, size, bands)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        query = {k: v[0] for k, v in parse_qs(urlparse(request.path).query, keep_blank_values=True).items()}
        place = (float(query["ra"]), float(query["dec"]))
        with self.lock:
            n = self.asked.count(place)
            self.asked.append(place)
            self.agents.add(request.headers.get("User-Agent", ""))
            if self.log:
                with open(self.log, "a") as stream:
                    stream.write(f"{place[0]!r} {place[1]!r}\n")
        time.sleep(self.delay)
        got = self.behave(n, query, self.honest)
        if got == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
            request.close_connection = True
            return
        if got == "slow":
            time.sleep(1.0)
            got = None
        cut = got == "cut"
        status, headers, body = self.honest(query) if got is None or cut else got
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        try:
            request.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                request.close_connection = True
        except (BrokenPipeError, ConnectionResetError):
            request.close_connection = True


if __name__ == "__main__":
    service = Service(Path(sys.argv[1]), None, Path(sys.argv[3]), float(sys.argv[4]))
    Path(sys.argv[2]).write_text(service.url)
    while True:
        time.sleep(1)
