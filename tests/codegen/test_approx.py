"""Elementary functions: stated bounds on 2^20 inputs of every exponent, special values, symmetry."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import machine
import numpy as np
import pytest

from gllm_kernels.codegen import approx
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.kernel import Inst, K, KernelBuilder, KParam
from gllm_kernels.codegen.legalise import legalise
from gllm_kernels.trace.affine import Affine

TOOLS = Path(__file__).parents[2] / "tools"
ISAS = pytest.mark.parametrize("isa", machine.ISAS, ids=lambda isa: isa.name)
NAMES = pytest.mark.parametrize("name", ["exp", "log", "tanh"])


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


check = tool("check_unary")


def stated(name: str) -> float:
    """The bound the module's docstring promises."""
    return float(re.search(rf"^ *{name} +(\d+) ULP", approx.__doc__, re.MULTILINE)[1])


@ISAS
@NAMES
def test_stated_error(name: str, isa: Isa) -> None:
    """One input drawn from each of 2^20 equal stretches of bit patterns: all exponents, signs."""
    rng = np.random.default_rng(20)
    bits = (np.arange(1 << 20, dtype=np.uint64) << 12) + rng.integers(0, 1 << 12, 1 << 20,
                                                                     dtype=np.uint64)
    found = check.examine(name, check.unary(name, isa), bits.astype(np.uint32))
    assert found.wrong == 0
    assert found.ulp <= stated(name), found


@ISAS
@NAMES
@pytest.mark.parametrize("centre", [
    0.0, 1.0, 0.5**0.5, 2.0**0.5, approx.TANH_SMALL, 88.722839, 87.33655, -103.97208, -87.33655,
    approx.EXP_LOWEST, approx.EXP_HIGHEST, approx.TANH_HIGHEST, 9.010913, 0.5 * np.log(2.0),
    0.25 * np.log(2.0), approx.SMALLEST_NORMAL,
])
def test_around_boundaries(name: str, centre: float, isa: Isa) -> None:
    """1024 neighbours on both sides of every point where a row changes its path."""
    middle = int(np.float32(centre).view(np.uint32))
    bits = (middle + np.arange(-1024, 1024)) % (1 << 32)
    found = check.examine(name, check.unary(name, isa), bits.astype(np.uint32))
    assert found.wrong == 0
    assert found.ulp <= stated(name), found


@ISAS
def test_special_values(isa: Isa) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([0.0, -0.0, inf, -inf, nan, 1e-45, -1e-45, -1.0] * 8, np.float32)
    want = {
        "exp": [1.0, 1.0, inf, 0.0, nan, 1.0, 1.0, np.exp(np.float32(-1.0))],
        "log": [-inf, -inf, inf, nan, nan, -103.27893, nan, nan],
        "tanh": [0.0, -0.0, 1.0, -1.0, nan, 1e-45, -1e-45, np.tanh(np.float32(-1.0))],
    }
    for name, row in want.items():
        got = check.unary(name, isa)(x)[:8]
        np.testing.assert_array_max_ulp(got[np.isfinite(row)],
                                        np.array(row, np.float32)[np.isfinite(row)], 1)
        np.testing.assert_array_equal(got[~np.isfinite(row)],
                                      np.array(row, np.float32)[~np.isfinite(row)])
        finite = ~np.isnan(row)
        assert np.array_equal(np.signbit(got[finite]), np.signbit(np.array(row)[finite]))


@ISAS
def test_tanh_is_odd(isa: Isa) -> None:
    bits = np.random.default_rng(21).integers(0, 1 << 31, 1 << 16).astype(np.uint32)
    tanh = check.unary("tanh", isa)
    positive = tanh(bits.view(np.float32)).view(np.uint32)
    negative = tanh((bits | np.uint32(approx.SIGN)).view(np.float32)).view(np.uint32)
    number = ~np.isnan(bits.view(np.float32))
    assert np.array_equal(positive[number] ^ np.uint32(approx.SIGN), negative[number])


def test_denormal_results_of_exp() -> None:
    """Between log(2^-150) and log(2^-126) the results are denormal and still the nearest or next."""
    x = np.linspace(-104.2, -87.0, 1 << 14).astype(np.float32)
    for isa in machine.ISAS:
        got = check.unary("exp", isa)(x)
        steps = np.abs(got.astype(np.float64) - np.exp(x.astype(np.float64))) / 2.0**-149
        assert np.where(got < approx.SMALLEST_NORMAL, steps, 0).max() <= 1.0


@pytest.mark.parametrize("row", ["EXP", "LOG", "TANH"])
def test_coefficients_come_from_the_tool(row: str) -> None:
    minimax = tool("minimax")
    fitted, error = minimax.fit(next(r for r in minimax.ROWS if r.name == row))
    assert tuple(np.float32(fitted)) == tuple(np.float32(getattr(approx, row)))
    assert error < 2.0**-24


def test_exp_scales_in_two_products_where_there_is_no_scaling_instruction() -> None:
    """The clamp bounds the exponent, so 2^n takes two factors: 3 products with x*log2(e)."""
    for isa in machine.ISAS:
        if K.VSCALEF in isa.legal:
            b = KernelBuilder("exp", isa.lanes, (KParam("x", "ptr"),))
            b.store(b.arg("x"), b.int(0), approx.exp(b, b.load(b.arg("x"), b.int(0))))
            body = legalise(b.build(Affine.const(1), 1), isa).body
            assert [s.op for s in body if isinstance(s, Inst)].count(K.VMUL) == 3
