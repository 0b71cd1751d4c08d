"""The operator in index notation: what the lifter produces and every later stage consumes.

    OpTrace ::= name(params) with  Store*
    Store   ::= param[index] = value   for every binder of the domain, binder < extent
    value   ::= Const | Scalar | Index | Load(param, index) | op(value, ...) | Reduce(init, term)

`out[i0] = x[i0] / (1 + exp(-x[i0]))` is one Store whose body is a hash-consed SSA tuple: a value is
its position in `OpTrace.body`, and arguments always stand before their users.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from .affine import Affine


class Op(StrEnum):
    """One name per trace operation; its arity, type rule and print form are in `TABLE`."""

    CONST = "const"
    SCALAR = "scalar"
    INDEX = "index"
    LOAD = "load"
    NEG = "neg"
    ABS = "abs"
    SQRT = "sqrt"
    EXP = "exp"
    LOG = "log"
    TANH = "tanh"
    ERF = "erf"
    SIN = "sin"
    COS = "cos"
    EXP2 = "exp2"
    LOG2 = "log2"
    LOG1P = "log1p"
    EXPM1 = "expm1"
    FLOOR = "floor"
    CEIL = "ceil"
    TRUNC = "trunc"
    RINT = "rint"
    ROUND = "round"
    WIDEN = "widen"
    NARROW = "narrow"
    HALF = "half"
    BFLOAT = "bfloat"
    CONST64 = "const64"
    INDEX64 = "index64"
    INT = "int"
    LONG = "long"
    INDEXI = "indexi"
    BITAND = "bitand"
    BITOR = "bitor"
    BITXOR = "bitxor"
    SHL = "shl"
    SHR = "shr"
    SAR = "sar"
    TOINT = "toint"
    TOLONG = "tolong"
    EXTEND = "extend"
    UNSIGNED = "unsigned"
    LOW = "low"
    BITS = "bits"
    BITS64 = "bits64"
    REAL = "real"
    REAL64 = "real64"
    TOHALF = "tohalf"
    POW = "pow"
    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"
    MAX = "max"
    MIN = "min"
    FMAX = "fmax"
    FMIN = "fmin"
    FMA = "fma"
    LT = "lt"
    LE = "le"
    EQ = "eq"
    UNORD = "unord"
    NOT = "not"
    AND = "and"
    OR = "or"
    SELECT = "select"
    REDUCE = "reduce"

    def __repr__(self) -> str:
        """Python that rebuilds it, so that a trace's repr does too."""
        return f"Op.{self.name}"


@dataclass(frozen=True, slots=True)
class Row:
    """What every level needs to know of a trace operation; `imm` names the immediate, if any.

    result: f32 | f64 | i32 | i64 | bool, "same" as the last operand (all operands alike), or
    "param": as the argument is declared (f32, f64, i32 or i64). Integers wrap around in 32 or 64
    bits; elements of 8 and 16 bits are i32, as C promotes them.
    """

    arity: int
    result: str
    form: str  # print form over {0} {1} {2}
    imm: str = ""


# fmt: off
TABLE: dict[Op, Row] = {
    Op.CONST:  Row(0, "f32", "{imm}", "the bits of the float32, an int"),
    Op.SCALAR: Row(0, "param", "{imm}", "the name of a float argument"),
    Op.INDEX:  Row(0, "f32", "float({imm})", "an Affine, converted to float32"),
    Op.LOAD:   Row(0, "param", "{imm}", "(param name, Affine element index)"),
    Op.NEG:    Row(1, "same", "-{0}"),
    Op.ABS:    Row(1, "same", "abs({0})"),
    Op.SQRT:   Row(1, "same", "sqrt({0})"),
    Op.EXP:    Row(1, "same", "exp({0})"),
    Op.LOG:    Row(1, "same", "log({0})"),
    Op.TANH:   Row(1, "same", "tanh({0})"),
    Op.ERF:    Row(1, "same", "erf({0})"),
    Op.SIN:    Row(1, "same", "sin({0})"),
    Op.COS:    Row(1, "same", "cos({0})"),
    Op.EXP2:   Row(1, "same", "exp2({0})"),
    Op.LOG2:   Row(1, "same", "log2({0})"),
    Op.LOG1P:  Row(1, "same", "log1p({0})"),
    Op.EXPM1:  Row(1, "same", "expm1({0})"),
    Op.FLOOR:  Row(1, "same", "floor({0})"),
    Op.CEIL:   Row(1, "same", "ceil({0})"),
    Op.TRUNC:  Row(1, "same", "trunc({0})"),
    Op.RINT:   Row(1, "same", "rint({0})"),    # halfway cases to even
    Op.ROUND:  Row(1, "same", "round({0})"),   # halfway cases away from zero, as roundf
    Op.POW:    Row(2, "same", "pow({0}, {1})"),
    Op.WIDEN:  Row(1, "f64", "double({0})"),   # of a float (exact) or an integer
    Op.NARROW: Row(1, "f32", "float({0})"),    # the nearest float32 of a double or an integer
    Op.HALF:   Row(1, "f32", "half({0})"),     # of the 16 low bits, an IEEE binary16
    Op.BFLOAT: Row(1, "f32", "bfloat({0})"),   # of the upper half of a float32, an integer
    Op.TOHALF: Row(1, "i32", "tohalf({0})"),   # the bits of the nearest binary16, nearest even
    Op.INT:    Row(0, "i32", "{imm}", "an int of 32 bits, signed"),
    Op.LONG:   Row(0, "i64", "{imm}L", "an int of 64 bits, signed"),
    Op.INDEXI: Row(0, "i32", "int({imm})", "an Affine, as an integer"),
    # without the fraction; what does not fit, and NaN, is the smallest integer (cvttss2si)
    Op.TOINT:  Row(1, "i32", "int({0})"),
    Op.TOLONG: Row(1, "i64", "long({0})"),
    Op.EXTEND: Row(1, "i64", "long({0})"),     # of an i32
    Op.UNSIGNED: Row(1, "i64", "unsigned({0})"),  # the same 32 bits, zeros above
    Op.LOW:    Row(1, "i32", "low({0})"),      # the low 32 bits of an i64
    Op.BITS:   Row(1, "i32", "bits({0})"),     # of a float32
    Op.BITS64: Row(1, "i64", "bits({0})"),
    Op.REAL:   Row(1, "f32", "real({0})"),     # the float32 with these bits
    Op.REAL64: Row(1, "f64", "real({0})"),
    Op.BITAND: Row(2, "same", "({0} & {1})"),
    Op.BITOR:  Row(2, "same", "({0} | {1})"),
    Op.BITXOR: Row(2, "same", "({0} ^ {1})"),
    # the count modulo the width, as x86 takes it
    Op.SHL:    Row(2, "same", "({0} << {1})"),
    Op.SHR:    Row(2, "same", "({0} >>> {1})"),  # zeros come in
    Op.SAR:    Row(2, "same", "({0} >> {1})"),   # copies of the sign come in
    Op.CONST64: Row(0, "f64", "{imm}", "the bits of the float64, an int"),
    Op.INDEX64: Row(0, "f64", "double({imm})", "an Affine, converted to float64"),
    Op.ADD:    Row(2, "same", "({0} + {1})"),
    Op.SUB:    Row(2, "same", "({0} - {1})"),
    Op.MUL:    Row(2, "same", "{0}*{1}"),
    Op.DIV:    Row(2, "same", "({0} / {1})"),
    # x86 maxss/minss: max(a, b) = a > b ? a : b, so b wins when either is NaN or both are zero.
    Op.MAX:    Row(2, "same", "max({0}, {1})"),
    Op.MIN:    Row(2, "same", "min({0}, {1})"),
    # C fmaxf/fminf: the operand that is a number wins over NaN. Of +0 and -0 C leaves the choice
    # open (C17, F.10.9.2); glibc and the kernels take {1}, so the order is kept as compiled.
    Op.FMAX:   Row(2, "same", "fmax({0}, {1})"),
    Op.FMIN:   Row(2, "same", "fmin({0}, {1})"),
    Op.FMA:    Row(3, "same", "fma({0}, {1}, {2})"),   # {0}*{1} + {2}, rounded once
    Op.LT:     Row(2, "bool", "({0} < {1})"),          # ordered: false on NaN
    Op.LE:     Row(2, "bool", "({0} <= {1})"),
    Op.EQ:     Row(2, "bool", "({0} == {1})"),
    Op.UNORD:  Row(2, "bool", "isnan({0}, {1})"),      # true when either is NaN
    Op.NOT:    Row(1, "bool", "not {0}"),
    Op.AND:    Row(2, "bool", "({0} and {1})"),
    Op.OR:     Row(2, "bool", "({0} or {1})"),
    Op.SELECT: Row(3, "same", "({1} if {0} else {2})"),
    Op.REDUCE: Row(2, "same", "{imm}", "(kind, binder, extent): args are (init, term)"),
}
# fmt: on


INDICES = (Op.INDEX, Op.INDEX64, Op.INDEXI)
KINDS = ("f32", "f64", "i32", "i64")
WIDTH = {"f32": 32, "i32": 32, "f64": 64, "i64": 64}
INTEGERS = ("i32", "i64")
CONSTANTS = {"f32": Op.CONST, "f64": Op.CONST64, "i32": Op.INT, "i64": Op.LONG}
# how many vector instructions an operation becomes, roughly; the others are one. A Reduce that
# differs from lane to lane is a loop
WEIGHTS = {Op.EXP: 14, Op.EXP2: 12, Op.EXPM1: 20, Op.TANH: 24, Op.LOG: 24, Op.LOG2: 24,
           Op.LOG1P: 28, Op.ERF: 30, Op.SIN: 28, Op.COS: 28, Op.POW: 90, Op.REDUCE: 64}
# type of what is loaded from an array of reals by the type of its elements. f16 and bf16 are how a
# bound trace says that floats are stored in 16 bits
REALS = {"float": "f32", "double": "f64", "f16": "f32", "bf16": "f32"}


@dataclass(frozen=True, slots=True)
class Reducer:
    """One step of a reduction, in terms of a binary trace op; `flipped` puts the term first."""

    op: Op
    identity: float
    flipped: bool = False


# acc' = op(acc, term), or op(term, acc) when flipped: the operand order decides who wins under
# NaN, and which of two equal zeros stays.
REDUCERS: dict[str, Reducer] = {
    "sum": Reducer(Op.ADD, 0.0),
    "prod": Reducer(Op.MUL, 1.0),
    "max": Reducer(Op.MAX, float("-inf"), flipped=True),
    "max_acc": Reducer(Op.MAX, float("-inf")),
    "min": Reducer(Op.MIN, float("inf"), flipped=True),
    "min_acc": Reducer(Op.MIN, float("inf")),
    "fmax": Reducer(Op.FMAX, float("-inf"), flipped=True),
    "fmax_acc": Reducer(Op.FMAX, float("-inf")),
    "fmin": Reducer(Op.FMIN, float("inf"), flipped=True),
    "fmin_acc": Reducer(Op.FMIN, float("inf")),
    "fma": Reducer(Op.FMA, 0.0),  # the term is a MUL whose product is not rounded
}


@dataclass(frozen=True, slots=True)
class TraceOp:
    """One value of the body; `args` are positions of earlier values."""

    op: Op
    args: tuple[int, ...] = ()
    imm: object = None


@dataclass(frozen=True, slots=True)
class Param:
    """One C argument. role: in | out | inout (arrays), dim (integer), scalar (float or double)."""

    name: str
    role: str
    ctype: str = "float"


@dataclass(frozen=True, slots=True)
class Store:
    """`param[index] = body[value]` for every binder < extent of `domain`, outermost first.

    A function that returns its result stores to the pseudo-parameter "return" with no domain.
    """

    param: str
    index: Affine
    value: int
    domain: tuple[tuple[str, Affine], ...]


@dataclass(frozen=True, slots=True)
class OpTrace:
    """A whole operator. Hashable: it is its own cache key."""

    name: str
    params: tuple[Param, ...]
    body: tuple[TraceOp, ...]
    stores: tuple[Store, ...]
    # the largest value of a dimension for which 32-bit index arithmetic in the source is exact
    extent_limit: int = 1 << 31

    def param(self, name: str) -> Param:
        return next(p for p in self.params if p.name == name)

    def names(self, *roles: str) -> tuple[str, ...]:
        return tuple(p.name for p in self.params if p.role in roles)

    def __str__(self) -> str:
        from .render import render

        return render(self)


@dataclass
class BodyBuilder:
    """Hash-consing: equal operations get the same position."""

    body: list[TraceOp] = field(default_factory=list)
    seen: dict[TraceOp, int] = field(default_factory=dict)

    def add(self, op: Op, *args: int, imm: object = None) -> int:
        node = TraceOp(op, args, imm)
        if node not in self.seen:
            self.seen[node] = len(self.body)
            self.body.append(node)
        return self.seen[node]

    def const(self, value: float) -> int:
        return self.add(Op.CONST, imm=float_bits(value))


def float_bits(value: float) -> int:
    """The bits of the nearest float32, as an unsigned integer."""
    try:
        return struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return 0x7F800000 if value > 0 else 0xFF800000


def double_bits(value: float) -> int:
    """The bits of a float64, as an unsigned integer."""
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def bits_double(bits: int) -> float:
    """The float64 with these bits."""
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def bits_float(bits: int) -> float:
    """The float32 with these bits."""
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def reachable(body: tuple[TraceOp, ...], *roots: int) -> Iterator[int]:
    """Positions of all values that `roots` depend on, in ascending order."""
    live = set(roots)
    for position in range(max(roots, default=-1), -1, -1):
        if position in live:
            live.update(body[position].args)
    return iter(sorted(live))
