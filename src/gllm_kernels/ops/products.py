"""Matrix products with fused epilogues, and x @ w.T for weights stored row by row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from ..codegen.isa.detect import current_isa_name
from ..config import current
from ..dtypes import FLOATS, NARROW, result_type
from ..errors import ShapeError
from ..executable.function import Call
from ..executable.layer import CompiledLayer
from ..graph.ir import CompilerGraph
from ..graph.operator import Operator
from ..graph.registry import operator_named
from ..pipeline import compile_graph
from ..codegen.tuning import TuningParams
from .fast import Plain, builtin, packed_copies, plain_call, refuse
from .op import Op
from .prepacked import PackedB
from .qtensor import QTensor

Array = npt.NDArray[np.generic]  # float32, float16 or bfloat16
Epilogue = str | Op | Sequence["str | Op"] | None


def gemm(a: Array, b: Array | PackedB, bias: Array | None = None, epilogue: Epilogue = None,
         out: Array | None = None) -> Array:
    """c[i,j] = epilogue(sum[p<k](a[i,p] * b[p,j]) + bias[j]), the epilogue in registers.

    a: (..., m, k), b: (k, n), perhaps packed by `pack_b`, bias: (n,); c: (..., m, n). `epilogue`
    names one elementwise operator of one array ("silu", or an Op from `register`), or several in
    order. A one-row `a` of shape (k,) gives (n,). Raises ShapeError for wrong shapes, dtypes or epilogues.
    """
    if isinstance(b, PackedB):
        b.check()
        b = b if b.params else b.panels
    if bias is None and epilogue is None and not isinstance(b, PackedB):
        op = Op.named("gemm")
        result = op.short((a, b), out, {})
        return op(a, b, out=out) if result is NotImplemented else result
    names = tuple(e.name if isinstance(e, Op) else e for e in _listed(epilogue))
    if bias is None:
        return _fused("gemm", names, (a, b), out)
    return _fused("gemm_bias", names, (a, b, bias), out)


def gemm_bias_act(a: Array, b: Array, bias: Array, act: Epilogue, out: Array | None = None) -> Array:
    """c[i,j] = act(sum[p<k](a[i,p] * b[p,j]) + bias[j]): `gemm` with all its options."""
    return gemm(a, b, bias, act, out)


def gemm_prepacked(a: Array, b: PackedB, bias: Array | None = None, epilogue: Epilogue = None,
                   out: Array | None = None) -> Array:
    """`gemm` with a matrix from `pack_b`: the same sums without packing it again."""
    if not isinstance(b, PackedB):
        raise ShapeError(f"gemm_prepacked: `b` is a {type(b).__name__}; wanted what gk.pack_b made")
    return gemm(a, b, bias, epilogue, out)


def matmul(x: Array, w: Array | PackedB | QTensor, out: Array | None = None) -> Array:
    """y[i,j] = sum[p<k](x[i,p] * w[j,p]): x @ w.T, with w stored n x k as models store weights, or
    `pack_b(w, transposed=True)`, or quantised."""
    if isinstance(w, QTensor):
        return _quantised(x, w, out)
    if isinstance(w, PackedB):
        return gemm(x, w, out=out)
    result = Op.named("gemm_bt").short((x, w), out, {})
    if result is not NotImplemented:
        return result
    if np.ndim(w) != 2 or np.ndim(x) < 1 or np.shape(x)[-1] != np.shape(w)[1]:
        raise ShapeError(f"matmul: `x` has shape {np.shape(x)}, `w` {np.shape(w)}; wanted (..., k) "
                         "and (n, k)")
    return Op.named("gemm_bt")(x, w, out=out)


def _quantised(x: Array, w: QTensor, out: Array | None) -> Array:
    form, x = w.resident(), np.asarray(x)
    if form.storage == "float32":
        return matmul(x, form.panels, out)
    if x.ndim < 1 or x.shape[-1] != w.shape[1] or x.dtype.name not in FLOATS:
        raise ShapeError(f"matmul: `x` is {x.dtype}{x.shape}, `w` {w!r}; wanted float32 (..., {w.shape[1]})")
    shape = (*x.shape[:-1], w.shape[0])
    target = np.empty(shape, np.float32) if out is None else _checked_out("matmul", out, shape)
    layer = _layer(current_isa_name(), "gemm_bt", (), (x.dtype.name, form.storage), target.dtype.name)
    apart = target.flags.c_contiguous and not np.may_share_memory(target, x)
    memory = target if apart else np.empty(shape, target.dtype)
    flat = prod(shape[:-1])
    layer(out={"c": memory.reshape(flat, shape[-1])}, a=x.reshape(flat, x.shape[-1]), b=form)
    if memory is not target:
        np.copyto(target, memory)
    return target


def _listed(epilogue: Epilogue) -> Sequence[str | Op]:
    if epilogue is None:
        return ()
    listed = (epilogue,) if isinstance(epilogue, (str, Op)) else epilogue
    if not isinstance(listed, (tuple, list)) or not all(isinstance(e, (str, Op)) for e in listed):
        raise ShapeError(f"gemm: epilogue is a {type(epilogue).__name__}; wanted the name of an "
                         "operator, an Op, or a list of them")
    return listed


def _fused(name: str, epilogues: tuple[str, ...], arrays: tuple[Array | PackedB, ...],
           out: Array | None) -> Array:
    settings, b = current(), arrays[1]
    params = b.params if isinstance(b, PackedB) else None
    stored = tuple([getattr(x, "dtype", None) for x in arrays])
    short = _short(settings.isa, settings.threads, name, epilogues, stored,
                   getattr(out, "dtype", None), params)
    result = short(arrays, out, {})
    if result is NotImplemented and (copies := packed_copies(arrays)):
        result = short(copies, out, {})
    return _checked(name, epilogues, arrays, out) if result is NotImplemented else result


@lru_cache(maxsize=256)
def _short(isa: str, threads: int, name: str, epilogues: tuple[str, ...],
           stored: tuple[np.dtype | None, ...], made: np.dtype | None,
           params: TuningParams | None) -> Plain:
    """The short way of a chain on arrays stored so; `isa` and `threads` are those of the settings."""
    types = tuple(getattr(dtype, "name", "") for dtype in stored)
    result = result_type(types) if made is None else made.name
    if not FLOATS.issuperset((*types, result)):
        return refuse
    op, layer = operator_named(name), _layer(current_isa_name(), name, epilogues, types, result, params)
    if params is None:
        return plain_call(op, layer)
    function = builtin(op, layer, "b")
    return refuse if function is None else _packed_call(function, result)


def _packed_call(function: Call, dtype: str) -> Plain:
    def call(arrays: tuple[Array | PackedB, ...], out: Array | None, named: object) -> object:
        a, b, *bias = arrays
        if out is None and isinstance(a, np.ndarray):
            out = np.empty((*a.shape[:-1], b.shape[1]), dtype)
        return function(a, b.panels, *bias, out, *b.shape)

    return call


def _checked(name: str, epilogues: tuple[str, ...], arrays: tuple[Array | PackedB, ...],
             out: Array | None) -> Array:
    """The long way: any strides and anything that can be made an array."""
    given = dict(zip(operator_named(name).inputs, arrays))
    a = np.asarray(given["a"])
    if a.ndim == 0:
        raise ShapeError(f"{name}: `a` has no axes, wanted (..., m, k)")
    given["a"] = a.reshape(prod(a.shape[:-1]), a.shape[-1])
    packed = given["b"] if isinstance(given["b"], PackedB) else None
    given |= {n: np.asarray(x) for n, x in given.items() if x is not packed}
    types = tuple(x.dtype.name for x in given.values())
    dtype = result_type(types)
    if isinstance(out, np.ndarray) and out.dtype.name in FLOATS:
        dtype = out.dtype.name
    layer = _layer(current_isa_name(), name, epilogues, types, dtype, packed and packed.params)
    shape = (*a.shape[:-1], np.shape(given["b"])[-1])
    target = np.empty(shape, dtype) if out is None else _checked_out(name, out, shape)
    shared = any(np.may_share_memory(target, x) for x in given.values() if x is not packed)
    memory = np.empty(shape, dtype) if shared or not target.flags.c_contiguous else target
    layer(out={"c": memory.reshape(prod(shape[:-1]), shape[-1])}, **given)
    if memory is not target:
        np.copyto(target, memory)
    return target


def _checked_out(name: str, out: Array, shape: tuple[int, ...]) -> Array:
    if not isinstance(out, np.ndarray) or out.dtype.name not in FLOATS or out.shape != shape:
        got = f"{out.dtype}{out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"{name}: `out` must be float32{shape} (or {', '.join(NARROW)}), got {got}")
    if not out.flags.writeable:
        raise ShapeError(f"{name}: `out` is read-only")
    return out


@lru_cache(maxsize=256)
def _layer(isa: str, name: str, epilogues: tuple[str, ...], types: tuple[str, ...],
           dtype: str, params: TuningParams | None = None) -> CompiledLayer:
    """Compiled for any sizes, once per ISA, chain, types and tuning."""
    op, graph = operator_named(name), CompilerGraph()
    inputs = (graph.input(p, op.shape(p), t) for p, t in zip(op.inputs, types, strict=True))
    value = graph.op(op, *inputs, dtype=dtype)
    for epilogue in epilogues:
        value = graph.op(_pointwise(operator_named(epilogue)), value, dtype=dtype)
    graph.output("c", value)
    return compile_graph(graph, params=params)


def _pointwise(op: Operator) -> Operator:
    if not op.is_flat or len(op.inputs) != 1:
        raise ShapeError(f"epilogue {op.name!r}: wanted an elementwise operator of one array; "
                         f"it is {op.pattern} of {len(op.inputs)}")
    return op
