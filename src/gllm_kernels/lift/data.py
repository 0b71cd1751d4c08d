"""Integers that are data: elements of integer arrays, truth values, bits and conversions of floats.

    x[i] of int8_t   ->  LOAD of kind i32, -128 <= value <= 127
    (int8_t)v        ->  (v << 24) >> 24        the value itself where its range fits
    (uint8_t)v       ->  v & 255

A value is a node of kind i32 or i64 and wraps around as the register does. An i32 in a register of
64 bits has zeros above, as every 32-bit instruction leaves them. Ranges follow from the operations;
they decide which extensions change nothing, so that compilers that extend differently agree.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import dtypes
from ..trace.ir import CONSTANTS, INTEGERS, WIDTH, Op
from . import value as v
from .error import Refusal
from .nodes import Node, Nodes

# C type of an array -> bytes of an element, smallest and largest value of an integer
ELEMENTS: dict[str, tuple[int, int, int]] = {
    ctype: (size, *((0, 0) if dtypes.arithmetic(ctype)[0] == "f" else dtypes.bounds(ctype)))
    for ctype, size in dtypes.SIZE.items()
    if ctype not in ("f16", "bf16")
}
Range = tuple[int, int]


class Part:
    """The low `width` bits of a register; above them lies what is left of `above`, if that is data
    or a constant, else the rest is unknown."""

    __slots__ = ("above", "value", "width")

    def __init__(self, value: object, width: int, above: object = None) -> None:
        self.value = value
        self.width = width
        self.above = above


def kind_for(width: int) -> str:
    """How a register of this width is computed: what lies above 8 or 16 bits is of no account."""
    return "i64" if width == 64 else "i32"


def constant(nodes: Nodes, value: int, kind: str) -> Node:
    return nodes.make(CONSTANTS[kind], (), v.signed(value, WIDTH[kind]))


def known(node: Node) -> int | None:
    """The value of an integer constant."""
    return node.imm if node.op in (Op.INT, Op.LONG) else None


def as_data(nodes: Nodes, a: object, width: int) -> Node:
    """A constant, a truth value, a number or the bits of a float as an integer of that width."""
    kind = kind_for(width)
    if a.__class__ is Part:
        a = a.value if width <= a.width else joined(nodes, a, width)
    if a.__class__ is int:
        return constant(nodes, a, kind)
    if a.__class__ is not Node:
        raise Refusal(
            "integer arithmetic on data together with an address",
            "elements of arrays at positions that do not depend on data",
            "gather rows with gk.gather or numpy, and pass the gathered array",
        )
    if a.kind == "bool":
        return select(nodes, a, constant(nodes, 1, kind), constant(nodes, 0, kind))
    if a.kind in ("f32", "f64"):
        a = bits(nodes, a)
    if a.kind == kind:
        return a
    return low(nodes, a) if kind == "i32" else wide(nodes, a, False)


def ones(nodes: Nodes, mask: Node, width: int) -> Node:
    """The mask of a comparison as an integer: all bits or none."""
    return select(nodes, mask, *(constant(nodes, k, kind_for(width)) for k in (-1, 0)))


def joined(nodes: Nodes, part: Part, width: int) -> Node | None:
    """The whole register of which a part was written; None where the rest is unknown."""
    if part.above.__class__ not in (int, Node) or part.value.__class__ not in (int, Node):
        return None
    above, kind = as_data(nodes, part.above, width), kind_for(width)
    rest = binary(nodes, Op.BITAND, above, constant(nodes, -1 << part.width, kind))
    written = extended(nodes, as_data(nodes, part.value, width), part.width, signed=False)
    return binary(nodes, Op.BITOR, rest, written)


def bits(nodes: Nodes, x: Node) -> Node:
    """The bits of a float, as an integer of its width."""
    if x.op in (Op.REAL, Op.REAL64):
        return x.args[0]
    if x.op in (Op.CONST, Op.CONST64):
        return constant(nodes, x.imm, "i32" if x.op is Op.CONST else "i64")
    return nodes.make(Op.BITS if x.kind == "f32" else Op.BITS64, (x,))


def real(nodes: Nodes, x: Node) -> Node:
    """The float with the bits of an integer."""
    if x.op in (Op.BITS, Op.BITS64):
        return x.args[0]
    if known(x) is not None:
        return nodes.const(x.imm) if x.kind == "i32" else nodes.const64(x.imm)
    return nodes.make(Op.REAL if x.kind == "i32" else Op.REAL64, (x,))


def half(nodes: Nodes, x: Node) -> Node:
    """The float32 of the binary16 in the low 16 bits of a lane."""
    word = bits(nodes, x)
    inner = _inner(word, Op.BITAND)
    if inner and inner[1] & 0xFFFF == 0xFFFF:
        word = inner[0]
    return nodes.make(Op.HALF, (word,))


def to_half(nodes: Nodes, x: Node) -> Node:
    """The lane that holds the nearest binary16."""
    return real(nodes, nodes.make(Op.TOHALF, (x,)))


# ---- ranges


def span(nodes: Nodes, x: Node) -> Range:
    """The smallest and largest value that `x` can have, as far as its operations tell."""
    found = nodes.spans.get(x)
    if found is None:
        limit = 1 << (WIDTH[x.kind] - 1)
        rule = SPANS.get(x.op)
        found = rule(nodes, x) if rule else None
        if found is None or found[0] < -limit or found[1] >= limit:
            found = -limit, limit - 1
        nodes.spans[x] = found
    return found


def _pair(nodes: Nodes, x: Node) -> tuple[Range, Range]:
    return span(nodes, x.args[0]), span(nodes, x.args[1])


def _corners(name: Callable[[int, int], int]) -> Callable[[Nodes, Node], Range]:
    def rule(nodes: Nodes, x: Node) -> Range:
        one, two = _pair(nodes, x)
        found = [name(a, b) for a in one for b in two]
        return min(found), max(found)

    return rule


def _and_span(nodes: Nodes, x: Node) -> Range | None:
    tops = [high for least, high in _pair(nodes, x) if least >= 0]
    return (0, min(tops)) if tops else None


def _or_span(nodes: Nodes, x: Node) -> Range | None:
    one, two = _pair(nodes, x)
    if min(one[0], two[0]) < 0:
        return None
    return 0, (1 << max(one[1], two[1]).bit_length()) - 1


def _right_span(nodes: Nodes, x: Node) -> Range | None:
    count, (least, most) = known(x.args[1]), span(nodes, x.args[0])
    if count is None:
        return None
    count &= WIDTH[x.kind] - 1
    if x.op is Op.SHR and least < 0:
        return (0, (1 << (WIDTH[x.kind] - count)) - 1) if count else None
    return least >> count, most >> count


def _left_span(nodes: Nodes, x: Node) -> Range | None:
    count, (least, most) = known(x.args[1]), span(nodes, x.args[0])
    return None if count is None else (least << count, most << count)


def _union(nodes: Nodes, x: Node) -> Range:
    one, two = (span(nodes, a) for a in x.args[-2:])
    return min(one[0], two[0]), max(one[1], two[1])


def _unsigned_span(nodes: Nodes, x: Node) -> Range:
    least, most = span(nodes, x.args[0])
    return (least, most) if least >= 0 else (0, (1 << 32) - 1)


SPANS: dict[Op, Callable[[Nodes, Node], Range | None]] = {
    Op.INT: lambda nodes, x: (x.imm, x.imm), Op.LONG: lambda nodes, x: (x.imm, x.imm),
    Op.LOAD: lambda nodes, x: nodes.limits.get(x.imm[0]),
    Op.ADD: _corners(lambda a, b: a + b), Op.SUB: _corners(lambda a, b: a - b),
    Op.MUL: _corners(lambda a, b: a * b), Op.MAX: _corners(max), Op.MIN: _corners(min),
    Op.BITAND: _and_span, Op.BITOR: _or_span, Op.BITXOR: _or_span,
    Op.SHR: _right_span, Op.SAR: _right_span, Op.SHL: _left_span, Op.SELECT: _union,
    Op.EXTEND: lambda nodes, x: span(nodes, x.args[0]), Op.UNSIGNED: _unsigned_span,
    Op.LOW: lambda nodes, x: span(nodes, x.args[0]), Op.TOHALF: lambda nodes, x: (0, 0xFFFF),
    Op.BITS: lambda nodes, x: (0, (1 << 31) - 1) if x.args[0].op is Op.ABS else None,
}  # fmt: skip


def fits(nodes: Nodes, x: Node, width: int, signed: bool = True) -> bool:
    least, most = span(nodes, x)
    top = 1 << (width - signed)
    return (-top if signed else 0) <= least and most < top


# ---- operations; what is left out here stays as the code has it

FOLDED: dict[Op, Callable[[int, int, int], int]] = {
    Op.MAX: lambda a, b, w: max(a, b), Op.MIN: lambda a, b, w: min(a, b),
    Op.ADD: lambda a, b, w: a + b, Op.SUB: lambda a, b, w: a - b, Op.MUL: lambda a, b, w: a * b,
    Op.BITAND: lambda a, b, w: a & b, Op.BITOR: lambda a, b, w: a | b,
    Op.BITXOR: lambda a, b, w: a ^ b, Op.SHL: lambda a, b, w: a << (b & w - 1),
    Op.SAR: lambda a, b, w: a >> (b & w - 1),
    Op.SHR: lambda a, b, w: (a & (1 << w) - 1) >> (b & w - 1),
}  # fmt: skip
# x op constant = x
NEUTRAL = {Op.ADD: 0, Op.MUL: 1, Op.BITAND: -1, Op.BITOR: 0, Op.BITXOR: 0, Op.SHL: 0, Op.SHR: 0,
           Op.SAR: 0}  # fmt: skip
ABSORBING = {Op.MUL: 0, Op.BITAND: 0}
SWAP = (Op.ADD, Op.MUL, Op.BITAND, Op.BITOR, Op.BITXOR)
LOGIC = (Op.BITAND, Op.BITOR, Op.BITXOR, Op.SHR, Op.SAR)
JOINED = {Op.BITAND: Op.AND, Op.BITOR: Op.OR}  # of truth values as masks
LOWERED = (Op.ADD, Op.SUB, Op.MUL, Op.BITAND, Op.BITOR, Op.BITXOR)


def binary(nodes: Nodes, op: Op, a: Node, b: Node) -> Node:
    """a op b of one kind, with constants computed and to the right."""
    width, x, y = WIDTH[a.kind], known(a), known(b)
    if x is not None and y is not None:
        return constant(nodes, FOLDED[op](x, y, width), a.kind)
    if x is not None and op in SWAP:
        a, b, x, y = b, a, y, x
    if y is not None:
        if op is Op.SUB:
            return binary(nodes, Op.ADD, a, constant(nodes, -y, a.kind))
        if y == NEUTRAL.get(op):
            return a
        if y == ABSORBING.get(op):
            return b
        found = CONSTANT_RULES[op](nodes, a, y) if op in CONSTANT_RULES else None
        if found is not None:
            return found
    found = _of_choices(nodes, op, a, b) if Op.SELECT in (a.op, b.op) else None
    if found is not None:
        return found
    if a is b and op in (Op.SUB, Op.BITXOR):
        return constant(nodes, 0, a.kind)
    return a if a is b and op in (Op.BITAND, Op.BITOR) else nodes.make(op, (a, b))


def _of_choices(nodes: Nodes, op: Op, a: Node, b: Node) -> Node | None:
    """(c ? p : q) & k is c ? p & k : q & k; (c ? p : 0) & (d ? q : 0) is c and d ? p & q : 0."""
    if op in LOGIC and a.op is Op.SELECT and known(b) is not None and _is_choice(a):
        return select(nodes, a.args[0], *(binary(nodes, op, x, b) for x in a.args[1:]))
    pair = _is_choice(a) and _is_choice(b) and known(a.args[2]) == known(b.args[2]) == 0
    if op not in JOINED or not pair or (op is Op.BITOR and a.args[1] is not b.args[1]):
        return None
    condition = nodes.make(JOINED[op], (a.args[0], b.args[0]))
    return select(nodes, condition, binary(nodes, op, a.args[1], b.args[1]), a.args[2])


def _is_choice(x: Node) -> bool:
    return x.op is Op.SELECT and None not in map(known, x.args[1:])


def _inner(x: Node, op: Op) -> tuple[Node, int] | None:
    """(a, c) of `a op c`."""
    if x.op is not op or known(x.args[1]) is None:
        return None
    return x.args[0], x.args[1].imm


def _add_constant(nodes: Nodes, a: Node, c: int) -> Node | None:
    inner = _inner(a, Op.ADD)
    return inner and binary(nodes, Op.ADD, inner[0], constant(nodes, inner[1] + c, a.kind))


def _mask(nodes: Nodes, a: Node, c: int) -> Node | None:
    """x & 255 is x where 0 <= x <= 255; what an inner mask or extension changes may be masked."""
    whole = c >= 0 and c & (c + 1) == 0
    if whole and fits(nodes, a, c.bit_length(), signed=False):
        return a
    if c & c - 1 == 0 or -c & -c - 1 == 0:  # one bit, or all above one
        least, most = span(nodes, a)
        if least >= 0 and most < c & -c:
            return constant(nodes, 0, a.kind)
    inner = _inner(a, Op.BITAND)
    if inner:
        return binary(nodes, Op.BITAND, inner[0], constant(nodes, inner[1] & c, a.kind))
    if a.op is Op.BITOR:
        arms = [binary(nodes, Op.BITAND, x, constant(nodes, c, a.kind)) for x in a.args]
        return next((y for x, y in (arms, arms[::-1]) if known(x) == 0), None)
    source = _extended_from(a)
    if source and whole and c.bit_length() <= source[1]:
        return binary(nodes, Op.BITAND, source[0], constant(nodes, c, a.kind))
    return None


def _extended_from(a: Node) -> tuple[Node, int] | None:
    """(x, width) of (x << k) >> k."""
    outer = _inner(a, Op.SAR)
    inner = _inner(outer[0], Op.SHL) if outer else None
    return (inner[0], WIDTH[a.kind] - outer[1]) if inner and inner[1] == outer[1] else None


def _shift_left(nodes: Nodes, a: Node, c: int) -> Node | None:
    """What the shift drops needs no mask before it."""
    inner = _inner(a, Op.BITAND)
    kept = (1 << (WIDTH[a.kind] - c % WIDTH[a.kind])) - 1
    if inner and inner[1] & kept == kept:
        return binary(nodes, Op.SHL, inner[0], constant(nodes, c, a.kind))
    source = _extended_from(a)
    if source and source[1] >= WIDTH[a.kind] - c:
        return binary(nodes, Op.SHL, source[0], constant(nodes, c, a.kind))
    return None


def _shift_right(op: Op) -> Callable[[Nodes, Node, int], Node | None]:
    def rule(nodes: Nodes, a: Node, c: int) -> Node | None:
        inner = _inner(a, Op.SHL)
        if inner and inner[1] == c:
            signed, left = op is Op.SAR, WIDTH[a.kind] - c
            if fits(nodes, inner[0], left, signed):
                return inner[0]
            if not signed:
                return binary(nodes, Op.BITAND, inner[0], constant(nodes, (1 << left) - 1, a.kind))
        if op is Op.SAR and span(nodes, a)[0] >= 0:
            return binary(nodes, Op.SHR, a, constant(nodes, c, a.kind))
        return None

    return rule


CONSTANT_RULES: dict[Op, Callable[[Nodes, Node, int], Node | None]] = {
    Op.ADD: _add_constant, Op.BITAND: _mask, Op.SHL: _shift_left,
    Op.SHR: _shift_right(Op.SHR), Op.SAR: _shift_right(Op.SAR),
}  # fmt: skip


def extended(nodes: Nodes, x: Node, width: int, signed: bool) -> Node:
    """The low `width` bits of x as a number in x's own width."""
    own = WIDTH[x.kind]
    if width >= own or fits(nodes, x, width, signed):
        return x
    if not signed:
        return binary(nodes, Op.BITAND, x, constant(nodes, (1 << width) - 1, x.kind))
    count = constant(nodes, own - width, x.kind)
    return binary(nodes, Op.SAR, binary(nodes, Op.SHL, x, count), count)


def demanded(nodes: Nodes, x: Node, width: int) -> Node:
    """A value of which only the low bits count, without masks and extensions that only change
    those above: compilers differ in them."""
    mask = (1 << width) - 1
    inner, source = _inner(x, Op.BITAND), _extended_from(x)
    if inner and inner[1] & mask == mask:
        return demanded(nodes, inner[0], width)
    if source and source[1] >= width:
        return demanded(nodes, source[0], width)
    if x.op in LOWERED:
        return binary(nodes, x.op, *(demanded(nodes, a, width) for a in x.args))
    if x.op is Op.SELECT:
        return select(nodes, x.args[0], *(demanded(nodes, a, width) for a in x.args[1:]))
    return x


def wrapped(nodes: Nodes, x: Node, ctype: str) -> Node:
    """What is read back after x was stored as an element of this type."""
    return extended(nodes, x, 8 * ELEMENTS[ctype][0], ELEMENTS[ctype][1] < 0)


def wide(nodes: Nodes, x: Node, signed: bool) -> Node:
    """An i32 in 64 bits."""
    if known(x) is not None:
        return constant(nodes, x.imm if signed else x.imm & 0xFFFFFFFF, "i64")
    if signed or span(nodes, x)[0] >= 0:
        return nodes.make(Op.EXTEND, (x,))
    return nodes.make(Op.UNSIGNED, (x,))


def low(nodes: Nodes, x: Node) -> Node:
    """The low 32 bits of an i64, computed in 32 bits where that gives the same."""
    found = nodes.lows.get(x)
    if found is None:
        found = nodes.lows[x] = _low(nodes, x)
    return found


def _low(nodes: Nodes, x: Node) -> Node:
    if known(x) is not None:
        return constant(nodes, x.imm, "i32")
    if x.op in (Op.EXTEND, Op.UNSIGNED):
        return x.args[0]
    if x.op in LOWERED:
        return binary(nodes, x.op, *(low(nodes, a) for a in x.args))
    if x.op is Op.SELECT:
        return select(nodes, x.args[0], *(low(nodes, a) for a in x.args[1:]))
    small = [_small(nodes, a) for a in x.args] if x.op in (Op.MAX, Op.MIN, Op.SAR) else [None]
    if None not in small and (x.op is not Op.SAR or 0 <= (known(small[1]) or -1) < 32):
        return nodes.make(x.op, tuple(small)) if x.op is not Op.SAR else (
            binary(nodes, Op.SAR, *small))
    inner = _inner(x, Op.SHL)
    if inner and 0 <= inner[1] < 32:
        return binary(nodes, Op.SHL, low(nodes, inner[0]), constant(nodes, inner[1], "i32"))
    return nodes.make(Op.LOW, (x,))


def _small(nodes: Nodes, x: Node) -> Node | None:
    """The i32 that an i64 is, sign and all."""
    if x.op is Op.EXTEND:
        return x.args[0]
    value = known(x)
    small = value is not None and -1 << 31 <= value < 1 << 31
    return constant(nodes, value, "i32") if small else None


def select(nodes: Nodes, condition: Node, then: Node, other: Node) -> Node:
    """c ? x + t : x of integers is x + (c ? t : 0), so that a count is a sum; c ? 1 : 0 stays."""
    if then is other:
        return then
    if then.kind not in INTEGERS:  # -0.0 + 0 is +0
        return nodes.select(condition, then, other)
    if condition.op is Op.NOT:
        return select(nodes, condition.args[0], other, then)
    zero = constant(nodes, 0, then.kind)
    for a, b, order in ((then, other, 1), (other, then, -1)):
        if a.op is Op.ADD and b in a.args:
            term = a.args[1 - a.args.index(b)]
            return binary(nodes, Op.ADD, b, select(nodes, condition, *(term, zero)[::order]))
    return nodes.select(condition, then, other)


def negated(nodes: Nodes, x: Node) -> Node:
    return binary(nodes, Op.SUB, constant(nodes, 0, x.kind), x)


def products(nodes: Nodes, a: Node, b: Node, signed: bool) -> tuple[Node, Node]:
    """The low and the high half of a*b of 32 bits each: mul and imul with one operand."""
    whole = binary(nodes, Op.MUL, wide(nodes, a, signed), wide(nodes, b, signed))
    high = binary(nodes, Op.SHR, whole, constant(nodes, 32, "i64"))
    return low(nodes, whole), nodes.make(Op.LOW, (high,))


def rotated(nodes: Nodes, x: Node, count: int, width: int) -> Node:
    """x rotated to the left."""
    x = extended(nodes, x, width, signed=False)
    up, down = (constant(nodes, k, x.kind) for k in (count % width, -count % width))
    return binary(nodes, Op.BITOR, binary(nodes, Op.SHL, x, up), binary(nodes, Op.SHR, x, down))


# ---- comparisons and merges

RELATIONS = {
    "e": (Op.EQ, False, False), "ne": (Op.EQ, False, True), "l": (Op.LT, False, False),
    "ge": (Op.LT, False, True), "g": (Op.LT, True, False), "le": (Op.LT, True, True),
}  # relation -> operation, operands exchanged, negated  # fmt: skip


def compared(
    nodes: Nodes, relation: str, unsigned: bool, a: Node, b: Node, width: int
) -> Node | bool:
    """A comparison of integers; a bool where the ranges decide it."""
    if not unsigned and relation in ("e", "ne"):
        unsigned = not all(fits(nodes, x, width) for x in (a, b))
    a, b = (extended(nodes, x, width, not unsigned) for x in (a, b))
    op, swapped, negate = RELATIONS[relation]
    if swapped:
        a, b = b, a
    if op is Op.LT and unsigned and min(span(nodes, a)[0], span(nodes, b)[0]) < 0:
        sign = constant(nodes, -1 << (WIDTH[a.kind] - 1), a.kind)
        a, b = (binary(nodes, Op.BITXOR, x, sign) for x in (a, b))
    found = _decided(nodes, op, a, b)
    if found is None:
        found = _of_choice(nodes, op, a, b)
    if found.__class__ is bool:
        return found is not negate
    return nodes.not_(found) if negate else found


def _decided(nodes: Nodes, op: Op, a: Node, b: Node) -> bool | None:
    (a_low, a_high), (b_low, b_high) = span(nodes, a), span(nodes, b)
    if op is Op.LT:
        return True if a_high < b_low else False if a_low >= b_high else None
    if a_high < b_low or b_high < a_low:
        return False
    return True if a_low == a_high == b_low == b_high else None


def _of_choice(nodes: Nodes, op: Op, a: Node, b: Node) -> Node | bool:
    """(c ? 1 : 0) == 0 is not c."""
    for x, y, first in ((a, b, True), (b, a, False)):
        arms = [known(arm) for arm in x.args[1:]] if x.op is Op.SELECT else [None]
        if known(y) is not None and None not in arms:
            pairs = [(arm, y.imm) if first else (y.imm, arm) for arm in arms]
            then, other = (p == q if op is Op.EQ else p < q for p, q in pairs)
            if then is other:
                return then
            return x.args[0] if then else nodes.not_(x.args[0])
    small = [_small(nodes, x) for x in (a, b)] if a.kind == "i64" else [None]
    return nodes.make(op, (a, b) if None in small else tuple(small))


def merged(nodes: Nodes, condition: Node, then: object, other: object) -> object | None:
    """What a register or slot holds that got one of two values; None where it has no formula."""
    pair = [joined(nodes, x, 32) if x.__class__ is Part else x for x in (then, other)]
    if None in pair and Part in (then.__class__, other.__class__):  # only low bits are known
        width = min(x.width for x in (then, other) if x.__class__ is Part)
        parts = (x.value if x.__class__ is Part else x for x in (then, other))
        value = merged(nodes, condition, *parts)
        return None if value is None else Part(value, width)
    if any(x.__class__ is not Node and x.__class__ is not int for x in pair):
        return None
    floats = [x.kind for x in pair if x.__class__ is Node and x.kind in ("f32", "f64")]
    if floats:
        return _merged_floats(nodes, condition, pair, floats[0])
    width = 32 if all(_is_short(x) for x in pair) else 64
    return select(nodes, condition, *(as_data(nodes, x, width) for x in pair))


def _merged_floats(nodes: Nodes, condition: Node, pair: list, kind: str) -> Node | None:
    made = [x if x.__class__ is Node else
            (nodes.const if kind == "f32" else nodes.const64)(x) for x in pair]  # fmt: skip
    made = [real(nodes, x) if x.kind in INTEGERS else x for x in made]
    then, other = nodes.alike(*made)
    same = then.kind == other.kind and then.kind in WIDTH
    return nodes.select(condition, then, other) if same else None


def _is_short(x: object) -> bool:
    """Whether the upper half of the register is zero."""
    return 0 <= x < 1 << 32 if x.__class__ is int else x.kind != "i64"
