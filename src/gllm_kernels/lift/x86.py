"""What each x86-64 instruction means, one row per mnemonic, compiled once into a closure.

    step(machine)             changes registers, flags and memory
    end(machine) -> address   the last step of a block: where to go next

An instruction without a row is refused when it is reached, not when it is decoded. Only the low
32-bit lane of a vector register exists here: every row below computes it from low lanes alone.
Meanings: Intel SDM volume 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from iced_x86 import ConditionCode, FlowControl, Instruction, Mnemonic, OpKind

from ..trace.ir import Op
from . import value as v
from .elf import Image
from .error import Refusal
from .operands import (
    CALLER_SAVED,
    GENERAL,
    RAX,
    RBP,
    RSP,
    UnknownOperand,
    address_of,
    general,
    integer,
    lane,
    vector,
    width_of,
    writer,
    xmm,
)
from .program import EXIT, Block, Program

if TYPE_CHECKING:
    from .engine import Machine

Step = Callable[["Machine"], None]
Builder = Callable[[Instruction], Step]
MNEMONICS = {code: name.lower() for name, code in vars(Mnemonic).items() if name.isupper()}
CONDITIONS = {
    code: name.lower()
    for name, code in vars(ConditionCode).items()
    if name.isupper() and name != "NONE"
}

# C function -> (operation, number of operands)
MATHS = {
    "expf": (Op.EXP, 1), "logf": (Op.LOG, 1), "tanhf": (Op.TANH, 1), "sqrtf": (Op.SQRT, 1),
    "fabsf": (Op.ABS, 1), "fmaxf": (Op.FMAX, 2), "fminf": (Op.FMIN, 2), "fmaf": (Op.FMA, 3),
}  # fmt: skip

ROWS: dict[str, Builder] = {}


def row(*names: str) -> Callable[[Builder], Builder]:
    """The rows of these mnemonics are made by the function below."""

    def add(builder: Builder) -> Builder:
        ROWS.update(dict.fromkeys(names, builder))
        return builder

    return add


def compile_program(program: Program, image: Image) -> Program:
    """Give every block its steps and its end."""
    for block in program.blocks.values():
        last = block.instructions[-1]
        body = block.instructions
        if last.flow_control not in STRAIGHT:
            block.end = _end(last, block, image)
            body = body[:-1]
        block.steps = tuple(compile_step(i, image) for i in body)
    return program


STRAIGHT = (FlowControl.NEXT, FlowControl.CALL, FlowControl.INDIRECT_CALL)


def compile_step(i: Instruction, image: Image) -> Step:
    """The meaning of one instruction that does not jump."""
    if i.flow_control in (FlowControl.CALL, FlowControl.INDIRECT_CALL):
        return _call(i, image)
    builder = ROWS.get(MNEMONICS[i.mnemonic])
    try:
        if builder is not None:
            return builder(i)
    except UnknownOperand:
        pass
    return _unsupported(i)


def _unsupported(i: Instruction) -> Step:
    text = MNEMONICS[i.mnemonic]

    def step(m: Machine) -> None:
        raise Refusal(
            f"instruction {text} is not understood here",
            "scalar single-precision code on 32- and 64-bit integers",
            "compile with -O1 -fno-tree-vectorize -fno-tree-slp-vectorize -ffp-contract=off; "
            "a new instruction is one row in lift/x86.py",
        )

    return step


# ---- control flow


def _end(i: Instruction, block: Block, image: Image) -> Callable[[Machine], int]:
    flow = i.flow_control
    if flow == FlowControl.CONDITIONAL_BRANCH and i.condition_code in CONDITIONS:
        return _branch(i, block)
    if flow == FlowControl.UNCONDITIONAL_BRANCH and block.succ:
        target = block.succ[0]
        return lambda m: target
    if flow == FlowControl.UNCONDITIONAL_BRANCH:
        return _tail_call(image.callee(i.near_branch_target) or "")
    if i.mnemonic == Mnemonic.RET and i.op_count == 0:
        return lambda m: EXIT
    refuse = _unsupported(i)
    return lambda m: refuse(m) or EXIT


def _branch(i: Instruction, block: Block) -> Callable[[Machine], int]:
    cc, taken, other = CONDITIONS[i.condition_code], i.near_branch_target, i.next_ip
    at, leaves_if = i.ip, taken == block.outside

    def end(m: Machine) -> int:
        outcome = m.condition(cc, at, block, leaves_if)
        if outcome is True:
            return taken
        return other if outcome is False else m.fork(outcome, block, taken, other)

    return end


def _tail_call(name: str) -> Callable[[Machine], int]:
    def end(m: Machine) -> int:
        call_maths(m, name, tail=True)
        return EXIT

    return end


def _call(i: Instruction, image: Image) -> Step:
    if i.flow_control == FlowControl.CALL:
        name = image.callee(i.near_branch_target)
    elif i.op_kind(0) == OpKind.MEMORY and i.is_ip_rel_memory_operand:
        name = image.slot(i.ip_rel_memory_address)
    else:
        name = None
    return lambda m: call_maths(m, name)


def call_maths(m: Machine, name: str | None, tail: bool = False) -> None:
    """A call to libm: xmm0 gets the result, the caller-saved registers become undefined."""
    if name not in MATHS:
        raise Refusal(
            f"call to {name}" if name else "call to a function that is not known by name",
            f"one of {', '.join(MATHS)}",
            "make local functions static inline; pass no function pointers",
        )
    m.before_call(tail)
    op, count = MATHS[name]
    result = m.nodes.make(op, tuple(m.float(k) for k in range(count)))
    m.x[:] = [None] * 16
    m.x[0] = result
    for k in CALLER_SAVED:
        m.r[k] = None
    m.flags = None


# ---- integers


@row("nop", "endbr64")
def _nop(i: Instruction) -> Step:
    return lambda m: None


@row("mov")
def _mov(i: Instruction) -> Step:
    width = width_of(i)
    write = writer(i, width)
    if i.op_kind(1) == OpKind.REGISTER:
        number = general(i.op_register(1))[0]
        return lambda m: write(m, m.movable(number))
    if i.op_kind(1) == OpKind.MEMORY:
        address, size = address_of(i), width // 8
        return lambda m: write(m, m.load(address(m), size))
    constant = v.signed(i.immediate(1), width)
    return lambda m: write(m, constant)


@row("lea")
def _lea(i: Instruction) -> Step:
    write, address = writer(i, width_of(i)), address_of(i)
    return lambda m: write(m, address(m))


@row("movsxd", "cdqe")
def _sign_extend(i: Instruction) -> Step:
    if MNEMONICS[i.mnemonic] == "cdqe":
        return lambda m: m.write64(RAX, m.sign_extended(m.read32(RAX)))
    write, source = writer(i, width_of(i)), integer(i, 1, 32)
    return lambda m: write(m, m.sign_extended(source(m)))


def _binary(meaning: Callable[[v.Int, v.Int], v.Int], flags: str) -> Builder:
    def build(i: Instruction) -> Step:
        width = width_of(i)
        left, right, write = integer(i, 0, width), integer(i, 1, width), writer(i, width)

        def step(m: Machine) -> None:
            a, b = left(m), right(m)
            result = meaning(a, b)
            m.flags = (flags, a, b, width) if flags == "compare" else (flags, result, 0, width)
            write(m, result)

        return step

    return build


ROWS["add"] = _binary(v.add, "result")
ROWS["sub"] = _binary(v.sub, "compare")


def _count(by: int) -> Builder:
    def build(i: Instruction) -> Step:
        width = width_of(i)
        source, write = integer(i, 0, width), writer(i, width)

        def step(m: Machine) -> None:
            result = v.add(source(m), by)
            m.flags = ("result", result, 0, width)
            write(m, result)

        return step

    return build


ROWS["inc"], ROWS["dec"] = _count(1), _count(-1)


@row("neg")
def _neg(i: Instruction) -> Step:
    width = width_of(i)
    source, write = integer(i, 0, width), writer(i, width)

    def step(m: Machine) -> None:
        a = source(m)
        m.flags = ("compare", 0, a, width)
        write(m, v.scale(a, -1))

    return step


@row("cmp")
def _cmp(i: Instruction) -> Step:
    width = width_of(i)
    left, right = integer(i, 0, width), integer(i, 1, width)

    def step(m: Machine) -> None:
        m.flags = ("compare", left(m), right(m), width)

    return step


def _same(i: Instruction) -> bool:
    registers = OpKind.REGISTER
    both = i.op_kind(0) == registers and i.op_kind(1) == registers
    return both and i.op_register(0) == i.op_register(1)


@row("test")
def _test(i: Instruction) -> Step:
    width, same = width_of(i), _same(i)
    left, right = integer(i, 0, width), integer(i, 1, width)

    def step(m: Machine) -> None:
        a = left(m)
        m.flags = ("logic", a if same else m.bitwise("and", a, right(m), width), 0, width)

    return step


def _logic(name: str) -> Builder:
    def build(i: Instruction) -> Step:
        width, same = width_of(i), _same(i)
        left, right, write = integer(i, 0, width), integer(i, 1, width), writer(i, width)

        def step(m: Machine) -> None:
            if same:
                result = 0 if name == "xor" else left(m)
            else:
                result = m.bitwise(name, left(m), right(m), width)
            m.flags = ("logic", result, 0, width)
            write(m, result)

        return step

    return build


for _name in ("and", "or", "xor"):
    ROWS[_name] = _logic(_name)


@row("not")
def _not(i: Instruction) -> Step:
    width = width_of(i)
    source, write = integer(i, 0, width), writer(i, width)
    return lambda m: write(m, v.sub(-1, source(m)))  # ~a = -1 - a in two's complement


@row("imul")
def _imul(i: Instruction) -> Step:
    if i.op_count == 1:
        raise UnknownOperand
    width = width_of(i)
    operands = (0, 1) if i.op_count == 2 else (1, 2)
    left, right = (integer(i, k, width) for k in operands)
    write = writer(i, width)

    def step(m: Machine) -> None:
        m.flags = None
        write(m, v.mul(left(m), right(m)))

    return step


def _shift(name: str) -> Builder:
    def build(i: Instruction) -> Step:
        width = width_of(i)
        if i.op_count == 2 and i.op_kind(1) == OpKind.REGISTER:
            raise UnknownOperand
        count = (i.immediate(1) if i.op_count == 2 else 1) & (width - 1)
        source, write = integer(i, 0, width), writer(i, width)

        def step(m: Machine) -> None:
            result = m.shifted(name, source(m), count, width)
            m.flags = ("result", result, 0, width)  # the carry is the last bit shifted out
            write(m, result)

        return step

    return build


for _name in ("shl", "sal", "shr", "sar"):
    ROWS[_name] = _shift(_name)


@row("push")
def _push(i: Instruction) -> Step:
    number = general(i.op_register(0))[0] if i.op_kind(0) == OpKind.REGISTER else None
    if number is None:
        raise UnknownOperand
    return lambda m: m.push(number)


@row("pop")
def _pop(i: Instruction) -> Step:
    number = general(i.op_register(0))[0]
    return lambda m: m.pop(number)


@row("leave")
def _leave(i: Instruction) -> Step:
    def step(m: Machine) -> None:
        m.r[RSP] = m.read64(RBP)
        m.pop(RBP)

    return step


def _cmov(cc: str) -> Builder:
    def build(i: Instruction) -> Step:
        width, at = width_of(i), i.ip
        left, right, write = integer(i, 0, width), integer(i, 1, width), writer(i, width)

        def step(m: Machine) -> None:
            write(m, right(m) if m.decided(cc, at) else left(m))

        return step

    return build


for _code in CONDITIONS.values():
    ROWS["cmov" + _code] = _cmov(_code)


# ---- floats


@row("movss", "movaps", "movapd", "movups", "movdqa", "movd")
def _move_float(i: Instruction) -> Step:
    wide = MNEMONICS[i.mnemonic] not in ("movss", "movd")
    if wide and OpKind.MEMORY in (i.op_kind(0), i.op_kind(1)):
        raise UnknownOperand
    if i.op_kind(0) == OpKind.MEMORY:
        address, number = address_of(i), xmm(i, 1)
        return lambda m: m.store(address(m), 4, m.float(number))
    if i.op_register(0) in GENERAL:  # movd to an integer register
        number, target = xmm(i, 1), _narrow(i, 0)
        return lambda m: m.write32(target, m.float(number))
    target = xmm(i, 0)
    if i.op_kind(1) == OpKind.REGISTER and i.op_register(1) in GENERAL:
        source = _narrow(i, 1)
        return lambda m: m.x.__setitem__(target, m.as_float(m.defined(source)))
    if wide:  # a whole register may be undefined
        number = xmm(i, 1)
        return lambda m: m.x.__setitem__(target, m.x[number])
    source = vector(i, 1)
    return lambda m: m.x.__setitem__(target, source(m))


def _narrow(i: Instruction, k: int) -> int:
    number, width = general(i.op_register(k))
    if width != 32:
        raise UnknownOperand
    return number


def _arithmetic(op: Op) -> Builder:
    def build(i: Instruction) -> Step:
        target = xmm(i, 0)
        left, right = (vector(i, k) for k in ((0, 1) if i.op_count == 2 else (1, 2)))
        return lambda m: m.x.__setitem__(target, m.nodes.make(op, (left(m), right(m))))

    return build


# fmt: off
for _name, _op in {
    "addss": Op.ADD, "subss": Op.SUB, "mulss": Op.MUL, "divss": Op.DIV,
    "maxss": Op.MAX, "minss": Op.MIN,
}.items():
    ROWS[_name] = ROWS["v" + _name] = _arithmetic(_op)
# fmt: on


@row("sqrtss")
def _sqrt(i: Instruction) -> Step:
    target, source = xmm(i, 0), vector(i, 1)
    return lambda m: m.x.__setitem__(target, m.nodes.make(Op.SQRT, (source(m),)))


@row("comiss", "ucomiss")
def _compare_floats(i: Instruction) -> Step:
    left, right = vector(i, 0), vector(i, 1)

    def step(m: Machine) -> None:
        m.flags = ("float", left(m), right(m), 32)

    return step


def _bits(name: str) -> Builder:
    def build(i: Instruction) -> Step:
        target = xmm(i, 0)
        if name == "flip_bits" and _same(i):  # xorps x, x clears, whatever x was
            return lambda m: m.x.__setitem__(target, m.nodes.const(0))
        left, right = lane(i, 0), lane(i, 1)

        def step(m: Machine) -> None:
            result = getattr(m.nodes, name)(left(m), right(m))
            if result is None:
                raise Refusal("bitwise arithmetic on floats", "sign changes and magnitudes only")
            m.x[target] = result

        return step

    return build


for _name in ("xorps", "xorpd", "pxor"):
    ROWS[_name] = _bits("flip_bits")
for _name in ("andps", "andpd", "pand"):
    ROWS[_name] = _bits("mask_bits")
for _name in ("andnps", "andnpd", "pandn"):
    ROWS[_name] = _bits("clear_bits")
for _name in ("orps", "orpd", "por"):
    ROWS[_name] = _bits("join_bits")

# cmpss predicates 0 to 3; 4 to 7 are their negations
PREDICATES = (Op.EQ, Op.LT, Op.LE, Op.UNORD)


@row("cmpss")
def _compare_mask(i: Instruction) -> Step:
    """A lane of ones or zeros: here the comparison itself, which only bitwise rows may read."""
    target, left, right = xmm(i, 0), vector(i, 0), vector(i, 1)
    negated, predicate = divmod(i.immediate(2), 4)
    if negated > 1:
        raise UnknownOperand
    op = PREDICATES[predicate]

    def step(m: Machine) -> None:
        mask = m.nodes.make(op, (left(m), right(m)))
        m.x[target] = m.nodes.not_(mask) if negated else mask

    return step


@row("cvtsi2ss")
def _convert(i: Instruction) -> Step:
    target, width = xmm(i, 0), width_of(i, 1)
    source = integer(i, 1, width)
    return lambda m: m.x.__setitem__(target, m.converted(source(m), width))


def _fma(order: tuple[int, int, int]) -> Builder:
    """dest = o[order[0]] * o[order[1]] + o[order[2]], rounded once."""

    def build(i: Instruction) -> Step:
        target = xmm(i, 0)
        a, b, c = (vector(i, k) for k in order)
        return lambda m: m.x.__setitem__(target, m.nodes.make(Op.FMA, (a(m), b(m), c(m))))

    return build


ROWS["vfmadd132ss"], ROWS["vfmadd213ss"], ROWS["vfmadd231ss"] = (
    _fma((0, 2, 1)), _fma((1, 0, 2)), _fma((1, 2, 0)),
)  # fmt: skip
