"""No spill and no register move in any hot loop of the catalogue's kernels, on every ISA.

Machine code is looked at, not run, so this holds on any host. A hot loop is an innermost loop
whose rounds grow with the data; a tail runs at most once.
"""

import pytest

from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.generate import generate
from gllm_kernels.codegen.isa.detect import ISAS
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.fusion.linear import linearise
from gllm_kernels.fusion.plan import plan_fusion
from gllm_kernels.fusion.profile import DeviceProfile
from gllm_kernels.graph.dag import build_dag
from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.ops import Op
from gllm_kernels.scalar import CATALOG
from gllm_kernels.trace.pattern import ComputePattern

TRACED = [row.name for row in CATALOG if not row.opaque]
PRODUCTS = (ComputePattern.GEMM, ComputePattern.GEMV)


def kernel_of(isa, *names):
    """The one kernel of a chain of operators; further arrays are inputs of the graph."""
    graph, value = CompilerGraph(), None
    for number, name in enumerate(names):
        op = Op.named(name).operator
        given = [] if value is None else [value]
        rest = op.inputs[len(given):]
        shape = value.shape if value is not None else None
        views = given + [graph.input(f"{p}{number}", op.shape(p) if shape is None else shape)
                         for p in rest]
        free = {"pos": "pos"} if "pos" in op.names("dim") else {}
        value = graph.op(name, *views, **{s: s for s in op.names("scalar")}, **free)
    graph.output("y", value)
    profile = DeviceProfile(isa.name, isa.lanes, isa.vregs, 32 << 10, 1 << 20, 32 << 20, 1)
    plan = plan_fusion(build_dag(graph.finish()), profile)
    assert len(plan.groups) == 1
    trace = linearise("kernel", plan.groups[0].trace).trace
    return compile_kernel(generate(trace, isa, default_params(isa)), isa)


def hot(code):
    return [s for s in code.loop_stats() if "tail" not in s.name]


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("name", TRACED)
def test_hot_loops_neither_spill_nor_move(name, isa):
    code = kernel_of(isa, name)
    assert hot(code)
    for stats in hot(code):
        assert (stats.spills, stats.moves) == (0, 0), f"{name} {isa.name} loop {stats.name}: {stats}"


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("names", [("gemm_bt", "silu"), ("gemm", "vec_add"), ("gemm_bt", "gelu"),
                                   ("gemm_bt", "vec_scale", "vec_add"), ("gemm_bt", "swiglu"),
                                   ("vec_add", "silu", "vec_mul")],
                         ids="+".join)
def test_hot_loops_of_fused_groups_neither_spill_nor_move(names, isa):
    for stats in hot(kernel_of(isa, *names)):
        assert (stats.spills, stats.moves) == (0, 0), f"{names} {isa.name} loop {stats.name}: {stats}"


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
def test_the_micro_kernel_is_all_multiply_adds(isa):
    """mr*2 FMAs per term and, beside them, only the loads of its operands and the loop itself."""
    params = default_params(isa)
    code = kernel_of(isa, "gemm_bt")
    stats = max((s for s in code.loop_stats() if s.name == "k"), key=lambda s: s.fmas)
    terms = stats.fmas // (params.mr * 2)
    assert stats.fmas == params.mr * 2 * terms and terms >= 1
    assert stats.instructions <= stats.fmas + terms * (params.mr + 2) + 6
