"""Some rows times a B whose terms are contiguous, as checkpoints store weights: nothing is packed
but A, and no element of B is moved but to a register.

    sums[i][j] = sum[r<k](a[i][r] * b[j][r])       lanes along r, one accumulator for each (i, j)

With `pairs` (both matrices bf16, VDPBF16PS) a lane holds two terms; then the two are added first.

A tile is `wide` rows of B times `tall` rows of A: a step of the k loop loads wide + tall vectors
for wide*tall FMAs. A is packed [tile][k / lanes][tall][lanes]: as it lies its rows would share one set
of the 1st-level cache whenever k is a power of two. With more than one tile of rows, k is cut into
chunks that stay in the 1st-level cache from tile to tile; the accumulators wait in memory. Either
way a sum has `lanes` accumulators that run over r in ascending order, as in `gemv.dot`.
"""

from __future__ import annotations

from itertools import accumulate

from ..trace.affine import Affine
from .gemv import BLOCK, MARGIN, dot_pitch
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import LINE, Multiples, multiples
from .pairs import PAIRS, WIDTHS, fetch, lanes_of, multiply, odd_of, part_of
from .rounds import Values, rounds
from .transpose import sum_each
from .work import DOTS, HEAD, WORK, bounded, call, finished, routine_builder

CHUNK = 512  # terms: 12 KB of B and 8 KB of A


def tile_of(isa: Isa) -> tuple[int, int]:
    """Rows of B and of A; 6*4 accumulators + 6 + 1 = 31 registers, 4*2 + 4 + 1 = 13."""
    return (6, 4) if isa.vregs >= 32 else (4, 2)


def offsets_of(isa: Isa, rows: int) -> tuple[int, ...]:
    """Scratch: zeros to start from, accumulators of all tiles, sums, packed A."""
    wide, tall = tile_of(isa)
    size = wide * tall * isa.vector_bytes
    tiles = -(-rows // tall)
    return tuple(accumulate((HEAD, size, tiles * size, (rows + tall) * dot_pitch(BLOCK))))


def dots_bytes(isa: Isa, rows: int, k: Affine) -> Affine:
    """Scratch; it grows with k, because all of A is packed."""
    _, tall = tile_of(isa)
    return offsets_of(isa, rows)[-1] + (k + isa.lanes) * (4 * (rows + tall))


def dots_routine(isa: Isa, rows: int, stored: tuple[str, str]) -> Routine:
    return Routine(f"dots {' '.join(stored)}", dots, (isa, rows, stored))


def dots(isa: Isa, rows: int, stored: tuple[str, str]) -> Kernel:
    """The driver: blocks of columns, groups of `wide`, chunks of k, tiles of `tall` rows."""
    b = routine_builder("gemm.dots", isa, WORK)
    at, end, m = b.emit(K.SCRATCH), b.emit(K.END), b.arg("m")
    zeros, _, sums, packed = (at + offset for offset in offsets_of(isa, rows))
    _start(b, isa, zeros, packed, stored[0])
    target = sums + 4 * MARGIN
    with b.loop(b.emit(K.BEGIN), end, BLOCK, name="block") as j:
        columns = b.emit(K.IMIN, end - j.iv, b.int(BLOCK))
        _groups(b, isa, rows, stored[1], (j.iv, columns), target)
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


def _groups(b: KernelBuilder, isa: Isa, rows: int, storage: str, block: tuple[Value, Value],
            target: Value) -> None:
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
        _chunks(b, isa, rows, storage, (start, line * many, start + line * wide),
                target + (first - j) * 4)
        group.yields(group.phis[0] + step)


def _chunks(b: KernelBuilder, isa: Isa, rows: int, storage: str,
            group: tuple[Value, Value, Value], target: Value) -> None:
    wide, tall = tile_of(isa)
    start, line, following = group
    at, m, k = b.emit(K.SCRATCH), b.arg("m"), lanes_of(b, storage, b.arg("k"))
    zeros, kept, _, packed = (at + offset for offset in offsets_of(isa, rows))
    size, deep = wide * tall * isa.vector_bytes, (k + (b.lanes - 1)) & -b.lanes
    single = bounded(b, b.int(tall + 1) - m, 0, 1)
    chunk = b.emit(K.IMAX, deep - CHUNK, b.int(0)) * single + CHUNK  # one tile needs no chunks
    with b.loop(0, (b.emit(K.IMAX, k, b.int(1)) + chunk - 1) / chunk, 1, name="chunk") as part:
        r = part.iv * chunk
        depth = b.emit(K.IMIN, k - r, chunk)
        begun = b.emit(K.IMIN, r, b.int(1))
        last = bounded(b, r + chunk - k + 1, 0, 1)
        call(b, Routine("dot tiles", dot_tiles, (isa, storage)), "dots", DOTS, {
            "tiles": (m + (tall - 1)) / tall, "x": packed + r * (4 * tall),
            "x_next": deep * (4 * tall), "w": start + r * WIDTHS[storage], "w_line": line,
            "depth": depth, "source": zeros + (kept - zeros) * begun, "source_next": begun * size,
            "kept": kept, "last": last, "target": target,
            "ahead": following + r * (WIDTHS[storage] * wide),
            "odd": odd_of(b, storage, b.arg("k")) * last})


# -- one tile --------------------------------------------------------------------------------------
def dot_tiles(isa: Isa, storage: str) -> Kernel:
    """A chunk of k for all tiles of rows; the last chunk adds the lanes up and leaves `tall` rows
    of sums. Only the first tile has B to ask for: the others read it from the nearest cache."""
    b = routine_builder("dot.tiles", isa, DOTS)
    wide, tall = tile_of(isa)
    size = wide * tall * isa.vector_bytes
    inits = [b.arg(name) for name in ("x", "source", "kept", "target", "ahead")]
    with b.loop(0, b.arg("tiles"), 1, *inits, name="tiles") as tile:
        x, source, kept, target, ahead = tile.phis
        _tile(b, isa, storage, (x, source, kept, target, ahead))
        tile.yields(x + b.arg("x_next"), source + b.arg("source_next"), kept + size,
                    target + tall * dot_pitch(BLOCK), x)
    return b.build(Affine.const(1), 1, "call")


def _tile(b: KernelBuilder, isa: Isa, storage: str, at: tuple[Value, ...]) -> None:
    wide, tall = tile_of(isa)
    x, source, kept, target, ahead = at
    zero, depth = b.int(0), b.arg("depth")
    quads = [b.arg("w") + b.arg("w_line") * q for q in range(0, wide, 4)]
    acc = [b.load(source, zero, disp=isa.vector_bytes * i) for i in range(wide * tall)]
    offsets = multiples(b, b.arg("w_line"))

    def k_loop(lo: Value, hi: Value, part: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, b.lanes, *inits, name=f"dot k{name}") as loop:
            loop.yields(*_step(b, storage, (wide, tall), loop.phis, offsets, part))
        return loop.results

    inits = (x, ahead, *quads, *acc)
    if storage == PAIRS:
        whole = (depth - b.arg("odd")) & -b.lanes  # a vector with half a lane is not whole
        part = part_of(b, storage, depth - whole, b.arg("odd"))
        found = rounds(b, depth, True, inits, k_loop, (whole, part))
    else:
        found = rounds(b, depth, isa.mask_class != "k", inits, k_loop)
    acc = list(found[-wide * tall:])
    with b.when_less(b.arg("last"), 1):
        for i, value in enumerate(acc):
            b.store(kept, zero, value, disp=isa.vector_bytes * i)
    with b.when_less(0, b.arg("last")):
        _sums(b, (wide, tall), acc, target)


def _step(b: KernelBuilder, storage: str, tile: tuple[int, int], phis: Values, offsets: Multiples,
          part: Value | None) -> list[Value]:
    """acc[column*tall + row] += x[row] * w[column], one vector of each. The next group of columns
    is prefetched as one linear stretch: the hardware follows few streams, and not across a page."""
    wide, tall = tile
    quads = -(-wide // 4)
    x, ahead, lines, acc = phis[0], phis[1], phis[2:2 + quads], phis[2 + quads:]
    zero, size = b.int(0), WIDTHS[storage] * b.lanes
    for disp in range(0, wide * size, LINE):
        b.emit(K.PREFETCH, ahead, zero, imm=Mem(1, disp, level=1))
    right = [fetch(b, storage, lines[c // 4], offsets[c % 4], part=part) for c in range(wide)]
    new = list(acc)
    for t in range(tall):
        left = b.load(x, zero, disp=4 * b.lanes * t)
        for c in range(wide):
            new[c * tall + t] = multiply(b, storage, left, right[c], acc[c * tall + t])
    return [x + 4 * b.lanes * tall, ahead + wide * size, *(line + size for line in lines), *new]


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
