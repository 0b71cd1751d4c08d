"""The meaning of a kernel, executed statement by statement in numpy on real memory.

    run(kernel, {"x": array, "n": 5, "scale": 0.5}, begin, end)

Pointers are integers. Every access is checked against the numpy arrays that were passed (and the
scratch), so a kernel that reads one element too far fails here instead of somewhere else.
Floating-point results are those of the machine bit for bit, except the payloads of NaNs.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import CompileError
from .kernel import Inst, Kernel, Loop, Routine, Stmt
from .lanes import Array
from .meaning import MEANING


def run(kernel: Kernel, args: Mapping[str, Array | int | float], begin: int = 0,
        end: int | None = None, memory: Iterable[Array] = ()) -> None:
    """Call the kernel on units [begin, end); all units when `end` is None.

    A pointer argument is an array (its address is passed and its bytes become accessible) or an
    integer address inside one of the arrays in `memory`.
    """
    arrays = [a for a in args.values() if isinstance(a, np.ndarray)] + list(memory)
    sizes = {p.name: int(args[p.name]) for p in kernel.params if p.kind == "i64"}
    scratch = np.full(max(1, kernel.scratch.evaluate(sizes)), 0xCD, np.uint8)
    end = kernel.units.evaluate(sizes) if end is None else end
    values = {n: a.__array_interface__["data"][0] if isinstance(a, np.ndarray) else a
              for n, a in args.items()}
    table = np.frombuffer(bytearray(b"".join(slot(p.kind, values[p.name]) for p in kernel.params)
                                    or bytes(8)), np.uint8)
    state = State(kernel, values, begin, end, *(a.__array_interface__["data"][0]
                                                for a in (scratch, table)))
    for array in (*arrays, scratch, table):
        state.spans.append((*bounds(array), array.flags.writeable))
    with np.errstate(all="ignore"):
        state.body(kernel.body)


def slot(kind: str, value: int | float) -> bytes:
    """The eight bytes of an argument."""
    return struct.pack("<f4x", value) if kind == "f32" else struct.pack("<q", int(value))


def bounds(array: Array) -> tuple[int, int]:
    """Lowest and one past the highest address an array (of any strides) occupies."""
    start, spread = array.__array_interface__["data"][0], [
        (size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    if array.size == 0:
        return start, start
    return (start + sum(s for s in spread if s < 0),
            start + sum(s for s in spread if s > 0) + array.itemsize)


@dataclass
class State:
    """Values by id and the memory a kernel may touch."""

    kernel: Kernel
    args: Mapping[str, int | float]
    begin: int
    end: int
    scratch: int
    table: int  # address of the arguments
    spans: list[tuple[int, int, bool]] = field(default_factory=list)
    env: dict[int, object] = field(default_factory=dict)
    routines: list[Routine] = field(default_factory=list)  # by what stands for their address

    def code_of(self, routine: Routine) -> int:
        """A number that no buffer has for an address."""
        if routine not in self.routines:
            self.routines.append(routine)
        return -1 - self.routines.index(routine)

    def call(self, code: int, args: int, begin: int, end: int, scratch: int) -> None:
        """Another kernel on the same memory; its arguments come out of memory, too."""
        if not -len(self.routines) <= code < 0:
            raise CompileError(f"kernel {self.kernel.name} calls {code:#x}, which is no routine")
        kernel = self.routines[-1 - code].kernel
        raw = ctypes.string_at(args, 8 * len(kernel.params))
        values = {p.name: struct.unpack_from("<f" if p.kind == "f32" else "<q", raw, 8 * i)[0]
                  for i, p in enumerate(kernel.params)}
        inner = State(kernel, values, begin, end, scratch, args, self.spans, {}, self.routines)
        inner.body(kernel.body)

    def body(self, body: tuple[Stmt, ...]) -> None:
        for stmt in body:
            if isinstance(stmt, Inst):
                args = [self.env[a] for a in stmt.args]
                self.env[stmt.dst] = MEANING[stmt.op](self, stmt, *args)
            elif isinstance(stmt, Loop):
                self.loop(stmt)
            elif self.env[stmt.lhs] < self.env[stmt.rhs]:
                self.body(stmt.body)

    def loop(self, loop: Loop) -> None:
        carried = [self.env[v] for v in loop.inits]
        for iv in range(self.env[loop.lo], self.env[loop.hi], loop.step):
            self.env[loop.iv] = iv
            self.env.update(zip(loop.phis, carried, strict=True))
            self.body(loop.body)
            carried = [self.env[v] for v in loop.yields]
        self.env.update(zip(loop.results, carried, strict=True))

    def span(self, inst: Inst, base: int, index: int, size: int, write: bool = False) -> int:
        """The address of an access, after proving that all its bytes are ours."""
        address = base + index * inst.imm.scale + inst.imm.disp
        for low, high, writable in self.spans:
            if low <= address and address + size <= high and (writable or not write):
                return address
        near = min(self.spans, key=lambda s: min(abs(address - s[0]), abs(address - s[1])))
        verb = "writes" if write else "reads"
        raise CompileError(
            f"kernel {self.kernel.name}: {inst.op} %{inst.dst} (origin {inst.origin or '-'}) "
            f"{verb} {size} bytes at {address:#x}; nearest buffer is [{near[0]:#x}, {near[1]:#x})"
            f"{'' if near[2] else ' read-only'}, offset {address - near[0]}")
