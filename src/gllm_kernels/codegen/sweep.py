"""A few dozen rows times a B whose rows are contiguous: B is read as it lies, row beside row.

    sums[i][j] += sum[d<deep](a[d][i] * b[d][j])     i < height, all columns j of a block

A is packed, `height` floats a term; the sums of a block of columns lie in the nearest caches. A
sweep reads `deep` rows of B from end to end, so that each is a stream the hardware can follow, and
asks for the rows of the next sweep. Packing B instead would cost as much as multiplying it by a
dozen rows. The sum of an element runs over r in ascending order in one accumulator, as in `packed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

from ..dtypes import SIZE
from ..trace.affine import Affine
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import LINE, Multiples, block_bytes, multiples, pitch, spare_bytes
from .rounds import Values, rounds
from .tuning import TuningParams
from .work import HEAD, PACK, SWEEP, WORK, bounded, call, finished, routine_builder

WIDTH = 512  # columns of a block: the sums of 14 rows take 28 KB
DEEP = 8  # rows of B in a sweep
AHEAD = 512  # bytes that a long run is prefetched ahead


def swept_heights(params: TuningParams) -> tuple[int, int]:
    """As many tiles as the second needs, so many of the first as the rows allow."""
    return params.mr // 2 + 1, params.mr


def variants(params: TuningParams) -> list[tuple[int, int]]:
    """(height, columns of a block); those of `sweep_width` are for one tile."""
    low, high = swept_heights(params)
    alone = (low, high) if params.sweep_width != WIDTH else ()
    return [(low, WIDTH), (high, WIDTH), *((height, params.sweep_width) for height in alone)]


def offsets_of(isa: Isa, params: TuningParams) -> tuple[int, ...]:
    """Scratch: sums, what packing needs at the edge, packed tiles, the end."""
    rows = params.swept + params.mr
    sizes = (4 * max(rows * WIDTH, params.mr * params.sweep_width),
             spare_bytes(params.kc, isa.lanes),
             block_bytes(params.kc, -(-params.swept // params.mr), params.mr, isa.lanes))
    return tuple(accumulate([HEAD, *(-(-size // LINE) * LINE for size in sizes)]))


def swept_routine(isa: Isa, params: TuningParams, storage: str) -> Routine:
    return Routine(f"swept {storage}", swept, (isa, params, storage))


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of A as `tiles`, the first `whole` of them of full height; `alone`: there is one.
    Its sums may come from the 2nd-level cache, so rows of B are read in long runs."""

    build: KernelBuilder
    params: TuningParams
    tiles: Value
    whole: Value
    alone: Value

    @property
    def width(self) -> Value:
        """Columns of a block."""
        return self.alone * (self.params.sweep_width - WIDTH) + WIDTH

    def tile(self, number: Value) -> tuple[Value, Value, Value]:
        """The first row, the height and the number of its variant."""
        b, (low, high) = self.build, swept_heights(self.params)
        before, full = b.emit(K.IMIN, number, self.whole), bounded(b, self.whole - number, 0, 1)
        return (number * low + before * (high - low), full * (high - low) + low,
                full + self.alone * 2)


def _rows(b: KernelBuilder, params: TuningParams) -> Rows:
    (low, high), m = swept_heights(params), b.arg("m")
    tiles = (m + (high - 1)) / high
    left = b.emit(K.IMAX, m - tiles * low, b.int(0))  # what they lack when all of them are low
    alone = bounded(b, b.int(2) - tiles, 0, 1) * int(params.sweep_width != WIDTH)
    return Rows(b, params, tiles, (left + (high - low - 1)) / (high - low), alone)


def swept(isa: Isa, params: TuningParams, storage: str) -> Kernel:
    """The driver: columns in blocks, r in blocks of kc whose part of A is packed."""
    b = routine_builder("gemm.swept", isa, WORK)
    end, at, rows = b.emit(K.END), b.emit(K.SCRATCH) + offsets_of(isa, params)[0], _rows(b, params)
    begin, width = b.emit(K.BEGIN), rows.width
    with b.loop(0, (end - begin + width - 1) / width, 1, begin, name="jc") as jc:
        first = jc.phis[0]
        columns = b.emit(K.IMIN, end - first, width)
        _clear(b, at, sum(rows.tile(rows.tiles - 1)[:2], b.int(0)) * width)
        with b.loop(0, b.arg("k"), params.kc, name="pc") as pc:
            terms = b.emit(K.IMIN, b.arg("k") - pc.iv, b.int(params.kc))
            right = b.arg("b") + first * SIZE[storage] + pc.iv * b.arg("b_depth")
            _block(isa, rows, storage, (pc.iv, terms, right, columns))
        finished(b, {"sums": at, "pitch": width * 4, "row": b.int(0), "rows": b.arg("m"),
                     "column": first, "columns": columns})
        jc.yields(first + width)
    return b.build(Affine.const(1), 1, "column of a product")


def _clear(b: KernelBuilder, at: Value, floats: Value) -> None:
    with b.loop(0, floats, 4 * b.lanes, name="zeros") as loop:
        for v in range(4):
            b.store(at, loop.iv, b.const(0.0), disp=4 * b.lanes * v)


def _block(isa: Isa, rows: Rows, storage: str, block: tuple[Value, Value, Value, Value]) -> None:
    """Tile by tile pack A; then sweep by sweep all tiles, so B comes from memory for the first."""
    (first, terms, right, columns), b, params = block, rows.build, rows.params
    sums, spare, packed, _ = offsets_of(isa, params)
    at, m, step = b.emit(K.SCRATCH), b.arg("m"), pitch(terms, params.mr, b.lanes)
    with b.loop(0, rows.tiles, 1, name="pack tiles") as tile:
        row, height, _ = rows.tile(tile.iv)
        lines = b.emit(K.IMIN, m - row, height)
        source = b.arg("a") + row * b.arg("a_line") + first * b.arg("a_depth")
        call(b, b.arg("pack_a"), "pack", PACK, {
            "source": source, "line": b.arg("a_line"), "depth_step": b.arg("a_depth"),
            "lines": lines, "exist": m - row, "depth": terms, "width": height,
            "target": at + packed + tile.iv * step, "spare": at + spare})
    deep = terms / DEEP * DEEP
    for lo, hi, count in ((b.int(0), deep, DEEP), (deep, terms, 1)):
        codes = [b.code(sweep_routine(isa, params, storage, variant, count))
                 for variant in variants(params)]
        with b.loop(lo, hi, count, name=f"sweeps of {count}") as r:
            with b.loop(0, rows.tiles, 1, name="tiles") as tile:
                row, height, number = rows.tile(tile.iv)
                call(b, _chosen(b, codes, number), "sweep", SWEEP, {
                    "a": at + packed + tile.iv * step + r.iv * height * 4,
                    "b": right + r.iv * b.arg("b_depth"), "b_step": b.arg("b_depth"),
                    "columns": columns, "sums": at + sums + row * (4 * WIDTH)})


def _chosen(b: KernelBuilder, codes: list[Value], number: Value) -> Value:
    """codes[number]"""
    code = codes[0]
    for at, (before, other) in enumerate(pairwise(codes)):
        code = code + (other - before) * bounded(b, number - at, 0, 1)
    return code


# -- one sweep -------------------------------------------------------------------------------------
def sweep_routine(isa: Isa, params: TuningParams, storage: str, variant: tuple[int, int],
                  deep: int) -> Routine:
    return Routine(f"sweep {storage} {variant[0]}x{deep} of {variant[1]}", sweep,
                   (isa, storage, variant, deep))


def sweep(isa: Isa, storage: str, variant: tuple[int, int], deep: int) -> Kernel:
    """Per vector of columns: `height` sums from and to the cache, `deep` loads of B, and FMAs whose
    factor of A is broadcast from memory."""
    b = routine_builder(f"sweep.{variant[0]}x{deep}", isa, SWEEP)
    step, columns = b.arg("b_step"), b.arg("columns")
    quads = [b.arg("b") + step * q for q in range(0, deep, 4)]
    ahead, offsets = step * deep, multiples(b, step)

    def j_loop(lo: Value, hi: Value, mask: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, b.lanes, *inits, name=f"sweep{name}") as loop:
            sums, *lines = loop.phis
            _vector(b, storage, (*variant, deep), sums, lines, (ahead, offsets), mask)
            loop.yields(sums + 4 * b.lanes, *(line + SIZE[storage] * b.lanes for line in lines))
        return loop.results

    rounds(b, columns, isa.mask_class != "k", (b.arg("sums"), *quads), j_loop)
    return b.build(Affine.const(1), 1, "call")


def _vector(b: KernelBuilder, storage: str, tile: tuple[int, int, int], sums: Value,
            lines: list[Value], steps: tuple[Value, Multiples], mask: Value | None) -> None:
    """Short runs: prefetch those of the next sweep; long ones: a little ahead in each row."""
    height, width, deep = tile
    zero, a, (ahead, offsets) = b.int(0), b.arg("a"), steps
    acc = [b.load(sums, zero, disp=4 * width * t) for t in range(height)]
    for d in range(deep):
        index, scale = offsets[d % 4]
        if deep > 1 and width == WIDTH:
            b.emit(K.PREFETCH, lines[d // 4] + ahead, index, imm=Mem(scale, 0, level=1))
        elif deep > 1:
            b.emit(K.PREFETCH, lines[d // 4], index, imm=Mem(scale, AHEAD, level=2))
        right = b.load(lines[d // 4], index, scale, 0, mask, storage)
        acc = [b.emit(K.VFMA, right, b.broadcast(a, zero, disp=4 * (d * height + t)), value)
               for t, value in enumerate(acc)]
    for t, value in enumerate(acc):
        b.store(sums, zero, value, disp=4 * width * t)
