"""The one pass over a sweep file, and the columns that are taken out of it.

The file is read once, in blocks that stay in the cache while ``kernel`` sums their bytes, picks out the columns that are asked
for and marks doubtful rows. What is wrong with those, and with the file, is judged in ``prove``; nothing here rejects a row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.sieve import Sieve
from lens_assets.science.surveys import fitsfile, kernel, lanes, passing, schema
from lens_assets.science.surveys.judging import REFERENCES, Cuts, Judged, Judging, gathered
from lens_assets.science.surveys.layout import Tile

_BLOCK_BYTES = 1 << 18  # stays in the second cache while it is looked at
_BEHIND = 4 * lanes.WORDS + 8  # what is loaded at once from the last byte of a block on
_SIZES = {"I": 2, "J": 4, "E": 4, "D": 8}
_NATIVE = {"I": np.dtype("i2"), "J": np.dtype("i4"), "E": np.dtype("f4"), "D": np.dtype("f8")}
TABLES = {"TYPE": schema.TYPES, "REF_CAT": REFERENCES}
"""Text columns kept as codes, and the texts that are expected in them."""

Arrays = dict[str, npt.NDArray[Any]]
I64 = npt.NDArray[np.int64]

_NOTHING = np.empty(0, np.int64)


@dataclass
class Sweep:
    """A sweep file that was proven usable, with the columns that were asked for (made by ``prove``).

    ``columns`` holds native arrays of *all* ``n_rows`` rows of the file by FITS name; TYPE and REF_CAT are codes into
    ``labels``. ``dropped`` are the rows that are no usable objects, rising, and ``rejections`` count them by reason; ``odd`` those
    that were looked at and stay. ``ordered``: no two rows can have the same identity, by their order alone.
    """

    path: Path
    tile: Tile
    fields: dict[str, schema.Field]
    offset: int
    n_rows: int
    width: int
    columns: Arrays
    labels: dict[str, list[str]]
    rejections: Rejections
    bricks: dict[int, str]
    """Name of every brick in the file."""
    dropped: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    odd: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    ordered: bool = True
    turned: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows whose RA is 360, read as 0."""
    judged: Judged | None = None
    held: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows that were kept whole while the file went by, rising; ``whole`` are their bytes, part by part."""
    whole: list[tuple[I64, npt.NDArray[np.uint8]]] = field(default_factory=list)

    @cached_property
    def kept(self) -> I64:
        """The rows that are usable objects, in file order."""
        kept = np.ones(self.n_rows, bool)
        kept[self.dropped] = False
        return np.flatnonzero(kept)

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
        return out | (self._from_bytes(missing, rows, self._bytes_of(rows)) if missing else {})

    def _bytes_of(self, rows: I64) -> npt.NDArray[np.uint8]:
        """(n, width) rows: those that were kept whole, or out of the file."""
        taken = np.empty((len(rows), self.width), np.uint8)
        left = np.ones(len(rows), bool)
        for held, whole in self.whole:
            if len(held) and len(rows):
                at = np.minimum(np.searchsorted(held, rows), len(held) - 1)
                here = held[at] == rows
                taken[here], left[here] = whole[at[here]], False
        if left.any():
            file = np.memmap(self.path, f"V{self.width}", mode="r", offset=self.offset, shape=(self.n_rows,))
            taken[left] = file[rows[left]].view(np.uint8).reshape(-1, self.width)
        return taken

    def _from_bytes(self, names: list[str], rows: I64, taken: npt.NDArray[np.uint8]) -> Arrays:
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

    ``sum`` is that of all its words; ``marked`` the doubtful rows; ``runs`` the stretches of rows of one brick (``passing.RUN``);
    ``disorder`` how many rows have an OBJID that is not above the one before; ``psf_like`` and ``gal_like`` whether a depth of
    the g band looks like magnitudes; ``parts`` what was answered about the ``cuts``.
    """

    def __init__(self, sweep: Sweep, columns: Iterable[str], span: int, cuts: Cuts | None) -> None:
        f, n, width = sweep.fields, sweep.n_rows, sweep.width
        wanted = dict.fromkeys(columns)
        numeric = _Columns(f, [c for c in wanted if c not in TABLES], n)
        kinds, refs = np.empty(n, np.uint8), np.empty(n if cuts is None else 0, np.uint8)
        tables = {name: _text_table(known, f[name].size) for name, known in TABLES.items()}
        texts = [
            a for name in TABLES for a in (np.array([f[name].offset, f[name].size], np.int64), tables[name])
        ]  # fmt: skip
        self.marked = np.empty(n, bool)
        guards, size = _guards(sweep), max(_BLOCK_BYTES // max(width, 1) // 4, 1) * 4  # rows of whole 32-bit words
        asked = (cuts or Cuts(0, Sieve([], [], 1.0), np.inf, {})).compiled(f)

        def work(file: int, rows: range) -> _Part:
            raw, found = np.empty(size * width + _BEHIND, np.uint8), np.empty((len(rows), len(passing.RUN)), np.int64)
            facts, room = np.zeros(len(passing.FACTS), np.int64), Judging(cuts, len(rows), width)
            total, missing = passing.through(
                file, sweep.offset, raw, size, width, rows.start, rows.stop, *texts, kinds, refs, *numeric.flat(), *guards,
                self.marked, found, cuts is not None, *asked[:-4], room.failed, asked[-4], room.strata, *asked[-3:],
                *room.scratch, room.passed, room.whole, room.doubtful, room.doubtful_at, room.beside, room.ref, room.flux,
                room.beside_at, facts,
            )  # fmt: skip
            if missing:
                raise _ended_early(missing, sweep.path)
            seen = dict(zip(passing.FACTS, facts.tolist(), strict=True))
            room.end(seen["passed"], seen["doubtful"], seen["beside"])
            return _Part(int(total), seen, found[: seen["runs"]].copy(), room)

        with open(sweep.path, "rb", buffering=0) as stream:
            share = -(-n // size // min(_threads(), max(n // size // 4, 1))) * size or size
            parts = [range(at, min(at + share, n)) for at in range(0, n, share)]
            with ThreadPoolExecutor(max(len(parts), 1)) as pool:
                done = list(pool.map(lambda part: work(stream.fileno(), part), parts))
            total, at_byte = sum(p.sum for p in done), n * width + (-n * width) % 4
            tail = np.empty(min(_BLOCK_BYTES, max(span - at_byte, 0)), np.uint8)
            for start in range(
                at_byte, span, _BLOCK_BYTES
            ):  # the rest of the last FITS block, and a heap if there is one
                length = min(span - start, _BLOCK_BYTES)
                _fill(stream.fileno(), tail, length, sweep.offset + start, sweep.path)
                total += int(kernel.word_sum(tail, length))
        self.sum = fitsfile.folded(total)
        sweep.columns = numeric.arrays() | ({"TYPE": kinds} if cuts else {"TYPE": kinds, "REF_CAT": refs})
        seen = {name: sum(p.facts[name] for p in done) for name in passing.FACTS}
        self.psf_like = schema.like_magnitudes(seen["psf_positive"], seen["psf_magnitude"])
        self.gal_like = schema.like_magnitudes(seen["gal_positive"], seen["gal_magnitude"])
        runs = np.concatenate([p.runs for p in done] or [np.empty((0, len(passing.RUN)), np.int64)])
        self.runs = dict(zip(passing.RUN, runs.T.copy(), strict=True))
        self.disorder = seen["disorder"]
        if cuts:
            sweep.judged = gathered([p.room for p in done] or [Judging(cuts, 0, width)], self.runs, kinds)
            sweep.held = np.concatenate([p.room.passed for p in done] or [_NOTHING])
            sweep.whole = [(p.room.passed, p.room.whole) for p in done]


class _Part(NamedTuple):
    """What the compiled pass found in the rows of one thread."""

    sum: int
    facts: dict[str, int]
    runs: I64
    room: Judging


def _guards(sweep: Sweep) -> tuple[Any, ...]:
    """What the compiled pass must know of the columns it proves."""
    at, t = {name: sweep.fields[name].offset for name in schema.NEEDED}, sweep.tile
    name = [at["BRICKNAME"], sweep.fields["BRICKNAME"].size]
    return (
        np.array([at["RELEASE"], at["BRICKID"], *name, at["OBJID"]], np.int64), np.array([at["RA"], at["DEC"]], np.int64),
        np.array([t.ra_min, t.ra_min + 5, t.dec_min, t.dec_min + 5], float),
        *lanes.windows(at[name] for name in schema.FINITE), np.array([at["PSFDEPTH_G"], at["GALDEPTH_G"]], np.int64),
        schema.TYPES.index("DUP"),
    )  # fmt: skip


def _threads() -> int:
    """As many as polars may use here (POLARS_MAX_THREADS): one knob for all that runs in threads."""
    return int(pl.thread_pool_size())


def packed(known: Iterable[str], size: int, fill: bytes = b" ") -> list[int]:
    """Texts as the kernel sees them in a column of ``size`` bytes; -1 for one that does not fit."""
    return [int.from_bytes(t.encode().ljust(size, fill), "big") if len(t) <= size else -1 for t in known]


def _text_table(known: Iterable[str], size: int) -> npt.NDArray[np.uint64]:
    """(text, code), padded with blanks or with NUL as FITS allows both; blanks in front are forgiven."""
    known = list(known)
    shifted = {
        " " * front + text: code
        for code, text in enumerate(known)
        for front in range(size - len(text) + 1 if text else 1)
    }
    lines = {
        (v, k)
        for fill in (b" ", b"\0")
        for v, k in zip(packed(shifted, size, fill), shifted.values(), strict=True)
        if v >= 0
    }
    return kernel.text_table(sorted(lines))


def _fill(file: int, buffer: npt.NDArray[np.uint8], size: int, offset: int, path: Path) -> None:
    view, got = buffer.data[:size], 0
    while got < size:
        n = os.preadv(file, [view[got:]], offset + got)
        if not n:
            raise _ended_early(size - got, path)
        got += n


def _ended_early(missing: int, path: Path) -> BadInput:
    return BadInput(f"truncated: the file ended {missing} bytes early while it was read", file=str(path))


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
