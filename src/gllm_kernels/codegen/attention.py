"""Attention: softmax(f(q @ k.T)) @ v for some rows of a head, without a matrix of scores.

    rows in blocks of `PANELS` panels, keys in blocks:  pack K and V
        panel by panel:  s = k @ q.T         keys x queries, in the nearest cache
                         p = exp(f(s) - m)   m, the largest score so far; l, the sum of p
                         o = o*exp(m before - m) + v.T @ p

Queries lie along the lanes, so maxima and sums need nothing across lanes, and p is packed as it is
computed. At the end o / l is turned over, and the epilogue has its rows. (Milakov and Gimelshein,
"Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022.)

A key that a query may not see, because what is added to its score is -inf, has the weight 0; those
behind the last that a panel sees are not read. So where v is finite, the result of a row does not
depend on the rows beside it, hence not on the threads. A row that sees no key is NaN, as 0/0 is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from ..trace.affine import Affine
from ..trace.attention import attention_of
from ..trace.ir import OpTrace
from .access import Env, integer
from .approx import exp_below
from .contraction import Factor
from .decode import decode_bytes, decode_routine, decodes, range_, reader
from .elementwise import check_in_place
from .frame import begin
from .heads import LOWEST, Heads, heads_of, row_of, seen, shifted, without_keys
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .lower import lower
from .micro import micro_routine
from .pack import LINE, packing_of, pitch
from .pairs import PAIRS, lanes_of, odd_of
from .rounds import Values
from .site import Site, epilogue, row_sites
from .tuning import TuningParams
from .work import (
    ATTEND, HEAD, MICRO, PACK, SCORES, TILE, block, bounded, call, finished, routine_builder,
    tile_slot,
)

PANELS = 16  # of queries that share what is packed of K and V
KEYS = 126  # of a block: whole panels of 6, 14, and within 16 KB for a panel of 32 queries
GRAIN = 8  # rows; heads that share keys and values, when there is one row of each
FEW_ROWS = 24  # of a head, up to which packing its keys and values costs more than it saves
SEARCHES = ("finder", "range")  # for keys that something hides


def generate(trace: OpTrace, isa: Isa, params: TuningParams) -> Kernel:
    """The kernel of a bound trace whose pattern is attention; its units are rows of all heads. Few
    rows of a head are the affair of `decode`, one row with those of heads that share its keys."""
    check_in_place(trace)
    heads, hides = heads_of(trace), bool(attention_of(trace).hides)
    depth, m, width = trace.body[heads.found.product].imm[2], heads.outer.m, heads.outer.n
    b, scratch, below = begin(trace, isa), areas(isa, params, depth, width)[-1], -1
    size = integer(b, m, {})
    if decodes(heads):
        scratch = scratch + decode_bytes(isa, depth, width)
        for some, above in {heads_of(trace, shared=True): 1, heads: FEW_ROWS}.items():
            with b.when_less(below, size), b.when_less(size, above + 1), (
                    row_sites(b, some.outer, isa)) as site:
                _fill(site, some, {"reader": (reader,), "range": (range_,)})
                stored = site.storage(some.outer.a), site.storage(some.k)
                _drive(site, decode_routine(isa, params, stored, hides))
            below = above
    with b.when_less(below, size), row_sites(b, heads.outer, isa) as site:
        factors = {"q": heads.outer.a, "k": heads.k, "v": heads.outer.b}
        pairs = params.pairs and all(site.storage(x) == "bf16" for x in factors.values())
        _fill(site, heads, {"scores": (scores, pairs), "finder": (finder,)})
        _fill_packing(site, factors, {"q": params.nr, "k": params.mr, "v": high(isa)}, pairs)
        _drive(site, Routine("attention", attend, (isa, params, hides, pairs)))
    rows = m
    for _, extent in heads.outer.batch:
        rows = rows * extent
    return b.build(rows, GRAIN, "row of a head", scratch)


def _drive(site: Site, routine: Routine) -> None:
    b = site.build
    b.call(b.code(routine), block(b, "attend"), site.above, site.above + site.rows)


def _fill_packing(site: Site, factors: dict[str, Factor], widths: dict[str, int],
                  pairs: bool) -> None:
    """What packs panels of q, which are whole vectors, of k and of v."""
    b, values = site.build, {}
    for name, factor in factors.items():
        stored = PAIRS if pairs else site.storage(factor)
        how = packing_of(site.isa, stored, factor.along, widths[name], name == "q")
        values[f"pack_{name}"] = b.code(how.routine)
    b.fill(block(b, "attend"), ATTEND, values)


def _fill(site: Site, heads: Heads, makers: dict[str, tuple]) -> None:
    """Where the operands of this batch are, and the routines that know the trace: (make, ...)."""
    b, outer, trace = site.build, heads.outer, heads.outer.trace
    depth = integer(b, trace.body[heads.found.product].imm[2], {})
    values = {"depth": depth, "width": integer(b, outer.n, {}), "keys": site.k}
    for name, factor in (("q", outer.a), ("k", heads.k), ("v", outer.b)):
        values |= {name: site.start(factor), f"{name}_line": site.line(factor),
                   f"{name}_depth": site.depth(factor)}
    tile, own = block(b, "tile"), block(b, "scores")
    values |= {name: b.code(Routine(f"{name} of {trace.name}", make, (heads, site.isa, *more)))
               for name, (make, *more) in makers.items()
               if heads.found.hides or name not in SEARCHES}
    last = b.code(Routine(f"epilogue of {trace.name}", epilogue, (outer, site.isa)))
    values |= {"args": b.emit(K.ARGS), "tile": tile, "own": own, "epilogue": last}
    b.fill(block(b, "attend"), ATTEND, values)
    b.fill(tile, TILE, {"above": b.int(0)})
    for at, slots in ((tile, TILE), (own, SCORES)):
        for number, (binder, _) in enumerate(outer.batch, len(slots)):
            b.emit(K.ISTORE, at, b.int(0), site.batch[binder], imm=Mem(1, 8 * number))


# -- scratch ---------------------------------------------------------------------------------------
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
                 "odd": odd_of(self.build, self.terms, depth), "depth": self.lanes(depth), "target": self.at[target], "width": self.build.int(width),
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


# -- what knows the trace --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Panel:
    """A routine of the trace: queries row, row + 1, ... along the lanes of nr/lanes vectors."""

    build: KernelBuilder
    heads: Heads
    slots: dict[str, Value]

    @property
    def vectors(self) -> range:
        return range(2)

    def env(self, key: Value, v: int, product: Value, plain: bool) -> Env:
        """Where key `key` of the block meets vector v of the queries; all of it `plain`: every query
        exists, and what could hide a key is 0."""
        outer, found, b = self.heads.outer, self.heads.found, self.build
        binders = {binder: self.slots[binder] for binder, _ in outer.batch}
        binders |= {outer.row: self.slots["row"], found.key: self.slots["key"] + key}
        values = {found.product: product}
        if plain:
            values |= dict.fromkeys(found.hides, b.const(0.0))
        count = None if plain else self.slots["rows"] - v * b.lanes
        return Env(binders, outer.row, v * b.lanes, count, values)


def panel_of(heads: Heads, isa: Isa, name: str) -> Panel:
    b = begin(heads.outer.trace, isa)
    b.name = f"{heads.outer.trace.name}.{name}"
    names = (*SCORES, *(binder for binder, _ in heads.outer.batch))
    return Panel(b, heads, {slot: tile_slot(b, number) for number, slot in enumerate(names)})


def finder(heads: Heads, isa: Isa) -> Kernel:
    """last: how many keys there are up to the last that any of the queries sees; other: 1 where
    something but 0 is added to a score. One row tells it of all that are its copies, shifted."""
    p = panel_of(heads, isa, "finder")
    b, slots, (same, slides) = p.build, p.slots, shifted(heads)
    rows, first, keys = slots["rows"], slots["row"], slots["keys"]
    if slides and not same:
        first, keys = first + rows - 1, keys + rows - 1
    none = b.bits(0)
    with b.loop(0, 1 if same or slides else rows, 1, none, none, name="finder rows") as row:
        env = row_of(b, heads, slots, first + row.iv, heads.found.hides)
        with b.loop(0, keys, b.lanes, *row.phis, name="finder") as key:
            here = env.at({heads.found.key: slots["key"] + key.iv}, count=keys - key.iv)
            lanes = seen(b, heads, here)
            number = b.emit(K.VIADD, b.emit(K.VLANES), b.emit(K.SPLAT, key.iv + 1))
            other = key.phis[1]
            for position in heads.found.hides:
                value = b.emit(K.SELECT, b.emit(K.FIRST, here.count), here.values[position], none)
                other = b.emit(K.VOR, other, b.emit(K.VSHL, value, imm=1))  # -0 is 0
            key.yields(b.emit(K.VIMAX, key.phis[0], b.emit(K.SELECT, lanes, number, none)), other)
        row.yields(*key.results)
    last = b.emit(K.VF2I, b.emit(K.HMAX, b.emit(K.VI2F, row.results[0])))
    zero = b.emit(K.VIEQ, row.results[1], none)
    other = b.emit(K.VF2I, b.emit(K.HMAX, b.emit(K.SELECT, zero, none, b.const(1.0))))
    for slot, value in (("last", last), ("other", other)):
        b.emit(K.STORE1, b.emit(K.SCRATCH), b.int(0), value, imm=Mem(1, 8 * SCORES.index(slot)))
    return b.build(Affine.const(1), 1, "call")


def scores(heads: Heads, isa: Isa, pairs: bool) -> Kernel:
    """Sums become weights in place, rounded to bf16 where two share a lane; m, l and o follow."""
    p = panel_of(heads, isa, "scores")
    b, zero, keys = p.build, p.build.int(0), p.slots["keys"]
    sums, state, row = p.slots["sums"], p.slots["state"], 4 * b.lanes * len(p.vectors)
    places = [4 * b.lanes * v for v in p.vectors]
    before = [b.load(state, zero, disp=place) for place in places]
    plain, found = keys * p.slots["plain"], (sums, *before)
    for lo, hi, how in ((zero, plain, True), (plain, keys, False)):  # one of them is empty
        with b.loop(lo, hi, 1, *found, name="scores") as key:
            at, *most = key.phis
            for v, place in enumerate(places):
                env = p.env(key.iv, v, b.load(at, zero, disp=place), how)
                score = lower(b, heads.outer.trace, heads.found.score, env)
                b.store(at, zero, score, disp=place)
                most[v] = b.emit(K.VMAX, score, most[v])  # passes over NaN, which exp finds again
            key.yields(at + row, *most)
        found = key.results
    most, total = found[1:], _weights(b, (sums, keys), found[1:], pairs)
    scale = [exp_below(b, old - new) for old, new in zip(before, most)]
    for v, place in enumerate(places):
        old = b.load(state, zero, disp=row + place)
        b.store(state, zero, b.emit(K.VFMA, old, scale[v], total[v]), disp=row + place)
        b.store(state, zero, most[v], disp=place)
    with b.loop(0, p.slots["width"], 1, state + 2 * row, name="scale") as line:
        for v, place in enumerate(places):
            value = b.load(line.phis[0], zero, disp=place)
            b.store(line.phis[0], zero, value * scale[v], disp=place)
        line.yields(line.phis[0] + row)
    return b.build(Affine.const(1), 1, "call")


def _weights(b: KernelBuilder, sums: tuple[Value, Value], most: Values, pairs: bool) -> Values:
    """exp(s - m) in the place of s; gives the sums. A pair is in the place of the first of both."""
    (start, keys), zero, vectors = sums, b.int(0), range(len(most))
    row, found = 4 * b.lanes * len(most), (start, start, *(b.const(0.0) for _ in most))
    whole = keys & -2 if pairs else keys
    for lo, hi, count in ((zero, whole, 1 + pairs), (whole, keys, 1))[: 1 + pairs]:
        with b.loop(lo, hi, count, *found, name="weights") as key:
            at, target, *total = key.phis
            for v in vectors:
                made = [exp_below(b, b.load(at, zero, disp=row * i + 4 * b.lanes * v) - most[v])
                        for i in range(count)]
                for weight in made:
                    total[v] = total[v] + weight
                b.store(target, zero, _pair(b, made) if pairs else made[0], disp=4 * b.lanes * v)
            key.yields(at + row * count, target + row, *total)
        found = key.results
    return found[2:]


def _pair(b: KernelBuilder, weights: list[Value]) -> Value:
    """The nearest bf16 of one or two weights in a lane; halfway cases go up."""
    near = [b.emit(K.VIADD, weight, b.bits(1 << 15)) for weight in weights]
    low = b.emit(K.VSHR, near[0], imm=16)
    return b.emit(K.VOR, low, b.emit(K.VAND, near[1], b.bits(0xFFFF0000))) if near[1:] else low
