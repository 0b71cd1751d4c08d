"""Rewrites keep what a trace means: the interpreter's results before and after."""

from __future__ import annotations

import cases
import numpy as np
import pytest
import traces

from gllm_kernels.codegen.rewrite import align, contract, logistic, prepare, reciprocal
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace
from gllm_kernels.trace.spec import check

LANES = {"row_sum": "", "share": "i1"} | dict.fromkeys(cases.NORMS, "i1") | {
    "column_sum": "i0", **dict.fromkeys(cases.FLAT, "i0"), **dict.fromkeys(cases.REDUCTIONS, "")}


def ops(trace: OpTrace) -> list[Op]:
    return [node.op for node in trace.body]


@pytest.mark.parametrize("name", LANES)
def test_all_rewrites_keep_the_meaning(name: str) -> None:
    trace = cases.ALL[name]
    after = prepare(check(logistic(trace)), LANES[name])
    args = cases.arguments(trace, {"n": 37, "m": 3}, np.random.default_rng(1))
    with np.errstate(all="ignore"):
        want, got = cases.results(trace, args), cases.results(after, args)
    cases.assert_close(name, got, want, 1e-4 if name == "share" else 1e-5)


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "moments", "rms_norm"])
def test_align_keeps_every_bit(name: str) -> None:
    trace = cases.ALL[name]
    args = cases.arguments(trace, {"n": 37, "m": 3}, np.random.default_rng(2))
    want, got = cases.results(trace, args), cases.results(align(trace, "i1"), args)
    assert np.array_equal(got["out"].view(np.uint32), want["out"].view(np.uint32))


def test_align_shares_what_sum_and_output_compute() -> None:
    assert ops(traces.softmax()).count(Op.EXP) == 2
    assert ops(align(traces.softmax(), "i1")).count(Op.EXP) == 1


def test_reciprocal_of_a_root_and_of_a_sum() -> None:
    """One division per row either way; only the sum needs the detour through the middle range."""
    root, total = reciprocal(traces.rms_norm(), "i1"), reciprocal(cases.share(), "i1")
    assert Op.SELECT not in ops(root)
    assert ops(total).count(Op.SELECT) == 2
    assert reciprocal(cases.row_sum(), "") == cases.row_sum()


def difference(one: tuple[str, str], two: tuple[str, str], op: Op = Op.SUB) -> OpTrace:
    def value(b: BodyBuilder, load) -> int:
        return b.add(op, *(b.add(Op.MUL, load(x), load(y)) for x, y in (one, two)))

    return traces.flat("difference", ("in a", "in b", "out out", "dim n"), value)


def test_contract_leaves_two_products_alone() -> None:
    """a*b - b*a is exactly 0; with one product unrounded it would be its rounding error."""
    trace = difference(("a", "b"), ("b", "a"))
    assert contract(trace) == trace


def test_contract_takes_products_of_one_use() -> None:
    assert Op.FMA in ops(contract(cases.axpy()))

    def twice(b: BodyBuilder, load) -> int:
        product = b.add(Op.MUL, load("a"), load("b"))
        return b.add(Op.ADD, b.add(Op.ADD, product, load("a")), b.add(Op.NEG, product))

    trace = traces.flat("twice", ("in a", "in b", "out out", "dim n"), twice)
    assert contract(trace) == trace


def test_logistic_makes_gelu_one_exp_and_one_division() -> None:
    after = ops(logistic(cases.gelu()))
    assert (after.count(Op.TANH), after.count(Op.EXP), after.count(Op.DIV)) == (0, 1, 1)


def test_logistic_is_closer_to_gelu_than_its_definition() -> None:
    """Below -2, where 1 + tanh cancels."""
    x = np.linspace(-6, -2, 4097).astype(np.float32)
    args = {"x": x, "out": np.zeros_like(x), "n": len(x)}
    v = x.astype(np.float64)
    exact = 0.5 * v * (1 + np.tanh(np.float32(0.7978845608) * (v + np.float32(0.044715) * v**3)))
    before = np.abs(cases.results(cases.gelu(), args)["out"] - exact).max()
    after = np.abs(cases.results(logistic(cases.gelu()), args)["out"] - exact).max()
    assert after < before / 2


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 3e38, -3e38])
def test_logistic_at_special_values(x: float) -> None:
    args = {"x": np.full(1, x, np.float32), "out": np.zeros(1, np.float32), "n": 1}
    with np.errstate(all="ignore"):
        want = cases.results(cases.gelu(), args)["out"]
        got = cases.results(logistic(cases.gelu()), args)["out"]
    np.testing.assert_array_equal(got, want)
