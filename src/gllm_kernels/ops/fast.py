"""The short way from numpy to a kernel: one builtin call when the arguments are just right.

Anything else (other strides, batches of several arrays, overlaps, a team that has not started yet)
is answered with NotImplemented by the builtin and takes the checked way in `op.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from ..executable.function import Argument, ArraySpec, Call, FastCall, FloatSpec, IntSpec
from ..executable.layer import CompiledLayer
from ..executable.program import FloatSlot, IntSlot
from ..executable.team import thread_count
from ..fusion.linear import Pointer, linearise
from ..graph.operator import TOO_LARGE, Operator
from ..trace.affine import Affine
from ..trace.pattern import ComputePattern
from ..trace.shapes import MOST_NUMBER

# Work that one thread does faster than a team wakes: elements, or multiply-adds of a product. A
# quarter of it is done before another Python thread would notice that it waits.
ALONE = {ComputePattern.GEMM: 1 << 20, ComputePattern.GEMV: 1 << 20}
ALONE_ELEMENTS = 1 << 16

Axes = tuple[tuple[int, slice], ...]


# (arrays, out, scalars by name) -> the result, or NotImplemented as soon as anything is unusual
Plain = Callable[[tuple[object, ...], object, dict[str, object]], object]


def refuse(arrays: tuple[object, ...], out: object, named: dict[str, object]) -> object:
    """The short way of an operator that has none."""
    return NotImplemented


def packed_copies(arrays: tuple[object, ...]) -> tuple[object, ...]:
    """The arrays without strides, or () where it is not strides that keep them from being plain."""
    strided = [type(a) is np.ndarray and a.ndim > 0 and not a.flags.c_contiguous for a in arrays]
    if not any(strided):
        return ()
    return tuple([np.ascontiguousarray(a) if s else a for a, s in zip(arrays, strided)])


def plain_call(op: Operator, layer: CompiledLayer) -> Plain:
    """The short way of a layer that begins with this operator, for plain arrays; or `refuse`."""
    axes = result_axes(op)
    function = builtin(op, layer) if axes is not None else None
    if function is None:
        return refuse
    (_, result), = layer.graph.outputs
    plain = _wrap(function, op, axes, result.dtype, _types(layer)[op.inputs[0]] == result.dtype)
    return _checked(plain, _holders(layer)) if _numbers(layer) else plain


def _numbers(layer: CompiledLayer) -> set[Affine]:
    """What is used as a number by any operator of the layer."""
    return {bound.need for bound in layer.graph.bounds if bound.text is TOO_LARGE}


def _holders(layer: CompiledLayer) -> tuple[int, ...] | None:
    """Inputs with an axis for each of these numbers; None where one is no plain size."""
    shapes = [view.shape for _, view in layer.graph.nodes[0].inputs]
    found = {next((k for k, shape in enumerate(shapes) if number in shape), -1)
             for number in _numbers(layer)}
    return None if -1 in found else tuple(found)


def _checked(plain: Plain, holders: tuple[int, ...] | None) -> Plain:
    """The short way where sizes are also numbers: an array of less than 2^31 elements, but some,
    has no larger axis."""
    if holders is None:
        return refuse

    def small(arrays: tuple[object, ...], out: object, named: dict[str, object]) -> object:
        for k in holders:
            if k >= len(arrays) or not 0 < getattr(arrays[k], "size", 0) <= MOST_NUMBER:
                return NotImplemented
        return plain(arrays, out, named)

    return small


def _wrap(function: Call, op: Operator, axes: Axes, dtype: str, same: bool) -> Plain:
    """Makes the result and puts the scalars in order around the builtin; written for few steps,
    because a call on 64 floats is all overhead. `same`: the result is stored as the first input."""
    empty_like, count, makes = np.empty_like, len(op.inputs), bool(op.names("out"))
    names, defaults = op.names("scalar"), dict(op.defaults)
    like_first = makes and op.shape(op.outputs[0]) == op.shape(op.inputs[0]) and same

    def plainest(arrays: tuple[object, ...], out: object, named: dict[str, object]) -> object:
        if named or len(arrays) != count:
            return NotImplemented
        return function(*arrays, empty_like(arrays[0]) if out is None else out)

    def shaped(arrays: tuple[object, ...], out: object, named: dict[str, object]) -> object:
        if named or len(arrays) != count:
            return NotImplemented
        return function(*arrays, _empty(arrays, axes, dtype) if out is None else out)

    def general(arrays: tuple[object, ...], out: object, named: dict[str, object]) -> object:
        if len(arrays) != count or not named.keys() <= set(names) or (out is not None) > makes:
            return NotImplemented
        scalars = [named.get(n, defaults.get(n)) for n in names]
        if makes and out is None:
            out = _empty(arrays, axes, dtype)
        return function(*arrays, *((out,) if makes else ()), *scalars)

    return general if names or not makes else plainest if like_first else shaped


def _empty(arrays: tuple[object, ...], axes: Axes, dtype: str) -> object:
    """New memory for the result of plain arrays; None when they are no such arrays."""
    try:
        sizes = [n for i, axis in axes for n in arrays[i].shape[axis]]
        return np.empty(sizes, dtype)
    except (AttributeError, TypeError, ValueError):
        return None


def builtin(op: Operator, layer: CompiledLayer, packed: str = "") -> Call | None:
    """`function(*inputs, *outputs, *scalars)`, each in declaration order and in/out arrays among the
    inputs, or None where the kernel needs more than plain arrays tell: an offset, or a size that is
    no axis. The input `packed` is bytes in a form of its own; its sizes are the last arguments."""
    arrays = _arrays(op, _types(layer), packed) if _is_single(op, layer) else None
    if arrays is None or (packed and _numbers(layer)):
        return None
    group, kernel = linearise("kernel", layer.plan.groups[0].trace), layer.kernels[0].kernel
    values = dict(zip((p.name for p in group.trace.params), group.arguments))
    sizes = {n: v for n, v in values.items() if isinstance(v, Affine)}
    owner = {view.buffer: name for name, view in layer.graph.outputs}
    params = (*arrays, *(FloatSpec(s) for s in op.names("scalar")),
              *(IntSpec(str(s)) for s in (op.shape(packed) if packed else ())))
    alone = ALONE.get(op.pattern, ALONE_ELEMENTS)
    spec = FastCall(layer.kernels[0].address, params,
                    tuple(_slot(values[p.name], owner) for p in kernel.params),
                    kernel.units.substitute(sizes), op.outputs[0],
                    kernel.scratch.substitute(sizes), _work(arrays), alone // 4, alone,
                    thread_count(), kernel.grain, (layer.kernels[0].owner,), op.name)
    offsets = [v.offset for v in values.values() if isinstance(v, Pointer)]
    known = all(v.symbols <= set(spec.dims()) for v in sizes.values())
    return spec.function() if known and not any(o.terms for o in offsets) else None


def _is_single(op: Operator, layer: CompiledLayer) -> bool:
    """One kernel that writes all of one array."""
    traced = [group.trace is not None for group in layer.plan.groups]
    return (layer.plan.profile.isa != "scalar" and traced == [True]
            and len(layer.graph.outputs) == 1 and all(map(op.covers, op.outputs)))


def _types(layer: CompiledLayer) -> dict[str, str]:
    """How the arrays of the first operator are stored, and the result."""
    first = layer.graph.nodes[0]
    stored = {name: view.dtype for name, view in first.inputs}
    return {name: layer.graph.outputs[0][1].dtype for name, _ in first.outputs} | stored


def _arrays(op: Operator, types: Mapping[str, str], packed: str) -> tuple[ArraySpec, ...] | None:
    """Specs with one symbol per axis; the outermost one may stand for several axes."""
    shapes = dict(op.shapes)
    if op.result or op.limit or op.least or op.reaches or any(len(s.terms) != 1 or s.terms[0][0] != 1 or len(s.terms[0][1]) != 1
                        for shape in shapes.values() for s in shape):
        return None
    inner = {str(s) for shape in shapes.values() for s in shape[1:]}
    specs = []
    roles = {p.name: p.role for p in op.params}
    for name in (*op.inputs, *op.names("out")):
        first, *rest = map(str, shapes[name])
        star = first if first in inner or not _leads(op, first) else f"*{first}"
        alias = op.is_flat and roles[name] == "out"
        specs.append(ArraySpec(name, (star, *rest), types[name], roles[name], alias))
    return tuple(ArraySpec(s.name, ("panel bytes",), "uint8") if s.name == packed else s
                 for s in specs)


def _work(arrays: tuple[ArraySpec, ...]) -> Affine | None:
    """Every combination of indices: elements of an elementwise operator, multiply-adds of a
    product."""
    dims = sorted({d.removeprefix("*") for a in arrays for d in a.shape if a.dtype != "uint8"})
    return prod(map(Affine.sym, dims), start=Affine.const(1)) if len(dims) <= 3 else None


def _leads(op: Operator, symbol: str) -> bool:
    """Whether every output starts with this dimension, so that leading axes pass through."""
    return all(str(op.shape(p)[0]) == symbol for p in op.outputs)


def _slot(value: Pointer | Affine | float | str, owner: dict[str, str]) -> object:
    if isinstance(value, Pointer):
        return Argument(owner.get(value.buffer, value.buffer))
    if isinstance(value, Affine):
        return IntSlot(value)
    return Argument(value) if isinstance(value, str) else FloatSlot(value)


def result_axes(op: Operator) -> Axes | None:
    """Where the sizes of the one output are found: (input number, which axes from the end). Axes in
    front of an input's own go with its first."""
    if len(op.outputs) != 1:
        return None
    if not op.names("out"):
        return ()
    found = []
    for size in op.shape(op.names("out")[0]):
        places = [(i, axis - len(op.shape(p))) for i, p in enumerate(op.inputs)
                  for axis, have in enumerate(op.shape(p)) if have == size]
        if not places:
            return None
        i, axis = places[0]
        first = not found and axis == -len(op.shape(op.inputs[i]))
        found.append((i, slice(None if first else axis, axis + 1 or None)))
    return tuple(found)
