"""What the array functions refuse, and what they accept although it is unusual."""

import inspect

import numpy as np
import pytest

import gllm_kernels as gk

X = np.random.default_rng(0).standard_normal((6, 8), np.float32)
COS = np.ones((20, 4), np.float32)


@pytest.mark.parametrize("call, message", [
    (lambda: gk.silu(X.astype("f8")), "`x` has dtype float64"),
    (lambda: gk.silu(X, X), "takes 1 arrays"),
    (lambda: gk.silu(), "`x` is missing"),
    (lambda: gk.silu(X, y=3), "no argument `y`"),
    (lambda: gk.vec_add(X, X[:, :3]), "do not broadcast"),
    (lambda: gk.vec_add(X, X, out=X[:2]), "`out` has shape"),
    (lambda: gk.vec_add(X, X, out=np.empty((6, 8))), "`out` must be a float32 array"),
    (lambda: gk.vec_scale(np.broadcast_to(np.float32(1), (3,)), s=2.0), "`x` is read-only"),
    (lambda: gk.vec_scale(X.copy()), "give `s=`"),
    (lambda: gk.rms_norm(X, X[0, :5]), "size 5"),
    (lambda: gk.rms_norm(X, X[0], eps="a"), "`eps` is no float"),
    (lambda: gk.rms_norm(X, X[0], eps=10**400), "`eps` is no float"),
    (lambda: gk.gemm(X, X), "has size"),
    (lambda: gk.gemm(X, X.T.copy(), epilogue=np.tanh), "epilogue is a ufunc"),
    (lambda: gk.gemm(X, X.T.copy(), epilogue="softmax"), "wanted an elementwise operator"),
    (lambda: gk.matmul(X, X[:, :3]), "`w`"),
    (lambda: gk.rope(np.ones((6, 2, 7), np.float32), COS[:6], COS[:6]), "size 7, which must be a multiple of 2"),
    (lambda: gk.rope_with_pos(np.ones((6, 2, 8), np.float32), COS, COS, pos=15), "21 are needed"),
    (lambda: gk.gather(X, np.array([6])), r"`rows`\[0\] is 6; it must lie in 0..5"),
    (lambda: gk.gather(X, np.array([0.0])), "`rows` has dtype float64"),
    (lambda: gk.gather(X, np.array([2**40])), "beyond int32"),
])
def test_refusals_name_the_argument(call, message):
    with pytest.raises(gk.ShapeError, match=message):
        call()


def test_a_table_may_have_more_rows_than_the_positions_need():
    x = np.ones((6, 2, 8), np.float32)
    assert gk.rope_with_pos(x, COS, COS, pos=0).shape == gk.rope_with_pos(x, COS, COS, pos=14).shape


@pytest.mark.parametrize("view", [X[::2], X[:, ::-1], X.T, X[:, 1:5], np.asfortranarray(X),
                                  np.broadcast_to(X[0], (5, 8)), X[:0], X[2]], ids=str)
def test_any_strides_give_the_same_numbers(view):
    np.testing.assert_array_equal(gk.silu(view), gk.silu(np.ascontiguousarray(view)))
    if view.ndim == 2 and view.shape[0]:
        np.testing.assert_array_equal(gk.softmax(view), gk.softmax(np.ascontiguousarray(view)))


@pytest.mark.parametrize("shift", (-3, 0, 3))
def test_out_may_overlap_the_input(shift):
    memory = np.random.default_rng(1).standard_normal(40, np.float32)
    x, out = memory[10:30], memory[10 + shift:30 + shift]
    want = gk.silu(x.copy())
    gk.silu(x, out=out)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("dtype", (np.int8, np.uint16, np.int64))
def test_indices_may_be_of_any_integer_type(dtype):
    np.testing.assert_array_equal(gk.gather(X, np.array([5, 0], dtype)), X[[5, 0]])


def test_operators_tell_how_they_are_called():
    assert str(inspect.signature(gk.rms_norm)) == "(x, w, *, eps=1e-05, out=None)"
    assert str(inspect.signature(gk.rope_with_pos)) == "(x, cos, sin, *, pos, out=None)"
    assert gk.silu.__doc__.startswith("out[i] = x[i] / (1 + exp(-x[i]))")
    assert {"silu", "compile_c", "register", "gemm", "matmul"} <= set(dir(gk))


@pytest.mark.parametrize("call", [
    gk.relu, lambda x: gk.vec_sum(x[0]), lambda x: gk.gemm(x, X.T.copy()),
    lambda x: gk.matmul(X, x), lambda x: gk.gemm(x, X.T.copy(), epilogue="silu"),
    gk.pack_b, lambda x: gk.gather(X, np.array([1, 0], ">i4")),
    lambda x: gk.CompilerGraph().weight("w", x)])
def test_the_other_byte_order_is_refused(call):
    with pytest.raises(gk.ShapeError, match=">[fi]4"):
        call(X.astype(">f4"))
