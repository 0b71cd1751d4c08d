"""Kernels that call other kernels: what a call passes, what it destroys, and who is told."""

from __future__ import annotations

from dataclasses import replace

import machine
import numpy as np
import pytest

from gllm_kernels.codegen import interp, spec
from gllm_kernels.codegen.assemble import compile_kernel, compile_routine
from gllm_kernels.codegen.kernel import Inst, K, KernelBuilder, KParam, Mem, Routine, walk
from gllm_kernels.errors import CompileError
from gllm_kernels.trace.affine import Affine

HOST = pytest.mark.parametrize("isa", machine.ISAS, ids=lambda i: i.name)
ONE = Affine.const(1)


def scaled(lanes, factor):
    """x[i] *= factor * scale for begin <= i < end; the scale is in a float slot."""
    params = (KParam("x", "ptr"), KParam("scale", "f32"))
    b = KernelBuilder("scaled", lanes, params)
    with b.loop(b.emit(K.BEGIN), b.emit(K.END), lanes, name="inner") as loop:
        mask = b.emit(K.FIRST, b.emit(K.END) - loop.iv)
        value = b.load(b.arg("x"), loop.iv, mask=mask) * b.arg("scale") * factor
        b.store(b.arg("x"), loop.iv, value, mask=mask)
    return b.build(ONE, 1)


def caller(isa, routine, live=0):
    """Rows of n floats through the routine; `live` integers and vectors live across every call."""
    params = (KParam("x", "ptr"), KParam("out", "ptr"), KParam("n", "i64"), KParam("scale", "f32"))
    b = KernelBuilder("caller", isa.lanes, params)
    n, block, zero = b.arg("n"), b.emit(K.SCRATCH), b.int(0)
    numbers = [n * (i + 3) for i in range(live)]
    vectors = [b.load(b.arg("out"), zero, disp=4 * isa.lanes * i) for i in range(live)]
    b.store(block, zero, b.arg("scale"), disp=8)
    with b.loop(0, 3, 1, name="rows") as row:
        b.fill(block, ("x",), {"x": b.arg("x") + row.iv * n * 4})
        b.call(b.code(routine), block, zero, n)
    for i, (number, vector) in enumerate(zip(numbers, vectors)):
        value = b.emit(K.VI2F, b.emit(K.SPLAT, number)) + vector
        b.store(b.arg("out"), zero, value, disp=4 * isa.lanes * i)
    return b.build(ONE, 1, scratch=Affine.const(64 + 4 * isa.lanes))


@HOST
@pytest.mark.parametrize("n", (0, 1, 16, 37))
@pytest.mark.parametrize("live", (0, 12))
def test_a_call_keeps_what_lives_across_it(n, live, isa):
    routine = Routine("scaled", scaled, (isa.lanes, 2.0))
    kernel = caller(isa, routine, live)
    spec.check(kernel)
    args = {"x": np.arange(3 * n, dtype=np.float32), "n": n, "scale": 0.5,
            "out": np.arange(live * isa.lanes, dtype=np.float32)}
    code = machine.agree(kernel, isa, args, 0, 1)
    assert [c.kernel.name for c in code.called] == ["scaled"]
    assert {s.name for s in code.loop_stats()} == {"inner"}  # "rows" calls
    assert "scaled for" in str(code)


@HOST
def test_equal_routines_are_compiled_once(isa):
    first, second = (Routine("scaled", scaled, (isa.lanes, 3.0)) for _ in range(2))
    assert compile_routine(first, isa) is compile_routine(second, isa)
    assert first.kernel is second.kernel


@HOST
def test_routines_call_routines(isa):
    inner = Routine("scaled", scaled, (isa.lanes, 2.0))
    outer = Routine("caller", caller, (isa, inner))
    b = KernelBuilder("top", isa.lanes, outer.kernel.params)
    block = b.emit(K.SCRATCH) + 256
    for number, name in enumerate(("x", "out", "n")):
        b.emit(K.ISTORE, block, b.int(0), b.arg(name), imm=Mem(1, 8 * number))
    b.store(block, b.int(0), b.arg("scale"), disp=24)
    b.call(b.code(outer), block)  # `caller` fills its own block at the start of the same scratch
    kernel = b.build(ONE, 1, scratch=Affine.const(512))
    args = {"x": np.arange(9, dtype=np.float32), "out": np.zeros(1, np.float32), "n": 3,
            "scale": 1.5}
    machine.agree(kernel, isa, args, 0, 1)
    interp.run(kernel, args, 0, 1)
    assert np.array_equal(args["x"], 3 * np.arange(9, dtype=np.float32))


def test_a_broken_routine_breaks_its_caller():
    isa = machine.ISAS[0] if machine.ISAS else pytest.skip("no vector instructions")
    good = scaled(isa.lanes, 2.0)
    broken = replace(good, grain=0)
    with pytest.raises(CompileError, match="grain 0"):
        spec.check(caller(isa, Routine("broken", lambda: broken)))
    kernel = caller(isa, Routine("scaled", scaled, (isa.lanes, 2.0)))
    code = next(s for s in walk(kernel.body) if isinstance(s, Inst) and s.op is K.CODE)
    with pytest.raises(CompileError, match="wanted a Routine"):
        spec.check(replace(kernel, body=(replace(code, imm="scaled"),)))


def test_the_interpreter_calls_only_routines():
    b = KernelBuilder("wild", 16, ())
    b.call(b.int(4096), b.emit(K.SCRATCH))
    with pytest.raises(CompileError, match="calls 0x1000, which is no routine"):
        interp.run(b.build(ONE, 1), {}, 0, 1)
