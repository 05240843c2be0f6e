"""How often the search for duplicates is wrong, measured on the stamps it searches: a threshold nobody measured is a
guess.

What it misses: the same pictures, moved as another reader might deliver them, are looked for. What it invents: stamps
are compared with others turned by 90 degrees; nothing can be the same sky then, while the population of galaxies, their
light and their noise stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.stats import chi2

from lens_assets.science.cutouts.duplicates import (
    AGREEMENT,
    LIKENESS,
    Prints,
    agreement,
    fingerprint,
    high_pass,
    likely_pairs,
    noise_of,
    sky_of,
)
from lens_assets.science.hashing import generator

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Fetch = Callable[[npt.NDArray[np.int64]], tuple[F32, Mask]]
"""Positions of stamps -> their planes (n, h, w) and valid pixels."""
MOST_LIKELY = 50_000
"""Pairs that may be looked at in the second step (about a minute)."""


@dataclass(frozen=True)
class Calibration:
    """``likeness``: threshold of the first step. ``found``: of ``tried`` moved pictures, those recognised, by what was
    done. ``null_likely`` and ``null_alike``: of ``null_pairs`` pairs of which one stamp was turned, those that passed
    the first and both steps."""

    likeness: float
    tried: int
    found: dict[str, int]
    null_pairs: int
    null_likely: int
    null_alike: int

    @property
    def false_alarms_below(self) -> float:
        """95 % upper bound of the rate at which unrelated stamps are called alike (Poisson; Garwood 1936)."""
        return float(chi2.ppf(0.95, 2 * (self.null_alike + 1)) / 2 / max(self.null_pairs, 1))

    def facts(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "likeness": self.likeness,
            "agreement": AGREEMENT,
            "tried": self.tried,
            "found": self.found,
            "null_pairs": self.null_pairs,
            "null_likely": self.null_likely,
            "null_alike": self.null_alike,
            "false_alarms_below": self.false_alarms_below,
        }


def calibrate(sample: npt.NDArray[np.int64], ids: Sequence[str], prints: Prints, fetch: Fetch) -> Calibration:
    """Measure both steps.

    Parameters
    ----------
    sample : positions of the stamps that are moved and turned; ``ids`` their identities, which key the noise.
    prints : fingerprints of all stamps, by position.
    """
    planes, valid = fetch(sample)
    sky, known = sky_of(planes, valid)
    turned: F32 = np.ascontiguousarray(np.rot90(sky, 1, (1, 2)))
    turned_known: Mask = np.ascontiguousarray(np.rot90(known, 1, (1, 2)))
    n = len(prints.sign)
    i, j, z = likely_pairs(fingerprint(turned, turned_known), prints)
    i, j, z = (a[sample[i] != j] for a in (i, j, z))
    null_pairs = len(sample) * max(n - 1, 0)
    limit = threshold(z, null_pairs, n * (n - 1) // 2)
    i, j = i[z >= limit], j[z >= limit]
    sharp = high_pass(turned, turned_known)
    alike = 0
    for start in range(0, len(i), 256):
        part = slice(start, start + 256)
        others, there = np.unique(j[part], return_inverse=True)
        sky2, known2 = sky_of(*fetch(others))
        sharp2 = high_pass(sky2, known2)
        alike += sum(
            agreement(sharp[a], turned_known[a], sharp2[b], known2[b]) >= AGREEMENT
            for a, b in zip(i[part], there, strict=True)
        )
    found = _recognised(planes, valid, ids, sky, known, limit)
    tried = int(fingerprint(sky, known).usable.sum())
    return Calibration(limit, tried, found, null_pairs, len(i), int(alike))


def _recognised(planes: F32, valid: Mask, ids: Sequence[str], sky: F32, known: Mask, limit: float) -> dict[str, int]:
    prints, sharp = fingerprint(sky, known), high_pass(sky, known)
    use = np.flatnonzero(prints.usable).tolist()
    found = {}
    for what, other in moved(planes[use], [ids[k] for k in use]).items():
        sky2, known2 = sky_of(other, valid[use])
        prints2, sharp2 = fingerprint(sky2, known2), high_pass(sky2, known2)
        found[what] = sum(
            len(likely_pairs(Prints(prints.sign[[a]]), Prints(prints2.sign[[k]]), limit)[0]) > 0
            and agreement(sharp[a], known[a], sharp2[k], known2[k]) >= AGREEMENT
            for k, a in enumerate(use)
        )
    return found


def moved(planes: F32, ids: Sequence[str]) -> dict[str, F32]:
    """The same pictures as another reader might deliver them. Edges wrap or reflect: a line of wrong sky, as a real
    second reader would have there."""
    if not len(planes):
        noise = np.zeros(planes.shape)
    else:
        noise = np.stack([generator("duplicate-noise", name).normal(size=planes.shape[1:]) for name in ids])
    scatter = np.array([noise_of(p, np.isfinite(p)) for p in planes]).reshape(-1, 1, 1)
    pixel = np.roll(planes, (1, 1), (1, 2))
    half = ndimage.shift(np.nan_to_num(planes), (0, 0.5, 0.5), order=3, mode="reflect")
    return {
        "a pixel off in both axes": pixel,
        "half a pixel off, resampled": half,
        "under its own noise once more": (planes + scatter * noise).astype(np.float32),
        "a pixel off and under its own noise once more": (pixel + scatter * noise).astype(np.float32),
    }


def threshold(null: npt.NDArray[np.float64], null_pairs: int, pairs: int) -> float:
    """Lowest likeness from ``LIKENESS`` on, in steps of 0.1, that ``pairs`` unrelated pairs exceed at most 50,000
    times, judged by the likenesses ``null`` (those above ``LIKENESS``) of ``null_pairs`` pairs."""
    limit = LIKENESS
    while (null >= limit).sum() / max(null_pairs, 1) * pairs > MOST_LIKELY:
        limit = round(limit + 0.1, 1)
    return limit
