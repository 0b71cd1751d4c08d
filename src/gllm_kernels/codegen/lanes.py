"""Arithmetic on lanes that numpy does not have, with the machine's rounding and NaN rules."""

from __future__ import annotations

import numpy as np

F32, I32, U32 = np.float32, np.int32, np.uint32
F64, I64, U64 = np.float64, np.int64, np.uint64
Array = np.ndarray


def wrap(value: int) -> int:
    """Signed 64-bit wrap-around."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def fma(a: Array, b: Array, c: Array) -> Array:
    """a*b + c rounded once to float32.

    The product is exact in float64 (24 + 24 bits <= 53). The sum is rounded to odd there (Boldo and
    Melquiond 2008: 53 >= 24 + 2 makes the second rounding innocuous), using TwoSum's exact error.
    """
    p, c = a.astype(np.float64) * b, c.astype(np.float64)
    s = p + c
    t = s - p
    error = (p - (s - t)) + (c - t)
    even = (s.view(np.int64) & 1) == 0
    fix = np.isfinite(s) & (error != 0) & even
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where(fix, np.nextafter(s, toward), s).astype(F32)


def scalef(a: Array, b: Array) -> Array:
    """a * 2**floor(b), rounded once: float64 holds every such product exactly."""
    n = np.clip(np.nan_to_num(np.floor(b)), -500, 500).astype(I32)
    return np.where(np.isnan(b), b, np.ldexp(a.astype(np.float64), n).astype(F32))


def to_int(a: Array) -> Array:
    """Nearest even; out of range and NaN give 0x80000000, as cvtps2dq does."""
    near = np.rint(a.astype(np.float64))
    good = (near >= -(2.0**31)) & (near < 2.0**31)
    return np.where(good, near, -(2.0**31)).astype(np.int64).astype(I32).view(F32)


def truncated(a: Array, to: type) -> Array:
    """Towards zero; out of range and NaN give the smallest integer, as cvttps2dq does."""
    whole, limit = np.trunc(a.astype(np.float64)), 2.0 ** (8 * np.dtype(to).itemsize - 1)
    good = (whole >= -limit) & (whole < limit)
    return np.where(good, np.where(good, whole, 0).astype(to), np.iinfo(to).min).astype(to)


def vmax(a: Array, b: Array) -> Array:
    return np.where(a > b, a, b)


def vmin(a: Array, b: Array) -> Array:
    return np.where(a < b, a, b)
