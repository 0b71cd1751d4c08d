"""Element types: what numpy calls them, what a parameter of a trace calls them, and their bytes.

Arithmetic is float32. The 16-bit types are ways to store: a load widens, which is exact, and a
store rounds to nearest even (NaN stays NaN, what is too large becomes infinite).
"""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np

ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "int64": 8}
CTYPES = {"float32": "float", "float16": "f16", "bfloat16": "bf16"}  # of a pointer in a trace
STORED = {"float": np.dtype(np.float32), "f16": np.dtype(np.float16),
          "bf16": np.dtype(ml_dtypes.bfloat16)}
SIZE = {ctype: dtype.itemsize for ctype, dtype in STORED.items()}
FLOATS = frozenset(CTYPES)
NARROW = ("float16", "bfloat16")


def result_type(dtypes: Iterable[str]) -> str:
    """What an operator on these arrays gives, as numpy promotes: their type if all have one, else
    float32."""
    found = FLOATS.intersection(dtypes)
    return next(iter(found)) if len(found) == 1 else "float32"
