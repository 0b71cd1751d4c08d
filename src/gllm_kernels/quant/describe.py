"""From the values of all lanes to a description: x = A*(q + Z) + B, shared by groups of lanes.

Of the factors of a value, the one that the fewest lanes have is its code q, the others are A. The
bits of q that more lanes read than the rest are Z, a zero point.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from math import prod

import numpy as np

from ..lift.error import Refusal
from ..lift.nodes import Node
from ..trace.ir import Op
from .desc import Code, Leaf, Levels, QuantDesc, Scale, checked, merged
from .parts import Factors, Integer, Looked, Part, Product, as_integers, rounding
from .tables import MOST_BITS, Array, Tables, needed

MOST_INDEX = 12  # bits that choose one of 4096 codes
SCALED = "x = A*(q + Z) + B, one code q in each value"


def describe(lanes: list[Node], tables: Tables, size: int) -> QuantDesc:
    """The description, or a Refusal that names the lanes that have none."""
    factors = Factors(tables)
    sums = _each(lanes, lambda x: _terms(x, factors))
    counts = Counter(part for terms in sums for part in {p for t in terms for p in t.parts})
    split = _each(sums, lambda terms: _split(terms, counts))
    shares = Counter(share for _, q, _ in split for share in _shares(q))
    rows = _each(split, lambda row: _row(row, shares))
    groups: dict[tuple, int] = {}
    numbers = tuple(groups.setdefault(row[1:4], len(groups)) for row in rows)
    scales, zeros, offsets = zip(*groups, strict=True)
    levels = {row[4] for row in rows}
    if len(levels) > 1:
        raise Refusal("lanes with different levels", "one table of levels for all lanes")
    codes = tuple(row[0] for row in rows)
    desc = QuantDesc(size, codes, numbers, scales, zeros, offsets, levels.pop())
    try:
        return checked(desc)
    except ValueError as beyond:
        raise Refusal(str(beyond)) from None


def _each(items: Iterable, step) -> list:
    """step of every lane; where some refuse, a Refusal with the lanes for each reason."""
    made, failed = [], {}
    for lane, item in enumerate(items):
        try:
            made.append(step(item))
        except Refusal as refusal:
            failed.setdefault(refusal.what, (refusal, []))[1].append(lane)
    for refusal, lanes in failed.values():
        refusal.what = f"{refusal.what}, in lanes {_ranges(lanes)} of {lane + 1}"
        raise refusal
    return made


def _ranges(lanes: list[int]) -> str:
    runs: list[list[int]] = []
    for lane in lanes:
        if runs and runs[-1][1] == lane - 1:
            runs[-1][1] = lane
        else:
            runs.append([lane, lane])
    return ", ".join(f"{a}..{b}" if a < b else str(a) for a, b in runs)


# ---- one lane


def _terms(x: Node, factors: Factors) -> tuple[Product, ...]:
    """x as one product, or as the sum of two."""
    if x.op not in (Op.ADD, Op.SUB, Op.FMA):
        return (factors.product(x),)
    found = factors.tables.table(x)
    made = found and factors.tabulated(*found)
    if made:
        return (made,)
    *first, last = x.args
    one, two = [factors.product(a) for a in first], factors.product(last)
    if x.op is Op.FMA:
        one = [one[0].times(one[1])]
        if rounding(one[0].const, one[0].parts):
            raise Refusal("an fma whose product would round", "compile with -ffp-contract=off")
    return one[0], Product(-two.const, two.parts, two.rounded) if x.op is Op.SUB else two


def _split(terms: tuple[Product, ...], counts: Counter) -> tuple[Product, list[Part], Product | None]:
    """(A*q, the parts that are q, B)."""
    choosable = [[p for p in t.parts if not isinstance(p, Leaf) or p.table] for t in terms]
    rarest = [min((counts[p] for p in parts), default=0) for parts in choosable]
    known = [r for r in rarest if r]
    if not known:
        raise Refusal("a value without a code", SCALED)
    k = rarest.index(min(known))
    q = [p for p in choosable[k] if counts[p] == rarest[k]]
    if any(r == rarest[k] for j, r in enumerate(rarest) if j != k):
        raise Refusal("two codes in one value", SCALED)
    return terms[k], q, terms[1 - k] if len(terms) > 1 else None


def _shares(q: list[Part]) -> list[tuple]:
    """What lanes may share of a code: each bit that adds a constant, and what remains."""
    if len(q) > 1 or not isinstance(q[0], Integer):
        return []
    (part,) = q
    weights, rest = separated(part.table)
    found = [(at, w) for at, w in zip(part.positions, weights, strict=True) if w is not None]
    inner = tuple(at for at, w in zip(part.positions, weights, strict=True) if w is None)
    return [*found, (inner, rest)] if inner else found


def _row(row: tuple, shares: Counter) -> tuple[Code, Scale, Code | None, Scale | None, Levels | None]:
    """(q, A, Z, B, levels) of a lane."""
    term, q, added = row
    rest = tuple(p for p in term.parts if p not in q)
    zero, levels = None, None
    if len(q) == 1 and isinstance(q[0], Looked):
        code, levels = _positions(q[0]), Levels(offset=q[0].offset)
    elif len(q) == 1 and isinstance(q[0], Leaf):
        code, levels = Code(q[0].fields, 0, len(q[0].table) - 1), Levels(q[0].table)
    else:
        integers = [p for p in q if isinstance(p, Integer)]
        if len(integers) < len(q):
            raise Refusal("a code of integers and of floats of a table")
        _check_zeros(integers)
        own, shared = _without_zero(integers, shares)
        code, zero = code_of(own), shared and code_of([shared])
    scale = scale_of(term.const, rest)
    _check_rounding(term, scale, rest)
    offset = scale_of(added.const, added.parts) if added else None
    if added:
        _check_rounding(added, offset, added.parts, whole=False)
    return code, scale, zero, offset, levels


def _check_zeros(parts: list[Integer]) -> None:
    """The integer product of 0 and -1 is 0, that of floats is -0."""
    for part in parts:
        if len(parts) > 1 and (part.values == 0).any():
            raise Refusal(
                "a product of codes, one of which may be 0", "a code that is one integer",
                "multiply the integers, and convert the product: (float)(sign * level)",
            )  # fmt: skip


def _without_zero(q: list[Integer], shares: Counter) -> tuple[list[Integer], Integer | None]:
    """Take from the code the bits that more lanes share than the rest of it."""
    if len(q) > 1:
        return q, None
    (part,) = q
    own = min(map(shares.__getitem__, _shares(q)), default=0)
    weights, _ = separated(part.table)
    moved = tuple(k for k, (at, w) in enumerate(zip(part.positions, weights, strict=True))
                  if w is not None and shares[at, w] > own)  # fmt: skip
    if not moved:
        return q, None
    kept = tuple(k for k in range(len(part.positions)) if k not in moved)
    rest, zero = (
        Integer(tuple(part.positions[k] for k in ks), table)
        for ks, table in zip((kept, moved), _apart(part.table, kept, moved), strict=True)
    )
    return [rest], zero


@cache
def _apart(table: bytes, kept: tuple[int, ...], moved: tuple[int, ...]) -> tuple[bytes, bytes]:
    """The table over some bits, the others 0; and what the others add."""
    values = np.frombuffer(table, np.int32)
    return values[_spread(kept)].tobytes(), (values[_spread(moved)] - values[0]).tobytes()


@cache
def _spread(places: tuple[int, ...]) -> Array:
    """The index with the bits of k at `places`, for every k."""
    domain = np.arange(1 << len(places))
    return sum((domain >> i & 1) << place for i, place in enumerate(places)) + 0 * domain


@cache
def separated(table: bytes) -> tuple[tuple[int | None, ...], bytes]:
    """For every bit what it adds, None where that depends on others; and the table of the latter."""
    values, weights = np.frombuffer(table, np.int32), []
    for k in range(len(values).bit_length() - 1):
        pairs = values.reshape(-1, 2, 1 << k)
        steps = pairs[:, 1] - pairs[:, 0]
        weights.append(int(steps.flat[0]) if (steps == steps.flat[0]).all() else None)
    rest = values[_spread(tuple(k for k, w in enumerate(weights) if w is None))]
    return tuple(weights), (rest - rest[0]).tobytes()


# ---- codes and scales


def code_of(parts: list[Integer]) -> Code:
    """The code that a product of integers is; signs apart."""
    signs = [p for p in parts if len(parts) > 1 and set(np.unique(p.values)) == {-1, 1}]
    numbers = [p for p in parts if p not in signs]
    number = _joined(numbers) if numbers else signs.pop()
    wide = len(number.positions) > MOST_INDEX or np.ptp(number.values) > 255
    if wide and not signs and (number.values < 0).any():
        number, sign = _sign_and_size(number)
        signs = [sign]
    kind = _kind(number.table)
    fields = merged((number.positions[k], place) for k, place in kind[0])
    code = Code(fields, *kind[1:])
    if not signs:
        return code
    flips = [_parity(s.table) for s in signs]
    bits = Counter(s.positions[k] for s, (_, ks) in zip(signs, flips, strict=True) for k in ks)
    odd = tuple(sorted(at for at, n in bits.items() if n % 2))
    if code.off:  # the sign is of the whole number
        code = _with_offset_in_table(code)
    return Code(code.fields, 0, code.umax, code.xor, code.table, (sum(c for c, _ in flips) % 2, odd))


def _with_offset_in_table(code: Code) -> Code:
    n = sum(count for _, count, _ in code.fields)
    table = code.table or bytes(u ^ code.xor for u in range(1 << n))
    if code.off < 0 or code.umax + code.off > 255:
        raise Refusal("a sign of a number outside of 0..255")
    return Code(code.fields, 0, code.umax + code.off, 0, bytes(u + code.off for u in table))


@cache
def _kind(table: bytes) -> tuple[tuple[tuple[int, int], ...], int, int, int, bytes | None]:
    """((bit, place), ...), off, umax, xor, table."""
    values = np.frombuffer(table, np.int32)
    n, first = len(values).bit_length() - 1, int(values[0])
    weights, _ = separated(table)
    sizes = [abs(w) for w in weights if w is not None]
    powers = all(w and w & w - 1 == 0 for w in sizes) and len(set(sizes)) == len(sizes) == n
    if powers and sum(sizes) <= 255:
        places = tuple((k, abs(w).bit_length() - 1) for k, w in enumerate(weights))
        below = sum(-w for w in weights if w < 0)
        return places, first - below, sum(sizes), below, None
    low, high = int(values.min()), int(values.max())
    if n > MOST_INDEX or high - low > 255:
        raise Refusal(
            f"an integer of {n} bits from {low} to {high}",
            f"codes of 256 neighbouring integers at most, chosen by {MOST_INDEX} bits, and a sign",
        )
    return tuple((k, k) for k in range(n)), low, high - low, 0, (values - low).astype(np.uint8).tobytes()


def _joined(parts: list[Integer]) -> Integer:
    """The product of integers as one table."""
    if len(parts) == 1:
        return parts[0]
    positions = sorted({at for p in parts for at in p.positions})
    if len(positions) > MOST_BITS:
        raise Refusal(f"a code of {len(positions)} bits", f"codes of at most {MOST_INDEX} bits")
    domain = np.arange(1 << len(positions))
    where = {at: k for k, at in enumerate(positions)}
    tables = []
    for p in parts:
        index = sum((domain >> where[at] & 1) << k for k, at in enumerate(p.positions))
        tables.append(p.values[index])
    return Integer(tuple(positions), prod(tables[1:], start=tables[0]).astype(np.int32).tobytes())


def _sign_and_size(part: Integer) -> tuple[Integer, Integer]:
    """A table of sign * size where each depends on bits of its own."""
    if (part.values == 0).any():
        raise Refusal(f"a code of {len(part.positions)} bits", f"codes of at most {MOST_INDEX} bits")
    made = (needed(part.positions, f(part.values)) for f in (np.abs, np.sign))
    return tuple(Integer(at, values.astype(np.int32).tobytes()) for at, values in made)


@cache
def _parity(table: bytes) -> tuple[int, tuple[int, ...]]:
    """(c, bits): negative where c xor the parity of these bits is 1."""
    negative = np.frombuffer(table, np.int32) < 0
    first, n = bool(negative[0]), len(negative).bit_length() - 1
    bits = tuple(k for k in range(n) if negative[1 << k] != first)
    domain = np.arange(len(negative))
    if not np.array_equal(sum((domain >> k & 1 for k in bits), int(first)) & 1, negative):
        raise Refusal("a sign that is no parity of bits")
    return int(first), bits


@cache
def scale_of(const: float, parts: tuple[Part, ...]) -> Scale:
    """leaf * ... * code * const"""
    leaves = tuple(sorted((p for p in parts if isinstance(p, Leaf)), key=lambda leaf: leaf.fields))
    integers = [p for p in parts if isinstance(p, Integer)]
    if len(leaves) + len(integers) < len(parts):
        raise Refusal("a scale that is looked up in the block")
    _check_zeros(integers)
    if not integers:
        return Scale(const, None, leaves)
    odd, values = as_integers(_joined(integers).values.astype(np.float32)) or (1.0, None)
    if values is None:
        raise Refusal("a scale that is an integer of more than 15 bits")
    return Scale(const * odd, code_of([Integer(_joined(integers).positions, values.tobytes())]), leaves)


@cache
def _check_rounding(term: Product, scale: Scale, rest: tuple[Part, ...], whole: bool = True) -> None:
    """What rounds in the decoder rounds in the order of the description, and nothing else does."""
    order = [p for p in rest if isinstance(p, Leaf)]
    order.sort(key=lambda leaf: leaf.fields)
    steps = [tuple(order[:k]) for k in range(2, len(order) + 1)]
    steps += [rest] if len(rest) > 1 else []
    steps += [term.parts] if whole and len(term.parts) > 1 else []
    if frozenset().union(*(rounding(term.const, s) for s in steps)) != term.rounded:
        raise Refusal(
            "products that round in another order than ((leaf * leaf) * code) * q",
            SCALED, "multiply floats of the block first, then integers, then the code",
        )  # fmt: skip


def _positions(part: Looked) -> Code:
    """The index of a float of the block: a quarter of its byte offset."""
    values = part.index.values
    if (values % 4).any() or (values < 0).any():
        raise Refusal("a float of the block that does not begin at a multiple of 4 from the first")
    return code_of([Integer(part.index.positions, (values // 4).astype(np.int32).tobytes())])
