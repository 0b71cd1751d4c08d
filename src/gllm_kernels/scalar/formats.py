"""Weight formats: one row each, beside the C function that decodes one block of it.

Adding a format is a C function `void decode_<name>(const uint8_t *block, float *out)` in `blocks/`
and a row below; `gguf` is the number of the type in a GGUF file. Nothing else describes it: what
kernels need is derived from the machine code of the decoder.
"""

from __future__ import annotations

import ctypes
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ..errors import FormatError
from .loader import OBJECTS, LoadedObject, load_object

PREFIX = "decode_"
ARGUMENTS = "(const uint8_t *block, float *out)"
OBJECT = OBJECTS / "x86_64_blocks.o"


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A row: `values` floats are stored in `size` bytes."""

    name: str
    values: int
    size: int
    gguf: int | None = None

    @property
    def symbol(self) -> str:
        """The name of the C function: `decode_q4_k` for Q4_K."""
        return PREFIX + self.name.lower()

    @property
    def declaration(self) -> str:
        return f"void {self.symbol}{ARGUMENTS}"


@dataclass(slots=True)
class FormatRegistry:
    """Formats by name, whose spelling counts, and where a decoder lies in this process."""

    rows: dict[str, WeightFormat] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)  # of decoders that users bring

    def register(self, row: WeightFormat, address: int) -> WeightFormat:
        """Add a format that a user brings; one of the same name must be the same row."""
        if self.rows.setdefault(row.name, row) != row or row in ROWS:
            raise FormatError(f"weight format {row.name!r} is there already, {self.rows[row.name]}; "
                              "give the decoder another name")
        self.addresses[row.name] = address
        return row

    def lookup(self, name: str) -> WeightFormat:
        """The row of `name`, or an error that names the nearest spelling."""
        if isinstance(name, str) and name in self.rows:
            return self.rows[name]
        near = difflib.get_close_matches(str(name).upper(), self.rows, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.rows)}"
        raise FormatError(f"no weight format {name!r}; {hint}")

    def address(self, name: str) -> int:
        """Where the decoder of a format is."""
        return self.addresses.get(name) or decoders().address(self.rows[name].symbol)

    def __iter__(self) -> Iterator[WeightFormat]:
        return iter(self.rows.values())


def call_each(address: int, blocks: np.ndarray, out: np.ndarray) -> None:
    """Call a decoder on every row of `blocks` (n, size), C-contiguous like `out` (n, values)."""
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)
    source, target = blocks.ctypes.data, out.ctypes.data
    for k in range(len(blocks)):
        function(source + k * blocks.shape[1], target + 4 * k * out.shape[1])


@cache
def decoders() -> LoadedObject:
    """The committed object of the decoders, mapped at the first call."""
    return load_object(OBJECT)


# fmt: off
ROWS: tuple[WeightFormat, ...] = tuple(WeightFormat(*row) for row in (
    ("Q4_0", 32, 18, 2), ("Q4_1", 32, 20, 3), ("Q5_0", 32, 22, 6), ("Q5_1", 32, 24, 7),
    ("Q8_0", 32, 34, 8), ("Q8_1", 32, 36, 9),
    ("Q2_K", 256, 84, 10), ("Q3_K", 256, 110, 11), ("Q4_K", 256, 144, 12), ("Q5_K", 256, 176, 13),
    ("Q6_K", 256, 210, 14), ("Q8_K", 256, 292, 15),
    ("IQ2_XXS", 256, 66, 16), ("IQ2_XS", 256, 74, 17), ("IQ3_XXS", 256, 98, 18),
    ("IQ1_S", 256, 50, 19), ("IQ4_NL", 32, 18, 20), ("IQ3_S", 256, 110, 21),
    ("IQ2_S", 256, 82, 22), ("IQ4_XS", 256, 136, 23), ("IQ1_M", 256, 56, 29),
    ("TQ1_0", 256, 54, 34), ("TQ2_0", 256, 66, 35), ("MXFP4", 32, 17, 39), ("NVFP4", 64, 36, 40),
    ("FP8_E4M3", 1, 1), ("FP8_E5M2", 1, 1),
    ("AWQ4", 128, 72), ("GPTQ4", 128, 72), ("SQUEEZE", 256, 130),
    ("INT8", 1, 1), ("INT4", 2, 1), ("INT2", 4, 1), ("INT1", 8, 1),
))
# fmt: on

FORMATS = FormatRegistry({row.name: row for row in ROWS})
