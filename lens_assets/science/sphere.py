"""Positions on the sky: HEALPix cells, separations, matches and friends of friends.

Thin over healpy and scipy's k-d tree on unit vectors, where a small angle is a chord of 2 sin(a/2); no flat-sky
shortcut, so RA wrap and the poles need no special case. Coordinates are ICRS/J2000 degrees throughout.
"""

from __future__ import annotations

import healpy as hp
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SPLIT_NSIDE = 128
"""nside of the split cells (0.458 deg), nested ordering: science contract, section 2."""


def unit_vectors(ra: npt.ArrayLike, dec: npt.ArrayLike) -> F64:
    """(n, 3) unit vectors of positions in degrees."""
    a, d = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.asarray(np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1), np.float64)


def cell_of(ra: npt.ArrayLike, dec: npt.ArrayLike, nside: int = SPLIT_NSIDE) -> I64:
    """Nested HEALPix cell of each position (degrees)."""
    return np.asarray(
        hp.ang2pix(nside, np.asarray(ra, float), np.asarray(dec, float), nest=True, lonlat=True), np.int64
    )


def separation(ra1: npt.ArrayLike, dec1: npt.ArrayLike, ra2: npt.ArrayLike, dec2: npt.ArrayLike) -> F64:
    """Angular separation in arcsec, element by element (exact for small and large angles)."""
    chord = np.linalg.norm(unit_vectors(ra1, dec1) - unit_vectors(ra2, dec2), axis=-1)
    return np.asarray(np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1))) * 3600, np.float64)


def chord(arcsec: float) -> float:
    """Length of the chord that subtends ``arcsec``."""
    return float(2 * np.sin(np.radians(arcsec / 3600) / 2))


def tree(ra: npt.ArrayLike, dec: npt.ArrayLike) -> cKDTree:
    """A k-d tree over unit vectors."""
    return cKDTree(unit_vectors(ra, dec).reshape(-1, 3))


def nearest(
    ra: npt.ArrayLike, dec: npt.ArrayLike, other_ra: npt.ArrayLike, other_dec: npt.ArrayLike
) -> tuple[I64, F64]:
    """For each position the index of, and separation (arcsec) to, the nearest other one; (-1, inf) when there is none."""
    n = np.asarray(ra).size
    if not np.asarray(other_ra).size:
        return np.full(n, -1, np.int64), np.full(n, np.inf)
    d, i = tree(other_ra, other_dec).query(unit_vectors(ra, dec).reshape(-1, 3))
    return np.asarray(i, np.int64), np.degrees(2 * np.arcsin(np.clip(np.asarray(d) / 2, 0, 1))) * 3600


def within(
    ra: npt.ArrayLike, dec: npt.ArrayLike, other_ra: npt.ArrayLike, other_dec: npt.ArrayLike, arcsec: float
) -> npt.NDArray[np.bool_]:
    """Whether each position has another one within ``arcsec``."""
    return nearest(ra, dec, other_ra, other_dec)[1] <= arcsec


def friends_of_friends(ra: npt.ArrayLike, dec: npt.ArrayLike, arcsec: float) -> I64:
    """Group label of each position: connected components under ``separation <= arcsec``.

    Labels are arbitrary integers; equal label means the same group. Isolated positions form groups of one.
    """
    n = np.asarray(ra).size
    if not n:
        return np.empty(0, np.int64)
    pairs = tree(ra, dec).query_pairs(chord(arcsec), output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
