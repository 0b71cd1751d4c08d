"""An operator on numpy arrays.

    op(x, w, eps=1e-5, out=None)

Arrays that the scalar function reads come in declaration order or by name, scalars and free
dimensions by name; float arrays may be float32, float16 or bfloat16. Outputs and the other dimensions follow from the shapes. Leading axes beyond the
operator's own are a batch. In/out arrays are updated in place and returned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from inspect import Parameter, Signature
from math import prod
from types import NotImplementedType

import numpy as np
import numpy.typing as npt

from ..config import current
from ..codegen.isa.detect import current_isa_name
from ..dtypes import FLOATS, NARROW, name_of, result_type
from ..errors import ShapeError
from ..executable.layer import MAX_DIM, CompiledLayer
from ..graph.ir import CompilerGraph
from ..graph.operator import Operator
from ..graph.registry import operator_named
from ..pipeline import compile_graph
from ..trace.affine import Affine
from ..trace.ir import OpTrace
from .fast import Plain, packed_copies, plain_call, refuse

Array = npt.NDArray[np.generic]
BATCH = "batch"
Types = tuple[str, ...]  # numpy's names of the inputs' types and of the result's; (): as declared


@dataclass
class Op:
    """Callable; `print(op)` shows the trace, `op.operator` goes into graphs."""

    operator: Operator
    layers: dict[tuple[str, frozenset[str], Types], CompiledLayer] = field(default_factory=dict)
    plain: dict[tuple[str, int], Plain] = field(default_factory=dict)  # by ISA and threads
    stored: dict[tuple, Plain] = field(default_factory=dict)  # and by types, `out` first

    @staticmethod
    @cache
    def named(name: str) -> Op:
        """The operator of this name as a function on arrays."""
        return Op(operator_named(name))

    @property
    def name(self) -> str:
        return self.operator.name

    @property
    def trace(self) -> OpTrace | None:
        return self.operator.trace

    def __call__(self, *arrays: Array, out: Array | None = None, **named: object) -> Array:
        result = self.short(arrays, out, named)
        if result is NotImplemented and not self._in_place:
            copies = packed_copies(arrays)
            result = self.short(copies, out, named) if copies else result
        if result is not NotImplemented:
            return result
        values = dict(named)
        given = self._arguments(arrays, values)
        types = self._types(given, out)
        key = _stored_key(arrays, out)
        if types and key not in self.stored:
            self.stored[key] = plain_call(self.operator, self.layer(types=types))
        scalars, free = self._values(values)
        return Call(self, given, scalars, free, out, types).run()

    def short(self, arrays: tuple[Array, ...], out: Array | None,
              named: dict[str, object]) -> Array | NotImplementedType:
        """The result where every array is plain, else NotImplemented."""
        settings = current()
        where = (settings.isa, settings.threads)
        plain = self.plain.get(where)
        if plain is None:
            plain = self.plain[where] = plain_call(self.operator, self.layer())
        result = plain(arrays, out, named)
        if result is NotImplemented and self.stored:
            return self.stored.get(_stored_key(arrays, out), refuse)(arrays, out, named)
        return result

    @cached_property
    def _in_place(self) -> bool:
        return bool(self.operator.names("inout"))

    @cached_property
    def _free(self) -> tuple[str, ...]:
        """Dimensions that no array tells."""
        return tuple(d for d in self.operator.names("dim") if not _solved(self.operator, d))

    @property
    def __doc__(self) -> str:
        """Formula and arguments, for help(op)."""
        return f"{self.operator.formula}\n\n{self!r}"

    @property
    def __signature__(self) -> Signature:
        """Arrays, then scalars and free dimensions by name, then `out`."""
        op, keyword = self.operator, Parameter.KEYWORD_ONLY
        defaults = dict(op.defaults)
        rows = [Parameter(p, Parameter.POSITIONAL_OR_KEYWORD) for p in op.inputs]
        rows += [Parameter(n, keyword, default=defaults.get(n, Parameter.empty))
                 for n in (*op.names("scalar"), *self._free)]
        return Signature([*rows, Parameter("out", keyword, default=None)])

    def __repr__(self) -> str:
        params = ", ".join(f"{p.role} {p.name}" for p in self.operator.params)
        return f"<operator {self.name}({params})>"

    def __str__(self) -> str:
        return str(self.trace) if self.trace else f"{self!r} opaque: {self.operator.opaque}"

    def layer(self, batched: frozenset[str] = frozenset(), types: Types = ()) -> CompiledLayer:
        """The compiled operator for any sizes; `batched` params have one more, leading, axis."""
        key = (current_isa_name(), batched, types)
        if key not in self.layers:
            self.layers[key] = self._compile(batched, types)
        return self.layers[key]

    def _types(self, arrays: dict[str, Array], out: object) -> Types:
        """How the inputs are stored and the result shall be; () when nothing is in 16 bits."""
        found = tuple([name_of(a.dtype) for a in arrays.values()])
        made = result_type(found)
        if isinstance(out, np.ndarray) and out.dtype.name in FLOATS:
            made = out.dtype.name
        elif self.operator.names("inout"):
            made = arrays[self.operator.names("inout")[0]].dtype.name
        return (*found, made) if set(NARROW).intersection((*found, made)) else ()

    def _compile(self, batched: frozenset[str], types: Types) -> CompiledLayer:
        op, graph = self.operator, CompilerGraph()
        lead = (Affine.sym(BATCH),)
        *stored, made = types or (*map(op.dtype, op.inputs), "float32")
        views = [graph.input(p, (lead if p in batched else ()) + _axes(op, p), dtype)
                 for p, dtype in zip(op.inputs, stored)]
        free = {d: d for d in self._free}
        graph.op(op, *views, dtype=made, **{s: s for s in op.names("scalar")}, **free)
        for param, view in graph.nodes[-1].outputs:
            graph.output(param, view)
        return compile_graph(graph)

    # -- arguments ------------------------------------------------------------------------------
    def _arguments(self, arrays: tuple[Array, ...], named: dict[str, object]) -> dict[str, Array]:
        names = self.operator.inputs
        if len(arrays) > len(names):
            raise ShapeError(f"{self.name} takes {len(names)} arrays ({', '.join(names)}), "
                             f"got {len(arrays)}; scalars and dimensions go by name")
        given = dict(zip(names, arrays))
        for name in names:
            if name in named:
                if name in given:
                    raise ShapeError(f"{self.name}: `{name}` was given twice")
                given[name] = named.pop(name)
        missing = [n for n in names if n not in given]
        if missing:
            raise ShapeError(f"{self.name}: array `{missing[0]}` is missing")
        return {n: _array(self.name, n, given[n], self.operator) for n in names}

    def _values(self, named: dict[str, object]) -> tuple[dict[str, float], dict[str, int]]:
        op, scalars, free = self.operator, dict(self.operator.defaults), {}
        for name, value in named.items():
            if name in op.names("scalar"):
                scalars[name] = _number(self.name, name, value)
            elif name in self._free:
                free[name] = _index(self.name, name, value)
            else:
                takes = [*op.inputs, *op.names("scalar"), *self._free, "out"]
                raise ShapeError(f"{self.name} has no argument `{name}`; it takes {', '.join(takes)}")
        missing = [n for n in (*op.names("scalar"), *self._free) if n not in scalars and n not in free]
        if missing:
            raise ShapeError(f"{self.name}: give `{missing[0]}=`")
        return scalars, free


@dataclass
class Call:
    """One call the checked way: shapes split into batch and own axes, results made, code run."""

    op: Op
    arrays: dict[str, Array]
    scalars: dict[str, float]
    free: dict[str, int]
    out: Array | tuple[Array, ...] | None
    types: Types

    def run(self) -> Array | tuple[Array, ...]:
        op = self.op.operator
        made = self._flat() if op.is_flat else self._ranked(op)
        return made if len(made) > 1 else made[0]

    def _flat(self) -> tuple[Array, ...]:
        """Elementwise: one shape for all, after broadcasting."""
        shape = self._common_shape()
        ins = {p: np.ascontiguousarray(np.broadcast_to(a, shape)).reshape(-1)
               for p, a in self.arrays.items()}
        layer = self.op.layer(types=self.types)
        return self._execute(layer, ins, self._dims(layer, ins), [shape] * len(layer.graph.outputs))

    def _dims(self, layer: CompiledLayer, ins: dict[str, Array]) -> dict[str, int]:
        return {**layer.dims_of(ins, self.free), **self.free}

    def _common_shape(self) -> tuple[int, ...]:
        shapes = {p: a.shape for p, a in self.arrays.items()}
        try:
            return np.broadcast_shapes(*shapes.values())
        except ValueError:
            listed = ", ".join(f"`{p}` {s}" for p, s in shapes.items())
            raise ShapeError(f"{self.op.name}: shapes do not broadcast: {listed}") from None

    def _ranked(self, op: Operator) -> tuple[Array, ...]:
        arrays, single = self._promote(op)
        lead, batched = self._split(op, arrays)
        ins = {}
        for param, array in arrays.items():
            own = array.shape[array.ndim - len(op.shape(param)):]
            flat = (prod(lead), *own) if param in batched else own
            ins[param] = np.ascontiguousarray(array).reshape(flat)
        layer = self.op.layer(batched, self.types)
        dims, shapes = self._dims(layer, ins), []
        for _, view in layer.graph.outputs:
            flat = tuple(s.evaluate(dims) for s in view.shape)
            shapes.append(lead + (flat[1:] if batched else flat)[1 if single else 0:])
        return self._execute(layer, ins, dims, shapes)

    def _promote(self, op: Operator) -> tuple[dict[str, Array], bool]:
        """One row for an operator over rows: rms_norm of (n,) is that of (1, n), squeezed again."""
        rows = {str(op.shape(p)[0]) for p in op.outputs if op.shape(p)}
        short = [p for p, a in self.arrays.items() if a.ndim == len(op.shape(p)) - 1]
        first = {str(op.shape(p)[0]) for p in short}
        if not short or len(rows) != 1 or first != rows:
            return self.arrays, False
        return {p: a[None] if p in short else a for p, a in self.arrays.items()}, True

    def _split(self, op: Operator,
               arrays: dict[str, Array]) -> tuple[tuple[int, ...], frozenset[str]]:
        """The batch shape, and which arrays have it."""
        leads = {}
        for param, array in arrays.items():
            own = op.shape(param)
            extra = array.ndim - len(own)
            if extra < 0:
                raise ShapeError(f"{op.name}: `{param}` has shape {array.shape}, wanted "
                                 f"({', '.join(map(str, own))}), or more axes in front for a batch")
            leads[param] = array.shape[:extra]
        lead = max(leads.values(), key=len, default=())
        for param, own in leads.items():
            if own not in ((), lead):
                raise ShapeError(f"{op.name}: `{param}` has batch axes {own}, another array {lead}")
        return lead, frozenset(p for p, own in leads.items() if own)

    def _execute(self, layer: CompiledLayer, ins: dict[str, Array], dims: dict[str, int],
                 shapes: list[tuple[int, ...]]) -> tuple[Array, ...]:
        outs = self._given(layer)
        targets, memory, flat = [], [], {}
        for (name, view), shape, out in zip(layer.graph.outputs, shapes, outs, strict=True):
            target = self._target(name, shape, view.dtype, out)
            place = target if self._direct(name, target, ins) else target.copy("C")
            flat[name] = place.reshape(tuple(s.evaluate(dims) for s in view.shape))
            targets.append(target)
            memory.append(place)
        layer.check(ins, dims)
        layer.run(ins, flat, dims, self.scalars)
        for target, place in zip(targets, memory, strict=True):
            if place is not target:
                np.copyto(target, place)
        return tuple(target if target.ndim else target[()] for target in targets)

    def _given(self, layer: CompiledLayer) -> tuple[Array | None, ...]:
        """`out` for every output: one array for one, a tuple for several."""
        names = [name for name, _ in layer.graph.outputs]
        if self.out is None or len(names) == 1:
            return (self.out,) * len(names)
        if not isinstance(self.out, tuple) or len(self.out) != len(names):
            raise ShapeError(f"{self.op.name} writes {', '.join(names)}: `out` must be a tuple of "
                             f"{len(names)} arrays")
        for k, array in enumerate(self.out):
            if any(np.may_share_memory(array, other) for other in self.out[:k]):
                raise ShapeError(f"{self.op.name}: two arrays of `out` overlap")
        return self.out

    def _direct(self, name: str, target: Array, ins: dict[str, Array]) -> bool:
        """Whether the kernel may write `target` itself: contiguous, and no input changes under it.

        An elementwise kernel reads element i before it writes element i, so the very same memory is
        fine; everything else goes through memory of its own.
        """
        def harmless(param: str, array: Array) -> bool:
            same = array.ctypes.data == target.ctypes.data and array.nbytes == target.nbytes
            return (self.op.operator.is_flat and same) or not np.may_share_memory(target, array)

        return target.flags.c_contiguous and all(harmless(p, a) for p, a in ins.items())

    def _target(self, name: str, shape: tuple[int, ...], dtype: str, out: Array | None) -> Array:
        """`out`, or the in/out argument, or new memory."""
        if out is None and name in self.arrays:
            out = self.arrays[name]
        if out is None:  # what no store covers is zero
            return (np.empty if self.op.operator.covers(name) else np.zeros)(shape, dtype)
        if not isinstance(out, np.ndarray) or out.dtype != np.dtype(dtype):
            kind = getattr(out, "dtype", type(out).__name__)
            raise ShapeError(f"{self.op.name}: `out` must be a {dtype} array, got {kind}")
        if out.shape != shape:
            raise ShapeError(f"{self.op.name}: `out` has shape {out.shape}, wanted {shape}")
        if not out.flags.writeable:
            what = name if out is self.arrays.get(name) else "out"
            raise ShapeError(f"{self.op.name}: `{what}` is read-only")
        return out


def _stored_key(arrays: tuple[object, ...], out: object) -> tuple[object, ...]:
    settings = current()
    return (settings.isa, settings.threads, getattr(out, "dtype", None),
            *(getattr(a, "dtype", None) for a in arrays))


def _axes(op: Operator, param: str) -> tuple[Affine, ...]:
    """Sizes of an array as dimensions of a call: one that is only bounded from below, such as the
    `pos + t` rows of a table, has a name of its own."""
    return tuple(size if len(size.terms) == 1 else Affine.sym(f"{param}.{axis}")
                 for axis, size in enumerate(op.shape(param)))


def _solved(op: Operator, dim: str) -> bool:
    """Whether some array's axis is just this dimension, or a multiple of it."""
    sizes = [size for p in op.inputs for size in op.shape(p)]
    return any(len(s.terms) == 1 and s.terms[0][1] == (dim,) for s in sizes)


def _array(op: str, name: str, value: object, operator: Operator) -> Array:
    wanted = operator.dtype(name)
    if not isinstance(value, np.ndarray):
        value = np.asarray(value)
    if not value.dtype.isnative:
        raise ShapeError(f"{op}: `{name}` is {value.dtype}, in the other byte order; convert it with "
                         f".astype(np.{value.dtype.name})")
    if name in dict(operator.indexes) and value.dtype.kind in "iu":
        return _narrow(op, name, value, wanted)
    given = name_of(value.dtype)
    if {given, wanted} == {"bool", "uint8"}:  # any byte but 0 is true
        return value.view(np.uint8) if wanted == "uint8" else value != 0
    if not operator.takes(name, given):
        other = f" (or {', '.join(NARROW)})" if wanted in FLOATS else ""
        raise ShapeError(f"{op}: `{name}` has dtype {value.dtype}, wanted {wanted}{other}; "
                         f"convert it with .astype(np.{wanted})")
    return value


def _narrow(op: str, name: str, value: Array, wanted: str) -> Array:
    """Indices of any integer type, as the type that the operator reads."""
    limits = np.iinfo(wanted)
    if value.size and not (limits.min <= int(value.min()) and int(value.max()) <= limits.max):
        raise ShapeError(f"{op}: `{name}` holds values beyond {wanted}")
    return value.astype(wanted, copy=False)


def _number(op: str, name: str, value: object) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ShapeError(f"{op}: `{name}` is no float: {type(value).__name__}") from None


def _index(op: str, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < MAX_DIM:
        raise ShapeError(f"{op}: `{name}`={value!r}: wanted a non-negative integer below 2**40")
    return int(value)
