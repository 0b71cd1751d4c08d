"""Random functions: each lifts to what it computes, or is refused. More with tools/fuzz_lift.py."""

import ctypes
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("fuzz")))
import check  # noqa: E402
from programs import program  # noqa: E402

from gllm_kernels.lift.lifter import subject_of  # noqa: E402
from gllm_kernels.lift.signature import parse  # noqa: E402

needs_compiler = pytest.mark.skipif(not check.compilers(), reason="compiles C: no gcc, no clang")
# what was found: two ways to a hang, sizes that ran out, a chain too deep, overlapping rows
FOUND = (10243, 20653, 21340, 20070, 172, 10089, 15, 20972)


@needs_compiler
@pytest.mark.parametrize("first", range(0, 500, check.BATCH))
def test_random_programs(first):
    outcomes = check.batch(list(range(first, first + check.BATCH)))
    wrong = [str(o) for o in outcomes if o.verdict not in check.GOOD]
    assert not wrong, "\n".join(wrong)
    assert sum(o.verdict == "lifted" for o in outcomes) >= 3


@needs_compiler
@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_stays_found(seed):
    (outcome,) = check.batch([seed])
    assert outcome.verdict in check.GOOD, str(outcome)


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
    library = check.linked(text, "gcc -O1" if "gcc" in check.compilers() else "clang -O1", tmp_path)
    made = check.Program(
        "f1", "", "void f1(const float *x, float *o, size_t n)", ("n",),
        (("x", "float", ("n",)), ("o", "float", ("n",))), (), "", (12,),
    )  # fmt: skip
    trace, _ = check.analyse(subject_of(library, parse(made.declaration)))
    functions = ctypes.CDLL(str(library))
    found = [
        check.difference(made, trace, check.native(made, ctypes.cast(f, ctypes.c_void_p).value), set())
        for f in (functions.f1, functions.f2, functions.f3, functions.f4)
    ]
    assert [bool(text) for text in found] == [False, True, True, True]
