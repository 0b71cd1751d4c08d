"""Phase 1: who defines and who uses every tensor, with bytes, consumers and post-dominators."""

from __future__ import annotations

from dataclasses import dataclass

from ..dtypes import ITEMSIZE
from ..trace.affine import Affine
from ..trace.pattern import ComputePattern
from .ir import Graph, Node
from .view import View, size_of

OpClass = ComputePattern  # the class of a node is the pattern of its trace


@dataclass(frozen=True, slots=True)
class TensorEdge:
    """`producer` writes what `consumer` reads as its `param`."""

    producer: int
    consumer: int
    param: str
    view: View
    consumers: int  # nodes that read the producer's buffer
    exact: bool  # the consumer reads just the view that was written, and nothing else writes it
    private: bool  # a temporary of the layer that is no output

    @property
    def bytes(self) -> Affine:
        """Bytes that cross memory when the edge is not fused (written once, read once each)."""
        return size_of(self.view.shape) * ITEMSIZE[self.view.dtype]


@dataclass(frozen=True, slots=True)
class SemanticDAG:
    """`postdominator[i]`: the first node every path from i to the end goes through, or -1."""

    graph: Graph
    edges: tuple[TensorEdge, ...]
    postdominator: tuple[int, ...]

    def op_class(self, index: int) -> OpClass:
        return self.graph.nodes[index].op.pattern

    def into(self, index: int) -> tuple[TensorEdge, ...]:
        return tuple(e for e in self.edges if e.consumer == index)

    def out_of(self, index: int) -> tuple[TensorEdge, ...]:
        return tuple(e for e in self.edges if e.producer == index)

    def __str__(self) -> str:
        rows = []
        for node in self.graph.nodes:
            rows.append(f"{node.name:24} {self.op_class(node.index):12} postdominator "
                        f"{self.postdominator[node.index]}")
            rows += [f"    <- {self.graph.nodes[e.producer].name} {e.param}: {e.bytes} bytes, "
                     f"{e.consumers} consumer(s)" for e in self.into(node.index)]
        return "\n".join(rows)


def build_dag(graph: Graph) -> SemanticDAG:
    writers: dict[str, list[tuple[int, View]]] = {}
    readers = _readers(graph)
    outputs = {view.buffer for _, view in graph.outputs}
    edges: list[TensorEdge] = []
    for node in graph.nodes:
        for param, view in node.inputs:
            for producer, written in writers.get(view.buffer, ()):
                private = graph.buffer(view.buffer).kind == "temp" and view.buffer not in outputs
                exact = written == view and len(writers[view.buffer]) == 1
                edges.append(TensorEdge(producer, node.index, param, view,
                                        len(readers[view.buffer]), exact, private))
        for _, view in node.outputs:
            writers.setdefault(view.buffer, []).append((node.index, view))
    return SemanticDAG(graph, tuple(edges), postdominators(graph.nodes, tuple(edges)))


def _readers(graph: Graph) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for node in graph.nodes:
        for _, view in node.inputs:
            found.setdefault(view.buffer, set()).add(node.index)
    return found


def postdominators(nodes: tuple[Node, ...], edges: tuple[TensorEdge, ...]) -> tuple[int, ...]:
    """Immediate post-dominators by intersection along the reversed order (Cooper, Harvey, Kennedy,
    "A Simple, Fast Dominance Algorithm", 2001); the edges of a DAG need one pass. The common exit
    behind all nodes without consumers is -1."""
    users: dict[int, list[int]] = {}
    for edge in edges:
        users.setdefault(edge.producer, []).append(edge.consumer)
    found = [-1] * len(nodes)
    for node in reversed(range(len(nodes))):
        meet = None
        for user in users.get(node, ()):
            meet = user if meet is None else _intersect(meet, user, found)
        found[node] = -1 if meet is None else meet
    return tuple(found)


def _intersect(a: int, b: int, found: list[int]) -> int:
    """The first common node of two chains; later nodes have larger numbers, the exit is -1."""
    while a != b:
        if a == -1 or b == -1:
            return -1
        if a < b:
            a = found[a]
        else:
            b = found[b]
    return a
