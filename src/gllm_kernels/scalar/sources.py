"""The C text of an operator, for people: the function and the comment above it."""

from __future__ import annotations

from pathlib import Path

from ..errors import UnsupportedOpError
from .catalog import PREFIX

FOLDER = Path(__file__).parent


def source_of(name: str) -> str:
    """The definition of scalar_<name>, from its comment to its closing brace."""
    for path in sorted(FOLDER.glob("*.c")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if f" {PREFIX}{name}(" in line and not line.endswith(";"):
                return "\n".join(lines[_comment(lines, number) : _end(lines, number) + 1])
    raise UnsupportedOpError(f"no C source of operator {name!r} in {FOLDER}")


def _comment(lines: list[str], number: int) -> int:
    """Back to the first line of the comment that stands directly above."""
    while number and lines[number - 1].strip():
        number -= 1
    return number


def _end(lines: list[str], number: int) -> int:
    return next(n for n in range(number, len(lines)) if lines[n] == "}")
