"""The loops over consecutive elements that every vector kernel is made of.

    for i in [lo, main) step lanes*copies:   body at i, i + lanes, ...     one accumulator each
    for i in [main, full) step lanes:        body at i
    for i in [full, hi) step lanes:          body at i, lanes >= hi - i do not exist   (at most once)
"""

from __future__ import annotations

from collections.abc import Callable

from .kernel import KernelBuilder, Value

Accumulators = tuple[Value, ...]
# (first element, constant shift, lanes that exist, accumulators) -> accumulators
Body = Callable[[Value, int, Value | None, Accumulators], Accumulators]


def strips(builder: KernelBuilder, lo: Value | None, hi: Value, copies: int, body: Body,
           inits: Accumulators = (), name: str = "") -> list[Accumulators]:
    """Run the body over [lo, hi), from 0 when `lo` is None; gives the accumulators of every copy.

    Each copy starts from `inits`. The remainder goes to copy 0, so that the order of additions
    depends on hi - lo alone.
    """
    lanes, width = builder.lanes, len(inits)
    size = hi if lo is None else hi - lo
    full, main = size & -lanes, size & -(lanes * copies)
    if lo is None:
        lo = builder.int(0)
    else:
        full, main = lo + full, lo + main
    groups = [inits] * copies
    if copies > 1:
        flat = [value for group in groups for value in group]
        with builder.loop(lo, main, lanes * copies, *flat, name=f"{name} x{copies}") as loop:
            groups = split(loop.phis, copies, width)
            groups = [body(loop.iv, u * lanes, None, g) for u, g in enumerate(groups)]
            loop.yields(*(value for group in groups for value in group))
        groups = split(loop.results, copies, width)
    with builder.loop(main if copies > 1 else lo, full, lanes, *groups[0], name=name) as loop:
        loop.yields(*body(loop.iv, 0, None, loop.phis))
    return [_tail(builder, full, hi, body, loop.results, name), *groups[1:]]


def _tail(builder: KernelBuilder, full: Value, hi: Value, body: Body, accs: Accumulators,
          name: str) -> Accumulators:
    """What is left behind whole vectors; a branch carries no values, so accumulators want a loop."""
    if not accs:
        with builder.when_less(full, hi):
            body(full, 0, hi - full, accs)
        return accs
    with builder.loop(full, hi, builder.lanes, *accs, name=f"{name} tail") as tail:
        tail.yields(*body(tail.iv, 0, hi - tail.iv, tail.phis))
    return tail.results


def split(values: Accumulators, copies: int, width: int) -> list[Accumulators]:
    return [values[u * width : (u + 1) * width] for u in range(copies)]
