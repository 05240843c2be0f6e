"""What a tile is told of the tiles beside it: events of the external asset ``surroundings``, one partition a tile.

No partition mapping of Dagster says "adjacent" (those of one's own are deprecated, and a mapping to all tiles would renew 1,436
pools for one late sweep). So whoever makes or withdraws a border says for each of the few tiles it touches what lies beside it
now. Its data version is the digest of those borders, so a pool is renewed when, and only when, one of them has another content
or another tile is there. A tile of which an adjacent one has no border yet is told nothing: the maker of that border will.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from lens_assets.science.engines.beside import surroundings
from lens_assets.science.negatives.border import adjacent_tiles
from lens_assets.science.storage import Store

SURROUNDINGS = "surroundings"


def told(borders: Iterable[str], present: Iterable[str], store: Store) -> list[dg.AssetMaterialization]:
    """The events after the borders of some tiles were made, recognised or withdrawn; ``present``: the tiles there are."""
    keys, changed = {*present}, {*borders}
    touched = {beside for key in changed for beside in adjacent_tiles(key, keys)} | (changed & keys)
    versions = {tile: surroundings(store, tile, keys) for tile in sorted(touched)}
    return [
        dg.AssetMaterialization(
            asset_key=SURROUNDINGS,
            partition=tile,
            metadata={"beside": dg.MetadataValue.json(adjacent_tiles(tile, keys))},
            tags={"dagster/data_version": version},
        )
        for tile, version in versions.items()
        if version is not None
    ]
