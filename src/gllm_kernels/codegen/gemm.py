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
from itertools import accumulate

from ..trace.affine import Affine
from ..trace.ir import OpTrace
from . import gemv
from .access import Env, integer, place
from .contraction import Contraction, Factor, contraction_of
from .elementwise import check_in_place
from .frame import begin
from .isa.base import Isa
from .kernel import K, Kernel, Mem, Value
from .pack import (
    LINE,
    ROUND,
    Block,
    block_bytes,
    pack_across,
    pack_rows,
    padded,
    pitch,
    spare_bytes,
)
from .rewrite import contract
from .site import Site, finish, sites
from .tuning import TuningParams

GRAIN = 128  # columns: whole panels and dot blocks; at 64 packing A anew costs 10 %, here 4
ROWS = 2048  # rows between two packings of the same block of B, rounded up to blocks of mc
BLOCK = 64  # columns of sums that one row keeps for one epilogue where B is read along r
SWEEP = 4096  # and where it is read along j: they stay in the 1st-level cache
L1 = 32 << 10  # bytes: the smallest 1st-level data cache of AVX2 machines


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets in scratch. `zeros` is a tile of zeros, `sums` what the streaming paths add up,
    `spare` what packing needs at the edge."""

    zeros: int
    sums: int
    spare: int
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
    """Scratch of one thread; without a packed path the sums of the streaming one."""
    p = params
    if _always_few(product):
        return Layout(0, 0, 0, 0, 0, 0, _streaming(product, isa, 1))
    sizes = (4 * p.mr * p.nr, _streaming(product, isa, max(p.few, 1)), spare_bytes(p.kc, isa.lanes),
             block_bytes(p.kc, p.mc, p.mr, isa.lanes), block_bytes(p.kc, p.nc, p.nr, isa.lanes),
             4 * _rows(p) * p.nc)
    return Layout(0, *accumulate(-(-size // 64) * 64 for size in sizes))


def _streaming(product: Contraction, isa: Isa, rows: int) -> int:
    """Sums of the streaming path."""
    if product.b.along:
        return gemv.dot_bytes(rows, BLOCK)
    return 4 * (SWEEP + isa.lanes) if rows == 1 else 4 * gemv.TALL * SWEEP


def _rows(params: TuningParams) -> int:
    return -(-ROWS // params.mc) * params.mc


def _always_few(product: Contraction) -> bool:
    return product.m.constant == 1 and product.a.along


def _choose(site: Site, layout: Layout) -> None:
    """The path by m; a transposed A is packed whatever m is."""
    product, few = site.product, site.params.few
    if not product.b.along:  # a second tile of rows would read B from memory again
        few = min(few, gemv.TALL)
    if _always_few(product):
        _stream(site, layout)
        return
    if not product.a.along:
        packed(site, layout)
        return
    some = site.build.when_less(0, site.m)  # rows that do not exist repeat the last, if there is one
    with some, site.build.when_less(site.m, few + 1):
        _stream(site, layout)
    with site.build.when_less(few, site.m):
        packed(site, layout)


def _stream(site: Site, layout: Layout) -> None:
    """All rows, a block of columns at a time; every block has its epilogue while its sums are in
    the 1st-level cache."""
    b, along = site.build, site.product.b.along
    stream, width, margin, pitch = ((gemv.dot, BLOCK, 4 * gemv.MARGIN, gemv.dot_pitch(BLOCK))
                                    if along else (gemv.columns, SWEEP, 0, 4 * SWEEP))
    sums = site.scratch(layout.sums + margin)
    with b.loop(site.lo, site.hi, width, name="block") as j:
        wide = b.emit(K.IMIN, site.hi - j.iv, b.int(width))
        stream(site, j.iv, wide, sums, width)
        finish(site, sums, b.int(pitch), b.int(0), site.m, j.iv, wide)


# -- the loops around the micro-kernel -------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Terms:
    """r from `first` on, `depth` terms; `kept` is 1 when sums wait in scratch for further blocks."""

    first: Value
    depth: Value
    kept: Value


def packed(site: Site, layout: Layout) -> None:
    """jc: nc columns; io: rows whose sums fit scratch; pc: kc terms; ic: mc rows."""
    b, p = site.build, site.params
    _clear(site, site.scratch(layout.zeros), p.mr * p.nr)
    once = b.emit(K.IMAX, site.k, b.int(1))  # k = 0 still stores the epilogue of 0
    with (b.loop(site.lo, site.hi, p.nc, name="jc") as jc,
          b.loop(0, site.m, _rows(p), name="io") as io,
          b.loop(0, once, p.kc, name="pc") as pc):
        columns = b.emit(K.IMIN, site.hi - jc.iv, b.int(p.nc))
        rows = b.emit(K.IMIN, site.m - io.iv, b.int(_rows(p)))
        kept = b.emit(K.IMIN, b.emit(K.IMAX, site.k - p.kc, b.int(0)), b.int(1))
        terms = Terms(pc.iv, b.emit(K.IMIN, site.k - pc.iv, b.int(p.kc)), kept)
        with b.loop(0, rows, p.mc, name="ic") as ic:
            tall = b.emit(K.IMIN, rows - ic.iv, b.int(p.mc))
            _pack(site, layout, terms, (io.iv, ic.iv, tall), (jc.iv, columns))
            sums = site.scratch(layout.partial) + ic.iv * kept * (4 * p.nc)
            _tiles(site, layout, terms, (io.iv + ic.iv, tall), (jc.iv, columns), sums)


def _pack(site: Site, layout: Layout, terms: Terms, rows: tuple[Value, Value, Value],
          columns: tuple[Value, Value]) -> None:
    """Rows of A, and with the first of them the columns of B. What is turned over on the way
    shares the code: A in round 0 and B in round 1 of one loop."""
    b, p, product = site.build, site.params, site.product
    io, ic, tall = rows

    def left() -> Block:
        return _block(site, product.a, io + ic, tall, site.m, layout.a, p.mr, terms)

    def right() -> Block:
        end = integer(b, product.n, {})
        return _block(site, product.b, *columns, end, layout.b, p.nr, terms)

    if not product.b.along:
        with b.when_less(ic, 1):
            pack_rows(b, right(), terms.depth, p.nr)
    if not product.a.along:
        pack_rows(b, left(), terms.depth, p.mr)
    aligned = all(width % b.lanes == 0 or width < b.lanes for width in (p.mr, p.nr))

    def turn(block: Block) -> None:
        spare = site.scratch(layout.spare)
        pack_across(b, block, terms.depth, spare, p.kc, aligned, not site.apart)

    across = [make for factor, make in ((product.a, left), (product.b, right)) if factor.along]
    if not across:
        return
    if len(across) == 2 and site.storage(product.a) != site.storage(product.b):
        turn(left())
        with b.when_less(ic, 1):
            turn(right())
        return
    lo, hi = b.int(0), b.int(1)
    if product.b.along:
        hi = b.int(len(across)) - b.emit(K.IMIN, ic, b.int(1))
    with b.loop(lo, hi, 1, *across[0]().values, name="pack across") as job:
        turn(Block(*job.phis, across[0]().storage))
        job.yields(*across[-1]().values)


def _block(site: Site, factor: Factor, first: Value, lines: Value, end: Value, target: int,
           width: int, terms: Terms) -> Block:
    """Lines first .. first + lines of a factor over the depth of a block."""
    line, depth = site.line(factor), site.depth(factor)
    source = site.start(factor) + first * line + terms.first * depth
    return Block(source, line if factor.along else depth, lines, end - first,
                 site.scratch(target), site.build.int(width), site.storage(factor))


def _tiles(site: Site, layout: Layout, terms: Terms, rows: tuple[Value, Value],
           columns: tuple[Value, Value], sums: Value) -> None:
    """All tiles of a block. The outer operand's panel stays in the 1st-level cache, the inner one
    streams from the 2nd: outermost is the largest panel that fits."""
    b, p = site.build, site.params
    sides = [(p.mr, rows[1], layout.a), (p.nr, columns[1], layout.b)]
    b_outside = 4 * p.kc * p.nr <= L1
    outer, inner = reversed(sides) if b_outside else sides
    steps = [pitch(terms.depth, side[0], b.lanes) for side in (outer, inner)]
    with b.loop(0, outer[1], outer[0], site.scratch(outer[2]), name="outer panel") as far:
        with b.loop(0, inner[1], inner[0], site.scratch(inner[2]), name="inner panel") as near:
            down, right = (near, far) if b_outside else (far, near)
            slot = sums + (down.iv * p.nc + right.iv * p.mr) * terms.kept * 4
            corner = (rows[0] + down.iv, columns[0] + right.iv)
            left = (rows[1] - down.iv, columns[1] - right.iv)
            _tile(site, layout, terms, (down.phis[0], right.phis[0]), corner, left, slot)
            near.yields(near.phis[0] + steps[1])
        far.yields(far.phis[0] + steps[0])


def _tile(site: Site, layout: Layout, terms: Terms, panels: tuple[Value, Value],
          corner: tuple[Value, Value], left: tuple[Value, Value], slot: Value) -> None:
    """One mr x nr tile: sums so far (or zeros), the block's terms, and at the last the epilogue."""
    b, p = site.build, site.params
    begun = b.emit(K.IMIN, terms.first, b.int(1))
    zeros = site.scratch(layout.zeros)
    remaining = site.k - terms.first
    with b.when_less(remaining, p.kc + 1):
        _prefetch_tile(site, corner)
    micro(site, panels, padded(terms.depth), zeros + (slot - zeros) * begun, slot)
    with b.when_less(remaining, p.kc + 1):
        tall = b.emit(K.IMIN, left[0], b.int(p.mr))
        wide = b.emit(K.IMIN, left[1], b.int(p.nr))
        finish(site, slot, b.int(4 * p.nr), corner[0], tall, corner[1], wide)


def _clear(site: Site, target: Value, floats: int) -> None:
    b = site.build
    with b.loop(0, floats, b.lanes, name="zeros") as loop:
        b.store(target, loop.iv, b.const(0.0))


def _prefetch_tile(site: Site, corner: tuple[Value, Value]) -> None:
    """Ask for the lines of C that the tile will store, before its k loop hides their latency."""
    b, p, product = site.build, site.params, site.product
    target = product.trace.stores[0]
    row = {product.row: corner[0]} if product.row else {}
    env = Env({**site.batch, **row, product.column: corner[1]}, product.column)
    at = place(b, product.trace, target.param, target.index, env)
    step = _row_stride(site) * at.size
    with b.loop(0, p.mr, 1, at.base, name="prefetch tile") as row:
        for disp in range(0, at.size * p.nr, LINE):
            b.emit(K.PREFETCH, row.phis[0], at.index, imm=Mem(at.size, at.disp + disp))
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
