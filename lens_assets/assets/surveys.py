"""Surveys: the sweeps of a data release as tables, one partition a tile, and the conditions they were observed under."""

import dagster as dg

from lens_assets.assets.stage import of_table, renewing
from lens_assets.assets.tiles import TileEvents, make_tiles
from lens_assets.partitions import SAME, TILE
from lens_assets.resources.workspace import Workspace

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
def sweeps(context: dg.AssetExecutionContext, workspace: Workspace) -> TileEvents:
    """Primary objects of one sweep file: the columns that any step reads, in native byte order, with derived magnitudes,
    colours, depths and HEALPix cell. Rows that cannot be used are counted by reason; a file that cannot be read is an error
    that names it."""
    yield from make_tiles(context, workspace)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    partitions_def=TILE,
    deps=[dg.AssetDep(sweeps, partition_mapping=SAME)],
    metadata=of_table("conditions"),
)
def conditions(context: dg.AssetExecutionContext, workspace: Workspace) -> TileEvents:
    """Joint occupancy of PSF FWHM, depth, number of exposures and TYPE over the objects of a tile: the survey's own weights
    for its completeness."""
    yield from make_tiles(context, workspace)
