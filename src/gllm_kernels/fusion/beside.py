"""Two products that share a factor, in one group: what reads the first one's result reads its sum.

    t[i, j] = sum[r](x[i, r]*u[j, r]);  out[i, j] = f(sum[s](x[i, s]*w[j, s]), t[i, j])
    ->  out[i, j] = f(sum[s](x[i, s]*w[j, s]), sum[r](x[i, r]*u[j, r]))       x is packed once
"""

from __future__ import annotations

from ..dtypes import WHOLE
from ..graph.bind import Access, TensorTrace
from ..graph.view import View
from ..trace.affine import Affine
from ..trace.ir import Op
from .substitute import substitute

TERM = Affine.sym("term")  # in place of the binder of a sum


def beside(producer: TensorTrace, consumer: TensorTrace, view: View) -> tuple[TensorTrace, View] | str:
    """Both as one trace, and the factor that they share; or why there is none."""
    merged = substitute(producer, consumer, [view])
    if len(merged.reduces()) != 2:
        return f"{len(merged.reduces())} sums in one group, two are the most"
    pairs = [factors_of(merged, number) for number in range(2)]
    if None in pairs:
        return "one of the sums is not of products"
    shared = [access for access in pairs[0] if access in pairs[1]]
    column = merged.domain[-1][0]
    if len(shared) != 1 or any(column in c.symbols for c in shared[0].coords):
        return "they read different inputs"
    left, right = (next(a.view for a in pair if a != shared[0]) for pair in pairs)
    if (left.shape, left.strides, left.dtype) != (right.shape, right.strides, right.dtype):
        return f"{left} and {right} lie differently in memory"
    if left.dtype in WHOLE:
        return f"{left.buffer} and {right.buffer} are quantised: their kernel has one sum"
    return same_terms(merged), shared[0].view


def factors_of(trace: TensorTrace, number: int) -> list[Access] | None:
    """The two loads that a sum multiplies, under one name for its binder."""
    _, binder, _ = trace.reduces()[number].imm
    term = trace.body[trace.reduces()[number].args[1]]
    loads = [trace.body[p] for p in term.args]
    if term.op is not Op.MUL or any(op.op is not Op.LOAD for op in loads):
        return None
    return [op.imm.substitute({binder: TERM}) for op in loads]


def same_terms(trace: TensorTrace) -> TensorTrace:
    """Both sums run over the same axis of the factor they share: one size."""
    first, second = (op.imm[2] for op in trace.reduces())
    if first == second or len(second.symbols) != 1:
        return trace
    return trace.rename_sizes({str(second): first})
