from dataclasses import replace

import blocks
import numpy as np
import pytest
from plan_graphs import graph_of

from gllm_kernels.codegen.reduce import phases
from gllm_kernels.codegen.rewrite import prepare
from gllm_kernels.fusion.buffers import plan_buffers
from gllm_kernels.fusion.cost import crossing, cut_of, loop_of
from gllm_kernels.fusion.interp import run_plan
from gllm_kernels.fusion.linear import linearise
from gllm_kernels.fusion.plan import plan_fusion
from gllm_kernels.fusion.profile import DeviceProfile
from gllm_kernels.fusion.rules import FusionMode
from gllm_kernels.graph.dag import build_dag
from gllm_kernels.graph.interp import run_graph
from gllm_kernels.graph.ir import CompilerGraph

WIDE = DeviceProfile("avx512", 16, 32, 32 << 10, 1 << 20, 32 << 20, 2)
SCALAR = DeviceProfile("scalar", 1, 0, 32 << 10, 1 << 20, 32 << 20, 2)
GRAPHS = {"chain": blocks.chain, "diamond": blocks.diamond, "llama": blocks.llama_layer}


def planned(graph, profile=WIDE):
    return plan_fusion(build_dag(graph), profile)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("profile", (WIDE, SCALAR), ids=lambda p: p.isa)
@pytest.mark.parametrize("dims", ({"tokens": 1, "pos": 0}, {"tokens": 5, "pos": 3}), ids=str)
def test_a_plan_computes_what_its_graph_computes(name, profile, dims):
    g, graph = GRAPHS[name]()
    plan = planned(graph, profile)
    one, two = (blocks.arguments(g, graph, dims) for _ in range(2))
    wanted, got = run_graph(graph, one, dims), run_plan(plan, plan_buffers(plan), two, dims)
    np.testing.assert_array_equal(got["y"], wanted["y"])
    assert not np.isnan(got["y"]).any()
    for state in ("k", "v"):
        if state in one:
            np.testing.assert_array_equal(one[state], two[state])


def test_a_chain_becomes_one_group_and_one_store():
    plan = planned(blocks.chain()[1])
    assert [plan.name(g) for g in plan.groups] == ["vec_add+silu+vec_mul"]
    assert {d.mode for d in plan.decisions} == {FusionMode.LOOP}
    assert len(plan.groups[0].trace.stores) == 1


def test_a_diamond_is_one_group_that_stores_its_result_only():
    plan = planned(blocks.diamond()[1])
    assert [plan.name(g) for g in plan.groups] == ["silu+vec_mul+vec_add"]
    assert len(plan.groups[0].trace.stores) == 1


def residual(reader: str):
    """t = x + y, read by a norm or silu and, later, by a product's epilogue."""
    g, w = blocks.new_graph()
    x, y = g.input("x", ("tokens", 24)), g.input("y", ("tokens", 24))
    t = g.op("vec_add", x, y)
    read = g.op(reader, t, *([w("n", 24)] if reader == "rms_norm" else []))
    g.output("y", g.op("vec_add", t, g.op("gemm_bt", read, w("w", 24, 24))))
    return g


@pytest.mark.parametrize("reader", ("rms_norm", "silu"))
def test_a_value_needed_again_is_stored_by_the_group_that_goes_on_with_it(reader):
    plan = planned(residual(reader).finish())
    assert [plan.name(g) for g in plan.groups] == [f"vec_add+{reader}", "gemm_bt+vec_add"]
    assert [s.target.view.buffer for s in plan.groups[0].trace.stores] == [
        plan.dag.graph.nodes[1].outputs[0][1].buffer, plan.dag.graph.nodes[0].outputs[0][1].buffer]
    assert plan.decisions[0].mode is FusionMode.LOOP and "is stored too" in str(plan)


def test_a_value_that_its_next_reader_sees_turned_stays_in_memory():
    g, w = blocks.new_graph()
    t = g.op("silu", g.input("x", (24, 24)))
    g.output("y", g.op("vec_add", g.op("vec_scale", t.permute(1, 0), s=2.0), t))
    plan = planned(g.finish())
    assert plan.decisions[0].mode is None and "not the view" in plan.decisions[0].reason


def test_an_element_read_twice_is_computed_once():
    g, w = blocks.new_graph()
    product = g.op("gemm_bt", g.input("x", ("tokens", 24)), w("w", 8, 24))
    g.output("y", g.op("swiglu", product, product))
    plan = planned(g.finish())
    assert [plan.name(group) for group in plan.groups] == ["gemm_bt+swiglu"]
    assert len(plan.groups[0].trace.reduces()) == 1


def test_a_llama_layer_fuses_its_epilogues():
    plan = planned(blocks.llama_layer()[1])
    names = [plan.name(g) for g in plan.groups]
    assert "gemm_bt+vec_scale+vec_add+softmax+gemm" in names and "gemm_bt+gemm_bt+swiglu" in names
    assert names.count("gemm_bt+vec_add") == 2
    assert len(plan.decisions) == len(plan.dag.edges)
    assert all(d.reason for d in plan.decisions)


def test_groups_of_other_sizes_share_their_trace():
    """Q, K, V, up (four shapes, two of them square) are one kernel; so are both residual products."""
    plan = planned(blocks.llama_layer()[1])
    traces = {}
    for group in plan.groups:
        traces.setdefault(plan.name(group), set()).add(linearise("group", group.trace).trace)
    assert {name: len(found) for name, found in traces.items()} == dict.fromkeys(traces, 1)


def test_equal_sizes_do_not_change_a_trace():
    square = planned(blocks.llama_layer(width=24, hidden=24)[1])
    other = planned(blocks.llama_layer(width=24, hidden=40)[1])
    assert ([linearise("g", a.trace).trace for a in square.groups]
            == [linearise("g", b.trace).trace for b in other.groups])


def test_scalar_plans_fuse_nothing():
    plan = planned(blocks.llama_layer()[1], SCALAR)
    assert all(len(group.nodes) == 1 for group in plan.groups)
    assert {d.reason for d in plan.decisions} == {"the scalar ISA calls the operators' own functions"}


def test_temporaries_share_slots_but_never_overlap():
    plan = planned(blocks.llama_layer()[1])
    buffers = plan_buffers(plan)
    slot = dict(buffers.slot)
    assert len(buffers.sizes) < len(buffers.lifetimes)
    for a in buffers.lifetimes:
        for b in buffers.lifetimes:
            if a.buffer < b.buffer and slot[a.buffer] == slot[b.buffer]:
                assert a.last <= b.first or b.last <= a.first


def test_a_state_written_in_between_keeps_its_reader_in_place():
    g, _ = blocks.new_graph()
    x, s = g.input("x", (4, 8)), g.state("s", (4, 8))
    before = g.op("silu", s)
    g.op("vec_add", x, x, out=s)
    g.output("y", g.op("vec_mul", before, x))
    plan = planned(g.finish())
    refused = next(d for d in plan.decisions if d.edge.producer == 0)
    assert refused.mode is None and "vec_add.1 writes s in between" in refused.reason


def chain_of(change=None, head=16):
    """Attention of one head, and the reason why it is not one group."""
    g = CompilerGraph()
    q, k, v = (g.input(name, ("tokens", head)) for name in "qkv")
    parts = {"scores": g.op("gemm_bt", q, k)}
    if change == "scores":
        g.output("scores", parts["scores"])
    weights = g.op("rms_norm" if change == "norm" else "softmax", parts["scores"], *(
        [g.input("w", ("tokens",))] if change == "norm" else []), **(
        {"eps": 1e-5} if change == "norm" else {}))
    if change == "twice":
        g.output("weights", weights)
    g.output("y", g.op("gemm", weights, v))
    plan = planned(g.finish())
    return [d for d in plan.decisions if d.edge.param in ("a", "x") and d.edge.producer <= 1]


def test_attention_is_one_group():
    decisions = chain_of()
    assert [d.mode for d in decisions] == [FusionMode.ONLINE_SOFTMAX] * 2


@pytest.mark.parametrize(("change", "reason"), (
    ("scores", "its scores stay in memory: others need t3 too"),
    ("twice", "too, and gemm.2 has no round for each element"),
    ("norm", "is not exp(s - max(s)) / sum(exp(s - max(s)))"),
))
def test_why_attention_is_not_one_group(change, reason):
    decisions = chain_of(change)
    assert all(d.mode is None for d in decisions)
    assert reason in decisions[-1].reason


def test_heads_too_large_for_scratch_are_not_one_group():
    assert "scratch is for a known number up to 512" in chain_of(head=520)[-1].reason
    assert "rows of a head have width elements" in chain_of(head="width")[-1].reason


def kept_in(*names, outputs=False):
    """What a norm of a sum keeps of a row, and how many stores are left for its last loop."""
    g, w = blocks.new_graph()
    total = g.input("x", ("tokens", 24))
    for name in names:
        total = g.op("vec_add", total, g.input(name, ("tokens", 24)))
    if outputs:
        g.output("t", total)
    g.output("y", g.op("rms_norm", total, w("n", 24)))
    group, = planned(g.finish()).groups
    plan, final = phases(prepare(linearise("k", group.trace).trace, "i1"), "i1")
    return plan[0].kept is not None, len(final.stores)


def test_a_row_read_twice_is_stored_on_the_way():
    """Where it is stored anyway, or where adding it up again takes more than two loads."""
    assert kept_in("a", outputs=True) == (True, 1)
    assert kept_in("a") == (False, 1)
    assert kept_in("a", "b") == (True, 1)


def test_a_loop_is_cut_where_the_fewest_bytes_cross():
    """Two rounds that each hold twelve values: between them a single one is known."""
    dag = build_dag(graph_of("long_chain").finish())
    nodes = list(dag.graph.nodes)
    temporaries = {b.name for b in dag.graph.buffers if b.kind == "temp"}
    few = replace(WIDE, isa="avx2", lanes=8, vector_registers=8, l3=1 << 20)
    cut = cut_of(nodes, temporaries, few)
    assert nodes[cut.node].inputs[0][1] == nodes[cut.node - 1].outputs[0][1] and cut.node == 36
    assert crossing(nodes, cut.node, temporaries, few) < crossing(nodes, cut.node - 1, temporaries, few)
    whole = loop_of(nodes)
    assert [whole.spilled(replace(few, vector_registers=n)) for n in (8, 14, 16)] == [13, 1, 0]
    assert "13 values find none of 8 registers" in cut.reason
    assert cut_of(nodes[:12], temporaries, few) is None


def test_rows_that_a_norm_reads_again_are_counted_by_where_they_fit():
    graph = graph_of("wide_chain").finish()
    nodes = list(graph.nodes)
    assert len(loop_of(nodes).rows) == 12 and not loop_of(nodes[:-1]).rows
    costs = [loop_of(nodes).cycles(replace(WIDE, l1d=l1, l2=l2))
             for l1, l2 in ((1 << 19, 1 << 20), (1 << 15, 1 << 20), (1 << 15, 1 << 18))]
    assert costs == sorted(costs) and len(set(costs)) == 3
