"""The sensors: each looks, asks ``changes`` what is different, and tells Dagster. No decision is made here.

A delivered file (a sweep, a catalogue) that is gone is withdrawn: its partition key is removed, so that nothing that gathers
all partitions reads it again, an observation of its external asset says so, and what gathers the axis is made anew. Its
artefacts stay on disk; when the same bytes come back, they are recognised. Until then, and while a run is in progress, it is
reported only.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence

import dagster as dg

from lens_assets.automation import watch
from lens_assets.automation.changes import Changes, changes, may_withdraw
from lens_assets.automation.surroundings import told
from lens_assets.partitions import CHANNEL, DETECTOR, NETWORK, TILE, VARIANT
from lens_assets.resources.workspace import Workspace
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest

AXES: dict[str, tuple[dg.DynamicPartitionsDefinition, str]] = {
    "tile": (TILE, "sweep_files"),
    "channel": (CHANNEL, "channel_files"),
    "network": (NETWORK, "recipes"),
    "detector": (DETECTOR, "compositions"),
    "variant": (VARIANT, "variants"),
}
"""Axis -> its partitions and the external asset that stands for its files."""
GATHERERS: dict[str, tuple[str, ...]] = {"tile": ("negative_sample", "positives"), "channel": ("lens_registry",)}
"""Axis of delivered files -> the unpartitioned assets that gather it first: made anew when a key is withdrawn. What depends on
them follows by its content. (The keys are also the axes that withdraw at all: a recipe's training is not undone.)"""
IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING,
]  # fmt: skip


def look(axis: str, workspace: Workspace, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """Key -> version of what is there now on an axis; raises when it cannot be listed.

    ``before`` is the listing of the last look: a catalogue that is being rewritten keeps its version of then.
    """
    if axis == "tile":
        return watch.tiles(workspace.data_release())
    if axis == "channel":
        return watch.channels(workspace.catalogue_folder, before=before)
    return {"network": watch.networks, "detector": watch.detectors, "variant": watch.variants}[axis]()


def events(axis: str, found: Mapping[str, str], keys: tuple[str, ...]) -> list[dg.AssetMaterialization]:
    """One event of the external asset for each key, with its version as data version."""
    asset = AXES[axis][1]
    return [
        dg.AssetMaterialization(
            asset_key=asset,
            partition=key,
            metadata={"version": found[key]},
            # A digest of the version, not its beginning: of a size and a time the beginning hardly changes.
            tags={"dagster/data_version": digest(found[key])[:16]},
        )
        for key in keys
    ]


def withdrawal(axis: str, keys: Collection[str], before: Mapping[str, str]) -> list[dg.AssetObservation]:
    """One observation of the external asset for each withdrawn key, with the version it last had."""
    return [
        dg.AssetObservation(
            asset_key=AXES[axis][1], partition=key, metadata={"withdrawn": True, "last version": before.get(key, "")}
        )
        for key in sorted(keys)
    ]


def left_alone(
    axis: str, withdrawn: Collection[str], left: Collection[str], workspace: Workspace
) -> list[dg.AssetMaterialization]:
    """What the tiles beside withdrawn ones, of those that are ``left``, have beside them now."""
    return told(withdrawn, left, workspace.store()) if axis == "tile" and withdrawn else []


def _obstacle(axis: str, missing: Collection[str], existing: Collection[str], instance: dg.DagsterInstance) -> str:
    """Why missing keys cannot be withdrawn now, or an empty string."""
    if axis not in GATHERERS:
        return "what was made from it stays"
    busy = bool(instance.get_runs(filters=dg.RunsFilter(statuses=IN_PROGRESS), limit=1))
    return may_withdraw(missing, existing, busy=busy)


def synchronise(axis: str, workspace: Workspace, instance: dg.DagsterInstance) -> Changes:
    """Do once, without a daemon, what the sensor of the axis does: add keys and report what arrived.

    There is one look only, so what is missing now is withdrawn now; a key that cannot be withdrawn raises
    :class:`BadInput`, because the run that follows would stop at it or, worse, read what was made from it before.
    """
    partitions, asset = AXES[axis]
    existing = partitions.get_partition_keys(dynamic_partitions_store=instance)
    before = _reported(asset, existing, instance)
    found = look(axis, workspace, before)
    difference = changes(found, before, existing)
    missing = {*difference.vanished, *difference.gone} & {*existing}
    if missing and axis in GATHERERS:
        if obstacle := _obstacle(axis, missing, existing, instance):
            raise BadInput(f"{axis}: no longer there: {', '.join(sorted(missing))}; {obstacle}")
        for event in withdrawal(axis, missing, before):
            instance.report_runless_asset_event(event)
        for news in left_alone(axis, missing, {*existing} - missing, workspace):
            instance.report_runless_asset_event(news)
        for key in sorted(missing):
            instance.delete_dynamic_partition(str(partitions.name), key)
    if difference.new:
        instance.add_dynamic_partitions(str(partitions.name), list(difference.new))
    for arrival in events(axis, found, difference.arrived):
        instance.report_runless_asset_event(arrival)
    return difference


def _reported(asset: str, keys: Sequence[str], instance: dg.DagsterInstance) -> dict[str, str]:
    """The versions last reported for an external asset's partitions."""
    found: dict[str, str] = {}
    for key in keys:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key]), limit=1
        ).records
        if records and records[0].asset_materialization:
            found[key] = str(records[0].asset_materialization.metadata["version"].value)
    return found


def tick(axis: str, context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult | dg.SkipReason:
    """One look at an axis: what to add, report and withdraw, with the listing as cursor."""
    partitions, _ = AXES[axis]
    existing = partitions.get_partition_keys(dynamic_partitions_store=context.instance)
    before = json.loads(context.cursor) if context.cursor else dict.fromkeys(existing, "")
    found = look(axis, workspace, before)
    difference = changes(found, before, existing)
    remarks = _remarks(axis, workspace, before)
    if difference.vanished:
        remarks.append(f"no longer there, partitions kept: {', '.join(difference.vanished)}")
    withdrawn: tuple[str, ...] = ()
    if difference.gone:
        if obstacle := _obstacle(axis, difference.gone, existing, context.instance):
            remarks.append(f"gone, not withdrawn ({obstacle}): {', '.join(difference.gone)}")
        else:
            withdrawn = difference.gone
            remarks.append(f"gone, withdrawn: {', '.join(withdrawn)}")
    if not (difference.arrived or difference.vanished or withdrawn):
        return dg.SkipReason("; ".join([f"nothing new among {len(found)} on the axis {axis}", *remarks]))
    for remark in remarks:
        context.log.warning(f"{axis}: {remark}")
    changed_keys: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if withdrawn:
        changed_keys.append(partitions.build_delete_request(list(withdrawn)))
    if difference.new:
        changed_keys.append(partitions.build_add_request(list(difference.new)))
    return dg.SensorResult(
        cursor=json.dumps(found, sort_keys=True),
        dynamic_partitions_requests=changed_keys,
        asset_events=[
            *events(axis, found, difference.arrived),
            *withdrawal(axis, withdrawn, before),
            *left_alone(axis, withdrawn, {*existing, *difference.new} - {*withdrawn}, workspace),
        ],
        run_requests=[_remake(axis, withdrawn)] if withdrawn else [],
    )


def _remarks(axis: str, workspace: Workspace, before: Mapping[str, str]) -> list[str]:
    """What is to be told at every look: catalogues that are another one again."""
    if axis != "channel":
        return []
    repeated = watch.twins(workspace.catalogue_folder, before)
    return [f"{key} is {other} again under another name, passed over" for key, other in sorted(repeated.items())]


def _remake(axis: str, withdrawn: Sequence[str]) -> dg.RunRequest:
    """A run of what gathers an axis, because keys were withdrawn from it."""
    return dg.RunRequest(
        run_key=f"withdrawn-{axis}-{digest(sorted(withdrawn))[:12]}-{time.time_ns()}",
        asset_selection=[dg.AssetKey(name) for name in GATHERERS[axis]],
        tags={"lens_assets/withdrawn": ",".join(withdrawn)[:200]},
    )


def _watching(axis: str, description: str, seconds: int) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{axis}_arrivals",
        minimum_interval_seconds=seconds,
        description=description,
        default_status=dg.DefaultSensorStatus.RUNNING,
        target=dg.AssetSelection.assets(*GATHERERS[axis]) if axis in GATHERERS else None,
    )
    def arrivals(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult | dg.SkipReason:
        return tick(axis, context, workspace)

    return arrivals


def build_sensors() -> list[dg.SensorDefinition]:
    """One sensor an axis, and the one that renews what depends on it."""
    return [
        _watching("tile", "New or changed sweep files become tiles; one that is gone is withdrawn.", 30),
        _watching("channel", "New or changed lens catalogues become channels; one that is gone is withdrawn.", 10),
        _watching("network", "New or changed training recipes become networks.", 60),
        _watching("detector", "Networks and new or changed ensembles become detectors.", 60),
        _watching("variant", "New or changed injection variants become partitions.", 60),
        dg.AutomationConditionSensorDefinition(
            name="renew",
            target=dg.AssetSelection.all(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=10,
            description="Renews every asset whose inputs have new content.",
        ),
    ]
