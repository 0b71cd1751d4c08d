"""Which sizes take which path: the tree of all conditions that runs recorded.

    path ::= (condition, outcome), (condition, outcome), ...      in the order of the run

Two sizes with the same path run the same code. Where a path turned one way at a condition and no
run turned the other, sizes are looked for that do: they are run, or a proof (Fourier-Motzkin) says
that there are none, or the function is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import gcd, isqrt, prod

import numpy as np

from .classes import Sizes
from .conditions import HOLDS, NEGATED

MOST_ROWS = 400  # inequalities of one proof
MOST_GRID = 60_000  # sizes that are tried for one branch
Places = tuple[int, ...]  # the dimensions of a monomial by their place in the declaration


@dataclass(frozen=True, slots=True)
class Test:
    """sum of coefficient * product of n[place] `relation` 0."""

    terms: tuple[tuple[int, Places], ...]
    relation: str

    def holds(self, sizes: Sequence) -> np.ndarray | bool:
        total = sum(c * prod(sizes[p] for p in m) for c, m in self.terms)
        return HOLDS[self.relation](total)

    def negated(self) -> Test:
        return Test(self.terms, NEGATED[self.relation])

    def at_least_zero(self) -> Iterator[list[Row]]:
        """As alternatives of rows `row >= 0` over integers."""
        p = {m: c for c, m in self.terms}
        minus = {m: -c for m, c in p.items()}
        below, above = _plus(minus, -1), _plus(p, -1)  # p <= -1, p >= 1
        yield from {
            "l": [[below]], "ge": [[p]], "le": [[minus]], "g": [[above]], "e": [[p, minus]],
            "ne": [[below], [above]],
        }[self.relation]  # fmt: skip


Row = dict[Places, int]
Path = tuple[Test, ...]


def _plus(row: Row, constant: int) -> Row:
    return {**row, (): row.get((), 0) + constant}


# ---- sizes that satisfy a path


@cache
def find(path: Path, low: Sizes, far: Sizes, apart: bool = False) -> Sizes | None:
    """The smallest sizes from `low` up to `far` that satisfy every test; `apart` wants them
    different from each other. None where no candidate does."""
    for ranges in _candidates(path, low, far):
        grid = np.meshgrid(*ranges, indexing="ij", sparse=True)
        good = np.ones(tuple(map(len, ranges)), bool)
        for test in path:
            good &= test.holds(grid)
        for k in range(len(low)) if apart else ():
            for j in range(k):
                good &= grid[k] != grid[j]
        if good.any():
            total = np.where(good, sum(grid), np.iinfo(np.int64).max)
            place = np.unravel_index(np.argmin(total), good.shape)
            return tuple(int(r[k]) for r, k in zip(ranges, place, strict=True))
    return None


def _candidates(path: Path, low: Sizes, far: Sizes) -> Iterator[list[np.ndarray]]:
    """Grids to look at: few sizes of each dimension near where tests change, then all."""
    wide = [np.arange(a, b + 1, dtype=np.int64) for a, b in zip(low, far, strict=True)]
    if prod(map(len, wide)) <= 1000:
        yield wide
        return
    edges = sorted({e for test in path for e in _edges(test)})
    sums = {a + b for a in edges for b in edges} if len(edges) < 12 else set()
    near = {e + d for e in {*edges, *sums} for d in (-1, 0, 1, 2)} | set(range(8))
    most = int(MOST_GRID ** (1 / len(low)))
    yield [_picked(near, a, b, most) for a, b in zip(low, far, strict=True)]
    if prod(map(len, wide)) <= 2 * MOST_GRID:
        yield wide


def _picked(near: Iterable[int], low: int, high: int, most: int) -> np.ndarray:
    values = sorted({min(max(x, low), high) for x in (*near, low, low + 1, low + 2)})
    return np.array(values[:most], np.int64)


def _edges(test: Test) -> Iterator[int]:
    """Where a test changes when the other dimensions are small."""
    constant = abs(sum(c for c, m in test.terms if not m))
    for coef, mono in test.terms:
        if mono:
            yield constant // abs(coef)
            if len(mono) > 1:
                yield isqrt(constant // abs(coef))


# ---- a proof that there are none


def impossible(path: Path, least: Sizes, most: Sizes) -> bool:
    """Whether no integers least <= n <= most satisfy the path. False is no statement."""
    choices = [list(test.at_least_zero()) for test in path]
    if prod(map(len, choices)) > 64:
        return False
    return all(
        _empty([r for rows in pick for r in rows], least, most) for pick in product(*choices)
    )


def _empty(rows: list[Row], least: Sizes, most: Sizes) -> bool:
    """Fourier-Motzkin elimination: pairs of bounds of one variable, until only constants remain."""
    low, high = _ranges(rows, least, most)
    monos = {m for row in rows for m in row if m} | {(k,) for k in range(len(most))}
    for mono in monos:
        lowest = prod(low[p] for p in mono)
        rows = [*rows, {mono: 1, (): -lowest}, {mono: -1, (): prod(high[p] for p in mono)}]
        for p in set(mono) if lowest and len(mono) > 1 else ():
            rows.append({mono: 1, (p,): -1})  # m*n >= m where n >= 1
    for mono in monos:
        rows = _eliminated([_tight(r) for r in rows], mono)
        if rows is None:
            return False
    return any(row.get((), 0) < 0 for row in rows)


def _ranges(rows: list[Row], least: Sizes, most: Sizes) -> tuple[list[int], list[int]]:
    """Bounds of each dimension from the rows that have no other."""
    low, high = list(least), list(most)
    for row in rows:
        ((mono, coef), *more) = [(m, c) for m, c in row.items() if m] or [((), 0)]
        if more or len(mono) != 1:
            continue
        constant = row.get((), 0)
        if coef > 0:
            low[mono[0]] = max(low[mono[0]], -(constant // coef))
        else:
            high[mono[0]] = min(high[mono[0]], constant // -coef)
    return low, high


def _tight(row: Row) -> Row:
    """Integers: 3n - 4 >= 0 is n - 2 >= 0."""
    factor = gcd(*(c for m, c in row.items() if m))
    return {m: c // factor for m, c in row.items() if c or not m} if factor > 1 else row


def _eliminated(rows: list[Row], mono: Places) -> list[Row] | None:
    lower = [r for r in rows if r.get(mono, 0) > 0]
    upper = [r for r in rows if r.get(mono, 0) < 0]
    if len(lower) * len(upper) > MOST_ROWS:
        return None
    kept = {tuple(sorted(r.items())) for r in rows if not r.get(mono, 0)}
    for a, b in product(lower, upper):
        both = {m: -b[mono] * a.get(m, 0) + a[mono] * b.get(m, 0) for m in {*a, *b}}
        kept.add(tuple(sorted((m, c) for m, c in both.items() if c)))
    return [dict(r) for r in kept]
