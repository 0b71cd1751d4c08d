"""A trace written out at one tuple of sizes, as the run writes its outputs: for comparison.

    out[i0] = x[i0] + 1  for i0 < n     at n = 2  ->  {out[0]: x[0] + 1, out[1]: x[1] + 1}

Indices stay polynomials of the dimensions, so equal nodes are equal formulas, not equal numbers.
"""

from __future__ import annotations

from itertools import product
from math import prod

from ..trace.affine import Affine
from ..trace.ir import INDICES, REDUCERS, Op, OpTrace, TraceOp
from ..trace.render import render
from ..trace.spec import free_symbols
from . import value as v
from .engine import Lifted
from .error import Refusal
from .nodes import Node, Nodes
from .signature import Signature
from .state import Stored

Binding = dict[str, int]
Row = tuple[int, v.Mono, int, tuple[str, ...]]  # coefficient, dimensions, their value, binders


class Overlap(Refusal):
    """Two elements of an output lie at one place: a stride is smaller than what it steps over."""


class Expander:
    """Builds the nodes of a trace at fixed sizes."""

    def __init__(
        self, trace: OpTrace, signature: Signature, sizes: dict[str, int], nodes: Nodes,
        numbers: frozenset[str],
    ) -> None:  # fmt: skip
        self.trace, self.sizes, self.nodes, self.numbers = trace, sizes, nodes, numbers
        self.atoms = {
            a.name: n + (v.POINTER if a.kind == "pointer" else 0)
            for n, a in enumerate(signature.arguments)
        }
        self.free = [
            tuple(sorted(s for s in symbols if s not in sizes)) for symbols in free_symbols(trace)
        ]
        self.memo: dict[tuple, Node] = {}
        self.rows: dict[Affine, tuple[Row, ...]] = {}

    def stores(self) -> dict[tuple[int, int], Stored]:
        """(pointer, element number) -> what is written there, returned values aside."""
        written: dict[tuple[int, int], Stored] = {}
        for store in self.trace.stores:
            if store.param == "return":
                continue
            pointer = self.atoms[store.param]
            ranges = [range(max(0, e.evaluate(self.sizes))) for _, e in store.domain]
            for values in product(*ranges):
                env = dict(zip((b for b, _ in store.domain), values, strict=True))
                index = self.index(store.index, env)
                element = pointer, v.value_of(index)
                if element in written:
                    raise Overlap(f"{store.param}[{v.value_of(index)}] is written twice")
                written[element] = (pointer, index, self.value(store.value, env))
        return written

    def result(self) -> Node | None:
        for store in self.trace.stores:
            if store.param == "return":
                return self.value(store.value, {})
        return None

    def index(self, index: Affine, env: Binding) -> v.Int:
        if index not in self.rows:
            self.rows[index] = tuple(self._row(c, m) for c, m in index.terms)
        terms: dict[v.Mono, int] = {}
        total = 0
        for coef, dims, size, binders in self.rows[index]:
            for binder in binders:
                coef *= env[binder]
            terms[dims] = terms.get(dims, 0) + coef
            total += coef * size
        return v.make({m: c for m, c in terms.items() if c}, total)

    def _row(self, coef: int, mono: tuple[str, ...]) -> Row:
        dims = [s for s in mono if s in self.sizes and s not in self.numbers]
        coef *= prod(self.sizes[s] for s in mono if s in self.numbers)
        size = 1
        for name in dims:
            size *= self.sizes[name]
        number = tuple(sorted(self.atoms[s] for s in dims))
        return coef, number, size, tuple(s for s in mono if s not in self.sizes)

    def value(self, position: int, env: Binding) -> Node:
        key = (position, *[env[b] for b in self.free[position]])
        node = self.memo.get(key)
        if node is None:
            node = self.memo[key] = self.compute(self.trace.body[position], env)
        return node

    def compute(self, node: TraceOp, env: Binding) -> Node:
        if node.op is Op.LOAD:
            return self.nodes.load(self.atoms[node.imm[0]], self.index(node.imm[1], env))
        if node.op in INDICES:
            return self.nodes.make(node.op, (), self.index(node.imm, env))
        if node.op is Op.REDUCE:
            return self.reduce(node, env)
        args = tuple([self.value(a, env) for a in node.args])
        return self.nodes.make(node.op, args, node.imm)

    def reduce(self, node: TraceOp, env: Binding) -> Node:
        kind, binder, extent = node.imm
        reducer, term = REDUCERS[kind], node.args[1]
        acc = self.value(node.args[0], env)
        for round_ in range(max(0, extent.evaluate(self.sizes))):
            scope = {**env, binder: round_}
            if kind == "fma":
                left, right = (self.value(a, scope) for a in self.trace.body[term].args)
                acc = self.nodes.make(Op.FMA, (left, right, acc))
                continue
            item = self.value(term, scope)
            if item is acc and reducer.op in IDEMPOTENT:
                continue  # max(x, x) = x, also for NaN and zeros
            pair = (item, acc) if reducer.flipped else (acc, item)
            acc = self.nodes.make(reducer.op, pair)
        return acc


IDEMPOTENT = (Op.MAX, Op.MIN, Op.FMAX, Op.FMIN)  # op(x, x) = x


def compare(
    trace: OpTrace, signature: Signature, sizes: dict[str, int], nodes: Nodes, lifted: Lifted
) -> None:
    """Refuse where the trace, expanded at `sizes`, is not what the run did.

    Indices are compared as polynomials, but for dimensions that the code takes remainders of:
    where the remainder is not 0 they are numbers, and several sizes of the class are compared; a
    size that is 0 in the whole class is that number.
    """
    numbers = {lifted.conditions.names[x].name
               for x, (period, rest) in lifted.conditions.periods.items() if rest or not period}  # fmt: skip
    expander = Expander(trace, signature, sizes, nodes, frozenset(numbers))
    where = "at " + ", ".join(f"{n} = {s}" for n, s in sizes.items())
    expected = expander.stores()
    got = {(p, v.value_of(i)): (p, i, node) for p, i, node in lifted.memory.values()}
    if expected.keys() != got.keys():
        raise Refusal(
            f"{where}: {len(got)} elements are written, the formula of the smaller sizes "
            f"writes {len(expected)}" + (", others" if len(got) == len(expected) else "")
        )
    names = [a.name for a in signature.arguments]
    blocks = {(lifted.memory[a][0], v.value_of(lifted.memory[a][1]))
              for a in lifted.conditions.blocks if a in lifted.memory}  # fmt: skip
    for key, (pointer, index, node) in got.items():
        wanted = expected[key]
        name = f"{names[pointer - v.POINTER]}[{key[1]}]"
        if wanted[1] != index and key not in blocks:
            raise Refusal(f"{where}: {name} lies at another polynomial of the sizes")
        if not nodes.same(wanted[2], node):
            raise Refusal(f"{where}: {name} is computed by another formula than at other sizes, "
                          f"which is: {_formula(trace)}")
    if not _same_results(expander.result(), lifted.result, nodes):
        raise Refusal(f"{where}: the result is computed by another formula than at other sizes, "
                      f"which is: {_formula(trace)}")


def _same_results(wanted: Node | None, got: Node | None, nodes: Nodes) -> bool:
    if wanted is None or got is None:
        return wanted is got
    return nodes.same(wanted, got)


def _formula(trace: OpTrace) -> str:
    return "; ".join(line.strip() for line in render(trace).splitlines()[1:])
