"""Where arcs are looked for: the disc about a stamp's centre, its annuli, and the blocks that measure its background.

What does not belong here: pixel values (``azimuth``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lens_assets.science.errors import BadInput

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
MASK = npt.NDArray[np.bool_]

INNER, OUTER = 4.0, 16.0
"""The arc annulus, pixels (1.05 to 4.19 arcsec): as in the platform's shortcut features."""
REACH = 20
"""The profile is modelled out to this radius, pixels, so that the annulus does not end at its edge."""
BACKGROUND = (0.65, 0.90)
"""Background annulus as fractions of the half-width (32.5 to 45 px of a 101-px stamp)."""


@dataclass(frozen=True)
class Disc:
    """The pixels within :data:`REACH` of the centre of an h x w stamp, in one fixed order."""

    flat: npt.NDArray[np.int64]
    x: F32
    y: F32
    radius: F32
    phi: F32
    annulus: MASK
    mirror: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    centres: F64
    nodes: npt.NDArray[np.int64]
    weights: F32


@lru_cache(maxsize=8)
def disc(height: int, width: int) -> Disc:
    """Geometry for a stamp size; :class:`BadInput` when the stamp is too small to hold it and a background."""
    if min(height, width) < 2 * REACH + 11:
        raise BadInput(f"stamps of {height} x {width} are too small for an arc annulus and a background")
    yy, xx = np.mgrid[:height, :width].astype(np.float32)
    yy -= (height - 1) / 2
    xx -= (width - 1) / 2
    rr = np.hypot(yy, xx)
    flat = np.flatnonzero(rr.ravel() <= REACH)
    n = len(flat)
    radius = rr.ravel()[flat]
    # equal-rank annuli about one pixel wide: rank = pi r^2 of the area-preserving elliptical radius
    steps = np.concatenate([np.arange(1.5, REACH - 0.5, 1.0), [np.inf]])
    edges = np.unique(np.concatenate([[0], np.minimum(np.round(np.pi * steps**2), n)])).astype(np.int64)
    centres = np.array([np.sqrt((a + b) / 2 / np.pi) for a, b in pairwise(edges)])
    at = np.sqrt((np.arange(n) + 0.5) / np.pi)
    nodes, weights = _interpolation(at, centres)
    return Disc(
        flat=flat,
        x=xx.ravel()[flat],
        y=yy.ravel()[flat],
        radius=radius,
        phi=np.arctan2(yy, xx).ravel()[flat],
        annulus=(radius >= INNER) & (radius < OUTER),
        mirror=np.arange(n)[::-1].copy(),
        edges=edges,
        centres=centres,
        nodes=nodes,
        weights=weights,
    )


def _interpolation(at: F64, nodes: F64) -> tuple[npt.NDArray[np.int64], F32]:
    """Cubic Lagrange interpolation from four nodes: their indices and weights, (4, p) each; constant beyond the ends.

    Straight lines between annuli would overshoot a steep profile by some per cent; four local nodes, unlike a matrix
    product, also give a stamp the same bits whatever its batch.
    """
    x = np.clip(at, nodes[0], nodes[-1])
    first = np.clip(np.searchsorted(nodes, x, side="right") - 2, 0, len(nodes) - 4)
    index = first + np.arange(4)[:, None]
    weights = np.ones((4, len(x)))
    for i in range(4):
        for j in range(4):
            if i != j:
                weights[i] *= (x - nodes[index[j]]) / (nodes[index[i]] - nodes[index[j]])
    return index, weights.astype(np.float32)


@lru_cache(maxsize=16)
def blocks(height: int, width: int, side: int) -> npt.NDArray[np.int64]:
    """Flat indices (n_blocks, side * side) of non-overlapping blocks whose centres lie in the background annulus."""
    half = min(height, width) // 2
    ny, nx = height // side, width // side
    oy, ox = (height - ny * side) // 2, (width - nx * side) // 2
    by, bx = np.mgrid[:ny, :nx]
    cy = oy + by * side + (side - 1) / 2 - (height - 1) / 2
    cx = ox + bx * side + (side - 1) / 2 - (width - 1) / 2
    r = np.hypot(cy, cx)
    keep = (r >= BACKGROUND[0] * half) & (r < BACKGROUND[1] * half)
    dy, dx = np.mgrid[:side, :side]
    rows = (oy + by[keep] * side)[:, None] + dy.ravel()
    cols = (ox + bx[keep] * side)[:, None] + dx.ravel()
    return np.asarray(rows * width + cols, dtype=np.int64)
