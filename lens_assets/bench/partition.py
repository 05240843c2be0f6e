"""What the orchestrator costs a partition: a toy asset over a range of partitions, run as ``lens_assets.chain`` runs ours.

One in-process run a partition on an instance configured as the platform's (``dagster.yaml``, SQLite in a folder), events and
all; the asset's own time is taken off. There is no reference: the line has a ``value`` in seconds, of one run a partition, the
dearer way and the one the target is held against. ``single_run`` is the same range as one run, as the job ``tiles_at_once``
makes it; ``cpu`` and ``single_run_cpu`` are the processor seconds of this process a partition, which other users of the machine
do not lengthen: where ``value`` is far above ``cpu``, it was waiting for a processor. (No ``annotations`` import: Dagster
reads the context's type from the function.)
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from lens_assets.cli.home import REPOSITORY
from lens_assets.science.hashing import digest


def toy(keys: list[str], inside: list[float]) -> dg.Definitions:
    """An asset that hashes its partition's name and notes in ``inside`` how long that took."""

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(keys), name="toy")
    def light(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        start = time.perf_counter()
        text = digest(*context.partition_keys)
        inside.append(time.perf_counter() - start)
        return dg.MaterializeResult(metadata={"digest": text})

    return dg.Definitions(assets=[light], executor=dg.in_process_executor)


@contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    """An empty instance configured as the platform's, in a home of its own."""
    before = os.environ.get("DAGSTER_HOME")
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        os.environ["DAGSTER_HOME"] = scratch
        try:
            with dg.DagsterInstance.from_config(str(_configured(Path(scratch)))) as instance:
                yield instance
        finally:
            os.environ.pop("DAGSTER_HOME")
            if before is not None:
                os.environ["DAGSTER_HOME"] = before


def _configured(folder: Path) -> Path:
    """``folder`` with the platform's instance configuration (an empty one without a source tree), telemetry off."""
    source = REPOSITORY / "dagster.yaml"
    if source.is_file():
        shutil.copyfile(source, folder / "dagster.yaml")
    else:
        (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return folder


def bench_partition(repeats: int = 5, *, n: int = 8) -> dict[str, Any]:
    """Seconds per partition of a range of ``n``: the median over ``repeats`` ranges, and the smallest and largest."""
    if repeats < 1 or n < 1:
        raise ValueError(f"{repeats} ranges of {n} partitions measure nothing")
    keys, inside = [f"p{i:03d}" for i in range(n)], list[float]()
    job = toy(keys, inside).resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
    values, at_once, cpu, at_once_cpu = [], [], [], []
    with _instance() as instance:

        def run(**how: Any) -> None:
            if not job.execute_in_process(instance=instance, run_config=quiet, raise_on_error=True, **how).success:
                raise RuntimeError("a run of the toy asset failed")

        run(partition_key=keys[0])  # the first creates the storage
        whole = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        for _ in range(repeats):
            inside.clear()
            start, processor = time.perf_counter(), time.process_time()
            for key in keys:
                run(partition_key=key)
            values.append((time.perf_counter() - start - sum(inside)) / n)
            cpu.append((time.process_time() - processor) / n)
            inside.clear()
            start, processor = time.perf_counter(), time.process_time()
            run(tags=whole)
            at_once.append((time.perf_counter() - start - sum(inside)) / n)
            at_once_cpu.append((time.process_time() - processor) / n)
        made = instance.get_materialized_partitions(dg.AssetKey("toy"))
    if made != set(keys) or min(values) <= 0:
        raise RuntimeError(f"{len(made)} of {n} partitions were made")
    return {
        "name": "partition",
        "value": float(np.median(values)),
        "unit": "s/partition",
        "spread": [float(min(values)), float(max(values))],
        "single_run": float(np.median(at_once)),
        "single_run_cpu": float(np.median(at_once_cpu)),
        "cpu": float(np.median(cpu)),
        "n": n,
        "repeats": repeats,
        "threads": 1,
    }
