"""The array shape of a pointer param, read off the indices that a trace uses.

    x[i0*n + i1]  for i0 < m, i1 < n         ->  (m, n)
    cos[i0*d + i2 + d*pos]  for i0 < t       ->  (t + pos, d)

The strides of an index are the coefficients of its binders. Sorted by divisibility they are the
sizes of the rows, planes, ...: an inner extent is the ratio of two strides, the outermost one is
the largest position that any access reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, reduce
from itertools import product
from math import prod

from .affine import Affine, Monomial
from .ir import INDICES, Op, OpTrace, reachable

ONE: Monomial = ()
MOST_LEAST = 4
MOST_NUMBER = (1 << 31) - 1  # vector code has sizes and positions as 32-bit integers


@dataclass(frozen=True, slots=True)
class Access:
    """One index with the extents of the binders that it mentions."""

    index: Affine
    extents: tuple[tuple[str, Affine], ...]


@cache
def param_shape(trace: OpTrace, name: str) -> tuple[Affine, ...]:
    """Shape of the array that `name` points to, outermost dimension first."""
    found = tuple(accesses(trace, name))
    strides = _chain(found)
    if not found:
        return (Affine(),)
    if not all(_splits(access, strides) for access in found):
        strides = (Affine.const(1),)
    inner = [_ratio(big, small) for big, small in zip(strides[1:], strides, strict=False)]
    reach = [_reach(access, strides) for access in found]
    return (reduce(_larger, reach), *reversed(inner))


@cache
def least_sizes(trace: OpTrace) -> tuple[tuple[str, int], ...]:
    """Sizes below which something is read behind an array, m = x[0]; for i in 1 .. n, or an extent
    as n - 2 is negative."""
    dims = trace.names("dim")
    small = dict.fromkeys(dims, MOST_LEAST)
    least = {d: max((k + 1 for k in range(MOST_LEAST) if _outside(trace, {**small, d: k})), default=0)
             for d in dims}  # fmt: skip
    return tuple((d, k) for d, k in least.items() if k)


@cache
def reaches(trace: OpTrace) -> tuple[tuple[str, Affine, Affine], ...]:
    """(array, elements that an access needs, elements that its shape has) where the sizes decide
    whether there are enough: out[i*ld + j] for j < n needs n <= ld."""
    found = []
    for name in trace.names("in", "out", "inout"):
        have = prod(param_shape(trace, name), start=Affine.const(1))
        ends = (a.index.substitute({b: e - 1 for b, e in a.extents}) for a in accesses(trace, name))
        found += [(name, end + 1, have) for end in ends if not _never_negative(have - end - 1)]
    return tuple(dict.fromkeys(found))


@cache
def numbers(trace: OpTrace) -> tuple[Affine, ...]:
    """For each polynomial of sizes and positions that is used as a number, another that its absolute
    value never exceeds, in dimensions only: (float)(i*n - 3) for i < m gives m*n + 3."""
    loops = {pair for store in trace.stores for pair in store.domain}
    loops |= {node.imm[1:] for node in trace.body if node.op is Op.REDUCE}
    most: dict[str, Affine] = {}
    for binder, extent in loops:
        most[binder] = most.get(binder, Affine()) + _absolute(extent)
    used = [node.imm for node in trace.body if node.op in INDICES]
    return tuple(dict.fromkeys(_absolute(value).substitute(most) for value in used))


def _absolute(value: Affine) -> Affine:
    return Affine(tuple([(abs(coef), mono) for coef, mono in value.terms]))


def _outside(trace: OpTrace, sizes: dict[str, int]) -> bool:
    """Whether an extent is negative at these sizes, or an access lies behind the array that
    `param_shape` gives."""
    extents = [e for s in trace.stores for _, e in s.domain]
    extents += [n.imm[2] for n in trace.body if n.op is Op.REDUCE]
    if any(e.evaluate(sizes) < 0 for e in extents):
        return True
    for name in trace.names("in", "inout"):
        room = prod(size.evaluate(sizes) for size in param_shape(trace, name))
        if any(last >= room for _, last in reached(accesses(trace, name), sizes)):
            return True
    return False


def reached(found: Iterable[Access], sizes: dict[str, int]) -> Iterator[tuple[int, int]]:
    """First and last element of every access, but those inside empty loops."""
    for access in found:
        ends = {b: (0, e.evaluate(sizes) - 1) for b, e in access.extents}
        if all(last >= 0 for _, last in ends.values()):
            corners = [
                {**sizes, **dict(zip(ends, row, strict=True))} for row in product(*ends.values())
            ]
            places = [access.index.evaluate(corner) for corner in corners]
            yield min(places), max(places)


def accesses(trace: OpTrace, name: str) -> Iterator[Access]:
    """Every place where `name` is loaded or stored."""
    for store in trace.stores:
        live = [trace.body[p] for p in reachable(trace.body, store.value)]
        bound = dict(store.domain)
        bound.update({n.imm[1]: n.imm[2] for n in live if n.op is Op.REDUCE})
        if store.param == name:
            yield _access(store.index, bound)
        for node in live:
            if node.op is Op.LOAD and node.imm[0] == name:
                yield _access(node.imm[1], bound)


def _access(index: Affine, bound: dict[str, Affine]) -> Access:
    """The same places counted upwards: n - 1 - i runs over what i runs over."""
    for binder, extent in bound.items():
        step = index.coefficient(binder)
        if step.terms and all(coef < 0 for coef, _ in step.terms):
            index = index.substitute({binder: extent - 1 - Affine.sym(binder)})
    return Access(index, tuple((b, e) for b, e in bound.items() if b in index.symbols))


def _chain(found: tuple[Access, ...]) -> tuple[Affine, ...]:
    """The strides of all accesses, 1 first, each dividing the next; (1,) when there is no chain."""
    strides = {Affine.const(1)}
    for access in found:
        for binder, _ in access.extents:
            stride = access.index.coefficient(binder)
            if stride.constant is None:
                strides.add(stride)
    chain = sorted(strides, key=lambda s: (len(s.terms[0][1]), abs(s.terms[0][0])))
    pairs = zip(chain[1:], chain, strict=False)
    linked = all(_ratio(big, small).terms for big, small in pairs)
    return tuple(chain) if linked else (Affine.const(1),)


def _splits(access: Access, strides: tuple[Affine, ...]) -> bool:
    """Whether every term of the index belongs to exactly one stride of the chain."""
    return all(_level((c, m), strides) >= 0 for c, m in access.index.terms)


def _level(term: tuple[int, Monomial], strides: tuple[Affine, ...]) -> int:
    """The outermost stride that divides `term`."""
    one = Affine((term,))
    return max((k for k, s in enumerate(strides) if _ratio(one, s).terms), default=-1)


def _ratio(big: Affine, small: Affine) -> Affine:
    """big / small where small is one term that divides every term of big, else 0."""
    (coef, mono), *more = small.terms
    parts = [_divide(c, m, coef, mono) for c, m in big.terms]
    return Affine() if more or None in parts else Affine.of(p for p in parts if p)


def _divide(coef: int, mono: Monomial, by: int, symbols: Monomial) -> tuple[int, Monomial] | None:
    rest = list(mono)
    for symbol in symbols:
        if symbol not in rest:
            return None
        rest.remove(symbol)
    return (coef // by, tuple(rest)) if coef % by == 0 else None


def _reach(access: Access, strides: tuple[Affine, ...]) -> Affine:
    """1 + the largest position along the outermost stride."""
    outer = strides[-1]
    binders = [b for b, _ in access.extents]
    total = Affine.const(1)
    for binder, extent in access.extents:
        stride = access.index.coefficient(binder)
        if _level(stride.terms[0], strides) == len(strides) - 1 and stride.terms[0][0] > 0:
            total += _ratio(stride, outer) * (extent - 1)
    for term in access.index.without(*binders).terms:
        if _level(term, strides) == len(strides) - 1:
            total += _ratio(Affine((term,)), outer)
    return total


def _larger(a: Affine, b: Affine) -> Affine:
    """The larger of two reaches where every size is at least 1; their sum where neither is."""
    if _never_negative(a - b):
        return a
    return b if _never_negative(b - a) else a + b


def _never_negative(d: Affine) -> bool:
    """x[0] beside x[i], i < n: n - 1 >= 0."""
    grows = all(c >= 0 for c, mono in d.terms if mono)
    return grows and sum(c for c, _ in d.terms) >= 0
