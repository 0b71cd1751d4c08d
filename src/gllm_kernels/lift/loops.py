"""Loop counters as symbols: guessed once, proved in every round, solved at the exit.

A register or stack slot that steps by the same amount in each round is `entry + step*counter`.
The step is learned on the first back edge. From then on the location is set to that polynomial at
each arrival at the loop's header, and what the round computed from the symbol must be one step
further, term by term. Where it is not, the location is junk for good: harmless in a dead register,
refused at its first use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isqrt

from ..trace.ir import WIDTH
from . import value as v
from .conditions import CHOSEN, NEGATED
from .data import Part
from .elf import Image
from .error import Refusal
from .nodes import Node, Nodes
from .operands import NAMES, RSP
from .program import Block, Program
from .signature import Signature
from .state import DATA, INTEGRAL, STACK, State, whole

Step = tuple[tuple[tuple[v.Mono, int], ...], bool]  # (terms, whether the counter has 32 bits)
JUNK = None  # the step of a location that does not step evenly
Learned = dict[int, dict[int, Step | None]]  # loop -> location -> step
MISSING = object()


@dataclass(slots=True)
class Frame:
    """A loop that is running: round number, values on entry, and what its exit compared."""

    loop: int
    body: frozenset[int]
    steps: dict[int, Step | None]  # that were learned
    entry: dict[int, object]
    data: dict[int, object]
    round: int = 0
    exit: int | None = None  # the test that left
    tests: dict[int, tuple[v.Poly, str]] = field(default_factory=dict)  # the last of each
    carried: list[tuple[v.Poly, str, int]] = field(default_factory=list)  # of adc in this round
    expected: dict[int, object] = field(default_factory=dict)



class Loops(State):
    """The part of the machine that follows loops."""

    def __init__(
        self, program: Program, image: Image, signature: Signature, sizes: dict[str, int],
        nodes: Nodes, learned: Learned, periods: dict[str, int],
    ) -> None:  # fmt: skip
        super().__init__(image, signature, sizes, nodes, periods)
        self.program, self.root, self.path = program, program, ()
        self.learned = learned
        self.frames: list[Frame] = []
        self.relearned = False
        self.lengths: set[v.Int] = set()  # rounds of every loop
        self.depth = 0  # branches on data that are being followed

    def cross_loops(self, block: Block) -> None:
        """Leave the loops that `block` is outside of; begin or repeat the one it heads."""
        frames = self.frames
        while frames and block.start not in frames[-1].body:
            if self.depth:
                raise Refusal("a loop that ends on a condition on data", at=block.start)
            self._leave(frames.pop())
        if block.header < 0:
            return
        if self.depth:
            raise Refusal("a loop inside a branch on data", at=block.start)
        if frames and frames[-1].loop == block.header:
            self._repeat(frames[-1])
        else:
            self._begin(block.header)

    def _locations(self) -> tuple[dict[int, object], dict[int, object]]:
        """Registers (by number) and stack slots (by address) that hold integers; and those with
        truth values, or counters of less than 32 bits: they have no formula in the counters, so
        none may be carried from one round to the next."""
        integers, narrow = {}, {}
        held = list(enumerate(self.r))
        held += [(at, a) for at, (_, a) in self.stack.items()]
        for at, a in held:
            kind = a.__class__
            if kind in INTEGRAL:
                integers[at] = a
            elif kind in DATA and _is_narrow(a):
                narrow[at] = a
        integers.pop(RSP, None)
        return integers, narrow

    def _set(self, location: int, value: object) -> None:
        if location < 16:
            self.r[location] = value
        else:
            self.stack[location] = (self.stack[location][0], value)

    def _begin(self, loop: int) -> None:
        body = self.program.loops[loop - self.program.base]
        steps = self.learned.setdefault(loop, {})
        frame = Frame(loop, body, steps, *self._locations())
        self.frames.append(frame)
        for location, step in steps.items():
            entry = frame.entry.get(location, MISSING)
            if step is not JUNK and fits_step(entry, step[1]):
                self._count(frame, location, step, entry)

    def _count(self, frame: Frame, location: int, step: Step, now: object) -> None:
        """Set a location to entry + step*counter in this round, which has the value of `now`."""
        terms, narrow = step
        number = v.counter(frame.loop, frame.round)
        total = dict(v.terms_of(whole(frame.entry[location])))
        for mono, coef in terms:
            total[(*mono, number)] = coef
        value = v.Poly(total, v.value_of(whole(now)))
        held = v.Low32(value) if narrow else value
        frame.expected[location] = held
        self._set(location, held)

    def size(self, mono: v.Mono) -> int:
        product = 1
        for number in mono:
            product *= self.atoms[number]
        return product

    def _check_carries(self, frame: Frame) -> None:
        """What adc added is the outcome of the one test that ends the loop, in every round."""
        tests = list(frame.tests.values())
        for d, relation, at in frame.carried:
            if tests not in ([(d, relation)], [(d, NEGATED[relation])]):
                raise Refusal(f"a counter that steps by a comparison: {self.compared(d)}", at=at)
        frame.carried.clear()

    def _repeat(self, frame: Frame) -> None:
        """A back edge: learn steps, check those that are known, and move the counter on."""
        self._check_carries(frame)
        frame.round += 1
        integers, narrow = self._locations()
        for location, now in narrow.items():
            if frame.data.get(location) is not now:  # carried from round to round
                self._set(location, CHOSEN)
        for location, now in integers.items():
            before, step = frame.entry.get(location), frame.steps.get(location, MISSING)
            if now is before and step is MISSING:
                continue
            if v.has_opaque(whole(now)):  # perhaps what the last round left
                self.held.add(location)
            if before is None:
                frame.entry[location] = now
                continue
            if step is MISSING:
                if same(now, before):
                    continue
                step = learned_step(before, now) if frame.round == 1 else JUNK
                frame.steps[location] = step
                self.relearned = True
            elif step is not JUNK and not self._steps_evenly(frame, location, step, now):
                step = frame.steps[location] = narrower(step, before, now)
                self.relearned = True
            if step is JUNK:
                self._set(location, self._junk(location, now))
            else:
                self._count(frame, location, step, now)

    def _steps_evenly(self, frame: Frame, location: int, step: tuple, now: object) -> bool:
        """Whether `now`, computed from the symbol of the last round, is one step further."""
        last = frame.expected.get(location)
        if last is None:
            return False
        terms, narrow = step
        if not fits_step(now, narrow):
            return False
        want, have = dict(v.terms_of(whole(last))), v.terms_of(whole(now))
        for mono, coef in terms:
            total = want.pop(mono, 0) + coef
            if total:
                want[mono] = total
        return have == want or self._vanishes(have, want)

    def _vanishes(self, have: dict[v.Mono, int], want: dict[v.Mono, int]) -> bool:
        """Whether two polynomials differ only in terms with a dimension that is 0 here."""
        differing = [m for m in have.keys() | want.keys() if have.get(m, 0) != want.get(m, 0)]
        return all(any(self.atoms.get(x) == 0 for x in m) for m in differing)

    def _junk(self, location: int, now: object) -> v.Poly:
        name = NAMES[location] if location < 16 else f"stack slot {location - STACK:+d}"
        text = f"{name}, which does not step by the same amount in each round"
        return self.opaque(text, v.value_of(whole(now)))

    def _leave(self, frame: Frame) -> None:
        """After its loop a counter is what the exit condition says: solve it, or give up on it."""
        self._check_carries(frame)
        final = self._final(frame)
        if frame.round:
            self._check_length(frame, final)
        text = "the final counter of a loop whose length is not a polynomial of the sizes"
        for location, now in self._locations()[0].items():
            if v.counts(whole(now), frame.loop):
                solved = self._substitute(whole(now), frame, final)
                if solved is None:
                    solved = self.opaque(text, v.value_of(whole(now)))
                narrow = now.__class__ is v.Low32 and solved.__class__ is v.Poly
                self._set(location, v.Low32(solved) if narrow else solved)
        self.flags = None

    def _check_length(self, frame: Frame, final: v.Int | None) -> None:
        """The number of rounds is a polynomial that a few samples determine, and no other exit
        comes before: that is one more condition on the sizes."""
        if final is None:
            raise Refusal(
                "the number of rounds of a loop is not a polynomial of the sizes", at=frame.exit
            )
        self.lengths.add(final)
        monos = v.terms_of(final)
        if any(len(set(m)) < len(m) for m in monos):
            raise Refusal(f"a loop of {self.text(final)} rounds: a power", at=frame.exit)
        if frame.loop in self.narrow and max(map(len, monos), default=0) > 1:
            self.limit = min(self.limit, isqrt((1 << 31) // self.narrow[frame.loop]))
        for at, (test, relation) in frame.tests.items():
            last = self._substitute(test, frame, final) if at != frame.exit else None
            if last is not None:
                self.record(at, last, relation, True)

    def _final(self, frame: Frame) -> v.Int | None:
        """Solve coefficient*counter + rest = 0 (or the overshoot) for the counter."""
        if frame.exit is None:
            return None
        test, _ = frame.tests[frame.exit]
        ours = [(m, c) for m, c in test.terms.items() if frame.loop in _loops(m)]
        if len(ours) != 1 or abs(test.value) > abs(ours[0][1]):
            return None
        mono, coef = ours[0]
        factors = tuple(x for x in mono if x < v.COUNTER)
        rest = v.sub(test, v.Poly({mono: coef}, coef * self.size(factors) * frame.round))
        wanted = v.sub(test.value, rest)
        final = v.divided_by(wanted, coef, factors, self.size(factors))
        if final is None and not factors:
            self.residue(wanted, abs(coef))  # classes of sizes in which the loop has a length
        return final if final is not None and v.value_of(final) == frame.round else None

    def _substitute(self, poly: v.Int, frame: Frame, final: v.Int | None) -> v.Int | None:
        """Replace the counter of `frame` by its final value, also where a round lags behind; the
        value stays, because `final` is the round that was reached."""
        if final is None:
            return None
        total: dict[v.Mono, int] = {}
        first = v.counter(frame.loop, 0)
        last = first + v.MOST_ROUNDS
        for mono, coef in v.terms_of(poly).items():
            ours = [x for x in mono if first <= x < last]
            parts = {tuple([x for x in mono if x not in ours]) if ours else mono: coef}
            for x in ours:
                reached = v.terms_of(v.add(final, v.round_of(x) - frame.round))
                parts = v.product(parts, reached)
            for rest, part in parts.items():
                total[rest] = total.get(rest, 0) + part
        return v.make({m: c for m, c in total.items() if c}, v.value_of(poly))


def _is_narrow(a: object) -> bool:
    if a.__class__ is Part:
        return a.value.__class__ is not Node or _is_narrow(a.value)
    return a.__class__ is Node and a.kind not in WIDTH


def same(a: object, b: object) -> bool:
    return a.__class__ is b.__class__ and whole(a) == whole(b)


def fits_step(entry: object, narrow: bool) -> bool:
    """Whether a 32-bit (narrow) or 64-bit counter can start from `entry`."""
    if entry.__class__ is int:
        return not narrow or 0 <= entry < 1 << 32
    return entry.__class__ is (v.Low32 if narrow else v.Poly)


def learned_step(before: object, now: object) -> tuple | None:
    """(terms, narrow) of now - before, or JUNK where it is not made of dimensions."""
    narrow = v.Low32 in (now.__class__, before.__class__)
    if not (fits_step(before, narrow) and fits_step(now, narrow)):
        return JUNK
    step = v.sub(whole(now), whole(before))
    if v.has_counter(step) or v.has_pointer(step):
        return JUNK
    return tuple(v.terms_of(step).items()), narrow


def narrower(step: tuple, before: object, now: object) -> tuple | None:
    """A counter that was learned from two constants may have 32 bits; else it is JUNK."""
    terms, narrow = step
    if not narrow and now.__class__ is v.Low32 and fits_step(before, True):
        return terms, True
    return JUNK


def _loops(mono: v.Mono) -> set[int]:
    return {v.loop_of(x) for x in mono if v.COUNTER <= x < v.OPAQUE}
