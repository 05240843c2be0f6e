"""Columns of the ``sweeps`` table from those of the file: names, magnitudes, depths, colours, cell, identity.

Each is a function of the row alone, so a column of a few rows is a few values of the column of all. Every one is made on
demand: most steps want ten columns of many rows, or all of few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science import sphere
from lens_assets.science.columns.surveys import SWEEPS
from lens_assets.science.surveys import schema
from lens_assets.science.surveys.layout import BANDS, ZERO_POINT
from lens_assets.science.surveys.scan import I64, Sweep

F64 = npt.NDArray[np.float64]

RAW = {name.lower(): name for name in schema.NEEDED}
"""Columns of the table that are columns of the file."""
_DTYPES = {column.name: column.dtype for column in SWEEPS.columns}


def magnitudes(flux: npt.ArrayLike) -> F64:
    """AB magnitude 22.5 - 2.5 log10(flux) of nanomaggies (DR10 `description`); ``nan`` for a flux that is not
    positive."""
    flux = np.asarray(flux, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0, ZERO_POINT - 2.5 * np.log10(flux), np.nan)


def depths(psfdepth: npt.ArrayLike) -> F64:
    """5-sigma depth 22.5 - 2.5 log10(5 / sqrt(ivar)) of an inverse variance in 1/nmgy^2; ``nan`` where it is not
    positive."""
    ivar = np.asarray(psfdepth, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ivar > 0, ZERO_POINT - 2.5 * np.log10(5 / np.sqrt(ivar)), np.nan)


def _needs() -> dict[str, tuple[str, ...]]:
    needs = {name: (raw,) for name, raw in RAW.items()} | {"brickname": ("BRICKID",), "tile": (), "row": ()}
    needs |= {
        "galaxy_id": ("RELEASE", "BRICKID", "OBJID"),
        "cell": ("RA", "DEC"),
        "ellipticity": ("SHAPE_E1", "SHAPE_E2"),
    }
    needs |= {f"mag_{b}": (f"FLUX_{b.upper()}",) for b in BANDS} | {
        f"depth_{b}": (f"PSFDEPTH_{b.upper()}",) for b in BANDS
    }
    return needs | {"gr": ("FLUX_G", "FLUX_R"), "rz": ("FLUX_R", "FLUX_Z")}


NEEDS = _needs()
"""Columns of the file that each column of the table is made from."""


def table(sweep: Sweep, names: Sequence[str], rows: I64, *, everything: bool) -> pl.DataFrame:
    """The named columns of the ``sweeps`` table for some rows of the file, in the order of ``rows``.

    ``everything`` says that ``rows`` are all rows of the file in their order (nothing is copied then).
    """
    wanted = dict.fromkeys(raw for name in names for raw in NEEDS[name])
    raw = {name: sweep.read(name) for name in wanted} if everything else sweep.gather(wanted, rows)
    made: dict[str, F64] = {}

    def magnitude(band: str) -> F64:
        if band not in made:
            made[band] = magnitudes(raw[f"FLUX_{band.upper()}"])
        return made[band]

    return pl.DataFrame([_column(name, raw, sweep, rows, magnitude) for name in names])


def _column(
    name: str, raw: dict[str, npt.NDArray[Any]], sweep: Sweep, rows: I64, magnitude: Callable[[str], F64]
) -> pl.Series:
    stem, _, band = name.partition("_")
    if name in ("type", "ref_cat"):
        codes, labels = raw[name.upper()], sweep.labels[name.upper()]
        if codes.dtype != np.uint8:
            return pl.Series(name, labels, pl.String).gather(codes)
        return pl.select(pl.lit(pl.Series(name, codes)).cat.to(pl.Enum(labels))).to_series().alias(name)
    if name == "tile":
        return pl.repeat(sweep.tile.key, len(rows), dtype=pl.String, eager=True).alias(name)
    if name == "row":
        return pl.Series(name, rows)
    if name == "galaxy_id":
        return galaxy_ids(raw["RELEASE"], raw["BRICKID"], raw["OBJID"])
    if name == "brickname":
        return _brick_names(sweep, raw["BRICKID"])
    if name in RAW:
        return pl.Series(name, raw[RAW[name]])
    if name == "cell":
        return pl.Series(name, sphere.cell_of(raw["RA"], raw["DEC"]))
    if name == "ellipticity":
        return pl.Series(name, np.hypot(raw["SHAPE_E1"], raw["SHAPE_E2"]))
    if stem == "mag":
        values = magnitude(band)
    elif stem == "depth":
        values = depths(raw[f"PSFDEPTH_{band.upper()}"])
    else:  # a colour: gr, rz
        values = magnitude(name[0]) - magnitude(name[1])
    return pl.Series(name, values, nan_to_null=True)


def _brick_names(sweep: Sweep, brickid: npt.NDArray[Any]) -> pl.Series:
    """The name of each BRICKID, which was proven to be the BRICKNAME of the file."""
    ids = np.array(sorted(sweep.bricks), np.int64)
    return pl.Series("brickname", [sweep.bricks[i] for i in ids.tolist()], pl.String).gather(
        np.searchsorted(ids, brickid)
    )


def galaxy_ids(release: npt.ArrayLike, brickid: npt.ArrayLike, objid: npt.ArrayLike) -> pl.Series:
    """The canonical identity ``RELEASE-BRICKID-OBJID`` of each row."""
    parts = pl.DataFrame({"r": np.asarray(release), "b": np.asarray(brickid), "o": np.asarray(objid)})
    return parts.select(pl.format("{}-{}-{}", "r", "b", "o").alias("galaxy_id")).to_series()


def id_order(release: npt.ArrayLike, brickid: npt.ArrayLike, objid: npt.ArrayLike) -> I64:
    """The order of rows that sorts :func:`galaxy_ids` as text, without looking at the text.

    Digits are compared from the left and ``-`` precedes them, so a number is padded with zeros on the right and, of two
    that are then equal, the shorter one is first. Negative numbers do not occur in a sweep's identities but sort as text
    would: ``-`` first.
    """
    r, b, o = (np.asarray(a, np.int64) for a in (release, brickid, objid))
    if not r.size:
        return np.empty(0, np.int64)
    if min(r.min(), b.min(), o.min()) < 0:
        return galaxy_ids(r, b, o).arg_sort().to_numpy().astype(np.int64)
    brick = r << 32 | b
    bricks, inverse = np.unique(brick, return_inverse=True)
    rank = np.empty(len(bricks), np.int64)
    rank[np.lexsort((*_as_text(bricks & 0xFFFFFFFF)[::-1], *_as_text(bricks >> 32)[::-1]))] = np.arange(len(bricks))
    padded, length = _as_text(o)
    if int(padded.max()).bit_length() + 4 + len(bricks).bit_length() > 63:
        return np.lexsort((length, padded, rank[inverse]))
    digits = int(padded.max()).bit_length()
    return np.argsort(rank[inverse] << (digits + 4) | padded << 4 | length, kind="stable")


def _as_text(values: I64) -> tuple[I64, I64]:
    """(decimal digits padded with zeros to the longest length, number of digits)."""
    length = np.ones(len(values), np.int64)
    top = int(values.max())
    n = len(str(top))
    for power in range(1, n):
        length += values >= 10**power
    return values * 10 ** (n - length), length
