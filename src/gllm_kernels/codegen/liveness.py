"""From where to where every virtual register is live.

Instruction i reads at bit 2i and writes at bit 2i + 1. A live range is a Python integer with a bit
per position, so "do two values interfere" is one AND and "give them the same register" is one OR,
whatever holes the ranges have.
"""

from __future__ import annotations

from dataclasses import dataclass

from .machine import Kind, Program


@dataclass(slots=True)
class Life:
    """Live ranges with their first and last bit, and how deep in loops every position is."""

    ranges: list[int]
    first: list[int]
    last: list[int]
    depth: list[int]


def liveness(program: Program) -> Life:
    """Ranges from definition to last use, to the end of every loop entered in between.

    The lists have one more element than there are registers: no register is number -1, so what is
    said of an address without an index, or a source in memory, goes there.
    """
    code, count = program.code, len(program.classes)
    head, back = ({m.target: i for i, m in enumerate(code) if m[0] is kind}
                  for kind in (Kind.HEAD, Kind.BACK))
    results: dict[int, list[int]] = {}
    for result, _, loop in program.results:
        results.setdefault(loop, []).append(result)
    first, last, home = [-1] * (count + 1), [-1] * (count + 1), [0] * (count + 1)
    extra: dict[int, tuple[int, int]] = {}  # phi -> second part of its range
    depths, stack, depth = [], [], 0
    for i, (kind, ins, defs, reads, mem, _, _, _, target, _, _) in enumerate(code):
        if kind is Kind.HEAD:
            stack.append(2 * back[target] + 1)
            depth += 1
        depths.append(depth)
        if mem is not None:
            reads = (*reads, mem.base, mem.index)
        for v in reads:
            end = 2 * i if depth <= home[v] else stack[home[v]]
            if end > last[v] and (v not in extra or 2 * i < extra[v][0]):
                last[v] = end  # else: a counter compared behind its own back edge
        if kind is Kind.OP and ins.tie >= 0 and not ins.swap:
            # Sources read after the destination was filled may not share its register.
            for at, v in enumerate(reads):
                if at != ins.tie:
                    last[v] = max(last[v], 2 * i + 1)
        for v in defs:
            if first[v] < 0:
                first[v] = last[v] = 2 * i + 1
                home[v] = depth
                if target >= 0:  # a phi, written before the loop
                    home[v] = depth + 1
                    last[v] = 2 * head[target] + 1
            else:  # a phi, written at the back edge: live from here to the loop's end
                extra[v] = 2 * i + 1, 2 * back[target] + 1
        if kind is Kind.BACK:
            stack.pop()
            depth -= 1
            for result in results.get(target, ()):
                first[result], home[result], last[result] = 2 * i + 1, depth, 2 * i + 1
    ranges = [(2 << b) - (1 << a) if a >= 0 else 0 for a, b in zip(first, last, strict=True)]
    for v, (start, end) in extra.items():
        ranges[v] |= (2 << end) - (1 << start)
        last[v] = end
    return Life(ranges, first, last, depths)
