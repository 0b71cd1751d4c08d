"""Numbers of 48 bits as pairs of float32, high + low: sums and products that lose nothing.

    two_sum(a, b)       = (a + b rounded, what it lost)                 T. J. Dekker, D. E. Knuth
    two_product(a, b)   = (a*b rounded, what it lost)                   one FMA
"""

from __future__ import annotations

from .kernel import K, KernelBuilder, Value

Pair = tuple[Value, Value]
SIGN = 0x80000000


def two_sum(a: Value, b: Value) -> Pair:
    """For any a and b."""
    total = a + b
    second = total - a
    return total, (a - (total - second)) + (b - second)


def ordered_sum(a: Value, b: Value) -> Pair:
    """For |a| >= |b|, or a = 0."""
    total = a + b
    return total, b - (total - a)


def two_product(b: KernelBuilder, x: Value, y: Value) -> Pair:
    product = x * y
    minus = b.emit(K.VXOR, product, b.bits(SIGN))
    return product, b.emit(K.VFMA, x, y, minus)


def times(b: KernelBuilder, x: Pair, y: Pair) -> Pair:
    """The product of two pairs; low*low is left out: 2^-48 of it."""
    high, low = two_product(b, x[0], y[0])
    low = b.emit(K.VFMA, x[0], y[1], low)
    return high, b.emit(K.VFMA, x[1], y[0], low)
