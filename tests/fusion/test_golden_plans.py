"""Plans as text, reviewed as part of a change: every graph on a machine with few registers and a
small cache, and on one with many and a large one."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_graphs import GRAPHS, graph_of

from gllm_kernels.fusion.buffers import plan_buffers
from gllm_kernels.fusion.plan import plan_fusion
from gllm_kernels.fusion.profile import DeviceProfile
from gllm_kernels.graph.dag import build_dag

SMALL = DeviceProfile("avx2", 8, 16, 32 << 10, 256 << 10, 8 << 20, 2)
LARGE = DeviceProfile("avx512", 16, 32, 512 << 10, 2 << 20, 32 << 20, 2)


@pytest.mark.parametrize("name", GRAPHS)
def test_plans(name, golden):
    dag = build_dag(graph_of(name).finish())
    plans = [plan_fusion(dag, profile) for profile in (SMALL, LARGE)]
    text = "\n\n".join(f"{plan}\n{plan_buffers(plan)}" for plan in plans)
    golden(Path(__file__).parent / "plans" / f"{name}.txt", f"{text}\n")
