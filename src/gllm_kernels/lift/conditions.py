"""What the run assumes about sizes: every comparison of integers is the test that ends a loop, or
is decided by the ranges alone, or is recorded as a condition on dimensions, or is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

from ..trace.ir import Op
from . import value as v
from . import data
from .error import SCALAR, Refusal
from .nodes import WIDTH, Node, Nodes
from .program import Block

RELATION = {
    "e": "e", "ne": "ne", "l": "l", "ge": "ge", "le": "le", "g": "g",
    "b": "l", "ae": "ge", "be": "le", "a": "g", "s": "l", "ns": "ge",
}  # fmt: skip
UNSIGNED = ("b", "ae", "be", "a")
EQUALITY = {("b", 1): "e", ("ae", 1): "ne", ("be", 0): "e", ("a", 0): "ne"}
# after and/or/xor/test the carry is clear, so "below or equal" is "equal"
AFTER_LOGIC = {"be": "e", "a": "ne"}
NO_CARRY = {"b": False, "ae": True, "o": False, "no": True}
AFTER_RESULT = ("e", "ne", "s", "ns")
MOST_PERIOD = 16
COUNTERS = "ijkpqrstuvw"  # names of the loops around a place in messages, the outermost first
BITWISE = {"and": Op.BITAND, "or": Op.BITOR, "xor": Op.BITXOR}
SHIFTS = {"shl": Op.SHL, "sal": Op.SHL, "shr": Op.SHR, "sar": Op.SAR}
# bit 0 of a constant joined with a truth value
TRUTH_WITH = {
    ("and", 1): lambda nodes, x: x, ("xor", 1): lambda nodes, x: nodes.not_(x),
    ("or", 0): lambda nodes, x: x, ("xor", 0): lambda nodes, x: x,
}  # fmt: skip
NEGATED = {"e": "ne", "ne": "e", "l": "ge", "ge": "l", "le": "g", "g": "le"}
HOLDS = {
    "e": lambda d: d == 0, "ne": lambda d: d != 0, "l": lambda d: d < 0,
    "ge": lambda d: d >= 0, "le": lambda d: d <= 0, "g": lambda d: d > 0,
}  # fmt: skip


STACK = 0x7FFF_0000_0000  # the end of the return address on entry
STACK_BELOW = 1 << 16  # bytes that a function may use


@dataclass(frozen=True, slots=True)
class Chosen:
    """An integer that depends on data: what it is, and what to do instead."""

    what: str
    change: str


CHOSEN = Chosen(
    "an integer that data chose",
    "return values, not positions or counts: find a position with gk.argmax or numpy; count with a float",
)
OVERLAP = (
    "arguments do not overlap and may lie anywhere",
    "leave out tests of pointers; where the compiler asks whether arrays overlap, for vectors: "
    + SCALAR[1],
)

@dataclass(frozen=True, slots=True)
class Condition:
    """`poly relation 0`, asked at the instruction `at`; poly is made of dimensions. A `jump`
    shows its outcome in the blocks that run."""

    at: int
    poly: v.Poly
    relation: str
    jump: bool


class Conditions:
    """The part of the machine that decides conditions; see `engine.Machine` for the rest."""

    nodes: Nodes
    atoms: dict[int, int]
    names: dict
    frames: list

    def __init__(self) -> None:
        self.flags: tuple | None = None
        self.at = 0
        self.recorded: dict[Condition, bool] = {}  # in the order of the run
        self.exits: dict[tuple[int, int], set[bool]] = {}
        self.opaques: list[tuple[str, int]] = []
        self.refusals: dict[int, Refusal] = {}  # of opaques that are floats
        self.limit = 1 << 31
        self.narrow: dict[int, int] = {}  # loop -> largest factor of its counter in 32 bits
        self.periods: dict[int, tuple[int, int]] = {}  # dimension -> period, remainder here
        self.blocks: set[int] = set()  # addresses that memset or memcpy wrote
        self.visited: set[int] = set()  # blocks

    # ---- dimensions that the code takes remainders of

    def periodic(self, name: int, size: int, period: int) -> v.Int:
        """n = period*q + remainder: in one class of remainders q is the variable, so that masks,
        quotients and remainders of n are polynomials again. Without a period n is a number."""
        if not period:
            self.periods[name] = 0, size
            return size
        quotient, rest = divmod(size, period)
        self.periods[name] = period, rest
        self.atoms[name] = quotient
        return v.add(v.scale(v.atom(name, quotient), period), rest)

    def residue(self, a: v.Int, modulus: int) -> int | None:
        """a modulo `modulus` where it is the same for all sizes of this class; None where it
        depends on more; a NeedPeriod where finer classes would tell."""
        if a.__class__ is int:
            return a % modulus
        finer: dict[int, int] = {}
        for mono, coef in a.terms.items():
            if not mono or coef % modulus == 0:
                continue
            period = modulus // gcd(coef, modulus) * self.periods.get(mono[0], (1, 0))[0]
            if len(mono) > 1 or mono[0] >= v.POINTER or period > MOST_PERIOD:
                return None
            finer[mono[0]] = period
        if finer:
            raise v.NeedPeriod(finer)
        return a.terms.get(v.ONE, 0) % modulus

    def outside(self, a: v.Int) -> v.Int:
        """A polynomial of q in terms of n: n/period where the remainder is 0, else a number."""
        if a.__class__ is int or not self.periods:
            return a
        terms: dict[v.Mono, int] = {}
        for mono, coef in a.terms.items():
            kept = []
            for x in mono:
                period, rest = self.periods.get(x, (1, 0))
                if rest:
                    coef *= self.atoms[x]
                    continue
                if coef % period:
                    raise Refusal(
                        f"an index or value that is a fraction of {self.names[x].name}",
                        "sums and products of dimensions",
                        "make the fraction a dimension of its own, as in d for n/2",
                    )
                coef //= period
                kept.append(x)
            terms[tuple(kept)] = terms.get(tuple(kept), 0) + coef
        return v.make({m: c for m, c in terms.items() if c}, a.value)

    # ---- integers that are not polynomials

    def opaque(self, text: str, value: int) -> v.Poly:
        """A value without a formula: harmless until it is used."""
        self.opaques.append((text, value))
        return v.atom(v.OPAQUE + len(self.opaques) - 1, value)

    def atom_value(self, number: int) -> int:
        if number >= v.OPAQUE:
            return self.opaques[number - v.OPAQUE][1]
        return v.round_of(number) if number >= v.COUNTER else self.atoms[number]

    def text(self, a: v.Int) -> str:
        """A polynomial with the names of the arguments."""
        parts = []
        for mono, coef in sorted(v.terms_of(a).items(), key=lambda t: (-len(t[0]), t[0])):
            names = "*".join(map(self._name, mono))
            sign = {1: names, -1: "-" + names} if mono else {}
            parts.append(sign.get(coef, f"{coef}*{names}" if mono else str(coef)))
        return " + ".join(parts).replace("+ -", "- ") or "0"

    def compared(self, d: v.Poly) -> str:
        """d compared with 0, as its author wrote it: what is added with what is taken away."""
        sides: list[dict] = [{}, {}]
        for mono, coef in d.terms.items():
            sides[coef < 0][mono] = abs(coef)
        left, right = (self.text(v.Poly(side, 0)) if side else "0" for side in sides)
        return f"{left} compared with {right}"

    def known(self) -> str:
        """The C-level view of a run: the sizes, and the loops around this place, outermost first."""
        sizes = []
        for number, argument in self.names.items():
            period, rest = self.periods.get(number, (1, 0))
            if argument.kind == "dim":
                sizes.append(f"{argument.name} = {period * self.atoms[number] + rest}")
        loops = [f"{name} = {frame.round}" for name, frame in zip(COUNTERS, self.frames, strict=False)]
        around = f"inside the loops over {', '.join(loops)}" if loops else "outside of loops"
        return f"{', '.join(sizes) or 'no sizes'}; {around}"

    def _name(self, number: int) -> str:
        if number >= v.OPAQUE:
            return f"({self.opaques[number - v.OPAQUE][0]})"
        if number >= v.COUNTER:
            loops = [frame.loop for frame in self.frames]
            loop = v.loop_of(number)
            return COUNTERS[loops.index(loop)] if loop in loops[: len(COUNTERS)] else f"i{loop}"
        period = self.periods.get(number, (1, 0))[0]
        name = self.names[number].name
        return f"({name}/{period})" if period > 1 else name

    def bitwise(self, name: str, a: v.Int, b: v.Int, width: int) -> v.Int:
        """and, or, xor: exact on constants, without a formula on sizes."""
        x, y = v.value_of(v.add(a, 0)), v.value_of(v.add(b, 0))
        if name != "and" or not (-256 <= min(x, y) < 0):  # and rsp, -32: still an address
            self.plain_number(a), self.plain_number(b)
        if a.__class__ is int:
            a, b = b, a
        if b.__class__ is int and (name, v.signed(b, width)) in (
            ("and", -1), ("or", 0), ("xor", 0),
        ):  # fmt: skip
            return a
        if a.__class__ is not int and b.__class__ is int:
            known = self._low_bits(name, a, v.signed(b, width), width)
            if known is not None:
                return known
        value = v.signed({"and": x & y, "or": x | y, "xor": x ^ y}[name], width)
        if a.__class__ is int:
            return value
        return self.opaque(f"{self.text(a)} {name} {self.text(b)}", value)

    def plain_number(self, a: v.Int) -> None:
        """Refuse a place on the stack, whose bits are other ones in every call."""
        if a.__class__ is int and abs(a - STACK) < STACK_BELOW:
            raise Refusal("the address of a local variable is used as a number")

    def _low_bits(self, name: str, a: v.Int, mask: int, width: int) -> v.Int | None:
        """and, or, xor with a constant that changes or keeps the lowest bits only."""
        if name == "xor" and mask == -1:
            return v.sub(-1, a)
        top = 1 << (width - 1)
        if name == "and" and mask >= top // 2 and self._not_negative(a, width):
            mask -= top  # all bits but the lowest: LLVM leaves out the sign, which is 0
        span = -mask if name == "and" and mask < 0 else abs(mask) + 1
        modulus = 1 << (span - 1).bit_length()
        rest = self.residue(a, modulus) if modulus <= 1 << width else None
        if rest is None or (name != "and" and mask < 0):
            return None
        if name == "and":
            low = rest & mask
            return v.add(a, low - rest) if mask < 0 and modulus == -mask else low if mask > 0 else None
        return v.add(a, (rest | mask if name == "or" else rest ^ mask) - rest)

    def _not_negative(self, a: v.Int, width: int) -> bool:
        """Whether a >= 0 here; where only the size tells, that is a condition."""
        low = v.lower_bound(a)
        unknown = low is None or low < 0
        if unknown and self.fits(a, width) and not (v.has_counter(a) or v.has_pointer(a)):
            low = -1 if self.record(self.at, a, "l") else 0
        return low is not None and low >= 0 and self.fits(a, width)

    def shifted(self, name: str, a: v.Int, count: int, width: int) -> v.Int:
        """Shifts: left is a product, right is a quotient where it is exact."""
        self.plain_number(a)
        if name in ("shl", "sal") or count == 0:
            return v.scale(a, 1 << count)
        value = v.value_of(v.add(a, 0))
        unsigned = name == "shr"
        moved = (value & ((1 << width) - 1) if unsigned else v.signed(value, width)) >> count
        if a.__class__ is int:
            return moved
        if name == "sar" and width == 64 and count <= 32 and a.__class__ is v.Poly:
            narrow = v.divided(a, 1 << 32)  # (x << 32) >> count: 32 bits of x, sign extended
            if narrow is not None and self.fits(narrow, 32):
                self._limit(narrow, 32)
                return v.scale(narrow, 1 << (32 - count))
        positive = (unsigned or count == width - 1) and self._not_negative(a, width)
        proved = positive or (self.fits(a, width) and not unsigned)
        if positive and count == width - 1:
            self._limit(a, width)
            return 0  # the sign
        rest = self.residue(a, 1 << count) if proved else None
        if rest is not None:
            self._limit(a, width)
            return v.divided(v.sub(a, rest), 1 << count)
        return self.opaque(f"{self.text(a)} >> {count}", moved)

    def extended(self, a: object, own: int, width: int, signed: bool) -> object:
        """movzx and movsx from `own` to `width` bits; a truth value is 0 or 1 in any width."""
        if a.__class__ is Node:
            return self._extended_data(a, own, width, signed)
        if a.__class__ is int:
            return v.signed(a, own) if signed else a & ((1 << own) - 1)
        if own == 32 and not signed:
            return self.zero_extended(a)
        if not self.fits(a, own):
            value = v.signed(a.value, own) if signed else a.value & ((1 << own) - 1)
            return self._wrapping(a, own, value)
        self._limit(a, own)
        return a

    def _extended_data(self, a: Node, own: int, width: int, signed: bool) -> Node:
        if a.kind == "bool" or (own == 32 == width):
            return a  # 0 or 1 in any width
        found = data.extended(self.nodes, data.as_data(self.nodes, a, own), own, signed)
        return data.wide(self.nodes, found, True) if width == 64 and signed else found

    def zero_extended(self, a: v.Poly) -> v.Int:
        """The 64-bit value of a 32-bit register; its sign is a condition where it is not proved."""
        value = a.value & 0xFFFFFFFF
        if not self.fits(a, 32):
            return self._wrapping(a, 32, value)
        self._limit(a, 32)
        low = v.lower_bound(a)
        if low is not None and low >= 0:
            return a
        if v.has_counter(a) or v.has_pointer(a):
            return self._wrapping(a, 32, value)
        return v.add(a, 1 << 32) if self.record(self.at, a, "l") else a

    def fits(self, a: v.Int, width: int) -> bool:
        """`value.fits`, where a quotient n/4 is a quarter of a dimension."""
        return v.fits(self._unscaled(a) if width == 32 and a.__class__ is v.Poly else a, width)

    def _wrapping(self, a: v.Poly, width: int, value: int) -> v.Poly:
        for number in v.atoms_of(a):
            if number >= v.OPAQUE:
                return self.opaque(self.opaques[number - v.OPAQUE][0], value)
        return self.opaque(f"{self.text(a)}, which can wrap around in {width} bits", value)

    def _limit(self, a: v.Int, width: int) -> None:
        """The dimensions for which `a` is exact in `width` bits; counters are remembered: their
        loop may be as long as a product of dimensions."""
        if a.__class__ is not v.Poly:
            return
        if width == 32:
            self.limit = min(self.limit, v.extent_limit(self._unscaled(a)))
            if v.has_counter(a):
                factor = sum(map(abs, a.terms.values()))
                for loop in v.loops_of(a):
                    self.narrow[loop] = max(factor, self.narrow.get(loop, 0))
        elif not v.has_counter(a) and any([len(m) > len(set(m)) for m in a.terms]):
            self.limit = min(self.limit, v.extent_limit(a, 63))  # a power is not an extent

    def _unscaled(self, a: v.Poly) -> v.Poly:
        """Coefficients of q as ones of n = period*q, rounded up."""
        if not self.periods:
            return a
        terms = {}
        for mono, coef in a.terms.items():
            scale = prod(self.periods.get(x, (1, 0))[0] for x in mono)
            terms[mono] = -(-abs(coef) // scale)
        return v.Poly(terms, a.value)

    # ---- uses of counters

    def stripped(self, a: v.Int, use: str) -> v.Int:
        """The polynomial in dimensions and pointers, counters replaced by their round."""
        if a.__class__ is int or not v.has_counter(a):
            return a
        total: dict[v.Mono, int] = {}
        for mono, coef in a.terms.items():
            counters = [x for x in mono if x >= v.COUNTER]
            for x in counters:
                if x >= v.OPAQUE:
                    raise Refusal(f"{use} uses {self._name(x)}")
                coef *= v.round_of(x)
            if len(counters) > 1:
                raise Refusal(f"{use} uses a product of loop counters: {self.text(a)}")
            rest = mono[: len(mono) - len(counters)]
            total[rest] = total.get(rest, 0) + coef
        return v.make({m: c for m, c in total.items() if c}, a.value)

    def truth(self, name: str, a: object, b: object, width: int) -> Node:
        """and, or, xor of truth values, of the bits of a float with a constant, of integer data."""
        for x, y in ((a, b), (b, a)):
            if x.__class__ is Node and y.__class__ is int:
                if x.kind == "bool" and (name, y & 1) in TRUTH_WITH:
                    return TRUTH_WITH[name, y & 1](self.nodes, x)
                meaning = {"xor": self.nodes.flip_bits, "and": self.nodes.mask_bits}.get(name)
                if meaning and x.kind in WIDTH:
                    found = meaning(x, self.nodes.const64(y))
                    if found is not None:
                        return found
        both = a.__class__ is Node and b.__class__ is Node and a.kind == b.kind == "bool"
        if both and name != "xor":
            return self.nodes.make(Op.AND if name == "and" else Op.OR, (a, b))
        return self.calculated(BITWISE[name], a, b, width)

    def shifted_data(self, name: str, a: Node, count: int, width: int) -> Node:
        """A shift of the low `width` bits; of 16 bits to the left, the float that begins with them."""
        op = SHIFTS[name]
        x = self.as_data(a, width)
        if op is not Op.SHL:
            x = data.extended(self.nodes, x, width, op is Op.SAR)
        elif count == 16 and width == 32 and data.fits(self.nodes, x, 16, signed=False):
            return self.nodes.make(Op.BFLOAT, (x,))
        return self.calculated(op, x, count, width)

    def chosen(self, condition: Node, then: object, other: object, width: int) -> object:
        """cmov on data; a counter or an address that data choose has no formula."""
        if then is other:
            return then
        found = data.merged(self.nodes, condition, then, other)
        if found is None:
            return CHOSEN
        integer = width == 32 and found.__class__ is Node and found.kind == "i64"
        return data.as_data(self.nodes, found, 32) if integer else found

    def converted(self, a: object, width: int, kind: str = "f32") -> Node:
        """(float) of a size, a counter or integer data."""
        index = Op.INDEX if kind == "f32" else Op.INDEX64
        if a.__class__ is int:
            self.plain_number(a)
            return self.nodes.make(index, (), v.signed(a, width))
        if a.__class__ is Node:
            return self._converted_data(self.as_data(a, width), kind)
        if not self.fits(a, width) or (width == 32 and max(map(len, a.terms)) > 1):
            raise Refusal(f"{self.text(a)} is converted to float and can wrap around")
        if v.has_pointer(a):
            raise Refusal("an address is converted to float")
        self._limit(a, width)
        return self.nodes.make(index, (), self.outside(self.stripped(a, "a conversion to float")))

    def lost(self, refusal: Refusal, kind: str) -> Node:
        """A float without a formula: refused when it is found in an output."""
        number = self.opaque(refusal.what, 0)
        self.refusals[v.OPAQUE + len(self.opaques) - 1] = refusal
        return self.nodes.make(Op.INDEX if kind == "f32" else Op.INDEX64, (), number)

    def _converted_data(self, a: Node, kind: str) -> Node:
        if a.op is Op.EXTEND:
            a = a.args[0]
        return self.nodes.make(Op.NARROW if kind == "f32" else Op.WIDEN, (a,))

    # ---- conditions

    def condition(
        self, cc: str, at: int, block: Block | None, leaves_if: bool | None
    ) -> bool | Node | None:
        """The outcome, or an expression where it depends on data. Without `leaves_if`, as a carry:
        None where the loop ends if the test of its exit is the same."""
        if self.flags is None:
            raise Refusal("the flags are not set by an instruction that is understood", at=at)
        kind, a, b, width = self.flags
        if kind == "float":
            return self._float_condition(cc, a, b)
        if kind == "sum" and cc not in AFTER_RESULT:
            raise Refusal(
                f"condition {cc!r} on the carry or overflow of integer data",
                "comparisons of integers, and of results with 0",
                "compare the operands before the addition, or widen them: (int64_t)a + b",
                at=at,
            )
        if kind in ("data", "sum"):
            return self._data_condition(cc, a, b, width)
        if kind == "compare":
            return self._compare(cc, a, b, width, at, block, leaves_if)
        if kind == "logic" and cc in ("b", "ae"):
            return cc == "ae"
        if kind in ("result", "product") and b and cc in NO_CARRY and self.no_carry((a, *b), width):
            return NO_CARRY[cc]
        if kind == "product" or (kind == "result" and cc not in AFTER_RESULT):
            raise Refusal(f"condition {cc!r} on the carry or overflow of an addition", at=at)
        relation = RELATION[AFTER_LOGIC.get(cc, cc)] if cc in RELATION else None
        self._exact(a, width, at)
        return self._decide(relation, a, at, block, leaves_if)

    def no_carry(self, values: tuple[object, ...], width: int) -> bool:
        """Whether numbers, and what was computed of them, are in range by contract, none negative."""
        for a in values:
            low = v.lower_bound(a) if a.__class__ in (int, v.Poly) else None
            if low is None or low < 0 or not self.fits(a, width) or v.value_of(a) >> width - 1:
                return False
            self._limit(a, width)
        return True

    def _compare(
        self, cc: str, a: v.Int, b: v.Int, width: int, at: int, block: Block | None, leaves_if: bool | None
    ) -> bool:
        self._exact(a, width, at)
        self._exact(b, width, at)
        if b.__class__ is int and (cc, b) in EQUALITY:  # unsigned a < 1 is a == 0
            return self._decide(EQUALITY[cc, b], a, at, block, leaves_if)
        if abs(v.value_of(a) - STACK) >= STACK_BELOW or abs(v.value_of(b) - STACK) >= STACK_BELOW:
            self.plain_number(a), self.plain_number(b)
        if cc in UNSIGNED:
            a, b = self._unsigned(a, width, at), self._unsigned(b, width, at)
        elif cc in ("s", "ns"):  # the sign of the difference as it is in the register
            self._exact(v.sub(a, b), width, at)
        return self._decide(RELATION.get(cc), v.sub(a, b), at, block, leaves_if)

    def _exact(self, a: v.Int, width: int, at: int) -> None:
        if a.__class__ is int:
            if v.signed(a, width) != a:
                raise Refusal(f"compared: {a}, which wraps around in {width} bits", at=at)
        elif self.fits(a, width):
            self._limit(a, width)
        elif v.has_opaque(a):
            number = next(x for x in v.atoms_of(a) if x >= v.OPAQUE)
            raise Refusal(
                f"a condition on {self._name(number)}",
                "conditions on sums and products of dimensions",
                "test no remainders (n % 2), masks or alignments: let every size and address run the same "
                "loop, whose counter steps evenly",
                at=at,
            )
        else:
            raise Refusal(f"compared: {self.text(a)}, which can wrap around", at=at)

    def _unsigned(self, a: v.Int, width: int, at: int) -> v.Int:
        """The value as an unsigned number; its sign is a condition of its own."""
        if a.__class__ is int:
            return a & ((1 << width) - 1)
        low = v.lower_bound(a)
        if low is not None and low >= 0:
            return a
        if v.has_pointer(a):
            raise Refusal(f"the code that runs depends on an address: {self.compared(a)}", *OVERLAP, at=at)
        if v.has_counter(a):
            raise Refusal(
                f"unsigned comparison of {self.text(a)}, which may be negative",
                "loop tests in which nothing is subtracted", "write i < n, or make the counter signed",
                at=at,
            )  # fmt: skip
        return v.add(a, 1 << width) if self.record(at, a, "l") else a

    def _decide(
        self, relation: str | None, d: v.Int, at: int, block: Block | None, leaves_if: bool | None
    ) -> bool:
        if relation is None:
            raise Refusal("a condition on parity or overflow of integers", at=at)
        if d.__class__ is int:
            return HOLDS[relation](d)
        if v.has_pointer(d):
            raise Refusal(
                f"the code that runs depends on an address: {self.compared(d)}", *OVERLAP,
                at=at,
            )
        if v.has_counter(d):
            return self._loop_control(relation, d, at, block, leaves_if)
        return self.record(at, d, relation, block is not None)

    def record(self, at: int, d: v.Int, relation: str, jump: bool = False) -> bool:
        """The outcome; remembered where the ranges of the dimensions leave both possible. Of an
        equality, the sides: a loop that ends at 0 must not begin beyond."""
        outcome = HOLDS[relation](v.value_of(d))
        if d.__class__ is not v.Poly or not v.feasible(d, relation):
            return outcome
        if relation not in ("e", "ne"):
            self.recorded[Condition(at, d, relation, jump)] = outcome
        elif not self.record(at, d, "l", jump):
            self.record(at, d, "g", jump)
        return outcome

    def _loop_control(
        self, relation: str, d: v.Poly, at: int, block: Block | None, leaves_if: bool | None
    ) -> bool:
        """Only the test that leaves the innermost loop may look at its counter."""
        outcome = HOLDS[relation](d.value)
        if not v.feasible(d, relation):
            return outcome
        frame = self.frames[-1] if self.frames else None
        if leaves_if is None and frame and v.loops_of(d) == {frame.loop}:
            self._first_round(at, d, relation, frame, False)
            frame.carried.append((d, relation, at))
            return outcome or None
        if block is None or frame is None or block.leaves != frame.loop:
            raise Refusal(
                f"a branch on a loop counter: {self.compared(d)}",
                "every element computed by the same formula",
                "treat the exception outside, in numpy or in a second function on a slice; a choice that "
                "depends on the data may stay: x[i] > 0 ? a : b",
                at=at,
            )
        if not v.linear_in(d, frame.loop):
            raise Refusal(
                f"the length of a loop depends on an outer counter: {self.compared(d)}",
                "rectangular loops",
                at=at,
            )
        left = outcome == leaves_if
        self.exits.setdefault((frame.loop, at), set()).add(left)
        frame.tests[at] = d, relation
        if left:
            frame.exit = at
        self._first_round(at, d, relation, frame, True)
        return outcome

    def _first_round(self, at: int, d: v.Poly, relation: str, frame: object, jump: bool) -> None:
        """The counter is 0 there, so the outcome is a condition on the sizes."""
        if frame.round == 0:
            sizes = {m: c for m, c in d.terms.items() if not m or m[-1] < v.COUNTER}
            self.record(at, v.make(sizes, d.value), relation, jump)

    # ---- conditions on data

    def _data_condition(self, cc: str, a: object, b: object, width: int) -> Node | bool:
        if cc not in RELATION:
            raise Refusal(
                f"condition {cc!r} on integer data", "signed and unsigned comparisons",
                "test for overflow by comparing, or in a wider type",
            )  # fmt: skip
        relation = RELATION[cc]
        if a.__class__ is Node and a.kind == "bool" and b == 0 and relation in ("e", "ne"):
            return a if relation == "ne" else self.nodes.not_(a)
        if cc in ("s", "ns") and b != 0:  # the sign of the difference, which may wrap
            a, b = self.calculated(Op.SUB, a, b, width), 0
        x, y = self.as_data(a, width), self.as_data(b, width)
        return data.compared(self.nodes, relation, cc in UNSIGNED, x, y, width)

    def _float_condition(self, cc: str, a: Node, b: Node) -> Node:
        """comiss a, b sets CF for a < b, ZF for a == b, and all of CF, ZF, PF when unordered."""
        make, invert = self.nodes.make, self.nodes.not_
        less, less_equal = make(Op.LT, (b, a)), make(Op.LE, (b, a))
        unordered = make(Op.UNORD, (a, b))
        equal = make(Op.OR, (make(Op.EQ, (a, b)), unordered))
        table = {
            "a": less, "ae": less_equal, "b": invert(less_equal), "be": invert(less),
            "e": equal, "ne": invert(equal), "p": unordered, "np": invert(unordered),
        }  # fmt: skip
        if cc not in table:
            raise Refusal(f"condition {cc!r} after a comparison of floats")
        return table[cc]
