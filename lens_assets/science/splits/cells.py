"""From sky cells to splits: a stable hash against cumulative shares, the salt of small surveys, and the guard ring."""

from __future__ import annotations

from dataclasses import dataclass

import healpy as hp
import numpy as np
import numpy.typing as npt

from lens_assets.science.hashing import seed_of, uniform
from lens_assets.science.splits.settings import SHAPING, Settings

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]


def split_index(cells: I64, settings: Settings, salt: int = 0) -> I8:
    """Index into ``settings.order`` of each cell: its hash in [0, 1) against the shares cumulated in that order."""
    upper = np.cumsum([settings.shares[name] for name in settings.order])
    upper[-1] = 1.0
    u = uniform(cells, seed_of("splits", "cell", settings.seed, salt))
    return np.searchsorted(upper, u, side="right").astype(np.int8)


def neighbour_cells(ra: F64, dec: F64, arcsec: float, nside: int, angles: int) -> I64:
    """(n, angles) cells of the points ``arcsec`` away from each position, at position angles 0, 360/angles, ...
    degrees.

    Exact on the sphere: p = u cos r + (north cos a + east sin a) sin r, with the local north and east at (ra, dec).
    """
    a, d = np.radians(ra), np.radians(dec)
    u = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    east = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)])
    r = np.radians(arcsec / 3600)
    out = np.empty((len(ra), angles), np.int64)
    for i in range(angles):
        pa = 2 * np.pi * i / angles
        x, y, z = u * np.cos(r) + (north * np.cos(pa) + east * np.sin(pa)) * np.sin(r)
        out[:, i] = hp.vec2pix(nside, x, y, z, nest=True)
    return out


def guarded(own: I8, around: I8) -> Bool:
    """Whether a neighbouring point falls into another split: (n,) and (n, angles) split indices."""
    return np.asarray((around != own[:, None]).any(axis=1), bool)


@dataclass(frozen=True)
class Assignment:
    """Split index and guard flag of every object, with the salt that gave them and the shares that were achieved.

    ``shares`` has a row for each class (positives, negatives), a column for each split of ``order``; guarded objects
    do not count. ``deviation`` is the largest distance from the wanted share in units of the tolerance: at most 1
    passes.
    """

    split: I8
    guard: Bool
    salt: int
    shares: F64
    deviation: float


def tolerances(counts: npt.ArrayLike, tolerance: float) -> F64:
    """Accepted distance from a share for classes of ``counts`` objects: the tolerance, or one object where that is
    more.
    """
    return np.asarray(np.maximum(tolerance, 1 / np.maximum(np.asarray(counts, float), 1)), float)


def achieved(split: I8, guard: Bool, label: I8, n_splits: int) -> tuple[F64, I64]:
    """(shares, counts) for positives and then negatives over unguarded objects; ``nan`` for a class without any."""
    free = ~guard
    counts = np.stack([np.bincount(split[free & (label == k)], minlength=n_splits) for k in (1, 0)])
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return counts / total[:, None], total


def choose_salt(cells: I64, around: I64, label: I8, settings: Settings, near_evaluation: Bool) -> Assignment:
    """The assignment under the first salt 0, 1, 2, ... whose shares are within the tolerance.

    The hash of a cell gives each *cell* its split with the stated odds. Shares of *objects* then scatter by about
    sqrt(s (1 - s) / n_cells), which is far below two points for a survey (salt 0 passes) and far above it for a few
    dozen cells. There the hash is drawn anew until the shares fit, for positives and negatives at once. Only counts
    are looked at, never features or scores, and the salt is recorded. When no salt up to ``max_salt`` fits, the one
    that comes nearest is used (the first of equals) and the check of achieved shares fails, as it should.

    ``near_evaluation`` marks objects that may neither train nor validate: they become guard unless they fall to test.
    """
    want = np.array([settings.shares[name] for name in settings.order])
    unique, inverse = np.unique(np.concatenate([cells[:, None], around], axis=1), return_inverse=True)
    inverse = inverse.reshape(len(cells), -1)
    shaping = [i for i, name in enumerate(settings.order) if name in SHAPING]
    best: Assignment | None = None
    for salt in range(settings.max_salt + 1):
        each = split_index(unique, settings, salt)[inverse]
        guard = guarded(each[:, 0], each[:, 1:]) | (near_evaluation & np.isin(each[:, 0], shaping))
        shares, total = achieved(each[:, 0], guard, label, len(want))
        off = np.abs(shares - want).max(axis=1) / tolerances(total, settings.share_tolerance)
        deviation = float(np.nanmax(off)) if np.isfinite(off).any() else float("inf")
        if best is None or deviation < best.deviation:
            best = Assignment(each[:, 0], guard, salt, shares, deviation)
        if deviation <= 1 + 1e-9:
            break
    assert best is not None
    return best
