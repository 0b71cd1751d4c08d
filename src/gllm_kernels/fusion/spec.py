"""What a legal plan is. `check` returns the plan, or says which group or edge breaks which rule."""

from __future__ import annotations

from ..errors import CompileError
from ..trace import spec
from .linear import linearise
from .plan import FusionPlan


def check(plan: FusionPlan) -> FusionPlan:
    """Every node is in one group, producers come first, every edge has a reason, every group's
    trace is legal."""
    home = {node: number for number, group in enumerate(plan.groups) for node in group.nodes}
    placed = sorted(node for group in plan.groups for node in group.nodes)
    if placed != list(range(len(plan.dag.graph.nodes))):
        raise CompileError(f"the groups hold nodes {placed}, not each of "
                           f"{len(plan.dag.graph.nodes)} nodes once")
    for edge in plan.dag.edges:
        if home[edge.producer] > home[edge.consumer]:
            raise CompileError(f"group {home[edge.consumer]} reads `{edge.param}` from group "
                               f"{home[edge.producer]}, which runs later")
    if len(plan.decisions) != len(plan.dag.edges) or not all(d.reason for d in plan.decisions):
        raise CompileError("an edge has no decision, or a decision no reason")
    for group in plan.groups:
        if group.trace is not None:
            spec.check(linearise(plan.name(group), group.trace).trace)
    return plan
