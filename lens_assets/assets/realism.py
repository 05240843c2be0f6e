"""Realism: do the injections look like lenses to the network that is to be measured with them?"""

import json

import dagster as dg
import polars as pl

from lens_assets.assets.detectors import scoring_code, stamps_of
from lens_assets.assets.injections import ENGINE, variant_of
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, BATCHES_OF_VARIANT, DETECTOR_OF_SURFACE, SURFACE
from lens_assets.resources.workspace import Workspace
from lens_assets.science.completeness.detectability import GateSpec
from lens_assets.science.detectors import checkpoint
from lens_assets.science.provenance import code_digest
from lens_assets.science.realism import assemble, figures, panel
from lens_assets.science.realism.report import realism_report
from lens_assets.science.storage import Artefact, Draft

GROUP = "realism"


@dg.asset(
    **renewing(GROUP, {"python", "scikitlearn", "matplotlib"}, partial=("injection_batch",)),
    partitions_def=SURFACE,
    ins={
        "detector": dg.AssetIn(partition_mapping=DETECTOR_OF_SURFACE),
        "injection_batch": dg.AssetIn(partition_mapping=BATCHES_OF_VARIANT, metadata={"partial": True}),
        "detectability": dg.AssetIn(partition_mapping=ALL),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "cutouts": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("realism_gates"),
)
def realism(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    detector: Artefact,
    injection_batch: list[Artefact],
    detectability: Artefact,
    splits: Artefact,
    cutouts: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """Injections against held-out lenses under matched conditions: signal-to-noise, colours, background, structure, and a linear
    probe on the frozen detector's features with its null and controls. Verdict: go, or no-go with the reasons."""
    profile, keys = workspace.profile(), context.partition_key.keys_by_dimension
    variant, settings = variant_of(keys["variant"]), profile.realism
    identity = {
        "code": code_digest("realism", *ENGINE, *scoring_code(detector), "completeness/detectability.py"),
        "settings": settings,
        "variant": variant.digest,
        **digests(detector, injection_batch, detectability, splits, cutouts),
    }

    def make(draft: Draft) -> None:
        stamps, gate = stamps_of(cutouts), GateSpec.from_json(detectability.json("gate"))
        scorer = checkpoint.load(detector.folder, profile.cutouts.normalisation, profile.detectors)
        sample = splits.read()
        sample = sample.filter(pl.Series(stamps.has(sample["galaxy_id"])))
        real = assemble.real_set(assemble.held_out_lenses(sample), stamps, scorer, gate, "held-out lenses")
        batches = pl.concat([a.read() for a in injection_batch])
        injected = assemble.injected_set(
            batches, stamps, scorer, gate, profile.injections, variant, most=settings.most_injected, seed=settings.seed
        )
        hosts = sample.join(injected.frame.select("galaxy_id").unique(), on="galaxy_id", how="semi").sort("galaxy_id")
        others = assemble.other_negatives(sample, settings.most_negatives, settings.seed)
        report = realism_report(
            real,
            injected,
            assemble.real_set(hosts, stamps, scorer, gate, "hosts"),
            assemble.features_of(others, stamps, scorer),
            settings,
            (keys["detector"], keys["variant"]),
            negatives_groups=others["galaxy_id"].to_numpy(),
        )
        draft.table(report.table())
        draft.table(report.measures, "measures")
        draft.json("report", json.loads(report.to_json()))
        figures.write_figures(report, draft.folder)
        if blinded := assemble.panel_of(report, real, injected, settings):
            panel.write_sheet(blinded, draft.path("panel.png"))
            draft.json("panel-key", blinded.key)
        draft.facts.update(verdict=report.verdict, reasons=report.reasons)

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {"verdict": made.facts["verdict"], "gates": dg.MetadataValue.md(markdown(made.read()))},
    )
