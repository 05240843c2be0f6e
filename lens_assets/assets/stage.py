"""The one way an asset makes its artefact: look whether it is already made from exactly this, else make it, then report.

What made it (``identity``: code digest, settings, digests of the inputs that matter) is the artefact's fingerprint. When the
fingerprint on disk is the same, the artefact *is* the result, and the asset reports it without computing: this is how a killed
run resumes, and how a catalogue that changes nothing for the training set does not cause a training. Give the run the tag
``lens_assets/force: "true"`` to compute anyway (the bytes will be the same; that is the point).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl

from lens_assets.automation.conditions import renewal
from lens_assets.partitions import folder_key
from lens_assets.resources.workspace import Workspace
from lens_assets.science.columns.tables import table_of
from lens_assets.science.engines.recognise import digests, ensure
from lens_assets.science.storage import Artefact, Draft

__all__ = [
    "FORCE_TAG",
    "OWNERS",
    "column_schema",
    "describe",
    "digests",
    "forced",
    "markdown",
    "of_table",
    "renewing",
    "stage",
]

FORCE_TAG = "lens_assets/force"
OWNERS = ["team:lens-assets"]


def renewing(
    group: str,
    kinds: set[str],
    *,
    pool: str | None = None,
    code_version: str = "1",
    chosen: bool = False,
    partial: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What every asset of ours has in common, as keyword arguments of ``dg.asset``.

    ``chosen`` and ``partial``: see :func:`~lens_assets.automation.conditions.renewal`.
    """
    return {
        "group_name": group,
        "kinds": kinds,
        "owners": OWNERS,
        "code_version": code_version,
        "automation_condition": renewal(chosen=chosen, partial=partial),
        "io_manager_key": "artefacts",
        "pool": pool,
    }


def forced(context: dg.AssetExecutionContext) -> bool:
    """Whether the run asks for computing what is there already."""
    return context.run.tags.get(FORCE_TAG) == "true"


def stage(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    identity: Mapping[str, Any],
    make: Callable[[Draft], None],
    metadata: Callable[[Artefact], Mapping[str, Any]] | None = None,
) -> dg.MaterializeResult[Artefact]:
    """Make (or recognise) the artefact of this asset and partition.

    Parameters
    ----------
    identity : everything the result depends on, JSON-like; its digest decides whether work is needed.
    make : writes the files of the artefact through a draft.
    metadata : further metadata for the UI, computed from the finished artefact.
    """
    store = workspace.store()
    asset = context.asset_key.path[-1]
    partition = folder_key(context.partition_key) if context.has_partition_key else "all"
    started = time.monotonic()
    artefact, reused = ensure(store, asset, partition, identity, make, force=forced(context))
    return dg.MaterializeResult(
        value=artefact,
        data_version=dg.DataVersion(artefact.digest[:16]),
        metadata={
            **describe(artefact),
            **(metadata(artefact) if metadata else {}),
            "reused": reused,
            "seconds": round(time.monotonic() - started, 3),
        },
    )


def describe(artefact: Artefact) -> dict[str, Any]:
    """Metadata every asset has: place, digest, rows, column schema, and what its maker stated."""
    out: dict[str, Any] = {
        "dagster/uri": dg.MetadataValue.path(artefact.uri),
        "digest": artefact.digest[:16],
        "facts": dg.MetadataValue.json(dict(artefact.facts)),
    }
    if "rows" in artefact.facts:
        out["dagster/row_count"] = int(artefact.facts["rows"])
    return out


def column_schema(table: str) -> dg.TableSchema:
    """The UI's column schema of a registered table, derived from the column registry."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=c.name,
                type=str(c.dtype),
                description=f"{c.meaning} [{c.unit or '1'}]. Source: {c.source}",
                constraints=dg.TableColumnConstraints(nullable=c.nullable),
            )
            for c in table_of(table).columns
        ]
    )


def of_table(table: str, file: str = "data") -> dict[str, Any]:
    """Definition metadata of an asset whose file ``<file>.parquet`` is the registered table ``table``."""
    return {"dagster/column_schema": column_schema(table), "table": table, "file": file}


def markdown(frame: pl.DataFrame) -> str:
    """A table as Markdown for the UI."""
    with pl.Config(tbl_formatting="MARKDOWN", tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True) as c:
        c.set_tbl_rows(200).set_tbl_cols(30).set_fmt_str_lengths(80).set_tbl_width_chars(400)
        return str(frame)
