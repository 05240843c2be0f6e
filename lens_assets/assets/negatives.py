"""Negatives: the pool of non-lenses with its attrition table, and the stratified sample drawn from it."""

import dagster as dg

from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.assets.tiles import TileEvents, make_tiles
from lens_assets.automation.surroundings import SURROUNDINGS
from lens_assets.partitions import ALL, SAME, TILE
from lens_assets.resources.workspace import Workspace
from lens_assets.science.negatives import attrition, union
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft

GROUP = "negatives"
_CODE = ("negatives", "sieve.py", "columns/negatives.py")

surroundings = dg.AssetSpec(
    SURROUNDINGS,
    description="What lies beside a tile: the borders of the adjacent tiles. Reported by `sweep_border` for the few tiles that "
    "a border touches, and when a tile is withdrawn.",
    group_name=GROUP,
    kinds={"external"},
    owners=["team:lens-assets"],
    partitions_def=TILE,
)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    partitions_def=TILE,
    deps=[dg.AssetDep("sweeps", partition_mapping=SAME)],
    metadata=of_table("sweep_border"),
)
def sweep_border(context: dg.AssetExecutionContext, workspace: Workspace) -> TileEvents:
    """Bright objects and stars of a tile within 30 arcsec of its edge: what the pools of the tiles beside it must know of it,
    so that a pool is that of the undivided sky."""
    yield from make_tiles(context, workspace)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    partitions_def=TILE,
    deps=[
        dg.AssetDep("sweeps", partition_mapping=SAME),
        dg.AssetDep("lens_registry", partition_mapping=ALL),
        dg.AssetDep(sweep_border, partition_mapping=SAME),  # in a run of many tiles: borders of all first
        dg.AssetDep(surroundings, partition_mapping=SAME),
    ],
    metadata=of_table("negative_pool"),
)
def negative_pool(context: dg.AssetExecutionContext, workspace: Workspace) -> TileEvents:
    """Objects of a tile that pass the named selection profile and lie away from every known lens or candidate, with their
    confuser categories (proxies; neighbours are also looked for beyond the tile's edge), and the attrition of every filter."""
    yield from make_tiles(context, workspace)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    ins={"negative_pool": dg.AssetIn(partition_mapping=ALL), "positives": dg.AssetIn()},
    metadata=of_table("negative_sample"),
)
def negative_sample(
    context: dg.AssetExecutionContext, workspace: Workspace, negative_pool: list[Artefact], positives: Artefact
) -> dg.MaterializeResult[Artefact]:
    """Negatives per stratum of TYPE and number of z exposures, by smallest stable hash; shortfalls are reported and filled from
    the neighbouring bin. The attrition table of the whole run is beside it, also as CSV."""
    settings = workspace.profile().negatives
    identity = {"code": code_digest(*_CODE), "settings": settings, **digests(negative_pool, positives)}

    def make(draft: Draft) -> None:
        drawn, strata = union.sample_from_pools((a.read() for a in negative_pool), positives.read(), settings)
        lost = attrition.merge_attrition([a.read("attrition") for a in negative_pool])
        draft.table(drawn)
        draft.table(strata, "strata")
        draft.table(lost, "attrition")
        lost.write_csv(draft.path("attrition.csv"))

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {
            "attrition": dg.MetadataValue.md(markdown(made.read("attrition"))),
            "strata": dg.MetadataValue.md(markdown(made.read("strata"))),
        },
    )
