"""Every kernel operation on every ISA: machine code against the interpreter, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from machine import ISAS, RUNNABLE, agree

from gllm_kernels.codegen.kernel import (
    DOWN,
    I64,
    MASK,
    STORAGE,
    TABLE,
    TO_ZERO,
    UP,
    VEC,
    K,
    KernelBuilder,
    KParam,
    Mem,
)
from gllm_kernels.trace.affine import Affine

ONE = Affine.const(1)
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38,
                    -3.4028235e38, 1.0, -1.0, 0.5, 2.5, 3.5, -2.5, 8388607.5, 2147483648.0, 1e-20,
                    -2147483648.0, 2147483520.0, 127.0, -126.0, 1e20], np.float32)


def values(rng, count, special=True):
    plain = (rng.standard_normal(count) * 10.0 ** rng.integers(-3, 4, count)).astype(np.float32)
    return np.where(rng.random(count) < 0.5 * special, rng.choice(SPECIAL, count), plain)


# what works on lanes of 64 bits, or makes them; what gives only the lower half of a vector
DOUBLES = {op for op in TABLE if op.value[0] == "d" and op is not K.D2L} | {K.F2D, K.I2D, K.L2D}
HALVES = (K.D2F, K.D2I, K.L2I, K.L2F, K.UPPER)
WIDE_MASKS = (K.DLT, K.DLE, K.DEQ, K.DUNORD, K.LLT, K.LEQ, K.MLOW, K.MHIGH)
COUNTS = {K.VSHLV: 31, K.VSHRV: 31, K.VSARV: 31, K.LSARV: 63}


def vector_cases():
    for op, row in TABLE.items():
        plain = all(t in (VEC, MASK) for t in row.args) and row.args and row.result in (VEC, MASK)
        if plain and op is not K.VDOT2:  # not the same bits on every processor: test_pairs.py
            yield op


def immediates(op, lanes, rng):
    if op in (K.VSHL, K.VSHR, K.VSAR):
        return [0, 1, 23, 31]
    if op in (K.LSHL, K.LSHR, K.LSAR):
        return [0, 1, 31, 32, 33, 63]
    if op is K.PERMUTE:
        inside = tuple(int(i) // 4 * 4 + (1, 0, 3, 2)[i % 4] for i in range(lanes))
        return [inside, tuple(range(lanes))[::-1],
                *(tuple(int(i) for i in rng.integers(0, lanes, lanes)) for _ in range(3))]
    if op is K.SHUF128:
        blocks = lanes // 4
        return [tuple(int(i) for i in rng.integers(0, blocks, blocks)) for _ in range(8)]
    if op in (K.VROUND, K.DROUND):
        return [None, DOWN, UP, TO_ZERO]
    return [None]


@pytest.mark.parametrize("isa", RUNNABLE, ids=lambda i: f"{i.name}-{len(i.features)}")
@pytest.mark.parametrize("op", list(vector_cases()))
def test_vector_operation(op, isa):
    """All registers; then each source in turn loaded only for this operation (memory operand),
    broadcast from memory, and a constant.
    """
    rng = np.random.default_rng(list(K).index(op))
    row, lanes = TABLE[op], isa.lanes
    for imm in immediates(op, lanes, rng):
        for variant in ("register", "load", "broadcast", "constant"):
            for special in range(len(row.args)):
                kernel = operation(op, lanes, imm, variant, special)
                size = lanes * len(row.args)
                x = values(rng, size)
                if op is K.VDOT4:  # the bytes of a are at most 127
                    x[:lanes] = (x[:lanes].view(np.uint32) & np.uint32(0x7F7F7F7F)).view(np.float32)
                if op is K.VSCALEF:
                    x[lanes:] = rng.integers(-450, 450, lanes) + rng.choice([0, 0.25, 0.5], lanes)
                    x[:lanes] = np.where(rng.random(lanes) < 0.3, np.nan, x[:lanes]) \
                        if special else x[:lanes]
                if op in DOUBLES or op is K.D2L:
                    x[: size // 2 * 2] = values(rng, size // 2).astype(np.float64).view(np.float32)
                out = np.zeros(lanes // 2, np.float64) if op in DOUBLES - {*WIDE_MASKS, *HALVES} \
                    else np.zeros(lanes, np.float32)
                agree(kernel, isa, {"x": x, "out": out})


def operation(op, lanes, imm, variant, special):
    """out[:] = op(...): arguments from x, masks by comparing with zero."""
    row = TABLE[op]
    b = KernelBuilder(f"{op}_{variant}{special}", lanes, (KParam("x", "ptr"), KParam("out", "ptr")))
    x, out, zero = b.arg("x"), b.arg("out"), b.int(0)
    args, keep = [], []
    for i, type_ in enumerate(row.args):
        disp = 4 * lanes * i
        if variant == "broadcast" and i == special:
            value = b.broadcast(x, zero, disp=disp)
        elif variant == "constant" and i == special:
            value = b.const(2.0)
        else:
            value = b.load(x, zero, disp=disp)
        if variant == "register":
            keep.append(value)
        if type_ == MASK:
            value = b.emit(K.VLT, value, b.const(0.0))
            value = b.emit(K.MLOW, value) if op in (K.SELECT64, K.MJOIN) else value
        if i == 1 and op in COUNTS:
            limit = b.bits(31) if COUNTS[op] == 31 else b.bits64(63).low
            value = b.emit(K.VAND, value, limit)
        args.append(value)
    result = b.emit(op, *args, imm=imm)
    if row.result == MASK:
        wide = op in WIDE_MASKS
        arms = (b.bits64(1).low, b.bits64(-1).low) if wide else (b.const(1.0), b.const(-1.0))
        result = b.emit(K.SELECT64 if wide else K.SELECT, result, *arms)
    if op in HALVES:
        result = b.emit(K.JOIN, result, result)
    if op.value.startswith("pack"):
        result = b.emit(K(f"un{op}"), result)
    for value in keep:  # a second use keeps the load in a register; the sum never changes NaN-ness
        b.store(out, zero, value)
    b.store(out, zero, result)
    return b.build(ONE, 1)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
def test_masked_memory_for_every_count(isa):
    """Loads and stores under first(count) touch nothing past the count."""
    b = KernelBuilder("tail", isa.lanes, (KParam("x", "ptr"), KParam("out", "ptr"),
                                          KParam("n", "i64")))
    x, out, n, zero = b.arg("x"), b.arg("out"), b.arg("n"), b.int(0)
    mask = b.emit(K.FIRST, n)
    b.store(out, zero, b.load(x, zero, mask=mask) + b.const(1.0), mask=mask)
    kernel = b.build(ONE, 1)
    code = None
    for count in [*range(isa.lanes + 3), -1, -5, 1 << 31, 1 << 32, 1 << 40, -(1 << 32), -(1 << 40)]:
        size = min(max(count, 0), isa.lanes)
        x = np.arange(size, dtype=np.float32)
        code = agree(kernel, isa, {"x": x, "out": np.zeros(size, np.float32), "n": count},
                     code=code)


INTEGERS = [0, 1, 2, 3, 7, 8, 255, -1, -2, -8, 1 << 31, -(1 << 31), (1 << 31) - 1, 1 << 40,
            -(1 << 40) - 3, (1 << 63) - 1, -(1 << 63)]


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("op", [K.IADD, K.ISUB, K.IMUL, K.IAND, K.IMIN, K.IMAX, K.IDIV])
def test_integer_operation(op, isa):
    """Both arguments in registers, then each one a constant; 64 bits leave as two splats."""
    for constant in (None, 0, 1):
        for number in [None] if constant is None else INTEGERS:
            if op is K.IDIV and number is not None and (number < 0 or constant == 1 and number < 1):
                continue
            kernel = integers(op, isa.lanes, constant, number)
            code = None
            for a in INTEGERS:
                for c in INTEGERS if constant is None else INTEGERS[:1]:
                    left, right = (number, a) if constant == 0 else (a, c)
                    right = number if constant == 1 else right
                    if op is K.IDIV and (left < 0 or right < 1):
                        continue
                    code = agree(kernel, isa, {"a": a, "b": a if constant == 0 else c,
                                               "out": np.zeros(3 * isa.lanes, np.float32)},
                                 code=code)


def integers(op, lanes, constant, number):
    b = KernelBuilder(f"{op}_{constant}_{number}", lanes,
                      (KParam("a", "i64"), KParam("b", "i64"), KParam("out", "ptr")))
    args = [b.arg("a"), b.arg("b")]
    if constant is not None:
        args[constant] = b.int(number)
    value, out, zero = b.emit(op, *args), b.arg("out"), b.int(0)
    b.store(out, zero, b.emit(K.SPLAT, value))
    with b.when_less(value, 0):  # the sign needs the upper half
        b.store(out, zero, b.const(1.0), disp=4 * lanes)
    with b.when_less(args[0], args[1]):
        b.store(out, zero, b.const(2.0), disp=8 * lanes)
    return b.build(ONE, 1)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
def test_leaves_and_single_elements(isa):
    """begin, end, scratch, argf, vlanes, iload32, store1, prefetch."""
    lanes = isa.lanes
    b = KernelBuilder("leaves", lanes, (KParam("x", "ptr"), KParam("out", "ptr"),
                                        KParam("s", "f32"), KParam("i", "ptr")))
    x, out, s, i, zero = b.arg("x"), b.arg("out"), b.arg("s"), b.arg("i"), b.int(0)
    b.emit(K.PREFETCH, x, b.int(1 << 20), imm=Mem(8, 0, 1))
    row = b.emit(K.ILOAD32, i, b.int(1), imm=Mem(4, 0))
    room = b.emit(K.SCRATCH)
    b.store(room, zero, b.load(x, row))
    parts = [b.load(room, zero), s, b.emit(K.VI2F, b.emit(K.VLANES)),
             b.emit(K.VI2F, b.emit(K.SPLAT, b.emit(K.BEGIN))),
             b.emit(K.VI2F, b.emit(K.SPLAT, b.emit(K.END)))]
    for number, part in enumerate(parts):
        b.store(out, zero, part, disp=4 * lanes * number)
    b.emit(K.STORE1, out, b.int(5 * lanes), s, imm=Mem(4, 0))
    kernel = b.build(Affine.const(9), 1, scratch=Affine.const(4 * lanes))
    out = np.zeros(5 * lanes + 1, np.float32)
    agree(kernel, isa, {"x": np.arange(lanes + 3, dtype=np.float32), "out": out, "s": 1.5,
                        "i": np.array([7, 3], np.int32)}, 4, 9)
    agree(kernel, isa, {"x": np.arange(lanes + 3, dtype=np.float32), "out": out, "s": -0.0,
                        "i": np.array([7, 0], np.int32)}, 0, 1)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
def test_bits_of_a_mask(isa):
    """One lane at a time, none and all; the sum of the bits bounds a loop that runs at most once."""
    lanes = isa.lanes
    b = KernelBuilder("bits", lanes, (KParam("x", "ptr"), KParam("out", "ptr")))
    out, zero, x = b.arg("out"), b.int(0), b.load(b.arg("x"), b.int(0))
    bits = b.emit(K.MBITS, b.emit(K.VLT, x, b.const(0.0)))
    b.store(out, zero, b.emit(K.SPLAT, bits))
    with b.loop(0, bits, 1 << lanes, x) as loop:
        loop.yields(loop.phis[0] + 1.0)
    b.store(out, zero, loop.results[0], disp=4 * lanes)
    kernel = b.build(ONE, 1)
    numbers = np.arange(lanes)
    for mask in (numbers < 0, numbers >= 0, *(numbers == lane for lane in range(lanes))):
        x = np.where(mask, -1, 1).astype(np.float32)
        agree(kernel, isa, {"x": x, "out": np.zeros(2 * lanes, np.float32)})


def test_types_cover_the_table():
    """No operation is left out: vector rows above, integers, memory, leaves."""
    done = set(vector_cases()) | {K.IADD, K.ISUB, K.IMUL, K.IAND, K.IMIN, K.IMAX, K.IDIV}
    done |= {op for op, row in TABLE.items() if not row.args}
    done |= {op for ops in STORAGE.values() for op in ops.values()}  # 16-bit ones: test_kernel_storage.py
    done |= {K.PREFETCH, K.ILOAD32}
    done |= {K.ILOAD, K.ISTORE, K.CALL, K.LOADW, K.VDOT2}  # test_routines.py, test_pairs.py
    done |= {K.FIRST, K.SPLAT, K.MBITS, K.GATHER}  # test_quant.py
    assert done == set(K) and TABLE[K.FIRST].args == (I64,)
