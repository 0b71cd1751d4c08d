"""When registers do not suffice: values live on the stack, or are computed again.

A spilled value is stored where it is made and loaded where it is used, except that

    an innermost loop that only reads it loads it once, in front of the loop
    a constant or argument is loaded again from where it came from
    an instruction that can read memory reads the stack slot itself
    a two-operand instruction has its first source loaded into the destination

A line of the program is always rewritten as a whole, from what it was before any spilling; what it
loads and stores goes through registers that live on that line only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .isa import x86
from .isa.base import Fma, Isa
from .machine import IN_MEMORY, Addr, Kind, MInst, Program

if TYPE_CHECKING:
    from .regalloc import Colouring

NEVER = float("inf")  # weight of what cannot be spilled
Tied = tuple[MInst, "int | None"]  # an instruction and its tie


class Spiller:
    """What is on the stack, and the lines rewritten for it."""

    def __init__(self, program: Program, isa: Isa, colouring: Colouring) -> None:
        self.program, self.isa, self.colouring = program, isa, colouring
        self.webs = colouring.webs
        self.slots: dict[int, int] = {}  # slot -> bytes
        self.slot_of: dict[int, Addr] = {}  # web -> its slot
        self.home: dict[int, Addr | MInst] = {}  # spilled value -> slot, or what makes it again
        self.gone: set[int] = set()  # values whose definition is repeated, not kept
        self.ahead: dict[int, dict[int, int]] = {}  # loop -> {value: register loaded before it}
        self.local: dict[int, tuple[int, int]] = {}  # such a register -> value, loop
        self.weights: dict[int, float] = {}
        self.loops_of: dict[int, set[int]] = {}  # the loops that use a value
        self.weight_at = [10.0**d for d in colouring.depth]
        self.lines: set[int] = set()  # to be rewritten
        self.written: dict[int, list[Tied]] = {}
        self.brief: dict[int, list[int]] = {}  # registers made for them
        self.position, self.out = 0, []
        self.survey()

    def survey(self) -> None:
        """The innermost loop around every position, where each lies, and who uses a value."""
        self.loop_at: list[int] = []
        self.entry: dict[int, int] = {}  # loop -> position of the copy that enters it
        self.back: dict[int, int] = {}
        self.touched: list[list[int]] = [[] for _ in range(len(self.program.classes) + 1)]
        stack, touched = [-1], self.touched
        for i, (kind, _, defs, srcs, mem, _, _, _, target, _, _) in enumerate(self.program.code):
            if kind is Kind.COPY and target >= 0:
                self.entry.setdefault(target, i)
            elif kind is Kind.HEAD:
                stack.append(target)
            self.loop_at.append(stack[-1])
            for v in defs:
                touched[v].append(i)
            for v in srcs:
                touched[v].append(i)
            if mem is not None:
                touched[mem.base].append(i)
                touched[mem.index].append(i)
            if kind is Kind.BACK:
                self.back[target] = i
                stack.pop()
        self.leaves = {}  # result or phi -> where its loop ends
        for result, phi, loop in self.program.results:
            self.leaves.setdefault(result, []).append(self.back[loop])
            self.leaves.setdefault(phi, []).append(self.back[loop])
        self.made_at = {r: self.back[loop] for r, _, loop in self.program.results}

    # -- what to spill ---------------------------------------------------------------------------
    def weight(self, v: int, position: int) -> float:
        """How often a value is used, loops counting tenfold; if the loop around `position` does not
        use it, little: it is then loaded in front of the loops that do.
        """
        weight = self.weights.get(v)
        if weight is None:
            weight = self.weights[v] = sum([self.weight_at[i] for i in self.touched[v]])
            self.loops_of[v] = {self.loop_at[i] for i in self.touched[v]}
        passing = self.loop_at[position] not in self.loops_of[v] and v not in self.local
        return weight * 0.1 if passing else weight

    def spill(self, victims: list[int]) -> None:
        """Values lose their registers: every line that touches them is to be rewritten."""
        for v in victims:
            self.lines.update(self.touched[v])
            if v in self.local:
                value, loop = self.local[v]
                del self.ahead[loop][value]
                self.lines.add(self.entry[loop])
                continue
            self.lines.update(self.leaves.get(v, ()))
            self.home[v] = self.home_of(v)
            for loop in self.loops_of[v] & self.program.innermost:
                if self.enters(v, loop):
                    self.load_ahead(v, loop)

    def home_of(self, v: int) -> Addr | MInst:
        """What is made at no cost is made again; else a stack slot, the same for a whole web."""
        m = self.program.code[self.first(v)]
        if m.kind is Kind.OP and m.free and self.lasts(m):
            self.gone.add(v)
            return m
        web = self.webs.find(v)
        if web not in self.slot_of:
            self.slot_of[web] = Addr(slot=len(self.slots))
            vector = self.program.classes[v] == "v"
            self.slots[len(self.slots)] = self.isa.vector_bytes if vector else 8
        return self.slot_of[web]

    def first(self, v: int) -> int:
        return self.made_at[v] if v in self.made_at else self.touched[v][0]

    def lasts(self, m: MInst) -> bool:
        """Can the address `m` reads from (the argument table) keep its register to the end?"""
        base = m.mem.base if m.mem is not None else IN_MEMORY
        if base < 0 or self.weights.get(base) == NEVER:
            return True
        whole = (2 << 2 * len(self.program.code)) - (1 << 2 * self.first(base) + 1)
        if base in self.home or not self.colouring.lengthen(base, whole):
            return False
        self.pin(base)
        return True

    def pin(self, v: int) -> None:
        """Never spill it: it lives on one line only, or is needed to load others."""
        self.weights[v], self.loops_of[v] = NEVER, set()

    def enters(self, v: int, loop: int) -> bool:
        """Is the value made before the loop, so that it can be loaded in front of it?"""
        return not self.entry[loop] <= self.first(v) <= self.back[loop]

    def load_ahead(self, v: int, loop: int) -> None:
        """A register for a loop that only reads `v`, loaded at its entry."""
        entry, back = self.entry[loop], self.back[loop]
        reg = self.colouring.fresh(self.program.classes[v], (4 << 2 * back) - (1 << 2 * entry))
        self.touched[-1:] = [[i for i in self.touched[v] if self.loop_at[i] == loop], []]
        self.local[reg] = v, loop
        self.ahead.setdefault(loop, {})[v] = reg
        self.lines.add(entry)

    # -- one line --------------------------------------------------------------------------------
    def rewrite(self) -> None:
        lines, self.lines = sorted(self.lines), set()
        for position in lines:
            self.line(position)

    def line(self, position: int) -> None:
        m, loop = self.program.code[position], self.loop_at[position]
        for v in self.brief.pop(position, ()):
            self.colouring.drop(v)
        self.position, self.out = position, []
        names = self.ahead.get(loop)
        m = renamed(m, names) if names else m
        if m.kind is Kind.COPY:
            if self.entry.get(m.target) == position:
                for v, reg in self.ahead.get(m.target, {}).items():
                    self.load(v, reg)
            self.copy(m)
        elif m.kind is Kind.BACK:
            self.put(m)
            self.after_loop(m.target)
        elif self.gone.isdisjoint(m.defs):
            self.op(m, self.colouring.ties[position])
        self.written[position] = self.out

    def result(self) -> tuple[list[MInst], list[int | None]]:
        """The program with spill code, and its ties."""
        before, old, code, ties, done = self.program.code, self.colouring.ties, [], [], 0
        for i in sorted(self.written):
            code += before[done:i]
            ties += old[done:i]
            for m, tie in self.written[i]:
                code.append(m)
                ties.append(tie)
            done = i + 1
        return code + before[done:], ties + old[done:]

    def put(self, m: MInst, tie: int | None = None) -> None:
        self.out.append((m, tie))

    def noted(self, v: int) -> int:
        """A new register that lives on this line only."""
        self.touched[-1:] = [[], []]
        self.pin(v)
        self.brief.setdefault(self.position, []).append(v)
        return v

    def fresh(self, v: int, bits: int) -> int:
        """A register of the class of `v`: bits 1: while the line reads, 2: while it writes."""
        return self.noted(self.colouring.fresh(self.program.classes[v], bits << 2 * self.position))

    def moves(self, v: int) -> tuple:
        """Register move, load and store of a value's class."""
        class_ = self.program.classes[v]
        if class_ == "g":
            return x86.MOV, x86.MOV_LOAD, x86.MOV_STORE
        return (self.isa.mask_moves if class_ == "k"
                else (self.isa.move, self.isa.load, self.isa.store))

    def load(self, v: int, reg: int) -> int:
        """Bring a spilled value into a register."""
        home = self.home[v]
        if isinstance(home, MInst):
            self.put(home.on((reg,), home.srcs, home.mem))
        else:
            self.put(MInst(Kind.OP, self.moves(v)[1], (reg,), (), home, op="spill", spill=True))
        return reg

    def reload(self, v: int) -> int:
        """The value in a register of its own while the line reads."""
        return self.load(v, self.fresh(v, 1))

    def keep(self, v: int, reg: int) -> None:
        """Store a register to the slot of a spilled value."""
        self.put(MInst(Kind.OP, self.moves(v)[2], (), (reg,), self.home[v], op="spill",
                       spill=True))

    def after_loop(self, loop: int) -> None:
        """A result is its phi's register: where only one of them is in memory, load or store."""
        for result, phi, number in self.program.results:
            if number != loop or (result in self.home) == (phi in self.home):
                continue
            if phi in self.home:
                self.put(MInst(Kind.OP, self.moves(phi)[1], (result,), (), self.home[phi],
                               op="spill", spill=True))
            else:
                self.keep(result, phi)

    def op(self, m: MInst, tie: int | None) -> None:
        if tie == 1 and not isinstance(m.ins, Fma):
            m, tie = m.on(m.defs, (m.srcs[1], m.srcs[0]), m.mem), 0
        dst = m.defs[0] if m.defs else -1
        if tie == -1 and m.srcs[2 * isinstance(m.ins, Fma)] in self.home:
            tie = 2 * isinstance(m.ins, Fma)  # the destination is different from all it reads
        first = m.srcs[tie] if tie is not None and tie >= 0 else -1
        into, tie = self.target(dst, first, tie)
        known = {}
        if first in self.home:
            known[first] = self.load(first, into)
        mem, srcs = m.mem, m.srcs
        if mem is None and (at := self.direct(m, tie)) >= 0:
            home = self.home[srcs[at]]
            mem = home.mem if isinstance(home, MInst) else home
            srcs = (*srcs[:at], IN_MEMORY, *srcs[at + 1 :])
        elif mem is not None:
            mem = mem.at(self.inside(mem.base, known), self.inside(mem.index, known))
        srcs = tuple([self.inside(v, known) for v in srcs])
        defs = (into, *m.defs[1:]) if m.defs else ()
        self.put(m.on(defs, srcs, mem), tie)
        if dst in self.home:
            self.keep(dst, into)
        elif into != dst:
            self.put(MInst(Kind.COPY, None, (dst,), (into,), op="spill"))

    def inside(self, v: int, known: dict[int, int]) -> int:
        """The register a source is in on this line."""
        if v not in self.home:
            return v
        if v not in known:
            known[v] = self.reload(v)
        return known[v]

    def target(self, dst: int, first: int, tie: int | None) -> tuple[int, int | None]:
        """The register that receives the result, and the tie as it is then."""
        writes, both = 2, 3  # see fresh
        if dst not in self.home:
            if first not in self.home or self.colouring.lengthen(dst, 1 << 2 * self.position):
                return dst, tie
            return self.fresh(dst, both), tie
        if tie is None:
            return self.fresh(dst, writes), tie
        if first >= 0 and first not in self.home:
            reg = self.colouring.beside(first, writes << 2 * self.position)
            return (self.noted(reg), tie) if reg >= 0 else (self.fresh(dst, both), -1)
        return self.fresh(dst, both), tie

    def direct(self, m: MInst, tie: int | None) -> int:
        """A source the instruction itself can take from memory, -1: none."""
        for at in (m.ins.factors if isinstance(m.ins, Fma) else (m.ins.mem,)):
            v = m.srcs[at] if at >= 0 else -1
            home = self.home.get(v)
            if home is None or at == tie or m.srcs.count(v) > 1:
                continue
            if isinstance(home, Addr) or home.ins is x86.MOV_LOAD:
                return at
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
        self.put(m.on(tuple([d for d, _ in direct]), tuple([s for _, s in direct]), None))
        for dst, src in late:
            self.load(src, dst)

    def fill_slots(self, pending: list[tuple[int, int]]) -> None:
        """Parallel moves into slots; where they form a cycle one slot is read in advance."""
        held: dict[Addr, int] = {}
        passing: dict[str, int] = {}  # one register per class takes all from slot to slot
        while pending:
            waiting = {self.home.get(src) for _, src in pending} - held.keys()
            ready = [pair for pair in pending if self.home[pair[0]] not in waiting]
            if not ready:
                first = pending[0][0]
                held[self.home[first]] = self.reload(first)
                continue
            for dst, src in ready:
                home = self.home.get(src)
                reg = held.get(home, src)
                if home is not None and home not in held:
                    class_ = self.program.classes[src]
                    if class_ not in passing:
                        passing[class_] = self.fresh(src, 1)
                    reg = self.load(src, passing[class_])
                self.keep(dst, reg)
            pending = [pair for pair in pending if pair not in ready]


def renamed(m: MInst, names: dict[int, int]) -> MInst:
    """The instruction reading other registers."""
    mem = m.mem
    if mem is not None:
        mem = mem.at(names.get(mem.base, mem.base), names.get(mem.index, mem.index))
    return m.on(m.defs, tuple([names.get(v, v) for v in m.srcs]), mem)
