"""Traces for the vector generators, and the comparison of a kernel with its trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial

import machine
import numpy as np
import traces
from guard import guarded_copy

from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.code import Code
from gllm_kernels.codegen.generate import generate
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.trace import interp as meaning
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Store

S = Affine.sym
I0, I1, I2, R0 = S("i0"), S("i1"), S("i2"), S("r0")
M, N, D = S("m"), S("n"), S("d")


def unary(op: Op) -> OpTrace:
    return traces.flat(str(op), ("in x", "out out", "dim n"), lambda b, x: b.add(op, x("x")))


def binary(op: Op) -> OpTrace:
    return traces.flat(f"pair_{op}", ("in a", "in b", "out out", "dim n"),
                       lambda b, x: b.add(op, x("a"), x("b")))


def gelu() -> OpTrace:
    def value(b: BodyBuilder, load: Callable[[str], int]) -> int:
        v = load("x")
        c = b.const
        cube = b.add(Op.MUL, b.add(Op.MUL, b.add(Op.MUL, c(0.044715), v), v), v)
        inner = b.add(Op.MUL, c(0.7978845608), b.add(Op.ADD, v, cube))
        return b.add(Op.MUL, b.add(Op.MUL, c(0.5), v),
                     b.add(Op.ADD, c(1.0), b.add(Op.TANH, inner)))

    return traces.flat("gelu", ("in x", "out out", "dim n"), value)


def relu() -> OpTrace:
    return traces.flat("relu", ("in x", "out out", "dim n"),
                       lambda b, x: b.add(Op.MAX, b.const(0.0), x("x")))


def axpy() -> OpTrace:
    return traces.flat("vec_axpy", ("scalar a", "in x", "inout y", "dim n"),
                       lambda b, x: b.add(Op.ADD, x("y"), b.add(
                           Op.MUL, b.add(Op.SCALAR, imm="a"), x("x"))))


def every_op() -> OpTrace:
    """Comparisons, selections, number-wins maxima and the index as a number."""
    def value(b: BodyBuilder, load: Callable[[str], int]) -> int:
        x, y = load("a"), load("b")
        add = b.add
        less = add(Op.AND, add(Op.LT, x, y), add(Op.NOT, add(Op.EQ, x, b.const(2.0))))
        odd = add(Op.OR, add(Op.UNORD, x, y), add(Op.LE, y, b.const(-1.0)))
        high = add(Op.ADD, add(Op.FMAX, x, y), add(Op.FMIN, y, add(Op.ABS, x)))
        low = add(Op.SUB, add(Op.MIN, x, y), add(Op.INDEX, imm=I0 * 4 + N + 3))
        fused = add(Op.FMA, x, y, add(Op.NEG, x))
        return add(Op.SELECT, less, high, add(Op.SELECT, odd, low, fused))

    return traces.flat("every_op", ("in a", "in b", "out out", "dim n"), value)


def whole(name: str, kind: str, init: float, term: Callable[[BodyBuilder], int],
          *roles: str) -> OpTrace:
    """return = kind[r0<n](term)"""
    b = BodyBuilder()
    value = b.add(Op.REDUCE, b.const(init), term(b), imm=(kind, "r0", N))
    return OpTrace(name, traces.params(*roles, "dim n"), tuple(b.body),
                   (Store("return", Affine(), value, ()),))


def _at(b: BodyBuilder, name: str) -> int:
    return b.add(Op.LOAD, imm=(name, R0))


def reductions() -> dict[str, OpTrace]:
    def product(x: str, y: str) -> Callable[[BodyBuilder], int]:
        return lambda b: b.add(Op.MUL, _at(b, x), _at(b, y))

    inf = float("inf")
    return {
        "vec_dot": whole("vec_dot", "sum", 0.0, product("a", "b"), "in a", "in b"),
        "vec_sum": whole("vec_sum", "sum", 0.5, lambda b: _at(b, "x"), "in x"),
        "vec_max": whole("vec_max", "max", -inf, lambda b: _at(b, "x"), "in x"),
        "vec_min": whole("vec_min", "min", inf, lambda b: _at(b, "x"), "in x"),
        "vec_fmax": whole("vec_fmax", "fmax", -inf, lambda b: _at(b, "x"), "in x"),
        "vec_fmin": whole("vec_fmin", "fmin_acc", inf, lambda b: _at(b, "x"), "in x"),
        "vec_prod": whole("vec_prod", "prod", 2.0, lambda b: _at(b, "x"), "in x"),
        "sum_squares": whole("sum_squares", "fma", 0.0, product("x", "x"), "in x"),
    }


def layer_norm() -> OpTrace:
    b = BodyBuilder()
    count = b.add(Op.INDEX, imm=N)

    def row(binder: Affine) -> int:
        return b.add(Op.LOAD, imm=("x", I0 * N + binder))

    zero = b.const(0.0)
    mean = b.add(Op.DIV, b.add(Op.REDUCE, zero, row(R0), imm=("sum", "r0", N)), count)
    centred = b.add(Op.SUB, row(S("r1")), mean)
    squares = b.add(Op.REDUCE, zero, b.add(Op.MUL, centred, centred), imm=("sum", "r1", N))
    root = b.add(Op.SQRT, b.add(Op.ADD, b.add(Op.DIV, squares, count),
                                b.add(Op.SCALAR, imm="eps")))
    unit = b.add(Op.DIV, b.add(Op.SUB, row(I1), mean), root)
    value = b.add(Op.ADD, b.add(Op.MUL, unit, b.add(Op.LOAD, imm=("w", I1))),
                  b.add(Op.LOAD, imm=("b", I1)))
    roles = traces.params("in x", "in w", "in b", "out out", "dim m", "dim n", "scalar eps")
    return OpTrace("layer_norm", roles, tuple(b.body),
                   (Store("out", I0 * N + I1, value, (("i0", M), ("i1", N))),))


def rope_interleaved() -> OpTrace:
    b = BodyBuilder()
    row = (I0 * S("h") + I1) * 2 * D + I2 * 2
    x0, x1 = (b.add(Op.LOAD, imm=("x", i)) for i in (row, row + 1))
    cos, sin = (b.add(Op.LOAD, imm=(p, I0 * D + I2)) for p in ("cos", "sin"))
    even = b.add(Op.SUB, b.add(Op.MUL, x0, cos), b.add(Op.MUL, x1, sin))
    odd = b.add(Op.ADD, b.add(Op.MUL, x1, cos), b.add(Op.MUL, x0, sin))
    roles = traces.params("in x", "in cos", "in sin", "out out", "dim t", "dim h", "dim d")
    domain = (("i0", S("t")), ("i1", S("h")), ("i2", D))
    return OpTrace("rope_interleaved", roles, tuple(b.body),
                   (Store("out", row, even, domain), Store("out", row + 1, odd, domain)))


def every_other() -> OpTrace:
    """out[i] = x[2*i + 1]: the elements between must not be needed."""
    b = BodyBuilder()
    value = b.add(Op.LOAD, imm=("x", I0 * 2 + 1))
    return OpTrace("every_other", traces.params("in x", "out out", "dim n"), tuple(b.body),
                   (Store("out", I0, value, (("i0", N),)),))


def row_bias() -> OpTrace:
    """out[i, j] = x[i, j] * w[j] + s[i], rows ld elements apart."""
    b = BodyBuilder()
    x = b.add(Op.LOAD, imm=("x", I0 * S("ld") + I1))
    w, s = b.add(Op.LOAD, imm=("w", I1)), b.add(Op.LOAD, imm=("s", I0))
    value = b.add(Op.ADD, b.add(Op.MUL, x, w), s)
    roles = traces.params("in x", "in w", "in s", "out out", "dim m", "dim n", "dim ld")
    return OpTrace("row_bias", roles, tuple(b.body),
                   (Store("out", I0 * N + I1, value, (("i0", M), ("i1", N))),))


def row_sum() -> OpTrace:
    """out[i] = sum[r](x[i, r]) / n"""
    b = BodyBuilder()
    x = b.add(Op.LOAD, imm=("x", I0 * N + R0))
    total = b.add(Op.REDUCE, b.const(0.0), x, imm=("sum", "r0", N))
    value = b.add(Op.DIV, total, b.add(Op.INDEX, imm=N))
    return OpTrace("row_sum", traces.params("in x", "out out", "dim m", "dim n"), tuple(b.body),
                   (Store("out", I0, value, (("i0", M),)),))


def share() -> OpTrace:
    """out[i, j] = x[i, j] / sum[r](x[i, r])"""
    b = BodyBuilder()
    term = b.add(Op.LOAD, imm=("x", I0 * N + R0))
    total = b.add(Op.REDUCE, b.const(0.0), term, imm=("sum", "r0", N))
    value = b.add(Op.DIV, b.add(Op.LOAD, imm=("x", I0 * N + I1)), total)
    return OpTrace("share", traces.params("in x", "out out", "dim m", "dim n"), tuple(b.body),
                   (Store("out", I0 * N + I1, value, (("i0", M), ("i1", N))),))


def softmax_plus() -> OpTrace:
    """out = softmax(x) + x"""
    plain = traces.softmax()
    b = BodyBuilder(list(plain.body), {node: p for p, node in enumerate(plain.body)})
    store = plain.stores[0]
    value = b.add(Op.ADD, store.value, b.add(Op.LOAD, imm=("x", store.index)))
    return replace(plain, name="softmax_plus", body=tuple(b.body),
                   stores=(replace(store, value=value),))


def column_sum() -> OpTrace:
    """out[j] = sum[r](x[r, j] * w[r])"""
    b = BodyBuilder()
    term = b.add(Op.MUL, b.add(Op.LOAD, imm=("x", R0 * N + I0)), b.add(Op.LOAD, imm=("w", R0)))
    total = b.add(Op.REDUCE, b.const(0.0), term, imm=("sum", "r0", M))
    roles = traces.params("in x", "in w", "out out", "dim m", "dim n")
    return OpTrace("column_sum", roles, tuple(b.body),
                   (Store("out", I0, total, (("i0", N),)),))


def moments() -> OpTrace:
    """out[i, j] = x[i, j] * sum[r](x[i, r]) + sum[r](x[i, r]^2): two Reduces, one loop."""
    b = BodyBuilder()
    one, two = (b.add(Op.LOAD, imm=("x", I0 * N + S(r))) for r in ("r0", "r1"))
    zero = b.const(0.0)
    total = b.add(Op.REDUCE, zero, one, imm=("sum", "r0", N))
    squares = b.add(Op.REDUCE, zero, b.add(Op.MUL, two, two), imm=("sum", "r1", N))
    x = b.add(Op.LOAD, imm=("x", I0 * N + I1))
    value = b.add(Op.ADD, b.add(Op.MUL, x, total), squares)
    return OpTrace("moments", traces.params("in x", "out out", "dim m", "dim n"), tuple(b.body),
                   (Store("out", I0 * N + I1, value, (("i0", M), ("i1", N))),))


def named(*makers: Callable[[], OpTrace]) -> dict[str, OpTrace]:
    return {t.name: t for t in (make() for make in makers)}


UNARY = {str(op): unary(op) for op in (
    Op.EXP, Op.TANH, Op.LOG, Op.SQRT, Op.ERF, Op.SIN, Op.COS, Op.EXP2, Op.LOG2, Op.LOG1P, Op.EXPM1,
    Op.FLOOR, Op.CEIL, Op.TRUNC, Op.RINT, Op.ROUND)}
CHOICES = {t.name: t for t in map(binary, (Op.MAX, Op.MIN, Op.FMAX, Op.FMIN, Op.DIV, Op.POW))}
FLAT = CHOICES | named(traces.vec_add, traces.vec_mul, traces.vec_scale, traces.silu, traces.swiglu, gelu,
             relu, axpy, every_op, every_other) | UNARY
ROWS = named(row_bias, traces.rope_with_pos, rope_interleaved)
NORMS = named(traces.softmax, traces.rms_norm, layer_norm, moments, row_sum, softmax_plus,
              column_sum)
REDUCTIONS = reductions()

ALL = FLAT | ROWS | NORMS | REDUCTIONS | named(share)

Sizes = Mapping[str, int]
Arguments = dict[str, np.ndarray | int | float]
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42, 1e30, -1e30, 88.8, -88.8,
                    2.0], np.float32)


@cache
def compiled(name: str, isa: Isa) -> Code:
    """The machine code of a case, made once."""
    return compile_kernel(generate(ALL[name], isa, default_params(isa)), isa)


def arguments(trace: OpTrace, sizes: Sizes, rng: np.random.Generator) -> Arguments:
    """Arrays just large enough, filled with normal numbers; every size; scalars 0.37."""
    made: Arguments = {}
    for param in trace.params:
        if param.role == "dim":
            made[param.name] = sizes[param.name]
        elif param.role == "scalar":
            made[param.name] = 0.37
        else:
            count = extent(trace, param.name, sizes)
            made[param.name] = rng.standard_normal(count).astype(np.float32)
    return made


def copied(args: Mapping[str, np.ndarray | int | float],
           copy: Callable[[np.ndarray], np.ndarray] = np.copy) -> Arguments:
    return {n: copy(a) if isinstance(a, np.ndarray) else a for n, a in args.items()}


def results(trace: OpTrace, args: Arguments) -> Arguments:
    """What the trace says the arrays, and "return", hold afterwards."""
    after = copied(args)
    returned = meaning.run(trace, after)
    if returned is not None:
        after["return"] = np.array([returned], np.float32)
    return after


def assert_close(name: str, got: Arguments, want: Arguments, tolerance: float = 1e-5) -> None:
    """Every array: NaN where wanted, infinities equal, the rest within the tolerance."""
    for key, array in want.items():
        if isinstance(array, np.ndarray):
            np.testing.assert_allclose(got[key], array, rtol=tolerance, atol=tolerance,
                                       err_msg=f"{name}: {key}")


def assert_kernel(name: str, isa: Isa, sizes: Sizes, args: Arguments,
                  tolerance: float = 1e-5) -> None:
    """Machine code between guard pages gives what the trace says."""
    trace = ALL[name]
    with np.errstate(all="ignore"):
        want = results(trace, args)
    for at in ("end", "start"):
        got = copied(args, partial(guarded_copy, at=at))
        if "return" in want:
            got["return"] = guarded_copy(np.zeros(1, np.float32), at)
        machine.call(compiled(name, isa), got)
        assert_close(f"{name} on {isa.name} with {dict(sizes)}", got, want, tolerance)


def sizes_around(isa: Isa) -> list[int]:
    """0, 1, one vector and the unrolled loops give or take one, odd numbers."""
    vector, unrolled = isa.lanes, isa.lanes * default_params(isa).accumulators
    near = [v + d for v in (vector, unrolled, 2 * unrolled) for d in (-1, 0, 1)]
    return sorted({0, 1, 3, *near, 2 * unrolled + vector + 5})


def extent(trace: OpTrace, param: str, sizes: Sizes) -> int:
    """How many elements of `param` the trace touches: one more than its largest index."""
    reduces = {n.imm[1]: n.imm[2] for n in trace.body if n.op is Op.REDUCE}
    last = 0
    for store in trace.stores:
        bounds = {**reduces, **dict(store.domain)}
        top = dict(sizes) | {b: e.evaluate(sizes) - 1 for b, e in bounds.items()}
        indices = [n.imm[1] for n in trace.body if n.op is Op.LOAD and n.imm[0] == param]
        indices += [store.index] if store.param == param else []
        for index in indices:
            if all(top[b] >= 0 for b in index.symbols & bounds.keys()):
                last = max(last, index.evaluate(top) + 1)
    return last
