"""Virtual -> machine registers: coalesce, colour in order of start, spill by weight, repeat.

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
from .liveness import Life, liveness
from .machine import IN_MEMORY, Kind, MInst, Program
from .spill import Stack, Surroundings, spill

MAX_ROUNDS = 60


@dataclass(slots=True)
class Allocation:
    """What the assembler needs: the final program and a machine register per virtual one."""

    program: Program
    register: list[int]  # by virtual register
    ties: dict[int, int]  # position -> source whose register the destination has; -1: none
    slots: dict[int, int] = field(default_factory=dict)  # stack slot -> bytes
    rounds: int = 1


def allocate(program: Program, isa: Isa) -> Allocation:
    """Registers for everything; the program comes back with spill code where it was needed."""
    stack = Stack()
    for attempt in range(1, MAX_ROUNDS):
        life = liveness(program)
        webs = Webs(life.ranges)
        ties = coalesce(program, webs, life.depth)
        around = Surroundings(program, life)
        colours, victims = colour(program, isa, webs, life, stack, around)
        if not victims:
            register = [colours.get(webs.find(v), -1) for v in range(len(life.ranges))]
            return Allocation(program, register, ties, stack.slots, attempt)
        spill(program, isa, around, victims, stack)
    raise CompileError(f"kernel {program.kernel.name}: {isa.name} registers do not suffice after "
                       f"{MAX_ROUNDS} rounds of spilling; use a smaller tile or unroll factor")


# -- coalescing ----------------------------------------------------------------------------------
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


# -- colouring -----------------------------------------------------------------------------------
def colour(program: Program, isa: Isa, webs: Webs, life: Life,
           stack: Stack, around: Surroundings) -> tuple[dict[int, int], dict[int, int]]:
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
    weight = [float("inf") if v in stack.brief else w for v, w in enumerate(life.weights)]
    members = webs.members()
    hints = find_hints(program, webs)
    roots = sorted((r for r in members if webs.ranges[r] and r not in program.fixed),
                   key=lambda r: webs.ranges[r] & -webs.ranges[r])
    victims: dict[int, int] = {}
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
            here = around.loop_of(((range_ & -range_).bit_length() - 1) // 2)
            cost = {r: sum(weight[v] * around.discount(v, here, stack) for v in part)
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
