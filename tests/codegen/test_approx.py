"""Elementary functions: stated bounds on samples of every exponent, special values, symmetry."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from functools import cache
from itertools import islice
from pathlib import Path

import machine
import numpy as np
import pytest

from gllm_kernels.codegen import approx, power, trig
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.generate import generate
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.kernel import Inst, K, KernelBuilder, KParam, Loop, walk
from gllm_kernels.codegen.legalise import legalise
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Param, Store

TOOLS = Path(__file__).parents[2] / "tools"
ISAS = pytest.mark.parametrize("isa", machine.ISAS, ids=lambda isa: isa.name)


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


check = tool("check_unary")
compiled = cache(check.compiled)
UNARY = [name for name in check.REFERENCE if name != "pow"]
STATED = {name: float(bound) for text in (approx, trig, power)
          for name, bound in re.findall(r"^ +(\w+) +(\d+) ULP", text.__doc__, re.MULTILINE)}
# compositions of the catalogue, and of exactly rounded operations
STATED |= {"silu": 3.0, "gelu": 3.0, "rsqrt": 2.0}
STATED |= dict.fromkeys(("sqrt", "floor", "ceil", "trunc", "rint", "round"), 0.5)
DISTANCE = 2.0e-7  # of silu and gelu, relative to the larger of 1 and the result


def assert_bound(name: str, isa: Isa, *inputs: np.ndarray) -> None:
    """Within the stated bound, and NaN, infinity and the sign of zero where they belong."""
    (found,) = check.examine(name, [compiled(name, isa)], *inputs)
    assert found.wrong == 0, (name, found)
    assert found.ulp <= STATED[name], (name, found)
    assert found.distance <= DISTANCE, (name, found)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def around(centres: np.ndarray) -> np.ndarray:
    """512 neighbours on both sides of every centre and of its negative."""
    bits = np.concatenate((centres, -centres)).view(np.uint32).astype(np.int64)
    near = (bits[:, None] + np.arange(-512, 513)) % (1 << 32)
    return near.astype(np.uint32).reshape(-1).view(np.float32)


@ISAS
@pytest.mark.parametrize("name", UNARY)
def test_stated_error(name: str, isa: Isa) -> None:
    """One input drawn from each of 2^18 equal stretches of bit patterns: all exponents, signs."""
    drawn = np.random.default_rng(20).integers(0, 1 << 14, 1 << 18, dtype=np.uint32)
    bits = (np.arange(1 << 18, dtype=np.uint32) << np.uint32(14)) + drawn
    assert_bound(name, isa, bits.view(np.float32))


# where a row changes its path, overflows, underflows, saturates or cancels; halves, powers of two
CENTRES = floats(
    0.0, 1.0, 2.0, 0.5, 2.5, 0.5**0.5, 2.0**0.5, math.inf, approx.SMALLEST_NORMAL, 2.0**22, 2.0**23,
    approx.TANH_SMALL, approx.TANH_HIGHEST, 9.010913, approx.ERF_SMALL, approx.ERF_HIGHEST, 3.919,
    88.722839, 87.33655, 103.97208, approx.EXP_LOWEST, approx.EXP_HIGHEST, 17.32868, 16.635532,
    approx.EXPM1_LOWEST, approx.LINEAR, 128.0, 126.0, 149.0, approx.EXP2_LOWEST,
    approx.EXP2_HIGHEST, 0.5 * math.log(2), 0.25 * math.log(2), 1.5 * math.log(2),
    approx.LOG1P_LARGE, trig.LARGE, trig.LINEAR, *(math.pi / 4 * k for k in range(1, 12)),
    16367173.0 * 2.0**72, 6.0e30, 2.0**127, 45.0, 7571.23828,
)


@ISAS
@pytest.mark.parametrize("name", UNARY)
def test_around_boundaries(name: str, isa: Isa) -> None:
    assert_bound(name, isa, around(CENTRES))


@ISAS
def test_special_values(isa: Isa) -> None:
    """What the tables of the modules promise, by hand: float64 does not stand for itself here."""
    inf, nan, one = math.inf, math.nan, math.sin(1.0)
    x = floats(0.0, -0.0, inf, -inf, nan, 1e-45, -1e-45, -1.0)
    want = {
        "exp": (1.0, 1.0, inf, 0.0, nan, 1.0, 1.0, math.exp(-1)),
        "exp2": (1.0, 1.0, inf, 0.0, nan, 1.0, 1.0, 0.5),
        "expm1": (0.0, -0.0, inf, -1.0, nan, 1e-45, -1e-45, math.expm1(-1)),
        "log": (-inf, -inf, inf, nan, nan, -103.27893, nan, nan),
        "log2": (-inf, -inf, inf, nan, nan, -149.0, nan, nan),
        "log1p": (0.0, -0.0, inf, nan, nan, 1e-45, -1e-45, -inf),
        "tanh": (0.0, -0.0, 1.0, -1.0, nan, 1e-45, -1e-45, math.tanh(-1)),
        "erf": (0.0, -0.0, 1.0, -1.0, nan, 1e-45, -1e-45, math.erf(-1)),
        "sin": (0.0, -0.0, nan, nan, nan, 1e-45, -1e-45, -one),
        "cos": (1.0, 1.0, nan, nan, nan, 1.0, 1.0, math.cos(1)),
        "floor": (0.0, -0.0, inf, -inf, nan, 0.0, -1.0, -1.0),
        "ceil": (0.0, -0.0, inf, -inf, nan, 1.0, -0.0, -1.0),
        "trunc": (0.0, -0.0, inf, -inf, nan, 0.0, -0.0, -1.0),
        "rint": (0.0, -0.0, inf, -inf, nan, 0.0, -0.0, -1.0),
        "round": (0.0, -0.0, inf, -inf, nan, 0.0, -0.0, -1.0),
    }
    for name, row in want.items():
        got, exact = compiled(name, isa)(x), floats(*row)
        np.testing.assert_allclose(got, exact, rtol=3e-7, atol=0, err_msg=name)
        number = ~np.isnan(exact)
        assert np.array_equal(np.signbit(got[number]), np.signbit(exact[number])), name


@ISAS
def test_halves(isa: Isa) -> None:
    """rint goes to the even neighbour, round away from zero."""
    x = floats(0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 8388607.5)
    assert compiled("rint", isa)(x).tolist() == [0, 2, 2, 0, -2, -2, 0, 8388608]
    assert compiled("round", isa)(x).tolist() == [1, 2, 3, -1, -2, -3, 0, 8388608]


@ISAS
def test_pow(isa: Isa) -> None:
    """Special values with each other, then 2^18 drawn pairs."""
    for x, y in islice(check.pairs(1 << 18), 17):
        assert_bound("pow", isa, x, y)


# C99 annex F.9.4.4, line by line
ANNEX_F = [
    (0.0, -3.0, math.inf), (-0.0, -3.0, -math.inf), (-0.0, -2.0, math.inf), (-0.0, -0.5, math.inf),
    (0.0, 3.0, 0.0), (-0.0, 3.0, -0.0), (-0.0, 2.0, 0.0), (-0.0, 0.5, 0.0),
    (-1.0, math.inf, 1.0), (-1.0, -math.inf, 1.0), (1.0, math.nan, 1.0), (1.0, math.inf, 1.0),
    (math.nan, 0.0, 1.0), (math.nan, -0.0, 1.0), (math.inf, 0.0, 1.0), (-2.0, 0.5, math.nan),
    (0.5, -math.inf, math.inf), (-0.5, -math.inf, math.inf), (2.0, -math.inf, 0.0),
    (0.5, math.inf, 0.0), (2.0, math.inf, math.inf), (-2.0, math.inf, math.inf),
    (-math.inf, -3.0, -0.0), (-math.inf, -2.5, 0.0), (-math.inf, 3.0, -math.inf),
    (-math.inf, 2.5, math.inf), (math.inf, -1.0, 0.0), (math.inf, 1e-45, math.inf),
    (0.0, -math.inf, math.inf), (math.nan, 1.0, math.nan), (2.0, math.nan, math.nan),
    (-2.0, 3.0, -8.0), (-2.0, 16777216.0, math.inf), (-3.0, -1.0, -1 / 3), (10.0, 2.0, 100.0),
]


@ISAS
def test_pow_by_annex_f(isa: Isa) -> None:
    x, y, want = (floats(*column) for column in zip(*ANNEX_F, strict=True))
    got = compiled("pow", isa)(x, y)
    np.testing.assert_array_almost_equal_nulp(got[np.isfinite(want)], want[np.isfinite(want)], 0)
    number = ~np.isnan(want)
    assert machine.same_bits(got[~np.isfinite(want)], want[~np.isfinite(want)])
    assert np.array_equal(np.signbit(got[number]), np.signbit(want[number]))


@ISAS
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_the_long_reduction_is_skipped_where_all_angles_are_small(name: str, isa: Isa) -> None:
    """One loop inside the loop over vectors, bounded by the mask of large angles."""
    kernel = generate(check.trace_of(name), isa, default_params(isa))
    inner = [s for loop in walk(kernel.body) if isinstance(loop, Loop)
             for s in loop.body if isinstance(s, Loop)]
    masks = {s.dst for s in walk(kernel.body) if isinstance(s, Inst) and s.op is K.MBITS}
    assert inner and {loop.hi for loop in inner} <= masks


@ISAS
@pytest.mark.parametrize("name", [n for n in UNARY if n not in ("sin", "cos")])
def test_nothing_is_spilled(name: str, isa: Isa) -> None:
    code = compile_kernel(generate(check.trace_of(name), isa, default_params(isa)), isa)
    assert code.spills == 0


@ISAS
def test_tanh_is_odd(isa: Isa) -> None:
    bits = np.random.default_rng(21).integers(0, 1 << 31, 1 << 16).astype(np.uint32)
    tanh = compiled("tanh", isa)
    positive = tanh(bits.view(np.float32)).view(np.uint32)
    negative = tanh((bits | np.uint32(approx.SIGN)).view(np.float32)).view(np.uint32)
    number = ~np.isnan(bits.view(np.float32))
    assert np.array_equal(positive[number] ^ np.uint32(approx.SIGN), negative[number])


def test_denormal_results_of_exp() -> None:
    """Between log(2^-150) and log(2^-126) the results are denormal and still the nearest or next."""
    x = np.linspace(-104.2, -87.0, 1 << 14).astype(np.float32)
    for isa in machine.ISAS:
        got = compiled("exp", isa)(x)
        steps = np.abs(got.astype(np.float64) - np.exp(x.astype(np.float64))) / 2.0**-149
        assert np.where(got < approx.SMALLEST_NORMAL, steps, 0).max() <= 1.0


def exp_plus(more: float, negate: bool) -> OpTrace:
    """out[i] = exp(x[i]) + more, or exp(-x[i]) + more"""
    body, n = BodyBuilder(), Affine.sym("n")
    x = body.add(Op.LOAD, imm=("x", Affine.sym("i")))
    power = body.add(Op.EXP, body.add(Op.NEG, x) if negate else x)
    total = body.add(Op.ADD, power, body.const(more))
    params = (Param("x", "in"), Param("out", "out"), Param("n", "dim", "int64_t"))
    return OpTrace("exp_plus", params, tuple(body.body),
                   (Store("out", Affine.sym("i"), total, (("i", n),)),))


@ISAS
@pytest.mark.parametrize("negate", (False, True))
@pytest.mark.parametrize("more", (approx.PLUS, 1.0, 3e38))
def test_exp_and_an_addition(more: float, negate: bool, isa: Isa) -> None:
    """The errors of exp and of an addition, infinite and NaN as exp is, and no scaling instruction."""
    kernel = generate(exp_plus(more, negate), isa, default_params(isa))
    assert not [s for s in walk(kernel.body) if isinstance(s, Inst) and s.op is K.VSCALEF]
    nan = np.array([0x7FC00001, 0x7F800155, 0xFFFFFFFF], np.uint32).view(np.float32)
    special = floats(0, -0.0, math.inf, -math.inf, 88.7, -88.7, 89, -89, 1e-40, 3e38, -3e38)
    x = np.concatenate([special, nan, np.linspace(-110, 110, 1 << 13, dtype=np.float32)])
    args = {"x": x, "out": np.empty_like(x), "n": x.size}
    machine.call(compile_kernel(kernel, isa), args)
    with np.errstate(all="ignore"):
        want = np.exp(x.astype(np.float64) * (1 - 2 * negate)) + np.float32(more)
        near = want.astype(np.float32)
        apart = np.abs(args["out"] - want) / np.spacing(near)
    finite = np.isfinite(near)
    assert np.array_equal(args["out"][~finite], near[~finite], equal_nan=True)
    assert apart[finite].max() <= 1.5


minimax = tool("minimax")


@pytest.mark.parametrize("row", minimax.ROWS, ids=lambda row: row.name)
def test_coefficients_come_from_the_tool(row: object) -> None:
    fitted, error = minimax.fit(row)
    used = next(vars(m)[row.name] for m in (approx, trig, power) if row.name in vars(m))
    assert tuple(np.float32(fitted)) == tuple(np.float32(used))
    assert error < 2.0**-24


def test_exp_scales_in_two_products_where_there_is_no_scaling_instruction() -> None:
    """The clamp bounds the exponent, so 2^n takes two factors: 3 products with x*log2(e)."""
    for isa in machine.ISAS:
        if K.VSCALEF in isa.legal:
            b = KernelBuilder("exp", isa.lanes, (KParam("x", "ptr"),))
            b.store(b.arg("x"), b.int(0), approx.exp(b, b.load(b.arg("x"), b.int(0))))
            body = legalise(b.build(Affine.const(1), 1), isa).body
            assert [s.op for s in body if isinstance(s, Inst)].count(K.VMUL) == 3


def test_the_printed_table_covers_every_function_within_its_bound() -> None:
    """docs/ACCURACY.md: a row per function, nothing wrong in it, no error beyond the stated one."""
    text = (TOOLS.parent / "docs" / "ACCURACY.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", text, re.MULTILINE))
    assert set(check.REFERENCE) <= set(rows)
    for name in check.REFERENCE:
        measured = [float(e) for e in re.findall(r"(\d+\.\d+) at", rows[name])]
        assert "WRONG" not in rows[name]
        assert measured or "correctly rounded" in rows[name]
        assert all(e <= STATED[name] for e in measured), name
