"""Operators written in Python go where those in C go; what they compute is float32."""

import math
import subprocess
import sys

import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.config import config
from gllm_kernels.trace.ir import Op as T

numba = pytest.importorskip("numba", reason="compiles Python: numba is not installed")
ISAS = [isa.name for isa in host_isas()] + ["scalar"]
HALF, K = 0.5, 2


def formula(trace_of):
    return str(trace_of).splitlines()[1].strip()


def doubles(op):
    return [n for n in op.trace.body if n.op in (T.WIDEN, T.CONST64)]


def py_mish(x):
    return x * math.tanh(math.log(1 + math.exp(x)))


def py_swiglu(gate, up, *, limit=7.0, alpha=1.702):
    gate, up = min(gate, limit), max(min(up, limit), -limit)
    return (up + 1) * gate / (1 + math.exp(-alpha * gate))


@pytest.fixture(scope="module")
def mish():
    return gk.operator(py_mish)


@pytest.mark.parametrize("isa", ISAS)
def test_a_function_of_one_element_is_an_operator(mish, isa):
    x = np.random.default_rng(0).standard_normal((7, 33), np.float32)
    with config(isa=isa):
        got = mish(x)
    want = x * np.tanh(np.log1p(np.exp(x.astype(np.float64))))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert formula(mish) == "out[i0] = tanh(log(1.0 + exp(x[i0])))*x[i0]  for i0 < n"


@pytest.mark.parametrize("isa", ISAS)
def test_in_an_epilogue_and_in_a_fused_chain(mish, isa):
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(s, np.float32) for s in ((19, 40), (40, 35)))
    graph = gk.CompilerGraph()
    product = graph.op("gemm", graph.input("a", ("m", 40)), graph.weight("b", b))
    graph.output("y", graph.op("vec_mul", graph.op("py_mish", product), graph.input("z", ("m", 35))))
    want = a.astype(np.float64) @ b
    want = want * np.tanh(np.log1p(np.exp(want)))
    z = rng.standard_normal((19, 35), np.float32)
    with config(isa=isa):
        layer = gk.compile_graph(graph)
        np.testing.assert_allclose(layer(a=a, z=z)["y"], want * z, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(gk.gemm(a, b, epilogue=mish), want, rtol=1e-4, atol=1e-5)
    if isa != "scalar":
        assert len(layer.program.steps) == 1


def test_scalars_stand_behind_a_star_and_keep_their_defaults():
    op = gk.operator(py_swiglu)
    g, u = np.random.default_rng(2).standard_normal((2, 50), np.float32) * 9
    for named in ({}, {"limit": 2.0, "alpha": 0.5}):
        want = [py_swiglu(float(x), float(y), **named) for x, y in zip(g, u, strict=True)]
        np.testing.assert_allclose(op(g, u, **named), want, rtol=1e-4)
    assert str(op.__signature__) == "(gate, up, *, limit=7.0, alpha=1.702, out=None)"


def test_numbers_that_meet_a_float32_are_float32():
    """Literals, globals, constants of modules, sizes and counters; np.float64 stays a double."""
    closure = 1.5

    def every(x):
        total = 0
        for k in range(3):
            total += HALF * x + k
        return max(total, 0) / K + math.sqrt(2 / math.pi) - closure + (x if 1 < x else -1) + x**2

    def wide(x):
        return np.float64(0.1) * x + 1

    assert not doubles(gk.operator(every))
    assert doubles(gk.operator(wide))
    x = np.linspace(-3, 3, 13, dtype=np.float32)
    np.testing.assert_allclose(gk.operator(every)(x), [every(float(v)) for v in x], rtol=1e-5)


def test_conditions_joined_by_and_and_or():
    """LLVM joins them as masks and moves them into an integer register."""

    def chosen(x):
        return 1 if (x > 0 and x < 1) or x == 3 else 0

    def turned(x):
        inside = x > 0 and x < 1
        return x * 2 if inside else (x * 3 if x > 5 and not inside else x)

    x = np.float32([-1, 0, 0.5, 1, 3, 5, 6, np.nan, np.inf])
    for function in (chosen, turned):
        np.testing.assert_array_equal(gk.operator(function)(x), [function(float(v)) for v in x])


def py_part(x):
    return 0.5 * x if x < 0 else x + 1


def test_functions_that_it_calls_are_compiled_by_the_same_rules():
    def outer(x):
        return py_part(x) + inner(x)

    inner = numba.njit(lambda x: 2 * x - 0.5)
    op = gk.operator(outer)
    assert not doubles(op)
    np.testing.assert_allclose(op(np.float32([-2, 2])), [-5.5, 6.5])


def test_whole_loops_on_pointers_lift_to_the_formulas_of_the_catalogue():
    @gk.operator("float mean_square(const float *x, size_t n)")
    def mean_square(x, n):
        total = 0
        for i in range(n):
            total += x[i] * x[i]
        return total / n

    @gk.operator("void soft(const float *x, float *out, size_t m, size_t n)")
    def soft(x, out, m, n):
        x, out = numba.carray(x, (m, n)), numba.carray(out, (m, n))
        for i in range(m):
            top = x[i, 0]
            for j in range(1, n):
                top = max(top, x[i, j])
            total = 0.0
            for j in range(n):
                out[i, j] = math.exp(x[i, j] - top)
                total += out[i, j]
            for j in range(n):
                out[i, j] /= total

    assert formula(mean_square) == "return sum[r0 < n](x[r0]*x[r0]) / float(n)"
    assert soft.operator.pattern == gk.Op.named("softmax").operator.pattern
    x = np.random.default_rng(3).standard_normal((4, 37), np.float32)
    np.testing.assert_allclose(soft(x), gk.softmax(x), rtol=1e-5)
    np.testing.assert_allclose(mean_square(x[0]), np.mean(x[0] ** 2), rtol=1e-5)


def test_a_cfunc_compiled_without_vectorisers_registers_as_it_is():
    """numba reads its settings when it is imported, so in a process of its own."""
    text = (
        "import numba as nb, numpy as np, gllm_kernels as gk\n"
        "@nb.cfunc(nb.void(nb.types.CPointer(nb.float32), nb.types.CPointer(nb.float32), nb.intp),"
        " error_model='numpy')\n"
        "def twice(x, out, n):\n"
        "    for i in range(n): out[i] = x[i] * np.float32(2) + np.float32(1)\n"
        "for source in (twice, twice.ctypes):\n"
        "    op = gk.register(source, 'void twice(const float *x, float *out, size_t n)')\n"
        "    print(op(np.arange(3, dtype='f4')))\n"
    )
    for setting, ok in (("0", True), ("1", False)):
        environment = {"NUMBA_LOOP_VECTORIZE": setting, "PATH": "", "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([sys.executable, "-c", text], env=environment, text=True,
                              capture_output=True)  # fmt: skip
        if ok:
            assert done.stdout == "[1. 3. 5.]\n" * 2, done.stderr
        else:
            assert "NUMBA_LOOP_VECTORIZE=0" in done.stderr and "gk.operator" in done.stderr


def bad_default(x, y=1.0): ...
def bad_text(x, *, mode="a"): ...
def bad_star(*x): ...
def bad_none(*, a=1.0): ...
def bad_raise(x):
    if x < 0:
        raise ValueError
    return x
def bad_name(x): return x + undefined_anywhere  # noqa: F821
def bad_call(x): return len(x)
def bad_nothing(x): pass
def bad_import(x):
    import math
    return math.exp(x)
def bad_yield(x): yield x
def bad_print(x):
    print(x)
    return x


@pytest.mark.parametrize(("function", "kind", "message"), [
    (bad_default, gk.LiftError, "`y=1.0|y=1.0 is no array; write `def bad_default"),
    (bad_text, gk.LiftError, "the default of mode is 'a'; give a number"),
    (bad_star, gk.LiftError, r"\*x is no array"),
    (bad_none, gk.LiftError, "is no array; write"),
    (lambda x: x, gk.LiftError, "an operator needs a name"),
    (bad_raise, gk.CompileError, "may raise an exception.*leave out raise"),
    (bad_name, gk.CompileError, "numba refused the function:\n.*"),
    (bad_call, gk.CompileError, "numba refused the function"),
    (bad_nothing, gk.CompileError, "numba refused the function"),
    (bad_import, gk.CompileError, "numba refused the function:\n.*IMPORT_NAME"),
    (bad_yield, gk.LiftError, "a generator or coroutine computes no element"),
    (bad_print, gk.CompileError, "leave out raise, assert, print"),
    (5, gk.LiftError, "gk.operator is given a int; wanted a function"),
    (print, gk.LiftError, "is given a builtin_function_or_method"),
])  # fmt: skip
def test_what_is_no_operator_is_refused_with_the_remedy(function, kind, message):
    with pytest.raises(kind, match=message):
        gk.operator(function)


@pytest.mark.parametrize(("declaration", "message"), [
    ("void bad_nothing(const float *x)", "writes nothing"),
    ("void other(const float *x)", "other is declared above `def bad_nothing`"),
    ("void bad_nothing(const float *x, size_t n)", r"declared with \(x, n\) and defined with \(x\)"),
    ("void bad_nothing(const _Float16 *x)", "x is _Float16, which numba lacks"),
    ("bad_nothing", "not a C function declaration"),
])  # fmt: skip
def test_declarations_that_do_not_fit_the_function(declaration, message):
    with pytest.raises(gk.LiftError, match=message):
        gk.operator(declaration)(bad_nothing)


@pytest.mark.parametrize("setting", ["NUMBA_DISABLE_JIT=1", "NUMBA_OPT=max"])
def test_settings_of_numba_with_which_there_is_no_scalar_code_are_named(setting):
    text = "import gllm_kernels as gk\ndef f(x): return x + 1\n" \
           "try: gk.operator(f)\nexcept gk.CompileError as error: print(error)\n"
    environment = dict([setting.split("=")], PATH="", PYTHONPATH=":".join(sys.path))
    done = subprocess.run([sys.executable, "-c", text], env=environment, text=True,
                          capture_output=True)  # fmt: skip
    assert setting.removesuffix("=1") + " is set, with which" in done.stdout


def test_without_numba_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gllm_kernels.ops.python", None)
    with pytest.raises(gk.CompileError, match="run `pip install numba`, or bring C text"):
        gk.operator(py_mish)
