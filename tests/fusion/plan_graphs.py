"""The graphs whose plans are golden files: blocks of models, and what is hard to fuse.

Weights are memory that nobody touches, since a plan reads none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from blocks import decoder_layer

from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.graph.view import View

GRAPHS: dict[str, Callable[[CompilerGraph], View]] = {}


def planned(make: Callable[[CompilerGraph], View]) -> Callable[[CompilerGraph], View]:
    GRAPHS[make.__name__] = make
    return make


def graph_of(name: str) -> CompilerGraph:
    g = CompilerGraph()
    g.output("y", GRAPHS[name](g))
    return g


def weight(g: CompilerGraph, *shape: int) -> View:
    return g.weight(f"w{len(g.buffers)}", np.empty(shape, np.float32))


def product(g: CompilerGraph, x: View, width: int) -> View:
    return g.op("gemm_bt", x, weight(g, width, x.shape[-1].constant))


def with_bias(g: CompilerGraph, x: View, width: int) -> View:
    return g.op("gemm_bias", x, weight(g, x.shape[-1].constant, width), weight(g, width))


def attention(g: CompilerGraph, q: View, k: View, v: View, heads: int) -> View:
    """softmax(q @ k.T / sqrt(d)) @ v for every head of rows of `heads * d`."""
    width = q.shape[-1].constant
    q, k, v = (x.split(1, heads, width // heads).permute(1, 0, 2) for x in (q, k, v))
    scores = g.op("vec_scale", g.op("gemm_bt", q, k), s=(width // heads) ** -0.5)
    mixed = g.temp(("tokens", width))
    g.op("gemm", g.op("softmax", scores), v, out=mixed.split(1, heads, width // heads)
         .permute(1, 0, 2))
    return mixed


@planned
def mlp(g: CompilerGraph) -> View:
    return with_bias(g, g.op("relu", with_bias(g, g.input("x", ("tokens", 256)), 1024)), 256)


@planned
def swiglu_block(g: CompilerGraph) -> View:
    x = g.input("x", ("tokens", 1024))
    h = g.op("rms_norm", x, weight(g, 1024))
    gate, up = product(g, h, 2816), product(g, h, 2816)
    return g.op("vec_add", x, product(g, g.op("swiglu", gate, up), 1024))


@planned
def attention_block(g: CompilerGraph) -> View:
    x = g.input("x", ("tokens", 512))
    h = g.op("rms_norm", x, weight(g, 512))
    mixed = attention(g, *(product(g, h, 512) for _ in range(3)), heads=8)
    return g.op("vec_add", x, product(g, mixed, 512))


@planned
def bert_block(g: CompilerGraph) -> View:
    x = g.input("x", ("tokens", 768))
    mixed = attention(g, *(with_bias(g, x, 768) for _ in range(3)), heads=12)
    x = g.op("vec_add", x, with_bias(g, mixed, 768))
    x = g.op("layer_norm", x, weight(g, 768), weight(g, 768))
    f = with_bias(g, g.op("gelu", with_bias(g, x, 3072)), 768)
    return g.op("layer_norm", g.op("vec_add", x, f), weight(g, 768), weight(g, 768))


@planned
def llama_layer(g: CompilerGraph) -> View:
    sizes = {"width": 512, "kv": 2, "groups": 4, "head": 64, "hidden": 1408, "context": 512}
    return decoder_layer(g, lambda name, *shape: weight(g, *shape), **sizes)


@planned
def diamond(g: CompilerGraph) -> View:
    """One value with two consumers that meet again."""
    s = g.op("silu", g.input("x", ("tokens", 4096)))
    return g.op("vec_add", g.op("vec_mul", s, weight(g, 4096)), s)


@planned
def long_chain(g: CompilerGraph) -> View:
    """Two rounds that each hold twelve values until the last of them is known, and one between."""
    x = g.input("x", ("tokens", 4096))
    for _ in range(2):
        held = [x]
        for _ in range(12):
            held.append(g.op("relu", g.op("vec_mul", held[-1], weight(g, 4096))))
        x = held.pop()
        for value in held:  # in the order that keeps the others waiting
            x = g.op("vec_sub", x, value)
    return x


@planned
def wide_chain(g: CompilerGraph) -> View:
    """Twelve streams added up, a norm of the sum, and a gate: the rows of the streams are read twice."""
    x = g.input("x0", ("tokens", 8192))
    for number in range(1, 12):
        x = g.op("vec_add", x, g.input(f"x{number}", ("tokens", 8192)))
    return g.op("vec_mul", g.op("rms_norm", x, weight(g, 8192)), g.input("gate", ("tokens", 8192)))
