"""Write the shard of a tile: brick by brick, resumable, with bytes that depend on neither workers nor order.

Each brick's stamps become a part: a folder renamed into place when whole, and keyed by the settings, the brick's files
and the rows asked for. A run killed at any moment finds the finished parts again and cuts only the rest; a part made
under other settings or from other pixels has another key and is never reused. The parts are then put together in the
order of ``galaxy_id``.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.cutouts import CUTOUT_REJECTED
from lens_assets.science.cutouts.cut import F32, BrickLike, cut_brick, empty_index, empty_rejected, of_catalogue, peek
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.hashing import digest, seed_of
from lens_assets.science.storage import Draft

IMAGE, INVVAR, INDEX, REJECTED = "image.npy", "invvar.npy", "index", "rejected"
REFUSED, REFUSED_IMAGE, PICTURES = "refused", "refused.npy", "refused.npz"
_PICTURES_OF_TILE = 32
_BLOCK = 256  # stamps copied at a time
Progress = Callable[[int, int], None]


class ReleaseLike(Protocol):
    """What writing needs of a data release; it must be picklable for ``workers > 1``."""

    def brick(self, brickname: str) -> BrickLike: ...


def write_shard(
    draft: Draft,
    release: ReleaseLike,
    rows_of_tile: pl.DataFrame,
    settings: Settings,
    workers: int = 1,
    progress: Progress | None = None,
    work: str | Path | None = None,
) -> dict[str, Any]:
    """Cut all stamps of a tile and write ``image.npy``, ``invvar.npy``, ``index.parquet`` and ``rejected.parquet``; a few
    rejected stamps, for the report's gallery alone, as ``refused.npy`` with the ids in ``refused.parquet``.

    Parameters
    ----------
    draft : where the files go.
    rows_of_tile : ``galaxy_id, brickname, ra, dec``, one row an object, in any order; depths and E(B-V) are kept in the index
        where they are there (``cut.of_catalogue``).
    workers : processes. One brick is one piece of work; threads do not scale here.
    progress : called with (bricks done, bricks in all) after each brick; bricks found finished count at once.
    work : folder for the parts, removed when the shard is whole. ``None``: beside the draft, where they stay until the
        store clears the partition's folder on commit, so that a kill between here and there loses nothing either.

    Returns
    -------
    Facts, also put into ``draft.facts``: rows in and out, rejections by reason, bricks, digests of the settings.
    """
    for name in ("galaxy_id", "brickname", "ra", "dec"):
        if name not in rows_of_tile.columns:
            raise BadInput("cutting needs this column", column=name)
        if rows_of_tile[name].null_count():
            raise BadInput("null", column=name, row=int(rows_of_tile[name].is_null().arg_true()[0]))
    rows = rows_of_tile.select("galaxy_id", "brickname", "ra", "dec").sort("galaxy_id")
    if rows["galaxy_id"].n_unique() != rows.height:
        raise BadInput("an object is asked for twice", column="galaxy_id")
    home = draft.folder.parent if work is None else Path(work)
    folder = home / f".parts-{settings.digest[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)

    bricks = rows.partition_by("brickname", as_dict=True, maintain_order=True)
    jobs = [(str(key[0]), part) for key, part in sorted(bricks.items())]
    parts: dict[str, Path] = {}
    if workers == 1 or len(jobs) < 2:
        for name, part in jobs:
            parts[name] = make_part(folder, release, name, part, settings)
            if progress:
                progress(len(parts), len(jobs))
    else:
        context = multiprocessing.get_context("spawn")  # polars' threads do not survive a fork
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
            futures = {pool.submit(make_part, folder, release, name, part, settings): name for name, part in jobs}
            try:
                for future in as_completed(futures):
                    parts[futures[future]] = future.result()
                    if progress:
                        progress(len(parts), len(jobs))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    known = of_catalogue(rows_of_tile, settings)
    facts = assemble(draft, [parts[name] for name, _ in jobs], rows.height, settings, known)
    draft.facts["bricks"] = facts["bricks"] = len(jobs)
    if work is not None:
        shutil.rmtree(home, ignore_errors=True)
    return facts


def make_part(work: Path, release: ReleaseLike, brickname: str, rows: pl.DataFrame, settings: Settings) -> Path:
    """The folder of one brick's stamps below ``work``: the one that is there already, or a new one."""
    brick = release.brick(brickname)
    asked = [rows[name].to_list() for name in ("galaxy_id", "ra", "dec")]
    key = digest("cutout-part", settings.digest, brickname, sorted(brick.files.items()), asked)
    final = work / f"{brickname}-{key[:24]}"
    if final.is_dir():
        return final
    images, invvar, index, rejected = cut_brick(brick, rows, settings)
    lost = rows.filter(pl.col("galaxy_id").is_in(rejected["galaxy_id"].to_list()))
    save_part(final, images, invvar, index, rejected, peek(brick, lost, settings))
    return final


def save_part(
    final: Path,
    images: F32,
    invvar: F32,
    index: pl.DataFrame,
    rejected: pl.DataFrame,
    pictures: tuple[list[str], F32] | None = None,
) -> None:
    """Write a part whole or not at all: into a scratch folder, synced, then renamed to ``final``.

    ``pictures``: ids and stamps of a few rejected objects, for eyes only.
    """
    scratch = final.parent / f".new-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    scratch.mkdir()
    try:
        np.save(scratch / IMAGE, images)
        np.save(scratch / INVVAR, invvar)
        index.write_parquet(scratch / f"{INDEX}.parquet")
        rejected.write_parquet(scratch / f"{REJECTED}.parquet")
        if pictures and pictures[0]:
            np.savez(scratch / PICTURES, ids=np.array(pictures[0]), images=pictures[1])
        for path in (*scratch.iterdir(), scratch):
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        try:
            os.replace(scratch, final)
        except OSError:
            if not final.is_dir():  # another process finished the same part first
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def assemble(
    draft: Draft, parts: list[Path], n_in: int, settings: Settings, known: pl.DataFrame | None = None
) -> dict[str, Any]:
    """Put parts together as a shard in the order of ``galaxy_id``; facts as :func:`write_shard` returns them.

    ``known``: what the catalogue says of the objects (``cut.of_catalogue``), put into the index.
    """
    pieces = [pl.read_parquet(part / f"{INDEX}.parquet").with_columns(part=pl.lit(k)) for k, part in enumerate(parts)]
    index = pl.concat(pieces or [empty_index(settings).with_columns(part=pl.lit(0))]).sort("galaxy_id")
    lost = [pl.read_parquet(part / f"{REJECTED}.parquet") for part in parts]
    rejected = CUTOUT_REJECTED.conform(pl.concat(lost or [empty_rejected()]))
    shape = (index.height, len(settings.bands), settings.size, settings.size)
    owner, row = index["part"].to_numpy(), index["row"].to_numpy()
    runs = np.flatnonzero(np.diff(owner, prepend=-1, append=-1)) if len(owner) else np.zeros(1, np.int64)
    for file in (IMAGE, INVVAR):
        # Plain writes, not a memory map: a full disk is then an error and not a signal.
        with open(draft.path(file), "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for start, stop in itertools.pairwise(runs):
                source = np.load(parts[owner[start]] / file, mmap_mode="r")
                for lo in range(start, stop, _BLOCK):
                    stream.write(source[row[lo : min(lo + _BLOCK, stop)]].tobytes())
    index = index.drop("part").with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    if known is not None:
        told = [name for name in known.columns if name in index.columns]
        index = (
            index.drop(told[1:])
            .join(known.select(told), on="galaxy_id", how="left", maintain_order="left")
            .select(index.columns)
        )
    draft.table(index, INDEX)
    draft.table(rejected, REJECTED)
    _keep_pictures(draft, parts, settings)

    tally = Rejections(dict(sorted(rejected.group_by("reason").len().iter_rows())))
    tally.check(n_in, index.height)
    facts = {
        "rows_in": n_in,
        "rows": index.height,
        "rejected": tally.counts,
        "stamp": list(shape[1:]),
        "settings": settings.digest,
        "normalisation": settings.normalisation.digest,
    }
    draft.facts.update(json.loads(json.dumps(facts)))
    return facts


def _keep_pictures(draft: Draft, parts: list[Path], settings: Settings) -> None:
    """``refused.npy`` and ``refused.parquet``: a few rejected stamps, those of smallest hash."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for part in parts:
        if (part / PICTURES).is_file():
            with np.load(part / PICTURES) as held:
                found |= dict(zip(held["ids"].tolist(), held["images"], strict=True))
    ids = sorted(sorted(found, key=lambda name: seed_of("refused", name))[:_PICTURES_OF_TILE])
    shape = (0, len(settings.bands), settings.size, settings.size)
    np.save(draft.path(REFUSED_IMAGE), np.stack([found[name] for name in ids]) if ids else np.empty(shape, "<f4"))
    draft.table(pl.DataFrame({"galaxy_id": ids}, schema={"galaxy_id": pl.String}), REFUSED)


def sweep(work: Path) -> None:
    """Remove half-made parts of processes that are gone."""
    for path in work.glob(".new-*"):
        try:
            os.kill(int(path.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:
            continue
