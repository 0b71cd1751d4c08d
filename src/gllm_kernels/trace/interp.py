"""What a trace means, in numpy: `run(trace, {"x": x, "out": out, "n": 8})` writes the out arrays.

Arrays may be stored in 16 bits. Every operation is rounded to float32 and every reduction is folded in order, one term at a time;
exp, tanh, ... are the C library's own, so the result has the bits of the scalar function.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError
from .affine import Affine
from .ir import INDICES, REDUCERS, TABLE, Op, OpTrace, TraceOp
from .spec import free_symbols, kind_of

Array = npt.NDArray[Any]
NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64}
LITERALS = {Op.CONST: (np.uint32, np.float32), Op.CONST64: (np.uint64, np.float64),
            Op.INT: (np.int32, np.int32), Op.LONG: (np.int64, np.int64)}
CHUNK = 1 << 20  # elements of one materialised block of terms of a reduction


@cache
def libm() -> ctypes.CDLL:
    """The C maths library of this process."""
    return ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")


def _libm(name: str) -> Callable[..., Array]:
    """A C function of one to three floats or doubles, applied element by element."""

    def apply(*operands: Array) -> Array:
        wide = np.broadcast_arrays(*operands)
        double = wide[0].dtype == np.float64
        function = libm()[name if double else name + "f"]
        real = ctypes.c_double if double else ctypes.c_float
        function.argtypes, function.restype = [real] * len(operands), real
        values = [function(*row) for row in zip(*(a.ravel().tolist() for a in wide), strict=True)]
        return np.array(values, wide[0].dtype).reshape(wide[0].shape)

    return apply


# fmt: off
MEANING: dict[Op, Callable[..., Array]] = {
    Op.NEG: np.negative, Op.ABS: np.abs, Op.SQRT: np.sqrt,
    Op.EXP: _libm("exp"), Op.LOG: _libm("log"), Op.TANH: _libm("tanh"),
    Op.POW: _libm("pow"),
    Op.WIDEN: lambda a: a.astype(np.float64), Op.NARROW: lambda a: a.astype(np.float32),
    Op.HALF: lambda a: a.astype(np.uint16).view(np.float16).astype(np.float32),
    Op.BFLOAT: lambda a: (a.astype(np.uint16).astype(np.uint32) << 16).view(np.float32),
    Op.TOHALF: lambda a: a.astype(np.float16).view(np.uint16).astype(np.int32),
    Op.TOINT: lambda a: _truncated(a, np.int32), Op.TOLONG: lambda a: _truncated(a, np.int64),
    Op.EXTEND: lambda a: a.astype(np.int64),
    Op.UNSIGNED: lambda a: a.view(np.uint32).astype(np.int64),
    Op.LOW: lambda a: a.astype(np.int32),
    Op.BITS: lambda a: a.view(np.int32), Op.BITS64: lambda a: a.view(np.int64),
    Op.REAL: lambda a: a.view(np.float32), Op.REAL64: lambda a: a.view(np.float64),
    Op.BITAND: np.bitwise_and, Op.BITOR: np.bitwise_or, Op.BITXOR: np.bitwise_xor,
    Op.SHL: lambda a, b: np.left_shift(a, b & (8 * a.itemsize - 1)),
    Op.SAR: lambda a, b: np.right_shift(a, b & (8 * a.itemsize - 1)),
    Op.SHR: lambda a, b: np.right_shift(
        *(x.view(f"u{a.itemsize}") for x in (a, b & (8 * a.itemsize - 1)))).view(a.dtype),
    Op.ADD: np.add, Op.SUB: np.subtract, Op.MUL: np.multiply, Op.DIV: np.divide,
    Op.MAX: lambda a, b: np.where(a > b, a, b),
    Op.MIN: lambda a, b: np.where(a < b, a, b),
    Op.FMAX: _libm("fmax"), Op.FMIN: _libm("fmin"), Op.FMA: _libm("fma"),
    Op.LT: np.less, Op.LE: np.less_equal, Op.EQ: np.equal,
    Op.UNORD: lambda a, b: np.isnan(a) | np.isnan(b),
    Op.NOT: np.logical_not, Op.AND: np.logical_and, Op.OR: np.logical_or,
    Op.SELECT: np.where,
}
MEANING |= {op: _libm(op.value) for op in (
    Op.ERF, Op.SIN, Op.COS, Op.EXP2, Op.LOG2, Op.LOG1P, Op.EXPM1, Op.FLOOR, Op.CEIL, Op.TRUNC,
    Op.RINT, Op.ROUND,
)}
# fmt: on


def _truncated(a: Array, to: type) -> Array:
    """Towards zero; NaN and what does not fit is the smallest integer (SDM vol. 2, CVTTSS2SI)."""
    whole, limit = np.trunc(a.astype(np.float64)), 2.0 ** (8 * np.dtype(to).itemsize - 1)
    good = (whole >= -limit) & (whole < limit)
    return np.where(good, np.where(good, whole, 0).astype(to), np.iinfo(to).min).astype(to)


def run(trace: OpTrace, arguments: Mapping[str, Any]) -> np.number | None:
    """Write every store into its array; return what the function returns."""
    arrays = {name: _flat(name, arguments[name]) for name in trace.names("in", "out", "inout")}
    sizes = {n: int(v) for n, v in arguments.items() if isinstance(v, int | np.integer)}
    real = {p.name: np.float64 if p.ctype == "double" else np.float32 for p in trace.params}
    scalars = {n: real[n](arguments[n]) for n in trace.names("scalar")}
    frame = _Frame(trace, arrays, sizes, scalars, free_symbols(trace))
    with np.errstate(all="ignore"):
        written = [frame.store(number) for number in range(len(trace.stores))]
    result = None
    for store, (index, value) in zip(trace.stores, written, strict=True):
        if store.param == "return":
            result = value[()] if isinstance(value, np.ndarray) else value
        elif index.size:
            arrays[store.param][index] = value
    return result


def _flat(name: str, array: Array) -> Array:
    if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
        raise ShapeError(f"{name}: the interpreter wants a C-contiguous numpy array")
    return array.reshape(-1)


@dataclass
class _Frame:
    """One evaluation; `sizes` grows by the binders in scope, as arrays that broadcast."""

    trace: OpTrace
    arrays: dict[str, Array]
    sizes: dict[str, Any]
    scalars: dict[str, np.floating]
    free: list[frozenset[str]]

    def store(self, number: int) -> tuple[Array, Array]:
        """Flat element indices and the values that go there."""
        store = self.trace.stores[number]
        extents = [max(0, e.evaluate(self.sizes)) for _, e in store.domain]
        mesh = np.ogrid[tuple(slice(0, e) for e in extents)] if extents else []
        env = {**self.sizes, **{b: a for (b, _), a in zip(store.domain, mesh, strict=True)}}
        index = np.broadcast_to(self.index(store.index, env), extents)
        if not prod(extents):
            return index, np.empty(extents, np.float32)
        return index, np.broadcast_to(self.value(store.value, env, {}, len(extents)), extents)

    def index(self, index: Affine, env: Mapping[str, Any]) -> Array:
        return np.asarray(index.evaluate(env), np.int64)

    def value(self, position: int, env: dict[str, Any], memo: dict[int, Array], rank: int) -> Array:
        """The value for all binders in `env` at once; `rank` counts the axes in use."""
        if position not in memo:
            memo[position] = self.compute(self.trace.body[position], env, memo, rank)
        return memo[position]

    def compute(
        self, node: TraceOp, env: dict[str, Any], memo: dict[int, Array], rank: int
    ) -> Array:
        if node.op is Op.REDUCE:
            return self.fold(node, env, memo, rank)
        if node.op is Op.LOAD:
            kind = NUMPY[kind_of(self.trace, node.imm[0])]
            return self.arrays[node.imm[0]][self.index(node.imm[1], env)].astype(kind)
        if node.op in LITERALS:
            return np.array(node.imm, LITERALS[node.op][0]).view(LITERALS[node.op][1])
        if node.op is Op.SCALAR:
            return np.asarray(self.scalars[node.imm])
        if node.op in INDICES:
            return self.index(node.imm, env).astype(NUMPY[TABLE[node.op].result])
        return MEANING[node.op](*(self.value(a, env, memo, rank) for a in node.args))

    def fold(self, node: TraceOp, env: dict[str, Any], memo: dict[int, Array], rank: int) -> Array:
        """Terms are computed in blocks along a new first axis and folded one by one."""
        kind, binder, extent = node.imm
        total = max(0, extent.evaluate(self.sizes))
        acc = self.value(node.args[0], env, memo, rank)
        step = max(1, CHUNK // max(1, prod(np.broadcast_shapes(*map(np.shape, env.values())))))
        kept = {p: v for p, v in memo.items() if binder not in self.free[p]}
        for start in range(0, total, step):
            count = min(step, total - start)
            axis = np.arange(start, start + count).reshape((count,) + (1,) * rank)
            scope = {**env, binder: axis}
            for term in self.terms(node, scope, dict(kept), rank + 1, axis):
                acc = combine(kind, acc, term)
        return np.asarray(acc)

    def terms(
        self, node: TraceOp, env: dict[str, Any], memo: dict[int, Array], rank: int, axis: Array
    ) -> list[tuple[Array, ...]]:
        """The rows of one block; a row of an fma reduction is its two factors."""
        product = self.trace.body[node.args[1]]
        parts = product.args if node.imm[0] == "fma" else (node.args[1],)
        values = [self.value(p, env, memo, rank) for p in parts]
        wide = [np.broadcast_to(v, np.broadcast_shapes(v.shape, axis.shape)) for v in values]
        return list(zip(*wide, strict=True))


def combine(kind: str, acc: Array, term: tuple[Array, ...]) -> Array:
    """One step of a reduction."""
    reducer = REDUCERS[kind]
    if kind == "fma":
        return MEANING[Op.FMA](*term, acc)
    pair = (term[0], acc) if reducer.flipped else (acc, term[0])
    return MEANING[reducer.op](*pair)
