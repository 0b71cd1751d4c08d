"""Random C expressions over floats: arithmetic, libm, ternaries, conditions."""

from __future__ import annotations

from random import Random

# fmt: off
CONSTANTS = ("0.0f", "-0.0f", "1.0f", "-1.0f", "0.5f", "2.0f", "3.0f", "0.044715f", "1e-5f", "-2.5f",
             "1e30f", "0.1f", "6.0f", "0.7978846f")
UNARY = ("-({0})", "fabsf({0})", "sqrtf({0})", "expf({0})", "logf({0})", "tanhf({0})", "erff({0})",
         "sinf({0})", "cosf({0})", "exp2f({0})", "log2f({0})", "log1pf({0})", "expm1f({0})",
         "floorf({0})", "ceilf({0})", "truncf({0})", "rintf({0})", "roundf({0})", "square({0})",
         "clamped({0})", "({0}) * ({0})", "1.0f / ({0})", "(float)sqrt((double)({0}))",
         "(float)(0.5 * ({0}))", "(float)exp({0})")
CHEAP = ("-({0})", "fabsf({0})", "({0}) * ({0})", "square({0})", "sqrtf({0})", "clamped({0})")
BINARY = ("({0}) + ({1})", "({0}) - ({1})", "({0}) * ({1})", "({0}) / ({1})", "fmaxf({0}, {1})",
          "fminf({0}, {1})", "({0}) > ({1}) ? ({0}) : ({1})", "({0}) < ({1}) ? ({0}) : ({1})",
          "larger({0}, {1})", "powf({0}, {1})", "fmaf({0}, {1}, {0})",
          "(float)((double)({0}) * ({1}))")
LINEAR = BINARY[:4]
CONDITIONS = ("({0}) < ({1})", "({0}) <= ({1})", "({0}) > ({1})", "({0}) >= ({1})",
              "({0}) == ({1})", "({0}) != ({1})", "!(({0}) < ({1}))", "isnan((float)({0}))",
              "({0}) < ({1}) && ({0}) > -1.0f", "({0}) > ({1}) || ({1}) > 2.0f")
# fmt: on
FUNCTIONS = """
static inline float square(float a) { return a * a; }
static __attribute__((noinline)) float clamped(float a)
{ if (a < -1.0f) return -1.0f; return a > 1.0f ? 1.0f : a; }
static float larger(float a, float b) { if (a >= b) return a; return b; }
"""


def expression(rng: Random, leaves: list[str], depth: int) -> str:
    """A float expression that reads some of `leaves`."""
    if depth <= 0 or rng.random() < 0.1:
        return rng.choice(leaves) if rng.random() < 0.9 else rng.choice(CONSTANTS)
    kind = rng.random()
    if kind < 0.25:
        table = UNARY if rng.random() < 0.5 else CHEAP
        return rng.choice(table).format(f"{expression(rng, leaves, depth - 1)}")
    pair = [expression(rng, leaves, depth - 1), expression(rng, leaves, depth - 2)]
    if rng.random() < 0.3:
        pair.reverse()
    if kind < 0.88:
        table = LINEAR if rng.random() < 0.7 else BINARY
        return rng.choice(table).format(*(f"({p})" for p in pair))
    return "({}) ? ({}) : ({})".format(condition(rng, leaves), *pair)


def condition(rng: Random, leaves: list[str]) -> str:
    """A comparison of a leaf with another or with a constant."""
    other = rng.choice([*leaves, "0.0f", "0.0f", "1.0f", "-0.5f"])
    return rng.choice(CONDITIONS).format(rng.choice(leaves), other)


def statements(rng: Random, leaves: list[str], name: str, depth: int) -> list[str]:
    """`float name` computed by a few statements, some of them under conditions on data."""
    value = expression(rng, leaves, depth)
    if rng.random() < 0.65:
        return [f"float {name} = {value};"]
    first = rng.choice((f"float {name} = {value};", f"float {name}; {name} = {value};"))
    more = [name, *leaves]
    one, two = (expression(rng, more, 1) for _ in range(2))
    return [first, rng.choice((
        f"if ({condition(rng, more)}) {name} = {one};",
        f"if ({condition(rng, more)}) {name} = {one}; else {name} = {two};",
        f"if ({condition(rng, more)}) {{ {name} = {one}; if ({condition(rng, more)}) {name} = {two}; }}",
        f"if ({condition(rng, more)}) {name} = {one}; else if ({condition(rng, more)}) {name} = {two};",
        f"switch ({condition(rng, more)}) {{ case 0: {name} = {one}; break; default: {name} = {two}; }}",
    ))]  # fmt: skip
