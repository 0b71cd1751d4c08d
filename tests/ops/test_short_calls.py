"""Products of plain arrays go straight to their kernel; every other argument is still checked."""

import gc
import os
import resource
import sys
import threading

import ml_dtypes
import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import current_isa_name
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.ops import op as op_module
from gllm_kernels.ops import products as products_module

pytestmark = pytest.mark.skipif(current_isa_name() == "scalar", reason="the scalar ISA has no short calls")

M, N, K = 7, 37, 21
RNG = np.random.default_rng(3)
A, B, BIAS = (RNG.integers(-4, 5, shape).astype("f4") for shape in ((M, K), (K, N), (N,)))
BT = np.ascontiguousarray(B.T)


def silu(x):
    return x / (1 + np.exp(-x))


# name: (call(a, out), what it is in float64)
FORMS = {
    "gemm": (lambda a, out=None: gk.gemm(a, B, out=out), lambda a: a @ B),
    "gemm_bt": (lambda a, out=None: gk.gemm_bt(a, BT, out=out), lambda a: a @ B),
    "matmul": (lambda a, out=None: gk.matmul(a, BT, out=out), lambda a: a @ B),
    "bias": (lambda a, out=None: gk.gemm(a, B, BIAS, out=out), lambda a: a @ B + BIAS),
    "epilogue": (lambda a, out=None: gk.gemm(a, B, epilogue="silu", out=out),
                 lambda a: silu(a @ B)),
    "bias_act": (lambda a, out=None: gk.gemm_bias_act(a, B, BIAS, ["silu", "relu"], out=out),
                 lambda a: np.maximum(silu(a @ B + BIAS), 0)),
    "prepacked": (lambda a, out=None: gk.gemm_prepacked(a, gk.pack_b(B), out=out), lambda a: a @ B),
    "prepacked_bias": (lambda a, out=None: gk.gemm_prepacked(a, gk.pack_b(B), BIAS, "silu", out=out),
                       lambda a: silu(a @ B + BIAS)),
}
EACH = pytest.mark.parametrize("form", FORMS)


def close(got, a, form):
    want = FORMS[form][1](np.asarray(a, np.float64))
    assert got.shape == want.shape
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=1e-2 if got.itemsize == 2 else 1e-5,
                               atol=1e-5)


@pytest.fixture
def no_long_way(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_):
        raise AssertionError("the long way was taken")

    def forbid() -> None:
        monkeypatch.setattr(op_module.Call, "run", refuse)
        monkeypatch.setattr(products_module, "_checked", refuse)

    return forbid


@EACH
@pytest.mark.parametrize("isa", [i.name for i in host_isas()])
@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("dtype", ("f4", "f2", ml_dtypes.bfloat16), ids=["f4", "f2", "bf16"])
def test_plain_arrays_take_the_short_way(form, isa, threads, dtype, no_long_way):
    call, a = FORMS[form][0], A.astype(dtype)
    with gk.config(isa=isa, threads=threads):
        close(call(a), a, form)  # makes the team and the kernel
        no_long_way()
        close(call(a), a, form)
        close(call(np.stack((a, a + 1))), np.stack((a, a + 1)), form)


@EACH
def test_out_is_what_comes_back(form, no_long_way):
    call, out = FORMS[form][0], np.empty((M, N), "f4")
    call(A, out)
    no_long_way()
    out[:] = np.nan
    assert call(A, out) is out
    close(out, A, form)


@EACH
@pytest.mark.parametrize("a", [
    np.asfortranarray(A), np.repeat(A, 2, 1)[:, ::2], A[::-1], A[0], A[:0],
    np.broadcast_to(A[0], (M, K)), np.zeros(4 * A.size + 1, np.uint8)[1:].view("f4").reshape(M, K),
], ids=["columns", "every second", "reversed", "one row", "no row", "repeated", "misaligned"])
def test_any_strides_give_the_same_numbers(form, a):
    call = FORMS[form][0]
    call(A)
    close(call(a), a, form)


@EACH
@pytest.mark.parametrize("a", [np.asfortranarray(A), A[::-1]], ids=["columns", "reversed"])
def test_strides_cost_a_copy_and_not_the_long_way(form, a, no_long_way):
    FORMS[form][0](A)
    no_long_way()
    close(FORMS[form][0](a), a, form)


def test_what_is_written_in_place_is_no_copy():
    memory = np.arange(12, dtype="f4")
    gk.vec_scale(memory[::2], s=2.0)
    assert memory.tolist() == [0, 1, 4, 3, 8, 5, 12, 7, 16, 9, 20, 11]


def frozen():
    array = np.zeros((M, N), "f4")
    array.flags.writeable = False
    return array


@EACH
@pytest.mark.parametrize("a, out, message", [
    (A.astype("f8"), None, "float64"), (A.astype("i4"), None, "int32"), (A.astype(">f4"), None, ">f4"),
    (A[:, 1:], None, "20"), (np.zeros((), "f4"), None, "axes|shape"),
    (A, np.zeros((M, N + 1), "f4"), "`out`"), (A, np.zeros((M, N)), "`out`"), (A, frozen(), "read-only"),
    (A, [0.0], "`out`"), (A, np.zeros(M * N, "f4"), "`out`"),
], ids=["f8", "i4", "order", "size", "scalar", "wide out", "f8 out", "frozen", "list", "flat out"])
def test_refusals_are_those_of_the_long_way(form, a, out, message):
    call = FORMS[form][0]
    call(A)
    with pytest.raises(gk.ShapeError, match=message):
        call(a, out)
    assert not np.any(out)


@EACH
def test_out_may_overlap_what_is_read(form):
    memory = np.zeros(M * N + M * K, "f4")
    a, out = memory[: M * K].reshape(M, K), memory[K : K + M * N].reshape(M, N)
    a[:] = A
    FORMS[form][0](a, out)
    close(out, A, form)


@EACH
def test_sizes_of_zero(form):
    call = FORMS[form][0]
    call(A)
    assert call(A[:0]).shape == (0, N)
    assert call(np.zeros((3, 0, K), "f4")).shape == (3, 0, N)


@pytest.mark.parametrize("threads", (1, 2))
def test_no_terms_is_zero(threads):
    with gk.config(threads=threads):
        for _ in range(2):
            got = gk.gemm(np.zeros((3, 0), "f4"), np.zeros((0, 5), "f4"), out=np.full((3, 5), 7, "f4"))
            assert got.shape == (3, 5) and not got.any()


def test_a_packed_matrix_of_another_size():
    packed = gk.pack_b(B[:-1])
    gk.gemm_prepacked(A[:, :-1].copy(), packed)
    with pytest.raises(gk.ShapeError, match="21"):
        gk.gemm_prepacked(A, packed)
    with pytest.raises(gk.ShapeError, match="`out`"):
        gk.gemm_prepacked(A[:, :-1].copy(), packed, out=np.zeros((M, N - 1), "f4"))


@pytest.mark.parametrize("threads", (1, 2))
def test_many_python_threads_at_once(threads):
    sizes, failures = (5, 40, 130, 200), []

    def caller(size: int) -> None:
        a = np.random.default_rng(size).integers(-4, 5, (size, size)).astype("f4")
        want = a.astype("f8") @ a
        with gk.config(threads=threads):
            for _ in range(30):
                if not np.array_equal(gk.gemm(a, a), want):
                    failures.append(size)

    callers = [threading.Thread(target=caller, args=(size,)) for size in sizes]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(120)
    assert not failures


def test_a_forked_child_has_a_team_of_its_own():
    a = np.random.default_rng(0).integers(-4, 5, (160, 160)).astype("f4")
    want = a.astype("f8") @ a
    with gk.config(threads=2):
        gk.gemm(a, a)
        child = os.fork()
        if child == 0:
            os._exit(0 if all(np.array_equal(gk.gemm(a, a), want) for _ in range(3)) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        np.testing.assert_array_equal(gk.gemm(a, a), want)


@EACH
def test_nothing_leaks(form):
    call, out = FORMS[form][0], np.empty((M, N), "f4")
    watched = [A, B, BT, BIAS, out, A.dtype, None, NotImplemented]
    for _ in range(50):
        call(A, out), call(A)
    gc.collect()
    before, memory = [sys.getrefcount(x) for x in watched], resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(2000):
        call(A, out), call(A)
    gc.collect()
    after = [sys.getrefcount(x) for x in watched]
    assert all(abs(x - y) < 50 for x, y in zip(after, before, strict=True)), (before, after)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory.ru_maxrss
    assert grown < 1024, f"{grown} KiB"
