"""What knows the trace when queries lie along the lanes: which keys a panel sees, and its weights.

    sums -> s = f(sums) -> p = exp(s - m)     in place, a row of the panel's queries for every key
"""

from __future__ import annotations

from dataclasses import dataclass

from ..trace.affine import Affine
from .access import Env
from .approx import exp_below
from .frame import begin
from .heads import Heads, row_of, seen, shifted
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Value
from .lower import lower
from .rounds import Values
from .work import SCORES, tile_slot


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
