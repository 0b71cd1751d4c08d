"""Every operator on float16 and bfloat16 arrays, on every ISA, between inaccessible pages.

What counts is the scalar function on the widened inputs; the result may be off by the rounding of
its own storage type.
"""

import ml_dtypes
import numpy as np
import pytest
from guard import guarded, guarded_copy
from test_every_operator import ISAS, arguments, magnitude, reference, sizes_of

import gllm_kernels as gk
from gllm_kernels.config import config
from gllm_kernels.errors import GllmError
from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.graph.interp import run_graph
from gllm_kernels.ops import Op
from gllm_kernels.pipeline import compile_graph
from gllm_kernels.scalar import CATALOG

BF16 = np.dtype(ml_dtypes.bfloat16)
STORED = {"f16": np.dtype(np.float16), "bf16": BF16}
LIMIT = 1e-2
each_type = pytest.mark.parametrize("dtype", STORED.values(), ids=STORED)
each_isa = pytest.mark.parametrize("isa", [*ISAS, "scalar"])


def stored(array, dtype):
    return array.astype(dtype) if array.dtype == np.float32 else array


def wide(array):
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def within(got, want, scale):
    got = wide(np.asarray(got)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        near = np.abs(got - want) <= LIMIT * scale + 1e-6
    return np.all(near | (got == want))


@pytest.mark.parametrize("at", ("end", "start"))
@each_type
@each_isa
@pytest.mark.parametrize("name", [row.name for row in CATALOG])
def test_equals_the_scalar_function_at_every_size(name, isa, dtype, at):
    op = Op.named(name)
    for dims in sizes_of(op.operator):
        plain, named = arguments(op.operator, dims, np.random.default_rng(hash(str(dims)) % 1000))
        arrays = {n: stored(a, dtype) for n, a in plain.items()}
        known = {n: wide(a) for n, a in arrays.items()}
        want = reference(op, known, named)
        held = [guarded_copy(a, at) for a in arrays.values()]
        out = {}
        if op.operator.names("out"):
            out = {"out": guarded(np.shape(want), dtype, at, fill=np.nan)}
        with config(isa=isa):
            got = op(*held, **named, **out)
        number = op.operator.result
        assert np.asarray(got).dtype == (np.asarray(want).dtype if number else dtype)
        if name in ("gather", "argmax"):
            np.testing.assert_array_equal(got, stored(want, dtype) if name == "gather" else want)
        else:
            assert within(got, want, magnitude(op, known, named, want)), (dims, got, want)


@each_type
@each_isa
def test_types_mix_and_promote_as_in_numpy(isa, dtype):
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((3, 70), np.float32), rng.standard_normal(70, np.float32)
    with config(isa=isa):
        for left, right in ((x, w.astype(dtype)), (x.astype(dtype), w)):
            got = gk.rms_norm(left, right, eps=1e-5)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, gk.rms_norm(wide(left), wide(right), eps=1e-5), rtol=1e-5)
        out = np.empty((3, 70), dtype)
        assert gk.rms_norm(x, w, eps=1e-5, out=out) is out
        np.testing.assert_allclose(wide(out), gk.rms_norm(x, w, eps=1e-5), rtol=LIMIT)
        both = gk.vec_add(x.astype(np.float16), x.astype(BF16))
        assert both.dtype == np.float32
        np.testing.assert_array_equal(both, wide(x.astype(np.float16)) + wide(x.astype(BF16)))


@pytest.mark.parametrize("m", [1, 2, 5, 33, 70])
@pytest.mark.parametrize("types", ["ff", "fb", "bf", "bb", "hb", "hh", "fh"])
@each_isa
def test_products_of_any_two_types(isa, types, m):
    """Batched and not, both layouts of B, with more rows than are streamed; 1e-4 in float32."""
    kinds = {"f": np.float32, "b": BF16, "h": np.float16}
    rng = np.random.default_rng(m)
    for k, n in ((1, 3), (37, 21), (520, 70)):
        a = guarded_copy(rng.standard_normal((2, m, k), np.float32).astype(kinds[types[0]]))
        b = guarded_copy(rng.standard_normal((2, n, k), np.float32).astype(kinds[types[1]]))
        turned = guarded_copy(np.ascontiguousarray(b.transpose(0, 2, 1)))
        want = wide(a).astype(np.float64) @ wide(b).astype(np.float64).transpose(0, 2, 1)
        scale = np.abs(wide(a)) @ np.abs(wide(b)).transpose(0, 2, 1)
        out = guarded((2, m, n))
        with config(isa=isa):
            for name, right in (("gemm_bt", b), ("gemm", turned)):
                Op.named(name)(a, right, out=out)
                assert (np.abs(out - want) <= 1e-5 * scale + 1e-6).all()


@each_type
@each_isa
def test_a_fused_chain_rounds_once(isa, dtype):
    """gemm + bias + silu of 16-bit arrays is that of the widened ones, rounded."""
    rng = np.random.default_rng(2)
    a, b, bias = (rng.standard_normal(s, np.float32).astype(dtype) for s in ((9, 40), (40, 50), 50))
    with config(isa=isa):
        exact = gk.gemm(wide(a), wide(b), bias=wide(bias), epilogue="silu")
        got = gk.gemm(a, b, bias=bias, epilogue="silu")
    assert got.dtype == dtype
    if isa != "scalar":  # which computes operator by operator
        np.testing.assert_array_equal(wide(got), wide(exact.astype(dtype)))


@each_type
@each_isa
def test_a_graph_of_mixed_types(isa, dtype):
    """16-bit weights, float32 activations, a 16-bit state and a 16-bit output."""
    rng = np.random.default_rng(3)
    w, norm = rng.standard_normal((24, 40), np.float32), np.ones(40, np.float32)
    graph = CompilerGraph()
    x = graph.input("x", ("t", 40))
    h = graph.op("rms_norm", x, graph.weight("norm", norm.astype(dtype)), eps=1e-5)
    state = graph.state("kept", (8, 24), dtype.name)
    view = graph.op("gemm_bt", h, graph.weight("w", w.astype(dtype)), out=state.slice(0, 2, "t"))
    y = graph.op("softmax", view, dtype="float32")
    graph.output("y", graph.op("vec_mul", y, y, dtype=dtype.name))
    assert h.dtype == "float32" and view.dtype == dtype.name
    values, kept = rng.standard_normal((3, 40), np.float32), np.zeros((8, 24), dtype)
    arrays = {"x": values, "norm": graph.arrays["norm"], "w": graph.arrays["w"], "kept": kept}
    want = run_graph(graph.finish(), arrays, {"t": 3})["y"]
    with config(isa=isa):
        layer = compile_graph(graph)
        got = layer(x=values)["y"]
    assert got.dtype == dtype and layer.states["kept"].dtype == dtype
    np.testing.assert_allclose(wide(got), wide(want), rtol=2 * LIMIT, atol=1e-6)
    np.testing.assert_allclose(wide(layer.states["kept"]), wide(kept), rtol=LIMIT, atol=1e-6)


@each_isa
def test_in_place_and_out_decide_the_type(isa):
    x = np.linspace(-3, 3, 37, dtype=np.float32)
    with config(isa=isa):
        want = gk.silu(x)
        narrow = x.astype(BF16)
        assert gk.silu(narrow, out=narrow) is narrow
        np.testing.assert_allclose(wide(narrow), want, atol=0.03)
        shared = x.copy()  # the result's memory is half of the input's
        gk.silu(shared, out=shared.view(BF16)[:37])
        np.testing.assert_allclose(wide(shared.view(BF16)[:37]), want, rtol=LIMIT)


def test_float64_is_refused_by_name():
    with pytest.raises(GllmError, match="`x` has dtype float64.*float16, bfloat16"):
        gk.silu(np.zeros(3))
    with pytest.raises(GllmError, match="`w` has dtype float64"):
        gk.rms_norm(np.zeros((2, 3), np.float16), np.zeros(3), eps=1e-5)
    with pytest.raises(GllmError, match="`out`.*float64"):
        gk.silu(np.zeros(3, np.float16), out=np.zeros(3))
