"""A shard of stamps from the viewer service: the same files, columns and rules as one cut from bricks.

For sparse positions. The column ``source`` says where the pixels are from, and a sample whose classes differ in it is
refused (``source``). What the service does not tell comes from the catalogue: PSF size at the position and number of
exposures; the share of masked pixels is unknown (null).
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.columns.cutouts import CUTOUT_REJECTED
from lens_assets.science.cutouts.cut import empty_rejected, judge, of_catalogue
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.viewer import Position, Refusal, ViewerStamp, parse_cutout, source_of
from lens_assets.science.cutouts.viewer_fetch import SERVERS_FAULT, UNANSWERED, Fetcher, Progress, ViewerCache
from lens_assets.science.cutouts.write import assemble, save_part
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Draft

_CHUNK = 256


def write_viewer_shard(
    draft: Draft,
    rows_of_tile: pl.DataFrame,
    settings: Settings,
    work: str | Path,
    progress: Progress | None = None,
    fetcher: Fetcher | None = None,
) -> dict[str, Any]:
    """Fetch the stamps of a tile (continuing where an earlier run stopped) and write its shard.

    Parameters
    ----------
    rows_of_tile : ``galaxy_id, brickname, ra, dec``, and per band ``psfsize_*, nobs_*``; one row an object.
    work : folder for the answers; removed when the shard is whole.
    progress : called with (positions done, positions in all).

    Returns
    -------
    Facts as ``write.write_shard``, with ``source`` and ``viewer``. Raises :class:`BadInput` when more than
    ``max_unanswered`` of the positions have no answer: such losses follow the weather of a server, not the sky.
    """
    names = ["galaxy_id", "brickname", "ra", "dec"]
    wanted = [*names, *(f"{stem}_{b}" for b in settings.bands for stem in ("psfsize", "nobs"))]
    for name in wanted:
        if name not in rows_of_tile.columns:
            raise BadInput("fetching needs this column", column=name)
        if rows_of_tile[name].null_count():
            raise BadInput("null", column=name, row=int(rows_of_tile[name].is_null().arg_true()[0]))
    rows = rows_of_tile.select(wanted).sort("galaxy_id")
    if rows["galaxy_id"].n_unique() != rows.height:
        raise BadInput("an object is asked for twice", column="galaxy_id")
    cache = fetcher.cache if fetcher else ViewerCache(work, settings)
    positions = [Position(i, ra, dec, brick) for i, brick, ra, dec in rows.select(names).iter_rows()]
    (fetcher or Fetcher(settings, cache)).fetch(positions, progress)

    parts = []
    folder = Path(work) / f".parts-{settings.digest[:16]}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for start in range(0, rows.height, _CHUNK):
        final = folder / f"{start:09d}"
        save_part(final, *_read(rows[start : start + _CHUNK], positions[start : start + _CHUNK], cache, settings))
        parts.append(final)
    facts = assemble(draft, parts, rows.height, settings, of_catalogue(rows_of_tile, settings))
    unanswered = sum(n for reason, n in facts["rejected"].items() if reason in SERVERS_FAULT)
    if unanswered > settings.viewer.max_unanswered * rows.height:
        shutil.rmtree(folder, ignore_errors=True)
        raise BadInput(
            f"{unanswered} of {rows.height} positions have no answer, more than {settings.viewer.max_unanswered:.1%}; "
            "the others are kept: run it again",
            file=settings.viewer.base_url,
        )
    more = {"source": source_of(settings), "viewer": settings.viewer.identity()}
    draft.facts.update(more)
    shutil.rmtree(work, ignore_errors=True)
    return facts | more


def _read(rows: pl.DataFrame, positions: list[Position], cache: ViewerCache, settings: Settings) -> Any:
    """Stamps, index and rejected of some rows, from the answers on disk."""
    stamps: list[ViewerStamp] = []
    digests: list[str] = []
    kept, lost = [], []
    for k, position in enumerate(positions):
        body = cache.body(position.galaxy_id)
        try:
            if body is None:
                refused = cache.refusal(position.galaxy_id) or {"reason": UNANSWERED, "detail": "never asked"}
                raise Refusal(refused["reason"], refused["detail"])
            stamps.append(parse_cutout(body, {}, position, settings))
            digests.append(hashlib.sha256(body).hexdigest())
            kept.append(k)
        except Refusal as refusal:
            lost.append((position.galaxy_id, position.brickname, refusal.reason, refusal.detail))
    schema = ["galaxy_id", "brickname", "reason", "detail"]
    refused_rows = (
        CUTOUT_REJECTED.conform(pl.DataFrame(lost, schema=schema, orient="row")) if lost else empty_rejected()
    )
    shape = (0, len(settings.bands), settings.size, settings.size)
    images = np.stack([s.image for s in stamps]) if stamps else np.empty(shape, "<f4")
    invvar = np.stack([s.invvar for s in stamps]) if stamps else np.empty(shape, "<f4")
    here = rows[kept]
    facts: dict[str, Any] = {name: [getattr(s, name) for s in stamps] for name in ("x", "y", "dx", "dy")}
    for band in settings.bands:
        facts[f"psfsize_{band}"] = here[f"psfsize_{band}"]
        facts[f"nexp_{band}"] = here[f"nobs_{band}"]
        facts[f"image_digest_{band}"] = facts[f"invvar_digest_{band}"] = digests
    return judge(here, images, invvar, facts, settings, source_of(settings), refused_rows)
