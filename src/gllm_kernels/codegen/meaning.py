"""What every kernel operation does: `MEANING[op](state, inst, *arguments) -> value`.

Integers are Python ints wrapped to 64 bits, vectors float32 arrays (integer lanes by view), masks
bool arrays. `state` checks addresses (interp.State).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..dtypes import SIZE, STORED
from ..errors import CompileError
from .kernel import DOWN, STORAGE, TO_ZERO, UP, Inst, K
from .lanes import F32, I32, U32, Array, fma, scalef, to_int, vmax, vmin, wrap

if TYPE_CHECKING:
    from .interp import State


def halving(op: Callable[[Array, Array], Array]) -> Callable:
    """lanes -> lanes/2 -> ... -> 1 by op(upper half, lower half), then in all lanes."""
    def reduce(s: State, i: Inst, a: Array) -> Array:
        lanes = a.size
        while a.size > 1:
            half = a.size // 2
            a = op(a[half:], a[:half])
        return np.full(lanes, a)
    return reduce


def fetch(s: State, i: Inst, base: int, index: int, count: int, storage: str) -> Array:
    """`count` elements of memory, widened."""
    size = count * SIZE[storage]
    raw = ctypes.string_at(s.span(i, base, index, size), size)
    return np.frombuffer(raw, STORED[storage]).astype(F32)


def keep(s: State, i: Inst, base: int, index: int, value: Array, storage: str) -> None:
    """Lanes to memory, rounded."""
    data = value.astype(STORED[storage]).tobytes()
    ctypes.memmove(s.span(i, base, index, len(data), True), data, len(data))


def memory(storage: str) -> dict[K, Callable]:
    """Loads and stores of one storage type."""
    ops, size = STORAGE[storage], SIZE[storage]

    def load(s: State, i: Inst, base: int, index: int) -> Array:
        return fetch(s, i, base, index, s.kernel.lanes, storage)

    def load_masked(s: State, i: Inst, base: int, index: int, mask: Array) -> Array:
        out = np.zeros(s.kernel.lanes, F32)
        for lane in map(int, np.flatnonzero(mask)):
            out[lane : lane + 1] = fetch(s, i, base + size * lane, index, 1, storage)
        return out

    def broadcast(s: State, i: Inst, base: int, index: int) -> Array:
        return np.repeat(fetch(s, i, base, index, 1, storage), s.kernel.lanes)

    def store(s: State, i: Inst, base: int, index: int, value: Array) -> None:
        keep(s, i, base, index, value, storage)

    def store_masked(s: State, i: Inst, base: int, index: int, mask: Array, value: Array) -> None:
        for lane in map(int, np.flatnonzero(mask)):
            keep(s, i, base + size * lane, index, value[lane : lane + 1], storage)

    def store_one(s: State, i: Inst, base: int, index: int, value: Array) -> None:
        keep(s, i, base, index, value[:1], storage)

    found = (load, load_masked, broadcast, store, store_masked, store_one)
    return dict(zip(ops.values(), found, strict=True))


def load_integer(s: State, i: Inst, base: int, index: int) -> int:
    return int.from_bytes(ctypes.string_at(s.span(i, base, index, 4), 4), "little", signed=True)


def load_eight(s: State, i: Inst, base: int, index: int) -> int:
    return int.from_bytes(ctypes.string_at(s.span(i, base, index, 8), 8), "little", signed=True)


def store_eight(s: State, i: Inst, base: int, index: int, value: int) -> None:
    data = wrap(value).to_bytes(8, "little", signed=True)
    ctypes.memmove(s.span(i, base, index, 8, True), data, 8)


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


ROUNDINGS = {None: np.rint, DOWN: np.floor, UP: np.ceil, TO_ZERO: np.trunc}

# fmt: off
MEANING: dict[K, Callable] = {
    K.ICONST: lambda s, i: i.imm,
    K.ARG: lambda s, i: s.args[i.imm],
    K.BEGIN: lambda s, i: s.begin,
    K.END: lambda s, i: s.end,
    K.SCRATCH: lambda s, i: s.scratch,
    K.ARGS: lambda s, i: s.table,
    K.CODE: lambda s, i: s.code_of(i.imm),
    K.ILOAD: load_eight, K.ISTORE: store_eight,
    K.CALL: lambda s, i, code, args, begin, end, scratch: s.call(code, args, begin, end, scratch),
    K.IADD: lambda s, i, a, b: wrap(a + b),
    K.ISUB: lambda s, i, a, b: wrap(a - b),
    K.IMUL: lambda s, i, a, b: wrap(a * b),
    K.IAND: lambda s, i, a, b: a & b,
    K.IMIN: lambda s, i, a, b: min(a, b),
    K.IMAX: lambda s, i, a, b: max(a, b),
    K.IDIV: divide,
    **memory("float"), **memory("f16"), **memory("bf16"),
    K.ILOAD32: load_integer,
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
    K.VROUND: lambda s, i, a: ROUNDINGS[i.imm](a),
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
    K.MBITS: lambda s, i, a: sum(1 << int(lane) for lane in np.flatnonzero(a)),
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
