"""From coordinates of tensors to indices of flat memory: the trace that becomes one kernel.

    a(b0, i0, r0) on strides (4096, 64, 1)   ->   p0[i0*p0.s0 + i1*p0.s1 + r0]

Names are canonical (p0, p1, ... pointers; n0, n1, ... sizes; s0, s1, ... scalars; i0.., r0..
binders), sizes and strides are symbols and only 0, 1 and -1 stay literal, so that equal groups of
different layers and shapes give equal traces and share one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..dtypes import CTYPES
from ..graph.bind import Access, Domain, TensorStore, TensorTrace
from ..graph.view import View
from ..trace.affine import Affine
from ..trace.ir import (
    INDICES, BodyBuilder, Op, OpTrace, Param, Store, TraceOp, reachable,
)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a pointer argument points: a buffer and an element offset."""

    buffer: str
    offset: Affine


@dataclass(frozen=True, slots=True)
class BoundGroup:
    """A kernel's trace and the values of its arguments, in the order of `trace.params`."""

    trace: OpTrace
    arguments: tuple[Pointer | Affine | float, ...]


def linearise(name: str, source: TensorTrace) -> BoundGroup:
    """The canonical trace of a tensor trace, and what its parameters stand for."""
    return _Linearise(collapse(source)).run(name)


def collapse(trace: TensorTrace) -> TensorTrace:
    """Merge neighbouring domain binders that walk memory as one, innermost first.

    for i0 < a, i1 < b: x[i0*b + i1]   ->   for i < a*b: x[i]
    """
    axis = len(trace.domain) - 1
    while axis > 0:
        if _nests(trace, axis):
            trace = _merge(trace, axis)
        axis -= 1
    return trace


def flat_index(access: Access) -> Affine:
    """The element index in the buffer, strides and offset as they are."""
    steps = zip(access.coords, access.view.strides)
    return sum((c * s for c, s in steps), access.view.offset)


def _nests(trace: TensorTrace, axis: int) -> bool:
    (outer, _), (inner, extent) = trace.domain[axis - 1 : axis + 1]
    if any({outer, inner} & op.imm.symbols for op in trace.body if op.op in INDICES):
        return False
    if any(s.depth is not None for s in trace.stores):
        return False
    if any({outer, inner} & op.imm[2].symbols for op in trace.reduces()):
        return False
    indices = [flat_index(access) for access in trace.accesses()]
    count = extent.substitute(dict(trace.sizes))
    return all(i.coefficient(outer) == i.coefficient(inner) * count for i in indices)


def _merge(trace: TensorTrace, axis: int) -> TensorTrace:
    """Drop the outer binder and let the inner one run over both extents."""
    (outer, rows), (inner, extent) = trace.domain[axis - 1 : axis + 1]
    zero = {outer: Affine()}
    body = tuple(TraceOp(o.op, o.args, o.imm.substitute(zero)) if o.op is Op.LOAD else o
                 for o in trace.body)
    stores = tuple(TensorStore(s.target.substitute(zero), s.value) for s in trace.stores)
    domain = trace.domain[: axis - 1] + ((inner, rows * extent),) + trace.domain[axis + 1 :]
    return TensorTrace(domain, body, stores, trace.sizes)


def literal_strides(view: View) -> tuple[bool, ...]:
    """Which strides stay numbers in the trace: 0, -1, and the last one that is 1.

    A stride that merely happens to be 1 (rows of a one-column matrix) stays a symbol, so that the
    structure of a kernel never depends on a coincidence of sizes.
    """
    values = [s.constant for s in view.strides]
    last_unit = max((a for a, v in enumerate(values) if v == 1), default=-1)
    return tuple(v in (0, -1) or a == last_unit for a, v in enumerate(values))


@dataclass
class _Linearise:
    """Canonical names, handed out in order of first use."""

    source: TensorTrace
    builder: BodyBuilder = field(default_factory=BodyBuilder)
    env: dict[str, Affine] = field(default_factory=dict)  # extents in the graph's dimensions
    binders: dict[str, Affine] = field(default_factory=dict)
    pointers: dict[tuple[View, Affine], str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    sizes: dict[object, tuple[str, Affine]] = field(default_factory=dict)
    scalars: dict[float, str] = field(default_factory=dict)

    def run(self, name: str) -> BoundGroup:
        self.env = dict(self.source.sizes)
        domain = self._domain()
        place = self._body()
        stores = tuple(Store(*self._element(s.target, "out"), place[s.value], domain[: s.depth])
                       for s in self.source.stores)
        params = tuple(Param(p, self.roles[p], CTYPES[view.dtype])
                       for (view, _), p in self.pointers.items())
        params += tuple(Param(s, "dim", "int64_t") for s, _ in self.sizes.values())
        params += tuple(Param(s, "scalar") for s in self.scalars.values())
        where = tuple(Pointer(v.buffer, v.offset + at) for v, at in self.pointers)
        values = tuple(value.substitute(self.env) for _, value in self.sizes.values())
        return BoundGroup(OpTrace(name, params, tuple(self.builder.body), stores),
                          where + values + tuple(self.scalars))

    def _domain(self) -> Domain:
        rows = []
        for number, (binder, extent) in enumerate(self.source.domain):
            self.binders[binder] = Affine.sym(f"i{number}")
            rows.append((f"i{number}", self._size(extent)))
        return tuple(rows)

    def _body(self) -> dict[int, int]:
        place: dict[int, int] = {}
        live = reachable(self.source.body, *(s.value for s in self.source.stores))
        order = list(live)
        self._name_reduces(order)
        for position in order:
            op = self.source.body[position]
            args = tuple(place[a] for a in op.args)
            place[position] = self.builder.add(op.op, *args, imm=self._immediate(op))
        return place

    def _name_reduces(self, order: list[int]) -> None:
        found = [self.source.body[p].imm[1] for p in order if self.source.body[p].op is Op.REDUCE]
        for number, binder in enumerate(found):
            self.binders[binder] = Affine.sym(f"r{number}")

    def _immediate(self, op: TraceOp) -> object:
        if op.op is Op.LOAD:
            return self._element(op.imm, "in")
        if op.op is Op.SCALAR:
            return self.scalars.setdefault(op.imm, f"s{len(self.scalars)}")
        if op.op in INDICES:
            return self._symbolic(op.imm)
        if op.op is Op.REDUCE:
            kind, binder, extent = op.imm
            return kind, str(self.binders[binder]), self._size(extent)
        return op.imm

    def _element(self, access: Access, role: str) -> tuple[str, Affine]:
        """The pointer an access goes through and its index in loop binders alone."""
        view = access.view
        kept = [_kept(c) for c in access.coords]
        fixed = [c.without(*self.binders) - k for c, k in zip(access.coords, kept)]
        moved = sum((f * s for f, s in zip(fixed, view.strides)), Affine())
        pointer = self._pointer(view, moved.substitute(self.env), role)
        index = Affine()
        for axis, (coord, gone, keep) in enumerate(zip(access.coords, fixed, kept)):
            moving = self._symbolic(coord - gone - keep) + keep
            index = index + moving * self._stride(pointer, view, axis, moving)
        return pointer, index

    def _pointer(self, view: View, offset: Affine, role: str) -> str:
        name = self.pointers.setdefault((view, offset), f"p{len(self.pointers)}")
        if self.roles.setdefault(name, role) != role:
            self.roles[name] = "inout"
        return name

    def _stride(self, pointer: str, view: View, axis: int, moving: Affine) -> Affine:
        stride = view.strides[axis]
        if literal_strides(view)[axis] or not moving.terms:
            return stride
        return Affine.sym(self.sizes.setdefault((pointer, axis), (f"{pointer}.s{axis}", stride))[0])

    def _symbolic(self, value: Affine) -> Affine:
        """Binders renamed; what multiplies them stays a number or becomes a size symbol."""
        total = Affine()
        for coef, mono in value.terms:
            loop = tuple(str(self.binders[s]) for s in mono if s in self.binders)
            rest = tuple(s for s in mono if s not in self.binders)
            factor = self._size(Affine.of([(coef, rest)])) if rest or not loop else coef
            total = total + Affine.of([(1, loop)]) * factor
        return total

    def _size(self, value: Affine) -> Affine:
        """A size as a symbol, equal sizes as one."""
        return Affine.sym(self.sizes.setdefault(value, (f"n{self._count()}", value))[0])

    def _count(self) -> int:
        return sum(1 for key in self.sizes if isinstance(key, Affine))


def _kept(coord: Affine) -> Affine:
    """The constant of a coordinate such as 2*i + 1, which tells odd elements from even ones.

    Where every binder steps by 1 a constant only moves the pointer, and is no part of the index.
    """
    steps = any(coef > 1 and len(mono) == 1 for coef, mono in coord.terms)
    return Affine.const(next((c for c, m in coord.terms if not m), 0)) if steps else Affine()
