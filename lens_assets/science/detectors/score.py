"""The one way from a stamp to a score, for evaluation, injections and scans: normalise -> crop -> network -> logit.

The network runs in batches of one fixed size, the last padded, with convolutions and batch norms fused and channels
last. So a stamp's logit does not depend on how the caller grouped its stamps or on its neighbours: the same bits come
out, which a test proves. Between batch sizes, thread counts, processors and precisions the last bits may differ;
those are recorded.

On a GPU the processor is the slower side: stamps are normalised by several threads, and read and normalised ahead of
the network. The bytes that the network gets do not depend on either.

bfloat16 (weights and activations; the pooled features and the head stay float32) doubles the rate where the processor
has it. Its drift, the largest change of a logit over the ``select`` stamps, is measured when training ends and stored
with the weights; ``auto`` uses bfloat16 only while that is within the accepted drift, and asking for it beyond
raises.

What does not belong here: thresholds and calibration (``evaluate``), stamps on disk (``cutouts``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from lens_assets.science.ahead import ahead, mapped
from lens_assets.science.cutouts.normalise import NormalisationSpec, normalise
from lens_assets.science.detectors.dataset import StampSource
from lens_assets.science.detectors.networks import LensNet, fused
from lens_assets.science.errors import BadInput

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
BATCH = 64
MOST_THREADS = 16
MOST_READERS = 4
"""Chunks of stamps that are read at once beside a GPU."""
SCORE_COLUMNS = ("galaxy_id", "logit", "score")
_ID = {"galaxy_id": pl.String}
Batch = tuple[F32, Mask | None] | tuple[F32, Mask | None, pl.DataFrame | None]
"""Raw stamps, their valid pixels, and the conditions they were taken under where the detector asks for them."""


class Scorer:
    """A frozen detector.

    ``conditions`` names the columns of the split table (PSF, depth ...) that its score depends on besides the stamp; a
    network looks at none.

    Parameters
    ----------
    net : the trained network (a copy is fused; the original is left alone).
    normalisation : the specification it was trained on.
    input_size : side of the centre the network sees, pixels.
    precision : "fp32", "bf16", or "auto" (bf16 where the processor has it and ``drift`` is at most ``max_drift``).
    drift : largest |logit(bf16) - logit(fp32)|, as measured at training; ``None`` where it was not.
    device : where the network runs; the GPU where there is one.
    threads : that normalise stamps beside the network; by default one, or, where that runs on a GPU, those of the machine
        up to ``MOST_THREADS``.
    """

    conditions: tuple[str, ...] = ()

    def __init__(
        self,
        net: LensNet,
        normalisation: NormalisationSpec,
        input_size: int,
        *,
        key: str = "",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        drift: float | None = None,
        max_drift: float = 0.1,
        batch: int = BATCH,
        device: str | torch.device | None = None,
        threads: int | None = None,
    ) -> None:
        small = drift is not None and drift <= max_drift
        if precision == "bf16" and not small:
            raise BadInput(f"bf16 scores of detector {key!r} drift by {drift}; at most {max_drift} is accepted")
        self.device = torch.device(device or best_device())
        fast = precision == "bf16" or (precision == "auto" and small and bf16_supported(self.device))
        self.precision = "bf16" if fast else "fp32"
        self.key, self.normalisation, self.input_size, self.batch, self.drift = (
            key,
            normalisation,
            input_size,
            batch,
            drift,
        )
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.threads = threads or beside(self.device)
        self._net = fused(net).to(self.device, self._dtype)
        self._format = net.memory_format
        self._head = tuple(p.detach().float().to(self.device) for p in (net.head.weight, net.head.bias))

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        return self._net.n_features

    def score(self, images: F32, valid: Mask | None = None, conditions: pl.DataFrame | None = None) -> F32:
        """Logits (n,) of raw stamps (n, 3, h, w), nanomaggies per pixel; ``valid`` is ``invvar > 0``, ``conditions`` one
        row a stamp (see :func:`conditions_of`)."""
        return next(self.score_stream([(images, valid, conditions)]))

    def features(self, images: F32, valid: Mask | None = None) -> F32:
        """Penultimate features (n, f) of raw stamps."""
        return next(self._stream([(images, valid)]))[:, :-1]

    def score_stream(self, batches: Iterable[Batch]) -> Iterator[F32]:
        """Logits of each batch of (images, valid) or (images, valid, conditions) in turn; small batches are put together, so
        they cost no more."""
        for outputs in self._stream(batches):
            yield outputs[:, -1].copy()

    def _stream(self, batches: Iterable[Batch]) -> Iterator[F32]:
        stamps = (prepared(batch[0], batch[1], self.normalisation, self.threads) for batch in batches)
        return self.outputs(ahead(stamps) if self.threads > 1 else stamps)

    def outputs(self, batches: Iterable[F32]) -> Iterator[F32]:
        """Features and, last, the logit (n, f + 1) of each batch in turn of whole stamps that are normalised already."""
        waiting: list[F32] = []  # normalised stamps not yet through the network
        done: list[F32] = []  # outputs (features, logit) not yet handed out
        sizes: list[int] = []  # of the batches not yet handed out
        for batch in batches:
            sizes.append(len(batch))
            if len(batch):
                waiting.append(crop(batch, self.input_size))
            held = sum(map(len, waiting))
            if held >= self.batch:
                stamps = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                whole = held - held % self.batch
                done += [self._forward(stamps[i : i + self.batch]) for i in range(0, whole, self.batch)]
                waiting = [stamps[whole:]] if whole < held else []
            while sizes and sum(map(len, done)) >= sizes[0]:
                yield self._take(done, sizes.pop(0))
        if waiting:
            done.append(self._forward(np.concatenate(waiting)))
        while sizes:
            yield self._take(done, sizes.pop(0))

    def _take(self, done: list[F32], n: int) -> F32:
        everything = np.concatenate([np.empty((0, self.n_features + 1), np.float32), *done])
        done[:] = [everything[n:]]
        return everything[:n]

    def _forward(self, stamps: F32) -> F32:
        n = len(stamps)
        if n < self.batch:
            stamps = np.concatenate([stamps, np.zeros((self.batch - n, *stamps.shape[1:]), np.float32)])
        x = torch.from_numpy(stamps)
        if self.device.type == "cuda":
            x = x.pin_memory().to(self.device, non_blocking=True)
        x = x.to(self._dtype).contiguous(memory_format=self._format)
        with torch.inference_mode(), exact_products(self.device):
            features = self._net.features(x).float()
            logit = (features * self._head[0]).sum(1, keepdim=True) + self._head[1]
            out: F32 = torch.cat([features, logit], 1).cpu().numpy()[:n]
        if not np.isfinite(out).all():
            raise FloatingPointError(f"detector {self.key!r} gave an output that is not finite")
        return out


def conditions_of(frame: pl.DataFrame, scorer: Scorer) -> pl.DataFrame | None:
    """The conditions a detector asks for, row by row of ``frame``; ``None`` where it asks for none."""
    for column in scorer.conditions:
        if column not in frame.columns:
            raise BadInput(f"detector {scorer.key!r} scores by this condition, which is not known here", column=column)
    return frame.select(scorer.conditions) if scorer.conditions else None


def stamps_in_chunks(
    scorer: Scorer, rows: pl.DataFrame, stamps: StampSource, chunk: int = 256
) -> tuple[list[str], Iterator[Batch]]:
    """The ids of ``rows`` (galaxy_id and what the detector asks for), sorted, and their stamps in chunks of that order."""
    rows = rows.sort("galaxy_id")
    ids: list[str] = rows["galaxy_id"].to_list()
    if len(set(ids)) != len(ids):
        raise BadInput("a galaxy is to be scored twice", column="galaxy_id")
    conditions = conditions_of(rows, scorer)

    def read(i: int) -> Batch:
        part = ids[i : i + chunk]
        of_part = None if conditions is None else conditions[i : i + chunk]
        return stamps.images(part), stamps.invvar(part) > 0, of_part

    return ids, mapped(read, range(0, len(ids), chunk), min(scorer.threads, MOST_READERS))


def score_rows(
    scorer: Scorer, galaxies: Iterable[str] | pl.DataFrame, stamps: StampSource, chunk: int = 256
) -> pl.DataFrame:
    """galaxy_id, logit, score of these galaxies, sorted by id; one row for each, or an error.

    ``galaxies`` : ids, or a frame with galaxy_id and the conditions that the detector asks for.
    """
    rows = galaxies if isinstance(galaxies, pl.DataFrame) else pl.DataFrame({"galaxy_id": list(galaxies)}, schema=_ID)
    ids, stream = stamps_in_chunks(scorer, rows, stamps, chunk)
    logit = np.concatenate([np.empty(0, np.float32), *scorer.score_stream(stream)])
    return pl.DataFrame(
        {"galaxy_id": ids, "logit": logit, "score": probability(logit)},
        schema={**_ID, "logit": pl.Float32, "score": pl.Float32},
    )


def probability(logit: npt.ArrayLike) -> F32:
    """``1 / (1 + exp(-logit))``, computed in float64, as float32."""
    x = np.asarray(logit, np.float64)
    return np.exp(-np.logaddexp(0.0, -x)).astype(np.float32)


def prepared(images: F32, valid: Mask | None, spec: NormalisationSpec, threads: int = 1) -> F32:
    """A batch normalised; an empty one stays what it is."""
    return normalise(images, spec, valid=valid, threads=threads) if len(images) else images


def crop(images: F32, size: int) -> F32:
    """The central ``size`` pixels of (n, c, h, w)."""
    height, width = images.shape[-2:]
    if size > min(height, width):
        raise BadInput(f"stamps of {height} x {width} pixels are smaller than the network's {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size]


def beside(device: torch.device) -> int:
    """Threads that prepare stamps for a network on ``device``: one where it needs the processors itself."""
    return min(os.cpu_count() or 1, MOST_THREADS) if device.type == "cuda" else 1


def best_device() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_supported(device: torch.device | None = None) -> bool:
    """Whether the device (the best there is) multiplies bfloat16 in hardware: elsewhere it is emulated, and slower than
    float32."""
    if (device or best_device()).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """On a GPU: float32 products of full precision (cuDNN's default cuts them to TF32's ten bits) by algorithms that give
    the same bits each time."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def measure_drift(net: LensNet, normalised: F32, input_size: int, batch: int = BATCH) -> float:
    """Largest |logit(bf16) - logit(fp32)| over normalised stamps, by the scorer's own arithmetic."""
    spec = NormalisationSpec()
    exact = Scorer(net, spec, input_size, precision="fp32", batch=batch)
    quick = Scorer(net, spec, input_size, precision="bf16", drift=0.0, batch=batch)
    stamps = crop(normalised, input_size)
    worst = 0.0
    for i in range(0, len(stamps), batch):
        a, b = (scorer._forward(stamps[i : i + batch])[:, -1] for scorer in (exact, quick))
        worst = max(worst, float(np.abs(a - b).max()))
    return worst
