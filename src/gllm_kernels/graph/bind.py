"""A node's trace over the views it is applied to: flat indices become coordinates of tensors.

    gemm       a[i0*k + r0]        on a view of shape (heads, tokens, 64)
    becomes    a(b0, i0, r0)       for b0 < heads, i0 < tokens, ...

Coordinates make fusion a substitution (producer at the consumer's coordinates) and leave strides
and offsets to the last step, `linear.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..errors import CompileError, UnsupportedOpError
from ..trace.affine import Affine
from ..trace.ir import INDICES, BodyBuilder, Op, OpTrace, Store, TraceOp
from .ir import Node
from .view import View, row_major

Coords = tuple[Affine, ...]
Domain = tuple[tuple[str, Affine], ...]


@dataclass(frozen=True, slots=True)
class Access:
    """One element of a view: the immediate of a LOAD in a tensor trace, or where a store goes."""

    view: View
    coords: Coords

    def substitute(self, env: Mapping[str, Affine]) -> Access:
        return Access(self.view, tuple(c.substitute(env) for c in self.coords))


@dataclass(frozen=True, slots=True)
class TensorStore:
    """`target = body[value]` in every round of the domain, or once for the outermost `depth`
    binders of it."""

    target: Access
    value: int
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class TensorTrace:
    """An OpTrace whose loads and stores are `Access` and whose scalars are values.

    Extents are symbols of the node ("gemm.3.k"); `sizes` gives each as a polynomial in the graph's
    dynamic dimensions. Two dimensions that happen to be equal stay two symbols.
    """

    domain: Domain
    body: tuple[TraceOp, ...]
    stores: tuple[TensorStore, ...]
    sizes: tuple[tuple[str, Affine], ...]

    def accesses(self) -> list[Access]:
        """Every distinct load, then every store target."""
        loads = [op.imm for op in self.body if op.op is Op.LOAD]
        return loads + [s.target for s in self.stores]

    def reduces(self) -> list[TraceOp]:
        return [op for op in self.body if op.op is Op.REDUCE]

    def rename_sizes(self, env: Mapping[str, Affine]) -> TensorTrace:
        """Other symbols for the extents."""

        def immediate(op: TraceOp) -> object:
            if op.op is Op.REDUCE:
                return (*op.imm[:2], op.imm[2].substitute(env))
            return op.imm.substitute(env) if op.op in (*INDICES, Op.LOAD) else op.imm

        body = tuple(replace(op, imm=immediate(op)) for op in self.body)
        stores = tuple(replace(s, target=s.target.substitute(env)) for s in self.stores)
        domain = tuple((b, e.substitute(env)) for b, e in self.domain)
        return TensorTrace(domain, body, stores, self.sizes)


def bind(node: Node) -> TensorTrace:
    """The tensor trace of a node whose operator has a trace."""
    trace = node.op.trace
    if trace is None:
        raise CompileError(f"{node.name} is opaque ({node.op.opaque}); it is called, not compiled")
    return _bind_flat(node, trace) if node.op.is_flat else _bind_ranked(node, trace)


def _bind_flat(node: Node, trace: OpTrace) -> TensorTrace:
    """One loop over n becomes one binder per axis of the result."""
    shape = node.outputs[0][1].shape
    names = [f"{node.name}.n{axis}" for axis in range(len(shape))]
    domain = tuple((f"{node.name}.i{axis}", Affine.sym(n)) for axis, n in enumerate(names))
    coords = tuple(Affine.sym(b) for b, _ in domain)
    scope = _Scope(node, {}, dict(zip(names, shape)))
    return scope.rewrite(trace, domain, lambda param, index: coords)


def _bind_ranked(node: Node, trace: OpTrace) -> TensorTrace:
    extents = {f"{node.name}.B{axis}": extent for axis, extent in enumerate(node.batch)}
    batch = tuple((f"{node.name}.b{axis}", Affine.sym(n)) for axis, n in enumerate(extents))
    dims = {f"{node.name}.{name}": value for name, value in node.dims}
    own_names = [*_binders(trace), *(name for name, _ in node.dims)]
    rename = {name: Affine.sym(f"{node.name}.{name}") for name in own_names}
    domain = max((s.domain for s in trace.stores), key=len)
    own = tuple((f"{node.name}.{b}", e.substitute(rename)) for b, e in domain)
    lead = tuple(Affine.sym(b) for b, _ in batch)

    def coords(param: str, index: Affine) -> Coords:
        if param == "return":
            return lead
        found = delinearise(index, node.op.shape(param))
        return lead + tuple(c.substitute(rename) for c in found)

    return _Scope(node, rename, extents | dims).rewrite(trace, batch + own, coords)


def _binders(trace: OpTrace) -> set[str]:
    found = {b for s in trace.stores for b, _ in s.domain}
    return found | {op.imm[1] for op in trace.body if op.op is Op.REDUCE}


@dataclass(frozen=True, slots=True)
class _Scope:
    """Copies a body into a node's own names."""

    node: Node
    rename: dict[str, Affine]
    sizes: dict[str, Affine]

    def rewrite(self, trace: OpTrace, domain: Domain,
                coords: Callable[[str, Affine], Coords]) -> TensorTrace:
        outs = dict(self.node.outputs)
        body = tuple(replace(op, imm=self._immediate(op, coords)) for op in trace.body)
        stores = tuple(TensorStore(Access(outs[s.param], coords(s.param, s.index)), s.value,
                                   self._depth(trace, s, len(domain))) for s in trace.stores)
        return TensorTrace(domain, body, stores, tuple(self.sizes.items()))

    def _depth(self, trace: OpTrace, store: Store, rank: int) -> int | None:
        """How many binders a store runs over; None for all."""
        longest = max((s.domain for s in trace.stores), key=len)
        if longest[: len(store.domain)] != store.domain:
            names = " and ".join(sorted({s.param for s in trace.stores}))
            raise UnsupportedOpError(
                f"{self.node.op.name}: {names} have loops of different extents; one operator writes "
                "rows and what belongs to a row, make the others operators of their own")
        missing = len(longest) - len(store.domain)
        return rank - missing if missing else None

    def _immediate(self, op: TraceOp, coords: Callable[[str, Affine], Coords]) -> object:
        if op.op is Op.LOAD:
            return Access(dict(self.node.inputs)[op.imm[0]], coords(*op.imm))
        if op.op is Op.SCALAR:
            return dict(self.node.scalars)[op.imm]
        if op.op in INDICES:
            return op.imm.substitute(self.rename)
        if op.op is Op.REDUCE:
            kind, binder, extent = op.imm
            return kind, f"{self.node.name}.{binder}", extent.substitute(self.rename)
        return op.imm


def delinearise(index: Affine, shape: tuple[Affine, ...]) -> Coords:
    """Coordinates in an array of `shape`: i*n + j in (m, n) is (i, j).

    Each term goes to the outermost axis whose row-major stride divides it, so `i*2*d + j + d` in
    (t, 2*d) is (i, j + d).
    """
    coords = [Affine()] * len(shape)
    for term in index.terms:
        axis, quotient = _place(term, row_major(shape))
        coords[axis] = coords[axis] + quotient
    return tuple(coords)


def _place(term: tuple[int, tuple[str, ...]], strides: tuple[Affine, ...]) -> tuple[int, Affine]:
    for axis, stride in enumerate(strides):
        quotient = _divide(term, stride)
        if quotient is not None:
            return axis, quotient
    raise CompileError(f"index term {term} fits no axis")


def _divide(term: tuple[int, tuple[str, ...]], stride: Affine) -> Affine | None:
    if len(stride.terms) != 1:
        return None
    (coef, mono), (by, symbols) = term, stride.terms[0]
    rest = list(mono)
    for symbol in symbols:
        if symbol not in rest:
            return None
        rest.remove(symbol)
    return Affine.of([(coef // by, tuple(rest))]) if coef % by == 0 else None


def instantiate(trace: TensorTrace, builder: BodyBuilder, env: Mapping[str, Affine],
                tag: str) -> list[int]:
    """Append the body to `builder` with domain binders replaced by `env` and reduce binders made
    unique by `tag`; returns the new position of every value."""
    env = {**env, **{op.imm[1]: Affine.sym(op.imm[1] + tag) for op in trace.reduces()}}
    place: list[int] = []
    for op in trace.body:
        imm = op.imm
        if op.op is Op.LOAD or op.op in INDICES:
            imm = imm.substitute(env)
        elif op.op is Op.REDUCE:
            imm = (imm[0], imm[1] + tag, imm[2])
        place.append(builder.add(op.op, *(place[a] for a in op.args), imm=imm))
    return place
