"""Bits of blocks as vectors: fields of a byte, windows whose dwords are permuted, small tables.

A lane is 32 bits. Every field is cut into pieces that lie in one byte. The k-th pieces of all lanes
are one shift and one mask behind a load: of consecutive bytes, if the lanes lie so, else of a window
of the block whose dwords are permuted, or of one dword. Constant vectors lie in memory, in `Tables`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..quant.desc import Field
from .kernel import K, KernelBuilder, Mem, Value

Piece = tuple[int, int, int]  # (bit in the block, bits within one byte, place)
NONE: Piece = (0, 0, 0)


@dataclass
class Tables:
    """Constant bytes that a kernel reads; equal ones lie there once."""

    parts: dict[bytes, int] = field(default_factory=dict)
    size: int = 0

    def place(self, content: bytes, unit: int = 64) -> int:
        """Where the bytes are, from the start."""
        if content not in self.parts:
            at = -(-self.size // unit) * unit
            self.parts[content] = at
            self.size = at + len(content)
        return self.parts[content]

    def array(self) -> np.ndarray:
        """All of them; a dword may be read at the last byte."""
        out = np.zeros(self.size + 64, np.uint8)
        for content, at in self.parts.items():
            out[at : at + len(content)] = np.frombuffer(content, np.uint8)
        return out


@dataclass
class Fields:
    """Lowering of fields of `room` bytes that begin at `block`."""

    b: KernelBuilder
    room: int
    tables: Tables
    block: Value

    def word(self, fields: Sequence[Sequence[Field]], join: K = K.VOR) -> Value:
        """The fields of every lane put together."""
        pieces = [_pieces(lane) for lane in fields]
        found = None
        for k in range(max(map(len, pieces), default=0)):
            column = [lane[k] if k < len(lane) else NONE for lane in pieces]
            for part in self.windows(column):
                found = part if found is None else self.b.emit(join, found, part)
        return self.b.bits(0) if found is None else found

    def windows(self, column: list[Piece]) -> list[Value]:
        """One vector, or several with zeros where another has the lane."""
        first, count, place = column[0]
        if count and column == [(first + 8 * i, count, place) for i in range(len(column))]:
            return [self.moved(self.bytes(first // 8), [first % 8] * len(column), column, True)]
        made, left = [], {i for i, piece in enumerate(column) if piece[1]}
        most = min(4 * self.b.lanes, self.room // 4 * 4)
        while left:
            start = min(min(column[i][0] // 8 for i in left), self.room - most)
            inside = {i for i in left if column[i][0] // 8 < start + most}
            bits = [column[i][0] - 8 * start if i in inside else 0 for i in range(len(column))]
            own = [piece if i in inside else NONE for i, piece in enumerate(column)]
            dwords = [bits[i] // 32 for i in sorted(inside)]
            if len(set(dwords)) == 1:
                words = self.dword(start + 4 * dwords[0])
            else:
                words = self.b.emit(K.VPERM, self.window(start, most), self.vector([b // 32 for b in bits]))
            made.append(self.moved(words, [bit % 32 for bit in bits], own))
            left -= inside
        return made

    def moved(self, words: Value, bits: list[int], column: list[Piece], whole: bool = False) -> Value:
        """Bits `bits` of every lane to the place of its piece, the rest cleared; `whole`: words are
        single bytes, all at one bit."""
        steps = [bit - place for bit, (_, _, place) in zip(bits, column, strict=True)]
        for right, left, sign in ((K.VSHR, K.VSHRV, 1), (K.VSHL, K.VSHLV, -1)):
            counts = [max(0, sign * step) for step in steps]
            if any(counts):
                words = (self.b.emit(right, words, imm=counts[0]) if len(set(counts)) == 1
                         else self.b.emit(left, words, self.vector(counts)))  # fmt: skip
        if whole and not column[0][2] and bits[0] + column[0][1] == 8:  # nothing lies above or below
            return words
        return self.b.emit(K.VAND, words, self.vector([(1 << n) - 1 << to for _, n, to in column]))

    def bytes(self, at: int) -> Value:
        """As many bytes as there are lanes. Loaded again where they are used again: a load costs
        less than a register that is kept."""
        return self.b.load(self.block, self.b.int(0), 1, at, storage="uint8_t")

    def dword(self, at: int) -> Value:
        """Four bytes in all lanes."""
        return self.b.broadcast(self.block, self.b.int(0), 1, at)

    def window(self, at: int, size: int) -> Value:
        """`size` bytes, zeros behind."""
        b, lanes = self.b, self.b.lanes
        mask = b.emit(K.FIRST, b.int(size // 4)) if size < 4 * lanes else None
        return b.load(self.block, b.int(0), 1, at, mask)

    def vector(self, values: Sequence[int]) -> Value:
        """A constant vector."""
        words = [value & 0xFFFFFFFF for value in values]
        if len(set(words)) == 1:
            return self.b.bits(words[0])
        at = self.tables.place(np.array(words, np.uint32).tobytes())
        return self.b.load(self.b.arg("tables"), self.b.int(0), 1, at)

    # ---- constants and tables

    def with_constant(self, op: K, x: Value, values: Sequence[int]) -> Value:
        return self.b.emit(op, x, self.vector(values)) if any(values) else x

    def looked_up(self, u: Value, words: np.ndarray) -> Value:
        """words[u], each of 32 bits."""
        lanes, b = self.b.lanes, self.b
        if len(words) > 16:
            at = self.tables.place(words.astype(np.uint32).tobytes())
            return b.emit(K.GATHER, b.arg("tables"), u, imm=Mem(4, at))
        words = np.resize(words, max(lanes, len(words)))
        parts = [b.emit(K.VPERM, self.vector(words[k : k + lanes].tolist()), u)
                 for k in range(0, len(words), lanes)]  # fmt: skip
        if len(parts) == 1:
            return parts[0]
        return b.emit(K.SELECT, b.emit(K.VILT, u, b.bits(lanes)), *parts)

    def packed(self, u: Value, entries: np.ndarray, bits: int) -> Value:
        """entries[u] of 1, 2, 4 or 8 bits: as many as a dword holds lie in one."""
        b, per = self.b, 32 // bits
        shifts = np.arange(per, dtype=np.uint32) * np.uint32(bits)
        words = (entries.astype(np.uint32).reshape(-1, per) << shifts).sum(1, dtype=np.uint32)
        word = self.looked_up(b.emit(K.VSHR, u, imm=per.bit_length() - 1), words)
        place = b.emit(K.VSHL, b.emit(K.VAND, u, b.bits(per - 1)), imm=bits.bit_length() - 1)
        return b.emit(K.VAND, b.emit(K.VSHRV, word, place), b.bits((1 << bits) - 1))


def _pieces(fields: Sequence[Field]) -> list[Piece]:
    """Fields cut at the bounds of bytes."""
    made = []
    for at, count, place in fields:
        while count:
            n = min(count, 8 - at % 8)
            made.append((at, n, place))
            at, count, place = at + n, count - n, place + n
    return made


def bytes_of(bits: tuple[Field, ...]) -> list[Field]:
    """Single bits, ascending, as runs within one byte, each at place 0."""
    runs: list[list[int]] = []
    for at, _, _ in bits:
        if runs and runs[-1][0] + runs[-1][1] == at and at % 8:
            runs[-1][1] += 1
        else:
            runs.append([at, 1, 0])
    return [tuple(run) for run in runs]
