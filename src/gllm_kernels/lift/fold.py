"""From unrolled outputs back to index notation.

    {out[0]: f(x[0]), out[1]: f(x[1]), ...}   ->   out[i0] = f(x[i0])  for i0 < n
    (((0 + t(0)) + t(1)) + ... + t(n-1))      ->   sum[r0 < n](t(r0))

The addresses of the outputs are polynomials of the dimensions, so their coordinates can be read
off; they must form boxes. The formula is the one at the origin with each index that differs from
that of a neighbour made linear in a binder. What is built here is a guess: `accept` expands it at
every size that matters and compares it with the run, node for node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, count, pairwise, product
from math import prod

from ..trace.affine import Affine
from ..trace.ir import (
    CONSTANTS, INDICES, INTEGERS, BodyBuilder, Op, OpTrace, Param, Store, reachable,
)  # fmt: skip
from ..trace.simplify import prune, renamed
from . import value as v
from .engine import Lifted
from .error import Refusal
from .nodes import Node
from .signature import Signature

MOST_STREAMS = 8
MOST_STEPS = 40_000  # of all walks over formulas of one function


class NoFit(Exception):
    """The outputs are not instances of one formula."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction in which outputs repeat: `count` steps of `step` along the monomial `mono`.

    The count is `extent` times `streams`; streams are separate formulas, interleaved. A negative
    step begins at the far end, as a loop that counts down does.
    """

    mono: v.Mono
    start: int
    step: int
    extent: Affine
    count: int
    streams: int = 1

    @property
    def free(self) -> bool:
        return self.count > 1


Grid = dict[tuple[int, ...], Node]  # coordinates along the monomials -> value


def templates(lifted: Lifted, signature: Signature, sizes: dict[str, int]) -> Iterator[OpTrace]:
    """Every trace that could explain the run, the likeliest first."""
    names = {n: a.name for n, a in enumerate(signature.arguments)}
    outputs: dict[int, list[tuple[v.Int, Node]]] = {}
    for pointer, index, node in lifted.memory.values():
        outputs.setdefault(pointer, []).append((index, node))
    if signature.result != "void" and lifted.result is None:
        raise Refusal(
            f"the function returns {signature.result}: a position is not an element of a trace",
            "a float or double result, or none",
            "return the value itself, and find its position with numpy",
        )
    if not outputs and lifted.result is None:
        raise Refusal("the function writes nothing", "a store to an array or a float result")
    layouts = [_layouts(p, rows, names, sizes) for p, rows in outputs.items()]
    last, left = None, count(MOST_STEPS, -1)
    for choice in product(*layouts):
        try:
            builder = _Builder(names, sizes, lifted.conditions.refusals, left)
            yield builder.trace(signature, list(outputs), choice, lifted.result)
        except NoFit as failure:
            last = failure
    if last is not None:
        raise Refusal(
            f"the outputs are not instances of one formula: {last}",
            "out[i, j] = f(...) with the same f for all i and j, sums from the first term on",
        )


# ---- where the outputs are


def _layouts(
    pointer: int, rows: list[tuple[v.Int, Node]], names: dict[int, str], sizes: dict[str, int]
) -> list[tuple[tuple[Axis, ...], Grid]]:
    """The ways to see the addresses of one array as a box."""
    monos = sorted({m for index, _ in rows for m in v.terms_of(index)}, key=_stride(names, sizes))
    grid = {tuple(v.terms_of(i).get(m, 0) for m in monos): node for i, node in rows}
    choices = []
    for place, mono in enumerate(monos):
        values = sorted({at[place] for at in grid})
        choices.append(list(_axes(mono, values, sizes)))
    name = names[pointer - v.POINTER]
    if prod(len({at[k] for at in grid}) for k in range(len(monos))) != len(grid):
        raise Refusal(
            f"{name}: the elements written do not form a rectangle",
            "a product of whole ranges",
            "triangles, diagonals and borders need functions of their own",
        )
    found = [(axes, grid) for axes in product(*choices)]
    if not found:
        raise Refusal(f"{name}: the elements written do not lie at even distances over dimensions")
    return found


def _stride(names: dict[int, str], sizes: dict[str, int]):
    def key(mono: v.Mono) -> tuple:
        size = prod(sizes[names[x]] for x in mono)
        return -len(mono), -size, mono

    return key


def _axes(mono: v.Mono, values: list[int], sizes: dict[str, int]) -> Iterator[Axis]:
    """How many of which dimension lie along one monomial."""
    start, count = values[0], len(values)
    step = values[1] - start if count > 1 else 0
    if values != [start + step * k for k in range(count)]:
        return
    # a loop that counts down ends, not begins, at the place that no size moves: near zero
    ends = sorted(((start, step), (values[-1], -step)), key=lambda end: abs(end[0]))
    for extent, size in extents(sizes):
        if size == count > 1:
            yield from (Axis(mono, first, by, extent, count) for first, by in ends)
    for name, size in sizes.items():
        streams = count // size if size > 1 else 0
        if 1 < streams <= MOST_STREAMS and streams * size == count:
            for first, by in ends:
                yield Axis(mono, first, by, Affine.sym(name), count, streams)
    if count <= MOST_STREAMS:
        yield Axis(mono, start, step, Affine.const(1), count, count)


def extents(sizes: dict[str, int]) -> Iterator[tuple[Affine, int]]:
    """Dimensions and products of dimensions with their sizes."""
    for length in range(1, len(sizes) + 1):
        for group in combinations(sizes, length):
            affine = Affine.const(1)
            for name in group:
                affine = affine * Affine.sym(name)
            yield affine, prod(sizes[n] for n in group)


# ---- the formula


class _Builder:
    """Builds one trace for one way to see the outputs."""

    def __init__(
        self, names: dict[int, str], sizes: dict[str, int], refusals: dict[int, Refusal],
        left: Iterator[int],
    ) -> None:  # fmt: skip
        self.names, self.sizes, self.refusals, self.left = names, sizes, refusals, left
        self.raw = BodyBuilder()  # formulas with chains still unrolled
        self.body = BodyBuilder()
        self.folded: dict[int, int] = {}
        self.kinds: dict[int, str] = {}  # of raw values
        self.reduces = 0

    def trace(
        self, signature: Signature, pointers: list[int], layouts: tuple, result: Node | None
    ) -> OpTrace:
        stores: list[Store] = []
        for pointer, (axes, grid) in zip(pointers, layouts, strict=True):
            stores += self.stores(self.names[pointer - v.POINTER], axes, grid)
        if result is not None:
            value = self.fold(self.generalised((result,), ()))
            stores.append(Store("return", Affine(), value, ()))
        params = tuple(_param(a, self.body, stores) for a in signature.arguments)
        trace = OpTrace(signature.name, params, tuple(self.body.body), tuple(stores))
        return prune(trace)

    def stores(self, name: str, axes: tuple[Axis, ...], grid: Grid) -> Iterator[Store]:
        """One store per stream."""
        free = [k for k, a in enumerate(axes) if a.free and a.extent.constant is None]
        domain = tuple((f"i{n}", axes[k].extent) for n, k in enumerate(free))
        for stream in product(*(range(a.streams) for a in axes)):
            origin = tuple(a.start + a.step * s for a, s in zip(axes, stream, strict=True))
            moved = [
                tuple(c + axes[k].step * axes[k].streams * (k == j) for j, c in enumerate(origin))
                for k in free
            ]
            nodes = tuple(grid[at] for at in (origin, *moved))
            binders = tuple(Affine.sym(b) for b, _ in domain)
            index = Affine()
            for axis, coef in zip(axes, origin, strict=True):
                index += self.monomial(axis.mono, coef)
            for binder, k in zip(binders, free, strict=True):
                stride = axes[k].step * axes[k].streams
                index += self.monomial(axes[k].mono, stride) * binder
            yield Store(name, index, self.fold(self.generalised(nodes, binders)), domain)

    def monomial(self, mono: v.Mono, coef: int) -> Affine:
        return Affine.of([(coef, tuple(self.names[x] for x in mono))])

    def affine(self, index: v.Int) -> Affine:
        rows = v.terms_of(index).items()
        for number in self.refusals.keys() & set(v.atoms_of(index)):
            raise self.refusals[number]
        return Affine.of((c, tuple(self.names[x] for x in m)) for m, c in rows)

    def generalised(self, nodes: tuple[Node, ...], binders: tuple[Affine, ...]) -> int:
        """The formula at the origin, `nodes[0]`, with what differs at `nodes[1 + k]` linear
        in `binders[k]`."""
        return _Generaliser(self, binders).value(nodes)

    # ---- chains

    def fold(self, raw: int) -> int:
        """Rebuild a raw value with every chain as long as a dimension made a Reduce."""
        if raw not in self.folded:
            node = self.raw.body[raw]
            reduced = self.chain(raw)
            if reduced is None:
                args = tuple(self.fold(a) for a in node.args)
                reduced = self.body.add(node.op, *args, imm=node.imm)
            self.folded[raw] = reduced
        return self.folded[raw]

    def chain(self, raw: int) -> int | None:
        """The Reduce that the chain ending in `raw` is, or None."""
        for kind, side in CHAINS.get(self.raw.body[raw].op, ()):
            init, terms = self.unchained(raw, side)
            for extent, size in sorted(extents(self.sizes), key=lambda e: -e[1]):
                for first in (0, 1):
                    found = self.reduce(kind, init, terms, extent, size - first, first)
                    if found is not None:
                        return found
        return None

    def unchained(self, raw: int, side: int) -> tuple[int, list[int]]:
        """(start, terms in order) of a chain that carries its value in operand `side`."""
        op, terms = self.raw.body[raw].op, []
        while self.raw.body[raw].op is op:
            args = self.raw.body[raw].args
            terms.append(self.term(op, args, side))
            raw = args[side]
        return raw, terms[::-1]

    def term(self, op: Op, args: tuple[int, ...], side: int) -> int:
        if op is Op.FMA:
            return self.raw.add(Op.MUL, args[0], args[1])
        return args[1 - side]

    def reduce(
        self, kind: str, init: int, terms: list[int], extent: Affine, length: int, first: int
    ) -> int | None:
        """A Reduce over the last `length` terms; `first` when the chain starts from term 0."""
        if length < 2 or length != len(terms):
            return None
        binder = f"r{self.reduces}"
        elements = terms
        if first and kind in IDEMPOTENT:  # max(x[0], x[0]) = x[0], so the term 0 may be repeated
            elements = [init, *terms]
        elif first and kind == "sum" and self.kinds.get(init) in INTEGERS:  # 0 + x[0] is x[0]
            elements, first = [init, *terms], 0
            init = self.raw.add(CONSTANTS[self.kinds[init]], imm=0)
        try:
            term = self.linear(elements, binder)
        except NoFit:
            return None
        if not depends(self.raw, term, binder):
            return None  # x*x*x is not a product over a dimension
        self.reduces += 1
        if first and kind not in IDEMPOTENT:
            extent = extent - 1
        args = self.fold(init), self.fold(term)
        return self.body.add(Op.REDUCE, *args, imm=(kind, binder, extent))

    def linear(self, elements: list[int], binder: str) -> int:
        """One raw value that is elements[r] for every r."""
        memo: dict[tuple[int, ...], int] = {}

        def value(row: tuple[int, ...]) -> int:
            if all(e == row[0] for e in row):
                return row[0]
            if row not in memo:
                memo[row] = combine(row)
            return memo[row]

        def combine(row: tuple[int, ...]) -> int:
            nodes = [self.raw.body[e] for e in row]
            first = nodes[0]
            if any(n.op is not first.op for n in nodes):
                raise NoFit("operations differ")
            if first.op is Op.LOAD or first.op in INDICES:
                return self.raw.add(first.op, imm=linear_immediate(nodes, binder))
            if not first.args or any(n.imm != first.imm for n in nodes):
                raise NoFit(f"{first.op} differs")
            columns = zip(*(n.args for n in nodes), strict=True)
            return self.raw.add(first.op, *(value(c) for c in columns), imm=first.imm)

        return value(tuple(elements))


# op -> (kind of reduce, operand that carries the value)
CHAINS: dict[Op, tuple[tuple[str, int], ...]] = {
    Op.ADD: (("sum", 0), ("sum", 1)),
    Op.MUL: (("prod", 0), ("prod", 1)),
    Op.MAX: (("max", 1), ("max_acc", 0)),
    Op.MIN: (("min", 1), ("min_acc", 0)),
    Op.FMAX: (("fmax", 1), ("fmax_acc", 0)),
    Op.FMIN: (("fmin", 1), ("fmin_acc", 0)),
    Op.FMA: (("fma", 2),),
}
IDEMPOTENT = tuple(k for op in (Op.MAX, Op.MIN, Op.FMAX, Op.FMIN) for k, _ in CHAINS[op])


class _Generaliser:
    """Walks the same formula at the origin and at its neighbours."""

    def __init__(self, builder: _Builder, binders: tuple[Affine, ...]) -> None:
        self.builder, self.binders = builder, binders
        self.memo: dict[tuple[Node, ...], int] = {}

    def value(self, nodes: tuple[Node, ...]) -> int:
        """Operands first, without recursion: a chain is as long as the product of all sizes."""
        pending = [nodes]
        while pending:
            top = pending[-1]
            missing = [] if top in self.memo else self.missing(top)
            if missing:
                pending += missing
                continue
            if top not in self.memo:
                found = self.memo[top] = self.combine(top)
                self.builder.kinds[found] = top[0].kind
            pending.pop()
        return self.memo[nodes]

    def missing(self, nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
        """The operands that have no value yet."""
        if any(n.op is not nodes[0].op for n in nodes):
            return []
        columns = zip(*(n.args for n in nodes), strict=False)
        return [c for c in columns if c not in self.memo]

    def combine(self, nodes: tuple[Node, ...]) -> int:
        first, raw = nodes[0], self.builder.raw
        if next(self.builder.left) < 0:
            raise Refusal(
                f"more than {MOST_STEPS} operations to compare between elements",
                "sums, products, maxima and minima over dimensions",
                "carry no value from element to element other than those",
            )
        if any(n.op is not first.op for n in nodes):
            raise NoFit("operations differ between elements")
        if first.op is Op.LOAD:
            if any(n.imm[0] != first.imm[0] for n in nodes):
                raise NoFit("elements load from different arrays")
            name = self.builder.names[first.imm[0] - v.POINTER]
            return raw.add(Op.LOAD, imm=(name, self.index([n.imm[1] for n in nodes])))
        if first.op in INDICES:
            return raw.add(first.op, imm=self.index([n.imm for n in nodes]))
        if any(n.imm != first.imm or len(n.args) != len(first.args) for n in nodes):
            raise NoFit("constants differ between elements")
        columns = zip(*(n.args for n in nodes), strict=True)
        return raw.add(first.op, *(self.memo[c] for c in columns), imm=first.imm)

    def index(self, indices: list[v.Int]) -> Affine:
        origin = indices[0]
        total = self.builder.affine(origin)
        for binder, moved in zip(self.binders, indices[1:], strict=True):
            total += self.builder.affine(v.sub(moved, origin)) * binder
        return total


def linear_immediate(nodes: list, binder: str) -> object:
    """The immediate of loads or indices that step evenly."""
    loads = nodes[0].op is Op.LOAD
    if loads and any(n.imm[0] != nodes[0].imm[0] for n in nodes):
        raise NoFit("terms load from different arrays")
    rows = [n.imm[1] if loads else n.imm for n in nodes]
    step = rows[1] - rows[0]
    if any(b - a != step for a, b in pairwise(rows)):
        raise NoFit("indices of the terms do not step evenly")
    index = rows[0] + step * Affine.sym(binder)
    return (nodes[0].imm[0], index) if loads else index


def depends(raw: BodyBuilder, position: int, binder: str) -> bool:
    """Whether a raw value mentions `binder`."""
    for at in reachable(raw.body, position):
        node = raw.body[at]
        index = node.imm[1] if node.op is Op.LOAD else node.imm if node.op in INDICES else Affine()
        if binder in index.symbols:
            return True
    return False


def _param(argument, body: BodyBuilder, stores: list[Store]) -> Param:
    """in, out or inout as the code says."""
    if argument.kind != "pointer":
        return Param(argument.name, argument.kind, argument.ctype)
    loaded = any(n.op is Op.LOAD and n.imm[0] == argument.name for n in body.body)
    written = any(s.param == argument.name for s in stores)
    role = {(True, True): "inout", (False, True): "out"}.get((loaded, written), "in")
    return Param(argument.name, role, argument.ctype)


def upwards(trace: OpTrace) -> OpTrace:
    """out[n - 1 - i0] = f(x[n - 1 - i0])  ->  out[i0] = f(x[i0]): the order of a loop is no meaning."""
    falling: dict[str, Affine] = {}
    for store in trace.stores:
        for binder, extent in store.domain:
            coefficient = store.index.coefficient(binder)
            if coefficient.terms and all(c < 0 for c, _ in coefficient.terms):
                falling[binder] = extent
    agree = all(falling.get(b, e) == e for s in trace.stores for b, e in s.domain)
    if not falling or not agree or not all(_falls(s, falling) for s in trace.stores):
        return trace
    env = {b: e - 1 - Affine.sym(b) for b, e in falling.items()}
    body = tuple(replace(n, imm=renamed(n, env)) for n in trace.body)
    stores = tuple(replace(s, index=s.index.substitute(env)) for s in trace.stores)
    return replace(trace, body=body, stores=stores)


def _falls(store: Store, falling: dict[str, Affine]) -> bool:
    """Whether the store falls along every falling binder that it has."""
    binders = [b for b, _ in store.domain if b in falling]
    return all(c < 0 for b in binders for c, _ in store.index.coefficient(b).terms)
