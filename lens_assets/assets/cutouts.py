"""Cutouts: one shard of stamps a tile, cut from its bricks, and the report on what a network could learn that is no arc."""

import dagster as dg
import polars as pl

from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, SAME, TILE
from lens_assets.resources.workspace import Workspace
from lens_assets.science.cutouts import page, report, shard, viewer_shard
from lens_assets.science.hashing import digest
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft

GROUP = "cutouts"


@dg.asset(
    **renewing(GROUP, {"python", "fits", "numpy"}),
    partitions_def=TILE,
    ins={"splits": dg.AssetIn(partition_mapping=ALL), "sweeps": dg.AssetIn(partition_mapping=SAME)},
    metadata=of_table("cutouts", "index"),
)
def cutouts(
    context: dg.AssetExecutionContext, workspace: Workspace, splits: Artefact, sweeps: Artefact
) -> dg.MaterializeResult[Artefact]:
    """Stamps (g, r, z; nanomaggies per pixel) and their inverse variance for every object of the sample in this tile, cut from
    the brick coadds, quality-controlled; what is rejected is listed with its reason."""
    profile, tile = workspace.profile(), context.partition_key
    rows = splits.scan().filter((pl.col("tile") == tile) & (pl.col("split") != "guard")).collect()
    wanted = rows.select("galaxy_id", "ra", "dec", "brickid").sort("galaxy_id")
    identity = {
        "code": code_digest("cutouts", "surveys", "columns/cutouts.py"),
        "settings": profile.cutouts,
        "rows": digest(wanted.rows()),
        "sweep": sweeps.digest,
    }

    def tell(done: int) -> None:
        context.log.info(f"{tile}: {done} of {wanted.height} positions answered")

    def make(draft: Draft) -> None:
        if profile.cutouts.source == "viewer":
            viewer_shard.write_viewer_shard(
                draft,
                rows,
                profile.cutouts,
                workspace.work / "viewer" / tile,
                lambda done, total: tell(done) if done == total or not done % max(total // 20, 1) else None,
            )
            return
        facts = shard.write_shard(
            draft,
            workspace.data_release(),
            rows,
            profile.cutouts,
            work=workspace.work / "cutouts" / tile,
            workers=profile.workers,
            progress=lambda done, total: context.log.info(f"{tile}: {done} of {total} bricks cut"),
        )
        draft.facts.update(facts)

    return stage(context, workspace, identity, make)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "matplotlib"}),
    ins={"cutouts": dg.AssetIn(partition_mapping=ALL), "splits": dg.AssetIn()},
    metadata=of_table("shortcuts"),
)
def cutout_quality(
    context: dg.AssetExecutionContext, workspace: Workspace, cutouts: list[Artefact], splits: Artefact
) -> dg.MaterializeResult[Artefact]:
    """How well each simple image feature alone separates positives from negatives (AUC with intervals, green, yellow or red),
    what was lost and why, stamps that share or repeat pixels, and all of it as a page for a browser (`report.html`)."""
    profile = workspace.profile()
    identity = {"code": code_digest("cutouts"), "settings": profile.cutouts, **digests(cutouts, splits)}

    def make(draft: Draft) -> None:
        found = report.quality_report(
            [shard.Shard.open(a.folder) for a in cutouts], splits.read(), profile.cutouts, workers=profile.workers
        )
        draft.table(found.shortcuts)
        draft.table(found.features, "features")
        draft.table(found.duplicates, "duplicates")
        draft.table(found.rejected, "rejected")
        found.save_figures(draft.folder)
        draft.path("report.html").write_text(page.report_page(found), encoding="utf-8")
        draft.facts.update(found.facts)

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {
            "report": dg.MetadataValue.path(str(made.file("report.html"))),
            "shortcuts": dg.MetadataValue.md(markdown(made.read())),
        },
    )
