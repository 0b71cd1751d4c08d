"""A quantised matrix: the blocks of a weight format, and the panels that products read.

    w = gk.QTensor(blocks, "Q4_K", shape=(n, k))
    y = gk.matmul(x, w)                      x @ w.T, (..., k) -> (..., n)

The rows of x are rounded to signed bytes, block by block (`codegen.quads`); what is then added up is
exact. In a graph, `graph.weight(name, w)` is a weight of `gemm_bt` with everything that fuses with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from ..codegen.isa.detect import current_isa, current_isa_name
from ..errors import ShapeError, UnsupportedOpError
from ..quant.registry import description
from ..scalar.formats import FORMATS, WeightFormat
from .resident import Recipe, filled, first_broken, recipe_of
from .weights import dequantize

Array = npt.NDArray[np.generic]

@dataclass(frozen=True)
class Resident:
    """A matrix as one instruction set reads it: an array, and the name of how it is stored."""

    panels: Array
    storage: str
    shape: tuple[int, int]

    @property
    def ctypes(self) -> object:
        """The address, as an array has it."""
        return self.panels.ctypes


@dataclass(frozen=True, eq=False)
class QTensor:
    """The matrix (n, k) whose rows are blocks of `format`, one row behind the other.

    `blocks` is an array of bytes, of any shape; it is not copied and may be a mapped file. Raises
    FormatError for an unknown format, ShapeError where sizes do not fit.
    """

    blocks: npt.NDArray[np.uint8]
    format: str
    shape: tuple[int, int]
    forms: dict[str, Resident] = field(default_factory=dict, init=False, repr=False)

    ndim = 2

    def __post_init__(self) -> None:
        row = FORMATS.lookup(self.format)
        if not isinstance(self.blocks, np.ndarray) or self.blocks.dtype != np.uint8:
            raise ShapeError(f"QTensor: blocks are a numpy array of uint8, not {_kind(self.blocks)}")
        shape = tuple(self.shape) if isinstance(self.shape, (tuple, list)) else ()
        if len(shape) != 2 or not all(isinstance(s, (int, np.integer)) and s >= 0 for s in shape):
            raise ShapeError(f"QTensor: shape={self.shape!r}; wanted (n, k)")
        object.__setattr__(self, "shape", tuple(map(int, shape)))
        _check_size(self, row)

    @property
    def row(self) -> WeightFormat:
        return FORMATS.lookup(self.format)

    @property
    def nbytes(self) -> int:
        return self.blocks.nbytes

    def __repr__(self) -> str:
        return f"QTensor({self.format}, {self.shape[0]} x {self.shape[1]}, {self.nbytes} bytes)"

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The values, (n, k) float32."""
        return dequantize(self.blocks.reshape(-1), self.format).reshape(self.shape)

    def first_broken_block(self) -> int | None:
        """The number of the first block with a scale that is not finite."""
        recipe, blocks = recipe_for(self.format, 1), self.blocks.reshape(-1)
        return first_broken(recipe, blocks.reshape(-1, recipe.desc.size))

    def resident(self) -> Resident:
        """The form for the instruction set in force, made once. "scalar" knows float32 only."""
        name = current_isa_name()
        if name not in self.forms:
            self.forms[name] = self._made()
        return self.forms[name]

    def _made(self) -> Resident:
        isa = current_isa()
        if isa is None:
            return Resident(self.dequantize(), "float32", self.shape)
        recipe = recipe_for(self.format, isa.lanes)
        n, k = self.shape
        if k % recipe.panels.block:
            raise ShapeError(f"QTensor: rows of {k} values; products take multiples of "
                             f"{recipe.panels.block} in {self.format}")
        return Resident(filled(recipe, self.blocks, n, k), recipe.panels.storage, self.shape)


def _kind(value: object) -> str:
    return f"{value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _check_size(tensor: QTensor, row: WeightFormat) -> None:
    n, k = tensor.shape
    if k % row.values:
        raise ShapeError(f"QTensor: rows of {k} values are no multiple of the {row.values} of a "
                         f"{row.name} block")
    wanted = prod(tensor.shape) // row.values * row.size
    if tensor.blocks.size != wanted:
        raise ShapeError(f"QTensor: {n} x {k} values are {wanted} bytes of {row.name}, got "
                         f"{tensor.blocks.size}")


@lru_cache(64)
def recipe_for(name: str, lanes: int) -> Recipe:
    """How blocks of a format become panels; UnsupportedOpError where products cannot use them."""
    try:
        return recipe_of(description(name), lanes)
    except UnsupportedOpError as reason:
        raise UnsupportedOpError(f"{name} has no product of its own: {reason}; use its values, "
                                 "gk.dequantize(blocks, format)") from None
