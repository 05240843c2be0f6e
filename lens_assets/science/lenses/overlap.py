"""How many systems two channels share, and what the union of channels holds: the counts a registry is published with."""

from __future__ import annotations

from typing import Any

import polars as pl


def overlap_matrix(registry: pl.DataFrame) -> pl.DataFrame:
    """Systems shared by each pair of channels: ``channel`` and one column per channel; the diagonal is the number of
    systems a channel knows. Symmetric, channels sorted."""
    names = sorted({name for names in registry["channels"].to_list() for name in names})
    position = {name: i for i, name in enumerate(names)}
    counts = [[0] * len(names) for _ in names]
    for held in registry["channels"].to_list():
        for a in held:
            for b in held:
                counts[position[a]][position[b]] += 1
    columns = {name: pl.Series([row[i] for row in counts], dtype=pl.Int64) for i, name in enumerate(names)}
    return pl.DataFrame({"channel": pl.Series(names, dtype=pl.String), **columns})


def summary(registry: pl.DataFrame, conflicts: pl.DataFrame | None = None) -> dict[str, Any]:
    """Systems, rows united, and systems by tier, label, kind, number of channels and use; conflicts by field."""

    def count(column: str) -> dict[str, int]:
        return {str(k): int(n) for k, n in registry.group_by(column).len().sort(column).iter_rows()}

    held = registry.select(pl.col("channels").list.len().alias("n")).group_by("n").len().sort("n")
    found: dict[str, Any] = {
        "systems": registry.height,
        "rows": int(registry["n_members"].sum()),
        "by_tier": count("tier"),
        "by_label": count("label"),
        "by_kind": count("kind"),
        "by_channels": {str(k): int(n) for k, n in held.iter_rows()},
        "trains": int(registry["trains"].sum()),
        "independent": int(registry["independent"].sum()),
    }
    if conflicts is not None:
        found["conflicts"] = {str(k): int(n) for k, n in conflicts.group_by("field").len().sort("field").iter_rows()}
    return found
