"""How many N1 and N2 objects to take from each stratum, so that the whole draw has the wanted mixture.

The share of N2 is held over the whole set, not in every stratum: one stratum may have few confusers, another nothing
else. The same share is used in every stratum that can give it, and what those cannot give is spread over the rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


def spread(total: int, weight: I64, lo: I64, hi: I64) -> I64:
    """Integers between ``lo`` and ``hi`` that add up to ``total`` and are as near to proportional to ``weight`` as
    they can be.

    Water-filling: ``clip(x * weight, lo, hi)`` for the one x that gives the total, then largest remainders (ties:
    first). Needs ``lo.sum() <= total <= hi.sum()`` and positive weight wherever ``hi > lo``.
    """
    if not lo.sum() <= total <= hi.sum():
        raise ValueError(f"{total} is outside [{lo.sum()}, {hi.sum()}]")
    low, high = 0.0, float((hi / np.maximum(weight, 1)).max(initial=0.0)) + 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if np.clip(middle * weight, lo, hi).sum() < total:
            low = middle
        else:
            high = middle
    ideal = np.clip(high * weight, lo, hi)
    got: I64 = np.clip(np.floor(ideal), lo, hi).astype(np.int64)
    short = int(total - got.sum())
    order = np.lexsort((np.arange(len(got)), -(ideal - got)))
    while short > 0:
        for i in order:
            if short and got[i] < hi[i]:
                got[i] += 1
                short -= 1
    for i in order[::-1]:
        if short < 0 and got[i] > lo[i]:
            got[i] -= 1
            short += 1
    return got


def mixture(want: I64, n1: I64, n2: I64, share: float, max_trim: float) -> tuple[I64, I64, int]:
    """(N1, N2) to take per stratum, and how many objects were given up to hold the mixture.

    Parameters
    ----------
    want : objects to take per stratum, at most ``n1 + n2``, the available ones.
    share : wanted share of N2 over the whole draw.
    max_trim : largest share of the draw that may be given up. When holding the mixture would cost more, nothing is
        given up and the realised mixture is off (a blocking check says so).
    """
    if np.any(want > n1 + n2) or np.any(want < 0):
        raise ValueError("more is wanted than there is")
    lo, hi = np.maximum(want - n1, 0), np.minimum(want, n2)
    target = round(share * int(want.sum()))
    if target < lo.sum():  # too few N1 somewhere: take what there is, and no more N2 than goes with it
        take1 = want - lo
        allowed = min(round(int(take1.sum()) * share / (1 - share)), int(lo.sum())) if share < 1 else int(lo.sum())
        if lo.sum() - allowed > max_trim * want.sum():
            return take1, lo, 0
        return take1, spread(allowed, want, np.zeros_like(lo), lo), int(lo.sum()) - allowed
    if target > hi.sum():  # too few N2
        rest = want - hi
        allowed = min(round(int(hi.sum()) * (1 - share) / share), int(rest.sum()))
        if rest.sum() - allowed > max_trim * want.sum():
            return rest, hi, 0
        return spread(allowed, want, np.zeros_like(rest), rest), hi, int(rest.sum()) - allowed
    take2 = spread(target, want, lo, hi)
    return want - take2, take2, 0
