"""The driver of large products: the loops of BLIS around the micro-kernel, for any types.

    columns in blocks of nc, rows in blocks whose sums fit scratch, r in blocks of kc:
        pack B (kc x nc);  rows in blocks of mc: pack A (mc x kc)
            panels of `height` rows x panels of nr columns: the micro-kernel

(Van Zee and van de Geijn, BLIS, ACM TOMS 41(3), 2015.) Rows are divided evenly: all panels of A
have the height of the first, so the last is never nearly empty. A tile whose sums may go to C as
they are and that is whole adds up in C itself; any other in scratch, and from there the epilogue
takes it. An element's sum runs over r in ascending order in one accumulator either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from ..trace.affine import Affine
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .micro import height_step, heights, micro_routine
from .pack import block_bytes, padded, pitch, spare_bytes
from .tuning import TuningParams
from .work import HEAD, MICRO, PACK, WORK, call, finished, routine_builder

ROWS = 2048  # rows between two packings of the same block of B, rounded up to blocks of mc
L1 = 32 << 10  # bytes: the smallest 1st-level data cache of AVX2 machines


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets in scratch: addresses of the micro-kernels, a row of zeros, what packing needs
    at the edge, the packed blocks, the sums that wait for further terms."""

    micros: int
    zeros: int
    spare: int
    a: int
    b: int
    partial: int
    total: int


def layout_of(isa: Isa, params: TuningParams) -> Layout:
    p = params
    panels = p.mc // p.mr
    sizes = (8 * p.mr, 4 * p.nr, spare_bytes(p.kc, isa.lanes),
             block_bytes(p.kc, panels, p.mr, isa.lanes),
             block_bytes(p.kc, -(-p.nc // p.nr), p.nr, isa.lanes), 4 * (ROWS + 2 * p.mc) * p.nc)
    return Layout(*accumulate([HEAD, *(-(-size // 64) * 64 for size in sizes)]))


def packed_routine(isa: Isa, params: TuningParams) -> Routine:
    return Routine("packed", packed, (isa, params))


@dataclass(frozen=True, slots=True)
class Driver:
    """What all loops know: `height` rows a panel, `rows` a block of A."""

    b: KernelBuilder
    params: TuningParams
    layout: Layout
    height: Value
    rows: Value
    micro: Value

    def scratch(self, offset: int) -> Value:
        return self.b.emit(K.SCRATCH) + offset

    def bounded(self, value: Value, low: int, high: Value | int) -> Value:
        """min(max(value, low), high)"""
        b = self.b
        high = high if isinstance(high, Value) else b.int(high)
        return b.emit(K.IMIN, b.emit(K.IMAX, value, b.int(low)), high)


@dataclass(frozen=True, slots=True)
class Span:
    """`size` rows, columns or terms from `first` on."""

    first: Value
    size: Value


def packed(isa: Isa, params: TuningParams) -> Kernel:
    b = routine_builder("gemm.packed", isa, WORK)
    d = _driver(b, isa, params)
    p, m, begin, end = params, b.arg("m"), b.emit(K.BEGIN), b.emit(K.END)
    once = b.emit(K.IMAX, b.arg("k"), b.int(1))  # k = 0 still stores the epilogue of 0
    tall = (b.int(ROWS) / d.rows + 1) * d.rows
    with (b.loop(begin, end, p.nc, name="jc") as jc,
          b.loop(0, (m + tall - 1) / tall, 1, name="io") as io,
          b.loop(0, once, p.kc, name="pc") as pc):
        columns = Span(jc.iv, b.emit(K.IMIN, end - jc.iv, b.int(p.nc)))
        above = io.iv * tall
        rows = b.emit(K.IMIN, m - above, tall)
        terms = Span(pc.iv, b.emit(K.IMIN, b.arg("k") - pc.iv, b.int(p.kc)))
        _pack(d, "b", columns, terms, b.arg("n"), (d.layout.b, b.int(p.nr)))
        with b.loop(0, (rows + d.rows - 1) / d.rows, 1, name="ic") as ic:
            inside = ic.iv * d.rows
            block = Span(above + inside, b.emit(K.IMIN, rows - inside, d.rows))
            _pack(d, "a", block, terms, m, (d.layout.a, d.height))
            _tiles(d, block, columns, terms, inside)
    return b.build(Affine.const(1), 1, "column of a product")


def _driver(b: KernelBuilder, isa: Isa, params: TuningParams) -> Driver:
    """The height of all panels, and the micro-kernel for it."""
    layout, step, zero, mr = layout_of(isa, params), height_step(params), b.int(0), params.mr
    at = b.emit(K.SCRATCH)
    lowest = heights(params)[0]
    for number, height in enumerate(heights(params)):
        code = b.code(micro_routine(isa, params, height))
        b.emit(K.ISTORE, at, zero, code, imm=Mem(1, layout.micros + 8 * number))
    with b.loop(0, params.nr, b.lanes, name="zeros") as loop:
        b.store(at + layout.zeros, loop.iv, b.const(0.0))
    m = b.emit(K.IMAX, b.arg("m"), b.int(1))
    panels = (m + (mr - 1)) / mr
    even = (m + panels - 1) / panels
    # the lowest height that is enough
    number = (b.emit(K.IMAX, even - lowest, zero) + (step - 1)) / step
    micro = b.emit(K.ILOAD, at, number, imm=Mem(8, layout.micros))
    height = number * step + lowest
    return Driver(b, params, layout, height, height * (params.mc // mr), micro)


def _pack(d: Driver, name: str, lines: Span, terms: Span, end: Value,
          panels: tuple[int, Value]) -> None:
    b = d.b
    line, step = b.arg(f"{name}_line"), b.arg(f"{name}_depth")
    slots = {"source": b.arg(name) + lines.first * line + terms.first * step, "line": line,
             "depth_step": step, "lines": lines.size, "exist": end - lines.first,
             "depth": terms.size, "target": d.scratch(panels[0]), "width": panels[1],
             "spare": d.scratch(d.layout.spare)}
    call(b, b.arg(f"pack_{name}"), "pack", PACK, slots)


def _tiles(d: Driver, rows: Span, columns: Span, terms: Span, inside: Value) -> None:
    """All tiles of a block. The outer operand's panel stays in the 1st-level cache, the inner one
    streams from the 2nd: outermost is the largest panel that fits."""
    b, p = d.b, d.params
    a_step, b_step = (pitch(terms.size, width, b.lanes) for width in (d.height, p.nr))
    down = (b.int(0), (rows.size + d.height - 1) / d.height, 1, d.scratch(d.layout.a), a_step)
    right = (b.int(0), columns.size, p.nr, d.scratch(d.layout.b), b_step)
    b_outside = 4 * p.kc * p.nr <= L1
    outer, inner = (right, down) if b_outside else (down, right)
    with b.loop(*outer[:4], name="outer panel") as far:
        with b.loop(*inner[:4], name="inner panel") as near:
            i, j = (near, far) if b_outside else (far, near)
            _tile(d, rows, columns, terms, (i.iv * d.height, j.iv), (i.phis[0], j.phis[0]), inside)
            near.yields(near.phis[0] + inner[4])
        far.yields(far.phis[0] + outer[4])


def _tile(d: Driver, rows: Span, columns: Span, terms: Span, corner: tuple[Value, Value],
          panels: tuple[Value, Value], inside: Value) -> None:
    """One tile: sums so far (or zeros), the terms of the block, and at the last the epilogue."""
    b, p = d.b, d.params
    i, j = corner
    row, column, left = rows.first + i, columns.first + j, (rows.size - i, columns.size - j)
    wide = d.bounded(left[1] - (p.nr - 1), 0, 1)  # 1 when all columns exist
    direct = d.bounded(left[0] - d.height + 1, 0, 1) * wide * b.arg("direct")
    final = b.arg("c") + row * b.arg("c_line") + column * b.arg("c_size")
    kept = d.bounded(b.arg("k") - p.kc, 0, 1)  # sums wait for further blocks
    slot = d.scratch(d.layout.partial) + ((inside + i) * p.nc + j * d.height) * kept * 4
    target = slot + (final - slot) * direct
    step = (b.arg("c_line") - 4 * p.nr) * direct + 4 * p.nr
    begun = b.emit(K.IMIN, terms.first, b.int(1))
    zeros = d.scratch(d.layout.zeros)
    depth = terms.size if p.terms == 1 else padded(terms.size)
    slots = {"a": panels[0], "b": panels[1], "depth": depth,
             "source": zeros + (target - zeros) * begun, "source_pitch": step * begun,
             "target": target, "target_pitch": step, "coming": final,
             "coming_pitch": b.arg("c_line")}
    call(b, d.micro, "micro", MICRO, slots)
    # where it may not stay as it is and no terms follow
    with (b.when_less(b.arg("k") - terms.first, p.kc + 1), b.when_less(direct, 1)):
        finished(b, {"sums": slot, "pitch": b.int(4 * p.nr), "row": row, "column": column,
                     "rows": b.emit(K.IMIN, left[0], d.height),
                     "columns": b.emit(K.IMIN, left[1], b.int(p.nr))})

