"""Lenses: every published list is a channel; channels are united into one registry and matched to the survey."""

import dagster as dg
import polars as pl

from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.assets.tiles import TileEvents, make_tiles
from lens_assets.automation.watch import catalogue_file
from lens_assets.partitions import ALL, CHANNEL, SAME, TILE
from lens_assets.resources.workspace import Workspace
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses import channels, crossmatch, mapping, registry
from lens_assets.science.lenses.conflicts import conflicts
from lens_assets.science.lenses.overlap import overlap_matrix, summary, tier_b
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft, sha256_file

GROUP = "lenses"

channel_files = dg.AssetSpec(
    "channel_files",
    description="The lens catalogues in the catalogue folder, as published: one file a channel.",
    group_name=GROUP,
    kinds={"csv", "external"},
    owners=["team:lens-assets"],
    partitions_def=CHANNEL,
)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    partitions_def=CHANNEL,
    deps=[dg.AssetDep(channel_files, partition_mapping=SAME)],
    metadata=of_table("lens_channel"),
)
def lens_channel(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[Artefact]:
    """One catalogue on the common schema, through its mapping file: labels by an explicit enum, redshifts and radii as numbers,
    rows that cannot be used counted by reason."""
    path = catalogue_file(workspace.catalogue_folder, context.partition_key)
    rules = mapping.mapping_for_file(path)
    identity = {"code": code_digest("lenses", "columns/lenses.py"), "file": sha256_file(path), "mapping": rules}

    def make(draft: Draft) -> None:
        frame, rejected = channels.read_channel(path, rules)
        draft.table(frame)
        draft.json("mapping", rules.model_dump(mode="json"))
        draft.facts.update(rejected=rejected.counts, role=rules.role, derived_from=list(rules.derived_from))
        draft.facts.update(columns_verified=rules.verified, columns_from=rules.source, to_verify=rules.to_verify)

    return stage(context, workspace, identity, make)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    ins={"lens_channel": dg.AssetIn(partition_mapping=ALL)},
    metadata=of_table("lens_registry"),
)
def lens_registry(
    context: dg.AssetExecutionContext, workspace: Workspace, lens_channel: list[Artefact]
) -> dg.MaterializeResult[Artefact]:
    """All systems of all channels, united by position (friends of friends); each remembers every channel that found it, its best
    label, its tier and weight, and whether it is independent of the channels that train. What its members disagree on is beside
    it."""
    if not lens_channel:
        raise BadInput(
            "no lens catalogue has been read: put one into this folder", file=str(workspace.catalogue_folder)
        )
    settings = workspace.profile().lenses
    identity = {"code": code_digest("lenses", "columns/lenses.py"), "settings": settings, **digests(lens_channel)}

    def make(draft: Draft) -> None:
        rules = [mapping.ChannelMapping.model_validate(c.json("mapping")) for c in lens_channel]
        united = pl.concat([c.read() for c in lens_channel])
        frame = registry.build_registry(united, rules, settings)
        odd = conflicts(united, frame, rules, settings)
        draft.table(frame)
        draft.table(odd, "conflicts")
        draft.facts.update(rows_in=united.height, channels=len(lens_channel), **summary(frame, odd))
        draft.facts.update(tier_b=tier_b(united, frame, rules))
        draft.facts.update(columns_not_verified=sorted(r.channel for r in rules if not r.verified))

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {
            "conflicts": dg.MetadataValue.md(markdown(made.read("conflicts").head(50))),
            "overlap": dg.MetadataValue.md(markdown(overlap_matrix(made.read()))),
        },
    )


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    partitions_def=TILE,
    deps=[dg.AssetDep("sweeps", partition_mapping=SAME), dg.AssetDep("lens_registry", partition_mapping=ALL)],
    metadata=of_table("lens_matches"),
)
def lens_matches(context: dg.AssetExecutionContext, workspace: Workspace) -> TileEvents:
    """Registry systems matched to the nearest primary object of a tile within the stated radius, separation kept."""
    yield from make_tiles(context, workspace)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    ins={"lens_matches": dg.AssetIn(partition_mapping=ALL), "lens_registry": dg.AssetIn()},
    metadata=of_table("positives"),
)
def positives(
    context: dg.AssetExecutionContext, workspace: Workspace, lens_matches: list[Artefact], lens_registry: Artefact
) -> dg.MaterializeResult[Artefact]:
    """Matched systems with what each may be used for (training or evaluation); the unmatched are listed with the reason."""
    settings = workspace.profile().lenses
    identity = {"code": code_digest("lenses", "columns/lenses.py"), "settings": settings}

    def make(draft: Draft) -> None:
        tiles = [a.partition for a in lens_matches]
        bricks = pl.concat([a.read("bricks") for a in lens_matches])["brickid"].to_list()
        matched, unmatched = crossmatch.positives(
            pl.concat([a.read() for a in lens_matches]),
            lens_registry.read(),
            tiles,
            settings,
            bricks,
            nearest=pl.concat([a.read("nearest") for a in lens_matches]),
        )
        draft.table(matched)
        draft.table(unmatched, "unmatched")
        reasons = dict(unmatched.group_by("reason").len().sort("reason").iter_rows())
        draft.facts.update(unmatched=unmatched.height, reasons=reasons)

    return stage(context, workspace, {**identity, **digests(lens_matches, lens_registry)}, make)
