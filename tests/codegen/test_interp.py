"""The kernel interpreter: exact arithmetic, checked memory."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from gllm_kernels.codegen import interp
from gllm_kernels.codegen.kernel import K, KernelBuilder, KParam
from gllm_kernels.codegen.lanes import fma, scalef
from gllm_kernels.errors import CompileError
from gllm_kernels.trace.affine import Affine

PARAMS = (KParam("x", "ptr"), KParam("out", "ptr"), KParam("n", "i64"), KParam("a", "f32"))


def axpy(masked: bool):
    b = KernelBuilder("axpy", 8, PARAMS)
    x, out, n, a = (b.arg(p.name) for p in PARAMS)
    with b.loop(b.emit(K.BEGIN), b.emit(K.END), 8) as loop:
        mask = b.emit(K.FIRST, n - loop.iv) if masked else None
        value = b.emit(K.VFMA, b.load(x, loop.iv, mask=mask), a, b.const(1.0))
        b.store(out, loop.iv, value, mask=mask)
    return b.build(Affine.sym("n"), 8)


def test_masked_tail():
    x, out = np.arange(13, dtype=np.float32), np.zeros(13, np.float32)
    interp.run(axpy(True), {"x": x, "out": out, "n": 13, "a": 2.0})
    assert np.array_equal(out, 2 * x + 1)


def test_over_read_is_refused():
    x, out = np.zeros(13, np.float32), np.zeros(16, np.float32)
    with pytest.raises(CompileError, match="load %.*reads 32 bytes.*offset 32"):
        interp.run(axpy(False), {"x": x, "out": out, "n": 13, "a": 2.0})


def test_write_to_read_only_is_refused():
    x, out = np.zeros(8, np.float32), np.zeros(8, np.float32)
    out.flags.writeable = False
    with pytest.raises(CompileError, match="store .*writes 32 bytes.*read-only"):
        interp.run(axpy(False), {"x": x, "out": out, "n": 8, "a": 2.0})


def test_fma_rounds_once():
    """Against the C library's fmaf, with sums that cancel and nearly tie."""
    libm = ctypes.CDLL(None)
    libm.fmaf.restype, libm.fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, (3, 6000), dtype=np.uint32)
    exponent = rng.integers(1, 60, bits.shape) + rng.choice([0, 97, 190], bits.shape)
    a, b, c = ((bits & 0x807FFFFF) | (exponent << 23).astype(np.uint32)).view(np.float32)
    with np.errstate(all="ignore"):
        c[::2] = np.nextafter((-(a.astype(np.float64) * b)).astype(np.float32), np.float32(0))[::2]
        got = fma(a, b, c)
    want = np.array([libm.fmaf(*row) for row in zip(a, b, c, strict=True)], np.float32)
    number = ~np.isnan(want)
    assert np.array_equal(got[number].view(np.uint32), want[number].view(np.uint32))
    assert np.isnan(got[~number]).all() and number.sum() > 4000


def test_scalef_rounds_denormals_once():
    a = np.array([1.5, 1.0000001, -3.0, 1e-38, 0.0], np.float32)
    with np.errstate(all="ignore"):
        got = scalef(a, np.array([-149.5, -140.0, 127.9, 200.0, 5.0], np.float32))
    want = [1.5 * 2.0**-150, 1.0000001 * 2.0**-140, -np.inf, 1e-38 * 2.0**200, 0.0]
    with np.errstate(all="ignore"):
        want[3] = float(a[3].astype(np.float64) * 2.0**200)
        assert np.array_equal(got, np.array(want, np.float64).astype(np.float32))
