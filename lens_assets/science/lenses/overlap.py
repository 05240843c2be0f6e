"""How many systems two channels share, and what the union of channels holds: the counts a registry is published with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from lens_assets.science import intervals
from lens_assets.science.lenses.independence import by_channel
from lens_assets.science.lenses.mapping import ChannelMapping
from lens_assets.science.lenses.settings import VISUAL


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


def tier_b(
    channels: pl.DataFrame, registry: pl.DataFrame, mappings: Mapping[str, ChannelMapping] | Iterable[ChannelMapping]
) -> dict[str, Any]:
    """What tier B is made of: its noise is to be estimated, not assumed (science contract, section 2).

    Systems of tier B by the best visual grade that a list other than a compilation gives (``graded_A`` and so on;
    ``ungraded``: none does), and ``ungraded_share`` with its 68 % Jeffreys interval and n: the share that rests on a compilation's
    word alone.
    """
    rules = by_channel(mappings)
    own = {f"{c}:{i}": label for c, i, label in channels.select("channel", "lens_id", "label").iter_rows()
           if label in VISUAL and not rules[c].compiles}  # fmt: skip
    best = [
        min((str(own[name]) for name in names if name in own), default="")
        for names in registry.filter(pl.col("tier") == "B")["lens_ids"].to_list()
    ]
    found = {f"graded_{g[-1]}": sum(b == g for b in best) for g in sorted(VISUAL)}
    n, ungraded = len(best), best.count("")
    share: dict[str, Any] = {"n": n, "value": ungraded / n if n else None, "lo": None, "hi": None}
    if n:
        low, high, level, name = intervals.jeffreys(ungraded, n)
        share |= {"lo": float(low), "hi": float(high), "level": level, "interval": name}
    return {**found, "ungraded": ungraded, "ungraded_share": share}


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
