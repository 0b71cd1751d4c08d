"""The computation pattern of a trace, derived from the shape of its body and nothing else.

elementwise  out[i] = f(a[i], b[i], ...)            every load stands at the index of the store
injective    out[g(i)] = f(a[h(i)], ...)            no reduction, indices differ
reduction    out[i] = f(sum[r](a[i, r]))            every output element has its own reduction
norm_like    out[i, j] = f(x[i, j], sum[r](x[i, r]))  a row shares its reductions
gemv         y[i] = f(sum[r](a[i, r]*x[r]))         one factor does not depend on the output
gemm         c[i, j] = f(sum[r](a[i, r]*b[r, j]))   each factor lacks an index of the other
attention    as gemm, and a factor has reductions of its own
"""

from __future__ import annotations

from enum import StrEnum

from .ir import Op, OpTrace, Store, TraceOp, reachable
from .spec import free_symbols, types


class ComputePattern(StrEnum):
    """What decides the generator and the fusion rules of a trace."""

    OPAQUE = "opaque"  # no trace: the function is called as it is
    ELEMENTWISE = "elementwise"
    INJECTIVE = "injective"
    REDUCTION = "reduction"
    NORM_LIKE = "norm_like"
    GEMV = "gemv"
    GEMM = "gemm"
    ATTENTION = "attention"

    def __repr__(self) -> str:
        return f"ComputePattern.{self.name}"


# the pattern of a trace is the highest of its stores' patterns
RANK = tuple(ComputePattern)


def pattern_of(trace: OpTrace) -> ComputePattern:
    """The pattern of the whole trace."""
    free = free_symbols(trace)
    return max((_store_pattern(trace, s, free) for s in trace.stores), key=RANK.index)


def _store_pattern(trace: OpTrace, store: Store, free: list[frozenset[str]]) -> ComputePattern:
    live = list(reachable(trace.body, store.value))
    reduces = [p for p in live if trace.body[p].op is Op.REDUCE]
    binders = {b for b, _ in store.domain}
    if not reduces:
        loads = [trace.body[p] for p in live if trace.body[p].op is Op.LOAD]
        same = all(node.imm[1] == store.index for node in loads)
        return ComputePattern.ELEMENTWISE if same else ComputePattern.INJECTIVE
    products = {_product_pattern(trace, trace.body[p], binders, free) for p in reduces}
    for pattern in (ComputePattern.ATTENTION, ComputePattern.GEMM, ComputePattern.GEMV):
        if pattern in products:
            return pattern
    shared = binders - frozenset().union(*(free[p] for p in reduces))
    return ComputePattern.NORM_LIKE if shared else ComputePattern.REDUCTION


def _is_float(trace: OpTrace, reduce: TraceOp) -> bool:
    """The micro-kernels of products multiply f32."""
    return types(trace)[reduce.args[1]] == "f32"


def _product_pattern(
    trace: OpTrace, reduce: TraceOp, binders: set[str], free: list[frozenset[str]]
) -> ComputePattern:
    """gemm or gemv when the reduce sums products of two loads, else reduction."""
    kind, binder, _ = reduce.imm
    term = trace.body[reduce.args[1]]
    if kind not in ("sum", "fma") or term.op is not Op.MUL or not _is_float(trace, reduce):
        return ComputePattern.REDUCTION
    left, right = (free[a] & binders for a in term.args)
    if not all(binder in free[a] for a in term.args):
        return ComputePattern.REDUCTION
    if left - right and right - left:
        nested = any(trace.body[p].op is Op.REDUCE for p in reachable(trace.body, *term.args))
        return ComputePattern.ATTENTION if nested else ComputePattern.GEMM
    one_sided = bool(left) != bool(right)
    return ComputePattern.GEMV if one_sided else ComputePattern.REDUCTION
