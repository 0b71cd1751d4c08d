"""Operators on numpy arrays: every one of the catalogue by its name, and those that users bring."""

from __future__ import annotations

from ..errors import UnsupportedOpError
from ..scalar.catalog import CATALOG
from .op import Op
from .prepacked import PackedB, pack_b
from .qtensor import QTensor
from .products import gemm, gemm_bias_act, gemm_prepacked, matmul
from .user import compile_c, operator, register
from .weights import compile_format, dequantize, register_format

__all__ = ["Op", "PackedB", "QTensor", "compile_c", "compile_format", "dequantize", "gemm", "gemm_bias_act", "gemm_prepacked", "matmul", "operator", "pack_b", "register", "register_format", *(row.name for row in CATALOG)]


def __getattr__(name: str) -> Op:
    try:
        return Op.named(name)
    except UnsupportedOpError as unknown:
        raise AttributeError(str(unknown)) from None
