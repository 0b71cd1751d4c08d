"""The graph a user builds: buffers, and operators between views of them.

    g = CompilerGraph()
    x, w = g.input("x", ("tokens", 64)), g.weight("w", array)
    y = g.op("silu", g.op("gemm_bt", x, w))
    g.output("y", y)

Nodes run in the order they were added, as far as anyone can observe. A size that is a string is a
dynamic dimension, bound from the arrays of each call or given to it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..dtypes import FLOATS, ITEMSIZE, WHOLE, result_type
from ..errors import ShapeError
from ..trace.affine import Affine
from ..trace.ir import Param
from .operator import Bound, Operator, number_bounds, solve_dims
from .safety import check_overlap, check_view, view_bounds
from .view import Dim, View, as_affine, shape_of, size_of


@dataclass(frozen=True, slots=True)
class Buffer:
    """kind: input | weight | state | output | temp. A state keeps its contents between calls."""

    name: str
    kind: str
    shape: tuple[Affine, ...]
    dtype: str = "float32"

    @property
    def size(self) -> Affine:
        return size_of(self.shape)


@dataclass(frozen=True, slots=True)
class Node:
    """One operator applied to views; `outputs` are the views it writes."""

    index: int
    op: Operator
    inputs: tuple[tuple[str, View], ...]
    outputs: tuple[tuple[str, View], ...]
    scalars: tuple[tuple[str, float | str], ...]
    dims: tuple[tuple[str, Affine], ...]
    batch: tuple[Affine, ...]

    @property
    def name(self) -> str:
        return f"{self.op.name}.{self.index}"

    def __str__(self) -> str:
        outs = ", ".join(str(v) for _, v in self.outputs)
        ins = ", ".join(str(v) for _, v in self.inputs)
        tail = "".join(f", {k}={v}" for k, v in self.scalars)
        return f"{outs} = {self.op.name}({ins}{tail})"


# moves elements between views; the run-time does it, there is nothing to lift
COPY = Operator("copy", "gk_copy", (Param("x", "in"), Param("out", "out")), (),
                opaque="it moves elements and computes nothing")


@dataclass(frozen=True, slots=True)
class Graph:
    """A finished graph: what the compiler reads."""

    buffers: tuple[Buffer, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, View], ...]
    bounds: tuple[Bound, ...]

    def buffer(self, name: str) -> Buffer:
        return next(b for b in self.buffers if b.name == name)

    def __str__(self) -> str:
        return "\n".join(map(str, self.nodes))


@dataclass
class CompilerGraph:
    """Builds a Graph. `lookup` finds an operator by name."""

    lookup: Callable[[str], Operator] | None = None
    buffers: dict[str, Buffer] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, View] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)

    def input(self, name: str, shape: tuple[Dim, ...], dtype: str = "float32") -> View:
        """An array given to every call."""
        return self._buffer(name, "input", shape, dtype)

    def weight(self, name: str, array: np.ndarray) -> View:
        """An array fixed for the life of the layer; kept, not copied, when C-contiguous. A `QTensor`
        is a weight of products x @ w.T, and of nothing else."""
        if hasattr(array, "resident"):
            form = array.resident()
            self.arrays[name] = form.panels
            return self._buffer(name, "weight", form.shape, form.storage)
        array = np.asarray(array)
        if array.dtype.name not in ITEMSIZE or not array.dtype.isnative:
            raise ShapeError(f"weight {name!r} has dtype {array.dtype}; convert it to one of "
                             f"{', '.join(ITEMSIZE)}")
        self.arrays[name] = np.ascontiguousarray(array)
        return self._buffer(name, "weight", array.shape, array.dtype.name)

    def state(self, name: str, shape: tuple[Dim, ...], dtype: str = "float32") -> View:
        """An array that calls read and write and the caller owns, such as a KV cache."""
        return self._buffer(name, "state", shape, dtype)

    def temp(self, shape: tuple[Dim, ...], dtype: str = "float32") -> View:
        """Memory of the layer's own, to be written through `out=`."""
        return self._buffer(f"t{len(self.buffers)}", "temp", shape, dtype)

    def op(self, operator: str | Operator, *inputs: View,
           out: View | tuple[View, ...] | None = None, dtype: str = "",
           **values: float | Dim) -> View | tuple[View, ...]:
        """Apply an operator. Arrays in declaration order; scalars and free dimensions by name.

        Leading axes beyond the operator's own are a batch and broadcast together; elementwise
        operators take any shapes that broadcast. A scalar that is a string is a number given to every
        call under that name. `out` names the view to write, for example a row range of a state.
        Arithmetic is float32; the result is stored as `dtype`, or as the inputs if all are of one
        16-bit type, else as float32. A value that is fused away is never rounded to it.
        Returns the view written, a tuple of them for several outputs; so is `out`.
        """
        op = self._lookup(operator)
        if len(inputs) != len(op.inputs):
            raise ShapeError(f"{op.name} takes {len(op.inputs)} arrays {op.inputs}, got {len(inputs)}")
        outs = () if out is None else out if isinstance(out, tuple) else (out,)
        if outs and len(outs) != len(op.outputs):
            raise ShapeError(f"{op.name} writes {', '.join(op.outputs)}: give `out` as many views")
        for view in (*inputs, *outs):
            self.bounds += view_bounds(op.name, check_view(op.name, view, self.buffers),
                                       self.buffers[view.buffer])
        for view in outs:
            self._check_written(op, view)
        _check_dtypes(op, inputs)
        op.check_scalars()
        dtype = dtype or result_type(v.dtype for v in inputs)
        if dtype not in FLOATS:
            raise ShapeError(f"{op.name}: a result cannot be {dtype}; it is one of "
                             f"{', '.join(sorted(FLOATS))}")
        scalars, free = _split_values(op, values)
        node = (self._flat(op, inputs, outs, dtype) if op.is_flat
                else self._ranked(op, inputs, outs, dtype, free))
        for view in outs:
            check_overlap(op, [view for _, view in node[0]], view)
        self.bounds += [Bound(f"{op.name}: 32-bit indices; `{name}`", value, Affine.const(op.limit))
                        for name, value in node[2] if op.limit]
        self.bounds += number_bounds(op, dict(node[2]))
        self.nodes.append(Node(len(self.nodes), op, node[0], node[1], scalars, node[2], node[3]))
        made = tuple(view for _, view in node[1])
        return made if len(made) > 1 else made[0]

    def copy(self, view: View) -> View:
        """The same elements in memory of their own, contiguous."""
        self.bounds += view_bounds("copy", check_view("copy", view, self.buffers),
                                   self.buffers[view.buffer])
        made = self.temp(view.shape, view.dtype)
        node = Node(len(self.nodes), COPY, (("x", view),), (("out", made),), (), (), ())
        self.nodes.append(node)
        return made

    def output(self, name: str, view: View) -> None:
        """Name a result; the layer returns it as a contiguous array, copied only if it must be."""
        if name in self.outputs:
            raise ShapeError(f"output {name!r} exists already")
        buffer = self.buffers[check_view(f"output {name!r}", view, self.buffers).buffer]
        whole = buffer.kind == "temp" and view.is_contiguous and size_of(view.shape) == buffer.size
        taken = any(view.buffer == other.buffer for other in self.outputs.values())
        self.outputs[name] = view if whole and not taken else self.copy(view)

    def finish(self) -> Graph:
        if not self.outputs and not any(b.kind == "state" for b in self.buffers.values()):
            raise ShapeError("the graph has no output; name one with graph.output(name, view)")
        return Graph(tuple(self.buffers.values()), tuple(self.nodes), tuple(self.outputs.items()),
                     tuple(self.bounds))

    def _check_written(self, op: Operator, view: View) -> None:
        kind = self.buffers[view.buffer].kind
        if kind in ("input", "weight"):
            raise ShapeError(f"{op.name}: `out` lies in the {kind} `{view.buffer}`, which calls only read; "
                             "write into a temp, or into a state, which the caller owns")

    # -- the parts of `op` ----------------------------------------------------------------------
    def _lookup(self, operator: str | Operator) -> Operator:
        if isinstance(operator, Operator):
            return operator
        if self.lookup is None:
            from .registry import operator_named

            self.lookup = operator_named
        return self.lookup(operator)

    def _flat(self, op: Operator, inputs: tuple[View, ...], out: tuple[View, ...],
              dtype: str) -> tuple:
        shape = broadcast_shape(op.name, inputs)
        ins = tuple((p, v.broadcast_to(shape)) for p, v in zip(op.inputs, inputs))
        outs = self._results(op, {p: shape for p in op.outputs}, out, dtype)
        dims = ((op.names("dim")[0], size_of(shape)),)
        return ins, outs, dims, ()

    def _ranked(self, op: Operator, inputs: tuple[View, ...], out: tuple[View, ...], dtype: str,
                free: dict[str, Affine]) -> tuple:
        ranks = {p: len(op.shape(p)) for p in op.inputs}
        for param, view in zip(op.inputs, inputs):
            if len(view.shape) < ranks[param]:
                raise ShapeError(f"{op.name}: `{param}` needs {ranks[param]} axes, got {view}")
        lead = {p: v.shape[: len(v.shape) - ranks[p]] for p, v in zip(op.inputs, inputs)}
        batch = _broadcast(op.name, list(lead.values()))
        own = {p: v.shape[len(v.shape) - ranks[p]:] for p, v in zip(op.inputs, inputs)}
        dims, bounds = solve_dims(op, own, free)
        self.bounds.extend(bounds)
        ins = tuple((p, v.broadcast_to(batch + own[p])) for p, v in zip(op.inputs, inputs))
        shapes = {p: batch + tuple(s.substitute(dims) for s in op.shape(p)) for p in op.outputs}
        return ins, self._results(op, shapes, out, dtype), tuple(dims.items()), batch

    def _results(self, op: Operator, shapes: dict[str, tuple[Affine, ...]],
                 out: tuple[View, ...], dtype: str) -> tuple[tuple[str, View], ...]:
        made = []
        for number, (param, shape) in enumerate(shapes.items()):
            view = out[number] if out else self._buffer(
                f"t{len(self.buffers)}", "temp", shape, op.result_dtype(param, dtype))
            if view.shape != shape:
                raise ShapeError(f"{op.name}: `out` is {view}, the result has shape "
                                 f"({', '.join(map(str, shape))})")
            made.append((param, view))
        return tuple(made)

    def _buffer(self, name: str, kind: str, shape: tuple[Dim, ...], dtype: str) -> View:
        if name in self.buffers:
            raise ShapeError(f"the graph has a buffer {name!r} already; give {kind} another name")
        sizes = shape_of(shape)
        wrong = [s for s in sizes if s.constant is not None and (s.constant < 0 or s.constant % 1)]
        if wrong:
            raise ShapeError(f"{kind} {name!r}: size {wrong[0]} is no non-negative integer")
        self.buffers[name] = Buffer(name, kind, sizes, dtype)
        return View.contiguous(name, shape, dtype)


def broadcast_shape(what: str, views: tuple[View, ...]) -> tuple[Affine, ...]:
    return _broadcast(what, [v.shape for v in views])


def _broadcast(what: str, shapes: list[tuple[Affine, ...]]) -> tuple[Affine, ...]:
    rank = max(map(len, shapes), default=0)
    one = Affine.const(1)
    padded = [(one,) * (rank - len(s)) + s for s in shapes]
    return tuple(_common(what, axis, sizes) for axis, sizes in enumerate(zip(*padded)))


def _common(what: str, axis: int, sizes: tuple[Affine, ...]) -> Affine:
    one = Affine.const(1)
    real = {s for s in sizes if s != one} or {one}
    if len(real) > 1:
        raise ShapeError(f"{what}: axis {axis} has sizes {', '.join(map(str, sizes))}, "
                         "which do not broadcast")
    return real.pop()


def _check_dtypes(op: Operator, inputs: tuple[View, ...]) -> None:
    for param, view in zip(op.inputs, inputs):
        if view.dtype in WHOLE:
            _check_whole(op, param, view)
        elif not op.takes(param, view.dtype):
            raise ShapeError(f"{op.name}: `{param}` wants {op.dtype(param)}, {view} is {view.dtype}")


def _check_whole(op: Operator, param: str, view: View) -> None:
    """A quantised weight has no elements to be read one by one: only the B of A @ B.T, all of it."""
    if not op.takes_whole(param):
        raise ShapeError(f"{op.name}: `{param}` cannot be quantised; a QTensor is `b` of gemm_bt, "
                         "and gk.dequantize gives its values")
    if view.offset.terms or not view.is_contiguous or len(view.shape) != 2:
        raise ShapeError(f"{op.name}: `{param}` is a part of a quantised weight; products take all of it")


def _scalar(op: Operator, name: str, value: object) -> float | str:
    """A number, or the name of a number given per call."""
    if isinstance(value, str):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ShapeError(f"{op.name}: `{name}`={value!r} is no float32") from None


def _split_values(op: Operator, values: dict[str, float | Dim]) -> tuple[tuple, dict[str, Affine]]:
    scalars, free = dict(op.defaults), {}
    for name, value in values.items():
        if name in op.names("scalar"):
            scalars[name] = _scalar(op, name, value)
        elif name in op.names("dim"):
            free[name] = as_affine(value)
        else:
            known = ", ".join(op.names("scalar", "dim"))
            raise ShapeError(f"{op.name} has no argument `{name}`; by name it takes {known or 'none'}")
    missing = [n for n in op.names("scalar") if n not in scalars]
    if missing:
        raise ShapeError(f"{op.name}: give `{missing[0]}=`, a float")
    return tuple((n, scalars[n]) for n in op.names("scalar")), free
