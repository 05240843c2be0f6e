"""The Spark engine against Spark itself: the same cuts and the same counts a stratum from the same Parquet files.

Theirs is native Spark SQL: ``spark.read.parquet``, a filter, a group and a count, all in the JVM with its vectorised reader,
column pruning and push-down. Ours hands the names of the files to tasks (``science.engines.spark.distribute``, the way every
tile is made), which read, cut and count with polars and report a handful of rows. Both run in one session with the same
cores, files and page cache, and must come to the same counts. The cuts are those of the paper's selection of negatives
(type, exposures in three bands, z magnitude, declination) with the known-bad bits left out.

``dr10`` projects all of DR10 onto a stated cluster. It is arithmetic on measured rates and assumptions, each of them a field:
nobody has run it. The rate a core is that of a whole tile on this machine (read a sweep with its checks, pool of negatives),
one kernel at a time with one polars thread.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lens_assets.bench.timing import interleaved, line
from lens_assets.science.engines.spark import SparkSettings, distribute, session
from lens_assets.science.hashing import generator

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TYPES = ("PSF", "REX", "EXP", "DEV", "SER")
NEGATIVE_TYPES = ("SER", "DEV", "REX", "EXP")
NOBS_EDGES = (1, 3, 6, 11)
MAG_Z_MAX, DEC_MAX, NOBS_MIN = 20.0, 32.375, 3
ROW_GROUP = 262_144

DR10_ROWS, DR10_TILES = 2_827_055_986, 1436
"""Primary objects and sweep files of the south (legacysurvey.org, DR10 description and files pages)."""
CLUSTER = {
    "region": "us-west-2",
    "machines": "primary m7i.xlarge, core 2 x m7i.2xlarge on demand, task 8 x m7i.2xlarge spot",
    "cores": 80,
    "usd_per_hour_on_demand": 0.2016 + 2 * 0.4032,
    "usd_per_hour_spot": 8 * 0.4032 * 0.4,
    "usd_per_hour_emr": 0.0504 + 10 * 0.1008,
    "usd_per_hour_disks": (64 + 10 * 128) * 0.08 / 730,
    "usable_share_of_a_core": 0.7,
    "start_minutes": 8.0,
    "idle_minutes": 20.0,
    "mirror_mb_per_s_per_core": 25.0,
    "archive_mb_per_s": 100.0,
}
"""The stated cluster (that of ``deploy/emr.yaml``) and what is assumed of it. Prices are assumptions: list prices as remembered,
spot at 40 % of on-demand, EMR's surcharge a quarter, gp3 disks; look them up for the day and the region. ``mirror``: the
release on S3 in the same region; ``archive``: read over the internet from the public archive, all machines together."""


def make_catalogue(folder: Path, rows: int, files: int, extra: int = 20) -> list[str]:
    """``files`` Parquet files with ``rows`` rows in all: the columns of the cuts, and ``extra`` floats nobody asks for."""
    names = []
    for number in range(files):
        n, g = rows // files, generator("bench-spark", number, rows)
        frame = pl.DataFrame(
            {
                "objid": np.arange(n, dtype=np.int32),
                "type": g.choice(np.array(TYPES), n, p=[0.4, 0.3, 0.12, 0.06, 0.12]),
                "dec": g.uniform(-60, 34, n),
                "mag_z": 23.5 + np.log10(np.maximum(g.random(n), 1e-9)) / 0.3,
                **{f"nobs_{b}": g.integers(0, 15, n).astype(np.int16) for b in "grz"},
                **{f"other_{i:02d}": g.random(n, dtype=np.float32) for i in range(extra)},
            }
        )
        path = folder / f"part-{number:04d}.parquet"
        frame.write_parquet(path, compression="zstd", row_group_size=ROW_GROUP)
        names.append(str(path))
    return names


def count_strata(path: str) -> str:
    """Counts a stratum (TYPE, nobs_z bin) of one file as JSON; runs in the tasks."""
    cuts = [pl.col("type").is_in(NEGATIVE_TYPES), pl.col("dec") < DEC_MAX, pl.col("mag_z") < MAG_Z_MAX]
    cuts += [pl.col(f"nobs_{b}") >= NOBS_MIN for b in "grz"]
    nobs = pl.sum_horizontal((pl.col("nobs_z") >= edge).cast(pl.Int8) for edge in NOBS_EDGES)
    counted = pl.scan_parquet(path).filter(*cuts).group_by("type", nobs.alias("bin")).len().collect()
    return json.dumps(sorted(counted.rows()))


def ours(spark: SparkSession, paths: list[str], partitions: int) -> dict[tuple[str, int], int]:
    """Counts a stratum through the Spark engine."""
    total: dict[tuple[str, int], int] = {}
    for _, text in distribute(spark, count_strata, paths, partitions):
        for kind, nobs, n in json.loads(text):
            total[kind, nobs] = total.get((kind, nobs), 0) + n
    return total


def native(spark: SparkSession, folder: Path) -> dict[tuple[str, int], int]:
    """Counts a stratum in Spark SQL."""
    from pyspark.sql import functions as f

    frame = spark.read.parquet(str(folder))
    cuts = f.col("type").isin(*NEGATIVE_TYPES) & (f.col("dec") < DEC_MAX) & (f.col("mag_z") < MAG_Z_MAX)
    for band in "grz":
        cuts = cuts & (f.col(f"nobs_{band}") >= NOBS_MIN)
    nobs = sum(((f.col("nobs_z") >= edge).cast("int") for edge in NOBS_EDGES), start=f.lit(0))
    counted = frame.filter(cuts).groupBy("type", nobs.alias("bin")).count().collect()
    return {(r["type"], int(r["bin"])): int(r["count"]) for r in counted}


def tile_rate(rows: int) -> dict[str, float]:
    """Seconds and rows a second of one whole tile in a process with one polars thread: sweep read and checked, pool made."""
    import subprocess
    import sys

    program = (
        "import sys, time, tempfile\n"
        "from pathlib import Path\n"
        "from lens_assets.bench import catalogue as c\n"
        "rows = c.make_rows(int(sys.argv[1])); registry = c.make_registry(rows, 5000)\n"
        "folder = tempfile.TemporaryDirectory(); path = Path(folder.name) / c.TILE.file\n"
        "c.write_sweep(path, rows, {})\n"
        "took = []\n"
        "for _ in range(3):\n"
        "    start = time.perf_counter()\n"
        "    frame, _ = c.read_sweep(path, c.TILE.key)\n"
        "    frame.write_parquet(Path(folder.name) / 'sweeps.parquet', compression='zstd')\n"
        "    c.build_pool(frame, registry, c.load_selection(c.SELECTION), c.Settings(selection=c.SELECTION))\n"
        "    took.append(time.perf_counter() - start)\n"
        "print(min(took), path.stat().st_size)\n"
    )
    env = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(rows)], capture_output=True, text=True, check=True, env=env
    )
    seconds, size = (float(word) for word in done.stdout.split())
    return {"seconds": seconds, "rows_per_s": rows / seconds, "bytes_per_row": size / rows}


def project(rows_per_s: float, bytes_per_row: float) -> dict[str, Any]:
    """Hours and dollars of ``sweeps`` and ``negative_pool`` of all DR10 on :data:`CLUSTER`, from the rate of one core here.

    Reading and computing are added, as if they never overlapped. Once with the release on S3, once from the archive.
    """
    c = {key: value for key, value in CLUSTER.items() if isinstance(value, (int, float))}
    megabytes = DR10_ROWS * bytes_per_row / 1e6
    compute = DR10_ROWS / (rows_per_s * c["cores"] * c["usable_share_of_a_core"]) / 3600
    rate = sum(value for key, value in c.items() if key.startswith("usd_per_hour"))
    out: dict[str, Any] = {"hours_computing": round(compute, 3), "usd_per_hour": round(rate, 2)}
    for source, speed in (
        ("mirror", c["mirror_mb_per_s_per_core"] * c["cores"]),
        ("archive", c["archive_mb_per_s"]),
    ):
        reading = megabytes / speed / 3600
        hours = compute + reading + (c["start_minutes"] + c["idle_minutes"]) / 60
        out[source] = {"hours_reading": round(reading, 2), "hours": round(hours, 2), "usd": round(hours * rate, 2)}
    return out | {
        "assumptions": {
            **{k: round(v, 4) if isinstance(v, float) else v for k, v in CLUSTER.items()},
            "rows": DR10_ROWS,
            "tiles": DR10_TILES,
            "terabytes": round(megabytes / 1e6, 2),
            "rows_per_s_per_core": round(rows_per_s),
            "steps": "sweeps (read, checked, written as Parquet) and negative_pool, once; no stamps, no training",
            "not_counted": "requests, storage and transfer of S3, failed attempts, a core of the cluster being another than ours",
        }
    }


def bench_spark(
    repeats: int = 5, *, rows: int = 16_000_000, files: int = 16, tile_rows: int = 200_000, cores: int | None = None
) -> dict[str, Any]:
    """Rows per second from Parquet to counts by stratum, ours against native Spark SQL, and the projection for DR10."""
    from lens_assets.science.engines.spark import stop

    cores = cores or min(os.cpu_count() or 1, 2)
    settings = SparkSettings(
        master=f"local[{cores}]",
        conf={"spark.sql.shuffle.partitions": str(cores), "spark.driver.memory": "2g"},
    )
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        folder = Path(scratch) / "catalogue"
        folder.mkdir()
        paths = make_catalogue(folder, rows, files)
        started = time.monotonic()
        spark = session(settings)
        start_seconds = time.monotonic() - started
        try:
            for _ in range(2):  # workers forked, code of the JVM compiled, files in the page cache: for both
                mine, theirs = ours(spark, paths, cores), native(spark, folder)
            if mine != theirs or not mine:
                raise RuntimeError(f"the sides do not count the same: {sum(mine.values())} and {sum(theirs.values())}")
            seconds = interleaved(lambda: ours(spark, paths, cores), lambda: native(spark, folder), repeats)
        finally:
            stop()
    rate = tile_rate(tile_rows)
    return line(
        "spark", "native Spark SQL, filter and count by stratum", seconds, (rows, rows), "rows/s", cores,
        rows=rows, files=files, counted=sum(mine.values()), seconds_session=round(start_seconds, 1),
        tile=rate, dr10=project(rate["rows_per_s"], rate["bytes_per_row"]),
    )  # fmt: skip
