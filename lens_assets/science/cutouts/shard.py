"""Read shards of stamps: memory-mapped, by row or by galaxy, one tile or many.

One uncompressed ``.npy`` a tile: random reads of whole stamps cost a page copy (Parquet would cost a row group).
Arrays are opened read-only and reopened after pickling, so a data loader's processes share the page cache instead of
copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.cutouts.normalise import normalise
from lens_assets.science.cutouts.quality import valid_pixels
from lens_assets.science.cutouts.settings import NormalisationSpec
from lens_assets.science.cutouts.write import IMAGE, INDEX, INVVAR, REFUSED, REFUSED_IMAGE, REJECTED, write_shard
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import galaxy_key, mix64, seed_of

__all__ = ["Shard", "ShardSet", "epoch_order", "write_shard"]

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Which = Sequence[str] | pl.Series | npt.NDArray[Any]
"""Galaxies by id, or an integer array of rows (a shard) or positions (a set)."""


class Shard:
    """The stamps of one tile. ``len(shard)`` stamps; ``index`` describes them, row by row."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = self.folder / f"{INDEX}.parquet"
        if not index.is_file():
            raise BadInput("not a shard: it has no index", file=str(self.folder))
        self.index = pl.read_parquet(index)
        self._image, self._invvar = self._map(IMAGE), self._map(INVVAR)
        if self._image.shape != self._invvar.shape:
            raise BadInput(
                f"image {self._image.shape} and inverse variance {self._invvar.shape} differ", file=str(self.folder)
            )

    @classmethod
    def open(cls, folder: str | Path) -> Shard:
        """Open the folder of a complete shard; :class:`BadInput` naming the file that is absent, cut short or at
        odds."""
        return cls(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Shard, (self.folder,))

    def __len__(self) -> int:
        return self.index.height

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) of a stamp."""
        return self._image.shape[1:]  # type: ignore[return-value]

    @cached_property
    def rejected(self) -> pl.DataFrame:
        """The objects without a stamp, with reasons."""
        return pl.read_parquet(self.folder / f"{REJECTED}.parquet")

    @cached_property
    def refused(self) -> tuple[list[str], F32]:
        """Ids and stamps of a few rejected objects, for eyes."""
        path = self.folder / REFUSED_IMAGE
        if not path.is_file():
            return [], np.empty((0, *self.shape), np.float32)
        ids = pl.read_parquet(self.folder / f"{REFUSED}.parquet")["galaxy_id"].to_list()
        return ids, np.load(path, allow_pickle=False)

    def rows(self, which: Which) -> Rows:
        """Row numbers of galaxies (or of rows, checked); :class:`BadInput` naming the first that has no stamp."""
        return self._alone.locate(which)

    @cached_property
    def _alone(self) -> ShardSet:
        return ShardSet([self])

    def images(self, which: Which | None = None) -> F32:
        """Stamps in the order asked, (n, bands, h, w) float32 nmgy per pixel; ``None``: all, as a read-only map."""
        return self._image if which is None else _take(self._image, self.rows(which))

    def invvar(self, which: Which | None = None) -> F32:
        """Inverse variances (1 / nmgy^2) of the stamps that ``images`` gives."""
        return self._invvar if which is None else _take(self._invvar, self.rows(which))

    def _map(self, name: str) -> F32:
        path = self.folder / name
        try:
            array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if len(self.index) else None, allow_pickle=False)
        except (OSError, ValueError, EOFError) as fault:
            raise BadInput(f"cannot be read ({fault}); materialise the shard again", file=str(path)) from fault
        if array.ndim != 4 or len(array) != len(self.index) or array.dtype != np.dtype("<f4"):
            raise BadInput(f"holds {array.dtype} {array.shape}, the index {len(self.index)} stamps", file=str(path))
        return array


class ShardSet:
    """Several shards as one collection addressed by ``galaxy_id``; position i is stamp i of the shards one after
    another."""

    def __init__(self, shards: Iterable[Shard | str | Path]) -> None:
        self.shards = [shard if isinstance(shard, Shard) else Shard(shard) for shard in shards]
        if len({shard.shape for shard in self.shards}) > 1:
            raise BadInput(f"the shards hold stamps of different shapes: {sorted({s.shape for s in self.shards})}")
        self._starts = np.cumsum([0, *(len(shard) for shard in self.shards)])

    def __reduce__(self) -> tuple[Any, ...]:
        return (ShardSet, (self.shards,))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def index(self) -> pl.DataFrame:
        """The indices of all shards, one after another, with ``position``; an object in two shards is refused."""
        if not self.shards:
            raise BadInput("a set of no shards has no index")
        frame = pl.concat([shard.index for shard in self.shards]).with_columns(
            position=pl.int_range(pl.len(), dtype=pl.Int64)
        )
        doubled = frame.filter(pl.col("galaxy_id").is_duplicated())
        if doubled.height:
            raise BadInput(f"{doubled['galaxy_id'][0]} has stamps in several shards", column="galaxy_id")
        return frame

    @cached_property
    def _positions(self) -> dict[str, int]:
        return dict(zip(self.index["galaxy_id"].to_list(), range(len(self)), strict=True)) if self.shards else {}

    def has(self, ids: Sequence[str] | pl.Series) -> npt.NDArray[np.bool_]:
        """Which of the galaxies have a stamp."""
        return np.fromiter((name in self._positions for name in ids), bool, len(ids))

    def locate(self, which: Which) -> Rows:
        """Positions of galaxies, in the order asked (positions are checked and passed on).

        Raises :class:`BadInput` naming the first galaxy without a stamp.
        """
        if isinstance(which, np.ndarray) and which.dtype.kind in "iu":
            if which.size and (which.min() < 0 or which.max() >= len(self)):
                raise BadInput(f"positions {which.min()}..{which.max()} of {len(self)} stamps")
            return which.astype(np.int64)
        try:
            return np.fromiter((self._positions[str(name)] for name in which), np.int64, len(which))
        except KeyError:
            gone = [name for name in which if str(name) not in self._positions]
            raise BadInput(
                f"{len(gone)} galaxies have no stamp, first {gone[0]}: see the rejected of its tile"
            ) from None

    def images(self, which: Which) -> F32:
        """Stamps in the order asked, (n, bands, h, w) float32, nanomaggies per pixel."""
        return self._gather(which, "_image")

    def invvar(self, which: Which) -> F32:
        """Inverse variances (1 / nmgy^2) of the stamps that ``images`` gives."""
        return self._gather(which, "_invvar")

    def normalised(self, which: Which, spec: NormalisationSpec) -> F32:
        """Network input of stamps: ``normalise`` with the mask of their inverse variance.

        The inverse variance is read only for stamps that the index says have an invalid pixel.
        """
        positions = self.locate(which)
        images = self.images(positions)
        spoilt = np.flatnonzero(self._spoilt[positions])
        if not len(spoilt):
            return normalise(images, spec)
        out = np.empty_like(images)
        clean = np.flatnonzero(~self._spoilt[positions])
        out[clean] = normalise(images[clean], spec)
        out[spoilt] = normalise(images[spoilt], spec, valid_pixels(images[spoilt], self.invvar(positions[spoilt])))
        return out

    @cached_property
    def _spoilt(self) -> npt.NDArray[np.bool_]:
        names = [name for name in self.index.columns if name.startswith("invalid_fraction_")]
        return np.asarray(self.index.select(pl.max_horizontal(names) > 0).to_series().to_numpy(), bool)

    def _gather(self, which: Which, attribute: str) -> F32:
        if not self.shards:
            raise BadInput("a set of no shards holds no stamps")
        positions = self.locate(which)
        if len(self.shards) == 1:
            return _take(getattr(self.shards[0], attribute), positions)
        out = np.empty((len(positions), *self.shards[0].shape), np.float32)
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(owner):
            mine = np.flatnonzero(owner == number)
            out[mine] = _take(getattr(self.shards[number], attribute), positions[mine] - self._starts[number])
        return out


def epoch_order(ids: pl.Series, seed: int, epoch: int) -> Rows:
    """The order in which an epoch visits the rows of ``ids`` (``galaxy_id``): a permutation, positions into ``ids``.

    Keyed by identity, so the sequence of *galaxies* is the same whatever the order of ``ids``, the number of workers
    or the tiles present: those left out are left out, the others keep their order.
    """
    parts = ids.str.split_exact("-", 2).struct.unnest().cast(pl.Int64)
    key = galaxy_key(*(parts[:, k].to_numpy() for k in range(3)))
    return np.lexsort((key, mix64(key, seed_of("epoch", seed, epoch)))).astype(np.int64)


def _take(array: F32, rows: Rows) -> F32:
    """Copies of rows of a memory map, read in rising order (kind to a disk), returned in the order asked."""
    order = np.argsort(rows, kind="stable")
    out = np.empty((len(rows), *array.shape[1:]), np.float32)
    for slot, row in zip(order.tolist(), rows[order].tolist(), strict=True):
        out[slot] = array[row]
    return out
