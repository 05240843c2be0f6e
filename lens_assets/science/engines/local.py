"""Tiles in this process, one after the other, or in a few processes of this machine.

In this process polars uses every core for one tile; in a pool each process gets its share of the threads, which is
quicker for many small tiles and for the single-threaded reading of FITS. The bytes are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from lens_assets.science.engines.kernels import run_tile, run_tile_apart
from lens_assets.science.engines.place import Place
from lens_assets.science.engines.report import TileReport

THREADS = "POLARS_MAX_THREADS"


def in_process(asset: str, tiles: Sequence[str], place: Place, *, force: bool = False) -> Iterator[TileReport]:
    """Reports in the order of ``tiles``."""
    for tile in tiles:
        yield run_tile(asset, tile, place, force=force)


def in_processes(
    asset: str, tiles: Sequence[str], place: Place, workers: int, *, force: bool = False
) -> Iterator[TileReport]:
    """Reports in the order tiles are finished, from ``workers`` spawned processes.

    A process that is killed (memory) fails the tiles it had with ``BrokenProcessPool``; finished artefacts stay.
    (Processes are spawned: a script that calls this needs a ``__main__`` guard.)
    """
    if workers < 1:
        raise ValueError(f"{workers} processes make nothing")
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(
        min(workers, max(len(tiles), 1)), get_context("spawn"), initializer=_limit, initargs=(threads,)
    ) as pool:
        # the asset is named by string and the kernel imported in the child: threads are set before polars is loaded
        for done in as_completed([pool.submit(_work, asset, tile, place.model_dump_json(), force) for tile in tiles]):
            yield TileReport.from_json(done.result())


def _limit(threads: int) -> None:
    os.environ[THREADS] = str(threads)


def _work(asset: str, tile: str, place: str, force: bool) -> str:
    return run_tile_apart(asset, tile, Place.model_validate_json(place), force=force).to_json()
