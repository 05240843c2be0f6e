"""The history on SQLite: Dagster's own files, readable and writable by Dagster's own storage, by two processes at once, quicker."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from lens_assets.cli.home import REPOSITORY
from lens_assets.resources.history import OPEN_RUNS, EventLog, Runs

KEYS = dg.StaticPartitionsDefinition([f"p{i:02d}" for i in range(12)])
WRITER = """
import sys
import dagster as dg
keys = dg.StaticPartitionsDefinition([f"p{i:02d}" for i in range(12)])
@dg.asset(partitions_def=keys)
def made(): return None
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    print("ready", flush=True)
    sys.stdin.readline()
    for key in keys.get_partition_keys():
        assert dg.materialize([made], instance=instance, partition_key=key).success
"""


@dg.asset(partitions_def=KEYS)
def made() -> None:
    """Nothing."""


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


def make(instance: dg.DagsterInstance, *keys: str) -> list[str]:
    return [dg.materialize([made], instance=instance, partition_key=key).run_id for key in keys]


def dagsters_own(home: Path) -> dg.DagsterInstance:
    """The same folder as Dagster opens it without our block."""
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return dg.DagsterInstance.from_config(str(home))


def test_dagster_reads_what_ours_wrote_and_ours_reads_what_dagster_wrote(home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert (type(instance.event_log_storage), type(instance.run_storage)) == (EventLog, Runs)
        (mine,) = make(instance, "p00")
        told = [e.dagster_event_type for e in instance.all_logs(mine) if e.is_dagster_event]
    ours = (home / "dagster.yaml").read_text()
    with dagsters_own(home) as instance:
        assert not isinstance(instance.event_log_storage, EventLog)
        assert [e.dagster_event_type for e in instance.all_logs(mine) if e.is_dagster_event] == told
        assert dg.DagsterEventType.ASSET_MATERIALIZATION in told
        assert instance.get_run_by_id(mine).is_success
        (theirs,) = make(instance, "p01")
        assert {*instance.event_log_storage.get_all_run_ids()} == {mine, theirs}
    (home / "dagster.yaml").write_text(ours)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert {r.run_id for r in instance.get_runs()} == {mine, theirs}
        assert instance.get_materialized_partitions(dg.AssetKey("made")) == {"p00", "p01"}
        assert [e.dagster_event_type for e in instance.all_logs(theirs) if e.is_dagster_event] == told


def test_a_run_database_has_the_schema_that_dagster_makes(home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (mine,) = make(instance, "p00")
    with dagsters_own(home) as instance:
        (theirs,) = make(instance, "p01")

    def schema(run: str) -> tuple[set[str], str, str]:
        with sqlite3.connect(home / "history" / "runs" / f"{run}.db") as made_by:
            tables = {r[0] for r in made_by.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
            (version,) = made_by.execute("SELECT version_num FROM alembic_version").fetchone()
            (mode,) = made_by.execute("PRAGMA journal_mode").fetchone()
        made_by.close()
        return tables, version, mode

    assert schema(mine) == schema(theirs)
    assert schema(mine)[2] == "wal"


@pytest.mark.timeout(240)
def test_two_processes_write_at_once_and_nothing_is_lost(home):
    other = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert other.stdout.readline().strip() == "ready"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        other.stdin.write("go\n")
        other.stdin.close()
        mine = make(instance, *KEYS.get_partition_keys())
        assert other.wait(200) == 0
        other.stdout.close()
        runs = instance.get_runs()
        assert len(runs) == 2 * len(mine)
        assert all(run.is_success for run in runs)
        events = instance.fetch_materializations(dg.AssetKey("made"), limit=100).records
        assert len(events) == 2 * len(mine)
        assert len(instance.event_log_storage._engines) <= OPEN_RUNS + 1
    assert not [*home.rglob("*.db-wal")], "closed: every log is written back"
    assert not [*home.rglob(".*.db-*")], "no scratch file is left"


def test_a_run_costs_a_fraction_of_what_it_costs_with_dagsters_own_storage(home):
    def processor_seconds(instance: dg.DagsterInstance, key: str) -> float:
        start = time.process_time()
        make(instance, key)
        return time.process_time() - start

    keys = KEYS.get_partition_keys()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        mine = min(processor_seconds(instance, k) for k in keys[:5])
    with dagsters_own(home) as instance:
        theirs = min(processor_seconds(instance, k) for k in keys[5:10])
    assert mine < 0.6 * theirs


def test_the_keys_of_an_axis_are_read_once_and_again_when_this_or_another_storage_changed_them(home, monkeypatch):
    read, plain = [], SqlEventLogStorage.get_dynamic_partitions
    monkeypatch.setattr(
        SqlEventLogStorage, "get_dynamic_partitions", lambda self, name: (read.append(name), plain(self, name))[1]
    )
    with dg.DagsterInstance.from_config(str(home)) as one, dg.DagsterInstance.from_config(str(home)) as other:
        one.add_dynamic_partitions("tile", ["b", "a"])
        assert [list(one.get_dynamic_partitions("tile")) for _ in range(5)] == [["b", "a"]] * 5
        assert len(read) == 1
        other.add_dynamic_partitions("tile", ["c"])
        assert one.get_dynamic_partitions("tile") == ["b", "a", "c"]
        one.delete_dynamic_partition("tile", "a")
        assert one.get_dynamic_partitions("tile") == other.get_dynamic_partitions("tile") == ["b", "c"]
        other.delete_dynamic_partition("tile", "b")
        one.get_dynamic_partitions("tile").append("not a key")
        assert one.get_dynamic_partitions("tile") == ["c"]
        assert one.get_dynamic_partitions("channel") == []
