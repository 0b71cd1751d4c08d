"""Packing: a block of a matrix as panels that a micro-kernel reads from front to back.

    target[panel][r][q] = source(line panel*width + q, depth r), 0 for r >= depth

`width` lines stand side by side, so one depth step of a panel is `width` consecutive floats. Panels
lie `pitch` bytes apart, which is at least one vector more than they hold: the last vector of a row
may write past the row when `width` is not a multiple of the lanes, and the next row repairs that.
Strides are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..dtypes import SIZE
from .kernel import K, KernelBuilder, Mem, Value
from .transpose import transpose

LINE = 64  # bytes of a cache line
AHEAD = 4  # rows that `pack_rows` prefetches ahead
NEXT = 512  # bytes that `pack_across` prefetches ahead
# panels are filled up to a multiple of this depth, so the k loop may be unrolled up to as much
ROUND = 8

Multiples = tuple[tuple[Value, int], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """What to pack: `lines` of the `exist` that follow, `stride` bytes apart (or depth steps so far
    apart), side by side in panels of `width`. All integers, but for how elements are stored."""

    source: Value
    stride: Value
    lines: Value
    exist: Value
    target: Value
    width: Value
    storage: str = "float"

    @property
    def values(self) -> tuple[Value, ...]:
        """The integers in order."""
        return self.source, self.stride, self.lines, self.exist, self.target, self.width


def padded(depth: Value) -> Value:
    """The depth of a panel: `depth` rounded up to ROUND."""
    return (depth + (ROUND - 1)) & -ROUND


def pitch(depth: Value, width: int | Value, lanes: int) -> Value:
    """Bytes from panel to panel; the spare vector also moves panels off the same cache sets."""
    return padded(depth) * width * 4 + 4 * lanes


def block_bytes(depth: int, lines: int, width: int, lanes: int) -> int:
    """Scratch for a packed block; pack_across may write `lanes` rows behind the last panel."""
    return -(-lines // width) * 4 * (depth * width + lanes) + 4 * lanes * (width + lanes)


def spare_bytes(depth: int, lanes: int) -> int:
    """Scratch for one square of lines at full depth, a line of cache apart from powers of two."""
    return lanes * (4 * depth + LINE)


def pack_rows(b: KernelBuilder, block: Block, depth: Value, width: int) -> None:
    """Lines are neighbours in memory, depth steps `stride` bytes apart: copy row by row.

    All panels of a row before the next row, so the source is read linearly; a few rows ahead are
    prefetched, because the hardware starts anew at every page.
    """
    stride, lines, size = block.stride, block.lines, SIZE[block.storage]
    step, ahead = pitch(depth, width, b.lanes), stride * AHEAD
    rest = lines - lines / width * width
    whole = lines - rest
    with b.loop(0, depth, 1, block.source, block.target, name="pack rows") as row:
        with b.loop(0, whole, width, *row.phis, name="pack row") as panel:
            for at in range(0, size * width, LINE):
                b.emit(K.PREFETCH, panel.phis[0], ahead, imm=Mem(1, at, level=1))
            _copy(b, *panel.phis, width, None, block.storage)
            panel.yields(panel.phis[0] + size * width, panel.phis[1] + step)
        with b.when_less(0, rest):
            _copy(b, *panel.results, width, rest, block.storage)
        row.yields(row.phis[0] + stride, row.phis[1] + 4 * width)
    with b.loop(depth, padded(depth), 1, row.results[1], name="pack padding") as row:
        with b.loop(0, lines, width, row.phis[0], name="pack zeros") as panel:
            for v in range(0, width, b.lanes):
                b.store(panel.phis[0], b.int(0), b.const(0.0), disp=4 * v)
            panel.yields(panel.phis[0] + step)
        row.yields(row.phis[0] + 4 * width)


def _copy(b: KernelBuilder, source: Value, target: Value, width: int, count: Value | None,
          storage: str) -> None:
    """`width` elements, or `count` and zeros behind them, as whole vectors of floats."""
    zero, size = b.int(0), SIZE[storage]
    for v in range(0, width, b.lanes):
        left = b.int(width - v) if count is None else count - v
        mask = b.emit(K.FIRST, left) if count is not None or width - v < b.lanes else None
        value = b.load(source, zero, disp=size * v, mask=mask, storage=storage)
        b.store(target, zero, value, disp=4 * v)


def pack_across(b: KernelBuilder, block: Block, depth: Value, spare: Value, deepest: int,
                aligned: bool, masks: bool) -> None:
    """Lines `stride` bytes apart, depth steps neighbours: transpose squares of lanes x lanes.

    A square takes all its lines, wanted or not; where fewer exist, they are copied to `spare` and
    the last one repeats: nobody uses its sums. Unless widths are `aligned`, the last square ends
    with the panel and starts inside the one before.
    """
    lanes, width = b.lanes, block.width
    inits = (block.source, block.target, block.exist)
    panels = (block.lines + (width - 1)) / width
    with b.loop(0, panels, 1, *inits, name="pack panels") as panel:
        source, target, exist = panel.phis
        with b.loop(0, width, lanes, name="pack strips") as part:
            first = part.iv if aligned else b.emit(
                K.IMIN, part.iv, b.emit(K.IMAX, width - lanes, b.int(0)))
            inits = (source + first * block.stride, block.stride)
            # at most one round: only a loop can give other values than it got
            with b.loop(exist - first, lanes, 1 << 30, *inits, name="pack edge") as edge:
                _repeat(b, replace(block, source=source, exist=exist), first, depth, spare,
                        4 * deepest + LINE)
                edge.yields(spare, b.int(4 * deepest + LINE))
            _strip(b, *edge.results, depth, target + first * 4, width * 4, block.storage, masks)
        panel.yields(source + width * block.stride, target + pitch(depth, width, lanes),
                     exist - width)


def _repeat(b: KernelBuilder, block: Block, first: Value, depth: Value, spare: Value,
            step: int) -> None:
    """spare[q] = line min(first + q, exist - 1), for a square of lines at full depth, stored as
    they are."""
    size, storage = SIZE[block.storage], block.storage
    with b.loop(0, b.lanes, 1, spare, name="pack spare") as line:
        start = block.source + b.emit(K.IMIN, first + line.iv, block.exist - 1) * block.stride
        with b.loop(0, depth, b.lanes, name="pack copy") as column:
            mask = b.emit(K.FIRST, depth - column.iv)
            value = b.load(start, column.iv, size, mask=mask, storage=storage)
            b.store(line.phis[0], column.iv, value, size, storage=storage)
        line.yields(line.phis[0] + step)


def _strip(b: KernelBuilder, source: Value, stride: Value, depth: Value, target: Value,
           row: Value, storage: str, masks: bool) -> None:
    """`lanes` lines, whole depth, side by side in rows of `row` bytes. Without fast `masks` the
    squares that are whole have code of their own."""
    steps, whole = (multiples(b, stride), multiples(b, row)), depth & -b.lanes
    ends = ((0, depth, True),) if masks else ((0, whole, False), (whole, depth, True))
    for lo, hi, masked in ends:
        with b.loop(lo, hi, b.lanes, source, target, name="pack strip") as square:
            mask = b.emit(K.FIRST, depth - square.iv) if masked else None
            _square(b, *square.phis, (stride, row), steps, storage, mask)
            square.yields(square.phis[0] + SIZE[storage] * b.lanes,
                          square.phis[1] + row * b.lanes)
        source, target = square.results


def _square(b: KernelBuilder, base: Value, out: Value, strides: tuple[Value, Value],
            steps: tuple[Multiples, Multiples], storage: str, mask: Value | None) -> None:
    """out[r][q] = base[q][r], lanes x lanes."""
    rows, line = [], base
    for r in range(b.lanes):
        line, (index, scale) = line + strides[0] * 4 if r and r % 4 == 0 else line, steps[0][r % 4]
        # so many streams are too many for the hardware: each asks for its own next lines
        b.emit(K.PREFETCH, line, index, imm=Mem(scale, NEXT, level=1))
        rows.append(b.load(line, index, scale, mask=mask, storage=storage))
    line = out
    for r, value in enumerate(transpose(b, rows)):
        line, (index, scale) = line + strides[1] * 4 if r and r % 4 == 0 else line, steps[1][r % 4]
        b.store(line, index, value, scale)


def multiples(b: KernelBuilder, step: Value) -> Multiples:
    """0, 1, 2, 3 steps as index and scale: two registers address four lines. Call it outside the
    loop that uses them."""
    return (b.int(0), 1), (step, 1), (step, 2), (step * 3, 1)
