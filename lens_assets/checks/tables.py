"""Every asset that is a registered table follows the registry: columns, dtypes, nulls, ranges, unique keys. Derived, not listed."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg
import polars as pl

from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.columns.tables import table_of
from lens_assets.science.storage import Artefact


def _judge(table: str, file: str) -> object:
    def judge(artefact: Artefact, workspace: Workspace) -> Outcome:
        (path,) = artefact.folder.glob(f"{file}.parquet")
        frame = pl.read_parquet(path)
        definition = table_of(table)
        wrong = [
            f"{c.name} is {frame.schema.get(c.name)}, the registry says {c.dtype}"
            for c in definition.columns
            if frame.schema.get(c.name) != c.dtype
        ]
        problems = wrong or definition.violations(frame)
        return Outcome(problems, {"rows": frame.height, "columns": len(definition.columns)})

    return judge


def registry_checks(assets: Iterable[object]) -> list[dg.AssetChecksDefinition]:
    """One blocking check for each asset whose metadata name a registered table."""
    checks = []
    for asset in assets:
        if not isinstance(asset, dg.AssetsDefinition):
            continue
        metadata = asset.metadata_by_key[asset.key]
        if table := metadata.get("table"):
            checks.append(
                gate(
                    asset,
                    "follows_the_registry",
                    f"Columns, dtypes, nulls, ranges and keys of table {table!r} as registered.",
                    _judge(str(table), str(metadata.get("file", "data"))),  # type: ignore[arg-type]
                )
            )
    return checks
