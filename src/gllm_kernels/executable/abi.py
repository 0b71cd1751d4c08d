"""Where CPython and numpy keep what a native function must read, probed before it is used.

`gk_fastcall` (scalar/runtime_python.c) reads array objects directly: type, data, nd, dimensions,
descr, flags. The offsets follow from `PyObject_HEAD` and numpy's `PyArrayObject_fields`, which has
kept its order since numpy 1.0 (numpy/ndarraytypes.h). Each is checked here on live objects; if any
differs, or this Python is not the ordinary CPython, calls go through ctypes instead.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

PAYLOAD = 32  # of a bytes object: head 16, size 8, hash 8; the constant in gk_fastcall

C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400  # numpy/ndarraytypes.h


@dataclass(frozen=True)
class Abi:
    """`struct abi` as int64 words; the array is kept alive because descriptors point to it."""

    words: np.ndarray

    @property
    def address(self) -> int:
        return self.words.ctypes.data


@cache
def abi() -> Abi | str:
    """The probed layout, or the reason why this interpreter's objects cannot be read."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} is not CPython"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "free-threaded build"
    offsets = _offsets()
    wrong = next(_differences(offsets), None)
    if wrong:
        return wrong
    singletons = map(id, (np.ndarray, float, int, None, NotImplemented))
    return Abi(np.array([*offsets.values(), *singletons, *_functions()], np.int64))


def _offsets() -> dict[str, int]:
    head = object.__basicsize__  # reference count and type pointer
    return {
        "type": head - 8,
        "data": head,
        "nd": head + 8,
        "dims": head + 16,  # then strides and base
        "descr": head + 40,
        "flags": head + 48,
        "float_value": head,
    }


def _differences(offsets: dict[str, int]) -> Iterator[str]:
    """What a live object holds at an offset, against what Python says of it."""
    if bytes.__basicsize__ != PAYLOAD + 1 or np.ndarray.__basicsize__ < offsets["flags"] + 4:
        yield "objects have another size"
        return
    if _word(id(2.5) + offsets["type"]) != id(float):
        yield "the type pointer is elsewhere"
        return
    value = 2.5
    if ctypes.c_double.from_address(id(value) + offsets["float_value"]).value != value:
        yield "the value of a float is elsewhere"
    mark = b"a payload to be found"
    if ctypes.string_at(id(mark) + PAYLOAD, len(mark)) != mark:
        yield "the payload of bytes is elsewhere"
    for array in _samples():
        yield from _array_differences(array, offsets)


def _samples() -> Iterator[np.ndarray]:
    yield np.arange(6, dtype=np.float32).reshape(2, 3)
    yield np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1)[1:]
    frozen = np.zeros(5, np.float32)
    frozen.flags.writeable = False
    yield frozen
    yield np.zeros((), np.float32)


def _array_differences(array: np.ndarray, offsets: dict[str, int]) -> Iterator[str]:
    at = {name: id(array) + offset for name, offset in offsets.items()}
    if _word(at["type"]) != id(np.ndarray):
        yield "the type pointer of an array is elsewhere"
    elif _word(at["data"]) != array.ctypes.data:
        yield "the data pointer of an array is elsewhere"
    elif _word(at["descr"]) != id(array.dtype):
        yield "the dtype of an array is elsewhere, or no singleton"
    elif ctypes.c_int32.from_address(at["nd"]).value != array.ndim:
        yield "the rank of an array is elsewhere"
    elif ctypes.c_int32.from_address(at["flags"]).value != array.flags.num:
        yield "the flags of an array are elsewhere"
    else:
        extents = [_word(_word(at["dims"]) + 8 * i) for i in range(array.ndim)]
        if extents != list(array.shape):
            yield "the dimensions of an array are elsewhere"


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _functions() -> list[int]:
    names = (
        "Py_IncRef",
        "PyEval_SaveThread",
        "PyEval_RestoreThread",
        "PyFloat_FromDouble",
        "PyLong_AsLongAndOverflow",
    )
    found = [getattr(ctypes.pythonapi, name) for name in names]
    return [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in found]
