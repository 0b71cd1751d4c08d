"""Integer operations, leaves and prefetches: what each appends to the machine IR.

`SCALAR[op](selector, inst)` computes inst.dst; `Selector` walks backwards and knows what is asked
for later. The vector operations need no functions: they are rows of the ISA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .isa import x86
from .isa.base import Ins
from .kernel import Inst, K
from .machine import Addr, Kind, MInst

if TYPE_CHECKING:
    from .select import Selector


def fits(value: int) -> bool:
    """As a sign-extended 32-bit immediate or displacement."""
    return -1 << 31 <= value < 1 << 31


def constant_load(s: Selector, inst: Inst, dst: int) -> MInst:
    return load_integer(s, dst, inst.imm)


def argument_load(s: Selector, inst: Inst, dst: int) -> MInst:
    addr = Addr(s.entered(x86.ARGS), disp=s.slots[inst.imm])
    return s.op(x86.MOV_LOAD, dst, mem=addr, free=True)


def code_load(s: Selector, inst: Inst, dst: int) -> MInst:
    return s.op(x86.LEA, dst, mem=Addr(pool=inst.imm), free=True)


def leaf(load: Callable[[Selector, Inst, int], MInst]) -> Callable[[Selector, Inst], None]:
    return lambda s, inst: s.emit(load(s, inst, s.need(inst.dst)))


def load_integer(s: Selector, dst: int, value: int) -> MInst:
    """Never `xor dst, dst`: it would change the flags a neighbour may be waiting for."""
    if 0 <= value < 1 << 32:
        return s.op(x86.MOV_I32, dst, imm=value - (value >> 31 << 32), free=True)
    return s.op(x86.MOV_S32 if fits(value) else x86.MOV_I64, dst, imm=value, free=True)


def float_argument(s: Selector, inst: Inst) -> None:
    addr = Addr(s.entered(x86.ARGS), disp=s.slots[inst.imm])
    s.emit(s.op(s.isa.broadcast, s.need(inst.dst), mem=addr, free=True))


def passed(register: int) -> Callable[[Selector, Inst], None]:
    def rule(s: Selector, inst: Inst) -> None:
        s.emit(MInst(Kind.COPY, None, (s.need(inst.dst),), (s.entered(register),), op=inst.op))
    return rule


def vector_constant(s: Selector, inst: Inst) -> None:
    s.emit(s.constant_load(s.need(inst.dst), inst.imm))


def wide_constant(s: Selector, inst: Inst) -> None:
    low, high = inst.imm & 0xFFFFFFFF, inst.imm >> 32
    if inst.imm == 0:
        s.emit(s.constant_load(s.need(inst.dst), 0))
        return
    addr = Addr(pool=(low, high) * (s.isa.lanes // 2))
    s.emit(s.op(s.isa.load, s.need(inst.dst), mem=addr, free=True))


def vector_lanes(s: Selector, inst: Inst) -> None:
    addr = Addr(pool=tuple(range(s.isa.lanes)))
    s.emit(s.op(s.isa.load, s.need(inst.dst), mem=addr, free=True))


def integer_add(s: Selector, inst: Inst) -> None:
    """add by an immediate, lea where the address form does more than a sum, else add."""
    dst, sum_ = s.need(inst.dst), s.plus_constant(inst.dst)
    if sum_ and fits(sum_[1]):
        s.emit(s.op(x86.ADD_I, dst, s.need(sum_[0]), imm=sum_[1]))
        return
    a, b = inst.args
    if s.times_constant(a)[1] > s.times_constant(b)[1]:
        a, b = b, a
    addr = s.form(a, b, 1, 0)
    if addr.index >= 0 and addr.scale == 1 and addr.disp == 0:
        s.emit(s.op(x86.ADD, dst, addr.base, addr.index))
    else:
        s.emit(s.op(x86.LEA, dst, mem=addr))


def integer_sub(s: Selector, inst: Inst) -> None:
    dst, sum_ = s.need(inst.dst), s.plus_constant(inst.dst)
    if sum_ and fits(sum_[1]):
        s.emit(s.op(x86.ADD_I, dst, s.need(sum_[0]), imm=sum_[1]))
    else:
        s.emit(s.op(x86.SUB, dst, s.need(inst.args[0]), s.need(inst.args[1])))


def integer_mul(s: Selector, inst: Inst) -> None:
    """By a power of two: shl; by a small constant: imul with immediate."""
    a, b = inst.args
    if s.constant(a) is not None:
        a, b = b, a
    dst, known = s.need(inst.dst), s.constant(b)
    if known is not None and known > 0 and known & (known - 1) == 0:
        s.emit(s.op(x86.SHL, dst, s.need(a), imm=known.bit_length() - 1))
    elif known is not None and fits(known):
        s.emit(s.op(x86.IMUL_I, dst, s.need(a), imm=known))
    else:
        s.emit(s.op(x86.IMUL, dst, s.need(a), s.need(b)))


def integer_and(s: Selector, inst: Inst) -> None:
    a, b = inst.args
    if s.constant(a) is not None:
        a, b = b, a
    known = s.constant(b)
    if known is not None and fits(known):
        s.emit(s.op(x86.AND_I, s.need(inst.dst), s.need(a), imm=known))
    else:
        s.emit(s.op(x86.AND, s.need(inst.dst), s.need(a), s.need(b)))


def integer_pick(cmov: Ins) -> Callable[[Selector, Inst], None]:
    """dst = b; if a <op> b: dst = a. Best when b dies here, so that dst can take its register."""
    def rule(s: Selector, inst: Inst) -> None:
        a, b = inst.args
        if s.constant(a) is not None or (s.constant(b) is None and s.dies(a) and not s.dies(b)):
            a, b = b, a
        dst, known, before = s.need(inst.dst), s.constant(b), []
        if known is not None:
            other = s.temp()
            before = [load_integer(s, other, known)]
        else:
            other = s.need(b)
        s.emit(*before, s.compare(s.need(a), b), s.op(cmov, dst, other, s.need(a)))
    return rule


def integer_div(s: Selector, inst: Inst) -> None:
    """By a power of two: shr (both are non-negative); else div, which works on rdx:rax."""
    a, b = inst.args
    dst, known = s.need(inst.dst), s.constant(b)
    if known is not None and known > 0 and known & (known - 1) == 0:
        s.emit(s.op(x86.SHR, dst, s.need(a), imm=known.bit_length() - 1))
        return
    low, high, quotient, rest = (s.temp() for _ in range(4))
    s.program.fixed |= {low: x86.R.RAX, quotient: x86.R.RAX, high: x86.R.RDX, rest: x86.R.RDX}
    divide = s.op(x86.DIV, quotient, s.need(b), low, high)
    s.emit(MInst(Kind.COPY, None, (low,), (s.need(a),), op=inst.op, origin=inst.origin),
           s.op(x86.XOR32, high), divide._replace(defs=(quotient, rest)),
           MInst(Kind.COPY, None, (dst,), (quotient,), op=inst.op, origin=inst.origin))


def call(s: Selector, inst: Inst) -> None:
    """Arguments to their registers, then the call; `regalloc` knows what it destroys."""
    code, *args = inst.args
    pinned = tuple(s.temp() for _ in args)
    s.program.fixed |= dict(zip(pinned, (x86.ARGS, x86.BEGIN, x86.END, x86.SCRATCH), strict=True))
    values = tuple(s.need(v) for v in args)
    s.emit(MInst(Kind.COPY, None, pinned, values, op=inst.op, origin=inst.origin),
           s.op(x86.CALL, None, s.need(code), *pinned))


def prefetch(s: Selector, inst: Inst) -> None:
    s.emit(s.op(x86.PREFETCH[inst.imm.level], None, mem=s.address(inst)))


SCALAR: dict[K, Callable[[Selector, Inst], None]] = {
    K.ICONST: leaf(constant_load),
    K.ARG: leaf(argument_load),
    K.ARGF: float_argument,
    K.BEGIN: passed(x86.BEGIN),
    K.END: passed(x86.END),
    K.SCRATCH: passed(x86.SCRATCH),
    K.ARGS: passed(x86.ARGS),
    K.VCONST: vector_constant,
    K.VCONST64: wide_constant,
    K.VLANES: vector_lanes,
    K.IADD: integer_add,
    K.ISUB: integer_sub,
    K.IMUL: integer_mul,
    K.IAND: integer_and,
    K.IMIN: integer_pick(x86.CMOVL),
    K.IMAX: integer_pick(x86.CMOVG),
    K.IDIV: integer_div,
    K.PREFETCH: prefetch,
    K.CODE: leaf(code_load),
    K.CALL: call,
}
