"""The sensors: each looks, asks ``changes`` what is different, and tells Dagster. No decision is made here."""

import json
from collections.abc import Mapping, Sequence

import dagster as dg

from lens_assets.automation import watch
from lens_assets.automation.changes import Changes, changes
from lens_assets.partitions import CHANNEL, DETECTOR, TILE, VARIANT
from lens_assets.resources.workspace import Workspace
from lens_assets.science.hashing import digest

AXES: dict[str, tuple[dg.DynamicPartitionsDefinition, str]] = {
    "tile": (TILE, "sweep_files"),
    "channel": (CHANNEL, "channel_files"),
    "detector": (DETECTOR, "recipes"),
    "variant": (VARIANT, "variants"),
}
"""Axis -> its partitions and the external asset that stands for its files."""


def look(axis: str, workspace: Workspace, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """Key -> version of what is there now on an axis; raises when it cannot be listed.

    ``before`` is the listing of the last look: a catalogue that is being rewritten keeps its version of then.
    """
    if axis == "tile":
        return watch.tiles(workspace.data_release())
    if axis == "channel":
        return watch.channels(workspace.catalogue_folder, before=before)
    return watch.detectors() if axis == "detector" else watch.variants()


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


def synchronise(axis: str, workspace: Workspace, instance: dg.DagsterInstance) -> Changes:
    """Do once, without a daemon, what the sensor of the axis does: add keys and report what arrived."""
    partitions, asset = AXES[axis]
    existing = partitions.get_partition_keys(dynamic_partitions_store=instance)
    before = _reported(asset, existing, instance)
    found = look(axis, workspace, before)
    difference = changes(found, before, existing)
    if difference.new:
        instance.add_dynamic_partitions(str(partitions.name), list(difference.new))
    for event in events(axis, found, difference.arrived):
        instance.report_runless_asset_event(event)
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
    """One look at an axis: what to add and report, with the listing as cursor."""
    partitions, _ = AXES[axis]
    before = json.loads(context.cursor) if context.cursor else {}
    found = look(axis, workspace, before)
    existing = partitions.get_partition_keys(dynamic_partitions_store=context.instance)
    difference = changes(found, before, existing)
    if difference.vanished:
        context.log.warning(f"{axis}: no longer there, partitions kept: {', '.join(difference.vanished)}")
    if not difference:
        return dg.SkipReason(f"nothing new among {len(found)} on the axis {axis}")
    return dg.SensorResult(
        cursor=json.dumps(found, sort_keys=True),
        dynamic_partitions_requests=[partitions.build_add_request(list(difference.new))] if difference.new else [],
        asset_events=events(axis, found, difference.arrived),
    )


def _watching(axis: str, description: str, seconds: int) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{axis}_arrivals",
        minimum_interval_seconds=seconds,
        description=description,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def arrivals(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult | dg.SkipReason:
        return tick(axis, context, workspace)

    return arrivals


def build_sensors() -> list[dg.SensorDefinition]:
    """One sensor an axis, and the one that renews what depends on it."""
    return [
        _watching("tile", "New or changed sweep files of the data release become tiles.", 30),
        _watching("channel", "New or changed lens catalogues become channels; what depends on them is renewed.", 10),
        _watching("detector", "New or changed training recipes become detectors.", 60),
        _watching("variant", "New or changed injection variants become partitions.", 60),
        dg.AutomationConditionSensorDefinition(
            name="renew",
            target=dg.AssetSelection.all(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=10,
            description="Renews every asset whose inputs have new content.",
        ),
    ]
