"""The forward pass of a Llama: two compiled layers (last row, every row) over one KV cache.

Python's part of a call is integers: it binds sizes and hands over addresses. Every floating-point
operation of the pass happens in code that the compiler wrote from the scalar operators.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..executable.layer import CompiledLayer
from ..executable.team import thread_count
from ..graph.ir import CompilerGraph
from ..ops.qtensor import QTensor
from ..ops.weights import dequantize
from ..pipeline import compile_graph
from .config import LlamaConfig
from .graph import LlamaGraph
from .weights import LlamaWeights

F32 = NDArray[np.float32]


@dataclass
class LlamaEngine:
    """Compiles the last-row program at once and the every-row program when it is first wanted."""

    config: LlamaConfig
    weights: LlamaWeights
    n_ctx: int
    threads: int
    compile_s: float = 0.0
    layers: dict[bool, CompiledLayer] = field(default_factory=dict)
    states: dict[str, F32] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layer(every_row=False)

    @property
    def weight_bytes(self) -> int:
        return self.weights.bytes_per_token

    def layer(self, every_row: bool) -> CompiledLayer:
        """The compiled program, made on first use; both share the cache arrays."""
        if every_row not in self.layers:
            began = time.perf_counter()
            graph = LlamaGraph(CompilerGraph(), self.config, self.n_ctx)
            built = graph.build(self.weights, every_row)
            self.layers[every_row] = compile_graph(built, states=self.states, threads=self.threads)
            self.compile_s += time.perf_counter() - began
        return self.layers[every_row]

    def forward(self, tokens: NDArray[np.int32], position: int, every_row: bool) -> F32:
        return self.layer(every_row)(pos=position, **self.embedded(tokens))["logits"]

    def embedded(self, tokens: NDArray[np.int32]) -> dict[str, NDArray[np.generic]]:
        """The graph's first input: the tokens, or their rows of a quantised embedding."""
        embed = self.weights.embed
        if not isinstance(embed, QTensor):
            return {"ids": tokens}
        return {"rows": dequantize(embed.blocks.reshape(embed.shape[0], -1)[tokens], embed.format)}


def build(config: LlamaConfig, weights: LlamaWeights, *, n_ctx: int, n_batch: int,
          n_threads: int | None) -> LlamaEngine:
    """The engine behind `Llama`. `n_batch` bounds only what one call computes."""
    return LlamaEngine(config, weights, n_ctx, thread_count(n_threads))
