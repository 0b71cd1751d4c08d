"""The concolic run: execute the function at small sizes, integers as polynomials beside their
values, floats as expressions, loop counters as symbols.

Loops unroll by themselves because every integer has a value. A register or stack slot that steps
by the same amount in each round of a loop is `entry + step*counter`: guessed on the first back
edge, proved at each later one by computing with the symbol and comparing term by term, and
withdrawn for good where the two differ. Counters become numbers only where they are used: in an
address, in a conversion to float, and in the test that ends their own loop. Every other use is
refused, so no formula found here is an accident of a small size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..trace.ir import REALS
from . import value as v
from .conditions import CHOSEN
from .data import merged, select
from .elf import Image
from .error import Refusal
from .loops import Learned, Loops, same
from .nodes import Node, Nodes
from .operands import CALLEE_SAVED, NAMES, RAX, RSP
from .program import EXIT, MOST_LOOPS, Block, Program, decode
from .signature import INTEGERS, Signature
from .state import RETURN, State, Stored
from .x86 import compile_program

# Instructions of one run: a start, and some for each point of the index space, up to a limit.
START_STEPS, POINT_STEPS, MAX_STEPS = 3_000, 300, 60_000
MAX_CALLS = 8
MAX_RUNS = 8  # until the counters settle: two are usual


@dataclass
class Lifted:
    """What one run at one tuple of sizes found."""

    memory: dict[int, Stored]
    result: Node | None
    conditions: State
    steps: int


class Machine(Loops):
    """One run from the entry to the return."""

    steps = 0
    limit_steps = MAX_STEPS

    def run(self, start: int, stops: frozenset[int] = frozenset({EXIT})) -> int:
        """Execute blocks from `start` until one of `stops` or a return; where that was."""
        at, blocks = start, self.program.blocks
        while at not in stops and at != EXIT:
            block = blocks[at]
            self.at = at
            self.visited.add(at)
            if block.header >= 0 or self.frames:
                self.cross_loops(block)
            at = self._execute(block)
            self.steps += len(block.instructions)
            if self.steps > self.limit_steps:
                raise Refusal(
                    f"more than {self.limit_steps} instructions: a loop that does not end",
                    at=block.start,
                )
        return at

    def _execute(self, block: Block) -> int:
        done = 0
        try:
            for step in block.steps:
                step(self)
                done += 1
            return block.end(self) if block.end else block.succ[0]
        except v.NotAnInteger:
            refusal = Refusal(
                "integer arithmetic on data, or on a value that is not known",
                "floats stay in xmm registers; integers are dimensions, counters and addresses",
                "gather and scatter with gk.gather or numpy, and pass the gathered array; bits of a float "
                "have no arithmetic here",
            )
        except Refusal as caught:
            refusal = caught
        if refusal.at is None:
            refusal.at = block.instructions[done].ip
        refusal.registers = refusal.registers or self.registers()
        refusal.known = refusal.known or self.known()
        raise refusal

    def inline(self, address: int, at: int) -> None:
        """Run a function of the same object in place; each call site has its loops to itself."""
        path = (*self.path, at)
        if len(path) > MAX_CALLS:
            raise Refusal(f"more than {MAX_CALLS} calls inside each other", "no recursion")
        callee = self.root.inlined.get(path)
        if callee is None:
            base = MOST_LOOPS * (1 + len(self.root.inlined))
            callee = compile_program(decode(self.image, address, base), self.image)
            self.root.inlined[path] = callee
        outer = self.program, self.frames, self.path
        top = self.r[RSP] = v.sub(self.r[RSP], 8)
        self.stack[top] = (8, callee)
        self.program, self.frames, self.path = callee, [], path
        self.run(address)
        self.program, self.frames, self.path = outer
        if self.r[RSP] != top or self.stack.get(top) != (8, callee):
            raise Refusal("a call does not come back with the stack as it was")
        del self.stack[top]
        self.r[RSP], self.flags = v.add(top, 8), None

    def check_return(self) -> None:
        """The stack pointer and the callee-saved registers are the caller's again."""
        lost = [NAMES[k] for k in CALLEE_SAVED if self.r[k] is not self.entry[k]]
        if self.r[RSP] != RETURN or RETURN in self.stack:
            lost.append("rsp or the return address")
        if lost:
            raise Refusal(f"the function returns without restoring {', '.join(lost)}")

    def fork(self, condition: Node, block: Block, taken: int, other: int) -> int:
        """Run both sides of a branch on data up to where they meet; merge with Select."""
        if block.leaves >= 0:
            raise Refusal(
                "a loop that ends on a condition on data",
                "loops over dimensions only",
                "run the loop to its end and choose with ?: inside it",
            )
        before, outer = self._snapshot(), self.written
        self.written = set()
        self.depth += 1
        one = self.run(taken, block.joins)
        then = self._snapshot()
        self._restore(before)
        two = self.run(other, block.joins)
        self.depth -= 1
        if one != two:
            raise Refusal("data decide how often a loop runs, or which loop")
        self._merge(condition, then)
        self.written |= outer
        return one

    def _snapshot(self) -> tuple:
        return self.r[:], self.x[:], dict(self.stack), dict(self.memory), self.flags

    def _restore(self, state: tuple) -> None:
        self.r, self.x = state[0][:], state[1][:]
        self.stack, self.memory, self.flags = dict(state[2]), dict(state[3]), state[4]

    def _merge(self, condition: Node, then: tuple) -> None:
        def pick(a: object, b: object, otherwise: object) -> object:
            if a is b or same(a, b):
                return a
            found = merged(self.nodes, condition, a, b)
            return otherwise if found is None else found

        r, x, stack, memory, _ = then
        self.r = [pick(a, b, CHOSEN) for a, b in zip(r, self.r, strict=True)]
        self.x = [pick(a, b, None) for a, b in zip(x, self.x, strict=True)]
        for slot in self.stack.keys() | stack.keys():
            a, b = stack.get(slot, (0, None)), self.stack.get(slot, (0, None))
            kept = pick(a[1], b[1], CHOSEN) if a[0] == b[0] else CHOSEN
            self.stack[slot] = (a[0] or b[0], kept)
        if memory.keys() != self.memory.keys():
            raise Refusal(
                "a store that happens only for some data",
                "every element is written whatever the data are",
                "compute the value with ?: and store it always",
                at=self.at,
            )
        for address in self.written:
            stored, other = memory[address], self.memory[address]
            value = select(self.nodes, condition, stored[2], other[2])
            self.memory[address] = (*stored[:2], value)
        self.flags = None


def returned(machine: Machine, signature: Signature) -> Node | None:
    """What is in xmm0, where the function returns a float or a double, else data in rax."""
    if signature.result not in REALS:
        rax, width = machine.r[RAX], INTEGERS.get(signature.result, 64)
        known = rax.__class__ in (Node, int) and signature.result != "void"
        return machine.as_data(rax, width) if known else None
    if machine.x[0] is None:
        raise Refusal(
            "the function returns no float in xmm0", f"a result of type {signature.result}",
            "check the return type in the declaration",
        )  # fmt: skip
    return machine.float(0, REALS[signature.result])


def step_limit(sizes: dict[str, int]) -> int:
    return min(MAX_STEPS, START_STEPS + POINT_STEPS * prod(s + 1 for s in sizes.values()))


def execute(
    program: Program, image: Image, signature: Signature, sizes: dict[str, int], nodes: Nodes,
    learned: Learned, periods: dict[str, int], runs: int = MAX_RUNS,
) -> Lifted:  # fmt: skip
    """One symbolic execution; repeated while it still learns how the counters step."""
    steps = 0
    for _ in range(runs):
        machine = Machine(program, image, signature, sizes, nodes, learned, periods)
        machine.limit_steps = step_limit(sizes)
        try:
            machine.run(program.entry)
        except Refusal:
            if not machine.relearned:
                raise
        if not machine.relearned:
            machine.check_return()
            result = returned(machine, signature)
            return Lifted(machine.memory, result, machine, steps + machine.steps)
        steps += machine.steps
    raise Refusal("the loop counters do not settle", "counters that step evenly")
