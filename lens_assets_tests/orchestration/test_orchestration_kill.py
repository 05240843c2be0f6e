"""A demo that is killed (SIGKILL, the whole process group) and started again ends with the bytes of one that was left alone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lens_assets.science.storage import Store, sha256_file, verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TINY = Path(__file__).parents[2] / "lens_assets" / "config" / "profiles" / "tiny.yaml"


def demo(home: Path, profile: Path) -> subprocess.Popen[bytes]:
    """Start a demo in a process group of its own, its output in a file beside the home."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LENS_ASSETS", "DAGSTER"))}
    with open(home.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lens_assets.cli", "demo", "--profile", str(profile), "--home", str(home)],
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=home.parent,
            start_new_session=True,
        )


def finish(home: Path, profile: Path) -> None:
    """Run a demo to its end."""
    process = demo(home, profile)
    try:
        assert process.wait(timeout=1500) == 0, home.with_suffix(".log").read_text()[-3000:]
    finally:
        _kill(process)


def kill_when(home: Path, profile: Path, moment: Callable[[], bool]) -> None:
    """Run a demo until something is there, then kill everything it started."""
    process = demo(home, profile)
    try:
        deadline = time.monotonic() + 1500
        while not moment():
            assert process.poll() is None, f"it ended before: {home.with_suffix('.log').read_text()[-3000:]}"
            assert time.monotonic() < deadline
            time.sleep(0.003)
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def bytes_of(home: Path) -> dict[str, str]:
    """Digest of every artefact of the store and of every file of the release."""
    store = Store(home / "store")
    found = {}
    for asset in sorted(p.name for p in store.root.iterdir()):
        for key in store.partitions(asset):
            artefact = store.get(asset, key)
            verify(artefact)
            found[f"{asset}[{key}]"] = artefact.digest
    for path in sorted((home / "releases").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(home))] = sha256_file(path)
    return found


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny profile with a longer training, so that there is a middle to be killed in."""
    content = yaml.safe_load(TINY.read_text())
    content["detectors"]["overrides"] = {"tiny": {"schedule": {"epochs": 12, "patience": 12}}}
    path = tmp_path_factory.mktemp("profile") / "tiny-longer.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, profile: Path) -> dict[str, str]:
    """What a demo that nobody disturbs writes."""
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    finish(home, profile)
    found = bytes_of(home)
    assert len(found) > 30
    return found


def assert_same(found: dict[str, str], expected: dict[str, str]) -> None:
    """Equal, or the names of what differs."""
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_demo_killed_while_cutting_stamps_ends_with_the_same_bytes(tmp_path, profile, undisturbed):
    home = tmp_path / "home"
    store = Store(home / "store")
    kill_when(home, profile, lambda: any((home / "work" / "cutouts").glob("*/*")))
    assert len(store.partitions("cutouts")) < 3
    assert store.partitions("splits") == ["all"]
    finish(home, profile)
    assert_same(bytes_of(home), undisturbed)


def test_a_demo_killed_while_training_goes_on_from_its_epoch_and_ends_with_the_same_bytes(
    tmp_path, profile, undisturbed
):
    home = tmp_path / "home"
    store = Store(home / "store")
    kill_when(home, profile, lambda: any((home / "work" / "training").glob("*/last.ckpt")))
    assert store.partitions("network") == []
    stamps = {
        key: (store.root / "cutouts" / key / "manifest.json").stat().st_mtime_ns for key in store.partitions("cutouts")
    }
    assert len(stamps) == 3
    finish(home, profile)
    for key, moment in stamps.items():
        assert (store.root / "cutouts" / key / "manifest.json").stat().st_mtime_ns == moment, f"{key} was cut again"
    assert_same(bytes_of(home), undisturbed)
