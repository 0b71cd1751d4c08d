"""Rows of A times quantised weights, by exact products of bytes: four terms share a lane.

    c[i, j] = sum over blocks q: dx[i, q] * (  leaf[j, q] * sum over groups g: scale[j, g] * sum[r in g](x8[i, r] * code[j, r])
                                             + leaf'[j, q] * sum over groups g: offset[j, g] * sum[r in g](x8[i, r]))

`x8` are the rows of A rounded to signed bytes, block by block: dx = max|x| / 127. Products of bytes are
exact in any order and floats are added in one order, so the bits of an element depend on neither the
tile nor the threads nor the number of rows. Weights lie in `Panels`: the rows of a panel are the lanes,
so that one layout serves a single row, which streams from memory, and many.

The driver takes ROWS rows of A at a time. A tile is some of them and one panel, whose codes are
unpacked once for all of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dtypes import SIZE
from ..trace.affine import Affine
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import LINE, Multiples, multiples
from .panels import NUMBERS, QUAD, Panels
from .work import HEAD, QUADS, ROUNDED, WORK, bounded, call, finished, routine_builder

ROWS, COLUMNS = 64, 96
PITCH = 4 * (COLUMNS + 16)  # bytes from row to row of sums; whole vectors may write behind a row
HEIGHTS = {32: (1, 2, 4, 8), 16: (1, 2, 4)}  # of tiles, by the number of registers
TINY = 2.0 ** -100  # blocks whose largest value is below this count as zero: 127 / it is finite
SIGNLESS = 0x7FFFFFFF
STORED = {"i8": "int8_t", "u8": "uint8_t", "i16": "int16_t", "f16": "f16", "f32": "float"}


def quads_bytes(isa: Isa, panels: Panels, k: Affine) -> Affine:
    """Scratch: sums, and rows of bytes with what belongs to their blocks."""
    rows = ROWS + HEIGHTS[isa.vregs][-1]
    per_term = 1 + -(-panels.aux_bytes // panels.block)
    return rows * (per_term * k + 4 * LINE + PITCH) + HEAD


def quads_routine(isa: Isa, panels: Panels, storage: str) -> Routine:
    return Routine(f"quads {panels} {storage}", quads, (isa, panels, storage))


# -- the driver ------------------------------------------------------------------------------------
def quads(isa: Isa, panels: Panels, storage: str) -> Kernel:
    b = routine_builder("gemm.quads", isa, WORK)
    m, end, k, weights = b.arg("m"), b.emit(K.END), b.arg("k"), b.arg("b")
    sums = b.emit(K.SCRATCH) + HEAD
    x, blocks = sums + (ROWS + HEIGHTS[isa.vregs][-1]) * PITCH, k / panels.block
    aux = (k + (LINE - 1)) & -LINE
    line = ((aux + blocks * panels.aux_bytes + (LINE - 1)) & -LINE) + LINE
    with b.loop(0, m, ROWS, name="rows") as above:
        rows, first = b.emit(K.IMIN, m - above.iv, b.int(ROWS)), above.iv * b.arg("a_line")
        code, tall = _tiles_of(b, isa, panels, rows)
        tiles = (rows + tall - 1) / tall
        call(b, Routine(f"round {panels} {storage}", rounded, (isa, panels, storage)), "rounded",
             ROUNDED, {"source": b.arg("a") + first, "source_line": b.arg("a_line"), "exist": rows,
                       "rows": tiles * tall, "blocks": blocks, "target": x, "line": line, "aux": aux})
        with b.loop(b.emit(K.BEGIN), end, COLUMNS, name="columns") as j:
            columns = b.emit(K.IMIN, end - j.iv, b.int(COLUMNS))
            with b.loop(0, columns, b.lanes, name="panel") as panel:
                number = (j.iv + panel.iv) / b.lanes
                planes = weights + LINE + number * (blocks * panels.panel_bytes)
                call(b, code, "quads", QUADS, {
                    "x": x, "line": line, "aux": aux, "tiles": tiles, "table": weights,
                    "planes": planes, "scales": planes + blocks * panels.plane_bytes,
                    "blocks": blocks, "target": sums + panel.iv * 4})
            finished(b, {"sums": sums, "pitch": b.int(PITCH), "row": above.iv, "rows": rows,
                         "column": j.iv, "columns": columns})
    return b.build(Affine.const(1), 1, "column of a product")


def _tiles_of(b: KernelBuilder, isa: Isa, panels: Panels, rows: Value) -> tuple[Value, Value]:
    """The routine for all tiles and their height: the lowest that needs no more tiles than the
    tallest would."""
    heights = HEIGHTS[isa.vregs]
    fewest = (rows + (heights[-1] - 1)) / heights[-1]
    even = (rows + fewest - 1) / fewest
    codes = [b.code(tiles_routine(isa, panels, height)) for height in heights]
    code, tall = codes[0], b.int(heights[0])
    for number, (low, high) in enumerate(zip(heights, heights[1:]), 1):
        more = bounded(b, even - low, 0, 1)
        code = code + (codes[number] - codes[number - 1]) * more
        tall = tall + more * (high - low)
    return code, tall


# -- rows of A as bytes ----------------------------------------------------------------------------
def rounded(isa: Isa, panels: Panels, storage: str) -> Kernel:
    """x8 = nearest(x * 127 / max|x|) of every block, and what belongs to it; rows that do not exist
    repeat the last one. A NaN or an infinity makes dx, and so the whole row of C, a NaN."""
    b = routine_builder("quads.round", isa, ROUNDED)
    with b.loop(0, b.arg("rows"), 1, b.arg("target"), name="row") as row:
        exists = b.emit(K.IMIN, row.iv, b.arg("exist") - 1)
        source, aux = b.arg("source") + exists * b.arg("source_line"), row.phis[0] + b.arg("aux")
        with b.loop(0, b.arg("blocks"), 1, source, row.phis[0], aux, name="round") as block:
            _round_block(b, panels, storage, block.phis)
            steps = panels.block * SIZE[storage], panels.block, panels.aux_bytes
            block.yields(*(at + step for at, step in zip(block.phis, steps)))
        row.yields(row.phis[0] + b.arg("line"))
    return b.build(Affine.const(1), 1, "call")


def _round_block(b: KernelBuilder, panels: Panels, storage: str, at: tuple[Value, ...]) -> None:
    source, target, aux = at
    zero, size = b.int(0), SIZE[storage]

    def loaded(r: int) -> Value:
        return b.load(source, zero, 1, size * r, storage=storage)

    top = broken = b.const(0.0)
    for r in range(0, panels.block, b.lanes):
        value = loaded(r)
        top = b.emit(K.VMAX, b.emit(K.VAND, value, b.bits(SIGNLESS)), top)
        broken = b.emit(K.VFMA, value, b.const(0.0), broken)
    top, broken = b.emit(K.HMAX, top), b.emit(K.HSUM, broken)
    small = b.emit(K.VLT, top, b.const(TINY))
    inverse = b.emit(K.SELECT, small, b.const(0.0), b.const(127.0) / top)
    wide = max(panels.group, b.lanes)
    for first in range(0, panels.block, wide):
        total = b.bits(0)
        for r in range(first, first + wide, b.lanes):
            code = b.emit(K.VF2I, loaded(r) * inverse)
            b.store(target, zero, code, 1, r, storage="int8_t")
            total = b.emit(K.VIADD, total, code)
        for group in range(0, wide, panels.group):
            part = total if wide == panels.group else _between(b, total, group, group + panels.group)
            _sums_of_group(b, panels, part, aux, (first + group) // panels.group * panels.aux_step)
    b.emit(K.STORE1, aux, zero, top * b.const(1 / 127) + broken, imm=Mem(1, panels.aux_bytes - 4))


def _between(b: KernelBuilder, value: Value, low: int, high: int) -> Value:
    """The lanes low <= i < high, zeros elsewhere."""
    lanes = b.emit(K.VLANES)
    inside = b.emit(K.MAND, b.emit(K.VILT, lanes, b.bits(high)),
                    b.emit(K.MNOT, b.emit(K.VILT, lanes, b.bits(low))))
    return b.emit(K.SELECT, inside, value, b.bits(0))


def _sums_of_group(b: KernelBuilder, panels: Panels, total: Value, aux: Value, disp: int) -> None:
    """sum(x8) * low as an integer, sum(x8) as a float."""
    if not panels.aux_step:
        return
    whole = b.emit(K.HSUM, b.emit(K.VI2F, total))
    if panels.low:
        value = b.emit(K.VF2I, whole * b.const(float(panels.low)))
        b.emit(K.STORE1, aux, b.int(0), value, imm=Mem(1, disp))
    if panels.offset:
        b.emit(K.STORE1, aux, b.int(0), whole, imm=Mem(1, disp + 4 * bool(panels.low)))


# -- tiles -----------------------------------------------------------------------------------------
def tiles_routine(isa: Isa, panels: Panels, height: int) -> Routine:
    return Routine(f"tiles {height} of {panels}", tiles, (isa, panels, height))


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile being written: rows of A are `rows` apart, four to a base."""

    build: KernelBuilder
    panels: Panels
    height: int
    rows: Multiples
    table: Value | None

    def of_row(self, bases: tuple[Value, ...], row: int, disp: int) -> Value:
        """32 bits of a row of A in all lanes."""
        index, scale = self.rows[row % 4]
        return self.build.broadcast(bases[row // 4], index, scale, disp)

    def bases(self, at: Value) -> tuple[Value, ...]:
        line = self.build.arg("line")
        return tuple(at + line * row for row in range(0, self.height, 4))

    def number(self, kind: str, at: Value, disp: int) -> Value:
        """A float for each lane."""
        b = self.build
        value = b.load(at, b.int(0), 1, disp, storage=STORED[kind])
        return value if kind[0] == "f" else b.emit(K.VI2F, value)


def tiles(isa: Isa, panels: Panels, height: int) -> Kernel:
    """target[t*height + i][lane] = sums of all blocks, for every tile t."""
    b = routine_builder(f"quads.{height}", isa, QUADS)
    table = b.load(b.arg("table"), b.int(0)) if panels.table else None
    tile = Tile(b, panels, height, multiples(b, b.arg("line")), table)
    with b.loop(0, b.arg("tiles"), 1, b.arg("x"), b.arg("target"), name="tiles") as loop:
        x, target = loop.phis
        for row in range(height):
            b.store(target, b.int(0), b.const(0.0), disp=PITCH * row)
        _blocks(tile, x, target)
        loop.yields(x + b.arg("line") * height, target + PITCH * height)
    return b.build(Affine.const(1), 1, "call")


def _blocks(tile: Tile, x: Value, target: Value) -> None:
    """Sums wait in the 1st-level cache: registers are for those of a block."""
    b, panels = tile.build, tile.panels
    inits = b.arg("planes"), b.arg("scales"), x, x + b.arg("aux")
    with b.loop(0, b.arg("blocks"), 1, *inits, name="block") as block:
        planes, scales, codes, aux = block.phis
        leaves = sum(NUMBERS[n] for n in panels.leaves) * b.lanes
        sums = _steps(tile, planes, scales + leaves, codes, aux)
        for row, value in enumerate(_with_leaves(tile, sums, scales, aux)):
            factor = tile.of_row(tile.bases(aux), row, panels.aux_bytes - 4)
            total = b.emit(K.VFMA, value, factor, b.load(target, b.int(0), disp=PITCH * row))
            b.store(target, b.int(0), total, disp=PITCH * row)
        block.yields(planes + panels.plane_bytes, scales + panels.scale_bytes,
                     codes + panels.block, aux + panels.aux_bytes)


def _steps(tile: Tile, planes: Value, scales: Value, codes: Value, aux: Value) -> list[Value]:
    """Per row: the sum over a block's groups of scale * sum(x8 * code)."""
    b, panels = tile.build, tile.panels
    zeros = [b.const(0.0)] * tile.height
    if panels.steps == 1:
        return _step(tile, (planes, scales, codes, aux), zeros)
    moves = (panels.plane_bytes // panels.steps, panels.groups * _number_bytes(tile),
             panels.quads * QUAD, panels.groups * panels.aux_step)
    with b.loop(0, panels.steps, 1, planes, scales, codes, aux, *zeros, name="step") as step:
        sums = _step(tile, step.phis[:4], list(step.phis[4:]))
        step.yields(*(at + move for at, move in zip(step.phis[:4], moves)), *sums)
    return list(step.results[4:])


def _number_bytes(tile: Tile) -> int:
    """Scale and offset of one group."""
    return tile.build.lanes * (NUMBERS[tile.panels.scale] + NUMBERS[tile.panels.offset])


def _step(tile: Tile, at: tuple[Value, ...], sums: list[Value]) -> list[Value]:
    b, panels = tile.build, tile.panels
    planes, scales, codes, aux = at
    x, auxes, quads = tile.bases(codes), tile.bases(aux), panels.group // QUAD
    dot = K.VDOT4 if panels.largest < 128 else K.VDOT4U
    for group in range(panels.groups):
        disp = group * panels.aux_step
        acc = [tile.of_row(auxes, row, disp) if panels.low else b.bits(0) for row in range(tile.height)]
        for quad in range(group * quads, (group + 1) * quads):
            code = _unpacked(tile, planes, quad)
            acc = [b.emit(dot, code, tile.of_row(x, row, QUAD * quad), acc[row])
                   for row in range(tile.height)]
        found = [b.emit(K.VI2F, value) for value in acc]
        if not panels.scale:
            sums = [value + total for value, total in zip(found, sums)]
            continue
        scale = tile.number(panels.scale, scales, group * _number_bytes(tile))
        sums = [b.emit(K.VFMA, value, scale, total) for value, total in zip(found, sums)]
    return sums


def _unpacked(tile: Tile, planes: Value, quad: int) -> Value:
    """The codes of a vector, a byte each."""
    b, panels, first, low, found = tile.build, tile.panels, 0, 0, None
    for width in panels.planes:
        vectors = panels.quads * width // 8
        number, vector = divmod(quad, vectors)
        value = b.load(planes, b.int(0), disp=4 * b.lanes * (first + vector))
        move = width * number - low
        if move:
            value = b.emit(K.VSHR if move > 0 else K.VSHL, value, imm=abs(move))
        if width < 8:
            value = b.emit(K.VAND, value, b.bits(((1 << width) - 1 << low) * 0x01010101))
        found = value if found is None else b.emit(K.VOR, found, value)
        first, low = first + vectors, low + width
    return found if tile.table is None else b.emit(K.VBYTES, tile.table, found)


def _with_leaves(tile: Tile, sums: list[Value], scales: Value, aux: Value) -> list[Value]:
    """leaf * sums + leaf' * the sum over groups of offset * sum(x8)."""
    b, panels = tile.build, tile.panels
    one, two = panels.leaves
    if one:
        leaf = tile.number(one, scales, 0)
        sums = [value * leaf for value in sums]
    if not panels.offset:
        return sums
    added = _offsets(tile, scales + sum(NUMBERS[n] for n in panels.leaves) * b.lanes, aux)
    if not two:
        return [value + more for value, more in zip(sums, added)]
    leaf = tile.number(two, scales, NUMBERS[one] * b.lanes)
    return [b.emit(K.VFMA, more, leaf, value) for value, more in zip(sums, added)]


def _offsets(tile: Tile, scales: Value, aux: Value) -> list[Value]:
    b, panels = tile.build, tile.panels
    auxes, behind = tile.bases(aux), NUMBERS[panels.scale] * b.lanes
    added = [b.const(0.0)] * tile.height
    for group in range(panels.block // panels.group):
        offset = tile.number(panels.offset, scales, behind + group * _number_bytes(tile))
        disp = group * panels.aux_step + 4 * bool(panels.low)
        added = [b.emit(K.VFMA, offset, tile.of_row(auxes, row, disp), added[row])
                 for row in range(tile.height)]
    return added
