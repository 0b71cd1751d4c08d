from dataclasses import replace

import numpy as np
import pytest
import traces

from gllm_kernels.errors import ShapeError
from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.pipeline import compile_graph
from gllm_kernels.trace.affine import Affine


def limited(name):
    op = traces.operator(name)
    return replace(op, trace=replace(op.trace, extent_limit=100))


def test_a_call_beyond_what_32_bit_indices_reach_is_refused():
    graph = CompilerGraph()
    graph.output("y", graph.op(limited("vec_add"), graph.input("a", ("n",)), graph.input("b", ("n",))))
    layer = compile_graph(graph)
    small, large = np.ones(100, np.float32), np.ones(101, np.float32)
    assert layer(a=small, b=small)["y"][99] == 2
    with pytest.raises(ShapeError, match="32-bit indices"):
        layer(a=large, b=large)


def test_sizes_bind_and_check_dimensions():
    graph = CompilerGraph(traces.operator)
    a, b = graph.input("a", (3, 8)), graph.input("b", (9, 5))
    with pytest.raises(ShapeError, match="axis 0 of `b` has size 9, wanted 8"):
        graph.op("gemm", a, b)


def test_a_dimension_no_array_tells_must_be_given():
    graph = CompilerGraph(traces.operator)
    x, cos = graph.input("x", (3, 2, 8)), graph.input("cos", (16, 4))
    with pytest.raises(ShapeError, match="give `pos=`"):
        graph.op("rope_with_pos", x, cos, cos)
    rotated = graph.op("rope_with_pos", x, cos, cos, pos="pos")
    assert rotated.shape == tuple(map(Affine.const, (3, 2, 8)))


def test_tables_must_reach_the_last_position():
    graph = CompilerGraph(traces.operator)
    cos = graph.input("cos", (16, 4))
    graph.output("y", graph.op("rope_with_pos", graph.input("x", (3, 2, 8)), cos, cos, pos="pos"))
    layer = compile_graph(graph)
    arrays = {"x": np.ones((3, 2, 8), np.float32), "cos": np.ones((16, 4), np.float32)}
    layer(**arrays, pos=13)
    with pytest.raises(ShapeError, match="has 16 elements, 17 are needed"):
        layer(**arrays, pos=14)


@pytest.mark.parametrize("values, message", [
    ({"eps": 1.0}, "has no argument `eps`"),
    ({"out": None, "pos": 3}, "has no argument `pos`"),
])
def test_unknown_names_are_refused(values, message):
    graph = CompilerGraph(traces.operator)
    with pytest.raises(ShapeError, match=message):
        graph.op("silu", graph.input("x", (4,)), **values)
