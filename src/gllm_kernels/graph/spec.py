"""What a legal graph is. `check` returns the graph, or says which node breaks which rule."""

from __future__ import annotations

from ..errors import CompileError
from .ir import Graph, Node
from .view import View


def check(graph: Graph) -> Graph:
    """Buffers exist, temporaries are written before they are read, ranks and types agree."""
    buffers = {b.name: b for b in graph.buffers}
    written = {b.name for b in graph.buffers if b.kind != "temp"}
    for node in graph.nodes:
        for param, view in node.inputs + node.outputs:
            _check_view(node, param, view, buffers)
        for param, view in node.inputs:
            if view.buffer not in written:
                raise CompileError(f"{node.name}: `{param}` reads {view.buffer} before it is written")
        for param, view in node.outputs:
            if buffers[view.buffer].kind in ("input", "weight"):
                raise CompileError(f"{node.name}: `{param}` writes {view.buffer}, which is "
                                   f"{buffers[view.buffer].kind}")
            written.add(view.buffer)
    for name, view in graph.outputs:
        if view.buffer not in written:
            raise CompileError(f"output {name!r} reads {view.buffer}, which no node writes")
    return graph


def _check_view(node: Node, param: str, view: View, buffers: dict) -> None:
    what = f"{node.name}: `{param}`"
    if view.buffer not in buffers:
        raise CompileError(f"{what} is a view of {view.buffer!r}; the graph has no such buffer")
    if view.dtype != buffers[view.buffer].dtype:
        raise CompileError(f"{what} is {view.dtype}, {view.buffer} is {buffers[view.buffer].dtype}")
    if len(view.shape) != len(view.strides):
        raise CompileError(f"{what} has {len(view.shape)} sizes and {len(view.strides)} strides")
    sizes = [s.constant for s in (*view.shape, *view.strides, view.offset)]
    extent = buffers[view.buffer].size.constant
    if None not in sizes and extent is not None:
        _check_inside(what, view, extent)


def _check_inside(what: str, view: View, extent: int) -> None:
    """First and last element lie in the buffer."""
    shape = [s.constant for s in view.shape]
    reach = [(n - 1) * s.constant for n, s in zip(shape, view.strides)]
    first = view.offset.constant + sum(r for r in reach if r < 0)
    last = view.offset.constant + sum(r for r in reach if r > 0)
    if all(shape) and (first < 0 or last >= extent):
        raise CompileError(f"{what}: {view} reaches elements {first}..{last} of {extent}")
