"""Published tables of any usual format as columns of text, with the row each value came from.

CSV through the standard library, because published CSVs are irregular (a quote inside an unquoted field, ragged
rows): a row with another number of fields than the header is counted, not guessed at.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.lenses.mapping import Reader, normal

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
"""Byte-order marks; the one of UTF-32 begins with that of UTF-16, so it is looked for first."""
RAGGED = "wrong number of fields"
_DELIMITERS = (",", ";", "\t", "|")
_FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".dat": "csv", ".parquet": "parquet", ".fits": "fits",
            ".fit": "fits", ".ecsv": "ecsv", ".vot": "votable", ".votable": "votable", ".xml": "votable"}  # fmt: skip


@dataclass(frozen=True)
class RawTable:
    """Cells as text by column name, the input row of each, and how many rows the file had."""

    columns: dict[str, list[str]]
    rows: list[int]
    n_in: int

    @property
    def names(self) -> list[str]:
        """Column names as in the file."""
        return list(self.columns)

    def find(self, wanted: Sequence[str]) -> str | None:
        """The first wanted column that is there: by exact name, then regardless of case, units and punctuation."""
        by_normal: dict[str, str] = {}
        for name in self.columns:
            by_normal.setdefault(normal(name), name)
        return next((n for w in wanted if (n := w if w in self.columns else by_normal.get(normal(w)))), None)


def read_table(path: Path, reader: Reader, required: Sequence[Sequence[str]]) -> tuple[RawTable, Rejections]:
    """Read a table. ``required`` (alternatives per column) is what tells the right delimiter from a wrong one.

    Raises :class:`BadInput` naming the file for one that is absent, empty, undecodable or not of its format.
    """
    if not path.is_file():
        raise BadInput("no such file", file=str(path))
    if not path.stat().st_size:
        raise BadInput("the file is empty", file=str(path))
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    form = reader.format if reader.format != "auto" else _FORMATS.get(suffix.lower(), "")
    if form == "csv":
        return _csv(path, reader, required)
    if form == "parquet":
        try:
            frame = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as fault:
            raise BadInput(f"truncated or corrupt Parquet: {fault}", file=str(path)) from fault
        columns = {n: [_text(v) for v in frame[n].to_list()] for n in frame.columns if not frame[n].dtype.is_nested()}
        return RawTable(columns, list(range(frame.height)), frame.height), Rejections()
    if form in ("fits", "ecsv", "votable"):
        return _astropy(path, {"fits": "fits", "ecsv": "ascii.ecsv", "votable": "votable"}[form]), Rejections()
    raise BadInput(f"unknown table format {path.suffix!r} (csv, tsv, parquet, fits, ecsv, vot)", file=str(path))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value).strip()


def _astropy(path: Path, form: str) -> RawTable:
    from astropy.coordinates import SkyCoord
    from astropy.table import Column, Table

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = Table.read(path, format=form)
    except Exception as fault:  # astropy's readers raise anything from KeyError to struct.error on damaged files
        raise BadInput(f"truncated or corrupt {form}: {fault}", file=str(path)) from fault
    columns: dict[str, list[str]] = {}
    for name in table.colnames:
        values = table[name]
        if isinstance(values, SkyCoord):  # an ECSV may hold positions as one column
            place = values.icrs
            columns |= {
                f"{name}.ra": [_text(v) for v in place.ra.deg],
                f"{name}.dec": [_text(v) for v in place.dec.deg],
            }
        elif isinstance(values, Column) and values.ndim == 1:
            mask = np.asarray(getattr(values, "mask", np.zeros(len(table), bool)))
            columns[name] = ["" if gone else _text(v) for v, gone in zip(values.tolist(), mask, strict=True)]
    return RawTable(columns, list(range(len(table))), len(table))


def _csv(path: Path, reader: Reader, required: Sequence[Sequence[str]]) -> tuple[RawTable, Rejections]:
    text = _decoded(path, reader)
    if "\0" in text:
        raise BadInput("holds binary zeros: not a text table", file=str(path))
    lines = (line for line in text.split("\n") if line.strip() and not line.startswith("#"))
    first = next(lines, None)
    if first is None:
        raise BadInput("no header line", file=str(path))
    delimiter = _delimiter(first, reader, required)
    source = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        parsed = [row for row in source if any(cell.strip() for cell in row) and not row[0].startswith("#")]
    except csv.Error as fault:
        raise BadInput(f"not a readable CSV: {fault}", file=str(path), row=source.line_num) from fault
    if not parsed:
        raise BadInput("no header line", file=str(path))
    header = [name.strip() for name in parsed[0]]
    doubled = sorted({n for n in header if n and header.count(n) > 1})
    if doubled:
        raise BadInput("the column name is repeated", file=str(path), column=doubled[0])
    rejections = Rejections()
    body = list(enumerate(parsed[1:]))
    good = [(i, row) for i, row in body if len(row) == len(header)]
    for i, row in body:
        if len(row) != len(header) and any("\n" in cell for cell in row):
            raise BadInput("a quote opens here and does not close: rows would be swallowed", file=str(path), row=i)
    rejections.add(RAGGED, len(body) - len(good))
    columns = {name: [row[k].strip() for _, row in good] for k, name in enumerate(header) if name}
    return RawTable(columns, [i for i, _ in good], len(body)), rejections


def _decoded(path: Path, reader: Reader) -> str:
    """The text of a file: by its byte-order mark, which no stated encoding may contradict, else as stated, else
    UTF-8."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as fault:
        raise BadInput(f"not a readable gzip file: {fault}", file=str(path)) from fault
    marked = next((name for mark, name in _MARKS if raw.startswith(mark)), None)
    encoding = marked or ("utf-8" if reader.encoding == "auto" else reader.encoding)
    try:
        return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except LookupError as fault:
        raise BadInput(f"no encoding is called {encoding!r}", file=str(path)) from fault
    except UnicodeError as fault:
        at = raw[: fault.start].count(b"\n") if isinstance(fault, UnicodeDecodeError) else 0
        message = (
            f"not {encoding} in line {at + 1}; convert it, or state the encoding in its mapping "
            "(reader: {encoding: latin-1})"
        )
        raise BadInput(message, file=str(path)) from fault


def _delimiter(header: str, reader: Reader, required: Sequence[Sequence[str]]) -> str:
    """The stated delimiter, unless only another one finds the required columns in the header."""
    stated = [] if reader.delimiter == "auto" else [reader.delimiter]

    def found(delimiter: str) -> int:
        names = {normal(n) for n in next(csv.reader([header], delimiter=delimiter))}
        return sum(any(normal(w) in names for w in options) for options in required)

    choices = [*stated, *(d for d in _DELIMITERS if d not in stated)]
    return max(choices, key=lambda d: (found(d), -choices.index(d)))
