"""An operator that is in no catalogue, from a C file compiled here, goes everywhere at once."""

import shutil

import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.config import config
from gllm_kernels.fusion.rules import FusionMode
from gllm_kernels.ops import fast
from gllm_kernels.ops.op import Op

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


# Numbers made of sizes are computed in 32 bits: a call beyond is refused, never wrong.
NUMBERS = {
    "mean4": ("const float *x, float *out, size_t m, size_t n",
              "for (size_t i = 0; i < m; i++) { float s = 0; for (size_t j = 0; j < n; j++)"
              " s += x[i*n+j]; out[i] = s / (float)(m*m*n*n); }"),
    "ramp": ("const float *x, float *out, size_t n",
             "for (size_t i = 0; i < n; i++) out[i] = x[i] + (float)(i*1000000);"),
    "fall": ("const float *x, float *out, size_t n",
             "for (size_t i = 0; i < n; i++) out[i] = x[i] + (float)(-(ptrdiff_t)i*1000000);"),
    "times": ("const float *x, float *out, size_t n, size_t m",
              "for (size_t i = 0; i < n; i++) out[i] = x[i] * (float)m;"),
    "wide": ("const float *x, double *out, size_t n",
             "for (size_t i = 0; i < n; i++) out[i] = x[i] * (double)(n*n*n);"),
    "never": ("const float *x, float *out, size_t n",
              "for (size_t i = 0; i < n; i++) out[i] = x[i] + (float)(n*3000000000);"),
    "seventh": ("const float *x, float *out, size_t n",
                "for (size_t i = 0; i < n; i++) out[i] = x[i] * (float)(n*n*n*n*n*n*n);"),
}
LARGE = "numbers made of sizes and positions go up to 2147483647"


def number_op(name):
    arguments, body = NUMBERS[name]
    declaration = f"void {name}({arguments})"
    return gk.compile_c(f"#include <stddef.h>\n{declaration} {{ {body} }}", declaration)


@pytest.mark.parametrize("isa", ISAS)
def test_numbers_of_sizes_beyond_32_bits_are_refused(isa):
    with config(isa=isa):
        mean, x = number_op("mean4"), np.ones((200, 200), np.float32)
        np.testing.assert_allclose(mean(x), np.full(200, 200 / 200.0**4), rtol=1e-6)
        for wrong in (np.ones((300, 300)), np.ones((1, 300, 300))):
            with pytest.raises(gk.ShapeError, match=LARGE):
                mean(wrong.astype(np.float32))
        for name, sign in (("ramp", 1), ("fall", -1)):
            op, x = number_op(name), np.ones(2147, np.float32)
            np.testing.assert_allclose(op(x), 1 + sign * 1e6 * np.arange(2147), rtol=1e-6)
            with pytest.raises(gk.ShapeError, match=LARGE):
                op(np.ones(2149, np.float32))
        cube = number_op("wide")
        assert cube(np.ones(1290, np.float32))[-1] == 1290**3
        with pytest.raises(gk.ShapeError, match=LARGE):
            cube(np.ones(1291, np.float32))


@pytest.mark.parametrize("isa", ISAS)
def test_a_size_by_name_is_a_number_below_2_to_the_31(isa):
    with config(isa=isa):
        op, x = number_op("times"), np.ones(20, np.float32)
        assert op(x, m=2**31 - 1)[-1] == np.float32(2**31 - 1)
        for m in (2**31, 2**39, 2**40, 2**63, 2**80):
            with pytest.raises(gk.ShapeError, match=LARGE if m < 2**40 else "below 2..40"):
                op(x, m=m)


@pytest.mark.parametrize("isa", ISAS)
def test_numbers_of_sizes_in_a_graph(isa):
    number_op("ramp"), number_op("mean4")
    graph = gk.CompilerGraph()
    x = graph.op("silu", graph.input("x", ("n",)))
    graph.output("y", graph.op("ramp", x))
    with config(isa=isa):
        layer = gk.compile_graph(graph)
        zero = layer(x=np.zeros(2147, np.float32))["y"]
        np.testing.assert_allclose(zero, 1e6 * np.arange(2147), rtol=1e-6)
        with pytest.raises(gk.ShapeError, match=LARGE):
            layer(x=np.zeros(2149, np.float32))
    with pytest.raises(gk.ShapeError, match=LARGE):
        graph.op("mean4", graph.input("known", (300, 300)))


@pytest.mark.parametrize("name", ("never", "seventh"))
def test_a_number_that_is_out_of_range_at_every_size_is_no_operator(name):
    with pytest.raises(gk.LiftError, match="is used as a number and exceeds"):
        number_op(name)


def test_the_short_way_is_left_where_an_axis_may_be_too_large(monkeypatch):
    op, w = Op.named("rms_norm"), np.ones(64, np.float32)
    few, many, none = (np.ones((rows, 64), np.float32) for rows in (1, 2, 0))
    op(few, w)
    monkeypatch.setattr(fast, "MOST_NUMBER", 127)
    with config(isa=ISAS[0]):
        op.plain.clear()
        assert op.short((few, w), None, {}) is not NotImplemented
        for x in (many, none):
            assert op.short((x, w), None, {}) is NotImplemented
