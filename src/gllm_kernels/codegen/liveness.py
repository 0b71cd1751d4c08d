"""From where to where every virtual register is live.

Instruction i reads at bit 2i and writes at bit 2i + 1. A live range is a Python integer with a bit
per position, so "do two values interfere" is one AND and "give them the same register" is one OR,
whatever holes the ranges have.
"""

from __future__ import annotations

from dataclasses import dataclass

from .isa.base import Fma
from .machine import IN_MEMORY, Kind, MInst, Program


@dataclass(slots=True)
class Life:
    """Live ranges and use weights of every virtual register."""

    ranges: list[int]
    weights: list[float]
    depth: list[int]  # of every position
    reads: list[list[int]]  # virtual registers every position reads


def liveness(program: Program) -> Life:
    """Ranges from definition to last use, to the end of every loop entered in between."""
    code, count = program.code, len(program.classes)
    used = [reads(m) for m in code]
    back = {m.target: i for i, m in enumerate(code) if m.kind is Kind.BACK}
    head = {m.target: i for i, m in enumerate(code) if m.kind is Kind.HEAD}
    first, last, home = [-1] * count, [-1] * count, [0] * count
    extra = [0] * count
    weights, depths = [0.0] * count, []
    stack: list[int] = []
    for i, m in enumerate(code):
        if m.kind is Kind.HEAD:
            stack.append(back[m.target])
        depth = len(stack)
        depths.append(depth)
        weight = 10.0**depth
        for v in used[i]:
            weights[v] += weight
            if extra[v] and 2 * i >= (extra[v] & -extra[v]).bit_length():
                continue  # a counter compared behind its own back edge
            end = 2 * i if depth <= home[v] else 2 * stack[home[v]] + 1
            last[v] = max(last[v], end)
        for v in kept(m):
            last[v] = max(last[v], 2 * i + 1)
        for v in m.defs:
            weights[v] += weight
            if first[v] < 0:
                first[v] = last[v] = 2 * i + 1
                home[v] = depth
                if m.target >= 0:  # a phi, written before the loop
                    home[v] = depth + 1
                    last[v] = 2 * head[m.target] + 1
            else:  # a phi, written at the back edge: live from here to the loop's end
                extra[v] = span(2 * i + 1, 2 * back[m.target] + 1)
        if m.kind is Kind.BACK:
            stack.pop()
            for result, _, loop in program.results:
                if loop == m.target:
                    first[result], home[result] = 2 * i + 1, len(stack)
                    last[result] = 2 * i + 1
    ranges = [span(a, b) | e if a >= 0 else 0 for a, b, e in zip(first, last, extra, strict=True)]
    return Life(ranges, weights, depths, used)


def kept(m: MInst) -> tuple[int, ...]:
    """Sources that are read after the destination was filled, so may not share its register."""
    if m.kind is not Kind.OP or isinstance(m.ins, Fma) or m.ins.tie < 0 or m.ins.swap:
        return ()
    return tuple(v for i, v in enumerate(m.srcs) if i != m.ins.tie and v >= 0)


def span(first: int, last: int) -> int:
    """Bits first .. last, both included."""
    return (1 << last + 1) - (1 << first)


def reads(m: MInst) -> list[int]:
    """Virtual registers an instruction reads."""
    found, mem = list(m.srcs), m.mem
    if mem is None:
        return found
    if IN_MEMORY in found:
        found.remove(IN_MEMORY)
    if mem.base >= 0:
        found.append(mem.base)
    if mem.index >= 0:
        found.append(mem.index)
    return found
