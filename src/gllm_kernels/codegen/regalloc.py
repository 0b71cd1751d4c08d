"""Virtual -> machine registers: coalesce, then colour in order of start, spilling by weight.

    webs      values that share a register: phi, yield, init and result of a loop, and the
              destination of a two-operand instruction with the source it replaces
    colouring webs by first position, each takes the first register that is free all its life
              (Poletto and Sarkar 1999, with holes)
    spilling  when none is free, the register whose values of that time are used least, loops
              counting tenfold per level, gives them up (or the web itself, if that is less): they
              move to the stack; constants and arguments are loaded again instead

When all webs are coloured, the lines that touch a spilled value are rewritten (`spill`), and what
they load and store gets registers the same way. Ranges of other values stay as they are, so
liveness is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CompileError
from .isa import x86
from .isa.base import Fma, Ins, Isa
from .liveness import Life, liveness
from .machine import IN_MEMORY, Kind, MInst, Program
from .spill import NEVER, Spiller


@dataclass(slots=True)
class Allocation:
    """What the assembler needs: the final program and a machine register per virtual one."""

    program: Program
    register: list[int]  # by virtual register
    ties: list[int | None]  # per line: source whose register the destination has; -1: none has
    slots: dict[int, int]  # stack slot -> bytes


def allocate(program: Program, isa: Isa) -> Allocation:
    """Registers for everything; the program comes back with spill code where it was needed."""
    life = liveness(program)
    webs = Webs(life)
    ties = coalesce(program, webs, life.depth)
    colouring = Colouring(program, isa, webs, ties, life.depth)
    colouring.run()
    register = [colouring.register.get(webs.find(v), -1) for v in range(len(program.classes))]
    spiller = colouring.spiller
    if spiller is None:
        return Allocation(program, register, ties, {})
    program.code, ties = spiller.result()
    return Allocation(program, register, ties, spiller.slots)


# -- coalescing ----------------------------------------------------------------------------------
class Webs:
    """Union-find over virtual registers, with the union of their ranges per web."""

    def __init__(self, life: Life) -> None:
        self.parent = list(range(len(life.ranges)))
        self.single = life.ranges  # of every register by itself
        self.ranges = list(life.ranges)  # of the web, at its root
        self.first, self.last = life.first, life.last
        self.members: dict[int, list[int]] = {}  # of webs of more than one

    def find(self, v: int) -> int:
        parent = self.parent
        while parent[v] != v:
            parent[v] = v = parent[parent[v]]
        return v

    def of(self, root: int) -> list[int]:
        """Everything in a web."""
        return self.members.get(root) or [root]

    def join(self, a: int, b: int) -> bool:
        """Make them one unless they are live at the same time."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return True
        if self.ranges[a] & self.ranges[b]:
            return False
        self.unite(a, b)
        return True

    def unite(self, a: int, b: int) -> None:
        self.members.setdefault(a, [a]).extend(self.members.pop(b, (b,)))
        self.parent[b] = a
        self.ranges[a] |= self.ranges[b]
        self.first[a] = min(self.first[a], self.first[b])
        self.last[a] = max(self.last[a], self.last[b])

    def add(self, v: int, range_: int) -> None:
        """Let a register live longer."""
        root = self.find(v)
        self.single[v] |= range_
        self.ranges[root] |= range_
        if range_:
            self.first[root] = min(self.first[root], (range_ & -range_).bit_length() - 1)
            self.last[root] = max(self.last[root], range_.bit_length() - 1)

    def new(self, range_: int) -> None:
        """One more register, with the next number."""
        self.parent[-1:] = [len(self.parent) - 1, len(self.parent)]
        first, last = (range_ & -range_).bit_length() - 1, range_.bit_length() - 1
        for numbers, its in ((self.single, range_), (self.ranges, range_), (self.first, first),
                             (self.last, last)):
            numbers[-1:] = [its, 0]

    def remove(self, v: int) -> int:
        """The register is not used any more; returns its web."""
        root = self.find(v)
        self.single[v] = total = 0
        for member in self.of(root):
            total |= self.single[member]
        self.ranges[root] = total
        return root


def coalesce(program: Program, webs: Webs, depth: list[int]) -> list[int | None]:
    """Unite what saves a move, deepest loops first and there the back edges' copies first. Returns
    the tie chosen on every line.
    """
    for result, phi, _ in program.results:
        webs.unite(webs.find(phi), webs.find(result))
    copies: dict[int, list[MInst]] = {}
    tied: dict[int, list[tuple[int, int, tuple, tuple[int, ...]]]] = {}
    for i, (kind, ins, defs, srcs, _, _, _, _, _, _, _) in enumerate(program.code):
        if kind is Kind.COPY:
            copies.setdefault(depth[i], []).append(program.code[i])
        elif kind is Kind.OP and (ins.tie >= 0 or ins.__class__ is Fma):
            tied.setdefault(depth[i], []).append((i, defs[0], srcs, tieable(ins, srcs)))
    ties: list[int | None] = [None] * len(program.code)
    for level in sorted({*copies, *tied}, reverse=True):
        for m in copies.get(level, ()):
            for dst, src in zip(m.defs, m.srcs, strict=True):
                if src not in program.fixed and dst not in program.fixed:
                    webs.join(dst, src)
        for i, dst, srcs, choices in tied.get(level, ()):
            ties[i] = tie(webs, dst, srcs, i, choices)
    return ties


def tieable(ins: Ins | Fma, srcs: tuple) -> tuple[int, ...]:
    """Sources whose register the destination may take over, best first."""
    if ins.tie >= 0:
        return (0, 1) if ins.swap and srcs[1] != IN_MEMORY else (ins.tie,)
    choices = (2, 0, 1) if ins.f213 is not None else (2,)
    return tuple([i for i in choices if srcs[i] != IN_MEMORY])


def tie(webs: Webs, dst: int, srcs: tuple, position: int, choices: tuple[int, ...]) -> int:
    """The source to overwrite, or -1: then the assembler fills the destination first, which so
    must differ from everything read.
    """
    web = webs.find(dst)
    for i in choices:
        if webs.find(srcs[i]) == web:
            return i
    for i in choices:
        if webs.join(dst, srcs[i]):
            return i
    webs.add(dst, 1 << 2 * position)
    return -1


# -- colouring -----------------------------------------------------------------------------------
class Colouring:
    """Gives webs registers, and takes them away again."""

    def __init__(self, program: Program, isa: Isa, webs: Webs, ties: list[int | None],
                 depth: list[int]) -> None:
        self.program, self.isa, self.webs, self.ties, self.depth = program, isa, webs, ties, depth
        self.files = {"g": x86.INTEGERS, "k": x86.MASKS,
                      "v": tuple(range(x86.R.ZMM0, x86.R.ZMM0 + isa.vregs))}
        registers = [r for file in self.files.values() for r in file]
        self.fixed = dict.fromkeys(registers, 0)  # when the machine says who has it
        self.busy = dict.fromkeys(registers, 0)
        self.placed: dict[str, list[int]] = {class_: [] for class_ in self.files}
        self.alive: dict[str, list[int]] = {class_: [] for class_ in self.files}
        self.register: dict[int, int] = {}  # of every coloured web
        self.pending: list[int] = []
        self.spiller: Spiller | None = None
        self.hints: dict[int, list[int]] = {}

    def run(self) -> None:
        webs, fixed = self.webs, self.program.fixed
        for v, register in fixed.items():
            self.register[v] = register
            self.fixed[register] |= webs.ranges[v]
            self.busy[register] |= webs.ranges[v]
        self.reserve_for_calls()
        self.find_hints()
        roots = [v for v in range(len(self.program.classes))
                 if webs.parent[v] == v and webs.ranges[v] and v not in fixed]
        for root in sorted(roots, key=webs.first.__getitem__):
            self.place(root)
        self.alive = self.placed
        while self.spiller is not None and self.spiller.lines:
            self.spiller.rewrite()
            while self.pending:
                self.place(self.pending.pop())

    def reserve_for_calls(self) -> None:
        """A call destroys all registers but those that must be saved (AMD64 ABI section 3.2.1)."""
        calls = [i for i, m in enumerate(self.program.code) if m.ins is x86.CALL]
        written = sum(2 << 2 * i for i in calls)
        for register in self.fixed.keys() - x86.SAVED:
            self.fixed[register] |= written
            self.busy[register] |= written

    def find_hints(self) -> None:
        """Webs that a web would like to share a register with: the other side of its copies."""
        find = self.webs.find
        for m in self.program.code:
            if m.kind is Kind.COPY:
                for dst, src in zip(m.defs, m.srcs, strict=True):
                    a, b = find(dst), find(src)
                    if a != b:
                        self.hints.setdefault(a, []).append(b)
                        self.hints.setdefault(b, []).append(a)

    def place(self, web: int) -> None:
        """A register for a web, or for what is left of it when there are too few."""
        file = order = self.files[self.program.classes[web]]
        if web in self.hints:
            order = (*(self.register[h] for h in self.hints[web] if h in self.register), *file)
        busy = self.busy
        while range_ := self.webs.ranges[web]:
            for register in order:
                if not busy[register] & range_:
                    self.take(web, register)
                    return
            self.make_room(web, range_, file)

    def take(self, web: int, register: int) -> None:
        self.register[web] = register
        self.busy[register] |= self.webs.ranges[web]
        class_ = self.program.classes[web]
        self.placed[class_].append(web)
        if self.alive is not self.placed:
            self.alive[class_].append(web)

    def make_room(self, web: int, range_: int, file: tuple[int, ...]) -> None:
        """Spill what one register holds during `range_`, or the web, whichever is used least. Of a
        web in the way only the part that is goes: a sum whose value is too much after a loop stays
        in its register inside.
        """
        webs, spiller = self.webs, self.spiller or Spiller(self.program, self.isa, self)
        self.spiller = spiller
        first = (range_ & -range_).bit_length() - 1
        rivals = self.rivals(web, first, range_)
        cost = {r: 0.0 for r in file if not self.fixed[r] & range_}
        for o, parts in rivals.items():
            if self.register[o] in cost:
                for v in parts:
                    cost[self.register[o]] += spiller.weight(v, first // 2)
        victims = [v for v in webs.of(web) if webs.single[v]]
        least = sum([spiller.weight(v, first // 2) for v in victims])
        cheapest = min(cost, key=cost.__getitem__, default=0)
        if cheapest and cost[cheapest] < least:
            victims = [v for o in rivals if self.register[o] == cheapest for v in rivals[o]]
        elif least == NEVER:
            raise CompileError(f"kernel {self.program.kernel.name}: more than {len(file)} values "
                               f"of one instruction; {self.isa.name} cannot hold them")
        for v in victims:
            self.drop(v)
        spiller.spill(victims)

    def rivals(self, web: int, first: int, range_: int) -> dict[int, list[int]]:
        """Coloured webs that are in the way, and the parts of them that are. Webs are placed in
        order of start: what ended before this one (at bit `first`) is in no later one's way.
        """
        webs, class_ = self.webs, self.program.classes[web]
        if self.alive is not self.placed:
            last = webs.last
            self.alive[class_] = [o for o in self.alive[class_] if last[o] >= first]
        return {o: [v for v in webs.of(o) if webs.single[v] & range_]
                for o in self.alive[class_] if webs.ranges[o] & range_}

    def drop(self, v: int) -> None:
        """Give back the register of one value while the rest of its web keeps it."""
        root = self.webs.find(v)
        before = self.webs.ranges[root]
        self.webs.remove(v)
        if root in self.register:
            self.busy[self.register[root]] ^= before ^ self.webs.ranges[root]

    # -- what spill code asks for ----------------------------------------------------------------
    def fresh(self, class_: str, range_: int) -> int:
        """A new virtual register, coloured after this rewriting."""
        v = self.program.fresh(class_)
        self.webs.new(range_)
        self.pending.append(v)
        return v

    def beside(self, v: int, range_: int) -> int:
        """A new one in the register of `v`, which is free then; -1 if it is not."""
        register = self.register.get(self.webs.find(v), -1)
        if register < 0 or self.busy[register] & range_:
            return -1
        new = self.fresh(self.program.classes[v], range_)
        self.take(self.pending.pop(), register)
        return new

    def lengthen(self, v: int, range_: int) -> bool:
        """Let a value live at more positions if its register is free there."""
        root = self.webs.find(v)
        more = range_ & ~self.webs.single[v]
        if root in self.register:
            register = self.register[root]
            if self.busy[register] & more:
                return False
            self.busy[register] |= more
            if root not in self.alive[self.program.classes[v]]:
                self.alive[self.program.classes[v]].append(root)
        self.webs.add(v, more)
        return True
