"""Whether any of many float32 columns of a row is not finite: sixteen neighbours in one comparison.

A big-endian float32 is not finite when the seven low bits of its first byte and the high bit of its second are set. Read as a
little-endian word, that is a mask of 16 bits, so no byte has to change its place. The columns of a row that count are covered
by few *windows* of sixteen words; words in them that do not count are compared with something they cannot be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types

from lens_assets.science.surveys.kernel import compiled, intrinsic

WORDS = 16
"""Words of a window. Whoever calls :func:`any_not_finite` has room for a window behind the last row."""
_EXPONENT = 0x0000807F  # of a big-endian float32 in a little-endian word


@intrinsic
def _equal_words(typingctx: Any, raw: Any, at: Any, table: Any, line: Any) -> Any:
    """Bit per word of ``raw[at : at + 64]`` whose bits under ``table[line, 0]`` are those of ``table[line, 1]``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(32), WORDS)

        def sixteen(array: int, byte: Any, align: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            bytes_of = builder.bitcast(data, ir.IntType(8).as_pointer())
            value = builder.load(builder.bitcast(builder.gep(bytes_of, [byte]), vector.as_pointer()))
            value.align = align
            return value

        first = builder.mul(args[3], ir.Constant(ir.IntType(64), 2 * 4 * WORDS))
        second = builder.add(first, ir.Constant(ir.IntType(64), 4 * WORDS))
        masked = builder.and_(sixteen(0, args[1], 1), sixteen(2, first, 4))
        same = builder.icmp_unsigned("==", masked, sixteen(2, second, 4))
        return builder.bitcast(same, ir.IntType(WORDS))

    return types.uint16(
        types.Array(types.uint8, 1, "C"), types.int64, types.Array(types.uint32, 3, "C"), types.int64
    ), codegen


@compiled
def any_not_finite(raw, n, width, at, table):  # type: ignore[no-untyped-def]
    """Whether a column of any of ``n`` rows is not finite; ``at, table`` from :func:`windows`."""
    found = 0
    for k in range(at.size):
        first = at[k]
        for i in range(n):
            found |= _equal_words(raw, i * width + first, table, k)
    return found != 0


def windows(offsets: Iterable[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Windows over float32 columns at these bytes of a row: where each begins (n,), and masks and words (n, 2, 16)."""
    left, at, lines = sorted({*offsets}), [], []
    while left:
        first = left[0]
        inside = [o for o in left if o - first < 4 * WORDS and (o - first) % 4 == 0]
        line = np.zeros((2, WORDS), np.uint32)
        line[1] = 1  # no bits of a word are never 1
        line[:, [(o - first) // 4 for o in inside]] = _EXPONENT
        at.append(first)
        lines.append(line)
        left = [o for o in left if o not in inside]
    return np.array(at, np.int64), np.array(lines, np.uint32).reshape(-1, 2, WORDS)
