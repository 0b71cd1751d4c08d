"""What instructions on floats mean: SSE and VEX scalars, single and double precision.

A vector register is its lowest lane here: a `Node` of 32 or 64 bits. Every row computes that lane
from lowest lanes alone, so what lies above never matters. VEX forms have three operands where the
SSE forms have two. Meanings: Intel SDM volume 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iced_x86 import Instruction, OpKind

from ..trace.ir import Op
from . import data
from .error import Refusal
from .nodes import Node, compared
from .operands import (
    GENERAL,
    UnknownOperand,
    address_of,
    general,
    integer,
    lane,
    register_writer,
    vector,
    width_of,
    writer,
    xmm,
)
from .rows import MNEMONICS, ROWS, Builder, Step, row, same_register

if TYPE_CHECKING:
    from .engine import Machine

KINDS = {"ss": "f32", "sd": "f64"}
PACKED = {"ps": "f32", "pd": "f64"}  # of which the lowest lane is looked at
BYTES = {"f32": 4, "f64": 8}
WHOLE = ("movaps", "movapd", "movups", "movupd", "movdqa", "movdqu")  # all 16 bytes
COPY = {"movss": "f32", "movsd": "f64", "vmovss": "f32", "vmovsd": "f64"}


def rows(*names: str, vex: bool = True) -> tuple[str, ...]:
    return (*names, *("v" + n for n in names)) if vex else names


def sources(i: Instruction) -> tuple[int, int]:
    """The two operands that are read: SSE overwrites the first, VEX has a third."""
    return (0, 1) if i.op_count == 2 or i.op_kind(2) == OpKind.IMMEDIATE8 else (1, 2)


def result(i: Instruction, op: Op, *operands) -> Step:
    target, (first, *more) = xmm(i, 0), operands
    if not more:
        return lambda m: m.x.__setitem__(target, m.nodes.make(op, (first(m),)))
    if len(more) == 1:
        (second,) = more
        return lambda m: m.x.__setitem__(target, m.nodes.make(op, (first(m), second(m))))
    return lambda m: m.x.__setitem__(target, m.nodes.make(op, tuple([o(m) for o in operands])))


# ---- moves


@row(*rows(*WHOLE))
def _whole(i: Instruction) -> Step:
    """Sixteen bytes, of which the lowest lane is known."""
    if i.op_kind(0) == OpKind.MEMORY:
        address, number = address_of(i), xmm(i, 1)
        return lambda m: m.store(address(m), 16, m.lanes(number))
    target = xmm(i, 0)
    if i.op_kind(1) == OpKind.MEMORY:
        address = address_of(i)
        return lambda m: m.x.__setitem__(target, m.as_lanes(m.load(address(m), 16)))
    number = xmm(i, 1)  # a whole register may be undefined
    return lambda m: m.x.__setitem__(target, m.x[number])


@row("movss", "movsd", "vmovss", "vmovsd")
def _scalar(i: Instruction) -> Step:
    kind = COPY[MNEMONICS[i.mnemonic]]
    size, last = BYTES[kind], i.op_count - 1
    if i.op_kind(0) == OpKind.MEMORY:
        address, number = address_of(i), xmm(i, 1)
        return lambda m: m.store(address(m), size, m.float(number, kind))
    target = xmm(i, 0)
    if i.op_kind(last) == OpKind.MEMORY:
        address = address_of(i)
        return lambda m: m.x.__setitem__(target, m.as_float(m.load(address(m), size), kind))
    number = xmm(i, last)

    def step(m: Machine) -> None:
        value = m.lanes(number)  # of movss: 32 bits, the others stay
        m.x[target] = m.float(number, kind) if (value.kind, kind) == ("f64", "f32") else value

    return step


@row(*rows("movd", "movq"))
def _between(i: Instruction) -> Step:
    """The bits of a float as an integer, and back."""
    wide = "q" in MNEMONICS[i.mnemonic]
    kind, size = ("f64", 8) if wide else ("f32", 4)
    if i.op_kind(0) == OpKind.MEMORY:
        address, number = address_of(i), xmm(i, 1)
        return lambda m: m.store(address(m), size, m.float(number, kind))
    if i.op_register(0) in GENERAL:
        number, write = xmm(i, 1), writer(i, 8 * size)

        def step(m: Machine) -> None:
            value = m.lanes(number)
            mask = value.kind == "bool" and not (wide and compared(value) == "f32")
            write(m, data.ones(m.nodes, value, 8 * size) if mask else m.float(number, kind))

        return step
    target = xmm(i, 0)
    if i.op_kind(1) == OpKind.MEMORY:
        address = address_of(i)
        return lambda m: m.x.__setitem__(target, m.as_float(m.load(address(m), size), kind))
    if i.op_register(1) in GENERAL:
        source = general(i.op_register(1))[0]
        return lambda m: m.x.__setitem__(target, m.as_float(m.defined(source), kind))
    number = xmm(i, 1)
    return lambda m: m.x.__setitem__(target, m.float(number, kind))


@row("vbroadcastss")
def _broadcast(i: Instruction) -> Step:
    target, source = xmm(i, 0), vector(i, 1)
    return lambda m: m.x.__setitem__(target, source(m))


# ---- arithmetic


def _arithmetic(op: Op, kind: str) -> Builder:
    return lambda i: result(i, op, *(vector(i, k, kind) for k in sources(i)))


def _root(kind: str) -> Builder:
    return lambda i: result(i, Op.SQRT, vector(i, i.op_count - 1, kind))


def _negated(source) -> Step:
    return lambda m: m.nodes.neg(source(m))


def _fma(name: str, order: tuple[int, int, int], kind: str) -> Builder:
    """dest = +-o[order[0]] * o[order[1]] +- o[order[2]], rounded once; a sign change is exact."""

    def build(i: Instruction) -> Step:
        a, b, c = (vector(i, k, kind) for k in order)
        a = _negated(a) if name.startswith("vfnm") else a
        return result(i, Op.FMA, a, b, _negated(c) if "sub" in name else c)

    return build


# fmt: off
SIMPLE = {"add": Op.ADD, "sub": Op.SUB, "mul": Op.MUL, "div": Op.DIV, "max": Op.MAX, "min": Op.MIN}
ORDERS = {"132": (0, 2, 1), "213": (1, 0, 2), "231": (1, 2, 0)}
# fmt: on
for _suffix, _kind in KINDS.items():
    for _name, _op in SIMPLE.items():
        for _row in rows(_name + _suffix):
            ROWS[_row] = _arithmetic(_op, _kind)
    for _row in rows("sqrt" + _suffix):
        ROWS[_row] = _root(_kind)
    for _name in ("vfmadd", "vfmsub", "vfnmadd", "vfnmsub"):
        for _digits, _order in ORDERS.items():
            ROWS[_name + _digits + _suffix] = _fma(_name, _order, _kind)

# integers in the lowest lane, as gcc moves them there for a minimum or a maximum
LANES = {"paddd": Op.ADD, "psubd": Op.SUB, "pmulld": Op.MUL, "pmaxsd": Op.MAX, "pminsd": Op.MIN}


def _integer_lane(op: Op) -> Builder:
    def build(i: Instruction) -> Step:
        target, (a, b) = xmm(i, 0), (vector(i, k) for k in sources(i))

        def step(m: Machine) -> None:
            x, y = (data.bits(m.nodes, lane(m)) for lane in (a, b))
            m.x[target] = data.real(m.nodes, data.binary(m.nodes, op, x, y))

        return step

    return build


for _name, _op in LANES.items():
    ROWS.update(dict.fromkeys(rows(_name), _integer_lane(_op)))

# the immediate of roundss: rounding mode, bit 3 keeps the inexact flag clear; 4 is the mode of MXCSR
ROUNDINGS = {0: Op.RINT, 1: Op.FLOOR, 2: Op.CEIL, 3: Op.TRUNC, 4: Op.RINT}


@row(*rows("roundss", "roundsd"))
def _round(i: Instruction) -> Step:
    last = i.op_count - 1
    kind = KINDS[MNEMONICS[i.mnemonic][-2:]]
    return result(i, ROUNDINGS[i.immediate(last) & 7], vector(i, last - 1, kind))


@row("rcpss", "rsqrtss", "vrcpss", "vrsqrtss")
def _approximation(i: Instruction) -> Step:
    def step(m: Machine) -> None:
        raise Refusal(
            f"{MNEMONICS[i.mnemonic]} is an approximation",
            "correctly rounded division and square roots",
            "compile without -ffast-math, -Ofast and -mrecip",
        )

    return step


# ---- conversions


@row(*rows("cvtss2sd", "cvtsd2ss"))
def _change_width(i: Instruction) -> Step:
    narrow = MNEMONICS[i.mnemonic].endswith("2ss")
    source = vector(i, i.op_count - 1, "f64" if narrow else "f32")
    return result(i, Op.NARROW if narrow else Op.WIDEN, source)


@row(*rows("cvtsi2ss", "cvtsi2sd"))
def _from_integer(i: Instruction) -> Step:
    last, kind = i.op_count - 1, KINDS[MNEMONICS[i.mnemonic][-2:]]
    target, width = xmm(i, 0), width_of(i, last)
    source = integer(i, last, width, data=True)

    def step(m: Machine) -> None:
        try:
            m.x[target] = m.converted(source(m), width, kind)
        except Refusal as refusal:  # harmless where the result is not used
            refusal.at = i.ip
            m.x[target] = m.lost(refusal, kind)

    return step


@row(*rows("cvttss2si", "cvtss2si", "cvttsd2si", "cvtsd2si"))
def _to_integer(i: Instruction) -> Step:
    target, width = general(i.op_register(0))
    name = MNEMONICS[i.mnemonic].removeprefix("v")
    source = vector(i, 1, "f32" if "ss" in name else "f64")
    op, write = Op.TOLONG if width == 64 else Op.TOINT, register_writer(width, target)

    def step(m: Machine) -> None:
        x = source(m)
        if not name.startswith("cvtt"):  # as MXCSR says: to nearest even
            x = m.nodes.make(Op.RINT, (x,))
        write(m, m.nodes.make(op, (x,)))

    return step


@row("vcvtph2ps")
def _from_half(i: Instruction) -> Step:
    """The lowest lane: sixteen bits of an array of halves."""
    target, number = xmm(i, 0), xmm(i, 1)
    return lambda m: m.x.__setitem__(target, data.half(m.nodes, m.float(number)))


@row("vcvtps2ph")
def _to_half(i: Instruction) -> Step:
    """Immediate 0 rounds to nearest even, 4 as MXCSR does: the same."""
    if i.op_kind(0) == OpKind.MEMORY or i.immediate(2) not in (0, 4):
        raise UnknownOperand
    target, number = xmm(i, 0), xmm(i, 1)
    return lambda m: m.x.__setitem__(target, data.to_half(m.nodes, m.float(number)))


@row(*rows("pextrw"))
def _extract(i: Instruction) -> Step:
    """The lowest sixteen bits."""
    number = xmm(i, 1)
    if i.immediate(2):
        raise UnknownOperand
    write = writer(i, 16 if i.op_kind(0) == OpKind.MEMORY else 32)
    return lambda m: write(m, data.extended(m.nodes, m.as_data(m.lanes(number), 32), 16, False))


@row(*rows("pinsrw"))
def _insert(i: Instruction) -> Step:
    """Sixteen bits into the lowest lane; what lies above them counts as zero."""
    last = i.op_count - 1
    target, source = xmm(i, 0), integer(i, last - 1, 16, data=True)
    if i.immediate(last):
        raise UnknownOperand

    def step(m: Machine) -> None:
        word = data.extended(m.nodes, m.as_data(source(m), 32), 16, False)
        m.x[target] = data.real(m.nodes, word)

    return step


@row(*rows("cvtdq2ps", "cvtdq2pd"))
def _from_lane(i: Instruction) -> Step:
    """The lowest lane of integers."""
    target, source = xmm(i, 0), vector(i, 1)
    kind = "f32" if MNEMONICS[i.mnemonic].endswith("ps") else "f64"
    return lambda m: m.x.__setitem__(target, m.converted(m.as_data(source(m), 32), 32, kind))


# ---- comparisons and bits


@row(*rows("comiss", "ucomiss", "comisd", "ucomisd"))
def _compare(i: Instruction) -> Step:
    kind = KINDS[MNEMONICS[i.mnemonic][-2:]]
    left, right = vector(i, 0, kind), vector(i, 1, kind)

    def step(m: Machine) -> None:
        m.flags = ("float", left(m), right(m), 32)

    return step


def _as_integers(m: Machine, name: str, x: Node, y: Node) -> Node:
    """Bitwise arithmetic on two floats of one width, as in copysign."""
    x, y = m.nodes.alike(x, y)
    if x.kind != y.kind or x.kind not in BYTES:
        raise Refusal("bitwise arithmetic on floats of different widths")
    width = 8 * BYTES[x.kind]
    one, two = m.as_data(x, width), m.as_data(y, width)
    if name == "clear_bits":
        one = m.calculated(Op.BITXOR, one, -1, width)
    return data.real(m.nodes, m.calculated(INTEGER[name], one, two, width))


def _bits(name: str) -> Builder:
    def build(i: Instruction) -> Step:
        target, (a, b) = xmm(i, 0), sources(i)
        if name == "flip_bits" and same_register(i, a):  # x ^ x clears, whatever x was
            return lambda m: m.x.__setitem__(target, m.nodes.const64(0))
        left, right = lane(i, a), lane(i, b)

        def step(m: Machine) -> None:
            x, y = left(m), right(m)
            found = getattr(m.nodes, name)(x, y) or _as_integers(m, name, x, y)
            m.x[target] = found

        return step

    return build


INTEGER = {"flip_bits": Op.BITXOR, "mask_bits": Op.BITAND, "clear_bits": Op.BITAND,
           "join_bits": Op.BITOR}  # fmt: skip
BITWISE = {
    "flip_bits": ("xorps", "xorpd", "pxor"), "mask_bits": ("andps", "andpd", "pand"),
    "clear_bits": ("andnps", "andnpd", "pandn"), "join_bits": ("orps", "orpd", "por"),
}  # fmt: skip
for _meaning, _names in BITWISE.items():
    ROWS.update(dict.fromkeys(rows(*_names), _bits(_meaning)))

# cmpss predicates 0 to 3; 4 to 7 are their negations; VEX adds the quiet forms from 16 on, and
# 13, 14 (not less: >=, >) and 8 (equal or unordered) with other operand orders
PREDICATES = (Op.EQ, Op.LT, Op.LE, Op.UNORD)


@row(*rows("cmpss", "cmpsd", "cmpps", "cmppd"))
def _compare_mask(i: Instruction) -> Step:
    """A lane of ones or zeros: here the comparison itself, which only bitwise rows may read."""
    suffix, last = MNEMONICS[i.mnemonic][-2:], i.op_count - 1
    kind = (KINDS | PACKED)[suffix]
    if suffix in PACKED and any(i.op_kind(k) == OpKind.MEMORY for k in range(last)):
        raise UnknownOperand
    target, (a, b) = xmm(i, 0), (0, 1) if last == 2 else (1, 2)
    left, right = vector(i, a, kind), vector(i, b, kind)
    negated, predicate = divmod(i.immediate(last), 4)
    if negated > 1:
        raise UnknownOperand
    op = PREDICATES[predicate]

    def step(m: Machine) -> None:
        mask = m.nodes.make(op, (left(m), right(m)))
        m.x[target] = m.nodes.not_(mask) if negated else mask

    return step


@row("blendvps", "blendvpd", "vblendvps", "vblendvpd")
def _blend(i: Instruction) -> Step:
    """mask ? second : first; the SSE form has its mask in xmm0."""
    target, vex = xmm(i, 0), i.op_count == 4
    first, second = (lane(i, k) for k in ((1, 2) if vex else (0, 1)))
    mask = lane(i, 3) if vex else lambda m: m.x[0]

    def step(m: Machine) -> None:
        condition, then, other = mask(m), second(m), first(m)
        if condition is None or condition.kind != "bool" or compared(condition) != then.kind:
            raise Refusal("a blend by a sign bit", "blends by a comparison of the same width")
        m.x[target] = m.nodes.select(condition, then, other)

    return step
