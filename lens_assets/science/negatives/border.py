"""What an object near a tile's edge must know of the tiles beside it.

A bright neighbour counts within 6 arcsec and a star within 30, and neither stops at a tile's edge. So each tile hands the
ones beside it the objects near its own edge that could matter (:func:`border`, under one in a hundred), and a pool is built
with those of its adjacent tiles (``build_pool(neighbours=...)``). Then the pools of tiles are those of the undivided sky.
Decided so, and not by reading the adjacent sweeps, because nine sweeps a tile would be nine times the reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import polars as pl

from lens_assets.science.negatives.categories import NEIGHBOUR, may_matter
from lens_assets.science.negatives.settings import N2Thresholds
from lens_assets.science.negatives.strata import need
from lens_assets.science.surveys.layout import Tile, tile_of_key


def reach_arcsec(t: N2Thresholds) -> float:
    """The farthest an object can matter to another."""
    return max(t.neighbour_max_arcsec, t.tycho_radius_arcsec, t.gaia_radius_arcsec)


def border(sweeps: pl.DataFrame, tile: str, t: N2Thresholds, *, overhang_arcsec: float = 0.0) -> pl.DataFrame:
    """The objects of a tile that may matter to an object of another one, with the columns of ``categories.NEIGHBOUR``, sorted
    by identity.

    Those bright enough, or stars, within :func:`reach_arcsec` of the edge of the tile's 5 x 5 degrees or outside of it.
    ``overhang_arcsec``: how far objects of *other* tiles reach over that edge; DR10's sweeps are cut at it object by object,
    so none. Rows without a usable position are left out.
    """
    need(sweeps, NEIGHBOUR, "border of a tile")
    some = sweeps.select(NEIGHBOUR).filter(may_matter(t) & pl.col("ra").is_finite() & pl.col("dec").is_between(-90, 90))
    ra, dec, box = some["ra"].to_numpy(), some["dec"].to_numpy(), tile_of_key(tile)
    margin = (reach_arcsec(t) + overhang_arcsec) / 3600 * (1 + 1e-6)
    to_dec = np.minimum(dec - box.dec_min, box.dec_min + 5 - dec)
    along = 2.5 - np.abs(
        (ra - (box.ra_min + 2.5) + 180) % 360 - 180
    )  # degrees of RA to the nearer meridian, inside > 0
    # the distance to a meridian is asin(sin(dRA) cos(Dec)), never more than this
    to_ra = np.degrees(np.arcsin(np.clip(np.sin(np.radians(np.clip(along, -90, 90))) * np.cos(np.radians(dec)), -1, 1)))
    near = (to_dec <= margin) | (to_ra <= margin)
    return some.filter(pl.Series(near)).sort("release", "brickid", "objid")


def limits(t: N2Thresholds) -> dict[str, float]:
    """Those of the thresholds that a border depends on: the same for both sides of an edge, or it may not be used."""
    return {"flux_r_min": t.neighbour_flux_r_min, "reach_arcsec": reach_arcsec(t)}


def adjacent_tiles(tile: str, present: Iterable[str]) -> list[str]:
    """Those of the tiles ``present`` that touch ``tile``, at an edge, a corner or the pole; sorted."""
    there = present if isinstance(present, (set, frozenset)) else {*present}
    return [key for key in tiles_beside(tile) if key in there]


@lru_cache(maxsize=4096)
def tiles_beside(tile: str) -> tuple[str, ...]:
    """All tiles of the sphere that touch ``tile``, whether the survey has them or not; sorted: 8, and 74 at a pole."""
    own = tile_of_key(tile)
    found = {
        Tile((own.ra_min + ra) % 360, own.dec_min + dec).key
        for ra in (-5, 0, 5)
        for dec in (-5, 0, 5)
        if -90 <= own.dec_min + dec < 90
    }
    if own.dec_min in (-90, 85):  # all of a polar cap meet at the pole
        found |= {Tile(ra, own.dec_min).key for ra in range(0, 360, 5)}
    return tuple(sorted(found - {tile}))
