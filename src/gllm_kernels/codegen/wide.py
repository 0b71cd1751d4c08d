"""64-bit lanes where the machine lacks an instruction: exact, without branches.

    x >> k, signs in      x >>> k | (x < 0 ? -1 : 0) << (64 - k)
    double of an int64    high*2^32 + low, both exact, one rounding
    float of an int64     through the double that keeps a sticky bit below the float's last place
    int64 of a double     the fraction shifted by the exponent; out of range the smallest integer
"""

from __future__ import annotations

from .kernel import Inst, K
from .legalise import Rewriter

SMALLEST = 1 << 63


def _bits(r: Rewriter, value: int) -> int:
    return r.emit(K.VCONST64, imm=value & (1 << 64) - 1)


def _signs(r: Rewriter, x: int) -> int:
    """-1 or 0 in lanes of 64 bits: the upper word's sign in both words."""
    words = r.emit(K.VSAR, x, imm=31)
    return r.emit(K.PERMUTE, words, imm=tuple(lane | 1 for lane in range(r.lanes)))


def shift_sign(r: Rewriter, inst: Inst) -> None:
    x, signs = inst.args[0], _signs(r, inst.args[0])
    if inst.op is K.LSAR:
        low = r.emit(K.LSHR, x, imm=inst.imm)
        high = r.emit(K.LSHL, signs, imm=64 - inst.imm) if inst.imm else _bits(r, 0)
    else:
        low = r.emit(K.LSHRV, x, inst.args[1])  # counts of 64 and more leave nothing
        high = r.emit(K.LSHLV, signs, r.emit(K.LSUB, _bits(r, 64), inst.args[1]))
    r.emit(K.VOR, low, high, dst=inst.dst)


def _double(r: Rewriter, x: int, dst: int | None = None) -> int:
    """2^52 + low has low in its fraction; high is an int32."""
    low = r.emit(K.VOR, r.emit(K.VAND, x, _bits(r, 0xFFFFFFFF)), _bits(r, 0x433 << 52))
    low = r.emit(K.DSUB, low, _bits(r, 0x433 << 52))
    high = r.emit(K.I2D, r.emit(K.L2I, r.emit(K.LSHR, x, imm=32)))
    return r.emit(K.DADD, r.emit(K.DMUL, high, _bits(r, 0x41F << 52)), low, dst=dst)


def long_to_double(r: Rewriter, inst: Inst) -> None:
    _double(r, inst.args[0], inst.dst)


def long_to_float(r: Rewriter, inst: Inst) -> None:
    """Beyond 2^53 the low eleven bits become one sticky bit: then the double is exact, and its
    rounding to float sees whether anything was there."""
    (x,) = inst.args
    shifted = r.emit(K.LSHR, r.emit(K.LADD, x, _bits(r, 1 << 53)), imm=54)
    small = r.emit(K.LEQ, shifted, _bits(r, 0))
    below = r.emit(K.LADD, r.emit(K.VAND, x, _bits(r, 0x7FF)), _bits(r, 0x7FF))
    sticky = r.emit(K.VAND, below, _bits(r, 0x800))
    big = r.emit(K.VOR, r.emit(K.VAND, x, _bits(r, ~0x7FF)), sticky)
    r.emit(K.D2F, _double(r, r.emit(K.SELECT64, small, x, big)), dst=inst.dst)


def double_to_long(r: Rewriter, inst: Inst) -> None:
    (x,) = inst.args
    exponent = r.emit(K.VAND, r.emit(K.LSHR, x, imm=52), _bits(r, 0x7FF))
    fraction = r.emit(K.VAND, x, _bits(r, (1 << 52) - 1))
    fraction = r.emit(K.VOR, fraction, _bits(r, 1 << 52))
    up = r.emit(K.LSUB, exponent, _bits(r, 1075))
    down = r.emit(K.LSUB, _bits(r, 1075), exponent)
    size = r.emit(K.VOR, r.emit(K.LSHLV, fraction, up), r.emit(K.LSHRV, fraction, down))
    signs = _signs(r, x)
    value = r.emit(K.LSUB, r.emit(K.VXOR, size, signs), signs)
    beyond = r.emit(K.LLT, _bits(r, 1085), exponent)
    r.emit(K.SELECT64, beyond, _bits(r, SMALLEST), value, dst=inst.dst)
