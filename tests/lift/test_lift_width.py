"""Integers, doubles, booleans, several outputs: lifted from every build, equal to the function."""

import numpy as np
import pytest
import widths

from gllm_kernels.errors import LiftError
from gllm_kernels.lift.lifter import lift
from gllm_kernels.trace.ir import Op
from gllm_kernels.trace.spec import types

pytestmark = pytest.mark.skipif(not widths.COMPILERS, reason="no C compiler here")
BUILDS = [(c, *flags) for c in widths.COMPILERS for flags in (
    ("-O0",), ("-O1",), ("-O2",), ("-O2", "-mavx2", "-mfma", "-mf16c"))]
DIVISIONS = dict.fromkeys(("div7", "div8", "div16", "div10u"), "integer division")
DOUBLES = {"meanvar": "the bits of a float|several elements"}  # (double)n by the bits of 2^52
PAIRS = {"mask": "an integer that data chose", "out2": "several elements"}  # addresses; two stores
# what a compiler turns into something that has no formula here
REFUSED = {("clang", "-O0"): DIVISIONS | DOUBLES} | {
    build: DOUBLES | PAIRS for build in BUILDS if build[0] == "clang" and build[1] != "-O0"}
# two builds for each function, two others for the next one
CASES = [(name, BUILDS[(number + k * 3) % len(BUILDS)])
         for number, name in enumerate(sorted(widths.DECLARATIONS)) for k in range(2) if BUILDS]


@pytest.mark.parametrize(("name", "build"), CASES, ids=lambda case: "".join(case))
def test_lifts_and_equals_the_function(name, build):
    compiler, *flags = build
    source = widths.library(compiler, *flags)
    reason = REFUSED.get(build, {}).get(name)
    if reason is None:
        lift(source, widths.DECLARATIONS[name])
        return
    with pytest.raises(LiftError, match=reason):
        lift(source, widths.DECLARATIONS[name])


@pytest.mark.parametrize("name, kinds, operation", [
    ("addi8", {"i32"}, Op.ADD), ("dot8", {"i32"}, Op.MUL), ("trunc32", {"f32", "i32"}, Op.TOINT),
    ("sum64", {"i32", "i64"}, Op.EXTEND), ("dsum", {"f64"}, Op.REDUCE),
    ("clampi", {"bool", "i32"}, Op.MAX), ("gt", {"f32", "bool", "i32"}, Op.LT),
    ("div7", {"i32", "i64"}, Op.MUL), ("i64f", {"f32", "i64"}, Op.NARROW),
])
def test_values_have_the_types_of_c(name, kinds, operation):
    """8 and 16 bits are promoted to i32, and nothing goes through a float that is not one."""
    trace = widths.trace(name)
    assert set(types(trace)) - kinds <= {"bool"} and kinds - {"bool"} <= set(types(trace))
    assert operation in {node.op for node in trace.body}


def test_a_soft_conversion_of_halves_is_right_for_all_65536_inputs():
    from gllm_kernels.trace.interp import run

    every = np.arange(1 << 16, dtype=np.uint16)
    made = np.zeros(every.size, np.float32)
    run(widths.trace("fromhalf"), {"x": every, "o": made, "n": every.size})
    want = every.view(np.float16).astype(np.float32)
    nan = np.isnan(want)
    assert np.array_equal(np.isnan(made), nan)
    assert np.array_equal(made.view(np.uint32)[~nan], want.view(np.uint32)[~nan])


CASES = """
void by_data(const int32_t *a, const int32_t *b, int32_t *o, size_t n) { for (size_t i = 0; i < n; i++) o[i] = a[i] / b[i]; }
void wide(const int64_t *a, int64_t *o, size_t n) { for (size_t i = 0; i < n; i++) o[i] = a[i] / 7; }
void first(const float *x, int32_t *o, size_t n) { int at = 0; for (size_t i = 0; i < n; i++) if (x[i] > x[at]) at = (int)i; o[0] = at; }
void prefix(const int32_t *x, int32_t *o, size_t n) { int32_t s = 0; for (size_t i = 0; i < n; i++) { s += x[i]; o[i] = s; } }
void histogram(const uint8_t *x, int32_t *o, size_t n) { for (size_t i = 0; i < n; i++) o[x[i]]++; }
"""


@pytest.mark.parametrize("name, text", [
    ("by_data", "integer division"), ("wide", "product of 64 bits"), ("first", "data"),
    ("prefix", "formula|instances"), ("histogram", "data|opaque"),
])
def test_what_integers_cannot_do_is_said(name, text, tmp_path):
    import re
    import subprocess

    source, made = tmp_path / "cases.c", tmp_path / "cases.so"
    source.write_text("#include <stdint.h>\n#include <stddef.h>\n" + CASES)
    compiler = widths.COMPILERS[0]
    subprocess.run([compiler, "-O1", "-fno-jump-tables", "-fPIC", "-shared", str(source), "-o", str(made)],
                   check=True)
    declaration = re.search(rf"^(void {name}\(.*?\)) {{", CASES, re.MULTILINE)[1]
    with pytest.raises(LiftError, match=text) as caught:
        lift(made, declaration)
    assert "change:" in str(caught.value)
