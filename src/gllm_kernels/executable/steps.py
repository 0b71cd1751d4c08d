"""Steps of the run-time's own code: calling a scalar operator, copying a strided view.

Both argument blocks are fixed layouts of 64-bit slots, read by `scalar/runtime_step.c`:

    gk_call_scalar  {code, result kind, result, result step, 14 integers, 14 steps, 8 floats}
    gk_copy ...     {from, to, 5 extents, 5 strides of from, 5 strides of to}

A unit of a call is one call: in unit u every integer or pointer has grown by u times its step (in
bytes for a pointer). A unit of a copy is one innermost row; copies may convert.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dtypes import DTYPES, ITEMSIZE
from ..errors import CompileError
from ..trace.affine import Affine
from .program import ONE, ONE_TILE, ZERO, FloatSlot, IntSlot, PointerSlot, Slot, Step
from .runtime import runtime

MAX_INTEGERS, MAX_FLOATS, MAX_RANK = 14, 8, 5
# (type of the source, of the target) -> the copy; a 16-bit type is converted to or from float32
COPIES = {
    (4, 4): "gk_copy", (1, 1): "gk_copy_8", (2, 2): "gk_copy_16", (8, 8): "gk_copy_64",
    ("float16", "float32"): "gk_widen_f16", ("float32", "float16"): "gk_round_f16",
    ("bfloat16", "float32"): "gk_widen_bf16", ("float32", "bfloat16"): "gk_round_bf16",
}
# by numpy's name of the C type
RESULT_KINDS = {"void": 0, "float32": 1, "int64": 2, "uint64": 2, "int32": 3, "uint32": 3,
                "float64": 4}


@dataclass(frozen=True, slots=True)
class ScalarCall:
    """result[u] = code(arguments + u * steps) for every unit u.

    `arguments` stand in the order of the C declaration; `steps` (bytes for a pointer) belong to
    the integer and pointer arguments, in order, and default to zero. `returns` is the C type.
    """

    code: int
    arguments: tuple[Slot, ...]
    returns: str = "void"
    result: PointerSlot | None = None
    result_step: Affine = ZERO
    steps: tuple[Affine, ...] = ()
    units: Affine = ONE
    name: str = ""

    def step(self) -> Step:
        """The program step, its arguments sorted into the two register classes of the ABI."""
        integers = [a for a in self.arguments if not isinstance(a, FloatSlot)]
        floats = [a for a in self.arguments if isinstance(a, FloatSlot)]
        self._check(len(integers), len(floats))
        slots: list[Slot] = [
            _int(self.code),
            _int(RESULT_KINDS[self._returned]),
            self.result or _int(0),
            IntSlot(self.result_step),
            *_padded(integers, MAX_INTEGERS),
            *_padded([IntSlot(s) for s in self.steps], MAX_INTEGERS),
            *_padded(floats, MAX_FLOATS),
        ]
        grain = ONE_TILE if self.units == ONE else 1
        code = runtime().address("gk_call_scalar")
        return Step(code, tuple(slots), self.units, grain, self.name)

    @property
    def _returned(self) -> str:
        return DTYPES.get(self.returns, self.returns)

    def _check(self, integers: int, floats: int) -> None:
        what = f"call of {self.name or hex(self.code)}"
        if integers > MAX_INTEGERS or floats > MAX_FLOATS:
            raise CompileError(
                f"{what}: {integers} integers and {floats} floats; the call passes at most "
                f"{MAX_INTEGERS} and {MAX_FLOATS}"
            )
        if self._returned not in RESULT_KINDS:
            known = ", ".join(RESULT_KINDS)
            raise CompileError(f"{what}: returns {self.returns!r}; known are {known}")
        if (self.returns == "void") != (self.result is None):
            raise CompileError(f"{what}: a result needs a place, and only a result does")
        if len(self.steps) > integers:
            raise CompileError(f"{what}: {len(self.steps)} steps for {integers} integers")


@dataclass(frozen=True, slots=True)
class StridedCopy:
    """to[i, j, ...] = source[i, j, ...] for all indices below `extents`, outermost first.

    Strides are in elements, zero (repeat) and negative ones included; `dtypes` are those of the
    source and of the target.
    """

    source: PointerSlot
    to: PointerSlot
    extents: tuple[Affine, ...]
    source_strides: tuple[Affine, ...]
    to_strides: tuple[Affine, ...]
    grain: int = ONE_TILE
    name: str = "copy"
    dtypes: tuple[str, str] = ("float32", "float32")

    @property
    def code(self) -> str:
        """The function of the run-time that copies between the two types."""
        source, target = self.dtypes
        key = (ITEMSIZE[source],) * 2 if source == target else self.dtypes
        if key not in COPIES:
            raise CompileError(f"{self.name}: no copy from {source} to {target}; go by float32")
        return COPIES[key]

    def step(self) -> Step:
        """The program step; missing outer extents are 1."""
        rank = len(self.extents)
        if not 1 <= rank <= MAX_RANK:
            raise CompileError(f"{self.name}: rank {rank}; a copy has 1 to {MAX_RANK} dimensions")
        if not len(self.source_strides) == len(self.to_strides) == rank:
            raise CompileError(f"{self.name}: every one of the {rank} extents has two strides")
        lead = MAX_RANK - rank
        rows = [(ONE,) * lead + self.extents]
        rows += [(ZERO,) * lead + s for s in (self.source_strides, self.to_strides)]
        units = ONE
        for extent in self.extents[:-1]:
            units = units * extent
        slots = (self.source, self.to, *(IntSlot(value) for row in rows for value in row))
        return Step(runtime().address(self.code), slots, units, self.grain, self.name)


def _int(value: int) -> IntSlot:
    return IntSlot(Affine.const(value))


def _padded(slots: list[Slot], size: int) -> list[Slot]:
    return slots + [_int(0)] * (size - len(slots))
