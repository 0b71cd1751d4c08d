"""Integers of the concolic run: a polynomial and, beside it, its value at the chosen sizes.

    integer ::= int | Poly(sum of coefficient * atom * atom * ..., value)
    atom    ::= dimension | pointer | counter(loop, round) | opaque(number)

Integers are mathematical: nothing wraps. Where the machine would, `fits` proves that it does not.
Atoms are numbers, in this order, so that the last atom of a sorted monomial tells what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

POINTER = 1 << 20  # dimensions are 0, 1, 2, ...; pointers POINTER + k
LOADED = 1 << 39  # a pointer too: how far the code and its constants are moved in memory
COUNTER = 1 << 40  # COUNTER + loop << 24 | round
OPAQUE = 1 << 60
ROUNDS = 24
MOST_ROUNDS = 1 << ROUNDS
Mono = tuple[int, ...]
ONE: Mono = ()

# The widest dimension for which index arithmetic has to be exact, see `fits`.
DIM_64, DIM_32, PRODUCT_32 = 1 << 31, 1 << 24, 1 << 14
EXTENT_64 = 1 << 47  # user addresses have 47 bits (Intel SDM vol. 1, 3.3.7.1)


class Poly:
    """A polynomial that is not a constant. Terms are never changed once it is made."""

    __slots__ = ("_hash", "terms", "value")

    def __init__(self, terms: dict[Mono, int], value: int) -> None:
        self.terms = terms
        self.value = value
        self._hash = 0

    def __eq__(self, other: object) -> bool:
        return self is other or (other.__class__ is Poly and self.terms == other.terms)

    def __hash__(self) -> int:
        if not self._hash:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash


class Low32:
    """A register whose low half is `poly` modulo 2^32 and whose high half is zero."""

    __slots__ = ("poly",)

    def __init__(self, poly: Poly) -> None:
        self.poly = poly


Int = int | Poly


class NeedPeriod(Exception):
    """The code looks at dimensions modulo something: {dimension: period}."""

    def __init__(self, periods: dict[int, int]) -> None:
        super().__init__(str(periods))
        self.periods = periods


class NotAnInteger(Exception):
    """Integer arithmetic met a value that is data or undefined."""


def atom(number: int, value: int) -> Poly:
    return Poly({(number,): 1}, value)


def loaded(address: int) -> Poly:
    """An address in the code or its constants: a number that is another one in every process."""
    return Poly({(LOADED,): 1, ONE: address}, address)


def unloaded(a: Int) -> Int:
    """An address in the code or its constants as the image has it; any other as it is."""
    return sub(a, atom(LOADED, 0)) if a.__class__ is Poly and (LOADED,) in a.terms else a


def counter(loop: int, round_: int) -> int:
    return COUNTER + (loop << ROUNDS) + round_


def loop_of(number: int) -> int:
    return (number - COUNTER) >> ROUNDS


def round_of(number: int) -> int:
    return number & ((1 << ROUNDS) - 1)


def make(terms: dict[Mono, int], value: int) -> Int:
    """A polynomial, or an int when no atom is left."""
    if not terms:
        return 0
    return value if len(terms) == 1 and ONE in terms else Poly(terms, value)


def value_of(a: Int) -> int:
    return a if a.__class__ is int else a.value


def terms_of(a: Int) -> dict[Mono, int]:
    if a.__class__ is int:
        return {ONE: a} if a else {}
    return a.terms


def add(a: Int, b: Int, times: int = 1) -> Int:
    """a + times*b."""
    if a.__class__ is Poly and b.__class__ is Poly:
        terms = a.terms.copy()
        for mono, coef in b.terms.items():
            total = terms.get(mono, 0) + times * coef
            if total:
                terms[mono] = total
            else:
                del terms[mono]
        value = a.value + times * b.value
        return Poly(terms, value) if len(terms) > 1 else make(terms, value)
    if a.__class__ is int:
        if b.__class__ is int:
            return a + times * b
        return _shifted(scale(b, times), a)
    if a.__class__ is not Poly or b.__class__ is not int:
        raise NotAnInteger
    return _shifted(a, times * b)


def _shifted(a: Poly, constant: int) -> Poly:
    if not constant:
        return a
    terms = a.terms.copy()
    total = terms.get(ONE, 0) + constant
    if total:
        terms[ONE] = total
    else:
        del terms[ONE]
    return Poly(terms, a.value + constant)


def sub(a: Int, b: Int) -> Int:
    return add(a, b, -1)


def mul(a: Int, b: Int) -> Int:
    if b.__class__ is int:
        a, b = b, a
    if a.__class__ is int:
        return scale(b, a)
    if a.__class__ is not Poly or b.__class__ is not Poly:
        raise NotAnInteger
    terms = product(a.terms, b.terms)
    return make({m: c for m, c in terms.items() if c}, a.value * b.value)


def product(a: dict[Mono, int], b: dict[Mono, int]) -> dict[Mono, int]:
    """The terms of a*b; some may be 0."""
    terms: dict[Mono, int] = {}
    for m, c in a.items():
        for k, d in b.items():
            mono = tuple(sorted(m + k)) if m and k else m or k
            terms[mono] = terms.get(mono, 0) + c * d
    return terms


def scale(a: Int, factor: int) -> Int:
    if a.__class__ is int:
        return a * factor
    if a.__class__ is not Poly:
        raise NotAnInteger
    if factor == 1:
        return a
    return make({m: c * factor for m, c in a.terms.items()} if factor else {}, a.value * factor)


def divided(a: Int, factor: int) -> Int | None:
    """a / factor where it divides every coefficient, else None."""
    if a.__class__ is int:
        return a // factor if a % factor == 0 else None
    if any(c % factor for c in a.terms.values()):
        return None
    return Poly({m: c // factor for m, c in a.terms.items()}, a.value // factor)


def divided_by(a: Int, coef: int, mono: Mono, size: int) -> Int | None:
    """a / (coef * mono), where `size` is the value of mono, or None where a term does not divide."""
    if not mono or not size:
        return divided(a, coef) if size else None
    terms = {}
    for m, c in terms_of(a).items():
        rest = _without(m, mono)
        if rest is None or c % coef:
            return None
        terms[rest] = c // coef
    return make(terms, value_of(a) // (coef * size))


def _without(mono: Mono, factors: Mono) -> Mono | None:
    rest = list(mono)
    for factor in factors:
        if factor not in rest:
            return None
        rest.remove(factor)
    return tuple(rest)


def has_counter(a: Int) -> bool:
    if a.__class__ is Poly:
        for mono in a.terms:
            if mono and mono[-1] >= COUNTER:
                return True
    return False


def has_opaque(a: Int) -> bool:
    if a.__class__ is Poly:
        for mono in a.terms:
            if mono and mono[-1] >= OPAQUE:
                return True
    return False


def atoms_of(a: Int) -> Iterator[int]:
    return (x for m in terms_of(a) for x in m)


def counts(a: Int, loop: int) -> bool:
    """Whether the counter of this loop occurs."""
    first = counter(loop, 0)
    last = first + MOST_ROUNDS
    return a.__class__ is Poly and any([first <= x < last for m in a.terms for x in m])


def linear_in(a: Poly, loop: int) -> bool:
    """Whether no counter but that of this loop occurs, and it in no power."""
    first = counter(loop, 0)
    last = first + MOST_ROUNDS
    return all([first <= m[-1] < last and (len(m) == 1 or m[-2] < COUNTER)
                for m in a.terms if m and m[-1] >= COUNTER])  # fmt: skip


def loops_of(a: Int) -> set[int]:
    if not has_counter(a):
        return set()
    return {loop_of(x) for m in a.terms for x in m if COUNTER <= x < OPAQUE}


def has_pointer(a: Int) -> bool:
    if a.__class__ is Poly:
        for mono in a.terms:
            for x in mono:
                if POINTER <= x < COUNTER:
                    return True
    return False


def lower_bound(a: Int) -> int | None:
    """A proven lower bound: atoms are at least 0 and one address is at least 0."""
    if a.__class__ is int:
        return a
    if has_opaque(a):
        return None
    if sum(c for m, c in a.terms.items() if len(m) == 1 and POINTER <= m[0] < COUNTER) == 1:
        return 0
    return None if any(c < 0 for m, c in a.terms.items() if m) else a.terms.get(ONE, 0)


def upper_bound(a: Int) -> int | None:
    """A proven upper bound: atoms are at least 0."""
    if a.__class__ is int:
        return a
    if has_opaque(a):
        return None
    return None if any(c > 0 for m, c in a.terms.items() if m) else a.terms.get(ONE, 0)


def feasible(d: Poly, relation: str) -> bool:
    """Whether the ranges of the atoms, at least 0, leave both outcomes possible."""
    low = high = d.terms.get(ONE, 0)
    for mono, coef in d.terms.items():
        if mono and coef > 0:
            high = max(high, 1)
        elif mono:
            low = min(low, -1)
    if relation in ("e", "ne"):
        return low <= 0 <= high
    return low <= 0 < high if relation in ("le", "g") else low < 0 <= high


def fits(a: Int, width: int) -> bool:
    """Whether |a| < 2^(width-1) for all sizes within the contract."""
    if a.__class__ is int:
        return True
    known = not has_opaque(a)
    return known and ((width == 64 and _fits_64(a)) or (width == 32 and _fits_32(a)))


def _fits_64(a: Poly) -> bool:
    """A product of atoms is a position in a buffer, so it stays below 2^47 by contract."""
    total = 0
    for mono, coef in a.terms.items():
        pointer = len(mono) > 1 or (mono and POINTER <= mono[0] < COUNTER)
        total += abs(coef) * ((EXTENT_64 if pointer else DIM_64) if mono else 1)
    return total < 1 << 63


def element_index(a: Poly) -> tuple[int, dict[Mono, int]] | None:
    """(pointer, terms of the index) of pointer + 4*index that fits 64 bits, counters replaced by
    their rounds, in one pass; None where the address is anything else."""
    pointer, total, bits = 0, 0, 0
    terms: dict[Mono, int] = {}
    for mono, coef in a.terms.items():
        last = mono[-1] if mono else 0
        if last >= OPAQUE or (last >= COUNTER and len(mono) > 1 and mono[-2] >= POINTER):
            return None
        if POINTER <= last < COUNTER:
            if pointer or coef != 1 or len(mono) > 1:
                return None
            pointer, total = last, total + EXTENT_64
            continue
        total += abs(coef) * ((EXTENT_64 if len(mono) > 1 else DIM_64) if mono else 1)
        if last >= COUNTER:
            mono, coef = mono[:-1], coef * (last & (1 << ROUNDS) - 1)
        terms[mono] = terms.get(mono, 0) + coef
        bits |= coef
    if not pointer or total >= 1 << 63 or bits & 3:
        return None
    return pointer, {m: c >> 2 for m, c in terms.items() if c}


def _fits_32(a: Poly) -> bool:
    if has_pointer(a):
        return False  # an address loses its upper half
    degree = max(len(m) for m in a.terms)
    wanted = DIM_32 if degree == 1 else PRODUCT_32
    return extent_limit(a) >= wanted


def extent_limit(a: Poly, bits: int = 31) -> int:
    """The largest D with |a| < 2^bits while every atom is at most D."""
    room = (1 << bits) - 1
    sums = [0, 0, 0, 0]  # of coefficients by degree, the last from 3 on
    for mono, coef in a.terms.items():
        sums[min(len(mono), 3)] += abs(coef)
    constant, linear, square, more = sums
    if not more:
        room -= constant
        if not square:
            return max(0, room // linear)
        root = isqrt(linear * linear + 4 * square * max(0, room))
        return max(0, (root - linear) // (2 * square))
    low, high = 0, isqrt(room)
    while low < high:
        middle = (low + high + 1) // 2
        total = sum(abs(c) * middle ** len(m) for m, c in a.terms.items())
        low, high = (middle, high) if total <= room else (low, middle - 1)
    return low


def signed(value: int, width: int) -> int:
    """The representative of value modulo 2^width in [-2^(width-1), 2^(width-1))."""
    half = 1 << (width - 1)
    return ((value + half) & ((1 << width) - 1)) - half
