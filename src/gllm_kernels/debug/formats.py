"""Weight formats as the compiler sees them: one line each, described and measured now."""

from __future__ import annotations

from collections.abc import Iterator
from time import process_time

import numpy as np

from ..codegen.assemble import compile_kernel
from ..codegen.isa.base import Isa
from ..codegen.isa.detect import current_isa
from ..codegen.kernel import K, Kernel, KernelBuilder, KParam
from ..errors import UnsupportedOpError
from ..lift.lifter import subject_of
from ..lift.signature import parse
from ..memory import CodeBatch, place_batch
from ..ops.weights import caller, loaded
from ..quant.lift import analyse, check, samples
from ..scalar.formats import FORMATS, ROWS, WeightFormat, decoders
from ..trace.affine import Affine

VALUES = 4096  # decoded in one call: 16 KB of floats
ROUNDS, REPEATS = 100, 25


def formats_table() -> Iterator[str]:
    """Processor time, best of many: milliseconds to describe a decoder, nanoseconds to decode a value in cache."""
    isa = current_isa()
    if isa is None:
        raise UnsupportedOpError("there are no vector decoders under isa=scalar; choose another")
    yield (f"{'format':10}{'values':>7}{'bytes':>6}{'groups':>7}{'q':>14}{'lift ms':>9}"
           f"{'ns/value':>10}{'scalar':>8}{'ratio':>7}   on {isa.name}")  # fmt: skip
    for row in ROWS:
        yield _line(row, isa)


def _line(row: WeightFormat, isa: Isa) -> str:
    subject = subject_of(decoders(), parse(row.declaration))
    start = process_time()
    desc = analyse(subject, row.size)
    lifted = 1e3 * (process_time() - start)
    check(desc, subject)
    decoder = loaded(desc, isa)
    units = -(-VALUES // (row.values * decoder.count))
    count = units * decoder.count
    blocks, out = np.resize(samples(row.size), (count, row.size)), np.empty((count, row.values), np.float32)
    each = place_batch([compile_kernel(calls(row, isa), isa).bytes])
    pointers = [blocks.ctypes.data, out.ctypes.data]
    seconds = [
        _seconds(isa, decoder.code, [*pointers, decoder.tables.ctypes.data, units], units),
        _seconds(isa, each, [*pointers, FORMATS.address(row.name)], count),
    ]
    low, high = desc.range
    ns = [1e9 * x / (count * row.values) for x in seconds]
    return (f"{row.name:10}{row.values:7}{row.size:6}{len(desc.scales):7}{f'{low}..{high}':>14}{lifted:9.1f}"
            f"{ns[0]:10.3f}{ns[1]:8.2f}{ns[1] / ns[0]:7.1f}")  # fmt: skip


def _seconds(isa: Isa, code: CodeBatch, slots: list[int], units: int) -> float:
    """The best time of a kernel in one of many rounds, which machine code counts."""
    batch = place_batch([compile_kernel(rounds(isa), isa).bytes])
    function, inner = caller(batch), np.array(slots, np.int64)
    outer = np.array([code.addresses[0], inner.ctypes.data, units], np.int64)
    best = float("inf")
    for _ in range(REPEATS):
        start = process_time()
        function(outer.ctypes.data, 0, ROUNDS, None)
        best = min(best, process_time() - start)
    return best / ROUNDS


def rounds(isa: Isa) -> Kernel:
    """Another kernel, again and again."""
    b = KernelBuilder("rounds", isa.lanes, tuple(KParam(n, "i64") for n in ("code", "slots", "units")))
    with b.loop(b.emit(K.BEGIN), b.emit(K.END), 1):
        b.call(b.arg("code"), b.arg("slots"), b.int(0), b.arg("units"))
    return b.build(Affine.const(1), 1)


def calls(row: WeightFormat, isa: Isa) -> Kernel:
    """decode(block, out) takes the first two arguments that a routine gets."""
    params = (KParam("blocks", "ptr"), KParam("out", "ptr"), KParam("decode", "i64"))
    b = KernelBuilder("each", isa.lanes, params)
    with b.loop(b.emit(K.BEGIN), b.emit(K.END), 1) as loop:
        block = b.arg("blocks") + loop.iv * row.size
        b.call(b.arg("decode"), block, b.arg("out") + loop.iv * (4 * row.values))
    return b.build(Affine.const(1), 1)
