"""What the run assumes about sizes: every comparison of integers is the test that ends a loop, or
is decided by the ranges alone, or is recorded as a condition on dimensions, or is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..trace.ir import Op
from . import value as v
from .error import Refusal
from .nodes import Node, Nodes
from .program import Block

RELATION = {
    "e": "e", "ne": "ne", "l": "l", "ge": "ge", "le": "le", "g": "g",
    "b": "l", "ae": "ge", "be": "le", "a": "g", "s": "l", "ns": "ge",
}  # fmt: skip
UNSIGNED = ("b", "ae", "be", "a")
# after and/or/xor/test the carry is clear, so "below or equal" is "equal"
AFTER_LOGIC = {"be": "e", "a": "ne"}
AFTER_RESULT = ("e", "ne", "s", "ns")
HOLDS = {
    "e": lambda d: d == 0, "ne": lambda d: d != 0, "l": lambda d: d < 0,
    "ge": lambda d: d >= 0, "le": lambda d: d <= 0, "g": lambda d: d > 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """`poly relation 0` was `outcome` at the instruction `at`; poly is made of dimensions."""

    at: int
    poly: v.Poly
    relation: str
    outcome: bool


class Conditions:
    """The part of the machine that decides conditions; see `engine.Machine` for the rest."""

    nodes: Nodes
    atoms: dict[int, int]
    names: dict
    frames: list

    def __init__(self) -> None:
        self.flags: tuple | None = None
        self.at = 0
        self.recorded: dict[Condition, None] = {}
        self.exits: dict[int, set[bool]] = {}
        self.opaques: list[tuple[str, int]] = []
        self.limit = 1 << 31
        self.integer_data = False  # whether a float was ever held in an integer register

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

    def _name(self, number: int) -> str:
        if number >= v.OPAQUE:
            return f"({self.opaques[number - v.OPAQUE][0]})"
        return f"i{v.loop_of(number)}" if number >= v.COUNTER else self.names[number].name

    def bitwise(self, name: str, a: v.Int, b: v.Int, width: int) -> v.Int:
        """and, or, xor: exact on constants, without a formula on sizes."""
        x, y = v.value_of(v.add(a, 0)), v.value_of(v.add(b, 0))
        if a.__class__ is int:
            a, b = b, a
        if b.__class__ is int and (name, v.signed(b, width)) in (
            ("and", -1), ("or", 0), ("xor", 0),
        ):  # fmt: skip
            return a
        value = v.signed({"and": x & y, "or": x | y, "xor": x ^ y}[name], width)
        if a.__class__ is int:
            return value
        return self.opaque(f"{self.text(a)} {name} {self.text(b)}", value)

    def shifted(self, name: str, a: v.Int, count: int, width: int) -> v.Int:
        """Shifts: left is a product, right is a quotient where it is exact."""
        if name in ("shl", "sal") or count == 0:
            return v.scale(a, 1 << count)
        value = v.value_of(v.add(a, 0))
        unsigned = name == "shr"
        moved = (value & ((1 << width) - 1) if unsigned else v.signed(value, width)) >> count
        if a.__class__ is int:
            return moved
        low = v.lower_bound(a)
        proved = v.fits(a, width) and (not unsigned or (low is not None and low >= 0))
        exact = v.divided(a, 1 << count) if proved else None
        if exact is not None:
            self._limit(a, width)
            return exact
        return self.opaque(f"{self.text(a)} >> {count}", moved)

    def sign_extended(self, a: v.Int) -> v.Int:
        if a.__class__ is int:
            return v.signed(a, 32)
        if not v.fits(a, 32):
            return self._wrapping(a, 32, v.signed(a.value, 32))
        self._limit(a, 32)
        return a

    def zero_extended(self, a: v.Poly) -> v.Int:
        """The 64-bit value of a 32-bit register; its sign is a condition where it is not proved."""
        value = a.value & 0xFFFFFFFF
        if not v.fits(a, 32):
            return self._wrapping(a, 32, value)
        self._limit(a, 32)
        low = v.lower_bound(a)
        if low is not None and low >= 0:
            return a
        if v.has_counter(a) or v.has_pointer(a):
            return self._wrapping(a, 32, value)
        self.record(Condition(self.at, a, "l", a.value < 0))
        return a if a.value >= 0 else v.add(a, 1 << 32)

    def _wrapping(self, a: v.Poly, width: int, value: int) -> v.Poly:
        return self.opaque(f"{self.text(a)}, which can wrap around in {width} bits", value)

    def _limit(self, a: v.Int, width: int) -> None:
        if width == 32 and a.__class__ is v.Poly:
            self.limit = min(self.limit, v.extent_limit(a))

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
                    raise Refusal(f"{use} uses {self._name(x)}", "polynomials of the counters")
                coef *= v.round_of(x)
            if len(counters) > 1:
                raise Refusal(f"{use} uses a product of loop counters: {self.text(a)}")
            rest = mono[: len(mono) - len(counters)]
            total[rest] = total.get(rest, 0) + coef
        return v.make({m: c for m, c in total.items() if c}, a.value)

    def converted(self, a: v.Int, width: int) -> Node:
        """(float) of a size or a counter."""
        if a.__class__ is int:
            return self.nodes.index(v.signed(a, width))
        if not v.fits(a, width) or (width == 32 and max(map(len, a.terms)) > 1):
            raise Refusal(f"{self.text(a)} is converted to float and can wrap around")
        if v.has_pointer(a):
            raise Refusal("an address is converted to float")
        self._limit(a, width)
        return self.nodes.index(self.stripped(a, "a conversion to float"))

    # ---- conditions

    def decided(self, cc: str, at: int) -> bool:
        """A condition outside of jumps (cmov): on dimensions only."""
        outcome = self.condition(cc, at, None, False)
        if outcome.__class__ is not bool:
            raise Refusal(
                "an integer chosen by a comparison of data",
                change="a result that is a position (argmax, search) is opaque, not a trace",
            )
        return outcome

    def condition(self, cc: str, at: int, block: Block | None, leaves_if: bool) -> bool | Node:
        """The outcome, or an expression where it depends on data."""
        if self.flags is None:
            raise Refusal("the flags are not set by an instruction that is understood", at=at)
        kind, a, b, width = self.flags
        if kind == "float":
            return self._float_condition(cc, a, b)
        if kind == "compare":
            return self._compare(cc, a, b, width, at, block, leaves_if)
        if kind == "logic" and cc in ("b", "ae"):
            return cc == "ae"
        if kind == "result" and cc not in AFTER_RESULT:
            raise Refusal(f"condition {cc!r} on the carry or overflow of an addition", at=at)
        relation = RELATION[AFTER_LOGIC.get(cc, cc)] if cc in RELATION else None
        self._exact(a, width, at)
        return self._decide(relation, a, at, block, leaves_if)

    def _compare(
        self, cc: str, a: v.Int, b: v.Int, width: int, at: int, block: Block | None, leaves_if: bool
    ) -> bool:
        self._exact(a, width, at)
        self._exact(b, width, at)
        if cc in UNSIGNED:
            a, b = self._unsigned(a, width, at), self._unsigned(b, width, at)
        return self._decide(RELATION.get(cc), v.sub(a, b), at, block, leaves_if)

    def _exact(self, a: v.Int, width: int, at: int) -> None:
        if v.has_opaque(a):
            number = next(x for x in v.atoms_of(a) if x >= v.OPAQUE)
            raise Refusal(
                f"a condition on {self._name(number)}",
                "conditions on sums and products of dimensions",
                "the code that runs must not depend on remainders, masks or uneven counters",
                at=at,
            )
        if not v.fits(a, width):
            raise Refusal(f"compared: {self.text(a)}, which can wrap around", at=at)
        self._limit(a, width)

    def _unsigned(self, a: v.Int, width: int, at: int) -> v.Int:
        """The value as an unsigned number; its sign is a condition of its own."""
        if a.__class__ is int:
            return a & ((1 << width) - 1)
        low = v.lower_bound(a)
        if low is not None and low >= 0:
            return a
        if v.has_counter(a) or v.has_pointer(a):
            raise Refusal(
                f"unsigned comparison of {self.text(a)}, which may be negative",
                change="rewrite the test so that nothing is subtracted before it",
                at=at,
            )
        self.record(Condition(at, a, "l", a.value < 0))
        return a if a.value >= 0 else v.add(a, 1 << width)

    def _decide(
        self, relation: str | None, d: v.Int, at: int, block: Block | None, leaves_if: bool
    ) -> bool:
        if relation is None:
            raise Refusal("a condition on parity or overflow of integers", at=at)
        outcome = HOLDS[relation](v.value_of(d))
        if d.__class__ is int:
            return outcome
        if v.has_pointer(d):
            raise Refusal(
                f"the code that runs depends on an address: {self.text(d)}",
                "arguments do not overlap and may lie anywhere",
                at=at,
            )
        if not feasible(d, relation):
            return outcome
        if v.has_counter(d):
            self._loop_control(relation, d, at, block, outcome, leaves_if)
        else:
            self.record(Condition(at, d, relation, outcome))
        return outcome

    def record(self, condition: Condition) -> None:
        self.recorded[condition] = None

    def _loop_control(
        self, relation: str, d: v.Poly, at: int, block: Block | None, outcome: bool, leaves_if: bool
    ) -> None:
        """Only the test that leaves the innermost loop may look at its counter."""
        frame = self.frames[-1] if self.frames else None
        if block is None or frame is None or block.leaves != frame.loop:
            raise Refusal(
                f"a branch on a loop counter: {self.text(d)} compared with 0",
                "every element computed by the same formula",
                "an exception for some elements cannot be index notation; split the function",
                at=at,
            )
        others = v.loops_of(d) - {frame.loop}
        if others or any(sum(x >= v.COUNTER for x in m) > 1 for m in d.terms):
            raise Refusal(
                f"the length of a loop depends on an outer counter: {self.text(d)}",
                "rectangular loops",
                at=at,
            )
        left = outcome == leaves_if
        self.exits.setdefault(at, set()).add(left)
        if left:
            frame.exit = d
        if frame.round == 0:
            sizes = {m: c for m, c in d.terms.items() if not m or m[-1] < v.COUNTER}
            first = v.make(sizes, d.value)  # the counter is 0 here
            if first.__class__ is v.Poly and feasible(first, relation):
                self.record(Condition(at, first, relation, outcome))

    # ---- conditions on data

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


def feasible(d: v.Poly, relation: str) -> bool:
    """Whether the ranges of the atoms leave both outcomes possible."""
    low, high = v.lower_bound(d), v.upper_bound(d)
    low = -1 if low is None else low
    high = 1 if high is None else high
    if relation in ("e", "ne"):
        return low <= 0 <= high
    return low <= 0 < high if relation in ("le", "g") else low < 0 <= high
