"""Some rows times a B whose terms are contiguous, as checkpoints store weights: nothing is packed
but A, and no element of B is moved but to a register.

    sums[i][j] = sum[r<k](a[i][r] * b[j][r])       lanes along r, one accumulator for each (i, j)

With `pairs` (both matrices bf16, VDPBF16PS) a lane holds two terms; then the two are added first.

A tile is `wide` rows of B times `tall` rows of A: a step of the k loop loads wide + tall vectors
for wide*tall FMAs. A is packed [tile][k / lanes][tall][lanes]: as it lies its rows would share one
set of the 1st-level cache whenever k is a power of two. With more than one tile of rows, k is cut
into chunks that stay in the 1st-level cache from tile to tile; the accumulators wait in memory. The
first tile reads B as it lies and leaves the chunk as a panel [k / lanes][wide][lanes] of whole
vectors: the other tiles load no line twice, convert nothing and need no masks. Either way a sum has
`lanes` accumulators that run over r in ascending order, as in `gemv.dot`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..trace.affine import Affine
from .gemv import BLOCK, MARGIN, ask, dot_pitch
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import LINE, multiples
from .pairs import PAIRS, WIDTHS, fetch, lanes_of, multiply, odd_of, part_of
from .rounds import Values, rounds
from .transpose import sum_each
from .tuning import TuningParams
from .work import DOTS, HEAD, WORK, bounded, call, finished, routine_builder

CHUNK = 512  # terms: 12 KB of B and 8 KB of A


def tile_of(isa: Isa) -> tuple[int, int]:
    """Rows of B and of A; 6*4 accumulators + 6 + 1 = 31 registers, 4*2 + 4 + 1 = 13."""
    return (6, 4) if isa.vregs >= 32 else (4, 2)


def offsets_of(isa: Isa, rows: int) -> tuple[int, ...]:
    """Scratch: zeros to start from, accumulators of all tiles, sums, a chunk of B, packed A."""
    wide, tall = tile_of(isa)
    size = wide * tall * isa.vector_bytes
    tiles = -(-rows // tall)
    return tuple(accumulate((HEAD, size, tiles * size, (rows + tall) * dot_pitch(BLOCK),
                             4 * wide * CHUNK)))


def dots_bytes(isa: Isa, rows: int, k: Affine) -> Affine:
    """Scratch; it grows with k, because all of A is packed."""
    _, tall = tile_of(isa)
    return offsets_of(isa, rows)[-1] + (k + isa.lanes) * (4 * (rows + tall))


def dots_routine(isa: Isa, params: TuningParams, stored: tuple[str, str]) -> Routine:
    return Routine(f"dots {' '.join(stored)}", dots, (isa, params.few, params.column_ahead, stored))


def dots(isa: Isa, rows: int, ahead: int, stored: tuple[str, str]) -> Kernel:
    """The driver: blocks of columns, groups of `wide`, chunks of k, tiles of `tall` rows."""
    b = routine_builder("gemm.dots", isa, WORK)
    at, end, m = b.emit(K.SCRATCH), b.emit(K.END), b.arg("m")
    zeros, _, sums, _, packed = (at + offset for offset in offsets_of(isa, rows))
    _start(b, isa, zeros, packed, stored[0])
    target = sums + 4 * MARGIN
    with b.loop(b.emit(K.BEGIN), end, BLOCK, name="block") as j:
        columns = b.emit(K.IMIN, end - j.iv, b.int(BLOCK))
        _groups(b, isa, (rows, ahead), stored[1], (j.iv, columns), target)
        finished(b, {"sums": target, "pitch": b.int(dot_pitch(BLOCK)), "row": b.int(0), "rows": m,
                     "column": j.iv, "columns": columns})
    return b.build(Affine.const(1), 1, "column of a product")


def _start(b: KernelBuilder, isa: Isa, zeros: Value, packed: Value, storage: str) -> None:
    """Accumulators of zero, and A packed; rows that do not exist repeat the last one."""
    wide, tall = tile_of(isa)
    with b.loop(0, wide * tall * b.lanes, b.lanes, name="zeros") as loop:
        b.store(zeros, loop.iv, b.const(0.0))
    m, size, odd = b.arg("m"), WIDTHS[storage], odd_of(b, storage, b.arg("k"))
    k = lanes_of(b, storage, b.arg("k"))
    with b.loop(0, m, tall, packed, name="pack tiles") as tile:
        rows = [b.arg("a") + b.emit(K.IMIN, tile.iv + t, m - 1) * b.arg("a_line")
                for t in range(tall)]
        with b.loop(0, k, b.lanes, tile.phis[0], name="pack a") as r:
            part = part_of(b, storage, k - r.iv, odd)
            for t, row in enumerate(rows):
                value = fetch(b, storage, row, (r.iv, size), part=part)
                b.store(r.phis[0], b.int(0), value, disp=4 * b.lanes * t)
            r.yields(r.phis[0] + 4 * b.lanes * tall)
        tile.yields(r.results[0])


def _groups(b: KernelBuilder, isa: Isa, how: tuple[int, int], storage: str,
            block: tuple[Value, Value], target: Value) -> None:
    """The last group ends with the matrix, where it may repeat columns of the one before. A matrix
    of fewer columns than a group takes them one by one: all columns of the group are that one."""
    wide, _ = tile_of(isa)
    j, columns = block
    n, line = b.arg("n"), b.arg("b_line")
    many = bounded(b, n - (wide - 1), 0, 1)
    step = many * (wide - 1) + 1
    groups = (columns + step - 1) / step
    with b.loop(0, groups, 1, j, name="group") as group:
        first = b.emit(K.IMIN, group.phis[0], n - step)
        start = b.arg("b") + first * line
        _chunks(b, isa, how, storage, (start, line * many, start + line * wide),
                target + (first - j) * 4)
        group.yields(group.phis[0] + step)


def _chunks(b: KernelBuilder, isa: Isa, how: tuple[int, int], storage: str,
            group: tuple[Value, Value, Value], target: Value) -> None:
    (rows, ahead), (wide, tall) = how, tile_of(isa)
    start, line, following = group
    at, m, k = b.emit(K.SCRATCH), b.arg("m"), lanes_of(b, storage, b.arg("k"))
    zeros, kept, _, panel, packed = (at + offset for offset in offsets_of(isa, rows))
    size, deep = wide * tall * isa.vector_bytes, (k + (b.lanes - 1)) & -b.lanes
    tiles, step = (m + (tall - 1)) / tall, wide * WIDTHS[storage] * b.lanes
    many = bounded(b, tiles - 1, 0, 1)  # one tile needs no chunks, and no panel
    chunk = b.emit(K.IMAX, deep - CHUNK, b.int(0)) * (b.int(1) - many) + CHUNK
    others = tiles - 1
    later = b.emit(K.IMIN, b.int(step) / b.emit(K.IMAX, others, b.int(1)), b.int(LINE))
    with b.loop(0, (b.emit(K.IMAX, k, b.int(1)) + chunk - 1) / chunk, 1, name="chunk") as part:
        r = part.iv * chunk
        depth = b.emit(K.IMIN, k - r, chunk)
        begun = b.emit(K.IMIN, r, b.int(1))
        last = bounded(b, r + chunk - k + 1, 0, 1)
        call(b, Routine("dot tiles", dot_tiles, (isa, ahead, storage)), "dots", DOTS, {
            "tiles": tiles, "x": packed + r * (4 * tall),
            "x_next": deep * (4 * tall), "w": start + r * WIDTHS[storage], "w_line": line,
            "depth": depth, "source": zeros + (kept - zeros) * begun, "source_next": begun * size,
            "kept": kept, "last": last, "target": target,
            "ahead": following + r * (WIDTHS[storage] * wide),
            "odd": odd_of(b, storage, b.arg("k")) * last,
            "panel": panel, "panel_step": many * (wide * isa.vector_bytes),
            "ahead_first": b.int(step) - later * others, "ahead_later": later})


# -- one tile --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Tile:
    """A tile being written; B is stored as `storage` and prefetched as `ahead` says."""

    build: KernelBuilder
    isa: Isa
    storage: str
    ahead: int

    @property
    def rows(self) -> int:
        """Bytes of packed A per lane."""
        return 4 * tile_of(self.isa)[1]

    @property
    def step(self) -> int:
        """Bytes of a step in the panel."""
        return tile_of(self.isa)[0] * self.isa.vector_bytes


def dot_tiles(isa: Isa, ahead: int, storage: str) -> Kernel:
    """A chunk of k for all tiles of rows; the last chunk adds the lanes up and leaves `tall` rows
    of sums."""
    b = routine_builder("dot.tiles", isa, DOTS)
    t, tall = Tile(b, isa, storage, ahead), tile_of(isa)[1]
    steps = (b.arg("x_next"), b.arg("source_next"), b.int(t.step * tall),
             b.int(tall * dot_pitch(BLOCK)))
    at = [b.arg(name) for name in ("x", "source", "kept", "target")]
    coming = _tile(t, _first, at, b.arg("ahead"))
    inits = [place + step for place, step in zip(at, steps, strict=True)]
    with b.loop(1, b.arg("tiles"), 1, *inits, coming, name="tiles") as tile:
        *at, coming = tile.phis
        coming = _tile(t, _later, at, coming)
        tile.yields(*(place + step for place, step in zip(at, steps, strict=True)), coming)
    return b.build(Affine.const(1), 1, "call")


Terms = Callable[[Tile, Value, Values], Values]


def _tile(t: Tile, terms: Terms, at: Sequence[Value], coming: Value) -> Value:
    """Sums so far, `terms`, sums; where prefetching goes on."""
    b, tile = t.build, tile_of(t.isa)
    (x, source, kept, target), zero, vector = at, b.int(0), t.isa.vector_bytes
    acc = [b.load(source, zero, disp=vector * i) for i in range(tile[0] * tile[1])]
    coming, *acc = terms(t, x, (coming, *acc))
    with b.when_less(b.arg("last"), 1):
        for i, value in enumerate(acc):
            b.store(kept, zero, value, disp=vector * i)
    with b.when_less(0, b.arg("last")):
        _sums(b, tile, acc, target)
    return coming


def _first(t: Tile, x: Value, inits: Values) -> Values:
    """B as it lies, and from here on as a panel too, with zeros behind the last term."""
    b, wide = t.build, tile_of(t.isa)[0]
    size, depth, line = WIDTHS[t.storage] * b.lanes, b.arg("depth"), b.arg("w_line")
    quads, offsets = [b.arg("w") + line * q for q in range(0, wide, 4)], multiples(b, line)
    count = 1 + len(quads)

    def k_loop(lo: Value, hi: Value, part: Value | None, name: str, inits: Values) -> Values:
        with b.loop(x + lo * t.rows, x + hi * t.rows, t.rows * b.lanes, *inits,
                    name=f"dot k{name}") as loop:
            panel, *lines = loop.phis[:count]
            places = [(lines[c // 4], offsets[c % 4]) for c in range(wide)]
            coming, *acc = loop.phis[count:]
            ask(b, t.ahead, places, size, coming)
            right = [fetch(b, t.storage, *place, part=part) for place in places]
            for c, value in enumerate(right):
                b.store(panel, b.int(0), value, disp=t.isa.vector_bytes * c)
            loop.yields(panel + b.arg("panel_step"), *(line + size for line in lines),
                        coming + b.arg("ahead_first"), *_step(t, loop.iv, right, acc))
        return loop.results

    last = None
    if t.storage == PAIRS:
        whole = (depth - b.arg("odd")) & -b.lanes  # a vector with half a lane is not whole
        last = whole, part_of(b, t.storage, depth - whole, b.arg("odd"))
    return rounds(b, depth, True, (b.arg("panel"), *quads, *inits), k_loop, last)[count:]


def _later(t: Tile, x: Value, inits: Values) -> Values:
    """The panel; meanwhile every tile asks for a part of the next group of columns."""
    b, zero = t.build, t.build.int(0)
    end = x + ((b.arg("depth") + (b.lanes - 1)) & -b.lanes) * t.rows
    with b.loop(x, end, t.rows * b.lanes, b.arg("panel"), *inits, name="dot k panel") as loop:
        panel, coming, *acc = loop.phis
        b.emit(K.PREFETCH, coming, zero, imm=Mem(1, 0, level=2 if t.ahead else 1))
        right = [b.load(panel, zero, disp=disp) for disp in range(0, t.step, t.isa.vector_bytes)]
        loop.yields(panel + t.step, coming + b.arg("ahead_later"),
                    *_step(t, loop.iv, right, acc))
    return loop.results[1:]


def _step(t: Tile, x: Value, right: list[Value], acc: list[Value]) -> list[Value]:
    """acc[column*tall + row] += x[row] * right[column], one vector of each."""
    b, new, tall = t.build, list(acc), tile_of(t.isa)[1]
    for row in range(tall):
        left = b.load(x, b.int(0), disp=4 * b.lanes * row)
        for c, value in enumerate(right):
            at = c * tall + row
            new[at] = multiply(b, t.storage, left, value, acc[at])
    return new


def _sums(b: KernelBuilder, tile: tuple[int, int], acc: list[Value], target: Value) -> None:
    """Four columns of lanes/4 rows become one vector, block t of 128 bits is row t; what is stored
    behind a row the next group repairs."""
    wide, tall = tile
    blocks = b.lanes // 4
    for first in range(0, wide, 4):
        for row in range(0, tall, blocks):
            columns = [min(first + i % 4, wide - 1) for i in range(b.lanes)]
            rows = [min(row + i // 4, tall - 1) for i in range(b.lanes)]
            vector = sum_each(b, [acc[c * tall + t] for c, t in zip(columns, rows)])
            for t in range(min(blocks, tall - row)):
                only = (t,) * blocks
                moved = b.emit(K.SHUF128, vector, vector, imm=only) if t else vector
                b.store(target, b.int(0), moved,
                        disp=dot_pitch(BLOCK) * (row + t) + 4 * first)
