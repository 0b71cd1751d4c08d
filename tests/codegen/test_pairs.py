"""Products of two bf16 matrices that multiply pairs of terms: interpreter and machine against
float64, between guard pages, for odd depths and every layout."""

from __future__ import annotations

from dataclasses import replace

import machine
import ml_dtypes
import numpy as np
import products
import pytest
from guard import guarded_copy
from products import Form

import gllm_kernels as gk
from gllm_kernels.codegen import dots, gemm, interp, micro, spec
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.isa.avx512 import AVX512_BF16 as AVX512
from gllm_kernels.codegen.isa.detect import host
from gllm_kernels.codegen.pairs import PAIRS
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.config import config

BF16 = np.dtype(ml_dtypes.bfloat16)
HOST = pytest.mark.skipif("avx512_bf16" not in host().features, reason="no AVX512_BF16")
FORMS = [Form(a, b) for a in "nt" for b in "nt"]
SHAPES = [(m, n, k) for m in (2, 7) for n in (3, 37) for k in (1, 2, 31, 33)] + [(5, 3, 0)]


def kernel_of(form, **changes):
    trace = products.trace_of(form)
    params = tuple(replace(p, ctype="bf16") if p.name in "ab" else p for p in trace.params)
    small = replace(products.small(AVX512), pairs=True, **changes)
    return gemm.generate(replace(trace, params=params), AVX512, small)


def operands(form, m, n, k):
    args = products.operands(form, m, n, k)
    return args | {name: args[name].astype(BF16) for name in "ab"}


def want(form, args):
    m, n, k = (args[s] for s in "mnk")

    def matrix(name, rows, width):
        whole = np.append(args[name].astype(np.float64), np.zeros(products.PAD))
        return whole.reshape(-1, width + products.PAD)[:rows, :width] if rows else whole[:0]

    a = matrix("a", m, k) if form.a == "n" else matrix("a", k, m).T
    b = matrix("b", k, n) if form.b == "n" else matrix("b", n, k).T
    return a.reshape(m, k) @ b.reshape(k, n), np.abs(a.reshape(m, k)) @ np.abs(b.reshape(k, n))


def close(form, args):
    m, n = args["m"], args["n"]
    exact, size = want(form, args)
    got = np.append(args["c"], np.zeros(products.PAD, np.float32)).reshape(m, -1)
    assert (np.abs(got[:, :n] - exact) <= 1e-5 * size + 1e-6).all()
    assert (got[:-1, n:] == 7).all()  # between the rows nothing is written


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("few", (0, 3))
def test_interpreter(form, few):
    kernel = kernel_of(form, few=few)
    spec.check(kernel)
    for shape in SHAPES[::3]:
        args = operands(form, *shape)
        interp.run(kernel, args)
        close(form, args)


@HOST
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("few", (0, 8))
def test_machine_code_between_guard_pages(form, few):
    code = compile_kernel(kernel_of(form, few=few), AVX512)
    for shape in [*SHAPES, (30, 70, 63), (6, 9, 64)]:
        for at in ("end", "start"):
            args = {n: guarded_copy(v, at) if isinstance(v, np.ndarray) else v
                    for n, v in operands(form, *shape).items()}
            machine.call(code, args)
            close(form, args)


@HOST
def test_default_blocks_and_any_split_of_the_columns():
    form = Form(b="t")
    trace = products.trace_of(form)
    params = tuple(replace(p, ctype="bf16") if p.name in "ab" else p for p in trace.params)
    assert default_params(AVX512).pairs
    kernel = gemm.generate(replace(trace, params=params), AVX512, default_params(AVX512))
    code = compile_kernel(kernel, AVX512)
    for m in (9, 70):
        args = operands(form, m, 230, 2301)
        parts = args | {"c": args["c"].copy()}
        machine.call(code, args)
        close(form, args)
        for begin, end in ((0, 1), (1, 96 * m), (96 * m, 230 * m)):
            machine.call(code, parts, begin, end)
        assert np.array_equal(args["c"].view(np.uint32), parts["c"].view(np.uint32))


def test_hot_loops_hold_one_instruction_for_32_terms():
    params, (wide, tall) = default_params(AVX512), dots.tile_of(AVX512)
    code = compile_kernel(micro.micro(AVX512, params, params.mr, PAIRS), AVX512)
    loop = next(s for s in code.loop_stats() if s.name == "k")
    assert (loop.fmas, loop.moves, loop.spills) == (params.mr * 2, 0, 0)
    code = compile_kernel(dots.dot_tiles(AVX512, params.column_ahead, PAIRS), AVX512)
    for loop in (s for s in code.loop_stats() if s.name in ("dot k", "dot k panel")):
        assert (loop.fmas, loop.moves, loop.spills) == (wide * tall, 0, 0)
    assert "vdpbf16ps" in str(code)


@HOST
def test_only_who_asks_for_pairs_gets_them():
    """Denormals survive, and rows are the same in any product, unless `avx512bf16` is in force."""
    b = np.full((8, 32), 2e38).astype(BF16)
    small = np.full((2, 8), 1e-39).astype(BF16)
    with config(isa="avx512"):
        assert (gk.gemm(small, b) == gk.gemm(small[:1], b)).all() and (gk.gemm(small, b) > 1.5).all()
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s, dtype=np.float32).astype(BF16) for s in ((130, 77), (77, 40)))
    with config(isa="avx512bf16"):
        got = gk.gemm(a, b).astype(np.float64)
    np.testing.assert_allclose(got, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-2, atol=0.1)
