"""Running compiled kernels on guarded buffers, beside the interpreter."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping

import numpy as np
from guard import guarded, guarded_copy

from gllm_kernels.codegen import interp
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.code import Code
from gllm_kernels.codegen.isa.avx2 import AVX2
from gllm_kernels.codegen.isa.avx512 import AVX512, AVX512_FIRST
from gllm_kernels.codegen.isa.detect import host, host_isas
from gllm_kernels.codegen.kernel import Kernel
from gllm_kernels.memory import place_batch

ISAS = [isa for isa in (AVX512, AVX2) if isa in host_isas()]
# with those that this processor runs as well, though it has a richer one of the same name
RUNNABLE = [isa for isa in (AVX512, AVX512_FIRST, AVX2) if isa.features <= host().features
            and isa.name in {i.name for i in host_isas()}]


def call(code: Code, args: Mapping[str, np.ndarray | int | float], begin: int = 0,
         end: int | None = None) -> None:
    """Run machine code on arrays where they lie."""
    kernel = code.kernel
    sizes = {p.name: int(args[p.name]) for p in kernel.params if p.kind == "i64"}
    end = kernel.units.evaluate(sizes) if end is None else end
    scratch = guarded(max(64, kernel.scratch.evaluate(sizes)), np.uint8)
    slots = b"".join(slot(p.kind, args[p.name]) for p in kernel.params) or bytes(8)
    table = guarded_copy(np.frombuffer(slots, np.uint8))
    batch = place_batch([code.bytes])
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                ctypes.c_void_p)(batch.addresses[0])
    function(address(table), begin, end, address(scratch))


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def slot(kind: str, value: np.ndarray | int | float) -> bytes:
    if isinstance(value, np.ndarray):
        return struct.pack("<Q", address(value))
    return struct.pack("<f4x", value) if kind == "f32" else struct.pack("<q", value)


def same_bits(got: np.ndarray, want: np.ndarray) -> bool:
    """Equal bit for bit; any NaN equals any NaN."""
    if got.dtype.kind in "fV":  # bfloat16 is no kind of numpy's
        nan, bits = np.isnan(got) & np.isnan(want), f"u{got.itemsize}"
        return np.array_equal(np.where(nan, 0, got.view(bits)), np.where(nan, 0, want.view(bits)))
    return np.array_equal(got, want)


def agree(kernel: Kernel, isa: object, args: Mapping[str, np.ndarray | int | float],
          begin: int = 0, end: int | None = None, code: Code | None = None,
          memory: tuple[np.ndarray, ...] = ()) -> Code:
    """Machine code and interpreter leave the same bytes in every buffer, touching no guard. An
    argument may be an address in `memory`."""
    code = code or compile_kernel(kernel, isa)
    want = {n: a.copy() if isinstance(a, np.ndarray) else a for n, a in args.items()}
    interp.run(kernel, want, begin, end, memory)
    for at in ("end", "start"):
        got = {n: guarded_copy(a, at) if isinstance(a, np.ndarray) else a for n, a in args.items()}
        call(code, got, begin, end)
        for name, array in got.items():
            if isinstance(array, np.ndarray) and not same_bits(array, want[name]):
                bad = np.flatnonzero(array.reshape(-1).view(np.uint32)
                                     != want[name].reshape(-1).view(np.uint32))
                raise AssertionError(
                    f"{kernel.name} on {isa.name}, buffer {name}, elements {bad[:8]}:\n"
                    f"machine {array.reshape(-1)[bad[:8]]}\ninterp  "
                    f"{want[name].reshape(-1)[bad[:8]]}\n{kernel}\n{code}")
    return code
