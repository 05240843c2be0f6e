"""One sweep file to one table: schema proven, rows cleaned with every rejection counted, magnitudes and depths derived.

Only the needed columns are read, straight from the memory-mapped binary table in blocks of rows (a block stays in the
CPU cache while its columns are picked out), and turned from FITS's big-endian to native order. What does not belong
here: any cut of science. A row leaves only because it is not a usable primary object (see :func:`_clean`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science import sphere
from lens_assets.science.columns.surveys import SWEEPS
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.surveys import fitsfile, schema
from lens_assets.science.surveys.layout import BANDS, ZERO_POINT, Tile, brick_of_id, tile_of_key
from lens_assets.science.surveys.settings import Settings

_BLOCK_ROWS = 4096
_BRICK_DEG = 0.25

Arrays = dict[str, npt.NDArray[Any]]
Mask = npt.NDArray[np.bool_]


def read_sweep(path: str | Path, tile: str, settings: Settings | None = None) -> tuple[pl.DataFrame, Rejections]:
    """Read one sweep.

    Parameters
    ----------
    path : local file (remote ones go through :class:`~lens_assets.science.surveys.release.DataRelease`).
    tile : key of the tile the file should hold, for instance ``000m005``; objects outside it are rejected.

    Returns
    -------
    the ``sweeps`` table (sorted by galaxy_id; ``row`` is the row in the file) and the counted rejections, which
    balance: rows in the file = rows out + rejected.

    Raises
    ------
    BadInput : file, column and row of a truncated or corrupt file, a missing or mistyped column (an older release is
        recognised), wrong units, RA in hours, one identity on two different objects, or a file of another tile.
    """
    settings, path = settings or Settings(), Path(path)
    arrays = read_columns(path, settings)
    n_in = len(arrays["RA"])
    footprint = tile_of_key(tile)
    schema.check_release(arrays["RELEASE"], settings.release_series, path)
    names = _brick_names(arrays, path)
    schema.check_depth_units(arrays, path)
    keep, rejections = _clean(arrays, footprint, path, settings)
    rows = np.flatnonzero(keep)
    frame = _table({k: v[rows] for k, v in arrays.items()}, [a[rows] for a in names], rows, footprint.key)
    frame = SWEEPS.conform(frame, file=str(path))
    rejections.check(n_in, frame.height)
    return frame, rejections


def read_columns(path: Path, settings: Settings | None = None) -> Arrays:
    """The needed columns as native arrays by FITS name; strings stay bytes. Schema and integrity are proven first."""
    settings = settings or Settings()
    with fitsfile.opened(path, verify_datasum=settings.verify_datasum) as hdus:
        table = schema.table_hdu(hdus, path)
        schema.check_columns(table, path)
        offset, rows = int(table.fileinfo()["datLoc"]), int(table.header["NAXIS2"])
        dtype = table.columns.dtype.newbyteorder(">")
        if dtype.itemsize != int(table.header["NAXIS1"]):
            raise BadInput(f"rows of {table.header['NAXIS1']} bytes but columns of {dtype.itemsize}", file=str(path))
    wanted = np.dtype([(name, dtype[name].newbyteorder("=")) for name in schema.NEEDED])
    out: Arrays = {name: np.empty(rows, wanted[name]) for name in schema.NEEDED}
    if rows:
        source = np.memmap(path, dtype, mode="r", offset=offset, shape=(rows,))
        for start in range(0, rows, _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            chunk = source[block]
            for name, column in out.items():
                column[block] = chunk[name]
    return out


def _brick_names(a: Arrays, path: Path) -> list[npt.NDArray[Any]]:
    """BRICKNAME and TYPE as text arrays; the name must be the one of the BRICKID on the closed-form grid."""
    ids, first, inverse = np.unique(a["BRICKID"], return_index=True, return_inverse=True)
    names = np.empty(len(ids), "S8")
    for i, brickid in enumerate(ids):
        try:
            names[i] = brick_of_id(int(brickid)).name.encode()
        except BadInput as fault:
            raise BadInput(str(fault), file=str(path), column="BRICKID", row=int(first[i])) from fault
    expected = names[inverse] if len(ids) else np.empty(0, "S8")
    wrong = np.flatnonzero(np.char.strip(a["BRICKNAME"]) != expected)
    if len(wrong):
        row = int(wrong[0])
        got = a["BRICKNAME"][row].decode("ascii", "replace").strip()
        raise BadInput(
            f"BRICKID {a['BRICKID'][row]} is brick {expected[row].decode()}, not {got!r}",
            file=str(path), column="BRICKNAME", row=row,
        )  # fmt: skip
    kinds, first, inverse = np.unique(a["TYPE"], return_index=True, return_inverse=True)
    clean = np.array([k.decode("ascii", "replace").strip() for k in kinds], dtype=object)
    for kind, row in zip(clean, first, strict=True):
        if kind not in schema.TYPES:
            hint = "; COMP and SIMP belong to DR8 and earlier" if kind in ("COMP", "SIMP") else ""
            raise BadInput(
                f"unknown type {kind!r} (DR10 has {', '.join(schema.TYPES)}){hint}",
                file=str(path),
                column="TYPE",
                row=int(row),
            )
    empty = np.empty(0, object)
    return [
        np.array([n.decode() for n in names], dtype=object)[np.searchsorted(ids, a["BRICKID"])] if len(ids) else empty,
        clean[inverse] if len(kinds) else empty,
    ]


def _clean(a: Arrays, tile: Tile, path: Path, settings: Settings) -> tuple[Mask, Rejections]:
    """Which rows stay. Reasons, in order (a row counts under its first): coordinates not finite, or not on the sky;
    TYPE DUP; photometry not finite; repeated row; outside the tile."""
    rejections = Rejections()
    keep = np.ones(len(a["RA"]), bool)

    def reject(bad: Mask, reason: str) -> None:
        rejections.add(reason, int((bad & keep).sum()))
        keep[bad] = False

    ra, dec = a["RA"], a["DEC"]
    reject(~(np.isfinite(ra) & np.isfinite(dec)), "coordinates not finite")
    np.mod(ra, 360, out=ra, where=keep & (ra == 360))
    reject((ra < 0) | (ra > 360) | (np.abs(dec) > 90), "coordinates not on the sky")
    reject(np.char.strip(a["TYPE"]) == b"DUP", "TYPE DUP")
    for name in schema.FINITE:
        reject(~np.isfinite(a[name]), f"{name} not finite")
    reject(_repeats(a, keep, path), "repeated row")
    reject(_outside(a, keep, tile, path, settings), "outside the tile")
    return keep, rejections


def _repeats(a: Arrays, keep: Mask, path: Path) -> Mask:
    """Later copies of a row; the same identity on *different* values is no copy but a damaged file."""
    out = np.zeros(len(keep), bool)
    order = np.lexsort((a["OBJID"], a["BRICKID"], a["RELEASE"]))
    order = order[keep[order]]
    same = np.ones(max(len(order) - 1, 0), bool)
    for name in ("RELEASE", "BRICKID", "OBJID"):
        values = a[name][order]
        same &= values[1:] == values[:-1]
    first, second = order[:-1][same], order[1:][same]
    for name in schema.NEEDED:
        different = np.flatnonzero(a[name][first] != a[name][second])
        if len(different):
            x, y = int(first[different[0]]), int(second[different[0]])
            identity = "-".join(str(a[n][y]) for n in ("RELEASE", "BRICKID", "OBJID"))
            raise BadInput(
                f"{identity} stands for two different objects (rows {x} and {y} differ in {name})",
                file=str(path), column="OBJID", row=y,
            )  # fmt: skip
    out[second] = True
    return out


def _outside(a: Arrays, keep: Mask, tile: Tile, path: Path, settings: Settings) -> Mask:
    """Objects more than a brick beyond the tile; too many of them mean another file or another unit."""
    dec = a["DEC"]
    with np.errstate(invalid="ignore"):
        margin_ra = _BRICK_DEG / np.maximum(np.cos(np.radians(np.clip(dec, -89.9, 89.9))), 1e-3)
        in_dec = (dec >= tile.dec_min - _BRICK_DEG) & (dec <= tile.dec_min + 5 + _BRICK_DEG)

        def in_ra(ra: npt.NDArray[np.float64]) -> Mask:
            off = np.abs((ra - (tile.ra_min + 2.5) + 180) % 360 - 180)
            return np.asarray(off <= 2.5 + margin_ra, bool)

        outside = keep & ~(in_dec & in_ra(a["RA"]))
        n, n_keep = int(outside.sum()), int(keep.sum())
        if n > settings.max_outside_fraction * n_keep:
            row = int(np.flatnonzero(outside)[0])
            message = f"{n} of {n_keep} objects lie outside tile {tile.key} (first: RA {a['RA'][row]}, Dec {dec[row]})"
            if (a["RA"][keep] <= 24).all() and (keep & in_dec & in_ra(a["RA"] * 15)).sum() > 0.5 * n_keep:
                message += "; RA looks like hours: the release has degrees"
            elif (keep & in_dec & in_ra(np.degrees(a["RA"]))).sum() > 0.5 * n_keep:
                message += "; RA looks like radians: the release has degrees"
            raise BadInput(message, file=str(path), column="RA", row=row)
    return outside


def magnitudes(flux: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """AB magnitude 22.5 - 2.5 log10(flux) of nanomaggies (DR10 `description`); ``nan`` for a flux that is not
    positive."""
    flux = np.asarray(flux, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0, ZERO_POINT - 2.5 * np.log10(flux), np.nan)


def depths(psfdepth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """5-sigma depth 22.5 - 2.5 log10(5 / sqrt(ivar)) of an inverse variance in 1/nmgy^2; ``nan`` where it is not
    positive."""
    ivar = np.asarray(psfdepth, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ivar > 0, ZERO_POINT - 2.5 * np.log10(5 / np.sqrt(ivar)), np.nan)


def _text(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stripped text of a byte column with few distinct values."""
    kinds, inverse = np.unique(values, return_inverse=True)
    return np.array([k.decode("ascii", "replace").strip() for k in kinds], dtype=object)[inverse]


def _table(a: Arrays, names: list[npt.NDArray[Any]], rows: npt.NDArray[np.int64], tile: str) -> pl.DataFrame:
    skip = {"BRICKNAME", "TYPE", "REF_CAT"}
    data: dict[str, Any] = {name.lower(): a[name] for name in schema.NEEDED if name not in skip}
    data |= {"brickname": pl.Series(names[0], dtype=pl.String), "type": pl.Series(names[1], dtype=pl.String)}
    data["ref_cat"] = pl.Series(_text(a["REF_CAT"]), dtype=pl.String)
    for band in BANDS:
        data[f"mag_{band}"] = magnitudes(a[f"FLUX_{band.upper()}"])
        data[f"depth_{band}"] = depths(a[f"PSFDEPTH_{band.upper()}"])
    data["ellipticity"] = np.hypot(a["SHAPE_E1"], a["SHAPE_E2"])
    data["cell"] = sphere.cell_of(a["RA"], a["DEC"])
    data["row"] = rows
    derived = [f"{stem}_{b}" for stem in ("mag", "depth") for b in BANDS]
    return (
        pl.DataFrame(data)
        .with_columns(pl.col(derived).fill_nan(None))
        .with_columns(
            pl.lit(tile, pl.String).alias("tile"),
            pl.format("{}-{}-{}", "release", "brickid", "objid").alias("galaxy_id"),
            (pl.col("mag_g") - pl.col("mag_r")).alias("gr"),
            (pl.col("mag_r") - pl.col("mag_z")).alias("rz"),
        )
    )
