"""Registers, stack and buffers during a run.

A register holds an int, a `Poly`, a `Low32` (a 32-bit result), a `Node` (integer data, the bits of
a float, or the truth of a comparison), a `Part`, a `Function`, the caller's value, or nothing that
may be used.
"""

from __future__ import annotations

from ..dtypes import arithmetic
from ..trace.ir import INTEGERS, REALS, Op
from . import data, value as v
from .calls import Function
from .conditions import STACK, STACK_BELOW, Chosen, Conditions
from .data import ELEMENTS, Part, joined
from .elf import Image
from .error import SCALAR, Refusal
from .nodes import CONSTANTS, WIDTH, Node, Nodes
from .operands import NAMES, RSP
from .signature import Argument, Signature

RETURN = STACK - 8  # where the return address lies, and rsp on entry
RED_ZONE = 128  # bytes below rsp that a function may use (System V ABI, 3.2.2)
POINTER_GAP = 40  # buffers are 2^40 bytes apart: no two overlap
INTEGER_ARGUMENTS = (7, 6, 2, 1, 8, 9)  # rdi rsi rdx rcx r8 r9 (System V ABI, 3.2.3)


CODE = Argument("the code and its constants", "pointer", "")


class Saved:
    """The value a register held on entry; it may be pushed and popped only."""


Stored = tuple[int, v.Int, Node]  # pointer atom, index in elements, value


class State(Conditions):
    """The contents of everything a function can read and write."""

    def __init__(
        self, image: Image, signature: Signature, sizes: dict[str, int], nodes: Nodes,
        periods: dict[str, int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.image, self.nodes = image, nodes
        self.r: list[object] = [Saved() for _ in range(16)]
        self.x: list[Node | None] = [None] * 16
        self.stack: dict[int, tuple[int, object]] = {}
        self.memory: dict[int, Stored] = {}
        self.written: set[int] = set()  # of memory, since the last branch on data
        self.held: set[int] = set()  # integer registers and slots that may carry state
        self._arguments(signature, sizes, periods)

    def _arguments(
        self, signature: Signature, sizes: dict[str, int], periods: dict[str, int]
    ) -> None:
        """Place the arguments as the System V ABI does."""
        self.entry = self.r[:]
        self.r[RSP] = RETURN
        self.atoms, self.names, self.readonly = {v.LOADED: 0}, {v.LOADED: CODE}, set()
        integers = floats = 0
        for number, arg in enumerate(signature.arguments):
            if arg.kind == "scalar":
                self.nodes.kinds[arg.name] = REALS[arg.ctype]
                self.x[floats] = self.nodes.make(Op.SCALAR, (), arg.name)
                floats += 1
                continue
            name = number + (v.POINTER if arg.kind == "pointer" else 0)
            value = (number + 1) << POINTER_GAP if arg.kind == "pointer" else sizes[arg.name]
            self.atoms[name], self.names[name] = value, arg
            if arg.kind == "pointer" and arg.ctype != "float":
                self._declare(name, arg)
            if arg.kind == "pointer" and arg.const:
                self.readonly.add(name)
            whole = v.atom(name, value)
            period = periods.get(arg.name, 1)
            if period != 1:
                whole = self.periodic(name, value, period)
            if arg.data:
                whole = self.as_data(whole, arg.width)
            held = whole if arg.width == 64 else Part(whole, 32)  # undefined above (3.2.3)
            if integers < len(INTEGER_ARGUMENTS):
                self.r[INTEGER_ARGUMENTS[integers]] = held
            else:
                self.stack[STACK + 8 * (integers - len(INTEGER_ARGUMENTS))] = (8, held)
            integers += 1
        # what a function may write above its return address: its arguments (3.2.3)
        self.top = STACK + 8 * max(0, integers - len(INTEGER_ARGUMENTS))

    def _declare(self, pointer: int, argument: Argument) -> None:
        """What the elements of an array are, and which values integers have."""
        if argument.ctype not in ELEMENTS:
            raise Refusal(
                f"{argument.name} is an array of {argument.ctype}",
                f"arrays of {', '.join(ELEMENTS)}",
                "declare the array with one of these types",
            )
        kind = self.nodes.kinds[pointer] = arithmetic(argument.ctype)
        if kind in INTEGERS:
            self.nodes.limits[pointer] = ELEMENTS[argument.ctype][1:]

    # ---- registers

    def defined(self, number: int) -> object:
        """The raw content of a register, refused where it has none."""
        value = self.movable(number)
        if value.__class__ is Saved:
            raise Refusal(f"{NAMES[number]} is read before it is written")
        return value

    def movable(self, number: int) -> object:
        """`defined`, or the caller's value of a register that is being saved."""
        value = self.r[number]
        if value.__class__ is Chosen:
            what = f"{NAMES[number]} holds {value.what}"
            raise Refusal(what, "integers are sizes, counters and elements", value.change)
        if value is None:
            raise Refusal(f"{NAMES[number]} is read after a call or branch that lost it")
        return value

    def read64(self, number: int) -> v.Int:
        value = self.r[number]
        if value.__class__ is int or value.__class__ is v.Poly:
            return value
        return self.as_integer(self.defined(number), 64)

    def read32(self, number: int) -> v.Int:
        """Any representative modulo 2^32."""
        return self.as_integer(self.defined(number), 32)

    def read(self, number: int, width: int, data: bool = False) -> object:
        return self.as_integer(self.defined(number), width, data)

    def high_byte(self, number: int, data: bool) -> object:
        """ah, ch, dh, bh."""
        word = self.read(number, 16, data)
        if word.__class__ is Node:
            return self.shifted_data("shr", word, 8, 16)
        return self.shifted("shr", word, 8, 16)

    def as_integer(self, value: object, width: int, data: bool = False) -> object:
        kind = value.__class__
        if kind is int:
            if width < 64:
                self.plain_number(value)
            return v.signed(value, width)
        if kind is v.Poly:
            return value
        if kind is v.Low32:
            return value.poly if width <= 32 else self.zero_extended(value.poly)
        if kind is Part and width <= value.width:
            return self.as_integer(value.value, width, data)
        if data and kind is Node:
            return value
        whole = joined(self.nodes, value, width) if data and kind is Part else None
        if whole is None:
            raise v.NotAnInteger
        return whole

    def as_data(self, value: object, width: int) -> Node:
        """Integer data of that width; a size or a counter as the number it is."""
        value = whole(value.value if value.__class__ is Part else value)
        if value.__class__ is not v.Poly:
            return data.as_data(self.nodes, value, width)
        if v.has_pointer(value) or not self.fits(value, 32) or max(map(len, value.terms)) > 1:
            raise Refusal(
                f"{self.text(value)} meets integer data and can wrap around in 32 bits",
                "sizes and counters, plus constants, beside integer data",
                "compute the product of sizes in float, or pass it as an argument",
            )
        self._limit(value, 32)
        index = self.outside(self.stripped(value, "arithmetic on data"))
        node = self.nodes.make(Op.INDEXI, (), index)
        return node if width < 64 else data.wide(self.nodes, node, True)

    def holds_data(self, number: int) -> bool:
        value = self.r[number]
        return value.__class__ is Node or (value.__class__ is Part and value.value.__class__ is Node)

    def calculated(self, op: Op, a: object, b: object, width: int) -> Node:
        return data.binary(self.nodes, op, self.as_data(a, width), self.as_data(b, width))

    def byte_product(self, b: object, signed: bool) -> None:
        """ax = al * b."""
        a, self.flags = self.read(0, 8, True), None
        one, two = (self.extended(x, 8, 32, signed) for x in (a, b))
        found = v.mul(one, two) if Node not in (one.__class__, two.__class__) else (
            self.calculated(Op.MUL, one, two, 32))
        self.write_low(0, 16, found)

    def with_carry(self, a: object, b: object, sign: int, carry: Node, width: int) -> Node:
        """a + b + carry, or a - b - carry: with a constant b a choice of what is added."""
        if b.__class__ is int:
            arms = (self.as_data(sign * (b + k), width) for k in (1, 0))
            return self.calculated(Op.ADD, a, data.select(self.nodes, carry, *arms), width)
        op = Op.ADD if sign > 0 else Op.SUB
        return self.calculated(op, self.calculated(op, a, b, width), carry, width)

    def as_float(self, value: object, kind: str = "f32") -> Node:
        if value.__class__ is int:
            return self.nodes.const(value) if kind == "f32" else self.nodes.const64(value)
        if value.__class__ is Node and value.kind == kind:
            return value
        if value.__class__ is Node and value.kind in (*INTEGERS, "bool"):
            return data.real(self.nodes, data.as_data(self.nodes, value, WIDTH[kind]))
        if value.__class__ is Node:
            return self._of_kind(value, kind, "the value")
        raise Refusal(
            "a counter or a size is used as the bits of a float",
            "bits of floats and of integer data",
            "convert it: (float)i",
        )

    def as_lanes(self, value: object) -> Node:
        """Sixteen bytes from memory: a constant, or a register that was stored."""
        if value.__class__ is int:
            return self.nodes.const64(value)
        if value.__class__ is not Node:
            raise Refusal("a vector register is loaded with what is not a float")
        return value

    def float(self, number: int, kind: str = "f32") -> Node:
        """The lowest lane of a vector register as a number of this kind."""
        value = self.lanes(number)
        return value if value.kind == kind else self._of_kind(value, kind, f"xmm{number}")

    def lanes(self, number: int) -> Node:
        value = self.x[number]
        if value is None:
            raise Refusal(f"xmm{number} is read before it is written")
        return value

    def _of_kind(self, value: Node, kind: str, where: str) -> Node:
        if value.kind == kind:
            return value
        if value.op in CONSTANTS and kind == "f32":
            return self.nodes.const(value.imm)
        held = {
            "bool": "holds the mask of a comparison, used as a number",
            "f32": "holds a float, read as a double or as two floats",
            "f64": "holds a double, read as a float",
        }
        raise Refusal(
            f"{where} {held[value.kind]}", "each variable used as what it is",
            "convert with casts; no unions, no pointer casts",
        )  # fmt: skip

    def write64(self, number: int, value: object) -> None:
        if value.__class__ in DATA:
            self.held.add(number)
        self.r[number] = v.signed(value, 64) if value.__class__ is int else value

    def write32(self, number: int, value: object) -> None:
        if value.__class__ is int:
            self.plain_number(value)
            value &= 0xFFFFFFFF
        elif value.__class__ is v.Poly:
            value = v.Low32(value)
        elif value.__class__ is Node:
            self.held.add(number)
            if value.kind in ("i64", "f64"):
                value = data.as_data(self.nodes, value, 32)
        elif value.__class__ is Part:
            if value.width >= 32:
                return self.write32(number, value.value)
            self.held.add(number)
            value = Part(value.value, value.width, value.above)
        elif value.__class__ is not v.Low32:
            raise v.NotAnInteger
        self.r[number] = value

    def write_low(self, number: int, width: int, value: object) -> None:
        """8 or 16 bits; what lies above stays, and is known where it was a constant."""
        old = self.r[number]
        if value.__class__ is int and old.__class__ is int:
            mask = (1 << width) - 1
            self.r[number] = (old & ~mask) | (value & mask)
        elif value.__class__ is Node and value.kind == "bool" and old == 0:
            self.r[number] = value
        elif value.__class__ is Part and value.width < width:
            self.r[number] = Part(value.value, value.width)
        else:
            if old.__class__ is Part:
                old = old.above if old.width <= width else joined(self.nodes, old, 32)
            self.r[number] = Part(value.value if value.__class__ is Part else value, width, old)
        if value.__class__ in DATA:
            self.held.add(number)

    def push(self, number: int) -> None:
        self.r[RSP] = v.sub(self.r[RSP], 8)
        self.stack[self.r[RSP]] = (8, self.r[number])
        if self.r[number].__class__ in DATA:
            self.held.add(self.r[RSP])

    def pop(self, number: int) -> None:
        """Back from the stack; where a store took the place, only rsp moves (`pop rax` frees it)."""
        top = self.r[RSP]
        if top.__class__ is not int or top >= RETURN:
            raise Refusal("pop from a stack slot that was not pushed")
        width, value = self.stack.get(top, (0, None))
        if value.__class__ in DATA:
            self.held.add(number)
        self.r[number] = value if width == 8 else None
        self.r[RSP] = top + 8

    def registers(self) -> str:
        """The integer registers, for an error message."""
        held = [
            f"{NAMES[k]} = {self.text(v.unloaded(whole(a)))}"
            for k, a in enumerate(self.r)
            if a.__class__ in INTEGRAL and k != RSP
        ]
        return ", ".join(held)

    # ---- memory

    def load(self, address: v.Int, size: int) -> object:
        address = v.unloaded(address)
        if address.__class__ is int:
            return self._load_fixed(address, size)
        place, pointer, index = self.element(address, size)
        stored = self.memory.get(place)
        if stored is None:
            return self.nodes.load(pointer, index)
        value = stored[2]
        if value.kind not in INTEGERS:
            return value
        return data.wrapped(self.nodes, value, self.names[pointer].ctype)

    def _load_fixed(self, address: int, size: int) -> object:
        if not STACK - STACK_BELOW <= address < self.top:
            name = self.image.slot(address) if size == 8 else None
            if name:
                return Function(name)
            data = self.image.constant(address, size)
            if self.top <= address < STACK + STACK_BELOW:
                raise Refusal("a load from the stack of the caller", "arguments and constants only")
            if data is None:
                raise Refusal("a load from a global variable", "arguments and constants only")
            return self.placed(int.from_bytes(data, "little"), size)
        width, value = self.stack.get(address, (0, None))
        if value.__class__ is Chosen or width < size:
            raise Refusal(
                f"a stack slot (rsp at entry {address - RETURN:+d}) is read that is not written "
                "on every path, or only in part",
                "local variables that are set before they are used",
                "give the variable a value where it is declared",
            )
        if width > size and value.__class__ is int:
            return value & ((1 << 8 * size) - 1)
        if width > size and value.__class__ not in (v.Poly, v.Low32, Node, Part):
            raise Refusal("a part of a stack slot is read")
        return value

    def placed(self, value: int, size: int = 8) -> v.Int:
        """A constant, or the address in the image that it is."""
        far = size == 8 and value >> 16 > 0  # nothing lies at the addresses of small numbers
        return v.loaded(value) if far and self.image.read(value, 1) else value

    def store(self, address: v.Int, size: int, value: object) -> None:
        address = v.unloaded(address)
        if address.__class__ is int:
            self._store_fixed(address, size, value)
            return
        place, pointer, index = self.element(address, size)
        if value.__class__ is Part and value.width >= 8 * size:
            value = value.value
        if pointer in self.readonly:
            raise Refusal(
                f"a store through {self.names[pointer].name}, which is declared const",
                change="declare an output as a plain pointer",
            )
        kind = self.nodes.kinds.get(pointer, "f32")
        integers = kind in INTEGERS
        made = self.as_data(value, 8 * size) if integers else self.as_float(value, kind)
        made = data.demanded(self.nodes, made, 8 * size) if size < 4 else made
        self.memory[place] = (pointer, index, made)
        self.written.add(place)

    def _store_fixed(self, address: int, size: int, value: object) -> None:
        if not STACK - STACK_BELOW <= address < self.top:
            if self.top <= address < STACK + STACK_BELOW:
                raise Refusal("a store to the stack of the caller", "no state outside the arguments")
            raise Refusal("a store to a global variable", "no state outside the arguments")
        if self.r[RSP].__class__ is not int or address < self.r[RSP] - RED_ZONE:
            raise Refusal(f"a store more than {RED_ZONE} bytes below rsp, which is not kept")
        for near in range(address - 15, address + size):
            if near != address and near in self.stack and near + self.stack[near][0] > address:
                del self.stack[near]
        if size < 8 and value.__class__ is int:
            value &= (1 << 8 * size) - 1
        elif size < 4 and value.__class__ in (v.Poly, v.Low32, Node):
            value = Part(value, 8 * size)
        elif size == 4 and value.__class__ is v.Poly:
            value = v.Low32(value)
        if value.__class__ in DATA:
            self.held.add(address)
        self.stack[address] = (size, value)

    def before_call(self, tail: bool) -> None:
        """The callee may write below rsp, and wants rsp on a multiple of 16 before its frame."""
        top = self.r[RSP]
        if top.__class__ is not int or top % 16 != (8 if tail else 0):
            raise Refusal("the stack is not aligned to 16 bytes at a call")
        for slot in [s for s in self.stack if s < top]:
            del self.stack[slot]

    def element(self, address: v.Int, size: int) -> tuple[int, int, v.Int]:
        """Concrete address, pointer and element index of an access to a buffer."""
        usual = v.element_index(address) if size == 4 else None
        if usual is not None and self.names[usual[0]].ctype == "float":
            pointer, terms = usual
            index = v.make(terms, (address.value - self.atoms[pointer]) >> 2)
            return address.value, pointer, self.outside(index) if self.periods else index
        return self._unusual_element(address, size)

    def _unusual_element(self, address: v.Int, size: int) -> tuple[int, int, v.Int]:
        """`element` step by step: for the reason why an access is refused."""
        plain = self.stripped(address, "an address")
        if not v.fits(address, 64):
            raise Refusal(f"the address {self.text(address)} can wrap around")
        pointers = [] if plain.__class__ is int else [m for m in plain.terms if _is_pointer(m)]
        if not pointers:
            by = self.text(v.sub(address, v.terms_of(address).get(v.ONE, 0)))
            if abs(v.value_of(plain) - STACK) < STACK_BELOW:
                raise Refusal(f"a local array indexed by {by} bytes")
            raise Refusal(f"a table of constants indexed by {by} bytes")
        if len(pointers) != 1 or plain.terms[pointers[0]] != 1 or len(pointers[0]) != 1:
            raise Refusal(
                f"the address {self.text(address)} is not an element of one argument",
                change="a constant table or a local array indexed by a counter is not lifted",
            )
        (pointer,) = pointers[0]
        argument = self.names[pointer]
        wanted = ELEMENTS.get(argument.ctype, (0,))[0]
        if size == 16:
            raise Refusal("sixteen bytes of an array at once: vectorised code", *SCALAR)
        if size != wanted:
            raise Refusal(
                f"{8 * size}-bit access to {argument.name}, an array of {argument.ctype}",
                "loads and stores of single elements of the declared type",
                "declare the array as the type that the code reads and writes",
            )
        offset = v.sub(plain, v.atom(pointer, self.atoms[pointer]))
        index = v.divided(offset, size)
        if index is None:
            raise Refusal(f"the address {self.text(address)} is not a whole element")
        return plain.value, pointer, self.outside(index)


DATA = (Node, Part)
INTEGRAL = (int, v.Poly, v.Low32)


def whole(value: object) -> v.Int:
    return value.poly if value.__class__ is v.Low32 else value


def _is_pointer(mono: v.Mono) -> bool:
    return any(v.POINTER <= x < v.COUNTER for x in mono)
