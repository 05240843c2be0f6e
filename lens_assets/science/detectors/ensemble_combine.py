"""Putting the logits of several networks together: from (n, members) to (n,), by rules that are data.

``mean`` and ``calibrated`` average, on the logit or on the probability; ``calibrated`` sends each member through a
monotone map of its own first; ``stacked`` is a weighted sum of the logits. Every rule rises with every member's logit,
or does not move: no detector's score can fall because one member grew more confident. Each row is computed by itself,
in float64 and member by member, so a stamp's score has the same bits alone and in any batch.

How rules are fitted is ``ensemble_fit``; the networks are ``score``'s.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class LogitMap(BaseModel):
    """A monotone map of one member's logit: straight lines between ``knots`` (logit, mapped logit), ``slope`` outside.

    One knot and a slope are Platt's map (Platt 1999): ``y0 + slope (x - x0)``. Several are a centred isotonic
    regression (Oron & Flournoy 2017, doi:10.1080/19466315.2017.1286256): a plain one is a staircase, and its steps
    throw together the scores that a threshold must tell apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    knots: tuple[tuple[float, float], ...] = Field(min_length=1)
    slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        steps = np.diff(np.array(self.knots), axis=0)
        if not np.isfinite(self.knots).all() or not (steps > 0).all():
            raise ValueError("knots must be finite and rise in both coordinates")
        return self

    def __call__(self, logit: npt.ArrayLike) -> F64:
        """The mapped logits, same shape."""
        x = np.asarray(logit, np.float64)
        at = np.array(self.knots)
        inside = np.interp(x, at[:, 0], at[:, 1])
        beyond = np.minimum(x - at[0, 0], 0.0) + np.maximum(x - at[-1, 0], 0.0)
        out: F64 = inside + self.slope * beyond
        return out


class Rule(BaseModel):
    """A finished combination: what ``spec.json`` of an ensemble holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["mean", "calibrated", "stacked"]
    scale: Literal["logit", "probability"] = "logit"
    maps: tuple[LogitMap, ...] = ()
    """Of ``calibrated``, one a member."""
    weights: tuple[float, ...] = ()
    """Of ``stacked``, one a member, none negative."""
    bias: float = 0.0

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for kind, name, parts in (("calibrated", "maps", self.maps), ("stacked", "weights", self.weights)):
            if bool(parts) != (self.kind == kind):
                raise ValueError(f"{name} belong to the kind {kind!r}, which needs them")
        if not np.isfinite([self.bias, *self.weights]).all() or any(w < 0 for w in self.weights):
            raise ValueError("weights and bias must be finite, and no weight negative")
        if self.weights and not any(self.weights):
            raise ValueError("all weights are 0")
        return self

    def __call__(self, logits: npt.NDArray[np.floating]) -> F32:
        """Combined logits (n,) of the members' logits (n, members)."""
        columns = [np.asarray(logits[:, j], np.float64) for j in range(logits.shape[1])]
        parts = self.maps or self.weights
        if parts and len(parts) != len(columns):
            raise ValueError(f"{len(columns)} members, the rule is for {len(parts)}")
        if self.kind == "stacked":
            total = np.full(len(logits), self.bias)
            for weight, x in zip(self.weights, columns, strict=True):
                total += weight * x
            return total.astype(np.float32)
        if self.maps:
            columns = [m(x) for m, x in zip(self.maps, columns, strict=True)]
        pooled = mean_logit(columns) if self.scale == "logit" else mean_probability(columns)
        return pooled.astype(np.float32)

    def effective_weights(self, members: int) -> list[float | None]:
        """How much the combined logit moves with each member's; ``None`` where that depends on the logit."""
        if self.kind == "stacked":
            return [*self.weights]
        if self.scale == "probability" or any(len(m.knots) > 1 for m in self.maps):
            return [None] * members
        return [m.slope / members for m in self.maps] or [1.0 / members] * members


def mean_logit(columns: list[F64]) -> F64:
    """Mean of the logits: the logit of the normalised geometric mean of the odds."""
    total = np.zeros_like(columns[0])
    for x in columns:
        total += x
    return total / len(columns)


def mean_probability(columns: list[F64]) -> F64:
    """Logit of the mean probability, ``log(sum sigma(x)) - log(sum sigma(-x))``: exact where the probabilities
    themselves round to 0 or 1."""
    yes, no = np.full_like(columns[0], -np.inf), np.full_like(columns[0], -np.inf)
    for x in columns:
        yes, no = np.logaddexp(yes, -np.logaddexp(0.0, -x)), np.logaddexp(no, -np.logaddexp(0.0, x))
    return yes - no
