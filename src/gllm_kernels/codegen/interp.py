"""The meaning of a kernel, executed statement by statement in numpy on real memory.

    run(kernel, {"x": array, "n": 5, "scale": 0.5}, begin, end)

Pointers are integers. Every access is checked against the numpy arrays that were passed (and the
scratch), so a kernel that reads one element too far fails here instead of somewhere else.
Floating-point results are those of the machine bit for bit, except the payloads of NaNs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import CompileError
from .kernel import If, Inst, K, Kernel, Loop, Stmt
from .lanes import F32, I32, U32, Array, fma, scalef, to_int, vmax, vmin, wrap


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
    state = State(kernel, values, begin, end, scratch.__array_interface__["data"][0])
    for array in (*arrays, scratch):
        state.spans.append((*bounds(array), array.flags.writeable))
    with np.errstate(all="ignore"):
        state.body(kernel.body)


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
    spans: list[tuple[int, int, bool]] = field(default_factory=list)
    env: dict[int, object] = field(default_factory=dict)

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


def halving(op: Callable[[Array, Array], Array]) -> Callable:
    """lanes -> lanes/2 -> ... -> 1 by op(upper half, lower half), then in all lanes."""
    def reduce(s: State, i: Inst, a: Array) -> Array:
        lanes = a.size
        while a.size > 1:
            half = a.size // 2
            a = op(a[half:], a[:half])
        return np.full(lanes, a)
    return reduce


def load(s: State, i: Inst, base: int, index: int) -> Array:
    size = 4 * s.kernel.lanes
    return np.frombuffer(ctypes.string_at(s.span(i, base, index, size), size), F32)


def load_masked(s: State, i: Inst, base: int, index: int, mask: Array) -> Array:
    out = np.zeros(s.kernel.lanes, F32)
    for lane in np.flatnonzero(mask):
        at = s.span(i, base + 4 * int(lane), index, 4)
        out[lane : lane + 1].view(np.uint8)[:] = np.frombuffer(ctypes.string_at(at, 4), np.uint8)
    return out


def load_one(s: State, i: Inst, base: int, index: int) -> bytes:
    return ctypes.string_at(s.span(i, base, index, 4), 4)


def store(s: State, i: Inst, base: int, index: int, value: Array) -> None:
    ctypes.memmove(s.span(i, base, index, value.nbytes, True), value.tobytes(), value.nbytes)


def store_masked(s: State, i: Inst, base: int, index: int, mask: Array, value: Array) -> None:
    for lane in np.flatnonzero(mask):
        store(s, i, base + 4 * int(lane), index, value[lane : lane + 1])


def blocks(pick: Callable[[Array, Array], list[Array]]) -> Callable:
    """Apply `pick` within every 128 bits; columns of a[block, element]."""
    def shuffle(s: State, i: Inst, a: Array, b: Array) -> Array:
        return np.stack(pick(a.reshape(-1, 4).T, b.reshape(-1, 4).T), 1).reshape(-1)
    return shuffle


def shuf128(s: State, i: Inst, a: Array, b: Array) -> Array:
    half = len(i.imm) // 2
    a, b = a.reshape(-1, 4), b.reshape(-1, 4)
    return np.concatenate([a[list(i.imm[:half])], b[list(i.imm[half:])]]).reshape(-1)


def prefetch(s: State, i: Inst, base: int, index: int) -> None:
    """Any address is allowed: a prefetch never faults (SDM vol. 2, PREFETCHh)."""


def divide(s: State, i: Inst, a: int, b: int) -> int:
    if a < 0 or b <= 0:
        raise CompileError(f"kernel {s.kernel.name}: idiv %{i.dst} of {a} by {b}, wanted "
                           f"a >= 0 and b > 0 (origin {i.origin or '-'})")
    return a // b


def bits(op: Callable[[Array, Array], Array]) -> Callable:
    return lambda s, i, a, b: op(a.view(U32), b.view(U32)).view(F32)


def full(s: State, value: int) -> Array:
    return np.full(s.kernel.lanes, value & 0xFFFFFFFF, U32).view(F32)


# fmt: off
MEANING: dict[K, Callable] = {
    K.ICONST: lambda s, i: i.imm,
    K.ARG: lambda s, i: s.args[i.imm],
    K.BEGIN: lambda s, i: s.begin,
    K.END: lambda s, i: s.end,
    K.SCRATCH: lambda s, i: s.scratch,
    K.IADD: lambda s, i, a, b: wrap(a + b),
    K.ISUB: lambda s, i, a, b: wrap(a - b),
    K.IMUL: lambda s, i, a, b: wrap(a * b),
    K.IAND: lambda s, i, a, b: a & b,
    K.IMIN: lambda s, i, a, b: min(a, b),
    K.IMAX: lambda s, i, a, b: max(a, b),
    K.IDIV: divide,
    K.LOAD: load, K.LOADM: load_masked, K.STORE: store, K.STOREM: store_masked,
    K.BCAST: lambda s, i, a, b: np.repeat(np.frombuffer(load_one(s, i, a, b), F32), s.kernel.lanes),
    K.ILOAD32: lambda s, i, a, b: int.from_bytes(load_one(s, i, a, b), "little", signed=True),
    K.STORE1: lambda s, i, base, index, v: store(s, i, base, index, v[:1]),
    K.PREFETCH: prefetch,
    K.VCONST: lambda s, i: full(s, i.imm),
    K.VLANES: lambda s, i: np.arange(s.kernel.lanes, dtype=I32).view(F32),
    K.ARGF: lambda s, i: np.full(s.kernel.lanes, s.args[i.imm], F32),
    K.SPLAT: lambda s, i, a: full(s, a),
    K.VADD: lambda s, i, a, b: a + b,
    K.VSUB: lambda s, i, a, b: a - b,
    K.VMUL: lambda s, i, a, b: a * b,
    K.VDIV: lambda s, i, a, b: a / b,
    K.VMAX: lambda s, i, a, b: vmax(a, b),
    K.VMIN: lambda s, i, a, b: vmin(a, b),
    K.VSQRT: lambda s, i, a: np.sqrt(a),
    K.VFMA: lambda s, i, a, b, c: fma(a, b, c),
    K.VFNMA: lambda s, i, a, b, c: fma(-a, b, c),
    K.VROUND: lambda s, i, a: np.rint(a),
    K.VSCALEF: lambda s, i, a, b: scalef(a, b),
    K.VAND: bits(np.bitwise_and), K.VOR: bits(np.bitwise_or), K.VXOR: bits(np.bitwise_xor),
    K.VANDN: bits(lambda a, b: ~a & b),
    K.VSHL: lambda s, i, a: (a.view(U32) << U32(i.imm)).view(F32),
    K.VSHR: lambda s, i, a: (a.view(U32) >> U32(i.imm)).view(F32),
    K.VSAR: lambda s, i, a: (a.view(I32) >> I32(i.imm)).view(F32),
    K.VIADD: bits(np.add), K.VISUB: bits(np.subtract),
    K.VI2F: lambda s, i, a: a.view(I32).astype(F32),
    K.VF2I: lambda s, i, a: to_int(a),
    K.FIRST: lambda s, i, a: np.arange(s.kernel.lanes) < a,
    K.VLT: lambda s, i, a, b: a < b,
    K.VLE: lambda s, i, a, b: a <= b,
    K.VEQ: lambda s, i, a, b: a == b,
    K.VUNORD: lambda s, i, a, b: np.isnan(a) | np.isnan(b),
    K.MAND: lambda s, i, a, b: a & b,
    K.MOR: lambda s, i, a, b: a | b,
    K.MNOT: lambda s, i, a: ~a,
    K.SELECT: lambda s, i, m, a, b: np.where(m, a, b),
    K.HSUM: halving(np.add), K.HMAX: halving(vmax), K.HMIN: halving(vmin),
    K.PERMUTE: lambda s, i, a: a[list(i.imm)],
    K.UNPACKLO32: blocks(lambda a, b: [a[0], b[0], a[1], b[1]]),
    K.UNPACKHI32: blocks(lambda a, b: [a[2], b[2], a[3], b[3]]),
    K.UNPACKLO64: blocks(lambda a, b: [a[0], a[1], b[0], b[1]]),
    K.UNPACKHI64: blocks(lambda a, b: [a[2], a[3], b[2], b[3]]),
    K.SHUF128: shuf128,
}
# fmt: on
