"""What a graph means, in numpy: node by node, each through its operator's trace.

    run_graph(graph, {"x": x, "w": w}, {"tokens": 3})  ->  {"y": array}, states updated in place
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedOpError
from ..trace.interp import run
from .ir import COPY, Graph, Node
from .view import View

Array = npt.NDArray[np.float32]
Dims = Mapping[str, int]


def run_graph(graph: Graph, arrays: Mapping[str, Array], dims: Dims) -> dict[str, Array]:
    """Evaluate every node in order; `arrays` holds inputs, weights and states by name."""
    memory = allocate(graph, arrays, dims)
    for node in graph.nodes:
        run_node(node, memory, dims)
    return {name: read(view, memory, dims) for name, view in graph.outputs}


def allocate(graph: Graph, arrays: Mapping[str, Array], dims: Dims) -> dict[str, Array]:
    """Flat memory for every buffer. Temporaries start as NaN, or 85: what is not written shows."""
    memory = {name: array.reshape(-1) for name, array in arrays.items()}
    for buffer in graph.buffers:
        if buffer.name not in memory:
            real = np.dtype(buffer.dtype).kind not in "iub"
            memory[buffer.name] = np.full(buffer.size.evaluate(dims), np.nan if real else 85,
                                          buffer.dtype)
    return memory


def elements(view: View, dims: Dims) -> npt.NDArray[np.int64]:
    """The position in the buffer of every element of a view."""
    shape = [s.evaluate(dims) for s in view.shape]
    steps = [s.evaluate(dims) for s in view.strides]
    grid = np.ogrid[tuple(slice(0, s) for s in shape)] if shape else []
    at = sum((g * s for g, s in zip(grid, steps)), np.int64(view.offset.evaluate(dims)))
    return np.broadcast_to(at, shape)


def read(view: View, memory: Mapping[str, Array], dims: Dims) -> Array:
    return memory[view.buffer][elements(view, dims)]


def run_node(node: Node, memory: dict[str, Array], dims: Dims) -> None:
    """Gather the views, run the operator once per batch element, scatter the results."""
    if node.op is COPY:
        (_, source), (_, target) = node.inputs[0], node.outputs[0]
        memory[target.buffer][elements(target, dims)] = read(source, memory, dims)
        return
    if node.op.trace is None:
        raise UnsupportedOpError(f"{node.name} is opaque ({node.op.opaque}); it has no trace to run")
    sizes = {name: value.evaluate(dims) for name, value in node.dims}
    batch = [b.evaluate(dims) for b in node.batch]
    ins = {p: read(v, memory, dims).reshape(prod(batch), -1) for p, v in node.inputs}
    outs = {p: elements(v, dims).reshape(prod(batch), -1) for p, v in node.outputs}
    views = dict(node.outputs)
    for row in range(prod(batch)):
        made = {p: np.empty(at.shape[1], node.op.dtype(p)) for p, at in outs.items()}
        made |= {p: np.ascontiguousarray(a[row]) for p, a in ins.items()}
        result = run(node.op.trace, {**made, **sizes, **dict(node.scalars)})
        for param, at in outs.items():
            memory[views[param].buffer][at[row]] = result if param == "return" else made[param]

