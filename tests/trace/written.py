"""Traces written by hand: the expected values of the tests."""

from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Param, Store

S = Affine.sym
I0, I1, I2, R0 = S("i0"), S("i1"), S("i2"), S("r0")
M, N, K = S("m"), S("n"), S("k")


def load(body: BodyBuilder, name: str, index: Affine) -> int:
    return body.add(Op.LOAD, imm=(name, index))


def silu() -> OpTrace:
    body = BodyBuilder()
    x = load(body, "x", I0)
    one = body.const(1.0)
    e = body.add(Op.EXP, body.add(Op.NEG, x))
    value = body.add(Op.DIV, x, body.add(Op.ADD, e, one))
    params = (Param("x", "in"), Param("out", "out"), Param("n", "dim", "size_t"))
    return OpTrace("silu", params, tuple(body.body), (Store("out", I0, value, (("i0", N),)),))


def dot() -> OpTrace:
    body = BodyBuilder()
    term = body.add(Op.MUL, load(body, "a", R0), load(body, "b", R0))
    total = body.add(Op.REDUCE, body.const(0.0), term, imm=("sum", "r0", N))
    params = (Param("a", "in"), Param("b", "in"), Param("n", "dim", "size_t"))
    return OpTrace("vec_dot", params, tuple(body.body), (Store("return", Affine(), total, ()),))


def rms_norm() -> OpTrace:
    body = BodyBuilder()
    row = load(body, "x", I0 * N + R0)
    squares = body.add(Op.REDUCE, body.const(0.0), body.add(Op.MUL, row, row), imm=("sum", "r0", N))
    mean = body.add(Op.DIV, squares, body.add(Op.INDEX, imm=N))
    rms = body.add(Op.SQRT, body.add(Op.ADD, mean, body.add(Op.SCALAR, imm="eps")))
    scaled = body.add(Op.MUL, load(body, "x", I0 * N + I1), load(body, "w", I1))
    value = body.add(Op.DIV, scaled, rms)
    params = (
        Param("x", "in"), Param("w", "in"), Param("out", "out"),
        Param("m", "dim", "size_t"), Param("n", "dim", "size_t"), Param("eps", "scalar"),
    )  # fmt: skip
    store = Store("out", I0 * N + I1, value, (("i0", M), ("i1", N)))
    return OpTrace("rms_norm", params, tuple(body.body), (store,))


def gemm(kind: str = "sum") -> OpTrace:
    body = BodyBuilder()
    term = body.add(Op.MUL, load(body, "a", I0 * K + R0), load(body, "b", R0 * N + I1))
    total = body.add(Op.REDUCE, body.const(0.0), term, imm=(kind, "r0", K))
    params = (
        Param("a", "in"), Param("b", "in"), Param("c", "out"),
        *(Param(d, "dim", "size_t") for d in "mnk"),
    )  # fmt: skip
    store = Store("c", I0 * N + I1, total, (("i0", M), ("i1", N)))
    return OpTrace("gemm", params, tuple(body.body), (store,))


def gemv() -> OpTrace:
    body = BodyBuilder()
    term = body.add(Op.MUL, load(body, "a", I0 * N + R0), load(body, "x", R0))
    total = body.add(Op.REDUCE, body.const(0.0), term, imm=("sum", "r0", N))
    params = (
        Param("a", "in"), Param("x", "in"), Param("y", "out"),
        Param("m", "dim", "size_t"), Param("n", "dim", "size_t"),
    )  # fmt: skip
    return OpTrace("gemv", params, tuple(body.body), (Store("y", I0, total, (("i0", M),)),))


def row_sum() -> OpTrace:
    body = BodyBuilder()
    row = load(body, "x", I0 * N + R0)
    total = body.add(Op.REDUCE, body.const(0.0), row, imm=("sum", "r0", N))
    params = (Param("x", "in"), Param("out", "out"), *(Param(d, "dim", "size_t") for d in "mn"))
    return OpTrace("row_sum", params, tuple(body.body), (Store("out", I0, total, (("i0", M),)),))


def rope_with_pos() -> OpTrace:
    body = BodyBuilder()
    d, h, pos = S("d"), S("h"), S("pos")
    low = I0 * h * d * 2 + I1 * d * 2 + I2
    turn = pos * d + I0 * d + I2
    c, s = load(body, "cos", turn), load(body, "sin", turn)
    u, v = load(body, "x", low), load(body, "x", low + d)
    first = body.add(Op.SUB, body.add(Op.MUL, u, c), body.add(Op.MUL, v, s))
    second = body.add(Op.ADD, body.add(Op.MUL, v, c), body.add(Op.MUL, u, s))
    domain = (("i0", S("t")), ("i1", h), ("i2", d))
    params = (
        *(Param(p, "in") for p in ("x", "cos", "sin")), Param("out", "out"),
        *(Param(p, "dim", "size_t") for p in ("t", "h", "d", "pos")),
    )  # fmt: skip
    stores = (Store("out", low, first, domain), Store("out", low + d, second, domain))
    return OpTrace("rope_with_pos", params, tuple(body.body), stores)


def softmax() -> OpTrace:
    body = BodyBuilder()
    r1 = S("r1")
    top = body.add(
        Op.REDUCE,
        body.const(float("-inf")),
        load(body, "x", I0 * N + R0),
        imm=("max", "r0", N),
    )
    term = body.add(Op.EXP, body.add(Op.SUB, load(body, "x", I0 * N + r1), top))
    total = body.add(Op.REDUCE, body.const(0.0), term, imm=("sum", "r1", N))
    here = body.add(Op.EXP, body.add(Op.SUB, load(body, "x", I0 * N + I1), top))
    value = body.add(Op.DIV, here, total)
    params = (Param("x", "in"), Param("out", "out"), *(Param(d, "dim", "size_t") for d in "mn"))
    store = Store("out", I0 * N + I1, value, (("i0", M), ("i1", N)))
    return OpTrace("softmax", params, tuple(body.body), (store,))


ALL = (silu, dot, rms_norm, gemm, gemv, row_sum, rope_with_pos, softmax)
