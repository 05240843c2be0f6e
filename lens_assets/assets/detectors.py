"""Detectors: one partition a recipe and seed: its checkpoint, its scores on every object, and its evaluation."""

import dagster as dg
import polars as pl

from lens_assets.assets.stage import digests, of_table, renewing, stage
from lens_assets.partitions import ALL, DETECTOR, SAME
from lens_assets.resources.workspace import Workspace
from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.detectors import checkpoint, evaluate, figures, score, train
from lens_assets.science.detectors.recipes import parse_detector
from lens_assets.science.detectors.tracking import Tracking
from lens_assets.science.hashing import digest
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft

GROUP = "detectors"
GPU = "gpu"

recipes = dg.AssetSpec(
    "recipes",
    description="The training recipes: one YAML file each; a detector is a recipe and a seed.",
    group_name=GROUP,
    kinds={"yaml", "external"},
    owners=["team:lens-assets"],
    partitions_def=DETECTOR,
)


def stamps_of(cutouts: list[Artefact]) -> ShardSet:
    """All shards as one source of stamps."""
    return ShardSet([a.folder for a in cutouts])


def usable(splits: Artefact, stamps: ShardSet) -> pl.DataFrame:
    """Rows of the sample that have a stamp (the rest was rejected with a reason) with the digest of that stamp."""
    return splits.read().join(stamps.index.select("galaxy_id", "stamp_digest"), on="galaxy_id", how="inner")
