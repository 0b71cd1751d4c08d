"""The short way from numpy to a kernel: one builtin call when the arguments are just right.

Anything else (other strides, batches of several arrays, overlaps, more work than one thread should
do) is answered with NotImplemented by the builtin and takes the checked way in `op.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..executable.function import STACK_SCRATCH, Argument, ArraySpec, FastCall, FloatSpec
from ..executable.layer import CompiledLayer
from ..executable.link import LoadedKernel
from ..executable.program import FloatSlot, IntSlot
from ..fusion.linear import BoundGroup, Pointer
from ..graph.operator import Operator
from ..trace.affine import Affine

SMALL = 1 << 16  # units beyond which a thread team is worth waking

Axes = tuple[tuple[int, int], ...]


# (arrays, out, scalars by name) -> the result, or NotImplemented as soon as anything is unusual
Plain = Callable[[tuple[object, ...], object, dict[str, object]], object]


def refuse(arrays: tuple[object, ...], out: object, named: dict[str, object]) -> object:
    """The short way of an operator that has none."""
    return NotImplemented


def _wrap(function: Callable[..., object], op: Operator, axes: Axes, dtype: str,
          same: bool) -> Plain:
    """Makes the result and puts the scalars in order around the builtin; written for few steps,
    because a call on 64 floats is all overhead. `same`: the result is stored as the first input."""
    empty_like, count, makes = np.empty_like, len(op.inputs), bool(op.names("out"))
    names, defaults = op.names("scalar"), dict(op.defaults)
    like_first = makes and op.shape(op.outputs[0]) == op.shape(op.inputs[0]) and same

    def plainest(arrays: tuple[object, ...], out: object, named: dict[str, object]) -> object:
        if named or len(arrays) != count:
            return NotImplemented
        return function(*arrays, empty_like(arrays[0]) if out is None else out)

    def general(arrays: tuple[object, ...], out: object, named: dict[str, object]) -> object:
        if len(arrays) != count or not named.keys() <= set(names) or (out is not None) > makes:
            return NotImplemented
        scalars = [named.get(n, defaults.get(n)) for n in names]
        if makes and out is None:
            out = _empty(arrays, axes, dtype)
        return function(*arrays, *((out,) if makes else ()), *scalars)

    return plainest if like_first and not names else general


def _empty(arrays: tuple[object, ...], axes: Axes, dtype: str) -> object:
    """New memory for the result of plain arrays; None when they are no such arrays."""
    try:
        return np.empty([arrays[i].shape[axis] for i, axis in axes], dtype)
    except (AttributeError, IndexError, TypeError):
        return None


def plain_call(op: Operator, layer: CompiledLayer, group: BoundGroup,
               loaded: LoadedKernel) -> Plain | None:
    """`function(*inputs, *outputs, *scalars)`, each in declaration order and in/out arrays among the
    inputs, or None where the kernel needs more than plain arrays tell: an offset, a size that is no
    axis, much scratch."""
    types = {name: view.dtype for name, view in layer.graph.nodes[0].inputs}
    if len(layer.graph.outputs) > 1 or not all(map(op.covers, op.outputs)):
        return None
    (_, result), = layer.graph.outputs
    arrays, axes = _arrays(op, types | dict.fromkeys(op.names("out"), result.dtype)), result_axes(op)
    kernel, values = loaded.kernel, dict(zip(_names(group), group.arguments))
    sizes = {n: v for n, v in values.items() if isinstance(v, Affine)}
    offsets = [v.offset for v in values.values() if isinstance(v, Pointer)]
    scratch = kernel.scratch.substitute(sizes).constant
    if arrays is None or axes is None or scratch is None or any(o.terms for o in offsets):
        return None
    owner = {view.buffer: name for name, view in layer.graph.outputs}
    params = (*arrays, *(FloatSpec(s) for s in op.names("scalar")))
    slots = tuple(_slot(values[p.name], owner) for p in kernel.params)
    spec = FastCall(loaded.address, params, slots, kernel.units.substitute(sizes), op.outputs[0],
                    scratch, most=SMALL, keep=(loaded.owner,), name=op.name)
    if scratch > STACK_SCRATCH or not all(v.symbols <= set(spec.dims()) for v in sizes.values()):
        return None
    return _wrap(spec.function(), op, axes, result.dtype, types[op.inputs[0]] == result.dtype)


def _names(group: BoundGroup) -> list[str]:
    return [p.name for p in group.trace.params]


def _arrays(op: Operator, types: Mapping[str, str]) -> tuple[ArraySpec, ...] | None:
    """Specs with one symbol per axis; the outermost one may stand for several axes."""
    shapes = dict(op.shapes)
    if op.result or op.limit or op.least or any(len(s.terms) != 1 or s.terms[0][0] != 1 or len(s.terms[0][1]) != 1
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
    return tuple(specs)


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
    """Where each axis of the one output is found: (input number, axis from the end)."""
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
        found.append(places[0])
    return tuple(found)
