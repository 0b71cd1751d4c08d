"""Plain memory for machine code: aligned to cache lines, huge pages where they pay."""

from __future__ import annotations

import mmap
from math import prod

import numpy as np

ALIGN = 64
HUGE_PAGE = 2 << 20


def aligned_bytes(size: int) -> np.ndarray:
    """uint8[size], not initialised, its address a multiple of 64 (2 MiB when that big)."""
    if size >= 2 * HUGE_PAGE:
        return _huge(size)
    raw = np.empty(size + ALIGN, np.uint8)
    return raw[-raw.ctypes.data % ALIGN :][:size]


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """As numpy.zeros, in such memory; a large array takes none before it is written."""
    raw = aligned_bytes(prod(shape) * dtype.itemsize)
    if raw.size < 2 * HUGE_PAGE:
        raw.fill(0)
    return raw.view(dtype).reshape(shape)


def _huge(size: int) -> np.ndarray:
    """Fewer TLB misses on what is streamed; advice only, a kernel without it ignores it.

    The map is private: by default Python's is shared memory, for which the advice does nothing.
    """
    raw = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        raw.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(raw, np.uint8)
    return whole[-whole.ctypes.data % HUGE_PAGE :][:size]
