"""Operators on numpy arrays: every one of the catalogue by its name, and those that users bring."""

from __future__ import annotations

from ..errors import UnsupportedOpError
from ..scalar.catalog import CATALOG
from .op import Op
from .products import gemm, matmul
from .user import compile_c, operator, register

__all__ = ["Op", "compile_c", "gemm", "matmul", "operator", "register", *(row.name for row in CATALOG)]


def __getattr__(name: str) -> Op:
    try:
        return Op.named(name)
    except UnsupportedOpError as unknown:
        raise AttributeError(str(unknown)) from None
