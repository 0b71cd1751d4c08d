"""What keeps every access inside its buffer: checked when a node is added where the sizes are known,
and turned into bounds for every call where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from ..errors import ShapeError
from ..trace.affine import Affine
from .operator import Bound, Operator
from .view import View, size_of


class Sized(Protocol):
    """A buffer, as far as its window matters here."""

    name: str
    shape: tuple[Affine, ...]
    dtype: str


def check_view(op: str, value: object, buffers: Mapping[str, Sized]) -> View:
    """The value, if it is a view of this graph."""
    if not isinstance(value, View):
        raise ShapeError(f"{op}: wanted a view made by this graph, got {type(value).__name__}; "
                         "give arrays to graph.weight(name, array) or graph.input(name, shape)")
    if value.buffer not in buffers or value.dtype != buffers[value.buffer].dtype:
        raise ShapeError(f"{op}: {value} belongs to no buffer of this graph")
    return value


def view_bounds(op: str, view: View, buffer: Sized) -> list[Bound]:
    """Every element of the view lies in the buffer, and every slice in its axis."""
    low, high = view.reach()
    rows = [*view.limits, (f"{view} starts before its buffer", -low, Affine()),
            (f"{view} of {buffer.name}", high + 1, size_of(buffer.shape))]
    bounds = [Bound(f"{op}: {what}", need, have) for what, need, have in rows]
    empty = any(size == Affine() for size in view.shape)
    for bound in bounds:
        gap = (bound.have - bound.need).constant
        if gap is not None and gap < 0 and not empty:
            bound.check({})
    return [b for b in bounds if (b.have - b.need).constant is None]


def check_overlap(op: Operator, inputs: Iterable[View], out: View) -> None:
    """The result may not change an input that is still to be read.

    An elementwise operator reads element i before it writes element i: the same view is fine.
    """
    for view in inputs:
        if view.buffer != out.buffer or _disjoint(view, out) or (op.is_flat and view == out):
            continue
        raise ShapeError(f"{op.name}: `out` {out} overlaps the input {view}; read a copy of it, "
                         "graph.copy(view), or write somewhere else")


def _disjoint(a: View, b: View) -> bool:
    """Whether one view ends before the other begins, for all sizes."""
    (a_low, a_high), (b_low, b_high) = a.reach(), b.reach()
    return _positive(b_low - a_high) or _positive(a_low - b_high)


def _positive(value: Affine) -> bool:
    return value.constant is not None and value.constant > 0
