"""Operands of x86-64 instructions as closures: read an integer, read a lane, write a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from iced_x86 import Instruction, MemorySizeExt, OpKind, Register

from . import value as v

if TYPE_CHECKING:
    from .engine import Machine

_LEGACY = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
GENERAL: dict[int, tuple[int, int]] = {}  # register -> (number, width)
for _k, _name in enumerate(_LEGACY):
    GENERAL[getattr(Register, "R" + _name)] = (_k, 64)
    GENERAL[getattr(Register, "E" + _name)] = (_k, 32)
    GENERAL[getattr(Register, _name)] = (_k, 16)
    GENERAL[getattr(Register, (_name[0] if _k < 4 else _name) + "L")] = (_k, 8)
for _k in range(8, 16):
    GENERAL[getattr(Register, f"R{_k}")] = (_k, 64)
    for _suffix, _width in (("D", 32), ("W", 16), ("L", 8)):
        GENERAL[getattr(Register, f"R{_k}{_suffix}")] = (_k, _width)
HIGH = {getattr(Register, f"{n[0]}H"): k for k, n in enumerate(_LEGACY[:4])}  # bits 8 to 15
VECTOR = {getattr(Register, f"XMM{k}"): k for k in range(16)}
WIDE = {getattr(Register, f"{p}MM{k}") for p in "YZ" for k in range(16)}
NAMES = [f"r{n.lower()}" for n in _LEGACY] + [f"r{k}" for k in range(8, 16)]
RAX, RDX, RSP, RBP = 0, 2, 4, 5
CALLER_SAVED = (0, 1, 2, 6, 7, 8, 9, 10, 11)
CALLEE_SAVED = (3, 5, 12, 13, 14, 15)  # rbx rbp r12-r15 (System V ABI, 3.2.1)


class UnknownOperand(Exception):
    """A partial register, a segment prefix or a wide vector."""


def width_of(i: Instruction, k: int = 0) -> int:
    """Width in bits of an integer operand."""
    if i.op_kind(k) == OpKind.REGISTER:
        return 8 if i.op_register(k) in HIGH else general(i.op_register(k))[1]
    if i.op_kind(k) == OpKind.MEMORY:
        size = 8 * MemorySizeExt.size(i.memory_size)
        if size in (8, 16, 32, 64):
            return size
    raise UnknownOperand


def general(register: int) -> tuple[int, int]:
    if register not in GENERAL:
        raise UnknownOperand
    return GENERAL[register]


def address_of(i: Instruction, width: int = 64) -> Callable[[Machine], v.Int]:
    """base + index*scale + displacement, modulo 2^width."""
    if i.segment_prefix != Register.NONE:
        raise UnknownOperand
    if i.is_ip_rel_memory_operand:
        fixed = i.ip_rel_memory_address
        return lambda m: fixed
    disp = v.signed(i.memory_displacement, 64)
    base = _reader64(i.memory_base, width)
    index, times = _reader64(i.memory_index, width), i.memory_index_scale
    if index is None:
        return (lambda m: disp) if base is None else lambda m: v.add(base(m), disp)
    if base is None:
        return lambda m: v.add(v.scale(index(m), times), disp)
    return lambda m: v.add(v.add(base(m), index(m), times), disp)


def _reader64(register: int, wanted: int) -> Callable[[Machine], v.Int] | None:
    if register == Register.NONE:
        return None
    number, width = general(register)
    if width != 64:
        raise UnknownOperand
    return (lambda m: m.read32(number)) if wanted <= 32 else lambda m: m.read64(number)


def integer(
    i: Instruction, k: int, width: int, data: bool = False
) -> Callable[[Machine], object]:
    """Operand k as an integer: any representative modulo 2^width; also data where `data`."""
    kind = i.op_kind(k)
    if kind == OpKind.REGISTER and i.op_register(k) in HIGH:
        number = HIGH[i.op_register(k)]
        return lambda m: m.high_byte(number, data)
    if kind == OpKind.REGISTER:
        number, own = general(i.op_register(k))
        if own == 64 and width == 64 and not data:
            return lambda m: m.read64(number)
        return lambda m: m.read(number, width, data)
    if kind == OpKind.MEMORY:
        address, size = address_of(i), width // 8
        return lambda m: m.as_integer(m.load(address(m), size), width, data)
    constant = v.signed(i.immediate(k), width)
    return lambda m: constant


def raw(i: Instruction, k: int, width: int) -> Callable[[Machine], object]:
    """Operand k as it lies there."""
    if i.op_kind(k) == OpKind.REGISTER:
        number = general(i.op_register(k))[0]
        return lambda m: m.movable(number)
    return integer(i, k, width, data=True)


def writer(i: Instruction, width: int) -> Callable[[Machine, object], None]:
    """Operand 0 as a destination."""
    if i.op_kind(0) == OpKind.MEMORY:
        address, size = address_of(i), width // 8
        return lambda m, value: m.store(address(m), size, value)
    return register_writer(width, general(i.op_register(0))[0])


def register_writer(width: int, number: int) -> Callable[[Machine, object], None]:
    if width == 64:
        return lambda m, value: m.write64(number, value)
    if width == 32:
        return lambda m, value: m.write32(number, value)
    return lambda m, value: m.write_low(number, width, value)


def vector(i: Instruction, k: int, kind: str = "f32") -> Callable[[Machine], object]:
    """The lowest lane of operand k as a float (f32) or a double (f64)."""
    if i.op_kind(k) == OpKind.REGISTER:
        number = xmm(i, k)
        return lambda m: m.float(number, kind)
    address, size = address_of(i), 4 if kind == "f32" else 8
    return lambda m: m.as_float(m.load(address(m), size), kind)


def lane(i: Instruction, k: int) -> Callable[[Machine], object]:
    """The lowest lane for bitwise operations: a float of either width or the mask of a
    comparison; of a constant in memory, 64 bits."""
    if i.op_kind(k) == OpKind.REGISTER:
        number = xmm(i, k)
        return lambda m: m.lanes(number)
    address = address_of(i)
    return lambda m: m.as_lanes(m.load(address(m), 16))


def xmm(i: Instruction, k: int) -> int:
    if i.op_kind(k) != OpKind.REGISTER or i.op_register(k) not in VECTOR:
        raise UnknownOperand
    return VECTOR[i.op_register(k)]
