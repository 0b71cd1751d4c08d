"""Matrix products: c[h, i, j] = f(sum[r<k](a[h, i, r] * b[h, r, j])) for a range of columns.

    few rows (A's rows contiguous): B streams past once                      gemv.dot, gemv.columns
    else: columns in blocks of nc, rows in blocks, r in blocks of kc         packed
              pack B (kc x nc); rows in blocks of mc: pack A (mc x kc)
                  panels of mr rows x panels of nr columns: the micro-kernel

The path is chosen inside the kernel, by the m of the call. An element's sum runs over r in
ascending order in one accumulator (`packed`, `columns`) or in `lanes` accumulators (`dot`), so its
bits depend on m through that choice and on nothing else: not on the tile, the block sizes, the
range of units or the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..trace.affine import Affine
from ..trace.ir import OpTrace
from . import gemv
from .access import Env, integer, place
from .contraction import Contraction, Factor, contraction_of
from .elementwise import check_in_place
from .frame import begin
from .isa.base import Isa
from .kernel import K, Kernel, Mem, Value
from .pack import ROUND, block_bytes, pack_across, pack_rows, padded, pitch
from .rewrite import contract
from .site import Site, finish, sites
from .tuning import TuningParams

GRAIN = 128  # columns: whole panels and dot blocks; at 64 packing A anew costs 10 %, here 4
ROWS = 2048  # rows between two packings of the same block of B, rounded up to blocks of mc
L1 = 32 << 10  # bytes: the smallest 1st-level data cache of AVX2 machines


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets in scratch. `zeros` is a tile of zeros, `sums` one of the streaming paths."""

    zeros: int
    sums: int
    a: int
    b: int
    partial: int
    total: int


def generate(trace: OpTrace, isa: Isa, params: TuningParams) -> Kernel:
    """The kernel of a bound trace whose pattern is gemm or gemv."""
    check_in_place(trace)
    product = contraction_of(contract(trace))
    layout = layout_of(product, isa, params)
    build = begin(product.trace, isa)
    with sites(build, product, isa, params) as site:
        _choose(site, layout)
    return build.build(product.units, GRAIN, "column of the product, batch by batch",
                       Affine.const(layout.total))


def layout_of(product: Contraction, isa: Isa, params: TuningParams) -> Layout:
    """Scratch of one thread; without a packed path the sums of the streaming ones."""
    p = params
    tile = 4 * p.mr * p.nr
    streaming = tile + gemv.scratch_bytes(p.few)
    if _always_few(product):
        return Layout(0, tile, 0, 0, 0, streaming)
    b = streaming + _aligned(block_bytes(p.kc, p.mc, p.mr, isa.lanes))
    partial = b + _aligned(block_bytes(p.kc, p.nc, p.nr, isa.lanes))
    return Layout(0, tile, streaming, b, partial, partial + 4 * _rows(p) * p.nc)


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _rows(params: TuningParams) -> int:
    return -(-ROWS // params.mc) * params.mc


def _always_few(product: Contraction) -> bool:
    return product.m.constant == 1 and product.a.along


def _choose(site: Site, layout: Layout) -> None:
    """The path by m; a transposed A is packed whatever m is."""
    product, few = site.product, site.params.few
    stream = gemv.dot
    if not product.b.along:  # a second tile of rows would read B from memory again
        stream, few = gemv.columns, min(few, gemv.TALL)
    if _always_few(product):
        stream(site, site.scratch(layout.sums))
        return
    if not product.a.along:
        packed(site, layout)
        return
    some = site.build.when_less(0, site.m)  # rows that do not exist repeat the last, if there is one
    with some, site.build.when_less(site.m, few + 1):
        stream(site, site.scratch(layout.sums))
    with site.build.when_less(few, site.m):
        packed(site, layout)


# -- the loops around the micro-kernel -------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Block:
    """r from `first` on, `depth` terms; `kept` is 1 when sums wait in scratch for further blocks."""

    first: Value
    depth: Value
    kept: Value


def packed(site: Site, layout: Layout) -> None:
    """jc: nc columns; io: rows whose sums fit scratch; pc: kc terms; ic: mc rows."""
    b, p = site.build, site.params
    _clear(site, site.scratch(layout.zeros), p.mr * p.nr)
    kept = b.emit(K.IMIN, b.emit(K.IMAX, site.k - p.kc, b.int(0)), b.int(1))
    once = b.emit(K.IMAX, site.k, b.int(1))  # k = 0 still stores the epilogue of 0
    with (b.loop(site.lo, site.hi, p.nc, name="jc") as jc,
          b.loop(0, site.m, _rows(p), name="io") as io,
          b.loop(0, once, p.kc, name="pc") as pc):
        columns = b.emit(K.IMIN, site.hi - jc.iv, b.int(p.nc))
        rows = b.emit(K.IMIN, site.m - io.iv, b.int(_rows(p)))
        block = Block(pc.iv, b.emit(K.IMIN, site.k - pc.iv, b.int(p.kc)), kept)
        _pack(site, site.product.b, jc.iv, columns, block, site.scratch(layout.b), p.nr)
        with b.loop(0, rows, p.mc, name="ic") as ic:
            tall = b.emit(K.IMIN, rows - ic.iv, b.int(p.mc))
            i = io.iv + ic.iv
            _pack(site, site.product.a, i, tall, block, site.scratch(layout.a), p.mr)
            sums = site.scratch(layout.partial) + ic.iv * kept * (4 * p.nc)
            _tiles(site, layout, block, (i, tall), (jc.iv, columns), sums)


def _clear(site: Site, target: Value, floats: int) -> None:
    b = site.build
    with b.loop(0, floats, b.lanes, name="zeros") as loop:
        b.store(target, loop.iv, b.const(0.0))


def _pack(site: Site, factor: Factor, first: Value, lines: Value, block: Block, target: Value,
          width: int) -> None:
    """Lines first .. first + lines of a factor over the depth of a block, as panels."""
    line, depth = site.line(factor), site.depth(factor)
    source = site.start(factor) + first * line + block.first * depth
    pack, stride = (pack_across, line) if factor.along else (pack_rows, depth)
    pack(site.build, source, stride, lines, block.depth, target, width)


def _tiles(site: Site, layout: Layout, block: Block, rows: tuple[Value, Value],
           columns: tuple[Value, Value], sums: Value) -> None:
    """All tiles of a block. The outer operand's panel stays in the 1st-level cache, the inner one
    streams from the 2nd: outermost is the largest panel that fits."""
    b, p = site.build, site.params
    sides = [(p.mr, rows[1], layout.a), (p.nr, columns[1], layout.b)]
    b_outside = 4 * p.kc * p.nr <= L1
    outer, inner = reversed(sides) if b_outside else sides
    steps = [pitch(block.depth, side[0], b.lanes) for side in (outer, inner)]
    with b.loop(0, outer[1], outer[0], site.scratch(outer[2]), name="outer panel") as far:
        with b.loop(0, inner[1], inner[0], site.scratch(inner[2]), name="inner panel") as near:
            down, right = (near, far) if b_outside else (far, near)
            slot = sums + (down.iv * p.nc + right.iv * p.mr) * block.kept * 4
            panels = (down.phis[0], right.phis[0])
            corner = (rows[0] + down.iv, columns[0] + right.iv)
            left = (rows[1] - down.iv, columns[1] - right.iv)
            _tile(site, layout, block, panels, corner, left, slot)
            near.yields(near.phis[0] + steps[1])
        far.yields(far.phis[0] + steps[0])


def _tile(site: Site, layout: Layout, block: Block, panels: tuple[Value, Value],
          corner: tuple[Value, Value], left: tuple[Value, Value], slot: Value) -> None:
    """One mr x nr tile: sums so far (or zeros), the block's terms, and at the last the epilogue."""
    b, p = site.build, site.params
    begun = b.emit(K.IMIN, block.first, b.int(1))
    zeros = site.scratch(layout.zeros)
    remaining = site.k - block.first
    with b.when_less(remaining, p.kc + 1):
        _prefetch_tile(site, corner)
    micro(site, panels, padded(block.depth), zeros + (slot - zeros) * begun, slot)
    with b.when_less(remaining, p.kc + 1):
        tall = b.emit(K.IMIN, left[0], b.int(p.mr))
        wide = b.emit(K.IMIN, left[1], b.int(p.nr))
        finish(site, slot, 4 * p.nr, corner[0], tall, corner[1], wide)


def _prefetch_tile(site: Site, corner: tuple[Value, Value]) -> None:
    """Ask for the lines of C that the tile will store, before its k loop hides their latency."""
    b, p, product = site.build, site.params, site.product
    target = product.trace.stores[0]
    row = {product.row: corner[0]} if product.row else {}
    env = Env({**site.batch, **row, product.column: corner[1]}, product.column)
    at = place(b, product.trace, target.param, target.index, env)
    step = _row_stride(site) * 4
    with b.loop(0, p.mr, 1, at.base, name="prefetch tile") as row:
        for disp in range(0, 4 * p.nr, gemv.LINE):
            b.emit(K.PREFETCH, row.phis[0], at.index, imm=Mem(4, at.disp + disp))
        row.yields(row.phis[0] + step)


def _row_stride(site: Site) -> Value:
    """Elements from row to row of C."""
    target = site.product.trace.stores[0].index
    return integer(site.build, target.coefficient(site.product.row), {})


# -- the micro-kernel ------------------------------------------------------------------------------
def micro(site: Site, panels: tuple[Value, Value], depth: Value, source: Value,
          target: Value) -> None:
    """target = source + panel of A times panel of B: mr*nr sums in registers, p.terms terms per
    round, each nr/lanes loads, mr broadcasts and mr*nr/lanes FMAs."""
    b, p = site.build, site.params
    zero, vectors = b.int(0), p.nr // b.lanes
    count = p.mr * vectors
    sums = [b.load(source, zero, disp=4 * b.lanes * s) for s in range(count)]
    unroll = min(p.terms, ROUND)
    step = 4 * p.mr * unroll
    end = panels[0] + depth * (4 * p.mr)
    with b.loop(panels[0], end, step, panels[1], *sums, name="k") as loop:
        acc = list(loop.phis[1:])
        for u in range(unroll):
            acc = _term(site, loop.iv, loop.phis[0], u, acc)
        loop.yields(loop.phis[0] + 4 * p.nr * unroll, *acc)
    for s, value in enumerate(loop.results[1:]):
        b.store(target, zero, value, disp=4 * b.lanes * s)


def _term(site: Site, a: Value, columns: Value, u: int, acc: list[Value]) -> list[Value]:
    """Term u of a round: acc[row, column] += a[row] * b[column]."""
    b, p, zero = site.build, site.params, site.build.int(0)
    vectors = p.nr // b.lanes
    right = [b.load(columns, zero, disp=4 * (u * p.nr + v * b.lanes)) for v in range(vectors)]
    out: list[Value] = []
    for row in range(p.mr):
        left = b.broadcast(a, zero, disp=4 * (u * p.mr + row))
        out += [b.emit(K.VFMA, left, value, acc[row * vectors + v])
                for v, value in enumerate(right)]
    return out
