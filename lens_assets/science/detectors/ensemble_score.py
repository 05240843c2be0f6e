"""The scorer of an ensemble: the same calls as that of one network, the members' logits put together by a rule.

A stamp is normalised once for each normalisation that occurs among the members and goes through every member in
the same pass, so an ensemble costs its networks and no second reading. Members may differ in network, input size and
normalisation. ``features`` are the members' penultimate features side by side, in the order of the members: what a
linear probe can tell from any one member it can tell from these. All members run in one precision; the drift that
bfloat16 is judged by is that of the combined logit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import polars as pl

from lens_assets.science.cutouts.normalise import NormalisationSpec
from lens_assets.science.detectors.dataset import StampSource
from lens_assets.science.detectors.ensemble_combine import Rule
from lens_assets.science.detectors.networks import LensNet
from lens_assets.science.detectors.score import F32, Mask, Scorer, bf16_supported, prepared, probability
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
    precision, drift, max_drift, batch : as for one network; ``drift`` is that of the combined logit.
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
                drift=0.0 if fast else None, batch=batch,
            )
            for m in members
        ]  # fmt: skip

    @property
    def n_features(self) -> int:
        """Length of a feature vector: the sum of the members'."""
        return sum(m.n_features for m in self._members)

    def member_stream(self, batches: Iterable[tuple[F32, Mask | None]]) -> Iterator[tuple[F32, F32]]:
        """Features (n, f) and the members' logits (n, members) of each batch in turn."""
        common = (tuple(prepared(i, v, spec) for spec in self.normalisations) for i, v in batches)
        copies = itertools.tee(common, len(self._members))  # holds what one member has read and another has not
        runs = [
            member.outputs(_pick(copy, which))
            for member, copy, which in zip(self._members, copies, self._which, strict=True)
        ]
        for outputs in zip(*runs, strict=True):
            yield np.concatenate([o[:, :-1] for o in outputs], 1), np.stack([o[:, -1] for o in outputs], 1)

    def _stream(self, batches: Iterable[tuple[F32, Mask | None]]) -> Iterator[F32]:
        for features, logits in self.member_stream(batches):
            yield np.concatenate([features, self.rule(logits)[:, None]], 1)


def _pick(batches: Iterable[tuple[F32, ...]], which: int) -> Iterator[F32]:
    return (batch[which] for batch in batches)


def score_members(
    scorer: EnsembleScorer, galaxy_ids: Iterable[str], stamps: StampSource, chunk: int = 256
) -> pl.DataFrame:
    """galaxy_id, logit, score as :func:`~lens_assets.science.detectors.score.score_rows` gives them, and one column of
    logits a member, named by its key; in one pass."""
    ids = sorted(galaxy_ids)
    if len(set(ids)) != len(ids):
        raise BadInput("a galaxy is to be scored twice", column="galaxy_id")
    parts = [ids[i : i + chunk] for i in range(0, len(ids), chunk)]
    stream = ((stamps.images(part), stamps.invvar(part) > 0) for part in parts)
    none = np.empty((0, len(scorer.member_keys)), np.float32)
    logits = np.concatenate([none, *(found for _, found in scorer.member_stream(stream))])
    logit = scorer.rule(logits)
    return pl.DataFrame(
        {"galaxy_id": ids, "logit": logit, "score": probability(logit)},
        schema={"galaxy_id": pl.String, "logit": pl.Float32, "score": pl.Float32},
    ).with_columns(pl.Series(key, logits[:, j], dtype=pl.Float32) for j, key in enumerate(scorer.member_keys))
