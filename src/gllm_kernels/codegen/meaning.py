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
from ..trace.interp import MEANING as TRACE_MEANING
from ..trace.ir import Op
from .kernel import DOWN, STORAGE, TO_ZERO, UP, Inst, K
from .lanes import (
    F32, F64, I32, I64, U32, U64, Array, fma, scalef, to_int, truncated, vmax, vmin, wrap,
)

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


def to_lanes(values: Array) -> Array:
    """Elements as lanes of 32 bits, widened; those of 64 bits are two lanes each."""
    if values.itemsize == 8:
        return values.view(F32)
    wide = values.astype(I32).view(F32) if values.dtype.kind in "iub" else values.astype(F32)
    return wide


def from_lanes(value: Array, dtype: np.dtype) -> Array:
    """Lanes as elements: floats rounded, integers by their low bits."""
    if dtype.itemsize == 8:
        return value.view(dtype)
    if dtype.kind not in "iub":
        return value.astype(dtype)
    return value.view(I32).astype(f"u{dtype.itemsize}")


def fetch(s: State, i: Inst, base: int, index: int, count: int, storage: str) -> Array:
    """`count` elements of memory, widened."""
    size = count * SIZE[storage]
    raw = ctypes.string_at(s.span(i, base, index, size), size)
    return to_lanes(np.frombuffer(raw, STORED[storage]))


def keep(s: State, i: Inst, base: int, index: int, value: Array, storage: str) -> None:
    """Lanes to memory, rounded."""
    data = from_lanes(value, STORED[storage]).tobytes()
    ctypes.memmove(s.span(i, base, index, len(data), True), data, len(data))


def memory(storage: str) -> dict[K, Callable]:
    """Loads and stores of one storage type."""
    ops, size = STORAGE[storage], SIZE[storage]
    wide = max(1, size // 4)  # lanes of 32 bits that an element takes

    def load(s: State, i: Inst, base: int, index: int) -> Array:
        return fetch(s, i, base, index, s.kernel.lanes // wide, storage)

    def load_masked(s: State, i: Inst, base: int, index: int, mask: Array) -> Array:
        out = np.zeros(s.kernel.lanes, F32)
        for lane in map(int, np.flatnonzero(mask)):
            one = fetch(s, i, base + size * lane, index, 1, storage)
            out[wide * lane : wide * lane + wide] = one
        return out

    def broadcast(s: State, i: Inst, base: int, index: int) -> Array:
        return np.tile(fetch(s, i, base, index, 1, storage), s.kernel.lanes // wide)

    def store(s: State, i: Inst, base: int, index: int, value: Array) -> None:
        keep(s, i, base, index, value, storage)

    def store_masked(s: State, i: Inst, base: int, index: int, mask: Array, value: Array) -> None:
        for lane in map(int, np.flatnonzero(mask)):
            one = value[wide * lane : wide * lane + wide]
            keep(s, i, base + size * lane, index, one, storage)

    def store_one(s: State, i: Inst, base: int, index: int, value: Array) -> None:
        keep(s, i, base, index, value[:wide], storage)

    found = (load, load_masked, broadcast, store, store_masked, store_one)
    return dict(zip(ops.values(), found, strict=True)) | packing(storage)


def packing(storage: str) -> dict[K, Callable]:
    """Elements of 8 or 16 bits from and to the low end of a vector."""
    suffix, dtype = STORAGE[storage][K.LOAD].partition(".")[2], STORED[storage]
    if not suffix:
        return {}

    def pack(s: State, i: Inst, a: Array) -> Array:
        data = from_lanes(a, dtype).tobytes()
        return np.frombuffer(data.ljust(4 * s.kernel.lanes, b"\0"), F32)

    def unpack(s: State, i: Inst, a: Array) -> Array:
        return to_lanes(np.frombuffer(a.tobytes(), dtype)[: s.kernel.lanes])

    return {K(f"pack.{suffix}"): pack, K(f"unpack.{suffix}"): unpack}


def load_words(s: State, i: Inst, base: int, index: int, count: int) -> Array:
    out = np.zeros(2 * s.kernel.lanes, np.uint16)
    for word in range(min(count, out.size)):
        raw = ctypes.string_at(s.span(i, base + 2 * word, index, 2), 2)
        out[word] = int.from_bytes(raw, "little")
    return out.view(F32)


def dot_pairs(s: State, i: Inst, a: Array, b: Array, c: Array) -> Array:
    (a_low, a_high), (b_low, b_high) = (
        ((v.view(U32) << U32(16)).view(F32), (v.view(U32) & U32(0xFFFF0000)).view(F32))
        for v in (a, b))
    return fma(a_low, b_low, fma(a_high, b_high, c))


def gather(s: State, i: Inst, base: int, index: Array) -> Array:
    raw = b"".join(ctypes.string_at(s.span(i, base, int(lane), 4), 4) for lane in index.view(I32))
    return np.frombuffer(raw, F32)


def dot_bytes(s: State, i: Inst, a: Array, b: Array, c: Array) -> Array:
    products = a.view(np.uint8).astype(I32) * b.view(np.int8).astype(I32)
    return (products.reshape(-1, 4).sum(axis=1, dtype=I32) + c.view(I32)).view(F32)


def pick_bytes(s: State, i: Inst, a: Array, b: Array) -> Array:
    table, index = a.view(np.uint8).reshape(-1, 16), b.view(np.uint8).reshape(-1, 16)
    found = np.take_along_axis(table, (index % 16).astype(np.intp), axis=1)
    return np.where(index < 128, found, np.uint8(0)).reshape(-1).view(F32)


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


def on(dtype: type, op: Callable, result: bool = False) -> Callable:
    """An operation on lanes of another type; `result`: of masks, padded to all lanes."""
    def apply(s: State, i: Inst, *args: Array) -> Array:
        found = op(*(a.view(dtype) for a in args))
        if result:
            return np.concatenate([found, np.zeros(s.kernel.lanes - found.size, bool)])
        return np.ascontiguousarray(found, dtype if found.dtype.kind in "biu" and
                                    np.dtype(dtype).kind != "f" else found.dtype).view(F32)
    return apply


def lower(op: Callable[[Array], Array], source: type) -> Callable:
    """An operation on the lower half of lanes of 32 bits, to lanes of 64."""
    return lambda s, i, a: op(a.view(source)[: s.kernel.lanes // 2]).view(F32)


def narrowed(op: Callable[[Array], Array], source: type) -> Callable:
    """An operation on lanes of 64 bits, to the lower half of lanes of 32."""
    def apply(s: State, i: Inst, a: Array) -> Array:
        found = op(a.view(source)).view(F32)
        return np.concatenate([found, np.zeros(found.size, F32)])
    return apply


def half_mask(s: State, part: Array) -> Array:
    return np.concatenate([part, np.zeros(s.kernel.lanes - part.size, bool)])


def shift_any(a: Array, b: Array, op: Callable) -> Array:
    """vpsllvd and its like: a count of the width or more leaves nothing."""
    width = a.dtype.type(8 * a.itemsize)
    return np.where(b < width, op(a, b % width), a.dtype.type(0))


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
    **{op: rule for ctype in STORAGE for op, rule in memory(ctype).items()},
    K.ILOAD32: load_integer, K.LOADW: load_words, K.GATHER: gather, K.VDOT2: dot_pairs,
    K.VDOT4: dot_bytes, K.VDOT4U: dot_bytes, K.VBYTES: pick_bytes,
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
    K.VIMUL: on(I32, np.multiply), K.VIMAX: on(I32, np.maximum), K.VIMIN: on(I32, np.minimum),
    K.VIABS: on(I32, np.abs), K.VSHLV: on(U32, lambda a, b: shift_any(a, b, np.left_shift)),
    K.VSHRV: on(U32, lambda a, b: shift_any(a, b, np.right_shift)),
    K.VSARV: on(I32, np.right_shift),
    K.VILT: lambda s, i, a, b: a.view(I32) < b.view(I32),
    K.VIEQ: lambda s, i, a, b: a.view(I32) == b.view(I32),
    K.VF2IT: lambda s, i, a: truncated(a, I32).view(F32),
    K.VHALF: lambda s, i, a: a.view(U32).astype(np.uint16).view(np.float16).astype(F32),
    K.VTOHALF: lambda s, i, a: a.astype(np.float16).view(np.uint16).astype(U32).view(F32),
    K.VCONST64: lambda s, i: np.full(s.kernel.lanes // 2, i.imm, U64).view(F32),
    K.DADD: on(F64, np.add), K.DSUB: on(F64, np.subtract), K.DMUL: on(F64, np.multiply),
    K.DDIV: on(F64, np.divide), K.DMAX: on(F64, vmax), K.DMIN: on(F64, vmin),
    K.DSQRT: on(F64, np.sqrt), K.DFMA: on(F64, TRACE_MEANING[Op.FMA]),
    K.DROUND: lambda s, i, a: ROUNDINGS[i.imm](a.view(F64)).view(F32),
    K.DLT: on(F64, np.less, True), K.DLE: on(F64, np.less_equal, True),
    K.DEQ: on(F64, np.equal, True),
    K.DUNORD: on(F64, lambda a, b: np.isnan(a) | np.isnan(b), True),
    K.LADD: on(I64, np.add), K.LSUB: on(I64, np.subtract), K.LMUL: on(I64, np.multiply),
    K.LMULS: on(I64, lambda a, b: a.astype(I32).astype(I64) * b.astype(I32)),
    K.LMULU: on(U64, lambda a, b: (a & U64(0xFFFFFFFF)) * (b & U64(0xFFFFFFFF))),
    K.LSHL: lambda s, i, a: (a.view(U64) << U64(i.imm)).view(F32),
    K.LSHR: lambda s, i, a: (a.view(U64) >> U64(i.imm)).view(F32),
    K.LSAR: lambda s, i, a: (a.view(I64) >> I64(i.imm)).view(F32),
    K.LSHLV: on(U64, lambda a, b: shift_any(a, b, np.left_shift)),
    K.LSHRV: on(U64, lambda a, b: shift_any(a, b, np.right_shift)),
    K.LSARV: on(I64, np.right_shift),
    K.LLT: on(I64, np.less, True), K.LEQ: on(I64, np.equal, True),
    K.SELECT64: lambda s, i, m, a, b: np.where(
        m[: s.kernel.lanes // 2], a.view(F64), b.view(F64)).view(F32),
    K.UPPER: lambda s, i, a: np.concatenate([a[a.size // 2 :], np.zeros(a.size // 2, F32)]),
    K.JOIN: lambda s, i, a, b: np.concatenate([a[: a.size // 2], b[: b.size // 2]]),
    K.F2D: lower(lambda a: a.astype(F64), F32), K.I2D: lower(lambda a: a.astype(F64), I32),
    K.I2L: lower(lambda a: a.astype(I64), I32), K.U2L: lower(lambda a: a.astype(U64), U32),
    K.D2F: narrowed(lambda a: a.astype(F32), F64), K.L2I: narrowed(lambda a: a.astype(I32), I64),
    K.D2I: narrowed(lambda a: truncated(a, I32), F64),
    K.L2F: narrowed(lambda a: a.astype(F32), I64),
    K.L2D: lambda s, i, a: a.view(I64).astype(F64).view(F32),
    K.D2L: lambda s, i, a: truncated(a.view(F64), I64).view(F32),
    K.MLOW: lambda s, i, a: half_mask(s, a[: a.size // 2]),
    K.MHIGH: lambda s, i, a: half_mask(s, a[a.size // 2 :]),
    K.MJOIN: lambda s, i, a, b: np.concatenate([a[: a.size // 2], b[: b.size // 2]]),
    K.VPERM: lambda s, i, a, b: a[b.view(I32) % a.size],
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
