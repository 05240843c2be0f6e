"""Surveys: the sweeps of a data release as tables, one partition a tile, and the conditions they were observed under."""

import dagster as dg

from lens_assets.assets.stage import digests, of_table, renewing, stage
from lens_assets.partitions import SAME, TILE
from lens_assets.resources.workspace import Workspace
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft
from lens_assets.science.surveys.conditions import occupancy

GROUP = "surveys"

sweep_files = dg.AssetSpec(
    "sweep_files",
    description="The sweep catalogues of the data release as they lie under its root: one FITS file a 5 x 5 degree tile.",
    group_name=GROUP,
    kinds={"fits", "external"},
    owners=["team:lens-assets"],
    partitions_def=TILE,
)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    partitions_def=TILE,
    deps=[dg.AssetDep(sweep_files, partition_mapping=SAME)],
    metadata=of_table("sweeps"),
)
def sweeps(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[Artefact]:
    """Primary objects of one sweep file: the columns that any step reads, in native byte order, with derived magnitudes,
    colours, depths and HEALPix cell. Rows that cannot be used are counted by reason; a file that cannot be read is an error
    that names it."""
    release, tile = workspace.data_release(), context.partition_key
    identity = {"code": code_digest("surveys", "columns/surveys.py"), "sweep": release.sweep_digest(tile)}

    def make(draft: Draft) -> None:
        frame, rejected = release.sweep(tile)
        draft.table(frame)
        draft.facts.update(rejected=rejected.counts)

    return stage(context, workspace, identity, make)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    partitions_def=TILE,
    ins={"sweeps": dg.AssetIn(partition_mapping=SAME)},
    metadata=of_table("conditions"),
)
def conditions(
    context: dg.AssetExecutionContext, workspace: Workspace, sweeps: Artefact
) -> dg.MaterializeResult[Artefact]:
    """Joint occupancy of PSF FWHM, depth, number of exposures and TYPE over the objects of a tile: the survey's own weights
    for its completeness."""
    settings = workspace.profile().surveys
    identity = {"code": code_digest("surveys/conditions.py"), "settings": settings, **digests(sweeps)}
    return stage(context, workspace, identity, lambda draft: draft.table(occupancy(sweeps.read(), settings)))
