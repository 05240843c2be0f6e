"""MLflow as the assets use it: one run a training, one run a detector (with all that is known of it), and the registry.

The run of a detector holds its parameters, curves, metrics by stratum, figures, gates and the folder that is registered; the
Dagster run that wrote it is linked from its tags, and it from Dagster's metadata. What is written here is told elsewhere
already: deleting MLflow's database loses no result, and the next materialisation writes it again.
"""

import dagster as dg
import polars as pl

from lens_assets.resources.workspace import Workspace
from lens_assets.science.detectors import logged
from lens_assets.science.detectors.compare import answer
from lens_assets.science.detectors.registry import CHAMPION, CHECKPOINT, Registry, frozen_alias, model_name
from lens_assets.science.detectors.tracking import Tracking
from lens_assets.science.storage import Artefact

EXPERIMENT = "lens_assets"
KIND = "lens_assets.kind"


def tracked(
    context: dg.AssetExecutionContext, workspace: Workspace, key: str, name: str, *, kind: str, again: bool = False
) -> Tracking:
    """An MLflow run that carries the Dagster run's id and address (of the last that wrote, and of the last by asset);
    ``kind``: training or detector."""
    asset = context.asset_key.path[-1]
    url = f"{workspace.dagster_url}/runs/{context.run_id}"
    return Tracking.start_run(
        workspace.tracking_uri,
        EXPERIMENT,
        name,
        key=key,
        again=again,
        artifact_root=workspace.root / "mlartifacts",
        tags={
            KIND: kind,
            "lens_assets.profile": workspace.profile().name,
            "dagster.run_id": context.run_id,
            "dagster.run_url": url,
            "dagster.asset": asset,
            "dagster.partition": context.partition_key if context.has_partition_key else "",
            f"dagster.{asset}.run_url": url,
        },
    )


def of_detector(context: dg.AssetExecutionContext, workspace: Workspace, detector: Artefact) -> Tracking:
    """The one run of this detector, taken up again; parameters, curves and checkpoint are there after the first time."""
    key = f"detector {detector.digest}"
    run = tracked(context, workspace, key, detector.partition, kind="detector", again=True)
    if not run.has_params:
        run.params(
            {"detector": detector.partition, "digest": detector.digest, **logged.params_of(detector.json("spec"))}
        )
        run.artifact(detector.folder, CHECKPOINT)
        if "history.parquet" in {f["name"] for f in detector.manifest["files"]}:
            history = detector.read("history")
            curves = [c for c in history.columns if c not in ("epoch", "best")]
            run.curves({c: history[c].to_list() for c in curves}, history["epoch"].to_list())
    return run


def registered(context: dg.AssetExecutionContext, workspace: Workspace, detector: Artefact) -> tuple[Registry, str]:
    """The registry of the profile and the version of this detector in it."""
    registry = Registry(workspace.tracking_uri, model_name(workspace.profile().name))
    version = registry.version_of(detector.digest)
    if version is None:
        with of_detector(context, workspace, detector) as run:
            version = registry.register(run.run_id, detector.partition, detector.digest)
    return registry, version


def freeze(context: dg.AssetExecutionContext, workspace: Workspace, detector: str, surface: str) -> str:
    """Point the alias of a surface at the version of its detector; returns the alias."""
    registry, version = registered(context, workspace, workspace.store().get("detector", detector))
    alias = frozen_alias(surface)
    registry.point(alias, version)
    return f"{registry.model} version {version}, alias {alias}"


def crown(
    context: dg.AssetExecutionContext, workspace: Workspace, detectors: list[Artefact], standing: pl.DataFrame,
    differences: pl.DataFrame,
) -> str:  # fmt: skip
    """Tell each detector's run how it stands, and let the alias ``champion`` follow the rule: to its version, or away."""
    artefacts = {a.partition: a for a in detectors}
    registry = Registry(workspace.tracking_uri, model_name(workspace.profile().name))
    champion = None
    for row in standing.iter_rows(named=True):
        detector = artefacts[row["detector"]]
        tags = {"lens_assets.gates": row["gate_colour"], "lens_assets.standing": row["standing_reason"][:4000]}
        part = differences.filter(pl.col("detector_a") == row["detector"])
        if part.height:
            tags["lens_assets.versus_reference"] = answer(part)[:4000]
        with of_detector(context, workspace, detector) as run:
            run.tags(tags)
            run.metrics(logged.against_itself(differences) if row["champion"] else logged.differences_of(part))
            version = registry.register(run.run_id, detector.partition, detector.digest, tags)
        champion = version if row["champion"] else champion
    if champion is None:
        registry.clear(CHAMPION)
        return f"{registry.model} has no champion"
    registry.point(CHAMPION, champion)
    return f"{registry.model} version {champion}, alias {CHAMPION}"
