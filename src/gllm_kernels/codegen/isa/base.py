"""The words of an instruction set: registers and rows `kernel op -> instruction`.

A row is written as text in the order the processor wants its operands:

    row("EVEX_VADDPS_ZMM_K1Z_ZMM_ZMMM512B32_ER", "d:z 0:z 1:z+")

`d` is the destination, a digit the number of a source, `m` the address the operation itself
carries; the letter behind the colon is the register file (z, y, x: vectors of 512, 256, 128 bits; r, e: 64-
and 32-bit integers; k: masks). `*` lets the operand be a vector in memory, `+` also one element
broadcast from memory, `{0}` uses source 0 as write mask and `{0z}` zeroes what it masks off.
`=0` says the destination must be source 0's register.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from iced_x86 import Code

from ..kernel import K

DST, MEM = -1, -2


@dataclass(frozen=True, slots=True)
class Ins:
    """One machine instruction; `operands` are (source number | DST | MEM, register file)."""

    code: int
    name: str
    operands: tuple[tuple[int, str], ...]
    mem: int = -1  # the source that may be memory
    broadcast: bool = False  # ... and one element of it
    mask: int = -1  # the source that is the write mask
    zeroing: bool = False
    tie: int = -1  # the source that shares the destination's register
    imm: int | None = None  # a fixed immediate
    encode: Callable[[object], int] | None = None  # kernel immediate -> machine immediate
    swap: bool = False  # sources 0 and 1 may be exchanged
    kind: str = ""  # "fma" | "move" | "load" | "store" for statistics

    @property
    def addressed(self) -> bool:
        """Whether it takes the operation's own address."""
        return any(number == MEM for number, _ in self.operands)

    def fixed(self, imm: int) -> Ins:
        return replace(self, imm=imm)


def row(name: str, form: str, **options: object) -> Ins:
    """Parse the text of a row."""
    operands, found = [], {}
    for token in form.split():
        if token[0] == "{":
            found |= {"mask": int(token[1]), "zeroing": token[2] == "z"}
        elif token[0] == "=":
            found["tie"] = int(token[1:])
        else:
            who, _, file = token.partition(":")
            number = {"d": DST, "m": MEM}.get(who) if who in "dm" else int(who)
            if file[1:]:
                found |= {"mem": number, "broadcast": file[1] == "+"}
            operands.append((number, file[:1]))
    return Ins(getattr(Code, name), name, tuple(operands), **(found | options))


@dataclass(frozen=True, slots=True)
class Fma:
    """The three orders of a fused multiply-add, by which operand the result replaces.

    132: d = d*m + s    213: d = s*d + m    231: d = s*m + d     (m may be memory)

    A dot product of pairs or of bytes has the last order only; of bytes only the second is signed.
    """

    f132: Ins | None
    f213: Ins | None
    f231: Ins
    ordered: bool = False
    tie: ClassVar[int] = -1  # none by itself: the allocator chooses one of three

    @property
    def factors(self) -> tuple[int, ...]:
        """Arguments that may be memory, and those whose register the result may take."""
        if self.ordered:
            return (1,)
        return (0, 1) if self.f213 is None else (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of an expansion: `dst = ins(srcs)`.

    Names: `a`, `b`, `c` are the operation's arguments (behind the address), `d` its result, "" none, `=name` a vector constant of
    the ISA, anything else a temporary.
    """

    dst: str
    ins: Ins
    srcs: tuple[str, ...] = ()
    imm: int | None = None


@dataclass(frozen=True, eq=False)
class Isa:
    """Vocabulary only: nothing here decides anything."""

    name: str
    lanes: int
    vregs: int
    mask_class: str  # "k": mask registers; "v": masks are vectors of all-ones lanes
    features: frozenset[str]  # CPU features the rows need
    rows: Mapping[K, Ins | Fma | tuple[Step, ...]]
    tables: Mapping[str, tuple[int, ...]]  # vector constants named by `=name`
    legal: Mapping[K, Callable]  # operations rewritten in kernel IR first (legalise.py)
    move: Ins
    load: Ins
    store: Ins
    broadcast: Ins
    zero: Ins
    permute_blocks: Ins  # the same choice in every 128 bits, by immediate
    swap_registers: Ins  # exclusive or, for cycles of moves
    mask_moves: tuple[Ins, Ins, Ins] | None = None  # register move, load, store of the k file
    mask_swap: Ins | None = None

    @property
    def vector_bytes(self) -> int:
        return 4 * self.lanes

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Kernel operations this ISA has neither a row nor a rewriting for."""
        return tuple(op for op in K if op not in self.rows and op not in self.legal)
