from dataclasses import replace

import blocks
import pytest

from gllm_kernels.errors import CompileError
from gllm_kernels.fusion import spec as plan_spec
from gllm_kernels.fusion.plan import plan_fusion
from gllm_kernels.fusion.profile import DeviceProfile
from gllm_kernels.graph import spec
from gllm_kernels.graph.dag import build_dag
from gllm_kernels.trace.affine import Affine

WIDE = DeviceProfile("avx512", 16, 32, 32 << 10, 1 << 20, 32 << 20, 2)


@pytest.fixture
def graph():
    return blocks.llama_layer()[1]


def node(graph, name):
    return next(n for n in graph.nodes if n.op.name == name)


def with_node(graph, old, new):
    return replace(graph, nodes=tuple(new if n is old else n for n in graph.nodes))


def test_the_graphs_of_the_tests_are_legal(graph):
    assert spec.check(graph) is graph


def test_a_read_before_the_write_is_named(graph):
    late = replace(graph, nodes=graph.nodes[1:])
    with pytest.raises(CompileError, match=r"gemm_bt.1: `a` reads .* before it is written"):
        spec.check(late)


def test_a_view_beyond_its_buffer_is_named(graph):
    norm = node(graph, "rms_norm")
    (x, view), (w, weight) = norm.inputs
    moved = replace(weight, offset=Affine.const(1))
    with pytest.raises(CompileError, match=r"`w`.* reaches elements 1..24 of 24"):
        spec.check(with_node(graph, norm, replace(norm, inputs=((x, view), (w, moved)))))


def test_writing_an_input_is_refused(graph):
    norm = node(graph, "rms_norm")
    with pytest.raises(CompileError, match="writes x, which is input"):
        spec.check(with_node(graph, norm, replace(norm, outputs=(("out", norm.inputs[0][1]),))))


def test_a_plan_that_loses_or_reorders_a_group_is_refused(graph):
    plan = plan_fusion(build_dag(graph), WIDE)
    assert plan_spec.check(plan) is plan
    with pytest.raises(CompileError, match="not each of"):
        plan_spec.check(replace(plan, groups=plan.groups[1:]))
    with pytest.raises(CompileError, match="which runs later"):
        plan_spec.check(replace(plan, groups=plan.groups[::-1]))
    with pytest.raises(CompileError, match="no decision"):
        plan_spec.check(replace(plan, decisions=plan.decisions[1:]))
