"""Attention of many rows of a head: both products by the micro-kernel, around a softmax in place.

    rows in blocks of `PANELS` panels, keys in blocks:  pack K and V
        panel by panel:  s = k @ q.T         keys x queries, in the nearest cache
                         p = exp(f(s) - m)   m, the largest score so far; l, the sum of p
                         o = o*exp(m before - m) + v.T @ p

Queries lie along the lanes, so maxima and sums need nothing across lanes, and p is packed as it is
computed. At the end o / l is turned over, and the epilogue has its rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

from ..trace.affine import Affine
from .heads import LOWEST, without_keys
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Value
from .micro import micro_routine
from .pack import LINE, packing_of, pitch
from .pairs import PAIRS, lanes_of, odd_of
from .tuning import TuningParams, default_params
from .work import (
    ATTEND, HEAD, MICRO, PACK, SCORES, bounded, call, finished, routine_builder,
)

PANELS = 16  # of queries that share what is packed of K and V
KEYS = 126  # of a block: whole panels of 6, 14, and within 16 KB for a panel of 32 queries


# -- scratch ---------------------------------------------------------------------------------------
def with_tiles(isa: Isa, params: TuningParams) -> TuningParams:
    """Blocks are made for these tiles, whatever products are tuned to."""
    own = default_params(isa)
    return replace(params, mr=own.mr, nr=own.nr, terms=own.terms)


def high(isa: Isa) -> int:
    """Rows of o in a tile: they divide the sizes that heads have."""
    return isa.lanes // 2


def areas(isa: Isa, params: TuningParams, depth: Affine | Value,
          width: Affine | Value) -> list[Affine | Value]:
    """Where things lie in scratch, in the order of `AREAS`, and its end: at run time as values."""
    lanes, nr, mr, tall = isa.lanes, params.nr, params.mr, high(isa)
    spare_rows = 4 * lanes * (nr + lanes)  # what packing may write behind a panel
    sizes = (4 * nr, (depth + KEYS) * (4 * lanes) + 2 * LINE * lanes,
             ((depth + 8) * (4 * nr) + 4 * lanes) * PANELS + spare_rows,
             state_pitch(isa, params, width) * PANELS,
             ((depth + 8) * (4 * mr) + 4 * lanes) * (KEYS // mr + 1) + spare_rows,
             (width + tall) * (4 * (KEYS + 8) + 4 * lanes // tall) + spare_rows,
             4 * nr * KEYS, width * (4 * nr) + spare_rows, 16 * PANELS)
    return list(accumulate(sizes, lambda at, size: at + size, initial=depth * 0 + HEAD))


AREAS = ("zeros", "spare", "q", "state", "k", "v", "sums", "rows", "seen")


def state_pitch(isa: Isa, params: TuningParams, width: Affine | Value) -> Affine | Value:
    """Bytes of the state of a panel: m and l, then o, each a row of nr floats."""
    return (width + high(isa) + 2) * (4 * params.nr)


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver being written; queries of a panel are nr, keys of a panel of K mr."""

    build: KernelBuilder
    isa: Isa
    params: TuningParams
    masked: bool
    terms: str
    at: dict[str, Value]

    def arg(self, name: str) -> Value:
        return self.build.arg(name)

    def pack(self, name: str, target: str, width: int, source: Value, lines: Value,
             depth: Value) -> None:
        slots = {"source": source, "line": self.arg(f"{name}_line"), "lines": lines,
                 "depth_step": self.arg(f"{name}_depth"), "exist": lines,
                 "odd": odd_of(self.build, self.terms, depth), "depth": self.lanes(depth),
                 "target": self.at[target], "width": self.build.int(width),
                 "spare": self.at["spare"]}
        call(self.build, self.arg(f"pack_{name}"), "pack", PACK, slots)

    def lanes(self, count: Value) -> Value:
        """How many lanes so many terms take."""
        return lanes_of(self.build, self.terms, count)

    def multiply(self, height: int, slots: dict[str, Value]) -> None:
        b, row = self.build, 4 * self.params.nr
        routine = micro_routine(self.isa, self.params, height, self.terms)
        call(b, routine, "micro", MICRO, {
            "b_next": b.int(0), "target_pitch": b.int(row), "coming": slots["target"],
            "target_next": b.int(row * height), "coming_pitch": b.int(row),
            "coming_next": b.int(row * height)} | slots)

    def ask(self, routine: str, slots: dict[str, Value]) -> None:
        """Call a routine of the trace: it finds its block where scratch would be."""
        b, at = self.build, self.arg("own")
        b.fill(at, SCORES, slots)
        b.emit(K.CALL, self.arg(routine), self.arg("args"), b.int(0), b.int(0), at)


# -- the driver ------------------------------------------------------------------------------------
def attend(isa: Isa, params: TuningParams, masked: bool, pairs: bool) -> Kernel:
    """All keys for the rows [begin, end) of one head; `pairs`: two terms share a lane."""
    b = routine_builder("attention", isa, ATTEND)
    at = {name: offset + b.emit(K.SCRATCH) for name, offset in zip(
        AREAS, areas(isa, params, b.arg("depth"), b.arg("width")))}
    terms, end, keys = PAIRS if pairs else "float", b.emit(K.END), b.arg("keys")
    d = Driver(b, isa, params, masked, terms, at)
    for v in range(0, params.nr, b.lanes):
        b.store(at["zeros"], b.int(0), b.const(0.0), disp=4 * v)
    with b.loop(b.emit(K.BEGIN), end, PANELS * params.nr, name="rows") as part:
        rows = b.emit(K.IMIN, end - part.iv, b.int(PANELS * params.nr))
        source = b.arg("q") + part.iv * b.arg("q_line")
        d.pack("q", "q", params.nr, source, rows, b.arg("depth"))
        _clear(d)
        with b.loop(0, keys, KEYS, name="keys") as key:
            count = b.emit(K.IMIN, keys - key.iv, b.int(KEYS))
            _block(d, (part.iv, rows), (key.iv, count))
        _finish(d, part.iv, rows)
    return b.build(Affine.const(1), 1, "row of a head")


def _panels(d: Driver, rows: Value) -> Value:
    return (rows + (d.params.nr - 1)) / d.params.nr


def _clear(d: Driver) -> None:
    """o = 0, l = 0, and m below every score; without keys the sum is 0, not 0/0."""
    b, row = d.build, 4 * d.params.nr
    none = without_keys(b)
    far = state_pitch(d.isa, d.params, d.arg("width"))
    with b.loop(0, PANELS, 1, d.at["state"], name="states") as panel:
        with b.loop(0, far, 4 * b.lanes, name="clear") as at:
            b.store(panel.phis[0], at.iv, b.const(0.0), scale=1)
        for v in range(0, row, 4 * b.lanes):
            b.store(panel.phis[0], b.int(0), b.bits(LOWEST), disp=v)
            b.store(panel.phis[0], b.int(0), none, disp=row + v)
        panel.yields(panel.phis[0] + far)


def _block(d: Driver, rows: tuple[Value, Value], keys: tuple[Value, Value]) -> None:
    """Some keys for all panels of rows; those that no panel sees are not packed."""
    b, (first, count), (key, most) = d.build, rows, keys
    panels, used = _panels(d, count), most
    if d.masked:
        used = _seen(d, rows, keys)
    with b.when_less(0, used):
        d.pack("k", "k", d.params.mr, d.arg("k") + key * d.arg("k_line"), used, d.arg("depth"))
        d.pack("v", "v", high(d.isa), d.arg("v") + key * d.arg("v_depth"), d.arg("width"), used)
        with b.loop(0, panels, 1, d.at["q"], d.at["state"], name="panels") as panel:
            row = panel.iv * d.params.nr
            slots = {"row": first + row, "rows": count - row, "key": key, "keys": used,
                     "plain": b.int(1)}
            for number, slot in enumerate(("keys", "plain") if d.masked else ()):
                slots[slot] = b.emit(K.ILOAD, d.at["seen"], panel.iv * 2, imm=Mem(8, 8 * number))
            whole = bounded(b, slots["rows"] - (d.params.nr - 1), 0, 1)
            with b.when_less(0, slots["keys"]):
                _panel(d, *panel.phis, slots | {"plain": slots["plain"] * whole}, used)
            panel.yields(panel.phis[0] + pitch(d.lanes(d.arg("depth")), d.params.nr, b.lanes),
                         panel.phis[1] + state_pitch(d.isa, d.params, d.arg("width")))


def _seen(d: Driver, rows: tuple[Value, Value], keys: tuple[Value, Value]) -> Value:
    """How many keys, up to the last that it sees, each panel needs; the most of them."""
    b, (first, count), (key, most), nr = d.build, rows, keys, d.params.nr
    with b.loop(0, _panels(d, count), 1, b.int(0), name="finder") as panel:
        row = panel.iv * nr
        d.ask("finder", {"row": first + row, "key": key, "keys": most,
                         "rows": b.emit(K.IMIN, count - row, b.int(nr))})
        last, other = (b.emit(K.ILOAD32, d.arg("own"), b.int(0), imm=Mem(1, 8 * SCORES.index(slot)))
                       for slot in ("last", "other"))
        last = b.emit(K.IMIN, last, most)
        for number, value in enumerate((last, b.int(1) - other)):
            b.emit(K.ISTORE, d.at["seen"], panel.iv * 2, value, imm=Mem(8, 8 * number))
        panel.yields(b.emit(K.IMAX, panel.phis[0], last))
    return panel.results[0]


def _panel(d: Driver, q: Value, state: Value, slots: dict[str, Value], used: Value) -> None:
    """s, p and o of one panel of queries with one block of keys."""
    b, p, keys, row = d.build, d.params, slots["keys"], 4 * d.params.nr
    depth, width, tall, zero = d.lanes(d.arg("depth")), d.arg("width"), high(d.isa), b.int(0)
    d.multiply(p.mr, {
        "a": d.at["k"], "b": q, "depth": depth, "tiles": (keys + (p.mr - 1)) / p.mr,
        "a_next": pitch(depth, p.mr, b.lanes), "source": d.at["zeros"], "source_pitch": zero,
        "source_next": zero, "target": d.at["sums"]})
    d.ask("scores", slots | {"sums": d.at["sums"], "state": state, "width": width})
    out = state + 2 * row
    d.multiply(tall, {
        "a": d.at["v"], "b": d.at["sums"], "depth": d.lanes(keys), "tiles": (width + (tall - 1)) / tall,
        "a_next": pitch(d.lanes(used), tall, b.lanes), "source": out, "source_pitch": b.int(row),
        "source_next": b.int(row * tall), "target": out})


def _finish(d: Driver, first: Value, count: Value) -> None:
    """o / l, turned over and handed to the epilogue panel by panel."""
    b, row, width = d.build, 4 * d.params.nr, d.arg("width")
    turn = b.code(packing_of(d.isa, "float", True, 2 * d.isa.lanes + 1, False).routine)
    with b.loop(0, _panels(d, count), 1, d.at["state"], name="results") as panel:
        state, above = panel.phis[0], panel.iv * d.params.nr
        over = [b.const(1.0) / b.load(state, b.int(0), disp=row + v)
                for v in range(0, row, 4 * b.lanes)]
        with b.loop(0, width, 1, state + 2 * row, name="over") as line:
            for v, factor in enumerate(over):
                value = b.load(line.phis[0], b.int(0), disp=4 * b.lanes * v)
                b.store(line.phis[0], b.int(0), value * factor, disp=4 * b.lanes * v)
            line.yields(line.phis[0] + row)
        call(b, turn, "pack", PACK, {
            "source": state + 2 * row, "line": b.int(row), "odd": b.int(0), "lines": width,
            "depth_step": b.int(4), "exist": width, "depth": b.int(d.params.nr),
            "target": d.at["rows"], "width": width, "spare": d.at["spare"]})
        finished(b, {"sums": d.at["rows"], "pitch": width * 4, "row": first + above,
                     "rows": b.emit(K.IMIN, count - above, b.int(d.params.nr)),
                     "column": b.int(0), "columns": width})
        panel.yields(state + state_pitch(d.isa, d.params, width))
