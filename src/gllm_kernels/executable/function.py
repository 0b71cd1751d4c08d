"""A kernel as a Python function on numpy arrays, without ctypes' cost.

    spec = FastCall(address, (ArraySpec("x", ("*n",)), ArraySpec("out", ("*n",), access="out")),
                    slots=(Argument("x"), Argument("out"), IntSlot(n)), units=n, result="out")
    silu = spec.function()
    silu(x, out) -> out, or NotImplemented: some argument is not exactly what the spec says

The function is a METH_FASTCALL builtin whose body is `gk_fastcall` of the run-time: it checks the
arguments against the spec, fills the slots and calls the kernel, in some tens of nanoseconds. It
raises nothing: NotImplemented tells the caller to convert, to explain, or to use the thread team.
Where objects cannot be read that way (see abi.py) the same function is made of ctypes.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..errors import CompileError
from ..trace.affine import Affine
from .abi import ALIGNED, C_CONTIGUOUS, PAYLOAD, WRITEABLE, Abi, abi
from .buffers import ALIGN
from .program import ONE_TILE, TILES, ZERO, FloatSlot, IntSlot, float_bits
from .runtime import runtime
from .team import TEAM, shared_scratch

MAX_PARAMS, MAX_SLOTS, MAX_DIMS, MAX_RANK = 12, 32, 15, 6
STACK_SCRATCH = 8192
MOST_SCRATCH = 32 << 20  # bytes of one thread, where they depend on the call
UNLIMITED = (1 << 63) - 1
_METH_FASTCALL = 0x80

Call = Callable[..., object]


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """An argument that is exactly a C-contiguous, aligned numpy.ndarray of this type.

    `shape` names its dimensions; a first name "*m" stands for any number of leading extents: their
    product is m, and all arrays that share the name agree in each of them. `access`: in | out |
    inout. What is written may overlap no other array; `alias` allows it to be the same memory.
    """

    name: str
    shape: tuple[str, ...]
    dtype: str = "float32"
    access: str = "in"
    alias: bool = False


@dataclass(frozen=True, slots=True)
class FloatSpec:
    """An argument that is exactly a Python float."""

    name: str


@dataclass(frozen=True, slots=True)
class IntSpec:
    """An argument that is exactly a Python int of 64 bits; its name is a dimension."""

    name: str


@dataclass(frozen=True, slots=True)
class Argument:
    """Kernel slot: the data pointer of an array, or the bits of a float."""

    name: str


@dataclass(frozen=True, slots=True)
class Result:
    """Kernel slot: where the kernel stores the float32 that the function returns."""


Param = ArraySpec | FloatSpec | IntSpec
KernelSlot = Argument | Result | IntSlot | FloatSlot


@dataclass(frozen=True, slots=True)
class FastCall:
    """`kernel(slots, 0, units, scratch)` for arguments that match `params`, in their order.

    Returns the argument named by `result`, the number stored through `Result` if it is "float",
    else None. `scratch` bytes beyond the stack's, and more `work` than `alone` where there are
    `threads`, take the team of the process: until it is there, the answer is NotImplemented. More
    work than `release_above` runs without the interpreter lock. `work` is by default the units, a
    tile a multiple of `grain` of them; `keep` owns the kernel's code.
    """

    kernel: int
    params: tuple[Param, ...]
    slots: tuple[KernelSlot, ...]
    units: Affine
    result: str = ""
    scratch: Affine = ZERO
    work: Affine | None = None
    release_above: int = 1 << 14
    alone: int = UNLIMITED
    threads: int = 1
    grain: int = ONE_TILE
    keep: tuple[object, ...] = ()
    name: str = "kernel"

    def function(self) -> Call:
        """The callable, in the best way this interpreter allows."""
        return self.native() if call_mode() == "native" else self.portable()

    def native(self) -> Call:
        """As a builtin function whose body is machine code."""
        layout = abi()
        if isinstance(layout, str):
            raise CompileError(f"no native calls here: {layout}")
        self.check()
        memory = self._memory()
        words = _descriptor(self, layout, memory)
        return _builtin(words, self.name, (layout, runtime(), memory, self.keep))

    def _memory(self) -> np.ndarray:
        """Scratch of all threads. Only the pages that a call touches are there."""
        each = self.scratch.constant
        each = MOST_SCRATCH if each is None else each
        if self.threads == 1 and each <= STACK_SCRATCH:
            return np.empty(0, np.uint8)
        size = (each // ALIGN + 1) * ALIGN * self.threads
        return shared_scratch(size)[:size]

    def portable(self) -> Call:
        """The same checks in Python, and the call through ctypes."""
        self.check()
        return _Portable(self).call

    def dims(self) -> tuple[str, ...]:
        """Every dimension, in the order in which the arguments bind them."""
        names: dict[str, None] = {}
        for param in self.params:
            if isinstance(param, ArraySpec):
                names.update((d.removeprefix("*"), None) for d in param.shape)
            elif isinstance(param, IntSpec):
                names[param.name] = None
        return tuple(names)

    def check(self) -> None:
        """The spec fits the run-time's limits and names only what it binds."""
        for what, count, limit in (
            ("arguments", len(self.params), MAX_PARAMS),
            ("slots", len(self.slots), MAX_SLOTS),
            ("dimensions", len(self.dims()), MAX_DIMS),
        ):
            if count > limit:
                raise CompileError(f"{self.name}: {count} {what}; a direct call has {limit}")
        for param in self.params:
            if isinstance(param, ArraySpec):
                _check_array(param, self.name)
        self._check_names()

    def _check_names(self) -> None:
        named = {p.name for p in self.params if not isinstance(p, IntSpec)}
        wanted = {s.name for s in self.slots if isinstance(s, Argument)}
        if self.result not in ("", "float"):
            wanted.add(self.result)
        if wanted - named:
            raise CompileError(f"{self.name}: no argument {sorted(wanted - named)[0]!r}")
        values = [s.value for s in self.slots if isinstance(s, IntSlot)]
        for value in (*values, self.units, self.work or ZERO, self.scratch):
            if value.symbols - set(self.dims()) or any(len(m) > 3 for _, m in value.terms):
                raise CompileError(
                    f"{self.name}: {value} is no polynomial of degree 3 in {self.dims()}"
                )


def _check_array(spec: ArraySpec, name: str) -> None:
    starred = [d for d in spec.shape[1:] if d.startswith("*")]
    if starred or len(spec.shape) > MAX_RANK or spec.access not in ("in", "out", "inout"):
        raise CompileError(
            f"{name}: argument {spec.name!r}: shape {spec.shape} and access {spec.access!r}; only "
            f"the first dimension may have a star, at most {MAX_RANK}, access is in, out or inout"
        )


@cache
def call_mode() -> str:
    """ "native", or "ctypes: " and the reason."""
    layout = abi()
    if isinstance(layout, str):
        return f"ctypes: {layout}"
    return "native" if _self_test() else "ctypes: the self-test of native calls failed"


# ---- native -----------------------------------------------------------------------------------

_KINDS = {ArraySpec: 0, FloatSpec: 1, IntSpec: 2}
_RETURN_NONE, _RETURN_FLOAT = -1, -2


class _Terms:
    """The polynomials of a descriptor: rows {coefficient, a, b, c}; dimension 0 is 1."""

    def __init__(self, dims: tuple[str, ...]) -> None:
        self.columns = {name: i + 1 for i, name in enumerate(dims)}
        self.rows: list[tuple[int, ...]] = []

    def add(self, value: Affine) -> tuple[int, int]:
        first = len(self.rows)
        for coefficient, monomial in value.terms:
            factors = [self.columns[s] for s in monomial]
            self.rows.append((coefficient, *factors, *[0] * (3 - len(factors))))
        return first, len(self.rows) - first


def _descriptor(spec: FastCall, layout: Abi, memory: np.ndarray) -> list[int]:
    """`struct descriptor` of runtime_python.c as int64 words; the first four come later."""
    terms = _Terms(spec.dims())
    names = [p.name for p in spec.params]
    result = {"": _RETURN_NONE, "float": _RETURN_FLOAT}.get(spec.result)
    words = [0, 0, 0, 0, layout.address, spec.kernel, len(spec.params), len(spec.slots)]
    words += [names.index(spec.result) if result is None else result]
    tiles = min(TILES * spec.threads, UNLIMITED // spec.grain)
    words += [spec.release_above, spec.alone, spec.threads, tiles, spec.grain]
    words += [TEAM.ctypes.data, memory.ctypes.data, memory.size]
    for value in (spec.units, spec.work or spec.units, spec.scratch):
        words += terms.add(value)
    for param in spec.params:
        words += _param_words(param, terms)
    words += [0] * 13 * (MAX_PARAMS - len(spec.params))
    for slot in spec.slots:
        words += _slot_words(slot, spec, names, terms)
    words += [0] * 4 * (MAX_SLOTS - len(spec.slots))
    return words + [word for row in terms.rows for word in row]


def _param_words(param: Param, terms: _Terms) -> list[int]:
    """{kind, descr, itemsize, flags, star, nd, 6 dims, exclusive}"""
    if not isinstance(param, ArraySpec):
        dim = terms.columns[param.name] if isinstance(param, IntSpec) else 0
        return [_KINDS[type(param)], 0, 0, 0, 0, 0, dim, 0, 0, 0, 0, 0, 0]
    dtype = np.dtype(param.dtype)
    starred = bool(param.shape) and param.shape[0].startswith("*")
    star = terms.columns[param.shape[0][1:]] if starred else 0
    dims = [terms.columns[d] for d in param.shape[starred:]]
    written = param.access != "in"
    flags = C_CONTIGUOUS | ALIGNED | (WRITEABLE if written else 0)
    padding = [0] * (MAX_RANK - len(dims))
    exclusive = (2 if param.alias else 1) if written else 0
    return [0, id(dtype), dtype.itemsize, flags, star, len(dims), *dims, *padding, exclusive]


def _slot_words(slot: KernelSlot, spec: FastCall, names: list[str], terms: _Terms) -> list[int]:
    """{kind, index, first term, terms}"""
    if isinstance(slot, Argument):
        index = names.index(slot.name)
        return [0 if isinstance(spec.params[index], ArraySpec) else 2, index, 0, 0]
    if isinstance(slot, Result):
        return [3, 0, 0, 0]
    value = Affine.const(float_bits(slot.value)) if isinstance(slot, FloatSlot) else slot.value
    return [1, 0, *terms.add(value)]


def _builtin(words: list[int], name: str, keep: tuple[object, ...]) -> Call:
    """A builtin function whose `self` is the descriptor and whose `module` owns the code."""
    text = name.encode() + b"\0"
    payload = struct.pack(f"<{len(words)}q", *words) + text
    held = bytes(bytearray(payload))  # a fresh object: its payload is completed in place
    base = id(held) + PAYLOAD
    method = (base + 8 * len(words), runtime().address("gk_fastcall"), _METH_FASTCALL, 0)
    ctypes.memmove(base, struct.pack("<4q", *method), 32)  # PyMethodDef {name, code, flags, doc}
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    return make(base, held, keep)


def _self_test() -> bool:
    """A native call computes, refuses what it must, and leaves reference counts alone."""
    n = Affine.sym("n")
    spec = FastCall(
        runtime().address("gk_probe"),
        (ArraySpec("x", ("*n",)), FloatSpec("add"), ArraySpec("out", ("*n",), access="out")),
        (Argument("x"), Argument("out"), IntSlot(n), Argument("add")),
        units=n,
        result="out",
        name="self_test",
    )
    call, x, out = (
        spec.native(),
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((2, 3), "f4"),
    )
    if call(x, 0.5, out) is not out or not np.array_equal(out, 2 * x + np.float32(0.5)):
        return False
    wrong = [(), (x,), (x, 1, out), (x, 0.5, None), (x[::2], 0.5, out), (x, 0.5, out[:1])]
    return all(call(*arguments) is NotImplemented for arguments in wrong)


# ---- ctypes -----------------------------------------------------------------------------------

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


class _Portable:
    """The meaning of `gk_fastcall`, in Python."""

    def __init__(self, spec: FastCall) -> None:
        self.spec = spec
        self.kernel = _KERNEL(spec.kernel)

    def call(self, *given: object) -> object:
        spec = self.spec
        binding = _Binding()
        if len(given) != len(spec.params) or not all(map(binding.take, spec.params, given)):
            return NotImplemented
        units = spec.units.evaluate(binding.dims)
        divided = spec.threads > 1 and (spec.work or spec.units).evaluate(binding.dims) > spec.alone
        much = spec.scratch.evaluate(binding.dims) > STACK_SCRATCH
        if divided or much or not binding.disjoint(spec.params):
            return NotImplemented
        result = ctypes.c_float(0)
        slots = [self._slot(slot, binding, ctypes.addressof(result)) for slot in spec.slots]
        args = (ctypes.c_int64 * len(slots))(*slots)
        scratch = np.empty(STACK_SCRATCH + 64, np.uint8)
        aligned = scratch.ctypes.data + -scratch.ctypes.data % 64
        if units > 0:
            self.kernel(ctypes.addressof(args), 0, units, aligned)
        if spec.result == "float":
            return result.value
        return given[[p.name for p in spec.params].index(spec.result)] if spec.result else None

    @staticmethod
    def _slot(slot: KernelSlot, binding: _Binding, result: int) -> int:
        if isinstance(slot, Argument):
            return binding.values[slot.name]
        if isinstance(slot, Result):
            return result
        if isinstance(slot, FloatSlot):
            return float_bits(slot.value)
        return slot.value.evaluate(binding.dims)


class _Binding:
    """What the arguments have told so far."""

    def __init__(self) -> None:
        self.dims: dict[str, int] = {}
        self.stars: dict[str, tuple[int, ...]] = {}
        self.values: dict[str, int] = {}
        self.spans: dict[str, tuple[int, int]] = {}

    def take(self, param: Param, value: object) -> bool:
        if isinstance(param, ArraySpec):
            return type(value) is np.ndarray and self._take_array(param, value)
        if isinstance(param, FloatSpec):
            if type(value) is not float:
                return False
            self.values[param.name] = float_bits(value)
            return True
        fits = type(value) is int and -UNLIMITED - 1 <= value <= UNLIMITED
        return fits and self.dims.setdefault(param.name, value) == value

    def _take_array(self, spec: ArraySpec, value: np.ndarray) -> bool:
        wanted = C_CONTIGUOUS | ALIGNED | (0 if spec.access == "in" else WRITEABLE)
        starred = bool(spec.shape) and spec.shape[0].startswith("*")
        lead = value.ndim - len(spec.shape) + starred
        if value.dtype is not np.dtype(spec.dtype) or value.flags.num & wanted != wanted:
            return False
        if lead < 0 or (lead > 0 and not starred):
            return False
        if starred and not self._take_star(spec.shape[0][1:], value.shape[:lead]):
            return False
        bound = zip(spec.shape[starred:], value.shape[lead:], strict=True)
        if not all(self.dims.setdefault(name, n) == n for name, n in bound):
            return False
        self.values[spec.name] = value.ctypes.data
        self.spans[spec.name] = (value.ctypes.data, value.ctypes.data + value.nbytes)
        return True

    def _take_star(self, name: str, extents: tuple[int, ...]) -> bool:
        product = int(np.prod(extents, dtype=np.int64))
        same = self.stars.setdefault(name, extents) == extents
        return same and self.dims.setdefault(name, product) == product

    def disjoint(self, params: tuple[Param, ...]) -> bool:
        """No written array reaches into another, unless both are the same and it may."""
        for param in params:
            if not isinstance(param, ArraySpec) or param.access == "in":
                continue
            begin, end = self.spans[param.name]
            for name, (low, high) in self.spans.items():
                apart = name == param.name or begin >= high or low >= end
                if not apart and not (param.alias and (begin, end) == (low, high)):
                    return False
        return True
