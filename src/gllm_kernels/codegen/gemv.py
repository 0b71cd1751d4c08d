"""Few rows: B is read once, from where it lies, and nothing is packed.

dot      B[j, r] with r contiguous: lanes along r, one accumulator per (column, row), a horizontal
         sum at the end. 8 columns at a time, because 8 chains of FMAs hide its latency of 4 cycles
         at 2 per cycle.
columns  B[r, j] with j contiguous: lanes along j, each element of A in all lanes; a few rows of B
         are added to the sums from end to end.

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
TALL = 4  # rows that `columns` takes together
SUMS = 4096  # floats of sums that `columns` keeps in the 1st-level cache

Values = tuple[Value, ...]
Offsets = tuple[tuple[Value, int], ...]


def scratch_bytes(few: int) -> int:
    """`dot`: BLOCK columns of `few` rows and a tile more; `columns`: SUMS."""
    return 4 * max((few + TALL) * BLOCK, SUMS)


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
    offsets = _multiples(site, site.line(site.product.b))
    sums = (b.const(0.0),) * (wide * tall)
    whole = b.int(0)
    if following is not None:
        whole = k & -b.lanes
        quads, sums = _steady(site, whole, rows, quads, offsets, sums, following)
    with b.loop(whole, k, b.lanes, *quads, *sums, name="dot tail") as tail:
        mask = b.emit(K.FIRST, k - tail.iv)
        moving, acc = tail.phis[:len(quads)], tail.phis[len(quads):]
        acc = _step(site, tail.iv, moving, offsets, rows, acc, mask)
        tail.yields(*(q + 4 * b.lanes for q in moving), *acc)
    for number, value in enumerate(tail.results[len(quads):]):
        at = 4 * (number % tall * BLOCK + number // tall)
        b.emit(K.STORE1, target, b.int(0), b.emit(K.HSUM, value), imm=Mem(4, at))


def _steady(site: Site, whole: Value, rows: list[Value], quads: Values, offsets: Offsets,
            sums: Values, following: Value) -> tuple[Values, Values]:
    """The part of r that fills vectors, and the prefetch beside it. One vector per round: the tile
    alone has enough independent sums, and the next round overlaps with this one anyway."""
    b, count = site.build, len(quads)
    stretch = 4 * b.lanes * (len(sums) // len(rows))
    with b.loop(0, whole, b.lanes, *quads, following, *sums, name="dot k") as loop:
        moving, far, acc = loop.phis[:count], loop.phis[count], loop.phis[count + 1:]
        acc = _step(site, loop.iv, moving, offsets, rows, acc, None)
        _prefetch(site, far, stretch)
        loop.yields(*(q + 4 * b.lanes for q in moving), far + stretch, *acc)
    return loop.results[:count], loop.results[count + 1:]


def _rows(site: Site, i: Value, tall: int) -> list[Value]:
    """Addresses of rows i .. i + tall of A, at most the last one."""
    b, a = site.build, site.product.a
    if not site.product.row:
        return [site.start(a)] * tall
    numbers = [b.emit(K.IMIN, i + t, site.m - 1) if t else i for t in range(tall)]
    return [site.start(a) + number * site.line(a) for number in numbers]


def _step(site: Site, r: Value, quads: Values, offsets: Offsets, rows: list[Value], acc: Values,
          mask: Value | None) -> Values:
    """One vector along r of every row and every column: acc[column*tall + row] += a*b."""
    b, tall = site.build, len(rows)
    left = [b.load(row, r, mask=mask) for row in rows]
    out: list[Value] = []
    for c in range(len(acc) // tall):
        base, (index, scale) = quads[c // 4], offsets[c % 4]
        right = b.load(base, index, scale, mask=mask)
        out += [b.emit(K.VFMA, left[t], right, acc[c * tall + t]) for t in range(tall)]
    return tuple(out)


def _multiples(site: Site, step: Value) -> Offsets:
    """0, 1, 2, 3 steps as index and scale: two registers address four lines. Call it outside the
    loop that uses them."""
    return (site.build.int(0), 1), (step, 1), (step, 2), (step * 3, 1)


def _prefetch(site: Site, start: Value, stretch: int) -> None:
    """The next `stretch` bytes into the 2nd-level cache."""
    for at in range(0, stretch, LINE):
        site.build.emit(K.PREFETCH, start, site.build.int(0), imm=Mem(1, at, level=1))


# -- columns ---------------------------------------------------------------------------------------
def columns(site: Site, target: Value) -> None:
    """One row, or tiles of TALL rows, against as many columns as their sums fit."""
    b = site.build
    if site.product.m.constant != 1:
        with b.when_less(1, site.m):
            _sweep(site, target, TALL, 4 if b.lanes == 16 else 2)
        with b.when_less(site.m, 2):
            _sweep(site, target, 1, GROUP)
    else:
        _sweep(site, target, 1, GROUP)


def _sweep(site: Site, target: Value, tall: int, deep: int) -> None:
    """All tiles of `tall` rows, `deep` terms at a time; then the terms that are left, one by one."""
    b, k, width = site.build, site.k, SUMS // tall
    step = site.depth(site.product.b)
    with (b.loop(site.lo, site.hi, width, name="columns") as j,
          b.loop(0, site.m, tall, name="columns rows") as i):
        wide = b.emit(K.IMIN, site.hi - j.iv, b.int(width))
        rows = _rows(site, i.iv, tall)
        with b.loop(0, wide, b.lanes, target, name="columns zero") as zero:
            for t in range(tall):
                b.store(zero.phis[0], b.int(0), b.const(0.0), disp=4 * width * t)
            zero.yields(zero.phis[0] + 4 * b.lanes)
        whole = k & -deep
        start = site.start(site.product.b) + j.iv * 4
        with b.loop(0, whole, deep, start, name="columns deep") as r:
            _terms(site, r.phis[0], rows, r.iv, deep, wide, target)
            r.yields(r.phis[0] + step * deep)
        with b.loop(whole, k, 1, r.results[0], name="columns rest") as r:
            _terms(site, r.phis[0], rows, r.iv, 1, wide, target)
            r.yields(r.phis[0] + step)
        tall_here = b.emit(K.IMIN, site.m - i.iv, b.int(tall))
        finish(site, target, 4 * width, i.iv, tall_here, j.iv, wide)


def _terms(site: Site, line: Value, rows: list[Value], r: Value, deep: int, wide: Value,
           target: Value) -> None:
    """sums[row][j] += a[row][r + d] * b[r + d][j] for d < deep, in this order, and all columns.

    Every row of B is read from end to end, so the hardware prefetches it; the sums stay in the
    1st-level cache.
    """
    b, lanes = site.build, site.build.lanes
    left = [[b.broadcast(row, r, disp=4 * d) for d in range(deep)] for row in rows]
    step = site.depth(site.product.b)
    quads = tuple(line + step * q for q in range(0, deep, 4))
    offsets = _multiples(site, step)
    full = wide & -lanes
    with b.loop(0, full, lanes, target, *quads, name="columns j") as j:
        _columns(site, j.phis[0], j.phis[1:], offsets, left, None)
        j.yields(*(p + 4 * lanes for p in j.phis))
    with b.when_less(full, wide):
        mask = b.emit(K.FIRST, wide - full)
        _columns(site, j.results[0], j.results[1:], offsets, left, mask)


def _columns(site: Site, sums: Value, quads: Values, offsets: Offsets, left: list[list[Value]],
             mask: Value | None) -> None:
    """One vector of columns; `sums` of several rows lie a fixed distance apart."""
    b, pitch = site.build, 4 * (SUMS // len(left))
    acc = [b.load(sums, b.int(0), disp=pitch * t) for t in range(len(left))]
    for d in range(len(left[0])):
        index, scale = offsets[d % 4]
        right = b.load(quads[d // 4], index, scale, 0, mask)
        acc = [b.emit(K.VFMA, left[t][d], right, value) for t, value in enumerate(acc)]
    for t, value in enumerate(acc):
        b.store(sums, b.int(0), value, disp=pitch * t)
