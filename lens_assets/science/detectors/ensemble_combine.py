"""Putting the logits of several networks together: from (n, members) to (n,), by rules that are data.

``mean`` and ``calibrated`` average, on the logit or on the probability; ``calibrated`` sends each member through a
monotone map of its own first; ``routed`` does so too and averages for each stamp the members whose domain its observing
conditions lie in; ``stacked`` is a weighted sum of the logits. Every rule rises with every member's logit,
or does not move: no detector's score can fall because one member grew more confident. Each row is computed by itself,
in float64 and member by member, so a stamp's score has the same bits alone and in any batch.

How rules are fitted is ``ensemble_fit``; the networks are ``score``'s.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lens_assets.science.detectors.recipes import Domain
from lens_assets.science.detectors.rows import in_domain
from lens_assets.science.errors import BadInput

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

    kind: Literal["mean", "calibrated", "routed", "stacked"]
    scale: Literal["logit", "probability"] = "logit"
    maps: tuple[LogitMap, ...] = ()
    """Of ``calibrated`` and ``routed``, one a member."""
    domains: tuple[Domain | None, ...] = ()
    """Of ``routed``, one a member; ``None`` is everywhere."""
    weights: tuple[float, ...] = ()
    """Of ``stacked``, one a member, none negative."""
    bias: float = 0.0

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name, parts, kinds in (
            ("maps", self.maps, ("calibrated", "routed")),
            ("domains", self.domains, ("routed",)),
            ("weights", self.weights, ("stacked",)),
        ):
            if bool(parts) != (self.kind in kinds):
                raise ValueError(f"{name} belong to {' and '.join(kinds)}, which needs them")
        if self.domains and len(self.domains) != len(self.maps):
            raise ValueError("as many domains as maps are needed")
        if not np.isfinite([self.bias, *self.weights]).all() or any(w < 0 for w in self.weights):
            raise ValueError("weights and bias must be finite, and no weight negative")
        if self.weights and not any(self.weights):
            raise ValueError("all weights are 0")
        return self

    @property
    def conditions(self) -> tuple[str, ...]:
        """Columns of the split table that are looked at, sorted."""
        return tuple(sorted({c for d in self.domains if d is not None for c in d.columns}))

    def __call__(self, logits: npt.NDArray[np.floating], conditions: pl.DataFrame | None = None) -> F32:
        """Combined logits (n,) of the members' logits (n, members) and, where the rule asks for them, the conditions, row
        by row; :class:`BadInput` where those are missing."""
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
        covers = self.covers(conditions, len(logits)) if self.domains else None
        pooled = mean_logit(columns, covers) if self.scale == "logit" else mean_probability(columns, covers)
        return pooled.astype(np.float32)

    def moved(self, by: float) -> Rule:
        """The same rule with every fitted logit moved by a constant (to another ratio of classes)."""
        maps = tuple(LogitMap(knots=tuple((x, y + by) for x, y in m.knots), slope=m.slope) for m in self.maps)
        return self.model_copy(update={"maps": maps, "bias": self.bias + by if self.kind == "stacked" else self.bias})

    def covers(self, conditions: pl.DataFrame | None, n: int) -> npt.NDArray[np.bool_]:
        """(n, members): whether a member's domain holds a row. Where none does (a condition is not known), all do."""
        if conditions is None or conditions.height != n:
            raise BadInput(
                f"the rule needs {', '.join(self.conditions)} of each of {n} stamps", column=self.conditions[0]
            )
        found = np.stack([conditions.select(_covers=in_domain(d)).to_series().to_numpy() if d else np.ones(n, bool)
                          for d in self.domains], 1)  # fmt: skip
        found[~found.any(1)] = True
        return found

    def effective_weights(self, members: int) -> list[float | None]:
        """How much the combined logit moves with each member's; ``None`` where that depends on the logit."""
        if self.kind == "stacked":
            return [*self.weights]
        if self.scale == "probability" or self.domains or any(len(m.knots) > 1 for m in self.maps):
            return [None] * members
        return [m.slope / members for m in self.maps] or [1.0 / members] * members


def mean_logit(columns: list[F64], covers: npt.NDArray[np.bool_] | None = None) -> F64:
    """Mean of the logits (of those that cover the row): the logit of the normalised geometric mean of the odds."""
    total, number = np.zeros_like(columns[0]), np.zeros_like(columns[0])
    for j, x in enumerate(columns):
        held = True if covers is None else covers[:, j]
        total += np.where(held, x, 0.0)
        number += held
    return total / number


def mean_probability(columns: list[F64], covers: npt.NDArray[np.bool_] | None = None) -> F64:
    """Logit of the mean probability, ``log(sum sigma(x)) - log(sum sigma(-x))``: exact where the probabilities
    themselves round to 0 or 1."""
    yes, no = np.full_like(columns[0], -np.inf), np.full_like(columns[0], -np.inf)
    for j, x in enumerate(columns):
        held = True if covers is None else covers[:, j]
        yes = np.where(held, np.logaddexp(yes, -np.logaddexp(0.0, -x)), yes)
        no = np.where(held, np.logaddexp(no, -np.logaddexp(0.0, x)), no)
    return yes - no
