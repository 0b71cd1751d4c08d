"""Graphs that the fusion tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import traces

from gllm_kernels.graph.ir import CompilerGraph, Graph
from gllm_kernels.graph.view import View
from gllm_kernels.trace.affine import Affine

T, POS = Affine.sym("tokens"), Affine.sym("pos")


class Weights:
    """Seeded random arrays by name, remembered for the interpreter."""

    def __init__(self, graph: CompilerGraph, seed: int = 0) -> None:
        self.graph, self.random = graph, np.random.default_rng(seed)

    def __call__(self, name: str, *shape: int) -> View:
        array = self.random.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5)
        return self.graph.weight(name, array)


def new_graph() -> tuple[CompilerGraph, Weights]:
    graph = CompilerGraph(traces.operator)
    return graph, Weights(graph)


def chain() -> tuple[CompilerGraph, Graph]:
    """Three elementwise operators in a row."""
    g, _ = new_graph()
    a, b = g.input("a", ("tokens", 24)), g.input("b", ("tokens", 24))
    g.output("y", g.op("vec_mul", g.op("silu", g.op("vec_add", a, b)), b))
    return g, g.finish()


def diamond() -> tuple[CompilerGraph, Graph]:
    """One value with two consumers."""
    g, w = new_graph()
    x = g.input("x", ("tokens", 24))
    s = g.op("silu", x)
    g.output("y", g.op("vec_add", g.op("vec_mul", s, w("u", 24)), s))
    return g, g.finish()


def llama_layer(**sizes: int) -> tuple[CompilerGraph, Graph]:
    g, w = new_graph()
    g.output("y", decoder_layer(g, w, **sizes))
    return g, g.finish()


def decoder_layer(g: CompilerGraph, w: Callable[..., View], width: int = 24, kv: int = 2,
                  groups: int = 2, head: int = 6, hidden: int = 40, context: int = 32) -> View:
    """With a cache, grouped queries and a causal mask; `w(name, *shape)` makes its weights."""
    x = g.input("x", ("tokens", width))
    k_cache, v_cache = (g.state(n, (context, kv * head)) for n in ("k", "v"))
    cos, sin = (g.input(n, (context, head // 2)) for n in ("cos", "sin"))
    g.input("mask", (2 * context,))
    h = g.op("rms_norm", x, w("norm1", width))
    q = g.op("gemm_bt", h, w("wq", kv * groups * head, width)).split(1, kv * groups, head)
    k = g.op("gemm_bt", h, w("wk", kv * head, width)).split(1, kv, head)
    q = g.op("rope_with_pos", q, cos, sin, pos="pos").split(1, kv, groups).permute(1, 2, 0, 3)
    rows = k_cache.slice(0, "pos", "tokens")
    g.op("rope_with_pos", k, cos, sin, pos="pos", out=rows.split(1, kv, head))
    g.op("gemm_bt", h, w("wv", kv * head, width), out=v_cache.slice(0, "pos", "tokens"))
    keys, values = (c.slice(0, 0, T + POS).split(1, kv, head).permute(1, 0, 2).insert(1)
                    for c in (k_cache, v_cache))
    scores = g.op("vec_scale", g.op("gemm_bt", q, keys), s=head ** -0.5)
    causal = View("mask", (T, T + POS), (Affine.const(-1), Affine.const(1)),
                  Affine.const(context) - POS)
    p = g.op("softmax", g.op("vec_add", scores, causal))
    a = g.temp(("tokens", kv * groups * head))
    g.op("gemm", p, values, out=a.split(1, kv, groups, head).permute(1, 2, 0, 3))
    x = g.op("vec_add", x, g.op("gemm_bt", a, w("wo", width, kv * groups * head)))
    h = g.op("rms_norm", x, w("norm2", width))
    up = g.op("gemm_bt", h, w("up", hidden, width))
    f = g.op("swiglu", g.op("gemm_bt", h, w("gate", hidden, width)), up)
    return g.op("vec_add", x, g.op("gemm_bt", f, w("down", width, hidden)))


def arguments(g: CompilerGraph, graph: Graph, dims: dict[str, int],
              seed: int = 1) -> dict[str, np.ndarray]:
    """Random inputs and states beside the graph's weights; the mask is causal."""
    random = np.random.default_rng(seed)
    arrays = {b.name: random.standard_normal([s.evaluate(dims) for s in b.shape], np.float32)
              for b in graph.buffers if b.kind in ("input", "state")}
    if "mask" in arrays:
        half = len(arrays["mask"]) // 2
        arrays["mask"] = np.where(np.arange(2 * half) <= half, 0, -np.inf).astype(np.float32)
    return {**g.arrays, **arrays}
