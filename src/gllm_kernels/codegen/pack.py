"""Packing: a block of a matrix as panels that a micro-kernel reads from front to back.

    target[panel][r][q] = source(line panel*width + q, depth r), 0 for r >= depth

`width` lines stand side by side, so one depth step of a panel is `width` consecutive floats. Panels
lie `pitch` bytes apart, which is at least one vector more than they hold: the last vector of a row
may write past the row when `width` is not a multiple of the lanes, and the next row repairs that.
Strides are in bytes.
"""

from __future__ import annotations

from .kernel import K, KernelBuilder, Mem, Value

LINE = 64  # bytes of a cache line
AHEAD = 4  # rows that `pack_rows` prefetches ahead
NEXT = 512  # bytes that `pack_across` prefetches ahead
# panels are filled up to a multiple of this depth, so the k loop may be unrolled up to as much
ROUND = 8


def padded(depth: Value) -> Value:
    """The depth of a panel: `depth` rounded up to ROUND."""
    return (depth + (ROUND - 1)) & -ROUND


def pitch(depth: Value, width: int, lanes: int) -> Value:
    """Bytes from panel to panel; the spare vector also moves panels off the same cache sets."""
    return padded(depth) * (4 * width) + 4 * lanes


def block_bytes(depth: int, lines: int, width: int, lanes: int) -> int:
    """Scratch for a packed block; pack_across may write `lanes` rows behind the last panel."""
    return -(-lines // width) * 4 * (depth * width + lanes) + 4 * lanes * (width + lanes)


def pack_rows(b: KernelBuilder, source: Value, stride: Value, lines: Value, depth: Value,
              target: Value, width: int) -> None:
    """Lines are neighbours in memory, depth steps `stride` bytes apart: copy row by row.

    All panels of a row before the next row, so the source is read linearly; a few rows ahead are
    prefetched, because the hardware starts anew at every page.
    """
    step, ahead = pitch(depth, width, b.lanes), stride * AHEAD
    rest = lines - lines / width * width
    whole = lines - rest
    with b.loop(0, depth, 1, source, target, name="pack rows") as row:
        with b.loop(0, whole, width, *row.phis, name="pack row") as panel:
            for at in range(0, 4 * width, LINE):
                b.emit(K.PREFETCH, panel.phis[0], ahead, imm=Mem(1, at, level=1))
            _copy(b, panel.phis[0], panel.phis[1], width, None)
            panel.yields(panel.phis[0] + 4 * width, panel.phis[1] + step)
        with b.when_less(0, rest):
            _copy(b, *panel.results, width, rest)
        row.yields(row.phis[0] + stride, row.phis[1] + 4 * width)
    with b.loop(depth, padded(depth), 1, row.results[1], name="pack padding") as row:
        with b.loop(0, lines, width, row.phis[0], name="pack zeros") as panel:
            for v in range(0, width, b.lanes):
                b.store(panel.phis[0], b.int(0), b.const(0.0), disp=4 * v)
            panel.yields(panel.phis[0] + step)
        row.yields(row.phis[0] + 4 * width)


def _copy(b: KernelBuilder, source: Value, target: Value, width: int, count: Value | None) -> None:
    """`width` floats, or `count` and zeros behind them, as whole vectors."""
    zero = b.int(0)
    for v in range(0, width, b.lanes):
        left = b.int(width - v) if count is None else count - v
        mask = b.emit(K.FIRST, left) if count is not None or width - v < b.lanes else None
        b.store(target, zero, b.load(source, zero, disp=4 * v, mask=mask), disp=4 * v)


def pack_across(b: KernelBuilder, source: Value, stride: Value, lines: Value, depth: Value,
                target: Value, width: int) -> None:
    """Lines `stride` bytes apart, depth steps neighbours: transpose squares of lanes x lanes.

    Lines that do not exist repeat the last one: nobody uses their sums.
    """
    lanes, step = b.lanes, pitch(depth, width, b.lanes)
    last = lines - 1
    with b.loop(0, lines, width, target, name="pack panels") as panel:
        if width < lanes:
            _strip(b, source, panel.iv, last, stride, depth, panel.phis[0], width, width)
        else:
            with b.loop(0, width, lanes, name="pack strips") as part:
                # the last strip ends with the panel, even if it starts inside the one before
                first = b.emit(K.IMIN, part.iv, b.int(width - lanes))
                _strip(b, source, panel.iv + first, last, stride, depth,
                       panel.phis[0] + first * 4, width, lanes)
        panel.yields(panel.phis[0] + step)


def _strip(b: KernelBuilder, source: Value, line: Value, last: Value, stride: Value, depth: Value,
           target: Value, width: int, count: int) -> None:
    """Up to `lanes` lines from `line` on, whole depth, side by side in a panel of `width`."""
    lanes = b.lanes
    with b.loop(0, depth, lanes, source, target, name="pack strip") as square:
        base, out = square.phis
        mask = b.emit(K.FIRST, depth - square.iv)
        rows = [b.bits(0)] * lanes
        for r in range(count):
            offset = b.emit(K.IMIN, line + r, last) * stride
            # so many streams are too many for the hardware: each asks for its own next lines
            b.emit(K.PREFETCH, base, offset, imm=Mem(1, NEXT, level=1))
            rows[r] = b.load(base, offset, 1, mask=mask)
        for r, value in enumerate(transpose(b, rows)):
            b.store(out, b.int(0), value, disp=4 * r * width)
        square.yields(base + 4 * lanes, out + 4 * lanes * width)


def transpose(b: KernelBuilder, rows: list[Value]) -> list[Value]:
    """result[j][i] = rows[i][j]: 4x4 within 128 bits by unpacking, then whole 128-bit blocks."""
    quads = [_four(b, rows[i:i + 4]) for i in range(0, b.lanes, 4)]
    out: list[Value] = [rows[0]] * b.lanes
    for c in range(4):
        for block, value in enumerate(_blocks(b, [quad[c] for quad in quads])):
            out[4 * block + c] = value
    return out


def _four(b: KernelBuilder, rows: list[Value]) -> list[Value]:
    """result[c] holds, in its 128-bit block B, element 4*B + c of the four rows."""
    low = [b.emit(K.UNPACKLO32, *rows[i:i + 2]) for i in (0, 2)]
    high = [b.emit(K.UNPACKHI32, *rows[i:i + 2]) for i in (0, 2)]
    return [b.emit(op, *pair) for pair in (low, high) for op in (K.UNPACKLO64, K.UNPACKHI64)]


def _blocks(b: KernelBuilder, quads: list[Value]) -> list[Value]:
    """result[B] = block B of every quad, side by side: a transpose of 128-bit blocks."""
    if len(quads) == 2:
        return [b.emit(K.SHUF128, *quads, imm=(i, i)) for i in (0, 1)]
    even, odd = (0, 2, 0, 2), (1, 3, 1, 3)
    halves = {pick: [b.emit(K.SHUF128, *quads[i:i + 2], imm=pick) for i in (0, 2)]
              for pick in (even, odd)}
    return [b.emit(K.SHUF128, *halves[first], imm=second)
            for second in (even, odd) for first in (even, odd)]
