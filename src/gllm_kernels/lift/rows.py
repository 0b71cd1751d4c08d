"""The table of instruction meanings, filled by `x86` (integers) and `floats`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from iced_x86 import ConditionCode, Instruction, Mnemonic, OpKind

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
ROWS: dict[str, Builder] = {}


def row(*names: str) -> Callable[[Builder], Builder]:
    """The rows of these mnemonics are made by the function below."""

    def add(builder: Builder) -> Builder:
        ROWS.update(dict.fromkeys(names, builder))
        return builder

    return add


def same_register(i: Instruction, first: int = 0) -> bool:
    """Whether two neighbouring operands are one register."""
    pair = (first, first + 1)
    if any(i.op_kind(k) != OpKind.REGISTER for k in pair):
        return False
    return i.op_register(first) == i.op_register(first + 1)
