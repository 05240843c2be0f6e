"""A weighted energy distance and its gradient, by slices.

The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018) is, in any
dimension, proportional to the mean over directions of that of the projections, and in one dimension it is twice the
integral of (F - G)^2: a sort, made once, and a running sum per evaluation. It is zero only for equal distributions and
asks for no bandwidth, and its estimate under importance weights has the gradient that a fit needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lens_assets.science.hashing import generator

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sliced:
    """Injected points (n, d) against real ones (m, d), projected and sorted once; weights come with each question."""

    order: npt.NDArray[np.int64]
    gaps: F64
    n: int
    m: int

    @classmethod
    def of(cls, injected: F64, real: F64, directions: int, seed: int) -> Sliced:
        """``directions`` random ones, the same for a seed and a dimension, and the axes themselves."""
        d = injected.shape[1]
        random = generator("slices", d, directions, seed).normal(size=(directions, d))
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        axes = np.concatenate([np.eye(d), random])
        projected = np.concatenate([injected, real]) @ axes.T
        order = np.argsort(projected, axis=0, kind="stable")
        gaps = np.diff(np.take_along_axis(projected, order, axis=0), axis=0)
        return cls(order.T.copy(), gaps.T.copy(), len(injected), len(real))

    def __call__(self, w: F64, u: F64) -> tuple[float, F64]:
        """Distance of the injected under weights ``w`` (n,) from the real under ``u`` (m,), each of sum one, and its
        gradient by ``w`` (n,)."""
        signed = np.concatenate([w, -u])
        difference = np.cumsum(signed[self.order], axis=1)[:, :-1]
        step = difference * self.gaps
        value = 2.0 * float((difference * step).sum()) / len(self.order)
        after = np.zeros((len(self.order), self.n + self.m))
        after[:, :-1] = np.cumsum(step[:, ::-1], axis=1)[:, ::-1]
        gradient = np.bincount(self.order.ravel(), after.ravel(), minlength=self.n + self.m)
        return value, 4.0 * gradient[: self.n] / len(self.order)
