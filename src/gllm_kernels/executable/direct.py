"""Steps that call an operator's own scalar function: opaque operators, and everything at ISA scalar.

The function wants plain contiguous arrays of float32, so a strided view or one of a 16-bit type is
copied before the call, and a result into such a view after it. A batch is one call per element, a fixed step apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..dtypes import FLOATS, ITEMSIZE, result_type
from ..graph.ir import COPY, Node
from ..graph.view import View, size_of
from ..scalar import library
from ..trace.affine import Affine
from .program import FloatSlot, IntSlot, PointerSlot, Slot, Step
from .runtime import runtime
from .steps import ScalarCall, StridedCopy

FLOAT = "float32"  # what a scalar function reads and writes
# functions that only move elements, for arrays of 16-bit ones
MOVES = {"scalar_gather": "gk_gather_16"}


@dataclass
class DirectCall:
    """Builds the steps of one node. `pointer` gives the slot of a view's first element, `spare` a
    buffer of the program for the copy of argument number i."""

    node: Node
    pointer: Callable[[View], PointerSlot]
    spare: Callable[[int, Affine], PointerSlot]
    before: list[Step] = field(default_factory=list)
    after: list[Step] = field(default_factory=list)

    @property
    def narrow(self) -> str:
        """The function of the run-time that moves elements as they are stored, if there is one."""
        stored = {v.dtype for _, v in self.node.inputs} & FLOATS - {FLOAT}
        return MOVES.get(self.node.op.symbol, "") if stored and not self.node.op.address else ""

    def _wanted(self, dtype: str) -> str:
        """How the function wants an array that is stored as `dtype`."""
        if dtype not in FLOATS:
            return dtype
        return result_type(v.dtype for _, v in self.node.inputs) if self.narrow else FLOAT

    def _packed(self, view: View) -> View:
        return View.contiguous("", view.shape, self._wanted(view.dtype))

    def _fits(self, view: View) -> bool:
        return view.is_contiguous and view.dtype == self._wanted(view.dtype)

    def steps(self) -> list[Step]:
        if self.node.op is COPY:
            (_, source), (_, target) = self.node.inputs[0], self.node.outputs[0]
            return [self._copy(source, self.pointer(source), target, self.pointer(target))]
        places = self._places()
        arguments = tuple(self._argument(p.name, p.role, places) for p in self.node.op.params)
        pointers = [p for p in self.node.op.params if p.role not in ("scalar",)]
        steps = tuple(self._batch_step(p.name, p.role) for p in pointers)
        result = places.get("return")
        address = (runtime().address(self.narrow) if self.narrow else native_address(self.node))
        call = ScalarCall(address, arguments, self.node.op.result or "void", result,
                          Affine.const(ITEMSIZE[self.node.op.dtype("return")] if result else 0), steps,
                          size_of(self.node.batch), self.node.name)
        return [*self.before, call.step(), *self.after]

    def _places(self) -> dict[str, PointerSlot]:
        """Where the function finds every array; an in/out array is the output, filled before."""
        places: dict[str, PointerSlot] = {}
        views = dict(self.node.inputs)
        for param, view in self.node.outputs:
            places[param] = self._output(len(places), view)
            if param in views:
                source = views.pop(param)
                self.before.append(self._copy(source, self.pointer(source), self._packed(view),
                                              places[param]))
        for param, view in views.items():
            places[param] = self._input(len(places), view)
        return places

    def _input(self, number: int, view: View) -> PointerSlot:
        if self._fits(view):
            return self.pointer(view)
        place = self.spare(number, self._room(view))
        self.before.append(self._copy(view, self.pointer(view), self._packed(view), place))
        return place

    def _room(self, view: View) -> Affine:
        """The elements of four bytes that a packed copy takes at most."""
        return size_of(view.shape) * max(1, ITEMSIZE[self._wanted(view.dtype)] // 4)

    def _output(self, number: int, view: View) -> PointerSlot:
        if self._fits(view):
            return self.pointer(view)
        place = self.spare(number, self._room(view))
        self.after.append(self._copy(self._packed(view), place, view, self.pointer(view)))
        return place

    def _copy(self, source: View, from_: PointerSlot, target: View, to: PointerSlot) -> Step:
        one = (Affine.const(1),)
        return StridedCopy(from_, to, source.shape or one, source.strides or one,
                           target.strides or one, name=f"{self.node.name}.copy",
                           dtypes=(source.dtype, target.dtype)).step()

    def _argument(self, name: str, role: str, places: dict[str, PointerSlot]) -> Slot:
        if role == "scalar":
            return FloatSlot(dict(self.node.scalars)[name])
        return IntSlot(dict(self.node.dims)[name]) if role == "dim" else places[name]

    def _batch_step(self, name: str, role: str) -> Affine:
        """Bytes from one batch element's array to the next one's."""
        if role == "dim" or not self.node.batch:
            return Affine()
        view = dict(self.node.outputs + self.node.inputs)[name]
        return size_of(view.shape[len(self.node.batch):]) * ITEMSIZE[self._wanted(view.dtype)]


def native_address(node: Node) -> int:
    """The scalar function itself: the user's, or the one in the object of the package."""
    return node.op.address or library().address(node.op.symbol)
