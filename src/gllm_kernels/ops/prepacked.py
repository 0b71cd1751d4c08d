"""A matrix packed once for many products.

    p = gk.pack_b(b)                      b: (k, n)
    c = gk.gemm_prepacked(a, p)           a: (..., m, k); the same as gk.gemm(a, b)

The panels are those that a product packs on its way (`codegen.pack`): float32, the columns of a
tile side by side.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..codegen.assemble import compile_routine
from ..codegen.isa.base import Isa
from ..codegen.isa.detect import current_isa, current_isa_name
from ..codegen.kernel import Routine
from ..codegen.pack import packing_of, panel_bytes, spare_bytes
from ..codegen.tuning import TuningParams, host_params
from ..codegen.work import PACK
from ..dtypes import CTYPES, FLOATS, NARROW
from ..errors import ShapeError, UnsupportedOpError
from ..executable.buffers import aligned_bytes
from ..memory import CodeBatch, place_batch

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class PackedB:
    """What `pack_b` makes: the k x n matrix as panels for one instruction set. On "scalar", which
    has no tiles, the rows as they are."""

    shape: tuple[int, int]
    isa: str
    params: TuningParams | None
    panels: Array

    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def ctypes(self) -> object:
        """The address, as an array has it."""
        return self.panels.ctypes

    @property
    def nbytes(self) -> int:
        return self.panels.nbytes

    def __repr__(self) -> str:
        tile = "" if self.params is None else f", panels of {self.params.nr} columns"
        size = f"{self.shape[0]} x {self.shape[1]}"
        return f"PackedB({size} for {self.isa}{tile}, {self.nbytes} bytes)"

    def check(self) -> None:
        """Raise unless the instruction set in force is the one it was packed for."""
        if self.isa != current_isa_name():
            raise UnsupportedOpError(f"the matrix was packed for {self.isa}, {current_isa_name()} is "
                                     "in force; pack it again with gk.pack_b")


def pack_b(b: Array, transposed: bool = False) -> PackedB:
    """The matrix b (k, n) as panels, or `transposed` one stored (n, k), as models store weights.

    float32, float16 or bfloat16 in, float32 panels out. Raises ShapeError for anything else.
    """
    array = np.asarray(b)
    if array.ndim != 2 or array.dtype.name not in FLOATS or not array.dtype.isnative:
        raise ShapeError(f"pack_b: `b` is {array.dtype}{array.shape}; wanted a float32 matrix (or "
                         f"{', '.join(NARROW)})")
    array, isa = np.ascontiguousarray(array), current_isa()
    k, n = array.shape[::-1] if transposed else array.shape
    if isa is None:
        rows = np.ascontiguousarray((array.T if transposed else array).astype(np.float32))
        return PackedB((k, n), "scalar", None, rows)
    params = replace(host_params(isa), prepacked=True, heights=4)
    panels = aligned_bytes(panel_bytes(n, k, params.nr, isa.lanes))
    _fill(array, transposed, isa, params, panels)
    return PackedB((k, n), isa.name, params, panels)


def _fill(array: Array, transposed: bool, isa: Isa, params: TuningParams, panels: Array) -> None:
    """One call of the routine that products pack with."""
    line, depth = array.strides if transposed else (array.itemsize, array.strides[0])
    k, n = array.shape[::-1] if transposed else array.shape
    spare = aligned_bytes(spare_bytes(max(k, 1), isa.lanes))
    how = packing_of(isa, CTYPES[array.dtype.name], transposed, params.nr, True)
    slots = {"source": array.ctypes.data, "line": line, "depth_step": depth, "lines": n, "exist": n,
             "depth": k, "target": panels.ctypes.data, "width": params.nr,
             "spare": spare.ctypes.data, "odd": 0}
    table = np.array([slots[name] for name in PACK], np.int64)
    if k and n:
        _placed(how.routine, isa)[0](table.ctypes.data, 0, 0, None)


@lru_cache(16)
def _placed(routine: Routine, isa: Isa) -> tuple[object, CodeBatch]:
    """A routine as a C function, and what keeps its code."""
    batch = place_batch([compile_routine(routine, isa).bytes])
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    return kind(batch.addresses[0]), batch
