"""Audits: what the surface says against what is true, where the truth is known. Nothing downstream reads them."""

import dagster as dg
import polars as pl

from lens_assets.assets.calibration import fitted_for, priors_for
from lens_assets.assets.detectors import scoring_code, stamps_of
from lens_assets.assets.injections import ENGINE, variant_of
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import (
    ALL,
    DETECTOR_OF_SURFACE,
    SAME,
    SURFACE,
    SURFACES_OF_DETECTOR,
    folder_key,
    surface_key,
)
from lens_assets.resources.workspace import Workspace
from lens_assets.science.audits import closure as audit
from lens_assets.science.audits import truth
from lens_assets.science.audits.campaign import campaign, keep
from lens_assets.science.audits.instrument import Instrument
from lens_assets.science.completeness.model import Surface
from lens_assets.science.detectors import checkpoint
from lens_assets.science.injections.hosts import like_lenses
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


@dg.asset(
    **renewing("audits", {"python", "polars", "matplotlib"}, chosen=True, partial=("completeness_surface",)),
    partitions_def=SURFACE,
    ins={
        "completeness_surface": dg.AssetIn(partition_mapping=SURFACES_OF_DETECTOR, metadata={"partial": True}),
        "detector": dg.AssetIn(partition_mapping=DETECTOR_OF_SURFACE),
        "injection_hosts": dg.AssetIn(partition_mapping=ALL),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "cutouts": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("closure_arms"),
)
def closure_experiment(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    completeness_surface: list[Artefact],
    detector: Artefact,
    injection_hosts: Artefact,
    splits: Artefact,
    cutouts: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """Thousands of true lenses of a sky of their own through the whole pipeline, against the surface and against surfaces that
    differ from it in one thing each: how often the published intervals hold the truth, the bias, and what makes it. Takes
    minutes; made when somebody asks for it (`make closure`). Opens the truth of the closure sky."""
    profile, keys = workspace.profile(), context.partition_key.keys_by_dimension
    variant, wanted = variant_of(keys["variant"]), {keys["variant"], *profile.runs.variants}
    of = {folder_key(surface_key(keys["detector"], name)): name for name in wanted}
    surfaces = {of[a.partition]: a for a in completeness_surface if a.partition in of}
    fitted, priors = fitted_for(variant, workspace), priors_for(variant, workspace)
    if keys["variant"] not in surfaces:
        raise FileNotFoundError(
            f"the surface {context.partition_key} is not there yet: materialise completeness_surface"
        )
    identity = {
        "code": code_digest(
            "audits", "calibration/hosts.py", "completeness", "cutouts", "mock", *ENGINE, *scoring_code(detector)
        ),
        "settings": profile.closure,
        "variant": variant.digest,
        "priors": priors.digest,
        **({"calibration": fitted.digest} if fitted else {}),
        "practice": sha256_file(workspace.root / "release" / "release.json"),
        **digests(list(surfaces.values()), detector, injection_hosts, splits, cutouts),
    }

    def make(draft: Draft) -> None:
        chosen = injection_hosts.read("matched" if variant.hosts == "matched" else "data")
        if fitted and variant.hosts == "calibrated":
            chosen = like_lenses(chosen, fitted.hosts)
        own = splits.read().select("galaxy_id", "ebv", "pool", "sersic")
        scored, outcome = campaign(
            workspace.closure_folder / str(profile.closure.seed),
            workspace.root / "release",
            profile,
            Instrument(
                Surface.load(surfaces[keys["variant"]]),
                checkpoint.load(detector.folder, profile.cutouts.normalisation, profile.detectors),
                variant,
                priors,
                chosen.join(own, on="galaxy_id", how="left"),
                injection_hosts.read().join(own, on="galaxy_id", how="left"),
                stamps_of(cutouts),
                profile.injections,
                {name: Surface.load(a) for name, a in surfaces.items() if name != keys["variant"]},
            ),
            context.log.info,
        )
        keep(scored, outcome, draft, f"Closure of {keys['detector']} x {keys['variant']}")

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {
            "steps": dg.MetadataValue.md(markdown(made.read("steps"))),
            "arms": dg.MetadataValue.md(markdown(made.read())),
        },
    )
