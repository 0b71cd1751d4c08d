"""A few dozen rows times a B whose rows are contiguous: B is read as it lies, row beside row.

    sums[i][j] += sum[d<deep](a[d][i] * b[d][j])     i < height, all columns j of a block

A is packed, `height` floats a term; the sums of a block of columns lie in the nearest caches. A
sweep reads `deep` rows of B from end to end, so that each is a stream the hardware can follow, and
asks for the rows of the next sweep. Packing B instead would cost as much as multiplying it by a
dozen rows. The sum of an element runs over r in ascending order in one accumulator, as in `packed`.
"""

from __future__ import annotations

from itertools import accumulate

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


def swept_heights(params: TuningParams) -> tuple[int, int]:
    """Rows are tiles of the second, the last perhaps of the first."""
    return params.mr // 2 + 1, params.mr


def offsets_of(isa: Isa, params: TuningParams) -> tuple[int, ...]:
    """Scratch: sums, what packing needs at the edge, packed tiles, the end."""
    rows = params.swept + params.mr
    sizes = (4 * rows * WIDTH, spare_bytes(params.kc, isa.lanes),
             block_bytes(params.kc, -(-params.swept // params.mr), params.mr, isa.lanes))
    return tuple(accumulate([HEAD, *(-(-size // LINE) * LINE for size in sizes)]))


def swept_routine(isa: Isa, params: TuningParams, storage: str) -> Routine:
    return Routine(f"swept {storage}", swept, (isa, params, storage))


def swept(isa: Isa, params: TuningParams, storage: str) -> Kernel:
    """The driver: columns in blocks, r in blocks of kc whose part of A is packed."""
    b = routine_builder("gemm.swept", isa, WORK)
    sums, _, _, _ = offsets_of(isa, params)
    end, at = b.emit(K.END), b.emit(K.SCRATCH) + sums
    with b.loop(b.emit(K.BEGIN), end, WIDTH, name="jc") as jc:
        columns = b.emit(K.IMIN, end - jc.iv, b.int(WIDTH))
        _clear(b, at, b.arg("m") + params.mr)
        with b.loop(0, b.arg("k"), params.kc, name="pc") as pc:
            terms = b.emit(K.IMIN, b.arg("k") - pc.iv, b.int(params.kc))
            right = b.arg("b") + jc.iv * SIZE[storage] + pc.iv * b.arg("b_depth")
            _block(b, isa, params, storage, (pc.iv, terms, right, columns))
        finished(b, {"sums": at, "pitch": b.int(4 * WIDTH), "row": b.int(0), "rows": b.arg("m"),
                     "column": jc.iv, "columns": columns})
    return b.build(Affine.const(1), 1, "column of a product")


def _clear(b: KernelBuilder, at: Value, rows: Value) -> None:
    with b.loop(0, rows * WIDTH, 4 * b.lanes, name="zeros") as loop:
        for v in range(4):
            b.store(at, loop.iv, b.const(0.0), disp=4 * b.lanes * v)


def _block(b: KernelBuilder, isa: Isa, params: TuningParams, storage: str,
           block: tuple[Value, Value, Value, Value]) -> None:
    """Tile by tile pack A; then sweep by sweep all tiles, so B comes from memory for the first."""
    first, terms, right, columns = block
    sums, spare, packed, _ = offsets_of(isa, params)
    low, high = swept_heights(params)
    at, m = b.emit(K.SCRATCH), b.arg("m")
    whole = (m + (high - low - 1)) / high  # tiles of full height; the rest is `low` rows or fewer
    tiles = whole + bounded(b, m - whole * high, 0, 1)
    step = pitch(terms, high, b.lanes)
    with b.loop(0, tiles, 1, name="pack tiles") as tile:
        row = tile.iv * high
        height = _height(b, tile.iv, whole, low, high)
        lines = b.emit(K.IMIN, m - row, height)
        source = b.arg("a") + row * b.arg("a_line") + first * b.arg("a_depth")
        call(b, b.arg("pack_a"), "pack", PACK, {
            "source": source, "line": b.arg("a_line"), "depth_step": b.arg("a_depth"),
            "lines": lines, "exist": m - row, "depth": terms, "width": height,
            "target": at + packed + tile.iv * step, "spare": at + spare})
    deep = terms / DEEP * DEEP
    for lo, hi, count in ((b.int(0), deep, DEEP), (deep, terms, 1)):
        codes = [b.code(sweep_routine(isa, params, storage, h, count)) for h in (low, high)]
        with b.loop(lo, hi, count, name=f"sweeps of {count}") as r:
            with b.loop(0, tiles, 1, name="tiles") as tile:
                height = _height(b, tile.iv, whole, low, high)
                code = codes[0] + (codes[1] - codes[0]) * ((height - low) / (high - low))
                call(b, code, "sweep", SWEEP, {
                    "a": at + packed + tile.iv * step + r.iv * height * 4,
                    "b": right + r.iv * b.arg("b_depth"), "b_step": b.arg("b_depth"),
                    "columns": columns, "sums": at + sums + tile.iv * (4 * WIDTH * high)})


def _height(b: KernelBuilder, tile: Value, whole: Value, low: int, high: int) -> Value:
    full = bounded(b, whole - tile, 0, 1)
    return full * (high - low) + low


# -- one sweep -------------------------------------------------------------------------------------
def sweep_routine(isa: Isa, params: TuningParams, storage: str, height: int, deep: int) -> Routine:
    return Routine(f"sweep {storage} {height}x{deep}", sweep, (isa, storage, height, deep))


def sweep(isa: Isa, storage: str, height: int, deep: int) -> Kernel:
    """Per vector of columns: `height` sums from and to the cache, `deep` loads of B, and FMAs whose
    factor of A is broadcast from memory."""
    b = routine_builder(f"sweep.{height}x{deep}", isa, SWEEP)
    step, columns = b.arg("b_step"), b.arg("columns")
    quads = [b.arg("b") + step * q for q in range(0, deep, 4)]
    ahead, offsets = step * deep, multiples(b, step)

    def j_loop(lo: Value, hi: Value, mask: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, b.lanes, *inits, name=f"sweep{name}") as loop:
            sums, *lines = loop.phis
            _vector(b, storage, (height, deep), sums, lines, (ahead, offsets), mask)
            loop.yields(sums + 4 * b.lanes, *(line + SIZE[storage] * b.lanes for line in lines))
        return loop.results

    rounds(b, columns, isa.mask_class != "k", (b.arg("sums"), *quads), j_loop)
    return b.build(Affine.const(1), 1, "call")


def _vector(b: KernelBuilder, storage: str, tile: tuple[int, int], sums: Value, lines: list[Value],
            steps: tuple[Value, Multiples], mask: Value | None) -> None:
    height, deep = tile
    zero, a, (ahead, offsets) = b.int(0), b.arg("a"), steps
    acc = [b.load(sums, zero, disp=4 * WIDTH * t) for t in range(height)]
    for d in range(deep):
        index, scale = offsets[d % 4]
        if deep > 1:
            b.emit(K.PREFETCH, lines[d // 4] + ahead, index, imm=Mem(scale, 0, level=1))
        right = b.load(lines[d // 4], index, scale, 0, mask, storage)
        acc = [b.emit(K.VFMA, right, b.broadcast(a, zero, disp=4 * (d * height + t)), value)
               for t, value in enumerate(acc)]
    for t, value in enumerate(acc):
        b.store(sums, zero, value, disp=4 * WIDTH * t)
