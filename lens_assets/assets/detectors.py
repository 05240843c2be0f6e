"""Detectors: one partition a recipe and seed: its checkpoint, its scores on every object, and its evaluation."""

from __future__ import annotations

import dagster as dg
import polars as pl

from lens_assets.assets.negatives import markdown
from lens_assets.assets.stage import digests, of_table, renewing, stage
from lens_assets.partitions import ALL, DETECTOR, SAME
from lens_assets.resources.workspace import Workspace
from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.detectors import checkpoint, evaluate, figures, score, train
from lens_assets.science.detectors.recipes import recipe_of
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


@dg.asset(
    **renewing(GROUP, {"python", "pytorch", "mlflow"}, pool=GPU),
    partitions_def=DETECTOR,
    deps=[dg.AssetDep(recipes, partition_mapping=SAME)],
    ins={"splits": dg.AssetIn(partition_mapping=ALL), "cutouts": dg.AssetIn(partition_mapping=ALL)},
    metadata=of_table("history"),
)
def detector(
    context: dg.AssetExecutionContext, workspace: Workspace, splits: Artefact, cutouts: list[Artefact]
) -> dg.MaterializeResult[Artefact]:
    """A network trained on real cutouts only, its epoch chosen on validation objects that play no other part. Depends on the
    stamps of its training and selection sets alone: a change elsewhere does not cause a training."""
    raise NotImplementedError
