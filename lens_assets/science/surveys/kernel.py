"""The compiled pass over the rows of a sweep: one look at every byte, while it is in the cache.

Per block of rows: the sum of all 32-bit words (for DATASUM), the columns that are asked for in native byte order, a mark on
every row that anything might be wrong with (see :func:`scan`), and the runs of rows of one brick. What is wrong with a
marked row, and what becomes of it, is said in ``scan`` in plain numpy; nothing here knows a reason or raises.

Only integer and bit operations and comparisons, so the results are the same on every machine. Offsets are not checked: the
caller proves that a row has ``width`` bytes and that every column lies inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic as _intrinsic

RUN = ("row", "release", "brickid", "name", "first_objid", "last_objid")
"""What is kept of a run of rows with one RELEASE, BRICKID and BRICKNAME; ``name`` is the name's bytes as one number."""
FACTS = ("runs", "marked", "disorder", "psf_positive", "psf_magnitude", "gal_positive", "gal_magnitude")
"""Counts of a block: runs, marked rows, rows whose OBJID is not above the one before in the run, and, of PSFDEPTH_G and
GALDEPTH_G, values above zero and those of them strictly between 18 and 28."""
UNKNOWN = 255
"""Code of a text that is not in its table."""
TEXT_BITS = 7
"""Two to this are the lines of a table of texts."""
_GOLDEN, _ALL = 0x9E3779B97F4A7C15, (1 << 64) - 1
# a float32 is not finite when all bits of its exponent are set: one more, and they carry into the sign's place
_EXPONENTS, _ONES, _CARRIES = (numba.uint64(half << 32 | half) for half in (0x7F800000, 0x00800000, 0x80000000))
_MAG_LOW, _MAG_HIGH = 0x41900000, 0x41E00000  # the bits of 18.0 and 28.0 as float32


def compiled(function: Callable[..., Any]) -> Any:
    """``numba.njit`` that keeps its machine code beside the module, or does without where that cannot be written."""
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no writable place for the cache: compile in memory
        return numba.njit(nogil=True, error_model="numpy")(function)


intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = _intrinsic


def _loader(bits: int) -> Any:
    """A function (raw, at) -> the big-endian unsigned integer at byte ``at`` of a uint8 array, aligned or not."""

    kind = getattr(types, f"uint{bits}")

    def load(typingctx: Any, raw: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            place = builder.bitcast(builder.gep(array.data, [args[1]]), context.get_value_type(kind).as_pointer())
            value = builder.load(place)
            value.align = 1
            return builder.bswap(value)

        return kind(types.Array(types.uint8, 1, "C"), types.int64), codegen

    return intrinsic(load)


load16, load32, load64 = _loader(16), _loader(32), _loader(64)


@intrinsic
def _double(typingctx: Any, bits: Any) -> Any:
    """The float64 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.uint64), codegen


@intrinsic
def _single(typingctx: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


@compiled
def word_sum(raw, n):  # type: ignore[no-untyped-def]
    """Sum of the first ``n`` bytes as big-endian 32-bit words, as uint64 (below 2**33 words it cannot overflow)."""
    total = numba.uint64(0)
    for i in range(n // 4):
        total += numba.uint64(load32(raw, 4 * i))
    return total


@compiled
def extract(raw, n, width, at, at2, out2, at4, out4, at8, out8):  # type: ignore[no-untyped-def]
    """Columns of ``n`` rows into rows ``at:at + n`` of ``out2``, ``out4``, ``out8`` (one line a column, unsigned)."""
    for k in range(at2.size):
        for i in range(n):
            out2[k, at + i] = load16(raw, i * width + at2[k])
    for k in range(at4.size):
        for i in range(n):
            out4[k, at + i] = load32(raw, i * width + at4[k])
    for k in range(at8.size):
        for i in range(n):
            out8[k, at + i] = load64(raw, i * width + at8[k])


@compiled
def extract_some(raw, rows, width, at2, out2, at4, out4, at8, out8):  # type: ignore[no-untyped-def]
    """:func:`extract` of single rows of a block, by their position in it."""
    for i in range(rows.size):
        base = rows[i] * width
        for k in range(at2.size):
            out2[k, i] = load16(raw, base + at2[k])
        for k in range(at4.size):
            out4[k, i] = load32(raw, base + at4[k])
        for k in range(at8.size):
            out8[k, i] = load64(raw, base + at8[k])


@compiled
def hold(raw, n, width, row, kinds, allowed, above, bounds, least, counts, out):  # type: ignore[no-untyped-def]
    """Positions in the block of the rows to keep whole, into ``out``; returns how many.

    ``allowed``: per code of TYPE; ``above``: offsets of float32 columns whose value must exceed its bound; ``least``:
    offsets of int16 columns whose value must reach its count.
    """
    taken = 0
    for i in range(n):
        base = i * width
        for k in range(above.size):
            if not (_single(load32(raw, base + above[k])) > bounds[k]):
                break
        else:
            good = allowed[kinds[row + i]]
            for k in range(least.size):
                good &= numba.int16(load16(raw, base + least[k])) >= counts[k]
            out[taken] = i
            taken += good
    return taken


@compiled
def texts(raw, n, width, row, at, length, table, out):  # type: ignore[no-untyped-def]
    """Code of a text column, or ``UNKNOWN``: ``table`` (from :func:`text_table`) has one line where a text can stand.

    Reads eight bytes from the text on: the buffer must be that much longer than its rows.
    """
    shift = numba.uint64(64 - 8 * length)
    factor = table[-1, 0]
    for i in range(n):
        value = load64(raw, i * width + at) >> shift
        line = (value * factor) >> numba.uint64(64 - TEXT_BITS)
        out[row + i] = table[line, 1] if table[line, 0] == value else numba.uint64(UNKNOWN)


def text_table(lines: Sequence[tuple[int, int]]) -> npt.NDArray[np.uint64]:
    """(text as a number, code) spread over ``2 ** TEXT_BITS`` lines so that no two share one, and the factor that does it last.

    Raises ``ValueError`` when no factor does: for a handful of texts one of the first few always does.
    """
    for factor in range(_GOLDEN, _GOLDEN + 20_000, 2):
        where = [(value * factor & _ALL) >> (64 - TEXT_BITS) for value, _ in lines]
        if len({*where}) == len(where):
            break
    else:
        raise ValueError(f"{len(lines)} texts do not fit a table of {1 << TEXT_BITS} lines")
    table = np.zeros(((1 << TEXT_BITS) + 1, 2), np.uint64)
    table[:-1] = (_ALL, UNKNOWN)
    for line, (value, code) in zip(where, lines, strict=True):
        table[line] = value, code
    table[-1, 0] = factor & _ALL
    return table


@compiled
def scan(raw, n, width, row, identity, place, box, pairs, singles, depth, kinds, dup, marked, runs, facts):  # type: ignore[no-untyped-def]
    """Mark doubtful rows and note the runs of one block.

    ``identity``: offsets of RELEASE, BRICKID, BRICKNAME, the name's length, OBJID; ``place``: offsets of RA and DEC; ``box``:
    RA from, below, Dec from, below, the tile's own footprint; ``pairs`` and ``singles``: offsets of the float32 columns that
    must be finite, two that lie side by side or one; ``depth``: offsets of PSFDEPTH_G and GALDEPTH_G; ``kinds``: codes of
    TYPE of all rows; ``dup``: the code of DUP. A row is marked when its position is not inside the box (or not finite), its
    TYPE is DUP or unknown, or a value that must be finite is not. ``runs`` goes on after the ``facts[0]`` that are there.
    """
    at = facts[0] - 1
    release = numba.int64(-1)
    brickid = numba.int64(-1)
    name = numba.uint64(0)
    last = numba.int64(-1)
    if at >= 0:
        release = runs[at, 1]
        brickid = runs[at, 2]
        name = numba.uint64(runs[at, 3])
        last = runs[at, 5]
    for i in range(n):
        base = i * width
        bad = kinds[row + i] >= dup
        carry = numba.uint64(0)
        for k in range(pairs.size):
            carry |= (load64(raw, base + pairs[k]) & _EXPONENTS) + _ONES
        for k in range(singles.size):
            carry |= (numba.uint64(load32(raw, base + singles[k])) & _EXPONENTS) + _ONES
        bad |= (carry & _CARRIES) != 0
        ra = _double(load64(raw, base + place[0]))
        dec = _double(load64(raw, base + place[1]))
        bad |= not (ra >= box[0] and ra < box[1] and dec >= box[2] and dec < box[3])
        marked[row + i] = bad
        facts[1] += bad
        r = numba.int64(numba.int16(load16(raw, base + identity[0])))
        b = numba.int64(numba.int32(load32(raw, base + identity[1])))
        t = load64(raw, base + identity[2]) >> numba.uint64(64 - 8 * identity[3])
        o = numba.int64(numba.int32(load32(raw, base + identity[4])))
        if at < 0 or r != release or b != brickid or t != name:
            at += 1
            runs[at, 0] = row + i
            runs[at, 1] = r
            runs[at, 2] = b
            runs[at, 3] = numba.int64(t)
            runs[at, 4] = o
            release = r
            brickid = b
            name = t
        elif o <= last:
            facts[2] += 1
        runs[at, 5] = o
        last = o
        for k in range(2):
            value = load32(raw, base + depth[k])
            if value > 0 and value <= 0x7F800000:
                facts[3 + 2 * k] += 1
                if value > _MAG_LOW and value < _MAG_HIGH:
                    facts[4 + 2 * k] += 1
    facts[0] = at + 1


@compiled
def block(  # type: ignore[no-untyped-def]
    raw, n, width, row, extras, at_text, size_text, type_table, ref_table, kinds, refs,
    at2, out2, at4, out4, at8, out8, identity, place, box, pairs, singles, depth, dup, marked, runs, facts,
):  # fmt: skip
    """Everything for ``n`` rows that lie in ``raw`` (and ``extras`` bytes after them), a few at a time, so that all steps but
    the first find them in the nearest cache; returns the sum of the words."""
    total = numba.uint64(0)
    few = 64
    for start in range(0, n, few):
        m = min(few, n - start)
        size = m * width
        if start + m == n:
            size += extras
        part = raw[start * width :]
        total += word_sum(part, size)
        at = row + start
        texts(part, m, width, at, at_text[0], size_text[0], type_table, kinds)
        texts(part, m, width, at, at_text[1], size_text[1], ref_table, refs)
        extract(part, m, width, at, at2, out2, at4, out4, at8, out8)
        scan(part, m, width, at, identity, place, box, pairs, singles, depth, kinds, dup, marked, runs, facts)
    return total
