"""Finished machine code, with where every instruction came from.

`str(code)` is the disassembly beside kernel operation and origin; `code.loop_stats()` counts what
each loop executes, which is what tests assert instead of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .isa.base import Isa
from .kernel import Kernel


class Piece(NamedTuple):
    """One machine instruction: its offset, and what asked for it."""

    offset: int
    op: str
    origin: str
    tags: str  # f: fma, l: load, s: store, m: register move, x: spill code
    loop: int  # the innermost loop around it, -1: none


@dataclass(frozen=True, slots=True)
class Line:
    """A piece with its text."""

    offset: int
    text: str
    op: str
    origin: str


@dataclass(frozen=True, slots=True)
class LoopStats:
    """What one innermost loop executes per round."""

    name: str
    instructions: int
    fmas: int
    loads: int
    stores: int
    moves: int
    spills: int


@dataclass(frozen=True, eq=False)
class Code:
    """Position-independent bytes: instructions, from `pool` on constants and called routines."""

    kernel: Kernel
    isa: Isa
    bytes: bytes
    pool: int
    pieces: tuple[Piece, ...]
    loops: tuple[tuple[int, str], ...]  # innermost loops: number, name
    spills: int  # instructions that only move values to and from the stack
    moves: int  # register-to-register moves
    frame: int = 0  # bytes of stack
    called: tuple[Code, ...] = ()  # routines, which lie behind the constants

    @cached_property
    def listing(self) -> tuple[Line, ...]:
        """The disassembly, one line per instruction."""
        return tuple(self.lines())

    def lines(self) -> Iterator[Line]:
        from iced_x86 import Decoder, Formatter, FormatterSyntax

        formatter = Formatter(FormatterSyntax.INTEL)
        formatter.rip_relative_addresses = True
        formatter.space_after_operand_separator = True
        ends = [p.offset for p in self.pieces[1:]] + [self.pool]
        for piece, end in zip(self.pieces, ends, strict=True):
            for ins in Decoder(64, self.bytes[piece.offset : end], ip=piece.offset):
                if ins.ip < self.pool and (ins.ip == piece.offset or piece.op != "align"):
                    yield Line(ins.ip, formatter.format(ins), piece.op, piece.origin)

    @property
    def parts(self) -> tuple[Code, ...]:
        """This code and that of every routine below it, each once."""
        found = dict.fromkeys(part for code in self.called for part in code.parts)
        return (self, *found)

    def own_loops(self) -> tuple[LoopStats, ...]:
        return tuple(self.stats_of(number, name) for number, name in self.loops)

    def loop_stats(self) -> tuple[LoopStats, ...]:
        """Of the innermost loops, those of called routines included."""
        return tuple(stats for part in self.parts for stats in part.own_loops())

    def stats_of(self, number: int, name: str) -> LoopStats:
        inside = [p.tags for p in self.pieces if p.loop == number]
        counts = [sum(tag in tags for tags in inside) for tag in "flsmx"]
        return LoopStats(name, len(inside), *counts)

    def __str__(self) -> str:
        head = (f"{self.kernel.name} for {self.isa.name}: {len(self.pieces)} instructions, "
                f"{len(self.bytes)} bytes, {self.spills} spills, {self.moves} moves")
        body = [f"{n.offset:6x}  {n.text:<58} ; {n.op:<8} {n.origin}".rstrip()
                for n in self.listing]
        return "\n".join([head, *body, *(f"\n{code}" for code in self.called)])
