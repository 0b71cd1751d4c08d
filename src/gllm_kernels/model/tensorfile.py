"""The safetensors container: the library checks the header, the values are mapped, not copied.

    file ::= length:u64le  header:JSON[length]  data

`safetensors.safe_open` refuses every header whose tensors do not tile `data` exactly, so a tensor
begins where the one before it ends. Its own arrays are copies, and numpy has no bf16 for them.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import FormatError
from ..ops.qtensor import QTensor
from ..scalar.formats import FORMATS
from .fields import LAYOUT, shown

READABLE = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
AGAIN = "the file is damaged or incomplete: fetch it again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file; `begin` counts bytes from the start of the file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int  # bytes

    def refuse(self, what: str) -> NoReturn:
        where = f"tensor {shown(self.name)} at byte {self.begin}"
        raise FormatError(f"{self.path}: {where}: {what}")


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A mapped file and its tensors by name. The mapping lives as long as any array over it.

    Cutting the file short while it is mapped makes the kernel end the process with SIGBUS on the
    next read past the new end: replace model files by renaming, never in place.
    """

    path: Path
    entries: dict[str, Entry]
    data: mmap.mmap

    def array(self, name: str) -> np.ndarray | QTensor:
        """The stored values, read-only, without a copy: f32, f16 or bf16, or a matrix of blocks."""
        entry = self.entries[name]
        if entry.dtype in FORMATS.rows and len(entry.shape) == 2:
            blocks = np.frombuffer(self.data, np.uint8, entry.size, entry.begin)
            return QTensor(blocks, entry.dtype, entry.shape)
        dtype = READABLE.get(entry.dtype)
        if dtype is None:
            entry.refuse(f"stored as {entry.dtype}; convert it to one of {', '.join(READABLE)}")
        values = np.frombuffer(self.data, dtype, prod(entry.shape), entry.begin)
        try:
            return values.reshape(entry.shape)
        except ValueError as error:  # 65 dimensions, or none of the values and huge sizes
            entry.refuse(f"shape {shown(entry.shape)}: {error}; {AGAIN}")


def open_tensors(path: Path) -> TensorFile:
    """Map `path`, its header checked against its size."""
    if not path.is_file():  # to open a FIFO is to wait for its writer
        raise FormatError(f"{path}: no such file; a model directory holds {LAYOUT}")
    try:
        with path.open("rb") as file, safe_open(path, framework="np") as header:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return TensorFile(path, read_entries(path, header, data), data)
    except SafetensorError as error:
        raise FormatError(f"{path}: safetensors finds {shown(str(error), 200)}; {AGAIN}") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be mapped: {error}; see that it is readable") from None


def read_entries(path: Path, header: safe_open, data: mmap.mmap) -> dict[str, Entry]:
    """Every tensor, in the order of the data; the last one ends with the file."""
    end = 8 + int.from_bytes(data[:8], "little")
    entries = {}
    for name in header.offset_keys():
        part = header.get_slice(name)
        dtype, shape = part.get_dtype(), tuple(part.get_shape())
        entries[name] = Entry(path, name, dtype, shape, end, bytes_of(dtype, shape))
        end += entries[name].size
    if end != len(data):
        raise FormatError(f"{path}: the tensors end at byte {end} of {len(data)}; {AGAIN}")
    return entries


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """The name of a type tells its bits (F32, BF16, F8_E4M3); BOOL has a byte."""
    bits = re.search(r"\d+", dtype)
    return prod(shape) * int(bits[0] if bits else 8) // 8
