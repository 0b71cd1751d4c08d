"""The plan and the machine code of a model, compiled for this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..codegen.isa.detect import current_isa_name
from ..executable.cache import KERNELS
from ..executable.layer import CompiledLayer
from ..fusion.buffers import plan_buffers
from ..graph.ir import CompilerGraph
from ..model.checkpoint import open_checkpoint
from ..model.config import LlamaConfig
from ..model.graph import LlamaGraph
from ..model.weights import HUGGING_FACE, LlamaWeights, assemble, tensor_shapes
from ..ops.op import Op
from ..pipeline import compile_graph
from .loops import loop_table

# name: hidden, ffn, heads, kv heads, vocabulary, context
# fmt: off
SHAPES = {
    "llama-1b": (2048,  5632, 32,  4,  32000, 2048),
    "llama-7b": (4096, 11008, 32, 32,  32000, 4096),
    "llama-8b": (4096, 14336, 32,  8, 128256, 8192),
}
# fmt: on


def plan(path: Path | None = None, shape: str = "") -> str:
    """Groups, reasons and buffers of a checkpoint, or of one layer of a well-known shape, and the
    time a cold compilation took."""
    layer = compiled(path, shape)
    kernels = len(layer.kernels)
    tail = (f"compiled in {layer.compile_ms:.1f} ms: {len(layer.plan.dag.graph.nodes)} nodes, "
            f"{len(layer.plan.groups)} groups, {kernels} distinct kernels")
    return f"{layer.plan}\n{plan_buffers(layer.plan)}\n{tail}"


def disasm(path: Path | None = None, shape: str = "", op: str | None = None) -> str:
    """Every distinct kernel of a checkpoint, of one layer of a well-known shape, or of an
    operator."""
    return layer_of(path, shape, op).disasm() or f"no kernels: ISA {current_isa_name()}"


def loop_report(path: Path | None = None, shape: str = "", op: str | None = None) -> str:
    """What a round of every innermost loop of those kernels executes, routines included."""
    parts = {part: None for kernel in layer_of(path, shape, op).kernels
             for part in kernel.code.parts}
    return loop_table(parts) if parts else f"no kernels: ISA {current_isa_name()}"


def layer_of(path: Path | None, shape: str, op: str | None) -> CompiledLayer:
    return compiled(path, shape) if op is None else Op.named(op).layer()


def compiled(path: Path | None, shape: str) -> CompiledLayer:
    """A cold compilation; weights are memory nobody touches, since a plan reads no weight."""
    found = layer_config(shape) if shape else open_checkpoint(path).config
    KERNELS.clear()
    graph = LlamaGraph(CompilerGraph(), found, found.context)
    return compile_graph(graph.build(blank_weights(found), every_row=False))


def layer_config(shape: str) -> LlamaConfig:
    hidden, ffn, heads, kv, vocabulary, context = SHAPES[shape]
    return LlamaConfig(vocabulary, hidden, ffn, 1, heads, kv, hidden // heads, context, 1e-5, 1e4,
                       True, None, frozenset())


def blank_weights(config: LlamaConfig) -> LlamaWeights:
    """Uninitialised arrays of the right shapes: the system maps their pages only when touched."""
    shapes = tensor_shapes(config)
    arrays = {name: np.empty(size, np.float32) for name, size in shapes.items()}
    return assemble(arrays, config, HUGGING_FACE)
