"""The same bytes from every engine, whatever the order of the tiles and the number of tasks."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from lens_assets.science.engines.kernels import ATTEMPTS, KERNELS, make_tile, run_tile
from lens_assets.science.engines.local import in_process, in_processes
from lens_assets.science.engines.place import Place
from lens_assets.science.engines.report import LostTiles, TileReport, complete
from lens_assets.science.engines.spark import SparkSettings, distribute, in_spark, session
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Store, verify

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]
ASSETS = tuple(KERNELS)
LOCAL = SparkSettings(master="local[2]")


def make_all(place: Place, keys, engine) -> dict[str, TileReport]:
    """Every asset of every tile through an engine; by asset[tile]."""
    made = {}
    for asset in ASSETS:
        for report in complete(asset, keys, engine(asset, place)):
            assert report.ok, report.error
            made[f"{asset}[{report.tile}]"] = report
    return made


def files_of(place: Place, name: str) -> dict[str, bytes]:
    asset, tile = name.removesuffix("]").split("[")
    artefact = Store(place.store).get(asset, tile)
    verify(artefact)
    return {path.name: path.read_bytes() for path in sorted(artefact.folder.iterdir())}


@pytest.fixture
def reference(new_place, keys):
    """The tiles as the in-process engine makes them, in order."""
    place = new_place("reference")
    return place, make_all(place, keys, lambda asset, at: in_process(asset, keys, at))


def assert_same(found: dict[str, TileReport], place: Place, reference) -> None:
    there, expected = reference
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].digest == expected[name].digest, name
        assert found[name].fingerprint == expected[name].fingerprint, name
        assert files_of(place, name) == files_of(there, name), name


def test_the_reference_has_lenses_negatives_and_rejections_to_compare(reference):
    place, made = reference
    assert sum(r.rows for name, r in made.items() if name.startswith("lens_matches")) >= 3
    assert sum(r.rows for name, r in made.items() if name.startswith("negative_pool")) > 50
    assert all(name in files_of(place, "negative_pool[150p000]") for name in ("data.parquet", "attrition.parquet"))


def test_spark_makes_the_same_bytes_in_shuffled_order_and_with_other_partition_counts(
    spark, reference, new_place, keys
):
    for partitions in (None, 3):
        shuffled = random.Random(partitions or 0).sample(keys, len(keys))
        settings = replace_partitions(partitions)
        place = new_place(f"spark-{partitions}")
        found = make_all(place, keys, lambda asset, at, o=shuffled, s=settings: in_spark(asset, o, at, s))
        assert_same(found, place, reference)
        if partitions is None:
            assert len({r.worker for r in found.values()} - {r.worker for r in reference[1].values()}) >= 1


def replace_partitions(partitions: int | None) -> SparkSettings:
    return LOCAL.model_copy(update={"partitions": partitions})


def test_processes_make_the_same_bytes_and_are_not_this_process(reference, new_place, keys):
    place = new_place("processes")
    sweeps = complete("sweeps", keys, in_processes("sweeps", keys[::-1], place, 2))
    expected = reference[1]
    assert [r.digest for r in sweeps] == [expected[f"sweeps[{k}]"].digest for k in keys]
    assert not {r.worker for r in sweeps} & {r.worker for r in expected.values()}


def test_what_one_engine_made_another_recognises(spark, new_place, keys):
    place = new_place()
    first = complete("sweeps", keys, in_spark("sweeps", keys, place, LOCAL))
    second = complete("sweeps", keys, in_process("sweeps", keys, place))
    assert [r.reused for r in first] == [False] * 4
    assert [r.reused for r in second] == [True] * 4
    assert all(not r.reused for r in in_process("sweeps", keys[:1], place, force=True))


def test_a_bad_tile_costs_spark_no_other_tile_and_is_named_with_its_file(spark, new_place, keys, release, tmp_path):
    place = with_truncated_sweep(new_place(), release, tmp_path, keys[1])
    reports = complete("sweeps", keys, in_spark("sweeps", keys, place, LOCAL))
    assert [r.ok for r in reports] == [True, False, True, True]
    assert reports[1].error.startswith("BadInput: file ")
    assert keys[1] in reports[1].error
    assert Store(place.store).partitions("sweeps") == sorted(set(keys) - {keys[1]})


def with_truncated_sweep(place: Place, release: Path, folder: Path, tile: str) -> Place:
    """The place over a copy of the release in which one sweep ends early."""
    root = folder / "broken"
    for path in release.rglob("*.fits"):
        copy = root / path.relative_to(release)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[: 20_000 if tile in path.name else None])
    return place.model_copy(update={"release": str(root)})


def test_spark_hands_keys_to_tasks_and_each_key_is_worked_once(spark, tmp_path):
    keys = [f"k{i}" for i in range(7)]
    for partitions in (None, 1, 2, 50):
        found = distribute(session(LOCAL), Tally(str(tmp_path / f"{partitions}")), keys, partitions)
        assert sorted(found) == [(k, k.upper()) for k in keys]
        assert sorted(p.name for p in (tmp_path / f"{partitions}").iterdir()) == sorted(keys)
    assert distribute(session(LOCAL), Tally("unused"), []) == []


class Tally:
    """Work that leaves a file for each key and fails when it is asked for one twice."""

    __module__ = "__main__"  # pickled by value: the workers cannot import a test

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, key: str) -> str:
        import pathlib

        pathlib.Path(self.folder).mkdir(exist_ok=True)
        (pathlib.Path(self.folder) / key).touch(exist_ok=False)
        return key.upper()


def test_a_place_travels_as_json_with_the_content_of_its_profile(new_place):
    place = new_place()
    again = Place.model_validate_json(place.model_dump_json())
    assert again == place
    assert again.open().profile == place.open().profile
    assert "negatives" in json.loads(place.model_dump_json())["profile"]


def test_a_kernel_that_nobody_knows_is_refused_with_the_known_ones(new_place):
    with pytest.raises(BadInput, match="no tile kernel makes 'cutouts'; there are sweeps, conditions"):
        make_tile("cutouts", "150p000", new_place())


def test_an_input_that_is_not_there_is_named(new_place):
    report = run_tile("conditions", "150p000", new_place())
    assert not report.ok
    assert report.error.startswith("FileNotFoundError: sweeps[150p000] has not been materialised")


def test_storage_that_fails_in_passing_is_tried_again_and_bad_input_is_not(new_place, monkeypatch):
    from lens_assets.science.engines import kernels

    calls, waits = [], []

    def failing(fault, until):
        def make(asset, tile, place, *, force=False):
            calls.append(tile)
            if len(calls) < until:
                raise fault
            return TileReport(asset, tile, digest="d")

        return make

    monkeypatch.setattr(kernels, "make_tile", failing(OSError("connection reset"), 3))
    assert run_tile("sweeps", "t", new_place(), sleep=waits.append).ok
    assert (len(calls), waits) == (3, [5.0, 10.0])
    calls.clear()
    monkeypatch.setattr(kernels, "make_tile", failing(OSError("connection reset"), 99))
    lost = run_tile("sweeps", "t", new_place("b"), sleep=waits.append)
    assert "connection reset" in lost.error
    assert len(calls) == ATTEMPTS
    for fault in (BadInput("wrong", file="f"), FileNotFoundError("gone"), PermissionError("no"), ValueError("bug")):
        calls.clear()
        monkeypatch.setattr(kernels, "make_tile", failing(fault, 2))
        assert not run_tile("sweeps", "t", new_place("c"), sleep=waits.append).ok
        assert len(calls) == 1


def test_an_engine_that_loses_doubles_or_invents_tiles_is_found_out():
    reports = [TileReport("sweeps", t, digest="d") for t in "ab"]
    assert complete("sweeps", ["b", "a"], reports) == reports
    with pytest.raises(LostTiles, match="no report of 1 of 3 tiles: c"):
        complete("sweeps", "abc", reports)
    with pytest.raises(LostTiles, match="nobody asked for: b"):
        complete("sweeps", "a", reports)
    with pytest.raises(LostTiles, match=r"repeated report of sweeps\[a\]"):
        complete("sweeps", "ab", [*reports, reports[0]])
    with pytest.raises(LostTiles, match=r"report of conditions\[b\]"):
        complete("sweeps", "ab", [reports[0], replace(reports[1], asset="conditions")])


def test_a_report_survives_its_journey_as_text():
    report = TileReport("sweeps", "t", "d" * 64, "f", 3, True, 1.5, {"rows": 3, "rejected": {"x": 1}}, "h:1", None)
    assert TileReport.from_json(report.to_json()) == report
    assert "\n" not in report.to_json()


def test_the_engines_load_without_dagster_without_pyspark_and_without_java():
    program = (
        "import sys\n"
        "for n in ('dagster', 'dagster_aws', 'dagster_pipes', 'pyspark'): sys.modules[n] = None\n"
        "import lens_assets.science.engines.spark, lens_assets.science.engines.local\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_driver_loads_without_dagster_and_without_pyspark():
    program = (
        "import sys\n"
        "for n in ('dagster', 'dagster_aws', 'pyspark', 'lens_assets.resources'): sys.modules[n] = None\n"
        "import lens_assets.remote.spark_main\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_no_java_is_said_with_the_remedy(monkeypatch):
    from lens_assets.science.engines.spark import NoJava

    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(NoJava, match=r"deploy/setup-java\.sh"):
        session(LOCAL)


def test_the_rows_of_a_tile_do_not_depend_on_the_threads_of_polars(new_place, keys):
    place = new_place("one-thread")
    program = (
        "import os; os.environ['POLARS_MAX_THREADS'] = '1'\n"
        "import sys, polars\n"
        "from lens_assets.science.engines.kernels import make_tile\n"
        "from lens_assets.science.engines.place import Place\n"
        "assert polars.thread_pool_size() == 1\n"
        "place = Place.model_validate_json(sys.stdin.read())\n"
        f"for asset in {ASSETS!r}: print(make_tile(asset, {keys[0]!r}, place).digest)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=place.model_dump_json(), capture_output=True, text=True, check=True
    )
    other = new_place("all-threads")
    assert pl.thread_pool_size() >= 1
    assert done.stdout.split() == [make_tile(asset, keys[0], other).digest for asset in ASSETS]
