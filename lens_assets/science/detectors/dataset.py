"""What the network sees in an epoch: rows in which order, changed in which way.

Everything random is a hash of (seed, epoch, galaxy, copy): no generator is carried along, so an epoch can be made again
alone, by any number of workers, after any interruption. (A published run fixed the augmentation per sample and saw
the same 160 pictures of each lens 160 times.)

Stamps are normalised before they are moved: the background is 0 then, and a shift changes no median. What a shift
uncovers is filled by reflection, which continues the noise; a constant border would be a mark. Nothing here reads
labels of other roles than those it is given, and nothing here cuts or normalises (``cutouts``).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from lens_assets.science.cutouts.normalise import NormalisationSpec, normalise
from lens_assets.science.detectors.recipes import Augmentation, Mixture, Recipe
from lens_assets.science.detectors.rows import N1, N2, POSITIVE, Rows, epoch_counts
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import mix64, seed_of

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_CHUNK = 256


class StampSource(Protocol):
    """Where stamps come from (``cutouts.shard.ShardSet`` is one): both (n, 3, h, w) float32, in the order asked for."""

    def images(self, galaxy_ids: Sequence[str]) -> F32:
        """Nanomaggies per pixel."""
        ...

    def invvar(self, galaxy_ids: Sequence[str]) -> F32:
        """Inverse variance; 0 where a pixel is not valid."""
        ...


def epoch_plan(rows: Rows, mixture: Mixture, seed: int, epoch: int) -> tuple[I64, I64]:
    """The epoch in order: row numbers and, for each, which copy of that row it is.

    A group smaller than its count is used whole as often as it fits and the rest is drawn; a larger one is drawn
    without replacement. Drawn are the smallest hashes of (galaxy, seed, epoch), so the order of the table plays no
    part.
    """
    picked, copies = [], []
    for group, n in zip((POSITIVE, N1, N2), epoch_counts(rows, mixture), strict=True):
        members = np.flatnonzero(rows.group == group)
        if not n:
            continue
        whole, rest = divmod(n, len(members))
        for number in range(whole):
            picked.append(members)
            copies.append(np.full(len(members), number))
        rank = np.argsort(mix64(rows.keys[members], seed_of("draw", seed, epoch)), kind="stable")[:rest]
        picked.append(members[rank])
        copies.append(np.full(rest, whole))
    row, copy = np.concatenate(picked), np.concatenate(copies).astype(np.int64)
    order = np.lexsort((row, mix64(rows.keys[row] + mix64(copy), seed_of("order", seed, epoch))))
    return row[order], copy[order]


@dataclass(frozen=True)
class Moves:
    """Quarter turns, whether mirrored, and the shift in pixels (down, right) of each stamp."""

    turns: I64
    mirror: npt.NDArray[np.bool_]
    down: I64
    right: I64

    def __getitem__(self, slots: I64) -> Moves:
        return Moves(self.turns[slots], self.mirror[slots], self.down[slots], self.right[slots])


def moves(keys: U64, copies: I64, augmentation: Augmentation, seed: int, epoch: int) -> Moves:
    """How each stamp is moved in this epoch: a function of (seed, epoch, galaxy, copy) only."""
    bits = mix64(keys + mix64(copies), seed_of("augment", seed, epoch))
    span = np.uint64(2 * augmentation.shift + 1)

    def field(shift: int, modulus: np.uint64) -> I64:
        return ((bits >> np.uint64(shift)) % modulus).astype(np.int64)

    turns = field(0, np.uint64(4)) if augmentation.rotations else 2 * field(0, np.uint64(2)) * augmentation.flips
    mirror = field(8, np.uint64(2)).astype(bool) & augmentation.flips
    return Moves(turns, mirror, field(16, span) - augmentation.shift, field(40, span) - augmentation.shift)


def move(image: F32, turns: int, mirror: bool, down: int, right: int, size: int) -> F32:
    """One stamp turned, mirrored and shifted, and its central ``size`` pixels; reflection fills what a shift
    uncovers."""
    view = np.rot90(image, turns, axes=(1, 2))
    if mirror:
        view = view[:, :, ::-1]
    height, width = view.shape[1:]
    ys = _reflected(np.arange(size) + (height - size) // 2 - down, height)
    xs = _reflected(np.arange(size) + (width - size) // 2 - right, width)
    return np.ascontiguousarray(view[:, ys][:, :, xs])


def _reflected(index: I64, n: int) -> I64:
    index = np.abs(index)
    return np.where(index >= n, 2 * (n - 1) - index, index)


class Normalised:
    """Normalised stamps of some rows, kept in memory while they fit in ``cache_bytes``, else read when asked for."""

    def __init__(
        self, galaxy_ids: Sequence[str], stamps: StampSource, spec: NormalisationSpec, cache_bytes: int = 2 << 30
    ) -> None:
        self.galaxy_ids, self._stamps, self._spec = tuple(galaxy_ids), stamps, spec
        self.shape = self._read(self.galaxy_ids[:1]).shape[1:]
        self.cached = len(self.galaxy_ids) * 4 * int(np.prod(self.shape)) <= cache_bytes
        self._pixels: F32 = np.empty((len(self.galaxy_ids) if self.cached else 0, *self.shape), np.float32)
        self._shared: torch.Tensor | None = None
        total = hashlib.sha256()
        for start in range(0, len(self.galaxy_ids), _CHUNK):
            part = self._read(self.galaxy_ids[start : start + _CHUNK])
            total.update(part.tobytes())
            if self.cached:
                self._pixels[start : start + _CHUNK] = part
        self.digest = total.hexdigest()
        """SHA-256 of all normalised pixels in the order of ``galaxy_ids``."""

    def __len__(self) -> int:
        return len(self.galaxy_ids)

    def __getitem__(self, rows: I64) -> F32:
        """(n, 3, h, w) of these rows."""
        if self.cached:
            return self._pixels[rows]
        return self._read([self.galaxy_ids[i] for i in rows])

    def views(self, rows: I64, moves: Moves, size: int) -> torch.Tensor:
        """Stamps of these rows, moved, (n, 3, size, size)."""
        out = np.stack(
            [
                move(image, int(turns), bool(mirror), int(down), int(right), size)
                for image, turns, mirror, down, right in zip(
                    self[rows], moves.turns, moves.mirror, moves.down, moves.right, strict=True
                )
            ]
        )
        return torch.from_numpy(out)

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: what is in memory is shared with them, and its source left behind."""
        if not self.cached:
            return self.__dict__
        if self._shared is None:
            self._shared = torch.from_numpy(self._pixels).share_memory_()  # type: ignore[no-untyped-call]
            self._pixels = self._shared.numpy()
        return self.__dict__ | {"_pixels": None, "_stamps": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._shared is not None:
            self._pixels = self._shared.numpy()

    def _read(self, ids: Sequence[str]) -> F32:
        images = normalise(self._stamps.images(ids), self._spec, valid=self._stamps.invvar(ids) > 0)
        if not np.isfinite(images).all():
            raise BadInput("a normalised stamp is not finite", column="image")
        return images


class Views(Protocol):
    """Where a network's inputs come from: stamps (:class:`Normalised`), or features of a frozen encoder."""

    def views(self, rows: I64, moves: Moves, size: int) -> torch.Tensor:
        """Inputs of these rows, each moved in its way."""
        ...


class Epoch(Dataset[Batch]):
    """The batches of one epoch: item ``b`` is (inputs, targets, weights). Sizes differ by one at most; none is dropped.

    Of ``world`` processes each gets every ``world``-th slot of every batch, so that together they make the steps that one
    makes alone. A process's weights carry its share of the batch: the mean over processes of their mean losses is the
    mean over the batch.
    """

    def __init__(
        self,
        rows: Rows,
        source: Views,
        recipe: Recipe,
        epoch: int,
        *,
        augment: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._rows, self._source, self._recipe, self._world = rows, source, recipe, world
        if augment:
            row, copy = epoch_plan(rows, recipe.mixture, recipe.seed, epoch)
            self._moves = moves(rows.keys[row], copy, recipe.augmentation, recipe.seed, epoch)
        else:
            row = np.arange(len(rows))
            still = np.zeros(len(rows), np.int64)
            self._moves = Moves(still, still.astype(bool), still, still)
        self._row = row
        edges = np.linspace(0, len(row), n_batches(len(row), recipe, augment) + 1).round().astype(int)
        self._batches = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
        self._rank = rank
        if min(map(len, self._batches)) < world:
            raise BadInput(f"batches of {min(map(len, self._batches))} stamps for {world} processes")

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, b: int) -> Batch:
        slots = self._batches[b][self._rank :: self._world]
        row = self._row[slots]
        inputs = self._source.views(row, self._moves[slots], self._recipe.input_size)
        share = len(slots) * self._world / len(self._batches[b])
        weight = torch.from_numpy(self._rows.weight[row])
        return inputs, torch.from_numpy(self._rows.target[row]), weight if share == 1 else weight * share

    def slots(self, rank: int) -> I64:
        """The slots of a process, in its order."""
        return np.concatenate([batch[rank :: self._world] for batch in self._batches])


def n_batches(n: int, recipe: Recipe, augment: bool = True) -> int:
    """Batches an epoch of ``n`` stamps; in training a multiple of ``accumulate``, so that no step is cut short."""
    if not augment:
        return -(-n // recipe.schedule.batch_size)
    per_step = recipe.schedule.batch_size * recipe.schedule.accumulate
    return -(-n // per_step) * recipe.schedule.accumulate
