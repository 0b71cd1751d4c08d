"""sin and cos for every float32: the angle less quarter turns, then one of two polynomials.

    function   largest error   special values
    sin        2 ULP           sin(-0) = -0, sin(+-inf) = NaN, NaN stays NaN
    cos        2 ULP           cos(+-inf) = NaN

x = n*pi/2 + high + low with |high| <= pi/4. Up to LARGE the three parts of pi/2 are subtracted
by FMA (W. J. Cody, W. Waite). Beyond, x/(2*pi) is multiplied out part by part, each part less its
whole turns (M. Payne, R. Hanek); 16367173*2^72 is 2^-29.2 away from a multiple of pi/2, and no
float32 from 1 on is closer, so the sum carries 72 bits. The long way is a loop that runs once if some lane needs it and not at all
otherwise, which is nearly always.
"""

from __future__ import annotations

from .approx import INFINITY, ROUNDER, horner, split_sign
from .kernel import K, KernelBuilder, Value
from .twofold import ordered_sum, two_product, two_sum

# sin(r) = r + r^3*SIN(r^2) for |r| <= pi/4, relative error 4.0e-9
SIN = (-0.16666655, 0.008332189, -0.00019518292)
# cos(r) = 1 - r^2/2 + r^4*COS(r^2), relative error 1.2e-10
COS = (0.041666646, -0.001388731, 2.4432327e-05)
QUARTERS = 0.6366197723675814  # 2/pi
# pi/2 in parts of 24 bits
QUARTER = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
# 2^60/(2*pi) in parts of 24 bits, for x*2^-60: both stay normal numbers
TURNS = (1.834931490526331e+17, 7402491904.0, 84.65601348876953, 1.7507189795651357e-06,
         -3.969789991523087e-14, 7.258844099741142e-22, -2.0266742865351938e-29,
         1.9110937603469913e-37)
SCALE = 2.0**-60
LARGE = 2.0**17
LINEAR = 2.0**-12  # below this x^3/6 is less than half the spacing of float32 at x
ONCE = 1 << 16  # more than the bits of a mask


def sin(b: KernelBuilder, x: Value) -> Value:
    """+-sin or +-cos of the remainder, by the quadrant; x itself when it is small."""
    linear = b.emit(K.VLT, split_sign(b, x)[0], b.const(LINEAR))
    return b.emit(K.SELECT, linear, x, _turned(b, x, 0))


def cos(b: KernelBuilder, x: Value) -> Value:
    """sin a quarter turn further on."""
    return _turned(b, x, 1)


def _turned(b: KernelBuilder, x: Value, quarters: int) -> Value:
    """sin(x + quarters*pi/2)"""
    shifted, high, low = _reduced(b, x)
    quadrant = b.emit(K.VIADD, shifted, b.bits(quarters)) if quarters else shifted
    square = high * high
    sine = high + b.emit(K.VFMA, horner(b, square, SIN), square * high, low)
    cosine = horner(b, square, (1.0, -0.5, *COS))
    odd = b.emit(K.VLT, b.emit(K.VI2F, b.emit(K.VSHL, quadrant, imm=31)), b.const(0.0))
    sign = b.emit(K.VSHL, b.emit(K.VAND, quadrant, b.bits(2)), imm=30)
    return b.emit(K.VXOR, b.emit(K.SELECT, odd, cosine, sine), sign)


def _reduced(b: KernelBuilder, x: Value) -> tuple[Value, Value, Value]:
    """n + 1.5*2^23, high, low; the low bits of the first are those of n."""
    size = split_sign(b, x)[0]
    large = b.emit(K.MAND, b.emit(K.VLT, b.const(LARGE), size),
                   b.emit(K.VLT, size, b.bits(INFINITY)))
    with b.loop(0, b.emit(K.MBITS, large), ONCE, *_cody_waite(b, x), name="large") as loop:
        loop.yields(*(b.emit(K.SELECT, large, far, near)
                      for far, near in zip(_payne_hanek(b, x), loop.phis, strict=True)))
    return loop.results


def _cody_waite(b: KernelBuilder, x: Value) -> tuple[Value, Value, Value]:
    """((x - n*a) - n*b) - n*c; the first difference is exact, what n*b and the second lose is low.

    x - n*a is a multiple of the last place of n*b, so the sum is exact in either order of size.
    """
    shifted = b.emit(K.VFMA, x, b.const(QUARTERS), b.const(ROUNDER))
    n = shifted - ROUNDER
    first, second, third = (b.const(part) for part in QUARTER)
    rest = b.emit(K.VFNMA, n, first, x)
    product = n * second
    high = rest - product
    low = (rest - high) - product + b.emit(K.VFNMA, n, second, product)
    return shifted, high, b.emit(K.VFNMA, n, third, low)


def _payne_hanek(b: KernelBuilder, x: Value) -> tuple[Value, Value, Value]:
    """The turns of x, less whole ones, as a + b + c; then quarter turns, then radians."""
    scaled, zero = x * SCALE, b.const(0.0)
    total = (zero, zero, zero)
    for part in reversed(TURNS):
        for term in reversed(two_product(b, scaled, b.const(part))):
            total = _added(total, term - b.emit(K.VROUND, term))
    quarters = total[0] * 4.0
    shifted = quarters + ROUNDER
    turn, lost = two_sum(quarters - (shifted - ROUNDER), total[1] * 4.0)
    lost = b.emit(K.VFMA, total[2], b.const(4.0), lost)
    high, low = two_product(b, turn, b.const(QUARTER[0]))
    low = b.emit(K.VFMA, turn, b.const(QUARTER[1]), low)
    return shifted, *ordered_sum(high, b.emit(K.VFMA, lost, b.const(QUARTER[0]), low))


def _added(total: tuple[Value, Value, Value], term: Value) -> tuple[Value, Value, Value]:
    """a + b + c + term with what each sum loses passed on to the next."""
    first, lost = two_sum(total[0], term)
    second, lost = two_sum(total[1], lost)
    return first, second, total[2] + lost
