"""The driver of large products: the loops of BLIS around the micro-kernel, for any types.

    columns as far as sums fit scratch, rows in blocks of mc, r in blocks of kc:
        pack A (mc x kc);  columns in blocks of nc: pack B (kc x nc)
            panels of `height` rows x panels of nr columns: the micro-kernel

(Van Zee and van de Geijn, BLIS, ACM TOMS 41(3), 2015, with the roles of A and B exchanged: a panel
of A stays in the 1st-level cache, a block of B in the one behind it, all of A in the last.) Rows
are divided evenly: all panels of A have the height of the first, so the last is never nearly empty.
Between two blocks of r the sums of a whole tile wait in C where they may, others in scratch; at the
end they are the result, or a strip of them is left in scratch for the epilogue. The sum of an
element runs over r in ascending order in one accumulator either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from ..trace.affine import Affine
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Routine, Value
from .micro import height_step, heights, micro_routine
from .pack import ROUND, block_bytes, padded, pitch, spare_bytes
from .pairs import PAIRS, lanes_of, odd_of
from .tuning import TuningParams
from .work import (
    HEAD, MICRO, PACK, TILES, WAITING, WAITING_PITCH, WORK, block, bounded, call, evenly, finished,
    routine_builder,
)

KEPT = 1024  # columns whose sums wait in scratch for further terms
EDGE = 1 << 16  # columns, where only tiles at the edges wait
L1 = 32 << 10  # bytes: the smallest 1st-level data cache of AVX2 machines


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets in scratch: a row of zeros, the finished sums of a strip of tiles, what packing
    needs at the edge, the packed blocks, the sums that wait for further terms."""

    zeros: int
    strip: int
    spare: int
    a: int
    b: int
    partial: int
    total: int

def layout_of(isa: Isa, params: TuningParams) -> Layout:
    p = params
    rows, lowest = p.mc + p.mr, heights(p)[0]
    strip = rows * 4 * p.nr if _inner(p) == 0 else p.mr * _strip_pitch(p)
    sizes = (4 * p.nr, strip, spare_bytes(p.kc, isa.lanes),
             block_bytes(p.kc, -(-rows // lowest) + 1, lowest, isa.lanes),
             block_bytes(p.kc, -(-p.nc // p.nr), p.nr, isa.lanes),
             4 * max(rows * KEPT, rows * p.nr + (EDGE + p.nr) * p.mr))
    return Layout(*accumulate([HEAD, *(-(-size // 64) * 64 for size in sizes)]))


def _inner(p: TuningParams) -> int:
    """Which operand's panels stream past one of the other, A's (0) or B's: the larger that fits
    stays in the 1st-level cache, the inner one streams from the 2nd."""
    return 1 - int(4 * p.kc * p.nr <= L1)


def _strip_pitch(p: TuningParams) -> int:
    """Bytes from row to row of finished sums, off powers of two."""
    return 4 * p.nc + 64 if _inner(p) else 4 * p.nr


def packed_routine(isa: Isa, params: TuningParams, storage: str = "float") -> Routine:
    """`storage` is how terms lie in the panels: floats or pairs."""
    return Routine(f"packed {storage}", packed, (isa, params, storage))


@dataclass(frozen=True, slots=True)
class Span:
    """`size` rows, columns or terms from `first` on."""

    first: Value
    size: Value


# -- the outer loops -------------------------------------------------------------------------------
def packed(isa: Isa, params: TuningParams, storage: str) -> Kernel:
    b = routine_builder("gemm.packed", isa, WORK)
    p, m, end, layout = params, b.arg("m"), b.emit(K.END), layout_of(isa, params)
    k, odd = lanes_of(b, storage, b.arg("k")), odd_of(b, storage, b.arg("k"))
    micro, height = _height(b, isa, params, storage)
    blocks, deep = evenly(b, k, p.kc, ROUND)  # k = 0 still stores the epilogue of 0
    _, tall = evenly(b, m, p.mc)
    tall = (tall + height - 1) / height * height
    kept, begin, twice = bounded(b, blocks - 1, 0, 1), b.emit(K.BEGIN), b.arg("twice")
    some, most = (size // p.nr * p.nr for size in (KEPT, EDGE))
    wide = b.emit(K.IMAX, end - end * kept, b.arg("direct") * (most - some) + some)
    wide = wide + (b.emit(K.IMIN, wide, b.int(WAITING // p.nr * p.nr)) - wide) * twice
    b.fill(block(b, "tiles"), TILES, {name: b.arg(name) for name in TILES if name in WORK} | {
        "height": height, "micro": micro, "kept": kept})
    tiles = b.code(Routine("tiles", _tiles, (isa, params)))
    with (b.loop(0, (end - begin + wide - 1) / wide, 1, name="jo") as jo,
          b.loop(0, (m + tall - 1) / tall, 1, name="ic") as ic,
          b.loop(0, blocks, 1, name="pc") as pc):
        above, start, left = ic.iv * tall, pc.iv * deep, begin + jo.iv * wide
        right = b.emit(K.IMIN, end, left + wide)
        rows = Span(above, b.emit(K.IMIN, m - above, tall))
        terms = Span(start, b.emit(K.IMIN, k - start, deep))
        more = b.emit(K.IMIN, blocks - 1 - pc.iv, b.int(1))
        half = odd - odd * more  # only the last lane may be half empty
        _pack(b, layout, "a", rows, terms, height, storage, half)
        with b.loop(left, right, p.nc, name="jc") as jc:
            columns = Span(jc.iv, b.emit(K.IMIN, right - jc.iv, b.int(p.nc)))
            waiting = rows.first * -WAITING_PITCH - (jc.iv + (left - jc.iv) * kept) * 4
            with b.loop(0, twice + 1, 1, twice, name="product") as product:
                other, = product.phis
                panels = _panels_of_b(b, p, layout, columns, terms, storage, half, other)
                b.fill(block(b, "tiles"), TILES, {
                    "row": rows.first, "rows": rows.size, "column": columns.first,
                    "columns": columns.size, "depth": terms.size, "inside": jc.iv - left,
                    "begun": b.emit(K.IMIN, start, b.int(1)), "more": more}
                       | panels | _result(b, p, layout, waiting, other))
                b.call(tiles, block(b, "tiles"))
                product.yields(b.int(0))
    return b.build(Affine.const(1), 1, "column of a product")


def waiting_bytes(p: TuningParams) -> int:
    """Scratch for the sums of the other product: whole blocks, and the tiles at their edges."""
    rows = p.mc + p.mr
    return rows * (WAITING_PITCH + 4 * p.nr) + 4 * (WAITING + p.nr) * p.mr


def _result(b: KernelBuilder, p: TuningParams, layout: Layout, origin: Value,
            other: Value) -> dict[str, Value]:
    """Where sums go: to C, those of the other product to where they wait, as they are."""
    one, waiting = b.int(1), b.arg("waiting") + origin
    theirs = {"c": waiting, "c_line": b.int(WAITING_PITCH), "c_size": b.int(4), "direct": one,
              "plain": one, "epilogue": b.arg("keep")}
    edges = b.arg("waiting") + (p.mc + p.mr) * WAITING_PITCH
    return {name: _chosen(b.arg(name), value, other) for name, value in theirs.items()} | {
        "waiting": waiting, "partial": _chosen(b.emit(K.SCRATCH) + layout.partial, edges, other)}


def _chosen(own: Value, theirs: Value, other: Value) -> Value:
    return own + (theirs - own) * other


def _panels_of_b(b: KernelBuilder, p: TuningParams, layout: Layout, columns: Span, terms: Span,
                 storage: str, odd: Value, other: Value) -> dict[str, Value]:
    """Where the panels of a block are: packed now, of B or of the other product's, or among those
    of the whole matrix."""
    if not p.prepacked:
        _pack(b, layout, "b", columns, terms, b.int(p.nr), storage, odd, other)
        return {"b_panels": b.emit(K.SCRATCH) + layout.b,
                "b_pitch": pitch(terms.size, p.nr, b.lanes)}
    far = pitch(b.arg("k"), p.nr, b.lanes)
    return {"b_panels": b.arg("b") + columns.first / p.nr * far + terms.first * (4 * p.nr),
            "b_pitch": far}


def _height(b: KernelBuilder, isa: Isa, params: TuningParams,
            storage: str) -> tuple[Value, Value]:
    """The micro-kernel for all panels of A, and its height: the lowest that is enough."""
    lowest, step = heights(params)[0], height_step(params)
    even = evenly(b, b.arg("m"), params.mr)[1]
    number = (b.emit(K.IMAX, even - lowest, b.int(0)) + (step - 1)) / step
    codes = [b.code(micro_routine(isa, params, height, storage)) for height in heights(params)]
    code = codes[0]
    for at, other in enumerate(codes[1:], 1):
        code = code + (other - code) * bounded(b, number - (at - 1), 0, 1)
    return code, number * step + lowest


def _pack(b: KernelBuilder, layout: Layout, name: str, lines: Span, terms: Span,
          width: Value, storage: str, odd: Value, other: Value | None = None) -> None:
    at, ends = b.emit(K.SCRATCH), ("", "_line", "_depth")
    source, line, step = (b.arg(name + end) for end in ends)
    if other is not None:
        source, line, step = (_chosen(own, b.arg("other" + end), other)
                              for own, end in zip((source, line, step), ends, strict=True))
    end, target = {"a": (b.arg("m"), layout.a), "b": (b.arg("n"), layout.b)}[name]
    first = terms.first * (2 if storage == PAIRS else 1)
    slots = {"source": source + lines.first * line + first * step, "line": line, "odd": odd,
             "depth_step": step, "lines": lines.size, "exist": end - lines.first,
             "depth": terms.size, "target": at + target, "width": width,
             "spare": at + layout.spare}
    call(b, b.arg(f"pack_{name}"), "pack", PACK, slots)


# -- the tiles of a block --------------------------------------------------------------------------
def _tiles(isa: Isa, params: TuningParams) -> Kernel:
    """All tiles of what is packed at one time: for each panel of the outer operand a strip."""
    b, p, layout = routine_builder("gemm.tiles", isa, TILES), params, layout_of(isa, params)
    zeros = b.emit(K.SCRATCH) + layout.zeros
    for v in range(0, p.nr, b.lanes):
        b.store(zeros, b.int(0), b.const(0.0), disp=4 * v)
    edge, sizes = (b.arg("height"), b.int(p.nr)), (b.arg("rows"), b.arg("columns"))
    steps = [pitch(b.arg("depth"), edge[0], b.lanes), b.arg("b_pitch")]
    inner = _inner(p)
    outer = 1 - inner
    count = [(size + width - 1) / width for size, width in zip(sizes, edge, strict=True)]
    starts = [b.emit(K.SCRATCH) + layout.a, b.arg("b_panels")]
    with b.loop(0, count[outer], 1, starts[outer], name="outer panel") as far:
        # all in one call; those whose sums wait in C first, then the one at the edge
        left = sizes[outer] - far.iv * edge[outer]
        whole = bounded(b, left - edge[outer] + 1, 0, 1) * (sizes[inner] / edge[inner])
        together = count[inner] + (whole - count[inner]) * b.arg("direct")
        together = b.emit(K.IMAX, together, b.int(1))
        with b.loop(0, count[inner] - together + 1, 1, name="strips") as strip:
            first = bounded(b, strip.iv, 0, 1)
            number = (strip.iv + together - 1) * first
            near = (number, starts[inner] + number * steps[inner])
            along = (together - (together - 1) * first, steps[inner])
            panels = (near, (far.iv, far.phis[0]))
            _strip(b, params, layout, panels if outer else panels[::-1], inner, along)
        far.yields(far.phis[0] + steps[outer])
    return b.build(Affine.const(1), 1, "call")


def _slot(b: KernelBuilder, p: TuningParams, at: tuple[Value, Value], left: Value) -> Value:
    """Where the sums of a tile wait; of `direct` ones those at the right edge or at the lower."""
    i, below = at[0], at[1] * b.arg("height")
    inner = bounded(b, left - (p.nr - 1), 0, 1)
    edge = i * p.nr + (below + (p.mc + p.mr) * p.nr - i * p.nr) * inner
    every = i * KEPT + below
    return every + (edge - every) * b.arg("direct")


def _strip(b: KernelBuilder, p: TuningParams, layout: Layout,
           panels: tuple[tuple[Value, Value], ...], inner: int,
           along: tuple[Value, Value]) -> None:
    """`along[0]` tiles: sums so far or zeros, the terms of the block, the epilogue at the last."""
    height, line, size = b.arg("height"), b.arg("c_line"), b.arg("c_size")
    i, j = panels[0][0] * height, panels[1][0] * p.nr
    left = b.arg("rows") - i, b.arg("columns") - j
    whole = bounded(b, left[0] - height + 1, 0, 1) * bounded(b, left[1] - (p.nr - 1), 0, 1)
    direct, plain = b.arg("direct") * whole, b.arg("plain") * whole
    row, column = b.arg("row") + i, b.arg("column") + j
    final, at = b.arg("c") + row * line + column * size, b.emit(K.SCRATCH)
    slot = b.arg("partial") + _slot(b, p, (i, b.arg("inside") + j), left[1]) * b.arg("kept") * 4
    kept, step = slot + (final - slot) * direct, (line - 4 * p.nr) * direct + 4 * p.nr
    done, apart = at + layout.strip, _strip_pitch(p)
    stays = b.emit(K.IMAX, plain, b.arg("more"))
    onward = height * apart if inner == 0 else b.int(4 * p.nr)  # to the next tile of the strip
    zeros, begun, none = at + layout.zeros, b.arg("begun"), b.int(0)
    # from tile to tile in C and in scratch
    far, near = (line * height, size * p.nr)[inner], height * 4 * (p.nr, KEPT)[1 - inner]
    next_ = (far - near) * direct + near
    waits = begun - begun * direct  # then these sums are asked for ahead, else the place in C
    coming = final + far
    depth = b.arg("depth") if p.terms == 1 else padded(b.arg("depth"))
    call(b, b.arg("micro"), "micro", MICRO, {
        "a": panels[0][1], "b": panels[1][1], "tiles": along[0], "depth": depth,
        "source": zeros + (kept - zeros) * begun, "source_pitch": step * begun,
        "target": done + (kept - done) * stays, "target_pitch": (step - apart) * stays + apart,
        "coming": coming + (kept + next_ - coming) * waits,
        "coming_pitch": line + (step - line) * waits,
        "a_next": none if inner else along[1], "b_next": along[1] if inner else none,
        "source_next": next_ * begun, "target_next": onward + (next_ - onward) * stays,
        "coming_next": far + (next_ - far) * waits})
    # where it may not stay as it is and no terms follow
    with b.when_less(stays, 1):
        size = [height, b.int(p.nr)]
        size[inner] = size[inner] * along[0]
        finished(b, {"sums": done, "pitch": b.int(apart), "row": row, "column": column,
                     "rows": b.emit(K.IMIN, left[0], size[0]),
                     "columns": b.emit(K.IMIN, left[1], size[1])})
