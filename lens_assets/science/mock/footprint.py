"""Which bricks a mock release holds: real bricks of the real grid, scattered over each tile, chosen by hash.

Scattered, because the splits are drawn by HEALPix cell (0.46 deg) and neighbouring bricks (0.25 deg) would share cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lens_assets.science.hashing import generator, seed_of, uniform
from lens_assets.science.mock.settings import MockSize
from lens_assets.science.sphere import separation
from lens_assets.science.surveys.layout import BANDS, BrickCell, Tile, brick_at, tile_of_key

APART = 0.62
"""Least distance (deg) of two bricks of a tile, while they fit: more than a HEALPix cell of nside 128."""


@dataclass(frozen=True)
class BrickPlan:
    """One brick to write: where it is and what is special about it."""

    tile: Tile
    cell: BrickCell
    regime: str
    missing: str | None = None
    edge: bool = False

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands it was observed in."""
        return tuple(b for b in BANDS if b != self.missing)


def tiles_of(size: MockSize, seed: int) -> list[Tile]:
    """The tiles of a release in a fixed order: the named ones, or the first ``n_tiles`` of a hash order over -60 <
    dec < 30."""
    if size.tiles:
        return [tile_of_key(key) for key in size.tiles]
    grid = [(ra, dec) for dec in range(-60, 30, 5) for ra in range(0, 360, 5)]
    draw = uniform(np.array([ra * 1000 + dec + 90 for ra, dec in grid]), seed_of("mock tiles", seed))
    weight = np.cos(np.radians([dec + 2.5 for _, dec in grid]))  # equal areas are equally likely
    order = np.argsort(-np.log1p(-draw) / weight, kind="stable")
    if size.n_tiles > len(grid):
        raise ValueError(f"the mock sky has {len(grid)} tiles, not {size.n_tiles}")
    return [Tile(*grid[i]) for i in order[: size.n_tiles]]


def bricks_inside(tile: Tile) -> list[BrickCell]:
    """Bricks of the grid that lie wholly inside a tile, by BRICKID."""
    found: dict[int, BrickCell] = {}
    for dec in np.arange(tile.dec_min + 0.25, tile.dec_min + 5, 0.25):
        ra = tile.ra_min + 1e-6
        while ra < tile.ra_min + 5:
            cell = brick_at(ra, float(dec))
            inside = cell.ra1 >= tile.ra_min and cell.ra2 <= tile.ra_min + 5
            if inside and cell.dec1 >= tile.dec_min and cell.dec2 <= tile.dec_min + 5:
                found[cell.brickid] = cell
            ra = cell.ra2 + 1e-6
    return [found[k] for k in sorted(found)]


def bricks_of_tile(tile: Tile, n: int, seed: int) -> list[BrickCell]:
    """``n`` bricks of a tile, kept apart as far as they fit, in hash order."""
    pool = bricks_inside(tile)
    if n > len(pool):
        raise ValueError(f"tile {tile.key} has {len(pool)} bricks inside, not {n}")
    draw = uniform(np.array([c.brickid for c in pool]), seed_of("mock bricks", seed))
    pool = [pool[i] for i in np.argsort(draw, kind="stable")]
    for apart in (APART, 0.45, 0.3, 0.0):
        chosen: list[BrickCell] = []
        for cell in pool:
            near = separation([c.ra for c in chosen], [c.dec for c in chosen], cell.ra, cell.dec)
            if not chosen or float(near.min()) >= apart * 3600:
                chosen.append(cell)
            if len(chosen) == n:
                return chosen
    raise AssertionError("unreachable: any n bricks are 0 deg apart")


def plan(size: MockSize, seed: int) -> list[BrickPlan]:
    """Every brick of the release, tile by tile. A brick's plan does not depend on how many tiles follow it."""
    plans = []
    lacking = (BANDS[2], BANDS[0], BANDS[1])
    for t, tile in enumerate(tiles_of(size, seed)):
        deep = tile.key in size.deep_tiles or (
            not size.tiles and generator("mock deep", seed, tile.key).random() < size.deep_fraction
        )
        for b, cell in enumerate(bricks_of_tile(tile, size.bricks_per_tile, seed)):
            shallow = generator("mock regime", seed, cell.brickid).random() < size.settings.shallow_share
            missing = lacking[t % 3] if b == 0 and t < size.missing_band else None
            edge = b == min(1, size.bricks_per_tile - 1) and t < size.survey_edge and missing is None
            plans.append(BrickPlan(tile, cell, "deep" if deep else "shallow" if shallow else "standard", missing, edge))
    return plans
