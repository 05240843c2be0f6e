"""From a Dagster run to a Spark driver and back: tiles made by EMR from and to object storage, with the bytes of this machine."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

import lens_assets
from lens_assets.assets import negatives, surveys
from lens_assets.remote import spark_main
from lens_assets.resources.artefacts import ArtefactIOManager
from lens_assets.resources.workspace import Workspace
from lens_assets.science.engines.kernels import make_tile
from lens_assets.science.engines.place import Place
from lens_assets.science.storage import Store

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning"),
]
REPOSITORY = Path(lens_assets.__file__).parents[1]


@pytest.fixture
def far(cloud, java, release, keys, settings_dict, tmp_path, monkeypatch):
    """Everything in the bucket: the release, the driver; the settings in a file that the environment names."""
    for path in release.rglob("*.fits"):
        cloud.s3.upload_file(str(path), "engines-tests", f"dr10/{path.relative_to(release).as_posix()}")
    cloud.s3.upload_file(spark_main.__file__, "engines-tests", "code/spark_main.py")
    file = tmp_path / "emr.yaml"
    file.write_text(yaml.safe_dump({**settings_dict, "partitions": 2}))
    monkeypatch.setenv("LENS_ASSETS_EMR", str(file))
    return Workspace(
        home=str(tmp_path / "home"),
        release="s3://engines-tests/dr10",
        store_root=f"s3://engines-tests/{tmp_path.name}",
        profile_name="paper",
    )


def materialise(workspace: Workspace, keys: list[str], assets: list[str], tile: str | None = None):
    """Run tile assets, one tile or all as a range; the result and the newest event of every tile of the first asset."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("tile", keys)
        defs = dg.Definitions(
            assets=[
                surveys.sweep_files,
                surveys.sweeps,
                surveys.conditions,
                negatives.surroundings,
                negatives.sweep_border,
                negatives.negative_pool,
            ],
            resources={"workspace": workspace, "artefacts": ArtefactIOManager(workspace=workspace)},
        )
        whole = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(a) for a in assets],
            partition_key=tile,
            tags={} if tile else whole,
            raise_on_error=False,
        )
        events = {}
        for key in [tile] if tile else keys:
            filters = dg.AssetRecordsFilter(asset_key=dg.AssetKey(assets[0]), asset_partitions=[key])
            records = instance.fetch_materializations(filters, limit=1).records
            events[key] = records[0].asset_materialization if records else None
        return result, events


def here(release: Path, tmp_path: Path, keys: list[str]) -> tuple[Store, dict[str, str]]:
    """The same tiles made in this process, in a folder; digests by tile."""
    from lens_assets.science.profile import load_profile

    place = Place.of(str(release), str(tmp_path / "here"), tmp_path / "cache-here", load_profile("paper"))
    return Store(place.store), {key: make_tile("sweeps", key, place).digest for key in keys}


def test_a_range_on_a_cluster_comes_back_with_a_digest_a_tile_and_the_bytes_of_this_machine(
    far, cloud, release, keys, tmp_path, monkeypatch
):
    monkeypatch.setenv("LENS_ASSETS_ENGINE", "emr")
    result, events = materialise(far, keys, ["sweeps"])
    assert result.success, [e.step_failure_data.error.to_string() for e in result.all_events if e.is_step_failure]
    store, digests = here(release, tmp_path, keys)
    assert {t: e.tags["dagster/data_version"] for t, e in events.items()} == {t: d[:16] for t, d in digests.items()}
    for tile, event in events.items():
        assert event.metadata["engine"].value == "emr"
        assert event.metadata["EMR cluster"].value in cloud.clusters
        assert event.metadata["worker"].value.split(":")[1] != str(os.getpid())
        assert event.metadata["dagster/row_count"].value == store.get("sweeps", tile).facts["rows"]
        there = far.store().get("sweeps", tile)
        for path in store.get("sweeps", tile).folder.iterdir():
            assert there.file(path.name).read_bytes() == path.read_bytes()
    (steps,) = [c.steps for c in cloud.clusters.values() if c.steps]
    assert [s.state for s in steps] == ["COMPLETED"]


@pytest.mark.slow
def test_pools_that_reach_over_the_edges_of_tiles_are_those_of_this_machine_when_a_cluster_makes_them(
    far, cloud, release, registry, keys, tmp_path, monkeypatch
):
    monkeypatch.setenv("LENS_ASSETS_ENGINE", "emr")
    place = Place.of(str(release), str(tmp_path / "here"), tmp_path / "cache-here", far.profile())
    for store in (far.store(), Store(place.store)):
        with store.draft("lens_registry", made_from={"test": 1}) as draft:
            draft.table(registry)
    for asset in ("sweeps", "sweep_border", "negative_pool"):
        result, events = materialise(far, keys[::-1] if asset == "sweep_border" else keys, [asset])
        assert result.success, [e.step_failure_data.error.to_string() for e in result.all_events if e.is_step_failure]
        for key in keys:
            mine = make_tile(asset, key, place)
            assert events[key].tags["dagster/data_version"] == mine.digest[:16]
            for path in Store(place.store).get(asset, key).folder.iterdir():
                assert far.store().get(asset, key).file(path.name).read_bytes() == path.read_bytes()
    pool = far.store().get("negative_pool", "150p000")
    assert pool.facts["beside"] == ["150p005", "155p000"]
    at_edge = pool.read().filter(pl.col("ra") > 155 - 3 / 3600)
    assert at_edge.height > 30
    assert at_edge["n2_flags"].list.contains("merger-blend-proxy").all()


def test_serverless_makes_a_tile_and_a_bad_one_comes_back_as_a_failure_with_its_file(
    far, cloud, release, keys, tmp_path, monkeypatch
):
    monkeypatch.setenv("LENS_ASSETS_ENGINE", "emr-serverless")
    key = f"dr10/south/sweep/10.1/{next(p.name for p in release.rglob('*.fits') if keys[1] in p.name)}"
    whole = cloud.s3.get_object(Bucket="engines-tests", Key=key)["Body"].read()
    cloud.s3.put_object(Bucket="engines-tests", Key=key, Body=whole[:20_000])
    try:
        result, events = materialise(far, keys, ["sweeps"])
    finally:
        cloud.s3.put_object(Bucket="engines-tests", Key=key, Body=whole)
    assert not result.success
    (text,) = [e.step_failure_data.error.to_string() for e in result.all_events if e.is_step_failure]
    assert "1 of 4 tiles could not be made" in text
    assert "BadInput: file" in text
    assert keys[1] in text
    _, digests = here(release, tmp_path, keys)
    made = {t: e.tags["dagster/data_version"] for t, e in events.items() if e}
    assert made == {t: d[:16] for t, d in digests.items() if t != keys[1]}
    assert [job.state for job in cloud.jobs] == ["SUCCESS"]


@pytest.mark.slow
def test_the_packed_archive_runs_the_kernels_from_another_folder(release, keys, tmp_path):
    done = subprocess.run(
        [REPOSITORY / "deploy" / "pack-venv.sh", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "PACK_HOME": str(Path(sys.base_prefix) / "bin")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    archive = Path(lines["archive"])
    assert archive.is_file()
    assert Path(lines["entry"]).read_bytes() == Path(spark_main.__file__).read_bytes()
    elsewhere = tmp_path / "container" / "environment"
    with tarfile.open(archive) as packed:
        packed.extractall(elsewhere, filter="tar")
    from lens_assets.science.engines.code import package_digest
    from lens_assets.science.profile import load_profile

    place = Place.of(str(release), str(tmp_path / "packed"), tmp_path / "cache", load_profile("paper"))
    program = (
        "import sys; sys.modules['dagster'] = None\n"
        "from lens_assets.science.engines.code import package_digest\n"
        "from lens_assets.science.engines.kernels import make_tile\n"
        "from lens_assets.science.engines.place import Place\n"
        "import lens_assets; assert '/container/' in lens_assets.__file__, lens_assets.__file__\n"
        f"print(package_digest(), make_tile('sweeps', {keys[0]!r}, Place.model_validate_json(sys.stdin.read())).digest)\n"
    )
    made = subprocess.run(
        ["./environment/bin/python", "-c", program],
        cwd=elsewhere.parent, input=place.model_dump_json(), capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    _, digests = here(release, tmp_path, keys[:1])
    assert made.stdout.split() == [package_digest(), digests[keys[0]]]
    assert package_digest() in archive.name
