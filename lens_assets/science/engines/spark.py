"""Tiles in the tasks of a Spark session: keys go out, reports come back, data goes neither way.

Spark does what it is good at (place tasks, try them again, lose a machine) and nothing else: one row a key, one task a
key, and a function given to ``mapInArrow`` that calls the kernel, which reads and writes storage itself. Handing rows
through the JVM instead costs an order of magnitude (``docs/benchmarks.md``). The same code runs under ``local[n]`` and
on a cluster, where ``spark-submit`` has set the master and shipped the packages.

pyspark is imported inside functions: this module loads without it, and without Java.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from lens_assets.science.engines.local import THREADS
from lens_assets.science.engines.place import Place
from lens_assets.science.engines.report import TileReport

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

SCHEMA = "key string, value string"


class SparkSettings(BaseModel):
    """Settings of the Spark engine (frozen). Nothing here changes a byte of the output.

    ``master``: ``local[2]`` and the like; ``None`` under ``spark-submit``, which knows. ``partitions``: tasks (default: one
    a key). ``threads``: polars threads in a task, to be the cores of a task. ``conf``: further Spark configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    master: str | None = None
    name: str = "lens_assets"
    partitions: int | None = Field(None, ge=1)
    threads: int = Field(1, ge=1)
    conf: dict[str, str] = {}


class NoJava(RuntimeError):
    """Spark cannot start here."""


def session(settings: SparkSettings) -> SparkSession:
    """The running session, or a new one (8-10 s) as the settings say.

    Local sessions talk over the loopback device, use this interpreter in their tasks and show no UI. A local session
    that runs already with another master is used as it is: a process has one.
    """
    from pyspark.sql import SparkSession

    conf = {f"spark.executorEnv.{THREADS}": str(settings.threads), **settings.conf}
    builder = SparkSession.builder.appName(settings.name)
    if settings.master:
        if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
            raise NoJava("Spark needs Java 17 and there is no `java` on the PATH: run deploy/setup-java.sh")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        builder = builder.master(settings.master)
        conf = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.python.worker.reuse": "true",
            "spark.log.level": "WARN",
            **conf,
        }
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def distribute(
    spark: SparkSession, work: Callable[[str], str], keys: Sequence[str], partitions: int | None = None
) -> list[tuple[str, str]]:
    """``(key, work(key))`` of every key, in no order that may be relied on.

    Parameters
    ----------
    work : text to text; pickled to the tasks, where its module must be importable. What it raises fails its task,
        which Spark tries again (``spark.task.maxFailures``) before it gives up the job.
    partitions : tasks; default one a key, so that a slow key keeps nobody waiting and a failed one repeats alone.
    """
    keys = list(keys)
    if not keys:
        return []
    slices = min(partitions or len(keys), len(keys))
    rows = spark.sparkContext.parallelize([(key,) for key in keys], slices)
    frame = spark.createDataFrame(rows, "key string")  # type: ignore[type-var]
    done = frame.mapInArrow(_each(work), SCHEMA).collect()
    return [(row["key"], row["value"]) for row in done]


def _each(work: Callable[[str], str]) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def task(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for key in batch.column(0).to_pylist():
                yield pa.RecordBatch.from_pydict({"key": [key], "value": [work(key)]})

    return task


class TileWork:
    """The work of one tile as a function of its key, small enough to be pickled to every task."""

    def __init__(self, asset: str, place: Place, force: bool) -> None:
        self.asset, self.place, self.force = asset, place.model_dump_json(), force

    def __call__(self, tile: str) -> str:
        from lens_assets.science.engines.kernels import run_tile_apart

        return run_tile_apart(self.asset, tile, Place.model_validate_json(self.place), force=self.force).to_json()


def in_spark(
    asset: str, tiles: Sequence[str], place: Place, settings: SparkSettings, *, force: bool = False
) -> Iterator[TileReport]:
    """Reports of all tiles, after the last is finished; the session stays for the next call."""
    spark = session(settings)
    for _, text in distribute(spark, TileWork(asset, place, force), tiles, settings.partitions):
        yield TileReport.from_json(text)


def stop() -> None:
    """End the session of this process, if one runs."""
    from pyspark.sql import SparkSession

    active: Any = SparkSession.getActiveSession()
    if active is not None:
        active.stop()
