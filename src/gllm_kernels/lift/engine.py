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

from dataclasses import dataclass, field

from ..trace.ir import Op
from . import value as v
from .conditions import Conditions
from .error import Refusal
from .nodes import MASKS, Node, Nodes
from .operands import NAMES, RSP
from .program import EXIT, Block, Program
from .signature import Signature

STACK = 0x7FFF_0000_0000
STACK_BELOW, STACK_ABOVE = 1 << 16, 1 << 12
POINTER_GAP = 40  # buffers are 2^40 bytes apart: no two overlap
MAX_STEPS = 60_000
INTEGER_ARGUMENTS = (7, 6, 2, 1, 8, 9)  # rdi rsi rdx rcx r8 r9 (System V ABI, 3.2.3)
JUNK = None  # a learned location that does not step evenly
MISSING = object()


class Saved:
    """The value a register held on entry; it may be pushed and popped only."""


class Chosen:
    """An integer that depends on data."""


CHOSEN = Chosen()
Stored = tuple[int, v.Int, Node]  # pointer atom, index in elements, value


@dataclass(slots=True)
class Frame:
    """A loop that is running: round number, values on entry, and what its exit compared."""

    loop: int
    body: frozenset[int]
    entry: dict[int, object]
    round: int = 0
    exit: v.Poly | None = None
    expected: dict[int, object] = field(default_factory=dict)


@dataclass
class Lifted:
    """What one run at one tuple of sizes found."""

    memory: dict[int, Stored]
    result: Node | None
    conditions: Conditions
    slots: int
    steps: int


class Machine(Conditions):
    """Registers, stack and buffers during one run."""

    def __init__(
        self, program: Program, image, signature: Signature, sizes: dict[str, int],
        nodes: Nodes, learned: dict[tuple[int, int], v.Int | None],
    ) -> None:  # fmt: skip
        super().__init__()
        self.program, self.image, self.nodes, self.learned = program, image, nodes, learned
        self.r: list[object] = [Saved() for _ in range(16)]
        self.x: list[Node | None] = [None] * 16
        self.stack: dict[int, tuple[int, object]] = {}
        self.memory: dict[int, Stored] = {}
        self.frames: list[Frame] = []
        self.steps_cache: dict[tuple[int, int], v.Int] = {}
        self.relearned = False
        self.steps = self.depth = 0
        self._arguments(signature, sizes)

    def _arguments(self, signature: Signature, sizes: dict[str, int]) -> None:
        """Place the arguments as the System V ABI does."""
        self.r[RSP] = STACK - 8
        self.atoms, self.names, self.readonly = {}, {}, set()
        integers = floats = 0
        for number, arg in enumerate(signature.arguments):
            if arg.kind == "scalar":
                self.x[floats] = self.nodes.make(Op.SCALAR, (), arg.name)
                floats += 1
                continue
            name = number + (v.POINTER if arg.kind == "pointer" else 0)
            value = (number + 1) << POINTER_GAP if arg.kind == "pointer" else sizes[arg.name]
            self.atoms[name], self.names[name] = value, arg
            if arg.kind == "pointer" and arg.const:
                self.readonly.add(name)
            whole = v.atom(name, value)
            held = whole if arg.width == 64 else v.Low32(whole)
            if integers < len(INTEGER_ARGUMENTS):
                self.r[INTEGER_ARGUMENTS[integers]] = held
            else:
                self.stack[STACK + 8 * (integers - len(INTEGER_ARGUMENTS))] = (8, held)
            integers += 1

    # ---- running

    def run(self, start: int, stops: frozenset[int] = frozenset({EXIT})) -> int:
        """Execute blocks from `start` until one of `stops` or a return; where that was."""
        at, blocks = start, self.program.blocks
        while at not in stops and at != EXIT:
            block = blocks[at]
            self.at = at
            if block.header >= 0 or self.frames:
                self._cross_loops(block)
            at = self._execute(block)
            self.steps += len(block.instructions)
            if self.steps > MAX_STEPS:
                raise Refusal(f"more than {MAX_STEPS} instructions at tiny sizes", at=block.start)
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
            )
        except Refusal as caught:
            refusal = caught
        if refusal.at is None:
            refusal.at = block.instructions[done].ip
        refusal.registers = refusal.registers or self.registers()
        raise refusal

    def fork(self, condition: Node, block: Block, taken: int, other: int) -> int:
        """Run both sides of a branch on data up to where they meet; merge with Select."""
        if block.leaves >= 0:
            raise Refusal(
                "a loop that ends on a condition on data",
                "loops over dimensions only",
                "an early exit cannot be index notation; register the function as opaque",
            )
        before = self._snapshot()
        self.depth += 1
        one = self.run(taken, block.joins)
        then = self._snapshot()
        self._restore(before)
        two = self.run(other, block.joins)
        self.depth -= 1
        if one != two:
            raise Refusal("data decide how often a loop runs, or which loop")
        self._merge(condition, then)
        return one

    def _snapshot(self) -> tuple:
        return self.r[:], self.x[:], dict(self.stack), dict(self.memory)

    def _restore(self, state: tuple) -> None:
        self.r, self.x = state[0][:], state[1][:]
        self.stack, self.memory = dict(state[2]), dict(state[3])

    def _merge(self, condition: Node, then: tuple) -> None:
        def pick(a: object, b: object, otherwise: object) -> object:
            if a is b or same(a, b):
                return a
            both = isinstance(a, Node) and isinstance(b, Node)
            return self.nodes.select(condition, a, b) if both else otherwise

        r, x, stack, memory = then
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
        for address, (pointer, index, node) in memory.items():
            value = self.nodes.select(condition, node, self.memory[address][2])
            self.memory[address] = (pointer, index, value)
        self.flags = None

    # ---- registers

    def defined(self, number: int) -> object:
        """The raw content of a register, refused where it has none."""
        value = self.r[number]
        if value is CHOSEN:
            raise Refusal(
                f"{NAMES[number]} holds an integer that data chose",
                change="a result that is a position (argmax, search) is opaque, not a trace",
            )
        if value is None or (value.__class__ is Saved):
            raise Refusal(f"{NAMES[number]} is read before it is written")
        return value

    def read64(self, number: int) -> v.Int:
        value = self.r[number]
        if value.__class__ is int or value.__class__ is v.Poly:
            return value
        return self.as_integer(self.defined(number), 64)

    def read32(self, number: int) -> v.Int:
        """Any representative modulo 2^32."""
        return self.as_integer(self.defined(number), 32)

    def as_integer(self, value: object, width: int) -> v.Int:
        kind = value.__class__
        if kind is int:
            return v.signed(value, width)
        if kind is v.Poly:
            return value
        if kind is v.Low32:
            return value.poly if width == 32 else self.zero_extended(value.poly)
        raise v.NotAnInteger

    def as_float(self, value: object) -> Node:
        if value.__class__ is Node:
            return value
        if value.__class__ is int:
            return self.nodes.const(value)
        raise Refusal(
            "a counter or a size is used as the bits of a float",
            change="convert it: (float)i",
        )

    def float(self, number: int) -> Node:
        value = self.x[number]
        if value is None:
            raise Refusal(f"xmm{number} is read before it is written")
        if value.op in MASKS:
            raise Refusal(f"xmm{number} holds the mask of a comparison, used as a number")
        return value

    def write64(self, number: int, value: object) -> None:
        self.r[number] = v.signed(value, 64) if value.__class__ is int else value

    def write32(self, number: int, value: object) -> None:
        if value.__class__ is int:
            value &= 0xFFFFFFFF
        elif value.__class__ is v.Poly:
            value = v.Low32(value)
        elif value.__class__ is Node:
            self.integer_data = True
        elif value.__class__ is not v.Low32:
            raise v.NotAnInteger
        self.r[number] = value

    def push(self, number: int) -> None:
        self.r[RSP] = v.sub(self.r[RSP], 8)
        self.stack[self.r[RSP]] = (8, self.r[number])

    def pop(self, number: int) -> None:
        top = self.r[RSP]
        if top.__class__ is not int or top not in self.stack:
            raise Refusal("pop from a stack slot that was not pushed")
        self.r[number] = self.stack[top][1]
        self.r[RSP] = top + 8

    # ---- memory

    def load(self, address: v.Int, size: int) -> object:
        if address.__class__ is int:
            return self._load_fixed(address, size)
        place, pointer, index = self.element(address, size)
        stored = self.memory.get(place)
        return stored[2] if stored else self.nodes.load(pointer, index)

    def _load_fixed(self, address: int, size: int) -> object:
        if not STACK - STACK_BELOW <= address < STACK + STACK_ABOVE:
            data = self.image.constant(address, size)
            if data is None:
                raise Refusal("a load from a global variable", "arguments and constants only")
            return int.from_bytes(data, "little")
        width, value = self.stack.get(address, (0, None))
        if value is CHOSEN or width < size:
            raise Refusal("a stack slot that is not written on every path, or only in part")
        if width > size and value.__class__ is int:
            return value & ((1 << 8 * size) - 1)
        if width > size and value.__class__ not in (v.Poly, v.Low32):
            raise Refusal("a part of a stack slot is read")
        return value

    def store(self, address: v.Int, size: int, value: object) -> None:
        if address.__class__ is int:
            self._store_fixed(address, size, value)
            return
        place, pointer, index = self.element(address, size)
        if pointer in self.readonly:
            raise Refusal(
                f"a store through {self.names[pointer].name}, which is declared const",
                change="declare an output as a plain pointer",
            )
        if value.__class__ not in (int, Node):
            raise Refusal(
                "a counter or a size is stored as an integer",
                change="convert it: (float)i",
            )
        self.memory[place] = (pointer, index, self.as_float(value))

    def _store_fixed(self, address: int, size: int, value: object) -> None:
        if not STACK - STACK_BELOW <= address < STACK + STACK_ABOVE:
            raise Refusal("a store to a global variable", "no state outside the arguments")
        for near in range(address - 7, address + size):
            if near != address and near in self.stack and near + self.stack[near][0] > address:
                del self.stack[near]
        if size == 4 and value.__class__ is int:
            value &= 0xFFFFFFFF
        elif size == 4 and value.__class__ is v.Poly:
            value = v.Low32(value)
        self.stack[address] = (size, value)

    def element(self, address: v.Int, size: int) -> tuple[int, int, v.Int]:
        """Concrete address, pointer and element index of an access to a buffer."""
        if not v.fits(address, 64):
            raise Refusal(f"the address {self.text(address)} can wrap around")
        plain = self.stripped(address, "an address")
        pointers = [] if plain.__class__ is int else [m for m in plain.terms if _is_pointer(m)]
        if len(pointers) != 1 or plain.terms[pointers[0]] != 1 or len(pointers[0]) != 1:
            raise Refusal(
                f"the address {self.text(address)} is not an element of one argument",
                change="a constant table or a local array indexed by a counter is not lifted",
            )
        (pointer,) = pointers[0]
        argument = self.names[pointer]
        if argument.ctype != "float" or size != 4:
            raise Refusal(
                f"{8 * size}-bit access to {argument.name}, an array of {argument.ctype}",
                "loads and stores of single floats",
                "a gather reads addresses from data: register it as opaque",
            )
        offset = v.sub(plain, v.atom(pointer, self.atoms[pointer]))
        index = v.divided(offset, 4)
        if index is None:
            raise Refusal(f"the address {self.text(address)} is not a whole element")
        return plain.value, pointer, index

    # ---- loops

    def _cross_loops(self, block: Block) -> None:
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

    def _locations(self) -> dict[int, object]:
        """Integer registers (by number) and stack slots (by address) that hold integers."""
        found = {k: a for k, a in enumerate(self.r) if a.__class__ in INTEGRAL and k != RSP}
        for address, (_, a) in self.stack.items():
            if a.__class__ in INTEGRAL:
                found[address] = a
        return found

    def _set(self, location: int, value: object) -> None:
        if location < 16:
            self.r[location] = value
        else:
            self.stack[location] = (self.stack[location][0], value)

    def _begin(self, loop: int) -> None:
        frame = Frame(loop, self.program.loops[loop], self._locations())
        self.frames.append(frame)
        for (at, location), step in self.learned.items():
            entry = frame.entry.get(location, MISSING)
            if at == loop and step is not JUNK and fits_step(entry, step[1]):
                self._count(frame, location, step)

    def _count(self, frame: Frame, location: int, step: tuple[v.Mono, ...]) -> None:
        """Set a location to entry + step*counter in this round."""
        terms, narrow = step
        number = v.counter(frame.loop, frame.round)
        entry = whole(frame.entry[location])
        total = dict(v.terms_of(entry))
        size = 0
        for mono, coef in terms:
            total[(*mono, number)] = coef
            size += coef * self.size(mono)
        value = v.Poly(total, v.value_of(entry) + size * frame.round)
        held = v.Low32(value) if narrow else value
        frame.expected[location] = held
        self._set(location, held)

    def size(self, mono: v.Mono) -> int:
        product = 1
        for number in mono:
            product *= self.atoms[number]
        return product

    def _repeat(self, frame: Frame) -> None:
        """A back edge: learn steps, check those that are known, and move the counter on."""
        frame.round += 1
        for location, now in self._locations().items():
            before = frame.entry.get(location, MISSING)
            key = (frame.loop, location)
            if before is MISSING:
                frame.entry[location] = now
                continue
            if key not in self.learned:
                if now is before or same(now, before):
                    continue
                first = frame.round == 1
                self.learned[key] = learned_step(before, now) if first else JUNK
                self.relearned = True
                if self.learned[key] is not JUNK:
                    self._count(frame, location, self.learned[key])
                    continue
            step = self.learned[key]
            if step is not JUNK and not self._steps_evenly(frame, location, step, now):
                step = self.learned[key] = narrower(step, before, now)
                self.relearned = True
            if step is JUNK:
                self._set(location, self._junk(location, now))
            else:
                self._count(frame, location, step)

    def _steps_evenly(self, frame: Frame, location: int, step: tuple, now: object) -> bool:
        """Whether `now`, computed from the symbol of the last round, is one step further."""
        last = frame.expected.get(location)
        if last is None:
            return False
        terms, narrow = step
        total = dict(v.terms_of(whole(last)))
        for mono, coef in terms:
            total[mono] = total.get(mono, 0) + coef
        want = {m: c for m, c in total.items() if c}
        have = v.terms_of(whole(now))
        if not fits_step(now, narrow):
            return False
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
        final = self._final(frame)
        text = "the final counter of a loop whose length is not a polynomial of the sizes"
        for location, now in self._locations().items():
            if frame.loop in v.loops_of(whole(now)):
                solved = self._substitute(whole(now), frame, final)
                if solved is None:
                    solved = self.opaque(text, v.value_of(whole(now)))
                narrow = now.__class__ is v.Low32 and solved.__class__ is v.Poly
                self._set(location, v.Low32(solved) if narrow else solved)
        self.flags = None

    def _final(self, frame: Frame) -> v.Int | None:
        """Solve coefficient*counter + rest = 0 (or the overshoot) for the counter."""
        if frame.exit is None:
            return None
        ours = [(m, c) for m, c in frame.exit.terms.items() if frame.loop in _loops(m)]
        if len(ours) != 1 or abs(frame.exit.value) > abs(ours[0][1]):
            return None
        mono, coef = ours[0]
        factors = tuple(x for x in mono if x < v.COUNTER)
        rest = v.sub(frame.exit, v.Poly({mono: coef}, coef * self.size(factors) * frame.round))
        wanted = v.sub(frame.exit.value, rest)
        final = v.divided_by(wanted, coef, factors, self.size(factors))
        return final if final is not None and v.value_of(final) == frame.round else None

    def _substitute(self, poly: v.Int, frame: Frame, final: v.Int | None) -> v.Int | None:
        """Replace the counter of `frame` by its final value, also where a round lags behind."""
        if final is None:
            return None
        total: v.Int = 0
        for mono, coef in v.terms_of(poly).items():
            ours = [x for x in mono if v.COUNTER <= x < v.OPAQUE and v.loop_of(x) == frame.loop]
            rest = tuple(x for x in mono if x not in ours)
            size = 1
            for x in rest:
                size *= self.atom_value(x)
            part: v.Int = v.make({rest: coef}, coef * size)
            for x in ours:
                part = v.mul(part, v.add(final, v.round_of(x) - frame.round))
            total = v.add(total, part)
        return total

    def registers(self) -> str:
        """The integer registers, for an error message."""
        held = [
            f"{NAMES[k]} = {self.text(whole(a))}"
            for k, a in enumerate(self.r)
            if a.__class__ in INTEGRAL and k != RSP
        ]
        return ", ".join(held)


INTEGRAL = (int, v.Poly, v.Low32)


def whole(value: object) -> v.Int:
    return value.poly if value.__class__ is v.Low32 else value


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


def _is_pointer(mono: v.Mono) -> bool:
    return any(v.POINTER <= x < v.COUNTER for x in mono)


def _loops(mono: v.Mono) -> set[int]:
    return {v.loop_of(x) for x in mono if v.COUNTER <= x < v.OPAQUE}


def execute(program: Program, image, signature: Signature, sizes: dict[str, int], nodes: Nodes,
            learned: dict) -> Lifted:  # fmt: skip
    """One symbolic execution; repeated while it still learns how the counters step."""
    for _ in range(8):
        machine = Machine(program, image, signature, sizes, nodes, learned)
        try:
            machine.run(program.entry)
        except Refusal:
            if not machine.relearned:
                raise
        if not machine.relearned:
            result = machine.x[0] if signature.result == "float" else None
            if signature.result == "float" and result is None:
                raise Refusal("the function returns no float in xmm0")
            slots = sum(1 for at in machine.stack if at < STACK)
            return Lifted(machine.memory, result, machine, slots, machine.steps)
    raise Refusal("the loop counters do not settle", "counters that step evenly")
