"""An operator that is in no catalogue, from a C file compiled here, goes everywhere at once."""

import shutil

import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.config import config
from gllm_kernels.fusion.rules import FusionMode

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))),
                                reason="needs a C compiler")
MISH = """
#include <math.h>
#include <stddef.h>
void mish(const float *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * tanhf(logf(1.0f + expf(x[i])));
}
"""
DECLARATION = "void mish(const float *x, float *out, size_t n)"
ISAS = [isa.name for isa in host_isas()] + ["scalar"]


@pytest.fixture(scope="module")
def mish():
    return gk.compile_c(MISH, DECLARATION)


def formula(x):
    x = x.astype(np.float64)
    return x * np.tanh(np.log1p(np.exp(x)))


@pytest.mark.parametrize("isa", ISAS)
def test_as_a_function_on_arrays(mish, isa):
    x = np.random.default_rng(0).standard_normal((7, 33), np.float32)
    with config(isa=isa):
        np.testing.assert_allclose(mish(x), formula(x), rtol=1e-5, atol=1e-6)
    assert "tanh(log(" in str(mish).splitlines()[1]


@pytest.mark.parametrize("isa", ISAS)
def test_in_the_epilogue_of_a_product(mish, isa):
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(s, np.float32) for s in ((19, 40), (40, 35)))
    graph = gk.CompilerGraph()
    graph.output("y", graph.op("mish", graph.op("gemm", graph.input("a", ("m", 40)),
                                                graph.input("b", (40, 35)))))
    with config(isa=isa):
        layer = gk.compile_graph(graph)
        y = layer(a=a, b=b)["y"]
    np.testing.assert_allclose(y, formula(a.astype(np.float64) @ b), rtol=1e-4, atol=1e-5)
    if isa != "scalar":
        assert [d.mode for d in layer.plan.decisions] == [FusionMode.EPILOGUE]
        assert len(layer.program.steps) == 1


def test_by_name_in_gemm(mish):
    rng = np.random.default_rng(2)
    a, b, bias = (rng.standard_normal(s, np.float32) for s in ((3, 8), (8, 5), (5,)))
    got = gk.gemm(a, b, bias=bias, epilogue=mish)
    np.testing.assert_allclose(got, formula(a.astype(np.float64) @ b + bias), rtol=1e-4, atol=1e-6)


def test_a_function_that_is_no_operator_is_refused():
    text = "#include <stddef.h>\nvoid f(const float *x, float *out, size_t n) {\n" \
           "  float a = 0; for (size_t i = 0; i < n; i++) { a += x[i]; out[i] = a; } }\n"
    with pytest.raises(gk.LiftError):
        gk.compile_c(text, "void f(const float *x, float *out, size_t n)")


def test_a_source_that_does_not_compile_shows_what_the_compiler_said():
    with pytest.raises(gk.CompileError, match="error"):
        gk.compile_c("void f(", "void f(const float *x, float *out, size_t n)")


@pytest.mark.parametrize("declaration", [None, 5, b"void f()"])
def test_declarations_of_another_type(declaration, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")  # never asked
    with pytest.raises(gk.LiftError, match="not a C function declaration: " + repr(declaration)[:4]):
        gk.compile_c(MISH, declaration)
    with pytest.raises(gk.LiftError, match="not a C function declaration"):
        gk.register("libmish.so", declaration)


@pytest.mark.parametrize("source", [None, 5, b"void f() {}", "// \udc80"])
def test_sources_of_another_type(source):
    with pytest.raises(gk.ShapeError, match="^text"):
        gk.compile_c(source, DECLARATION)
    if not isinstance(source, str | bytes):
        with pytest.raises(gk.LiftError, match=f"cannot lift a {type(source).__name__}"):
            gk.register(source, DECLARATION)


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(gk.CompileError, match="no-such-compiler is not on PATH"):
        gk.compile_c(MISH, DECLARATION)


def test_an_operator_on_doubles_computes_in_double():
    text = "#include <stddef.h>\nvoid twice(const double *x, double *out, size_t n) {\n" \
           "  for (size_t i = 0; i < n; i++) out[i] = 2 * x[i]; }\n"
    op = gk.compile_c(text, "void twice(const double *x, double *out, size_t n)")
    assert "out[i0] = " in str(op)
    x = np.arange(1, 40) / 3
    assert op(x).dtype == np.float64 and np.array_equal(op(x), 2 * x)


def test_a_maximum_by_fmaxf_runs_on_every_isa():
    text = "#include <math.h>\n#include <stddef.h>\nfloat largest(const float *x, size_t n) {\n" \
           "  float m = x[0]; for (size_t i = 1; i < n; i++) m = fmaxf(m, x[i]); return m; }\n"
    op = gk.compile_c(text, "float largest(const float *x, size_t n)")
    for isa in ISAS:
        for n in (1, 2, 15, 16, 17, 33, 100):
            x = np.random.default_rng(n).standard_normal(n, np.float32)
            with config(isa=isa):
                assert op(x) == x.max()
    with pytest.raises(gk.ShapeError, match="size `n` has 0 elements, 1 are needed"):
        op(np.zeros(0, np.float32))


FLIPS = {"rows": ("x[(m-1-i)*n + j]", lambda x: x[::-1]),
         "columns": ("x[i*n + n-1-j]", lambda x: x[:, ::-1]),
         "both": ("x[(m-1-i)*n + n-1-j]", lambda x: x[::-1, ::-1])}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", FLIPS)
def test_axes_read_backwards_have_their_shape(name, isa):
    element, want = FLIPS[name]
    declaration = f"void flip_{name}(const float *x, float *o, size_t m, size_t n)"
    flip = gk.compile_c(f"""#include <stddef.h>
        {declaration} {{
            for (size_t i = 0; i < m; i++) for (size_t j = 0; j < n; j++) o[i*n + j] = {element};
        }}""", declaration)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    with config(isa=isa):
        np.testing.assert_array_equal(flip(x), want(x))


STRIDED = "void strided(const float *x, float *out, size_t m, size_t n, size_t ldx, size_t ldo)"


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_longer_than_its_stride_is_refused(isa):
    op = gk.compile_c(f"""#include <stddef.h>
        {STRIDED} {{ for (size_t i = 0; i < m; i++) for (size_t j = 0; j < n; j++)
            out[i * ldo + j] = 2 * x[i * ldx + j]; }}""", STRIDED)
    x = np.arange(15, dtype=np.float32).reshape(3, 5)
    with config(isa=isa):
        np.testing.assert_array_equal(op(x, n=4, ldo=6)[:, :4], 2 * x[:, :4])
        np.testing.assert_array_equal(op(x, n=5, ldo=5), 2 * x)
        with pytest.raises(gk.ShapeError, match="`out` has 12 elements, 13 are needed"):
            op(x, n=5, ldo=4)
        with pytest.raises(gk.ShapeError, match="`x` has 15 elements, 16 are needed"):
            op(x, n=6, ldo=6)


@pytest.mark.parametrize(("name", "want"), [("floorf", np.floor), ("ceilf", np.ceil),
                                            ("truncf", np.trunc), ("rintf", np.rint)])
def test_roundings_lift_as_this_compiler_writes_them(name, want):
    declaration = f"void {name}_of(const float *x, float *o, size_t n)"
    op = gk.compile_c(f"""#include <math.h>
        #include <stddef.h>
        {declaration} {{ for (size_t i = 0; i < n; i++) o[i] = {name}(x[i]); }}""", declaration)
    x = np.array([-2.5, -0.5, 0.5, 1.5, 1e9, np.nan, np.inf, 3.3], np.float32)
    for isa in ISAS:
        with config(isa=isa):
            np.testing.assert_array_equal(op(x), want(x))
