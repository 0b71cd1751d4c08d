"""Matrices packed once: the same numbers as without, every type and shape, and who is refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import current_isa
from gllm_kernels.errors import ShapeError, UnsupportedOpError

TYPES = (np.float32, np.float16, ml_dtypes.bfloat16)
SHAPES = [(1, 1, 1), (2, 33, 17), (3, 95, 40), (14, 96, 1), (16, 200, 1030), (31, 97, 64),
          (85, 1031, 5), (3, 0, 4), (3, 4, 0)]


def case(m, n, k, dtype=np.float32):
    rng = np.random.default_rng(m + n + k)
    return (rng.standard_normal((m, k), dtype=np.float32).astype(dtype),
            rng.standard_normal((k, n), dtype=np.float32).astype(dtype))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("transposed", (False, True))
def test_equals_the_product_of_the_matrix(shape, transposed):
    a, b = case(*shape)
    packed = gk.pack_b(np.ascontiguousarray(b.T) if transposed else b, transposed)
    want = a.astype(np.float64) @ b.astype(np.float64)
    for got in (gk.gemm_prepacked(a, packed), gk.gemm(a, packed), gk.matmul(a, packed)):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
def test_16_bit_matrices(dtype):
    a, b = case(5, 70, 40, dtype)
    got = gk.gemm_prepacked(a.astype(np.float32), gk.pack_b(b))
    want = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_bias_epilogue_batch_and_out():
    a, b = case(12, 50, 20)
    bias = np.linspace(-1, 1, 50, dtype=np.float32)
    packed, out = gk.pack_b(b), np.empty((3, 4, 50), np.float32)
    got = gk.gemm_prepacked(a.reshape(3, 4, 20), packed, bias, "silu", out=out)
    x = a @ b + bias
    assert got is out
    np.testing.assert_allclose(out.reshape(12, 50), x / (1 + np.exp(-x)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gk.gemm_bias_act(a, b, bias, "relu"), np.maximum(x, 0), rtol=1e-4,
                               atol=1e-4)
    assert gk.gemm_prepacked(a[0], packed).shape == (50,)


def test_threads_do_not_change_a_bit():
    a, b = case(40, 700, 300)
    packed = gk.pack_b(b)
    with gk.config(threads=1):
        one = gk.gemm_prepacked(a, packed)
    with gk.config(threads=2):
        two = gk.gemm_prepacked(a, packed)
    assert np.array_equal(one.view(np.uint32), two.view(np.uint32))


def test_views_are_packed_as_they_are_seen():
    a, b = case(3, 80, 30)
    np.testing.assert_allclose(gk.gemm_prepacked(a, gk.pack_b(b[::-1, ::2])), a @ b[::-1, ::2],
                               rtol=1e-4, atol=1e-4)


def test_refusals_name_the_argument():
    a, b = case(3, 8, 4)
    with pytest.raises(ShapeError, match="pack_b: `b` is float64"):
        gk.pack_b(b.astype(np.float64))
    with pytest.raises(ShapeError, match=r"pack_b: `b` is float32\(8,\)"):
        gk.pack_b(b[0])
    with pytest.raises(ShapeError, match="gemm_prepacked: `b` is a ndarray"):
        gk.gemm_prepacked(a, b)
    with pytest.raises(ShapeError, match="axis 0 of `b` has size 4, wanted 3"):
        gk.gemm_prepacked(a[:, :3], gk.pack_b(b))
    with pytest.raises(ShapeError, match="`out`"):
        gk.gemm_prepacked(a, gk.pack_b(b), out=np.empty((3, 9), np.float32))


def test_panels_belong_to_an_instruction_set():
    isa = current_isa()
    if isa is None:
        pytest.skip("no vector instructions in force")
    a, b = case(3, 8, 4)
    packed = gk.pack_b(b)
    assert f"for {isa.name}, panels of" in repr(packed)
    with gk.config(isa="scalar"), pytest.raises(UnsupportedOpError, match="pack it again"):
        gk.gemm_prepacked(a, packed)
