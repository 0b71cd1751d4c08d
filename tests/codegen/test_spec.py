"""The checker refuses broken kernels with the operation, its position, got and wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gllm_kernels.codegen.kernel import I64, MASK, VEC, Inst, K, KernelBuilder, KParam, Loop, Mem
from gllm_kernels.codegen.spec import check
from gllm_kernels.errors import CompileError
from gllm_kernels.trace.affine import Affine

PARAMS = (KParam("x", "ptr"), KParam("n", "i64"), KParam("a", "f32"))


def base(*body, **changes):
    kernel = KernelBuilder("k", 8, PARAMS).build(Affine.sym("n"), 1)
    return replace(kernel, body=body, **changes)


X, N, A = Inst(0, K.ARG, imm="x"), Inst(1, K.ARG, imm="n"), Inst(2, K.ARGF, imm="a")
# fmt: off
BROKEN = [
    ((Inst(1, K.IADD, (0, 0)),), "uses %0 before its definition"),
    ((X, X), "defines %0 a second time"),
    ((X, A, Inst(3, K.VADD, (0, 2))), "argument 0: %0 is i64, wanted vec"),
    ((A, Inst(3, K.VADD, (2,))), "1 arguments, wanted 2"),
    ((Inst(0, K.ARG, imm="y"),), "immediate 'y', wanted one of the params"),
    ((Inst(0, K.ARG, imm="a"),), "wanted one of the params"),
    ((Inst(0, K.VCONST, imm=1.5),), "wanted an int in"),
    ((A, Inst(3, K.VSHL, (2,), 32)), "wanted an int in"),
    ((X, N, Inst(3, K.LOAD, (0, 1), Mem(3))), "wanted Mem"),
    ((A, Inst(3, K.PERMUTE, (2,), (0, 1, 2, 3, 4, 5, 6, 8))), "a tuple of 8 numbers in 0..7"),
    ((A, Inst(3, K.SHUF128, (2, 2), (0, 2))), "a tuple of 2 numbers in 0..1"),
    ((X, N, Inst(3, K.IADD, (0, 1), 7)), "wanted none"),
    ((X, N, A, Loop(4, 0, 1, 1, (2,), (5,), (), (4,), (6,))), "yield: %4 is i64, wanted vec"),
    ((X, N, A, Loop(4, 0, 1, 1, (2,), (5,), (), (), (6,))), "wanted equal numbers"),
    ((X, N, Loop(4, 0, 1, 0, (), (), (), (), ())), "step 0"),
    ((X, N, Loop(4, 0, 1, 1, (), (), (A,), (), ()), Inst(7, K.VSQRT, (2,))),
     "uses %2 outside its region"),
]
# fmt: on


@pytest.mark.parametrize("body, message", BROKEN, ids=[m for _, m in BROKEN])
def test_broken_kernel_is_refused(body, message):
    with pytest.raises(CompileError, match=r"kernel k, statement \d") as caught:
        check(base(*body))
    assert message in str(caught.value)


def test_units_must_use_integer_params():
    with pytest.raises(CompileError, match="units uses .'m'."):
        check(base(units=Affine.sym("m")))


def test_every_type_in_the_table_is_known():
    from gllm_kernels.codegen.kernel import TABLE, VOID
    assert set(TABLE) == set(K)
    for row in TABLE.values():
        assert set(row.args) <= {I64, VEC, MASK} and row.result in {I64, VEC, MASK, VOID}


def test_render_shows_every_statement():
    b = KernelBuilder("axpy", 8, PARAMS)
    x, n = b.arg("x"), b.arg("n")
    with b.loop(0, n, 8, b.const(1.5), name="main") as loop:
        b.origin = "out"
        loop.yields(b.load(x, loop.iv, disp=-4) * loop.phis[0])
    text = str(b.build(Affine.sym("n"), 8))
    assert "for %4 in [%3, %1) step 8 carrying %5 = %2 -> %8:  # main" in text
    assert "%6 = load [%0 + %4*4 - 4]" in text and "; out" in text
    assert "vconst 0x3fc00000 (1.5)" in text and "yield %7" in text
