"""Float values of the concolic run: hash-consed expressions over loads, scalars and sizes.

    node ::= op(node, ...) | LOAD(pointer, index) | INDEX(size) | CONST(bits) | SCALAR(name)

and their 64-bit forms.

Two nodes are the same value exactly when they are the same object.
"""

from __future__ import annotations

import numpy as np

from ..trace.interp import MEANING
from ..trace.ir import INDICES, TABLE, Op, bits_double, bits_float
from ..trace.simplify import COMMUTATIVE
from .value import Int

MASKS = frozenset(op for op, row in TABLE.items() if row.result == "bool")
WIDTH = {"f32": 32, "f64": 64}
# IEEE 754 defines every bit of these, so a compiler may compute them where the operands are known
EXACT = (Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.SQRT, Op.NEG, Op.ABS, Op.MAX, Op.MIN, Op.WIDEN,
         Op.NARROW)  # fmt: skip


class Node:
    """One value; compared by identity. `imm` of a LOAD is (pointer atom, index in elements).

    kind: f32 | f64 | i32 | i64 | bool.
    """

    __slots__ = ("args", "imm", "kind", "op")

    def __init__(self, op: Op, args: tuple[Node, ...], imm: object, kind: str) -> None:
        self.op = op
        self.args = args
        self.imm = imm
        self.kind = kind


class Nodes:
    """The table of all nodes of one lift, and the identities that hold bit for bit."""

    def __init__(self) -> None:
        self.table: dict[tuple, Node] = {}
        self.sorted: dict[Node, Node] = {}
        self.kinds: dict[object, str] = {}  # pointer atom or name of a scalar -> kind, if not f32
        self.limits: dict[object, tuple[int, int]] = {}  # pointer atom -> range of its integers
        self.spans: dict[Node, tuple[int, int]] = {}  # see `data`
        self.lows: dict[Node, Node] = {}

    def make(self, op: Op, args: tuple[Node, ...] = (), imm: object = None) -> Node:
        key = (op, args, imm)
        node = self.table.get(key)
        if node is None:
            kind = TABLE[op].result
            if kind == "same":
                kind = args[-1].kind
            elif kind == "param":
                kind = self.kinds.get(imm[0] if op is Op.LOAD else imm, "f32")
            node = self.table[key] = Node(op, args, imm, kind)
        return node

    def const(self, bits: int) -> Node:
        return self.make(Op.CONST, (), bits & 0xFFFFFFFF)

    def const64(self, bits: int) -> Node:
        return self.make(Op.CONST64, (), bits & 0xFFFFFFFFFFFFFFFF)

    def number(self, value: float, kind: str = "f32") -> Node:
        """A constant by its value."""
        real = np.float32(value) if kind == "f32" else np.float64(value)
        bits = int(real.view(np.uint32 if kind == "f32" else np.uint64))
        return self.const(bits) if kind == "f32" else self.const64(bits)

    def load(self, pointer: int, index: Int) -> Node:
        return self.make(Op.LOAD, (), (pointer, index))

    def neg(self, x: Node) -> Node:
        return x.args[0] if x.op is Op.NEG else self.make(Op.NEG, (x,))

    def not_(self, x: Node) -> Node:
        return x.args[0] if x.op is Op.NOT else self.make(Op.NOT, (x,))

    def select(self, condition: Node, then: Node, other: Node) -> Node:
        """Equal arms need no condition; a > b ? a : b is maxss, a < b ? a : b is minss."""
        then, other = self.alike(then, other)
        if then is other:
            return then
        if condition.op is Op.NOT:
            return self.select(condition.args[0], other, then)
        if condition.op is Op.LT:
            small, large = condition.args
            if (then, other) == (large, small):
                return self.make(Op.MAX, (then, other))
            if (then, other) == (small, large):
                return self.make(Op.MIN, (then, other))
        return self.make(Op.SELECT, (condition, then, other))

    def alike(self, x: Node, y: Node) -> tuple[Node, Node]:
        """Of a constant of 64 bits beside a float, the low 32."""
        if x.kind == y.kind:
            return x, y
        return tuple(self.const(a.imm) if a.op is Op.CONST64 else a for a in (x, y))

    def constants(self, x: Node, y: Node) -> tuple[int, Node] | None:
        """(bits, other operand) where one is a constant; the bits as wide as the other."""
        if x.op not in CONSTANTS:
            x, y = y, x
        if x.op not in CONSTANTS or (y.kind == "f64" and x.kind == "f32"):
            return None
        return x.imm & ((1 << WIDTH.get(y.kind, 32)) - 1), y

    def flip_bits(self, x: Node, y: Node) -> Node | None:
        """xorps: with the sign bit it negates; None where it is not float arithmetic."""
        found = self.constants(x, y)
        if found is None:
            return self.number(0.0, x.kind) if x is y and x.kind in WIDTH else None
        bits, other = found
        if other.op in CONSTANTS:
            return self.make(other.op, (), bits ^ other.imm)
        if other.kind in WIDTH and bits == 1 << WIDTH[other.kind] - 1:
            return self.neg(other)
        return other if bits == 0 else None

    def mask_bits(self, x: Node, y: Node) -> Node | None:
        """andps: a comparison keeps or clears, 0x7fffffff makes the magnitude."""
        if y.op in MASKS:
            x, y = y, x
        if x.op in MASKS:
            return self.kept(x, y)
        found = self.constants(x, y)
        if found is None:
            return x if x is y else None
        bits, other = found
        if other.op in CONSTANTS:
            return self.make(other.op, (), bits & other.imm)
        if other.kind not in WIDTH:
            return None
        top = 1 << WIDTH[other.kind] - 1
        zero = self.number(0.0, other.kind)
        return {top - 1: self.make(Op.ABS, (other,)), 0: zero, 2 * top - 1: other}.get(bits)

    def clear_bits(self, x: Node, y: Node) -> Node | None:
        """andnps: ~x & y."""
        return self.kept(self.not_(x), y) if x.op in MASKS else None

    def join_bits(self, x: Node, y: Node) -> Node | None:
        """orps: (c ? a : 0) | (c ? 0 : b) = c ? a : b."""
        if x.op in MASKS and y.op in MASKS:
            return self.make(Op.OR, (x, y))
        if x.op is not Op.SELECT or y.op is not Op.SELECT or x.args[0] is not y.args[0]:
            return None
        if x.kind != y.kind:
            return None
        zero = self.number(0.0, x.kind)
        (condition, a, b), (_, c, d) = x.args, y.args
        if b is zero and c is zero:
            return self.select(condition, a, d)
        return self.select(condition, c, b) if a is zero and d is zero else None

    def kept(self, mask: Node, value: Node) -> Node | None:
        """mask & value, in the form that `join_bits` looks for."""
        if value.op in MASKS:
            return self.make(Op.AND, (mask, value))
        if value.op is Op.CONST64 and compared(mask) == "f32":
            value = self.const(value.imm)
        if value.kind not in WIDTH or WIDTH[value.kind] > WIDTH[compared(mask)]:
            return None
        zero = self.number(0.0, value.kind)
        if mask.op is Op.NOT:
            return self.make(Op.SELECT, (mask.args[0], zero, value))
        return self.make(Op.SELECT, (mask, value, zero))

    def same(self, x: Node, y: Node) -> bool:
        """Whether two formulas are one but for the order of operands and computed constants."""
        return x is y or self.unordered(x) is self.unordered(y)

    def unordered(self, node: Node) -> Node:
        """One form for comparison only: operands of + and * in one order, constants computed."""
        found = self.sorted.get(node)
        if found is None:
            args = tuple(map(self.unordered, node.args))
            if node.op in COMMUTATIVE and id(args[0]) > id(args[1]):
                args = (args[1], args[0], *args[2:])
            found = self.computed(node.op, args, node.imm) or _sum_with_zero(node.op, args)
            self.sorted[node] = found = found or self.make(node.op, args, node.imm)
        return found

    def computed(self, op: Op, args: tuple[Node, ...], imm: object) -> Node | None:
        """The constant that an exact operation on constants is, but for NaN."""
        if op in INDICES and isinstance(imm, int):  # rounded once, as cvtsi2ss does
            if op is Op.INDEXI:
                return self.make(Op.INT, (), imm)
            return self.number(imm, "f32" if op is Op.INDEX else "f64")
        if op in (Op.NARROW, Op.WIDEN) and args[0].op in (Op.INT, Op.LONG):
            return self.number(args[0].imm, "f32" if op is Op.NARROW else "f64")
        if op not in EXACT or any(a.op not in CONSTANTS for a in args):
            return None
        values = (
            np.asarray(np.float32(bits_float(a.imm)) if a.kind == "f32" else bits_double(a.imm))
            for a in args
        )
        with np.errstate(all="ignore"):
            value = MEANING[op](*values)[()]
        return None if np.isnan(value) else self.number(value, f"f{8 * value.itemsize}")


CONSTANTS = (Op.CONST, Op.CONST64)


def _sum_with_zero(op: Op, args: tuple[Node, ...]) -> Node | None:
    """x + 0 of integers is x, for a compiler from the first element on."""
    for x, y in (args, args[::-1]) if op is Op.ADD else ():
        if x.op in (Op.INT, Op.LONG) and x.imm == 0:
            return y
    return None


def compared(mask: Node) -> str:
    """The kind of the numbers that a comparison compares: how wide its mask is."""
    while mask.op in (Op.NOT, Op.AND, Op.OR):
        mask = mask.args[0]
    return mask.args[0].kind
