"""The machine's own limits: loops of nothing but multiply-adds, and of nothing but reads.

    void loop(const void *x, int64 rounds):   do { body; x += stride } while (--rounds)

They are written here instruction by instruction: a limit that our own compiler found would move
when the compiler does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from iced_x86 import Code, Encoder, Instruction, MemoryOperand, Register

from ...codegen.isa.base import Isa
from ...codegen.isa.detect import host
from ...memory import CodeBatch, place_batch
from .peers import Array, Run

LINE, STRIDE, AHEAD = 64, 1024, 4096
FMA_ROUNDS = 100_000  # about a millisecond
FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


@dataclass(frozen=True, slots=True)
class Words:
    """The instructions of a vector width."""

    first: int  # register
    zero: int
    maximum: int
    fma: int


# fmt: off
WORDS = {
    "avx512": Words(Register.ZMM0, Code.EVEX_VPXORD_ZMM_K1Z_ZMM_ZMMM512B32,
                    Code.EVEX_VMAXPS_ZMM_K1Z_ZMM_ZMMM512B32_SAE,
                    Code.EVEX_VFMADD231PS_ZMM_K1Z_ZMM_ZMMM512B32_ER),
    "avx2":   Words(Register.YMM0, Code.VEX_VPXOR_YMM_YMM_YMMM256,
                    Code.VEX_VMAXPS_YMM_YMM_YMMM256, Code.VEX_VFMADD231PS_YMM_YMM_YMMM256),
}
# type: (instruction, feature, products per lane) where the processor multiplies it itself
PAIRS = Code.EVEX_VDPBF16PS_ZMM_K1Z_ZMM_ZMMM512B32, "avx512_bf16", 2
BYTES = Code.EVEX_VPDPBUSD_ZMM_K1Z_ZMM_ZMMM512B32, "avx512_vnni", 4
NATIVE = {("bf16", "avx512"): PAIRS, ("bf16", "avx512bf16"): PAIRS, ("bytes", "avx512"): BYTES}
WORDS["avx512bf16"] = WORDS["avx512"]
# fmt: on


@dataclass(frozen=True, slots=True)
class Limits:
    """Runs whose time is a limit, and the work of one run."""

    peak: Run
    flops: float
    read: Run
    bytes: int
    keep: tuple[CodeBatch, Array]


@cache
def limits_of(isa: Isa, type_: str, threads: int, size: int) -> Limits:
    """Of `threads` threads at once; `size` bytes of memory are read."""
    words, chains = WORDS[isa.name], 28 if isa.vregs == 32 else 12
    fma, per_lane = multiply(isa, type_)
    regs = [words.first + i for i in range(chains + 1)]
    peak = [Instruction.create_reg_reg_reg(fma, r, regs[0], regs[0]) for r in regs[1:]]
    batch = place_batch([assembled(isa, peak, 0), assembled(isa, reads(isa), STRIDE)])
    memory = np.ones(size // (STRIDE * threads) * threads * STRIDE, np.uint8)
    part = memory.size // threads
    fmas = [(memory.ctypes.data, FMA_ROUNDS)] * threads
    parts = [(memory.ctypes.data + part * i, part // STRIDE) for i in range(threads)]
    return Limits(together(batch.addresses[0], fmas),
                  2.0 * FMA_ROUNDS * chains * isa.lanes * per_lane * threads,
                  together(batch.addresses[1], parts), memory.size, (batch, memory))


def multiply(isa: Isa, type_: str) -> tuple[int, int]:
    """The multiply-add of a type, products per lane; of float32 where the processor has none."""
    code, feature, per_lane = NATIVE.get((type_, isa.name), (WORDS[isa.name].fma, "", 1))
    return (code, per_lane) if not feature or feature in host().features else (
        WORDS[isa.name].fma, 1)


def reads(isa: Isa) -> list[Instruction]:
    """1 KB with a prefetch 4 KB ahead; eight maxima, so that none waits for another."""
    words, width = WORDS[isa.name], isa.vector_bytes
    ahead = [Instruction.create_mem(Code.PREFETCHT0_M8, at(AHEAD + line))
             for line in range(0, STRIDE, LINE)]
    return ahead + [Instruction.create_reg_reg_mem(words.maximum, reg, reg, at(width * v))
                    for v in range(STRIDE // width) for reg in (words.first + v % 8,)]


def at(disp: int) -> MemoryOperand:
    return MemoryOperand(Register.RDI, displ=disp, displ_size=8)


def assembled(isa: Isa, body: Sequence[Instruction], stride: int) -> bytes:
    words, encoder, size = WORDS[isa.name], Encoder(64), 0
    zeros = [Instruction.create_reg_reg_reg(words.zero, r, r, r)
             for r in range(words.first, words.first + isa.vregs)]
    for instruction in zeros:  # a denormal left in a register would be slow
        size += encoder.encode(instruction, size)
    end = (Instruction.create_reg_i32(Code.ADD_RM64_IMM32, Register.RDI, stride),
           Instruction.create_reg(Code.DEC_RM64, Register.RSI),
           Instruction.create_branch(Code.JNE_REL32_64, size),
           Instruction.create(Code.VEX_VZEROUPPER), Instruction.create(Code.RETNQ))
    for instruction in (*body, *end):
        size += encoder.encode(instruction, size)
    return encoder.take_buffer()


def together(address: int, arguments: list[tuple[int, int]]) -> Run:
    """One call per thread at the same time; ctypes lets the others run."""
    call = FUNCTION(address)
    if len(arguments) == 1:
        return lambda: call(*arguments[0])
    pool = ThreadPoolExecutor(len(arguments))
    return lambda: list(pool.map(lambda given: call(*given), arguments))
