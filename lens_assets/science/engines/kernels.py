"""What is made of one tile: a kernel an asset, pure in its key, the same bytes wherever and in whatever order it runs.

A kernel reads its inputs by key (the sweep from the data release, artefacts from the store) and writes one artefact. Its
identity, what it depends on, is stated beside it; see ``recognise``.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from lens_assets.science.engines.beside import borders_beside
from lens_assets.science.engines.place import Opened, Place
from lens_assets.science.engines.recognise import digests, ensure
from lens_assets.science.engines.report import TileReport
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses.crossmatch import crossmatch, nearest_objects
from lens_assets.science.negatives.border import border, limits
from lens_assets.science.negatives.categories import NEIGHBOUR
from lens_assets.science.negatives.pool import build_pool
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Draft
from lens_assets.science.surveys.conditions import occupancy

Work = tuple[dict[str, Any], Callable[[Draft], None]]
ATTEMPTS = 3
"""Tries of a tile when storage fails in a way that may pass."""
WAIT_SECONDS = 5.0
"""Wait before the second try; doubled before the third."""


@dataclass(frozen=True)
class Kernel:
    """``plan(place, tile)`` gives the identity and the function that writes the artefact."""

    asset: str
    inputs: tuple[str, ...]
    plan: Callable[[Opened, str], Work]


def _sweeps(at: Opened, tile: str) -> Work:
    def make(draft: Draft) -> None:
        frame, rejected = at.release.sweep(tile)
        draft.table(frame)
        draft.facts.update(rejected=rejected.counts)

    return {"code": code_digest("surveys", "columns/surveys.py"), "sweep": at.release.sweep_digest(tile)}, make


def _conditions(at: Opened, tile: str) -> Work:
    sweeps, settings = at.store.get("sweeps", tile), at.profile.surveys
    identity = {"code": code_digest("surveys/conditions.py"), "settings": settings, **digests(sweeps)}
    return identity, lambda draft: draft.table(occupancy(sweeps.read(), settings))


def _sweep_border(at: Opened, tile: str) -> Work:
    sweeps, t = at.store.get("sweeps", tile), at.profile.negatives.n2
    code = code_digest("negatives/border.py", "negatives/categories.py", "sieve.py", "columns/negatives.py")
    identity = {"code": code, "limits": limits(t), **digests(sweeps)}
    return identity, lambda draft: draft.table(border(sweeps.scan().select(NEIGHBOUR).collect(), tile, t))


def _lens_matches(at: Opened, tile: str) -> Work:
    sweeps, registry, settings = at.store.get("sweeps", tile), at.store.get("lens_registry"), at.profile.lenses

    def make(draft: Draft) -> None:
        objects, systems = sweeps.read(), registry.read()
        draft.table(crossmatch(systems, objects, settings))
        draft.table(nearest_objects(systems, objects, settings), "nearest")
        draft.table(objects.select(pl.col("brickid").unique().sort()), "bricks")

    code = code_digest("lenses", "columns/lenses.py")
    return {"code": code, "settings": settings, **digests(sweeps, registry)}, make


def _negative_pool(at: Opened, tile: str) -> Work:
    sweeps, registry, settings = at.store.get("sweeps", tile), at.store.get("lens_registry"), at.profile.negatives
    selection, (borders, _) = load_selection(settings.selection), borders_beside(at, tile)

    def make(draft: Draft) -> None:
        beside = pl.concat([b.read() for b in borders]) if borders else None
        frame, lost = build_pool(sweeps.read(), registry.read(), selection, settings, neighbours=beside)
        draft.table(frame)
        draft.table(lost, "attrition")
        draft.facts.update(beside=[b.partition for b in borders])

    code = code_digest("negatives", "sieve.py", "columns/negatives.py", "engines/beside.py")
    return {"code": code, "settings": settings, "selection": selection, **digests(sweeps, registry, borders)}, make


KERNELS: Mapping[str, Kernel] = {
    kernel.asset: kernel
    for kernel in (
        Kernel("sweeps", (), _sweeps),
        Kernel("conditions", ("sweeps",), _conditions),
        Kernel("sweep_border", ("sweeps",), _sweep_border),
        Kernel("lens_matches", ("sweeps", "lens_registry"), _lens_matches),
        Kernel("negative_pool", ("sweeps", "lens_registry", "sweep_border"), _negative_pool),
    )
}
"""Asset -> kernel, in the order data flows."""


def make_tile(asset: str, tile: str, place: Place, *, force: bool = False) -> TileReport:
    """Make (or recognise) one tile of one asset; raises what went wrong.

    ``BadInput`` names file, column and row; ``FileNotFoundError`` an input artefact that is not there.
    """
    if asset not in KERNELS:
        raise BadInput(f"no tile kernel makes {asset!r}; there are {', '.join(KERNELS)}")
    started = time.monotonic()
    at = place.open()
    identity, make = KERNELS[asset].plan(at, tile)
    artefact, reused = ensure(at.store, asset, tile, identity, make, force=force)
    rows = artefact.facts.get("rows")
    return TileReport(
        asset,
        tile,
        digest=artefact.digest,
        fingerprint=artefact.fingerprint,
        rows=None if rows is None else int(rows),
        reused=reused,
        seconds=round(time.monotonic() - started, 3),
        facts=dict(artefact.facts),
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )


def run_tile(
    asset: str, tile: str, place: Place, *, force: bool = False, sleep: Callable[[float], None] = time.sleep
) -> TileReport:
    """As :func:`make_tile`, but a failure is a report with ``error``.

    Storage that fails in a way that may pass is tried again (:data:`ATTEMPTS`); bad input and missing files are not.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return make_tile(asset, tile, place, force=force)
        except Exception as fault:
            if _may_pass(fault) and attempt < ATTEMPTS:
                sleep(WAIT_SECONDS * 2 ** (attempt - 1))
                continue
            known = isinstance(fault, (BadInput, FileNotFoundError))
            text = f"{type(fault).__name__}: {fault}" if known else traceback.format_exc(limit=-6).strip()
            return TileReport(asset, tile, worker=f"{socket.gethostname()}:{os.getpid()}", error=text)
    raise AssertionError("unreachable")


def run_tile_apart(asset: str, tile: str, place: Place, *, force: bool = False) -> TileReport:
    """As :func:`run_tile`, in a worker process that does nothing else: afterwards it holds no path of the store's cache, so
    that the cache of a machine that makes many tiles keeps its bound."""
    report = run_tile(asset, tile, place, force=force)
    if report.ok:
        place.open().store.release()
    return report


def _may_pass(fault: Exception) -> bool:
    """Whether storage failed, in a way that another try may not."""
    if type(fault).__module__.startswith("botocore"):
        return True
    return isinstance(fault, OSError) and not isinstance(fault, (FileNotFoundError, PermissionError))
