"""What every vector kernel is framed by: its parameters and the loop over its units.

    unit u in [begin, end)  ->  i0 = u / (n1*n2), i1 = u / n2 mod n1, i2 = u mod n2
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from ..errors import CompileError
from ..trace.affine import Affine
from ..trace.ir import WEIGHTS, Op, OpTrace
from ..trace.spec import free_symbols
from .access import integer
from .isa.base import Isa
from .kernel import I64, K, KernelBuilder, KParam, Value

KINDS = {"in": "ptr", "out": "ptr", "inout": "ptr", "dim": I64, "scalar": "f32"}
Domain = tuple[tuple[str, Affine], ...]


def begin(trace: OpTrace, isa: Isa) -> KernelBuilder:
    """A builder whose params are the trace's, and "return" last where a store goes there."""
    params = [KParam(p.name, KINDS[p.role]) for p in trace.params]
    if any(s.param == "return" for s in trace.stores) and "return" not in {
            p.name for p in params}:
        params.append(KParam("return", "ptr"))
    return KernelBuilder(trace.name, isa.lanes, tuple(params))


def domain_of(trace: OpTrace) -> Domain:
    """The domain of the stores; those that lack its last binder are stored once per row."""
    longest = max((s.domain for s in trace.stores), key=len)
    for target in trace.stores:
        if target.domain not in (longest, longest[:-1]):
            raise CompileError(f"{trace.name}: {target.param} is stored over another domain than the "
                               "rows of the others; one kernel needs one, split the trace by domain")
    return longest


def by_row(trace: OpTrace) -> tuple[OpTrace, OpTrace | None]:
    """The trace of the stores along the rows, and of those that belong to a row as a whole."""
    longest = max((s.domain for s in trace.stores), key=len)
    once = tuple(s for s in trace.stores if s.domain != longest)
    if not once:
        return trace, None
    along = tuple(s for s in trace.stores if s.domain == longest)
    return replace(trace, stores=along), replace(trace, stores=once)


def units_of(domain: Domain) -> Affine:
    total = Affine.const(1)
    for _, extent in domain:
        total = total * extent
    return total


@contextmanager
def each_unit(builder: KernelBuilder, domain: Domain) -> Iterator[Mapping[str, Value]]:
    """The loop over [begin, end); gives the binders of the unit."""
    first, last = builder.emit(K.BEGIN), builder.emit(K.END)
    with builder.loop(first, last, 1, name="units") as loop:
        yield decode(builder, domain, loop.iv)
        loop.yields()


def decode(builder: KernelBuilder, domain: Domain, unit: Value) -> dict[str, Value]:
    """The innermost binder changes fastest."""
    binders: dict[str, Value] = {}
    for name, extent in reversed(domain[1:]):
        size = integer(builder, extent, {})
        rest = unit / size
        binders[name] = unit - rest * size
        unit = rest
    if domain:
        binders[domain[0][0]] = unit
    return binders


def reach(trace: OpTrace, roots: Iterable[int], stop: Container[int] = ()) -> set[int]:
    """Positions below `roots` (and they themselves), not looking into a Reduce or below `stop`."""
    found: set[int] = set()
    pending = list(roots)
    while pending:
        position = pending.pop()
        if position not in found:
            found.add(position)
            if trace.body[position].op is not Op.REDUCE and position not in stop:
                pending.extend(trace.body[position].args)
    return found


def weight(trace: OpTrace, roots: Iterable[int], lane: str) -> int:
    """Vector instructions per element that `roots` cost, roughly; what no lane changes is free."""
    free = free_symbols(trace)
    return sum(WEIGHTS.get(trace.body[p].op, 1) for p in reach(trace, roots) if lane in free[p])


def copies_for(wanted: int, cost: int, room: int) -> int:
    """The largest power of two up to `wanted` that keeps the loop within `room` instructions.

    Long bodies overlap by themselves: a core looks hundreds of instructions ahead.
    """
    copies = 1 << (wanted.bit_length() - 1)
    while copies > 1 and copies * cost > room:
        copies //= 2
    return copies
