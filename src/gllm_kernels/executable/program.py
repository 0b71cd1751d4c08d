"""A program: steps over buffers, sized at run time, walked by the thread team in one call.

    Program ::= buffers  dims  Step*
    Step    ::= code(slots...)  on `units` units, in tiles of a multiple of `grain`
    Slot    ::= PointerSlot(buffer, offset) | IntSlot(polynomial) | FloatSlot(value)

Every number is an `Affine` over the program's dims (tokens, position, ...). When the dims or the
external pointers differ from the last call, one integer matrix product evaluates all polynomials
and one gather writes all slots; nothing else happens in Python between two kernels.

A tile is as large as the balance between threads allows, because every tile pays for its start (a
matrix product packs A anew): all units for one thread, else about TILES tiles for each.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import CompileError, ShapeError
from ..trace.affine import Affine
from .buffers import aligned_bytes
from .team import process_team, thread_count

ZERO = Affine()
ONE = Affine.const(1)
ONE_TILE = 1 << 62  # a grain that is never exceeded: the step is not divided
TILES = 4  # per thread: a thread that starts late or runs slowly leaves at most 1/4 of its share


@dataclass(frozen=True, slots=True, eq=False)
class BufferSpec:
    """kind: external (address given per call) | internal (owned, grown) | constant (`array`).

    An internal buffer holds `size` elements, or the largest of `size` and `also`.
    """

    name: str
    kind: str = "external"
    size: Affine = ZERO
    itemsize: int = 4
    array: np.ndarray | None = None
    also: tuple[Affine, ...] = ()


@dataclass(frozen=True, slots=True)
class PointerSlot:
    """Address of element `offset` of a buffer, given by its position in `Program.buffers`."""

    buffer: int
    offset: Affine = ZERO
    itemsize: int = 4


@dataclass(frozen=True, slots=True)
class IntSlot:
    """A signed 64-bit integer."""

    value: Affine


@dataclass(frozen=True, slots=True)
class FloatSlot:
    """A float32 in the low half of the slot; a name stands for a number given per call."""

    value: float | str


Slot = PointerSlot | IntSlot | FloatSlot


@dataclass(frozen=True, slots=True)
class Step:
    """`code(slots, begin, end, scratch)` for every tile [begin, end) of `units`.

    Every `begin` is a multiple of `grain`, and every `end` but the last. `code` is an address; whatever owns it is kept in `Program.keep`. `scratch` is in bytes.
    """

    code: int
    slots: tuple[Slot, ...]
    units: Affine = ONE
    grain: int = ONE_TILE
    name: str = ""
    scratch: Affine = ZERO


@dataclass(eq=False)
class Program:
    """Steps, the buffers they name by position, and the dims their polynomials use."""

    steps: tuple[Step, ...]
    buffers: tuple[BufferSpec, ...]
    dims: tuple[str, ...] = ()
    keep: tuple[object, ...] = ()
    _loaded: LoadedProgram | None = field(default=None, init=False, repr=False)

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the buffers whose addresses `run` is given, in that order."""
        return tuple(b.name for b in self.buffers if b.kind == "external")

    def load(self) -> LoadedProgram:
        """The table in memory, made at the first call."""
        if self._loaded is None:
            self._loaded = LoadedProgram(self)
        return self._loaded

    def run(
        self,
        pointers: Sequence[int] = (),
        dims: Sequence[int] | Mapping[str, int] = (),
        threads: int | None = None,
        floats: Mapping[str, float] | None = None,
    ) -> None:
        """Run every step; `pointers` are the external buffers' addresses, in their order."""
        self.load().run(pointers, dims, threads, floats=floats)

    @property
    def floats(self) -> tuple[str, ...]:
        """Names of the numbers that every call gives."""
        slots = [slot for step in self.steps for slot in step.slots if isinstance(slot, FloatSlot)]
        return tuple(dict.fromkeys(s.value for s in slots if isinstance(s.value, str)))


class LoadedProgram:
    """A program's table of steps, its argument slots and its own buffers; one call at a time."""

    def __init__(self, program: Program) -> None:
        _check(program)
        self.program = program
        self.lock = threading.Lock()
        self._polynomials = _Polynomials(program.dims)
        self._external = [i for i, b in enumerate(program.buffers) if b.kind == "external"]
        self._internal = [i for i, b in enumerate(program.buffers) if b.kind == "internal"]
        internal = [program.buffers[i] for i in self._internal]
        self._sizes = [self._indices((b.size, *b.also)) for b in internal]
        self._scratch = self._indices(step.scratch for step in program.steps)
        divided = [(i, s) for i, s in enumerate(program.steps) if s.grain != ONE_TILE]
        self._divided = np.array([4 * i + 3 for i, _ in divided], np.int64)  # cells of the grain
        self._grains = np.array([s.grain for _, s in divided], np.int64)
        self._units = self._indices(s.units for _, s in divided)
        self._owned = [np.empty(0, np.uint8) for _ in self._internal]
        self._bases = np.zeros(len(program.buffers) + 1, np.int64)  # the last one is no buffer
        self._named: list[tuple[int, str]] = []  # (where, name of a number given per call)
        self._build_table()
        self._polynomials.freeze()
        self._call: tuple[tuple[int, ...], tuple[int, ...], int] | None = None
        self._scratch_bytes = 0
        _loaded_programs.add(self)

    def run(
        self,
        pointers: Sequence[int] = (),
        dims: Sequence[int] | Mapping[str, int] = (),
        threads: int | None = None,
        times: np.ndarray | None = None,
        floats: Mapping[str, float] | None = None,
    ) -> None:
        """`times`, int64[steps + 1], receives nanoseconds at the start and after every step."""
        count = thread_count() if threads is None else threads
        call = tuple(pointers), self._dims(dims), count
        clock = 0 if times is None else self._clock(times)
        with self.lock:
            if call != self._call:
                self._call = None
                self._evaluate(*call)
                self._call = call
            for where, name in self._named:
                self._table[where] = float_bits(floats[name])
            process_team().run(
                self._table_address, len(self.program.steps), count, self._scratch_bytes, clock
            )

    def buffer(self, name: str) -> np.ndarray:
        """The float32 elements of an internal buffer, as the last call left them."""
        for index, memory in zip(self._internal, self._owned, strict=True):
            if self.program.buffers[index].name == name:
                return memory[: memory.size // 4 * 4].view(np.float32)
        raise CompileError(f"the program has no internal buffer {name!r}")

    def _indices(self, values: Iterable[Affine]) -> np.ndarray:
        return np.array([self._polynomials.index(value) for value in values], np.int64)

    def _dims(self, dims: Sequence[int] | Mapping[str, int]) -> tuple[int, ...]:
        names = self.program.dims
        if isinstance(dims, Mapping):
            if set(dims) != set(names):
                raise ShapeError(f"dims are {sorted(names)}, got {sorted(dims)}")
            return tuple(dims[name] for name in names)
        if len(dims) != len(names):
            raise ShapeError(f"dims are {names}, got {len(dims)} values")
        return tuple(dims)

    def _clock(self, times: np.ndarray) -> int:
        wanted = len(self.program.steps) + 1
        if times.dtype != np.int64 or times.shape != (wanted,) or not times.flags.c_contiguous:
            raise ShapeError(f"times: expected int64[{wanted}], got {times.dtype}{times.shape}")
        return times.ctypes.data

    def _build_table(self) -> None:
        """One int64 array: the rows {code, args, units, grain}, then every step's slots."""
        steps = self.program.steps
        starts = np.cumsum([4 * len(steps)] + [len(step.slots) for step in steps])
        self._memory = aligned_bytes(8 * int(starts[-1]) + 8)
        self._table = self._memory[: 8 * int(starts[-1])].view(np.int64)
        self._table_address = self._memory.ctypes.data
        dynamic: list[tuple[int, int, int]] = []  # (where, polynomial, buffer)
        for row, (step, start) in enumerate(zip(steps, starts, strict=False)):
            code, args = step.code, self._table_address + 8 * int(start)
            self._table[4 * row : 4 * row + 4] = (code, args, 0, step.grain)
            cells = [(4 * row + 2, IntSlot(step.units))]
            cells += [(int(start) + i, slot) for i, slot in enumerate(step.slots)]
            for where, slot in cells:
                self._place(where, slot, dynamic)
        rows = np.array(dynamic, np.int64).reshape(-1, 3)
        self._where, self._which, self._base_of = rows.T.copy()

    def _place(self, where: int, slot: Slot, dynamic: list[tuple[int, int, int]]) -> None:
        """Write a constant slot now; remember the others."""
        if isinstance(slot, FloatSlot):
            if isinstance(slot.value, str):
                self._named.append((where, slot.value))
            else:
                self._table[where] = float_bits(slot.value)
            return
        value, base = (slot.value, len(self.program.buffers)) if isinstance(slot, IntSlot) else (
            slot.offset * slot.itemsize, slot.buffer)  # fmt: skip
        array = None if isinstance(slot, IntSlot) else self.program.buffers[base].array
        if value.constant is not None and (isinstance(slot, IntSlot) or array is not None):
            self._table[where] = value.constant + (0 if array is None else array.ctypes.data)
            return
        if array is not None:
            self._bases[base] = array.ctypes.data
        dynamic.append((where, self._polynomials.index(value), base))

    def _evaluate(self, pointers: tuple[int, ...], dims: tuple[int, ...], threads: int) -> None:
        """Every dynamic slot: polynomial of the dims, plus the address of its buffer."""
        if len(pointers) != len(self._external):
            names = list(self.program.external)
            raise ShapeError(f"external buffers are {names}, got {len(pointers)} addresses")
        values = self._polynomials.values(dims)
        self._grow([int(values[sizes].max()) for sizes in self._sizes])
        self._bases[self._external] = pointers
        self._scratch_bytes = int(values[self._scratch].max(initial=0))
        self._table[self._where] = values[self._which] + self._bases[self._base_of]
        self._table[self._divided] = tile_sizes(values[self._units], self._grains, threads)

    def _grow(self, sizes: list[int]) -> None:
        """Internal buffers only grow; what they held is lost when they do."""
        for k, (index, size) in enumerate(zip(self._internal, sizes, strict=True)):
            needed = size * self.program.buffers[index].itemsize
            if needed > self._owned[k].size:
                self._owned[k] = aligned_bytes(needed)
                self._bases[index] = self._owned[k].ctypes.data


class _Polynomials:
    """Distinct polynomials of a program, evaluated together: coefficients @ monomials."""

    def __init__(self, dims: tuple[str, ...]) -> None:
        self._columns = {name: i + 1 for i, name in enumerate(dims)}
        self._rows: dict[Affine, int] = {}

    def index(self, value: Affine) -> int:
        """Position of `value` among the results."""
        return self._rows.setdefault(value, len(self._rows))

    def freeze(self) -> None:
        """Build the matrices: factor 0 of a monomial is 1, factor i is dimension i - 1."""
        monomials: dict[tuple[str, ...], int] = {(): 0}
        for value in self._rows:
            for _, monomial in value.terms:
                monomials.setdefault(monomial, len(monomials))
        degree = max(map(len, monomials)) or 1
        self._factors = np.zeros((len(monomials), degree), np.int64)
        for monomial, row in monomials.items():
            self._factors[row, : len(monomial)] = [self._columns[s] for s in monomial]
        self._coefficients = np.zeros((len(self._rows), len(monomials)), np.int64)
        for value, row in self._rows.items():
            for coefficient, monomial in value.terms:
                self._coefficients[row, monomials[monomial]] = coefficient

    def values(self, dims: tuple[int, ...]) -> np.ndarray:
        """int64[number of polynomials]."""
        return self._coefficients @ np.array((1, *dims), np.int64)[self._factors].prod(axis=1)


def tile_sizes(units: np.ndarray, grains: np.ndarray, threads: int) -> np.ndarray:
    """grain * max(1, ceil(units / (grain * tiles))): one tile for one thread, else TILES for each."""
    tiles = 1 if threads <= 1 else TILES * threads
    return grains * np.maximum(1, -(-units // (grains * tiles)))


def float_bits(value: float) -> int:
    """The slot of a float32: its bits in the low half; too large a number is infinite."""
    return ctypes.c_uint32.from_buffer(ctypes.c_float(value)).value


def _check(program: Program) -> None:
    """Names and positions exist; the message says which step."""
    for buffer in program.buffers:
        if buffer.kind not in ("external", "internal", "constant"):
            raise CompileError(f"buffer {buffer.name!r}: kind {buffer.kind!r} does not exist")
        if (buffer.kind == "constant") != (buffer.array is not None):
            raise CompileError(f"buffer {buffer.name!r}: a constant, and only that, has an array")
        for size in (buffer.size, *buffer.also):
            _check_symbols(size, program.dims, f"buffer {buffer.name!r}")
    for number, step in enumerate(program.steps):
        _check_step(step, program, f"step {number} {step.name!r}")


def _check_step(step: Step, program: Program, what: str) -> None:
    if step.grain <= 0 or step.code <= 0:
        raise CompileError(f"{what}: code {step.code:#x}, grain {step.grain}: both are positive")
    for value in (step.units, step.scratch):
        _check_symbols(value, program.dims, what)
    for slot in step.slots:
        if isinstance(slot, PointerSlot):
            if not 0 <= slot.buffer < len(program.buffers):
                raise CompileError(f"{what}: there is no buffer {slot.buffer}")
            _check_symbols(slot.offset, program.dims, what)
        elif isinstance(slot, IntSlot):
            _check_symbols(slot.value, program.dims, what)


def _check_symbols(value: Affine, dims: tuple[str, ...], what: str) -> None:
    unknown = value.symbols - set(dims)
    if unknown:
        raise CompileError(f"{what}: {value} uses {sorted(unknown)}, but the dims are {dims}")


_loaded_programs: weakref.WeakSet[LoadedProgram] = weakref.WeakSet()


def _unlock_in_child() -> None:
    """A thread that does not exist in the child may have held a program's lock."""
    for loaded in _loaded_programs:
        loaded.lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock_in_child)
