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

from ..dtypes import WHOLE
from ..errors import ShapeError
from ..fusion.plan import FusionPlan
from ..graph.ir import Buffer, Graph
from ..trace.affine import Affine
from .link import LoadedKernel
from .program import Program

Array = npt.NDArray[np.generic]
MAX_DIM = 1 << 40  # keeps every product of two sizes within 64 bits of bytes


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
        self._check_names(values, out or {})
        floats = {n: _number(n, values[n]) for n in self.program.floats}
        arrays, dims = self._bind({n: v for n, v in values.items() if n not in floats})
        results = {name: self._result(name, view.shape, view.dtype, (out or {}).get(name), dims)
                   for name, view in self.graph.outputs}
        _check_apart(results, {**arrays, **self.states} if out else {})
        self.run(arrays, results, dims, floats)
        return results

    def run(self, arrays: Mapping[str, Array], results: Mapping[str, Array],
            dims: Mapping[str, int], floats: Mapping[str, float]) -> None:
        """The call behind `__call__`, for arguments that have been checked."""
        named = {view.buffer: results[name] for name, view in self.graph.outputs}
        address = {n: a.ctypes.data for n, a in {**arrays, **named}.items()}
        where = [address[b.name] for b in self.external]
        self.program.run(where, dims, self.threads, floats)

    def _check_names(self, values: Mapping[str, object], out: Mapping[str, object]) -> None:
        """Every argument is known and none is missing."""
        inputs = [b.name for b in self.graph.buffers if b.kind == "input"]
        bound = {s for b in self.graph.buffers if b.kind == "input" for size in b.shape
                 for s in size.symbols}
        wanted = {*inputs, *self.program.floats, *(set(self.program.dims) - bound)}
        known = wanted | set(self.program.dims)
        for names, word in ((set(values) - known, "unknown"), (wanted - set(values), "missing")):
            if names:
                takes = [*inputs, *self.program.floats, *self.program.dims]
                raise ShapeError(f"{word} argument `{sorted(names)[0]}`; the layer takes "
                                 f"{', '.join(takes)}")
        strange = set(out) - {name for name, _ in self.graph.outputs}
        if strange:
            raise ShapeError(f"out[{sorted(strange)[0]!r}]: the layer has no such output")

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
        self.check(arrays, dims)
        return arrays, dims

    def check(self, arrays: Mapping[str, Array], dims: Mapping[str, int]) -> None:
        """Every access of the coming call lies inside its array."""
        self.check_indexes(arrays, dims)
        for bound in self.bounds:
            bound.check(dims)

    def dims_of(self, arrays: Mapping[str, Array], given: Mapping[str, int]) -> dict[str, int]:
        """The dynamic dimensions: those given, and those that the inputs' shapes tell."""
        dims = dict(given)
        inputs = [b for b in self.graph.buffers if b.kind == "input"]
        for buffer in inputs:
            _bind_shape(buffer, arrays[buffer.name].shape, dims)
        for buffer in inputs:
            _check_shape(buffer, arrays[buffer.name].shape, dims)
        return dims

    def check_indexes(self, arrays: Mapping[str, Array], dims: Mapping[str, int]) -> None:
        """Index arrays address what exists: their values are looked at before every call."""
        for node in self.graph.nodes:
            for param, size in node.op.indexes:
                view = dict(node.inputs)[param]
                if view.buffer not in arrays:
                    raise ShapeError(f"{node.name}: `{param}` must be an input of the graph, so "
                                     "that its values can be checked")
                count = dict(node.dims)[size].evaluate(dims)
                _check_indices(f"{node.op.name}: `{view.buffer}`", arrays[view.buffer], count)

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
    if buffer.dtype in WHOLE and getattr(value, "storage", None) != buffer.dtype:
        raise ShapeError(f"`{buffer.name}` is a quantised weight stored as {buffer.dtype}")
    if getattr(value, "panels", None) is not None:  # in a form of its own, and checked by its maker
        return value
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
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < MAX_DIM:
        shown = value if isinstance(value, (int, float, str)) else type(value).__name__
        raise ShapeError(f"`{name}`={shown}: wanted a non-negative integer below 2**40")
    return int(value)


def _bind_shape(buffer: Buffer, shape: tuple[int, ...], dims: dict[str, int]) -> None:
    """Dimensions that are one symbol, or a multiple of it, take their value here."""
    for axis, (want, have) in enumerate(zip(buffer.shape, shape)):
        if len(want.terms) == 1 and len(want.terms[0][1]) == 1:
            (coef, (name,)), = want.terms
            if have % coef:
                raise ShapeError(f"axis {axis} of `{buffer.name}` has size {have}, which must be "
                                 f"a multiple of {coef} ({want})")
            dims.setdefault(name, have // coef)


def _check_shape(buffer: Buffer, shape: tuple[int, ...], dims: Mapping[str, int]) -> None:
    """Every axis has the size that the dimensions give it."""
    for axis, (want, have) in enumerate(zip(buffer.shape, shape)):
        wanted = want.evaluate(dims) if want.symbols <= dims.keys() else have
        if wanted != have:
            raise ShapeError(f"axis {axis} of `{buffer.name}` has size {have}, wanted {wanted} ({want})")


def _check_apart(results: Mapping[str, Array], others: Mapping[str, Array]) -> None:
    """Results the caller gave share no memory with what is read, or with each other."""
    seen = dict(others)
    for name, array in results.items():
        for other, memory in seen.items():
            if isinstance(memory, np.ndarray) and np.may_share_memory(array, memory):
                raise ShapeError(f"out[{name!r}] shares memory with `{other}`; give it its own")
        seen[f"out {name}"] = array


def _check_indices(what: str, array: Array, count: int) -> None:
    if array.size and not (0 <= int(array.min()) and int(array.max()) < count):
        bad = np.flatnonzero((array < 0) | (array >= count))[0]
        raise ShapeError(f"{what}[{bad}] is {array.flat[bad]}; it must lie in 0..{count - 1}")
