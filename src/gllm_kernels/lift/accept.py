"""Whether a formula found at one tuple of sizes holds at all sizes.

The conditions that a run records cut the sizes into cells; inside a cell the same code runs. Each
cell is run at sample sizes and compared with the formula node for node: at 0, 1 and 2, on both
sides of every threshold, and at sizes that outrun any state the code could carry along. What
cannot be sampled (a threshold too far away, an exit that is never taken) refuses the function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from math import prod

from ..trace.affine import Affine
from ..trace.ir import Op, OpTrace
from ..trace.shapes import accesses, reached
from ..trace.simplify import canonical
from ..trace.spec import check, symbols
from . import value as v
from .cells import Path, Test, find, impossible
from .classes import Class, Classes, Sizes
from .conditions import Condition
from .elf import Image
from .engine import MAX_RUNS, Lifted, execute
from .error import Refusal
from .expand import Overlap, compare
from .fold import templates, upwards
from .nodes import Nodes
from .program import Program
from .samples import base_sizes, lag, small_sizes, state_size, undivided
from .signature import Signature

FAR = 300  # the largest size that is sampled
MOST_LIFTS, MOST_STEPS = 600, 500_000
CANDIDATES = 8
Cell = tuple[Class, tuple[int, ...]]  # the numbers of the tests of a path


@dataclass
class Group:
    """Runs of the same blocks, by sizes that differ in how often loops run only."""

    lifted: Lifted  # the first
    state: int = 0  # elements that outrun what any run remembered
    cells: dict[Cell, None] = field(default_factory=dict)
    runs: list[Sizes] = field(default_factory=list)


@dataclass
class Acceptance:
    """The work list of sizes, and what all runs recorded."""

    program: Program
    image: Image
    signature: Signature
    classes: Classes
    learned: dict[Class, dict] = field(default_factory=dict)
    done: dict[Sizes, Lifted] = field(default_factory=dict)
    pending: list[Sizes] = field(default_factory=list)
    tests: dict[tuple[Class, Test], int] = field(default_factory=dict)  # numbers, see `_number`
    asked: list[tuple[Test, Condition]] = field(default_factory=list)
    cells: set[Cell] = field(default_factory=set)
    untied: list[Cell] = field(default_factory=list)  # their branches are not looked at yet
    taken: set[Cell] = field(default_factory=set)  # every beginning of a path
    wanted: set[Cell] = field(default_factory=set)  # beginnings that sizes were found for
    groups: dict[tuple, Group] = field(default_factory=dict)
    exits: dict[tuple[int, int], set[bool]] = field(default_factory=dict)
    lengths: set[v.Int] = field(default_factory=set)  # of loops at the first two tuples of sizes
    limit: int = 1 << 31
    steps: int = 0
    trace: OpTrace | None = None  # the first that explained two runs

    @property
    def dims(self) -> tuple[str, ...]:
        return self.classes.dims

    def named(self, sizes: Sizes) -> dict[str, int]:
        return dict(zip(self.dims, sizes, strict=True))

    def periods(self, sizes: Sizes) -> dict[str, int]:
        """Of each dimension; 0 where it is the number 0 in all sizes of the class."""
        kind = self.classes.of(sizes)
        return self.named(tuple(0 if k in kind.empty else p for k, p in enumerate(kind.periods)))

    def execute(self, sizes: Sizes, nodes: Nodes, runs: int = MAX_RUNS) -> Lifted:
        learned = self.learned.setdefault(self.classes.of(sizes), {})
        try:
            return execute(
                self.program, self.image, self.signature, self.named(sizes), nodes, learned,
                self.periods(sizes), runs,
            )  # fmt: skip
        except v.NeedPeriod as need:
            self.classes.refine(sizes, {self._place(x): p for x, p in need.periods.items()})
            raise

    def learn(self, sizes: Sizes) -> None:
        """How counters step, from short runs; what these refuse a longer one will refuse."""
        with suppress(Refusal):
            self.execute(sizes, Nodes(), 2)

    def run(self, sizes: Sizes) -> tuple[Lifted, Nodes]:
        """One symbolic execution; a refusal away from the first sizes says where."""
        nodes = Nodes()
        try:
            lifted = self.execute(sizes, nodes)
        except Refusal as refusal:
            if self.done:
                places = ", ".join(f"{n} = {s}" for n, s in self.named(sizes).items())
                refusal.what = f"at {places}: {refusal.what}"
            raise
        self.done[sizes] = lifted
        self.steps += lifted.steps
        self.limit = min(self.limit, lifted.conditions.limit)
        return lifted, nodes

    def collect(self, sizes: Sizes, lifted: Lifted) -> None:
        """Take over the path and the exits; add the sizes around every threshold."""
        for place, outcomes in lifted.conditions.exits.items():
            self.exits.setdefault(place, set()).update(outcomes)
        kind, path, fixed = self.classes.of(sizes), {}, []
        for condition, outcome in lifted.conditions.recorded.items():
            number = self._number(condition, sizes) + (not outcome)
            path[number] = None
            if not condition.jump:
                fixed.append(number)
        cell = kind, tuple(path)
        if cell not in self.cells:
            self.cells.add(cell)
            self.untied.append(cell)
            self.taken.update((kind, cell[1][:k]) for k in range(len(path) + 1))
        if lifted.memory or lifted.result:
            key = kind, frozenset(lifted.conditions.visited), tuple(fixed)
            group = self.groups.setdefault(key, Group(lifted))
            group.cells[cell] = None
            group.state = max(group.state, state_size(self.program, lifted))
            group.runs.append(sizes)

    def _number(self, condition: Condition, sizes: Sizes) -> int:
        """An even number for a test, the next one for its negation."""
        key = self.classes.of(sizes), self._test(condition)
        number = self.tests.get(key)
        if number is None:
            number, test = len(self.asked), key[1]
            self.tests[key] = number
            self.asked += [(test, condition), (test.negated(), condition)]
            self._sample(condition, sizes)
        return number

    def push(self, sizes: Sizes) -> None:
        if sizes not in self.done and sizes not in self.pending and min(sizes, default=0) >= 0:
            self.pending.append(sizes)

    # ---- which sizes a condition asks for

    def _test(self, condition: Condition) -> Test:
        terms = sorted(condition.poly.terms.items())  # one test however the sum was computed
        return Test(tuple((c, tuple(map(self._place, m))) for m, c in terms), condition.relation)

    def _sample(self, condition: Condition, sizes: Sizes) -> None:
        """n crosses -rest/coefficient: run on both sides of it."""
        terms, kind = condition.poly.terms, self.classes.of(sizes)
        quotients = kind.quotients(sizes)
        several = len(terms) - (v.ONE in terms) > 1
        if any(len(m) > 1 for m in terms):
            if several:
                raise Refusal(
                    f"a condition on {self._text(condition)}, which cannot be sampled",
                    "conditions that are linear in the dimensions",
                    at=condition.at,
                )
            return
        for mono, coef in terms.items():
            if not mono:
                continue
            place = self._place(mono[0])
            threshold = -(condition.poly.value - coef * quotients[place]) // coef
            self._near(condition, threshold * kind.periods[place])
            if threshold > 2 and not several:
                for step in (-1, 0, 1, 2, 5):
                    self.push(kind.sizes(_with(quotients, place, threshold + step)))

    def _near(self, condition: Condition, threshold: int) -> None:
        if FAR < threshold < 1 << 31:
            raise Refusal(
                f"{self._text(condition)} changes its sign at {threshold}: too far to check",
                f"thresholds up to {FAR}",
                "one function for all sizes, or a function per range",
                at=condition.at,
            )

    def _place(self, number: int) -> int:
        return self.dims.index(self.signature.arguments[number].name)

    def _text(self, condition: Condition) -> str:
        rows = condition.poly.terms.items()
        names = [a.name for a in self.signature.arguments]
        return str(Affine.of((c, tuple(names[x] for x in m)) for m, c in rows))

    # ---- which sizes are missing

    def settle(self, trace: OpTrace) -> None:
        """Push sizes for every branch not taken and for every group that was seen at small sizes
        only; nothing is pushed when all is known."""
        for cell in self.wanted - self.taken:
            raise Refusal("sizes that take the same path run other code", at=self._at(cell))
        cells, self.untied = self.untied, []
        for kind, path in cells:
            for k, number in enumerate(path):
                turned = kind, (*path[:k], number ^ 1)
                if turned not in self.taken and turned not in self.wanted:
                    self._turn(turned)
        for group in self.groups.values():
            self._vary(group, trace)

    def _at(self, cell: Cell) -> int:
        return self.asked[cell[1][-1]][1].at

    def _turn(self, cell: Cell) -> None:
        """Sizes that take this branch, or a proof that there are none."""
        kind = cell[0]
        found = self._find(cell, (0,) * len(self.dims))
        if found:
            self.push(found)
            self.wanted.add(cell)
        elif not impossible(self._path(cell), kind.low, kind.most(self.limit)):
            raise Refusal(
                f"a branch on {self._text(self.asked[cell[1][-1]][1])}, for which no sizes up to "
                f"{FAR} were found",
                at=self._at(cell),
            )

    def _path(self, cell: Cell) -> Path:
        return tuple(self.asked[number][0] for number in cell[1])

    def _vary(self, group: Group, trace: OpTrace) -> None:
        """Every group is run where all sizes are at least 2 and different, where they outrun any
        state, and at three sizes where it has loops of other lengths."""
        runs, count = group.runs, len(group.runs[0])
        general = (2,) * count
        if not any(min(s, default=2) >= 2 and len(set(s)) == count for s in runs):
            self._push_found(group, general, True) or self._push_found(group, general)
        state = max(group.state, lag(trace) + 3)
        if state > FAR:
            raise Refusal(f"{state} elements of state or distance: too far to check (limit {FAR})")
        other = any(next(iter(group.cells))[0].rests) or not group.lifted.conditions.lengths <= self.lengths
        for place in range(count):
            sizes = {s[place] for s in runs}
            if max(sizes) < state:
                for others in (general, (0,) * count):
                    if self._push_found(group, _with(others, place, state)):
                        break
            elif other and len(sizes) < 3:
                self._push_another(group, general, place, sizes)

    def _push_found(self, group: Group, low: Sizes, apart: bool = False) -> bool:
        for cell in group.cells:
            found = self._find(cell, low, apart)
            if found:
                self.push(found)
                return True
        return False

    def _push_another(self, group: Group, low: Sizes, place: int, seen: set[int]) -> None:
        for cell in group.cells:
            found = self._find(cell, low)
            while found and found[place] in seen:
                found = self._find(cell, _with(low, place, found[place] + 1))
            if found:
                return self.push(found)

    def _find(self, cell: Cell, low: Sizes, apart: bool = False) -> Sizes | None:
        """Sizes of this path that are at least `low`."""
        kind = cell[0]
        found = find(self._path(cell), kind.least(low), kind.most(FAR), apart)
        return found and kind.sizes(found)

    def unexplained(self, trace: OpTrace) -> Iterator[Refusal]:
        """What all samples together did not settle."""
        for name in trace.names("in", "out", "inout"):
            falling = [a for a in accesses(trace, name) if any(c < 0 for c, _ in a.index.terms)]
            for sizes in map(self.named, self.done) if falling else ():
                first = min((low for low, _ in reached(falling, sizes)), default=0)
                if first < 0:
                    places = ", ".join(f"{n} = {s}" for n, s in sizes.items())
                    yield Refusal(f"{name}[{first}] is used at {places}: before the first element")
        for name in sorted(set(self.dims) - symbols(trace)):
            yield Refusal(f"{name} is a size that decides nothing: the function does not use it, or "
                          "only for a fixed number of elements")  # fmt: skip
        for (_, at), outcomes in self.exits.items():
            if True not in outcomes:
                yield Refusal("this loop exit was never taken", "loops over dimensions", at=at)


def accept(program: Program, image: Image, signature: Signature) -> tuple[OpTrace, Acceptance]:
    """The trace of the function, or the first Refusal; sizes are split into finer classes on
    demand, and those that may choose a formula are tried as data."""
    classes = Classes(tuple(a.name for a in signature.of_kind("dim")))
    first: Refusal | None = None
    while True:
        work = Acceptance(program, image, signature, classes)
        try:
            return _accepted(work), work
        except v.NeedPeriod:
            continue
        except Refusal as refusal:
            modes, first = _modes(work), first or refusal
            if not modes:
                raise first from None
            arguments = tuple(replace(a, data=a.data or a.name in modes) for a in signature.arguments)
            signature = replace(signature, arguments=arguments)


def _modes(work: Acceptance) -> set[str]:
    """The dimensions that only conditions mention: they may choose a formula, as a `mode` does."""
    asked = {work.dims[k] for test, _ in work.asked for _, mono in test.terms for k in mono}
    return asked - symbols(work.trace) if work.trace else set()


def _accepted(work: Acceptance) -> OpTrace:
    trace = work.trace = _first_trace(work)
    while work.pending:
        if len(work.done) > MOST_LIFTS or work.steps > MOST_STEPS:
            raise Refusal(
                f"more than {MOST_LIFTS} size cases, or {MOST_STEPS} instructions, to check",
                "code whose paths are few", "compile at -O1, or with -fno-unroll-loops",
            )  # fmt: skip
        sizes = work.pending.pop(0)
        lifted, nodes = work.run(sizes)
        work.collect(sizes, lifted)
        try:
            compare(trace, work.signature, work.named(sizes), nodes, lifted)
        except Overlap:
            work.push(_wider(work, trace, sizes))
        if not work.pending:
            work.settle(trace)
    trace = upwards(trace)
    for refusal in work.unexplained(trace):
        raise refusal
    return check(canonical(replace(trace, extent_limit=work.limit)))


def _first_trace(work: Acceptance) -> OpTrace:
    """What explains the runs at two tuples of sizes; the small ones are left to be run."""
    first, second = (
        undivided(sizes, work.classes, k) for k, sizes in enumerate(base_sizes(work.program, len(work.dims)))
    )
    periods = work.classes.of(first).periods
    short = tuple(3 if p == 1 else s for s, p in zip(first, periods, strict=True))
    if 2 * prod(short) < prod(first):
        work.learn(short)
    lifted, nodes = work.run(first)
    found = islice(templates(lifted, work.signature, work.named(first)), CANDIDATES)
    fitting = _fitting(work, found, first, lifted, nodes)
    trace = next(fitting)
    work.lengths |= lifted.conditions.lengths
    work.collect(first, lifted)
    if work.dims:  # other sizes tell apart the traces that explain the first ones
        other, nodes = work.run(second)
        trace = next(_fitting(work, chain((trace,), fitting), second, other, nodes))
        work.lengths |= other.conditions.lengths
        work.collect(second, other)
        for sizes in small_sizes(work.classes):
            work.push(sizes)
    return trace


def _wider(work: Acceptance, trace: OpTrace, sizes: Sizes) -> Sizes:
    """The same sizes with strides that keep the rows of the outputs apart: those given as arguments
    are dimensions that no loop runs over. Overlapping outputs are outside the contract."""
    extents = [e for s in trace.stores for _, e in s.domain]
    extents += [n.imm[2] for n in trace.body if n.op is Op.REDUCE]
    counted = frozenset().union(*(e.symbols for e in extents))
    wide = 1 + max(sizes)
    moved = tuple(
        s if name in counted else wide * (2 + place) + s % period
        for place, (name, s, period) in enumerate(
            zip(work.dims, sizes, work.classes.of(sizes).periods, strict=True)
        )
    )
    if moved == sizes or max(moved) > FAR:
        raise Refusal(
            "elements of an output are written twice", "every element written once",
            "the formula must not write one element for several indices",
        )  # fmt: skip
    return moved


def _fitting(
    work: Acceptance, found: Iterable[OpTrace], sizes: Sizes, lifted: Lifted, nodes: Nodes
) -> Iterator[OpTrace]:
    """The traces that are what the run did; where there are none, why the first is not."""
    refused, fits = None, False
    for trace in found:
        try:
            compare(trace, work.signature, work.named(sizes), nodes, lifted)
        except Refusal as refusal:
            refused = refused or refusal
        else:
            fits = True
            yield trace
    if refused and not fits:
        raise refused


def _with(sizes: Sizes, place: int, size: int) -> Sizes:
    return (*sizes[:place], size, *sizes[place + 1 :])


