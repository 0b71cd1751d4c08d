"""Few rows: B is read once, from where it lies, and nothing is packed.

dot      B[j, r] with r contiguous: lanes along r, one accumulator per (column, row), a horizontal
         sum at the end. 8 columns at a time, because 8 chains of FMAs hide its latency of 4 cycles
         at 2 per cycle.
columns  B[r, j] with j contiguous: lanes along j, each element of A in all lanes.

The order of a sum depends on r and the lanes only: neither the tile, the number of rows nor the
range of units changes a bit.
"""

from __future__ import annotations

from .kernel import K, Mem, Value
from .site import Site, finish

GROUP = 8  # columns of B that `dot` reads side by side for one row
HALF = 4  # and for several rows
BLOCK = 64  # columns of sums kept for one epilogue
LINE = 64  # bytes of a cache line
AHEAD = 32  # rows of B that `columns` prefetches ahead

Values = tuple[Value, ...]


def scratch_bytes(site_lanes: int, few: int) -> int:
    """Rows of sums: `few` and a tile more of BLOCK columns, or a tile of the widest columns."""
    return 4 * max((few + 4) * BLOCK, 4 * 4 * site_lanes, 16 * site_lanes)


# -- dot -------------------------------------------------------------------------------------------
def dot(site: Site, target: Value) -> None:
    """All rows against columns lo .. hi, BLOCK columns of sums at a time."""
    b, line = site.build, site.line(site.product.b)
    start = site.start(site.product.b) + site.lo * line
    with b.loop(site.lo, site.hi, BLOCK, start, name="dot block") as block:
        columns = b.emit(K.IMIN, site.hi - block.iv, b.int(BLOCK))
        groups = columns & -GROUP
        with b.loop(0, groups, GROUP, block.phis[0], target, name="dot group") as group:
            _group(site, *group.phis)
            group.yields(group.phis[0] + line * GROUP, group.phis[1] + 4 * GROUP)
        with b.loop(groups, columns, 1, *group.results, name="dot column") as single:
            with b.loop(0, site.m, 1, single.phis[1], name="dot row") as row:
                _tile(site, single.phis[0], 1, row.iv, 1, row.phis[0], None)
                row.yields(row.phis[0] + 4 * BLOCK)
            single.yields(single.phis[0] + line, single.phis[1] + 4)
        finish(site, target, 4 * BLOCK, b.int(0), site.m, block.iv, columns)
        block.yields(block.phis[0] + line * BLOCK)


def _group(site: Site, columns: Value, target: Value) -> None:
    """GROUP columns: one row alone, or tiles of rows x columns that fill the registers."""
    b, m = site.build, site.m
    following = columns + site.line(site.product.b) * GROUP
    if site.product.m.constant == 1:
        _tile(site, columns, GROUP, b.int(0), 1, target, following)
        return
    with b.when_less(m, 2):
        _tile(site, columns, GROUP, b.int(0), 1, target, following)
    rows = 4 if b.lanes == 16 else 2
    half = site.line(site.product.b) * HALF
    with b.when_less(1, m), b.loop(0, m, rows, target, name="dot rows") as tile:
        inits = (columns, tile.phis[0], following)
        with b.loop(0, GROUP, HALF, *inits, name="dot half") as part:
            first, sums, far = part.phis
            _tile(site, first, HALF, tile.iv, rows, sums, far)
            part.yields(first + half, sums + 4 * HALF, far + half)
        tile.yields(tile.phis[0] + 4 * BLOCK * rows)


def _tile(site: Site, column: Value, wide: int, i: Value, tall: int, target: Value,
          following: Value | None) -> None:
    """target[row][column] = sum over r for `tall` rows from i on and `wide` columns.

    Rows that do not exist repeat the last one. The next group of columns is prefetched as one
    linear stretch: the hardware follows few streams at once, and not across a page.
    """
    b, k = site.build, site.k
    rows = _rows(site, i, tall)
    quads = tuple(column + site.line(site.product.b) * q for q in range(0, wide, 4))
    _offsets(site)  # computed here, outside the loops that use them
    sums = (b.const(0.0),) * (wide * tall)
    whole = b.int(0)
    if following is not None:
        steps = 4 if tall == 1 else 2
        whole = k & -(steps * b.lanes)
        quads, sums = _steady(site, whole, steps, rows, quads, sums, following)
    with b.loop(whole, k, b.lanes, *quads, *sums, name="dot tail") as tail:
        mask = b.emit(K.FIRST, k - tail.iv)
        moving, acc = tail.phis[:len(quads)], tail.phis[len(quads):]
        acc = _step(site, tail.iv, moving, rows, acc, 0, mask)
        tail.yields(*(q + 4 * b.lanes for q in moving), *acc)
    for number, value in enumerate(tail.results[len(quads):]):
        at = 4 * (number % tall * BLOCK + number // tall)
        b.emit(K.STORE1, target, b.int(0), b.emit(K.HSUM, value), imm=Mem(4, at))


def _steady(site: Site, whole: Value, steps: int, rows: list[Value], quads: Values, sums: Values,
            following: Value) -> tuple[Values, Values]:
    """The part of r that fills `steps` vectors per round, and the prefetch beside it."""
    b, count = site.build, len(quads)
    stretch = 4 * b.lanes * steps * (len(sums) // len(rows))
    with b.loop(0, whole, steps * b.lanes, *quads, following, *sums, name="dot k") as loop:
        moving, far, acc = loop.phis[:count], loop.phis[count], loop.phis[count + 1:]
        for u in range(steps):
            acc = _step(site, loop.iv, moving, rows, acc, 4 * b.lanes * u, None)
        _prefetch(site, far, b.int(0), stretch)
        loop.yields(*(q + 4 * b.lanes * steps for q in moving), far + stretch, *acc)
    return loop.results[:count], loop.results[count + 1:]


def _rows(site: Site, i: Value, tall: int) -> list[Value]:
    """Addresses of rows i .. i + tall of A, at most the last one."""
    b, a = site.build, site.product.a
    if not site.product.row:
        return [site.start(a)] * tall
    numbers = [b.emit(K.IMIN, i + t, site.m - 1) if t else i for t in range(tall)]
    return [site.start(a) + number * site.line(a) for number in numbers]


def _step(site: Site, r: Value, quads: Values, rows: list[Value], acc: Values, disp: int,
          mask: Value | None) -> Values:
    """One vector along r of every row and every column: acc[column*tall + row] += a*b."""
    b, tall, offsets = site.build, len(rows), _offsets(site)
    left = [b.load(row, r, disp=disp, mask=mask) for row in rows]
    out: list[Value] = []
    for c in range(len(acc) // tall):
        base, (index, scale) = quads[c // 4], offsets[c % 4]
        right = b.load(base, index, scale, disp, mask)
        out += [b.emit(K.VFMA, left[t], right, acc[c * tall + t]) for t in range(tall)]
    return tuple(out)


def _offsets(site: Site) -> tuple[tuple[Value, int], ...]:
    """0, 1, 2, 3 lines as index and scale: two registers address four columns."""
    line = site.line(site.product.b)
    return (site.build.int(0), 1), (line, 1), (line, 2), (line * 3, 1)


def _prefetch(site: Site, base: Value, index: Value, stretch: int) -> None:
    """Lines base + index .. + stretch into the 2nd-level cache."""
    for at in range(0, stretch, LINE):
        site.build.emit(K.PREFETCH, base, index, imm=Mem(1, at, level=1))


# -- columns ---------------------------------------------------------------------------------------
def columns(site: Site, target: Value) -> None:
    """One row: as many columns as registers hold, then narrower. More rows: tiles of 4 rows."""
    b = site.build
    wide, narrow = (16, 4) if b.lanes == 16 else (8, 4)
    if site.product.m.constant == 1:
        _one_row(site, target, wide, narrow)
        return
    with b.when_less(site.m, 2):
        _one_row(site, target, wide, narrow)
    vectors = 4 if b.lanes == 16 else 2
    with b.when_less(1, site.m):
        width = vectors * b.lanes
        with (b.loop(site.lo, site.hi, width, name="columns") as j,
              b.loop(0, site.m, 4, name="columns rows") as i):
            _strip(site, j.iv, vectors, i.iv, 4, target, masked=True)


def _one_row(site: Site, target: Value, wide: int, narrow: int) -> None:
    b, zero = site.build, site.build.int(0)
    end = site.lo + ((site.hi - site.lo) & -(wide * b.lanes))
    with b.loop(site.lo, end, wide * b.lanes, name="columns wide") as j:
        _strip(site, j.iv, wide, zero, 1, target, masked=False)
    with b.loop(end, site.hi, narrow * b.lanes, name="columns narrow") as j:
        _strip(site, j.iv, narrow, zero, 1, target, masked=True)


def _strip(site: Site, j: Value, vectors: int, i: Value, tall: int, target: Value,
           masked: bool) -> None:
    """Sums of `tall` rows from i on and `vectors` vectors of columns from j on, then the stores."""
    b, lanes = site.build, site.build.lanes
    left, step = site.hi - j, site.depth(site.product.b)
    masks = [b.emit(K.FIRST, left - v * lanes) if masked else None for v in range(vectors)]
    rows = _rows(site, i, tall)
    sums = [b.const(0.0)] * (tall * vectors)
    far = step * AHEAD
    with b.loop(0, site.k, 1, site.start(site.product.b) + j * 4, *sums, name="columns k") as loop:
        at, acc = loop.phis[0], loop.phis[1:]
        right = [b.load(at, b.int(0), disp=4 * lanes * v, mask=masks[v]) for v in range(vectors)]
        _prefetch(site, at, far, 4 * lanes * vectors)
        out = []
        for t, row in enumerate(rows):
            left_value = b.broadcast(row, loop.iv)
            out += [b.emit(K.VFMA, left_value, right[v], acc[t * vectors + v])
                    for v in range(vectors)]
        loop.yields(at + step, *out)
    for number, value in enumerate(loop.results[1:]):
        b.store(target, b.int(0), value, disp=4 * lanes * number)
    tall_here = b.emit(K.IMIN, site.m - i, b.int(tall))
    wide_here = b.emit(K.IMIN, left, b.int(vectors * lanes))
    finish(site, target, 4 * lanes * vectors, i, tall_here, j, wide_here)
