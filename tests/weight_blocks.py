"""Blocks of weights for tests: random ones, and those that break decoders."""

import ctypes
from hashlib import shake_128

import numpy as np

from gllm_kernels.scalar.formats import FORMATS, WeightFormat

FILLS = (0x00, 0xFF, 0x7F, 0x80, 0x77, 0x7C, 0xFC, 0x01)  # among them NaN and infinite scales


def blocks_of(row: WeightFormat, count: int = 200) -> np.ndarray:
    """Random blocks, the same in every run; then uniform ones; then random ones in which every
    two bytes in turn are each fill."""
    random = np.frombuffer(shake_128(row.name.encode()).digest(count * row.size), np.uint8)
    random = random.reshape(count, row.size)
    uniform = np.repeat(np.array(FILLS, np.uint8)[:, None], row.size, 1)
    patched = np.tile(random[:1], (len(FILLS) * row.size, 1))
    for k in range(row.size):
        for f, fill in enumerate(FILLS):
            patched[k * len(FILLS) + f, k : k + 2] = fill
    return np.concatenate([random, uniform, patched])


def decode(row: WeightFormat, blocks: np.ndarray) -> np.ndarray:
    """What the C function says."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    function = kind(FORMATS.address(row.name))
    blocks = np.ascontiguousarray(blocks)
    out = np.full((len(blocks), row.values + 2), 7, np.float32)
    for block, line in zip(blocks, out, strict=True):
        function(block.ctypes.data, line.ctypes.data + 4)
    assert (out[:, [0, -1]] == 7).all(), "written outside of the block"
    return out[:, 1:-1]


def bits(x: np.ndarray) -> np.ndarray:
    """The bits of floats, all NaN alike."""
    return np.where(np.isnan(x), np.uint32(0x7FC00000), np.ascontiguousarray(x).view(np.uint32))
