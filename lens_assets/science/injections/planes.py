"""Source planes of real galaxies: an image as cubic B-spline coefficients, and how much it may vary inside a cell.

The brightness at (u, v) pixels is ``sum c[j, i] B3(v - j) B3(u - i)`` with c the pixels themselves. It is never negative,
has continuous curvature, and its integral is the sum of the pixels, exactly; the price is a blur of sqrt(1/3) pixel
(sigma), 0.017" at 0.03" a pixel, before the source is scaled.

What does not belong here: how the pixels were made (``cosmos``), the lens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

F64 = npt.NDArray[np.float64]
BORDER = 4
"""Pixels of zero round a plane, so that the spline ends inside it."""
LEVELS = 8
"""Spans are kept for cells that see up to 2**(LEVELS - 1) pixels."""


@dataclass(frozen=True)
class Plane:
    """One galaxy without noise: ``pixels`` (h, w) float64 of unit sum with a border of zeros, ``scale`` arcsec per pixel,
    ``centre`` (x, y) of its light in pixels."""

    pixels: F64
    scale: float
    centre: tuple[float, float]

    @cached_property
    def spans(self) -> F64:
        """(LEVELS, h, w): greatest minus least coefficient that a cell of 2**level pixels round a pixel may see."""
        out = np.empty((LEVELS, *self.pixels.shape))
        for level in range(LEVELS):
            side = min((1 << level) + 5, 2 * max(self.pixels.shape) + 1)
            most = ndimage.maximum_filter(self.pixels, side, mode="constant")
            out[level] = most - ndimage.minimum_filter(self.pixels, side, mode="constant")
        return out

    @cached_property
    def bend(self) -> F64:
        """(h, w): largest second difference of the coefficients (along rows, columns, diagonals) within three pixels."""
        padded = np.pad(self.pixels, 1)
        middle = padded[1:-1, 1:-1]
        worst = np.zeros_like(middle)
        for a, b in (
            (padded[1:-1, 2:], padded[1:-1, :-2]), (padded[2:, 1:-1], padded[:-2, 1:-1]),
            (padded[2:, 2:], padded[:-2, :-2]), (padded[2:, :-2], padded[:-2, 2:]),
        ):  # fmt: skip
            np.maximum(worst, np.abs(a - 2 * middle + b), out=worst)
        return np.asarray(ndimage.maximum_filter(worst, 7, mode="constant"))


class Galaxies(Protocol):
    """Galaxies of one pool: identities (sorted), half-light radii (arcsec, circular aperture), axis ratios, planes."""

    @property
    def ids(self) -> list[str]:
        """Identities, sorted."""

    @property
    def radius(self) -> F64:
        """Half-light radii, arcsec."""

    @property
    def q(self) -> F64:
        """Axis ratios."""

    def plane(self, source_id: str) -> Plane:
        """The source plane of one of them."""
