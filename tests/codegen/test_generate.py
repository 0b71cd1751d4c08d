"""From lifted and from random traces to machine code: dispatch, structure, meaning."""

from __future__ import annotations

import cases
import machine
import numpy as np
import pytest
import traces

from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.generate import GENERATORS, generate
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.lift.store import stored_traces
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Store
from gllm_kernels.trace.pattern import ComputePattern, pattern_of
from gllm_kernels.trace.simplify import prune
from gllm_kernels.trace.spec import check

ISAS = pytest.mark.parametrize("isa", machine.ISAS, ids=lambda isa: isa.name)
S = Affine.sym


PRODUCTS = (ComputePattern.GEMV, ComputePattern.GEMM)
VECTORS = [name for name, trace in stored_traces().items() if pattern_of(trace) not in PRODUCTS]


def test_every_pattern_of_a_trace_has_a_generator() -> None:
    assert set(GENERATORS) == set(ComputePattern) - {ComputePattern.OPAQUE}


@ISAS
@pytest.mark.parametrize("name", VECTORS)
def test_hot_loops_of_the_catalogue(name: str, isa: Isa) -> None:
    """No spill and no register move, but for tails, which run once and compute a mask."""
    code = compile_kernel(generate(stored_traces()[name], isa, default_params(isa)), isa)
    hot = [s for s in code.loop_stats() if not s.name.endswith("tail")]
    assert hot
    for loop in hot:
        assert (loop.spills, loop.moves) == (0, 0), loop


def random_trace(rng: np.random.Generator, size: int) -> OpTrace:
    """out[i, j] = an expression over x[i, j], w[j], s[i], perhaps row sums and maxima."""
    b = BodyBuilder()
    row = S("i0") * S("n")
    values = [b.add(Op.LOAD, imm=("x", row + S("i1"))), b.add(Op.LOAD, imm=("w", S("i1"))),
              b.add(Op.LOAD, imm=("s", S("i0"))), b.const(0.75), b.add(Op.SCALAR, imm="c")]
    conditions = [b.add(Op.LT, values[0], values[1]), b.add(Op.LE, values[2], values[0])]
    for number in range(rng.integers(0, 3)):
        term = b.add(Op.LOAD, imm=("x", row + S(f"r{number}")))
        term = b.add(Op.MUL, term, values[2]) if rng.random() < 0.5 else term
        kind, init = [("sum", 0.0), ("max", -9.0)][rng.integers(2)]
        values.append(b.add(Op.REDUCE, b.const(init), term, imm=(kind, f"r{number}", S("n"))))
    binary = (Op.ADD, Op.SUB, Op.MUL, Op.MAX, Op.MIN, Op.FMAX, Op.FMIN)
    for _ in range(size):
        one, two, three = (values[k] for k in rng.integers(0, len(values), 3))
        kind = rng.integers(0, 10)
        if kind < 7:
            values.append(b.add(binary[kind], one, two))
        elif kind == 7:
            values.append(b.add(Op.FMA, b.add(Op.NEG, one), two, three))
        elif kind == 8:
            values.append(b.add(Op.SELECT, conditions[rng.integers(2)], one, two))
        else:
            values.append(b.add(Op.TANH, b.add(Op.ABS, one)))
    roles = traces.params("in x", "in w", "in s", "out out", "dim m", "dim n", "scalar c")
    last = b.add(Op.TANH, values[-1])
    store = Store("out", row + S("i1"), last, (("i0", S("m")), ("i1", S("n"))))
    return prune(OpTrace("random", roles, tuple(b.body), (store,)))


@ISAS
@pytest.mark.parametrize("seed", range(24))
def test_random_traces(seed: int, isa: Isa) -> None:
    """The last tanh brings results to one scale, and the steps before it are few and tame."""
    rng = np.random.default_rng(seed)
    trace = check(random_trace(rng, size=int(rng.integers(1, 14))))
    code = compile_kernel(generate(trace, isa, default_params(isa)), isa)
    for m, n in ((1, 1), (3, 2 * isa.lanes + 3), (2, 5 * isa.lanes)):
        args = cases.arguments(trace, {"m": m, "n": n}, rng)
        want = cases.results(trace, args)
        machine.call(code, args)
        assert np.isfinite(want["out"]).all()
        np.testing.assert_allclose(args["out"], want["out"], rtol=1e-4, atol=1e-4,
                                   err_msg=f"seed {seed}\n{trace}")
