"""The function before it runs: basic blocks, loops, and what a branch may leave.

decode(image, entry) -> Program        follows the control flow, so the size need not be known
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from iced_x86 import Decoder, FlowControl, Formatter, FormatterSyntax, Instruction

from .elf import Image
from .error import Refusal

LONGEST = 15  # bytes of an x86 instruction
LIMIT = 20_000  # instructions of one function
MOST_LOOPS = 256  # of one function: calls in place number their loops from a multiple of it
EXIT = -1  # the block after every return


@dataclass(slots=True)
class Block:
    """Instructions that run one after another; `steps` are their meanings."""

    start: int
    instructions: list[Instruction]
    succ: tuple[int, ...] = ()
    steps: tuple[Callable, ...] = ()
    end: Callable | None = None
    header: int = -1  # number of the loop that begins here
    inside: tuple[int, ...] = ()  # loops around this block, innermost first
    leaves: int = -1  # the innermost loop that the final jump may leave
    outside: int = EXIT  # where it goes then
    joins: frozenset[int] = frozenset({EXIT})  # where the sides of a branch meet again


@dataclass(slots=True, eq=False)
class Program:
    """A whole function. `loops[k]` is the set of blocks of loop k, inner loops first."""

    entry: int
    blocks: dict[int, Block] = field(default_factory=dict)
    loops: list[frozenset[int]] = field(default_factory=list)
    headers: list[int] = field(default_factory=list)
    base: int = 0  # number of the first loop
    inlined: dict[tuple[int, ...], Program] = field(default_factory=dict)  # by call sites

    @property
    def instructions(self) -> Iterator[Instruction]:
        """Of the function and of those that it calls, each once."""
        bodies = {p.entry: p for p in (self, *self.inlined.values())}
        return (i for p in bodies.values() for _, b in sorted(p.blocks.items())
                for i in b.instructions)  # fmt: skip

    def listing(self) -> dict[int, str]:
        """Text of every instruction by address."""
        intel = Formatter(FormatterSyntax.INTEL)
        return {i.ip: intel.format(i) for i in self.instructions}


def decode(image: Image, entry: int, base: int = 0) -> Program:
    """Decode what can be reached, cut it into blocks and find the loops."""
    found: dict[int, Instruction] = {}
    leaders, pending = {entry}, [entry]
    while pending:
        pending += _walk(image, pending.pop(), found, leaders)
    program = Program(entry, base=base)
    for start in sorted(leaders):
        program.blocks[start] = _block(image, start, found, leaders)
    _find_loops(program)
    _find_joins(program)
    return program


def _walk(image: Image, at: int, found: dict[int, Instruction], leaders: set[int]) -> Iterator[int]:
    """Decode from `at` to the end of a straight run; yields the starts of the next ones.

    What is no instruction ends a run and is refused where it is reached: after a call that does not
    return, such as an abort, a compiler leaves no code.
    """
    while at not in found:
        instruction = Decoder(64, image.read(at, LONGEST), ip=at).decode()
        found[at] = instruction
        if len(found) > LIMIT:
            raise Refusal(f"more than {LIMIT} instructions can be reached", at=at)
        targets = targets_of(instruction, image)
        if targets != (instruction.next_ip,):
            new = [t for t in targets if t not in leaders]
            leaders.update(targets)
            yield from new
            return
        at = instruction.next_ip


def targets_of(i: Instruction, image: Image) -> tuple[int, ...]:
    """Where control may go after `i`; nowhere after a return or a jump to another function."""
    flow = i.flow_control
    if not i:
        return ()
    if flow in (FlowControl.NEXT, FlowControl.CALL, FlowControl.INDIRECT_CALL):
        return (i.next_ip,)
    if flow == FlowControl.CONDITIONAL_BRANCH:
        return (i.near_branch_target, i.next_ip)
    if flow == FlowControl.UNCONDITIONAL_BRANCH:
        return () if image.callee(i.near_branch_target) else (i.near_branch_target,)
    return ()  # a return, or an indirect jump


def _block(image: Image, start: int, found: dict[int, Instruction], leaders: set[int]) -> Block:
    at, run = start, []
    while True:
        run.append(found[at])
        targets = targets_of(found[at], image)
        at = found[at].next_ip
        if targets != (at,) or at in leaders:
            return Block(start, run, targets)


def _order(program: Program) -> list[int]:
    """Reverse postorder from the entry."""
    order: list[int] = []
    seen, stack = {program.entry}, [(program.entry, iter(program.blocks[program.entry].succ))]
    while stack:
        block, rest = stack[-1]
        new = next((s for s in rest if s not in seen), None)
        if new is None:
            order.append(block)
            stack.pop()
        else:
            seen.add(new)
            stack.append((new, iter(program.blocks[new].succ)))
    return order[::-1]


def dominators(root: int, order: list[int], pred: dict[int, list[int]]) -> dict[int, int]:
    """Immediate dominators (Cooper, Harvey, Kennedy: A Simple, Fast Dominance Algorithm)."""
    rank = {b: k for k, b in enumerate(order)}
    idom = {root: root}
    changed = True
    while changed:
        changed = False
        for block in order:
            known = [p for p in pred.get(block, ()) if p in idom]
            if block == root or not known:
                continue
            new = known[0]
            for other in known[1:]:
                new = _meet(new, other, idom, rank)
            changed |= idom.get(block) != new
            idom[block] = new
    return idom


def _meet(a: int, b: int, idom: dict[int, int], rank: dict[int, int]) -> int:
    while a != b:
        while rank[a] > rank[b]:
            a = idom[a]
        while rank[b] > rank[a]:
            b = idom[b]
    return a


def _predecessors(program: Program) -> dict[int, list[int]]:
    pred: dict[int, list[int]] = {}
    for start, block in program.blocks.items():
        for target in block.succ:
            pred.setdefault(target, []).append(start)
    return pred


def _find_loops(program: Program) -> None:
    """Natural loops: an edge to a dominating block, and all that reaches it without passing it."""
    order, pred = _order(program), _predecessors(program)
    idom, rank = dominators(program.entry, order, pred), {b: k for k, b in enumerate(order)}
    bodies: dict[int, set[int]] = {}
    for start in order:
        for target in program.blocks[start].succ:
            if rank[target] > rank[start]:
                continue
            if not _dominates(target, start, idom, rank):
                raise Refusal("a jump into the middle of a loop", at=start)
            bodies.setdefault(target, {target}).update(_reaching(start, target, pred))
    for header, body in sorted(bodies.items(), key=lambda row: len(row[1])):
        program.blocks[header].header = program.base + len(program.loops)
        program.headers.append(header)
        program.loops.append(frozenset(body))
    for start, block in program.blocks.items():
        _place_in_loops(program, start, block)


def _place_in_loops(program: Program, start: int, block: Block) -> None:
    loops = enumerate(program.loops, program.base)
    block.inside = tuple(k for k, body in loops if start in body)
    if block.inside and len(block.succ) == 2:
        body = program.loops[block.inside[0] - program.base]
        out = [t for t in block.succ if t not in body]
        if len(out) == 1:
            block.leaves, block.outside = block.inside[0], out[0]


def _dominates(a: int, b: int, idom: dict[int, int], rank: dict[int, int]) -> bool:
    while rank[b] > rank[a]:
        b = idom[b]
    return a == b


def _reaching(start: int, header: int, pred: dict[int, list[int]]) -> set[int]:
    body, pending = {header}, [start]
    while pending:
        block = pending.pop()
        if block not in body:
            body.add(block)
            pending += pred.get(block, [])
    return body


def _find_joins(program: Program) -> None:
    """Where the two sides of each branch meet."""
    post = post_dominators(program)
    for start, block in program.blocks.items():
        block.joins = _joins(program, block, post.get(start, EXIT))


def post_dominators(program: Program) -> dict[int, int]:
    """For every block the first one that all paths from it to the return pass."""
    back: dict[int, list[int]] = {}
    for start, block in program.blocks.items():
        back[start] = list(block.succ) or [EXIT]
    forward: dict[int, list[int]] = {EXIT: []}
    for start, targets in back.items():
        for target in targets:
            forward.setdefault(target, []).append(start)
    order = _postorder(forward)
    return dominators(EXIT, order, back)


def _joins(program: Program, block: Block, join: int) -> frozenset[int]:
    """The post-dominator; the next round of the loop where a compiler copied its end; and the
    start of any other loop, which both sides must reach to run it."""
    others = {h for k, h in enumerate(program.headers, program.base) if k not in block.inside}
    if not block.inside:
        return frozenset({join, *others})
    number = block.inside[0] - program.base
    body = program.loops[number]
    if join in body:
        return frozenset({join, *others})
    out = {t for start in body for t in program.blocks[start].succ if t not in body}
    return frozenset(out | others | {program.headers[number], EXIT})


def _postorder(forward: dict[int, list[int]]) -> list[int]:
    order, seen, stack = [], {EXIT}, [(EXIT, iter(forward[EXIT]))]
    while stack:
        block, rest = stack[-1]
        new = next((s for s in rest if s not in seen), None)
        if new is None:
            order.append(block)
            stack.pop()
        else:
            seen.add(new)
            stack.append((new, iter(forward.get(new, ()))))
    return order[::-1]
