"""Compiled steps over the bytes of big-endian rows: loads, the sum of words for DATASUM, columns, codes of texts.

Only integer and bit operations and comparisons, so the results are the same on every machine. Offsets are not checked: the
caller proves that a row has ``width`` bytes and that every column lies inside it. :mod:`.passing` puts the steps together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic as _intrinsic

UNKNOWN = 255
"""Code of a text that is not in its table."""
TEXT_BITS = 9
"""Two to this are the lines of a table of texts."""
_GOLDEN, _ALL = 0x9E3779B97F4A7C15, (1 << 64) - 1


def compiled(function: Callable[..., Any], calls: Sequence[str] = ()) -> Any:
    """``numba.njit`` that keeps its machine code beside the module, or does without where that cannot be written.

    ``calls``: files of other modules whose compiled functions it calls. numba looks at the function's own file only, and would go
    on using old code of theirs.
    """
    try:
        made: Any = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
        if calls:
            state = [os.stat(file) for file in (function.__code__.co_filename, *calls)]
            made._cache._cache_file._source_stamp = tuple((s.st_mtime, s.st_size) for s in state)
    except (RuntimeError, OSError, AttributeError):  # no writable place for the cache: compile in memory
        return numba.njit(nogil=True, error_model="numpy")(function)
    return made


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
def double(typingctx: Any, bits: Any) -> Any:
    """The float64 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.uint64), codegen


@intrinsic
def single(typingctx: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


@intrinsic
def row_by_row(typingctx: Any) -> Any:
    """Nothing, but a loop with it in is not vectorised: values of one column lie apart, and gathering them takes longer (and the
    compiler minutes)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], True)
        nothing.attributes.add("readnone")  # what lies in registers may stay there
        nothing.attributes.add("nounwind")
        return context.get_dummy_value()

    return types.void(), codegen


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
            row_by_row()
            out2[k, at + i] = load16(raw, i * width + at2[k])
    for k in range(at4.size):
        for i in range(n):
            row_by_row()
            out4[k, at + i] = load32(raw, i * width + at4[k])
    for k in range(at8.size):
        for i in range(n):
            row_by_row()
            out8[k, at + i] = load64(raw, i * width + at8[k])


@compiled
def text_code(raw, at, shift, table):  # type: ignore[no-untyped-def]
    """Code of the text at byte ``at`` whose length leaves ``shift`` of 64 bits."""
    value = load64(raw, at) >> shift
    line = (value * table[-1, 0]) >> numba.uint64(64 - TEXT_BITS)
    return table[line, 1] if table[line, 0] == value else numba.uint64(UNKNOWN)


@compiled
def texts(raw, n, width, row, at, length, table, out):  # type: ignore[no-untyped-def]
    """Code of a text column, or ``UNKNOWN``: ``table`` (from :func:`text_table`) has one line where a text can stand.

    Reads eight bytes from the text on: the buffer must be that much longer than its rows.
    """
    shift = numba.uint64(64 - 8 * length)
    for i in range(n):
        row_by_row()
        out[row + i] = text_code(raw, i * width + at, shift, table)


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
