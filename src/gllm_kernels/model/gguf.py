"""The GGUF container, versions 2 and 3: metadata and tensors of one mapped file.

    file   ::= "GGUF" version:u32 tensors:u64 pairs:u64 pair* tensor* padding data
    pair   ::= key:string type:u32 value          string ::= length:u64 byte*
    tensor ::= name:string rank:u32 size:u64* type:u32 offset:u64       sizes innermost first

Every count is compared with what is left of the file before anything is made of it, and nothing is
read twice. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

from ..errors import FormatError
from ..scalar.formats import FORMATS
from .fields import Fields, shown
from .tensorfile import AGAIN, Entry, TensorFile

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_STRING = 64 << 20
MAX_ITEMS = 1 << 22  # of an array: the largest vocabularies have some 2^18 tokens
MAX_RANK = 4
MAX_ALIGNMENT = 1 << 20
PAIR_BYTES, TENSOR_BYTES = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # at least, of an entry
STRING, ARRAY = 8, 9
# fmt: off
SCALARS = {  # type of a value: how struct reads it
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}
PLAIN = {  # type of a tensor: name, values and bytes of a block
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 28: ("F64", 1, 8),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
}
# fmt: on
STORED = PLAIN | {row.gguf: (row.name, row.values, row.size) for row in FORMATS if row.gguf is not None}


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What the file says of itself, and its tensors. Values are numbers, bool, str, and lists of one of them."""

    fields: Fields
    tensors: TensorFile
    version: int


def open_gguf(path: Path) -> GgufFile:
    """Map `path` and read all but the tensors' values."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise FormatError(f"{path}: cannot be mapped: {error}; give a GGUF file") from None
    return Reader(path, data).file()


class Reader:
    """A position in the file; every step forward is checked."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def refuse(self, what: str, at: int | None = None) -> NoReturn:
        raise FormatError(f"{self.path}: byte {self.at if at is None else at}: {what}")

    def file(self) -> GgufFile:
        version, tensors, pairs = self.header()
        values = self.metadata(pairs)
        fields = Fields(self.path, values)
        alignment = fields.integer("general.alignment", 1, MAX_ALIGNMENT, default=32)
        if alignment & (alignment - 1):
            fields.refuse("general.alignment", "expected a power of two")
        rows = [self.tensor() for _ in range(tensors)]
        begin = -(-self.at // alignment) * alignment
        return GgufFile(fields, self.place(rows, begin, alignment), version)

    def header(self) -> tuple[int, int, int]:
        """version, number of tensors, number of metadata pairs"""
        if self.data[:4] != MAGIC:
            self.refuse(f"starts with {bytes(self.data[:4])!r}, not {MAGIC!r}; give a GGUF file")
        self.at = 4
        version = self.number("<I")
        if version not in VERSIONS:
            swapped = " (big-endian)" if version & 0xFFFF == 0 else ""
            self.refuse(f"version {version}{swapped}; versions {VERSIONS} are read, little-endian", 4)
        tensors, pairs = self.count(TENSOR_BYTES), self.count(PAIR_BYTES)
        return version, tensors, pairs

    # -- parts ------------------------------------------------------------------------------------
    def number(self, layout: str) -> int | float | bool:
        end = self.at + struct.calcsize(layout)
        if end > len(self.data):
            self.refuse(f"the file ends inside a number; {AGAIN}")
        (value,) = struct.unpack_from(layout, self.data, self.at)
        self.at = end
        return value

    def count(self, least: int) -> int:
        """A count of things of at least so many bytes, all of which must still fit."""
        at = self.at
        value = self.number("<Q")
        if value * least > len(self.data) - self.at:
            self.refuse(f"{value} entries do not fit into the file; {AGAIN}", at)
        return int(value)

    def string(self) -> str:
        at = self.at
        length = self.count(1)
        if length > MAX_STRING:
            self.refuse(f"a string of {length} bytes; at most {MAX_STRING} are read", at)
        text = self.data[self.at : self.at + length]
        self.at += length
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            self.refuse(f"text that is no UTF-8: {error.reason}; {AGAIN}", at)

    def metadata(self, pairs: int) -> dict[str, object]:
        values: dict[str, object] = {}
        for _ in range(pairs):
            at, key = self.at, self.string()
            if key in values:
                self.refuse(f"the key {shown(key)} occurs twice", at)
            values[key] = self.value(int(self.number("<I")))
        return values

    def value(self, kind: int) -> object:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        if kind not in SCALARS:
            self.refuse(f"a value of type {kind}; types 0 to {max(SCALARS)} are known", self.at - 4)
        return self.number(SCALARS[kind])

    def array(self) -> list[object]:
        at, kind = self.at, int(self.number("<I"))
        if kind != STRING and kind not in SCALARS:
            self.refuse(f"an array of type {kind}; arrays of numbers and strings are read", at)
        size = 8 if kind == STRING else struct.calcsize(SCALARS[kind])
        count = self.count(size)
        if count > MAX_ITEMS:
            self.refuse(f"an array of {count} values; at most {MAX_ITEMS} are read", at)
        if kind == STRING:
            return self.strings(count)
        part = self.data[self.at : self.at + count * size]
        self.at += count * size
        return list(struct.unpack(f"<{count}{SCALARS[kind][1]}", part))

    def strings(self, count: int) -> list[object]:
        """As `string`, in few steps for each: a vocabulary has hundreds of thousands."""
        data, length_at, texts = self.data, struct.Struct("<Q").unpack_from, []
        at, last = self.at, len(self.data) - 8
        for _ in range(count):
            if at > last:
                self.refuse(f"the file ends inside an array of strings; {AGAIN}", at)
            begin = at + 8
            end = begin + length_at(data, at)[0]
            if end > last + 8 or end - begin > MAX_STRING:
                self.refuse(f"a string of {end - begin} bytes in an array; {AGAIN}", at)
            texts.append(data[begin:end])
            at = end
        self.at = at
        try:
            return [text.decode() for text in texts]
        except UnicodeDecodeError as error:
            self.refuse(f"an array with text that is no UTF-8: {error.reason}; {AGAIN}")

    def tensor(self) -> tuple[int, str, int, tuple[int, ...], int]:
        """Where the entry stands, name, type, shape outermost first, offset in the data."""
        at, name = self.at, self.string()
        rank = int(self.number("<I"))
        if rank > MAX_RANK:
            self.refuse(f"tensor {shown(name)} has {rank} axes; at most {MAX_RANK} are read", at)
        sizes = [int(self.number("<Q")) for _ in range(rank)]
        kind = int(self.number("<I"))
        return at, name, kind, tuple(reversed(sizes)), int(self.number("<Q"))

    # -- where the tensors lie --------------------------------------------------------------------
    def place(self, rows: list, begin: int, alignment: int) -> TensorFile:
        """Every tensor inside the file, aligned, and apart from all others."""
        entries: dict[str, Entry] = {}
        for at, name, kind, shape, offset in rows:
            if name in entries:
                self.refuse(f"the tensor {shown(name)} occurs twice", at)
            stored, size = self.stored(at, name, kind, shape)
            if offset % alignment:
                self.refuse(f"tensor {shown(name)} at offset {offset}, no multiple of {alignment}", at)
            if begin + offset + size > len(self.data):
                self.refuse(f"tensor {shown(name)} ends at byte {begin + offset + size} of "
                            f"{len(self.data)}; {AGAIN}", at)
            entries[name] = Entry(self.path, name, stored, shape, begin + offset, size)
        check_apart(entries)
        return TensorFile(self.path, entries, self.data)

    def stored(self, at: int, name: str, kind: int, shape: tuple[int, ...]) -> tuple[str, int]:
        """How a tensor is stored, and its bytes."""
        if kind not in STORED:
            self.refuse(f"tensor {shown(name)} is of type {kind}, which is not known here", at)
        stored, values, size = STORED[kind]
        if shape and shape[-1] % values:
            self.refuse(f"tensor {shown(name)}: rows of {shape[-1]} values are no multiple of the "
                        f"{values} of a {stored} block", at)
        return stored, prod(shape) // values * size


def check_apart(entries: dict[str, Entry]) -> None:
    """No two tensors share a byte."""
    placed = sorted((e for e in entries.values() if e.size), key=lambda e: e.begin)
    for one, two in zip(placed, placed[1:]):
        if one.begin + one.size > two.begin:
            two.refuse(f"overlaps tensor {shown(one.name)}, which ends at byte {one.begin + one.size}")
