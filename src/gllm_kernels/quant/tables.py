"""Truth tables: what an expression is for every value of the few data bits that it reads.

    reads(x, mask)   positions of the bits of the block on which the bits `mask` of x may depend
    table(x)         (positions, values): values[k] where bit i of k is the bit at positions[i]

A table does not show how a compiler wrote the expression, so every compiler has the same one.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..lift.cache import LONGEST
from ..lift.data import known
from ..lift.elf import Image
from ..lift.error import Refusal
from ..lift.nodes import Node
from ..trace.interp import LITERALS, MEANING, NUMPY
from ..trace.ir import INDICES, Op
from .desc import merged
from .machine import GATHER, TABLE

Array = npt.NDArray[np.generic]
Positions = tuple[int, ...]
MOST_BITS = 16  # 65 536 rows: a binary16
WIDTH = {"i32": 32, "i64": 64, "f32": 32, "f64": 64, "bool": 1}
MASKED = (Op.BITAND, Op.BITOR, Op.BITXOR, Op.SELECT)
CARRIED = (Op.ADD, Op.SUB, Op.MUL)
FAR = 64  # bits from one load to the next; none is longer
UNKNOWN = frozenset({-1})  # of a position that data choose


class Tables:
    """The tables of one decoder; equal expressions at other offsets have one table."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.shapes: dict[Node, tuple[int, Positions]] = {}
        self.numbers: dict[tuple, int] = {}
        self.read: dict[tuple[Node, int], frozenset[int]] = {}
        self.known: dict[tuple, tuple[Positions, Array] | None] = {}
        self.turned: dict[tuple, Array] = {}

    def table(self, x: Node) -> tuple[Positions, Array] | None:
        """The positions that matter, ascending, and the values; None where they are too many."""
        number, leaves = self.shape(x)
        key = (number, _distances(leaves))
        if key not in self.known:
            self.known[key] = self._tabulated(x, leaves)
        found = self.known[key]
        if found is None:
            return None
        positions = [leaves[leaf] + bit for leaf, bit in found[0]]
        order = sorted(range(len(positions)), key=positions.__getitem__)
        turned = (key, *order)
        if turned not in self.turned:
            self.turned[turned] = _permuted(found[1], order)
        return tuple(positions[k] for k in order), self.turned[turned]

    def _tabulated(self, x: Node, leaves: Positions) -> tuple[tuple, Array] | None:
        """((number of a load, bit in it), ...) and the values."""
        positions = self.reads(x, (1 << WIDTH[x.kind]) - 1)
        if len(positions) > MOST_BITS or not UNKNOWN.isdisjoint(positions):
            return None
        ordered = tuple(sorted(positions))
        kept, values = needed(ordered, self.values(x, ordered))
        owners = [max((at, k) for k, at in enumerate(leaves) if at <= p) for p in kept]
        return tuple((k, p - at) for p, (at, k) in zip(kept, owners, strict=True)), values

    def shape(self, x: Node) -> tuple[int, Positions]:
        """A number for the expression without its offsets, and the offsets in bits in order."""
        found = self.shapes.get(x)
        if found is None:
            if x.op is Op.LOAD:
                key, leaves = (Op.LOAD, x.imm[2]), (8 * x.imm[1],)
            else:
                parts = [self.shape(a) for a in x.args]
                leaves = tuple(dict.fromkeys(at for _, own in parts for at in own))
                places = tuple(tuple(map(leaves.index, own)) for _, own in parts)
                key = (x.op, x.imm, tuple(n for n, _ in parts), places)
            number = self.numbers.setdefault(key, len(self.numbers))
            found = self.shapes[x] = number, leaves
        return found

    # ---- which bits

    def reads(self, x: Node, mask: int) -> frozenset[int]:
        key = x, mask
        if key not in self.read:
            self.read[key] = self._reads(x, mask) if mask else frozenset()
        return self.read[key]

    def _reads(self, x: Node, mask: int) -> frozenset[int]:
        if x.op is Op.LOAD:
            first, bits = 8 * x.imm[1], 8 * x.imm[2]
            return frozenset(first + k for k in range(bits) if mask >> k & 1)
        if x.op == GATHER:
            return UNKNOWN
        return frozenset().union(*(self.reads(a, m) for a, m in zip(x.args, self._asked(x, mask))))

    def _asked(self, x: Node, mask: int) -> list[int]:
        """Which bits of the operands matter to the bits `mask` of x."""
        full = [(1 << WIDTH[a.kind]) - 1 for a in x.args]
        count = known(x.args[1]) if len(x.args) == 2 else None
        if x.op in (Op.BITAND, Op.BITOR) and count is not None:
            return [mask & (count if x.op is Op.BITAND else ~count) & full[0], 0]
        if x.op in MASKED and x.kind != "bool":
            return [1, mask, mask] if x.op is Op.SELECT else [mask, mask]
        if x.op in CARRIED and x.kind in ("i32", "i64"):
            return [(1 << mask.bit_length()) - 1] * 2
        if count is not None and x.op in (Op.SHL, Op.SHR, Op.SAR):
            return [_before_shift(x.op, mask, count % WIDTH[x.kind], WIDTH[x.kind]), 0]
        if x.op in (Op.EXTEND, Op.UNSIGNED, Op.LOW):
            sign = 1 << 31 if x.op is Op.EXTEND and mask >> 32 else 0
            return [mask & 0xFFFFFFFF | sign]
        return full

    # ---- values

    def values(self, x: Node, positions: Positions) -> Array:
        """The value for every state of these bits."""
        domain = np.arange(1 << len(positions), dtype=np.int64)
        memo: dict[Node, Array] = {}
        with np.errstate(all="ignore"):
            return np.broadcast_to(self._value(x, positions, domain, memo), domain.shape)

    def _value(self, x: Node, positions: Positions, domain: Array, memo: dict[Node, Array]) -> Array:
        found = memo.get(x)
        if found is not None:
            return found
        if x.op is Op.LOAD:
            made = _loaded(x, positions, domain)
        elif x.op in LITERALS:
            made = np.array(x.imm, LITERALS[x.op][0]).view(LITERALS[x.op][1])
        elif x.op in INDICES:
            made = np.array(x.imm, NUMPY[x.kind])
        else:
            args = [self._value(a, positions, domain, memo) for a in x.args]
            made = self._looked_up(x, args[0]) if x.op == TABLE else MEANING[x.op](*args)
        memo[x] = made
        return made

    def _looked_up(self, x: Node, index: Array) -> Array:
        """Elements of a table of constants at every byte offset that occurs."""
        base, size = x.imm
        low, high = int(index.min()), int(index.max()) + size
        # in pieces, as the cache of lifted functions remembers them
        pieces = [self.image.constant(base + at, min(LONGEST, high - at))
                  for at in range(low, high, LONGEST)]  # fmt: skip
        if None in pieces:
            raise Refusal(f"bytes {low} to {high} of a table that is shorter, or no constant")
        raw, at = np.frombuffer(b"".join(pieces), np.uint8), (index - low)[..., None] + np.arange(size)
        word = raw[at].astype(np.uint64) << (8 * np.arange(size, dtype=np.uint64))
        return _as_kind(word.sum(-1, dtype=np.uint64), x.kind)


def _distances(leaves: Positions) -> tuple:
    """Loads that are near may share bits: their distances count. Far ones are told by their order."""
    order = sorted(range(len(leaves)), key=leaves.__getitem__)
    steps = [leaves[b] - leaves[a] for a, b in pairwise(order)]
    return tuple(order), tuple(min(step, FAR) for step in steps)


def _permuted(values: Array, order: list[int]) -> Array:
    """The table whose bit k is bit order[k] of the old one."""
    if order == sorted(order):
        return values
    n = len(order)
    axes = [n - 1 - k for k in reversed(order)]
    return np.ascontiguousarray(values.reshape((2,) * n).transpose(axes)).reshape(-1)


def _before_shift(op: Op, mask: int, count: int, width: int) -> int:
    """The bits of a that land on `mask` when it is shifted; of SAR its sign lands on all above."""
    if op is Op.SHL:
        return mask >> count
    sign = 1 << (width - 1) if op is Op.SAR and mask >> (width - count) else 0
    return (mask << count) & ((1 << width) - 1) | sign


def _loaded(x: Node, positions: Positions, domain: Array) -> Array:
    first, bits = 8 * x.imm[1], 8 * x.imm[2]
    own = [(k, at - first) for k, at in enumerate(positions) if first <= at < first + bits]
    word = np.zeros(len(domain), np.int64)
    for k, count, place in merged(own):
        word |= (domain >> k & (1 << count) - 1) << place
    return _as_kind(word.view(np.uint64), x.kind)


def _as_kind(word: Array, kind: str) -> Array:
    return word.astype(np.uint32).view(np.int32) if kind == "i32" else word.view(np.int64)


def needed(positions: Positions, values: Array) -> tuple[Positions, Array]:
    """Without the bits that change nothing."""
    raw = values.view(f"u{values.itemsize}") if values.dtype.kind == "f" else values
    kept = []
    for k, at in enumerate(positions):
        pairs = raw.reshape(-1, 2, 1 << len(kept))
        if np.array_equal(pairs[:, 0], pairs[:, 1]):
            raw = np.ascontiguousarray(pairs[:, 0]).reshape(-1)
        else:
            kept.append(at)
    return tuple(kept), np.ascontiguousarray(raw).view(values.dtype)
