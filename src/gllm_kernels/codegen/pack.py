"""Packing: a block of a matrix as panels that a micro-kernel reads from front to back.

    target[panel][r][q] = source(line panel*width + q, depth r), 0 for r >= depth

`width` lines stand side by side, so one depth step of a panel is `width` consecutive floats. Panels
lie `pitch` bytes apart, which is at least one vector more than they hold: the last vector of a row
may write past the row when `width` is not a multiple of the lanes, and the next row repairs that.
Both ways of packing are routines with the slots `work.PACK`; strides are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dtypes import SIZE
from ..trace.affine import Affine
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pairs import PAIRS, WIDTHS, fetch, part_of
from .transpose import transpose
from .work import PACK, routine_builder

LINE = 64  # bytes of a cache line
AHEAD = 4  # rows that `pack_rows` prefetches ahead
NEXT = 512  # bytes that `pack_across` prefetches ahead
# panels are filled up to a multiple of this depth, so the k loop may be unrolled up to as much
ROUND = 8

Multiples = tuple[tuple[Value, int], ...]


@dataclass(frozen=True, slots=True)
class Packing:
    """How lines become panels: `across` when the depth steps of a line are neighbours in memory,
    `vectors` of a panel otherwise; `exact` when panels are whole vectors or narrower than one."""

    isa: Isa
    storage: str
    across: bool
    vectors: int
    exact: bool

    @property
    def terms(self) -> str:
        """How one term lies in memory."""
        return "bf16" if self.storage == PAIRS else self.storage

    @property
    def routine(self) -> Routine:
        how = "across" if self.across else f"rows of {self.vectors}"
        return Routine(f"pack {self.storage} {how}", packing, (self,))


def packing_of(isa: Isa, storage: str, across: bool, width: int, fixed: bool) -> Packing:
    """For panels of `width` lines, or `fixed` to be of no fewer."""
    vectors = -(-width // isa.lanes)
    exact = vectors == 1 or fixed and width % isa.lanes == 0
    return Packing(isa, storage, across, 1 if across and exact else vectors, exact)


def packing(how: Packing) -> Kernel:
    b = routine_builder(f"pack.{'across' if how.across else 'rows'}", how.isa, PACK)
    (pack_across if how.across else pack_rows)(b, how)
    return b.build(Affine.const(1), 1, "call")


def padded(depth: Value) -> Value:
    """The depth of a panel: `depth` rounded up to ROUND."""
    return (depth + (ROUND - 1)) & -ROUND


def pitch(depth: Value, width: int | Value, lanes: int) -> Value:
    """Bytes from panel to panel; the spare vector also moves panels off the same cache sets."""
    return padded(depth) * width * 4 + 4 * lanes


def block_bytes(depth: int, panels: int, width: int, lanes: int) -> int:
    """Scratch for a packed block; pack_across may write `lanes` rows behind the last panel."""
    return panels * 4 * (depth * width + lanes) + 4 * lanes * (width + lanes)


def panel_bytes(lines: int, depth: int, width: int, lanes: int) -> int:
    """Memory of a whole matrix as panels."""
    deep = -(-depth // ROUND) * ROUND
    return block_bytes(deep, -(-lines // width), width, lanes)


def spare_bytes(depth: int, lanes: int) -> int:
    """Scratch for one square of lines at full depth, a line of cache apart from powers of two."""
    return lanes * (4 * depth + 2 * LINE)


# -- lines that are neighbours ---------------------------------------------------------------------
def pack_rows(b: KernelBuilder, how: Packing) -> None:
    """Lines are neighbours in memory, depth steps `depth_step` bytes apart: copy row by row.

    All panels of a row before the next row, so the source is read linearly; a few rows ahead are
    prefetched, because the hardware starts anew at every page.
    """
    depth, stride, lines, width = (b.arg(s) for s in ("depth", "depth_step", "lines", "width"))
    size, step = SIZE[how.terms], pitch(depth, width, b.lanes)
    panels = lines / width
    rest = lines - panels * width
    inits = b.arg("source"), b.arg("target")
    whole = how.exact and how.vectors > 1  # then every row of a panel is whole vectors
    paired = how.storage == PAIRS
    last = depth - b.arg("odd") if paired else depth  # a term without its second has its own round
    for lo, hi, second in ((b.int(0), last, True), (last, depth, False))[: 1 + paired]:
        far = stride if paired and second else None
        with b.loop(lo, hi, 1, *inits, name="pack rows") as row:
            with b.loop(0, panels, 1, *row.phis, name="pack row") as panel:
                for at in range(0, size * b.lanes * how.vectors, LINE):
                    b.emit(K.PREFETCH, panel.phis[0], stride * AHEAD, imm=Mem(1, at, level=1))
                _copy(b, *panel.phis, None if whole else width, how, far)
                panel.yields(panel.phis[0] + width * size, panel.phis[1] + step)
            with b.when_less(0, rest):
                _copy(b, *panel.results, rest, how, far)
            row.yields(row.phis[0] + stride * (1 + paired), row.phis[1] + width * 4)
        inits = row.results
    _pad_rows(b, inits[1], depth, how)


def _pad_rows(b: KernelBuilder, target: Value, depth: Value, how: Packing) -> None:
    """Zeros behind the depth of every panel."""
    lines, width = b.arg("lines"), b.arg("width")
    panels = (lines + (width - 1)) / width
    with b.loop(depth, padded(depth), 1, target, name="pack padding") as row:
        with b.loop(0, panels, 1, row.phis[0], name="pack zeros") as panel:
            for v in range(how.vectors):
                b.store(panel.phis[0], b.int(0), b.const(0.0), disp=4 * b.lanes * v)
            panel.yields(panel.phis[0] + pitch(depth, width, b.lanes))
        row.yields(row.phis[0] + width * 4)


def _copy(b: KernelBuilder, source: Value, target: Value, count: Value | None, how: Packing,
          far: Value | None) -> None:
    """Whole vectors of floats, or `count` elements and zeros behind them; of pairs the second terms
    are `far` away, or zero."""
    zero, size = b.int(0), SIZE[how.terms]
    for v in range(how.vectors):
        mask = None if count is None else b.emit(K.FIRST, count - v * b.lanes)
        place = {"disp": size * b.lanes * v, "mask": mask, "storage": how.terms}
        value = b.load(source, zero, **place)
        if how.storage == PAIRS:  # widened, a bf16 is the high half of its lane
            value = b.emit(K.VSHR, value, imm=16)
        if far is not None:
            value = b.emit(K.VOR, value, b.load(source + far, zero, **place))
        b.store(target, zero, value, disp=4 * b.lanes * v)


# -- depth steps that are neighbours ---------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Block:
    """What is left to pack: the `exist` lines from `source` on, `line` bytes apart."""

    source: Value
    exist: Value
    line: Value
    depth: Value


def pack_across(b: KernelBuilder, how: Packing) -> None:
    """Lines `line` bytes apart, depth steps neighbours: transpose squares of lanes x lanes.

    A square takes all its lines, wanted or not; where fewer exist, they are copied to `spare` and
    the last one repeats: nobody uses its sums. Unless panels are exact, the last square ends with
    the panel and starts inside the one before.
    """
    lanes, depth, width, line = b.lanes, b.arg("depth"), b.arg("width"), b.arg("line")
    inits = b.arg("source"), b.arg("target"), b.arg("exist")
    panels = (b.arg("lines") + (width - 1)) / width
    far = (depth * WIDTHS[how.storage] + (2 * LINE - 1)) & -LINE  # from line to line of the spare
    with b.loop(0, panels, 1, *inits, name="pack panels") as panel:
        source, target, exist = panel.phis
        with b.loop(0, width, lanes, name="pack strips") as part:
            first = part.iv if how.exact else b.emit(
                K.IMIN, part.iv, b.emit(K.IMAX, width - lanes, b.int(0)))
            # at most one round: only a loop can give other values than it got
            inits = (source + first * line, line)
            with b.loop(exist - first, lanes, 1 << 30, *inits, name="pack edge") as edge:
                _repeat(b, Block(source, exist, line, depth), first, far, how.storage)
                edge.yields(b.arg("spare"), far)
            _strip(b, *edge.results, depth, target + first * 4, width * 4, how)
        panel.yields(source + width * line, target + pitch(depth, width, lanes), exist - width)


def _repeat(b: KernelBuilder, block: Block, first: Value, far: Value, storage: str) -> None:
    """spare[q] = line min(first + q, exist - 1), for a square of lines at full depth, stored as
    they are."""
    size = WIDTHS[storage]
    kept = "float" if storage == PAIRS else storage
    with b.loop(0, b.lanes, 1, b.arg("spare"), name="pack spare") as line:
        number = b.emit(K.IMIN, first + line.iv, block.exist - 1)
        start = block.source + number * block.line
        with b.loop(0, block.depth, b.lanes, name="pack copy") as column:
            part = part_of(b, storage, block.depth - column.iv, b.arg("odd"))
            value = fetch(b, storage, start, (column.iv, size), part=part)
            b.store(line.phis[0], column.iv, value, size, storage=kept)
        line.yields(line.phis[0] + far)


def _strip(b: KernelBuilder, source: Value, stride: Value, depth: Value, target: Value,
           row: Value, how: Packing) -> None:
    """`lanes` lines, whole depth, side by side in rows of `row` bytes. Without fast masks the
    squares that are whole have code of their own."""
    steps, whole = (multiples(b, stride), multiples(b, row)), depth & -b.lanes
    apart = how.storage != "float" and how.isa.mask_class != "k"
    ends = ((0, whole, False), (whole, depth, True)) if apart else ((0, depth, True),)
    for lo, hi, masked in ends:
        with b.loop(lo, hi, b.lanes, source, target, name="pack strip") as square:
            part = part_of(b, how.storage, depth - square.iv, b.arg("odd")) if masked else None
            _square(b, *square.phis, (stride, row), steps, how.storage, part)
            square.yields(square.phis[0] + WIDTHS[how.storage] * b.lanes,
                          square.phis[1] + row * b.lanes)
        source, target = square.results


def _square(b: KernelBuilder, base: Value, out: Value, strides: tuple[Value, Value],
            steps: tuple[Multiples, Multiples], storage: str, part: Value | None) -> None:
    """out[r][q] = base[q][r], lanes x lanes."""
    rows, line = [], base
    for r in range(b.lanes):
        line, (index, scale) = line + strides[0] * 4 if r and r % 4 == 0 else line, steps[0][r % 4]
        # so many streams are too many for the hardware: each asks for its own next lines
        b.emit(K.PREFETCH, line, index, imm=Mem(scale, NEXT, level=1))
        rows.append(fetch(b, storage, line, (index, scale), part=part))
    line = out
    for r, value in enumerate(transpose(b, rows)):
        line, (index, scale) = line + strides[1] * 4 if r and r % 4 == 0 else line, steps[1][r % 4]
        b.store(line, index, value, scale)


def multiples(b: KernelBuilder, step: Value) -> Multiples:
    """0, 1, 2, 3 steps as index and scale: two registers address four lines. Call it outside the
    loop that uses them."""
    return (b.int(0), 1), (step, 1), (step, 2), (step * 3, 1)
