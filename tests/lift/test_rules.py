"""The rules one by one: paths, widths, order under NaN, what is raised with which message."""

import math
import shutil
import struct
import subprocess

import numpy as np
import pytest
from test_adversarial import judge

from gllm_kernels.errors import LiftError
from gllm_kernels.lift import value as v
from gllm_kernels.lift.accept import Acceptance
from gllm_kernels.lift.cells import Test as Relation
from gllm_kernels.lift.cells import find, impossible
from gllm_kernels.lift.classes import Classes
from gllm_kernels.lift.conditions import Condition
from gllm_kernels.lift.lifter import lift
from gllm_kernels.lift.samples import lag, small_sizes
from gllm_kernels.lift.signature import parse
from gllm_kernels.trace.interp import run
from gllm_kernels.trace.ir import Op
from gllm_kernels.trace.shapes import least_sizes, param_shape

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="compiles C: no gcc here")
FLAGS = ("-shared", "-fPIC", "-fno-tree-vectorize", "-ffp-contract=off", "-w", "-x", "c", "-")
HEAD = "#include <stddef.h>\n#define EACH(i, n) for (size_t i = 0; i < (n); i++)\n"


@pytest.fixture
def lifted(tmp_path):
    def compile_and_lift(text, declaration, *flags):
        path = tmp_path / "f.so"
        command = [GCC, "-O1", *flags, *FLAGS, "-o", str(path), "-lm"]
        subprocess.run(command, input=HEAD + text, text=True, check=True)
        return lift(path, declaration)

    return compile_and_lift


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    rows = [r for r in judge.rows() if r.name in MESSAGES]
    return judge.compiled(tmp_path_factory.mktemp("rules"), {("gcc", "-O1"): rows})


# ---- paths: m > n + 50 and n > 40


def linear(relation, constant, *coefs):
    terms = [(c, (k,)) for k, c in enumerate(coefs) if c]
    return Relation(((constant, ()), *terms), relation)


def test_sizes_are_found_in_every_corner():
    assert find((linear("g", -50, 1, -1), linear("g", -40, 0, 1)), (0, 0), (300, 300)) == (92, 41)
    square = Relation(((-144, ()), (1, (0, 0))), "e")
    assert find((square,), (0,), (300,)) == (12,)
    product = (Relation(((-1000, ()), (1, (0, 1))), "g"), linear("l", -40, 0, 1))
    m, n = find(product, (0, 0), (300, 300))
    assert m * n > 1000 and n < 40
    assert find((linear("g", -301, 1),), (0,), (300,)) is None
    assert find((linear("g", 0, 1),), (2, 2), (300, 300), apart=True) == (2, 3)


def test_corners_without_sizes_are_proved_empty():
    least, most = (0, 0), (1 << 31, 1 << 31)
    assert impossible((linear("g", -4, 1), linear("l", -2, 1)), least, most)
    assert impossible((linear("g", 0, 1, -1), linear("g", 0, -1, 1)), least, most)
    assert impossible((linear("e", -1, 2),), least, most)  # 2m = 1
    positive = linear("g", 0, 1), linear("g", 0, 0, 1)
    zero = Relation(((1, (0, 1)),), "le")
    assert impossible((*positive, zero), least, most) and not impossible((zero,), least, most)
    assert not impossible((linear("g", -5000, 1),), least, most)


# ---- classes of sizes


def test_sizes_with_a_zero_have_remainders_of_their_own():
    classes = Classes(("m", "n"))
    classes.refine((5, 8), {1: 4})
    classes.refine((3, 0), {0: 8})
    all_sizes = [(m, n) for m in range(20) for n in range(20)]
    kinds = {classes.of(sizes) for sizes in all_sizes}
    assert len(kinds) == 4 + 8 and set(classes.divided()) == kinds
    assert {classes.of(sizes) for sizes in small_sizes(classes)} == kinds
    for sizes in all_sizes:
        kind = classes.of(sizes)
        quotients = kind.quotients(sizes)
        assert kind.sizes(quotients) == sizes
        assert kind.least(sizes) == quotients and kind.most(max(sizes)) >= quotients
        inside = kind.sizes(kind.low), kind.sizes(kind.most(50))
        assert all(classes.of(other) is kind for other in inside)


def test_a_condition_is_one_test_however_its_sum_was_computed():
    signature = parse("void f(const float *x, float *out, size_t m, size_t n)")
    work = Acceptance(None, None, signature, Classes(("m", "n")))
    m, n = v.atom(2, 3), v.atom(3, 5)
    sums = [v.add(v.sub(m, n), 4), v.sub(v.add(4, m), n), v.add(v.sub(4, n), m)]
    assert len({work._test(Condition(0, total, "l", True)) for total in sums}) == 1


def test_no_size_of_another_class_is_taken_for_a_branch():
    classes = Classes(("m", "n"))
    classes.refine((3, 0), {0: 8})
    some, none = classes.of((3, 4)), classes.of((3, 0))
    empty = (linear("le", 0, 0, 1),)
    assert find(empty, some.low, some.most(300)) is None
    assert impossible(empty, some.low, some.most(1 << 31))
    assert find(empty, none.low, none.most(300)) == (0, 0)


# ---- the order of max and min, nested reductions


@needs_gcc
@pytest.mark.parametrize("first", [True, False])
def test_a_maximum_keeps_the_operand_that_wins_under_nan(lifted, first):
    """x > s ? x : s keeps s beside a NaN, s > x ? s : x takes it."""
    choice = "x[i] > s ? x[i] : s" if first else "s > x[i] ? s : x[i]"
    trace = lifted(f"float f(const float *x, size_t n) {{ float s = -1e30f; EACH(i, n) s = {choice};"
                   " return s; }", "float f(const float *x, size_t n)")  # fmt: skip
    for place in range(3):
        x = np.array([1.0, 3.0, 2.0], np.float32)
        x[place] = np.nan
        got, wanted = run(trace, {"x": x, "n": 3}), -1e30
        for value in x:
            taken = (value > wanted) if first else not (wanted > value)
            wanted = value if taken else wanted
        assert (math.isnan(got) and math.isnan(wanted)) or got == np.float32(wanted)


@needs_gcc
def test_nested_reductions_have_their_own_binders(lifted):
    trace = lifted(
        "float f(const float *x, size_t m, size_t n) { float t = 0; EACH(i, m) { float s = 0;"
        " EACH(j, n) s += x[i * n + j]; t += s * s; } return t; }",
        "float f(const float *x, size_t m, size_t n)",
    )
    binders = [node.imm[1] for node in trace.body if node.op is Op.REDUCE]
    assert len(binders) == len(set(binders)) == 2


# ---- widths: what is exact up to a size says so


@needs_gcc
@pytest.mark.parametrize(
    ("text", "largest"),
    [
        ("void f(const float *x, float *out, unsigned m, unsigned n) { for (unsigned i = 0; "
         "i < m * n; i++) out[i] = x[4u * i]; }", math.isqrt(1 << 29)),
        ("void f(const float *x, float *out, unsigned m, unsigned n) { for (unsigned i = 0; "
         "i < m * n; i++) out[i] = x[i]; }", math.isqrt((1 << 31) - 1)),
    ],
)  # fmt: skip
def test_the_extent_limit_covers_counters_of_products(lifted, text, largest):
    trace = lifted(text, text[: text.index(")") + 1], "-fwrapv")
    assert trace.extent_limit <= largest


# ---- arrays: where they begin and how long they are


@needs_gcc
def test_an_element_before_the_array_is_refused(lifted):
    for index in ("i - 1", "2 * i - 2"):
        text = f"void f(const float *x, float *out, size_t n) {{ EACH(i, n) out[i] = x[{index}]; }}"
        with pytest.raises(
            LiftError, match=r"x\[-\d\] is used at n = \d+: before the first element"
        ):
            lifted(text, "void f(const float *x, float *out, size_t n)")


@needs_gcc
def test_the_first_element_beside_all_others_does_not_lengthen_the_array(lifted):
    text = "void f(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] - x[0]; }"
    trace = lifted(text, "void f(const float *x, float *out, size_t n)")
    assert [str(s) for s in param_shape(trace, "x")] == ["n"]
    assert least_sizes(trace) == (("n", 1),)


@needs_gcc
def test_a_loop_from_the_second_term_wants_a_term(lifted):
    text = "float f(const float *x, size_t n) { float s = 0; for (size_t i = 1; i < n; i++) s += x[i]; return s; }"
    assert least_sizes(lifted(text, "float f(const float *x, size_t n)")) == (("n", 1),)


@needs_gcc
def test_distances_in_memory_count_with_their_sizes(lifted):
    text = "void f(float *x, size_t m, size_t n) { EACH(i, n) x[i + 90 * m] = x[i] * 2.0f; }"
    with pytest.raises(
        LiftError, match="computed by another formula|lies at another|elements of state"
    ):
        lifted(text, "void f(float *x, size_t m, size_t n)")
    trace = lifted("void f(float *x, size_t n) { EACH(i, n) x[i] = x[i] + x[i + 2]; }",
                   "void f(float *x, size_t n)")  # fmt: skip
    assert lag(trace) == 2


@needs_gcc
def test_a_segment_that_claims_to_be_huge_is_not_allocated(tmp_path):
    path = tmp_path / "f.so"
    text = HEAD + "void f(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i]; }"
    subprocess.run([GCC, "-O1", *FLAGS, "-o", str(path)], input=text, text=True, check=True)
    data = bytearray(path.read_bytes())
    table, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for at in range(table, table + size * count, size):
        struct.pack_into("<Q", data, at + 40, 1 << 60)  # p_memsz
    path.write_bytes(data)
    assert lift(path, "void f(const float *x, float *out, size_t n)", verify=False)


# ---- what is raised, each with its own message

MESSAGES = {
    "address_overlap": "depends on an address",
    "memory_order": "depends on an address",
    "data_store": "a store that happens only for some data",
    "data_argmax": "holds an integer that data chose",
    "address_const": "a store through x, which is declared const",
    "memory_frame": "a store to the stack of the caller",
    "state_global": "a load from a global variable",
    "memory_says": "call to puts",
    "call_pointer": "call to a function that is not known by name",
    "mean_of_three": "n is a size that decides nothing",
    "float_table_plain": "a table of constants indexed by 4\\*n bytes",
    "memory_local": "a local array indexed by 4\\*i bytes",
    "length_ratio": "the number of rounds of a loop is not a polynomial",
    "hidden_distance": "603 elements of state or distance: too far to check",
    "corner_square": r"at n = 12: out\[0\] is computed by another formula",
}
BARE = [
    # ret: nothing was put into xmm0
    (b"\xc3", "float f(const float *x)", "the function returns no float in xmm0"),
    # addss xmm0, xmm1
    (b"\xf3\x0f\x58\xc1\xc3", "float f(float a)", "xmm1 is read before it is written"),
    # movss xmm0, [rsp-4]
    (
        b"\xf3\x0f\x10\x44\x24\xfc\xc3",
        "float f(float a)",
        r"a stack slot \(rsp at entry -4\) is read",
    ),
    # lea rax, [rbx]
    (b"\x48\x8d\x03\xc3", "float f(float a)", "rbx is read before it is written"),
    # movss xmm0, [rsp+8]: no argument lies there
    (b"\xf3\x0f\x10\x44\x24\x08\xc3", "float f(float a)", "a load from the stack of the caller"),
    # movss xmm0, [rdi+rsi*4]: the upper half of an int argument is undefined
    (b"\xf3\x0f\x10\x04\xb7\xc3", "float f(const float *x, int n)", "a value that is not known"),
]


@needs_gcc
@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_raised_has_its_own_message(name, libraries):
    row = next(r for r in judge.rows() if r.name == name)
    with pytest.raises(LiftError, match=MESSAGES[name]):
        lift(libraries["gcc", "-O1"], row.declaration, verify=False)


@pytest.mark.parametrize(("code", "declaration", "message"), BARE)
def test_registers_and_slots_without_a_value(code, declaration, message):
    with pytest.raises(LiftError, match=message):
        lift(code, declaration)
