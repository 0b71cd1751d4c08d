"""Float values of the concolic run: hash-consed expressions over loads, scalars and sizes.

    node ::= op(node, ...) | LOAD(pointer, index) | INDEX(size) | CONST(bits) | SCALAR(name)

Two nodes are the same value exactly when they are the same object.
"""

from __future__ import annotations

import numpy as np

from ..trace.interp import MEANING
from ..trace.ir import TABLE, Op, bits_float, float_bits
from .value import Int

SIGN, MAGNITUDE = 0x80000000, 0x7FFFFFFF
MASKS = frozenset(op for op, row in TABLE.items() if row.result == "bool")
# IEEE 754 defines every bit of these, so a compiler may compute them where the operands are known
EXACT = (Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.SQRT, Op.NEG, Op.ABS, Op.MAX, Op.MIN)


class Node:
    """One value; compared by identity. `imm` of a LOAD is (pointer atom, index in elements)."""

    __slots__ = ("args", "imm", "op")

    def __init__(self, op: Op, args: tuple[Node, ...], imm: object) -> None:
        self.op = op
        self.args = args
        self.imm = imm


class Nodes:
    """The table of all nodes of one lift, and the identities that hold bit for bit."""

    def __init__(self) -> None:
        self.table: dict[tuple, Node] = {}
        self.sorted: dict[Node, Node] = {}

    def make(self, op: Op, args: tuple[Node, ...] = (), imm: object = None) -> Node:
        key = (op, args, imm)
        node = self.table.get(key)
        if node is None:
            node = self.table[key] = Node(op, args, imm)
        return node

    def const(self, bits: int) -> Node:
        return self.make(Op.CONST, (), bits & 0xFFFFFFFF)

    def load(self, pointer: int, index: Int) -> Node:
        return self.make(Op.LOAD, (), (pointer, index))

    def index(self, size: Int) -> Node:
        return self.make(Op.INDEX, (), size)

    def neg(self, x: Node) -> Node:
        return x.args[0] if x.op is Op.NEG else self.make(Op.NEG, (x,))

    def not_(self, x: Node) -> Node:
        return x.args[0] if x.op is Op.NOT else self.make(Op.NOT, (x,))

    def select(self, condition: Node, then: Node, other: Node) -> Node:
        """Equal arms need no condition; a > b ? a : b is maxss, a < b ? a : b is minss."""
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

    def flip_bits(self, x: Node, y: Node) -> Node | None:
        """xorps: with the sign bit it negates; None where it is not float arithmetic."""
        if x.op is not Op.CONST:
            x, y = y, x
        if x.op is not Op.CONST:
            return self.const(0) if x is y else None
        if y.op is Op.CONST:
            return self.const(x.imm ^ y.imm)
        if x.imm == SIGN and y.op not in MASKS:
            return self.neg(y)
        return y if x.imm == 0 else None

    def mask_bits(self, x: Node, y: Node) -> Node | None:
        """andps: a comparison keeps or clears, 0x7fffffff makes the magnitude."""
        if y.op in MASKS:
            x, y = y, x
        if x.op in MASKS:
            return self.kept(x, y)
        if x.op is not Op.CONST:
            x, y = y, x
        if x.op is not Op.CONST:
            return x if x is y else None
        if y.op is Op.CONST:
            return self.const(x.imm & y.imm)
        return {MAGNITUDE: self.make(Op.ABS, (y,)), 0: x, 0xFFFFFFFF: y}.get(x.imm)

    def clear_bits(self, x: Node, y: Node) -> Node | None:
        """andnps: ~x & y."""
        return self.kept(self.not_(x), y) if x.op in MASKS else None

    def join_bits(self, x: Node, y: Node) -> Node | None:
        """orps: (c ? a : 0) | (c ? 0 : b) = c ? a : b."""
        zero = self.const(0)
        if x.op is not Op.SELECT or y.op is not Op.SELECT or x.args[0] is not y.args[0]:
            return None
        (condition, a, b), (_, c, d) = x.args, y.args
        if b is zero and c is zero:
            return self.select(condition, a, d)
        return self.select(condition, c, b) if a is zero and d is zero else None

    def kept(self, mask: Node, value: Node) -> Node | None:
        """mask & value, in the form that `join_bits` looks for."""
        if value.op in MASKS:
            return None
        if mask.op is Op.NOT:
            return self.make(Op.SELECT, (mask.args[0], self.const(0), value))
        return self.make(Op.SELECT, (mask, value, self.const(0)))

    def unordered(self, node: Node) -> Node:
        """One form for comparison only: operands of + and * in one order, constants computed."""
        found = self.sorted.get(node)
        if found is None:
            args = tuple(map(self.unordered, node.args))
            if node.op in (Op.ADD, Op.MUL) and id(args[0]) > id(args[1]):
                args = (args[1], args[0])
            found = self.computed(node.op, args, node.imm)
            self.sorted[node] = found = found or self.make(node.op, args, node.imm)
        return found

    def computed(self, op: Op, args: tuple[Node, ...], imm: object) -> Node | None:
        """The constant that an exact operation on constants is, but for NaN."""
        if op is Op.INDEX and isinstance(imm, int):
            return self.const(float_bits(float(np.float32(imm))))
        if op not in EXACT or any(a.op is not Op.CONST for a in args):
            return None
        with np.errstate(all="ignore"):
            value = MEANING[op](*(np.float32(bits_float(a.imm)) for a in args))
        return None if np.isnan(value) else self.const(int(np.float32(value).view(np.uint32)))
