"""Kernels without reductions: every element of the output is computed where it stands.

    out[i] = f(a[i], b[i], ...)                 units are elements
    out[i, j] = f(a[i, j], w[j], s[i], ...)     units are rows; s[i] is read once per row
    out[.., j], out[.., j + d] = f, g           several stores, values first: in place is right
    out[.., 2*j], out[.., 2*j + 1] = f, g       interleaved: even and odd lanes apart and together

What a load or a store is along the lanes follows from the step of its index, see `access`.
"""

from __future__ import annotations

from ..errors import CompileError
from ..trace.ir import Op, OpTrace, reachable
from .access import Env, integer
from .frame import Domain, begin, by_row, copies_for, domain_of, each_unit, units_of, weight
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Value
from .lower import hoist_stores, lower_stores
from .rewrite import prepare
from .strips import Accumulators, strips
from .tuning import TuningParams

ROOM = 24  # instructions: unrolling a longer body gains nothing measurable
ELEMENTS_PER_TILE = 2048  # 8 KB per array: a few arrays fit the first-level cache
ROWS_PER_TILE = 8  # a row of 32 pairs takes 6 ns, handing out a tile several times that


def generate(trace: OpTrace, isa: Isa, params: TuningParams) -> Kernel:
    """The kernel of a trace without reductions."""
    domain = domain_of(trace)
    if not domain:
        return generate_single(trace, isa)
    lane = domain[-1][0]
    trace = prepare(trace, lane)
    check_in_place(trace)
    builder = begin(trace, isa)
    along, once = by_row(trace)
    if len(domain) == 1 and once is None:
        env = Env({}, lane)
        map_strips(builder, trace, env, builder.emit(K.BEGIN), builder.emit(K.END), params.unroll)
        return builder.build(units_of(domain), ELEMENTS_PER_TILE)
    with each_unit(builder, domain[:-1]) as binders:
        map_row(builder, along, Env(binders, lane), domain, params.unroll)
        if once:
            lower_stores(builder, once, once.stores, Env(binders))
    return builder.build(units_of(domain[:-1]), ROWS_PER_TILE, unit="row")


def generate_single(trace: OpTrace, isa: Isa) -> Kernel:
    """One element altogether: out[0] = f(a[0], ...)."""
    trace = prepare(trace, "")
    builder = begin(trace, isa)
    with each_unit(builder, ()):
        lower_stores(builder, trace, trace.stores, Env({}))
    return builder.build(units_of(()), 1)


def map_row(builder: KernelBuilder, trace: OpTrace, env: Env, domain: Domain,
            unroll: int) -> None:
    """All elements of one row; an empty row reads nothing."""
    size = integer(builder, domain[-1][1], {})
    with builder.when_less(0, size):
        map_strips(builder, trace, env, None, size, unroll)


def map_strips(builder: KernelBuilder, trace: OpTrace, env: Env, lo: Value | None,
               hi: Value, unroll: int) -> None:
    """param[index] = value for the lane's binder in [lo, hi), from 0 without `lo`."""
    known = hoist_stores(builder, trace, trace.stores, env)
    cost = weight(trace, [s.value for s in trace.stores], env.lane) + len(trace.stores)

    def body(first: Value, shift: int, count: Value | None, accs: Accumulators) -> Accumulators:
        here = known.at({env.lane: first}, shift, count)
        lower_stores(builder, trace, trace.stores, here)
        return accs

    strips(builder, lo, hi, copies_for(unroll, cost, ROOM), body, name=env.lane)


def check_in_place(trace: OpTrace) -> None:
    """An array that is read and written must be read exactly where this point writes."""
    written: dict[str, set] = {}
    for target in trace.stores:
        written.setdefault(target.param, set()).add(target.index)
    for position in reachable(trace.body, *(s.value for s in trace.stores)):
        node = trace.body[position]
        if node.op is Op.LOAD and node.imm[0] in written and (
                node.imm[1] not in written[node.imm[0]]):
            raise CompileError(
                f"{trace.name}: {node.imm[0]}[{node.imm[1]}] is read where another element's "
                f"result may already stand; give the result an array of its own"
            )
