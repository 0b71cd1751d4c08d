"""Maxima and minima that restart at a NaN, said without an order of the terms.

    max_acc[r<n](t), from `init`: acc > t ? acc : t keeps a NaN t, and the next term replaces it
      last = max[r<n](r if isnan(t) else -1)
      rest = max[r<n](t if r > last else -inf)
      the NaN (or `init`) when last = n - 1, else rest, and `init` where there was no NaN

Lanes that restart on their own would forget too little. A row whose every output a NaN term reaches
through a sum, as in softmax, is NaN whatever its maximum is: it keeps the one pass.
"""

from __future__ import annotations

from collections.abc import Collection

from ..trace.affine import Affine
from ..trace.ir import (
    CONSTANTS, REDUCERS, BodyBuilder, Op, OpTrace, TraceOp, double_bits, float_bits,
)  # fmt: skip
from ..trace.spec import types
from .rewrite import rebuild

KINDS = {"max_acc": "max", "min_acc": "min"}
BITS = {"f32": float_bits, "f64": double_bits}
# NaN in, NaN out
STRICT = frozenset({
    Op.NEG, Op.ABS, Op.SQRT, Op.EXP, Op.EXP2, Op.EXPM1, Op.LOG, Op.LOG2, Op.LOG1P, Op.TANH, Op.ERF,
    Op.SIN, Op.COS, Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.FMA,
})  # fmt: skip


def restarted(trace: OpTrace, positions: Collection[int]) -> OpTrace:
    """The trace without `max_acc` and `min_acc` of reals at `positions`, where a NaN shows."""
    kinds = types(trace)
    shown = {p for p in positions if trace.body[p].imm[0] in KINDS and kinds[p] in BITS
             and not _drowned(trace, p)}

    def rule(builder: BodyBuilder, position: int, node: TraceOp) -> int | None:
        return _two_passes(builder, node, kinds[position]) if position in shown else None

    return rebuild(trace, rule) if shown else trace


def _two_passes(builder: BodyBuilder, node: TraceOp, kind: str) -> int:
    def real(value: float) -> int:
        return builder.add(CONSTANTS[kind], imm=BITS[kind](value))

    def index(of: Affine) -> int:
        return builder.add(Op.INDEXI, imm=of)

    (init, term), (name, binder, extent) = node.args, node.imm
    least, none = real(REDUCERS[name].identity), builder.add(Op.INT, imm=-1)
    r, zero = index(Affine.sym(binder)), builder.add(Op.INT, imm=0)
    at = builder.add(Op.SELECT, builder.add(Op.UNORD, term, term), r, none)
    last = builder.add(Op.REDUCE, none, at, imm=("max", binder, extent))
    behind = builder.add(Op.SELECT, builder.add(Op.LT, last, r), term, least)
    rest = builder.add(Op.REDUCE, least, behind, imm=(KINDS[name], binder, extent))
    clean = builder.add(Op.LT, last, zero)
    start = builder.add(Op.SELECT, clean, init, least)
    end = builder.add(Op.SELECT, clean, init, real(float("nan")))
    at_end = builder.add(Op.EQ, last, index(extent - 1))
    return builder.add(Op.SELECT, at_end, end, builder.add(REDUCERS[name].op, start, rest))


def _drowned(trace: OpTrace, extremum: int) -> bool:
    """Is everything stored from the extremum NaN as soon as one of its terms is?"""
    term, over = trace.body[extremum].args[1], trace.body[extremum].imm[1:]
    uses, strict, poisoned = {extremum}, {term}, set()
    for position, node in enumerate(trace.body):
        if uses.intersection(node.args):
            uses.add(position)
        if node.op is Op.REDUCE and node.imm[0] in ("sum", "fma"):
            if node.imm[1:] == over and node.args[1] in strict:
                poisoned.add(position)
            if node.args[1] in poisoned:
                poisoned.add(position)
        elif node.op in STRICT:
            for reached in (strict, poisoned):
                if reached.intersection(node.args):
                    reached.add(position)
    return all(s.value in poisoned for s in trace.stores if s.value in uses)
