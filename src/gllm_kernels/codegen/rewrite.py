"""Trace to trace, before lowering: what is worth saying differently to vector hardware.

    sum[r<n](f(x[r])) beside x[i], i < n  ->  sum[i<n](f(x[i]))        align: f(x[i]) is one value
    a[i] / s, s from a Reduce             ->  a[i] * (1 / s)           reciprocal
    a*b + c, c - a*b, a*b of one use      ->  fma(a, b, c), fma(-a, b, c)               contract
    h*0.5 * (1 + tanh(u))                 ->  h / (1 + exp(-2*u))                       logistic

Each result is again an OpTrace. `align` changes no bit. `reciprocal` rounds once more: at most
1.5 ULP instead of 0.5. `contract` rounds once less. `logistic` is an identity; where 1 + tanh(u)
cancels it keeps the digits that the sum loses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..trace.affine import Affine
from ..trace.ir import (
    INDICES, BodyBuilder, Op, OpTrace, TraceOp, bits_float, float_bits, reachable,
)
from ..trace.simplify import prune
from ..trace.spec import free_symbols, types

# (builder of the new body, position in the old one, its node with new arguments) -> new position
Rule = Callable[[BodyBuilder, int, TraceOp], int | None]
REALS = ("f32", "f64")
ONE = TraceOp(Op.CONST, (), float_bits(1.0))


def prepare(trace: OpTrace, lane: str) -> OpTrace:
    """All rewrites, for vectors along the binder `lane` ("" when results are single elements)."""
    return contract(reciprocal(align(trace, lane), lane))


def rebuild(trace: OpTrace, rule: Rule) -> OpTrace:
    """Every live value through the rule, in order; None keeps it."""
    builder = BodyBuilder()
    place: dict[int, int] = {}
    for position in reachable(trace.body, *(s.value for s in trace.stores)):
        node = trace.body[position]
        node = replace(node, args=tuple(place[a] for a in node.args))
        found = rule(builder, position, node)
        place[position] = builder.add(node.op, *node.args, imm=node.imm) if found is None else found
    stores = tuple(replace(s, value=place[s.value]) for s in trace.stores)
    return prune(replace(trace, body=tuple(builder.body), stores=stores))


def contract(trace: OpTrace) -> OpTrace:
    """a*b + c -> fma(a, b, c); c - a*b -> fma(-a, b, c): one rounding instead of two.

    Not where c is a product too: a*b - b*a must stay exactly 0, and the difference of two equal
    overflowed products NaN. Not where a*b is used again: it is computed anyway.
    """
    uses, kinds = _uses(trace), types(trace)

    def product(position: int) -> bool:
        return trace.body[position].op is Op.MUL and uses[position] == 1

    def rule(builder: BodyBuilder, position: int, node: TraceOp) -> int | None:
        if node.op not in (Op.ADD, Op.SUB) or kinds[position] not in REALS:
            return None
        left, right = trace.body[position].args
        if Op.MUL in (trace.body[left].op, trace.body[right].op):
            if product(right) and trace.body[left].op is not Op.MUL:
                a, b = builder.body[node.args[1]].args
                a = builder.add(Op.NEG, a) if node.op is Op.SUB else a
                return builder.add(Op.FMA, a, b, node.args[0])
            if node.op is Op.ADD and product(left) and trace.body[right].op is not Op.MUL:
                return builder.add(Op.FMA, *builder.body[node.args[0]].args, node.args[1])
        return None

    return rebuild(trace, rule)


def _uses(trace: OpTrace) -> Counter[int]:
    live = reachable(trace.body, *(s.value for s in trace.stores))
    counts = Counter(a for position in live for a in trace.body[position].args)
    return counts + Counter(s.value for s in trace.stores)


def logistic(trace: OpTrace) -> OpTrace:
    """1 + tanh(u) -> 2 / (1 + exp(-2*u)), and the 2 into a constant factor of what multiplies it.

    Infinite u gives 0 or 2 and NaN stays NaN, as before.
    """
    made: set[int] = set()

    def rule(builder: BodyBuilder, position: int, node: TraceOp) -> int | None:
        for one, other in (node.args, node.args[::-1]) if len(node.args) == 2 else ():
            if node.op is Op.ADD and builder.body[one] == ONE and (
                    builder.body[other].op is Op.TANH):
                quotient = _twice_logistic(builder, builder.body[other].args[0])
                made.add(quotient)
                return quotient
            if node.op is Op.MUL and one in made:
                doubled = _absorbed(builder, other, 2.0)
                if doubled is not None:
                    return builder.add(Op.DIV, doubled, builder.body[one].args[1])
        return None

    return rebuild(trace, rule)


def _twice_logistic(builder: BodyBuilder, u: int) -> int:
    """2 / (1 + exp(-2*u))"""
    power = _absorbed(builder, u, -2.0)
    if power is None:
        power = builder.add(Op.MUL, u, builder.const(-2.0))
    below = builder.add(Op.ADD, builder.const(1.0), builder.add(Op.EXP, power))
    return builder.add(Op.DIV, builder.const(2.0), below)


def _absorbed(builder: BodyBuilder, value: int, power: float) -> int | None:
    """value times a power of two when a constant factor of it takes it up without rounding."""
    node = builder.body[value]
    for number, factor in enumerate(node.args if node.op is Op.MUL else ()):
        if builder.body[factor].op is Op.CONST:
            other, scale = node.args[1 - number], bits_float(builder.body[factor].imm) * power
            return other if scale == 1.0 else builder.add(Op.MUL, other, builder.const(scale))
    return None


def reciprocal(trace: OpTrace, lane: str) -> OpTrace:
    """a / s -> a * (1/s) where a differs from lane to lane and s, from a Reduce, does not.

    A root is never so large or small that 1/s leaves the normal range. Any other s is first scaled
    by p = 2^64, 1 or 2^-64 into the middle of the range: a * (1/(s*p)) * p.
    """
    free, kinds = free_symbols(trace), types(trace)
    reduced = _reduced(trace)

    def rule(builder: BodyBuilder, position: int, node: TraceOp) -> int | None:
        if node.op is not Op.DIV or not lane or kinds[position] != "f32":
            return None
        a, s = trace.body[position].args
        if lane not in free[a] or lane in free[s] or s not in reduced:
            return None
        return _times_inverse(builder, *node.args)

    return rebuild(trace, rule)


def _times_inverse(builder: BodyBuilder, a: int, s: int) -> int:
    one = builder.const(1.0)
    if builder.body[s].op is Op.SQRT:
        return builder.add(Op.MUL, a, builder.add(Op.DIV, one, s))
    size = builder.add(Op.ABS, s)
    down = builder.add(Op.SELECT, builder.add(Op.LT, builder.const(2.0**60), size),
                       builder.const(2.0**-64), one)
    power = builder.add(Op.SELECT, builder.add(Op.LT, size, builder.const(2.0**-60)),
                        builder.const(2.0**64), down)
    inverse = builder.add(Op.DIV, one, builder.add(Op.MUL, s, power))
    return builder.add(Op.MUL, builder.add(Op.MUL, a, inverse), power)


def _reduced(trace: OpTrace) -> set[int]:
    """Positions that depend on a Reduce."""
    found: set[int] = set()
    for position, node in enumerate(trace.body):
        if node.op is Op.REDUCE or found.intersection(node.args):
            found.add(position)
    return found


def align(trace: OpTrace, lane: str) -> OpTrace:
    """Give Reduces of equal extent one binder, the lane's where the extents agree.

    Then what a reduction and the output compute alike is one value of the body. A Reduce that
    itself depends on the lane, or on the binder of another Reduce, keeps its own. This form is for
    the generators alone: elsewhere every Reduce of a trace has a binder to itself.
    """
    domain = max((s.domain for s in trace.stores), key=len)
    extents = {extent: name for name, extent in domain if name == lane}
    inner = frozenset(n.imm[1] for n in trace.body if n.op is Op.REDUCE) | {lane}
    work = _Align(trace, inner, free_symbols(trace), extents)
    stores = tuple(replace(s, value=work.value(s.value, ())) for s in trace.stores)
    return prune(replace(trace, body=tuple(work.builder.body), stores=stores))


@dataclass
class _Align:
    """`value` rebuilds a value with binders renamed; `names` has the binder of each extent."""

    trace: OpTrace
    inner: frozenset[str]
    free: list[frozenset[str]]
    names: dict[Affine, str]
    builder: BodyBuilder = field(default_factory=BodyBuilder)
    done: dict[tuple, int] = field(default_factory=dict)

    def value(self, position: int, renamed: tuple[tuple[str, str], ...]) -> int:
        renamed = tuple(pair for pair in renamed if pair[0] in self.free[position])
        key = (position, renamed)
        if key not in self.done:
            self.done[key] = self._rebuilt(position, renamed)
        return self.done[key]

    def _rebuilt(self, position: int, renamed: tuple[tuple[str, str], ...]) -> int:
        node = self.trace.body[position]
        if node.op is Op.REDUCE:
            return self._reduce(position, renamed)
        args = (self.value(a, renamed) for a in node.args)
        env = {old: Affine.sym(new) for old, new in renamed}
        if node.op is Op.LOAD:
            imm: object = (node.imm[0], node.imm[1].substitute(env))
        else:
            imm = node.imm.substitute(env) if node.op in INDICES else node.imm
        return self.builder.add(node.op, *args, imm=imm)

    def _reduce(self, position: int, renamed: tuple[tuple[str, str], ...]) -> int:
        node = self.trace.body[position]
        kind, binder, extent = node.imm
        init = self.value(node.args[0], renamed)
        renamed = tuple(pair for pair in renamed if pair[0] != binder)
        name = binder
        if not self.inner & self.free[position]:
            name = self.names.setdefault(extent, binder)
        if name != binder:
            renamed += ((binder, name),)
        term = self.value(node.args[1], renamed)
        return self.builder.add(Op.REDUCE, init, term, imm=(kind, name, extent))
