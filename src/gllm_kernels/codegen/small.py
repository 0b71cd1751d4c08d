"""Small float32 products: A and B lie in the caches and are read as they are.

    c[i][j] = sum[r<k](a[i][r] * b[r][j])     height x nr elements in registers, over all of k

Packing pays when what is packed is read many times or is widened on the way; a B of some hundred
KB is near enough as it is.
The last tile of a row or column is not a smaller one: it begins earlier, and what it shares with
the tile before is computed twice, to the same bits. So there is no mask, and C has at least one
whole tile. The sum of an element runs over r in ascending order in one accumulator, as in `packed`.
"""

from __future__ import annotations

from itertools import pairwise

from ..trace.affine import Affine
from .access import integer, storage_of
from .contraction import Contraction
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import LINE, multiples
from .site import Site
from .tuning import TuningParams
from .work import HEAD, SMALL, WORK, bounded, call, evenly, finished, routine_builder

AHEAD = 8  # rows of B: those of a power of two bytes share a few sets of the nearest cache
MANY = 5  # the share of what is near where rows repay the packing of B
NARROW = 160  # columns up to which packing A is not repaid, and B may be twice as large

def low_height(params: TuningParams) -> int:
    """The lowest tile; rows are divided evenly, so that from twice as many on no other is needed."""
    return params.mr // 2 + 1


def small_bytes(params: TuningParams) -> int:
    """Scratch: the sums of a tile, for an epilogue."""
    return HEAD + 4 * params.mr * params.nr


def may_be_small(product: Contraction, params: TuningParams) -> bool:
    """As far as sizes are known."""
    elements, m, n = (product.k * product.n).constant, product.m.constant, product.n.constant
    stored = [storage_of(product.trace, factor.param) for factor in (product.a, product.b)]
    return (stored == ["float", "float"] and not product.b.along and not params.prepacked
            and params.near > 0 and (elements is None or elements <= 2 * params.near)
            and (m is None or m >= low_height(params)) and (n is None or n >= params.nr))


def is_small(site: Site, params: TuningParams) -> Value:
    """1 or 0: at least a tile, and B is near."""
    b, near, most = site.build, params.near, params.near // MANY
    n = integer(b, site.product.n, {})
    few, narrow = (bounded(b, b.int(limit + 1) - size, 0, 1)
                   for limit, size in ((params.swept, site.m), (NARROW, n)))
    most = few * (near - most) + most
    most = (b.int(2 * near) - most) * narrow + most
    return (bounded(b, site.rows - (low_height(params) - 1), 0, 1)
            * bounded(b, n - (params.nr - 1), 0, 1) * bounded(b, most + 1 - site.k * n, 0, 1))


def small_routine(isa: Isa, params: TuningParams) -> Routine:
    return Routine("small", small, (isa, params))


def small(isa: Isa, params: TuningParams) -> Kernel:
    """The driver for some rows and columns of C, tile by tile: down a strip of nr columns, whose
    part of B then stays in the nearest cache, or across where C is taller than wide, so that A is
    read from afar only once."""
    b = routine_builder("gemm.small", isa, WORK)
    m, begin, end, nr = b.arg("m"), b.emit(K.BEGIN), b.emit(K.END), params.nr
    down, height = evenly(b, m, params.mr)
    across = (end - begin + (nr - 1)) / nr
    code, tall = _code(b, isa, params, height), bounded(b, m - (end - begin), 0, 1)
    with (b.loop(0, across + (down - across) * tall, 1, name="outer") as outer,
          b.loop(0, down + (across - down) * tall, 1, name="inner") as inner):
        swap = (inner.iv - outer.iv) * tall
        done, begun = (inner.iv - swap) * height, (outer.iv + swap) * nr + begin
        row = b.emit(K.IMIN, done, m - height)
        column = b.emit(K.IMAX, b.emit(K.IMIN, begun, end - nr), b.int(0))
        _tile(b, nr, code, (row, done, height), (column, begun, end))
    return b.build(Affine.const(1), 1, "column of a product")


def _code(b: KernelBuilder, isa: Isa, params: TuningParams, height: Value) -> Value:
    low = low_height(params)
    codes = [b.code(tile_routine(isa, params, h)) for h in range(low, params.mr + 1)]
    code = codes[0]
    for at, (before, this) in enumerate(pairwise(codes)):
        code = code + (this - before) * bounded(b, height - (low + at), 0, 1)
    return code


def _tile(b: KernelBuilder, nr: int, code: Value, rows: tuple[Value, Value, Value],
          columns: tuple[Value, Value, Value]) -> None:
    """One tile, to C or to scratch; from there the epilogue takes what is new in it."""
    (row, done, height), (column, begun, end) = rows, columns
    plain, line, size = b.arg("plain"), b.arg("c_line"), b.arg("c_size")
    sums = b.emit(K.SCRATCH) + HEAD
    place = b.arg("c") + row * line + column * size
    call(b, code, "small", SMALL, {
        "a": b.arg("a") + row * b.arg("a_line"), "a_line": b.arg("a_line"),
        "a_depth": b.arg("a_depth"), "b": b.arg("b") + column * b.arg("b_line"),
        "b_depth": b.arg("b_depth"), "depth": b.arg("k"),
        "target": sums + (place - sums) * plain, "pitch": (line - 4 * nr) * plain + 4 * nr})
    with b.when_less(plain, 1):
        old, left = done - row, begun - column
        finished(b, {"sums": sums + (old * nr + left) * 4, "pitch": b.int(4 * nr), "row": done,
                     "rows": height - old, "column": begun,
                     "columns": b.emit(K.IMIN, b.int(nr) - left, end - begun)})


def tile_routine(isa: Isa, params: TuningParams, height: int) -> Routine:
    return Routine(f"small {height}x{params.nr}", tile, (isa, params.nr, height))


def tile(isa: Isa, nr: int, height: int) -> Kernel:
    """height * nr/lanes accumulators; a term is nr/lanes loads, `height` broadcasts and an FMA for
    each accumulator. Four rows of A share a base."""
    b, vectors = routine_builder(f"small.{height}x{nr}", isa, SMALL), nr // isa.lanes
    zero, ahead = b.int(0), b.arg("b_depth") * AHEAD
    rows = _rows(b, b.arg("a"), "a_line", height)
    bases = [base for base, _ in rows[::4]]
    zeros = [b.const(0.0)] * (height * vectors)
    with b.loop(0, height, 1, b.arg("target"), name="coming") as row:
        _prefetch(b, row.phis[0], zero, 4 * nr)
        row.yields(row.phis[0] + b.arg("pitch"))
    with b.loop(0, b.arg("depth"), 1, b.arg("b"), *bases, *zeros, name="k") as loop:
        (line, *left), acc = loop.phis[: len(bases) + 1], loop.phis[len(bases) + 1 :]
        right = [b.load(line, zero, disp=4 * b.lanes * v) for v in range(vectors)]
        _prefetch(b, line, ahead, 4 * nr)
        out: list[Value] = []
        for row in range(height):
            factor = b.broadcast(left[row // 4], *rows[row][1])
            out += [b.emit(K.VFMA, factor, value, acc[row * vectors + v])
                    for v, value in enumerate(right)]
        loop.yields(line + b.arg("b_depth"), *(base + b.arg("a_depth") for base in left), *out)
    results = iter(loop.results[len(bases) + 1 :])
    for base, (index, scale) in _rows(b, b.arg("target"), "pitch", height):
        for v in range(vectors):
            b.store(base, index, next(results), scale, 4 * b.lanes * v)
    return b.build(Affine.const(1), 1, "call")


def _prefetch(b: KernelBuilder, base: Value, index: Value, size: int) -> None:
    for disp in range(0, size, LINE):
        b.emit(K.PREFETCH, base, index, imm=Mem(1, disp))


def _rows(b: KernelBuilder, base: Value, step: str,
          height: int) -> list[tuple[Value, tuple[Value, int]]]:
    """(base, (index, scale)) of every row."""
    lines = multiples(b, b.arg(step))
    return [(base + b.arg(step) * (row // 4 * 4), lines[row % 4]) for row in range(height)]
