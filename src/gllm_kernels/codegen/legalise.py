"""Kernel -> kernel: operations an ISA lacks, written with operations it has.

    n - iv          -> a phi that counts down by the loop's step (x86 has no a = b - c)
    first(n)        -> first'(imax(imin(n, lanes), 0))     rows expect a count in 0..lanes
    vscalef(a, b)   -> a * 2**n1 * 2**n2 * 2**n3           n1 + n2 + n3 = floor(b)

The first holds for every ISA; the others, and those of `narrow` and `wide`, an ISA lists in `legal`. Every statement is visited once
and what a rule emits is not visited again, so the pass ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf, isnan
from typing import TYPE_CHECKING

from ..trace.ir import bits_float, float_bits
from .kernel import WITHIN, If, Inst, K, Kernel, Loop, Stmt, walk, with_body

if TYPE_CHECKING:
    from .isa.base import Isa


@dataclass
class Rewriter:
    """Emits replacement instructions with fresh ids."""

    lanes: int
    count: int
    defined: dict[int, Inst]  # what defines a value
    out: list[Stmt] = field(default_factory=list)
    origin: str = ""
    positive: set[int] = field(default_factory=set)

    def emit(self, op: K, *args: int, imm: object = None, dst: int | None = None) -> int:
        if dst is None:
            dst = self.fresh()
        self.out.append(Inst(dst, op, args, imm, self.origin))
        return dst

    def const(self, value: float) -> int:
        return self.emit(K.VCONST, imm=float_bits(value))

    def fresh(self) -> int:
        self.count += 1
        return self.count - 1

    def int(self, value: int) -> int:
        return self.emit(K.ICONST, imm=value)

    def inside(self, body: Callable[[], object]) -> tuple[tuple[Stmt, ...], object]:
        """What `body` emits, and what it returns."""
        outer, self.out = self.out, []
        found = body()
        inner, self.out = tuple(self.out), outer
        return inner, found

    def body(self, body: tuple[Stmt, ...], rules: dict[K, Callable]) -> tuple[Stmt, ...]:
        outer, self.out = self.out, []
        for stmt in body:
            if isinstance(stmt, Loop):
                self.positive.update(s.dst for s in stmt.body if isinstance(s, Inst)
                                     and s.op is K.ISUB and s.args == (stmt.hi, stmt.iv))
                loop = count_down(self, stmt)
                self.out.append(replace(loop, body=self.body(loop.body, rules)))
            elif isinstance(stmt, If):
                self.out.append(replace(stmt, body=self.body(stmt.body, rules)))
            elif stmt.op in rules:
                self.origin = stmt.origin
                rules[stmt.op](self, stmt)
            else:
                self.out.append(stmt)
        result, self.out = tuple(self.out), outer
        return result


def legalise(kernel: Kernel, isa: Isa) -> Kernel:
    """The same kernel in operations `isa` has rows for."""
    statements = walk(kernel.body)
    defined = {s.dst: s for s in statements if s.__class__ is Inst}
    used = {s.op for s in defined.values()}
    if K.ISUB not in used and used.isdisjoint(isa.legal):
        return kernel
    others = [v for s in statements if s.__class__ is Loop for v in (s.iv, *s.phis, *s.results)]
    rewriter = Rewriter(kernel.lanes, 1 + max([*defined, *others]), defined)
    return with_body(kernel, rewriter.body(kernel.body, dict(isa.legal)))


def nests(body: tuple[Stmt, ...]) -> bool:
    """Is there a loop in it?"""
    return any(s.__class__ is Loop or s.__class__ is If and nests(s.body) for s in body)


def count_down(r: Rewriter, loop: Loop) -> Loop:
    """before -> after, for every n - iv of the body with n made outside:

        for iv in [lo, hi) step s: d = n - iv
        for iv in [lo, hi) step s carrying d = n - lo: yield d - s

    Only in innermost loops: around others a carried value costs more than the subtraction.
    """
    if nests(loop.body):
        return loop
    inside = {loop.iv, *loop.phis}
    found = []
    for stmt in loop.body:
        if isinstance(stmt, Inst):
            inside.add(stmt.dst)
            if stmt.op is K.ISUB and stmt.args[1] == loop.iv and stmt.args[0] not in inside:
                found.append(stmt)
    for inst in found:
        start, r.origin = r.defined.get(loop.lo), inst.origin
        zero = start is not None and start.op is K.ICONST and start.imm == 0
        init = inst.args[0] if zero else r.emit(K.ISUB, inst.args[0], loop.lo)
        step, next_, result = range(r.count, r.count + 3)
        r.count += 3
        down = (Inst(step, K.ICONST, (), -loop.step, r.origin),
                Inst(next_, K.IADD, (inst.dst, step), None, r.origin))
        body = (*(s for s in loop.body if s is not inst), *down)
        loop = replace(loop, body=body, inits=(*loop.inits, init), phis=(*loop.phis, inst.dst),
                       yields=(*loop.yields, next_), results=(*loop.results, result))
    return loop


def clamp_first(r: Rewriter, inst: Inst) -> None:
    """first(n) -> first(imax(imin(n, lanes), 0)): rows see 0..lanes, whatever n's 64 bits say.
    What a loop has left, hi - iv, is positive in its body.
    """
    count = inst.args[0]
    if inst.imm != WITHIN:
        count = r.emit(K.IMIN, count, r.emit(K.ICONST, imm=r.lanes))
        if inst.args[0] not in r.positive:
            count = r.emit(K.IMAX, count, r.emit(K.ICONST, imm=0))
    r.emit(K.FIRST, count, dst=inst.dst, imm=inst.imm)


def scalef_by_multiplying(r: Rewriter, inst: Inst) -> None:
    """a * 2**floor(b) as three products by normal powers of two, rounded once.

    n3 = clamp(n), n2 = clamp(n - n3), n1 = clamp(n - n3 - n2), clamp to -126 .. 127; the largest
    part comes last. Going up every product is exact or already infinite. Going down, an earlier
    product is inexact only when it is denormal although n3 = -126 is still to come; then the result
    is zero either way. |floor(b)| > 378 saturates, which is past 2**(128 + 149) in both directions.
    Where b is known to lie in -252 .. 254, n1 is 0 and n2 needs no clamp: two products.
    """
    a, b = inst.args
    n = b if b in r.defined and r.defined[b].op is K.VROUND else floor(r, b)
    n3 = clamp(r, n)
    rest = r.emit(K.VSUB, n, n3)
    low, high = bounds(r, b)
    if -252 <= low and high <= 254:
        r.emit(K.VMUL, r.emit(K.VMUL, a, power(r, rest)), power(r, n3), dst=inst.dst)
        return
    n2 = clamp(r, rest)
    n1 = clamp(r, r.emit(K.VSUB, rest, n2))
    first = r.emit(K.VMUL, a, power(r, n1))
    second = r.emit(K.VMUL, first, power(r, n2))
    r.emit(K.VMUL, second, power(r, n3), dst=inst.dst)


def bounds(r: Rewriter, value: int) -> tuple[float, float]:
    """Least and greatest number a vector's lanes can be, as far as its definition tells."""
    inst = r.defined.get(value)
    op = None if inst is None else inst.op
    if op is K.VCONST:
        return bits_float(inst.imm), bits_float(inst.imm)
    if op not in (K.VROUND, K.VMAX, K.VMIN, K.VMUL):
        return -inf, inf
    ranges = [bounds(r, a) for a in inst.args]
    if op is K.VROUND:
        return ranges[0][0] - 0.5, ranges[0][1] + 0.5
    if op is K.VMUL:
        corners = [x * y for x in ranges[0] for y in ranges[1]]
        return (-inf, inf) if any(isnan(c) for c in corners) else (min(corners), max(corners))
    pick = max if op is K.VMAX else min
    return pick(ranges[0][0], ranges[1][0]), pick(ranges[0][1], ranges[1][1])


def floor(r: Rewriter, b: int) -> int:
    """round(b), less one where that is above b."""
    near = r.emit(K.VROUND, b)
    above = r.emit(K.VLT, b, near)
    return r.emit(K.SELECT, above, r.emit(K.VSUB, near, r.const(1.0)), near)


def clamp(r: Rewriter, n: int) -> int:
    return r.emit(K.VMIN, r.emit(K.VMAX, n, r.const(-126.0)), r.const(127.0))


def power(r: Rewriter, n: int) -> int:
    """2**n for an integer -126 <= n <= 127: 1.5*2**23 + 127 + n has n + 127 in its low byte, and
    its ninth bit is 0, so a shift by 23 leaves exponent bits and a zero sign.
    """
    return r.emit(K.VSHL, r.emit(K.VADD, n, r.const(12582912.0 + 127)), imm=23)
