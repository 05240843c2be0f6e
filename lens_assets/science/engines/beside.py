"""Which borders of other tiles a pool is made with: those of the adjacent tiles that the release has, read by key.

An adjacent tile counts while its sweep is in the release: one that was withdrawn leaves its artefacts behind, and they must not
spoil anything. One whose border has not been made is named, so that nobody takes a pool without it for the last word; it is
made again when the border is there. No listing: the tiles that can touch another are known from the grid.
"""

from __future__ import annotations

from collections.abc import Iterable

from lens_assets.science.engines.place import Opened
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.negatives.border import adjacent_tiles, limits, tiles_beside
from lens_assets.science.storage import Artefact, Store

BORDER = "sweep_border"


def borders_beside(at: Opened, tile: str) -> tuple[list[Artefact], list[str]]:
    """The borders of the tiles beside ``tile``, by key, and the keys of tiles that are there but whose border is not.

    Raises :class:`BadInput` for a border made under other thresholds than the profile's.
    """
    there = [key for key in tiles_beside(tile) if at.release.has_sweep(key)]
    found = at.store.find_all(BORDER, there)
    borders = [artefact for artefact in found if artefact is not None]
    wanted = limits(at.profile.negatives.n2)
    for artefact in borders:
        if (made_with := artefact.manifest["made_from"].get("limits")) != wanted:
            raise BadInput(
                f"the border of tile {artefact.partition} was made under {made_with}, the profile says {wanted}: "
                f"materialise {BORDER} again",
                file=artefact.uri,
            )
    return borders, [key for key, artefact in zip(there, found, strict=True) if artefact is None]


def outdated(at: Opened, pool: Artefact) -> list[str]:
    """What is wrong with the surroundings a pool was made with, in words; nothing when it has those that are there now."""
    borders, absent = borders_beside(at, pool.partition)
    made_from = pool.manifest["made_from"]
    used = {k.removeprefix(f"{BORDER}[")[:-1]: v for k, v in made_from.items() if k.startswith(f"{BORDER}[")}
    now = {b.partition: b.digest for b in borders}
    problems = [f"the border of {key} was not there" for key in absent]
    problems += [f"made before the border of {key} was" for key in sorted(now.keys() - used.keys())]
    problems += [f"made with a border of {key}, which is gone" for key in sorted(used.keys() - now.keys() - {*absent})]
    changed = sorted(key for key in now.keys() & used.keys() if now[key] != used[key])
    return problems + [f"made with another border of {key}" for key in changed]


def surroundings(store: Store, tile: str, present: Iterable[str]) -> str | None:
    """A version of what lies beside ``tile``: it changes when one of the borders does, or another tile is there.

    ``present``: keys of the tiles there are. ``None`` while one of the adjacent ones has no border yet: then whoever makes
    that border asks again.
    """
    beside = adjacent_tiles(tile, present)
    found = [artefact for artefact in store.find_all(BORDER, beside) if artefact is not None]
    if len(found) < len(beside):
        return None
    return digest([[artefact.partition, artefact.digest] for artefact in found])[:16]
