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

from .access import integer
from .kernel import WITHIN, K, Mem, Value
from .pack import LINE, multiples
from .site import Site
from .transpose import sum_each

GROUP = 8  # columns of B that `dot` reads side by side for one row
HALF = 4  # and for several rows
TALL = 4  # rows that `columns` takes together
MARGIN = 16  # floats before and behind a row of sums that whole vectors may overwrite

Values = tuple[Value, ...]
# (lo, hi, mask, what to add to the loop's name, phis) -> results
Body = Callable[[Value, Value, Value | None, str, Values], Values]
Offsets = tuple[tuple[Value, int], ...]


def dot_pitch(width: int) -> int:
    """Bytes from row to row of the sums of `dot`; the first is at 4*MARGIN."""
    return 4 * (width + 2 * MARGIN)


def dot_bytes(rows: int, width: int) -> int:
    """The sums of `rows` rows and a tile more."""
    return (rows + TALL) * dot_pitch(width)


def rounds(site: Site, size: Value, apart: bool, inits: Values, body: Body) -> Values:
    """Over [0, size): what fills vectors, then what is left, masked; as one piece of code that runs
    twice, with all lanes first.

    A masked load is no memory operand of an FMA, so fewer fit the reorder buffer, and one row lives
    on loads in flight: there it costs 5 to 25 % of the read bandwidth (Zen 4, cold), so it wants the
    two parts written `apart`. Without mask registers every masked load costs more.
    """
    b = site.build
    whole = size & -b.lanes
    if apart or site.isa.mask_class != "k":
        mask = b.emit(K.FIRST, size - whole, imm=WITHIN)
        return body(whole, size, mask, " tail", body(b.int(0), whole, None, "", inits))
    rest = size - whole
    with b.loop(0, 2, 1, *inits, name="rounds") as part:
        mask = b.emit(K.FIRST, (rest - b.lanes) * part.iv + b.lanes, imm=WITHIN)
        part.yields(*body(whole * part.iv, whole + rest * part.iv, mask, "", part.phis))
    return part.results


def one_row(site: Site) -> AbstractContextManager[None]:
    """Code for m < 2, without a test where m is always 1."""
    return nullcontext() if site.product.m.constant == 1 else site.build.when_less(site.m, 2)


# -- dot -------------------------------------------------------------------------------------------
def dot(site: Site, j: Value, columns: Value, target: Value, width: int) -> None:
    """target[row][q] = sum over r of a[row, r] * b[j + q, r] for all rows and q < columns.

    The last group ends with the matrix, where it may repeat columns of the one before. A matrix of
    fewer columns than a group takes them one by one: all columns of the group are that one.
    """
    b, n = site.build, integer(site.build, site.product.n, {})
    many = b.emit(K.IMIN, b.emit(K.IMAX, n - (GROUP - 1), b.int(0)), b.int(1))
    step = many * (GROUP - 1) + 1
    steps = columns * (many * (1 - GROUP) + GROUP)
    with b.loop(0, steps, GROUP, j, name="dot group") as group:
        first = b.emit(K.IMIN, group.phis[0], n - step)
        line = site.line(site.product.b)
        start = site.start(site.product.b) + first * line
        _group(site, start, line * many, start + line * GROUP, target + (first - j) * 4, width)
        group.yields(group.phis[0] + step)


def _group(site: Site, start: Value, line: Value, following: Value, target: Value,
           width: int) -> None:
    """GROUP columns: one row alone, or tiles of rows x columns that fill the registers."""
    b, m = site.build, site.m
    with one_row(site):
        vector = _tile(site, start, line, GROUP, [site.start(site.product.a)], following)
        b.store(target, b.int(0), vector)
    if site.product.m.constant == 1:
        return
    tall, pitch = b.lanes // HALF, dot_pitch(width)
    with b.when_less(1, m), b.loop(0, m, tall, target, name="dot rows") as tile:
        rows = _rows(site, tile.iv, tall)
        inits = (start, tile.phis[0], following)
        with b.loop(0, GROUP, HALF, *inits, name="dot half") as part:
            first, sums, far = part.phis
            vector = _tile(site, first, line, HALF, rows, far)
            for t in range(tall):  # block t of 128 bits is row t; the next group repairs the rest
                only = (t,) * (b.lanes // 4)
                moved = b.emit(K.SHUF128, vector, vector, imm=only) if t else vector
                b.store(sums, b.int(0), moved, disp=pitch * t)
            part.yields(first + line * HALF, sums + 4 * HALF, far + line * HALF)
        tile.yields(tile.phis[0] + pitch * tall)


def _tile(site: Site, start: Value, line: Value, wide: int, rows: list[Value],
          following: Value) -> Value:
    """The sums of `wide` columns from `start` on, row by row in one vector.

    The next group of columns is prefetched as one linear stretch: the hardware follows few streams
    at once, and not across a page. One vector per round: the tile alone has enough independent
    sums, and the next round overlaps with this one anyway.
    """
    b, tall = site.build, len(rows)
    quads = tuple(start + line * q for q in range(0, wide, 4))
    offsets, count = multiples(b, line), len(quads)
    vector = site.size(site.product.b) * b.lanes

    def k_loop(lo: Value, hi: Value, mask: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, b.lanes, *inits, name=f"dot k{name}") as loop:
            moving, far, acc = loop.phis[:count], loop.phis[count], loop.phis[count + 1:]
            acc = _step(site, loop.iv, moving, offsets, rows, acc, mask)
            _prefetch(site, far, vector * wide)
            loop.yields(*(q + vector for q in moving), far + vector * wide, *acc)
        return loop.results

    inits = (*quads, following, *(b.const(0.0),) * (wide * tall))
    acc = rounds(site, site.k, tall == 1, inits, k_loop)[count + 1:]
    return sum_each(b, [acc[i % wide * tall + i // wide % tall] for i in range(b.lanes)])


def _rows(site: Site, i: Value, tall: int) -> list[Value]:
    """Addresses of rows i .. i + tall of A; rows that do not exist repeat the last one."""
    b, a = site.build, site.product.a
    if not site.product.row:
        return [site.start(a)] * tall
    numbers = [b.emit(K.IMIN, i + t, site.m - 1) if t else i for t in range(tall)]
    return [site.start(a) + number * site.line(a) for number in numbers]


def _step(site: Site, r: Value, quads: Values, offsets: Offsets, rows: list[Value], acc: Values,
          mask: Value | None) -> Values:
    """One vector along r of every row and every column: acc[column*tall + row] += a*b."""
    b, tall = site.build, len(rows)
    stored, size = site.storage(site.product.a), site.size(site.product.a)
    left = [b.load(row, r, size, mask=mask, storage=stored) for row in rows]
    out: list[Value] = []
    for c in range(len(acc) // tall):
        base, (index, scale) = quads[c // 4], offsets[c % 4]
        right = b.load(base, index, scale, mask=mask, storage=site.storage(site.product.b))
        out += [b.emit(K.VFMA, left[t], right, acc[c * tall + t]) for t in range(tall)]
    return tuple(out)


def _prefetch(site: Site, start: Value, stretch: int) -> None:
    """The next `stretch` bytes into the 2nd-level cache."""
    for at in range(0, stretch, LINE):
        site.build.emit(K.PREFETCH, start, site.build.int(0), imm=Mem(1, at, level=1))


# -- columns ---------------------------------------------------------------------------------------
def columns(site: Site, j: Value, wide: Value, target: Value, width: int) -> None:
    """target[row][q] = sum over r of a[row, r] * b[r, j + q] for up to TALL rows and q < wide."""
    b = site.build
    if site.product.m.constant != 1:
        with b.when_less(1, site.m):
            _sweep(site, j, wide, target, TALL, b.lanes // 4, width)
    with one_row(site):
        _sweep(site, j, wide, target, 1, GROUP, width)


def _sweep(site: Site, j: Value, wide: Value, target: Value, tall: int, deep: int,
           width: int) -> None:
    """`tall` rows, `deep` terms at a time; then the terms that are left, one by one."""
    b, k, step = site.build, site.k, site.depth(site.product.b)
    with b.loop(0, wide, b.lanes, target, name="columns zero") as zero:
        for t in range(tall):
            b.store(zero.phis[0], b.int(0), b.const(0.0), disp=4 * width * t)
        zero.yields(zero.phis[0] + 4 * b.lanes)
    rows, whole = _rows(site, b.int(0), tall), k & -deep
    line = site.start(site.product.b) + j * site.size(site.product.b)
    for lo, hi, count, name in ((b.int(0), whole, deep, "deep"), (whole, k, 1, "rest")):
        with b.loop(lo, hi, count, line, name=f"columns {name}") as r:
            _terms(site, r.phis[0], rows, r.iv, count, wide, target, width)
            r.yields(r.phis[0] + step * count)
        line = r.results[0]


def _terms(site: Site, line: Value, rows: list[Value], r: Value, deep: int, wide: Value,
           target: Value, width: int) -> None:
    """sums[row][q] += a[row][r + d] * b[r + d][q] for d < deep, in this order, and all columns.

    Every row of B is read from end to end, so the hardware prefetches it; the sums stay in the
    1st-level cache.
    """
    b, lanes, size = site.build, site.build.lanes, site.size(site.product.a)
    stored = site.storage(site.product.a)
    left = [[b.broadcast(row, r, size, size * d, stored) for d in range(deep)] for row in rows]
    step, vector = site.depth(site.product.b), site.size(site.product.b) * lanes
    quads = tuple(line + step * q for q in range(0, deep, 4))
    offsets = multiples(b, step)

    def j_loop(lo: Value, hi: Value, mask: Value | None, name: str, inits: Values) -> Values:
        with b.loop(lo, hi, lanes, *inits, name=f"columns j{name}") as loop:
            sums, *lines = loop.phis
            _columns(site, sums, tuple(lines), offsets, left, mask, 4 * width)
            loop.yields(sums + 4 * lanes, *(p + vector for p in lines))
        return loop.results

    rounds(site, wide, len(rows) == 1, (target, *quads), j_loop)


def _columns(site: Site, sums: Value, quads: Values, offsets: Offsets, left: list[list[Value]],
             mask: Value | None, pitch: int) -> None:
    """One vector of columns; `sums` of several rows lie a fixed distance apart."""
    b = site.build
    acc = [b.load(sums, b.int(0), disp=pitch * t) for t in range(len(left))]
    for d in range(len(left[0])):
        index, scale = offsets[d % 4]
        right = b.load(quads[d // 4], index, scale, 0, mask, site.storage(site.product.b))
        acc = [b.emit(K.VFMA, left[t][d], right, value) for t, value in enumerate(acc)]
    for t, value in enumerate(acc):
        b.store(sums, b.int(0), value, disp=pitch * t)
