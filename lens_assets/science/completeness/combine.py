"""Adding the sampling error of a threshold, and that of fitted priors, to the interval of a completeness.

A threshold set at a false-positive rate is a quantile of finitely many negatives. At its upper bound fewer injections
are found, at its lower bound more; those completenesses are recounted, not extrapolated. The two errors are
independent (negatives against injections), so they are added in quadrature, on the scale arcsin sqrt C on which a
binomial's variance does not depend on C (Anscombe 1948, doi:10.1093/biomet/35.3-4.246) and which cannot leave [0, 1]. So is the
error of fitted priors (other lenses again), which moves the completeness to its quantiles over the draws of the fit.
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
    """``own`` widened by the completeness at the strict (high) and loose (low) bound of the threshold at that level."""
    return in_quadrature(c, own, c_strict, c_loose, SUFFIX)


def in_quadrature(c: npt.ArrayLike, own: Interval, lo: npt.ArrayLike, hi: npt.ArrayLike, suffix: str) -> Interval:
    """``own`` widened by another, independent error that takes ``c`` to ``lo`` and to ``hi``; its name with ``suffix``.

    Each side by itself; a bound on the wrong side of ``c`` (or ``nan``) adds nothing, and then the side stays the very same number.
    """
    c, lo, hi = (np.asarray(a, float) for a in (c, lo, hi))
    at = angle(c)
    with np.errstate(invalid="ignore"):
        further = at - angle(lo), angle(hi) - at
        down = np.hypot(np.maximum(at - angle(own.lo), 0), np.maximum(further[0], 0))
        up = np.hypot(np.maximum(angle(own.hi) - at, 0), np.maximum(further[1], 0))
        low = np.where(further[0] > 0, np.sin(np.clip(at - down, 0, np.pi / 2)) ** 2, own.lo)
        high = np.where(further[1] > 0, np.sin(np.clip(at + up, 0, np.pi / 2)) ** 2, own.hi)
    return Interval(low, high, own.level, own.name + suffix)
