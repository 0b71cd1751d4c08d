"""Operators on arrays of integers, booleans and doubles, and with several outputs, on every ISA."""

import numpy as np
import pytest
import widths

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import current_isa_name
from gllm_kernels.errors import ShapeError, UnsupportedOpError
from gllm_kernels.trace import interp

pytestmark = pytest.mark.skipif(not widths.COMPILERS, reason="no C compiler here")
each_isa = pytest.mark.parametrize("isa", ("avx512", "avx2", "scalar"))


@pytest.fixture(scope="module")
def operator():
    made = {}

    def named(name):
        if name not in made:
            made[name] = gk.register(widths.library(widths.COMPILERS[0], "-O1"),
                                     widths.DECLARATIONS[name])
        return made[name]

    return named


def call(op, n, rng):
    """(results, what the trace says), and the arrays given."""
    own, trace = op.operator, op.trace
    sizes = {p.name: widths.INTEGERS.get(p.name, {"m": 3}.get(p.name, n)) for p in trace.params
             if p.role == "dim"}
    arrays = {}
    for param in trace.params:
        if param.role in ("in", "inout", "out"):
            shape = tuple(max(0, s.evaluate(sizes)) for s in own.shape(param.name))
            count = int(np.prod(shape))
            arrays[param.name] = widths.elements(rng, param.ctype, count).reshape(shape)
    for name in set(own.outputs) & arrays.keys():
        arrays[name][...] = 0
    scalars = {p.name: 0.37 for p in trace.params if p.role == "scalar"}
    flat = {n: a.reshape(-1).copy() for n, a in arrays.items()}
    with np.errstate(all="ignore"):
        result = interp.run(trace, {**flat, **sizes, **scalars})
    named = {k: v for k, v in sizes.items() if k in op.__signature__.parameters}
    got = op(*(arrays[p] for p in own.inputs), **scalars, **named)
    want = [np.asarray(result) if o == "return" else flat[o].reshape(arrays[o].shape)
            for o in own.outputs]
    return got if isinstance(got, tuple) else (got,), want


@each_isa
@pytest.mark.parametrize("name", sorted(widths.DECLARATIONS))
def test_on_numpy_arrays(name, isa, operator):
    rng = np.random.default_rng(len(name))
    with gk.config(isa=isa):
        for n in (0, 1, 5, 33):
            for got, want in zip(*call(operator(name), n, rng), strict=True):
                widths.assert_equal(np.asarray(got), want, f"{name} on {isa}, n = {n}")


@each_isa
def test_dynamic_quantisation_gives_rows_and_their_scales(isa, operator):
    x = np.random.default_rng(1).standard_normal((2, 5, 40)).astype(np.float32)
    with gk.config(isa=isa):
        q, scale = operator("dynq")(x)
        assert (q.dtype, scale.dtype) == (np.int8, np.float32)
        assert (q.shape, scale.shape) == (x.shape, x.shape[:-1])
        assert np.abs(q * scale[..., None] - x).max() <= 0.51 * scale.max()
        given = np.empty_like(q), np.empty_like(scale)
        made = operator("dynq")(x, out=given)
        assert made[0] is given[0] and np.array_equal(given[0], q)
        with pytest.raises(ShapeError, match="tuple of 2 arrays"):
            operator("dynq")(x, out=given[0])
        empty, zeros = operator("dynq")(x[..., :0])
        assert empty.shape == (2, 5, 0) and not zeros.any()


@each_isa
def test_booleans_go_where_bytes_are_wanted_and_back(isa, operator):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 3, 21)).astype(np.float32)
    chosen = rng.random(x.shape) < 0.5
    with gk.config(isa=isa):
        assert np.array_equal(operator("masku")(chosen, x), np.where(chosen, x, np.float32(-1e30)))
        seven = chosen.astype(np.uint8) * 7  # any byte but 0 is true
        assert np.array_equal(operator("mask")(seven, x, y), np.where(chosen, x, y))
        assert operator("gt")(x, t=0.25).dtype == bool
        assert np.array_equal(operator("gt")(x, t=0.25), x > 0.25)


@each_isa
def test_in_a_graph_integers_are_exact_through_fusion(isa, operator):
    """int8 sums wrap where they would be stored, also when they never are."""
    a, b = np.random.default_rng(3).integers(-128, 128, (2, 3, 37), dtype=np.int8, endpoint=False)
    with gk.config(isa=isa):
        g = gk.CompilerGraph()
        one, two = (g.input(n, (3, 37), "int8") for n in "ab")
        total = g.op(operator("addi8").operator, one, two)
        g.output("y", g.op(operator("addi8").operator, total, two))
        layer = gk.compile_graph(g)
        assert np.array_equal(layer(a=a, b=b)["y"], a + b + b)
        assert isa == "scalar" or "fused" in str(layer.plan)


@each_isa
def test_rows_and_scales_in_a_graph(isa, operator):
    x = np.random.default_rng(4).standard_normal((6, 50)).astype(np.float32)
    with gk.config(isa=isa):
        g = gk.CompilerGraph()
        q, scale = g.op(operator("dynq").operator, g.input("x", (6, 50)))
        g.output("y", g.op(operator("deq").operator, q, scale))
        got = gk.compile_graph(g)(x=x)["y"]
    assert np.abs(got - x).max() <= 0.51 * np.abs(x).max() / 127


MODES = """#include <stddef.h>
#include <math.h>
void shaped(const float *x, float *o, int mode, size_t n)
{ for (size_t i = 0; i < n; i++) switch (mode) { case 0: o[i] = x[i]; break; case 1: o[i] = -x[i]; break;
    case 2: o[i] = x[i] * x[i]; break; case 3: o[i] = fabsf(x[i]); break; case 4: o[i] = 3 * x[i]; break;
    default: o[i] = 0; } }
void least(const float *x, float *o, size_t mode, size_t n)
{ for (size_t i = 0; i < n; i++) o[i] = mode >= 3 ? x[i] : 2 * x[i]; }"""


@pytest.fixture(scope="module")
def chosen():
    return [gk.compile_c(MODES, f"void {name}(const float *x, float *o, {ctype} mode, size_t n)")
            for name, ctype in (("shaped", "int"), ("least", "size_t"))]


@each_isa
def test_a_size_that_chooses_the_formula(chosen, isa):
    x = np.linspace(-2, 2, 37, dtype=np.float32)
    shaped, least = chosen
    with gk.config(isa=isa):
        for mode, want in enumerate([x, -x, x * x, np.abs(x), 3 * x, 0 * x, 0 * x]):
            assert np.array_equal(shaped(x, mode=mode), want)
            assert np.array_equal(least(x, mode=mode), x if mode >= 3 else 2 * x)


DOUBLE_EXP = ("#include <math.h>\n#include <stddef.h>\nvoid dexp(const double *x, double *o, size_t n)"
              " { for (size_t i = 0; i < n; i++) o[i] = exp(x[i]); }",
              "void dexp(const double *x, double *o, size_t n)")


@pytest.mark.skipif(current_isa_name() == "scalar", reason="it is vector code that is missing")
def test_what_has_no_vector_code_is_refused_when_it_is_registered():
    with pytest.raises(UnsupportedOpError, match=r"dexp: no vector code for exp of f64.*expf.*GLLM_ISA=scalar"):
        gk.compile_c(*DOUBLE_EXP)
    with gk.config(isa="scalar"):
        x = np.linspace(-2, 2, 9)
        assert np.allclose(gk.compile_c(*DOUBLE_EXP)(x), np.exp(x), rtol=1e-15)


def test_a_double_scalar_is_refused_with_what_to_write():
    op = gk.compile_c("#include <stddef.h>\nvoid scaled(const double *x, double *o, double s, size_t n)"
                      " { for (size_t i = 0; i < n; i++) o[i] = x[i] * s; }",
                      "void scaled(const double *x, double *o, double s, size_t n)")
    with pytest.raises(UnsupportedOpError, match="declare `float s`"):
        op(np.ones(3), s=2.0)
