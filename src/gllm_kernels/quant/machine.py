"""A symbolic run of a block decoder: the bytes of the block are data, everything else is a number.

It is the lifter's machine (`lift.engine`) with three things changed. Counters stay numbers, because a
block has one size. A load may be of 1, 2, 4 or 8 bytes of the block. And the position of a load may
depend on data: in a table of constants (TABLE) or in the block itself (GATHER).
"""

from __future__ import annotations

from dataclasses import replace

from ..lift import data
from ..lift import value as v
from ..lift.data import Part
from ..lift.elf import Image
from ..lift.engine import Machine
from ..lift.error import Refusal
from ..lift.nodes import Node, Nodes
from ..lift.program import EXIT, Block, Program, post_dominators
from ..lift.signature import Signature
from ..trace.ir import Op

# operations beside those of traces: imm is (address, bytes) and (offset in the block, bytes)
TABLE, GATHER = "table", "gather"
MAX_STEPS = 200_000
KIND = {1: "i32", 2: "i32", 4: "i32", 8: "i64"}  # of a load by its bytes


class BlockMachine(Machine):
    """One run of `void decode(const uint8_t *block, float *out)`."""

    limit_steps = MAX_STEPS

    def __init__(self, program: Program, image: Image, signature: Signature) -> None:
        self.data_of: dict[int, Node] = {}  # atom of an address -> the data that it stands for
        self.atom_of: dict[Node, v.Poly] = {}
        self.meets: dict[int, dict[int, int]] = {}  # of every function: block -> where its sides meet
        super().__init__(program, image, signature, {}, Nodes(), {}, {})

    def cross_loops(self, block: Block) -> None:
        """Loops need no symbols: every counter is a number."""

    def fork(self, condition: Node, block: Block, taken: int, other: int) -> int:
        """Where the lifter joins both sides, else where both must pass: a loop has a length here."""
        before, kept = self._snapshot(), (self.written, self.depth, self.program, self.path)
        try:
            return super().fork(condition, block, taken, other)
        except Refusal as refusal:
            first = refusal
            self._restore(before)
            self.written, self.depth, self.program, self.path = kept
        meet = self.meets.get(self.program.entry)
        if meet is None:
            meet = self.meets[self.program.entry] = post_dominators(self.program)
        joins = frozenset({meet.get(block.start, EXIT)})
        try:
            return super().fork(condition, replace(block, joins=joins, leaves=-1), taken, other)
        except Refusal:
            raise first from None

    # ---- data in addresses

    def read64(self, number: int) -> v.Int:
        value = self.r[number]
        if value.__class__ is int or value.__class__ is v.Poly:
            return value
        if value.__class__ is Node or (value.__class__ is Part and value.value.__class__ is Node):
            return self.linear(data.as_data(self.nodes, value, 64))
        return super().read64(number)

    def linear(self, x: Node) -> v.Int:
        """An i64 as constants times data, so that the base of a table can be told from its index."""
        constant = data.known(x)
        if constant is not None:
            return constant
        if x.op is Op.ADD:
            return v.add(self.linear(x.args[0]), self.linear(x.args[1]))
        factor = data.known(x.args[1]) if x.op in (Op.MUL, Op.SHL) else None
        if factor is not None:
            return v.scale(self.linear(x.args[0]), factor if x.op is Op.MUL else 1 << factor)
        if x not in self.atom_of:
            self.atom_of[x] = self.opaque("data", 0)
            (number,) = v.atoms_of(self.atom_of[x])
            self.data_of[number] = x
        return self.atom_of[x]

    def as_data(self, value: object, width: int) -> object:
        """Addresses stay addresses, for the sums and products of `calculated`."""
        return value if value.__class__ is v.Poly and width == 64 else super().as_data(value, width)

    def calculated(self, op: Op, a: object, b: object, width: int) -> object:
        if v.Poly not in (a.__class__, b.__class__):
            return super().calculated(op, a, b, width)
        one, two = (self.linear(x) if x.__class__ is Node else x for x in (a, b))
        if width == 64 and (op is Op.ADD or (op is Op.MUL and two.__class__ is int)):
            return v.add(one, two) if op is Op.ADD else v.scale(one, two)
        raise Refusal("arithmetic on an address", "sums of an address and an index")

    def _data_condition(self, cc: str, a: object, b: object, width: int) -> Node | bool:
        if v.Poly in (a.__class__, b.__class__):
            raise Refusal("an address is compared with data")
        return super()._data_condition(cc, a, b, width)

    # ---- loads

    def load(self, address: v.Int, size: int) -> object:
        address = v.unloaded(address)
        if address.__class__ is int or size not in KIND:
            return super().load(address, size)
        inside, index = self._split(address)
        block = min(self.readonly, default=None)
        if index is None:
            offset = inside.terms.get(v.ONE, 0)
            if v.make({m: c for m, c in inside.terms.items() if m}, 0) != self._pointer(block):
                raise Refusal("a load that is neither from the block nor from a constant")
            return self._leaf(Op.LOAD, (), (block, offset, size), size)
        if inside.__class__ is int:
            if self.image.constant(inside, size) is None:
                raise Refusal("a position that depends on data, in an array that may change")
            return self._leaf(TABLE, (index,), (inside, size), size)
        return self._leaf(GATHER, (index,), (v.sub(inside, self._pointer(block)), size), size)

    def _pointer(self, block: int) -> v.Poly:
        return v.atom(block, self.atoms[block])

    def _split(self, address: v.Poly) -> tuple[v.Int, Node | None]:
        """What does not depend on data, and the byte offset that does."""
        fixed, index = {}, None
        for mono, coef in address.terms.items():
            x = self.data_of.get(mono[0]) if len(mono) == 1 else None
            if x is None:
                fixed[mono] = coef
                continue
            term = data.binary(self.nodes, Op.MUL, x, data.constant(self.nodes, coef, "i64"))
            index = term if index is None else data.binary(self.nodes, Op.ADD, index, term)
        return v.make(fixed, address.value), index  # data count as 0 in the value

    def _leaf(self, op: object, args: tuple[Node, ...], imm: tuple, size: int) -> Node:
        key = (op, args, imm)
        found = self.nodes.table.get(key)
        if found is None:
            found = self.nodes.table[key] = Node(op, args, imm, KIND[size])
            limit = 1 << 8 * size
            self.nodes.spans[found] = (0, limit - 1) if size < 4 else (-limit // 2, limit // 2 - 1)
        return found


def run(machine: BlockMachine) -> list[Node]:
    """The value of every lane, in order."""
    machine.run(machine.program.entry)
    machine.check_return()
    lanes = {index: value for _, index, value in machine.memory.values()}
    if sorted(lanes) != list(range(len(lanes))) or not lanes:
        raise Refusal("the values of a block are not written one after the other, from the first")
    return [lanes[k] for k in range(len(lanes))]
