"""Quantised matrices in products: every format against its own values, in calls, graphs and fused groups."""

from __future__ import annotations

import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import current_isa_name
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.errors import FormatError, ShapeError, UnsupportedOpError
from gllm_kernels.ops.qtensor import QTensor
from gllm_kernels.scalar.formats import FORMATS

pytestmark = pytest.mark.skipif(current_isa_name() == "scalar", reason="the scalar ISA computes with the values themselves: one test asks for it by name")

ISAS = [isa.name for isa in host_isas()]
FLOATS_ONLY = {"FP8_E4M3", "FP8_E5M2", "SQUEEZE"}
NAMES = [row.name for row in FORMATS]
HEAVY = 256


def random_tensor(name: str, n: int, k: int, seed: int = 0) -> QTensor:
    """Random bytes; blocks with a value that is not finite or huge are left as zeros."""
    row = FORMATS.lookup(name)
    blocks = np.random.default_rng(seed).integers(0, 256, (n * k // row.values, row.size), np.uint8)
    whole = QTensor(blocks, name, (n, k)).dequantize().reshape(len(blocks), -1)
    with np.errstate(invalid="ignore"):
        blocks[~(np.abs(whole) < 1e4).all(axis=1)] = 0
    return QTensor(blocks.reshape(n, -1), name, (n, k))


def rounded(x: np.ndarray, block: int) -> np.ndarray:
    """What products make of x: signed bytes and a step for each block."""
    parts = x.reshape(*x.shape[:-1], -1, block)
    top = np.abs(parts).max(axis=-1, keepdims=True)
    codes = np.where(top > 0, np.rint(parts * (np.float32(127) / np.where(top > 0, top, 1))), 0)
    return (codes * (top * np.float32(1 / 127)).astype(np.float64)).reshape(x.shape)


@pytest.mark.parametrize("isa", [*ISAS, "scalar"])
@pytest.mark.parametrize("name", [n for n in NAMES if n not in FLOATS_ONLY])
def test_matmul_is_the_product_with_the_values(name: str, isa: str) -> None:
    w, values = random_tensor(name, 37, 2 * HEAVY), FORMATS.lookup(name).values
    block = max(32, values)
    for m in (1, 5, 66):
        x = np.random.default_rng(m).standard_normal((m, 2 * HEAVY)).astype(np.float32)
        exact = x.astype(np.float64) if isa == "scalar" else rounded(x, block)
        with gk.config(isa=isa):
            y = gk.matmul(x, w)
        size = np.abs(exact) @ np.abs(w.dequantize().T.astype(np.float64))
        assert (np.abs(y - exact @ w.dequantize().T.astype(np.float64)) <= 4e-6 * size + 1e-20).all()


def test_two_quantised_products_of_one_input_stay_two_steps() -> None:
    graph = gk.CompilerGraph()
    x = graph.input("x", ("tokens", 64))
    y = [graph.op("gemm_bt", x, graph.weight(name, random_tensor("Q8_0", 32, 64))) for name in "uw"]
    graph.output("y", graph.op("vec_mul", *y))
    layer = gk.compile_graph(graph)
    assert len(layer.plan.groups) == 2
    assert "are quantised: their kernel has one sum" in str(layer.plan)


@pytest.mark.parametrize("name", sorted(FLOATS_ONLY))
def test_formats_without_bytes_say_so(name: str) -> None:
    row = FORMATS.lookup(name)
    w = QTensor(np.zeros((4, 256 // row.values * row.size), np.uint8), name, (4, 256))
    if ISAS:
        with pytest.raises(UnsupportedOpError, match=f"{name} has no product of its own.*gk.dequantize"):
            gk.matmul(np.zeros((1, 256), np.float32), w)


def test_rows_batches_out_and_types() -> None:
    w = random_tensor("Q4_K", 40, HEAVY)
    x = np.random.default_rng(1).standard_normal((2, 3, HEAVY)).astype(np.float32) / 5000
    y = gk.matmul(x, w)
    assert y.shape == (2, 3, 40)
    np.testing.assert_array_equal(gk.matmul(x[1, 2], w), y[1, 2])
    out = np.full((2, 3, 80), np.nan, np.float32)[..., ::2]
    assert gk.matmul(x, w, out=out) is out
    np.testing.assert_array_equal(out, y)
    half = gk.matmul(x.astype(np.float16), w, out=np.empty(y.shape, np.float16))
    np.testing.assert_allclose(half, y, atol=2e-2 * np.abs(y).max())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("isa", ISAS)
def test_in_a_graph_with_what_fuses(isa: str, threads: int) -> None:
    gate, up = random_tensor("Q6_K", 130, HEAVY, 1), random_tensor("Q8_0", 130, HEAVY, 2)
    x = np.random.default_rng(3).standard_normal((9, HEAVY)).astype(np.float32) / 5000
    with gk.config(isa=isa):
        graph = gk.CompilerGraph()
        rows = graph.input("x", ("rows", HEAVY))
        products = [graph.op("gemm_bt", rows, graph.weight(n, w)) for n, w in (("gate", gate), ("up", up))]
        graph.output("y", graph.op("swiglu", *products))
        layer = gk.compile_graph(graph, threads=threads)
        y = layer(x=x)["y"]
    g, u = (gk.matmul(x, w) if isa == ISAS[0] else None for w in (gate, up))
    if g is not None:
        np.testing.assert_allclose(y, g / (1 + np.exp(-g.astype(np.float64))) * u, rtol=1e-4, atol=1e-6)
    with gk.config(isa=isa):
        layer.threads = 1
        np.testing.assert_array_equal(layer(x=x)["y"], y)


def test_a_quantised_weight_is_the_second_factor_and_whole() -> None:
    graph, w = gk.CompilerGraph(), random_tensor("Q4_0", 64, 64)
    if not ISAS:
        return
    x, view = graph.input("x", ("rows", 64)), graph.weight("w", w)
    for wrong in (lambda: graph.op("silu", view), lambda: graph.op("gemm_bt", view, x),
                  lambda: graph.op("gemm", x, view), lambda: graph.op("gemm_bt", x, view.slice(0, 8, 16)),
                  lambda: graph.op("gemm_bt", x.slice(1, 0, 32), view.slice(1, 0, 32)),
                  lambda: graph.op("gemm_bt", x, view.split(0, 2, 32))):
        with pytest.raises(ShapeError, match="quantised"):
            wrong()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [((np.zeros(18, np.uint8), "Q4_9", (1, 32)), FormatError, "Q4_"),
     ((np.zeros(18, np.int8), "Q4_0", (1, 32)), ShapeError, "uint8, not int8"),
     ((b"abc", "Q4_0", (1, 32)), ShapeError, "not bytes"),
     ((np.zeros(18, np.uint8), "Q4_0", (1, 33)), ShapeError, "multiple of the 32"),
     ((np.zeros(17, np.uint8), "Q4_0", (1, 32)), ShapeError, "18 bytes of Q4_0, got 17"),
     ((np.zeros(18, np.uint8), "Q4_0", (-1, 32)), ShapeError, r"wanted \(n, k\)"),
     ((np.zeros(18, np.uint8), "Q4_0", 32), ShapeError, r"wanted \(n, k\)")],
)
def test_wrong_tensors(arguments: tuple, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        QTensor(*arguments)


def test_wrong_products() -> None:
    w = random_tensor("Q4_0", 8, 64)
    for x in (np.zeros((2, 32), np.float32), np.zeros((2, 64)), np.float32(1)):
        with pytest.raises(ShapeError, match="matmul"):
            gk.matmul(x, w)


def test_errors_of_x_that_is_not_finite_stay_in_their_row() -> None:
    w, x = random_tensor("Q5_K", 16, HEAVY), np.ones((3, HEAVY), np.float32)
    x[1, 7] = np.nan
    y = gk.matmul(x, w)
    assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2]]).all()


def test_a_format_of_ones_own_has_products() -> None:
    """Three-bit codes in a stream: nothing in the package knows of it."""
    text = """
#include <stdint.h>
#include <string.h>
void decode_w3p(const uint8_t *block, float *out)
{
    float step;
    memcpy(&step, block + 12, 4);
    for (unsigned i = 0; i < 32; i++) {
        unsigned at = 3 * i, pair = block[at / 8] | block[at / 8 + 1] << 8;
        out[i] = step * (float)((int)(pair >> at % 8 & 7) - 4);
    }
}
"""
    gk.compile_format(text, "void decode_w3p(const uint8_t *block, float *out)", 16)
    w, x = random_tensor("W3P", 21, 96), np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    exact = rounded(x, 32) if ISAS else x
    np.testing.assert_allclose(gk.matmul(x, w), exact @ w.dequantize().T, rtol=1e-4, atol=1e-3)
