"""A small survey of a few tiles in DR10's layout, with a registry of lenses: what every engine is asked to make."""

import copy
import gc
import importlib.util
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lens_assets.bench import catalogue
from lens_assets.science.columns.lenses import LENS_REGISTRY
from lens_assets.science.engines.place import Place
from lens_assets.science.mock.sweepfile import write_sweep
from lens_assets.science.profile import load_profile
from lens_assets.science.storage import Artefact, Store
from lens_assets.science.surveys.layout import Tile

TILES = (Tile(150, 0), Tile(155, 0), Tile(150, 5), Tile(0, -5))
ROWS = 1500
ASSETS = ("sweeps", "conditions", "sweep_border", "lens_matches", "negative_pool")
EDGE = 155.0
"""RA at which the first two tiles meet."""


def registry_of(rows, n: int = 40) -> pl.DataFrame:
    """A ``lens_registry`` with ``n`` systems, part of them on objects of ``rows``."""
    some = catalogue.make_registry(rows, n)
    defaults = {
        "z_lens": 0.5, "z_source": None, "theta_e": 1.2, "kind": "galaxy", "label": "visual_A", "tier": "A", "weight": 0.9,
        "n_members": 1, "extent_arcsec": 0.0, "trains": True, "independent": False, "conflict_z": False,
        "conflict_theta_e": False, "conflict_grade": False, "conflict_label": False, "conflict_kind": False,
    }  # fmt: skip
    frame = some.with_columns(
        **{k: pl.lit(v) for k, v in defaults.items()}, channels=pl.lit(["mock"]), lens_ids=pl.lit(["mock:1"])
    )
    return LENS_REGISTRY.conform(frame)


def to_the_edge(rows: np.ndarray, tile: Tile, n: int = 60) -> np.ndarray:
    """The same rows, but some galaxies of the first two tiles lie 2 arcsec from where these meet, in pairs."""
    if tile in TILES[:2]:
        some = np.flatnonzero(rows["TYPE"] != b"PSF")[:n]
        rows["RA"][some] = EDGE + (-2 if tile == TILES[0] else 2) / 3600
        rows["DEC"][some] = 0.5 + np.arange(n) * 0.05
        for band in "GRZ":
            rows[f"FLUX_{band}"][some], rows[f"NOBS_{band}"][some] = 30.0, 5
    return rows


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data release of four sweeps."""
    root = tmp_path_factory.mktemp("release")
    patch = pytest.MonkeyPatch()
    for number, tile in enumerate(TILES):
        patch.setattr(catalogue, "TILE", tile)
        path = root / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sweep(path, to_the_edge(catalogue.make_rows(ROWS + number), tile), {})
    patch.undo()
    return root


@pytest.fixture(scope="session")
def registry() -> pl.DataFrame:
    """Systems near objects of the first tile."""
    return registry_of(catalogue.make_rows(ROWS))


@pytest.fixture
def new_place(release: Path, registry: pl.DataFrame, tmp_path: Path):
    """Make an empty installation over the survey, with its registry; called as often as places are needed."""

    def make(name: str = "home") -> Place:
        place = Place.of(str(release), str(tmp_path / name / "store"), tmp_path / "cache", load_profile("paper"))
        with Store(place.store).draft("lens_registry", made_from={"test": 1}) as draft:
            draft.table(registry)
        return place

    return make


@pytest.fixture(scope="session")
def keys() -> list[str]:
    """Keys of the tiles."""
    return sorted(tile.key for tile in TILES)


def bytes_of(artefact: Artefact) -> dict[str, bytes]:
    """Every file of an artefact."""
    return {path.name: path.read_bytes() for path in sorted(artefact.folder.iterdir())}


@pytest.fixture(scope="session")
def java() -> Iterator[None]:
    """Java, or a skip that says so; the Spark session of this process is ended at the end."""
    if shutil.which("java") is None:
        pytest.skip("no Java: run deploy/setup-java.sh")
    yield
    from lens_assets.science.engines.spark import stop

    stop()
    _collect()


@pytest.fixture
def spark(java: None) -> Iterator[None]:
    """Spark may be used. Its gateway leaves sockets to the garbage collector: collected here, not in somebody else's test."""
    yield
    _collect()


def _collect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


# --- EMR: a moto server with a worker that runs what is submitted -----------------------------------------------------


def _module(name: str):
    path = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"engines_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emr_module():
    """The stand-in for EMR as a module."""
    pytest.importorskip("moto")
    return _module("emr_worker")


@pytest.fixture(scope="module")
def cloud(emr_module, tmp_path_factory: pytest.TempPathFactory):
    """The server and its worker, empty, with a bucket; the environment of this process points at it."""
    import boto3
    from moto.emrserverless import models as serverless_models
    from moto.server import ThreadedMotoServer

    before = serverless_models.JOB_STATUS
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://127.0.0.1:{1}".format(*server.get_host_and_port())
    patch = pytest.MonkeyPatch()
    for key, value in emr_module.environment(url).items():
        patch.setenv(key, value)
    worker = emr_module.Worker(url, tmp_path_factory.mktemp("emr"))
    emr_module.teach_moto(worker)
    worker.start()
    s3 = boto3.client("s3")
    # moto's books are one for all servers of a process: only what is ours is made and taken away
    s3.create_bucket(Bucket=emr_module.BUCKET, CreateBucketConfiguration={"LocationConstraint": emr_module.REGION})
    worker.s3 = s3
    yield worker
    worker.stop()
    worker.forget()
    for item in s3.list_objects_v2(Bucket=emr_module.BUCKET).get("Contents", []):
        s3.delete_object(Bucket=emr_module.BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=emr_module.BUCKET)
    server.stop()
    patch.undo()
    serverless_models.JOB_STATUS = before
    assert not worker.trouble, worker.trouble[0]


SETTINGS = {
    "region": "us-west-2",
    "bucket": "engines-tests",
    "prefix": "work/emr",
    "archive": "s3://engines-tests/code/lens-assets-1.tar.gz",
    "entry": "s3://engines-tests/code/spark_main.py",
    "max_hours": 2,
    "poll_seconds": 0.1,
    "log_wait_seconds": 5,
    "cluster": {
        "primary": {"instance_type": "m7i.xlarge", "count": 1},
        "core": {"instance_type": "m7i.2xlarge", "count": 2},
        "task": {"instance_type": "m7i.2xlarge", "count": 6, "spot": True, "spot_max_usd": 0.25},
        "service_role": "EMR_DefaultRole_V2",
        "instance_profile": "EMR_EC2_DefaultRole",
        "subnet": "subnet-0a1b2c3d",
        "idle_minutes": 15,
        # classifications that would replace those of a client that passes its session through them
        "configurations": [
            {"Classification": "spark-defaults", "Properties": {"spark.sql.shuffle.partitions": "64"}},
            {"Classification": "spark-env", "Configurations": [{"Classification": "export", "Properties": {"A": "b"}}]},
        ],
    },
    "serverless": {
        "release_label": "emr-7.13.0",
        "execution_role": "arn:aws:iam::123456789012:role/emr-serverless",
        "idle_minutes": 10,
        "max_vcpu": 64,
        "max_memory_gb": 256,
    },
}


@pytest.fixture
def settings_dict() -> dict:
    """Valid settings of EMR as they stand in a YAML file, to be turned."""
    return copy.deepcopy(SETTINGS)
