"""What both drivers of attention know of a bound trace: its two products and what hides a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import CompileError
from ..trace.attention import Attention, attention_of
from ..trace.ir import INDICES, Op, OpTrace, reachable
from .access import Env
from .contraction import Contraction, Factor, factor_of
from .frame import domain_of
from .kernel import K, KernelBuilder, Value
from .lower import hoist, lower
from .work import MOST_BATCH

LOWEST = 0xFF7FFFFF  # bits of the smallest finite number: where the running maximum starts
MINUS_INFINITY = 0xFF800000


@dataclass(frozen=True, slots=True)
class Heads:
    """The trace as products: `outer` is weights times v, whose a is q; `found` says what is where."""

    outer: Contraction
    k: Factor
    found: Attention


def heads_of(trace: OpTrace, shared: bool = False) -> Heads:
    """Rows are the innermost binder that moves q alone; with `shared` the one around it, if there is
    one: heads with the same keys and values. All other binders are batch."""
    found, domain = attention_of(trace), domain_of(trace)
    q, k, v = (trace.body[p].imm for p in (*found.factors, found.value))
    row, (column, n) = found.rows[-2:][0 if shared else -1], domain[-1]
    depth = trace.body[found.product].imm[1]
    batch = tuple((s, e) for s, e in domain[:-1] if s != row)
    if len(batch) > MOST_BATCH:
        raise CompileError(f"{trace.name}: attention with {len(batch)} batch axes; the most are "
                           f"{MOST_BATCH}: merge some")
    outer = Contraction(trace, found.total, factor_of(trace, q, row, depth),
                        factor_of(trace, v, column, found.key), batch, row, column,
                        dict(domain)[row], n, found.keys)
    return Heads(outer, factor_of(trace, k, found.key, depth), found)


def shifted(heads: Heads) -> tuple[bool, bool]:
    """(is what hides a key the same for all rows, is it the same for row i + 1 and key r + 1)."""
    trace, outer, key = heads.outer.trace, heads.outer, heads.found.key
    live = [trace.body[p] for p in reachable(trace.body, *heads.found.hides)]
    indices = [op.imm[1] if op.op is Op.LOAD else op.imm for op in live
               if op.op in (Op.LOAD, *INDICES)]
    steps = [(i.coefficient(outer.row), i.coefficient(key)) for i in indices]
    return not any(a.terms for a, _ in steps), all(a == -b for a, b in steps)


def row_of(b: KernelBuilder, heads: Heads, slots: Mapping[str, Value], number: Value,
           positions: Iterable[int]) -> Env:
    """What the keys of a row share; the keys lie along the lanes."""
    outer, key = heads.outer, heads.found.key
    binders = {binder: slots[binder] for binder, _ in outer.batch}
    env = Env(binders | {outer.row: number, key: b.int(0)}, key)
    return hoist(b, outer.trace, positions, env)


def seen(b: KernelBuilder, heads: Heads, env: Env) -> Value:
    """The lanes that exist and see their key."""
    lanes = b.emit(K.FIRST, env.count)
    for position in heads.found.hides:
        added = lower(b, heads.outer.trace, position, env)
        hidden = b.emit(K.VLE, added, b.bits(MINUS_INFINITY))  # not so for NaN
        lanes = b.emit(K.MAND, lanes, b.emit(K.MNOT, hidden))
    return lanes


def without_keys(b: KernelBuilder) -> Value:
    """What l starts from: without keys the sum is 0 / 1."""
    return b.emit(K.VI2F, b.emit(K.SPLAT, b.int(1) - b.emit(K.IMIN, b.arg("keys"), b.int(1))))
