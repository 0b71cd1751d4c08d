"""Blocks of weights to floats, from the description of their format alone.

    out[b, l] = A[g] * (q[l] + Z[g]) + B[g]        units are super-blocks: so many blocks that lanes are full

A lane is 32 bits of a vector. Every field of a code is cut into pieces that lie in one byte. The k-th pieces of
all lanes are one shift and one mask behind a load: of consecutive bytes, if the lanes lie so, else of a
window of the block whose dwords are permuted. Scales are computed for all groups at once, lanes
being groups, and then spread. Constant vectors and codebooks lie in memory, in `Tables`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import CompileError
from ..quant.desc import Code, Field, Leaf, QuantDesc, Scale, moved
from ..trace.affine import Affine
from ..trace.ir import float_bits
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, KParam, Mem, Value

PARAMS = (KParam("blocks", "ptr"), KParam("out", "ptr"), KParam("tables", "ptr"), KParam("n", "i64"))
BYTES_PER_TILE = 1 << 16  # of floats
Piece = tuple[int, int, int]  # (bit in the block, bits within one byte, place)
NONE: Piece = (0, 0, 0)


@dataclass
class Tables:
    """Constant bytes that a kernel reads; equal ones lie there once."""

    parts: dict[bytes, int] = field(default_factory=dict)
    size: int = 0

    def place(self, content: bytes, unit: int = 64) -> int:
        """Where the bytes are, from the start."""
        if content not in self.parts:
            at = -(-self.size // unit) * unit
            self.parts[content] = at
            self.size = at + len(content)
        return self.parts[content]

    def array(self) -> np.ndarray:
        """All of them; a dword may be read at the last byte."""
        out = np.zeros(self.size + 64, np.uint8)
        for content, at in self.parts.items():
            out[at : at + len(content)] = np.frombuffer(content, np.uint8)
        return out


def superblock(desc: QuantDesc, lanes: int) -> int:
    """Blocks that are decoded together: full vectors, bytes for a dword, and groups enough for the
    work on scales to pay."""
    count = 1
    while count < 16 and (count * len(desc.codes) % lanes or count * desc.size < 16):
        count *= 2
    table = any(leaf.table for scale in desc.scales for leaf in scale.leaves)
    while table and count * len(desc.scales) < 8:
        count *= 2
    return count


def glued(desc: QuantDesc, count: int) -> QuantDesc:
    """`count` blocks as one."""
    groups, step = len(desc.scales), 8 * desc.size
    shift = lambda code, k: code and moved(code, k * step)
    return QuantDesc(
        desc.size * count,
        tuple(moved(code, k * step) for k in range(count) for code in desc.codes),
        tuple(g + k * groups for k in range(count) for g in desc.groups),
        tuple(_moved_scale(scale, k * step) for k in range(count) for scale in desc.scales),
        tuple(shift(code, k) for k in range(count) for code in desc.zeros),
        tuple(_moved_scale(scale, k * step) for k in range(count) for scale in desc.offsets),
        desc.levels,
    )  # fmt: skip


def _moved_scale(scale: Scale | None, by: int) -> Scale | None:
    if scale is None:
        return None
    leaves = (Leaf(leaf.kind, tuple((at + by, n, to) for at, n, to in leaf.fields), leaf.table)
              for leaf in scale.leaves)  # fmt: skip
    return Scale(scale.const, scale.code and moved(scale.code, by), tuple(leaves))


def dequantize(desc: QuantDesc, isa: Isa) -> tuple[Kernel, np.ndarray, int]:
    """(the kernel, its tables, blocks of a unit)."""
    count = superblock(desc, isa.lanes)
    tables, whole = Tables(), glued(desc, count)
    builder = KernelBuilder("dequantize", isa.lanes, PARAMS)
    with builder.loop(builder.emit(K.BEGIN), builder.emit(K.END), 1, name="blocks") as loop:
        block = builder.arg("blocks") + loop.iv * whole.size
        target = builder.arg("out") + loop.iv * (4 * len(whole.codes))
        Decoder(builder, whole, desc.size, tables, block, target).run()
    tile = max(1, BYTES_PER_TILE // (4 * len(whole.codes)))
    kernel = builder.build(Affine.sym("n"), tile, unit="super-block")
    return kernel, tables.array(), count


@dataclass
class Decoder:
    """Lowering of one super-block."""

    b: KernelBuilder
    desc: QuantDesc
    size: int  # bytes of one block
    tables: Tables
    block: Value
    target: Value
    groups: dict[str, list[Value]] = field(default_factory=dict)
    latest: dict[str, tuple[Sequence[int], Value]] = field(default_factory=dict)

    def run(self) -> None:
        lanes, groups = self.b.lanes, self.desc.groups
        for first in range(0, len(groups), lanes):
            own = groups[first : first + lanes]
            x = self.numbers(self.desc.codes[first : first + lanes], own)
            if any(scale != Scale(1.0) for scale in self.desc.scales):
                x = self.spread("scales", own) * x
            if any(scale is not None for scale in self.desc.offsets):
                x = x + self.spread("offsets", own)
            self.b.store(self.target, self.b.int(0), x, 4, 4 * first)

    # ---- codes

    def numbers(self, codes: Sequence[Code], groups: Sequence[int]) -> Value:
        """q + Z, or levels[q], as floats."""
        q, levels = self.code(codes), self.desc.levels
        if levels is None:
            if any(self.desc.zeros):
                q = self.b.emit(K.VIADD, q, self.spread("zeros", groups))
            return self.b.emit(K.VI2F, q)
        if levels.table:
            return self.looked_up(q, np.array(levels.table, np.uint32))
        at = [f // self.size * self.size for f in (c.fields[0][0] // 8 for c in codes)]
        q = self.b.emit(K.VIADD, self.b.emit(K.VSHL, q, imm=2), self.vector(at))
        return self.b.emit(K.GATHER, self.block, q, imm=Mem(1, levels.offset))

    def code(self, codes: Sequence[Code | None]) -> Value:
        """The integers of codes, one in each lane."""
        codes = [code or Code(()) for code in codes]
        u = self.word([code.fields for code in codes])
        u = self.with_constant(K.VXOR, u, [code.xor for code in codes])
        if any(code.table is not None for code in codes):
            u = self.table(u, [code.table for code in codes])
        u = self.with_constant(K.VIADD, u, [code.off for code in codes])
        return self.signed(u, codes) if any(code.sign for code in codes) else u

    def with_constant(self, op: K, x: Value, values: Sequence[int]) -> Value:
        return self.b.emit(op, x, self.vector(values)) if any(values) else x

    def table(self, u: Value, tables: Sequence[bytes | None]) -> Value:
        """tables[lane][u]: of few entries a permutation, else bytes of memory."""
        if len(set(tables)) == 1 and len(tables[0]) <= 16:
            return self.looked_up(u, np.frombuffer(tables[0], np.uint8).astype(np.uint32))
        filled = [bytes(range(256)) if table is None else table for table in tables]
        starts = [self.tables.place(table) for table in filled]
        base = min(starts)
        u = self.with_constant(K.VIADD, u, [at - base for at in starts])
        word = self.b.emit(K.GATHER, self.b.arg("tables"), u, imm=Mem(1, base))
        return self.b.emit(K.VAND, word, self.b.bits(255))

    def looked_up(self, u: Value, words: np.ndarray) -> Value:
        """words[u], each of 32 bits."""
        lanes, b = self.b.lanes, self.b
        if len(words) > 16:
            at = self.tables.place(words.astype(np.uint32).tobytes())
            return b.emit(K.GATHER, b.arg("tables"), u, imm=Mem(4, at))
        words = np.resize(words, max(lanes, len(words)))
        parts = [b.emit(K.VPERM, self.vector(words[k : k + lanes].tolist()), u)
                 for k in range(0, len(words), lanes)]  # fmt: skip
        if len(parts) == 1:
            return parts[0]
        return b.emit(K.SELECT, b.emit(K.VILT, u, b.bits(lanes)), *parts)

    def signed(self, q: Value, codes: Sequence[Code]) -> Value:
        """q, negative where the parity says so: (q ^ s) - s with s of all ones."""
        signs = [code.sign or (0, ()) for code in codes]
        runs = [_bytes_of(tuple((at, 1, 0) for at in bits)) for _, bits in signs]
        s = self.word(runs, K.VXOR)
        for step in (4, 2, 1):
            if any(n > step for lane in runs for _, n, _ in lane):
                s = self.b.emit(K.VXOR, s, self.b.emit(K.VSHR, s, imm=step))
        s = self.with_constant(K.VXOR, s, [flip for flip, _ in signs])
        s = self.b.emit(K.VSAR, self.b.emit(K.VSHL, s, imm=31), imm=31)
        return self.b.emit(K.VISUB, self.b.emit(K.VXOR, q, s), s)

    # ---- fields

    def word(self, fields: Sequence[Sequence[Field]], join: K = K.VOR) -> Value:
        """The fields of every lane put together."""
        pieces = [_pieces(lane) for lane in fields]
        found = None
        for k in range(max(map(len, pieces), default=0)):
            column = [lane[k] if k < len(lane) else NONE for lane in pieces]
            for part in self.windows(column):
                found = part if found is None else self.b.emit(join, found, part)
        return self.b.bits(0) if found is None else found

    def windows(self, column: list[Piece]) -> list[Value]:
        """One vector, or several with zeros where another has the lane."""
        first, count, place = column[0]
        if count and column == [(first + 8 * i, count, place) for i in range(len(column))]:
            return [self.moved(self.bytes(first // 8), [first % 8] * len(column), column, True)]
        made, left = [], {i for i, piece in enumerate(column) if piece[1]}
        most = min(4 * self.b.lanes, self.desc.size // 4 * 4)
        while left:
            start = min(min(column[i][0] // 8 for i in left), self.desc.size - most)
            inside = {i for i in left if column[i][0] // 8 < start + most}
            bits = [column[i][0] - 8 * start if i in inside else 0 for i in range(len(column))]
            own = [piece if i in inside else NONE for i, piece in enumerate(column)]
            dwords = [bits[i] // 32 for i in sorted(inside)]
            if len(set(dwords)) == 1:
                words = self.dword(start + 4 * dwords[0])
            else:
                words = self.b.emit(K.VPERM, self.window(start, most), self.vector([b // 32 for b in bits]))
            made.append(self.moved(words, [bit % 32 for bit in bits], own))
            left -= inside
        return made

    def moved(self, words: Value, bits: list[int], column: list[Piece], whole: bool = False) -> Value:
        """Bits `bits` of every lane to the place of its piece, the rest cleared; `whole`: words are single bytes, all at one bit."""
        steps = [bit - place for bit, (_, _, place) in zip(bits, column, strict=True)]
        for right, left, sign in ((K.VSHR, K.VSHRV, 1), (K.VSHL, K.VSHLV, -1)):
            counts = [max(0, sign * step) for step in steps]
            if any(counts):
                words = (self.b.emit(right, words, imm=counts[0]) if len(set(counts)) == 1
                         else self.b.emit(left, words, self.vector(counts)))  # fmt: skip
        if whole and not column[0][2] and bits[0] + column[0][1] == 8:  # nothing lies above or below
            return words
        return self.b.emit(K.VAND, words, self.vector([(1 << n) - 1 << to for _, n, to in column]))

    def bytes(self, at: int) -> Value:
        """As many bytes as there are lanes. Loaded again where they are used again: a load costs
        less than a register that is kept."""
        return self.b.load(self.block, self.b.int(0), 1, at, storage="uint8_t")

    def dword(self, at: int) -> Value:
        """Four bytes in all lanes."""
        return self.b.broadcast(self.block, self.b.int(0), 1, at)

    def window(self, at: int, size: int) -> Value:
        """`size` bytes, zeros behind."""
        b, lanes = self.b, self.b.lanes
        mask = b.emit(K.FIRST, b.int(size // 4)) if size < 4 * lanes else None
        return b.load(self.block, b.int(0), 1, at, mask)

    def vector(self, values: Sequence[int]) -> Value:
        """A constant vector."""
        words = [value & 0xFFFFFFFF for value in values]
        if len(set(words)) == 1:
            return self.b.bits(words[0])
        at = self.tables.place(np.array(words, np.uint32).tobytes())
        return self.b.load(self.b.arg("tables"), self.b.int(0), 1, at)

    # ---- scales

    def spread(self, name: str, groups: Sequence[int]) -> Value:
        """For every lane the value of its group."""
        if name not in self.groups:
            self.groups[name] = self.of_groups(name)
        if len(self.desc.scales) == 1:
            return self.groups[name][0]
        if name not in self.latest or self.latest[name][0] != groups:
            self.latest[name] = groups, self._spread(self.groups[name], groups)
        return self.latest[name][1]

    def _spread(self, vectors: list[Value], groups: Sequence[int]) -> Value:
        found, lanes = None, self.b.lanes
        for k in sorted({g // lanes for g in groups}):
            own = [g % lanes if g // lanes == k else 0 for g in groups]
            part = self.b.emit(K.VPERM, vectors[k], self.vector(own))
            if found is not None or {g // lanes for g in groups} != {k}:
                keep = self.vector([-(g // lanes == k) for g in groups])
                part = self.b.emit(K.VAND, part, keep)
            found = part if found is None else self.b.emit(K.VOR, found, part)
        return found

    def of_groups(self, name: str) -> list[Value]:
        """One lane for each group; lanes without one repeat the last."""
        rows, lanes = getattr(self.desc, name), self.b.lanes
        rows = (*rows, *(rows[-1],) * (-len(rows) % lanes))
        lower = self.code if name == "zeros" else self.scale
        return [lower(rows[k : k + lanes]) for k in range(0, len(rows), lanes)]

    def scale(self, scales: Sequence[Scale | None]) -> Value:
        """leaf * leaf * ... * code * const, each product rounded."""
        scales = [scale or Scale(0.0) for scale in scales]
        product = None
        if len({len(scale.leaves) for scale in scales}) > 1:
            raise CompileError("groups of a weight format with different numbers of scales")
        for leaves in zip(*(scale.leaves for scale in scales), strict=True):
            leaf = self.leaf(leaves)
            product = leaf if product is None else product * leaf
        if any(scale.code for scale in scales):
            code = self.b.emit(K.VI2F, self.code([scale.code or Code((), 1) for scale in scales]))
            product = code if product is None else product * code
        consts = [scale.const for scale in scales]
        if product is None or set(consts) != {1.0}:
            const = self.vector([float_bits(c) for c in consts])
            product = const if product is None else product * const
        return product

    def leaf(self, leaves: Sequence[Leaf]) -> Value:
        """Floats of the block."""
        kind, ((at, count, _), *more) = leaves[0].kind, leaves[0].fields
        storage = {"f16": "f16", "bf16": "bf16", "f32": "float"}.get(kind)
        if storage and not at % 8 and not more and len(set(leaves)) == 1:
            return self.b.broadcast(self.block, self.b.int(0), 1, at // 8, storage)
        word = self.word([leaf.fields for leaf in leaves])
        if kind == "table":
            return self.looked_up(word, np.array(leaves[0].table, np.uint32))
        if kind == "bf16":
            return self.b.emit(K.VSHL, word, imm=16)
        return self.b.emit(K.VHALF, word) if kind == "f16" else word


def _pieces(fields: Sequence[Field]) -> list[Piece]:
    """Fields cut at the bounds of bytes."""
    made = []
    for at, count, place in fields:
        while count:
            n = min(count, 8 - at % 8)
            made.append((at, n, place))
            at, count, place = at + n, count - n, place + n
    return made


def _bytes_of(bits: tuple[Field, ...]) -> list[Field]:
    """Single bits, ascending, as runs within one byte, each at place 0."""
    runs: list[list[int]] = []
    for at, _, _ in bits:
        if runs and runs[-1][0] + runs[-1][1] == at and at % 8:
            runs[-1][1] += 1
        else:
            runs.append([at, 1, 0])
    return [tuple(run) for run in runs]
