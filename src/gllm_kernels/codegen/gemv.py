"""One row: B is read once, from where it lies, and nothing is packed.

dot      B[j, r] with r contiguous: lanes along r, one accumulator per column, summed across its
         lanes at the end. 8 columns at a time, because 8 chains of FMAs hide its latency of 4
         cycles at 2 per cycle.
columns  B[r, j] with j contiguous: lanes along j, each element of A in all lanes; a few rows of B
         are added to the sums from end to end.

The order of a sum depends on r and the lanes only: the range of units does not change a bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dtypes import SIZE
from ..trace.affine import Affine
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import LINE, multiples
from .rounds import Values, rounds
from .transpose import sum_each
from .work import HEAD, WORK, bounded, finished, routine_builder

GROUP = 8  # columns of B that `dot` reads side by side for one row
MARGIN = 16  # floats before and behind a row of sums that whole vectors may overwrite
BLOCK = 96  # columns of sums that one row keeps for one epilogue where B is read along r
SWEEP = 4096  # and where it is read along j: they stay in the 1st-level cache


@dataclass(frozen=True, slots=True)
class Stream:
    """A driver being written; `stored` is how A and B lie in memory; `ahead`: see `ask`."""

    build: KernelBuilder
    stored: tuple[str, str]
    ahead: int

    def arg(self, name: str) -> Value:
        return self.build.arg(name)

    @property
    def size(self) -> tuple[int, int]:
        """Bytes of an element of A and of B."""
        return SIZE[self.stored[0]], SIZE[self.stored[1]]


def stream_bytes(along: bool, isa: Isa) -> int:
    """Scratch: the sums of a block."""
    return HEAD + (dot_pitch(BLOCK) if along else 4 * (SWEEP + isa.lanes))


def stream_routine(isa: Isa, along: bool, stored: tuple[str, str], ahead: int) -> Routine:
    """The driver for one row, by how B lies in memory."""
    return Routine(f"{'dot' if along else 'columns'} {' '.join(stored)}", stream,
                   (isa, along, stored, ahead))


def stream(isa: Isa, along: bool, stored: tuple[str, str], ahead: int) -> Kernel:
    """A block of columns at a time; every block has its epilogue while its sums are in the
    1st-level cache."""
    b = routine_builder("gemv.dot" if along else "gemv.columns", isa, WORK)
    s, begin, end = Stream(b, stored, ahead), b.emit(K.BEGIN), b.emit(K.END)
    body, width, margin = (dot, BLOCK, 4 * MARGIN) if along else (columns, SWEEP, 0)
    sums = b.emit(K.SCRATCH) + (HEAD + margin)
    with b.loop(begin, end, width, name="block") as j:
        wide = b.emit(K.IMIN, end - j.iv, b.int(width))
        body(s, j.iv, wide, sums)
        finished(b, {"sums": sums, "pitch": b.int(0), "row": b.int(0), "rows": b.int(1),
                     "column": j.iv, "columns": wide})
    return b.build(Affine.const(1), 1, "column of a product")


def dot_pitch(width: int) -> int:
    """Bytes from row to row of the sums of `dot`; the first is at 4*MARGIN."""
    return 4 * (width + 2 * MARGIN)


# -- dot -------------------------------------------------------------------------------------------
def dot(s: Stream, j: Value, columns: Value, target: Value) -> None:
    """target[q] = sum over r of a[r] * b[j + q, r] for q < columns.

    The last group ends with the matrix, where it may repeat columns of the one before. A matrix of
    fewer columns than a group takes them one by one: all columns of the group are that one.
    """
    b, n = s.build, s.arg("n")
    many = bounded(b, n - (GROUP - 1), 0, 1)
    step = many * (GROUP - 1) + 1
    steps = columns * (many * (1 - GROUP) + GROUP)
    with b.loop(0, steps, GROUP, j, name="dot group") as group:
        first = b.emit(K.IMIN, group.phis[0], n - step)
        line = s.arg("b_line")
        start = s.arg("b") + first * line
        vector = _tile(s, start, line * many, start + line * GROUP)
        b.store(target + (first - j) * 4, b.int(0), vector)
        group.yields(group.phis[0] + step)


def _tile(s: Stream, start: Value, line: Value, following: Value) -> Value:
    """The sums of GROUP columns from `start` on in one vector.

    One vector per round: the tile alone has enough independent
    sums, and the next round overlaps with this one anyway.
    """
    b = s.build
    quads = tuple(start + line * q for q in range(0, GROUP, 4))
    offsets, count = multiples(b, line), len(quads)
    size, vector = s.size, s.size[1] * b.lanes

    def k_loop(lo: Value, hi: Value, mask: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, b.lanes, *inits, name=f"dot k{name}") as loop:
            moving, far, acc = loop.phis[:count], loop.phis[count], loop.phis[count + 1:]
            left = b.load(s.arg("a"), loop.iv, size[0], mask=mask, storage=s.stored[0])
            places = [(moving[c // 4], offsets[c % 4]) for c in range(GROUP)]
            ask(b, s.ahead, places, vector, far)
            sums = []
            for (base, (index, scale)), value in zip(places, acc, strict=True):
                right = b.load(base, index, scale, mask=mask, storage=s.stored[1])
                sums.append(b.emit(K.VFMA, left, right, value))
            loop.yields(*(q + vector for q in moving), far + vector * GROUP, *sums)
        return loop.results

    inits = (*quads, following, *(b.const(0.0),) * GROUP)
    acc = rounds(b, s.arg("k"), True, inits, k_loop)[count + 1:]
    return sum_each(b, [acc[i % GROUP] for i in range(b.lanes)])


def ask(b: KernelBuilder, ahead: int, places: list[tuple[Value, tuple[Value, int]]], size: int,
        following: Value) -> None:
    """A step of `size` bytes in every column: prefetch `ahead` bytes ahead in each, or as many
    lines of what follows the columns, which is one stretch (`TuningParams.column_ahead`)."""
    if ahead:
        for base, (index, scale) in places:
            b.emit(K.PREFETCH, base, index, imm=Mem(scale, ahead, level=2))
        return
    for disp in range(0, len(places) * size, LINE):
        b.emit(K.PREFETCH, following, b.int(0), imm=Mem(1, disp, level=1))


# -- columns ---------------------------------------------------------------------------------------
def columns(s: Stream, j: Value, wide: Value, target: Value) -> None:
    """target[q] = sum over r of a[r] * b[r, j + q] for q < wide: GROUP terms at a time; then the
    terms that are left, one by one."""
    b, k, step = s.build, s.arg("k"), s.arg("b_depth")
    with b.loop(0, wide, b.lanes, target, name="columns zero") as zero:
        b.store(zero.phis[0], b.int(0), b.const(0.0))
        zero.yields(zero.phis[0] + 4 * b.lanes)
    whole, line = k & -GROUP, s.arg("b") + j * s.size[1]
    for lo, hi, count, name in ((b.int(0), whole, GROUP, "deep"), (whole, k, 1, "rest")):
        with b.loop(lo, hi, count, line, name=f"columns {name}") as r:
            _terms(s, r.phis[0], r.iv, count, wide, target)
            r.yields(r.phis[0] + step * count)
        line = r.results[0]


def _terms(s: Stream, line: Value, r: Value, deep: int, wide: Value, target: Value) -> None:
    """sums[q] += a[r + d] * b[r + d][q] for d < deep, in this order, and all columns.

    Every row of B is read from end to end, so the hardware prefetches it; the sums stay in the
    1st-level cache.
    """
    b, lanes, size = s.build, s.build.lanes, s.size[0]
    left = [b.broadcast(s.arg("a"), r, size, size * d, s.stored[0]) for d in range(deep)]
    step, vector = s.arg("b_depth"), s.size[1] * lanes
    quads = tuple(line + step * q for q in range(0, deep, 4))
    offsets = multiples(b, step)

    def j_loop(lo: Value, hi: Value, mask: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, lanes, *inits, name=f"columns j{name}") as loop:
            sums, *lines = loop.phis
            acc = b.load(sums, b.int(0))
            for d, factor in enumerate(left):
                index, scale = offsets[d % 4]
                right = b.load(lines[d // 4], index, scale, 0, mask, s.stored[1])
                acc = b.emit(K.VFMA, factor, right, acc)
            b.store(sums, b.int(0), acc)
            loop.yields(sums + 4 * lanes, *(p + vector for p in lines))
        return loop.results

    rounds(b, wide, True, (target, *quads), j_loop)
