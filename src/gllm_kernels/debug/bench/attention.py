"""Attention: our graph of atomic operators, compiled, and torch's scaled_dot_product_attention.

    tokens x context x heads x shared x size

The last `tokens` positions of `context` see all before them, `heads` query heads share `shared`
heads of keys and values of `size` elements. One token is a step of decoding, and bytes count; else
tokens are the whole context, and multiplications of what is seen count.
"""

from __future__ import annotations

import numpy as np

from ... import pipeline
from ...errors import ConfigError
from ...graph.ir import CompilerGraph
from ...graph.view import View
from ...model.graph import causal_mask
from ...trace.affine import Affine
from .cases import TYPES, Case, Shape
from .peers import Array, Candidate, Peers, tensor

SHAPES: tuple[Shape, ...] = ((2048, 2048, 32, 32, 128), (2048, 2048, 32, 8, 64),
                             (1, 32768, 32, 32, 128), (1, 32768, 32, 8, 128))


def attention_case(type_: str, shape: Shape) -> Case:
    tokens, context, heads, shared, size = shape
    if tokens not in (1, context) or heads % shared:
        raise ConfigError(f"attention {'x'.join(map(str, shape))}: TOKENS is 1 or CONTEXT, and "
                          "SHARED divides HEADS")
    moved = (2 * shared * context + 2 * heads * tokens) * size * TYPES[type_].itemsize
    flops = 2 * heads * context * (context + 1) * size if tokens > 1 else 0
    return Case("attention", "attention", type_, "", shape, flops, moved)


def attention_candidates(case: Case, peers: Peers) -> tuple[dict[str, Candidate], Array]:
    """Who computes it, and what is right: (heads, tokens, size)."""
    tokens, context, heads, shared, size = case.shape
    random, dtype = np.random.default_rng(0), TYPES[case.type]
    q, k, v = (random.standard_normal(shape, np.float32).astype(dtype) for shape in (
        (heads, tokens, size), (shared, context, size), (shared, context, size)))
    found = {"ours": ours(case, q, k, v)}
    if peers.torch:
        found["torch"] = theirs(case, peers, q, k, v)
    return found, reference(q, k, v)


def graph_of(case: Case) -> CompilerGraph:
    """softmax(q @ k.T / sqrt(size) + mask) @ v"""
    tokens, context, heads, shared, size = case.shape
    dtype, g = TYPES[case.type].name, CompilerGraph()
    q = g.input("q", (heads, tokens, size), dtype).split(0, shared, heads // shared)
    k, v = (g.state(name, (shared, context, size), dtype).insert(1) for name in "kv")
    scores = g.op("vec_scale", g.op("gemm_bt", q, k, dtype="float32"), s=size**-0.5)
    mask = g.weight("mask", causal_mask(context))
    steps = Affine.const(-1), Affine.const(1)
    behind = View(mask.buffer, (Affine.const(tokens), Affine.const(context)), steps,
                  Affine.const(tokens))
    g.output("y", g.op("gemm", g.op("softmax", g.op("vec_add", scores, behind)), v))
    return g


def ours(case: Case, q: Array, k: Array, v: Array) -> Candidate:
    layer = pipeline.compile_graph(graph_of(case), states={"k": k, "v": v})
    return Candidate(lambda: layer(q=q), lambda: layer(q=q)["y"].reshape(q.shape))


def theirs(case: Case, peers: Peers, *arrays: Array) -> Candidate:
    tokens, context, heads, shared, _ = case.shape
    q, k, v = (tensor(peers.torch, x)[None] for x in arrays)
    attend = peers.torch.nn.functional.scaled_dot_product_attention
    options = {"is_causal": tokens == context, "enable_gqa": heads != shared}

    def run() -> object:
        return attend(q, k, v, **options)

    return Candidate(run, lambda: run()[0].float().numpy())


def reference(q: Array, k: Array, v: Array) -> Array:
    """In float64, a few heads at a time."""
    group, result = len(q) // len(k), np.empty(q.shape)
    hidden = np.arange(k.shape[1]) > np.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    for head in range(len(q)):
        own, keys, values = (x.astype(np.float64) for x in (q[head], k[head // group],
                                                            v[head // group]))
        scores = np.where(hidden, -np.inf, own @ keys.T / np.sqrt(q.shape[-1]))
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        result[head] = weights / weights.sum(-1, keepdims=True) @ values
    return result
