"""Stamps cut from a brick, against astropy an object at a time. (Reading and writing shards: ``shards``.)

In a folder of its own, page cache warm. The ratio depends on how many stamps a brick gives, because ours reads the brick once when
that is cheaper: the default is about what a search of galaxies with z < 20 asks of a DR10 brick; ``by_count`` gives the rates of
others, both ways and as chosen. Ours also reads PSF size, exposures and masks, digests every file, judges every stamp and
describes it; the reference only cuts image and inverse variance. ``ratio_sections`` is against a careful user, who reads sections
of the compressed image instead of the whole.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from lens_assets.bench.timing import interleaved, line, seconds_of
from lens_assets.science.cutouts.cut import BrickLike, cut_brick
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.hashing import generator
from lens_assets.science.mock.coadds import write_coadd
from lens_assets.science.surveys.bricks import Brick
from lens_assets.science.surveys.layout import BANDS, BRICK_PIXELS, BrickCell, brick_at
from lens_assets.science.surveys.release import DataRelease

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
COUNTS = (1, 10, 50, 200)


def make_brick(root: Path, cell: BrickCell, side: int) -> None:
    """The coadds of one brick as a release has them (names, units, compression), ``side`` pixels on a side, of noise."""
    rng = generator("bench-brick", side)
    for band in BANDS:
        sky = rng.normal(0, 0.01, (side, side)).astype(np.float32)
        planes: dict[str, npt.NDArray[Any]] = {
            "image": sky, "invvar": np.full((side, side), 1e4, np.float32) + 100 * np.abs(sky),
            "psfsize": np.full((side, side), 1.3, np.float32), "nexp": np.full((side, side), 4, np.int16),
        }  # fmt: skip
        for product, plane in planes.items():
            write_coadd(root, cell, product, band, [plane], {})
    write_coadd(root, cell, "maskbits", None, [np.zeros((side, side), np.int32)], {})


def positions(cell: BrickCell, n: int, side: int, size: int) -> pl.DataFrame:
    """``n`` objects inside the brick, far enough from its edge for a whole stamp."""
    rng = generator("bench-positions", n, side)
    reach = (side / 2 - size) * 0.262 / 3600
    dec = cell.dec + rng.uniform(-reach, reach, n)
    ra = cell.ra + rng.uniform(-reach, reach, n) / np.cos(np.radians(cell.dec))
    ids = [f"10002-{cell.brickid}-{i}" for i in range(n)]
    return pl.DataFrame({"galaxy_id": ids, "brickname": cell.name, "ra": ra, "dec": dec})


class _Astropy:
    """What a user writes: for each object open each file, make the WCS, cut."""

    def __init__(self, root: Path, cell: BrickCell, size: int) -> None:
        self.paths = [[root / cell.coadd(product, band) for band in BANDS] for product in ("image", "invvar")]
        self.size = size

    def cut(self, ra: float, dec: float) -> tuple[F32, ...]:
        """Image and inverse variance, each (3, size, size)."""
        place = SkyCoord(ra * units.deg, dec * units.deg)
        return tuple(np.stack([self._one(path, place) for path in paths]) for paths in self.paths)

    def _one(self, path: Path, place: SkyCoord) -> F32:
        with fits.open(path) as hdus:
            stamp: F32 = Cutout2D(hdus[1].data, place, self.size, WCS(hdus[1].header)).data.copy()
        return stamp

    def sections(self, ra: float, dec: float) -> tuple[F32, ...]:
        """The same, decompressing only the tiles of the image that the stamp touches."""
        place, half = SkyCoord(ra * units.deg, dec * units.deg), self.size // 2
        out = []
        for paths in self.paths:
            planes = []
            for path in paths:
                with fits.open(path) as hdus:
                    x, y = (round(float(v)) for v in WCS(hdus[1].header).world_to_pixel(place))
                    planes.append(hdus[1].section[y - half : y + half + 1, x - half : x + half + 1].copy())
            out.append(np.stack(planes))
        return tuple(out)


def bench_stamps_cut(
    repeats: int = 5, *, n: int = 200, n_theirs: int = 1, side: int = BRICK_PIXELS, size: int = 101
) -> dict[str, Any]:
    """Stamps per second (image and inverse variance in three bands) out of one brick of ``side`` pixels."""
    settings, cell = Settings(size=size), brick_at(150.1, 2.2)
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        root = Path(scratch)
        make_brick(root, cell, side)
        rows = positions(cell, n, side, size).sort("galaxy_id")
        release, user = DataRelease(str(root)), _Astropy(root, cell, size)
        few = list(rows.select("ra", "dec").head(n_theirs).iter_rows())

        def ours() -> tuple[F32, F32]:
            images, invvar, index, _ = cut_brick(release.brick(cell.name), rows, settings)
            if index.height != n:
                raise RuntimeError(f"{index.height} of {n} stamps were cut")
            return images, invvar

        mine, theirs, sections = ours(), [user.cut(*p) for p in few], [user.sections(*p) for p in few]
        for i in range(n_theirs):
            for k in (0, 1):
                if not (np.array_equal(mine[k][i], theirs[i][k]) and np.array_equal(mine[k][i], sections[i][k])):
                    raise RuntimeError("the sides do not cut the same pixels")
        by_section: list[float] = []

        def reference() -> None:
            for place in few:
                user.cut(*place)

        seconds = interleaved(ours, reference, repeats)
        by_section = [seconds_of(lambda: [user.sections(*p) for p in few]) for _ in range(repeats)]
        careful = np.median(by_section) / n_theirs / (np.median(seconds[0]) / n)
        by_count = {str(k): _both_ways(release, cell, rows.head(k), settings) for k in COUNTS if k <= n}
        return line(
            "stamps-cut", "astropy Cutout2D, files opened an object", seconds, (n, n_theirs), "stamps/s", 1,
            stamps_per_brick=n, side=side, n_theirs=n_theirs, ratio_sections=float(careful), by_count=by_count,
        )  # fmt: skip


class _Forced:
    """A brick that reads one way whatever the count."""

    def __init__(self, brick: Brick, sections: bool | None) -> None:
        self._brick, self._sections = brick, sections

    def __getattr__(self, name: str) -> Any:
        return getattr(self._brick, name)

    def windows(self, product: str, band: str, top: I64, left: I64, side: int) -> npt.NDArray[Any]:
        """As the brick's, one way."""
        return self._brick.windows(product, band, top, left, side, sections=self._sections)


def _both_ways(release: DataRelease, cell: BrickCell, rows: pl.DataFrame, settings: Settings) -> dict[str, float]:
    """Stamps a second with every map read by section, every map whole, and as chosen map by map; the same stamps, or
    ``RuntimeError``."""
    ways = {"sections": True, "whole": False, "chosen": None}
    found = {}
    seconds = {}
    for name, way in ways.items():
        forced = cast(BrickLike, _Forced(release.brick(cell.name), way))
        start = time.perf_counter()
        found[name] = cut_brick(forced, rows, settings)
        seconds[name] = time.perf_counter() - start
    for name in ("whole", "chosen"):
        if any(a.tobytes() != b.tobytes() for a, b in zip(found["sections"][:2], found[name][:2], strict=True)):
            raise RuntimeError(f"the stamps read {name} differ from those read by section")
    return {name: round(rows.height / took, 2) for name, took in seconds.items()}
