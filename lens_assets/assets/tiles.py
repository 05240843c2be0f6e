"""How a tile asset runs: hand the keys of the run to the engine in one go, then report each tile as a materialisation of its own.

A run makes one tile, or a range of them (tags ``dagster/asset_partition_range_start`` and ``..._end``; a back-fill with a
single-run policy sets them): one step, one call of the engine, however many tiles. Dagster itself reports a range with one
data version for all its partitions, so the asset reports each tile again after that, with its own digest; what is read last
counts. A tile that failed is not reported; the others are, before the step fails with the reasons.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from lens_assets.assets.stage import forced
from lens_assets.automation.surroundings import told
from lens_assets.partitions import TILE
from lens_assets.resources.engine import Engine
from lens_assets.resources.workspace import Workspace
from lens_assets.science.engines.beside import BORDER
from lens_assets.science.engines.kernels import KERNELS
from lens_assets.science.engines.report import TileReport
from lens_assets.science.hashing import digest

TileEvents = Iterator[dg.MaterializeResult[None] | dg.AssetMaterialization]
AT_ONCE = "tiles_at_once"


def tiles_at_once() -> Any:
    """A job over the tile assets without their checks, for a range of tiles in one run.

    Dagster 1.13 gives a partitioned check in a ranged run no partition, and the automation would wait for ever for those
    it then misses. So the checks are left to the ordinary run of each tile that follows (a chain, or the automation): it
    recognises what is there and only checks it.
    """
    names = (*KERNELS,)
    return dg.define_asset_job(
        AT_ONCE,
        selection=dg.AssetSelection.assets(*names).without_checks(),
        description="Sweeps, conditions, borders, lens matches and pools of a range of tiles, in one call of the engine an asset.",
        executor_def=dg.in_process_executor,
    )


def make_tiles(context: dg.AssetExecutionContext, workspace: Workspace) -> TileEvents:
    """The events of a tile asset: yield from this in its body."""
    asset, tiles = context.asset_key.path[-1], sorted(context.partition_keys)
    reports, about = Engine().make(context, asset, tiles, workspace, force=forced(context))
    root = f"{workspace.store().root}/{asset}"
    done, failed = [r for r in reports if r.ok], [r for r in reports if not r.ok]
    if asset == BORDER:
        present = TILE.get_partition_keys(dynamic_partitions_store=context.instance)
        yield from told([r.tile for r in done], present, workspace.store())
    if len(tiles) == 1 and done:
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(done[0].digest[:16]), metadata={**metadata_of(done[0], root), **about}
        )
        return
    if done and not failed:
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(digest([[r.tile, r.digest] for r in done])[:16]),
            metadata={"tiles": len(done), "reused": sum(r.reused for r in done), **about},
        )
    for report in done:
        yield dg.AssetMaterialization(
            asset_key=context.asset_key,
            partition=report.tile,
            metadata={**metadata_of(report, root), **about},
            tags={
                "dagster/data_version": report.digest[:16],
                "dagster/data_version_is_user_provided": "true",
                "dagster/code_version": str(context.assets_def.code_versions_by_key.get(context.asset_key) or ""),
            },
        )
    if failed:
        reasons = "\n".join(f"{r.tile}: {r.error}" for r in failed[:20])
        raise dg.Failure(
            description=f"{asset}: {len(failed)} of {len(tiles)} tiles could not be made\n{reasons}",
            metadata={"failed": dg.MetadataValue.json([r.tile for r in failed]), **about},
            allow_retries=False,
        )


def metadata_of(report: TileReport, root: str) -> dict[str, Any]:
    """What the UI shows of a tile: place, digest, rows, what its maker stated, and the worker that made it."""
    out: dict[str, Any] = {
        "dagster/uri": dg.MetadataValue.path(f"{root}/{report.tile}"),
        "digest": report.digest[:16],
        "facts": dg.MetadataValue.json(report.facts),
        "reused": report.reused,
        "seconds": report.seconds,
        "worker": report.worker,
    }
    if report.rows is not None:
        out["dagster/row_count"] = report.rows
    return out
