"""Two products of one input whose results meet, as one step: against the products in float64, for every driver, with
any number of threads; and what is not shared, with the reason."""

from __future__ import annotations

import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import current_isa_name
from gllm_kernels.codegen.isa import detect
from gllm_kernels.fusion.rules import FusionMode
from gllm_kernels.graph.ir import CompilerGraph

pytestmark = pytest.mark.skipif(current_isa_name() == "scalar", reason="the scalar ISA fuses nothing")

CAPS = [isa.name for isa in detect.host_isas()]
ROWS = (1, 2, 7, 65, 113, 130, 600)  # one row, dots, sweeps, packed


def gated(kind: str, k: int, n: int, dtype: str = "float32") -> tuple[CompilerGraph, list[np.ndarray]]:
    """swiglu(x @ gate, x @ up)"""
    random, graph = np.random.default_rng(k), CompilerGraph()
    x = graph.input("x", ("tokens", k), dtype)
    weights = [(random.standard_normal((k, n), np.float32) / np.float32(k**0.5)).astype(dtype)
               for _ in range(2)]
    views = [graph.weight(name, w.T.copy() if kind == "gemm_bt" else w)
             for name, w in zip(("gate", "up"), weights)]
    graph.output("y", graph.op("swiglu", *(graph.op(kind, x, v, dtype="float32") for v in views)))
    return graph, weights


@pytest.mark.parametrize("kind", ("gemm", "gemm_bt"))
@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("isa", CAPS)
@pytest.mark.parametrize(("k", "n"), ((3, 1), (40, 24), (64, 1100), (1500, 130)))
def test_both_products(isa: str, kind: str, dtype: str, k: int, n: int) -> None:
    graph, weights = gated(kind, k, n, np.dtype(dtype).name)
    with gk.config(isa=isa):
        one, two = (gk.compile_graph(graph, threads=threads) for threads in (1, 2))
    assert len(one.plan.groups) == 1
    gate, up = (w.astype(np.float64) for w in weights)
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal((rows, k), np.float32).astype(dtype)
        got = one(x=x)["y"]
        assert np.array_equal(got, two(x=x)["y"])
        left = x.astype(np.float64) @ gate
        want = left / (1 + np.exp(-left)) * (x.astype(np.float64) @ up)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * max(1, np.abs(want).max()))


def test_heads_and_an_initial_value() -> None:
    """The second product adds a bias; both are products of every head."""
    graph, random = CompilerGraph(), np.random.default_rng(0)
    x = random.standard_normal((3, 70, 16), np.float32)
    w = [random.standard_normal(shape, np.float32) for shape in ((16, 24), (24,), (16, 24), (24,))]
    v = [graph.weight(f"w{i}", a) for i, a in enumerate(w)]
    view = graph.input("x", (3, "tokens", 16))
    left, right = (graph.op("gemm_bias", view, v[i], v[i + 1]) for i in (0, 2))
    graph.output("y", graph.op("vec_mul", left, right))
    layer = gk.compile_graph(graph)
    assert [d.mode for d in layer.plan.decisions] == [FusionMode.EPILOGUE, FusionMode.SHARED_INPUT]
    want = (x @ w[0] + w[1]) * (x @ w[2] + w[3])
    np.testing.assert_allclose(layer(x=x)["y"], want, atol=1e-4)


def reason_of(change: str) -> str:
    graph = CompilerGraph()
    x, other = (graph.input(name, ("tokens", 16)) for name in ("x", "z"))
    w = [graph.weight(f"w{i}", np.zeros((24, 16), np.float32)) for i in range(3)]
    half = graph.weight("half", np.zeros((24, 16), np.float16))
    left = graph.op("gemm_bt", x, w[0])
    if change == "output":
        graph.output("left", left)
    right = graph.op("gemm_bt", other if change == "input" else x, half if change == "type" else w[1])
    y = graph.op("vec_mul", left, right)
    if change == "third":
        y = graph.op("vec_mul", graph.op("gemm_bt", x, w[2]), y)
    graph.output("y", y)
    refused = [d for d in gk.compile_graph(graph).plan.decisions if d.mode is None]
    return refused[0].reason


@pytest.mark.parametrize(("change", "reason"), (
    ("input", "they read different inputs"), ("type", "lie differently in memory"),
    ("output", "others need"), ("third", "3 sums in one group, two are the most"),
))
def test_what_is_not_shared(change: str, reason: str) -> None:
    assert reason in reason_of(change)
