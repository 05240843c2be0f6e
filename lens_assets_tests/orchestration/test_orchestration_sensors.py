"""What arrives becomes partitions and events: through the sensors' one look, and through the chain's."""

import json
import os
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_assets.assets.stage import digests, stage
from lens_assets.automation import watch
from lens_assets.automation.changes import changes, may_withdraw
from lens_assets.automation.sensors import AXES, GATHERERS, build_sensors, look, synchronise, tick
from lens_assets.definitions import defs
from lens_assets.partitions import ALL
from lens_assets.resources.workspace import Workspace
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Artefact

# Dagster's own initialisation of a nested resource calls what Dagster has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning")

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

    def write(self, key: str, text: str = "") -> Path:
        """Write a file of its own content: two of the same would be one catalogue delivered twice."""
        return self.settled(self.path(key), text or TEXT.replace("A1", f"of-{key}"))


@pytest.fixture(params=["channel", "tile"])
def files(request, workspace, settled) -> Files:
    return Files(request.param, workspace, settled)


def context(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorEvaluationContext:
    """A sensor's context as the daemon gives it."""
    return dg.build_sensor_context(instance=instance, cursor=cursor)


def context_by_reference(
    instance: dg.DagsterInstance, workspace, cursor: str | None = None
) -> dg.SensorEvaluationContext:
    """The same, with an instance that the context opens and, when left, closes.

    Left open, its context managers end when the collector finds them, perhaps inside an allocation of ``ContextVar.set``: Python
    3.11 then drops what was set there and hands out freed memory for it, tests later and elsewhere.
    """
    return dg.build_sensor_context(
        instance_ref=instance.get_ref(), definitions=defs, resources={"workspace": workspace}, cursor=cursor
    )


def apply(result: dg.SensorResult, instance: dg.DagsterInstance) -> None:
    """Do what the daemon does with a result."""
    for request in result.dynamic_partitions_requests:
        if isinstance(request, dg.DeleteDynamicPartitionsRequest):
            for key in request.partition_keys:
                instance.delete_dynamic_partition(request.partitions_def_name, key)
        else:
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
    files.write(files.key, TEXT.replace("10.5", "11.5").replace("A1", f"of-{files.key}"))
    os.utime(files.path(files.key), ns=(10**18, files.path(files.key).stat().st_mtime_ns + 1_000_000))
    changed = tick(files.axis, context(instance, result.cursor), workspace)
    assert added(changed) == []
    (event,) = changed.asset_events
    assert event.partition == files.key
    assert event.tags["dagster/data_version"] != result.asset_events[0].tags["dagster/data_version"]


listings = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"))


@given(listings, listings, st.sets(st.sampled_from("abcdef")))
def test_a_key_is_gone_when_it_exists_and_was_at_neither_look(now, before, existing):
    found = changes(now, before, existing)
    assert set(found.gone) == existing - set(now) - set(before)
    assert not set(found.gone) & set(found.vanished)
    assert not changes(now, now, existing=now).gone


@given(st.sets(st.integers(0, 9)), st.booleans())
def test_what_is_missing_may_be_withdrawn_when_nothing_runs_and_half_is_still_there(missing, busy):
    reason = may_withdraw([str(m) for m in missing], [str(k) for k in range(10)], busy=busy)
    assert (reason == "") == (not busy and len(missing) <= 5)


def looked_at_twice(files: Files, workspace, instance) -> tuple[dg.SensorResult, dg.SensorResult]:
    """A file of two disappears, and two looks follow: the results of both."""
    files.write(files.other)
    result = first_look(files, workspace, instance)
    files.path(files.key).unlink()
    gone = tick(files.axis, context(instance, result.cursor), workspace)
    return gone, tick(files.axis, context(instance, gone.cursor), workspace)


def test_a_vanished_file_keeps_its_partition_at_the_first_look_and_is_warned_of(files, workspace, instance, capfd):
    files.write(files.other)
    result = first_look(files, workspace, instance)
    files.path(files.key).unlink()
    capfd.readouterr()
    gone = tick(files.axis, context(instance, result.cursor), workspace)
    assert f"partitions kept: {files.key}" in capfd.readouterr().err
    assert (gone.asset_events, gone.dynamic_partitions_requests, gone.run_requests) == ([], [], [])
    assert set(instance.get_dynamic_partitions(files.axis)) == {files.key, files.other}


def test_a_file_that_stays_away_is_withdrawn_reported_and_what_gathers_it_is_made_anew(
    files, workspace, instance, capfd
):
    _, withdrawn = looked_at_twice(files, workspace, instance)
    assert f"gone, withdrawn: {files.key}" in capfd.readouterr().err
    apply(withdrawn, instance)
    assert instance.get_dynamic_partitions(files.axis) == [files.other]
    (event,) = withdrawn.asset_events
    assert isinstance(event, dg.AssetObservation)
    assert (event.asset_key, event.partition) == (dg.AssetKey(AXES[files.axis][1]), files.key)
    assert event.metadata["withdrawn"].value is True
    (request,) = withdrawn.run_requests
    assert {key.to_user_string() for key in request.asset_selection} == set(GATHERERS[files.axis])
    later = tick(files.axis, context(instance, withdrawn.cursor), workspace)
    assert isinstance(later, dg.SkipReason)


def test_nothing_is_withdrawn_under_a_running_run_and_it_is_when_the_run_has_ended(files, workspace, instance):
    files.write(files.other)
    result = first_look(files, workspace, instance)
    files.path(files.key).unlink()
    gone = tick(files.axis, context(instance, result.cursor), workspace)
    run = dg.DagsterRun(job_name="any", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(run)
    waiting = tick(files.axis, context(instance, gone.cursor), workspace)
    assert isinstance(waiting, dg.SkipReason)
    assert f"gone, not withdrawn (a run is in progress): {files.key}" in waiting.skip_message
    with pytest.raises(BadInput, match="a run is in progress"):
        synchronise(files.axis, workspace, instance)
    assert set(instance.get_dynamic_partitions(files.axis)) == {files.key, files.other}
    instance.report_run_failed(run)
    apply(tick(files.axis, context(instance, gone.cursor), workspace), instance)
    assert instance.get_dynamic_partitions(files.axis) == [files.other]


def test_most_of_an_axis_missing_at_once_is_a_lost_mount_and_withdraws_nothing(files, workspace, instance):
    result = first_look(files, workspace, instance)
    files.path(files.key).unlink()
    gone = tick(files.axis, context(instance, result.cursor), workspace)
    later = tick(files.axis, context(instance, gone.cursor), workspace)
    assert isinstance(later, dg.SkipReason)
    assert "1 of 1 are missing at once: is the folder mounted?" in later.skip_message
    with pytest.raises(BadInput, match="is the folder mounted"):
        synchronise(files.axis, workspace, instance)
    assert instance.get_dynamic_partitions(files.axis) == [files.key]


def test_what_was_withdrawn_is_not_read_by_what_gathers_all_partitions(files, workspace, instance, resources):
    partitions = AXES[files.axis][0]

    @dg.asset(partitions_def=partitions, io_manager_key="artefacts")
    def made(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[Artefact]:
        key = context.partition_key
        return stage(context, workspace, {"key": key}, lambda draft: draft.json("key", key))

    @dg.asset(ins={"made": dg.AssetIn(partition_mapping=ALL)}, io_manager_key="artefacts")
    def gathered(
        context: dg.AssetExecutionContext, workspace: Workspace, made: list[Artefact]
    ) -> dg.MaterializeResult[Artefact]:
        keys = [artefact.json("key") for artefact in made]
        return stage(context, workspace, digests(made), lambda draft: draft.json("keys", keys))

    def keys() -> list[str]:
        dg.materialize([made, gathered], selection=[gathered], instance=instance, resources=resources)
        return workspace.store().get("gathered").json("keys")

    files.write(files.other)
    files.write(files.key)
    synchronise(files.axis, workspace, instance)
    for key in (files.key, files.other):
        dg.materialize([made], partition_key=key, instance=instance, resources=resources)
    assert keys() == sorted([files.key, files.other])
    files.path(files.key).unlink()
    synchronise(files.axis, workspace, instance)
    assert keys() == [files.other]
    files.write(files.key)
    synchronise(files.axis, workspace, instance)
    assert keys() == sorted([files.key, files.other])  # its artefact had stayed


def test_a_file_that_comes_back_after_one_look_is_reported_but_not_added_again(files, workspace, instance):
    files.write(files.other)
    result = first_look(files, workspace, instance)
    files.path(files.key).unlink()
    gone = tick(files.axis, context(instance, result.cursor), workspace)
    files.write(files.key)
    back = tick(files.axis, context(instance, gone.cursor), workspace)
    assert added(back) == []
    assert [event.partition for event in back.asset_events] == [files.key]


def test_a_file_that_comes_back_after_it_was_withdrawn_is_added_again_with_the_version_it_had(
    files, workspace, instance
):
    path = files.write(files.key)
    before = look(files.axis, workspace)[files.key]
    stamp = path.stat().st_mtime_ns
    _, withdrawn = looked_at_twice(files, workspace, instance)
    apply(withdrawn, instance)
    os.utime(files.write(files.key), ns=(stamp, stamp))
    back = tick(files.axis, context(instance, withdrawn.cursor), workspace)
    assert added(back) == [files.key]
    assert look(files.axis, workspace)[files.key] == before or files.axis == "tile"


def test_a_recipe_that_is_gone_is_reported_and_nothing_is_withdrawn(workspace, instance):
    result = tick("detector", context(instance), workspace)
    apply(result, instance)
    instance.add_dynamic_partitions("detector", ["retired-s0"])
    later = tick("detector", context(instance, result.cursor), workspace)
    assert isinstance(later, dg.SkipReason)
    assert "gone, not withdrawn (what was made from it stays): retired-s0" in later.skip_message
    assert "retired-s0" in instance.get_dynamic_partitions("detector")


def test_the_gatherers_are_what_gathers_an_axis_into_the_sample(workspace):
    graph = defs.resolve_asset_graph()
    sample = dg.AssetKey("splits")
    for axis, names in GATHERERS.items():
        direct = {
            key.to_user_string()
            for key in graph.get_ancestor_asset_keys(sample)
            if graph.get(key).partitions_def is None
            and any(graph.get(parent).partitions_def == AXES[axis][0] for parent in graph.get(key).parent_keys)
        }
        assert direct == set(names), axis


def test_one_catalogue_under_two_names_becomes_one_channel_and_is_told(workspace, instance, settled, capfd):
    folder = workspace.catalogue_folder
    settled(folder / "one.csv", TEXT)
    settled(folder / "copy-of-one.csv", TEXT)
    settled(folder / "other.csv", TEXT.replace("10.5", "11.5"))
    result = tick("channel", context(instance), workspace)
    assert added(result) == ["copy-of-one", "other"]
    assert "one is copy-of-one again under another name, passed over" in capfd.readouterr().err
    apply(result, instance)
    later = tick("channel", context(instance, result.cursor), workspace)
    assert "one is copy-of-one again" in later.skip_message
    assert synchronise("channel", workspace, instance).new == ()


def test_of_two_copies_the_one_that_was_known_stays(workspace, instance, settled):
    settled(workspace.catalogue_folder / "one.csv", TEXT)
    result = tick("channel", context(instance), workspace)
    apply(result, instance)
    settled(workspace.catalogue_folder / "a-copy.csv", TEXT)
    assert isinstance(tick("channel", context(instance, result.cursor), workspace), dg.SkipReason)
    assert watch.twins(workspace.catalogue_folder, {"one": ""}) == {"a-copy": "one"}
    assert watch.twins(workspace.catalogue_folder) == {"one": "a-copy"}


def test_one_file_under_two_mappings_that_read_it_differently_is_two_channels(workspace, settled):
    for name, wanted in (("near", "A1"), ("far", "A2")):
        settled(workspace.catalogue_folder / f"{name}.csv", TEXT + "A2,11.5,-1.25,B\n")
        (workspace.catalogue_folder / f"{name}.yaml").write_text(
            f"channel: {name}\nrole: evaluation\nderived_from: [somewhere]\nreference: r\n"
            f"columns: {{lens_id: [name], ra: [RA], dec: [DEC]}}\nfilter: {{column: name, equals: [{wanted}]}}\n"
            "labels: {default: candidate}\n"
        )
    assert list(watch.channels(workspace.catalogue_folder)) == ["far", "near"]
    text = (workspace.catalogue_folder / "near.yaml").read_text().replace("[A1]", "[A2]")
    (workspace.catalogue_folder / "near.yaml").write_text(text)
    assert watch.twins(workspace.catalogue_folder) == {"near": "far"}


def test_a_mapping_that_changes_is_a_change_of_its_catalogue(workspace, settled):
    settled(workspace.catalogue_folder / "one.csv", TEXT)
    before = watch.channels(workspace.catalogue_folder)
    (workspace.catalogue_folder / "one.yaml").write_text(
        "channel: one\nrole: train\ncolumns: {ra: [RA], dec: [DEC]}\nlabels: {default: candidate}\n"
    )
    assert watch.channels(workspace.catalogue_folder)["one"] != before["one"]


def test_a_catalogue_that_is_no_longer_there_is_named(workspace, settled):
    settled(workspace.catalogue_folder / "one.csv", TEXT)
    assert watch.catalogue_file(workspace.catalogue_folder, "one").name == "one.csv"
    with pytest.raises(BadInput, match="channel 'two' is no longer there"):
        watch.catalogue_file(workspace.catalogue_folder, "two")


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
    settled(workspace.catalogue_folder / "old.csv", TEXT.replace("A1", "A0"))
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
    files.write(files.key, TEXT + "A2,11,1,B\n" + files.key)
    assert synchronise(files.axis, workspace, instance).changed == (files.key,)
    assert len(instance.fetch_materializations(asset, limit=10).records) == 3


def test_recipes_and_variants_are_axes_too(workspace, instance):
    for axis, key in (("network", "tiny-s1"), ("detector", "tiny-s1"), ("variant", "sersic-population")):
        result = tick(axis, context(instance), workspace)
        assert key in added(result)
        assert json.loads(result.cursor) == look(axis, workspace)
        assert len(result.asset_events) == len(look(axis, workspace))


def test_each_axis_has_a_running_sensor_and_one_more_renews(workspace, instance_on_disk, settled):
    sensors = {sensor.name: sensor for sensor in build_sensors()}
    assert set(sensors) == {f"{axis}_arrivals" for axis in AXES} | {"renew"}
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}
    settled(workspace.catalogue_folder / "one.csv", TEXT)
    with context_by_reference(instance_on_disk, workspace) as context:
        found = sensors["channel_arrivals"].evaluate_tick(context)
    assert [request.partition_keys for request in found.dynamic_partitions_requests] == [["one"]]


def test_the_daemon_accepts_a_withdrawal_with_its_run_and_its_observation(workspace, instance_on_disk, settled):
    (sensor,) = [s for s in build_sensors() if s.name == "channel_arrivals"]
    for name in ("one", "two"):
        settled(workspace.catalogue_folder / f"{name}.csv", TEXT.replace("A1", name))
    cursor = None
    for _ in range(4):
        with context_by_reference(instance_on_disk, workspace, cursor) as context:
            result = sensor.evaluate_tick(context)
        apply(result, instance_on_disk)
        cursor = result.cursor or cursor
        (workspace.catalogue_folder / "two.csv").unlink(missing_ok=True)
        if result.run_requests:
            break
    (request,) = result.run_requests
    assert [key.to_user_string() for key in request.asset_selection] == ["lens_registry"]
    assert request.tags["lens_assets/withdrawn"] == "two"
    assert instance_on_disk.get_dynamic_partitions("channel") == ["one"]
