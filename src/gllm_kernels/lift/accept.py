"""Whether a formula found at one tuple of sizes holds at all sizes.

The conditions that a run records cut the sizes into cells; inside a cell the same code runs. Each
cell is run at sample sizes and compared with the formula node for node: at 0, 1 and 2, on both
sides of every threshold, and at sizes that outrun any state the code could carry along. What
cannot be sampled (a threshold too far away, an exit that is never taken) refuses the function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain, islice, product
from itertools import count as count_from

from iced_x86 import OpKind, Register

from ..trace.affine import Affine
from ..trace.ir import Op, OpTrace
from ..trace.shapes import reached
from ..trace.simplify import canonical
from ..trace.spec import check, symbols
from . import value as v
from .cells import Path, Sizes, Test, find, impossible
from .conditions import Condition
from .elf import Image
from .engine import Lifted, execute
from .error import Refusal
from .expand import Overlap, compare
from .fold import templates, upwards
from .nodes import Nodes
from .operands import GENERAL, VECTOR
from .program import Program
from .signature import Signature

# Sizes at which the formula is read: 2 apart, so that n and n-1 are never both a dimension.
FIRST, SECOND = 3, (6, 4, 3, 10, 8, 5)
FRAMES = (Register.RSP, Register.RBP, Register.RIP)
ORDINARY = (0, 1, 2, 4, 8, 16)  # immediates that every loop over floats has
FAR = 300  # the largest size that is sampled
MOST_LIFTS, MOST_STEPS, MOST_CLASSES = 600, 500_000, 64
CANDIDATES = 8
Cell = tuple[Sizes, tuple[int, ...]]  # remainders of the sizes, numbers of the tests of the path


@dataclass
class Group:
    """Runs of the same blocks, by sizes that differ in how often loops run only."""

    lifted: Lifted
    cells: dict[Cell, None] = field(default_factory=dict)
    runs: list[Sizes] = field(default_factory=list)


@dataclass
class Acceptance:
    """The work list of sizes, and what all runs recorded."""

    program: Program
    image: Image
    signature: Signature
    periods: dict[str, int] = field(default_factory=dict)  # of dimensions with remainders
    learned: dict = field(default_factory=dict)  # by class of remainders
    done: dict[Sizes, Lifted] = field(default_factory=dict)
    pending: list[Sizes] = field(default_factory=list)
    tests: dict[tuple[Sizes, Test], int] = field(default_factory=dict)  # numbers, see `_number`
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

    @cached_property
    def dims(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.signature.of_kind("dim"))

    def named(self, sizes: Sizes) -> dict[str, int]:
        return dict(zip(self.dims, sizes, strict=True))

    def period(self, place: int) -> int:
        return self.periods.get(self.dims[place], 1)

    def rest(self, sizes: Sizes) -> Sizes:
        """The class of the sizes: their remainders."""
        return tuple(size % self.period(place) for place, size in enumerate(sizes))

    def run(self, sizes: Sizes) -> tuple[Lifted, Nodes]:
        """One symbolic execution; a refusal away from the first sizes says where."""
        nodes = Nodes()
        try:
            lifted = execute(
                self.program, self.image, self.signature, self.named(sizes), nodes,
                self.learned.setdefault(self.rest(sizes), {}), self.periods,
            )  # fmt: skip
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
        rest, path, fixed = self.rest(sizes), {}, []
        for condition, outcome in lifted.conditions.recorded.items():
            number = self._number(condition, sizes) + (not outcome)
            path[number] = None
            if not condition.jump:
                fixed.append(number)
        cell = rest, tuple(path)
        if cell not in self.cells:
            self.cells.add(cell)
            self.untied.append(cell)
            self.taken.update((rest, cell[1][:k]) for k in range(len(path) + 1))
        if lifted.memory or lifted.result:
            key = rest, frozenset(lifted.conditions.visited), tuple(fixed)
            group = self.groups.setdefault(key, Group(lifted))
            group.cells[cell] = None
            group.runs.append(sizes)

    def _number(self, condition: Condition, sizes: Sizes) -> int:
        """An even number for a test, the next one for its negation."""
        rest, test = self.rest(sizes), self._test(condition)
        number = self.tests.get((rest, test))
        if number is None:
            number = self.tests[rest, test] = len(self.asked)
            self.asked += [(test, condition), (test.negated(), condition)]
            self._sample(condition, sizes)
        return number

    def push(self, sizes: Sizes) -> None:
        if sizes not in self.done and sizes not in self.pending and min(sizes, default=0) >= 0:
            self.pending.append(sizes)

    # ---- which sizes a condition asks for

    def _test(self, condition: Condition) -> Test:
        terms = condition.poly.terms.items()
        return Test(tuple((c, tuple(map(self._place, m))) for m, c in terms), condition.relation)

    def _sample(self, condition: Condition, sizes: Sizes) -> None:
        """n crosses -rest/coefficient: run on both sides of it."""
        terms = condition.poly.terms
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
            period = self.period(place)
            rest = condition.poly.value - coef * (sizes[place] // period)
            threshold = -rest // coef
            self._near(condition, threshold * period)
            if threshold > 2 and not several:
                for size in (threshold + step for step in (-1, 0, 1, 2, 5)):
                    self.push(_with(sizes, place, period * size + sizes[place] % period))

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
        for rest, path in cells:
            for k, number in enumerate(path):
                turned = rest, (*path[:k], number ^ 1)
                if turned not in self.taken and turned not in self.wanted:
                    self._turn(turned)
        for group in self.groups.values():
            self._vary(group, trace)

    def _at(self, cell: Cell) -> int:
        return self.asked[cell[1][-1]][1].at

    def _turn(self, cell: Cell) -> None:
        """Sizes that take this branch, or a proof that there are none."""
        found = self._find(cell, (0,) * len(cell[0]))
        if found:
            self.push(found)
            self.wanted.add(cell)
        elif not impossible(self._path(cell), tuple(s // p for s, p in self._spans(self.limit))):
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
        state = max(state_size(self, group.lifted), lag(trace) + 3)
        if state > FAR:
            raise Refusal(f"{state} elements of state or distance: too far to check (limit {FAR})")
        rest, _ = next(iter(group.cells))
        other = any(rest) or not group.lifted.conditions.lengths <= self.lengths
        for place in range(count):
            sizes = {s[place] for s in runs}
            if max(sizes) < state:
                for others in (general, (0,) * count):
                    if self._push_found(group, _with(others, place, state)):
                        break
            elif other and len(sizes) < 3:
                self._push_found(group, _with(general, place, max(sizes) + 1))

    def _push_found(self, group: Group, low: Sizes, apart: bool = False) -> bool:
        for cell in group.cells:
            found = self._find(cell, low, apart)
            if found:
                self.push(found)
                return True
        return False

    def _find(self, cell: Cell, low: Sizes, apart: bool = False) -> Sizes | None:
        """Sizes of this path that are at least `low`."""
        rest, spans = cell[0], self._spans(FAR)
        start = tuple(
            max(0, -(-(a - r) // p)) for a, r, (_, p) in zip(low, rest, spans, strict=True)
        )
        end = tuple((far - r) // p for r, (far, p) in zip(rest, spans, strict=True))
        found = find(self._path(cell), start, end, apart)
        return found and tuple(q * p + r for q, r, (_, p) in zip(found, rest, spans, strict=True))

    def _spans(self, far: int) -> list[tuple[int, int]]:
        return [(far, self.period(place)) for place in range(len(self.dims))]

    def unexplained(self, trace: OpTrace) -> Iterator[Refusal]:
        """What all samples together did not settle."""
        for name, sizes in product(trace.names("in", "out", "inout"), self.done):
            first = min((low for low, _ in reached(trace, name, self.named(sizes))), default=0)
            if first < 0:
                places = ", ".join(f"{n} = {s}" for n, s in self.named(sizes).items())
                yield Refusal(f"{name}[{first}] is used at {places}: before the first element")
        for name in sorted(set(self.dims) - symbols(trace)):
            yield Refusal(f"{name} is a size that decides nothing: the function does not use it, or "
                          "only for a fixed number of elements")  # fmt: skip
        for (_, at), outcomes in self.exits.items():
            if True not in outcomes:
                yield Refusal("this loop exit was never taken", "loops over dimensions", at=at)


def accept(program: Program, image: Image, signature: Signature) -> tuple[OpTrace, Acceptance]:
    """The trace of the function, or a Refusal; sizes are split into finer classes on demand."""
    work = Acceptance(program, image, signature)
    while True:
        try:
            return _accepted(work), work
        except v.NeedPeriod as need:
            names = {signature.arguments[x].name: p for x, p in need.periods.items()}
            work = Acceptance(program, image, signature, work.periods | names)


def _accepted(work: Acceptance) -> OpTrace:
    program, signature = work.program, work.signature
    first, second = base_sizes(program, len(work.dims))
    first, second = (_of_class_0(work, sizes, k) for k, sizes in enumerate((first, second)))
    lifted, nodes = work.run(first)
    found = islice(templates(lifted, signature, work.named(first)), CANDIDATES)
    fitting = _fitting(work, found, first, lifted, nodes)
    trace = next(fitting)
    work.lengths |= lifted.conditions.lengths
    work.collect(first, lifted)
    if work.dims:  # other sizes tell apart the traces that explain the first ones
        other, nodes = work.run(second)
        trace = next(_fitting(work, chain((trace,), fitting), second, other, nodes))
        work.lengths |= other.conditions.lengths
        work.collect(second, other)
        _push_small(work, state_size(work, lifted))
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
            compare(trace, signature, work.named(sizes), nodes, lifted)
        except Overlap:
            work.push(_wider(work, trace, sizes))
        if not work.pending:
            work.settle(trace)
    trace = upwards(trace)
    for refusal in work.unexplained(trace):
        raise refusal
    return check(canonical(replace(trace, extent_limit=work.limit)))


def _wider(work: Acceptance, trace: OpTrace, sizes: Sizes) -> Sizes:
    """The same sizes with strides that keep the rows of the outputs apart: those given as arguments
    are dimensions that no loop runs over. Overlapping outputs are outside the contract."""
    extents = [e for s in trace.stores for _, e in s.domain]
    extents += [n.imm[2] for n in trace.body if n.op is Op.REDUCE]
    counted = frozenset().union(*(e.symbols for e in extents))
    wide = 1 + max(sizes)
    moved = tuple(
        s if name in counted else wide * (2 + place) + s % work.period(place)
        for place, (name, s) in enumerate(zip(work.dims, sizes, strict=True))
    )
    if moved in work.done or moved == sizes or max(moved) > FAR:
        raise Refusal(
            "elements of an output are written twice", "every element written once",
            "the formula must not write one element for several indices",
        )  # fmt: skip
    return moved


def _of_class_0(work: Acceptance, sizes: Sizes, more: int) -> Sizes:
    """Multiples of the periods, at least two of them, so that no remainder loop runs."""
    chosen: list[int] = []
    for place, size in enumerate(sizes):
        period = work.period(place)
        if period > 1:
            size = period * (max(2, -(-size // period)) + more)
            while size in chosen or size in sizes[place + 1 :]:
                size += period
        chosen.append(size)
    return tuple(chosen)


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


def _push_small(work: Acceptance, state: int) -> None:
    """0 and 1 in every combination, then 2 in each place."""
    count = len(work.dims)
    for sizes in product((0, 1), repeat=count):
        work.push(sizes)
    small = tuple(2 + k % 2 for k in range(count))
    _push_classes(work, small, state)
    for place in range(count):
        work.push(_with(small, place, 2))


def _push_classes(work: Acceptance, small: Sizes, state: int) -> None:
    """Every class of remainders: the first sizes of it; where no other dimension has a remainder,
    also later ones and one that outruns the state."""
    places = [p for p in range(len(small)) if work.period(p) > 1]
    classes = list(product(*(range(work.period(p)) for p in places)))
    if len(classes) > MOST_CLASSES:
        raise Refusal(
            f"code that depends on {len(classes)} classes of remainders of the sizes",
            f"at most {MOST_CLASSES}",
            "compile with -fno-unroll-loops, or at -O1",
        )
    for rests in classes if places else ():
        starts = [range(r, r + 4 * work.period(p), work.period(p))
                  for p, r in zip(places, rests, strict=True)]  # fmt: skip
        far = [r + -(-max(0, state - r) // work.period(p)) * work.period(p)
               for p, r in zip(places, rests, strict=True)]  # fmt: skip
        cases = [*zip(*starts, strict=True), *([far[k] if k == j else s[1]
                 for k, s in enumerate(starts)] for j in range(len(places)))]  # fmt: skip
        if sum(map(bool, rests)) > 1:
            cases = cases[:2]
        for case in cases:
            sizes = dict(zip(places, case, strict=True))
            for base in (small, (1,) * len(small)):
                work.push(tuple(sizes.get(p, s) for p, s in enumerate(base)))


def _with(sizes: Sizes, place: int, size: int) -> Sizes:
    return (*sizes[:place], size, *sizes[place + 1 :])


def base_sizes(program: Program, count: int) -> tuple[Sizes, Sizes]:
    """Two tuples of sizes that do not occur as constants in the code."""
    if count > len(SECOND):
        raise Refusal(f"{count} dimensions; at most {len(SECOND)} are lifted")
    used = set(immediates(program)) - set(ORDINARY)
    free = (s for s in count_from(5 if count == 1 else FIRST, 2) if s not in used)
    return tuple(islice(free, count)), (8,) if count == 1 else SECOND[:count]


def immediates(program: Program) -> Iterator[int]:
    """Constants of the code, displacements also as element counts, but for places on the stack."""
    for i in program.instructions:
        for k in range(i.op_count):
            if i.op_kind(k) == OpKind.MEMORY and i.memory_base not in FRAMES:
                size = abs(v.signed(i.memory_displacement, 64))
                yield from (size, size // 4)
            elif OpKind.IMMEDIATE8 <= i.op_kind(k) <= OpKind.IMMEDIATE32TO64:
                yield abs(v.signed(i.immediate(k), 64))


def state_size(work: Acceptance, lifted: Lifted) -> int:
    """More elements than the code can remember: registers and stack slots.

    A delay line of k floats looks like a constant until k + 1 elements have passed.
    """
    general, vector = registers(work.program, len(work.program.inlined))
    return 4 + vector + lifted.slots + (general if lifted.conditions.integer_data else 0)


@cache
def registers(program: Program, calls: int) -> tuple[int, int]:
    """The number of integer and vector registers that occur in the function and its `calls`."""
    used = {
        i.op_register(k)
        for i in program.instructions
        for k in range(i.op_count)
        if i.op_kind(k) == OpKind.REGISTER
    }
    return len({GENERAL[r][0] for r in used & GENERAL.keys()}), len(used & VECTOR.keys())


def lag(trace: OpTrace) -> int:
    """More than the distances between what is written and what is read or written elsewhere in the
    same array: they meet at small sizes or, where no coefficient is larger, not at all.

    Of one store alone, out[1000*i + 3*j] may write an element twice; a coefficient with a dimension
    keeps rows apart. Dimensions count as 2.
    """
    dims = frozenset(trace.names("dim"))
    distances = [0]
    for number, store in enumerate(trace.stores):
        fixed = [abs(c) for c, m in store.index.terms if m and not dims & set(m)]
        distances.append(sum(fixed) if len(fixed) > 1 else 0)
        others = [o.index for o in trace.stores[:number] if o.param == store.param]
        others += [n.imm[1] for n in trace.body if n.op is Op.LOAD and n.imm[0] == store.param]
        for other in others:
            terms = (other - store.index).terms
            distances.append(sum(abs(c) << len(dims & set(m)) for c, m in terms))
    return max(distances)
