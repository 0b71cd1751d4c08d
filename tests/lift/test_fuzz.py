"""Random functions: each lifts to what it computes, or is refused. More with tools/fuzz_lift.py."""

import ctypes
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("fuzz")))
import check  # noqa: E402
from programs import program  # noqa: E402

from gllm_kernels.errors import LiftError  # noqa: E402
from gllm_kernels.lift.lifter import lift, subject_of  # noqa: E402
from gllm_kernels.lift.signature import parse  # noqa: E402

needs_compiler = pytest.mark.skipif(not check.compilers(), reason="compiles C: no gcc, no clang")
FOUND = Path(__file__).with_name("found.c")
DECLARED = re.findall(r"^// (.*)\n((?:void|float) (\w+)\(.*?\))", FOUND.read_text(), re.MULTILINE)


@needs_compiler
@pytest.mark.parametrize("first", range(0, 500, check.BATCH))
def test_random_programs(first):
    outcomes = check.batch(list(range(first, first + check.BATCH)))
    wrong = [str(o) for o in outcomes if o.verdict not in check.GOOD]
    assert not wrong, "\n".join(wrong)
    assert sum(o.verdict == "lifted" for o in outcomes) >= 3


@needs_compiler
@pytest.mark.parametrize("seed", [3981, 7570, 9843, 14164, 17195])
def test_a_zero_keeps_its_sign(seed):
    """fmaxf takes one of two zeros by the order of its operands; x or x + t is no x + (0 or t)."""
    (outcome,) = check.batch([seed])
    assert outcome.verdict in check.GOOD, str(outcome)


@needs_compiler
@pytest.mark.parametrize("build", ["gcc -O0", "gcc -O1", "clang -O2 -fno-unroll-loops"])
def test_what_was_found_is_lifted_right_or_refused(tmp_path, build):
    """At once, too: some of these took minutes."""
    if build.split()[0] not in check.compilers():
        pytest.skip(f"compiles C: {build.split()[0]} is not installed")
    scalar = check.SCALAR[build.split()[0]]
    library = check.linked(FOUND.read_text(), f"{build} {scalar}", tmp_path)
    refused = []
    for label, declaration, name in DECLARED:
        try:
            lift(library, declaration)
        except LiftError as error:
            assert "error of the lifter" not in str(error)
            refused += [name] if label.startswith("lifts") and build == "gcc -O1" else []
    assert not refused and len(DECLARED) > 10


def test_a_program_is_its_seed():
    assert program(7) == program(7)
    assert len({program(s).text.replace(f"f{s}(", "f(") for s in range(200)}) > 190


@needs_compiler
def test_a_wrong_trace_is_seen(tmp_path):
    """The trace of one function compared with another that differs in one element or bit."""
    text = """
    void f1(const float *x, float *o, size_t n)
    { for (size_t i = 0; i < n; i++) o[i] = x[i] * 2.0f; }
    void f2(const float *x, float *o, size_t n)
    { for (size_t i = 0; i < n; i++) o[i] = i == 12 ? 0.0f : x[i] * 2.0f; }
    void f3(const float *x, float *o, size_t n)
    { for (size_t i = 0; i < n; i++) o[i] = x[i] != x[i] ? 0.0f : x[i] * 2.0f; }
    void f4(const float *x, float *o, size_t n)
    { for (size_t i = 0; i + 1 < n; i++) o[i] = x[i] * 2.0f; }
    """
    library = check.linked(
        check.HEADER + text, "gcc -O1" if "gcc" in check.compilers() else "clang -O1", tmp_path
    )
    made = check.Program(
        "f1", "", "void f1(const float *x, float *o, size_t n)", ("n",),
        (("x", "float", ("n",)), ("o", "float", ("n",))), (), "", (12,),
    )  # fmt: skip
    trace, _ = check.analyse(subject_of(library, parse(made.declaration)))
    functions = ctypes.CDLL(str(library))
    found = [
        check.difference(
            made, trace, check.native(made, ctypes.cast(f, ctypes.c_void_p).value), set()
        )
        for f in (functions.f1, functions.f2, functions.f3, functions.f4)
    ]
    assert [bool(text) for text in found] == [False, True, True, True]
