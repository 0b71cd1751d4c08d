"""What a refused function looks like to the one who wrote it.

scalar_first: a branch on a loop counter: i compared with 0
  source: first.c:4:  out[i] = i == 0 ? 0.0f : x[i];
  expected: every element computed by the same formula
  change: split the function, or compute the condition from data
       1164:  test rax, rax
  ->   1167:  je 1180h
              ^^^^^^^^
       1169:  movss xmm0, [rdi+rax*4]
  registers: rdi = x, rax = 4*i, ...
  known: n = 5 in this run; i counts the loop around this place, now in round 0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import LiftError
from .remedies import remedy

BEFORE, AFTER = 3, 3
SCALAR = (
    "scalar code",
    "compile with -fno-tree-vectorize -fno-tree-slp-vectorize (gcc), -fno-vectorize "
    "-fno-slp-vectorize (clang, zig cc), -C no-vectorize-loops -C no-vectorize-slp (rustc), "
    "NUMBA_LOOP_VECTORIZE=0 when numba is imported, or @gk.operator (numba)",
)


@dataclass
class Refusal(Exception):
    """Raised inside the lifter; `at` is the address of the instruction, when there is one."""

    what: str
    expected: str = ""
    change: str = ""
    at: int | None = None
    registers: str = ""
    known: str = ""

    def __str__(self) -> str:
        return self.what


def lift_error(
    name: str, refusal: Refusal, listing: Mapping[int, str], line: Callable[[int], str]
) -> LiftError:
    """The error with the line of the source, those around the instruction and a caret below it."""
    expected, change = remedy(refusal.what)
    source = line(refusal.at) if refusal.at in listing else ""
    rows = {
        "source": source, "expected": refusal.expected or expected,
        "change": refusal.change or change,
    }  # fmt: skip
    lines = [f"{name}: {refusal.what}", *(f"  {k}: {text}" for k, text in rows.items() if text)]
    lines += _excerpt(refusal.at, listing)
    rows = {"registers": refusal.registers, "known": refusal.known}
    return LiftError("\n".join([*lines, *(f"  {k}: {text}" for k, text in rows.items() if text)]))


def _excerpt(at: int | None, listing: Mapping[int, str]) -> Sequence[str]:
    addresses = sorted(listing)
    if at not in listing:
        return []
    place = addresses.index(at)
    lines = []
    for address in addresses[max(0, place - BEFORE) : place + AFTER + 1]:
        mark = "->" if address == at else "  "
        lines.append(f"    {mark} {address:6x}:  {listing[address]}")
        if address == at:
            lines.append(" " * 16 + "^" * len(listing[address]))
    return lines
