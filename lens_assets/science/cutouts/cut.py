"""All stamps of one brick, from one decompression or section by section, whichever is cheaper for their number.

A stamp is an integer slice of the coadd round the pixel nearest to the catalogue position; nothing is resampled, and
the sub-pixel offset is kept. It comes from the object's primary brick only: a DR10 brick image reaches at least 72 px
beyond the brick (63 px near the poles), so a 101 px stamp fits, and one that does not is rejected. Values are the
survey's own, junk in pixels of invvar = 0 included; validity is a matter of ``quality.valid_pixels``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.cutouts import CUTOUT_REJECTED, index_table
from lens_assets.science.cutouts.fingerprint import stamp_digests
from lens_assets.science.cutouts.quality import quality
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.hashing import seed_of

F32 = npt.NDArray[np.float32]
NPRIMARY = 1
"""MASKBITS bit 0: outside the brick's primary area, which is no defect of a pixel."""
OFF_EDGE = "off the edge of the brick image"


class BrickCellLike(Protocol):
    """What a stamp needs to know of the place of a brick."""

    @property
    def name(self) -> str: ...
    def coadd(self, product: str, band: str | None = None) -> str: ...


class BrickLike(Protocol):
    """What cutting needs of a brick: squares of its maps, all on one pixel grid. ``surveys.bricks.Brick`` is one."""

    @property
    def cell(self) -> BrickCellLike: ...
    @property
    def missing_bands(self) -> Collection[str]: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def windows(
        self, product: str, band: str, top: npt.NDArray[np.int64], left: npt.NDArray[np.int64], side: int
    ) -> npt.NDArray[Any]: ...
    def pixel_of(self, ra: Any, dec: Any) -> tuple[Any, Any]: ...
    @property
    def files(self) -> Mapping[str, str]: ...


def cut_brick(brick: BrickLike, rows: pl.DataFrame, settings: Settings) -> tuple[F32, F32, pl.DataFrame, pl.DataFrame]:
    """Cut the stamps of ``rows`` out of their brick and judge them.

    Parameters
    ----------
    rows : ``galaxy_id, brickname, ra, dec``; every row's brick must be this one (:class:`BadInput` otherwise).

    Returns
    -------
    images, invvar : (n, bands, size, size) little-endian float32: nanomaggies per pixel and their inverse square.
    index : table ``cutouts``, row i describing stamp i, sorted by ``galaxy_id``.
    rejected : table ``cutout_rejected``; ``len(rows) == len(index) + len(rejected)``.
    """
    rows = rows.sort("galaxy_id")
    _check_rows(brick, rows)
    missing = [band for band in settings.bands if band in set(brick.missing_bands)]
    if missing or not rows.height:
        text = "; ".join(f"band {band} missing" for band in missing)
        rejected = _rejected(
            rows, [f"band {missing[0]} missing" if missing else ""] * rows.height, [text] * rows.height
        )
        return _empty(settings), _empty(settings), empty_index(settings), rejected

    x, y = (
        np.asarray(v, np.float64).reshape(-1) for v in brick.pixel_of(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadInput("a position has no pixel", column="ra", row=int(np.argmin(np.isfinite(x + y))))
    column, line = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    half, side = settings.size // 2, settings.size

    height, width = brick.shape
    inside = (column >= half) & (line >= half) & (column < width - half) & (line < height - half)
    kept = rows.filter(pl.Series(inside))
    x, y, column, line = x[inside], y[inside], column[inside], line[inside]

    images = np.empty((kept.height, len(settings.bands), side, side), "<f4")
    invvar = np.empty_like(images)
    facts: dict[str, Any] = {"x": x, "y": y, "dx": (x - column).astype(np.float32), "dy": (y - line).astype(np.float32)}
    for k, band in enumerate(settings.bands):
        images[:, k] = brick.windows("image", band, line - half, column - half, side)
        invvar[:, k] = brick.windows("invvar", band, line - half, column - half, side)
        facts[f"psfsize_{band}"] = brick.windows("psfsize", band, line, column, 1)[:, 0, 0]
        facts[f"nexp_{band}"] = brick.windows("nexp", band, line, column, 1)[:, 0, 0]
    masked = (brick.windows("maskbits", "", line - half, column - half, side).astype(np.int64) & ~NPRIMARY) != 0
    facts["maskbits_fraction"] = masked.mean(axis=(1, 2))
    for product in ("image", "invvar"):
        for band in settings.bands:
            name = PurePosixPath(brick.cell.coadd(product, band)).name
            facts[f"{product}_digest_{band}"] = [brick.files.get(name)] * kept.height

    outside = rows.filter(pl.Series(~inside))
    lost = _rejected(outside, [OFF_EDGE] * outside.height, [OFF_EDGE] * outside.height)
    return judge(kept, images, invvar, facts, settings, "brick", lost)


def judge(
    rows: pl.DataFrame,
    images: F32,
    invvar: F32,
    facts: Mapping[str, Any],
    settings: Settings,
    source: str,
    lost: pl.DataFrame | None = None,
) -> tuple[F32, F32, pl.DataFrame, pl.DataFrame]:
    """Quality control and book-keeping of stamps from any source: what :func:`cut_brick` returns.

    Parameters
    ----------
    rows : ``galaxy_id, brickname, ra, dec`` of stamp i in line i, sorted by ``galaxy_id``.
    facts : columns of the index that the source knows (``x, y, dx, dy, psfsize_*, nexp_*``, ...), one value a stamp.
    lost : table ``cutout_rejected`` of objects that did not get as far as a stamp.
    """
    judged = quality(images, invvar, settings)
    known = dict(facts)
    known |= {name: judged[name] for name in judged.columns if name.startswith(("invalid_fraction", "nan_count"))}
    good = judged["reason"].is_null().to_numpy().astype(bool)
    known["stamp_digest"] = stamp_digests(images)
    index = _index(rows, known, settings, source).filter(pl.Series(good))
    index = index.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    failed = judged.filter(pl.Series(~good))
    refused = _rejected(rows.filter(pl.Series(~good)), failed["reason"].to_list(), failed["detail"].to_list())
    before = empty_rejected() if lost is None else lost
    rejected = pl.concat([before, refused]).sort("galaxy_id")
    tally = Rejections()
    tally.add("rejected", rejected.height)
    tally.check(rows.height + before.height, index.height)
    return (images, invvar, index, rejected) if good.all() else (images[good], invvar[good], index, rejected)


def of_catalogue(rows: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """What ``rows`` say of the place that a shard keeps beside the pixels: ``galaxy_id`` and those of ``psfdepth_*``,
    ``galdepth_*`` (1 / nmgy^2) and ``ebv`` (mag) that they hold."""
    known = ["ebv", *(f"{stem}_{band}" for stem in ("psfdepth", "galdepth") for band in settings.bands)]
    return rows.select("galaxy_id", *(pl.col(name).cast(pl.Float32) for name in known if name in rows.columns))


def peek(brick: BrickLike, rows: pl.DataFrame, settings: Settings, most: int = 4) -> tuple[list[str], F32]:
    """Pictures of at most ``most`` objects (those of smallest hash) as they are: no quality control, 0 where the brick
    has no such band or ends. For eyes, never for a network."""
    ids = sorted(rows["galaxy_id"].to_list(), key=lambda name: seed_of("refused", name))[:most]
    rows = rows.filter(pl.col("galaxy_id").is_in(ids)).sort("galaxy_id")
    side, (height, width) = settings.size, brick.shape
    out = np.zeros((rows.height, len(settings.bands), side, side), "<f4")
    if not rows.height or min(height, width) < side:
        return rows["galaxy_id"].to_list(), out
    x, y = (np.asarray(v, float).reshape(-1) for v in brick.pixel_of(rows["ra"].to_numpy(), rows["dec"].to_numpy()))
    left, top = (np.floor(v + 0.5).astype(np.int64) - side // 2 for v in (x, y))
    near_top, near_left = np.clip(top, 0, height - side), np.clip(left, 0, width - side)  # the nearest square inside
    for k, band in enumerate(settings.bands):
        if band in set(brick.missing_bands):
            continue
        for i, plane in enumerate(brick.windows("image", band, near_top, near_left, side)):
            down, right = (int(np.clip(d, -side, side)) for d in (near_top[i] - top[i], near_left[i] - left[i]))
            part = plane[max(-down, 0) : side - max(down, 0), max(-right, 0) : side - max(right, 0)]
            out[i, k, max(down, 0) : max(down, 0) + part.shape[0], max(right, 0) : max(right, 0) + part.shape[1]] = part
    return rows["galaxy_id"].to_list(), out


def empty_index(settings: Settings) -> pl.DataFrame:
    """The index of a shard without stamps."""
    return pl.DataFrame(schema={c.name: c.dtype for c in index_table(settings.bands).columns})


def empty_rejected() -> pl.DataFrame:
    """The list of rejected objects of a shard that lost none."""
    return pl.DataFrame(schema={c.name: c.dtype for c in CUTOUT_REJECTED.columns})


def _check_rows(brick: BrickLike, rows: pl.DataFrame) -> None:
    for name in ("galaxy_id", "brickname", "ra", "dec"):
        if name not in rows.columns:
            raise BadInput("cutting needs this column", column=name)
    strange = rows.filter(pl.col("brickname") != brick.cell.name)
    if strange.height:
        raise BadInput(
            f"{strange.height} rows belong to other bricks than {brick.cell.name}, first {strange['galaxy_id'][0]} of "
            f"{strange['brickname'][0]}: a stamp comes from its primary brick",
            column="brickname",
        )
    if rows["galaxy_id"].n_unique() != rows.height:
        raise BadInput("an object is asked for twice", column="galaxy_id")


def _index(kept: pl.DataFrame, facts: Mapping[str, Any], settings: Settings, source: str) -> pl.DataFrame:
    table = index_table(settings.bands)
    release = pl.col("galaxy_id").str.split("-").list.first().cast(pl.Int16)
    frame = kept.select("galaxy_id", release.alias("release"), "brickname", "ra", "dec").with_columns(
        row=pl.int_range(pl.len(), dtype=pl.Int64), source=pl.lit(source)
    )
    frame = frame.with_columns(pl.Series(name, values) for name, values in facts.items())
    absent = [c for c in table.columns if c.name not in frame.columns and c.nullable]
    return table.conform(frame.with_columns(pl.lit(None, dtype=c.dtype).alias(c.name) for c in absent))


def _rejected(rows: pl.DataFrame, reasons: list[str], details: list[str]) -> pl.DataFrame:
    frame = rows.select("galaxy_id", "brickname").with_columns(
        reason=pl.Series(reasons, dtype=pl.String), detail=pl.Series(details, dtype=pl.String)
    )
    return CUTOUT_REJECTED.conform(frame)


def _empty(settings: Settings) -> F32:
    return np.empty((0, len(settings.bands), settings.size, settings.size), "<f4")
