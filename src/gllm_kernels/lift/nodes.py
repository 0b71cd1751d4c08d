"""Float values of the concolic run: hash-consed expressions over loads, scalars and sizes.

    node ::= op(node, ...) | LOAD(pointer, index) | INDEX(size) | CONST(bits) | SCALAR(name)

Two nodes are the same value exactly when they are the same object.
"""

from __future__ import annotations

from ..trace.ir import Op
from .value import Int, Poly

SIGN, MAGNITUDE = 0x80000000, 0x7FFFFFFF


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
        for a, b in ((x, y), (y, x)):
            if b.op is Op.CONST:
                if a.op is Op.CONST:
                    return self.const(a.imm ^ b.imm)
                return {SIGN: self.neg, 0: lambda n: n}.get(b.imm, _refuse)(a)
        return self.const(0) if x is y else None

    def mask_bits(self, x: Node, y: Node) -> Node | None:
        """andps: without the sign bit it is the magnitude."""
        for a, b in ((x, y), (y, x)):
            if b.op is Op.CONST:
                if a.op is Op.CONST:
                    return self.const(a.imm & b.imm)
                if b.imm == MAGNITUDE:
                    return self.make(Op.ABS, (a,))
                return {0: self.const(0), 0xFFFFFFFF: a}.get(b.imm)
        return x if x is y else None

    def unordered(self, node: Node) -> Node:
        """The node with the operands of every + and * in one order, for comparison only."""
        found = self.sorted.get(node)
        if found is None:
            args = tuple(map(self.unordered, node.args))
            if node.op in (Op.ADD, Op.MUL) and id(args[0]) > id(args[1]):
                args = (args[1], args[0])
            found = self.sorted[node] = self.make(node.op, args, node.imm)
        return found


def _refuse(_: Node) -> None:
    return None


def pointer_of(node: Node) -> int:
    return node.imm[0]


def index_of(node: Node) -> Int:
    return node.imm[1]


def is_integer(value: object) -> bool:
    return isinstance(value, int | Poly)
