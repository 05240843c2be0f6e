"""Stamps from a misbehaving viewer service, through Dagster to the checks of the sample: killed, resumed, equal to bricks."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.hashing import seed_of
from lens_assets.science.storage import Store, verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TESTS = Path(__file__).parents[1]
TINY = TESTS.parent / "lens_assets" / "config" / "profiles" / "tiny.yaml"
UNTIL_SPLITS = ("sweeps", "lens_channel", "lens_registry", "lens_matches", "splits")
STAMPS = ("cutouts", "cutout_quality")
CHECKS = {
    "one_source", "noise_at_chance", "no_copies_across_splits", "digests_disjoint", "no_noise_shortcut", "lost_alike",
}  # fmt: skip
SCRIPT = """
import json, os, sys
from pathlib import Path
from lens_assets.cli.home import prepare_home
root, profile, only = Path(sys.argv[1]), sys.argv[2], tuple(sys.argv[3].split(","))
prepare_home(root)
os.environ["LENS_ASSETS_PROFILE"] = profile
import dagster as dg
from lens_assets.chain import run_chain
from lens_assets.cli.mock import write
from lens_assets.definitions import defs
from lens_assets.resources.workspace import Workspace
workspace = Workspace(home=str(root), profile_name=profile)
write(root, "tiny", 20261123, 2)
with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
    for done in run_chain(defs, workspace, instance, only=only):
        print(done.step.title, done.partition, flush=True)
    wanted = dg.AssetKey("cutout_quality")
    checks = {}
    for run in instance.get_runs():
        for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            found = record.dagster_event.event_specific_data
            checks.setdefault(found.check_name, found.passed)
(root / "checks.json").write_text(json.dumps(checks))
"""


def begin(home: Path, profile: Path, only: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Run these steps of the chain in a process group of its own, its output in a file beside the home."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LENS_ASSETS", "DAGSTER"))}
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(home), str(profile), ",".join(only)],
            env=env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=home.parent,
            start_new_session=True,
        )  # fmt: skip


def finish(home: Path, profile: Path, only: tuple[str, ...]) -> None:
    """Run them to their end."""
    process = begin(home, profile, only)
    assert process.wait(timeout=900) == 0, home.with_suffix(".log").read_text()[-4000:]


def profile_of(path: Path, **cutouts: Any) -> Path:
    """The tiny profile with other settings of the cutouts."""
    content = yaml.safe_load(TINY.read_text())
    content["cutouts"] |= cutouts
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with everything until the splits."""
    root = tmp_path_factory.mktemp("sampled")
    finish(root / "home", profile_of(root / "tiny-brick.yaml"), UNTIL_SPLITS)
    return root / "home"


@pytest.fixture(scope="module")
def copy(sampled: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Copies of that home, without what Dagster remembers of it."""

    def made(name: str) -> Path:
        home = tmp_path_factory.mktemp(name) / "home"
        shutil.copytree(sampled, home, ignore=shutil.ignore_patterns("dagster", "checks.json"))
        return home

    return made


@pytest.fixture(scope="module")
def bricks(copy: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same home with stamps cut from bricks."""
    home = copy("bricks")
    finish(home, profile_of(tmp_path_factory.mktemp("profile") / "tiny-brick.yaml"), STAMPS)
    return home


def misbehave(n: int, query: dict[str, str], honest: Any) -> Any:
    """A third of the positions are answered wrongly at first, and two of a hundred are empty in one band for good."""
    kind = seed_of("misbehave", query["ra"], query["dec"]) % 100
    if kind < 2:
        status, headers, body = honest(query)
        return status, headers, _emptied(body)
    if n:
        return None
    return {
        2: "reset", 3: "cut", 4: (429, {"Retry-After": "0.2"}, b"slow down"), 5: (502, {}, b"bad gateway"),
        6: (200, {"Content-Type": "text/html"}, b"<h1>try again</h1>"), 7: (200, {"Content-Type": "image/fits"}, b""),
    }.get(kind // 4)  # fmt: skip


def _emptied(body: bytes) -> bytes:
    """The answer with the r image exactly zero, as where nothing was observed."""
    import io

    from astropy.io import fits

    with fits.open(io.BytesIO(body)) as hdus:
        for hdu in hdus[1:]:
            if (hdu.header["BAND"], hdu.header["IMAGETYP"]) == ("r", "image"):
                hdu.data[:] = 0
        out = io.BytesIO()
        hdus.writeto(out)
    return out.getvalue()


@pytest.fixture
def service(sampled: Path) -> Iterator[Any]:
    """The viewer service, misbehaving."""
    yield from _served(sampled, misbehave)


@pytest.fixture
def honest_service(sampled: Path) -> Iterator[Any]:
    """The viewer service as it should be, in every mode (``misbehave`` knows the layout of one)."""
    yield from _served(sampled, lambda n, query, honest: None)


def _served(sampled: Path, behaviour: Callable[[int, dict[str, str], Any], Any]) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("viewer_server", TESTS / "cutouts" / "viewer_server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (release,) = {p.parents[1] for p in sampled.rglob("south/coadd")}
    made = module.Service(release, behaviour)
    yield made
    made.close()


def viewer_profile(path: Path, url: str, **more: Any) -> Path:
    """Stamps from the service, as fast as it can: the pace changes no pixel."""
    viewer = {"base_url": url, "rate": 50.0, "burst": 4, "backoff": 0.05, "backoff_max": 0.4, "attempts": 4} | more
    return profile_of(path, source="viewer", viewer=viewer)


def stamps_of(home: Path) -> tuple[ShardSet, pl.DataFrame]:
    """The stamps of a home and what was rejected."""
    store = Store(home / "store")
    found = [store.get("cutouts", tile) for tile in store.partitions("cutouts")]
    for artefact in found:
        verify(artefact)
    return ShardSet([a.folder for a in found]), pl.concat([a.read("rejected") for a in found])


def test_a_run_from_the_service_is_killed_resumed_and_ends_with_the_pixels_of_the_bricks(
    copy, bricks, service, tmp_path
):
    home = copy("viewer")
    profile = viewer_profile(tmp_path / "tiny-viewer.yaml", service.url)
    process = begin(home, profile, STAMPS)
    try:
        while len(list((home / "work" / "viewer").glob("*/viewer-*/*.fits"))) < 40:
            assert process.poll() is None, home.with_suffix(".log").read_text()[-4000:]
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(0.3)  # answers that were on their way
    answered = [p.stem for p in (home / "work" / "viewer").glob("*/viewer-*/*.fits")]
    places = dict(
        Store(home / "store").get("splits").read().select("galaxy_id", pl.concat_list("ra", "dec")).iter_rows()
    )
    before = len(service.asked)
    finish(home, profile, STAMPS)
    again = set(service.asked[before:])
    assert len(answered) >= 40
    assert not [name for name in answered if tuple(places[name]) in again]

    got, lost = stamps_of(home)
    want, lost_there = stamps_of(bricks)
    empty = lost.filter(pl.col("reason") == "band r is empty")["galaxy_id"]
    assert len(empty) > 0
    common = want.index["galaxy_id"].filter(~want.index["galaxy_id"].is_in(empty.to_list())).sort()
    assert got.index["galaxy_id"].sort().to_list() == common.to_list()
    np.testing.assert_array_equal(got.images(common), want.images(common))
    np.testing.assert_array_equal(got.invvar(common), want.invvar(common))
    assert set(got.index["source"]) == {"viewer-native"}
    assert got.index.height + lost.height == want.index.height + lost_there.height
    checks = json.loads((home / "checks.json").read_text())
    assert CHECKS | {"all_accounted"} <= set(checks)
    assert all(checks[name] for name in CHECKS | {"all_accounted"})
    facts = Store(home / "store").get("cutout_quality").facts
    assert {key.split(": ")[1] for key in facts["sources"]} == {"viewer-native"}
    assert not list((home / "work" / "viewer").glob("*"))

    undisturbed = copy("undisturbed")
    finish(undisturbed, profile, STAMPS)
    digests = [
        [Store(h / "store").get(asset, key).digest for asset in STAMPS for key in Store(h / "store").partitions(asset)]
        for h in (home, undisturbed)
    ]
    assert digests[0] == digests[1]


def test_one_class_from_the_service_and_one_from_bricks_is_blocked(copy, bricks, honest_service, tmp_path):
    """Resampled stamps for one tile, slices for the others: the sample is refused by the check of its sources."""
    home = tmp_path / "mixed" / "home"
    shutil.copytree(bricks, home, ignore=shutil.ignore_patterns("dagster", "checks.json"))
    other = copy("other")
    finish(other, viewer_profile(tmp_path / "tiny-viewer.yaml", honest_service.url, mode="cutout"), ("cutouts",))
    tile = Store(home / "store").partitions("cutouts")[0]
    shutil.rmtree(home / "store" / "cutouts" / tile)
    shutil.copytree(other / "store" / "cutouts" / tile, home / "store" / "cutouts" / tile)
    process = begin(home, profile_of(tmp_path / "tiny-brick-again.yaml"), ("cutout_quality",))
    assert process.wait(timeout=900) != 0
    assert "stamps come from 2 sources" in home.with_suffix(".log").read_text()
