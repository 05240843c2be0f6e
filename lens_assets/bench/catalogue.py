"""One sweep file to negatives: the platform against astropy's Table, masks and ``search_around_sky``.

A synthetic sweep of one tile (every column of DR10, a DATASUM, number counts rising to faint magnitudes so that few rows pass the
cuts) and a registry of lenses, part of them in the tile. Theirs reads the table, applies the same cuts, HEALPix (astropy's
companion healpy), exclusion and counts per stratum; both must find the same objects. Ours does more inside its time, always: it
proves the file (DATASUM, schema, finite values, identities, bricks, footprint), finds neighbours and N2 categories, and accounts
for every filter alone. ``ratio`` is against the quickest way for them: columns left in the file until they are looked at
(``memmap``), cuts first and the two spatial steps for the few rows left, and no proof of anything. The others are

- ``ratio_guarded``: theirs proves DATASUM, finite values and identities too, as ours cannot help doing;
- ``ratio_table``: plain ``Table.read(path)``, as most write it; ``ratio_every_row``: that, with the spatial steps for every row;
- ``ratio_two_steps``: ours by way of the whole ``sweeps`` table; ``ratio_without_datasum``: ours with that check off;
- ``..._cpu``: the same in processor time of all threads, which other users of the machine disturb less.

``seconds_sweep`` and ``seconds_pool`` tell where our time goes, ``rows_per_core`` is rows a second of processor time. With
``processes``, tiles are run in one process of one thread and in two at once. ``dr10_core_hours`` is the whole survey on one core,
under ``dr10_assumes``.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lens_assets.bench.sweep import SELECTION, TILE, astropy_way, make_file, make_registry, make_rows
from lens_assets.bench.timing import Side, line, seconds_of
from lens_assets.science.negatives.pool import build_pool, pool_of_sweep
from lens_assets.science.negatives.sample import pool_counts
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.surveys.settings import Settings as SurveySettings
from lens_assets.science.surveys.sweeps import open_sweep, read_sweep

DR10_ROWS, DR10_FILES = 2_827_055_986, 1436  # DR10 `description` page; number of 10.1 sweep files
EVERY_ROW = (
    "ra", "dec", "type", "nobs_g", "nobs_r", "nobs_z", "flux_r", "flux_z", "ref_cat", "release", "brickid", "objid"
)  # fmt: skip


def negatives_of(
    path: Path, registry: pl.DataFrame, settings: Settings, surveys: SurveySettings | None = None
) -> pl.DataFrame:
    """The pool of a sweep file and its counts by stratum: what is timed."""
    pool, _, _ = pool_of_sweep(path, TILE.key, registry, load_selection(SELECTION), settings, surveys=surveys)
    pool_counts(pool)
    return pool


def bench_catalogue(
    repeats: int = 5, *, n: int = 1_000_000, n_lenses: int = 5000, processes: bool = True
) -> dict[str, Any]:
    """Sweep rows per second from file to negatives by stratum."""
    settings, profile = Settings(selection=SELECTION), load_selection(SELECTION)
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        path, rows = Path(scratch) / TILE.file, make_rows(n)
        make_file(path, rows)
        registry = make_registry(rows, n_lenses)
        del rows

        def ours(surveys: SurveySettings | None = None) -> pl.DataFrame:
            return negatives_of(path, registry, settings, surveys)

        def two_steps() -> None:
            pool_counts(build_pool(read_sweep(path, TILE.key)[0], registry, profile, settings)[0])

        def theirs(**how: bool) -> Callable[[], object]:
            return lambda: astropy_way(path, registry, settings, **how)

        _agree(
            ours(),
            [astropy_way(path, registry, settings, **how) for how in ({}, {"guards": True}, {"every_row": True})],
        )
        two_steps()
        wall, cpu = _rounds(
            {
                "ours": ours, "theirs": theirs(), "guarded": theirs(guards=True), "table": theirs(memmap=False),
                "every_row": theirs(memmap=False, every_row=True), "two_steps": two_steps,
                "without_datasum": lambda: ours(SurveySettings(verify_datasum=False)),
                "sweep": lambda: open_sweep(path, TILE.key, columns=EVERY_ROW),
            },
            repeats,
        )  # fmt: skip
        core, sweep = float(np.median(cpu["ours"])), float(np.median(wall["sweep"]))
        extras: dict[str, Any] = {
            "ratio_cpu": _ratio(cpu, "theirs"), "ratio_guarded": _ratio(wall, "guarded"),
            "ratio_guarded_cpu": _ratio(cpu, "guarded"), "ratio_table": _ratio(wall, "table"),
            "ratio_table_cpu": _ratio(cpu, "table"), "ratio_every_row": _ratio(wall, "every_row"),
            "ratio_two_steps": _ratio(wall, "theirs", "two_steps"),
            "ratio_without_datasum": _ratio(wall, "theirs", "without_datasum"),
            "seconds_sweep": sweep, "seconds_pool": float(np.median(wall["ours"])) - sweep,
            "seconds_two_steps": float(np.median(wall["two_steps"])), "rows_per_core": n / core, "n": n, "n_lenses": n_lenses,
            "megabytes": path.stat().st_size / 1e6, "negatives": ours().height,
        }  # fmt: skip
        if processes:
            extras |= _processes(path, registry, settings, n, repeats)
        fixed = _fixed_seconds(Path(scratch), registry, settings)
        return line(
            "catalogue", "astropy Table (memmap), masks, search_around_sky, no checks", (wall["ours"], wall["theirs"]), (n, n),
            "rows/s", pl.thread_pool_size(), **extras, **_projection(core / n, fixed, path.stat().st_size / n),
        )  # fmt: skip


def _agree(pool: pl.DataFrame, theirs: list[tuple[set[int], dict[tuple[str, str], int]]]) -> None:
    """Raise unless all sides found the same objects, and some."""
    merged = pool_counts(pool).group_by("type", "stratum_nobs").agg(pl.col("n").sum())
    mine = (set(pool["objid"].to_list()), {(t, b): k for t, b, k in merged.iter_rows()})
    for found in theirs:
        if found != mine or not pool.height:
            raise RuntimeError(f"the sides do not find the same negatives: {pool.height} and {len(found[0])}")


Times = dict[str, list[float]]


def _rounds(sides: dict[str, Side], repeats: int) -> tuple[Times, Times]:
    """Seconds of each side by the clock, and in processor time of all threads: rounds of all sides, each begun by another."""
    wall: Times = {name: [] for name in sides}
    cpu: Times = {name: [] for name in sides}
    names = list(sides)
    for k in range(repeats):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = time.process_time()
            wall[name].append(seconds_of(sides[name]))
            cpu[name].append(time.process_time() - start)
    return wall, cpu


def _ratio(seconds: Times, theirs: str, mine: str = "ours") -> float:
    """Median over the rounds."""
    return float(np.median(np.array(seconds[theirs]) / np.array(seconds[mine])))


def _fixed_seconds(folder: Path, registry: pl.DataFrame, settings: Settings) -> float:
    """Processor seconds a file costs however few rows it has."""
    path = folder / "few" / TILE.file
    path.parent.mkdir()
    make_file(path, make_rows(100))
    took = []
    for _ in range(4):
        start = time.process_time()
        negatives_of(path, registry, settings)
        took.append(time.process_time() - start)
    return float(np.median(took[1:]))


def _projection(seconds_per_row: float, seconds_per_file: float, bytes_per_row: float) -> dict[str, Any]:
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


def _processes(path: Path, registry: pl.DataFrame, settings: Settings, n: int, tiles: int) -> dict[str, Any]:
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
