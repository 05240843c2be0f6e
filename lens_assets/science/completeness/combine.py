"""Adding the sampling error of a threshold to the interval of a completeness.

A threshold set at a false-positive rate is a quantile of finitely many negatives. At its upper bound fewer injections
are found, at its lower bound more; those completenesses are recounted, not extrapolated. The two errors are
independent (negatives against injections), so they are added in quadrature, on the scale arcsin sqrt C on which a
binomial's variance does not depend on C (Anscombe 1948, doi:10.1093/biomet/35.3-4.246) and which cannot leave [0, 1].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lens_assets.science.intervals import Interval

F64 = npt.NDArray[np.float64]

SUFFIX = " + threshold error (quadrature in arcsin sqrt)"


def angle(c: npt.ArrayLike) -> F64:
    """arcsin sqrt C."""
    return np.asarray(np.arcsin(np.sqrt(np.clip(np.asarray(c, float), 0, 1))))


def with_threshold_error(c: npt.ArrayLike, own: Interval, c_strict: npt.ArrayLike, c_loose: npt.ArrayLike) -> Interval:
    """``own`` widened by the completeness at the strict (high) and loose (low) bound of the threshold at that level.

    The name says whether anything was added: it is ``own.name`` where strict and loose agree with ``c`` everywhere.
    """
    c, strict, loose = (np.asarray(a, float) for a in (c, c_strict, c_loose))
    at = angle(c)
    down = np.hypot(np.maximum(at - angle(own.lo), 0), np.maximum(at - angle(strict), 0))
    up = np.hypot(np.maximum(angle(own.hi) - at, 0), np.maximum(angle(loose) - at, 0))
    lo = np.sin(np.clip(at - down, 0, np.pi / 2)) ** 2
    hi = np.sin(np.clip(at + up, 0, np.pi / 2)) ** 2
    # where nothing is added the bound stays the very same number
    lo = np.where(np.isclose(strict, c, rtol=0, atol=0, equal_nan=True), own.lo, lo)
    hi = np.where(np.isclose(loose, c, rtol=0, atol=0, equal_nan=True), own.hi, hi)
    return Interval(lo, hi, own.level, own.name + SUFFIX)
