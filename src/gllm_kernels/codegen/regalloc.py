"""Virtual -> machine registers: coalesce, colour in order of start, spill by weight, repeat.

Positions: instruction i reads at bit 2i and writes at bit 2i + 1. A live range is a Python integer
with a bit per position, so "do two values interfere" is one AND and "give them the same register"
is one OR, whatever holes the ranges have.

    webs      values that share a register: phi, yield, init and result of a loop, and the
              destination of a two-operand instruction with the source it replaces
    colouring webs by first position, each takes the first register that is free all its life
              (Poletto and Sarkar 1999, with holes)
    spilling  when none is free: the web used least, loops counting tenfold per level, moves to
              the stack; constants and arguments are loaded again instead
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import CompileError
from .isa import x86
from .isa.base import Fma, Isa
from .machine import IN_MEMORY, Addr, Kind, MInst, Program

MAX_ROUNDS = 60


@dataclass(slots=True)
class Allocation:
    """What the assembler needs: the final program and a machine register per virtual one."""

    program: Program
    register: list[int]  # by virtual register
    ties: dict[int, int]  # position -> source whose register the destination has; -1: none
    slots: dict[int, int] = field(default_factory=dict)  # stack slot -> bytes
    rounds: int = 1


@dataclass(slots=True)
class Life:
    """Live ranges and use weights of every virtual register."""

    ranges: list[int]
    weights: list[float]
    depth: list[int]  # of every position
    reads: list[list[int]]  # virtual registers every position reads


def allocate(program: Program, isa: Isa) -> Allocation:
    """Registers for everything; the program comes back with spill code where it was needed."""
    slots: dict[int, int] = {}
    unspillable: set[int] = set()
    local: set[int] = set()
    for attempt in range(1, MAX_ROUNDS):
        life = liveness(program)
        webs = Webs(life.ranges)
        ties = coalesce(program, webs, life.depth)
        colours, victims = colour(program, isa, webs, life, unspillable, local)
        if not victims:
            register = [colours.get(webs.find(v), -1) for v in range(len(life.ranges))]
            return Allocation(program, register, ties, slots, attempt)
        spill(program, isa, life, victims, slots, unspillable, local)
    raise CompileError(f"kernel {program.kernel.name}: {isa.name} registers do not suffice after "
                       f"{MAX_ROUNDS} rounds of spilling; use a smaller tile or unroll factor")


# -- live ranges --------------------------------------------------------------------------------------
def liveness(program: Program) -> Life:
    """Ranges from definition to last use, to the end of every loop entered in between."""
    code, count = program.code, len(program.classes)
    used = [reads(m) for m in code]
    back = {m.target: i for i, m in enumerate(code) if m.kind is Kind.BACK}
    head = {m.target: i for i, m in enumerate(code) if m.kind is Kind.HEAD}
    first, last, home = [-1] * count, [-1] * count, [0] * count
    extra = [0] * count
    weights, depths = [0.0] * count, []
    stack: list[int] = []
    for i, m in enumerate(code):
        if m.kind is Kind.HEAD:
            stack.append(back[m.target])
        depth = len(stack)
        depths.append(depth)
        weight = 10.0**depth
        for v in used[i]:
            weights[v] += weight
            if extra[v] and 2 * i >= (extra[v] & -extra[v]).bit_length():
                continue  # a counter compared behind its own back edge
            end = 2 * i if depth <= home[v] else 2 * stack[home[v]] + 1
            last[v] = max(last[v], end)
        for v in kept(m):
            last[v] = max(last[v], 2 * i + 1)
        for v in m.defs:
            weights[v] += weight
            if first[v] < 0:
                first[v] = last[v] = 2 * i + 1
                home[v] = depth
                if m.kind is Kind.COPY and m.target >= 0:
                    home[v] = depth + 1
                    last[v] = 2 * head[m.target] + 1
            else:  # a phi, written at the back edge: live from here to the loop's end
                extra[v] = span(2 * i + 1, 2 * back[m.target] + 1)
        if m.kind is Kind.BACK:
            stack.pop()
            for result, _, loop in program.results:
                if loop == m.target:
                    first[result], home[result] = 2 * i + 1, len(stack)
                    last[result] = 2 * i + 1
    ranges = [span(a, b) | e if a >= 0 else 0 for a, b, e in zip(first, last, extra, strict=True)]
    return Life(ranges, weights, depths, used)


def kept(m: MInst) -> tuple[int, ...]:
    """Sources that are read after the destination was filled, so may not share its register."""
    if m.kind is not Kind.OP or isinstance(m.ins, Fma) or m.ins.tie < 0 or m.ins.swap:
        return ()
    return tuple(v for i, v in enumerate(m.srcs) if i != m.ins.tie and v >= 0)


def span(first: int, last: int) -> int:
    """Bits first .. last, both included."""
    return (1 << last + 1) - (1 << first)


def reads(m: MInst) -> list[int]:
    """Virtual registers an instruction reads."""
    found, mem = list(m.srcs), m.mem
    if mem is None:
        return found
    if IN_MEMORY in found:
        found.remove(IN_MEMORY)
    if mem.base >= 0:
        found.append(mem.base)
    if mem.index >= 0:
        found.append(mem.index)
    return found


# -- coalescing ---------------------------------------------------------------------------------------
class Webs:
    """Union-find over virtual registers with the union of their ranges."""

    def __init__(self, ranges: list[int]) -> None:
        self.parent = list(range(len(ranges)))
        self.ranges = list(ranges)

    def find(self, v: int) -> int:
        while self.parent[v] != v:
            self.parent[v] = v = self.parent[self.parent[v]]
        return v

    def join(self, a: int, b: int) -> bool:
        """Make them one unless they are live at the same time."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return True
        if self.ranges[a] & self.ranges[b]:
            return False
        self.unite(a, b)
        return True

    def members(self) -> dict[int, list[int]]:
        """Root -> everything in its web."""
        found: dict[int, list[int]] = {}
        for v in range(len(self.parent)):
            found.setdefault(self.find(v), []).append(v)
        return found

    def unite(self, a: int, b: int) -> None:
        self.parent[b] = a
        self.ranges[a] |= self.ranges[b]


def coalesce(program: Program, webs: Webs, depth: list[int]) -> dict[int, int]:
    """Unite what saves a move, deepest loops first. Returns the tie chosen at each position."""
    for result, phi, _ in program.results:
        webs.unite(webs.find(phi), webs.find(result))
    order = sorted(range(len(program.code)), key=lambda i: (-depth[i], copies_last(program, i)))
    ties: dict[int, int] = {}
    for i in order:
        m = program.code[i]
        if m.kind is Kind.COPY:
            for dst, src in zip(m.defs, m.srcs, strict=True):
                if src not in program.fixed and dst not in program.fixed:
                    webs.join(dst, src)
        elif m.kind is Kind.OP and m.defs and (choices := tieable(m)):
            ties[i] = tie(webs, m, i, choices)
    return ties


def copies_last(program: Program, position: int) -> int:
    """Within a level: back-edge copies, then two-operand instructions in order."""
    return 0 if program.code[position].kind is Kind.COPY else 1


def tieable(m: MInst) -> tuple[int, ...]:
    """Sources whose register the destination may take over, best first."""
    if isinstance(m.ins, Fma):
        return tuple(i for i in (2, 0, 1) if m.srcs[i] != IN_MEMORY)
    if m.ins.tie < 0:
        return ()
    return (0, 1) if m.ins.swap and m.srcs[1] != IN_MEMORY else (m.ins.tie,)


def tie(webs: Webs, m: MInst, position: int, choices: tuple[int, ...]) -> int:
    """The source to overwrite, or -1: then the assembler fills the destination first, which so
    must differ from everything read.
    """
    dst = m.defs[0]
    same = [i for i in choices if webs.find(m.srcs[i]) == webs.find(dst)]
    for i in same or choices:
        if webs.join(dst, m.srcs[i]):
            return i
    webs.ranges[webs.find(dst)] |= 1 << 2 * position
    return -1


# -- colouring ----------------------------------------------------------------------------------------
def colour(program: Program, isa: Isa, webs: Webs, life: Life, unspillable: set[int],
           local: set[int]) -> tuple[dict[int, int], dict[int, int]]:
    """A register per web; and what to spill if there was none for some: virtual registers, each
    with the web it is part of. Of a web only the part that is in the way is spilled: a sum whose
    value is too much after a loop stays in its register inside.
    """
    files = {"g": x86.INTEGERS, "k": x86.MASKS,
             "v": tuple(range(x86.R.ZMM0, x86.R.ZMM0 + isa.vregs))}
    busy: dict[int, int] = {}
    colours: dict[int, int] = {}
    owners: dict[int, list[int]] = {}
    for v, register in program.fixed.items():
        colours[v] = register
        busy[register] = busy.get(register, 0) | webs.ranges[v]
    weight = [float("inf") if v in unspillable else w for v, w in enumerate(life.weights)]
    members = webs.members()
    hints = find_hints(program, webs)
    roots = sorted((r for r in members if webs.ranges[r] and r not in program.fixed),
                   key=lambda r: webs.ranges[r] & -webs.ranges[r])
    victims: dict[int, int] = {}
    around: Surroundings | None = None
    for root in roots:
        range_, file = webs.ranges[root], files[program.classes[root]]
        wished = [colours[h] for h in hints.get(root, ()) if h in colours]
        for register in (*wished, *file):
            if not busy.get(register, 0) & range_:
                break
        else:
            rivals = [o for r in file for o in owners.get(r, ()) if webs.ranges[o] & range_]
            parts = {r: [v for v in members[r] if life.ranges[v] & range_]
                     for r in (*rivals, root)}
            around = around or Surroundings(program, life)
            here = around.loop_at[((range_ & -range_).bit_length() - 1) // 2]
            cost = {r: sum(weight[v] * around.discount(v, here, local) for v in part)
                    for r, part in parts.items()}
            victim = min(parts, key=lambda r: (cost[r], -webs.ranges[r].bit_count()))
            if cost[victim] == float("inf"):
                raise CompileError(f"kernel {program.kernel.name}: more than {len(file)} values "
                                   f"of one instruction; {isa.name} cannot hold them")
            victims |= dict.fromkeys(parts[victim], victim)
            if victim == root:
                continue
            register = colours.pop(victim)
            owners[register].remove(victim)
            busy[register] = occupied(program, webs, register, owners[register])
            if busy[register] & range_:
                continue  # this round fails anyway; the next starts with more room
        colours[root] = register
        busy[register] = busy.get(register, 0) | range_
        owners.setdefault(register, []).append(root)
    return colours, victims


class Surroundings:
    """The innermost loop around every position, where each loop lies, and what is used in it."""

    def __init__(self, program: Program, life: Life) -> None:
        self.loop_at: list[int] = []
        self.entry: dict[int, int] = {}  # loop -> position of the copy that enters it
        self.back: dict[int, int] = {}
        self.used: set[tuple[int, int]] = set()  # (value, innermost loop)
        self.defined: dict[int, int] = {}  # value -> first position
        stack = [-1]
        for i, m in enumerate(program.code):
            if m.kind is Kind.COPY and m.target >= 0:
                self.entry.setdefault(m.target, i)
            if m.kind is Kind.HEAD:
                stack.append(m.target)
            self.loop_at.append(stack[-1])
            inside = stack[-1]
            for v in life.reads[i]:
                self.used.add((v, inside))
            for v in m.defs:
                if v not in self.defined:
                    self.defined[v] = i
            if m.kind is Kind.BACK:
                self.back[m.target] = i
                stack.pop()
        self.defined |= {r: self.back[loop] for r, _, loop in program.results}

    def enters(self, v: int, loop: int) -> bool:
        """Is the value made before the loop, so that it can be loaded in front of it?"""
        return loop >= 0 and not self.entry[loop] <= self.defined[v] <= self.back[loop]

    def discount(self, v: int, loop: int, local: set[int]) -> float:
        """A value that only passes through a loop is loaded again in front of those that use it."""
        return 1.0 if v in local or (v, loop) in self.used else 0.1


def occupied(program: Program, webs: Webs, register: int, owners: list[int]) -> int:
    total = 0
    for v, fixed in program.fixed.items():
        total |= webs.ranges[v] if fixed == register else 0
    for owner in owners:
        total |= webs.ranges[owner]
    return total


def find_hints(program: Program, webs: Webs) -> dict[int, list[int]]:
    """Webs that a web would like to share a register with: the other side of its copies."""
    hints: dict[int, list[int]] = {}
    for m in program.code:
        if m.kind is Kind.COPY:
            for dst, src in zip(m.defs, m.srcs, strict=True):
                a, b = webs.find(dst), webs.find(src)
                hints.setdefault(a, []).append(b)
                hints.setdefault(b, []).append(a)
    return hints


# -- spilling -----------------------------------------------------------------------------------------
def spill(program: Program, isa: Isa, life: Life, victims: dict[int, int], slots: dict[int, int],
          unspillable: set[int], local: set[int]) -> None:
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
        if len(defs) == 1 and defs[0].free and lasts(defs[0], victims, unspillable):
            at = defs[0].mem
            home[v] = at if at is not None and at.slot >= 0 else defs[0]
            gone.add(v)
            continue
        if web not in shared:
            shared[web] = Addr(slot=len(slots))
            slots[len(slots)] = isa.vector_bytes if program.classes[v] == "v" else 8
        home[v] = shared[web]
    Spiller(program, isa, home, gone, unspillable, local).run(life)


def lasts(m: MInst, victims: dict[int, int], unspillable: set[int]) -> bool:
    """Is the address `m` reads from (the argument table) in its register wherever m is repeated?"""
    base = m.mem.base if m.mem is not None else -1
    return base < 0 or not (base in victims or base in unspillable)


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
                 gone: set[int], unspillable: set[int], local: set[int]) -> None:
        self.program, self.isa, self.home, self.gone = program, isa, home, gone
        self.unspillable, self.local = unspillable, local
        self.out: list[MInst] = []
        self.results, self.kept = list(program.results), []

    def run(self, life: Life) -> None:
        around = Surroundings(self.program, life)
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
        """Innermost loop -> {value: register it is loaded to before it}, for spilled values that the
        loop only reads. If that register is spilled too, its uses load for themselves.
        """
        found: dict[int, dict[int, int]] = {}
        for v, loop in sorted(around.used):
            if (v in self.home and v not in self.local and loop in self.program.innermost
                    and around.enters(v, loop)):
                reg = self.program.fresh(self.program.classes[v])
                self.local.add(reg)
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
        self.unspillable.add(reg)
        return reg

    def reload(self, v: int, lasting: bool = False) -> int:
        """A register holding a spilled value, loaded here. One that feeds a copy becomes part of
        the phi's web, which may have to be spilled too.
        """
        reg = self.fresh(v)
        if lasting:
            self.unspillable.remove(reg)
        self.load(v, reg)
        return reg

    def load(self, v: int, reg: int) -> None:
        home = self.home[v]
        if isinstance(home, MInst):
            self.out.append(home._replace(defs=(reg,)))
        else:
            self.out.append(MInst(Kind.OP, self.moves(v)[1], (reg,), (), home, op="spill",
                                  free=True, spill=True))

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
        self.out.append(m._replace(defs=defs, srcs=srcs, mem=mem))
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
        """Slots are written when nothing still reads them; a value in its own slot stays there."""
        read = [self.home.get(v) for v in m.srcs]
        defs, srcs, late = [], [], []
        for dst, src in zip(m.defs, m.srcs, strict=True):
            to, source = self.home.get(dst), self.home.get(src)
            if isinstance(to, Addr) and to == source:
                continue
            reg = src if source is None else self.reload(src, not isinstance(to, Addr))
            if not isinstance(to, Addr):
                defs.append(dst)
                srcs.append(reg)
            elif to in read:
                late.append((dst, reg))
            else:
                self.keep(dst, reg)
        for dst, reg in late:
            self.keep(dst, reg)
        self.out.append(m._replace(defs=tuple(defs), srcs=tuple(srcs)))
