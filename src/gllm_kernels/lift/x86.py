"""What each x86-64 instruction means, one row per mnemonic, compiled once into a closure.

    step(machine)             changes registers, flags and memory
    end(machine) -> address   the last step of a block: where to go next

An instruction without a row is refused when it is reached, not when it is decoded. Rows on floats
stand in `floats`. Meanings: Intel SDM volume 2.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from iced_x86 import FlowControl, Instruction, Mnemonic, OpKind

from ..trace.ir import Op
from . import data
from . import floats  # noqa: F401  (its rows)
from . import value as v
from .calls import Function, call
from .elf import Image
from .error import SCALAR, Refusal
from .nodes import Node
from .operands import (
    GENERAL,
    RAX,
    RBP,
    RDX,
    RSP,
    WIDE,
    UnknownOperand,
    address_of,
    general,
    integer,
    raw,
    register_writer,
    width_of,
    writer,
)
from .program import EXIT, Block, Program
from .rows import CONDITIONS, MNEMONICS, ROWS, Builder, Step, row, same_register

if TYPE_CHECKING:
    from .engine import Machine


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


DATA = Node  # integers of arrays, truth values, the bits of a float
STRAIGHT = (FlowControl.NEXT, FlowControl.CALL, FlowControl.INDIRECT_CALL)


def compile_step(i: Instruction, image: Image) -> Step:
    """The meaning of one instruction that does not jump."""
    if i.flow_control == FlowControl.UNCONDITIONAL_BRANCH:
        return _nop(i)  # to the next instruction
    builder = ROWS.get(MNEMONICS[i.mnemonic])
    try:
        if i.flow_control in (FlowControl.CALL, FlowControl.INDIRECT_CALL):
            target, at = _callee(i, image), i.ip
            return lambda m: call(m, target(m), at)
        if builder is not None:
            return builder(i)
    except UnknownOperand:
        pass
    return _unsupported(i)


def _unsupported(i: Instruction) -> Step:
    text = MNEMONICS[i.mnemonic]
    packed = text.endswith(("ps", "pd", "dqa", "dqu")) or text.startswith(("vp", "punpck", "pshuf"))
    registers = [i.op_register(k) for k in range(i.op_count) if i.op_kind(k) == OpKind.REGISTER]

    def step(m: Machine) -> None:
        if not i:
            raise Refusal(
                f"no instruction can be decoded at {i.ip:#x}", "machine code of x86-64",
                "give the whole function from its first byte to its return; compile an object "
                "with -fPIC: addresses that the linker fills in are not known",
            )  # fmt: skip
        if packed or any(r in WIDE for r in registers):
            raise Refusal(f"instruction {text} works on several elements: vectorised code", *SCALAR)
        raise Refusal(
            f"instruction {text} is not understood here",
            "scalar code: floats, doubles, and integers of 8 to 64 bits",
            "compile with -O1 and without vectorisers; a new instruction is one row in lift/x86.py",
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
    if flow in (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_BRANCH):
        with suppress(UnknownOperand):
            return _tail_call(_callee(i, image), i.ip)
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


def _tail_call(target: Callable[[Machine], object], at: int) -> Callable[[Machine], int]:
    def end(m: Machine) -> int:
        call(m, target(m), at, tail=True)
        return EXIT

    return end


def _callee(i: Instruction, image: Image) -> Callable[[Machine], object]:
    """The address or `Function` that a call or jump leads to."""
    if i.op_kind(0) == OpKind.MEMORY:
        name = image.slot(i.ip_rel_memory_address) if i.is_ip_rel_memory_operand else None
        if name:
            function = Function(name)
            return lambda m: function
        address = address_of(i)
        return lambda m: v.unloaded(m.load(address(m), 8))
    if i.op_kind(0) == OpKind.REGISTER:
        number = general(i.op_register(0))[0]
        return lambda m: v.unloaded(m.defined(number))
    fixed = i.near_branch_target
    return lambda m: fixed


# ---- integers


@row("nop", "endbr64")
def _nop(i: Instruction) -> Step:
    return lambda m: None


@row("mov", "movabs")
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
    return lambda m: write(m, m.placed(constant, width // 8))


@row("lea")
def _lea(i: Instruction) -> Step:
    width = width_of(i)
    write, address = writer(i, width), address_of(i, width)
    used = [(GENERAL[r][0], times) for r, times in
            ((i.memory_base, 1), (i.memory_index, i.memory_index_scale)) if r in GENERAL]
    disp = v.signed(i.memory_displacement, 64)
    if i.is_ip_rel_memory_operand:
        place = v.loaded(i.ip_rel_memory_address)
        return lambda m: write(m, place)

    def step(m: Machine) -> None:
        if not any(m.holds_data(k) for k, _ in used):
            write(m, address(m))
            return
        total = m.as_data(disp, width)
        for number, times in used:
            term = m.as_data(m.read(number, width, True), width)
            term = m.calculated(Op.MUL, term, times, width)
            total = m.calculated(Op.ADD, total, term, width)
        write(m, total)

    return step


@row("movsxd", "movsx", "movzx")
def _extend(i: Instruction) -> Step:
    width, own = width_of(i), width_of(i, 1)
    write, source = writer(i, width), integer(i, 1, own, data=True)
    signed = MNEMONICS[i.mnemonic] != "movzx"
    return lambda m: write(m, m.extended(source(m), own, width, signed))


@row("cdqe", "cwde")
def _extend_rax(i: Instruction) -> Step:
    own = 32 if MNEMONICS[i.mnemonic] == "cdqe" else 16
    write = register_writer(2 * own, RAX)
    return lambda m: write(m, m.extended(m.read(RAX, own, True), own, 2 * own, True))


@row("cdq", "cqo")
def _sign_of_rax(i: Instruction) -> Step:
    width = 32 if MNEMONICS[i.mnemonic] == "cdq" else 64
    write = register_writer(width, RDX)

    def step(m: Machine) -> None:
        a = m.read(RAX, width, True)
        if a.__class__ is DATA:
            write(m, m.calculated(Op.SAR, a, width - 1, width))
        else:
            write(m, m.shifted("sar", a, width - 1, width))

    return step


def _binary(name: str, meaning: Callable[[v.Int, v.Int], v.Int]) -> Builder:
    def build(i: Instruction) -> Step:
        width = width_of(i)
        left, right = (integer(i, k, width, data=True) for k in (0, 1))
        write, flags = writer(i, width), "compare" if name == "sub" else "result"

        def step(m: Machine) -> None:
            a, b = left(m), right(m)
            if a.__class__ is DATA or b.__class__ is DATA:
                result = m.calculated(OPS[name], a, b, width)
                m.flags = ("data", a, b, width) if name == "sub" else ("sum", result, 0, width)
                write(m, result)
                return
            result = meaning(a, b)
            m.flags = (flags, a, b, width) if flags == "compare" else (flags, result, (a, b), width)
            write(m, result)

        return step

    return build


OPS = {"add": Op.ADD, "sub": Op.SUB, "mul": Op.MUL, "and": Op.BITAND, "or": Op.BITOR,
       "xor": Op.BITXOR, "shl": Op.SHL, "sal": Op.SHL, "shr": Op.SHR, "sar": Op.SAR}  # fmt: skip
ROWS["add"], ROWS["sub"] = _binary("add", v.add), _binary("sub", v.sub)


def _carried(sign: int) -> Builder:
    """adc, sbb: the carry of an integer comparison is 0 or 1 for these sizes, or depends on data,
    or is that of the test that ends the loop: i += i < n steps by 1 wherever the loop goes on."""

    def build(i: Instruction) -> Step:
        width, at, same = width_of(i), i.ip, same_register(i)
        left, right = (integer(i, k, width, data=True) for k in (0, 1))
        write = writer(i, width)

        def step(m: Machine) -> None:
            carry = m.condition("b", at, None, None)
            if carry is None:
                write(m, m.opaque("a counter beyond the end of its loop", 0))
                return
            if carry.__class__ is DATA:
                m.flags = None
                a, b = (0, 0) if same and sign < 0 else (left(m), right(m))
                write(m, m.with_carry(a, b, sign, carry, width))
                return
            carry = int(carry)
            total = 0 if same and sign < 0 else v.add(left(m), right(m), sign)
            m.flags = None
            write(m, v.add(total, sign * carry))

        return step

    return build


ROWS["adc"], ROWS["sbb"] = _carried(1), _carried(-1)


def _count(by: int) -> Builder:
    def build(i: Instruction) -> Step:
        width = width_of(i)
        source, write = integer(i, 0, width, data=True), writer(i, width)

        def step(m: Machine) -> None:
            a = source(m)
            if a.__class__ is DATA:
                result = m.calculated(Op.ADD, a, by, width)
                m.flags = ("sum", result, 0, width)
                write(m, result)
                return
            result = v.add(a, by)
            m.flags = ("result", result, 0, width)  # the carry is not its own
            write(m, result)

        return step

    return build


ROWS["inc"], ROWS["dec"] = _count(1), _count(-1)


@row("neg")
def _neg(i: Instruction) -> Step:
    width = width_of(i)
    source, write = integer(i, 0, width, data=True), writer(i, width)

    def step(m: Machine) -> None:
        a = source(m)
        if a.__class__ is DATA:
            m.flags = ("data", 0, a, width)
            write(m, m.calculated(Op.SUB, 0, a, width))
            return
        m.flags = ("compare", 0, a, width)
        write(m, v.scale(a, -1))

    return step


@row("cmp")
def _cmp(i: Instruction) -> Step:
    width = width_of(i)
    left, right = (integer(i, k, width, data=True) for k in (0, 1))

    def step(m: Machine) -> None:
        a, b = left(m), right(m)
        data = a.__class__ is DATA or b.__class__ is DATA
        m.flags = ("data" if data else "compare", a, b, width)

    return step


@row("test")
def _test(i: Instruction) -> Step:
    width, same = width_of(i), same_register(i)
    left, right = (integer(i, k, width, data=True) for k in (0, 1))

    def step(m: Machine) -> None:
        a, b = left(m), right(m)
        if a.__class__ is DATA or b.__class__ is DATA:
            m.flags = ("data", a if same else m.truth("and", a, b, width), 0, width)
        else:
            m.flags = ("logic", a if same else m.bitwise("and", a, b, width), 0, width)

    return step


@row("bt")
def _bit(i: Instruction) -> Step:
    """The carry becomes bit k of data; 0 < bit compares like it."""
    width = width_of(i)
    if i.op_kind(0) != OpKind.REGISTER:
        raise UnknownOperand
    left, right = integer(i, 0, width, data=True), integer(i, 1, width, data=True)

    def step(m: Machine) -> None:
        a, k = left(m), right(m)
        if a.__class__ is not DATA and k.__class__ is not DATA:
            raise Refusal("a test of one bit of a size", "tests of bits of data")
        moved = m.calculated(Op.SHR, m.as_data(a, width), k, width)
        m.flags = ("data", 0, m.calculated(Op.BITAND, moved, 1, width), width)

    return step


def _logic(name: str) -> Builder:
    def build(i: Instruction) -> Step:
        width, same = width_of(i), same_register(i)
        left, right = (integer(i, k, width, data=True) for k in (0, 1))
        write = writer(i, width)

        def step(m: Machine) -> None:
            if same and name == "xor":
                result = 0
            else:
                a, b = left(m), right(m)
                if a.__class__ is DATA or b.__class__ is DATA:
                    result = a if same else m.truth(name, a, b, width)
                    m.flags = ("data", result, 0, width)
                    write(m, result)
                    return
                result = a if same else m.bitwise(name, a, b, width)
            m.flags = ("logic", result, 0, width)
            write(m, result)

        return step

    return build


for _name in ("and", "or", "xor"):
    ROWS[_name] = _logic(_name)


@row("not")
def _not(i: Instruction) -> Step:
    width = width_of(i)
    source, write = integer(i, 0, width, data=True), writer(i, width)

    def step(m: Machine) -> None:
        a = source(m)
        data = a.__class__ is DATA
        # ~a = -1 - a in two's complement
        write(m, m.calculated(Op.BITXOR, a, -1, width) if data else v.sub(-1, a))

    return step


@row("imul")
def _imul(i: Instruction) -> Step:
    if i.op_count == 1:
        return _both_halves(i)
    width = width_of(i)
    operands = (0, 1) if i.op_count == 2 else (1, 2)
    left, right = (integer(i, k, width, data=True) for k in operands)
    write = writer(i, width)

    def step(m: Machine) -> None:
        m.flags = None
        a, b = left(m), right(m)
        data = a.__class__ is DATA or b.__class__ is DATA
        if not data:
            m.plain_number(a), m.plain_number(b)
        write(m, m.calculated(Op.MUL, a, b, width) if data else v.mul(a, b))

    return step


@row("mul")
def _both_halves(i: Instruction) -> Step:
    """rdx:rax = rax * operand: of data of 32 bits, how a compiler divides by a constant; of sizes
    and counters the upper half is 0, as zig and rustc make sure of."""
    width, signed = width_of(i), MNEMONICS[i.mnemonic] == "imul"
    if width == 16:
        raise UnknownOperand
    source = integer(i, 0, width, data=True)
    if width == 8:
        return lambda m: m.byte_product(source(m), signed)

    def step(m: Machine) -> None:
        m.flags = None
        a, b = m.read(RAX, width, True), source(m)
        if width == 64 and not signed and m.no_carry((a, b), width):
            product = v.mul(a, b)
            if m.no_carry((product,), width):
                m.flags = ("product", product, (a, b), width)
                m.write64(RAX, product)
                m.write64(RDX, 0)
                return
        if width == 64 or (a.__class__ is not DATA and b.__class__ is not DATA):
            raise Refusal(
                "the upper half of a product of 64 bits",
                "divisions by constants of data of at most 32 bits",
                "divide int32_t or uint32_t, or by a power of two",
            )
        low, high = data.products(m.nodes, m.as_data(a, 32), m.as_data(b, 32), signed)
        m.write32(RAX, low)
        m.write32(RDX, high)

    return step


@row("div", "idiv")
def _divide(i: Instruction) -> Step:
    def step(m: Machine) -> None:
        raise Refusal(
            "an integer division by what is not a constant",
            "integer divisions by constants, divisions of floats",
            "divide in float: (int)((float)a / (float)b), or multiply by a reciprocal",
        )

    return step


def _shift(name: str) -> Builder:
    def build(i: Instruction) -> Step:
        width = width_of(i)
        if i.op_kind(i.op_count - 1) == OpKind.REGISTER and i.op_count > 1:
            return _shift_by_register(i, name, width)
        count = (i.immediate(1) if i.op_count == 2 else 1) & (63 if width == 64 else 31)
        source, write = integer(i, 0, width, data=True), writer(i, width)

        def step(m: Machine) -> None:
            a = source(m)
            if a.__class__ is DATA:
                result = m.shifted_data(name, a, count, width)
                m.flags = ("sum", result, 0, width)
                write(m, result)
                return
            result = m.shifted(name, a, count, width)
            m.flags = ("result", result, 0, width)  # the carry is the last bit shifted out
            write(m, result)

        return step

    return build


def _shift_by_register(i: Instruction, name: str, width: int) -> Step:
    """The count of cl, or of the third operand of shlx, shrx, sarx, modulo the width."""
    if width < 32:
        raise UnknownOperand
    place = 0 if i.op_count == 2 else 1
    source, write = integer(i, place, width, data=True), writer(i, width)
    count = general(i.op_register(i.op_count - 1))[0]

    def step(m: Machine) -> None:
        a, by = source(m), m.read(count, 8, True)
        m.flags = None
        if a.__class__ is not DATA and by.__class__ is int:
            write(m, m.shifted(name, a, by & (width - 1), width))
        else:
            write(m, m.calculated(OPS[name], a, by, width))

    return step


for _name in ("shl", "sal", "shr", "sar"):
    ROWS[_name] = ROWS[_name + "x"] = _shift(_name)


def _rotate(sign: int) -> Builder:
    def build(i: Instruction) -> Step:
        width = width_of(i)
        last = i.op_count - 1
        if last and i.op_kind(last) == OpKind.REGISTER:
            raise UnknownOperand
        count = (i.immediate(last) if last else 1) * sign
        source, write = integer(i, max(0, last - 1), width, data=True), writer(i, width)

        def step(m: Machine) -> None:
            m.flags = None
            write(m, data.rotated(m.nodes, m.as_data(source(m), width), count % width, width))

        return step

    return build


ROWS["rol"], ROWS["ror"], ROWS["rorx"] = _rotate(1), _rotate(-1), _rotate(-1)


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
        left, right = (raw(i, k, width) for k in (0, 1))
        write = writer(i, width)

        def step(m: Machine) -> None:
            outcome = m.condition(cc, at, None, False)
            if outcome.__class__ is bool:
                write(m, right(m) if outcome else left(m))
            else:
                write(m, m.chosen(outcome, right(m), left(m), width))

        return step

    return build


def _set(cc: str) -> Builder:
    def build(i: Instruction) -> Step:
        write, at = writer(i, 8), i.ip

        def step(m: Machine) -> None:
            outcome = m.condition(cc, at, None, False)
            write(m, int(outcome) if outcome.__class__ is bool else outcome)

        return step

    return build


for _code in CONDITIONS.values():
    ROWS["cmov" + _code], ROWS["set" + _code] = _cmov(_code), _set(_code)
