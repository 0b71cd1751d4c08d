"""From a bound trace to a kernel: the pattern of the trace chooses the generator.

Adding a pattern is a row in `GENERATORS`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..trace.ir import OpTrace
from ..trace.pattern import ComputePattern, pattern_of
from . import attention, elementwise, gemm, reduce
from .isa.base import Isa
from .kernel import Kernel
from .rewrite import logistic
from .tuning import TuningParams

GENERATORS: dict[ComputePattern, Callable[[OpTrace, Isa, TuningParams], Kernel]] = {
    ComputePattern.ELEMENTWISE: elementwise.generate,
    ComputePattern.INJECTIVE: elementwise.generate,
    ComputePattern.REDUCTION: reduce.generate,
    ComputePattern.NORM_LIKE: reduce.generate,
    ComputePattern.GEMV: gemm.generate,
    ComputePattern.GEMM: gemm.generate,
    ComputePattern.ATTENTION: attention.generate,
}


def generate(trace: OpTrace, isa: Isa, params: TuningParams) -> Kernel:
    """The kernel that computes the trace on `isa`."""
    trace = logistic(trace)
    return GENERATORS[pattern_of(trace)](trace, isa, params)
