"""Quantised weights as a product wants them: panels of as many rows as a vector has lanes.

    value[j, r] = leaf[j, q] * scale[j, g] * (code[j, r] + low)  +  leaf'[j, q] * offset[j, g]

g is the group and q the block that r lies in. Codes are `planes` of bits, the lowest first; a byte of
a plane of w bits holds 8/w of them. Per panel, all blocks one behind the other:

    planes   blocks x steps x planes x vectors      a vector: lanes x 4 codes of neighbouring r
    scales   blocks x (leaf, leaf', groups x (scale, offset)), each `lanes` numbers

In front of all panels lies one line with the `table`: codes below 16 that stand for these bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dtypes import add_storage

NUMBERS = {"": 0, "i8": 1, "u8": 1, "i16": 2, "f16": 2, "f32": 4}  # bytes of one
QUAD = 4  # codes of one lane of a vector
LAYOUTS: dict[str, Panels] = {}  # in use as types of arrays


@dataclass(frozen=True, slots=True)
class Panels:
    """A layout. A number that is "" is not there: a factor of 1, or an offset of 0."""

    lanes: int
    planes: tuple[int, ...]
    group: int
    block: int
    low: int = 0
    scale: str = ""
    offset: str = ""
    leaves: tuple[str, str] = ("", "")
    table: bool = False

    @property
    def storage(self) -> str:
        """The name of this layout as the type of an array."""
        name = str(self)
        if LAYOUTS.setdefault(name, self) is self:
            add_storage(name)
        return name

    def __str__(self) -> str:
        numbers = "".join(f"-{n or 'x'}" for n in (*self.leaves, self.scale, self.offset))
        return (f"{self.lanes}x{'+'.join(map(str, self.planes))}g{self.group}b{self.block}{self.low:+}"
                f"{numbers}{'t' if self.table else ''}")

    @property
    def largest(self) -> int:
        """The largest byte that is multiplied."""
        return 255 if self.table else (1 << sum(self.planes)) - 1

    @property
    def quads(self) -> int:
        """Vectors of codes in one step: whole groups, and whole bytes of every plane."""
        return max(self.group // QUAD, 8 // min(self.planes))

    @property
    def groups(self) -> int:
        """Of one step."""
        return self.quads * QUAD // self.group

    @property
    def steps(self) -> int:
        """Of one block."""
        return self.block // (self.quads * QUAD)

    @property
    def plane_bytes(self) -> int:
        """Of one block of a panel."""
        return self.lanes * self.block * sum(self.planes) // 8

    @property
    def scale_bytes(self) -> int:
        """Of one block of a panel."""
        each = NUMBERS[self.scale] + NUMBERS[self.offset]
        return self.lanes * (sum(NUMBERS[n] for n in self.leaves) + self.block // self.group * each)

    @property
    def panel_bytes(self) -> int:
        """Of one block of a panel, codes and numbers."""
        return self.plane_bytes + self.scale_bytes

    @property
    def aux_bytes(self) -> int:
        """Of one block of a row of A: what `low` and `offset` add up to for each group, then dx."""
        return self.block // self.group * self.aux_step + 4

    @property
    def aux_step(self) -> int:
        """Of one group."""
        return 4 * (bool(self.low) + bool(self.offset))
