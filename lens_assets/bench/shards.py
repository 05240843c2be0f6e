"""Stamps written, read in order, read in the order of an epoch, and archived: a shard against a file an object.

In a folder of its own, page cache warm, nothing compressed but what is said to be. The references: one compressed npz an object
(the common practice), and one FITS file an object read by astropy. Image planes alone are read, on every side, as batches; ours
also writes the inverse variance, syncs, and writes everything twice (parts, then the shard), as the asset does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from astropy.io import fits

from lens_assets.bench.timing import interleaved, line, seconds_of
from lens_assets.science.cutouts import archive
from lens_assets.science.cutouts.cut import empty_rejected
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import Shard, ShardSet, epoch_order
from lens_assets.science.cutouts.write import IMAGE, assemble, save_part
from lens_assets.science.hashing import generator
from lens_assets.science.storage import Draft
from lens_assets.science.surveys.layout import BANDS

F32 = npt.NDArray[np.float32]
BATCH = 128
SIGMA = np.array([1.7e-3, 2.3e-3, 7.9e-3], np.float32)[:, None, None]
"""Noise of g, r, z, nanomaggies per pixel: medians of six DR10 stamps."""


def make_stamps(n: int, size: int) -> tuple[F32, F32]:
    """``n`` stamps of noise (as compressible as sky) round a galaxy, and their inverse variance."""
    rng = generator("bench-shard", n, size)
    y, x = np.ogrid[:size, :size]
    galaxy = 0.1 * np.exp(-np.hypot(x - size // 2, y - size // 2) / 4).astype(np.float32)
    images = np.empty((n, 3, size, size), "<f4")
    for i in range(0, n, BATCH):
        part = images[i : i + BATCH]
        part[:] = rng.standard_normal(part.shape, np.float32) * SIGMA + galaxy
    return images, np.broadcast_to(SIGMA**-2, images.shape).astype("<f4")


def write_shard(folder: Path, images: F32, invvar: F32, settings: Settings) -> ShardSet:
    """A shard as the asset writes it: parts, synced, put together."""
    folder.mkdir(parents=True)
    n, parts = len(images), []
    for start in range(0, n, 256):
        rows = range(min(256, n - start))
        index = pl.DataFrame({"galaxy_id": [f"10002-1-{start + i:07d}" for i in rows], "row": rows})
        index = index.with_columns(pl.lit(0.0, pl.Float32).alias(f"invalid_fraction_{b}") for b in BANDS)
        index = index.with_columns(pl.lit("", pl.String).alias("stamp_digest"))
        part = folder / f"part-{start:07d}"
        save_part(part, images[start : start + 256], invvar[start : start + 256], index, empty_rejected())
        parts.append(part)
    (folder / "shard").mkdir()
    assemble(Draft(folder / "shard"), parts, n, settings)
    return ShardSet([Shard(folder / "shard")])


class _Files:
    """A file an object: compressed npz, or FITS through astropy."""

    def __init__(self, folder: Path, names: list[str], kind: str) -> None:
        self.paths, self.kind = [folder / f"{name}.{kind}" for name in names], kind
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, images: F32) -> None:
        """All files."""
        for path, image in zip(self.paths, images, strict=True):
            if self.kind == "npz":
                np.savez_compressed(path, image=image)
            else:
                fits.PrimaryHDU(image).writeto(path, overwrite=True)

    def read(self, order: npt.NDArray[np.int64]) -> F32:
        """The stamps of one batch."""
        return np.stack([self._one(self.paths[i]) for i in order.tolist()])

    def _one(self, path: Path) -> F32:
        if self.kind == "npz":
            with np.load(path) as file:
                stamp: F32 = file["image"]
        else:
            with fits.open(path) as hdus:
                stamp = hdus[0].data.astype("<f4")
        return stamp

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.paths)


class _Archive:
    """The archive form of a shard."""

    def __init__(self, shard: Path, target: Path, settings: Settings) -> None:
        self.shard, self.target, self.settings, self.made = shard, target, settings, 0
        self.facts = archive.archive_shard(shard, target / "0", settings.normalisation)

    def write(self) -> None:
        """Another one, its loss measured."""
        self.made += 1
        archive.archive_shard(self.shard, self.target / str(self.made), self.settings.normalisation)

    def restore(self) -> None:
        """Back to a shard."""
        self.made += 1
        archive.restore_shard(self.target / "0", self.target / f"back-{self.made}")

    def read(self, order: npt.NDArray[np.int64]) -> None:
        """Single stamps out of the archive, in units of their noise, by sections of the compressed image."""
        with fits.open(self.target / "0" / archive.STAMPS, memmap=True) as hdus:
            for i in order.tolist():
                _ = hdus[1 + 3 * (i // archive.BLOCK)].section[i % archive.BLOCK]

    @property
    def image_bytes(self) -> int:
        """Bytes of the images alone."""
        with fits.open(self.target / "0" / archive.STAMPS, disable_image_compression=True) as hdus:
            return sum(int(hdu.size) for hdu in hdus if hdu.name == "IMAGE")


def bench_stamps_read(repeats: int = 5, *, n: int = 2048, n_theirs: int = 256, size: int = 101) -> dict[str, Any]:
    """Stamps per second in the order of an epoch, as batches of 128; beside it ``rates`` and sizes of every form."""
    settings = Settings(size=size)
    images, invvar = make_stamps(n, size)
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        root, written = Path(scratch), 0
        shards = write_shard(root / "shard", images, invvar, settings)
        ids = shards.index["galaxy_id"]
        order, in_turn = epoch_order(ids, 1, 0), np.arange(n)
        few = np.argsort(order[order < n_theirs], kind="stable")  # an order of the files that exist
        files = {kind: _Files(root / kind, ids.head(n_theirs).to_list(), kind) for kind in ("npz", "fits")}
        for one in files.values():
            one.write(images[:n_theirs])
        small = write_shard(root / "small", images[:n_theirs], invvar[:n_theirs], settings)
        kept = _Archive(small.shards[0].folder, root / "archive", settings)

        for one in files.values():
            if not np.array_equal(one.read(few[:BATCH]), shards.images(few[:BATCH])):
                raise RuntimeError("the sides do not read the same stamps")

        def again() -> None:
            nonlocal written
            written += 1
            write_shard(root / f"again-{written}", images[:n_theirs], invvar[:n_theirs], settings)

        # Batches are dropped as a trainer drops them: a whole epoch in memory would measure the allocator.
        def by_batch(
            read: Callable[[npt.NDArray[np.int64]], object], which: npt.NDArray[np.int64]
        ) -> Callable[[], None]:
            def run() -> None:
                for i in range(0, len(which), BATCH):
                    read(which[i : i + BATCH])

            return run

        seconds = interleaved(by_batch(shards.images, order), by_batch(files["npz"].read, few), repeats)
        sides: dict[str, dict[str, tuple[Callable[[], object], int]]] = {
            "shard": {
                "write": (again, n_theirs),
                "sequential": (by_batch(shards.images, in_turn), n),
                "random": (by_batch(shards.images, order), n),
            },
            **{
                kind: {
                    "write": (lambda one=one: one.write(images[:n_theirs]), n_theirs),  # type: ignore[misc]
                    "sequential": (by_batch(one.read, np.arange(n_theirs)), n_theirs),
                    "random": (by_batch(one.read, few), n_theirs),
                }
                for kind, one in files.items()
            },
            "archive": {
                "write": (kept.write, n_theirs),
                "restore": (kept.restore, n_theirs),
                "random": (lambda: kept.read(few), n_theirs),
            },
        }
        took: dict[str, dict[str, list[float]]] = {side: {what: [] for what in of} for side, of in sides.items()}
        for _ in range(repeats):  # in turn, so that a busy minute falls on all of them
            for side, of in sides.items():
                for what, (call, _n) in of.items():
                    took[side][what].append(seconds_of(call))
        rates = {
            side: {what: round(count / float(np.median(took[side][what])), 1) for what, (_call, count) in of.items()}
            for side, of in sides.items()
        }
        shard = small.shards[0].folder
        sizes = {
            "shard": (shard / IMAGE).stat().st_size / n_theirs,
            **{kind: one.size / n_theirs for kind, one in files.items()},
            "archive": kept.image_bytes / n_theirs,
        }
        return line(
            "stamps-read", "compressed npz, a file an object", seconds, (n, len(few)), "stamps/s", 1,
            n=n, n_theirs=n_theirs, megabytes=n * images[0].nbytes / 1e6, rates=rates,
            bytes_per_stamp={side: round(size) for side, size in sizes.items()},
            archive_ratio=kept.facts["ratio"], archive_rms_sigma=kept.facts["rms_sigma"],
        )  # fmt: skip
