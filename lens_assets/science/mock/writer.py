"""Writes a mock release: bricks in parallel, then sweeps, the brick table, truth and catalogues; resumable and
reproducible.

A brick is complete when its part file (sweep rows and truth, under ``truth/parts``) exists, which is written after
its images; a sweep follows the bricks of its tile; ``release.json`` comes last. Every file is renamed into place, so
a run killed at any moment and started again writes what is missing and ends with the same bytes, with any number of
workers.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from astropy.io import fits
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lens_assets.science.columns.mock import MOCK_LENSES, MOCK_OBJECTS
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import canonical, digest
from lens_assets.science.mock.brick import files_of, make_brick
from lens_assets.science.mock.catalogues import write_catalogues
from lens_assets.science.mock.coadds import replace_with
from lens_assets.science.mock.footprint import BrickPlan, plan, tiles_of
from lens_assets.science.mock.settings import MockSize
from lens_assets.science.mock.sweepfile import SWEEP_DTYPE, write_sweep
from lens_assets.science.mock.truth import plain
from lens_assets.science.surveys.layout import BRICK_TABLE, Tile

Progress = Callable[[str, int, int], None]
REQUEST, RELEASE = ".request.json", "release.json"


@dataclass(frozen=True)
class ReleaseSummary:
    """What a release holds. ``catalogues`` maps file names to rows."""

    size: str
    seed: int
    tiles: int
    bricks: int
    sweep_rows: int
    lenses: int
    observable: int
    catalogues: dict[str, int]
    request: str


def write_release(
    release: Path,
    truth: Path,
    catalogues: Path,
    size: MockSize,
    seed: int = 20261123,
    workers: int = 1,
    progress: Progress | None = None,
    *,
    replace: bool = False,
) -> ReleaseSummary:
    """Write (or finish, or recognise) a mock release.

    Parameters
    ----------
    release, truth, catalogues : three folders, none inside another: what the pipeline reads, what it must never open,
        and the raw
        lens catalogues (CSV, one a channel).
    size : how much sky, and its knobs. seed : of everything random.
    workers : processes; 1 works in this one. (Processes are spawned: a script that calls this needs a ``__main__``
        guard.)
    progress : called as ``progress(what, done, total)``.
    replace : empty the three folders first if they hold another release; else that is a :class:`BadInput`.

    Raises
    ------
    BadInput : a folder holds a release of other settings, seed or code, or the folders are nested.
    """
    release, truth, catalogues = (Path(p).absolute() for p in (release, truth, catalogues))
    _check_folders(release, truth, catalogues)
    request = canonical({"size": size.model_dump(mode="json"), "seed": seed, "code": code_digest()})
    _claim(release, truth, catalogues, request, replace)
    done = release / RELEASE
    if done.exists():
        return ReleaseSummary(**json.loads(done.read_text())["summary"])
    for folder in (release, truth, catalogues):
        folder.mkdir(parents=True, exist_ok=True)
    replace_with(release / REQUEST, lambda p: p.write_text(json.dumps(request, sort_keys=True, indent=1) + "\n"))
    _sweep_dead_scratch(release, truth, catalogues)
    plans = plan(size, seed)
    report = progress or (lambda *_: None)
    missing = [p for p in plans if not _complete(release, truth, p)]
    report("bricks", len(plans) - len(missing), len(plans))
    for i, _ in enumerate(_run(release, truth, size, missing, seed, workers), 1):
        report("bricks", len(plans) - len(missing) + i, len(plans))
    tiles = tiles_of(size, seed)
    rows = 0
    for i, tile in enumerate(tiles, 1):
        rows += _write_tile(release, truth, tile, [p for p in plans if p.tile == tile])
        report("sweeps", i, len(tiles))
    _write_brick_table(release, plans)
    objects, lenses = _write_truth(truth, plans)
    counts = write_catalogues(lenses, objects, catalogues, size.settings, seed)
    summary = ReleaseSummary(
        size.name,
        seed,
        len(tiles),
        len(plans),
        rows,
        len(lenses),
        int(lenses["observable"].sum()),
        counts,
        digest(request),
    )
    text = json.dumps({"request": request, "summary": asdict(summary)}, sort_keys=True, indent=1) + "\n"
    replace_with(done, lambda p: p.write_text(text))
    return summary


def code_digest() -> str:
    """SHA-256 of this package's source: a release of other code is another release."""
    sha = hashlib.sha256()
    for path in sorted(files("lens_assets.science.mock").iterdir(), key=lambda p: p.name):
        if path.name.endswith(".py"):
            sha.update(path.name.encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def _check_folders(*folders: Path) -> None:
    for a in folders:
        for b in folders:
            if a is not b and (a == b or b.is_relative_to(a)):
                raise BadInput("release, truth and catalogues need three folders, none inside another", file=str(b))


def _claim(release: Path, truth: Path, catalogues: Path, request: Any, replace: bool) -> None:
    """Make sure that the folders are free or hold (part of) this very release."""
    stored = release / REQUEST
    if not stored.exists():
        taken = [str(f) for f in (release, truth / "parts") if f.is_dir() and any(f.iterdir())]
        if taken and not replace:
            raise BadInput("the folder is not empty and holds no mock release; choose another", file=taken[0])
        found = None
    else:
        found = json.loads(stored.read_text())
        if found == request:
            return
    if found is None and not replace:
        return
    if not replace:
        names = sorted(k for k in request if (found or {}).get(k) != request[k])
        raise BadInput(
            f"it holds a mock release of another {', '.join(names)}; choose another folder, or ask to replace it",
            file=str(release),
        )
    for folder in (release, truth, catalogues):
        if folder.is_dir():
            (folder / REQUEST).unlink(missing_ok=True)
            for child in folder.iterdir():
                shutil.rmtree(child) if child.is_dir() else child.unlink()


def _sweep_dead_scratch(*folders: Path) -> None:
    """Remove the temporary files that a killed writer left behind (theirs is the name that ``replace_with`` gives)."""
    for folder in folders:
        for path in folder.rglob(".*"):
            named = re.match(r"\.(\d+)\.", path.name)
            if named and path.is_file():
                try:
                    os.kill(int(named.group(1)), 0)
                except ProcessLookupError:
                    path.unlink(missing_ok=True)
                except (PermissionError, OverflowError):
                    continue


def _part(truth: Path, p: BrickPlan) -> Path:
    return truth / "parts" / f"{p.cell.name}.pickle"


def _complete(release: Path, truth: Path, p: BrickPlan) -> bool:
    return _part(truth, p).exists() and all((release / f).exists() for f in files_of(p.cell, p.bands))


def _run(release: Path, truth: Path, size: MockSize, plans: list[BrickPlan], seed: int, workers: int) -> Iterator[None]:
    if workers <= 1 or len(plans) <= 1:
        for p in plans:
            _one(release, truth, size, p, seed)
            yield
        return
    with ProcessPoolExecutor(min(workers, len(plans)), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_one, release, truth, size, p, seed) for p in plans]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one(release: Path, truth: Path, size: MockSize, p: BrickPlan, seed: int) -> None:
    """Write one brick, and last its part file."""
    with threadpool_limits(1):  # a BLAS with more threads may sum in another order
        rows, objects, lenses = make_brick(release, size, p, seed)
    payload = pickle.dumps((rows, objects, lenses), protocol=4)
    replace_with(_part(truth, p), lambda scratch: scratch.write_bytes(payload))


def _load(truth: Path, p: BrickPlan) -> tuple[npt.NDArray[np.void], list[dict[str, Any]], list[dict[str, Any]]]:
    return pickle.loads(_part(truth, p).read_bytes())  # type: ignore[no-any-return]  # noqa: S301  (our own file)


def _write_tile(release: Path, truth: Path, tile: Tile, plans: list[BrickPlan]) -> int:
    rows = np.concatenate([_load(truth, p)[0] for p in plans] or [np.zeros(0, SWEEP_DTYPE)])
    rows = rows[np.lexsort((rows["OBJID"], rows["BRICKID"]))]
    path = release / tile.path
    if not path.exists():
        cards: dict[str, object] = {"SURVEY": "MOCK", "RAMIN": tile.ra_min, "RAMAX": tile.ra_min + 5,
                                    "DECMIN": tile.dec_min, "DECMAX": tile.dec_min + 5}  # fmt: skip
        replace_with(path, lambda scratch: write_sweep(scratch, rows, cards))
    return len(rows)


def _write_brick_table(release: Path, plans: list[BrickPlan]) -> None:
    """The brick table, with the columns of the all-sky one and the rows that are needed."""
    cells = sorted((p.cell for p in plans), key=lambda c: c.brickid)
    row = [round((c.dec + 90) / 0.25) for c in cells]
    width = [c.ra2 - c.ra1 for c in cells]
    columns: dict[str, tuple[str, object]] = {
        "BRICKNAME": ("8A", [c.name for c in cells]), "BRICKID": ("J", [c.brickid for c in cells]),
        "BRICKQ": ("I", [(r % 2) * 2 + round(c.ra1 / w) % 2 for c, r, w in zip(cells, row, width, strict=True)]),
        "BRICKROW": ("J", row), "BRICKCOL": ("J", [round(c.ra1 / w) for c, w in zip(cells, width, strict=True)]),
        **{k: ("D", [getattr(c, k.lower()) for c in cells]) for k in ("RA", "DEC", "RA1", "RA2", "DEC1", "DEC2")},
    }  # fmt: skip
    table = fits.BinTableHDU.from_columns(
        [fits.Column(k, format=f, array=np.array(v)) for k, (f, v) in columns.items()]
    )
    raw = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(raw)
    packed = gzip.compress(raw.getvalue(), 6, mtime=0)
    replace_with(release / BRICK_TABLE, lambda scratch: scratch.write_bytes(packed))


def _write_truth(truth: Path, plans: list[BrickPlan]) -> tuple[pl.DataFrame, pl.DataFrame]:
    objects: list[dict[str, Any]] = []
    lenses: list[dict[str, Any]] = []
    for p in plans:
        _, o, x = _load(truth, p)
        objects += o
        lenses += x
    frames = []
    for name, table, found in (("objects", MOCK_OBJECTS, objects), ("lenses", MOCK_LENSES, lenses)):
        schema = {c.name.removeprefix("true_"): c.dtype for c in table.columns}
        made = pl.DataFrame(found, schema=schema, strict=False)
        frame = table.conform(made.rename(dict(zip(schema, table.names, strict=True))))
        replace_with(truth / f"{name}.parquet", lambda scratch, f=frame: f.write_parquet(scratch, compression="zstd"))
        frames.append(plain(frame))
    return frames[0], frames[1]
