"""When registers do not suffice: values live on the stack, or are computed again.

A victim is stored where it is made and loaded where it is used, except that

    an innermost loop that only reads it loads it once, in front of the loop
    a constant or argument is loaded again from where it came from
    an instruction that can read memory reads the stack slot itself
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .isa import x86
from .isa.base import Fma, Isa
from .liveness import Life, reads
from .machine import IN_MEMORY, Addr, Kind, MInst, Program


@dataclass(slots=True)
class Stack:
    """What earlier rounds of allocation have put on the stack."""

    slots: dict[int, int] = field(default_factory=dict)  # slot -> bytes
    brief: set[int] = field(default_factory=set)  # between memory and one instruction
    local: set[int] = field(default_factory=set)  # loaded in front of one loop, for it


class Surroundings:
    """The innermost loop around every position, where each loop lies, and what is used in it."""

    def __init__(self, program: Program, life: Life) -> None:
        self.program, self.life = program, life
        self.loop_at: list[int] = []
        self.entry: dict[int, int] = {}  # loop -> position of the copy that enters it
        self.back: dict[int, int] = {}
        self.used: set[tuple[int, int]] = set()  # (value, innermost loop)
        self.defined: dict[int, int] = {}  # value -> first position

    def loop_of(self, position: int) -> int:
        """The innermost loop around a position, -1: none. The first question fills the tables:
        most programs need none of them.
        """
        if not self.loop_at:
            self.survey()
        return self.loop_at[position]

    def survey(self) -> None:
        stack = [-1]
        for i, m in enumerate(self.program.code):
            if m.kind is Kind.COPY and m.target >= 0:
                self.entry.setdefault(m.target, i)
            if m.kind is Kind.HEAD:
                stack.append(m.target)
            inside = stack[-1]
            self.loop_at.append(inside)
            for v in self.life.reads[i]:
                self.used.add((v, inside))
            for v in m.defs:
                if v not in self.defined:
                    self.defined[v] = i
            if m.kind is Kind.BACK:
                self.back[m.target] = i
                stack.pop()
        self.defined |= {r: self.back[loop] for r, _, loop in self.program.results}

    def enters(self, v: int, loop: int) -> bool:
        """Is the value made before the loop, so that it can be loaded in front of it?"""
        return loop >= 0 and not self.entry[loop] <= self.defined[v] <= self.back[loop]

    def discount(self, v: int, loop: int, stack: Stack) -> float:
        """A value that only passes through a loop is loaded again in front of those that use it."""
        return 1.0 if v in stack.local or (v, loop) in self.used else 0.1


def spill(program: Program, isa: Isa, around: Surroundings, victims: dict[int, int],
          stack: Stack) -> None:
    """Give every victim a stack slot (one per web), or repeat its definition where that costs no
    more.
    """
    definitions: dict[int, list[MInst]] = {}
    for m in program.code:
        for v in m.defs:
            definitions.setdefault(v, []).append(m)
    home: dict[int, Addr | MInst] = {}
    shared: dict[int, Addr] = {}
    gone: set[int] = set()  # values whose definition is repeated, not kept
    for v, web in sorted(victims.items()):
        defs = definitions.get(v, ())
        if len(defs) == 1 and defs[0].free and lasts(defs[0], victims, stack):
            at = defs[0].mem
            home[v] = at if at is not None and at.slot >= 0 else defs[0]
            gone.add(v)
            continue
        if web not in shared:
            shared[web] = Addr(slot=len(stack.slots))
            stack.slots[len(stack.slots)] = isa.vector_bytes if program.classes[v] == "v" else 8
        home[v] = shared[web]
    Spiller(program, isa, home, gone, stack).run(around)


def lasts(m: MInst, victims: dict[int, int], stack: Stack) -> bool:
    """Is the address `m` reads from (the argument table) in its register wherever m is repeated?"""
    base = m.mem.base if m.mem is not None else -1
    return base < 0 or not (base in victims or base in stack.brief)


def renamed(m: MInst, names: dict[int, int]) -> MInst:
    """The instruction reading other registers."""
    if not names or not any(v in names for v in reads(m)):
        return m
    mem = m.mem
    if mem is not None:
        mem = mem._replace(base=names.get(mem.base, mem.base),
                           index=names.get(mem.index, mem.index))
    return m._replace(srcs=tuple(names.get(v, v) for v in m.srcs), mem=mem)


class Spiller:
    """Rewrites a program so that the values in `home` live in memory between uses."""

    def __init__(self, program: Program, isa: Isa, home: dict[int, Addr | MInst],
                 gone: set[int], stack: Stack) -> None:
        self.program, self.isa, self.home, self.gone = program, isa, home, gone
        self.stack = stack
        self.out: list[MInst] = []
        self.results, self.kept = list(program.results), []

    def run(self, around: Surroundings) -> None:
        ahead = self.in_front(around)
        for i, m in enumerate(self.program.code):
            if m.kind is Kind.COPY and around.entry.get(m.target) == i:
                for v, reg in ahead.get(m.target, {}).items():
                    self.load(v, reg)
            inside = around.loop_at[i]
            m = renamed(m, ahead[inside]) if inside in ahead else m
            if self.home.keys().isdisjoint(m.defs) and self.home.keys().isdisjoint(reads(m)):
                self.out.append(m)
            elif m.kind is Kind.COPY:
                self.copy(m)
            elif not any(v in self.gone for v in m.defs):
                self.op(m)
            if m.kind is Kind.BACK:
                self.after_loop(m.target)
        self.program.code = self.out
        self.program.results = [r for r in self.results if r[0] >= 0] + self.kept

    def in_front(self, around: Surroundings) -> dict[int, dict[int, int]]:
        """Innermost loop -> {value: register it is loaded to before it}, for spilled values which
        that loop only reads. If that register is spilled too, its uses load for themselves.
        """
        found: dict[int, dict[int, int]] = {}
        for v, loop in sorted(around.used):
            if (v in self.home and v not in self.stack.local and loop in self.program.innermost
                    and around.enters(v, loop)):
                reg = self.program.fresh(self.program.classes[v])
                self.stack.local.add(reg)
                found.setdefault(loop, {})[v] = reg
        return found

    def after_loop(self, loop: int) -> None:
        """A result is its phi's register: where only one of them is in memory, load or store."""
        for i, (result, phi, number) in enumerate(self.results):
            if number != loop or (result not in self.home and phi not in self.home):
                continue
            if result not in self.home:
                self.out.append(MInst(Kind.OP, self.moves(phi)[1], (result,), (), self.home[phi],
                                      op="spill", spill=True))
            elif phi not in self.home:
                reg = self.fresh(result)
                self.keep(result, reg)
                self.kept.append((reg, phi, loop))
            self.results[i] = (-1, -1, -1)

    def moves(self, v: int) -> tuple:
        """Register move, load and store of a value's class."""
        class_ = self.program.classes[v]
        if class_ == "g":
            return x86.MOV, x86.MOV_LOAD, x86.MOV_STORE
        return (self.isa.mask_moves if class_ == "k"
                else (self.isa.move, self.isa.load, self.isa.store))

    def fresh(self, v: int) -> int:
        reg = self.program.fresh(self.program.classes[v])
        self.stack.brief.add(reg)
        return reg

    def reload(self, v: int) -> int:
        """A short-lived register holding a spilled value, loaded here."""
        reg = self.fresh(v)
        self.load(v, reg)
        return reg

    def load(self, v: int, reg: int, loop: int = -1) -> None:
        """Load a spilled value; `loop` says whose phi the register is, if it is one. What is loaded
        for one loop can be loaded again: its slot is not written while the loop runs.
        """
        home = self.home[v]
        if isinstance(home, MInst):
            self.out.append(home._replace(defs=(reg,), target=loop))
        else:
            self.out.append(MInst(Kind.OP, self.moves(v)[1], (reg,), (), home, op="spill",
                                  target=loop, free=reg in self.stack.local, spill=True))

    def keep(self, v: int, reg: int) -> None:
        """Store a register to the slot of a spilled value."""
        self.out.append(MInst(Kind.OP, self.moves(v)[2], (), (reg,), self.home[v], op="spill",
                              spill=True))

    def op(self, m: MInst) -> None:
        known: dict[int, int] = {}

        def inside(v: int) -> int:
            if v not in self.home:
                return v
            if v not in known:
                known[v] = self.reload(v)
            return known[v]

        mem, srcs = m.mem, m.srcs
        if mem is not None:
            mem = mem._replace(base=inside(mem.base), index=inside(mem.index))
        elif (at := self.direct(m)) >= 0:
            mem = self.home[m.srcs[at]]
            srcs = tuple(IN_MEMORY if i == at else v for i, v in enumerate(srcs))
        srcs = tuple(inside(v) for v in srcs)
        defs = tuple(self.fresh(v) if v in self.home else v for v in m.defs)
        target = m.target if defs == m.defs else -1  # what goes to a slot is no phi any more
        self.out.append(m._replace(defs=defs, srcs=srcs, mem=mem, target=target))
        for old, new in zip(m.defs, defs, strict=True):
            if old != new:
                self.keep(old, new)

    def direct(self, m: MInst) -> int:
        """A source the instruction itself can take from its stack slot."""
        ins = m.ins
        choices = ((0, 1, 2) if isinstance(ins, Fma)
                   else (ins.mem,) if ins is not None and ins.mem >= 0 else ())
        for i in choices:
            v = m.srcs[i]
            if (isinstance(self.home.get(v), Addr) and m.srcs.count(v) == 1
                    and v not in m.defs):
                return i
        return -1

    def copy(self, m: MInst) -> None:
        """Slots first, then registers, then registers loaded from slots that were not written."""
        homes = self.home
        pairs = [(dst, src) for dst, src in zip(m.defs, m.srcs, strict=True)
                 if dst not in homes or homes[dst] != homes.get(src)]
        written = {homes[dst] for dst, _ in pairs if dst in homes}
        direct, late = [], []
        for dst, src in pairs:
            if dst not in homes:
                if src not in homes:
                    direct.append((dst, src))
                elif homes[src] in written:
                    direct.append((dst, self.reload(src)))
                else:
                    late.append((dst, src))
        self.fill_slots([(dst, src) for dst, src in pairs if dst in homes])
        self.out.append(m._replace(defs=tuple(d for d, _ in direct),
                                   srcs=tuple(s for _, s in direct)))
        for dst, src in late:
            self.load(src, dst, m.target)

    def fill_slots(self, pending: list[tuple[int, int]]) -> None:
        """Parallel moves into slots; where they form a cycle one slot is read in advance."""
        held: dict[Addr, int] = {}
        while pending:
            waiting = {self.home.get(src) for _, src in pending} - held.keys()
            ready = [pair for pair in pending if self.home[pair[0]] not in waiting]
            if not ready:
                first = pending[0][0]
                held[self.home[first]] = self.reload(first)
                continue
            for dst, src in ready:
                home = self.home.get(src)
                reg = held[home] if home in held else src if home is None else self.reload(src)
                self.keep(dst, reg)
            pending = [pair for pair in pending if pair not in ready]
