"""Audits: what the surface says against what is true, where the truth is known. Nothing downstream reads them."""

import dagster as dg
import polars as pl

from lens_assets.assets.detectors import scoring_code
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, DETECTOR_OF_SURFACE, SAME, SURFACE
from lens_assets.resources.workspace import Workspace
from lens_assets.science.audits import closure as audit
from lens_assets.science.audits import truth
from lens_assets.science.completeness.model import Surface
from lens_assets.science.detectors import checkpoint
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft, sha256_file


@dg.asset(
    **renewing("audits", {"python", "polars"}),
    partitions_def=SURFACE,
    ins={
        "completeness_surface": dg.AssetIn(partition_mapping=SAME),
        "detector": dg.AssetIn(partition_mapping=DETECTOR_OF_SURFACE),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "sweeps": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("completeness_closure"),
)
def closure(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    completeness_surface: Artefact,
    detector: Artefact,
    splits: Artefact,
    sweeps: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """The published surface against every true lens of the mock outside training: found and predicted per Einstein radius and cell,
    each with its interval. The only asset that opens the truth."""
    profile = workspace.profile()
    identity = {
        "code": code_digest("audits", "completeness", "cutouts", *scoring_code(detector)),
        "truth": sha256_file(workspace.truth_folder / "lenses.parquet"),
        **digests(completeness_surface, detector, splits, sweeps),
    }

    def make(draft: Draft) -> None:
        objects = pl.concat(
            [a.scan().select("galaxy_id", "brickname", "psfsize_r", "depth_r", "ra", "dec") for a in sweeps]
        )
        lenses, rejected = truth.unseen_lenses(
            truth.read_truth(workspace.truth_folder), splits.read(), objects.collect()
        )
        scorer = checkpoint.load(detector.folder, profile.cutouts.normalisation, profile.detectors)
        scored = truth.score_lenses(lenses, workspace.data_release(), scorer, profile.cutouts)
        table = audit.closure(Surface.load(completeness_surface), scored)
        draft.table(table)
        draft.table(scored, "lenses")
        draft.facts.update(rejected=rejected.counts, **audit.summary(table))

    return stage(
        context, workspace, identity, make, lambda made: {"closure": dg.MetadataValue.md(markdown(made.read()))}
    )
