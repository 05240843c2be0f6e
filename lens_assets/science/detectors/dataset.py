"""What the network sees in an epoch: which rows, in which order, changed in which way.

Everything random is a hash of (seed, epoch, galaxy, copy): no generator is carried along, so an epoch can be made again
alone, by any number of workers, after any interruption. (A published run fixed the augmentation per sample and saw
the same 160 pictures of each lens 160 times.)

Stamps are normalised before they are moved: the background is 0 then, and a shift changes no median. What a shift
uncovers is filled by reflection, which continues the noise; a constant border would be a mark. Nothing here reads
labels of other roles than those it is given, and nothing here cuts or normalises (``cutouts``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch.utils.data import Dataset

from lens_assets.science.cutouts.normalise import NormalisationSpec, normalise
from lens_assets.science.detectors.recipes import Augmentation, Mixture, Recipe
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import mix64, seed_of

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

POSITIVE, N1, N2 = 0, 1, 2
_CHUNK = 256


class StampSource(Protocol):
    """Where stamps come from (``cutouts.shard.ShardSet`` is one): both (n, 3, h, w) float32, in the order asked for."""

    def images(self, galaxy_ids: Sequence[str]) -> F32:
        """Nanomaggies per pixel."""
        ...

    def invvar(self, galaxy_ids: Sequence[str]) -> F32:
        """Inverse variance; 0 where a pixel is not valid."""
        ...


@dataclass(frozen=True)
class Rows:
    """The rows of one role, sorted by ``galaxy_id``: identity, target, loss weight and the group they are drawn
    from."""

    galaxy_ids: tuple[str, ...]
    keys: U64
    label: F32
    target: F32
    weight: F32
    group: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.galaxy_ids)


def rows_of(sample: pl.DataFrame, role: str, recipe: Recipe) -> Rows:
    """The rows of ``sample`` with this ``role`` and the weights the recipe gives them.

    Needs columns galaxy_id, role, label (0/1), weight; tier and pool where they are. Raises :class:`BadInput` for
    repeated ids, other labels, weights that are not positive, or a role without both classes.
    """
    for column in ("galaxy_id", "role", "label", "weight"):
        if column not in sample.columns:
            raise BadInput("the sample needs this column", column=column)
    part = sample.filter(pl.col("role") == role).sort("galaxy_id")
    if part["galaxy_id"].n_unique() != part.height:
        raise BadInput(f"a galaxy is more than once in role {role!r}", column="galaxy_id")
    label = part["label"].cast(pl.Float32).to_numpy(writable=True)
    if not np.isin(label, (0.0, 1.0)).all():
        raise BadInput(f"role {role!r} holds labels other than 0 and 1", column="label")
    if not (label == 1).any() or not (label == 0).any():
        raise BadInput(f"role {role!r} has {int((label == 1).sum())} positives and {int((label == 0).sum())} negatives")
    weight = part["weight"].cast(pl.Float32).fill_null(1.0).to_numpy().copy()
    target = label.copy()
    if "tier" in part.columns:
        tier_b = (part["tier"] == "B").fill_null(False).to_numpy() & (label == 1)
        if recipe.tier_b_weight is not None:
            weight[tier_b] = recipe.tier_b_weight
        target[tier_b] = 1.0 - recipe.label_smoothing_b
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise BadInput(f"role {role!r}: a weight is not positive", column="weight")
    group = np.full(part.height, N1, np.int8)
    if "pool" in part.columns:
        group[(part["pool"] == "N2").fill_null(False).to_numpy()] = N2
    group[label == 1] = POSITIVE
    ids = tuple(part["galaxy_id"].to_list())
    keys = np.array([seed_of("galaxy", g) for g in ids], np.uint64)
    return Rows(ids, keys, label, target, weight, group)


def epoch_counts(rows: Rows, mixture: Mixture) -> tuple[int, int, int]:
    """How many positives, N1 and N2 an epoch draws. :class:`BadInput` when a group it needs is empty."""
    size = mixture.epoch_size or len(rows)
    have = np.bincount(rows.group, minlength=3)
    share = have[POSITIVE] / len(rows) if mixture.positive_fraction is None else mixture.positive_fraction
    positives = max(1, round(share * size))
    n2 = round(mixture.n2 * (size - positives))
    counts = (positives, size - positives - n2, n2)
    for name, n, available in zip(("positives", "N1", "N2"), counts, have, strict=True):
        if n and not available:
            raise BadInput(f"the mixture asks for {n} {name} an epoch and the sample has none; change `mixture`")
    return counts


def prior_shift(rows: Rows, mixture: Mixture) -> float:
    """log-odds that the mixture adds over the sample's own ratio of positives to negatives (0 without oversampling).

    Training on odds multiplied by a factor adds the log of that factor to an ideal logit (Saerens et al. 2002,
    doi:10.1162/089976602753284446, eq. 2.4); it is taken off the head's bias when training ends. The mixing of N1 and
    N2 changes the negatives themselves and has no such correction; that is what the calibration map is for.
    """
    positives, n1, n2 = epoch_counts(rows, mixture)
    have = np.bincount(rows.group, minlength=3)
    return float(np.log(positives / (n1 + n2)) - np.log(have[POSITIVE] / (have[N1] + have[N2])))


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
        self._pixels = np.empty((len(self.galaxy_ids) if self.cached else 0, *self.shape), np.float32)
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

    def _read(self, ids: Sequence[str]) -> F32:
        images = normalise(self._stamps.images(ids), self._spec, valid=self._stamps.invvar(ids) > 0)
        if not np.isfinite(images).all():
            raise BadInput("a normalised stamp is not finite", column="image")
        return images


class Epoch(Dataset[Batch]):
    """The batches of one epoch: item ``b`` is (stamps, targets, weights). Sizes differ by one at most; none is
    dropped."""

    def __init__(self, rows: Rows, pixels: Normalised, recipe: Recipe, epoch: int, *, augment: bool = True) -> None:
        self._rows, self._pixels, self._recipe = rows, pixels, recipe
        if augment:
            row, copy = epoch_plan(rows, recipe.mixture, recipe.seed, epoch)
            self._moves = moves(rows.keys[row], copy, recipe.augmentation, recipe.seed, epoch)
        else:
            row = np.arange(len(rows))
            still = np.zeros(len(rows), np.int64)
            self._moves = Moves(still, still.astype(bool), still, still)
        self._row = row
        n = n_batches(len(row), recipe, augment)
        self._edges = np.linspace(0, len(row), n + 1).round().astype(int)

    def __len__(self) -> int:
        return len(self._edges) - 1

    def __getitem__(self, b: int) -> Batch:
        slots = np.arange(self._edges[b], self._edges[b + 1])
        row, m, size = self._row[slots], self._moves, self._recipe.input_size
        out = np.stack(
            [
                move(image, int(m.turns[s]), bool(m.mirror[s]), int(m.down[s]), int(m.right[s]), size)
                for image, s in zip(self._pixels[row], slots, strict=True)
            ]
        )
        stamps = torch.from_numpy(out).contiguous(memory_format=torch.channels_last)
        return stamps, torch.from_numpy(self._rows.target[row]), torch.from_numpy(self._rows.weight[row])


def n_batches(n: int, recipe: Recipe, augment: bool = True) -> int:
    """Batches an epoch of ``n`` stamps; in training a multiple of ``accumulate``, so that no step is cut short."""
    if not augment:
        return -(-n // recipe.schedule.batch_size)
    per_step = recipe.schedule.batch_size * recipe.schedule.accumulate
    return -(-n // per_step) * recipe.schedule.accumulate
