"""Counting a surface again under weights: completeness, effective injections and intervals over the draws (``prior_error``).

Weighted sums are made once for the finest units of a surface (cell x TYPE of the host), whatever rows are then asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.completeness.combine import in_quadrature
from lens_assets.science.intervals import Interval, jeffreys

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
SUFFIX = " + error of the fitted priors (quadrature in arcsin sqrt)"
FINEST = ("i_theta", "i_psf", "i_depth", "host_type")
LEVELS = (0.68, 0.95)


@dataclass(frozen=True)
class Weights:
    """Weights (draws, injections), and per draw the share of its lenses beyond what was injected."""

    w: F32
    beyond: F64

    def counted(self, members: pl.DataFrame, cuts: Sequence[float]) -> Recounted:
        """Sums over the finest units of the ``members`` (as many as there are weights), found at each of the ``cuts``."""
        keys = members.select(FINEST).unique().sort(FINEST)
        at = members.select(FINEST).join(
            keys.with_row_index("u"), on=FINEST, how="left", nulls_equal=True, maintain_order="left"
        )
        u, score = at["u"].to_numpy().astype(np.int64), members["injection_score"].to_numpy()
        found = [score >= cut for cut in cuts]
        w, w2 = np.empty((keys.height, len(self.w))), np.empty((keys.height, len(self.w)))
        k = np.empty((len(cuts), keys.height, len(self.w)))
        for d, row in enumerate(self.w):
            own = row.astype(float)
            w[:, d], w2[:, d] = (np.bincount(u, x, keys.height) for x in (own, own * own))
            for p, mask in enumerate(found):
                k[p, :, d] = np.bincount(u[mask], own[mask], keys.height)
        return Recounted(keys, np.bincount(u, minlength=keys.height).astype(float), w, w2, k, float(self.beyond.mean()))


@dataclass(frozen=True)
class Recounted:
    """Finest units (``keys``), their injections (units,), and sums of w, of w^2 (units, draws) and of w over the found
    (points, units, draws); ``beyond``: mean over the draws of the share beyond."""

    keys: pl.DataFrame
    n: F64
    w: F64
    w2: F64
    k: F64
    beyond: float

    def grouped(
        self, units: pl.DataFrame, by: Sequence[str], weight: F64, group_of: I64, length: int, point: int
    ) -> Reweighted:
        """Under every draw: groups of ``units`` (rows told apart by the columns ``by``), each weighing ``weight`` (units,)
        in its group, in [0, ``length``); units without injections or weight are left out."""
        numbered = units.select(by).with_row_index("unit")
        at = self.keys.select(by).join(numbered, on=list(by), how="left", nulls_equal=True, maintain_order="left")
        known = at["unit"].is_not_null().to_numpy()
        place = at["unit"].drop_nulls().to_numpy().astype(np.int64)

        def summed(values: F64) -> F64:
            out = np.zeros((units.height, *values.shape[1:]))
            np.add.at(out, place, values[known])
            return out

        n, w, w2, k = (summed(v) for v in (self.n, self.w, self.w2, self.k[point]))
        live = np.flatnonzero((n > 0) & (weight > 0))
        share = np.zeros((length, live.size))
        share[group_of[live], np.arange(live.size)] = weight[live]
        total = share.sum(axis=1)
        inside = total > 0
        share[inside] /= total[inside, None]
        empty = w[live] <= 0
        safe = np.where(empty, 1.0, w[live])
        c, spread = share @ (k[live] / safe), share**2 @ (w2[live] / safe**2)
        lost = (share > 0).astype(float) @ empty > 0  # a unit without any weight under a draw
        plain = share**2 @ (1 / n[live])
        with np.errstate(invalid="ignore", divide="ignore"):
            effective = np.where(lost | (spread <= 0), 0.0, 1 / spread)
            left = effective * plain[:, None]
        return Reweighted(np.where(lost, np.nan, c), effective, left, inside, self.beyond)


@dataclass(frozen=True)
class Reweighted:
    """Completeness and effective injections under every draw (groups, draws), the share of the injections that these are,
    which groups hold any, and the mean share beyond."""

    c: F64
    effective: F64
    left: F64
    inside: npt.NDArray[np.bool_]
    beyond: float

    def columns(self, c: F64, n_eff: F64, total: Mapping[float, Interval], least: float) -> dict[str, F64]:
        """The columns ``prior_*`` and ``full_*`` of groups of completeness ``c``, worth ``n_eff`` trials, with the published
        intervals ``total``; ``least`` effective injections, or a draw is refused."""
        bad = ~(self.effective >= least)
        sure = (c == 0.0) | (c == 1.0)
        out: dict[str, F64] = {}
        for level in LEVELS:
            tail, tag, own = (1 - level) / 2, round(100 * level), total[level]
            lo, hi = remaining(self.c, bad, tail)
            worth = n_eff * np.minimum(remaining(self.left, bad, tail)[0], 1.0)
            alone = jeffreys(np.nan_to_num(c * worth), np.nan_to_num(worth), level)
            full = in_quadrature(c, own, lo, hi, SUFFIX)
            out[f"prior_lo{tag}"], out[f"prior_hi{tag}"] = (np.where(sure, np.nan, v) for v in (lo, hi))
            out[f"full_lo{tag}"] = np.where(sure, np.minimum(alone.lo, own.lo), np.where(np.isnan(lo), np.nan, full.lo))
            out[f"full_hi{tag}"] = np.where(sure, np.maximum(alone.hi, own.hi), np.where(np.isnan(hi), np.nan, full.hi))
        out |= {
            "prior_effective": np.median(self.effective, axis=1),
            "prior_refused": bad.mean(axis=1),
            "prior_beyond": np.full(c.size, self.beyond),
        }
        return {name: np.where(self.inside, v, np.nan) for name, v in out.items()}


def remaining(values: F64, bad: npt.NDArray[np.bool_], tail: float) -> tuple[F64, F64]:
    """Quantiles ``tail`` and 1 - ``tail`` over the draws (last axis), those that are ``bad`` counted as beyond either end;
    ``nan`` where more are bad than lie beyond the quantile."""
    groups, draws = values.shape
    lo, hi = np.full(groups, np.nan), np.full(groups, np.nan)
    for g in range(groups):
        good = np.sort(values[g, ~bad[g]])
        place = tail * (draws - 1) - (draws - good.size)
        if good.size and place >= 0:
            lo[g], hi[g] = np.interp([place, good.size - 1 - place], np.arange(good.size), good)
    return lo, hi


def no_fit(length: int) -> dict[str, F64]:
    """The same columns for priors that were not fitted: nothing is known of their error, so they are not there."""
    kinds = [f"{kind}_{side}{level}" for kind in ("prior", "full") for level in (68, 95) for side in ("lo", "hi")]
    return {name: np.full(length, np.nan) for name in (*kinds, "prior_effective", "prior_refused", "prior_beyond")}
