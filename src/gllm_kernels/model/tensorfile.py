"""The safetensors container: a bounded reader that maps the file and trusts nothing in it.

    file   ::= length:u64le  header:JSON[length]  data
    header ::= {name: {"dtype": str, "shape": [int], "data_offsets": [begin, end]}, "__metadata__"?}

The tensors must tile `data` exactly: no gap, no overlap, nothing behind the end. Format:
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

import ml_dtypes
import numpy as np

from ..errors import FormatError
from .fields import Fields, parse_object, shown

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # the format's own limit
MAX_RANK = 8

# fmt: off
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}
# fmt: on
READABLE = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file; `begin` counts bytes from the start of the file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    def refuse(self, what: str) -> NoReturn:
        raise FormatError(f"{self.path}: tensor {self.name!r} at byte {self.begin}: {what}")


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A mapped file and its tensors by name. The mapping lives as long as any array over it.

    Cutting the file short while it is mapped makes the kernel end the process with SIGBUS on the
    next read past the new end: replace model files by renaming, never in place.
    """

    path: Path
    entries: dict[str, Entry]
    data: mmap.mmap

    def array(self, name: str) -> np.ndarray:
        """The stored values, read-only, without a copy: f32, f16 or bf16."""
        entry = self.entries[name]
        dtype = READABLE.get(entry.dtype)
        if dtype is None:
            entry.refuse(f"stored as {entry.dtype}; convert it to one of {', '.join(READABLE)}")
        count = prod(entry.shape)
        if not count:
            return np.empty(entry.shape, dtype)
        return np.frombuffer(self.data, dtype, count, entry.begin).reshape(entry.shape)


def open_tensors(path: Path) -> TensorFile:
    """Map `path` and check its header against the size of the file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < LENGTH_BYTES:
                raise FormatError(f"{path}: {size} bytes is too short for safetensors; {AGAIN}")
            data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be mapped: {error}") from None
    return TensorFile(path, read_entries(path, data, size), data)


AGAIN = "the file is damaged or incomplete: fetch it again"


def read_entries(path: Path, data: mmap.mmap, size: int) -> dict[str, Entry]:
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    limit = min(MAX_HEADER, size - LENGTH_BYTES)
    if length > limit:
        raise FormatError(f"{path}: byte 0: header of {length} bytes, at most {limit} fit; {AGAIN}")
    start = LENGTH_BYTES + length
    header = parse_object(data[LENGTH_BYTES:start], path, "header: ")
    names = [name for name in header.values if name != "__metadata__"]
    entries = [read_entry(header, name, start, size) for name in names]
    check_tiling(path, entries, start, size)
    return {entry.name: entry for entry in entries}


def read_entry(header: Fields, name: str, start: int, size: int) -> Entry:
    if type(header.get(name)) is not dict:
        raise FormatError(f"{header.path}: header entry {shown(name)} is no tensor; {AGAIN}")
    fields = Fields(header.path, header.values[name], f"tensor {shown(name)}: ")  # type: ignore[arg-type]
    dtype = fields.text("dtype")
    if dtype not in ITEM_BYTES:
        fields.refuse("dtype", f"expected one of {', '.join(ITEM_BYTES)}")
    shape = read_sizes(fields, "shape", MAX_RANK)
    offsets = read_sizes(fields, "data_offsets", 2)
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - start:
        fields.refuse("data_offsets", f"the data has {size - start} bytes; {AGAIN}")
    wanted = prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != wanted:
        fields.refuse("data_offsets", f"{dtype}{list(shape)} takes {wanted} bytes; {AGAIN}")
    return Entry(header.path, name, dtype, shape, start + offsets[0], wanted)


def read_sizes(fields: Fields, name: str, most: int) -> tuple[int, ...]:
    values = fields.array(name)
    if len(values) > most or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        fields.refuse(name, f"expected at most {most} sizes")
    return tuple(values)  # type: ignore[arg-type]


def check_tiling(path: Path, entries: list[Entry], start: int, size: int) -> None:
    """Each tensor begins where the one before ends, and the last ends with the file."""
    end = start
    for entry in sorted(entries, key=lambda e: (e.begin, e.size)):
        if entry.begin != end:
            word = "overlaps the tensor before it" if entry.begin < end else "follows a gap"
            entry.refuse(f"{word}, which ends at byte {end}; {AGAIN}")
        end += entry.size
    if end != size:
        raise FormatError(f"{path}: the tensors end at byte {end} of {size}; {AGAIN}")
