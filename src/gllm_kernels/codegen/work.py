"""What the routines of a matrix product tell each other: blocks of 8-byte slots in scratch.

    product kernel  --WORK-->  driver  --PACK, TILES, MICRO, SMALL, SWEEP, DOTS, QUADS-->  routines
                                       --TILE-->  epilogue

A driver knows neither the trace nor the types: it is compiled once for every product of a process.
The epilogue is called with the arguments of the product kernel, and finds its tile in `scratch`.
Strides are in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

from .isa.base import Isa
from .kernel import K, KernelBuilder, KParam, Mem, Routine, Value

# operands from line 0 and depth 0 on, sizes, where C[0, 0] lies, whether sums may wait there for
# further terms (direct) and are the result as they are (plain); args and tile are for the epilogue.
# Of two products that share A, `twice` is 1: the sums of the other one wait in rows of WAITING_PITCH
# bytes for those of the first, brought there by `keep`
WORK = ("a", "a_line", "a_depth", "b", "b_line", "b_depth", "m", "n", "k", "c", "c_line", "c_size",
        "direct", "plain", "args", "tile", "epilogue", "pack_a", "pack_b", "twice", "other",
        "other_line", "other_depth", "keep", "waiting")
# rows of finished sums, `pitch` apart, which part of the driver's rows and of C's columns they are,
# the driver's first row, the sums of the other product; then the batch binders
TILE = ("sums", "pitch", "row", "rows", "column", "columns", "above", "other")
PACK = ("source", "line", "depth_step", "lines", "exist", "depth", "target", "width", "spare",
        "odd")
MICRO = ("a", "b", "depth", "source", "source_pitch", "target", "target_pitch", "coming",
         "coming_pitch", "tiles", "a_next", "b_next", "source_next", "target_next", "coming_next")
TILES = ("c", "c_line", "c_size", "direct", "plain", "args", "tile", "epilogue", "height", "micro",
         "kept", "row", "rows", "column", "columns", "depth", "inside", "begun", "more", "b_panels",
         "b_pitch", "waiting", "partial")
WAITING = 1024  # columns of the other product whose sums wait
WAITING_PITCH = 4 * WAITING + 128
SMALL = ("a", "a_line", "a_depth", "b", "b_depth", "depth", "target", "pitch")
SWEEP = ("a", "b", "b_step", "columns", "sums")
DOTS = ("tiles", "x", "x_next", "w", "w_line", "depth", "source", "source_next", "kept", "last",
        "target", "ahead", "odd", "panel", "panel_step", "ahead_first", "ahead_later")
# rows of bytes from `x` on, `line` apart, each with its blocks' numbers `aux` bytes behind its start
QUADS = ("x", "line", "aux", "tiles", "table", "planes", "scales", "blocks", "target")
ROUNDED = ("source", "source_line", "exist", "rows", "blocks", "target", "line", "aux")
# of one head: q, k and v from row, key and column 0 on; the last five are routines of the trace
# and the block that they find where scratch would be
ATTEND = ("q", "q_line", "q_depth", "k", "k_line", "k_depth", "v", "v_line", "v_depth", "depth",
          "width", "keys", "args", "tile", "epilogue", "pack_q", "pack_k", "pack_v", "own",
          "scores", "finder", "range", "reader")
# sums of a panel of queries with some keys, and what is known of the panel; then the batch binders
SCORES = ("sums", "state", "width", "row", "rows", "key", "keys", "plain", "last", "other")
# behind the batch binders of a tile whose epilogue is the rest of attention
REST = ("states",)

MOST_BATCH = 8  # axes of a batch
BLOCKS = {"work": len(WORK), "pack": len(PACK), "tiles": len(TILES), "micro": len(MICRO),
          "small": len(SMALL), "sweep": len(SWEEP), "dots": len(DOTS), "quads": len(QUADS),
          "rounded": len(ROUNDED),
          "tile": len(TILE) + MOST_BATCH + len(REST), "attend": len(ATTEND),
          "scores": len(SCORES) + MOST_BATCH}
HEAD = 64 * sum(-(-slots // 8) for slots in BLOCKS.values())  # bytes at the start of scratch
Slots = Mapping[str, Value]


def block(b: KernelBuilder, name: str) -> Value:
    """The address of a block of slots; each starts a line of cache."""
    before = list(BLOCKS.values())[: list(BLOCKS).index(name)]
    return b.emit(K.SCRATCH) + 64 * sum(-(-slots // 8) for slots in before)


def routine_builder(name: str, isa: Isa, slots: tuple[str, ...]) -> KernelBuilder:
    """A builder whose params are slots of a block."""
    return KernelBuilder(name, isa.lanes, tuple(KParam(slot, "i64") for slot in slots))


def bounded(b: KernelBuilder, value: Value, low: int, high: int) -> Value:
    """min(max(value, low), high)"""
    return b.emit(K.IMIN, b.emit(K.IMAX, value, b.int(low)), b.int(high))


def evenly(b: KernelBuilder, size: Value, most: Value | int, unit: int = 1) -> tuple[Value, Value]:
    """How many parts, at least one, of how many lines: a multiple of `unit`, about `most`."""
    size = b.emit(K.IMAX, size, b.int(1))
    parts = (size + most - 1) / most
    each = ((size + parts - 1) / parts + (unit - 1)) / unit * unit
    return (size + each - 1) / each, each


def call(b: KernelBuilder, routine: Routine | Value, name: str, names: tuple[str, ...],
         slots: Slots) -> None:
    """Fill the block and call."""
    at = block(b, name)
    b.fill(at, names, slots)
    b.call(b.code(routine) if isinstance(routine, Routine) else routine, at)


def finished(b: KernelBuilder, tile: Slots) -> None:
    """In a driver: hand a tile of finished sums to the epilogue."""
    at = b.arg("tile")
    if any(p.name == "waiting" for p in b.params):
        other = b.arg("waiting") + tile["row"] * WAITING_PITCH + tile["column"] * 4
        tile = {**tile, "other": other}
    b.fill(at, TILE, tile)
    zero = b.int(0)
    b.emit(K.CALL, b.arg("epilogue"), b.arg("args"), zero, zero, at)


def tile_slot(b: KernelBuilder, number: int) -> Value:
    """In an epilogue: a slot of its tile."""
    return b.emit(K.ILOAD, b.emit(K.SCRATCH), b.int(0), imm=Mem(1, 8 * number))
