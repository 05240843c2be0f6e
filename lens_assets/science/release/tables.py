"""One table in the three formats astronomers load: Parquet, FITS and ECSV, each with units, UCDs and descriptions.

All three are written from the same frame and the column registry; none holds a date, a host or a run, so the same
surface gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lens_assets.science.columns.registry import Table

_ARROW = {
    pl.String: pa.string(),
    pl.Boolean: pa.bool_(),
    pl.Int8: pa.int8(),
    pl.Int16: pa.int16(),
    pl.Int32: pa.int32(),
    pl.Int64: pa.int64(),
    pl.Float32: pa.float32(),
    pl.Float64: pa.float64(),
}
_FITS = {pl.Boolean: "L", pl.Int16: "I", pl.Int32: "J", pl.Int64: "K", pl.Float32: "E", pl.Float64: "D"}


def _kind(column: pl.DataType | type[pl.DataType]) -> type[pl.DataType]:
    return column if isinstance(column, type) else type(column)


def parquet(frame: pl.DataFrame, table: Table, path: Path, about: Mapping[str, str]) -> None:
    """Parquet (zstd) with ``unit``, ``ucd``, ``description`` on each field and ``about`` on the table."""
    fields = [
        pa.field(
            c.name, _ARROW[_kind(c.dtype)], c.nullable,
            {"unit": c.unit, "ucd": c.ucd, "description": c.meaning, "source": c.source},
        )
        for c in table.columns
    ]  # fmt: skip
    schema = pa.schema(fields, metadata={**about, "table": table.name, "row": table.row})
    arrays = [pa.array(frame[f.name].to_list(), type=f.type) for f in fields]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd", row_group_size=262_144)


def fits(frame: pl.DataFrame, table: Table, path: Path, name: str, about: Mapping[str, str]) -> None:
    """FITS binary table called ``name``; UCDs in TUCDn, descriptions in TCOMMn, ``about`` as header cards (keys <=
    8)."""
    from astropy.io import fits as io

    columns = []
    for c in table.columns:
        if _kind(c.dtype) is pl.String:
            text = frame[c.name].fill_null("").to_numpy().astype(str)
            array, code = text, f"{max(1, max((len(t.encode()) for t in text), default=1))}A"
        elif _kind(c.dtype).is_float():
            array, code = frame[c.name].fill_null(np.nan).to_numpy(), _FITS[_kind(c.dtype)]
        else:
            if frame[c.name].null_count():
                raise ValueError(f"column {c.name!r}: FITS integers and logicals here hold no null")
            array, code = frame[c.name].to_numpy(), _FITS[_kind(c.dtype)]
        columns.append(io.Column(name=c.name, format=code, unit=c.unit or None, array=array))
    unit = io.BinTableHDU.from_columns(columns, name=name)
    for i, c in enumerate(table.columns, 1):
        unit.header.set(f"TUCD{i}", c.ucd, after=f"TFORM{i}")
        unit.header.set(f"TCOMM{i}", c.meaning, after=f"TUCD{i}")
    for key, value in about.items():
        unit.header[key.upper()] = value
    io.HDUList([io.PrimaryHDU(), unit]).writeto(path, overwrite=True)


def ecsv(frame: pl.DataFrame, table: Table, path: Path, name: str, about: Mapping[str, str]) -> None:
    """ECSV with unit and description of each column, its UCD in the column's meta, ``about`` and ``name`` in the
    table's."""
    from astropy.table import Column, MaskedColumn
    from astropy.table import Table as AstropyTable

    made = AstropyTable(meta={**about, "release": about["name"], "name": name})
    for c in table.columns:
        series = frame[c.name]
        meta = {"ucd": c.ucd, "source": c.source}
        shared = {"name": c.name, "unit": c.unit or None, "description": c.meaning, "meta": meta}
        if _kind(c.dtype) is pl.String:
            made[c.name] = Column(series.fill_null("").to_numpy().astype(str), **shared)
        elif series.null_count():
            made[c.name] = MaskedColumn(series.fill_null(0).to_numpy(), mask=series.is_null().to_numpy(), **shared)
        else:
            made[c.name] = Column(series.to_numpy(), **shared)
    made.write(path, format="ascii.ecsv", overwrite=True)
