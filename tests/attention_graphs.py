"""Attention as atomic operators, its operands, and what is right, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.graph.view import View
from gllm_kernels.trace.affine import Affine

T, POS = Affine.sym("tokens"), Affine.sym("pos")
TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Form:
    """`group` query heads share one of `heads` keys and values, of `head` and `width` elements a
    row; a query sees itself and `window` - 1 positions before it, all without a window."""

    heads: int = 1
    group: int = 1
    head: int = 32
    width: int = 0
    context: int = 64
    window: int = 0
    dtype: str = "float32"
    causal: bool = True

    @property
    def columns(self) -> int:
        return self.width or self.head


def mask_of(form: Form) -> np.ndarray:
    """mask[context + d] belongs to a key d positions behind its query."""
    behind = np.arange(-form.context, form.context + 1)
    seen = (behind <= 0) & ((behind > -form.window) | (form.window == 0))
    return np.where(seen, 0, -np.inf).astype(np.float32)


def graph_of(form: Form) -> CompilerGraph:
    """q: (heads * group, tokens, head), states k and v: (heads, context, ...)."""
    g = CompilerGraph()
    q = g.input("q", (form.heads * form.group, "tokens", form.head), form.dtype)
    k, v = (g.state(name, (form.heads, form.context, size), form.dtype).slice(1, 0, T + POS).insert(1)
            for name, size in (("k", form.head), ("v", form.columns)))
    scores = g.op("gemm_bt", q.split(0, form.heads, form.group), k)
    scores = g.op("vec_scale", scores, s=form.head ** -0.5)
    if form.causal:
        mask = g.weight("mask", mask_of(form))
        scores = g.op("vec_add", scores, View(
            mask.buffer, (T, T + POS), (Affine.const(-1), Affine.const(1)), Affine.const(form.context) - POS))
    g.output("y", g.op("gemm", g.op("softmax", scores), v))
    return g


def operands(form: Form, tokens: int, seed: int = 0) -> dict[str, np.ndarray]:
    random, dtype = np.random.default_rng(seed), TYPES[form.dtype]
    shapes = {"q": (form.heads * form.group, tokens, form.head),
              "k": (form.heads, form.context, form.head),
              "v": (form.heads, form.context, form.columns)}
    return {name: random.standard_normal(shape, np.float32).astype(dtype)
            for name, shape in shapes.items()}


def right(form: Form, arrays: dict[str, np.ndarray], pos: int) -> np.ndarray:
    """(heads, group, tokens, columns) in float64."""
    q, k, v = (arrays[name].astype(np.float64) for name in "qkv")
    tokens = q.shape[1]
    q = q.reshape(form.heads, form.group, tokens, form.head)
    k, v = (x[:, None, : pos + tokens] for x in (k, v))
    scores = q @ k.swapaxes(-1, -2) * form.head ** -0.5
    if form.causal:
        behind = np.arange(pos + tokens) - np.arange(tokens)[:, None] - pos
        scores = scores + mask_of(form).astype(np.float64)[form.context + behind]
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v
