"""Attention of one position: the heads that share keys and values are the rows of a product.

    dots or a stream   sums = q @ k.T, some keys at a time, k read once from where it lies
    its epilogue       s = f(sums); m, l; p = exp(s - m); o = o*exp(m before - m) + p @ v

So the rest of attention is the epilogue of its first product, and finds the sums in the 1st-level
cache. Lanes run along the keys, and along o where p meets v. Keys before the first and behind the
last that the rows may see are not read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..dtypes import SIZE
from ..trace.affine import Affine
from .access import Env, integer
from .approx import exp_below
from .dots import dots_bytes, dots_routine
from .frame import begin
from .gemv import stream_bytes, stream_routine
from .heads import LOWEST, MINUS_INFINITY, Heads, row_of, seen, shifted, without_keys
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .lower import lower
from .pack import multiples
from .pairs import PAIRS
from .tuning import TuningParams
from .work import (
    ATTEND, MOST_BATCH, REST, TILE, WORK, block, finished, routine_builder, tile_slot,
)

FEW = 16  # heads at a time
AHEAD = 32  # rows of v that are prefetched
FIRST = len(TILE) + MOST_BATCH  # slot of a tile: REST
NEVER = 1 << 40  # more keys than there are


def decodes(heads: Heads) -> bool:
    """Rows of q and k are read along d, rows of v along the columns."""
    return heads.outer.a.along and heads.k.along and not heads.outer.b.along


def state_pitch(isa: Isa, width: Affine | Value) -> Affine | Value:
    """Bytes of the state of a row: m in all lanes, l lane by lane, o."""
    return width * 4 + 3 * isa.vector_bytes


def start_of(isa: Isa, depth: Affine | Value) -> Affine | Value:
    """Where the states begin, behind what the two products need."""
    head = max(dots_bytes(isa, FEW, Affine()).constant, stream_bytes(True, isa))
    return depth * (4 * (FEW + 4)) + (head + 63 & -64)


def decode_bytes(isa: Isa, depth: Affine, width: Affine) -> Affine:
    return start_of(isa, depth) + state_pitch(isa, width) * FEW


def decode_routine(isa: Isa, params: TuningParams, stored: tuple[str, str],
                   masked: bool) -> Routine:
    """`stored` is how q and k lie in memory; two terms share a lane where the machine can."""
    both = params.pairs and stored == ("bf16", "bf16")
    how = (PAIRS, PAIRS) if both else stored
    return Routine(f"decode {' '.join(stored)}", decode, (isa, params, stored, how, masked))


# -- the driver ------------------------------------------------------------------------------------
def decode(isa: Isa, params: TuningParams, stored: tuple[str, str], terms: tuple[str, str],
           masked: bool) -> Kernel:
    """All keys for the heads [begin, end) of one group, few at a time."""
    b = routine_builder("decode", isa, ATTEND)
    short = replace(params, few=FEW, column_ahead=0)  # what follows a short row is the next one
    at, end, tile = b.emit(K.SCRATCH), b.emit(K.END), b.arg("tile")
    states, far = at + start_of(isa, b.arg("depth")), state_pitch(isa, b.arg("width"))
    with b.loop(b.emit(K.BEGIN), end, FEW, name="rows") as part:
        rows = b.emit(K.IMIN, end - part.iv, b.int(FEW))
        _clear(b, states, far, rows)
        first, last = b.int(0), b.arg("keys")
        b.fill(tile, TILE, {"rows": rows, "above": part.iv})
        b.fill(tile + 8 * FIRST, REST, {"states": states})
        if masked:
            b.emit(K.CALL, b.arg("range"), b.arg("args"), first, last, tile)
            first, last = (b.emit(K.ILOAD, tile, b.int(0), imm=Mem(1, 8 * TILE.index(slot)))
                           for slot in ("column", "columns"))
        b.fill(block(b, "work"), WORK, {
            "a": b.arg("q") + part.iv * b.arg("q_line"), "b": b.arg("k"), "m": rows,
            "n": b.arg("keys"), "k": b.arg("depth"), "epilogue": b.arg("reader"),
            "args": b.arg("args"), "tile": tile} | {
            f"{x}_{way}": b.arg(f"{of}_{way}") for x, of in (("a", "q"), ("b", "k"))
            for way in ("line", "depth")})
        for low, high, routine in ((0, 2, stream_routine(isa, True, stored, 0)),
                                   (1, FEW + 1, dots_routine(isa, short, terms))):
            with b.when_less(low, rows), b.when_less(rows, high):
                b.call(b.code(routine), block(b, "work"), first, last)
        _finish(b, isa, states, far, rows)
    return b.build(Affine.const(1), 1, "head")


def _clear(b: KernelBuilder, states: Value, far: Value, rows: Value) -> None:
    none = without_keys(b)
    with b.loop(0, rows, 1, states, name="states") as row:
        with b.loop(0, far, 4 * b.lanes, name="clear") as at:
            b.store(row.phis[0], at.iv, b.const(0.0), scale=1)
        b.store(row.phis[0], b.int(0), b.bits(LOWEST))
        b.store(row.phis[0], b.int(0), none, disp=4 * b.lanes)
        row.yields(row.phis[0] + far)


def _finish(b: KernelBuilder, isa: Isa, states: Value, far: Value, rows: Value) -> None:
    """o / l, for the epilogue of the trace."""
    out = states + 2 * isa.vector_bytes
    with b.loop(0, rows, 1, out, name="over") as row:
        total = b.load(row.phis[0], b.int(0), disp=-isa.vector_bytes)
        over = b.const(1.0) / b.emit(K.HSUM, total)
        with b.loop(0, b.arg("width"), b.lanes, name="over columns") as at:
            b.store(row.phis[0], at.iv, b.load(row.phis[0], at.iv) * over)
        row.yields(row.phis[0] + far)
    finished(b, {"sums": out, "pitch": far, "row": b.int(0), "rows": rows, "column": b.int(0),
                 "columns": b.arg("width")})


# -- what knows the trace --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Tile:
    """A routine of the trace with rows of sums: key `column`, column + 1, ... along the lanes."""

    build: KernelBuilder
    isa: Isa
    heads: Heads
    slots: dict[str, Value]

    def row(self, number: Value, positions: tuple[int, ...]) -> Env:
        """What the keys of a row share."""
        return row_of(self.build, self.heads, self.slots, self.slots["above"] + number, positions)

    def at(self, row: Env, key: Value, count: Value, product: Value | None = None) -> Env:
        env = row.at({self.heads.found.key: key}, count=count)
        if product is not None:
            env.values[self.heads.found.product] = product
        return env


def tile_of(heads: Heads, isa: Isa, name: str) -> Tile:
    b = begin(heads.outer.trace, isa)
    b.name = f"{heads.outer.trace.name}.{name}"
    names = (*enumerate((*TILE, *(binder for binder, _ in heads.outer.batch))),
             *enumerate(REST, FIRST))
    return Tile(b, isa, heads, {slot: tile_slot(b, number) for number, slot in names})


def range_(heads: Heads, isa: Isa) -> Kernel:
    """column, columns: the first key that some row sees, and one past the last, by vectors."""
    t = tile_of(heads, isa, "range")
    b, none = t.build, t.build.int(NEVER)
    first, last = b.emit(K.BEGIN), b.emit(K.END)
    rows = b.int(1) if shifted(heads)[0] else t.slots["rows"]
    with b.loop(0, rows, 1, none, first, name="range rows") as row:
        env = t.row(row.iv, heads.found.hides)
        with b.loop(first, last, b.lanes, *row.phis, name="range") as key:
            lanes = seen(b, heads, t.at(env, key.iv, last - key.iv))
            any_ = b.emit(K.IMIN, b.emit(K.MBITS, lanes), b.int(1))
            after = b.emit(K.IMIN, key.iv + b.lanes, last)
            key.yields(b.emit(K.IMIN, key.phis[0], none + (key.iv - none) * any_),
                       b.emit(K.IMAX, key.phis[1], after * any_))
        row.yields(*key.results)
    for slot, value in zip(("column", "columns"), row.results):
        b.emit(K.ISTORE, b.emit(K.SCRATCH), b.int(0), value, imm=Mem(1, 8 * TILE.index(slot)))
    return b.build(Affine.const(1), 1, "call")


def reader(heads: Heads, isa: Isa) -> Kernel:
    """The epilogue of q @ k.T: some keys of all rows join m, l and o."""
    t = tile_of(heads, isa, "reader")
    b, slots = t.build, t.slots
    far = state_pitch(isa, integer(b, heads.outer.n, {}))
    with b.loop(0, slots["rows"], 1, slots["sums"], slots["states"], name="rows") as row:
        _weights(t, row.iv, *row.phis)
        row.yields(row.phis[0] + slots["pitch"], row.phis[1] + far)
    tall = 4 if isa.vregs >= 32 else 2
    whole = slots["rows"] / tall * tall
    out = slots["states"] + 2 * isa.vector_bytes
    for lo, hi, count in ((b.int(0), whole, tall), (whole, slots["rows"], 1)):
        with b.loop(lo, hi, count, name=f"{count} rows") as row:
            _mix(t, count, slots["sums"] + row.iv * slots["pitch"], out + row.iv * far, far)
    return b.build(Affine.const(1), 1, "call")


def _weights(t: Tile, number: Value, sums: Value, state: Value) -> None:
    """The scores of a row, their maximum, then weights in their place; m, l and o rescaled."""
    b, found, zero, size = t.build, t.heads.found, t.build.int(0), t.isa.vector_bytes
    keys, env = t.slots["columns"], t.row(number, (found.score,))
    before = b.load(state, zero)
    with b.loop(0, keys, b.lanes, before, name="scores") as key:
        here = t.at(env, t.slots["column"] + key.iv, keys - key.iv, b.load(sums, key.iv))
        score = lower(b, t.heads.outer.trace, found.score, here)
        exists = b.emit(K.FIRST, here.count)
        score = b.emit(K.SELECT, exists, score, b.bits(MINUS_INFINITY))
        b.store(sums, key.iv, score)
        key.yields(b.emit(K.VMAX, score, key.phis[0]))  # passes over NaN, which exp finds again
    most = b.emit(K.HMAX, key.results[0])
    scale = exp_below(b, before - most)
    with b.loop(0, keys, b.lanes, b.load(state, zero, disp=size) * scale, name="weights") as key:
        weight = exp_below(b, b.load(sums, key.iv) - most)
        b.store(sums, key.iv, weight)
        key.yields(key.phis[0] + weight)
    b.store(state, zero, most)
    b.store(state, zero, key.results[0], disp=size)
    with b.loop(0, integer(b, t.heads.outer.n, {}), b.lanes, name="scale") as at:
        b.store(state, at.iv, b.load(state, at.iv, disp=2 * size) * scale, disp=2 * size)


def _mix(t: Tile, rows: int, weights: Value, out: Value, far: Value) -> None:
    """o += p @ v for some rows: whole groups of vectors of columns, then vector by vector."""
    b, outer = t.build, t.heads.outer
    width, wide = integer(b, outer.n, {}), 4 * b.lanes
    storage = next(p.ctype for p in outer.trace.params if p.name == outer.b.param)
    size = SIZE[storage]
    binders = {binder: t.slots[binder] for binder, _ in outer.batch}
    step = integer(b, outer.b.depth, {}) * size
    start = (b.arg(outer.b.param) + integer(b, outer.b.base, binders) * size
             + t.slots["column"] * step)
    whole = width / wide * wide
    states, sums = multiples(b, far), multiples(b, t.slots["pitch"])
    for lo, hi, vectors in ((b.int(0), whole, 4), (whole, width, 1)):
        with b.loop(lo, hi, vectors * b.lanes, name="columns") as column:
            mask = b.emit(K.FIRST, width - column.iv) if vectors == 1 else None
            place = out + column.iv * 4
            acc = [b.load(place, index, scale, 4 * b.lanes * v)
                   for index, scale in states[:rows] for v in range(vectors)]
            with b.loop(0, t.slots["columns"], 1, weights, start + column.iv * size, *acc,
                        name="mix") as key:
                at, line, *acc = key.phis
                for disp in range(0, size * b.lanes * vectors, 64):
                    b.emit(K.PREFETCH, line, step * AHEAD, imm=Mem(1, disp))
                right = [b.load(line, b.int(0), size, size * b.lanes * v, mask, storage)
                         for v in range(vectors)]
                for r, (index, scale) in enumerate(sums[:rows]):
                    left = b.broadcast(at, index, scale)
                    for v, value in enumerate(right):
                        acc[r * vectors + v] = b.emit(K.VFMA, left, value, acc[r * vectors + v])
                key.yields(at + 4, line + step, *acc)
            for r, (index, scale) in enumerate(states[:rows]):
                for v in range(vectors):
                    b.store(place, index, key.results[2 + r * vectors + v], scale, 4 * b.lanes * v)
