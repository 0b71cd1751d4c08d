"""pow(x, y) = 2^(y*log2(x)), with the special values of C99 annex F.9.4.4.

    function   largest error   special values
    pow        2 ULP           pow(x, 0) = pow(1, y) = 1, NaN included; pow(-1, +-inf) = 1;
                               x < 0 finite and y no integer: NaN; all others with a NaN: NaN;
                               x = 0, x or y infinite, overflow: 0 or infinity, negative for
                               x < 0 or -0 and y odd

The result has 24 bits and an exponent of 7, so log2(x) needs more than 31: it is a pair. With
s = (m - 1)/(m + 1), log2(m) = s*(A + s^2*(B + s^2*POW(s^2))), of which all but POW are pairs.
"""

from __future__ import annotations

from .approx import EXP2, INFINITY, MINUS_INFINITY, NAN, SIGN, clamp, horner, mantissa
from .kernel import K, KernelBuilder, Value
from .twofold import Pair, ordered_sum, times, two_product

# 2/log(2) * (1/5 + z/7 + z^2/9 + ...) for z <= (3 - sqrt(8))^2; log2(m) to 6e-14 of itself
POW = (0.577078, 0.41220593, 0.32001182, 0.28171062)
A = (2.885390043258667, 3.851926067000022e-08)  # 2/log(2)
B = (0.9617967009544373, -7.028461812552678e-09)  # 2/(3*log(2))
HIGHEST = 160.0  # 2^-160 is 0 and 2^160 infinite, by far


def power(b: KernelBuilder, x: Value, y: Value) -> Value:
    """The magnitude from |x|, then the sign, then what annex F says."""
    size = b.emit(K.VAND, x, b.bits(SIGN - 1))
    result = _magnitude(b, size, y)
    result = _select(b, b.emit(K.VEQ, size, b.const(1.0)), b.const(1.0), result)
    integer = _whole(b, y)
    odd = b.emit(K.MAND, integer, b.emit(K.MNOT, _whole(b, y * 0.5)))
    sign = _select(b, odd, b.emit(K.VAND, x, b.bits(SIGN)), b.const(0.0))
    result = b.emit(K.VOR, result, sign)
    real = b.emit(K.MOR, integer, b.emit(K.VLE, b.const(0.0), x))
    real = b.emit(K.MOR, real, b.emit(K.VEQ, size, b.bits(INFINITY)))
    nan = b.emit(K.MOR, b.emit(K.VUNORD, x, y), b.emit(K.MNOT, real))
    result = _select(b, nan, b.bits(NAN), result)
    one = b.emit(K.MOR, b.emit(K.VEQ, y, b.const(0.0)), b.emit(K.VEQ, x, b.const(1.0)))
    return _select(b, one, b.const(1.0), result)


def _magnitude(b: KernelBuilder, x: Value, y: Value) -> Value:
    """2^(y*log2(x)) for x >= 0; where the exponent is out of range its low part does not count."""
    high, low = _log2(b, x)
    exponent, rest = two_product(b, y, high)
    rest = b.emit(K.VFMA, y, low, rest)
    capped = clamp(b, exponent, -HIGHEST, HIGHEST)
    rest = _select(b, b.emit(K.VEQ, capped, exponent), rest, b.const(0.0))
    n = b.emit(K.VROUND, capped)
    return b.emit(K.VSCALEF, horner(b, (capped - n) + rest, (1.0, *EXP2)), n)


def _log2(b: KernelBuilder, x: Value) -> Pair:
    """A pair for finite x > 0; plus and minus infinity at infinity and 0."""
    n, f = mantissa(b, x)
    s = _ratio(b, f)
    square = times(b, s, s)
    inner = _plus(b, B[0], (square[0] * horner(b, square[0], POW), b.const(B[1])))
    high, low = times(b, square, inner)
    high, low = times(b, s, _plus(b, A[0], (high, low + A[1])))
    high, rest = ordered_sum(n, high)
    high = _select(b, b.emit(K.VEQ, x, b.bits(INFINITY)), x, high)
    zero = b.emit(K.VEQ, x, b.const(0.0))
    return _select(b, zero, b.bits(MINUS_INFINITY), high), low + rest


def _ratio(b: KernelBuilder, f: Value) -> Pair:
    """f/(2 + f) as a pair: the quotient, and its remainder times 1/(2 + f)."""
    below, lost = ordered_sum(b.const(2.0), f)
    inverse = b.const(1.0) / below
    high = f * inverse
    rest = b.emit(K.VFNMA, high, lost, b.emit(K.VFNMA, high, below, f))
    return high, rest * inverse


def _plus(b: KernelBuilder, constant: float, pair: Pair) -> Pair:
    """A constant and a smaller pair."""
    high, lost = ordered_sum(b.const(constant), pair[0])
    return high, lost + pair[1]


def _whole(b: KernelBuilder, x: Value) -> Value:
    """Is x an integer, or infinite?"""
    return b.emit(K.VEQ, b.emit(K.VROUND, x), x)


def _select(b: KernelBuilder, mask: Value, yes: Value, no: Value) -> Value:
    return b.emit(K.SELECT, mask, yes, no)
