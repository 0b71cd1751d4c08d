"""Integers that are data: elements of integer arrays, and 0 or 1 for a comparison of floats.

    x[i] of int8_t    node = float(x[i]), -128 <= value <= 127

An integer of at most 24 bits is a float32 exactly, so its arithmetic is float arithmetic as long
as every result stays in that range. Larger elements can only be converted, or compared with small
numbers: rounding is monotone and leaves those apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..trace.ir import Op
from .error import Refusal
from .nodes import Node, Nodes

if TYPE_CHECKING:
    from . import value as v

EXACT = 1 << 24  # every integer up to here is a float32
# C type of an array -> bytes of an element, smallest and largest value of an integer
ELEMENTS: dict[str, tuple[int, int, int]] = {"float": (4, 0, 0), "double": (8, 0, 0)}
for _bytes in (1, 2, 4, 8):
    _half = 1 << (8 * _bytes - 1)
    ELEMENTS[f"int{8 * _bytes}_t"] = (_bytes, -_half, _half - 1)
    ELEMENTS[f"uint{8 * _bytes}_t"] = (_bytes, 0, 2 * _half - 1)
ELEMENTS |= {
    "int": ELEMENTS["int32_t"], "unsigned": ELEMENTS["uint32_t"], "long": ELEMENTS["int64_t"],
    "size_t": ELEMENTS["uint64_t"], "short": ELEMENTS["int16_t"],
    "unsigned char": ELEMENTS["uint8_t"], "signed char": ELEMENTS["int8_t"],
    "bool": (1, 0, 1), "_Bool": (1, 0, 1),
}  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Whole:
    """An integer in [low, high] held in `bits` bits; `raw` is the element where it is one."""

    node: Node
    low: int
    high: int
    bits: int
    raw: Node | None = None

    def read(self, width: int) -> Whole:
        """The value seen through a register of `width` bits."""
        if width > self.bits and (self.low < 0 or self.bits < 32):
            raise Refusal(f"{self.bits} bits of integer data are read as {width}")
        if not (self.fits(width, True) or self.fits(width, False)):
            raise Refusal(f"{self.bits} bits of integer data are read as {width}")
        return self

    def fits(self, width: int, signed: bool) -> bool:
        half = 1 << (width - 1)
        low, high = (-half, half - 1) if signed else (0, 2 * half - 1)
        return low <= self.low and self.high <= high

    def extended(self, source: int, target: int, signed: bool) -> Whole:
        """movzx, movsx: the same number where it fits the source as the instruction reads it."""
        if not self.fits(source, signed):
            kind = "signed" if signed else "unsigned"
            raise Refusal(
                f"integer data in [{self.low}, {self.high}] are read as {source} {kind} bits",
                change="declare the array with the type that the code reads",
            )
        return Whole(self.node, self.low, self.high, target, self.raw)


class Part:
    """The low `width` bits of a register; the rest is unknown."""

    __slots__ = ("value", "width")

    def __init__(self, value: object, width: int) -> None:
        self.value = value
        self.width = width


def element(nodes: Nodes, load: Node, ctype: str) -> Whole:
    """x[i] of an array of integers."""
    size, low, high = ELEMENTS[ctype]
    return Whole(nodes.make(Op.NARROW, (load,)), low, high, 8 * size, load)


def as_whole(nodes: Nodes, a: v.Int | Node | Whole) -> Whole:
    """A constant or a truth value as integer data."""
    if a.__class__ is Whole:
        return a
    if a.__class__ is int:
        return Whole(nodes.number(a), a, a, 64)
    if a.__class__ is Node and a.kind == "bool":
        chosen = nodes.make(Op.SELECT, (a, nodes.number(1.0), nodes.number(0.0)))
        return Whole(chosen, 0, 1, 64)
    raise Refusal(
        "integer arithmetic on data together with a size, a counter or the bits of a float",
        "floats in xmm registers; integer data of at most 24 bits",
        "gather rows with gk.gather or numpy, and pass the gathered array",
    )


def arithmetic(nodes: Nodes, name: str, a: object, b: object, width: int) -> Whole:
    """add, sub, mul of integer data, exact in float32; +0.0 makes the product -0 an integer 0."""
    x, y = as_whole(nodes, a), as_whole(nodes, b)
    low, high = RANGES[name](x, y)
    reach = max(abs(e) for w in (x, y) for e in (w.low, w.high))
    if max(reach, abs(low), abs(high)) > min(EXACT, 1 << (width - 1)):
        raise Refusal(
            f"integer {name} of data with values in [{low}, {high}]",
            "results of at most 24 bits, which are floats exactly",
            "convert the elements to float before computing",
        )
    node = nodes.make({"add": Op.ADD, "sub": Op.SUB, "mul": Op.MUL}[name], (x.node, y.node))
    if name == "mul" and low < 0:
        node = nodes.make(Op.ADD, (node, nodes.number(0.0)))
    return Whole(node, low, high, width)


def _products(x: Whole, y: Whole) -> tuple[int, int]:
    corners = [a * b for a in (x.low, x.high) for b in (y.low, y.high)]
    return min(corners), max(corners)


RANGES = {
    "add": lambda x, y: (x.low + y.low, x.high + y.high),
    "sub": lambda x, y: (x.low - y.high, x.high - y.low),
    "mul": _products,
}


def compared(nodes: Nodes, relation: str, unsigned: bool, a: object, b: object) -> Node:
    """A comparison of integer data as one of floats."""
    x, y = as_whole(nodes, a), as_whole(nodes, b)
    exact = [max(abs(w.low), abs(w.high)) <= EXACT for w in (x, y)]
    constant = any(w.low == w.high and abs(w.low) < EXACT for w in (x, y))
    if not (all(exact) or constant):
        raise Refusal("a comparison of integer data of more than 24 bits")
    if unsigned and min(x.low, y.low) < 0:
        raise Refusal("an unsigned comparison of integer data that may be negative")
    make, p, q = nodes.make, x.node, y.node
    return {
        "e": lambda: make(Op.EQ, (p, q)), "ne": lambda: nodes.not_(make(Op.EQ, (p, q))),
        "l": lambda: make(Op.LT, (p, q)), "ge": lambda: make(Op.LE, (q, p)),
        "le": lambda: make(Op.LE, (p, q)), "g": lambda: make(Op.LT, (q, p)),
    }[relation]()  # fmt: skip
