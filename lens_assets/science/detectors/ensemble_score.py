"""The scorer of an ensemble: the same calls as that of one network, the members' logits put together by a rule.

A stamp is normalised once for each normalisation that occurs among the members and goes through every member in
the same pass, so an ensemble costs its networks and no second reading. Members may differ in network, input size and
normalisation. ``features`` are the members' penultimate features side by side, in the order of the members: what a
linear probe can tell from any one member it can tell from these. All members run in one precision; the drift that
bfloat16 is judged by is that of the combined logit.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import polars as pl
import torch

from lens_assets.science.cutouts.normalise import NormalisationSpec
from lens_assets.science.detectors.dataset import StampSource
from lens_assets.science.detectors.ensemble_combine import Rule
from lens_assets.science.detectors.networks import LensNet
from lens_assets.science.detectors.score import (
    F32,
    Batch,
    Mask,
    Scorer,
    bf16_supported,
    prepared,
    probability,
    stamps_in_chunks,
)
from lens_assets.science.errors import BadInput


class Member:
    """One network of an ensemble: key, network, normalisation and input size."""

    def __init__(self, key: str, net: LensNet, normalisation: NormalisationSpec, input_size: int) -> None:
        self.key, self.net, self.normalisation, self.input_size = key, net, normalisation, input_size


class EnsembleScorer(Scorer):
    """A frozen ensemble.

    Parameters
    ----------
    members : the networks, in the order of the rule.
    rule : from the members' logits (n, members) to one.
    precision, drift, max_drift, batch, device : as for one network; ``drift`` is that of the combined logit.
    """

    def __init__(
        self,
        members: Sequence[Member],
        rule: Rule,
        *,
        key: str = "",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        drift: float | None = None,
        max_drift: float = 0.1,
        batch: int = 64,
        device: str | torch.device | None = None,
    ) -> None:
        small = drift is not None and drift <= max_drift
        if precision == "bf16" and not small:
            raise BadInput(f"bf16 scores of detector {key!r} drift by {drift}; at most {max_drift} is accepted")
        fast = precision == "bf16" or (precision == "auto" and small and bf16_supported())
        self.precision = "bf16" if fast else "fp32"
        self.key, self.rule, self.drift, self.batch = key, rule, drift, batch
        self.member_keys = tuple(m.key for m in members)
        self.normalisations = tuple({m.normalisation.digest: m.normalisation for m in members}.values())
        self.normalisation = self.normalisations[0]
        self.input_size = max(m.input_size for m in members)
        self._which = [self.normalisations.index(m.normalisation) for m in members]
        self._members = [
            Scorer(
                m.net, m.normalisation, m.input_size, key=m.key, precision="bf16" if fast else "fp32",
                drift=0.0 if fast else None, batch=batch, device=device,
            )
            for m in members
        ]  # fmt: skip
        self.device, self.threads = self._members[0].device, self._members[0].threads

    @property
    def n_features(self) -> int:
        """Length of a feature vector: the sum of the members'."""
        return sum(m.n_features for m in self._members)

    @property
    def conditions(self) -> tuple[str, ...]:  # type: ignore[override]
        """Columns of the split table that the rule looks at."""
        return self.rule.conditions

    def features(self, images: F32, valid: Mask | None = None) -> F32:
        """Penultimate features (n, f) of raw stamps, the members' side by side."""
        return next(self.member_stream([(images, valid)]))[0]

    def member_stream(self, batches: Iterable[Batch]) -> Iterator[tuple[F32, F32, pl.DataFrame | None]]:
        """Features (n, f), the members' logits (n, members) and the conditions of each batch in turn."""
        waiting: deque[pl.DataFrame | None] = deque()

        def common() -> Iterator[tuple[F32, ...]]:
            for batch in batches:
                waiting.append(batch[2] if len(batch) == 3 else None)
                yield tuple(prepared(batch[0], batch[1], spec, self.threads) for spec in self.normalisations)

        copies = itertools.tee(common(), len(self._members))  # holds what one member has read and another has not
        runs = [
            member.outputs(_pick(copy, which))
            for member, copy, which in zip(self._members, copies, self._which, strict=True)
        ]
        for outputs in zip(*runs, strict=True):
            yield (
                np.concatenate([o[:, :-1] for o in outputs], 1),
                np.stack([o[:, -1] for o in outputs], 1),
                waiting.popleft(),
            )

    def _stream(self, batches: Iterable[Batch]) -> Iterator[F32]:
        for features, logits, conditions in self.member_stream(batches):
            yield np.concatenate([features, self.rule(logits, conditions)[:, None]], 1)


def _pick(batches: Iterable[tuple[F32, ...]], which: int) -> Iterator[F32]:
    return (batch[which] for batch in batches)


def score_members(
    scorer: EnsembleScorer, galaxies: pl.DataFrame, stamps: StampSource, chunk: int = 256
) -> pl.DataFrame:
    """galaxy_id, logit, score as :func:`~lens_assets.science.detectors.score.score_rows` gives them, and one column of
    logits a member, named by its key; in one pass."""
    ids, stream = stamps_in_chunks(scorer, galaxies, stamps, chunk)
    parts = [(logits, scorer.rule(logits, conditions)) for _, logits, conditions in scorer.member_stream(stream)]
    logits = np.concatenate([np.empty((0, len(scorer.member_keys)), np.float32), *(found for found, _ in parts)])
    logit = np.concatenate([np.empty(0, np.float32), *(combined for _, combined in parts)])
    return pl.DataFrame(
        {"galaxy_id": ids, "logit": logit, "score": probability(logit)},
        schema={"galaxy_id": pl.String, "logit": pl.Float32, "score": pl.Float32},
    ).with_columns(pl.Series(key, logits[:, j], dtype=pl.Float32) for j, key in enumerate(scorer.member_keys))
