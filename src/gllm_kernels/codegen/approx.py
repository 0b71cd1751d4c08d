"""Elementary functions as kernel operations: one row each, with its error bound.

    function   largest error   special values
    exp        1 ULP           exp(-inf) = 0, exp(inf) = inf, NaN stays NaN, denormal results right
    tanh       2 ULP           tanh(-x) = -tanh(x) bit for bit, relative near 0, tanh(+-inf) = +-1
    log        1 ULP           log(0) = -inf, log(x < 0) = NaN, log(inf) = inf, denormal x right

1 ULP is the distance to the next float32 at the exact result. The bounds hold for all 2^32 inputs:
`tools/check_unary.py` measures them, the coefficients come from `tools/minimax.py`.
"""

from __future__ import annotations

from .kernel import K, KernelBuilder, Value

# exp(r) = 1 + r + r^2*EXP(r) for |r| <= log(2)/2, relative error 3.2e-9
EXP = (0.49999994, 0.16666517, 0.041668102, 0.0083691925, 0.0013838903)
# log(1 + f) = f - f^2/2 + f^3*LOG(f) for sqrt(1/2) <= 1 + f < sqrt(2), relative error 3.5e-9
LOG = (0.33333313, -0.25000167, 0.20002224, -0.16659367, 0.14209527, -0.1254979, 0.121101834,
       -0.109150864, 0.053294346)

# tanh(x) = x + x^3*TANH(x^2) for |x| <= 0.325, relative error 2.3e-8
TANH = (-0.333329, 0.13308157, -0.049777426)
TANH_SMALL = 0.325

LOG2E = 1.4426950408889634
# log(2) = LN2_HIGH + LN2_LOW; n*LN2_HIGH is exact for |n| < 2^14: it has 10 significant bits
LN2_HIGH = 0.693359375
LN2_LOW = -2.1219444005469057e-4
# beyond these exp is 0 or infinity: log(2^-150) = -103.97, log(2^128) = 88.72
EXP_LOWEST, EXP_HIGHEST = -104.0, 89.0
# 1 - tanh(9.2) = 2e-8 is less than half the spacing of float32 below 1
TANH_HIGHEST = 9.2
# adding 1.5*2^23 leaves the nearest integer in the low bits of the sum
ROUNDER = 1.5 * 2**23
ONE_BITS = 0x3F800000
ROOT_HALF_BITS = 0x3F3504F3
SIGN = 0x80000000
SMALLEST_NORMAL = 2.0**-126
MANTISSA_BITS = 23
INFINITY, MINUS_INFINITY, NAN = 0x7F800000, 0xFF800000, 0x7FC00000


def exp(b: KernelBuilder, x: Value) -> Value:
    """2^n * exp(r) with n = round(x / log 2), r = x - n*log 2. At most 1 ULP."""
    x = _clamp(b, x, EXP_LOWEST, EXP_HIGHEST)
    n = b.emit(K.VROUND, x * LOG2E)
    p = horner(b, _remainder(b, x, n), (1.0, 1.0, *EXP))
    return b.emit(K.VSCALEF, p, n)


def tanh(b: KernelBuilder, x: Value) -> Value:
    """e / (e + 2) with e = exp(2|x|) - 1, and the sign of x; x + x^3*TANH(x^2) when |x| is small.

    e = 2^n*(exp(r) - 1) + (2^n - 1). The quotient alone is within 2.6 ULP for small x, where the
    roundings of e and e + 2 weigh most, and within 1.5 ULP for the rest.
    """
    sign = b.emit(K.VAND, x, b.bits(SIGN))
    size = b.emit(K.VAND, x, b.bits(SIGN - 1))
    capped = b.emit(K.VMIN, b.const(TANH_HIGHEST), size)
    t = capped + capped
    shifted = b.emit(K.VFMA, t, b.const(LOG2E), b.const(ROUNDER))
    power = b.emit(K.VIADD, b.emit(K.VSHL, shifted, imm=MANTISSA_BITS), b.bits(ONE_BITS))
    r = _remainder(b, t, shifted - ROUNDER)
    grown = b.emit(K.VFMA, horner(b, r, EXP), r * r, r)
    e = b.emit(K.VFMA, grown, power, power - 1.0)
    square = size * size
    small = b.emit(K.VFMA, horner(b, square, TANH) * square, size, size)
    result = b.emit(K.SELECT, b.emit(K.VLT, size, b.const(TANH_SMALL)), small, e / (e + 2.0))
    return b.emit(K.VOR, result, sign)


def log(b: KernelBuilder, x: Value) -> Value:
    """k*log 2 + log(1 + f) with x = 2^k*(1 + f), sqrt(1/2) <= 1 + f < sqrt(2). At most 1 ULP."""
    tiny = b.emit(K.VLT, x, b.const(SMALLEST_NORMAL))
    normal = b.emit(K.SELECT, tiny, x * 2.0**MANTISSA_BITS, x)
    above = b.emit(K.VISUB, normal, b.bits(ROOT_HALF_BITS))
    k = b.emit(K.VSAR, above, imm=MANTISSA_BITS)
    f = b.emit(K.VISUB, normal, b.emit(K.VSHL, k, imm=MANTISSA_BITS)) - 1.0
    shift = b.emit(K.SELECT, tiny, b.const(float(MANTISSA_BITS)), b.const(0.0))
    n, square = b.emit(K.VI2F, k) - shift, f * f
    rest = b.emit(K.VFMA, n, b.const(LN2_LOW), horner(b, f, LOG) * (f * square))
    rest = b.emit(K.VFNMA, square, b.const(0.5), rest)
    return _log_special(b, x, b.emit(K.VFMA, n, b.const(LN2_HIGH), f + rest))


def horner(b: KernelBuilder, x: Value, coefficients: tuple[float, ...]) -> Value:
    """sum of coefficients[k] * x^k, highest power first, one FMA per degree."""
    total = b.const(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = b.emit(K.VFMA, total, x, b.const(c))
    return total


def _remainder(b: KernelBuilder, x: Value, n: Value) -> Value:
    """x - n*log(2), in two steps because log(2) has more digits than a float32."""
    high = b.emit(K.VFNMA, n, b.const(LN2_HIGH), x)
    return b.emit(K.VFNMA, n, b.const(LN2_LOW), high)


def _clamp(b: KernelBuilder, x: Value, low: float, high: float) -> Value:
    """x stands second, so that NaN comes through."""
    return b.emit(K.VMIN, b.const(high), b.emit(K.VMAX, b.const(low), x))


def _log_special(b: KernelBuilder, x: Value, result: Value) -> Value:
    """log for finite x > 0, infinity at infinity, minus infinity at 0, NaN elsewhere."""
    zero = b.const(0.0)
    at_zero = b.emit(K.SELECT, b.emit(K.VEQ, x, zero), b.bits(MINUS_INFINITY), b.bits(NAN))
    result = b.emit(K.SELECT, b.emit(K.VLT, zero, x), result, at_zero)
    return b.emit(K.SELECT, b.emit(K.VEQ, x, b.bits(INFINITY)), x, result)
