"""Which matrix product a bound trace is, read off its strides.

    c[h, i, j] = f(init + sum[r<k](a[h, i, r] * b[h, r, j]), ...)

`j` is the innermost binder of the stores (stride 1). B is the factor that moves with `j`, A the
other one; `i` is the innermost binder that moves A and not B; every other binder (heads) is batch.
Without an `i` there is one row: a matrix times a vector.

    c[h, i, j] = f(sum[r<k](a[h, i, r] * b[h, r, j]), sum[s<k](a[h, i, s] * d[h, s, j]), ...)

is a product too: `other` is the sum with d.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import CompileError
from ..trace.affine import Affine
from ..trace.ir import REALS, Op, OpTrace, reachable
from .access import storage_of
from .frame import domain_of
from .work import MOST_BATCH

ONE = Affine.const(1)


@dataclass(frozen=True, slots=True)
class Factor:
    """param[base + line*q + depth*r]: q is i for A and j for B, r the binder of the sum."""

    param: str
    base: Affine
    line: Affine
    depth: Affine

    @property
    def along(self) -> bool:
        """Are the terms of one sum neighbours in memory?"""
        return self.depth == ONE


@dataclass(frozen=True, slots=True)
class Other:
    """A second sum over the same A: its Reduce in the body, and what A is multiplied by."""

    position: int
    b: Factor


@dataclass(frozen=True, slots=True)
class Contraction:
    """The product inside a trace; `position` is the Reduce in its body, `m` is 1 without a row."""

    trace: OpTrace
    position: int
    a: Factor
    b: Factor
    batch: tuple[tuple[str, Affine], ...]
    row: str
    column: str
    m: Affine
    n: Affine
    k: Affine
    other: Other | None = None

    @property
    def units(self) -> Affine:
        """Elements of all batches."""
        total = self.m * self.n
        for _, extent in self.batch:
            total = total * extent
        return total


def contraction_of(trace: OpTrace) -> Contraction:
    """The one contraction of a bound trace, or CompileError saying what is in the way."""
    domain = domain_of(trace)
    if not domain:
        raise CompileError(f"{trace.name}: a matrix product has a column for every element of its "
                           "innermost binder, but the store has no domain")
    position, *more = _reduces(trace)
    _, depth, k = trace.body[position].imm
    column, n = domain[-1]
    a, b = _factors(trace, position, depth, column)
    others = dict(domain[:-1])
    moves = [s for s in others if a[1].coefficient(s).terms and not b[1].coefficient(s).terms]
    row = moves[-1] if moves else ""
    batch = tuple((s, e) for s, e in domain[:-1] if s != row)
    if len(batch) > MOST_BATCH:
        raise CompileError(f"{trace.name}: a product with {len(batch)} batch axes; the most are "
                           f"{MOST_BATCH}: merge some")
    made = Contraction(trace, position, factor_of(trace, a, row, depth),
                       factor_of(trace, b, column, depth), batch, row, column,
                       others.get(row, ONE), n, k)
    return replace(made, other=_other(made, more[0])) if more else made


def _other(product: Contraction, position: int) -> Other:
    """The second sum, if A is the same and its own factor lies as B does."""
    trace = product.trace
    _, depth, k = trace.body[position].imm
    a, b = _factors(trace, position, depth, product.column)
    same = factor_of(trace, a, product.row, depth) == product.a and k == product.k
    found = factor_of(trace, b, product.column, depth)
    stored = [storage_of(trace, factor.param) for factor in (found, product.b)]
    alike = found.along == product.b.along and stored[0] == stored[1] and stored[0] in REALS
    if not same or not alike:
        raise CompileError(f"{trace.name}: two sums of products share their first factor, and their "
                           f"second ones lie alike; {a[0]}[{a[1]}] and {b[0]}[{b[1]}] do not")
    return Other(position, found)


def _reduces(trace: OpTrace) -> list[int]:
    """The Reduce of the product, or both."""
    live = reachable(trace.body, *(s.value for s in trace.stores))
    found = [p for p in live if trace.body[p].op is Op.REDUCE]
    if not 1 <= len(found) <= 2:
        raise CompileError(f"{trace.name}: a matrix product has one reduction, or two that share a "
                           f"factor, found {len(found)}")
    for node in (trace.body[p] for p in found):
        term = trace.body[node.args[1]]
        loads = term.op is Op.MUL and all(trace.body[p].op is Op.LOAD for p in term.args)
        if node.imm[0] not in ("sum", "fma") or not loads:
            raise CompileError(f"{trace.name}: the reduction over {node.imm[1]} is {node.imm[0]} of "
                               f"{term.op}; a matrix product sums products of two loads")
    return found


def _factors(trace: OpTrace, position: int, depth: str, column: str) -> tuple[tuple, tuple]:
    """(param, index) of A and of B, whichever way round the product has them."""
    term = trace.body[trace.body[position].args[1]]
    pair = tuple(trace.body[p].imm for p in term.args)
    moved = [bool(index.coefficient(column).terms) for _, index in pair]
    if moved == [True, True] or moved == [False, False]:
        raise CompileError(f"{trace.name}: of the factors {pair[0][0]}[{pair[0][1]}] and "
                           f"{pair[1][0]}[{pair[1][1]}] exactly one may depend on {column}")
    return pair if moved[1] else pair[::-1]


def factor_of(trace: OpTrace, load: tuple[str, Affine], line: str, depth: str) -> Factor:
    """The load as lines of terms, or CompileError when neither are neighbours in memory."""
    param, index = load
    across = index.coefficient(line) if line else Affine()
    made = Factor(param, index.without(line, depth), across, index.coefficient(depth))
    if ONE not in (made.depth, made.line):
        raise CompileError(f"{trace.name}: {param}[{index}] steps by {made.depth} along {depth} "
                           f"and by {made.line} along {line or 'no row'}; one of them must be 1: "
                           f"make {param} contiguous along its last axis")
    return made
