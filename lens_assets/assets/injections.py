"""Injections: hosts, batches of arcs of known truth (variant x theta_E), and what a frozen detector makes of them."""

import dagster as dg
import polars as pl

from lens_assets.assets.calibration import fitted_for, priors_for
from lens_assets.assets.detectors import GPU, scoring_code, stamps_of
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import (
    ALL,
    BATCH,
    BATCHES_OF_VARIANT,
    DETECTOR_OF_SURFACE,
    SURFACE,
    VARIANT,
    VARIANT_OF_BATCH,
)
from lens_assets.resources.workspace import Workspace
from lens_assets.science.completeness.detectability import CODE as GATE_CODE
from lens_assets.science.detectors import checkpoint
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.injections import batch, hosts, scoring
from lens_assets.science.injections.cosmos import GalaxySet, prepared
from lens_assets.science.injections.galaxies import MISSING
from lens_assets.science.injections.priors import PriorSet
from lens_assets.science.injections.variants import Variant, load_variants
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft

GROUP = "injections"
ENGINE = ("injections", "columns/injections.py")

variants = dg.AssetSpec(
    "variants",
    description="The injection variants (source family, priors, PSF, noise, hosts): one YAML file each.",
    group_name=GROUP,
    kinds={"yaml", "external"},
    owners=["team:lens-assets"],
    partitions_def=VARIANT,
)


def variant_of(name: str) -> Variant:
    """A variant by name."""
    return load_variants()[name]


def galaxies_for(variant: Variant, priors: PriorSet, workspace: Workspace) -> GalaxySet | None:
    """Real galaxies for a variant that may draw them, from the catalogue that ``LENS_ASSETS_GALAXIES`` names."""
    mixed = variant.source == "mixture" and priors.families.get("real", 0.0) > 0
    if variant.source != "real" and not mixed:
        return None
    catalogue = workspace.galaxy_catalogue
    if catalogue is None:
        raise BadInput(f"variant {variant.name}: {MISSING}")
    code = code_digest("injections/cosmos.py", "injections/deconvolve.py", "injections/planes.py")
    return prepared(catalogue, workspace.profile().injections.galaxies, workspace.work, code)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "parquet"}),
    ins={"splits": dg.AssetIn(), "cutouts": dg.AssetIn(partition_mapping=ALL)},
    metadata=of_table("injection_hosts"),
)
def injection_hosts(
    context: dg.AssetExecutionContext, workspace: Workspace, splits: Artefact, cutouts: list[Artefact]
) -> dg.MaterializeResult[Artefact]:
    """Galaxies that carry injections: non-lenses of the test split that play no other part, in the grid cell of their own PSF and
    depth. A galaxy outside the grid is left out and counted, never put into the edge cell. Table `matched` holds those that
    look like deflectors."""
    settings = workspace.profile().injections
    identity = {
        "code": code_digest("injections/hosts.py"),
        "settings": settings.model_dump(exclude={"threads", "chunk"}),
        **digests(splits, cutouts),
    }

    def make(draft: Draft) -> None:
        stamps = stamps_of(cutouts)
        rows = splits.read()
        rows = rows.filter(pl.Series(stamps.has(rows["galaxy_id"])))
        tables: tuple[tuple[hosts.HostSet, str], ...] = (("random", "data"), ("matched", "matched"))
        for host_set, table in tables:
            chosen = hosts.choose_hosts(rows, settings, host_set)
            draft.table(chosen.hosts, table)
            draft.table(chosen.cells, f"coverage-{host_set}")
            draft.facts[f"rejected_{host_set}"] = chosen.rejections.counts

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {"coverage": dg.MetadataValue.md(markdown(made.read("coverage-random")))},
    )


@dg.asset(
    **renewing(GROUP, {"python", "numba", "parquet"}, chosen=True, partial=("prior_calibration",)),
    partitions_def=BATCH,
    deps=[
        dg.AssetDep(variants, partition_mapping=VARIANT_OF_BATCH),
        dg.AssetDep("prior_calibration", partition_mapping=ALL),
    ],
    ins={"injection_hosts": dg.AssetIn(partition_mapping=ALL), "cutouts": dg.AssetIn(partition_mapping=ALL)},
    metadata=of_table("injection_batch"),
)
def injection_batch(
    context: dg.AssetExecutionContext, workspace: Workspace, injection_hosts: Artefact, cutouts: list[Artefact]
) -> dg.MaterializeResult[Artefact]:
    """Parameters and measured truth of all injections of one variant at one Einstein radius, and the statistic of the detectability
    gate. Pixels are not stored: any stamp is rendered again from its row, bit for bit."""
    keys = context.partition_key.keys_by_dimension
    settings, variant = workspace.profile().injections, variant_of(keys["variant"])
    fitted = fitted_for(variant, workspace)
    priors = priors_for(variant, workspace)
    galaxies = galaxies_for(variant, priors, workspace)
    identity = {
        "code": code_digest(*ENGINE, *GATE_CODE),
        "settings": settings.model_dump(exclude={"threads", "chunk"}),
        "variant": [variant.name, variant.digest],
        "priors": priors.digest,
        **({"calibration": fitted.digest} if fitted else {}),
        **({"galaxies": galaxies.digest} if galaxies else {}),
        **digests(injection_hosts, cutouts),
    }

    def make(draft: Draft) -> None:
        chosen = injection_hosts.read("matched" if variant.hosts == "matched" else "data")
        if fitted and variant.hosts == "calibrated":
            chosen = hosts.like_lenses(chosen, fitted.hosts)
        plan = batch.plan_batch(chosen, variant, float(keys["theta_e"]), settings, priors=priors, galaxies=galaxies)
        truth, gate = scoring.measure(plan, stamps_of(cutouts), settings, variant, galaxies=galaxies)
        draft.table(truth)
        draft.table(gate, "gate")

    return stage(context, workspace, identity, make)


@dg.asset(
    **renewing(GROUP, {"python", "pytorch", "parquet"}, pool=GPU, chosen=True, partial=("injection_batch",)),
    partitions_def=SURFACE,
    ins={
        "detector": dg.AssetIn(partition_mapping=DETECTOR_OF_SURFACE),
        "injection_batch": dg.AssetIn(partition_mapping=BATCHES_OF_VARIANT, metadata={"partial": True}),
        "cutouts": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("injection_scores"),
)
def injection_scores(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    detector: Artefact,
    injection_batch: list[Artefact],
    cutouts: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """The frozen detector's score of every injection of a variant: rendered, normalised and scored in one stream, nothing stored
    between. The normalisation is the detector's own, and another one is refused."""
    profile = workspace.profile()
    variant = variant_of(context.partition_key.keys_by_dimension["variant"])
    identity = {
        "code": code_digest(*ENGINE, *scoring_code(detector)),
        "detector": detector.digest,
        "variant": variant.digest,
        "stamps": digest(sorted(a.digest for a in cutouts)),
        **digests(injection_batch),
    }

    def make(draft: Draft) -> None:
        scorer = checkpoint.load(detector.folder, profile.cutouts.normalisation, profile.detectors)
        plan = pl.concat([a.read() for a in injection_batch])
        galaxies = galaxies_for(variant, priors_for(variant, workspace), workspace)
        stamps = stamps_of(cutouts)
        draft.table(scoring.score_injections(plan, stamps, scorer, profile.injections, variant, galaxies))
        draft.facts.update(precision=scorer.precision, batches=len(injection_batch))

    return stage(context, workspace, identity, make)
