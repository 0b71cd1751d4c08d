"""Loops, branches and register pressure: machine code against the interpreter, and its structure."""

from __future__ import annotations

import numpy as np
import pytest
from machine import ISAS, agree

from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.kernel import K, KernelBuilder, KParam
from gllm_kernels.errors import CompileError, UnsupportedOpError
from gllm_kernels.trace.affine import Affine

ONE = Affine.const(1)
PARAMS = (KParam("x", "ptr"), KParam("out", "ptr"), KParam("n", "i64"), KParam("m", "i64"))
each_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)


def builder(name, isa):
    b = KernelBuilder(name, isa.lanes, PARAMS)
    return b, *(b.arg(p.name) for p in PARAMS)


def check(b, isa, n=5, m=3, elements=64, code=None):
    kernel = b.build(ONE, 1)
    rng = np.random.default_rng(n)
    x = rng.standard_normal(elements * isa.lanes).astype(np.float32)
    code = code or compile_kernel(kernel, isa)
    for count in (n, 0, 1, 2, -3):
        agree(kernel, isa, {"x": x, "out": np.zeros(elements * isa.lanes, np.float32), "n": count,
                            "m": m}, code=code)
    return code


def put(b, out, number, value):
    """out[number] = value, whatever its type."""
    if value.type == "i64":
        value = b.emit(K.SPLAT, value)
    elif value.type == "mask":
        value = b.emit(K.SELECT, value, b.const(1.0), b.const(2.0))
    b.store(out, b.int(0), value, disp=4 * b.lanes * number)


@each_isa
@pytest.mark.parametrize("kind", ["vec", "i64", "mask"])
@pytest.mark.parametrize("turn", [(1, 0), (1, 2, 0), (2, 0, 1), (1, 0, 3, 2), (1, 2, 0, 0)])
def test_phis_that_change_places(isa, kind, turn):
    """yields are a permutation (or not even that) of the phis: a parallel move with cycles."""
    b, x, out, n, m = builder("turn", isa)
    inits = []
    for i in range(len(turn)):
        v = b.load(x, b.int(0), disp=4 * isa.lanes * i)
        inits.append({"vec": v, "i64": n + i, "mask": b.emit(K.VLT, v, b.const(0.1 * i))}[kind])
    with b.loop(0, n, 1, *inits) as loop:
        loop.yields(*(loop.phis[i] for i in turn))
    for i, value in enumerate(loop.results):
        put(b, out, i, value)
    check(b, isa)


@each_isa
def test_yields_of_constants_and_invariants(isa):
    b, x, out, n, m = builder("odd_yields", isa)
    v = b.load(x, b.int(0))
    with b.loop(0, n, 1, v, v, n, m, m) as loop:
        p, q, i, j, k = loop.phis
        loop.yields(b.const(3.0), v, b.int(7), n, loop.iv)
        put(b, out, 6, p + q)
        put(b, out, 7, i + j + k)
    for number, value in enumerate(loop.results):
        put(b, out, number, value)
    put(b, out, 5, v)
    check(b, isa)


@each_isa
def test_one_value_in_many_places(isa):
    """An accumulator that is an init twice, yielded twice, and used after the loop."""
    b, x, out, n, m = builder("shared", isa)
    v = b.load(x, b.int(0))
    with b.loop(0, n, 1, v, v) as loop:
        total = loop.phis[0] + loop.phis[1] * v
        loop.yields(total, total)
    put(b, out, 0, loop.results[0] - loop.results[1])
    put(b, out, 1, loop.results[0] + v)
    check(b, isa)


@each_isa
def test_nested_loops_carry_values(isa):
    """Sums of sums, an inner result as outer phi, bounds that depend on the outer counter."""
    b, x, out, n, m = builder("nested", isa)
    with b.loop(0, n, 1, b.const(0.0), b.int(0)) as outer:
        with b.loop(outer.iv, m, 2, outer.phis[0], outer.phis[1]) as inner:
            value = b.load(x, inner.iv * isa.lanes)
            with b.when_less(inner.iv, 2):
                put(b, out, 3, value)
            inner.yields(inner.phis[0] + value, inner.phis[1] + outer.iv)
        with b.loop(0, 3, 1, inner.results[0]) as third:
            third.yields(third.phis[0] * b.const(1.25))
        put(b, out, 2, inner.results[0])
        outer.yields(third.results[0], inner.results[1] + 1)
    put(b, out, 0, outer.results[0])
    put(b, out, 1, outer.results[1])
    check(b, isa)


@each_isa
@pytest.mark.parametrize("bounds", [(0, 0), (5, 5), (7, 3), (0, 1), (-4, 4), (0, 10)])
def test_constant_bounds(isa, bounds):
    b, x, out, n, m = builder("bounds", isa)
    with b.loop(*bounds, 3, n) as loop:
        loop.yields(loop.phis[0] + loop.iv)
    put(b, out, 0, loop.results[0])
    check(b, isa)


@each_isa
@pytest.mark.parametrize("kind, count", [("vec", 12), ("vec", 40), ("vec", 90), ("i64", 30),
                                         ("mask", 14), ("mask", 40)])
def test_more_values_than_registers(isa, kind, count):
    """All live across a loop that uses each, and carried by it."""
    b, x, out, n, m = builder("pressure", isa)
    values = []
    for i in range(count):
        v = b.load(x, b.int(0), disp=4 * (i % 50))
        values.append({"vec": v, "i64": n * m + 3 * i,
                       "mask": b.emit(K.VLT, v, b.const(0.05 * i))}[kind])
    with b.loop(0, n, 1, *values) as loop:
        step = {"vec": b.const(2.0), "i64": loop.iv, "mask": values[3]}[kind]
        op = {"vec": K.VMUL, "i64": K.IADD, "mask": K.MAND}[kind]
        loop.yields(*(b.emit(op, p, step) for p in loop.phis))
    total = loop.results[0]
    join = {"vec": K.VADD, "i64": K.IADD, "mask": K.MOR}[kind]
    for value in (*loop.results[1:], *values):
        total = b.emit(join, value, total)
    put(b, out, 0, total)
    registers = {"vec": isa.vregs, "i64": 15, "mask": 7 if isa.mask_class == "k" else isa.vregs}
    code = check(b, isa, elements=80)
    assert (code.spills > 0) == (2 * count > registers[kind])


@each_isa
def test_outer_integers_are_spilled_first(isa):
    """30 outer counters do not take a register from the inner loop."""
    b, x, out, n, m = builder("outer", isa)
    numbers = [n * (i + 3) for i in range(30)]
    with b.loop(0, n, 1, b.const(0.0)) as outer:
        with b.loop(0, m, 1, outer.phis[0]) as inner:
            inner.yields(inner.phis[0] + b.load(x, inner.iv * 4))
        outer.yields(inner.results[0])
    total = numbers[0]
    for number in numbers[1:]:
        total = b.emit(K.IMUL, total, number + total)
    put(b, out, 0, total)
    put(b, out, 1, outer.results[0])
    code = check(b, isa)
    assert code.spills > 0
    assert [(s.spills, s.moves) for s in code.loop_stats()] == [(0, 0)]


def polynomial(isa, degree, unroll):
    """out = Horner's scheme in x, `unroll` vectors per round, constants from the pool."""
    b, x, out, n, m = builder("poly", isa)
    with b.loop(0, n, unroll * isa.lanes) as loop:
        for u in range(unroll):
            disp = 4 * isa.lanes * u
            v = b.load(x, loop.iv, disp=disp)
            p = b.const(1.0 / (degree + 1))
            for i in range(degree):
                p = b.emit(K.VFMA, p, v, b.const(1.0 / (i + 2)))
            b.store(out, loop.iv, p, disp=disp)
    return b


@each_isa
@pytest.mark.parametrize("unroll", [1, 2, 4])
def test_horner_needs_one_instruction_per_step(isa, unroll):
    """The first coefficient is loaded into the accumulator, the others come from memory."""
    b = polynomial(isa, 6, unroll)
    kernel = b.build(ONE, 1)
    stats, = compile_kernel(kernel, isa).loop_stats()
    assert stats.moves == stats.spills == 0
    assert (stats.fmas, stats.stores) == (6 * unroll, unroll)
    # load x, load the first coefficient, six fma, store; add, cmp, jl
    assert stats.instructions == 9 * unroll + 3
    x = np.linspace(-2, 2, 8 * isa.lanes, dtype=np.float32)
    agree(kernel, isa, {"x": x, "out": np.zeros_like(x), "n": x.size, "m": 0})


def micro_kernel(isa, mr, nv, unroll):
    """c[mr][nv*lanes] += a[k][mr] * b[k][nv*lanes]."""
    lanes = isa.lanes
    b = KernelBuilder(f"micro{mr}x{nv}", lanes, (KParam("a", "ptr"), KParam("b", "ptr"),
                                                 KParam("c", "ptr"), KParam("k", "i64")))
    left, right, c, k, zero = *(b.arg(p.name) for p in b.params), b.int(0)
    with b.loop(0, k, unroll, left, right, *[b.const(0.0)] * (mr * nv), name="k") as loop:
        p, q, *acc = loop.phis
        for u in range(unroll):
            rows = [b.load(q, zero, disp=4 * lanes * (v + nv * u)) for v in range(nv)]
            for i in range(mr):
                one = b.broadcast(p, zero, disp=4 * (i + mr * u))
                for v in range(nv):
                    acc[i * nv + v] = b.emit(K.VFMA, one, rows[v], acc[i * nv + v])
        loop.yields(p + 4 * mr * unroll, q + 4 * lanes * nv * unroll, *acc)
    for i, value in enumerate(loop.results[2:]):
        b.store(c, zero, b.load(c, zero, disp=4 * lanes * i) + value, disp=4 * lanes * i)
    return b.build(ONE, 1)


@each_isa
@pytest.mark.parametrize("unroll", [1, 4])
def test_micro_kernel_has_nothing_superfluous(isa, unroll):
    mr, nv = (14, 2) if isa.vregs == 32 else (6, 2)
    kernel = micro_kernel(isa, mr, nv, unroll)
    code = compile_kernel(kernel, isa)
    stats, = code.loop_stats()
    assert (code.spills, code.moves) == (0, 0)
    assert stats.fmas == mr * nv * unroll
    assert stats.loads == (mr + nv) * unroll
    assert stats.instructions == stats.fmas + stats.loads + 5  # two pointers, add, cmp, jl
    rng = np.random.default_rng(0)
    a = rng.standard_normal((8, mr)).astype(np.float32)
    right = rng.standard_normal((8, nv * isa.lanes)).astype(np.float32)
    c = np.zeros((mr, nv * isa.lanes), np.float32)
    agree(kernel, isa, {"a": a, "b": right, "c": c, "k": 8}, code=code)


@pytest.mark.parametrize("isa", [i for i in ISAS if i.vregs == 32], ids=lambda i: i.name)
def test_single_column_uses_embedded_broadcast(isa):
    stats, = compile_kernel(micro_kernel(isa, 24, 1, 1), isa).loop_stats()
    assert (stats.instructions, stats.loads, stats.moves) == (24 + 1 + 5, 25, 0)


@each_isa
def test_store_between_load_and_use_is_respected(isa):
    """A load may not be folded into an instruction behind a store that may overwrite it."""
    b, x, out, n, m = builder("alias", isa)
    v = b.load(x, b.int(0))
    b.store(x, b.int(0), b.const(9.0))
    put(b, out, 0, v + b.const(1.0))
    w = b.load(x, b.int(0))
    with b.loop(0, n, 1):
        b.store(x, b.int(0), b.const(4.0))
    put(b, out, 1, w + b.const(1.0))
    check(b, isa)


@each_isa
def test_load_outside_a_loop_stays_outside(isa):
    b, x, out, n, m = builder("invariant", isa)
    v = b.load(x, b.int(0))
    with b.loop(0, n, 1, b.const(0.0)) as loop:
        loop.yields(loop.phis[0] + v)
    put(b, out, 0, loop.results[0])
    stats, = check(b, isa).loop_stats()
    assert (stats.loads, stats.instructions) == (0, 4)


def test_wrong_width_and_missing_operation_are_refused():
    from dataclasses import replace
    isa = ISAS[-1]
    b, *_ = builder("narrow", isa)
    kernel = replace(b.build(ONE, 1), lanes=4)
    with pytest.raises(CompileError, match="written for 4 lanes"):
        compile_kernel(kernel, isa)
    b, x, out, n, m = builder("lacking", isa)
    put(b, out, 0, b.emit(K.VSQRT, b.load(x, n)))
    rows = {op: r for op, r in isa.rows.items() if op not in (K.VSQRT, K.LOAD)}
    with pytest.raises(UnsupportedOpError, match=r"no row for load, vsqrt"):
        compile_kernel(b.build(ONE, 1), replace(isa, rows=rows))


@each_isa
def test_listing_names_operation_and_origin(isa):
    b, x, out, n, m = builder("listed", isa)
    b.origin = "silu.out"
    put(b, out, 0, b.emit(K.VSQRT, b.load(x, n, disp=4)))
    code = compile_kernel(b.build(ONE, 1), isa)
    assert len(code.listing) == len(code.pieces)
    line = next(n for n in code.listing if n.text.startswith("vsqrtps"))
    assert (line.op, line.origin) == ("vsqrt", "silu.out") and "[r" in line.text
    assert "; vsqrt    silu.out" in str(code)


@each_isa
@pytest.mark.parametrize("lo", [0, 3])
def test_what_remains_is_counted_down(isa, lo):
    """n - iv costs one instruction a round, and no move."""
    b, x, out, n, m = builder("remains", isa)
    with b.loop(lo, n, 2, b.int(0)) as loop:
        loop.yields(loop.phis[0] + (m - loop.iv))
    put(b, out, 0, loop.results[0])
    stats, = check(b, isa).loop_stats()
    assert (stats.instructions, stats.moves) == (5, 0)
