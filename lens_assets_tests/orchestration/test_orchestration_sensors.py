"""What arrives becomes partitions and events: through the sensors' one look, and through the chain's."""

import json
import os
from pathlib import Path

import dagster as dg
import pytest

from lens_assets.automation import watch
from lens_assets.automation.sensors import AXES, build_sensors, look, synchronise, tick
from lens_assets.definitions import defs
from lens_assets.science.errors import BadInput

TEXT = "name,RA,DEC,grade\nA1,10.5,-1.25,A\n"


class Files:
    """The files of one axis: how to write, change and remove one."""

    def __init__(self, axis: str, workspace, settled) -> None:
        self.axis, self.settled = axis, settled
        self.folder = {
            "channel": workspace.catalogue_folder,
            "tile": Path(workspace.release_root) / "south" / "sweep" / "10.1",
        }[axis]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key, self.other = {"channel": ("one", "two"), "tile": ("000m005", "150p000")}[axis]

    def path(self, key: str) -> Path:
        if self.axis == "channel":
            return self.folder / f"{key}.csv"
        sky = {"000m005": "sweep-000m005-005p000.fits", "150p000": "sweep-150p000-155p005.fits"}
        return self.folder / sky[key]

    def write(self, key: str, text: str = TEXT) -> Path:
        return self.settled(self.path(key), text)


@pytest.fixture(params=["channel", "tile"])
def files(request, workspace, settled) -> Files:
    return Files(request.param, workspace, settled)


def context(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorEvaluationContext:
    """A sensor's context as the daemon gives it."""
    return dg.build_sensor_context(instance=instance, cursor=cursor)


def apply(result: dg.SensorResult, instance: dg.DagsterInstance) -> None:
    """Do what the daemon does with a result."""
    for request in result.dynamic_partitions_requests:
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))


def added(result: dg.SensorResult) -> list[str]:
    """Partition keys that a result asks to add."""
    return [key for request in result.dynamic_partitions_requests for key in request.partition_keys]


def first_look(files: Files, workspace, instance) -> dg.SensorResult:
    """A file arrives and is reported."""
    files.write(files.key)
    result = tick(files.axis, context(instance), workspace)
    apply(result, instance)
    return result


def test_a_new_file_becomes_a_partition_and_an_event_with_its_data_version(files, workspace, instance):
    result = first_look(files, workspace, instance)
    (request,) = result.dynamic_partitions_requests
    assert request.partitions_def_name == files.axis
    assert added(result) == [files.key]
    (event,) = result.asset_events
    assert (event.asset_key, event.partition) == (dg.AssetKey(AXES[files.axis][1]), files.key)
    assert event.tags["dagster/data_version"]
    assert event.metadata["version"].value == look(files.axis, workspace)[files.key]


def test_a_second_look_at_the_same_files_is_skipped(files, workspace, instance):
    result = first_look(files, workspace, instance)
    again = tick(files.axis, context(instance, result.cursor), workspace)
    assert isinstance(again, dg.SkipReason)
    assert "nothing new among 1" in again.skip_message


def test_a_changed_file_is_reported_with_another_data_version_and_not_added_again(files, workspace, instance):
    result = first_look(files, workspace, instance)
    files.write(files.key, TEXT.replace("10.5", "11.5"))
    os.utime(files.path(files.key), ns=(10**18, files.path(files.key).stat().st_mtime_ns + 1_000_000))
    changed = tick(files.axis, context(instance, result.cursor), workspace)
    assert added(changed) == []
    (event,) = changed.asset_events
    assert event.partition == files.key
    assert event.tags["dagster/data_version"] != result.asset_events[0].tags["dagster/data_version"]


def test_a_vanished_file_keeps_its_partition_and_is_warned_of_once(files, workspace, instance, capfd):
    files.write(files.other)
    result = first_look(files, workspace, instance)
    files.path(files.key).unlink()
    capfd.readouterr()
    gone = tick(files.axis, context(instance, result.cursor), workspace)
    assert f"partitions kept: {files.key}" in capfd.readouterr().err
    assert (gone.asset_events, gone.dynamic_partitions_requests) == ([], [])
    assert set(instance.get_dynamic_partitions(files.axis)) == {files.key, files.other}
    assert isinstance(tick(files.axis, context(instance, gone.cursor), workspace), dg.SkipReason)


def test_a_file_that_comes_back_is_reported_but_not_added_again(files, workspace, instance):
    files.write(files.other)
    result = first_look(files, workspace, instance)
    files.path(files.key).unlink()
    gone = tick(files.axis, context(instance, result.cursor), workspace)
    files.write(files.key)
    back = tick(files.axis, context(instance, gone.cursor), workspace)
    assert added(back) == []
    assert [event.partition for event in back.asset_events] == [files.key]


def test_a_folder_that_is_not_there_raises_and_is_not_an_empty_list(files, workspace, instance):
    result = first_look(files, workspace, instance)
    files.folder.rename(files.folder.with_name("elsewhere"))
    for cursor in (None, result.cursor):
        with pytest.raises(BadInput, match=str(files.folder)):
            tick(files.axis, context(instance, cursor), workspace)
    with pytest.raises(BadInput):
        synchronise(files.axis, workspace, instance)
    assert instance.get_dynamic_partitions(files.axis) == [files.key]


def test_an_empty_folder_is_an_empty_list(files, workspace, instance):
    assert look(files.axis, workspace) == {}
    assert isinstance(tick(files.axis, context(instance), workspace), dg.SkipReason)


def test_a_file_still_being_copied_is_left_for_the_next_look(workspace, instance, settled):
    settled(workspace.catalogue_folder / "old.csv", TEXT)
    fresh = workspace.catalogue_folder / "fresh.csv"
    fresh.write_text(TEXT)
    result = tick("channel", context(instance), workspace)
    assert added(result) == ["old"]
    apply(result, instance)
    settled(fresh, TEXT)
    later = tick("channel", context(instance, result.cursor), workspace)
    assert added(later) == ["fresh"]
    assert [event.partition for event in later.asset_events] == ["fresh"]


def test_a_known_file_that_is_being_rewritten_has_not_vanished(workspace, instance, settled, capfd):
    path = settled(workspace.catalogue_folder / "one.csv", TEXT)
    result = tick("channel", context(instance), workspace)
    apply(result, instance)
    path.write_text(TEXT.replace("A1", "A2"))
    capfd.readouterr()
    meanwhile = tick("channel", context(instance, result.cursor), workspace)
    assert isinstance(meanwhile, dg.SkipReason)
    assert "no longer there" not in capfd.readouterr().err
    settled(path, TEXT.replace("A1", "A2"))
    later = tick("channel", context(instance, result.cursor), workspace)
    assert added(later) == []
    assert [event.partition for event in later.asset_events] == ["one"]


def test_the_moment_a_file_settles_is_measured_from_its_last_change(tmp_path, settled):
    path = settled(tmp_path / "one.csv", TEXT)
    moment = path.stat().st_mtime
    assert watch.channels(tmp_path, now=moment + watch.SETTLED_SECONDS - 0.1) == {}
    assert list(watch.channels(tmp_path, now=moment + watch.SETTLED_SECONDS)) == ["one"]


def test_two_catalogues_of_one_name_are_both_named(workspace, instance, settled):
    for ending in ("csv", "fits"):
        settled(workspace.catalogue_folder / f"twice.{ending}", TEXT)
    with pytest.raises(BadInput, match=r"twice\.csv and twice\.fits"):
        tick("channel", context(instance), workspace)


@pytest.mark.parametrize("name", ["with space.csv", "pipe|key.csv", "-dash.csv", "a..b.csv"])
def test_a_name_that_cannot_be_a_partition_key_is_refused(workspace, instance, settled, name):
    settled(workspace.catalogue_folder / name, TEXT)
    with pytest.raises(BadInput, match="not a valid partition"):
        tick("channel", context(instance), workspace)


def test_files_that_are_no_catalogues_are_passed_over(workspace, settled):
    for name in ("notes.txt", ".hidden.csv", "one.csv.part", "one.csv"):
        settled(workspace.catalogue_folder / name, TEXT)
    assert list(look("channel", workspace)) == ["one"]


def test_synchronise_adds_and_reports_once(files, workspace, instance):
    files.write(files.key)
    files.write(files.other)
    assert synchronise(files.axis, workspace, instance).new == tuple(sorted((files.key, files.other)))
    assert not synchronise(files.axis, workspace, instance)
    asset = dg.AssetKey(AXES[files.axis][1])
    records = instance.fetch_materializations(asset, limit=10).records
    assert sorted(r.partition_key for r in records) == sorted((files.key, files.other))
    files.write(files.key, TEXT + "A2,11,1,B\n")
    assert synchronise(files.axis, workspace, instance).changed == (files.key,)
    assert len(instance.fetch_materializations(asset, limit=10).records) == 3


def test_recipes_and_variants_are_axes_too(workspace, instance):
    for axis, key in (("detector", "tiny-s1"), ("variant", "sersic-population")):
        result = tick(axis, context(instance), workspace)
        assert key in added(result)
        assert json.loads(result.cursor) == look(axis, workspace)
        assert len(result.asset_events) == len(look(axis, workspace))


def test_each_axis_has_a_running_sensor_and_one_more_renews(workspace, instance_on_disk, settled):
    sensors = {sensor.name: sensor for sensor in build_sensors()}
    assert set(sensors) == {f"{axis}_arrivals" for axis in AXES} | {"renew"}
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}
    settled(workspace.catalogue_folder / "one.csv", TEXT)
    found = sensors["channel_arrivals"].evaluate_tick(
        dg.build_sensor_context(
            instance_ref=instance_on_disk.get_ref(), definitions=defs, resources={"workspace": workspace}
        )
    )
    assert [request.partition_keys for request in found.dynamic_partitions_requests] == [["one"]]
