"""Where a loop of many operators is cheaper as two.

    one loop     operations in a row wait for each other: few of the next round fit the core's window
                 values beyond the registers are spilled
                 rows that a norm and its outputs both add up are read twice, from where they fit
    two loops    every value that crosses is written and read

All in cycles per 64 bytes of one value, on one core; the numbers are rough and stand here alone.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from ..dtypes import ITEMSIZE
from ..graph.bind import TensorTrace
from ..graph.ir import Node
from ..graph.view import View, size_of
from ..trace.affine import Affine
from ..trace.ir import CONSTANTS, WEIGHTS, Op
from ..trace.pattern import ComputePattern
from .profile import DeviceProfile

# measured on a core of 512 instructions in flight; a lost round is the product of both over WINDOW
WINDOW = 340
SPILL = 5  # for each value that waits without a register
WORKING = 2  # registers for what is computed at the time
CROSSING = {"L1": 2, "L2": 6, "L3": 8, "memory": 14}  # written and read again, by where it fits
AGAIN = {"L1": 0.5, "L2": 1, "L3": 3, "memory": 7}
UNKNOWN = 512  # what a size is taken for that only a call knows
POINTWISE = (ComputePattern.ELEMENTWISE, ComputePattern.INJECTIVE)
FREE = (Op.LOAD, Op.SCALAR, Op.REDUCE, *CONSTANTS.values())


@dataclass(frozen=True, slots=True)
class Cut:
    """The nodes from `node` on are a loop of their own."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class Loop:
    """Nodes as one loop: operations of a round, the most in a row, from which node to which each
    value waits, and what rows are read twice."""

    operations: int
    depth: int
    waits: tuple[tuple[int, int], ...]
    rows: tuple[View, ...]

    def cycles(self, profile: DeviceProfile) -> float:
        lost = self.operations * self.depth / WINDOW + SPILL * self.spilled(profile)
        return lost * 16 / profile.lanes + len(self.rows) * AGAIN[self.level(profile)]

    def spilled(self, profile: DeviceProfile) -> int:
        """Values that do not fit beside the others; those that wait longest go."""
        active: list[int] = []
        count = 0
        for first, last in self.waits:
            active = sorted([*(end for end in active if end > first), last])
            if len(active) > profile.vector_registers - WORKING:
                active.pop()
                count += 1
        return count

    def level(self, profile: DeviceProfile) -> str:
        """Where the rows that are read twice fit."""
        return level(sum(extent(row) for row in self.rows), profile)

    def text(self, profile: DeviceProfile) -> str:
        """What one loop loses, with the numbers of the profile."""
        parts = [f"{self.operations} operations, {self.depth} in a row"]
        if self.spilled(profile):
            parts.append(f"{self.spilled(profile)} values find none of {profile.vector_registers} "
                         "registers")
        if self.rows:
            size = sum(extent(row) for row in self.rows)
            parts.append(f"{len(self.rows)} rows of {size} bytes are read twice, from "
                         f"{self.level(profile)}")
        return ", ".join(parts)


def cut_of(nodes: list[Node], own: Container[str], profile: DeviceProfile) -> Cut | None:
    """The cheapest place to cut, if that is cheaper than one loop; all but its `own` temporaries
    are stored anyway."""
    whole = loop_of(nodes)
    cycles = whole.cycles(profile)
    if cycles < min(CROSSING.values()) / 2:
        return None

    def apart(at: int) -> float:
        parts = (loop_of(part).cycles(profile) for part in (nodes[:at], nodes[at:]))
        return sum(parts) + crossing(nodes, at, own, profile)

    best = min(range(1, len(nodes)), key=apart)
    if apart(best) >= cycles:
        return None
    return Cut(nodes[best].index, f"one loop of {whole.text(profile)} loses {cycles:.0f} cycles per 64 "
                                  f"bytes; apart {apart(best):.0f}, and "
                                  f"{crossing(nodes, best, own, profile):.0f} of them in memory")


def crossing(nodes: list[Node], at: int, own: Container[str], profile: DeviceProfile) -> float:
    """What nodes before `at` write and the others read."""
    read = {view for node in nodes[at:] for _, view in node.inputs}
    views = [v for node in nodes[:at] for _, v in node.outputs if v in read]
    prices = [(CROSSING[level(bytes_of(v.shape, v.dtype), profile)], v) for v in views]
    return sum(price if view.buffer in own else price / 2 for price, view in prices)


def loop_of(nodes: list[Node]) -> Loop:
    made: dict[str, int] = {}  # by buffer: the node that writes it, the last that reads it, ...
    last: dict[str, int] = {}
    deep: dict[str, int] = {}  # ... and the operations in a row up to there
    total = 0
    for at, node in enumerate(nodes):
        inner = [view.buffer for _, view in node.inputs if view.buffer in made]
        last.update(dict.fromkeys(inner, at))
        own = operations(node)
        total += own
        depth = own + max((deep[b] for b in inner), default=0)
        for _, view in node.outputs:
            made[view.buffer], deep[view.buffer] = at, depth
    waits = tuple(sorted((made[b], last[b]) for b in last))
    return Loop(total, max(deep.values()), waits, rows_twice(nodes, made))


def rows_twice(nodes: list[Node], made: Container[str]) -> tuple[View, ...]:
    """Rows that are added up before a row's reduction and again behind it. What the reduction reads
    is kept in the place of a single float output, unless other rows are read behind it."""
    first = next((at for at, n in enumerate(nodes) if n.op.pattern not in POINTWISE), len(nodes))
    streams = [[view for node in part for _, view in node.inputs
                if view.buffer not in made and all(s != Affine() for s in view.strides)]
               for part in (nodes[:first], nodes[first + 1 :])]
    halves = any(v.dtype != "float32" for node in nodes[first:] for _, v in node.outputs)
    again = first < len(nodes) and (streams[1] or halves)
    return tuple(dict.fromkeys(streams[0])) if again else ()


def operations(node: Node) -> int:
    """Vector instructions of a round, roughly."""
    return sum(WEIGHTS.get(op.op, 1) for op in node.op.trace.body if op.op not in FREE)


def level(size: int, profile: DeviceProfile) -> str:
    """The nearest memory that holds so many bytes."""
    sizes = (("L1", profile.l1d), ("L2", profile.l2), ("L3", profile.l3))
    return next((name for name, most in sizes if size <= most), "memory")


def extent(row: View) -> int:
    """Bytes of a row."""
    return bytes_of(row.shape[-1:], row.dtype)


def bytes_of(shape: tuple[Affine, ...], dtype: str) -> int:
    total = size_of(shape)
    return total.evaluate(dict.fromkeys(total.symbols, UNKNOWN)) * ITEMSIZE[dtype]


def product_cycles(product: TensorTrace, profile: DeviceProfile) -> float:
    """For 64 bytes of its first factor: 16 terms of every column, two vectors of them a cycle."""
    columns = product.domain[-1][1].substitute(dict(product.sizes))
    return columns.evaluate(dict.fromkeys(columns.symbols, UNKNOWN)) * 16 / (2 * profile.lanes)
