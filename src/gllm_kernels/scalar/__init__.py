"""The operators as scalar C functions: sources, catalogue, and the object they are loaded from."""

from __future__ import annotations

from functools import cache

from .catalog import CATALOG, ScalarOp, ScalarOpRegistry
from .loader import OBJECTS, LoadedObject, load_object

__all__ = ["CATALOG", "LoadedObject", "ScalarOp", "ScalarOpRegistry", "library", "load_object"]


@cache
def library() -> LoadedObject:
    """The committed object of the operators, mapped at the first call."""
    return load_object(OBJECTS / "x86_64.o")
