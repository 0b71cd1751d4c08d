"""Matrix products: the kernel on checked memory equals the trace, for every path and edge."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import products
import pytest
from products import Form

from gllm_kernels.codegen import gemm, interp, spec
from gllm_kernels.codegen.contraction import contraction_of
from gllm_kernels.codegen.isa.avx2 import AVX2
from gllm_kernels.codegen.isa.avx512 import AVX512
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.errors import CompileError
from gllm_kernels.trace import interp as meaning
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import Op

ISAS = (AVX2, AVX512)
NEAR = 1 << 20


def expected(trace, arguments):
    args = {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in arguments.items()}
    meaning.run(trace, args)
    return args


def check(form, isa, m, n, k, **changes):
    """All outputs, and every byte between their rows, as the trace says."""
    trace = products.trace_of(form)
    kernel = gemm.generate(trace, isa, replace(products.small(isa), **changes))
    args = products.operands(form, m, n, k)
    want = expected(trace, args)
    spec.check(kernel)
    interp.run(kernel, args)
    for name in trace.names("out", "inout"):
        np.testing.assert_allclose(args[name], want[name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("form", products.FORMS, ids=str)
def test_every_form_and_path(form, isa):
    mr, nr = products.small(isa).mr, products.small(isa).nr
    for m, n, k in ((1, 2 * nr + 5, 19), (3, nr + 1, 16), (mr + 1, nr + 3, 17)):
        check(form, isa, m if form.row else 1, n, k)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("b", "nt")
def test_edges_of_tiles_and_blocks(b, isa):
    mr, nr = products.small(isa).mr, products.small(isa).nr
    for m in (mr - 1, mr, 2 * mr + 1):
        check(Form(b=b), isa, m, nr, 15)
    for n in (1, nr - 1, nr, 2 * nr + 1):
        check(Form(b=b), isa, 4, n, 33)
    for k in (1, 15, 16, 17, 32):
        check(Form(b=b), isa, 5, 3, k)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("form", [f for f in products.FORMS if f.row and f.b == "n"], ids=str)
def test_small_products_of_every_form(form, isa):
    """One tile, and rows and columns that its last tile shares with the one before."""
    mr, nr = products.small(isa).mr, products.small(isa).nr
    for m, n, k in ((mr, nr, 3), (mr // 2 + 1, 2 * nr - 1, 5), (2 * mr + 1, nr + 1, 2)):
        check(form, isa, m, n, k, near=NEAR)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("form", [Form(a, b, "residual") for a in "nt" for b in "nt"], ids=str)
def test_nothing_to_do(form, isa):
    """k = 0 stores the epilogue of 0; m = 0 or n = 0 touches nothing."""
    for m, n, k in ((2, 3, 0), (5, 3, 0), (0, 3, 4), (3, 0, 4), (0, 0, 0)):
        check(form, isa, m, n, k)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("form", [Form(b=b, heads=h) for b in "nt" for h in products.HEADS], ids=str)
@pytest.mark.parametrize("m, near", ((1, 0), (2, 0), (9, 0), (9, NEAR)))
def test_units_may_be_split_anywhere(form, isa, m, near):
    """Any ranges of units give the bits of one call, in every path."""
    trace = products.trace_of(form)
    kernel = gemm.generate(trace, isa, replace(products.small(isa), near=near))
    whole = products.operands(form, m, 45, 37)
    parts = {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in whole.items()}
    interp.run(kernel, whole)
    units = kernel.units.evaluate({n: v for n, v in whole.items() if isinstance(v, int)})
    cuts = sorted({0, 7, units // 3, units // 2 + 1, units})
    for begin, end in pairwise(cuts):
        interp.run(kernel, parts, begin, end)
    assert np.array_equal(whole["c"].view(np.uint32), parts["c"].view(np.uint32))


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
def test_block_sizes_do_not_change_a_bit(isa):
    form = Form(epilogue="scale_mask")
    trace, results = products.trace_of(form), []
    tuned = products.small(isa)
    for params in (tuned, default_params(isa), replace(tuned, kc=32, few=0), replace(tuned, near=NEAR)):
        args = products.operands(form, 11, 40, 70)
        interp.run(gemm.generate(trace, isa, params), args)
        results.append(args["c"].view(np.uint32))
    assert all(np.array_equal(results[0], r) for r in results[1:])


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("m", (2, 7))
def test_sum_starts_at_the_init_of_the_reduce(isa, m):
    form = Form(init=2.5)
    check(form, isa, m, 9, 20)


def test_roles_come_from_strides():
    product = contraction_of(products.trace_of(Form(a="n", b="t", heads="gqa")))
    assert (product.row, product.column) == ("i", "j")
    assert [s for s, _ in product.batch] == ["h", "g"]
    assert product.a.along and product.b.along
    assert str(product.units) == "group*heads*m*n"


def test_symbolic_inner_strides_are_refused():
    trace = products.trace_of(Form())
    body = tuple(replace(o, imm=("b", o.imm[1].substitute({"j": Affine.sym("j") * 2})))
                 if o.op is Op.LOAD and o.imm[0] == "b" else o for o in trace.body)
    with pytest.raises(CompileError, match="b.*one of them must be 1: make b contiguous"):
        contraction_of(replace(trace, body=body))


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("b", "nt")
@pytest.mark.parametrize("m", (1, 2, 20))
def test_rows_may_repeat_or_run_backwards(b, m, isa):
    """Strides are what the call says: 0 repeats a row of A, negative ones walk up."""
    form = Form(b=b)
    kernel = gemm.generate(products.trace_of(form), isa, products.small(isa))
    args = products.operands(form, m, 2 * products.small(isa).nr + 3, 21)
    rows, pitch = (args["k"] if b == "n" else args["n"]), args["b.s0"]
    flipped = args | {"a.s0": 0, "b.s0": -pitch, "c": args["c"].copy()}
    start = args["b"].__array_interface__["data"][0] + 4 * (rows - 1) * pitch
    interp.run(kernel, flipped | {"b": start}, memory=[args["b"]])
    upright = np.append(args["b"], np.zeros(products.PAD, np.float32)).reshape(rows, pitch)
    args |= {"a.s0": 0, "b": np.ascontiguousarray(upright[::-1])}
    interp.run(kernel, args)
    assert np.array_equal(flipped["c"].view(np.uint32), args["c"].view(np.uint32))


def test_too_many_batch_axes_are_refused():
    trace = products.trace_of(Form(heads="heads"))
    more = tuple((f"g{i}", Affine.sym("group")) for i in range(8))
    stores = tuple(replace(s, domain=(*more, *s.domain)) for s in trace.stores)
    with pytest.raises(CompileError, match="9 batch axes; the most are 8"):
        contraction_of(replace(trace, stores=stores))


def test_a_factor_that_is_overwritten_is_refused():
    trace = products.trace_of(Form())
    params = tuple(replace(p, role="inout") if p.name == "a" else p for p in trace.params)
    stores = tuple(replace(s, param="a") for s in trace.stores)
    with pytest.raises(CompileError, match="may already stand"):
        gemm.generate(replace(trace, params=params, stores=stores), AVX2, products.small(AVX2))
