"""A Llama as a graph of the catalogue's operators, for any number of tokens at any position.

    x = embed[tokens]
    for every layer:  x += attention(rms_norm(x));  x += swiglu feed-forward(rms_norm(x))
    logits = rms_norm(x) @ head.T

Attention is nothing but products, a scale, an additive causal mask and a softmax; grouped queries
share their keys through a stride of 0. The cache holds rotated keys and values, [kv_heads, n_ctx,
head_dim] each: a head is one stretch of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dtypes import WHOLE
from ..graph.ir import CompilerGraph
from ..graph.view import View
from ..ops.qtensor import QTensor
from ..trace.affine import Affine
from .config import LlamaConfig
from .weights import LayerWeights, LlamaWeights, Stored

F32 = NDArray[np.float32]
TOKENS, POS = Affine.sym("tokens"), Affine.sym("pos")


def rope_tables(config: LlamaConfig, n_ctx: int) -> tuple[F32, F32]:
    """cos and sin of position * theta**(-2j/head_dim) / factor[j]: [n_ctx, head_dim/2] each (RoFormer, 2021)."""
    exponent = np.arange(0, config.head_dim, 2) / config.head_dim
    frequency = config.rope_theta ** -exponent / np.array(config.rope_factors or 1.0)
    angle = np.arange(n_ctx)[:, None] * frequency
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def causal_mask(n_ctx: int) -> F32:
    """mask[n_ctx + d] is added to the score of a key d positions behind its query: 0, or -inf
    for d > 0. A view with strides (-1, 1) makes the triangle of any query range of it."""
    return np.where(np.arange(2 * n_ctx + 1) <= n_ctx, 0.0, -np.inf).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Tables:
    """Constants that every layer reads."""

    cos: View
    sin: View
    mask: View


@dataclass(frozen=True, slots=True)
class LlamaGraph:
    """Builds the graph of one model."""

    graph: CompilerGraph
    config: LlamaConfig
    n_ctx: int

    def build(self, weights: LlamaWeights, every_row: bool) -> CompilerGraph:
        """Output `logits`: [tokens, vocabulary], or [1, vocabulary] of the last token."""
        g = self.graph
        tables = self.tables()
        x = self.embedded(weights.embed)
        for number, layer in enumerate(weights.layers):
            x = self.layer(x, number, layer, tables)
        if not every_row:
            x = x.slice(0, TOKENS - 1, 1)
        h = g.op("rms_norm", x, g.weight("norm", weights.norm), eps=self.config.rms_eps)
        g.output("logits", g.op("gemm_bt", h, g.weight("head", weights.head)))
        return g

    def embedded(self, embed: Stored) -> View:
        """Rows of the embedding; of a quantised one the caller decodes the few that it needs."""
        g = self.graph
        if isinstance(embed, QTensor):
            return g.input("rows", ("tokens", self.config.hidden_size))
        ids = g.input("ids", ("tokens",), "int32")
        return g.op("gather", g.weight("embed", embed), ids, dtype="float32")  # activations are f32

    def tables(self) -> Tables:
        cos, sin = rope_tables(self.config, self.n_ctx)
        weight = self.graph.weight
        mask = weight("mask", causal_mask(self.n_ctx))
        backwards = View(mask.buffer, (TOKENS, TOKENS + POS), (Affine.const(-1), Affine.const(1)),
                         Affine.const(self.n_ctx) - POS)
        return Tables(weight("cos", cos), weight("sin", sin), backwards)

    def layer(self, x: View, number: int, w: LayerWeights, tables: Tables) -> View:
        """x + attention, then x + feed-forward; x is [tokens, D]."""
        g, eps = self.graph, self.config.rms_eps

        def product(value: View, name: str, out: View | None = None) -> View:
            return g.op("gemm_bt", value, g.weight(f"{number}.{name}", getattr(w, name)), out=out)

        def norm(value: View, name: str) -> View:
            return g.op("rms_norm", value, g.weight(f"{number}.{name}", getattr(w, name)), eps=eps)

        h, c = norm(x, "attn_norm"), self.config
        keys, values = (g.state(f"{number}.{name}", (c.kv_heads, self.n_ctx, c.head_dim))
                        for name in ("keys", "values"))
        query = self.rotate(product(h, "wq"), tables)
        self.rotate(product(h, "wk"), tables, keys.slice(1, "pos", "tokens").permute(1, 0, 2))
        wv = g.weight(f"{number}.wv", w.wv)
        self.keep_values(h, wv, values.slice(1, "pos", "tokens"))
        x = g.op("vec_add", x, product(self.attention(query, keys, values, tables.mask), "wo"))
        h = norm(x, "ffn_norm")
        up = product(h, "w_up")
        hidden = g.op("swiglu", product(h, "w_gate"), up)
        return g.op("vec_add", x, product(hidden, "w_down"))

    def keep_values(self, h: View, wv: View, out: View) -> None:
        """Head by head into the cache; a quantised weight makes all heads at once, which are moved."""
        g, c = self.graph, self.config
        if wv.dtype in WHOLE:
            heads = g.op("gemm_bt", h, wv).split(1, c.kv_heads, c.head_dim)
            g.op("vec_scale", heads.permute(1, 0, 2), s=1.0, out=out)
        else:
            g.op("gemm_bt", h, wv.split(0, c.kv_heads, c.head_dim), out=out)

    def rotate(self, value: View, tables: Tables, out: View | None = None) -> View:
        """Rotary embedding of every head: [tokens, heads, head_dim]."""
        head = self.config.head_dim
        heads = value.split(1, value.shape[1].constant // head, head)
        name = "rope_with_pos_interleaved" if self.config.interleaved else "rope_with_pos"
        return self.graph.op(name, heads, tables.cos, tables.sin, pos="pos", out=out)

    def attention(self, query: View, keys: View, values: View, mask: View) -> View:
        """softmax(q @ k.T / sqrt(head_dim) + mask) @ v for all heads: [tokens, heads*head_dim]."""
        g, c = self.graph, self.config
        group = c.heads // c.kv_heads
        q = query.split(1, c.kv_heads, group).permute(1, 2, 0, 3)
        k, v = (cache.slice(1, 0, TOKENS + POS).insert(1) for cache in (keys, values))
        scores = g.op("vec_scale", g.op("gemm_bt", q, k), s=c.head_dim ** -0.5)
        p = g.op("softmax", g.op("vec_add", scores, mask))
        out = g.temp(("tokens", c.heads * c.head_dim))
        g.op("gemm", p, v, out=out.split(1, c.kv_heads, group, c.head_dim).permute(1, 2, 0, 3))
        return out
