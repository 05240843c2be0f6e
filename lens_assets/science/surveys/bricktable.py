"""The brick tables of a release, and their closed form.

``survey-bricks.fits.gz`` (all sky) is arithmetic, so it is only read to be proven equal to it. The per-release table
(``survey-bricks-dr10-south.fits.gz``) says which bricks were observed, with two traps this reader removes: its
PSFDEPTH is in AB magnitudes (1/nmgy^2 in sweeps), and it has both ``nexp_g`` (exposures) and ``nexp`` (objects of
type EXP).
"""

from __future__ import annotations

import gzip
import warnings
import zlib
from pathlib import Path

import numpy as np
import polars as pl
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from lens_assets.science.errors import BadInput
from lens_assets.science.surveys.layout import BANDS, N_BRICKS, brick_of_id

_EDGE_TOLERANCE_DEG = 1e-6
_MAG_RANGE = (15.0, 32.0)


def brick_table(brickids: np.ndarray | None = None) -> pl.DataFrame:
    """The closed-form table: brickname, brickid, ra, dec, ra1, ra2, dec1, dec2 (degrees), sorted by brickid."""
    ids = np.arange(1, N_BRICKS + 1) if brickids is None else np.unique(brickids)
    cells = [brick_of_id(int(i)) for i in ids]
    return pl.DataFrame(
        {
            "brickname": [c.name for c in cells],
            "brickid": pl.Series(ids, dtype=pl.Int32),
            **{key: [getattr(c, key) for c in cells] for key in ("ra", "dec", "ra1", "ra2", "dec1", "dec2")},
        }
    )


def _open(path: Path) -> dict[str, np.ndarray]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(path, memmap=False) as hdus:
                data = hdus[1].data
                return {name.lower(): np.asarray(data[name]) for name in data.names}
    except FileNotFoundError as fault:
        raise BadInput("no such file", file=str(path)) from fault
    except (OSError, EOFError, ValueError, IndexError, TypeError, zlib.error, gzip.BadGzipFile) as fault:
        raise BadInput(f"truncated or corrupt FITS: {fault}", file=str(path)) from fault


def _column(table: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in table:
        raise BadInput("the brick table lacks this column", file=str(path), column=name)
    values = table[name]
    return values if values.dtype.kind in "SU" else values.astype(values.dtype.newbyteorder("="))


def read_brick_table(path: str | Path) -> pl.DataFrame:
    """Read ``survey-bricks.fits.gz`` and prove that it is the closed-form grid; the columns of :func:`brick_table`.

    Raises :class:`BadInput` for a truncated file, a missing column, or a brick whose name or edges differ from the
    grid.
    """
    path = Path(path)
    table = _open(path)
    ids = _column(table, "brickid", path).astype(np.int64)
    order = np.argsort(ids, kind="stable")
    if len(np.unique(ids)) != len(ids):
        raise BadInput("a BRICKID is repeated", file=str(path), column="BRICKID")
    ours = brick_table(ids)
    names = np.char.strip(_column(table, "brickname", path).astype(str))[order]
    wrong = np.flatnonzero(names != ours["brickname"].to_numpy().astype(str))
    if len(wrong):
        row = int(order[wrong[0]])
        raise BadInput(
            f"{names[wrong[0]]!r} is not the brick of its BRICKID", file=str(path), column="BRICKNAME", row=row
        )
    for key in ("ra", "dec", "ra1", "ra2", "dec1", "dec2"):
        far = np.flatnonzero(np.abs(_column(table, key, path)[order] - ours[key].to_numpy()) > _EDGE_TOLERANCE_DEG)
        if len(far):
            raise BadInput(
                "differs from the closed-form grid", file=str(path), column=key.upper(), row=int(order[far[0]])
            )
    return ours


def read_observed_bricks(path: str | Path) -> pl.DataFrame:
    """Read the per-release table: brickname, brickid, nexp_{b} (median exposures; 0 = no coadd file), psfsize_{b}
    (arcsec), psfdepth_{b}_mag and galdepth_{b}_mag (5-sigma AB magnitude, null where unobserved), ebv; sorted by
    brickid.

    Raises :class:`BadInput` when a depth is not a magnitude.
    """
    path = Path(path)
    table = _open(path)
    out: dict[str, np.ndarray] = {
        "brickname": np.char.strip(_column(table, "brickname", path).astype(str)),
        "brickid": _column(table, "brickid", path).astype(np.int32),
        "ebv": _column(table, "ebv", path),
    }
    for band in BANDS:
        out[f"nexp_{band}"] = _column(table, f"nexp_{band}", path).astype(np.int32)
        out[f"psfsize_{band}"] = _column(table, f"psfsize_{band}", path)
        for stem in ("psfdepth", "galdepth"):
            values = _column(table, f"{stem}_{band}", path).astype(float)
            seen = out[f"nexp_{band}"] > 0
            bad = np.flatnonzero(seen & ~((values > _MAG_RANGE[0]) & (values < _MAG_RANGE[1])))
            if len(bad):
                raise BadInput(
                    f"{values[bad[0]]:.4g} is no AB magnitude; this table has magnitudes, sweeps have 1/nmgy^2",
                    file=str(path), column=f"{stem}_{band}", row=int(bad[0]),
                )  # fmt: skip
            out[f"{stem}_{band}_mag"] = np.where(seen, values, np.nan)
    return pl.DataFrame(out).with_columns(pl.col("^.*_mag$").fill_nan(None)).sort("brickid")
