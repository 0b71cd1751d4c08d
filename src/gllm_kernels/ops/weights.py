"""Weights in blocks of few bits, and formats that users bring.

    x = gk.dequantize(blocks, "Q4_K")                 uint8 (..., bytes) -> float32 (..., values)
    gk.compile_format(text, "void decode_w3(const uint8_t *block, float *out)", size=14)
    x = gk.dequantize(blocks, "W3")
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..codegen import quant
from ..codegen.assemble import compile_kernel
from ..codegen.isa.base import Isa
from ..codegen.isa.detect import current_isa
from ..errors import ShapeError
from ..memory import CodeBatch, place_batch
from ..quant import registry
from ..quant.desc import QuantDesc
from ..scalar.formats import FORMATS, WeightFormat, call_each
from .user import compiled

Array = npt.NDArray[np.generic]


def dequantize(blocks: Array, format: str, out: Array | None = None) -> Array:
    """The floats of rows of blocks, with the bits of the format's decoder.

    `blocks`: uint8 (..., n * bytes of a block); the result, or `out`: float32 (..., n * values of a
    block). FormatError for a format that is not there, ShapeError for arrays that do not fit.
    """
    row = FORMATS.lookup(format)
    source = _source(blocks, row)
    shape = (*source.shape[:-1], source.shape[-1] // row.size * row.values)
    target = np.empty(shape, np.float32) if out is None else _target(out, shape, source)
    _decode(row, source.reshape(-1, row.size), target.reshape(-1, row.values))
    return target


def _decode(row: WeightFormat, blocks: Array, out: Array) -> None:
    """Whole super-blocks by the vector kernel, the rest by the function."""
    isa = current_isa()
    done = 0 if isa is None else _named(row.name, isa).decode(blocks, out)
    call_each(FORMATS.address(row.name), blocks[done:], out[done:])


@dataclass(frozen=True, slots=True)
class BlockDecoder:
    """A vector decoder in memory: the C function, its tables, blocks of a unit, who keeps the code."""

    function: Callable[..., None]
    tables: Array
    count: int
    code: CodeBatch

    def decode(self, blocks: Array, out: Array) -> int:
        """Decode rows of `blocks` (n, size) into `out` (n, values), as many as are whole units; their
        number. Both are C-contiguous."""
        units = len(blocks) // self.count
        slots = np.array([a.ctypes.data for a in (blocks, out, self.tables)] + [units], np.int64)
        self.function(slots.ctypes.data, 0, units, None)
        return units * self.count


@lru_cache(64)
def _named(name: str, isa: Isa) -> BlockDecoder:
    return loaded(registry.description(name), isa)


def loaded(desc: QuantDesc, isa: Isa) -> BlockDecoder:
    """Generate and load the decoder of a description."""
    kernel, tables, count = quant.dequantize(desc, isa)
    batch = place_batch([compile_kernel(kernel, isa).bytes])
    return BlockDecoder(caller(batch), tables, count, batch)


def caller(batch: CodeBatch) -> Callable[..., None]:
    """A kernel as a C function."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    return kind(batch.addresses[0])


def _source(blocks: Array, row: WeightFormat) -> Array:
    array = np.asarray(blocks)
    if array.dtype != np.uint8 or array.ndim < 1:
        raise ShapeError(f"dequantize: `blocks` is {array.dtype}{array.shape}; wanted uint8 with at "
                         "least one dimension, the bytes of a row last")
    if array.shape[-1] % row.size:
        raise ShapeError(f"dequantize: rows of `blocks` have {array.shape[-1]} bytes, which is no "
                         f"multiple of the {row.size} of a block of {row.name}")
    return np.ascontiguousarray(array)


def _target(out: Array, shape: tuple[int, ...], source: Array) -> Array:
    fits = isinstance(out, np.ndarray) and out.shape == shape and out.dtype == np.float32
    if not fits or not out.flags.c_contiguous or not out.flags.writeable or not out.flags.aligned:
        got = f"{out.dtype}{out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"dequantize: `out` is {got}; wanted a float32 array of shape {shape}, "
                         "C-contiguous and writeable")
    if np.may_share_memory(out, source):
        raise ShapeError("dequantize: `out` overlaps `blocks`")
    return out


def register_format(source: object, declaration: str, size: int) -> WeightFormat:
    """Add a weight format by its decoder, `void decode_<name>(const uint8_t *block, float *out)`.

    `source` as for `register`; `size` is the bytes of a block, its values follow from the code.
    The format is known as <NAME> from then on. LiftError where values are not A*(q + Z) + B.
    """
    return registry.register(source, declaration, size)


def compile_format(text: str, declaration: str, size: int) -> WeightFormat:
    """Compile C text with the compiler in $CC, or cc, gcc, clang, and register the format."""
    with compiled(text) as library:
        return register_format(library, declaration, size)
