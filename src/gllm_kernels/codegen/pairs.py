"""How terms lie in the lanes of a product: one float each, or "pairs" of bf16.

A lane of a pair holds terms 2r and 2r + 1; VDOT2 multiplies and adds both. All loops count lanes,
so k terms are ceil(k/2) of them; where k is odd, the last lane's second half is zero.
"""

from __future__ import annotations

from ..dtypes import SIZE
from .kernel import K, KernelBuilder, Mem, Value

PAIRS = "pairs"
WIDTHS = SIZE | {PAIRS: 4}  # bytes of the terms of one lane in memory


def lanes_of(b: KernelBuilder, storage: str, k: Value) -> Value:
    """How many lanes k terms fill."""
    return (k + 1) / 2 if storage == PAIRS else k


def odd_of(b: KernelBuilder, storage: str, k: Value) -> Value:
    """1 when the last lane is half empty."""
    return k & 1 if storage == PAIRS else b.int(0)


def part_of(b: KernelBuilder, storage: str, left: Value, odd: Value) -> Value:
    """What `fetch` may load where `left` lanes are left: a mask, or a count of words."""
    if storage == PAIRS:
        return b.emit(K.IMIN, left * 2 - odd, b.int(2 * b.lanes))
    return b.emit(K.FIRST, left)


def fetch(b: KernelBuilder, storage: str, base: Value, at: tuple[Value, int], disp: int = 0,
          part: Value | None = None) -> Value:
    """A vector of lanes from base + index*scale + disp, or the part of it that exists."""
    if storage != PAIRS:
        return b.load(base, *at, disp, part, storage)
    if part is None:
        return b.load(base, *at, disp)
    return b.emit(K.LOADW, base, at[0], part, imm=Mem(at[1], disp))


def multiply(b: KernelBuilder, storage: str, x: Value, y: Value, total: Value) -> Value:
    """total + x*y, lane by lane."""
    return b.emit(K.VDOT2 if storage == PAIRS else K.VFMA, x, y, total)
