"""The scalar functions compute their formulas: numpy in double precision is the reference."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from gllm_kernels.scalar import CATALOG, library

_TYPES = {"float": ctypes.c_float, "size_t": ctypes.c_size_t, "int64_t": ctypes.c_int64}


def native(name: str) -> Callable:
    """The operator as a callable on arrays and numbers, its types read from the declaration."""
    op = CATALOG.lookup(name)
    result, _, rest = op.declaration.partition(" ")
    words = [ctypes.c_void_p if "*" in p else _TYPES[p] for p in _pointers(rest)]
    function = ctypes.CFUNCTYPE(_TYPES.get(result), *words)(library().address(op.symbol))
    return lambda *args: function(*[a.ctypes.data if hasattr(a, "ctypes") else a for a in args])


def _pointers(declaration: str) -> list[str]:
    inside = declaration[declaration.index("(") + 1 : -1].split(", ")
    return ["*" if "*" in p else p.split(" ")[0] for p in inside]


def f32(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


SIGMOID = lambda x: 1 / (1 + np.exp(-x))
GELU = lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
MAPS = {
    "silu": lambda x: x * SIGMOID(x),
    "gelu": GELU,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "exp": np.exp,
}


@pytest.mark.parametrize("n", [0, 1, 5, 33])
@pytest.mark.parametrize("name", MAPS)
def test_maps(rng: np.random.Generator, name: str, n: int) -> None:
    x, out = f32(rng, n), np.full(n + 1, 7, np.float32)
    native(name)(x, out, n)
    close(out[:n], MAPS[name](x.astype(np.float64)))
    assert out[n] == 7


def test_relu_keeps_nan_and_negative_zero() -> None:
    x, out = np.array([np.nan, -0.0, -1.0], np.float32), np.zeros(3, np.float32)
    native("relu")(x, out, 3)
    assert np.isnan(out[0]) and np.signbit(out[1]) and out[2] == 0


def test_vector_arithmetic(rng: np.random.Generator) -> None:
    a, b, out = f32(rng, 9), f32(rng, 9), np.empty(9, np.float32)
    for name, want in (("vec_add", a + b), ("vec_sub", a - b), ("vec_mul", a * b)):
        native(name)(a, b, out, 9)
        assert np.array_equal(out, want), name
    native("swiglu")(a, b, out, 9)
    close(out, a * SIGMOID(a) * b)


def test_updates_in_place(rng: np.random.Generator) -> None:
    x, y = f32(rng, 9), f32(rng, 9)
    want = y + np.float32(0.5) * x
    native("vec_axpy")(0.5, x, y, 9)
    assert np.array_equal(y, want)
    native("vec_scale")(y, 3.0, 9)
    assert np.array_equal(y, want * np.float32(3))


def test_reductions(rng: np.random.Generator) -> None:
    a, b = f32(rng, 101), f32(rng, 101)
    close(native("vec_dot")(a, b, 101), a.astype(float) @ b)
    close(native("vec_sum")(a, 101), a.astype(float).sum())
    close(native("vec_sum_squares")(a, 101), (a.astype(float) ** 2).sum())
    assert native("vec_max")(a, 101) == a.max()


def test_maximum_of_nothing_and_of_nan() -> None:
    x = np.array([np.nan, 1, 5, np.nan, 5], np.float32)
    assert native("vec_max")(x, 0) == -np.inf
    assert native("vec_max")(x, 5) == 5
    assert native("argmax")(x, 5) == 2
    assert native("argmax")(x, 0) == 0
    assert native("argmax")(x, 1) == 0


def test_norms(rng: np.random.Generator) -> None:
    x, w, b, out = f32(rng, 3, 7), f32(rng, 7), f32(rng, 7), np.empty((3, 7), np.float32)
    wide = x.astype(float)
    native("softmax")(x, out, 3, 7)
    e = np.exp(wide - wide.max(1, keepdims=True))
    close(out, e / e.sum(1, keepdims=True))
    native("rms_norm")(x, w, out, 3, 7, 1e-5)
    close(out, wide * w / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5))
    native("layer_norm")(x, w, b, out, 3, 7, 1e-5)
    centred = wide - wide.mean(1, keepdims=True)
    close(out, centred / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * w + b)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("pos", [None, 0, 3])
def test_rope(rng: np.random.Generator, interleaved: bool, pos: int | None) -> None:
    t, h, d = 3, 2, 5
    x, out = f32(rng, t, h, 2 * d), np.empty((t, h, 2 * d), np.float32)
    angle = rng.standard_normal((t + 3, d))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    name = "rope" + ("" if pos is None else "_with_pos") + ("_interleaved" if interleaved else "")
    native(name)(x, cos, sin, out, t, h, d, *(() if pos is None else (pos,)))
    first, second = (
        (np.s_[..., ::2], np.s_[..., 1::2]) if interleaved else (np.s_[..., :d], np.s_[..., d:])
    )
    turn = np.exp(1j * angle[pos or 0 : (pos or 0) + t, None])
    want = (x[first] + 1j * x[second]) * turn
    close(out[first], want.real)
    close(out[second], want.imag)


def test_products(rng: np.random.Generator) -> None:
    m, n, k = 3, 5, 7
    a, b, bias, c = f32(rng, m, k), f32(rng, k, n), f32(rng, n), np.empty((m, n), np.float32)
    want = a.astype(float) @ b
    native("gemm")(a, b, c, m, n, k)
    close(c, want)
    native("gemm_bt")(a, np.ascontiguousarray(b.T), c, m, n, k)
    close(c, want)
    native("gemm_bias")(a, b, bias, c, m, n, k)
    close(c, want + bias)
    y = np.empty(m, np.float32)
    native("gemv")(a, b.T[0].copy(), y, m, k)
    close(y, want[:, 0])


def test_gather(rng: np.random.Generator) -> None:
    table, rows = f32(rng, 6, 4), np.array([5, 0, 5], np.int32)
    out = np.empty((3, 4), np.float32)
    native("gather")(table, rows, out, 3, 4)
    assert np.array_equal(out, table[rows])
