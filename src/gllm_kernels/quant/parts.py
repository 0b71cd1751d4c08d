"""Factors of a value: every float expression is a product of a constant, integers and floats.

    Product ::= const * Part * Part * ...
    Part    ::= Integer(table over few bits) | Leaf | Looked(offset, index)

What an expression is, its table says. Multiplications of data are taken apart, and those that round
are remembered, because a description must round in the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import frexp

import numpy as np

from ..lift.error import Refusal
from ..lift.nodes import Node
from ..trace.ir import Op
from .desc import Leaf, merged
from .machine import GATHER
from .tables import Array, Positions, Tables

MANTISSA = 24  # bits of a float32, the hidden one included
BYTE = 8  # bits that may choose a float of a table
MOST_INTEGER = 1 << 15
HALVES = np.arange(1 << 16, dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer of the bits at `positions`: int32 values as bytes."""

    positions: Positions
    table: bytes

    @property
    def values(self) -> Array:
        return np.frombuffer(self.table, np.int32)


@dataclass(frozen=True, slots=True)
class Looked:
    """The float32 of the block at byte `offset` + index."""

    offset: int
    index: Integer


Part = Integer | Leaf | Looked


@dataclass(frozen=True, slots=True)
class Product:
    """`rounded` holds the parts of every partial product that may not be exact."""

    const: float = 1.0
    parts: tuple[Part, ...] = ()
    rounded: frozenset[frozenset] = frozenset()

    def times(self, other: Product) -> Product:
        """The float32 product of both."""
        const, parts = self.const * other.const, self.parts + other.parts
        rounded = self.rounded | other.rounded
        if self.parts and other.parts:
            rounded |= rounding(const, parts)
        return Product(const, parts, rounded)


def rounding(const: float, parts: tuple[Part, ...]) -> frozenset[frozenset]:
    """One set where the product of all may have more bits than a float has, else none."""
    total = sum(map(mantissa, parts)) + significant([const])
    return frozenset({frozenset(parts)}) if total > MANTISSA else frozenset()


@cache
def mantissa(part: Part) -> int:
    """The most significant bits that a part can have."""
    if isinstance(part, Integer):
        return _digits(part.table)
    if isinstance(part, Leaf) and part.table:
        return significant(np.array(part.table, np.uint32).view(np.float32).tolist())
    return {"f16": 11, "bf16": 8}.get(getattr(part, "kind", "f32"), MANTISSA)


@cache
def _digits(table: bytes) -> int:
    sizes = np.abs(np.frombuffer(table, np.int32).astype(np.int64))
    odd = sizes // np.maximum(sizes & -sizes, 1)
    return int(odd.max()).bit_length()


def significant(values: list[float]) -> int:
    """Bits between the first and the last one, the most of all finite numbers."""
    whole = [int(abs(frexp(x)[0]) * (1 << MANTISSA)) for x in values if abs(x) < float("inf")]
    return max((MANTISSA - (m & -m).bit_length() + 1 for m in whole if m), default=1)


class Factors:
    """Products of the expressions of one decoder."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.made: dict[Node, Product] = {}
        self.kinds: dict[int, tuple] = {}  # by the identity of a table, which `tables` keeps

    def product(self, x: Node) -> Product:
        if x not in self.made:
            self.made[x] = self._product(x)
        return self.made[x]

    def _product(self, x: Node) -> Product:
        if x.op is Op.MUL and all(self.depends(a) for a in x.args):
            return self.product(x.args[0]).times(self.product(x.args[1]))
        if x.op is Op.REAL and x.args[0].op is Op.LOAD and x.args[0].imm[2] == 4:
            return Product(1.0, (Leaf("f32", ((8 * x.args[0].imm[1], 32, 0),)),))
        if x.op is Op.REAL and x.args[0].op == GATHER:
            return self._looked(x.args[0])
        found = self.tables.table(x)
        made = found and self.tabulated(*found)
        if made:
            return made
        if x.op in (Op.NEG, Op.MUL):
            one, *rest = map(self.product, x.args)
            return one.times(rest[0]) if rest else Product(-one.const, one.parts, one.rounded)
        if x.op is Op.SELECT and Op.NEG in (x.args[1].op, x.args[2].op):
            return self._signed(*x.args)
        raise Refusal(
            "a factor that is no integer of a few bits, no float of the block and no table",
            "A*q + B with integers of at most 16 bits and floats of the block",
        )

    def depends(self, x: Node) -> bool:
        return bool(self.tables.shape(x)[1])

    def _signed(self, condition: Node, then: Node, other: Node) -> Product:
        """c ? -x : x"""
        inner, sign = (other, -1) if then.op is Op.NEG else (then, 1)
        outer = then if sign < 0 else other
        choice = self.tables.table(condition)
        if outer.op is not Op.NEG or outer.args[0] is not inner or choice is None:
            raise Refusal("a choice between two values that are not x and -x")
        signs = np.where(choice[1], sign, -sign).astype(np.int32)
        return self.product(inner).times(Product(1.0, (Integer(choice[0], signs.tobytes()),)))

    def _looked(self, x: Node) -> Product:
        offset, size = x.imm
        found = self.tables.table(x.args[0])
        if size != 4 or found is None or offset.__class__ is not int:
            raise Refusal("a position in the block that depends on more than a few bits")
        return Product(1.0, (Looked(offset, Integer(found[0], found[1].astype(np.int32).tobytes())),))

    def tabulated(self, positions: Positions, values: Array) -> Product | None:
        """The product that a table of floats is; None where it is none."""
        key = id(values)
        if key not in self.kinds:
            self.kinds[key] = _recognised(values, len(positions))
        kind, const, more = self.kinds[key]
        if kind == "none":
            return None
        if kind == "integer":
            return Product(const, (Integer(positions, more),) if positions else ())
        fields = merged(zip(positions, range(BYTE) if kind == "table" else more, strict=False))
        return Product(1.0, (Leaf(kind, fields, more if kind == "table" else ()),))


def _recognised(values: Array, bits: int) -> tuple[str, float, object]:
    """(kind, const, places of the bits | integers | floats)."""
    if bits == 16:
        for kind, standard in (("f16", _f16()), ("bf16", _bf16())):
            places = _permutation(values, standard)
            if places:
                return kind, 1.0, places
    scaled = as_integers(values)
    if scaled:
        return "integer", scaled[0], scaled[1].tobytes()
    if bits <= BYTE:
        return "table", 1.0, tuple(values.view(np.uint32).tolist())
    return "none", 1.0, None


def _f16() -> Array:
    return HALVES.astype(np.uint16).view(np.float16).astype(np.float32)


def _bf16() -> Array:
    return (HALVES << 16).view(np.float32)


def _permutation(values: Array, standard: Array) -> tuple[int, ...] | None:
    """Which bit of the standard each bit is: one bit alone tells, all values prove it."""
    alone = {standard[1 << k].tobytes(): k for k in range(16)}
    places = [alone.get(values[1 << k].tobytes()) for k in range(16)]
    if None in places or len(set(places)) < 16:
        return None
    order = sum((HALVES >> k & (1 << n) - 1) << to for k, n, to in merged(enumerate(places)))
    return tuple(places) if np.array_equal(values, standard[order], equal_nan=True) else None


def as_integers(values: Array) -> tuple[float, Array] | None:
    """(const, int32) with values = const * integers, const a power of two, one integer odd."""
    if not np.isfinite(values).all() or (np.signbit(values) & (values == 0)).any():
        return None
    steps = np.abs(values[values != 0].astype(np.float64))
    if not len(steps):
        return 1.0, np.zeros(len(values), np.int32)
    mantissas, exponents = np.frexp(steps)
    whole = (mantissas * (1 << MANTISSA)).astype(np.int64)
    const = float(np.min(np.ldexp((whole & -whole).astype(np.float64), exponents - MANTISSA)))
    if steps.max() / const > MOST_INTEGER:
        return None
    return const, (values.astype(np.float64) / const).astype(np.int32)
