"""Completeness: the detectability gate and the surfaces, one partition a detector and variant."""

import dagster as dg
import polars as pl

from lens_assets.assets.calibration import REWEIGHTING, fit_of, prior_draws
from lens_assets.assets.detectors import stamps_of
from lens_assets.assets.injections import variant_of
from lens_assets.assets.logbook import freeze
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, BATCHES_OF_VARIANT, DETECTOR, DETECTOR_OF_SURFACE, SAME, SURFACE, folder_key
from lens_assets.resources.workspace import Workspace
from lens_assets.science.completeness import figures, gating, marginals
from lens_assets.science.completeness.anchors import anchor_recall
from lens_assets.science.completeness.detectability import CODE as GATE_CODE
from lens_assets.science.completeness.detectability import GateSpec
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.surface import build_surface
from lens_assets.science.detectors.strata import sets_of
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft
from lens_assets.science.surveys.conditions import check_bins

GROUP = "completeness"


def of_hosts(conditions: list[Artefact], workspace: Workspace) -> pl.DataFrame:
    """Occupancy of the conditions by objects of the TYPEs that are searched (stars host no lens)."""
    return pl.concat([a.read() for a in conditions]).filter(pl.col("type").is_in(types_searched(workspace)))


def types_searched(workspace: Workspace) -> list[str]:
    """The TYPEs of the profile's negatives."""
    return list(load_selection(workspace.profile().negatives.selection).types.negative)


@dg.asset(
    **renewing(GROUP, {"python", "numpy"}),
    ins={"splits": dg.AssetIn(), "cutouts": dg.AssetIn(partition_mapping=ALL)},
    metadata=of_table("gate_statistics"),
)
def detectability(
    context: dg.AssetExecutionContext, workspace: Workspace, splits: Artefact, cutouts: list[Artefact]
) -> dg.MaterializeResult[Artefact]:
    """The gate that says whether an arc could be seen at all: its statistic for lenses and random galaxies, and the threshold at
    the stated false-alarm rate. No learning; it never sees a detector."""
    settings = workspace.profile().completeness
    identity = {
        "code": code_digest("completeness/gating.py", *GATE_CODE),
        "false_alarms": [settings.false_alarm_rate, settings.min_false_alarms],
        **digests(splits, cutouts),
    }

    def make(draft: Draft) -> None:
        statistics, spec = gating.calibrate(
            splits.read(), stamps_of(cutouts), settings.false_alarm_rate, settings.min_false_alarms
        )
        draft.table(statistics)
        draft.json("gate", spec.to_json())
        draft.facts.update(gating.summary(spec))

    return stage(context, workspace, identity, make)


@dg.asset(
    **renewing(GROUP, {"python", "polars"}),
    partitions_def=DETECTOR,
    ins={
        "detector_scores": dg.AssetIn(partition_mapping=SAME),
        "evaluation": dg.AssetIn(partition_mapping=SAME),
        "detectability": dg.AssetIn(partition_mapping=ALL),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "positives": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("anchors"),
)
def anchors(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    detector_scores: Artefact,
    evaluation: Artefact,
    detectability: Artefact,
    splits: Artefact,
    positives: Artefact,
) -> dg.MaterializeResult[Artefact]:
    """Recall on real lenses in two factors: the share whose arcs the gate calls observable, and the share of these that the
    detector finds, by evaluation set and tier, each with its interval; the gate's rate of false alarms beside them."""
    identity = {
        "code": code_digest("completeness/anchors.py", "completeness/detectability.py", "detectors/strata.py"),
        **digests(detector_scores, evaluation, detectability, splits, positives),
    }

    def make(draft: Draft) -> None:
        independent = positives.read().select("galaxy_id", "independent").unique("galaxy_id")
        scored = (
            detector_scores.read().join(splits.read(), on="galaxy_id").join(independent, on="galaxy_id", how="left")
        )
        gate = GateSpec.from_json(detectability.json("gate"))
        draft.table(anchor_recall(sets_of(scored), detectability.read(), gate, evaluation.read("thresholds")))

    return stage(
        context, workspace, identity, make, lambda made: {"anchors": dg.MetadataValue.md(markdown(made.read()))}
    )


@dg.asset(
    **renewing(GROUP, {"python", "scipy", "matplotlib"}, partial=("injection_batch", "prior_calibration")),
    partitions_def=SURFACE,
    deps=[dg.AssetDep("prior_calibration", partition_mapping=ALL)],  # read by the variants that draw from it
    ins={
        "injection_scores": dg.AssetIn(partition_mapping=SAME),
        "realism": dg.AssetIn(partition_mapping=SAME),
        "injection_batch": dg.AssetIn(partition_mapping=BATCHES_OF_VARIANT, metadata={"partial": True}),
        "injection_hosts": dg.AssetIn(partition_mapping=ALL),
        "evaluation": dg.AssetIn(partition_mapping=DETECTOR_OF_SURFACE),
        "detectability": dg.AssetIn(partition_mapping=ALL),
        "conditions": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("completeness_cells", "cells"),
)
def completeness_surface(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    injection_scores: Artefact,
    realism: Artefact,
    injection_batch: list[Artefact],
    injection_hosts: Artefact,
    evaluation: Artefact,
    detectability: Artefact,
    conditions: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """Completeness per cell of Einstein radius, PSF and depth, at every threshold, with host-aware intervals that carry
    the threshold's own error; observable fraction and conditional completeness; marginals; physics checks; weights of
    the survey; where priors were fitted, what their error adds. Its header, name and figures carry the realism verdict."""
    settings, keys = workspace.profile().completeness, context.partition_key.keys_by_dimension
    variant = variant_of(keys["variant"])
    fit = fit_of(variant, workspace)
    identity = {
        "code": code_digest("completeness", "columns/completeness.py", *REWEIGHTING),
        "settings": settings,
        "types": types_searched(workspace),
        **digests(injection_scores, realism, injection_batch, evaluation, detectability, conditions),
        **({**digests(fit), "variant": variant.digest} if fit else {}),
    }

    def make(draft: Draft) -> None:
        grid = Grid.of(settings)
        grid.check_injections(workspace.profile().injections)
        check_bins(workspace.profile().surveys, grid.psf.edges.tolist(), grid.depth.edges.tolist())
        injections = gating.with_observable(
            pl.concat([a.read() for a in injection_batch]),
            pl.concat([a.read("gate") for a in injection_batch]),
            injection_scores.read(),
            GateSpec.from_json(detectability.json("gate")),
        )
        surface = build_surface(
            injections,
            evaluation.read("thresholds"),
            grid,
            settings,
            {
                **keys,
                "realism": realism.json("report"),
                "gate": detectability.json("gate"),
                "made_of": {"scores": injection_scores.digest, "thresholds": evaluation.digest},
            },
            prior_draws(variant, fit),
        )
        surface.save(draft)
        survey = marginals.survey_weighted(surface, of_hosts(conditions, workspace))
        draft.table(survey, "survey")
        figures.save(figures.surface_map(surface), draft.path("map.png"))
        figures.save(figures.against_theta_e(surface, survey), draft.path("theta_e.png"))
        if split := figures.two_factor(surface):
            figures.save(split, draft.path("two_factor.png"))

    def metadata(made: Artefact) -> dict[str, object]:
        survey = made.read("survey").filter(pl.col("operating_point") == Surface.load(made).point("default").name)
        frozen = freeze(context, workspace, keys["detector"], folder_key(context.partition_key))
        return {
            "verdict": made.facts["verdict"],
            "frozen": frozen,
            "survey_weighted": dg.MetadataValue.md(markdown(survey)),
        }

    return stage(context, workspace, identity, make, metadata)
