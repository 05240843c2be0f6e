"""Stamps: read from a shard in training order against compressed npz, cut from a brick against astropy an object at a time.

Both in a folder of its own, page cache warm. ``stamps-read`` reads image planes alone, on both sides, as batches.
``stamps-cut`` depends on how many stamps a brick gives, because ours reads the brick once: the default is about what a
search of galaxies with z < 20 asks of a DR10 brick. Ours also reads PSF size, exposures and masks, digests every file, judges
every stamp and describes it; the reference only cuts image and inverse variance. ``ratio_sections`` is against a careful user,
who reads sections of the compressed image instead of the whole.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from lens_assets.bench.timing import interleaved, line, seconds_of
from lens_assets.science.cutouts.cut import cut_brick
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import Shard, ShardSet, epoch_order
from lens_assets.science.cutouts.write import IMAGE, INDEX, INVVAR
from lens_assets.science.hashing import generator
from lens_assets.science.mock.coadds import write_coadd
from lens_assets.science.surveys.layout import BANDS, BRICK_PIXELS, BrickCell, brick_at
from lens_assets.science.surveys.release import DataRelease

F32 = npt.NDArray[np.float32]
BATCH = 128


def make_shard(folder: Path, n: int, size: int) -> ShardSet:
    """A shard of ``n`` noise stamps (noise is as compressible as sky), with the columns of the index that reading needs."""
    folder.mkdir(parents=True)
    rng = generator("bench-shard", n, size)
    image = np.lib.format.open_memmap(folder / IMAGE, "w+", np.dtype("<f4"), (n, 3, size, size))
    for i in range(0, n, BATCH):
        image[i : i + BATCH] = rng.normal(0, 0.01, image[i : i + BATCH].shape)
    image.flush()
    np.lib.format.open_memmap(folder / INVVAR, "w+", np.dtype("<f4"), image.shape).flush()  # not read
    index = pl.DataFrame({"galaxy_id": [f"10002-1-{i}" for i in range(n)], "row": range(n)})
    index = index.with_columns(pl.lit(0.0, pl.Float32).alias(f"invalid_fraction_{b}") for b in BANDS)
    index.write_parquet(folder / f"{INDEX}.parquet")
    return ShardSet([Shard(folder)])


def bench_stamps_read(repeats: int = 5, *, n: int = 2048, n_theirs: int = 256, size: int = 101) -> dict[str, Any]:
    """Stamps per second in the order of an epoch, as batches of 128."""
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        shards = make_shard(Path(scratch) / "shard", n, size)
        ids = shards.index["galaxy_id"]
        order = epoch_order(ids, 1, 0)
        names = ids.gather(order).to_list()
        npz = Path(scratch) / "npz"
        npz.mkdir()
        first = shards.images(order[:n_theirs])
        for name, image in zip(names, first, strict=False):
            np.savez_compressed(npz / f"{name}.npz", image=image)

        def ours() -> list[F32]:
            return [shards.images(order[i : i + BATCH]) for i in range(0, n, BATCH)]

        def theirs() -> list[F32]:
            out = []
            for i in range(0, n_theirs, BATCH):
                stamps = []
                for name in names[i : i + BATCH][: n_theirs - i]:
                    with np.load(npz / f"{name}.npz") as file:
                        stamps.append(file["image"])
                out.append(np.stack(stamps))
            return out

        if not np.array_equal(np.concatenate(ours())[:n_theirs], np.concatenate(theirs())):
            raise RuntimeError("the sides do not read the same stamps")
        # a whole epoch at a time would measure the allocator: batches are dropped as a trainer drops them
        seconds = interleaved(lambda: _drop(shards, order, n), theirs, repeats)
        return line(
            "stamps-read", "compressed npz, a file an object", seconds, (n, n_theirs), "stamps/s", 1,
            n=n, n_theirs=n_theirs, megabytes=n * first[0].nbytes / 1e6,
        )  # fmt: skip


def _drop(shards: ShardSet, order: npt.NDArray[np.int64], n: int) -> None:
    for i in range(0, n, BATCH):
        shards.images(order[i : i + BATCH])


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
        return line(
            "stamps-cut", "astropy Cutout2D, files opened an object", seconds, (n, n_theirs), "stamps/s", 1,
            stamps_per_brick=n, side=side, n_theirs=n_theirs, ratio_sections=float(careful),
        )  # fmt: skip
