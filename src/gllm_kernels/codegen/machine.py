"""Machine IR: instructions over virtual registers in linear order, between kernel and bytes.

    MInst ::= OP   defs = ins srcs [mem] [imm]
            | COPY defs := srcs, all at once          (phis at a loop's entry and back edge)
            | HEAD | BACK | IF | ENDIF                 (jumps after a compare, and their labels)
            | ENTRY defs                               (argument registers)

A virtual register is an integer; `Program.classes` gives its class: g (integers), v, k (masks).
Plain tuples rather than frozen dataclasses: a kernel makes some thousands of them, at a third of
the cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from .isa.base import Fma, Ins
from .kernel import Kernel, Routine

IN_MEMORY = -1  # in `srcs`: this source is `mem`


class Kind(IntEnum):
    OP = 0
    COPY = 1
    HEAD = 2
    BACK = 3
    IF = 4
    ENDIF = 5
    ENTRY = 6


class Addr(NamedTuple):
    """base + index*scale + disp, or what lies behind the code, or a stack slot."""

    base: int = -1
    index: int = -1
    scale: int = 1
    disp: int = 0
    pool: tuple[int, ...] | Routine | None = None  # 32-bit words, or code
    slot: int = -1
    broadcast: bool = False

    def at(self, base: int, index: int) -> Addr:
        """The same address in other registers."""
        return Addr(base, index, *self[2:])


class MInst(NamedTuple):
    """One line of machine IR; for a loop's or branch's mark `target` is its number."""

    kind: Kind
    ins: Ins | Fma | None = None
    defs: tuple[int, ...] = ()
    srcs: tuple = ()
    mem: Addr | None = None
    imm: int | None = None
    origin: str = ""
    op: str = ""
    target: int = -1
    free: bool = False  # cheaper to repeat than to keep in memory: constants, arguments
    spill: bool = False  # inserted by the register allocator

    def on(self, defs: tuple[int, ...], srcs: tuple, mem: Addr | None) -> MInst:
        """The same operation on other operands."""
        return MInst(self[0], self[1], defs, srcs, mem, *self[5:])


@dataclass(slots=True)
class Program:
    """Everything the register allocator and the assembler need to know."""

    kernel: Kernel
    code: list[MInst]
    classes: list[str]
    fixed: dict[int, int] = field(default_factory=dict)  # virtual -> machine register
    results: list[tuple[int, int, int]] = field(default_factory=list)  # (result, phi, loop)
    innermost: set[int] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)

    def fresh(self, class_: str) -> int:
        self.classes.append(class_)
        return len(self.classes) - 1


FREE_LOADS = frozenset({"vconst", "vconst64", "iconst", "vlanes", "arg", "argf"})
