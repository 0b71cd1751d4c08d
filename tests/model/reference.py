"""A Llama in plain numpy, float64 inside: what the compiled engine is measured against."""

from __future__ import annotations

import numpy as np

from gllm_kernels.model.config import LlamaConfig
from gllm_kernels.model.weights import LayerWeights, LlamaWeights


class ReferenceEngine:
    """Straight from the paper; keys and values of every position are kept."""

    compile_s = 0.0

    def __init__(self, config: LlamaConfig, weights: LlamaWeights, n_ctx: int) -> None:
        self.config, self.weights = config, widened(weights)
        self.threads = 1
        self.weight_bytes = weights.bytes_per_token
        shape = (config.layers, n_ctx, config.kv_heads, config.head_dim)
        self.keys, self.values = np.zeros(shape), np.zeros(shape)

    def forward(self, tokens: np.ndarray, position: int, every_row: bool) -> np.ndarray:
        x = self.weights.embed[tokens].astype(np.float64)
        for index, layer in enumerate(self.weights.layers):
            x = x + self.attend(
                index, layer, norm(x, layer.attn_norm, self.config.rms_eps), position
            )
            h = norm(x, layer.ffn_norm, self.config.rms_eps)
            gate = h @ layer.w_gate.T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ layer.w_up.T)) @ layer.w_down.T
        x = norm(x if every_row else x[-1:], self.weights.norm, self.config.rms_eps)
        return (x @ self.weights.head.T).astype(np.float32)

    def attend(self, index: int, layer: LayerWeights, x: np.ndarray, position: int) -> np.ndarray:
        c, count = self.config, len(x)
        places = np.arange(position, position + count)
        q = rotate((x @ layer.wq.T).reshape(count, c.heads, c.head_dim), places, c.rope_theta)
        k = rotate((x @ layer.wk.T).reshape(count, c.kv_heads, c.head_dim), places, c.rope_theta)
        self.keys[index, places] = k
        self.values[index, places] = (x @ layer.wv.T).reshape(k.shape)
        seen = position + count
        keys = np.repeat(self.keys[index, :seen], c.group, axis=1)
        values = np.repeat(self.values[index, :seen], c.group, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, keys) / np.sqrt(c.head_dim)
        scores = np.where(np.arange(seen) <= places[:, None], scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return np.einsum("hqk,khd->qhd", p, values).reshape(count, -1) @ layer.wo.T


def widened(weights: LlamaWeights) -> LlamaWeights:
    """The same numbers in float32."""

    def wide(part: LayerWeights | LlamaWeights, *names: str) -> dict[str, np.ndarray]:
        return {name: getattr(part, name).astype(np.float32) for name in names}

    layers = tuple(LayerWeights(**wide(layer, *layer.__slots__)) for layer in weights.layers)
    return LlamaWeights(**wide(weights, "embed", "norm", "head"), layers=layers)


def norm(x: np.ndarray, w: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def rotate(x: np.ndarray, places: np.ndarray, theta: float) -> np.ndarray:
    """x[..., i], x[..., i + d/2] turned by place * theta^(-2i/d)."""
    half = x.shape[-1] // 2
    angle = places[:, None, None] * theta ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1
    )


def build(
    config: LlamaConfig, weights: LlamaWeights, *, n_ctx: int, n_batch: int, n_threads: int | None
) -> ReferenceEngine:
    return ReferenceEngine(config, weights, n_ctx)
