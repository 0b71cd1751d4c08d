"""Buffers between inaccessible pages: a stray access of one byte ends the process, or the test.

    | PROT_NONE page | ...... array| PROT_NONE page |      at="end"
    | PROT_NONE page |array ...... | PROT_NONE page |      at="start"
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded(shape: int | tuple[int, ...], dtype: object = np.float32, at: str = "end",
            fill: object = None) -> np.ndarray:
    """A writable array whose last (or first) byte touches a page that cannot be accessed."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    inner = max(1, -(-size // PAGE)) * PAGE
    memory = mmap.mmap(-1, inner + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = np.frombuffer(memory, np.uint8)  # keeps the mapping alive
    start = whole.__array_interface__["data"][0]
    for page in (start, start + PAGE + inner):
        if _LIBC.mprotect(page, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE + (inner - size if at == "end" else 0)
    array = whole[offset : offset + size].view(dtype).reshape(shape)
    if fill is not None:
        array[...] = fill
    return array


def guarded_copy(values: np.ndarray, at: str = "end") -> np.ndarray:
    """A guarded array with the same contents."""
    return guarded(values.shape, values.dtype, at, values)
