"""Matrix products as machine code: the interpreter's bits on guarded pages, and what loops hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import machine
import numpy as np
import products
import pytest
from products import Form

from gllm_kernels.codegen import dots, gemm, micro, packed, small, sweep
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.isa.avx2 import AVX2
from gllm_kernels.codegen.isa.avx512 import AVX512
from gllm_kernels.codegen.tuning import default_params

HOST = pytest.mark.parametrize("isa", machine.ISAS, ids=lambda i: i.name)
EVERY = pytest.mark.parametrize("isa", (AVX2, AVX512), ids=lambda i: i.name)


def kernel_of(form, isa, **changes):
    return gemm.generate(products.trace_of(form), isa, replace(products.small(isa), **changes))


@HOST
@pytest.mark.parametrize("form", products.FORMS, ids=str)
def test_machine_code_has_the_bits_of_the_interpreter(form, isa):
    kernel, mr, nr = kernel_of(form, isa), products.small(isa).mr, products.small(isa).nr
    code = compile_kernel(kernel, isa)
    for m, n, k in ((1, 2 * nr + 5, 19), (3, nr + 1, 33), (mr + 1, nr + 3, 17), (5, 3, 0),
                    (0, 3, 2), (2, 0, 2)):
        args = products.operands(form, m if form.row else 1, n, k)
        machine.agree(kernel, isa, args, code=code)


@HOST
@pytest.mark.parametrize("b", "nt")
def test_edges_of_tiles_and_blocks(b, isa):
    form = Form(b=b, epilogue="bias_silu")
    kernel, mr, nr = kernel_of(form, isa), products.small(isa).mr, products.small(isa).nr
    code = compile_kernel(kernel, isa)
    for m in (mr - 1, mr, mr + 1, 2 * mr, 2 * mr + 1):
        machine.agree(kernel, isa, products.operands(form, m, nr + 1, 15), code=code)
    for n in (nr - 1, nr, nr + 1, 2 * nr, 2 * nr + 1):
        for m in (1, 2, 4):
            machine.agree(kernel, isa, products.operands(form, m, n, 17), code=code)
    for k in (1, 15, 16, 17, 31, 32, 70):
        for m in (1, 5):
            machine.agree(kernel, isa, products.operands(form, m, 11, k), code=code)


@HOST
@pytest.mark.parametrize("form", [f for f in products.FORMS if f.row and f.b == "n"], ids=str)
def test_small_products(form, isa):
    """Every height of a tile, and last tiles that begin inside the one before."""
    kernel, mr, nr = kernel_of(form, isa, near=1 << 20), products.small(isa).mr, products.small(isa).nr
    code = compile_kernel(kernel, isa)
    for m in (*range(mr // 2, mr + 2), 2 * mr + 3):
        machine.agree(kernel, isa, products.operands(form, m, nr, 3), code=code)
    for n, k in ((nr - 1, 4), (nr + 1, 0), (2 * nr + 5, 1), (3 * nr, 19)):
        machine.agree(kernel, isa, products.operands(form, mr + 1, n, k), code=code)


@EVERY
def test_tiles_of_small_products_are_fmas_and_loads(isa):
    """Per term nr/lanes loads and prefetches, a broadcast for each row, a step for four rows of A."""
    params = default_params(isa)
    for height in range(small.low_height(params), params.mr + 1):
        loop = next(s for s in compile_kernel(small.tile(isa, params.nr, height), isa).loop_stats()
                    if s.name == "k")
        vectors, lines = params.nr // isa.lanes, -(-4 * params.nr // 64)
        assert (loop.fmas, loop.loads) == (height * vectors, height + vectors + lines)
        assert loop.instructions == loop.fmas + loop.loads + -(-height // 4) + 4
        assert (loop.moves, loop.spills, loop.stores) == (0, 0, 0)


@HOST
@pytest.mark.parametrize("b", "nt")
@pytest.mark.parametrize("m", (1, 3, 9, 23, 40))
def test_full_blocks_against_numpy(b, m, isa):
    """Default block sizes, k past two blocks, columns past one, and the same bits for any split."""
    form, n, k = Form(b=b, epilogue="residual"), 530, 1100
    kernel = gemm.generate(products.trace_of(form), isa, default_params(isa))
    code, args = compile_kernel(kernel, isa), products.operands(form, m, n, k)
    parts = args | {"c": args["c"].copy()}
    machine.call(code, args)
    for begin, end in pairwise((0, 1, 64, 100 * m, 150 * m + 1, m * n)):
        machine.call(code, parts, begin, end)
    right = padded_rows(args["b"], *((k, n) if b == "n" else (n, k)))
    want = padded_rows(args["a"], m, k) @ (right if b == "n" else right.T)
    got = padded_rows(args["c"], m, n)
    np.testing.assert_allclose(got, want + args["res"].reshape(m, n), rtol=1e-4, atol=1e-3)
    assert np.array_equal(args["c"].view(np.uint32), parts["c"].view(np.uint32))


@HOST
def test_more_than_one_block_in_every_direction(isa):
    """Rows past mc, columns past nc, k past kc."""
    params = default_params(isa)
    form = Form(b="t")
    m, n, k = params.mc + 70, params.nc + 70, params.kc + 30
    args = products.operands(form, m, n, k)
    machine.call(compile_kernel(gemm.generate(products.trace_of(form), isa, params), isa), args)
    a, b = padded_rows(args["a"], m, k), padded_rows(args["b"], n, k)
    np.testing.assert_allclose(padded_rows(args["c"], m, n), a @ b.T, rtol=1e-4, atol=1e-3)


@HOST
@pytest.mark.parametrize(("epilogue", "n"), (("residual", 2 * packed.KEPT + 70),
                                             ("plain", packed.EDGE + 70)))
def test_more_columns_than_sums_may_wait(epilogue, n, isa):
    """Sums of one block of k wait for the next: all of them, or those of tiles at the edges."""
    m, k, form = products.small(isa).mr + 1, 40, Form(epilogue=epilogue)
    args = products.operands(form, m, n, k)
    machine.call(compile_kernel(kernel_of(form, isa, few=0, swept=0), isa), args)
    want = padded_rows(args["a"], m, k) @ padded_rows(args["b"], k, n)
    want = want + args["res"].reshape(m, n) if epilogue == "residual" else want
    np.testing.assert_allclose(padded_rows(args["c"], m, n), want, rtol=1e-4, atol=1e-4)


def padded_rows(flat, rows, width):
    """The matrix inside an operand of `products.operands`."""
    whole = np.append(flat, np.zeros(products.PAD, np.float32))
    return whole.reshape(rows, width + products.PAD)[:, :width]


@EVERY
def test_micro_kernels_are_fmas_and_loads(isa):
    """Per term nr/lanes loads, mr broadcasts, mr*nr/lanes FMAs; per round two steps and a jump."""
    params = default_params(isa)
    for height in micro.heights(params):
        code = compile_kernel(micro.micro(isa, params, height), isa)
        loop = next(s for s in code.loop_stats() if s.name == "k")
        vectors = params.nr // isa.lanes
        assert loop.fmas == params.terms * height * vectors
        assert loop.loads == params.terms * (height + vectors)
        assert loop.instructions == loop.fmas + loop.loads + 4
        assert (loop.moves, loop.spills, loop.stores) == (0, 0, 0)


@HOST
@pytest.mark.parametrize("terms", (2, 4))
def test_rounds_of_several_terms(terms, isa):
    """Panels are filled up with zeros to whole rounds, whatever k is."""
    form = Form(b="t")
    kernel = kernel_of(form, isa, terms=terms)
    code = compile_kernel(kernel, isa)
    for m, k in ((5, 1), (7, 15), (products.small(isa).mr + 1, 33)):
        machine.agree(kernel, isa, products.operands(form, m, 19, k), code=code)


@EVERY
@pytest.mark.parametrize("storage", ("float", "bf16", "f16"))
def test_loops_over_unpacked_b_move_nothing(storage, isa):
    """height*deep FMAs for deep loads of B."""
    params = default_params(isa)
    for height, width in sweep.variants(replace(params, sweep_width=4096)):
        code = compile_kernel(sweep.sweep(isa, storage, (height, width), sweep.DEEP), isa)
        loop = next(s for s in code.loop_stats() if s.name == "sweep")
        assert (loop.fmas, loop.moves, loop.spills) == (height * sweep.DEEP, 0, 0)
        assert loop.stores == height


@EVERY
@pytest.mark.parametrize("ahead", (0, 512))
@pytest.mark.parametrize("storage", ("float", "bf16", "f16"))
def test_dots_load_a_vector_of_b_once_per_tile(storage, ahead, isa):
    """wide*tall FMAs for wide + tall loads; the first tile stores what it read, and the others load
    floats whatever B is."""
    wide, tall = dots.tile_of(isa)
    code = compile_kernel(dots.dot_tiles(isa, ahead, storage), isa)
    loops = {s.name: s for s in code.loop_stats()}
    for name, stores in (("dot k", wide), ("dot k panel", 0)):
        loop = loops[name]
        assert (loop.fmas, loop.moves, loop.spills) == (wide * tall, 0, 0)
        assert loop.stores == stores
    assert loops["dot k panel"].loads <= wide + tall + 1  # a slot may be added from memory
    assert loops["dot k panel"].instructions <= wide * tall + wide + tall + 6


@EVERY
@pytest.mark.parametrize(("b", "name"), (("t", "dot k"), ("n", "columns j")))
def test_streaming_loops_move_nothing(b, name, isa):
    for row in (True, False):
        code = compile_kernel(kernel_of(Form(b=b, row=row), isa), isa)
        loops = [s for s in code.loop_stats() if s.name == name]
        assert len(loops) >= 1
        assert all(s.fmas and s.moves == s.spills == 0 for s in loops), loops
