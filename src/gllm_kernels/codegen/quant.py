"""Blocks of weights to floats, from the description of their format alone.

    out[b, l] = A[g] * (q[l] + Z[g]) + B[g]        units are super-blocks: so many blocks that lanes are full

Codes are fields (see `fields`), then entries of tables: of few entries a permutation of registers,
of codebooks a gather, for four neighbours at once where they choose by the same bits. Scales are
computed for all groups at once, lanes being groups, and then spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import CompileError
from ..quant.desc import Code, Field, Leaf, QuantDesc, Scale, merged, moved
from ..trace.affine import Affine
from ..trace.ir import float_bits
from .fields import Fields, Tables, bytes_of
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, KParam, Mem, Value

PARAMS = (KParam("blocks", "ptr"), KParam("out", "ptr"), KParam("tables", "ptr"), KParam("n", "i64"))
STORED = {"f16": "f16", "bf16": "bf16", "f32": "float"}
MOST_ROWS = 12  # bits that choose a row of a codebook
BYTES_PER_TILE = 1 << 16  # of floats


def superblock(desc: QuantDesc, lanes: int) -> int:
    """Blocks that are decoded together: full vectors, bytes for a dword, and groups enough for the
    work on scales to pay."""
    count = 1
    while count < 16 and (count * len(desc.codes) % lanes or count * desc.size < 16):
        count *= 2
    while all(map(plain, desc.scales)) and count * len(desc.codes) < 8 * lanes:
        count *= 2  # the loop costs as much as a vector
    table = any(leaf.table for scale in desc.scales for leaf in scale.leaves)
    while table and count * len(desc.scales) < 8:
        count *= 2
    return count


def plain(scale: Scale | None) -> bool:
    """Whether one load, or a constant, is the scale in all lanes."""
    leaves = () if scale is None else scale.leaves
    whole = all(leaf.kind in STORED and len(leaf.fields) == 1 and leaf.fields[0][0] % 8 == 0
                for leaf in leaves)  # fmt: skip
    return whole and (scale is None or scale.code is None)


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
        Decoder(builder, whole.size, tables, block, whole, desc.size, target).run()
    tile = max(1, BYTES_PER_TILE // (4 * len(whole.codes)))
    kernel = builder.build(Affine.sym("n"), tile, unit="super-block")
    return kernel, tables.array(), count


@dataclass
class Decoder(Fields):
    """Lowering of one super-block of blocks of `size` bytes."""

    desc: QuantDesc
    size: int
    target: Value
    groups: dict[tuple[str, int], Value] = field(default_factory=dict)
    latest: dict[str, tuple[Sequence[int], Value]] = field(default_factory=dict)

    def run(self) -> None:
        lanes, groups, codes = self.b.lanes, self.desc.groups, self.desc.codes
        rows: list[Value | None] = []
        for first in range(0, len(groups), lanes):
            own = groups[first : first + lanes]
            rows = rows or self.rows_of_four(codes[first : first + 4 * lanes])
            x = self.numbers(codes[first : first + lanes], own, rows.pop(0))
            if any(scale != Scale(1.0) for scale in self.desc.scales):
                x = self.spread("scales", own) * x
            if any(scale is not None for scale in self.desc.offsets):
                x = x + self.spread("offsets", own)
            self.b.store(self.target, self.b.int(0), x, 4, 4 * first)

    # ---- codes

    def numbers(self, codes: Sequence[Code], groups: Sequence[int], entries: Value | None) -> Value:
        """q + Z, or levels[q], as floats."""
        q, levels = self.code(codes, entries), self.desc.levels
        if levels is None:
            if any(self.desc.zeros):
                q = self.b.emit(K.VIADD, q, self.spread("zeros", groups))
            return self.b.emit(K.VI2F, q)
        if levels.table:
            return self.looked_up(q, np.array(levels.table, np.uint32))
        at = [c.fields[0][0] // 8 // self.size * self.size for c in codes]
        count = self.desc.range[1] + 1
        if len(set(at)) == 1 and count <= self.b.lanes:
            return self.b.emit(K.VPERM, self.window(at[0] + levels.offset, 4 * count), q)
        q = self.b.emit(K.VIADD, self.b.emit(K.VSHL, q, imm=2), self.vector(at))
        return self.b.emit(K.GATHER, self.block, q, imm=Mem(1, levels.offset))

    def code(self, codes: Sequence[Code | None], entries: Value | None = None) -> Value:
        """The integers of codes, one in each lane; `entries` of their tables may be there already."""
        codes = [code or Code(()) for code in codes]
        u = entries or self.word([code.fields for code in codes])
        if entries is None:
            u = self.with_constant(K.VXOR, u, [code.xor for code in codes])
        if entries is None and any(code.table is not None for code in codes):
            u = self.table(u, [code.table for code in codes])
        u = self.with_constant(K.VIADD, u, [code.off for code in codes])
        return self.signed(u, codes) if any(code.sign for code in codes) else u

    def table(self, u: Value, tables: Sequence[bytes | None]) -> Value:
        """tables[lane][u]: of few entries, or few bits, a permutation, else bytes of memory."""
        if len(set(tables)) == 1:
            entries = np.frombuffer(tables[0], np.uint8)
            bits = next(n for n in (1, 2, 4, 8) if int(entries.max()) < 1 << n)
            if len(entries) <= 16:
                return self.looked_up(u, entries.astype(np.uint32))
            if len(entries) * bits <= 16 * 32:
                return self.packed(u, entries, bits)
        filled = [bytes(range(256)) if table is None else table for table in tables]
        starts = [self.tables.place(table) for table in filled]
        base = min(starts)
        u = self.with_constant(K.VIADD, u, [at - base for at in starts])
        word = self.b.emit(K.GATHER, self.b.arg("tables"), u, imm=Mem(1, base))
        return self.b.emit(K.VAND, word, self.b.bits(255))

    def rows_of_four(self, codes: Sequence[Code]) -> list[Value | None]:
        """Entries of the tables of four vectors of codes by one gather, where every four neighbours
        choose theirs by the same bits: those entries side by side are one dword."""
        b, lanes = self.b, self.b.lanes
        large = all(code.table is not None and len(code.table) > 64 for code in codes)
        quads = [row_of_four(codes[k : k + 4]) for k in range(0, len(codes), 4)] if large else [None]
        if None in quads or len(quads) < lanes:
            return [None] * 4
        starts = [self.tables.place(table) // 4 for _, table in quads]
        u = self.word([fields for fields, _ in quads])
        u = self.with_constant(K.VIADD, u, [start - min(starts) for start in starts])
        row = b.emit(K.GATHER, b.arg("tables"), u, imm=Mem(4, 4 * min(starts)))
        byte = self.vector([8 * (i % 4) for i in range(lanes)])
        made = []
        for k in range(0, lanes, lanes // 4):
            spread = b.emit(K.VPERM, row, self.vector([k + i // 4 for i in range(lanes)]))
            made.append(b.emit(K.VAND, b.emit(K.VSHRV, spread, byte), b.bits(255)))
        return made

    def signed(self, q: Value, codes: Sequence[Code]) -> Value:
        """q, negative where the parity says so: (q ^ s) - s with s of all ones."""
        signs = [code.sign or (0, ()) for code in codes]
        runs = [bytes_of(tuple((at, 1, 0) for at in bits)) for _, bits in signs]
        s = self.word(runs, K.VXOR)
        for step in (4, 2, 1):
            if any(n > step for lane in runs for _, n, _ in lane):
                s = self.b.emit(K.VXOR, s, self.b.emit(K.VSHR, s, imm=step))
        s = self.with_constant(K.VXOR, s, [flip for flip, _ in signs])
        s = self.b.emit(K.VSAR, self.b.emit(K.VSHL, s, imm=31), imm=31)
        return self.b.emit(K.VISUB, self.b.emit(K.VXOR, q, s), s)

    # ---- scales

    def spread(self, name: str, groups: Sequence[int]) -> Value:
        """For every lane the value of its group."""
        if len(self.desc.scales) == 1:
            return self.of_groups(name, 0)
        if name not in self.latest or self.latest[name][0] != groups:
            rows = [getattr(self.desc, name)[g] for g in groups]
            alone = name != "zeros" and len(set(groups)) == 1 and plain(rows[0])
            self.latest[name] = groups, self.scale(rows) if alone else self._spread(name, groups)
        return self.latest[name][1]

    def _spread(self, name: str, groups: Sequence[int]) -> Value:
        found, lanes = None, self.b.lanes
        for k in sorted({g // lanes for g in groups}):
            own = [g % lanes if g // lanes == k else 0 for g in groups]
            part = self.b.emit(K.VPERM, self.of_groups(name, k), self.vector(own))
            if found is not None or {g // lanes for g in groups} != {k}:
                keep = self.vector([-(g // lanes == k) for g in groups])
                part = self.b.emit(K.VAND, part, keep)
            found = part if found is None else self.b.emit(K.VOR, found, part)
        return found

    def of_groups(self, name: str, k: int) -> Value:
        """The k-th vector of groups, one in each lane, made when it is first asked for; lanes
        without a group repeat the last."""
        if (name, k) not in self.groups:
            rows, lanes = getattr(self.desc, name)[k * self.b.lanes :], self.b.lanes
            rows = (*rows[:lanes], *(rows[-1],) * (lanes - len(rows)))
            self.groups[name, k] = (self.code if name == "zeros" else self.scale)(rows)
        return self.groups[name, k]

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
        kind, ((at, _, _), *more) = leaves[0].kind, leaves[0].fields
        storage = STORED.get(kind)
        if storage and not at % 8 and not more and len(set(leaves)) == 1:
            return self.b.broadcast(self.block, self.b.int(0), 1, at // 8, storage)
        word = self.word([leaf.fields for leaf in leaves])
        if kind == "table":
            return self.looked_up(word, np.array(leaves[0].table, np.uint32))
        if kind == "bf16":
            return self.b.emit(K.VSHL, word, imm=16)
        return self.b.emit(K.VHALF, word) if kind == "f16" else word


def row_of_four(codes: Sequence[Code]) -> tuple[tuple[Field, ...], bytes] | None:
    """(the bits that choose, four entries for each choice), or None where they are too many."""
    places = [{at + k: to + k for at, n, to in code.fields for k in range(n)} for code in codes]
    bits = sorted(set().union(*places))
    if len(bits) > MOST_ROWS:
        return None
    rows = np.arange(1 << len(bits))
    columns = []
    for code, place in zip(codes, places, strict=True):
        u = sum((rows >> bits.index(at) & 1) << to for at, to in place.items()) ^ code.xor
        columns.append(np.frombuffer(code.table, np.uint8)[u])
    return merged(zip(bits, range(len(bits)), strict=True)), np.stack(columns, 1).tobytes()
