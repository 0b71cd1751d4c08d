"""Kernels with reductions: a row's Reduces one after the other, then its outputs.

    return = sum[r<n](a[r]*b[r])                              unit: the whole reduction
    out[i] = f(max[r<n](x[i, r]))                             units are rows, one element each
    out[i, j] = f(x[i, j], sum[r<n](g(x[i, r])))              units are rows

Reduces of a row that do not depend on each other and run over the same binder share one loop. A
loop keeps several accumulators of `lanes` partial results each; they are combined by a fixed tree,
so that the bits depend on the row alone.

Lanes that do not exist keep their accumulator. `max` (x > acc ? x : acc) passes over a NaN in every
lane as the scalar does, from an initial NaN too. `max_acc` (acc > x ? acc : x) forgets what stood
before a NaN: see `restart.py`. Where zeros of both signs are the largest or smallest terms, the
lanes may keep another of them than the scalar does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isnan

from ..errors import CompileError
from ..trace.affine import Affine
from ..trace.ir import (
    CONSTANTS, REDUCERS, WEIGHTS, WIDTH, Op, OpTrace, Store, TraceOp, bits_float, double_bits,
    float_bits,
)  # fmt: skip
from ..trace.spec import free_symbols, types
from .access import Env, integer, lane_step, place, storage_of, store
from .elementwise import check_in_place, map_row
from .frame import begin, by_row, copies_for, domain_of, each_unit, reach, units_of, weight
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Pair, Value
from .lower import (
    OPERATIONS, Lanes, combine, flat, grouped, hoist, literal, lower, lower_stores, step,
)
from .restart import restarted
from .rewrite import prepare
from .strips import Accumulators, strips
from .tuning import TuningParams

COSTLY = frozenset(WEIGHTS) - {Op.REDUCE}
MOST_LOADS = 2  # again, rather than one store and one load
ROWS_PER_TILE = 4
ROOM = 32  # instructions: 8 accumulators of a dot product; an exp hides the sum's latency alone

# where the lanes start, for kinds whose initial value must count once; the others start from it
STARTS = {k: r.identity for k, r in REDUCERS.items() if r.op in (Op.ADD, Op.MUL, Op.FMA)}
ACROSS = {Op.ADD: K.HSUM, Op.FMA: K.HSUM, Op.MAX: K.HMAX, Op.FMAX: K.HMAX, Op.MIN: K.HMIN,
          Op.FMIN: K.HMIN}


@dataclass(frozen=True, slots=True)
class Phase:
    """Reduces that share one loop; `kept` is stored on the way and loaded by what follows."""

    trace: OpTrace
    binder: str
    extent: Affine
    reduces: tuple[int, ...]
    kept: Store | None = None


def generate(trace: OpTrace, isa: Isa, params: TuningParams) -> Kernel:
    """The kernel of a trace whose outputs depend on Reduces over a row."""
    domain = domain_of(trace)
    lane = lane_of(trace)
    trace = prepare(trace, lane)
    trace = restarted(trace, _levels(trace, lane))
    check_in_place(trace)
    outer = domain[:-1] if lane else domain
    plan, final = phases(trace, lane)
    if not lane and by_row(trace)[1]:
        raise CompileError(f"{trace.name}: one output has a reduction for each of its elements, "
                           "another one for each row; make two operators of it")
    builder = begin(trace, isa)
    with each_unit(builder, outer) as binders:
        env = Env(binders)
        for phase in plan:
            env = fold(builder, phase, env, isa, params)
        along, once = by_row(final)
        if lane:
            map_row(builder, along, replace(env, lane=lane), domain, params.unroll)
        else:
            lower_stores(builder, along, along.stores, env)
        if once:
            lower_stores(builder, once, once.stores, env)
    grain = ROWS_PER_TILE if outer else 1
    return builder.build(units_of(outer), grain, unit="row" if outer else "reduction")


def lane_of(trace: OpTrace) -> str:
    """The binder along the lanes of the outputs; "" when the lanes run along the Reduces.

    The innermost binder of the outputs, unless a Reduce depends on it whose terms are neighbours in
    memory: then every output element is a row of its own.
    """
    domain = domain_of(trace)
    if not domain:
        return ""
    inner = domain[-1][0]
    free = free_symbols(trace)
    own = [n for p, n in enumerate(trace.body) if n.op is Op.REDUCE and inner in free[p]]
    return "" if any(_is_row(trace, node) for node in own) else inner


def _is_row(trace: OpTrace, reduce: TraceOp) -> bool:
    loads = [trace.body[p].imm for p in reach(trace, [reduce.args[1]])
             if trace.body[p].op is Op.LOAD]
    steps = [index.coefficient(reduce.imm[1]).constant for _, index in loads]
    return all(s in (0, 1, 2) for s in steps)


def phases(trace: OpTrace, lane: str) -> tuple[list[Phase], OpTrace]:
    """Loops in dependency order, and the trace that the outputs follow."""
    groups: dict[tuple[int, str, Affine], list[int]] = {}
    for position, level in _levels(trace, lane).items():
        _, binder, extent = trace.body[position].imm
        groups.setdefault((level, binder, extent), []).append(position)
    plan: list[Phase] = []
    for (_, binder, extent), reduces in sorted(groups.items(), key=lambda row: row[0][0]):
        plan.append(Phase(trace, binder, extent, tuple(reduces)))
    return _keep(plan, trace, lane)


def _levels(trace: OpTrace, lane: str) -> dict[int, int]:
    """For each Reduce of the row: how many others must stand before it, one behind the other."""
    inner = frozenset(n.imm[1] for n in trace.body if n.op is Op.REDUCE) | {lane}
    free = free_symbols(trace)
    depth: list[int] = []
    levels: dict[int, int] = {}
    for position, node in enumerate(trace.body):
        below = max((depth[a] for a in node.args), default=0)
        if node.op is Op.REDUCE and not inner & free[position]:
            levels[position] = below
            below += 1
        depth.append(below)
    return levels


def _keep(plan: list[Phase], trace: OpTrace, lane: str) -> tuple[list[Phase], OpTrace]:
    """Store a value common to a Reduce and the outputs on the way, and load it from then on: one
    that is an output anyway, or a costly one in the only output's place.

    sum[i](exp(x[i] - m)), out[i] = exp(x[i] - m) / s
      ->  out[i] = exp(x[i] - m) in the sum's loop, then out[i] = out[i] / s
    """
    for number, phase in enumerate(plan):
        kept = _stored(trace, phase, lane) or _common(trace, phase, lane)
        if kept is None or not _may_overwrite(plan[number + 1 :], trace, kept, lane):
            continue
        body = list(trace.body)
        body[kept.value] = TraceOp(Op.LOAD, (), (kept.param, kept.index))
        left = tuple(s for s in trace.stores if s != kept)
        trace = replace(trace, body=tuple(body), stores=left)
        rest = [replace(p, trace=trace) for p in plan[number + 1 :]]
        plan = [*plan[:number], replace(phase, kept=kept), *rest]
    return plan, trace


def _terms(trace: OpTrace, phase: Phase) -> set[int]:
    """What the Reduces of a phase add up, and all below it."""
    return reach(trace, [trace.body[r].args[1] for r in phase.reduces])


def _holds(trace: OpTrace, target: Store, lane: str) -> bool:
    """Can the place hold a value in between? In 16 bits it would be rounded."""
    return (lane_step(trace, target.param, target.index, lane) == 1
            and storage_of(trace, target.param) == "float")


def _stored(trace: OpTrace, phase: Phase, lane: str) -> Store | None:
    """An output of the row that a Reduce needs too, beside another output."""
    if phase.binder != lane:
        return None
    rows = [s for s in trace.stores if lane in dict(s.domain)]
    terms = _terms(trace, phase) if len(rows) > 1 else set()
    found = (s for s in rows if s.value in terms and trace.body[s.value].op is not Op.LOAD)
    return next((s for s in found if _holds(trace, s, lane)), None)


def _common(trace: OpTrace, phase: Phase, lane: str) -> Store | None:
    """The one topmost costly value of a Reduce's term, in the place of the single output that needs
    it as well."""
    if phase.binder != lane or len(trace.stores) != 1:
        return None
    target = trace.stores[0]
    if not _holds(trace, target, lane):
        return None
    common = reach(trace, [target.value]) & _terms(trace, phase)
    below = {a for p in common for a in trace.body[p].args}
    free = free_symbols(trace)
    tops = [p for p in common - below if lane in free[p] and _is_costly(trace, p)]
    return replace(target, value=tops[0]) if len(tops) == 1 else None


def _is_costly(trace: OpTrace, value: int) -> bool:
    """Is it cheaper to store and load it than to compute it again?"""
    operations = [trace.body[p].op for p in reach(trace, [value])]
    return operations.count(Op.LOAD) > MOST_LOADS or any(op in COSTLY for op in operations)


def _may_overwrite(rest: list[Phase], trace: OpTrace, kept: Store, lane: str) -> bool:
    """Nothing later reads an element that could be the one overwritten, in place or not."""
    roots = [trace.body[r].args[1] for p in rest for r in p.reduces]
    outputs = [s.value for s in trace.stores]
    later = reach(trace, [*roots, *outputs], stop={kept.value}) - {kept.value}
    binders = {name for name, _ in kept.domain}
    loads = [trace.body[p].imm for p in later if trace.body[p].op is Op.LOAD]
    anywhere = {n.imm[0] for n in trace.body if n.op is Op.LOAD}
    return kept.param not in anywhere and not any(
        lane in index.symbols and binders <= index.symbols for _, index in loads)


def fold(builder: KernelBuilder, phase: Phase, env: Env, isa: Isa, params: TuningParams) -> Env:
    """`env` with the Reduces of the phase."""
    trace, nodes = phase.trace, [phase.trace.body[r] for r in phase.reduces]
    terms = [node.args[1] for node in nodes]
    known = hoist(builder, trace, terms, replace(env, lane=phase.binder))
    if phase.kept:
        place(builder, trace, phase.kept.param, phase.kept.index, known)

    def body(first: Value, shift: int, count: Value | None, flat_: Accumulators) -> Accumulators:
        here = known.at({phase.binder: first}, shift, count)
        accs = grouped(flat_, inits)
        new = tuple(step(builder, trace, r, a, here)
                    for r, a in zip(phase.reduces, accs, strict=True))
        if phase.kept:
            value = lower(builder, trace, phase.kept.value, here)
            store(builder, trace, phase.kept, here, value)
        return flat(new if count is None else _existing(builder, count, kinds, new, accs))

    kinds = [types(trace)[r] for r in phase.reduces]
    inits = tuple(_start(builder, trace, r, env) for r in phase.reduces)
    # half of the registers for accumulators, the rest for what is added to them
    wanted = max(1, min(params.accumulators, isa.vregs // 2 // len(flat(inits))))
    copies = copies_for(wanted, weight(trace, terms, phase.binder), ROOM)
    size = integer(builder, phase.extent, env.binders)
    groups = strips(builder, None, size, copies, body, flat(inits), phase.binder)
    sums = [grouped(group, inits) for group in groups]
    values = dict(env.values)
    for number, position in enumerate(phase.reduces):
        values[position] = _finish(builder, trace, position, [s[number] for s in sums], env)
    return replace(env, values=values)


def _existing(builder: KernelBuilder, count: Value, kinds: list[str], new: tuple[Lanes, ...],
              old: tuple[Lanes, ...]) -> tuple[Lanes, ...]:
    """The new accumulator in lanes that exist."""
    mask = builder.emit(K.FIRST, count)
    return tuple(OPERATIONS[Op.SELECT, kind](builder, mask, n, o)
                 for kind, n, o in zip(kinds, new, old, strict=True))


def _start(builder: KernelBuilder, trace: OpTrace, reduce: int, env: Env) -> Lanes:
    kind = trace.body[reduce].imm[0]
    if kind in STARTS:
        return literal(builder, STARTS[kind], types(trace)[reduce])
    return lower(builder, trace, trace.body[reduce].args[0], env)


def _finish(builder: KernelBuilder, trace: OpTrace, reduce: int, accs: list[Lanes],
            env: Env) -> Lanes:
    """Copies pairwise, then across the lanes, then the initial value; in all lanes."""
    node, type_ = trace.body[reduce], types(trace)[reduce]
    kind = node.imm[0]
    while len(accs) > 1:
        pairs = zip(accs[::2], accs[1::2], strict=True)
        accs = [combine(builder, kind, type_, a, b) for a, b in pairs]
    init = trace.body[node.args[0]]
    total = _across(builder, kind, type_, accs[0], _is_number(init))
    if kind not in STARTS or _is_start(init, STARTS[kind]):
        return total
    return combine(builder, kind, type_, lower(builder, trace, node.args[0], env), total)


def _is_start(init: TraceOp, start: float) -> bool:
    bits = {Op.CONST: float_bits, Op.CONST64: double_bits}.get(init.op, float)
    return init.op in CONSTANTS.values() and init.imm == bits(start)


def _is_number(init: TraceOp) -> bool:
    return init.op is Op.CONST and not isnan(bits_float(init.imm))


def _across(builder: KernelBuilder, kind: str, type_: str, value: Lanes, number: bool) -> Lanes:
    """One result from all lanes, in all lanes. From a `number` no lane of an fmax is NaN."""
    op = REDUCERS[kind].op
    if op in ACROSS and type_ == "f32" and (number or op not in (Op.FMAX, Op.FMIN)):
        return builder.emit(ACROSS[op], value)
    if isinstance(value, Pair):
        value = combine(builder, kind, type_, value, Pair(value.high, value.low))
    distance = builder.lanes // 2
    while distance >= WIDTH[type_] // 32:
        turned = tuple((lane + distance) % builder.lanes for lane in range(builder.lanes))
        other = tuple(builder.emit(K.PERMUTE, v, imm=turned) for v in flat((value,)))
        value = combine(builder, kind, type_, value, *grouped(other, (value,)))
        distance //= 2
    return value

