"""Carrying the names of a published registry over to a new one.

Names made from members alone (see ``registry``) can change in two cases: a list published earlier than all members of a
system is added, or two systems become one. Whoever has published names gives the old registry here.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from lens_assets.science.columns.lenses import LENS_REGISTRY
from lens_assets.science.errors import BadInput

_RENAMED: dict[str, Any] = {"system_id": pl.String, "made": pl.String, "lost": pl.List(pl.String)}


def keep_names(registry: pl.DataFrame, previous: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give each system the name under which most of its members were known before (of equals, the smaller name).

    A previous name goes to one system only, the one that holds most of its members. Where systems were joined, one name
    stays and the others are listed.

    Returns
    -------
    the registry with the kept names, sorted; and the systems whose name is not the one made from their members, or that
    took over others: ``system_id``, ``made`` (the name they would have had), ``lost`` (earlier names that now mean them).

    Raises :class:`BadInput` when a kept name is also made for another system.
    """
    home = {name: row["system_id"] for row in previous.iter_rows(named=True) for name in row["lens_ids"]}
    claims: list[tuple[int, str, str]] = []
    for row in registry.iter_rows(named=True):
        votes: dict[str, int] = {}
        for name in row["lens_ids"]:
            if name in home:
                votes[home[name]] = votes.get(home[name], 0) + 1
        claims += [(-n, old, row["system_id"]) for old, n in votes.items()]
    name_of: dict[str, str] = {}
    means: dict[str, str] = {}
    for _, old, system in sorted(claims):
        means.setdefault(old, system)
        if means[old] == system:
            name_of.setdefault(system, old)
    lost = {s: sorted(o for o, t in means.items() if t == s and o != name_of[s]) for s in name_of}
    made = registry["system_id"].to_list()
    kept = [name_of.get(system, system) for system in made]
    if len(set(kept)) != len(kept):
        doubled = next(name for name in kept if kept.count(name) > 1)
        raise BadInput(f"two systems would be called {doubled}: the previous registry used it for another place")
    changes = [
        {"system_id": new, "made": old, "lost": lost.get(old, [])}
        for old, new in zip(made, kept, strict=True)
        if old != new or lost.get(old)
    ]
    frame = registry.with_columns(pl.Series("system_id", kept, dtype=pl.String))
    return LENS_REGISTRY.conform(frame), pl.DataFrame(changes, schema=_RENAMED).sort("system_id")
