"""Steps that call an operator's own scalar function: opaque operators, and everything at ISA scalar.

The function wants plain contiguous arrays, so a strided view is copied before the call, and a
result into a strided view after it. A batch is one call per element, a fixed step apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..graph.ir import COPY, Node
from ..graph.operator import DTYPES
from ..graph.view import View, size_of
from ..scalar import library
from ..trace.affine import Affine
from .program import FloatSlot, IntSlot, PointerSlot, Slot, Step
from .steps import ScalarCall, StridedCopy

ITEMSIZE = {"float32": 4, "int32": 4, "int64": 8}


@dataclass
class DirectCall:
    """Builds the steps of one node. `pointer` gives the slot of a view's first element, `spare` a
    buffer of the program for the copy of argument number i."""

    node: Node
    pointer: Callable[[View], PointerSlot]
    spare: Callable[[int, Affine], PointerSlot]
    before: list[Step] = field(default_factory=list)
    after: list[Step] = field(default_factory=list)

    def steps(self) -> list[Step]:
        if self.node.op is COPY:
            (_, source), (_, target) = self.node.inputs[0], self.node.outputs[0]
            return [self._copy(source, self.pointer(source), target, self.pointer(target))]
        places = self._places()
        arguments = tuple(self._argument(p.name, p.role, places) for p in self.node.op.params)
        pointers = [p for p in self.node.op.params if p.role not in ("scalar",)]
        steps = tuple(self._batch_step(p.name, p.role) for p in pointers)
        result = places.get("return")
        call = ScalarCall(native_address(self.node), arguments, self.node.op.result or "void", result,
                          Affine.const(ITEMSIZE[self._dtype("return")] if result else 0), steps,
                          size_of(self.node.batch), self.node.name)
        return [*self.before, call.step(), *self.after]

    def _places(self) -> dict[str, PointerSlot]:
        """Where the function finds every array; an in/out array is the output, filled before."""
        places: dict[str, PointerSlot] = {}
        views = dict(self.node.inputs)
        for param, view in self.node.outputs:
            places[param] = self._output(len(places), view)
            if param in views:
                packed = View.contiguous("", view.shape)
                source = views.pop(param)
                self.before.append(self._copy(source, self.pointer(source), packed, places[param]))
        for param, view in views.items():
            places[param] = self._input(len(places), view)
        return places

    def _input(self, number: int, view: View) -> PointerSlot:
        if view.is_contiguous:
            return self.pointer(view)
        place = self.spare(number, size_of(view.shape))
        packed = View.contiguous("", view.shape)
        self.before.append(self._copy(view, self.pointer(view), packed, place))
        return place

    def _output(self, number: int, view: View) -> PointerSlot:
        if view.is_contiguous:
            return self.pointer(view)
        place = self.spare(number, size_of(view.shape))
        packed = View.contiguous("", view.shape)
        self.after.append(self._copy(packed, place, view, self.pointer(view)))
        return place

    def _copy(self, source: View, from_: PointerSlot, target: View, to: PointerSlot) -> Step:
        one = (Affine.const(1),)
        return StridedCopy(from_, to, source.shape or one, source.strides or one,
                           target.strides or one, name=f"{self.node.name}.copy").step()

    def _argument(self, name: str, role: str, places: dict[str, PointerSlot]) -> Slot:
        if role == "scalar":
            return FloatSlot(dict(self.node.scalars)[name])
        return IntSlot(dict(self.node.dims)[name]) if role == "dim" else places[name]

    def _batch_step(self, name: str, role: str) -> Affine:
        """Bytes from one batch element's array to the next one's."""
        if role == "dim" or not self.node.batch:
            return Affine()
        view = dict(self.node.outputs + self.node.inputs)[name]
        return size_of(view.shape[len(self.node.batch):]) * ITEMSIZE[self._dtype(name)]

    def _dtype(self, name: str) -> str:
        ctype = self.node.op.result if name == "return" else next(
            p.ctype for p in self.node.op.params if p.name == name)
        return DTYPES[ctype or "float"]


def native_address(node: Node) -> int:
    """The scalar function itself: the user's, or the one in the object of the package."""
    return node.op.address or library().address(node.op.symbol)
