"""The one pass over a sweep file, and the columns that are taken out of it.

The file is read once, in blocks that stay in the cache while ``kernel`` sums their bytes, picks out the columns that are asked
for and marks doubtful rows. What is wrong with those, and with the file, is judged in ``prove``; nothing here rejects a row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.surveys import fitsfile, kernel, schema
from lens_assets.science.surveys.layout import Tile

_BLOCK_BYTES = 1 << 21
_REFERENCES = ("", "T2", "GE", "L3")
_SIZES = {"I": 2, "J": 4, "E": 4, "D": 8}
_NATIVE = {"I": np.dtype("i2"), "J": np.dtype("i4"), "E": np.dtype("f4"), "D": np.dtype("f8")}
TABLES = {"TYPE": schema.TYPES, "REF_CAT": _REFERENCES}
"""Text columns kept as codes, and the texts that are expected in them."""

Arrays = dict[str, npt.NDArray[Any]]
I64 = npt.NDArray[np.int64]

_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Hold:
    """Rows to keep whole while the file goes by: a TYPE among ``types`` (or any), float32 columns above a bound, int16 columns
    of at least a count."""

    types: tuple[str, ...] | None = None
    above: tuple[tuple[str, float], ...] = ()
    least: tuple[tuple[str, int], ...] = ()

    def offsets(self, at: dict[str, int]) -> tuple[npt.NDArray[Any], ...]:
        """The same for the kernel: allowed codes of TYPE, offsets and bounds."""
        allowed = np.zeros(256, bool)
        allowed[: len(schema.TYPES)] = [self.types is None or t in self.types for t in schema.TYPES]
        return (
            allowed,
            np.array([at[n] for n, _ in self.above], np.int64), np.array([v for _, v in self.above], np.float32),
            np.array([at[n] for n, _ in self.least], np.int64), np.array([v for _, v in self.least], np.int64),
        )  # fmt: skip


@dataclass
class Sweep:
    """A sweep file that was proven usable, with the columns that were asked for (made by ``prove``).

    ``columns`` holds native arrays of *all* ``n_rows`` rows of the file by FITS name; TYPE and REF_CAT are codes into
    ``labels``. ``kept`` are the rows that are usable objects, in file order; ``rejections`` count the others by reason.
    """

    path: Path
    tile: Tile
    fields: dict[str, schema.Field]
    offset: int
    n_rows: int
    width: int
    columns: Arrays
    labels: dict[str, list[str]]
    kept: I64
    rejections: Rejections
    bricks: dict[int, str]
    """Name of every brick in the file."""
    turned: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows whose RA is 360, read as 0."""
    held: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows that were kept whole while the file went by, rising; ``held_columns`` are their numbers."""
    held_columns: Arrays = field(default_factory=dict)

    def read(self, name: str, rows: I64 | None = None) -> npt.NDArray[Any]:
        """A column (native; BRICKNAME as bytes) of the given rows of the file, or of all: from memory or the file."""
        if name not in self.columns:
            wanted = self.gather([name], rows) if rows is not None else _stream(self, (name,))
            self.columns |= wanted if rows is None else {}
            return wanted[name]
        return self.columns[name] if rows is None else self.columns[name][rows]

    def gather(self, names: Iterable[str], rows: I64) -> Arrays:
        """Columns of a few rows: from memory where they are there, else from the file at once."""
        names = list(names)
        out: Arrays = {n: self.columns[n][rows] for n in names if n in self.columns}
        missing = [n for n in names if n not in out]
        if missing and len(self.held):
            at = np.minimum(np.searchsorted(self.held, rows), len(self.held) - 1)
            if (self.held[at] == rows).all():
                out |= {n: self.held_columns[n][at] for n in missing if n in self.held_columns}
                missing = [n for n in missing if n not in out]
        return out | (self._from_file(missing, rows) if missing else {})

    def _from_file(self, names: list[str], rows: I64) -> Arrays:
        taken = np.empty((0, self.width), np.uint8)
        if len(rows):
            whole = np.memmap(self.path, f"V{self.width}", mode="r", offset=self.offset, shape=(self.n_rows,))
            taken = whole[rows].view(np.uint8).reshape(len(rows), self.width)
        columns = _Columns(self.fields, names, len(rows))
        columns.fill(taken.reshape(-1), len(rows), self.width, 0)
        out = columns.arrays()
        for name in names:
            if self.fields[name].letter == "A":
                start = self.fields[name].offset
                text = np.ascontiguousarray(taken[:, start : start + self.fields[name].size])
                out[name] = text.view(f"S{self.fields[name].size}").reshape(-1)
        for name in TABLES:
            if name in out:
                out[name] = self._coded(name, out[name])
        return self.settled(out, rows)

    def settled(self, columns: Arrays, rows: I64 | None = None) -> Arrays:
        """Columns as they lie in the file, with RA 360 read as 0."""
        if "RA" in columns and len(self.turned):
            columns["RA"][self.turned if rows is None else np.isin(rows, self.turned)] = 0.0
        return columns

    def _coded(self, name: str, text: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Codes of byte texts; a text that is new gets a new label."""
        kinds, inverse = np.unique(text, return_inverse=True)
        labels = self.labels[name]
        codes = []
        for kind in kinds:
            clean = kind.replace(b"\0", b" ").decode("ascii", "replace").strip()
            if clean not in labels:
                labels.append(clean)
            codes.append(labels.index(clean))
        return np.array(codes, np.uint32)[inverse] if len(kinds) else np.empty(0, np.uint32)


class _Columns:
    """Arrays of the numeric columns by size, as the kernel fills them."""

    def __init__(self, fields: dict[str, schema.Field], names: Iterable[str], rows: int) -> None:
        numeric = [n for n in names if fields[n].letter in _SIZES]
        self.names = {size: [n for n in numeric if _SIZES[fields[n].letter] == size] for size in (2, 4, 8)}
        self.at = {size: np.array([fields[n].offset for n in group], np.int64) for size, group in self.names.items()}
        self.out = {size: np.empty((len(group), rows), f"u{size}") for size, group in self.names.items()}
        self.letters = {n: fields[n].letter for n in numeric}

    def sized(self, rows: int) -> _Columns:
        """Room for the same columns of other rows."""
        other = copy(self)
        other.out = {size: np.empty((len(out), rows), out.dtype) for size, out in self.out.items()}
        return other

    @classmethod
    def joined(cls, parts: list[_Columns]) -> _Columns:
        """One after the other."""
        whole = copy(parts[0])
        whole.out = {size: np.concatenate([p.out[size] for p in parts], axis=1) for size in whole.out}
        return whole

    def flat(self) -> tuple[npt.NDArray[Any], ...]:
        """Offsets and arrays by size, in the order the kernel takes them."""
        return tuple(a for size in (2, 4, 8) for a in (self.at[size], self.out[size]))

    def fill(self, raw: npt.NDArray[np.uint8], n: int, width: int, row: int) -> None:
        """Take the columns out of ``n`` rows of the file."""
        kernel.extract(raw, n, width, row, *self.flat())

    def arrays(self) -> Arrays:
        return {
            name: self.out[size][k].view(_NATIVE[self.letters[name]])
            for size, group in self.names.items()
            for k, name in enumerate(group)
        }


class Reading:
    """One reading of the file: fills the sweep's columns, and holds what was found on the way.

    ``sum`` is that of all its words; ``marked`` the doubtful rows; ``runs`` the stretches of rows of one brick (``kernel.RUN``);
    ``disorder`` how many rows have an OBJID that is not above the one before; ``psf_like`` and ``gal_like`` whether a depth of
    the g band looks like magnitudes.
    """

    def __init__(self, sweep: Sweep, columns: Iterable[str], span: int, hold: Hold | None) -> None:
        f, n, width = sweep.fields, sweep.n_rows, sweep.width
        at = {name: f[name].offset for name in schema.NEEDED}
        numeric = _Columns(f, [c for c in dict.fromkeys(columns) if c not in TABLES], n)
        codes = {name: np.empty(n, np.uint8) for name in TABLES}
        tables = [_text_table(known, f[name].size) for name, known in TABLES.items()]
        where = np.array([(at[name], f[name].size) for name in TABLES], np.int64).T.copy()
        self.marked = np.empty(n, bool)
        found = np.empty((n, len(kernel.RUN)), np.int64)
        identity = np.array([at["RELEASE"], at["BRICKID"], at["BRICKNAME"], f["BRICKNAME"].size, at["OBJID"]], np.int64)
        place, t = np.array([at["RA"], at["DEC"]], np.int64), sweep.tile
        box = np.array([t.ra_min, t.ra_min + 5, t.dec_min, t.dec_min + 5], float)
        depth = np.array([at["PSFDEPTH_G"], at["GALDEPTH_G"]], np.int64)
        guards = (identity, place, box, *_side_by_side([at[name] for name in schema.FINITE]), depth)
        few = _Columns(f, schema.NEEDED if hold else (), 0)
        dup, held = schema.TYPES.index("DUP"), hold.offsets(at) if hold else None
        size = max(_BLOCK_BYTES // max(width, 1) // 4, 1) * 4  # rows whose bytes are whole 32-bit words

        def work(file: int, rows: range) -> list[_Block]:
            buffer, some = np.empty(size * width + 8, np.uint8), np.empty(size, np.int64)
            made = []
            for row in rows:
                m = min(size, n - row)
                facts = np.zeros(len(kernel.FACTS), np.int64)
                extras = (-m * width) % 4
                _fill(file, buffer, m * width + extras, sweep.offset + row * width, sweep.path)
                total = kernel.block(
                    buffer, m, width, row, extras, *where, *tables, *codes.values(), *numeric.flat(), *guards, dup,
                    self.marked, found[row:], facts,
                )  # fmt: skip
                k = 0 if held is None else kernel.hold(buffer, m, width, row, codes["TYPE"], *held, some)
                keep = few.sized(k)
                kernel.extract_some(buffer, some[:k], width, *keep.flat())
                made.append(_Block(int(total), facts, found[row : row + facts[0]].copy(), some[:k] + row, keep))
            return made

        with open(sweep.path, "rb", buffering=0) as stream:
            starts = range(0, n, size)
            share = -(-len(starts) // min(_threads(), max(len(starts) // 4, 1))) or 1
            parts = [starts[i : i + share] for i in range(0, len(starts), share)]
            with ThreadPoolExecutor(max(len(parts), 1)) as pool:
                blocks = [b for done in pool.map(lambda part: work(stream.fileno(), part), parts) for b in done]
            total, at_byte = sum(b.sum for b in blocks), n * width + (-n * width) % 4
            tail = np.empty(
                _BLOCK_BYTES, np.uint8
            )  # what is left of the last block of the file, and a heap if there is one
            for start in range(at_byte, span, _BLOCK_BYTES):
                length = min(span - start, _BLOCK_BYTES)
                _fill(stream.fileno(), tail, length, sweep.offset + start, sweep.path)
                total += int(kernel.word_sum(tail, length))
        self.sum = fitsfile.folded(total)
        sweep.columns = numeric.arrays() | codes
        if hold and blocks:
            sweep.held = np.concatenate([b.held for b in blocks])
            sweep.held_columns = _Columns.joined([b.columns for b in blocks]).arrays()
        facts = np.sum([b.facts for b in blocks], axis=0) if blocks else np.zeros(len(kernel.FACTS), np.int64)
        seen = dict(zip(kernel.FACTS, facts.tolist(), strict=True))
        self.psf_like = schema.like_magnitudes(seen["psf_positive"], seen["psf_magnitude"])
        self.gal_like = schema.like_magnitudes(seen["gal_positive"], seen["gal_magnitude"])
        runs = np.concatenate([b.runs for b in blocks] or [found[:0]])
        self.runs = dict(zip(kernel.RUN, runs.T.copy(), strict=True))
        self.disorder = seen["disorder"]


class _Block(NamedTuple):
    """What the kernel found in a block of rows."""

    sum: int
    facts: I64
    runs: I64
    held: I64
    columns: _Columns


def _threads() -> int:
    """As many as polars may use here (POLARS_MAX_THREADS): one knob for all that runs in threads."""
    return int(pl.thread_pool_size())


def _side_by_side(offsets: list[int]) -> tuple[I64, I64]:
    """Offsets of float32 columns as (first of two neighbours, alone)."""
    pairs: list[int] = []
    singles: list[int] = []
    for at in sorted(offsets):
        if singles and singles[-1] == at - 4:
            pairs.append(singles.pop())
        else:
            singles.append(at)
    return np.array(pairs, np.int64), np.array(singles, np.int64)


def packed(known: Iterable[str], size: int, fill: bytes = b" ") -> list[int]:
    """Texts as the kernel sees them in a column of ``size`` bytes; -1 for one that does not fit."""
    return [int.from_bytes(t.encode().ljust(size, fill), "big") if len(t) <= size else -1 for t in known]


def _text_table(known: Iterable[str], size: int) -> npt.NDArray[np.uint64]:
    """(text, code), padded with blanks or with NUL as FITS allows both."""
    lines = {(v, k) for fill in (b" ", b"\0") for k, v in enumerate(packed(known, size, fill)) if v >= 0}
    return kernel.text_table(sorted(lines))


def _fill(file: int, buffer: npt.NDArray[np.uint8], size: int, offset: int, path: Path) -> None:
    view, got = buffer.data[:size], 0
    while got < size:
        n = os.preadv(file, [view[got:]], offset + got)
        if not n:
            raise BadInput(f"truncated: the file ended {size - got} bytes early while it was read", file=str(path))
        got += n


def _stream(sweep: Sweep, names: tuple[str, ...]) -> Arrays:
    """Numeric columns of all rows by another reading of the file."""
    columns = _Columns(sweep.fields, names, sweep.n_rows)
    size = max(_BLOCK_BYTES // max(sweep.width, 1), 1)
    buffer = np.empty(size * sweep.width, np.uint8)
    with open(sweep.path, "rb", buffering=0) as stream:
        for row in range(0, sweep.n_rows, size):
            m = min(size, sweep.n_rows - row)
            _fill(stream.fileno(), buffer, m * sweep.width, sweep.offset + row * sweep.width, sweep.path)
            columns.fill(buffer, m, sweep.width, row)
    return sweep.settled(columns.arrays())
