"""What the benchmark of catalogues says of many tiles: the same tile again and again in processes, and a whole survey."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl

from lens_assets.science.negatives.pool import pool_of_sweep
from lens_assets.science.negatives.sample import pool_counts
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.sweeping import cuts_of, screened_sweep
from lens_assets.science.surveys.layout import tile_of_file
from lens_assets.science.surveys.settings import Settings as SurveySettings
from lens_assets.science.surveys.sweeps import open_sweep

DR10_ROWS, DR10_FILES = 2_827_055_986, 1436  # DR10 `description` page; number of 10.1 sweep files


def negatives_of(
    path: Path, registry: pl.DataFrame, settings: Settings, surveys: SurveySettings | None = None
) -> pl.DataFrame:
    """The pool of a sweep file and its counts by stratum: what is timed."""
    pool, _, _ = pool_of_sweep(
        path, tile_of_file(path.name).key, registry, load_selection(settings.selection), settings, surveys=surveys
    )
    pool_counts(pool)
    return pool


def passing_of(path: Path, registry: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The objects of a sweep file that pass all cuts and lie near no lens, counted by stratum, without a look at neighbours and
    categories: the steps that astropy's way has, on a proven file."""
    profile, tile = load_selection(settings.selection), tile_of_file(path.name)
    cuts = cuts_of(profile, registry, settings, tile)
    if cuts is None:
        raise RuntimeError("the profile of the benchmark has cuts that are not made in the pass")
    rows = open_sweep(path, tile.key, cuts=replace(cuts, bright=math.inf, stars={}))
    screened = screened_sweep(rows, registry, profile, settings)
    if screened is None:
        raise RuntimeError("the sweep of the benchmark is not in order")
    return screened.left


def seconds_of_file(path: Path, registry: pl.DataFrame, settings: Settings) -> float:
    """Processor seconds that a file costs (median of a few)."""
    took = []
    for _ in range(4):
        start = time.process_time()
        negatives_of(path, registry, settings)
        took.append(time.process_time() - start)
    return sorted(took[1:])[1]


def projection(seconds_per_row: float, seconds_per_file: float, bytes_per_row: float) -> dict[str, Any]:
    """All of DR10 on one core."""
    seconds = DR10_ROWS * seconds_per_row + DR10_FILES * seconds_per_file
    return {
        "dr10_core_hours": seconds / 3600, "dr10_rows": DR10_ROWS, "dr10_files": DR10_FILES,
        "dr10_terabytes": DR10_ROWS * bytes_per_row / 1e12, "seconds_per_file": seconds_per_file,
        "dr10_assumes": "processor time of this run; files already in memory (a disk or network must deliver the terabytes at "
        "the same pace); rows as wide and as many to pass as here; pools not written",
    }  # fmt: skip


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside use one thread each."""
    before = os.environ.get("POLARS_MAX_THREADS")
    os.environ["POLARS_MAX_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["POLARS_MAX_THREADS"]
        else:
            os.environ["POLARS_MAX_THREADS"] = before


def _tile_after_tile(
    path: Path, registry: pl.DataFrame, settings: Settings, tiles: int, start: Any, answers: Any
) -> None:
    """Worker: one tile to warm up, then, when all are ready, ``tiles`` more; puts when it began and ended."""
    negatives_of(path, registry, settings)
    start.wait()
    began = time.monotonic()
    for _ in range(tiles):
        negatives_of(path, registry, settings)
    answers.put((began, time.monotonic()))


def processes(path: Path, registry: pl.DataFrame, settings: Settings, n: int, tiles: int) -> dict[str, Any]:
    """Rows a second of one process of one thread, and of two at once, ``tiles`` tiles each (the same file)."""
    rates = {}
    for count in (1, 2):
        context = get_context("spawn")
        start, answers = context.Barrier(count), context.Queue()
        with _one_thread():
            workers = [
                context.Process(target=_tile_after_tile, args=(path, registry, settings, tiles, start, answers))
                for _ in range(count)
            ]
            for worker in workers:
                worker.start()
        times = [answers.get(timeout=600) for _ in workers]
        for worker in workers:
            worker.join()
        rates[count] = count * tiles * n / (max(end for _, end in times) - min(begin for begin, _ in times))
    return {"rows_1_process": rates[1], "rows_2_processes": rates[2], "scaling": rates[2] / rates[1]}
