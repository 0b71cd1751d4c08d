"""What a plan means, in numpy: group by group, each through its flat trace and its buffer slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..graph.interp import Array, Dims, allocate, read, run_node
from ..trace.affine import Affine
from ..trace.interp import run
from ..trace.ir import Op, OpTrace
from .buffers import BufferPlan
from .linear import BoundGroup, Pointer, linearise
from .plan import FusionPlan


def run_plan(plan: FusionPlan, buffers: BufferPlan, arrays: Mapping[str, Array],
             dims: Dims) -> dict[str, Array]:
    """As `run_graph`, through the fused groups; temporaries share memory as planned."""
    memory = allocate(plan.dag.graph, arrays, dims)
    slots = [np.full(max(s.evaluate(dims) for s in sizes), np.nan, np.float32)
             for sizes in buffers.sizes]
    for name, slot in buffers.slot:
        memory[name] = slots[slot].view(plan.dag.graph.buffer(name).dtype)
    for group in plan.groups:
        if group.trace is None:
            run_node(plan.dag.graph.nodes[group.nodes[0]], memory, dims)
        else:
            run_bound(linearise(plan.name(group), group.trace), memory, dims)
    return {name: read(view, memory, dims) for name, view in plan.dag.graph.outputs}


def run_bound(group: BoundGroup, memory: Mapping[str, Array], dims: Dims) -> None:
    """Run a flat trace on whole buffers, the pointers' offsets moved into the indices."""
    arguments: dict[str, object] = {}
    offsets: dict[str, int] = {}
    for param, value in zip(group.trace.params, group.arguments):
        if isinstance(value, Pointer):
            arguments[param.name] = memory[value.buffer]
            offsets[param.name] = value.offset.evaluate(dims)
        else:
            known = value.evaluate(dims) if isinstance(value, Affine) else value
            arguments[param.name] = known
    run(_moved(group.trace, offsets), arguments)


def _moved(trace: OpTrace, offsets: Mapping[str, int]) -> OpTrace:
    """x[i1 - i0] with x at offset 512   ->   x[i1 - i0 + 512] from the start of its buffer."""
    body = tuple(replace(op, imm=(op.imm[0], op.imm[1] + offsets[op.imm[0]]))
                 if op.op is Op.LOAD else op for op in trace.body)
    stores = tuple(replace(s, index=s.index + offsets[s.param]) for s in trace.stores)
    return replace(trace, body=body, stores=stores)
