"""Expected traces of some operators, written by hand. They exist to test the stages behind the
lifter without it; the lifter's own tests compare what it finds with them."""

from __future__ import annotations

from gllm_kernels.graph.operator import Operator
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Param, Store
from gllm_kernels.trace.shapes import param_shape

S = Affine.sym


def params(*rows: str) -> tuple[Param, ...]:
    """'in x' -> Param("x", "in")."""
    ctypes = {"dim": "size_t"}
    parts = [row.split() for row in rows]
    return tuple(Param(name, role, ctypes.get(role, "float")) for role, name in parts)


def flat(name: str, roles: tuple[str, ...], make) -> OpTrace:
    """An elementwise trace over n; `make(builder, load)` returns the value."""
    b = BodyBuilder()
    out = next(r.split()[1] for r in roles if r.split()[0] in ("out", "inout"))
    value = make(b, lambda p: b.add(Op.LOAD, imm=(p, S("i0"))))
    return OpTrace(name, params(*roles), tuple(b.body),
                   (Store(out, S("i0"), value, (("i0", S("n")),)),))


def vec_add() -> OpTrace:
    return flat("vec_add", ("in a", "in b", "out out", "dim n"),
                lambda b, x: b.add(Op.ADD, x("a"), x("b")))


def vec_mul() -> OpTrace:
    return flat("vec_mul", ("in a", "in b", "out out", "dim n"),
                lambda b, x: b.add(Op.MUL, x("a"), x("b")))


def vec_scale() -> OpTrace:
    return flat("vec_scale", ("inout x", "scalar s", "dim n"),
                lambda b, x: b.add(Op.MUL, x("x"), b.add(Op.SCALAR, imm="s")))


def _sigmoid(b: BodyBuilder, x: int) -> int:
    one = b.const(1.0)
    return b.add(Op.DIV, x, b.add(Op.ADD, b.add(Op.EXP, b.add(Op.NEG, x)), one))


def silu() -> OpTrace:
    return flat("silu", ("in x", "out out", "dim n"), lambda b, x: _sigmoid(b, x("x")))


def swiglu() -> OpTrace:
    return flat("swiglu", ("in gate", "in up", "out out", "dim n"),
                lambda b, x: b.add(Op.MUL, _sigmoid(b, x("gate")), x("up")))


def _contraction(name: str, index: Affine) -> OpTrace:
    b = BodyBuilder()
    left = b.add(Op.LOAD, imm=("a", S("i0") * S("k") + S("r0")))
    right = b.add(Op.LOAD, imm=("b", index))
    value = b.add(Op.REDUCE, b.const(0.0), b.add(Op.MUL, left, right), imm=("sum", "r0", S("k")))
    roles = params("in a", "in b", "out c", "dim m", "dim n", "dim k")
    domain = (("i0", S("m")), ("i1", S("n")))
    return OpTrace(name, roles, tuple(b.body),
                   (Store("c", S("i0") * S("n") + S("i1"), value, domain),))


def gemm() -> OpTrace:
    return _contraction("gemm", S("r0") * S("n") + S("i1"))


def gemm_bt() -> OpTrace:
    return _contraction("gemm_bt", S("i1") * S("k") + S("r0"))


def rms_norm() -> OpTrace:
    b = BodyBuilder()
    at = b.add(Op.LOAD, imm=("x", S("i0") * S("n") + S("r0")))
    total = b.add(Op.REDUCE, b.const(0.0), b.add(Op.MUL, at, at), imm=("sum", "r0", S("n")))
    mean = b.add(Op.DIV, total, b.add(Op.INDEX, imm=S("n")))
    root = b.add(Op.SQRT, b.add(Op.ADD, mean, b.add(Op.SCALAR, imm="eps")))
    x = b.add(Op.LOAD, imm=("x", S("i0") * S("n") + S("i1")))
    scaled = b.add(Op.DIV, b.add(Op.MUL, x, b.add(Op.LOAD, imm=("w", S("i1")))), root)
    roles = params("in x", "in w", "out out", "dim m", "dim n", "scalar eps")
    domain = (("i0", S("m")), ("i1", S("n")))
    return OpTrace("rms_norm", roles, tuple(b.body),
                   (Store("out", S("i0") * S("n") + S("i1"), scaled, domain),))


def softmax() -> OpTrace:
    b = BodyBuilder()

    def row(binder: str) -> int:
        return b.add(Op.LOAD, imm=("x", S("i0") * S("n") + S(binder)))

    top = b.add(Op.REDUCE, b.const(float("-inf")), row("r0"), imm=("max", "r0", S("n")))
    term = b.add(Op.EXP, b.add(Op.SUB, row("r1"), top))
    total = b.add(Op.REDUCE, b.const(0.0), term, imm=("sum", "r1", S("n")))
    value = b.add(Op.DIV, b.add(Op.EXP, b.add(Op.SUB, row("i1"), top)), total)
    domain = (("i0", S("m")), ("i1", S("n")))
    return OpTrace("softmax", params("in x", "out out", "dim m", "dim n"), tuple(b.body),
                   (Store("out", S("i0") * S("n") + S("i1"), value, domain),))


def rope_with_pos() -> OpTrace:
    b = BodyBuilder()
    row = (S("i0") * S("h") + S("i1")) * 2 * S("d") + S("i2")
    table = (S("pos") + S("i0")) * S("d") + S("i2")
    x0, x1 = (b.add(Op.LOAD, imm=("x", i)) for i in (row, row + S("d")))
    cos, sin = (b.add(Op.LOAD, imm=(p, table)) for p in ("cos", "sin"))
    low = b.add(Op.SUB, b.add(Op.MUL, x0, cos), b.add(Op.MUL, x1, sin))
    high = b.add(Op.ADD, b.add(Op.MUL, x1, cos), b.add(Op.MUL, x0, sin))
    roles = params("in x", "in cos", "in sin", "out out", "dim t", "dim h", "dim d", "dim pos")
    domain = (("i0", S("t")), ("i1", S("h")), ("i2", S("d")))
    return OpTrace("rope_with_pos", roles, tuple(b.body),
                   (Store("out", row, low, domain), Store("out", row + S("d"), high, domain)))


ALL = {f.__name__: f for f in (vec_add, vec_mul, vec_scale, silu, swiglu, gemm, gemm_bt, rms_norm,
                               softmax, rope_with_pos)}


def operator(name: str) -> Operator:
    """An Operator made of the expected trace."""
    trace = ALL[name]()
    arrays = trace.names("in", "out", "inout")
    shapes = tuple((p, param_shape(trace, p)) for p in arrays)
    return Operator(name, f"scalar_{name}", trace.params, shapes, trace,
                    (("eps", 1e-5),) if name == "rms_norm" else ())
