"""Elementary functions as kernel operations: one row each, with its error bound.

    function   largest error   special values
    exp        1 ULP           exp(-inf) = 0, exp(inf) = inf, NaN stays NaN, denormal results right
    exp2       1 ULP           as exp; exact at integers
    expm1      2 ULP           expm1(-inf) = -1, expm1(x) = x for |x| < 2^-25, so -0 stays -0
    tanh       2 ULP           tanh(-x) = -tanh(x) bit for bit, relative near 0, tanh(+-inf) = +-1
    log        1 ULP           log(0) = -inf, log(x < 0) = NaN, log(inf) = inf, denormal x right
    log2       2 ULP           as log; exact at powers of two
    log1p      2 ULP           log1p(-1) = -inf, log1p(x < -1) = NaN, log1p(-0) = -0
    erf        2 ULP           odd bit for bit, relative near 0, erf(+-inf) = +-1

1 ULP is the distance to the next float32 at the exact result. The bounds hold for all 2^32 inputs:
`tools/check_unary.py` measures them, the coefficients come from `tools/minimax.py`. sin and cos are
in `trig`, pow is in `power`.
"""

from __future__ import annotations

from .kernel import K, KernelBuilder, Value

# exp(r) = 1 + r + r^2*EXP(r) for |r| <= log(2)/2, relative error 3.2e-9
EXP = (0.49999994, 0.16666517, 0.041668102, 0.0083691925, 0.0013838903)
# 2^r = 1 + r*EXP2(r) for |r| <= 1/2, relative error 1.3e-8
EXP2 = (0.6931472, 0.24022594, 0.055503663, 0.009625445, 0.0013387927, 0.00013332508)
# log(1 + f) = f - f^2/2 + f^3*LOG(f) for sqrt(1/2) <= 1 + f < sqrt(2), relative error 3.5e-9
LOG = (0.33333313, -0.25000167, 0.20002224, -0.16659367, 0.14209527, -0.1254979, 0.121101834,
       -0.109150864, 0.053294346)
# log2(1 + f) = f/log(2) + f^2*LOG2(f) for the same f, relative error 2.4e-8
LOG2 = (-0.7213475, 0.480898, -0.3606752, 0.2885734, -0.24041983, 0.20504278, -0.17969708,
        0.17256461, -0.1650998, 0.09262198)
# tanh(x) = x + x^3*TANH(x^2) for |x| <= 0.325, relative error 2.3e-8
TANH = (-0.333329, 0.13308157, -0.049777426)
TANH_SMALL = 0.325
# erf(x) = x + x*ERF(x^2) for |x| <= 0.9277, relative error 1.7e-8
ERF = (0.12837915, -0.37612492, 0.112817675, -0.026764356, 0.0049894317, -0.00059702696)
# erf(t) = 1 - exp(t*ERFC(t)) for 0.9277 <= t <= 4, relative error 8.8e-10
ERFC = (-1.1286529, -0.6351333, -0.10626655, 0.023787538, -0.0036544579, 0.0003257427,
        -1.1523378e-05)
ERF_SMALL = 0.9277

LOG2E = 1.4426950408889634
# 1/log(2) to 48 bits is the float32 of LOG2E and this
LOG2E_LOW = 1.925963033500e-8
LN2 = 0.6931471805599453
# log(2) = LN2_HIGH + LN2_LOW; n*LN2_HIGH is exact for |n| < 2^14: it has 10 significant bits
LN2_HIGH = 0.693359375
LN2_LOW = -2.1219444005469057e-4
# beyond these exp is 0 or infinity: log(2^-150) = -103.97, log(2^128) = 88.72
EXP_LOWEST, EXP_HIGHEST = -104.0, 89.0
# exp of this is 2^-125: nothing beside PLUS, which is why `exp_plus` stops there
EXP_NORMAL, PLUS = -86.6, 2.0**-90
EXP2_LOWEST, EXP2_HIGHEST = -151.0, 129.0
# below this expm1 is -1: exp(-18) is less than half the spacing of float32 below 1; and erf(4) is 1
EXPM1_LOWEST, ERF_HIGHEST = -18.0, 4.0
# below this x^2/2 is less than half the spacing of float32 at x
LINEAR = 2.0**-25
# log1p scales what is larger by 2^-LOG1P_SHIFT, so that 2^-k stays a normal number
LOG1P_LARGE, LOG1P_SHIFT = 2.0**64, 40
# 1 - tanh(9.2) = 2e-8 is less than half the spacing of float32 below 1
TANH_HIGHEST = 9.2
# adding 1.5*2^23 leaves the nearest integer in the low bits of the sum
ROUNDER = 1.5 * 2**23
BIAS = 127
ONE_BITS = 0x3F800000
ROOT_HALF_BITS = 0x3F3504F3
SIGN = 0x80000000
SMALLEST_NORMAL = 2.0**-126
MANTISSA_BITS = 23
INFINITY, MINUS_INFINITY, NAN = 0x7F800000, 0xFF800000, 0x7FC00000


def exp(b: KernelBuilder, x: Value) -> Value:
    """2^n * exp(r) with n = round(x / log 2), r = x - n*log 2. At most 1 ULP."""
    x = clamp(b, x, EXP_LOWEST, EXP_HIGHEST)
    n = b.emit(K.VROUND, x * LOG2E)
    p = horner(b, _remainder(b, x, n), (1.0, 1.0, *EXP))
    return b.emit(K.VSCALEF, p, n)


def exp_plus(b: KernelBuilder, x: Value, more: float, negate: bool = False) -> Value:
    """exp(x) + more, or exp(-x) + more: more >= PLUS needs no denormals of exp, so 2^(n-1) and a
    doubling by FMA scale it. What exp and an addition give, to the rounding of n."""
    sign = -1.0 if negate else 1.0
    low, high = sorted((sign * EXP_NORMAL, sign * EXP_HIGHEST))
    x = clamp(b, x, low, high)
    n, half = _power(b, x, sign * LOG2E, BIAS - 1)
    step = K.VFMA if negate else K.VFNMA  # r = x - n*log(2), or its negative
    r = b.emit(step, n, b.const(LN2_LOW), b.emit(step, n, b.const(LN2_HIGH), x))
    p = horner(b, r, tuple(c * sign**k for k, c in enumerate((1.0, 1.0, *EXP))))
    return b.emit(K.VFMA, p * half, b.const(2.0), b.const(more))


def exp2(b: KernelBuilder, x: Value) -> Value:
    """2^n * 2^r with n = round(x), r = x - n without a rounding. At most 1 ULP."""
    x = clamp(b, x, EXP2_LOWEST, EXP2_HIGHEST)
    n = b.emit(K.VROUND, x)
    return b.emit(K.VSCALEF, horner(b, x - n, (1.0, *EXP2)), n)


def exp_below(b: KernelBuilder, x: Value) -> Value:
    """exp(x) for x <= 0: 2^(x*log2(e)), whose product is rounded. Relative error (1 + |x|)*2^-23."""
    x = b.emit(K.VMAX, b.const(EXP2_LOWEST), x * LOG2E)
    n = b.emit(K.VROUND, x)
    return b.emit(K.VSCALEF, horner(b, x - n, (1.0, *EXP2)), n)


def expm1(b: KernelBuilder, x: Value) -> Value:
    """2 * (2^(n-1)*(exp(r) - 1) + 2^(n-1) - 1/2), and x itself when it is small.

    Near n = 1 the sum cancels, so exp(r) - 1 = p + below carries what r and p have rounded away;
    2^(n-1) and the doubling keep n = 128 in range.
    """
    t = clamp(b, x, EXPM1_LOWEST, EXP_HIGHEST)
    n, half = _power(b, t, LOG2E, BIAS - 1)
    high = b.emit(K.VFNMA, n, b.const(LN2_HIGH), t)
    r = b.emit(K.VFNMA, n, b.const(LN2_LOW), high)
    rest = b.emit(K.VFNMA, n, b.const(LN2_LOW), high - r)
    rest = b.emit(K.VFMA, horner(b, r, EXP), r * r, rest)
    p = r + rest
    below = rest - (p - r)
    e = b.emit(K.VFMA, below, half, b.emit(K.VFMA, p, half, half - 0.5))
    linear = b.emit(K.VLT, b.emit(K.VAND, x, b.bits(SIGN - 1)), b.const(LINEAR))
    return b.emit(K.SELECT, linear, x, e + e)


def tanh(b: KernelBuilder, x: Value) -> Value:
    """e / (e + 2) with e = exp(2|x|) - 1, and the sign of x; x + x^3*TANH(x^2) when |x| is small.

    e = 2^n*(exp(2r) - 1) + (2^n - 1) with |x| = n*log(2)/2 + r; one constant is enough for r, since
    n grows as the slope of tanh falls. The quotient alone is within 2.6 ULP for small x, where the
    roundings of e and e + 2 weigh most, and within 1.5 ULP for the rest.
    """
    size, sign = split_sign(b, x)
    t = b.emit(K.VMIN, b.const(TANH_HIGHEST), size)
    n, power = _power(b, t, 2 * LOG2E, BIAS)
    r = b.emit(K.VFNMA, n, b.const(LN2 / 2), t)
    twice = tuple(2.0 ** (k + 2) * c for k, c in enumerate(EXP))
    e = b.emit(K.VFMA, horner(b, r, (2.0, *twice)), r * power, power - 1.0)
    square = size * size
    small = b.emit(K.VFMA, horner(b, square, TANH) * square, size, size)
    result = b.emit(K.SELECT, b.emit(K.VLT, size, b.const(TANH_SMALL)), small, e / (e + 2.0))
    return b.emit(K.VOR, result, sign)


def log(b: KernelBuilder, x: Value) -> Value:
    """n*log 2 + log(1 + f) with x = 2^n*(1 + f), sqrt(1/2) <= 1 + f < sqrt(2). At most 1 ULP."""
    return _log_special(b, x, _log_of(b, *mantissa(b, x)))


def log2(b: KernelBuilder, x: Value) -> Value:
    """n + log2(1 + f) with the same n and f; f/log(2) needs both parts of its factor."""
    n, f = mantissa(b, x)
    low = b.emit(K.VFMA, f, b.const(LOG2E_LOW), horner(b, f, LOG2) * (f * f))
    return _log_special(b, x, n + b.emit(K.VFMA, f, b.const(LOG2E), low))


def log1p(b: KernelBuilder, x: Value) -> Value:
    """As log with n from 1 + x, f = 2^-n*x + (2^-n - 1): what 1 + x rounds away stays in f."""
    large = b.emit(K.VLT, b.const(LOG1P_LARGE), x)
    y = b.emit(K.SELECT, large, x * 2.0**-LOG1P_SHIFT, x)
    sum_ = y + 1.0
    k = _exponent(b, sum_)
    power = b.emit(K.VISUB, b.bits(ONE_BITS), b.emit(K.VSHL, k, imm=MANTISSA_BITS))
    f = b.emit(K.VFMA, y, power, power - 1.0)
    shift = b.emit(K.SELECT, large, b.const(float(LOG1P_SHIFT)), b.const(0.0))
    result = _log_special(b, sum_, _log_of(b, b.emit(K.VI2F, k) + shift, f))
    return b.emit(K.VOR, result, b.emit(K.VAND, x, b.bits(SIGN)))


def erf(b: KernelBuilder, x: Value) -> Value:
    """x + x*ERF(x^2) when |x| is small, else 1 - exp(t*ERFC(t)) with t = |x| and the sign of x."""
    size, sign = split_sign(b, x)
    small = b.emit(K.VFMA, horner(b, size * size, ERF), size, size)
    t = b.emit(K.VMIN, b.const(ERF_HIGHEST), size)
    y = horner(b, t, ERFC) * t
    n, power = _power(b, y, LOG2E, BIAS)
    tail = b.emit(K.VFNMA, horner(b, _remainder(b, y, n), (1.0, 1.0, *EXP)), power, b.const(1.0))
    result = b.emit(K.SELECT, b.emit(K.VLT, size, b.const(ERF_SMALL)), small, tail)
    return b.emit(K.VOR, result, sign)


def horner(b: KernelBuilder, x: Value, coefficients: tuple[float, ...]) -> Value:
    """sum of coefficients[k] * x^k, highest power first, one FMA per degree."""
    total = b.const(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = b.emit(K.VFMA, total, x, b.const(c))
    return total


def split_sign(b: KernelBuilder, x: Value) -> tuple[Value, Value]:
    """|x| and the sign bit of x."""
    return b.emit(K.VAND, x, b.bits(SIGN - 1)), b.emit(K.VAND, x, b.bits(SIGN))


def clamp(b: KernelBuilder, x: Value, low: float, high: float) -> Value:
    """x stands second, so that NaN comes through."""
    return b.emit(K.VMIN, b.const(high), b.emit(K.VMAX, b.const(low), x))


def mantissa(b: KernelBuilder, x: Value) -> tuple[Value, Value]:
    """n and f with x = 2^n*(1 + f), sqrt(1/2) <= 1 + f < sqrt(2), for x > 0, denormal or not."""
    tiny = b.emit(K.VLT, x, b.const(SMALLEST_NORMAL))
    normal = b.emit(K.SELECT, tiny, x * 2.0**MANTISSA_BITS, x)
    k = _exponent(b, normal)
    f = b.emit(K.VISUB, normal, b.emit(K.VSHL, k, imm=MANTISSA_BITS)) - 1.0
    shift = b.emit(K.SELECT, tiny, b.const(float(MANTISSA_BITS)), b.const(0.0))
    return b.emit(K.VI2F, k) - shift, f


def _exponent(b: KernelBuilder, x: Value) -> Value:
    """The integer k with sqrt(1/2) <= x/2^k < sqrt(2), for normal x > 0."""
    return b.emit(K.VSAR, b.emit(K.VISUB, x, b.bits(ROOT_HALF_BITS)), imm=MANTISSA_BITS)


def _power(b: KernelBuilder, x: Value, factor: float, bias: int) -> tuple[Value, Value]:
    """n = round(x*factor) and 2^(n + bias - 127), for 0 < n + bias < 255.

    The sum with 1.5*2^23 + bias has n + bias in its low byte and 0 in its ninth bit.
    """
    shifted = b.emit(K.VFMA, x, b.const(factor), b.const(ROUNDER + bias))
    return shifted - (ROUNDER + bias), b.emit(K.VSHL, shifted, imm=MANTISSA_BITS)


def _remainder(b: KernelBuilder, x: Value, n: Value) -> Value:
    """x - n*log(2), in two steps because log(2) has more digits than a float32."""
    high = b.emit(K.VFNMA, n, b.const(LN2_HIGH), x)
    return b.emit(K.VFNMA, n, b.const(LN2_LOW), high)


def _log_of(b: KernelBuilder, n: Value, f: Value) -> Value:
    """n*log(2) + log(1 + f) for sqrt(1/2) <= 1 + f < sqrt(2)."""
    square = f * f
    rest = b.emit(K.VFMA, n, b.const(LN2_LOW), horner(b, f, LOG) * (f * square))
    rest = b.emit(K.VFNMA, square, b.const(0.5), rest)
    return b.emit(K.VFMA, n, b.const(LN2_HIGH), f + rest)


def _log_special(b: KernelBuilder, x: Value, result: Value) -> Value:
    """log for finite x > 0, infinity at infinity, minus infinity at 0, NaN elsewhere."""
    zero = b.const(0.0)
    at_zero = b.emit(K.SELECT, b.emit(K.VEQ, x, zero), b.bits(MINUS_INFINITY), b.bits(NAN))
    result = b.emit(K.SELECT, b.emit(K.VLT, zero, x), result, at_zero)
    return b.emit(K.SELECT, b.emit(K.VEQ, x, b.bits(INFINITY)), x, result)
