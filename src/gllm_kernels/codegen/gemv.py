"""Few rows: B is read once, from where it lies, and nothing is packed.

dot      B[j, r] with r contiguous: lanes along r, one accumulator per (column, row), summed across
         its lanes at the end. 8 columns at a time, because 8 chains of FMAs hide its latency of 4
         cycles at 2 per cycle.
columns  B[r, j] with j contiguous: lanes along j, each element of A in all lanes; a few rows of B
         are added to the sums from end to end.

The order of a sum depends on r and the lanes only: neither the tile, the number of rows nor the
range of units changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from ..dtypes import SIZE
from ..trace.affine import Affine
from .isa.base import Isa
from .kernel import WITHIN, K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import LINE, multiples
from .transpose import sum_each
from .tuning import TuningParams
from .work import HEAD, WORK, finished, routine_builder

GROUP = 8  # columns of B that `dot` reads side by side for one row
HALF = 4  # and for several rows
TALL = 4  # rows that `columns` takes together
MARGIN = 16  # floats before and behind a row of sums that whole vectors may overwrite
BLOCK = 64  # columns of sums that one row keeps for one epilogue where B is read along r
SWEEP = 4096  # and where it is read along j: they stay in the 1st-level cache

Values = tuple[Value, ...]
# (lo, hi, mask, what to add to the loop's name, phis) -> results
Body = Callable[[Value, Value, Value | None, str, Values], Values]
Offsets = tuple[tuple[Value, int], ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """A driver being written; `stored` is how A and B lie in memory, `single`: m is always 1."""

    build: KernelBuilder
    isa: Isa
    stored: tuple[str, str]
    single: bool

    def arg(self, name: str) -> Value:
        return self.build.arg(name)

    @property
    def size(self) -> tuple[int, int]:
        """Bytes of an element of A and of B."""
        return SIZE[self.stored[0]], SIZE[self.stored[1]]


def few_rows(along: bool, params: TuningParams) -> int:
    """Up to so many rows; `columns` would read B again for a second tile of them."""
    return params.few if along else min(params.few, TALL)


def stream_bytes(along: bool, rows: int, isa: Isa) -> int:
    """Scratch with the sums of `rows` rows."""
    if along:
        return HEAD + (rows + TALL) * dot_pitch(BLOCK)
    return HEAD + (4 * (SWEEP + isa.lanes) if rows == 1 else 4 * TALL * SWEEP)


def stream_routine(isa: Isa, along: bool, stored: tuple[str, str], single: bool) -> Routine:
    """The driver for few rows, by how B lies in memory."""
    name = f"{'dot' if along else 'columns'} {' '.join(stored)}{' one row' if single else ''}"
    return Routine(name, stream, (isa, along, stored, single))


def stream(isa: Isa, along: bool, stored: tuple[str, str], single: bool) -> Kernel:
    """All rows, a block of columns at a time; every block has its epilogue while its sums are in
    the 1st-level cache."""
    b = routine_builder("gemv.dot" if along else "gemv.columns", isa, WORK)
    s, begin, end = Stream(b, isa, stored, single), b.emit(K.BEGIN), b.emit(K.END)
    body, width, margin, pitch = ((dot, BLOCK, 4 * MARGIN, dot_pitch(BLOCK)) if along
                                  else (columns, SWEEP, 0, 4 * SWEEP))
    sums = b.emit(K.SCRATCH) + (HEAD + margin)
    with b.loop(begin, end, width, name="block") as j:
        wide = b.emit(K.IMIN, end - j.iv, b.int(width))
        body(s, j.iv, wide, sums, width)
        finished(b, {"sums": sums, "pitch": b.int(pitch), "row": b.int(0), "rows": s.arg("m"),
                     "column": j.iv, "columns": wide})
    return b.build(Affine.const(1), 1, "column of a product")


def dot_pitch(width: int) -> int:
    """Bytes from row to row of the sums of `dot`; the first is at 4*MARGIN."""
    return 4 * (width + 2 * MARGIN)


def rounds(s: Stream, size: Value, apart: bool, inits: Values, body: Body) -> Values:
    """Over [0, size): what fills vectors, then what is left, masked; as one piece of code that runs
    twice, with all lanes first.

    A masked load is no memory operand of an FMA, so fewer fit the reorder buffer, and one row lives
    on loads in flight: there it costs 5 to 25 % of the read bandwidth (Zen 4, cold), so it wants the
    two parts written `apart`. Without mask registers every masked load costs more.
    """
    b = s.build
    whole = size & -b.lanes
    if apart or s.isa.mask_class != "k":
        mask = b.emit(K.FIRST, size - whole, imm=WITHIN)
        return body(whole, size, mask, " tail", body(b.int(0), whole, None, "", inits))
    rest = size - whole
    with b.loop(0, 2, 1, *inits, name="rounds") as part:
        mask = b.emit(K.FIRST, (rest - b.lanes) * part.iv + b.lanes, imm=WITHIN)
        part.yields(*body(whole * part.iv, whole + rest * part.iv, mask, "", part.phis))
    return part.results


def one_row(s: Stream) -> AbstractContextManager[None]:
    """Code for m < 2, without a test where m is always 1."""
    return nullcontext() if s.single else s.build.when_less(s.arg("m"), 2)


# -- dot -------------------------------------------------------------------------------------------
def dot(s: Stream, j: Value, columns: Value, target: Value, width: int) -> None:
    """target[row][q] = sum over r of a[row, r] * b[j + q, r] for all rows and q < columns.

    The last group ends with the matrix, where it may repeat columns of the one before. A matrix of
    fewer columns than a group takes them one by one: all columns of the group are that one.
    """
    b, n = s.build, s.arg("n")
    many = b.emit(K.IMIN, b.emit(K.IMAX, n - (GROUP - 1), b.int(0)), b.int(1))
    step = many * (GROUP - 1) + 1
    steps = columns * (many * (1 - GROUP) + GROUP)
    with b.loop(0, steps, GROUP, j, name="dot group") as group:
        first = b.emit(K.IMIN, group.phis[0], n - step)
        line = s.arg("b_line")
        start = s.arg("b") + first * line
        _group(s, start, line * many, start + line * GROUP, target + (first - j) * 4, width)
        group.yields(group.phis[0] + step)


def _group(s: Stream, start: Value, line: Value, following: Value, target: Value,
           width: int) -> None:
    """GROUP columns: one row alone, or tiles of rows x columns that fill the registers."""
    b, m = s.build, s.arg("m")
    with one_row(s):
        vector = _tile(s, start, line, GROUP, [s.arg("a")], following)
        b.store(target, b.int(0), vector)
    if s.single:
        return
    tall, pitch = b.lanes // HALF, dot_pitch(width)
    with b.when_less(1, m), b.loop(0, m, tall, target, name="dot rows") as tile:
        rows = _rows(s, tile.iv, tall)
        inits = (start, tile.phis[0], following)
        with b.loop(0, GROUP, HALF, *inits, name="dot half") as part:
            first, sums, far = part.phis
            vector = _tile(s, first, line, HALF, rows, far)
            for t in range(tall):  # block t of 128 bits is row t; the next group repairs the rest
                only = (t,) * (b.lanes // 4)
                moved = b.emit(K.SHUF128, vector, vector, imm=only) if t else vector
                b.store(sums, b.int(0), moved, disp=pitch * t)
            part.yields(first + line * HALF, sums + 4 * HALF, far + line * HALF)
        tile.yields(tile.phis[0] + pitch * tall)


def _tile(s: Stream, start: Value, line: Value, wide: int, rows: list[Value],
          following: Value) -> Value:
    """The sums of `wide` columns from `start` on, row by row in one vector.

    The next group of columns is prefetched as one linear stretch: the hardware follows few streams
    at once, and not across a page. One vector per round: the tile alone has enough independent
    sums, and the next round overlaps with this one anyway.
    """
    b, tall = s.build, len(rows)
    quads = tuple(start + line * q for q in range(0, wide, 4))
    offsets, count = multiples(b, line), len(quads)
    vector = s.size[1] * b.lanes

    def k_loop(lo: Value, hi: Value, mask: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, b.lanes, *inits, name=f"dot k{name}") as loop:
            moving, far, acc = loop.phis[:count], loop.phis[count], loop.phis[count + 1:]
            acc = _step(s, loop.iv, moving, offsets, rows, acc, mask)
            _prefetch(s, far, vector * wide)
            loop.yields(*(q + vector for q in moving), far + vector * wide, *acc)
        return loop.results

    inits = (*quads, following, *(b.const(0.0),) * (wide * tall))
    acc = rounds(s, s.arg("k"), tall == 1, inits, k_loop)[count + 1:]
    return sum_each(b, [acc[i % wide * tall + i // wide % tall] for i in range(b.lanes)])


def _rows(s: Stream, i: Value, tall: int) -> list[Value]:
    """Addresses of rows i .. i + tall of A; rows that do not exist repeat the last one."""
    b, last = s.build, s.arg("m") - 1
    numbers = [b.emit(K.IMIN, i + t, last) if t else i for t in range(tall)]
    return [s.arg("a") + number * s.arg("a_line") for number in numbers]


def _step(s: Stream, r: Value, quads: Values, offsets: Offsets, rows: list[Value], acc: Values,
          mask: Value | None) -> Values:
    """One vector along r of every row and every column: acc[column*tall + row] += a*b."""
    b, tall = s.build, len(rows)
    stored, size = s.stored[0], s.size[0]
    left = [b.load(row, r, size, mask=mask, storage=stored) for row in rows]
    out: list[Value] = []
    for c in range(len(acc) // tall):
        base, (index, scale) = quads[c // 4], offsets[c % 4]
        right = b.load(base, index, scale, mask=mask, storage=s.stored[1])
        out += [b.emit(K.VFMA, left[t], right, acc[c * tall + t]) for t in range(tall)]
    return tuple(out)


def _prefetch(s: Stream, start: Value, stretch: int) -> None:
    """The next `stretch` bytes into the 2nd-level cache."""
    for at in range(0, stretch, LINE):
        s.build.emit(K.PREFETCH, start, s.build.int(0), imm=Mem(1, at, level=1))


# -- columns ---------------------------------------------------------------------------------------
def columns(s: Stream, j: Value, wide: Value, target: Value, width: int) -> None:
    """target[row][q] = sum over r of a[row, r] * b[r, j + q] for up to TALL rows and q < wide."""
    b = s.build
    if not s.single:
        with b.when_less(1, s.arg("m")):
            _sweep(s, j, wide, target, TALL, b.lanes // 4, width)
    with one_row(s):
        _sweep(s, j, wide, target, 1, GROUP, width)


def _sweep(s: Stream, j: Value, wide: Value, target: Value, tall: int, deep: int,
           width: int) -> None:
    """`tall` rows, `deep` terms at a time; then the terms that are left, one by one."""
    b, k, step = s.build, s.arg("k"), s.arg("b_depth")
    with b.loop(0, wide, b.lanes, target, name="columns zero") as zero:
        for t in range(tall):
            b.store(zero.phis[0], b.int(0), b.const(0.0), disp=4 * width * t)
        zero.yields(zero.phis[0] + 4 * b.lanes)
    rows, whole = _rows(s, b.int(0), tall), k & -deep
    line = s.arg("b") + j * s.size[1]
    for lo, hi, count, name in ((b.int(0), whole, deep, "deep"), (whole, k, 1, "rest")):
        with b.loop(lo, hi, count, line, name=f"columns {name}") as r:
            _terms(s, r.phis[0], rows, r.iv, count, wide, target, width)
            r.yields(r.phis[0] + step * count)
        line = r.results[0]


def _terms(s: Stream, line: Value, rows: list[Value], r: Value, deep: int, wide: Value,
           target: Value, width: int) -> None:
    """sums[row][q] += a[row][r + d] * b[r + d][q] for d < deep, in this order, and all columns.

    Every row of B is read from end to end, so the hardware prefetches it; the sums stay in the
    1st-level cache.
    """
    b, lanes, size = s.build, s.build.lanes, s.size[0]
    stored = s.stored[0]
    left = [[b.broadcast(row, r, size, size * d, stored) for d in range(deep)] for row in rows]
    step, vector = s.arg("b_depth"), s.size[1] * lanes
    quads = tuple(line + step * q for q in range(0, deep, 4))
    offsets = multiples(b, step)

    def j_loop(lo: Value, hi: Value, mask: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, lanes, *inits, name=f"columns j{name}") as loop:
            sums, *lines = loop.phis
            _columns(s, sums, tuple(lines), offsets, left, mask, 4 * width)
            loop.yields(sums + 4 * lanes, *(p + vector for p in lines))
        return loop.results

    rounds(s, wide, len(rows) == 1, (target, *quads), j_loop)


def _columns(s: Stream, sums: Value, quads: Values, offsets: Offsets, left: list[list[Value]],
             mask: Value | None, pitch: int) -> None:
    """One vector of columns; `sums` of several rows lie a fixed distance apart."""
    b = s.build
    acc = [b.load(sums, b.int(0), disp=pitch * t) for t in range(len(left))]
    for d in range(len(left[0])):
        index, scale = offsets[d % 4]
        right = b.load(quads[d // 4], index, scale, 0, mask, s.stored[1])
        acc = [b.emit(K.VFMA, left[t][d], right, value) for t, value in enumerate(acc)]
    for t, value in enumerate(acc):
        b.store(sums, b.int(0), value, disp=pitch * t)
