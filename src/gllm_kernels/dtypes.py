"""Element types: what numpy calls them, what a parameter of a trace calls them, their bytes, and
the type in which their elements are computed.

Arithmetic is f32, f64, i32 or i64. Every other type is a way to store: a load widens, which is
exact; a store of a float rounds to nearest even (NaN stays NaN, what is too large becomes
infinite), a store of an integer keeps its low bits, as in C.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import ml_dtypes
import numpy as np

# C type of an array -> (numpy's name, type in arithmetic); the first of a numpy type is its own
# fmt: off
ELEMENTS: dict[str, tuple[str, str]] = {
    "float":   ("float32",  "f32"), "double":   ("float64",  "f64"),
    "f16":     ("float16",  "f32"), "bf16":     ("bfloat16", "f32"),
    "int8_t":  ("int8",     "i32"), "uint8_t":  ("uint8",    "i32"),
    "int16_t": ("int16",    "i32"), "uint16_t": ("uint16",   "i32"),
    "int32_t": ("int32",    "i32"), "uint32_t": ("uint32",   "i32"),
    "int64_t": ("int64",    "i64"), "uint64_t": ("uint64",   "i64"),
    "bool":    ("bool",     "i32"),
}
ALIASES = {
    "_Bool": "bool", "signed char": "int8_t", "char": "int8_t", "unsigned char": "uint8_t",
    "short": "int16_t", "unsigned short": "uint16_t", "int": "int32_t", "unsigned": "uint32_t",
    "unsigned int": "uint32_t", "long": "int64_t", "unsigned long": "uint64_t",
    "long long": "int64_t", "unsigned long long": "uint64_t",
    "size_t": "uint64_t", "ptrdiff_t": "int64_t",
}
# fmt: on
ELEMENTS |= {name: ELEMENTS[own] for name, own in ALIASES.items()}
STORED = {c: np.dtype(ml_dtypes.bfloat16 if n == "bfloat16" else n)
          for c, (n, _) in ELEMENTS.items()}
SIZE = {ctype: dtype.itemsize for ctype, dtype in STORED.items()}
DTYPES = {ctype: name for ctype, (name, _) in ELEMENTS.items()}
CTYPES: dict[str, str] = {}
for _ctype, (_name, _) in ELEMENTS.items():
    CTYPES.setdefault(_name, _ctype)
ITEMSIZE = {name: SIZE[ctype] for name, ctype in CTYPES.items()}
WHOLE: set[str] = set()  # types of quantised weights
FLOATS = frozenset(("float32", "float16", "bfloat16"))  # one may stand for another
NARROW = ("float16", "bfloat16")


@cache
def name_of(dtype: np.dtype) -> str:
    """`dtype.name`, which numpy composes anew every time, in microseconds."""
    return dtype.name


def add_storage(name: str) -> None:
    """A way to store whole weights that no single element can be read from; bytes are counted."""
    WHOLE.add(name)
    ELEMENTS[name], STORED[name], SIZE[name] = (name, "f32"), np.dtype(np.uint8), 1
    DTYPES[name] = CTYPES[name] = name
    ITEMSIZE[name] = 1


def result_type(dtypes: Iterable[str]) -> str:
    """What an operator on these arrays gives, as numpy promotes: their type if all have one, else
    float32."""
    found = FLOATS.intersection(dtypes)
    return next(iter(found)) if len(found) == 1 else "float32"


def arithmetic(ctype: str) -> str:
    """f32, f64, i32 or i64: how elements of an array of this C type are computed."""
    return ELEMENTS[ctype][1]


def bounds(ctype: str) -> tuple[int, int]:
    """The smallest and largest element of an array of integers, as arithmetic sees it: 32 and 64
    bits are signed there, whatever they are called."""
    name, kind = ELEMENTS[ctype]
    if name == "bool":
        return 0, 1
    whole = np.iinfo(name if STORED[ctype].itemsize < 4 else {"i32": "int32"}.get(kind, "int64"))
    return int(whole.min), int(whole.max)
