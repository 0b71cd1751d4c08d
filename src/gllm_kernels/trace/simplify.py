"""Rules that keep every bit of every result, the removal of values nobody uses, one canonical form.

    x - - y  ->  x + y          select(not c, a, b)  ->  select(c, b, a)

x + 0 and x*0 are not here: they change -0, infinities and NaN. Each rule replaces a value by one
of at most the same size built from values below it, so one pass upwards ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .affine import Affine
from .ir import INDICES, BodyBuilder, Op, OpTrace, TraceOp, float_bits, reachable

Build = Callable[[BodyBuilder, TraceOp], int | None]
ONE = float_bits(1.0)


@dataclass(frozen=True, slots=True)
class Rule:
    """`rewrite` returns the position of the replacement, or None where the rule does not fit."""

    name: str
    op: Op
    rewrite: Build


def _below(body: BodyBuilder, node: TraceOp, number: int) -> TraceOp:
    return body.body[node.args[number]]


def _negated_twice(body: BodyBuilder, node: TraceOp) -> int | None:
    inner = _below(body, node, 0)
    return inner.args[0] if inner.op is node.op else None


def _times_one(body: BodyBuilder, node: TraceOp) -> int | None:
    for number in (0, 1):
        factor = _below(body, node, number)
        if factor.op is Op.CONST and factor.imm == ONE:
            return node.args[1 - number]
    return None


def _over_one(body: BodyBuilder, node: TraceOp) -> int | None:
    factor = _below(body, node, 1)
    return node.args[0] if factor.op is Op.CONST and factor.imm == ONE else None


def _select_not(body: BodyBuilder, node: TraceOp) -> int | None:
    condition = _below(body, node, 0)
    if condition.op is not Op.NOT:
        return None
    return body.add(Op.SELECT, condition.args[0], node.args[2], node.args[1])


def _same_arms(body: BodyBuilder, node: TraceOp) -> int | None:
    return node.args[1] if node.args[1] == node.args[2] else None


def _plain_product(body: BodyBuilder, node: TraceOp) -> int | None:
    """fma[r](1*x) has lost its product: adding x rounds once as well, so it is a sum."""
    if node.imm[0] != "fma" or _below(body, node, 1).op is Op.MUL:
        return None
    return body.add(Op.REDUCE, *node.args, imm=("sum", *node.imm[1:]))


# fmt: off
RULES: tuple[Rule, ...] = (
    Rule("neg neg",    Op.NEG,    _negated_twice),  # -(-x) = x, also for NaN and zeros
    Rule("not not",    Op.NOT,    _negated_twice),
    Rule("times one",  Op.MUL,    _times_one),      # x*1 = x exactly
    Rule("over one",   Op.DIV,    _over_one),       # x/1 = x exactly
    Rule("select not", Op.SELECT, _select_not),
    Rule("same arms",  Op.SELECT, _same_arms),
    Rule("fma of one", Op.REDUCE, _plain_product),
)
# fmt: on
BY_OP: dict[Op, tuple[Rule, ...]] = {op: tuple(r for r in RULES if r.op is op) for op in Op}


def simplify(trace: OpTrace) -> OpTrace:
    """The same trace without dead values, equal values shared, every rule applied upwards."""
    builder = BodyBuilder()
    place: dict[int, int] = {}
    for position in reachable(trace.body, *(s.value for s in trace.stores)):
        node = trace.body[position]
        place[position] = rebuild(builder, replace(node, args=tuple(place[a] for a in node.args)))
    stores = tuple(replace(s, value=place[s.value]) for s in trace.stores)
    return prune(replace(trace, body=tuple(builder.body), stores=stores))


def rebuild(builder: BodyBuilder, node: TraceOp) -> int:
    """Add `node`, or what the first rule that fits makes of it."""
    for rule in BY_OP[node.op]:
        found = rule.rewrite(builder, node)
        if found is not None:
            return found
    return builder.add(node.op, *node.args, imm=node.imm)


def prune(trace: OpTrace) -> OpTrace:
    """Without values that no store depends on."""
    live = list(reachable(trace.body, *(s.value for s in trace.stores)))
    place = {old: new for new, old in enumerate(live)}
    body = tuple(
        replace(trace.body[p], args=tuple(place[a] for a in trace.body[p].args)) for p in live
    )
    stores = tuple(replace(s, value=place[s.value]) for s in trace.stores)
    return replace(trace, body=body, stores=stores)


# ---- one form for equal traces, whatever order a compiler chose

COMMUTATIVE = frozenset({Op.ADD, Op.MUL, Op.FMA, Op.EQ, Op.UNORD, Op.AND, Op.OR, Op.BITAND,
                         Op.BITOR, Op.BITXOR})
# operations stand between them
RANK = {Op.CONST: 0, Op.CONST64: 0, Op.INT: 0, Op.LONG: 0, Op.SCALAR: 1, Op.INDEX: 2,
        Op.INDEX64: 2, Op.INDEXI: 2, Op.LOAD: 4}


def canonical(trace: OpTrace) -> OpTrace:
    """The first two operands of x + y, x*y, ... by structure, stores by address, values in the
    order in which the stores need them, binders of reduces r0, r1, ... in that order."""
    order = {p.name: k for k, p in enumerate(trace.params)}
    level = _levels(trace)
    keys: list[tuple] = []
    body: list[TraceOp] = []
    for node in trace.body:
        args = node.args
        if node.op in COMMUTATIVE:
            args = (*sorted(args[:2], key=keys.__getitem__), *args[2:])
        body.append(replace(node, args=args))
        inner = [keys[a] for a in args]
        size = 1 + sum(k[1] for k in inner)
        keys.append((RANK.get(node.op, 3), size, node.op, *_immediate_key(node, order, level),
                     *inner))  # fmt: skip
    stores = sorted(
        trace.stores,
        key=lambda s: (order.get(s.param, -1), len(s.index.terms), s.index.terms, keys[s.value]),
    )
    return _in_order(replace(trace, body=tuple(body), stores=tuple(stores)))


def _levels(trace: OpTrace) -> dict[str, Affine]:
    """Names of the binders by depth of nesting, so that keys do not depend on their numbers."""
    depth: list[int] = []
    names: dict[str, Affine] = {}
    for node in trace.body:
        below = max((depth[a] for a in node.args), default=0)
        depth.append(below + (node.op is Op.REDUCE))
        if node.op is Op.REDUCE:
            names[node.imm[1]] = Affine.sym(f"r{below}")
    return names


def _immediate_key(node: TraceOp, order: dict[str, int], level: dict[str, Affine]) -> tuple:
    if node.op is Op.LOAD:
        return order[node.imm[0]], node.imm[1].substitute(level).terms
    if node.op is Op.REDUCE:
        return node.imm[0], node.imm[2].terms
    return (node.imm.substitute(level).terms,) if node.op in INDICES else (str(node.imm),)


def _in_order(trace: OpTrace) -> OpTrace:
    builder = BodyBuilder()
    place: dict[int, int] = {}
    binders: dict[str, Affine] = {}

    def visit(position: int) -> int:
        if position not in place:
            node = trace.body[position]
            if node.op is Op.REDUCE:
                binders[node.imm[1]] = Affine.sym(f"r{len(binders)}")
            args = tuple(map(visit, node.args))
            place[position] = builder.add(node.op, *args, imm=renamed(node, binders))
        return place[position]

    stores = tuple(replace(s, value=visit(s.value)) for s in trace.stores)
    return replace(trace, body=tuple(builder.body), stores=stores)


def renamed(node: TraceOp, env: dict[str, Affine]) -> object:
    """The immediate of `node` with its symbols replaced."""
    if node.op is Op.LOAD:
        return node.imm[0], node.imm[1].substitute(env)
    if node.op is Op.REDUCE:
        return node.imm[0], str(env.get(node.imm[1], node.imm[1])), node.imm[2]
    return node.imm.substitute(env) if node.op in INDICES else node.imm
