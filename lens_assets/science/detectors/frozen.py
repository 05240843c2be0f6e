"""Training the head of a frozen encoder: every view of a stamp goes through the encoder once, and epochs draw from those.

The views are the orientations that the augmentation can give (eight with flips and quarter turns), so an epoch of the head is
the same function of (seed, epoch, galaxy, copy) as one of a whole network, and only cheaper. The features lie in a file
beside the training's state, so that a killed training does not encode again.

The head learns on standardised features (mean 0, scatter 1 over the views of the training rows); mean and scatter are
folded into its weights when training ends, so that a detector takes the encoder's features as they are.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lens_assets.science.detectors.dataset import Moves, Normalised
from lens_assets.science.detectors.layers import LensNet
from lens_assets.science.detectors.recipes import Augmentation

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
_PULSE = 60.0  # seconds


class Features:
    """Features of every view of some rows, (n, views, f) float32, as inputs of a head."""

    def __init__(self, values: F32, orientations: list[tuple[int, bool]]) -> None:
        self.values, self._of = values, np.full((4, 2), -1, np.int64)
        for number, (turns, mirror) in enumerate(orientations):
            self._of[turns, int(mirror)] = number

    def views(self, rows: I64, moves: Moves, size: int) -> torch.Tensor:
        """(n, f) features of these rows in the orientations asked for."""
        if moves.down.any() or moves.right.any():
            raise ValueError("features of a frozen encoder are of stamps that are not shifted")
        number = self._of[moves.turns, moves.mirror.astype(int)]
        if (number < 0).any():
            raise ValueError("an orientation was not encoded")
        return torch.from_numpy(np.ascontiguousarray(self.values[rows, number]))


class Probe(LensNet):
    """A head on features, standardised; its ``head`` starts as the network's."""

    mean: torch.Tensor
    scatter: torch.Tensor

    def __init__(self, net: LensNet, mean: torch.Tensor, scatter: torch.Tensor) -> None:
        super().__init__()
        self.n_features = net.n_features
        self.head = nn.Linear(net.n_features, 1)
        self.head.load_state_dict(net.head.state_dict())
        self.register_buffer("mean", mean)
        self.register_buffer("scatter", scatter)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised features."""
        return (x.float() - self.mean) / self.scatter


def orientations(augmentation: Augmentation) -> list[tuple[int, bool]]:
    """(quarter turns, mirrored) of the views that ``dataset.moves`` can give."""
    turns = range(4) if augmentation.rotations else (0, 2) if augmentation.flips else (0,)
    return list(itertools.product(turns, (False, True) if augmentation.flips else (False,)))


def encoded(
    net: LensNet,
    pixels: Normalised,
    views: list[tuple[int, bool]],
    size: int,
    path: Path,
    *,
    batch: int,
    device: torch.device,
    pulse: Callable[[str], None],
) -> Features:
    """Features of all views of all rows, read from ``path`` where they were made before, else made and put there."""
    shape = (len(pixels), len(views), net.n_features)
    if path.is_file():
        return Features(np.load(path, mmap_mode="r", allow_pickle=False), views)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    out = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float32, shape=shape)
    net = net.to(device).eval()
    slots = list(itertools.product(range(len(views)), range(0, len(pixels), batch)))
    began = told = time.monotonic()
    for done, (view, start) in enumerate(slots):
        rows = np.arange(start, min(start + batch, len(pixels)))
        still = np.zeros(len(rows), np.int64)
        turns, mirror = views[view]
        moves = Moves(still + turns, np.full(len(rows), mirror), still, still)
        with torch.inference_mode():
            features = net.features(pixels.views(rows, moves, size).to(device))
        out[rows, view] = features.float().cpu().numpy()
        now = time.monotonic()
        if now - told > _PULSE:
            told = now
            left = (now - began) / (done + 1) * (len(slots) - done - 1)
            pulse(f"encoded {done + 1} of {len(slots)} batches; about {left / 60:.0f} min to go")
    if not np.isfinite(out).all():
        raise FloatingPointError("the encoder gave features that are not finite")
    out.flush()
    del out
    os.replace(scratch, path)
    for dead in path.parent.glob(f".{path.name}.*"):
        dead.unlink(missing_ok=True)
    return Features(np.load(path, mmap_mode="r", allow_pickle=False), views)


def probe(net: LensNet, features: Features) -> Probe:
    """The network's head on features standardised over these."""
    values = features.values.reshape(-1, features.values.shape[-1])
    mean = values.mean(0, dtype=np.float64)
    scatter = np.maximum(values.std(0, dtype=np.float64), 1e-6)
    return Probe(net, *(torch.from_numpy(v.astype(np.float32)) for v in (mean, scatter)))


def folded(net: LensNet, best: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The whole network's weights with the head of a :class:`Probe`'s state, standardisation folded in."""
    weight = best["head.weight"].double() / best["scatter"].double()
    bias = best["head.bias"].double() - (weight * best["mean"].double()).sum(1)
    whole = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    return whole | {"head.weight": weight.float(), "head.bias": bias.float()}
