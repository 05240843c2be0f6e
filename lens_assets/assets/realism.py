"""Realism: do the injections look like lenses to the network that is to be measured with them?"""

import json

import dagster as dg
import polars as pl

from lens_assets.assets.calibration import fitted_for, priors_for
from lens_assets.assets.detectors import scoring_code, stamps_of
from lens_assets.assets.injections import ENGINE, galaxies_for, variant_of
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, BATCHES_OF_VARIANT, DETECTOR_OF_SURFACE, SURFACE
from lens_assets.resources.workspace import Workspace
from lens_assets.science.completeness.detectability import GateSpec
from lens_assets.science.detectors import checkpoint
from lens_assets.science.provenance import code_digest
from lens_assets.science.realism import assemble, figures, panel
from lens_assets.science.realism.page import realism_page
from lens_assets.science.realism.panel_page import panel_page
from lens_assets.science.realism.votes import panel_gate, vote_files
from lens_assets.science.storage import Artefact, Draft, sha256_file

GROUP = "realism"


@dg.asset(
    **renewing(GROUP, {"python", "scikitlearn", "matplotlib"}, partial=("injection_batch", "prior_calibration")),
    partitions_def=SURFACE,
    deps=[dg.AssetDep("prior_calibration", partition_mapping=ALL)],
    ins={
        "detector": dg.AssetIn(partition_mapping=DETECTOR_OF_SURFACE),
        "injection_batch": dg.AssetIn(partition_mapping=BATCHES_OF_VARIANT, metadata={"partial": True}),
        "detectability": dg.AssetIn(partition_mapping=ALL),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "positives": dg.AssetIn(partition_mapping=ALL),
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
    positives: Artefact,
    cutouts: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """Injections against held-out lenses under matched conditions: signal-to-noise, colours, background, structure, and a linear
    probe on the frozen detector's features with its null and controls. Verdict: go, or no-go with the reasons."""
    profile, keys = workspace.profile(), context.partition_key.keys_by_dimension
    variant, settings = variant_of(keys["variant"]), profile.realism
    fitted = fitted_for(variant, workspace)
    votes = {str(p.relative_to(workspace.votes_folder)): sha256_file(p) for p in vote_files(workspace.votes_folder)}
    identity = {
        "code": code_digest(
            "realism",
            *ENGINE,
            *scoring_code(detector),
            "detectors/crossvalidated.py",
            "completeness/detectability.py",
            "cutouts/page_parts.py",
        ),
        "settings": settings,
        "variant": variant.digest,
        **({"calibration": fitted.digest} if fitted else {}),
        **({"votes": votes} if votes else {}),
        **digests(detector, injection_batch, detectability, splits, positives, cutouts),
    }

    def make(draft: Draft) -> None:
        stamps, gate = stamps_of(cutouts), GateSpec.from_json(detectability.json("gate"))
        scorer = checkpoint.load(detector.folder, profile.cutouts.normalisation, profile.detectors)
        sample = splits.read()
        sample = sample.filter(pl.Series(stamps.has(sample["galaxy_id"])))
        lenses = assemble.of_kind(assemble.held_out_lenses(sample), positives.read(), variant)
        if fitted:
            lenses = assemble.unseen(lenses, fitted.judges, fitted.fitted)
        comparison = assemble.Comparison.of(lenses, sample, stamps, scorer, gate, profile.injections, settings)
        batches = pl.concat([a.read() for a in injection_batch])
        galaxies = galaxies_for(variant, priors_for(variant, workspace), workspace)
        report, injected = comparison.report(batches, variant, (keys["detector"], keys["variant"]), galaxies)
        before = None
        if fitted:
            plan, default = assemble.before_calibration(
                sample, sorted(batches["theta_e"].unique().to_list()), profile.injections, settings.most_injected
            )
            before, _ = comparison.report(plan, default, (keys["detector"], default.name, "unseen half"))
            draft.table(before.table(), "before")
            draft.json("report-before", json.loads(before.to_json()))
        blinded = assemble.panel_of(report, comparison.real, injected, settings)
        if blinded:
            panel.write_sheet(blinded, draft.path("panel.png"))
            draft.path("panel.html").write_text(panel_page(blinded), encoding="utf-8")
            draft.json("panel-key", blinded.key)
        given = vote_files(workspace.votes_folder / blinded.digest) if blinded else []
        report = report.with_gate(panel_gate(blinded.key if blinded else None, given))
        draft.table(report.table())
        draft.table(report.measures, "measures")
        draft.json("report", json.loads(report.to_json()))
        figures.write_figures(report, draft.folder)
        about = assemble.about(comparison.real, calibrated=fitted is not None)
        page = realism_page(
            report, comparison.real, injected, draft.folder, title=f"Realism of {keys['variant']} for {keys['detector']}",
            about=about, before=before, override=settings.override.reason if settings.override.allow else "",
        )  # fmt: skip
        draft.path("realism.html").write_text(page, encoding="utf-8")
        draft.facts.update(verdict=report.verdict, reasons=report.reasons)

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {"verdict": made.facts["verdict"], "gates": dg.MetadataValue.md(markdown(made.read()))},
    )
