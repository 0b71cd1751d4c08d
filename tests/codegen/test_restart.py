"""Maxima in every spelling keep and forget NaN as the C function does."""

import shutil

import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.config import config

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))),
                                reason="needs a C compiler")
ISAS = [isa.name for isa in host_isas()] + ["scalar"]
SPELLINGS = {
    "restart_max": "m > x ? m : x", "restart_max_lt": "x < m ? m : x",
    "restart_min": "m < x ? m : x", "restart_min_gt": "x > m ? m : x",
    "pass_max": "x > m ? x : m", "pass_max_lt": "m < x ? x : m",
    "pass_min": "x < m ? x : m", "pass_min_gt": "m > x ? x : m",
    "number_max": "MAX(m, x)", "number_max_swapped": "MAX(x, m)",
    "number_min": "MIN(m, x)", "number_min_swapped": "MIN(x, m)",
}  # fmt: skip
SIZES = (1, 2, 7, 8, 17, 64, 150, 1000)


def source(name, real, start):
    f = "f" if real == "float" else ""
    text = (f"#include <stddef.h>\n#include <math.h>\n#define MAX fmax{f}\n#define MIN fmin{f}\n"
            f"{real} {name}(const {real} *v, size_t n) {{ {real} m = {start};"
            f" for (size_t i = {int(start == 'v[0]')}; i < n; i++) {{"
            f" {real} x = v[i]; m = {SPELLINGS[name]}; }}"
            " return m; }")
    return text, f"{real} {name}(const {real} *v, size_t n)"


def inputs(dtype):
    rng = np.random.default_rng(0)
    for n in SIZES:
        spots = [[], [0], [n // 2], [n - 1], [0, n - 1], [0, n // 3, n // 2], list(range(n)),
                 *(rng.integers(0, n, 3) for _ in range(4))]
        for spot in spots:
            x = rng.standard_normal(n).astype(dtype)
            x[spot] = np.nan
            yield x


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("real, start", [
    ("float", "INFINITY"), ("float", "0"), ("float", "v[0]"),
    ("double", "INFINITY"), ("double", "v[0]")])
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_nan_restarts_or_is_passed_over_as_written(isa, name, real, start):
    signed = f"-{start}" if start == "INFINITY" and "max" in name else start
    dtype = {"float": np.float32, "double": np.float64}[real]
    with config(isa=isa):
        got = gk.compile_c(*source(name, real, signed))
    with config(isa="scalar"):
        wanted = gk.compile_c(*source(name, real, signed))
        expected = [wanted(x) for x in inputs(dtype)]
    with config(isa=isa):
        for x, value in zip(inputs(dtype), expected, strict=True):
            np.testing.assert_array_equal(got(x), value, err_msg=f"{x.size} {np.isnan(x).nonzero()}")


ROWS = """
#include <math.h>
#include <stddef.h>
#define MAX(a, b) ((a) > (b) ? (a) : (b))
void NAME(const float *x, float *out, size_t rows, size_t n) {
    for (size_t i = 0; i < rows; i++) {
        float m = -INFINITY, s = 0;
        for (size_t j = 0; j < n; j++) m = MAX(m, x[AT]);
        SUM
        for (size_t j = 0; j < n; j++) out[AT] = LAST;
    }
}
"""
SUM = "for (size_t j = 0; j < n; j++) s += expf(x[AT] - m);"
LAST = {"row_difference": ("", "x[AT] - m"), "row_softmax": (SUM, "expf(x[AT] - m) / s"),
        "row_both": (SUM, "(x[AT] - m) + (s > 3.0f ? 1.0f : 2.0f)")}  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", LAST)
def test_a_row_with_nan(isa, name):
    text = ROWS.replace("NAME", name).replace("SUM", LAST[name][0]).replace("LAST", LAST[name][1])
    op = text.replace("AT", "i * n + j"), f"void {name}(const float *x, float *out, size_t rows, size_t n)"
    with config(isa=isa):
        got = gk.compile_c(*op)
    for x in inputs(np.float32):
        with config(isa="scalar"):
            wanted = got(np.stack([x, x[::-1]]))
        with config(isa=isa):
            np.testing.assert_allclose(got(np.stack([x, x[::-1]])), wanted, rtol=1e-5, atol=1e-6)
