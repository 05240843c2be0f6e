"""What a killed run leaves in the instance: a run that looks alive, and its place in a pool. Both are put right."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from lens_assets.chain import end_dead_runs

REPOSITORY = Path(__file__).parents[2]
SLEEPER = """
import os, socket, sys, time
from pathlib import Path
import dagster as dg
from lens_assets.chain import HOST_TAG, PID_TAG

@dg.asset(pool="gpu")
def training():
    Path(sys.argv[2]).touch()
    time.sleep(600)

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    dg.materialize([training], instance=instance, tags={HOST_TAG: socket.gethostname(), PID_TAG: str(os.getpid())})
"""


@dg.asset(pool="gpu")
def training() -> None:
    """A step of the same pool."""


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which a run was killed in the middle of a step that held the only place of its pool."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "dagster.yaml")
    marker = tmp_path / "inside"
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(tmp_path), str(marker)], cwd=REPOSITORY, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not marker.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return tmp_path


@pytest.mark.timeout(180)
def test_a_step_of_a_pool_goes_on_after_the_run_that_held_its_place_was_killed(killed):
    with dg.DagsterInstance.from_config(str(killed)) as instance:
        log = instance.event_log_storage
        (dead,) = instance.get_runs()
        assert log.get_concurrency_info("gpu").active_run_ids == {dead.run_id}
        assert end_dead_runs(instance) == [dead.run_id]
        assert log.get_concurrency_info("gpu").active_run_ids == set()
        assert instance.get_run_by_id(dead.run_id).status is dg.DagsterRunStatus.FAILURE
        assert dg.materialize([training], instance=instance).success
        assert log.get_concurrency_info("gpu").active_run_ids == set()


@pytest.mark.timeout(180)
def test_a_place_held_by_a_run_that_was_already_reported_as_failed_is_given_back(killed):
    with dg.DagsterInstance.from_config(str(killed)) as instance:
        (dead,) = instance.get_runs()
        instance.report_run_failed(dead)
        assert instance.event_log_storage.get_concurrency_info("gpu").active_run_ids == {dead.run_id}
        assert end_dead_runs(instance) == []
        assert dg.materialize([training], instance=instance).success


def test_a_run_that_is_alive_keeps_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        held = []

        @dg.asset(pool="gpu")
        def alive(context: dg.AssetExecutionContext) -> None:
            end_dead_runs(instance)
            held.extend(instance.event_log_storage.get_concurrency_info("gpu").active_run_ids)
            assert held == [context.run.run_id]

        assert dg.materialize([alive], instance=instance).success
        assert len(held) == 1
