"""Calls: to libm a trace operation, to memset and memcpy stores, to a function of the object its
own code, run in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..trace.ir import Op
from . import data, value as v
from .data import ELEMENTS
from .error import Refusal
from .nodes import Node
from .operands import CALLER_SAVED, NAMES

if TYPE_CHECKING:
    from .engine import Machine

UNARY = "exp log tanh sqrt erf sin cos exp2 log2 log1p expm1 floor ceil trunc rint round".split()
# fmt: off
ROWS = {name: (Op(name), 1) for name in UNARY} | {
    "fabs": (Op.ABS, 1), "nearbyint": (Op.RINT, 1), "roundeven": (Op.RINT, 1), "pow": (Op.POW, 2),
    "fmax": (Op.FMAX, 2), "fmin": (Op.FMIN, 2), "fma": (Op.FMA, 3),
}
# fmt: on
# C function -> (operation, number of operands, their kind and that of the result)
MATHS = {n: (op, k, "f64") for n, (op, k) in ROWS.items()} | {
    n + "f": (op, k, "f32") for n, (op, k) in ROWS.items()
}
# C function -> rounding; the integer that results is a long
TO_LONG = {f"{p}{n}{f}": (op, "f32" if f else "f64") for p in ("l", "ll") for f in ("f", "")
           for n, op in (("rint", Op.RINT), ("round", Op.ROUND))}  # fmt: skip
# conversions of libgcc, for compilers without an instruction for them
HALVES = {"__extendhfsf2": data.half, "__gnu_h2f_ieee": data.half, "__truncsfhf2": data.to_half,
          "__gnu_f2h_ieee": data.to_half}  # fmt: skip
RAX, RDI, RSI, RDX = 0, 7, 6, 2
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Function:
    """A register that holds the address of an external function."""

    name: str


def call(m: Machine, target: object, at: int, tail: bool = False) -> None:
    """Call an address or an external function."""
    name = m.image.callee(target) if target.__class__ is int else None
    if target.__class__ is Function:
        name = target.name
    if name is None and target.__class__ is int and m.image.read(target, 1):
        m.inline(target, at)
        return
    if name not in MATHS and name not in BULK:
        raise Refusal(
            f"call to {name}" if name else "call to a function that is not known by name",
            f"functions of the same object, memcpy, memset, or of libm: {', '.join(ROWS)}",
            "define the function beside this one, or compute the value with known functions",
        )
    m.before_call(tail)
    integer = BULK.get(name, _maths)(m, name)
    for k in CALLER_SAVED:
        m.r[k] = None
    m.flags = None
    if integer is not None:
        m.write64(RAX, integer)


def _maths(m: Machine, name: str) -> None:
    """xmm0 gets the result, the other vector registers become undefined."""
    op, count, kind = MATHS[name]
    result = m.nodes.make(op, tuple(m.float(k, kind) for k in range(count)))
    m.x[:] = [None] * 16
    m.x[0] = result


def _to_long(m: Machine, name: str) -> Node:
    op, kind = TO_LONG[name]
    x = m.float(0, kind)
    m.x[:] = [None] * 16
    return m.nodes.make(Op.TOLONG, (m.nodes.make(op, (x,)),))


def _absolute(m: Machine, name: str) -> Node:
    width = 32 if name == "abs" else 64
    x = m.as_data(m.read(RDI, width, True), width)
    negative = data.compared(m.nodes, "l", False, x, data.constant(m.nodes, 0, x.kind), width)
    m.x[:] = [None] * 16
    if negative.__class__ is bool:
        return data.negated(m.nodes, x) if negative else x
    return data.select(m.nodes, negative, data.negated(m.nodes, x), x)


def _half(m: Machine, name: str) -> None:
    result = HALVES[name](m.nodes, m.float(0))
    m.x[:] = [None] * 16
    m.x[0] = result


def _memset(m: Machine, name: str) -> None:
    byte = m.read32(RSI)
    if byte.__class__ is not int:
        raise Refusal("memset with a byte that is not a constant")
    size = _element(m, RDI)
    word = int.from_bytes(bytes([byte & 0xFF]) * size, "little")
    for offset in _offsets(m, size):
        _store(m, v.add(m.read64(RDI), offset), size, word)
    m.x[:] = [None] * 16


def _memcpy(m: Machine, name: str) -> None:
    size = _element(m, RSI)
    if size != _element(m, RDI):
        raise Refusal(f"{name} between arrays of elements of other sizes")
    source, target = m.read64(RSI), m.read64(RDI)
    values = [m.load(v.add(source, offset), size) for offset in _offsets(m, size)]
    for number, value in enumerate(values):
        _store(m, v.add(target, number * size), size, value)
    m.x[:] = [None] * 16


def _store(m: Machine, address: v.Int, size: int, value: object) -> None:
    """An element of a block: its number is known, its place in rows and columns is not."""
    m.store(address, size, value)
    m.blocks.add(v.value_of(m.stripped(address, "an address")))


def _element(m: Machine, register: int) -> int:
    """Bytes of an element of the array that an address register points into."""
    address = m.read64(register)
    pointers = [x for x in v.atoms_of(address) if v.POINTER <= x < v.LOADED]
    if not pointers:
        raise Refusal(f"{NAMES[register]} is not the address of an element of an argument")
    return ELEMENTS.get(m.names[pointers[0]].ctype, (4,))[0]


def _offsets(m: Machine, size: int) -> range:
    """Where the elements are; the length must be a polynomial of the sizes."""
    length = m.read64(RDX)
    if v.has_counter(length) or v.has_pointer(length) or v.divided(length, size) is None:
        raise Refusal(f"the number of bytes {m.text(length)} is not a number of elements")
    if not 0 <= v.value_of(length) < MOST_BYTES:
        raise Refusal(f"{v.value_of(length)} bytes are copied or set at once")
    return range(0, v.value_of(length), size)


def _sincos(m: Machine, name: str) -> None:
    """Both at once, through pointers: what a compiler makes of sinf(x) and cosf(x)."""
    kind, size = ("f32", 4) if name.endswith("f") else ("f64", 8)
    x = m.float(0, kind)
    for register, op in ((RDI, Op.SIN), (RSI, Op.COS)):
        m.store(m.read64(register), size, m.nodes.make(op, (x,)))
    m.x[:] = [None] * 16


BULK = {
    "memset": _memset, "memcpy": _memcpy, "memmove": _memcpy, "sincos": _sincos, "sincosf": _sincos,
    **dict.fromkeys(("abs", "labs", "llabs"), _absolute), **dict.fromkeys(TO_LONG, _to_long),
    **dict.fromkeys(HALVES, _half),
}  # fmt: skip
