"""Classes of sizes: in one class every size that the code takes remainders of is period*q + rest.

    n mod 8 = 3, m = 0        m mod 4 = 1, n >= 1

Where a dimension is empty other code may run, which takes remainders of other sizes: there the
classes are others. Inside a class masks and quotients of sizes are polynomials of the q.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, product

Sizes = tuple[int, ...]
Places = frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """Sizes period*q + rest with q >= low, which are 0 at the places of `empty`."""

    periods: Sizes
    rests: Sizes
    low: Sizes
    empty: Places

    def sizes(self, quotients: Sizes) -> Sizes:
        rows = zip(quotients, self.periods, self.rests, strict=True)
        return tuple(q * p + r for q, p, r in rows)

    def quotients(self, sizes: Sizes) -> Sizes:
        return tuple(s // p for s, p in zip(sizes, self.periods, strict=True))

    def least(self, sizes: Sizes) -> Sizes:
        """The smallest q of sizes that are at least those."""
        rows = zip(sizes, self.periods, self.rests, self.low, strict=True)
        return tuple(max(low, -((r - s) // p)) for s, p, r, low in rows)

    def most(self, far: int) -> Sizes:
        """The largest q of sizes up to `far`."""
        rows = enumerate(zip(self.periods, self.rests, strict=True))
        return tuple(0 if k in self.empty else (far - r) // p for k, (p, r) in rows)


@dataclass
class Classes:
    """The classes of one function, as fine as its code has asked for."""

    dims: tuple[str, ...]
    apart: Places = frozenset()  # where 0 has classes of its own
    periods: dict[Places, dict[int, int]] = field(default_factory=dict)  # by the places that are 0
    made: dict[tuple[Places, Sizes], Class] = field(default_factory=dict)

    def refine(self, sizes: Sizes, periods: dict[int, int]) -> None:
        """The run at `sizes` takes remainders of the sizes at these places."""
        empty = frozenset(k for k, s in enumerate(sizes) if s == 0)
        self.apart |= empty
        self.periods[empty] = self.periods.get(empty, {}) | periods
        self.made.clear()

    def of(self, sizes: Sizes) -> Class:
        empty = frozenset(k for k in self.apart if sizes[k] == 0)
        rests = tuple(s % p for s, p in zip(sizes, self._periods(empty), strict=True))
        return self._class(empty, rests)

    def divided(self) -> Iterator[Class]:
        """Those of sizes with remainders."""
        for count in range(len(self.apart) + 1):
            for empty in map(frozenset, combinations(sorted(self.apart), count)):
                ranges = map(range, self._periods(empty))
                if empty in self.periods:
                    yield from (self._class(empty, rests) for rests in product(*ranges))

    def _periods(self, empty: Places) -> Sizes:
        found = self.periods.get(empty, {})
        return tuple(found.get(k, 1) for k in range(len(self.dims)))

    def _class(self, empty: Places, rests: Sizes) -> Class:
        if (empty, rests) not in self.made:
            positive = self.apart - empty
            low = tuple(int(k in positive and r == 0) for k, r in enumerate(rests))
            self.made[empty, rests] = Class(self._periods(empty), rests, low, empty)
        return self.made[empty, rests]
