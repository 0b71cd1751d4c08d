from dataclasses import replace

import numpy as np
import pytest
import written
from gllm_kernels.errors import CompileError, ShapeError
from gllm_kernels.trace import ir
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.interp import run
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Param, Store, TraceOp
from gllm_kernels.trace.pattern import ComputePattern, pattern_of
from gllm_kernels.trace.shapes import param_shape
from gllm_kernels.trace.simplify import simplify
from gllm_kernels.trace.spec import check

F32 = np.float32


@pytest.mark.parametrize("make", written.ALL)
def test_a_trace_checks_and_its_repr_rebuilds_it(make):
    trace = check(make())
    assert eval(repr(trace), {**vars(ir), "Affine": Affine}) == trace
    assert simplify(trace) == trace


def test_index_notation():
    assert str(written.silu()) == (
        "silu(in x, out out, dim n)\n  out[i0] = x[i0] / (exp(-x[i0]) + 1.0)  for i0 < n"
    )
    assert str(written.dot()).endswith("return sum[r0 < n](a[r0]*b[r0])")
    assert "max[r0 < n from -inf](x[i0*n + r0])" in str(written.softmax())
    assert str(written.rms_norm()).splitlines()[1] == (
        "  out[i0*n + i1] = x[i0*n + i1]*w[i1] / "
        "sqrt((sum[r0 < n](x[i0*n + r0]*x[i0*n + r0]) / float(n)) + eps)  for i0 < m, i1 < n"
    )


def test_shared_values_get_a_name():
    text = str(written.softmax()).splitlines()
    assert text[1] == "  out[i0*n + i1] = exp(x[i0*n + i1] - t0) / sum[r1 < n](" + (
        "exp(x[i0*n + r1] - t0))  for i0 < m, i1 < n"
    )
    assert text[2].startswith("  where t0 = max[")


P = ComputePattern


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (written.silu, P.ELEMENTWISE),
        (written.dot, P.REDUCTION),
        (written.row_sum, P.REDUCTION),
        (written.rms_norm, P.NORM_LIKE),
        (written.softmax, P.NORM_LIKE),
        (written.gemv, P.GEMV),
        (written.gemm, P.GEMM),
        (written.rope_with_pos, P.INJECTIVE),
    ],
)
def test_the_pattern_follows_from_the_body(make, pattern):
    assert pattern_of(make()) is pattern


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (written.silu, {"x": "n", "out": "n"}),
        (written.rms_norm, {"x": "m, n", "w": "n", "out": "m, n"}),
        (written.gemm, {"a": "m, k", "b": "k, n", "c": "m, n"}),
        (written.gemv, {"a": "m, n", "x": "n", "y": "m"}),
        (written.rope_with_pos, {"x": "t, h, 2*d", "cos": "pos + t, d", "out": "t, h, 2*d"}),
    ],
)
def test_shapes_are_read_off_the_indices(make, shapes):
    for name, shape in shapes.items():
        assert ", ".join(map(str, param_shape(make(), name))) == shape


def test_a_shape_with_interleaved_pairs_and_one_with_a_window():
    body = BodyBuilder()
    x = body.add(Op.LOAD, imm=("x", written.I0 * 2 + 1))
    y = body.add(Op.LOAD, imm=("y", written.I0 + written.R0))
    total = body.add(Op.REDUCE, body.const(0.0), y, imm=("sum", "r0", written.K))
    value = body.add(Op.ADD, x, total)
    store = ir.Store("out", written.I0, value, (("i0", written.N),))
    params = tuple(ir.Param(p, r) for p, r in [
        ("x", "in"), ("y", "in"), ("out", "out"), ("n", "dim"), ("k", "dim")
    ])  # fmt: skip
    trace = check(ir.OpTrace("window", params, tuple(body.body), (store,)))
    assert param_shape(trace, "x") == (written.N * 2,)
    assert param_shape(trace, "y") == (written.N + written.K - 1,)


def test_interpreter_folds_in_order_and_keeps_float32():
    a = np.array([1e8, 1.0, -1e8, 1.0], F32)
    total = run(written.dot(), {"a": a, "b": np.ones(4, F32), "n": 4})
    assert total == F32(1.0)  # ((1e8 + 1) - 1e8) + 1: the first 1 is lost
    assert run(written.dot(), {"a": a[:0], "b": a[:0], "n": 0}) == 0


def test_interpreter_computes_norms_and_products():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 5)).astype(F32)
    w, out = rng.standard_normal(5).astype(F32), np.zeros((3, 5), F32)
    run(written.rms_norm(), {"x": x, "w": w, "out": out, "m": 3, "n": 5, "eps": 1e-5})
    np.testing.assert_allclose(
        out, x * w / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5), rtol=1e-6
    )
    run(written.softmax(), {"x": x, "out": out, "m": 3, "n": 5})
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(out, e / e.sum(1, keepdims=True), rtol=1e-6)
    b, c = rng.standard_normal((5, 4)).astype(F32), np.zeros((3, 4), F32)
    for kind in ("sum", "fma"):
        run(written.gemm(kind), {"a": x, "b": b, "c": c, "m": 3, "n": 4, "k": 5})
        np.testing.assert_allclose(c, x @ b, rtol=1e-5, atol=1e-6)


def test_interpreter_turns_pairs_by_table_rows():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, 8)).astype(F32)
    cos, sin = (rng.standard_normal((6, 4)).astype(F32) for _ in range(2))
    out = np.zeros_like(x)
    sizes = {"t": 2, "h": 3, "d": 4, "pos": 4}
    run(written.rope_with_pos(), {"x": x, "cos": cos, "sin": sin, "out": out, **sizes})
    c, s = cos[4:, None], sin[4:, None]
    low, high = x[..., :4], x[..., 4:]
    want = np.concatenate([low * c - high * s, high * c + low * s], -1)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-6)


def test_interpreter_wants_contiguous_arrays():
    with pytest.raises(ShapeError, match="x: the interpreter wants a C-contiguous"):
        run(written.silu(), {"x": np.zeros((4, 4), F32)[:, ::2], "out": np.zeros(8, F32), "n": 8})


def test_max_prefers_the_second_operand_under_nan():
    body = BodyBuilder()
    x = body.add(Op.LOAD, imm=("x", written.I0))
    value = body.add(Op.MAX, body.const(0.0), x)
    trace = replace(
        written.silu(),
        body=tuple(body.body),
        stores=(ir.Store("out", written.I0, value, (("i0", written.N),)),),
    )
    x, out = np.array([np.nan, -0.0, -1.0], F32), np.zeros(3, F32)
    run(trace, {"x": x, "out": out, "n": 3})
    assert np.isnan(out[0]) and np.signbit(out[1]) and out[2] == 0


def broken(number: int, node: TraceOp):
    trace = written.silu()
    body = list(trace.body)
    body[number] = node
    return replace(trace, body=tuple(body))


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (broken(2, TraceOp(Op.NEG, (0, 1))), r"body\[2\] neg: got 2 operands, wanted 1"),
        (broken(2, TraceOp(Op.NEG, (3,))), r"operand 0 is position 3, wanted one below 2"),
        (broken(2, TraceOp(Op.LT, (0, 1))), r"body\[3\] exp: operand 0 is bool, wanted float"),
        (broken(1, TraceOp(Op.CONST, imm=1.0)), r"got immediate 1.0, wanted the bits"),
        (broken(0, TraceOp(Op.LOAD, imm=("y", written.I0))), r"body\[0\] load: got immediate"),
        (broken(0, TraceOp(Op.LOAD, imm=("x", written.R0))), r"symbol r0 is neither a dim"),
        (replace(written.silu(), stores=(ir.Store("x", written.I0, 5, ()),)), "x: is not an out"),
    ],
)
def test_the_checker_names_what_is_wrong(trace, message):
    with pytest.raises(CompileError, match=message):
        check(trace)


def test_binders_are_unique_and_bound():
    trace = written.row_sum()
    renamed = replace(trace.stores[0], domain=(("r0", written.M),), index=written.R0)
    with pytest.raises(CompileError, match="binder r0: bound by a reduce and by a store"):
        check(replace(trace, stores=(renamed,)))


def test_simplify_drops_dead_values_and_negated_conditions():
    body = BodyBuilder()
    x = body.add(Op.LOAD, imm=("x", written.I0))
    zero = body.const(0.0)
    body.add(Op.EXP, zero)
    negated = body.add(Op.NOT, body.add(Op.LT, x, zero))
    value = body.add(Op.SELECT, negated, x, zero)
    trace = replace(
        written.silu(),
        body=tuple(body.body),
        stores=(ir.Store("out", written.I0, value, (("i0", written.N),)),),
    )
    assert [n.op for n in simplify(trace).body] == [Op.LOAD, Op.CONST, Op.LT, Op.SELECT]
    assert "0.0 if (x[i0] < 0.0) else x[i0]" in str(simplify(trace))


def test_a_product_below_the_line_is_in_parentheses():
    b = BodyBuilder()
    x, y = (b.add(Op.LOAD, imm=(p, Affine.sym("i0"))) for p in ("x", "y"))
    value = b.add(Op.DIV, x, b.add(Op.MUL, x, y))
    params = (Param("x", "in"), Param("y", "in"), Param("out", "out"), Param("n", "dim", "size_t"))
    store = Store("out", Affine.sym("i0"), value, (("i0", Affine.sym("n")),))
    trace = OpTrace("f", params, tuple(b.body), (store,))
    assert "out[i0] = x[i0] / (x[i0]*y[i0])" in str(trace)
