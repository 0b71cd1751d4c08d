"""Reading JSON objects from files nobody vouches for: every field is checked before it is used.

A reader names the file, the field, the value found, what was wanted, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import FormatError

MAX_JSON_BYTES = 256 << 20  # the largest tokenizer.json in use are about 30 MB
MAX_SHOWN = 60  # characters of a value shown in a message
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object of a file, read field by field; `where` is its path inside the file."""

    path: Path
    values: Mapping[str, object]
    where: str = ""

    def refuse(self, name: str, wanted: str) -> NoReturn:
        """Raise: file, field, value found, and `wanted`, which also says what to do."""
        value = self.values.get(name, _MISSING)
        found = "is missing" if value is _MISSING else f"is {shown(value)}"
        raise FormatError(f"{self.path}: {self.where}{name} {found}; {wanted}")

    def get(self, name: str) -> object:
        return self.values.get(name)

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """An integer in [low, high]; a missing or null field takes the default, if there is one."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        # bool is a subclass of int, and `true` is no size
        if type(value) is not int or not low <= value <= high:
            self.refuse(name, f"expected an integer from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
            self.refuse(name, f"expected a number from {low:g} to {high:g}")
        return float(value)  # type: ignore[arg-type]

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            self.refuse(name, "expected true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self.values.get(name, _MISSING)
        if value is _MISSING and default is not None:
            return default
        if type(value) is not str:
            self.refuse(name, "expected a string")
        return value

    def array(self, name: str) -> list[object]:
        value = self.values.get(name)
        if type(value) is not list:
            self.refuse(name, "expected an array")
        return value

    def nested(self, name: str) -> Fields:
        value = self.values.get(name)
        if type(value) is not dict:
            self.refuse(name, "expected an object")
        return Fields(self.path, value, f"{self.where}{name}.")


def shown(value: object, most: int = MAX_SHOWN) -> str:
    """The value as JSON, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= most else text[:most] + "..."


def unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object's pairs; a repeated key is an error: readers disagree on which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"the key {shown(twice)} occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse_object(data: bytes, path: Path) -> Fields:
    """One JSON object: no repeated keys, no NaN, no runaway nesting."""
    try:
        value = json.loads(data, object_pairs_hook=unique_pairs, parse_constant=_no_constant)
    except RecursionError:
        raise FormatError(f"{path}: nested too deeply to be a model's file") from None
    except ValueError as error:
        raise FormatError(f"{path}: not valid JSON: {error}; fetch the file again") from None
    if type(value) is not dict:
        raise FormatError(f"{path}: expected a JSON object, found {shown(value)}")
    return Fields(path, value)


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """The whole file, refused above `limit` bytes."""
    try:
        if not path.is_file():
            raise FormatError(f"{path}: no such file; a model directory holds {LAYOUT}")
        size = path.stat().st_size
        if size > limit:
            raise FormatError(f"{path}: {size} bytes, expected at most {limit}")
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None


def read_object(path: Path) -> Fields:
    return parse_object(read_bytes(path), path)


LAYOUT = "config.json, tokenizer.json and *.safetensors, as Hugging Face writes them"
