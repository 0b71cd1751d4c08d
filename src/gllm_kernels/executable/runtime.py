"""The run-time object (C sources in `scalar/runtime_*.c`): loaded once, at the first use."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

from ..scalar import LoadedObject, load_object
from ..scalar.loader import OBJECTS

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


@dataclass(frozen=True, slots=True)
class Runtime:
    """Its functions as callables, and the addresses of those that programs call."""

    loaded: LoadedObject
    team_bytes: int
    team_grow: ctypes._CFuncPtr
    team_stop: ctypes._CFuncPtr
    run: ctypes._CFuncPtr

    def address(self, name: str) -> int:
        """Where C function `name` begins, as in `address("gk_call_scalar")`."""
        return self.loaded.address(name)


@cache
def runtime() -> Runtime:
    """A call through CFUNCTYPE releases the interpreter lock while it runs."""
    loaded = load_object(OBJECTS / "x86_64_runtime.o")

    def function(name: str, result: object, *arguments: object) -> ctypes._CFuncPtr:
        return ctypes.CFUNCTYPE(result, *arguments)(loaded.address(name))

    return Runtime(
        loaded,
        function("gk_team_bytes", _INT)(),
        function("gk_team_grow", _INT, _POINTER, _INT),
        function("gk_team_stop", None, _POINTER),
        function("gk_run", None, _POINTER, _POINTER),
    )
