"""Promotion: the gates of each detector, and how the detectors stand against each other."""

import dagster as dg

from lens_assets.assets.detectors import GPU, GROUP, scoring_code, stamps_of, usable
from lens_assets.assets.logbook import crown, of_detector
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, DETECTOR, SAME
from lens_assets.resources.workspace import Workspace
from lens_assets.science.detectors import checkpoint, compare, compare_figure, logged, shortcuts
from lens_assets.science.detectors.promotion import Candidate, promote
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft

PARTIAL = {"partial": True}
PROBES = (
    "detectors/shortcuts.py", "detectors/probes.py", "detectors/measures.py", "detectors/crossvalidated.py",
    "splits/shortcut.py", "realism",
)  # fmt: skip


@dg.asset(
    **renewing(GROUP, {"python", "pytorch", "numpy", "mlflow"}, pool=GPU),
    partitions_def=DETECTOR,
    ins={
        "detector": dg.AssetIn(partition_mapping=SAME),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "cutouts": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("detector_gates"),
)
def detector_gates(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    detector: Artefact,
    splits: Artefact,
    cutouts: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """Could it tell, or does it tell, lenses by anything but their arcs? Cross-validated probes of metadata, core, profile and
    annulus on what it learnt from, over all and over matched objects; and the frozen detector on hosts, lenses without their
    arc, and impossible rings. Red forbids promotion."""
    profile, stamps = workspace.profile(), stamps_of(cutouts)
    settings = profile.detectors.gates
    identity = {
        "code": code_digest(*scoring_code(detector), *PROBES),
        "settings": [settings, profile.splits.shortcut, profile.realism.bars, profile.realism.bootstrap_draws],
        **digests(detector, splits, cutouts),
    }

    def make(draft: Draft) -> None:
        scorer = checkpoint.load(detector.folder, profile.cutouts.normalisation, profile.detectors)
        table = shortcuts.detector_gates(
            usable(splits, stamps), stamps, scorer, settings, profile.splits, profile.realism
        )
        draft.table(table)
        colour, words = shortcuts.standing(table)
        draft.facts.update(colour=colour, problems=words)
        path = draft.path("gates.png")
        compare_figure.save(compare_figure.gates(table, context.partition_key), path)
        with of_detector(context, workspace, detector) as run:
            run.metrics(logged.gates_of(table))
            run.tags({"lens_assets.gates": colour})
            run.artifact(path, "gates")

    def metadata(made: Artefact) -> dict[str, object]:
        keep = ["gate", "gate_colour", "gate_decides", "gate_value", "gate_lo68", "gate_hi68", "gate_bar", "n", "n_pos"]
        return {"colour": made.facts["colour"], "gates": dg.MetadataValue.md(markdown(made.read().select(keep)))}

    return stage(context, workspace, identity, make, metadata)


@dg.asset(
    **renewing(
        GROUP,
        {"python", "scipy", "mlflow"},
        chosen=True,
        partial=("detector", "detector_scores", "evaluation", "detector_gates"),
    ),
    ins={
        "detector": dg.AssetIn(partition_mapping=ALL, metadata=PARTIAL),
        "detector_scores": dg.AssetIn(partition_mapping=ALL, metadata=PARTIAL),
        "evaluation": dg.AssetIn(partition_mapping=ALL, metadata=PARTIAL),
        "detector_gates": dg.AssetIn(partition_mapping=ALL, metadata=PARTIAL),
        "splits": dg.AssetIn(),
        "positives": dg.AssetIn(),
    },
    metadata=of_table("detector_standing"),
)
def detector_comparison(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    detector: list[Artefact],
    detector_scores: list[Artefact],
    evaluation: list[Artefact],
    detector_gates: list[Artefact],
    splits: Artefact,
    positives: Artefact,
) -> dg.MaterializeResult[Artefact]:
    """Which detector is the champion, and by how much, on which stratum, and with which p each of the others differs from it: all
    that were evaluated on this sample, on the same rows. MLflow's alias follows."""
    settings = workspace.profile().detectors
    current = [
        a for a in evaluation if a.manifest["made_from"].get(f"{splits.asset}[{splits.partition}]") == splits.digest
    ]
    kinds = [{a.partition: a for a in found} for found in (detector, detector_scores, current, detector_gates)]
    keys = sorted(set.intersection(*(set(k) for k in kinds)))
    if not keys:
        raise FileNotFoundError(
            "no detector has scores, an evaluation on these splits, and gates: materialise them first"
        )
    used = [kind[key] for kind in kinds for key in keys]
    identity = {
        "code": code_digest("detectors", "clusters.py"),
        "settings": settings,
        **digests(used, splits, positives),
    }

    def make(draft: Draft) -> None:
        candidates = {
            key: Candidate(
                key, kinds[3][key].read(), kinds[2][key].read(), kinds[2][key].read("thresholds"), kinds[1][key].read()
            )
            for key in keys
        }
        independent = positives.read().select("galaxy_id", "independent").unique("galaxy_id")
        sample = splits.read().join(independent, on="galaxy_id", how="left")
        found = promote(candidates, sample, settings)
        draft.table(found.standing)
        draft.table(found.differences, "differences")
        answers = [compare.answer(part) for _, part in found.differences.group_by("detector_a", maintain_order=True)]
        draft.facts.update(champion=found.champion, reference=found.reference, answers=answers)
        for (other,), part in found.differences.group_by("detector_a", maintain_order=True):
            compare_figure.save(compare_figure.differences(part), draft.path(f"{other}.png"))

    def metadata(made: Artefact) -> dict[str, object]:
        standing = made.read()
        registry = crown(context, workspace, [kinds[0][key] for key in keys], standing, made.read("differences"))
        keep = [
            "detector",
            "champion",
            "gate_colour",
            "value",
            "lo95",
            "hi95",
            "n_pos",
            "metric_difference",
            "p_paired",
        ]
        return {
            "champion": made.facts["champion"] or "none",
            "registry": registry,
            "standing": dg.MetadataValue.md(markdown(standing.select(keep))),
            "answers": dg.MetadataValue.md("\n".join(f"- {line}" for line in made.facts["answers"]) or "one detector"),
            "left_out": len({a.partition for a in detector} - set(keys)),
        }

    return stage(context, workspace, identity, make, metadata)
