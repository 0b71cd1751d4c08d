"""A compiled graph as something to call: arrays in, arrays out, one call into native code.

    layer(x=array, pos=7) -> {"y": array}

Every shape and type is checked before a pointer leaves Python; dynamic dimensions are bound from
the arrays' shapes, the others are given by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError
from ..fusion.plan import FusionPlan
from ..graph.ir import Buffer, Graph
from ..trace.affine import Affine
from .link import LoadedKernel
from .program import Program

Array = npt.NDArray[np.generic]


@dataclass
class CompiledLayer:
    """`plan` says what was fused and why; `kernels` are the distinct pieces of code by name."""

    graph: Graph
    plan: FusionPlan
    program: Program
    constants: dict[str, Array]
    states: dict[str, Array]
    compile_ms: float
    kernels: tuple[LoadedKernel, ...] = ()
    threads: int | None = None
    external: tuple[Buffer, ...] = field(init=False)

    def __post_init__(self) -> None:
        given = [b.name for b in self.program.buffers if b.kind == "external"]
        self.external = tuple(self.graph.buffer(name) for name in given)
        self.bounds = tuple({(b.need, b.have): b for b in self.graph.bounds}.values())

    def __call__(
        self, out: Mapping[str, Array] | None = None, **values: Array | int
    ) -> dict[str, Array]:
        """Inputs and free dimensions by name; `out` may hold arrays to write the results to."""
        floats = {n: _number(n, values.pop(n, None)) for n in self.program.floats}
        arrays, dims = self._bind(values)
        results = {name: self._result(name, view.shape, view.dtype, (out or {}).get(name), dims)
                   for name, view in self.graph.outputs}
        named = {view.buffer: results[name] for name, view in self.graph.outputs}
        address = {n: a.ctypes.data for n, a in {**arrays, **named}.items()}
        where = [address[b.name] for b in self.external]
        self.program.run(where, dims, self.threads, floats)
        return results

    def disasm(self) -> str:
        """Every distinct kernel, with the groups that run it: instructions beside the kernel
        operation and the trace value they came from."""
        return "\n\n".join(f"; {', '.join(self.users(k))}\n{k.code}" for k in self.kernels)

    def users(self, kernel: LoadedKernel) -> list[str]:
        """Names of the groups that run a kernel, each once."""
        return list(dict.fromkeys(s.name for s in self.program.steps if s.code == kernel.address))

    # -- binding --------------------------------------------------------------------------------
    def _bind(self, values: Mapping[str, Array | int]) -> tuple[dict[str, Array], dict[str, int]]:
        inputs = [b for b in self.graph.buffers if b.kind == "input"]
        arrays = {b.name: _checked(b, values.get(b.name)) for b in inputs}
        dims = {n: _dimension(n, v) for n, v in values.items() if n not in arrays}
        dims = self.dims_of(arrays, dims)
        unknown = set(dims) - set(self.program.dims)
        missing = set(self.program.dims) - set(dims)
        if unknown or missing:
            word, names = ("unknown", unknown) if unknown else ("missing", missing)
            raise ShapeError(
                f"{word} argument `{sorted(names)[0]}`; the layer takes "
                f"{', '.join([b.name for b in inputs] + list(self.program.dims))}"
            )
        for bound in self.bounds:
            bound.check(dims)
        return arrays, dims

    def dims_of(self, arrays: Mapping[str, Array], given: Mapping[str, int]) -> dict[str, int]:
        """The dynamic dimensions: those given, and those that the inputs' shapes tell."""
        dims = dict(given)
        for buffer in (b for b in self.graph.buffers if b.kind == "input"):
            _bind_shape(buffer, arrays[buffer.name].shape, dims)
        return dims

    def _result(
        self,
        name: str,
        shape: tuple[Affine, ...],
        dtype: str,
        given: Array | None,
        dims: Mapping[str, int],
    ) -> Array:
        wanted = tuple(s.evaluate(dims) for s in shape)
        if given is None:
            return np.empty(wanted, dtype)
        if (given.shape, given.dtype) != (wanted, np.dtype(dtype)) or not given.flags.c_contiguous:
            raise ShapeError(
                f"out[{name!r}]: wanted a C-contiguous {dtype}{wanted}, got "
                f"{given.dtype}{given.shape}"
            )
        if not given.flags.writeable:
            raise ShapeError(f"out[{name!r}] is read-only")
        return given


def _checked(buffer: Buffer, value: object) -> Array:
    """The array of an input: right type and rank, contiguous (copied when it is not)."""
    if value is None:
        raise ShapeError(f"missing argument `{buffer.name}`")
    array = np.asarray(value)
    if array.dtype != np.dtype(buffer.dtype):
        raise ShapeError(
            f"`{buffer.name}` has dtype {array.dtype}, wanted {buffer.dtype}; "
            f"convert it with .astype(np.{buffer.dtype})"
        )
    if array.ndim != len(buffer.shape):
        raise ShapeError(
            f"`{buffer.name}` has shape {array.shape}, wanted {len(buffer.shape)} axes "
            f"({', '.join(map(str, buffer.shape))})"
        )
    return np.ascontiguousarray(array)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise ShapeError(f"`{name}`={value!r}: wanted a number")
    return float(value)


def _dimension(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ShapeError(f"`{name}`={value!r}: wanted a non-negative integer")
    return int(value)


def _bind_shape(buffer: Buffer, shape: tuple[int, ...], dims: dict[str, int]) -> None:
    """Dimensions that are one symbol take their value here; every other one must agree."""
    for axis, (want, have) in enumerate(zip(buffer.shape, shape)):
        if len(want.terms) == 1 and want.terms[0][0] == 1 and len(want.terms[0][1]) == 1:
            dims.setdefault(want.terms[0][1][0], have)
        if want.symbols <= dims.keys() and want.evaluate(dims) != have:
            raise ShapeError(
                f"axis {axis} of `{buffer.name}` has size {have}, wanted "
                f"{want.evaluate(dims)} ({want})"
            )
