"""Elementary functions of compiled code, from IEEE-exact operations alone: the same bits on every processor.

Only +, -, *, / and bit operations, without fused arithmetic and without calls of a library, so loops over them become
vector instructions and give what the scalar ones give.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from lens_assets.science.injections.compiling import compiled, intrinsic


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    """The bits of a float64 as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.int64))

    return types.int64(types.float64), codegen


@intrinsic
def _float(typingctx: Any, n: Any) -> Any:
    """The float64 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.int64), codegen


@compiled()
def log_(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of a positive normal number: 2 atanh((m-1)/(m+1)) on m in [1/sqrt2, sqrt2]; error < 1e-12."""
    n = _bits(x)
    e = _float((n >> 52) | 0x4330000000000000) - 4503599627371519.0  # 2**52 + 1023
    m = _float((n & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000)
    high = m > 1.4142135623730951
    m = 0.5 * m if high else m
    e = e + 1.0 if high else e
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    p = 1.0 / 13.0
    p = p * s + 1.0 / 11.0
    p = p * s + 1.0 / 9.0
    p = p * s + 1.0 / 7.0
    p = p * s + 1.0 / 5.0
    p = p * s + 1.0 / 3.0
    return e * 0.6931471805599453 + 2.0 * (f + f * s * p)


@compiled()
def exp_(x):  # type: ignore[no-untyped-def]
    """Exponential, argument clamped to [-700, 700]: Taylor of degree 10 on |r| <= ln2 / 2; < 1e-12."""
    x = -700.0 if x < -700.0 else x
    x = 700.0 if x > 700.0 else x
    t = x * 1.4426950408889634 + 6755399441055744.0  # 1.5 * 2**52 rounds to the nearest integer
    n = t - 6755399441055744.0
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * _float((_bits(t) << 52) + 0x3FF0000000000000)


@compiled()
def atan_ratio(a, b):  # type: ignore[no-untyped-def]
    """atan(a / b) for a >= 0, b > 0: the rational approximation of Cephes (Moshier), ranges split at tan(3 pi/8),
    0.66."""
    far = a > 2.414213562373095 * b
    middle = (a > 0.66 * b) and not far
    top = -b if far else (a - b if middle else a)
    bottom = a if far else (a + b if middle else b)
    base = 1.5707963267948966 if far else (0.7853981633974483 if middle else 0.0)
    x = top / bottom
    z = x * x
    p = -8.750608600031904122785e-1
    p = p * z - 1.615753718733365076637e1
    p = p * z - 7.500855792314704667340e1
    p = p * z - 1.228866684490136173410e2
    p = p * z - 6.485021904942025371773e1
    q = z + 2.485846490142306297962e1
    q = q * z + 1.650270098316988542046e2
    q = q * z + 4.328810604912902668951e2
    q = q * z + 4.853903996359136964868e2
    q = q * z + 1.945506571482613964425e2
    return base + x + x * (z * p / q)
