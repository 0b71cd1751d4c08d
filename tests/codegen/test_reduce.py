"""Kernels with reductions: values, empty rows, NaN, sharing of loops and values, structure."""

from __future__ import annotations

import cases
import machine
import numpy as np
import pytest
import traces

from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.kernel import Inst, K, Loop, walk
from gllm_kernels.codegen.reduce import lane_of, phases
from gllm_kernels.codegen.rewrite import prepare

ISAS = pytest.mark.parametrize("isa", machine.ISAS, ids=lambda isa: isa.name)


@ISAS
@pytest.mark.parametrize("name", cases.REDUCTIONS)
def test_whole_reductions(name: str, isa: Isa) -> None:
    rng = np.random.default_rng(1)
    for n in cases.sizes_around(isa):
        args = cases.arguments(cases.REDUCTIONS[name], {"n": n}, rng)
        cases.assert_kernel(name, isa, {"n": n}, args, tolerance=1e-5 * max(1.0, n**0.5))


@ISAS
@pytest.mark.parametrize("name", cases.NORMS)
@pytest.mark.parametrize("m", [0, 1, 5])
def test_rows(name: str, isa: Isa, m: int) -> None:
    rng = np.random.default_rng(2)
    for n in cases.sizes_around(isa):
        args = cases.arguments(cases.NORMS[name], {"m": m, "n": n}, rng)
        cases.assert_kernel(name, isa, {"m": m, "n": n}, args, tolerance=1e-5 * max(1.0, n**0.5))


@ISAS
@pytest.mark.parametrize("name", ["vec_max", "vec_min", "vec_fmax", "vec_fmin"])
@pytest.mark.parametrize("special", cases.SPECIAL[:5], ids=str)
def test_special_values_at_every_place(name: str, isa: Isa, special: float) -> None:
    """Exactly the scalar's result: an ordered maximum passes over NaN wherever it stands."""
    n = 3 * isa.lanes + 5
    for place in range(n):
        x = np.random.default_rng(3).standard_normal(n).astype(np.float32)
        x[place] = special
        cases.assert_kernel(name, isa, {"n": n}, {"x": x, "n": n}, tolerance=0.0)


@ISAS
def test_all_nan(isa: Isa) -> None:
    x = np.full(40, np.nan, np.float32)
    for name in ("vec_max", "vec_min", "vec_sum", "vec_fmax", "vec_fmin"):
        cases.assert_kernel(name, isa, {"n": 40}, {"x": x, "n": 40})


@ISAS
@pytest.mark.parametrize("row", [
    [np.nan, 1.0, 2.0], [np.inf, 1.0, 2.0], [-np.inf, 1.0, 2.0], [-np.inf] * 3, [1e30, -1e30, 0.0],
    [1e-42, 0.0, -1e-42], [88.0, -88.0, 0.0],
], ids=str)
@pytest.mark.parametrize("name", ["softmax", "rms_norm", "layer_norm"])
def test_special_rows(name: str, row: list[float], isa: Isa) -> None:
    sizes = {"m": 2, "n": 21}
    args = cases.arguments(cases.NORMS[name], sizes, np.random.default_rng(4))
    args["x"][:21] = np.resize(np.array(row, np.float32), 21)
    cases.assert_kernel(name, isa, sizes, args)


@ISAS
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30])
def test_division_by_sums_of_any_size(scale: float, isa: Isa) -> None:
    """x / sum is a product with 1/sum: it must survive sums whose reciprocal is not normal."""
    sizes = {"m": 1, "n": 19}
    x = (np.random.default_rng(5).random(19) * scale).astype(np.float32)
    args = {"x": x, "out": np.zeros(19, np.float32), **sizes}
    cases.assert_kernel("share", isa, sizes, args)


@ISAS
@pytest.mark.parametrize("name", ["softmax", "rms_norm", "layer_norm"])
def test_in_place(name: str, isa: Isa) -> None:
    """The output may be the input's own memory."""
    sizes = {"m": 3, "n": 77}
    args = cases.arguments(cases.NORMS[name], sizes, np.random.default_rng(6))
    want = cases.results(cases.NORMS[name], args)
    args["out"] = args["x"]
    machine.call(cases.compiled(name, isa), args)
    np.testing.assert_allclose(args["out"], want["out"], rtol=1e-5, atol=1e-5)


@ISAS
@pytest.mark.parametrize("name", cases.NORMS | cases.REDUCTIONS)
def test_interpreter_and_machine_agree(name: str, isa: Isa) -> None:
    sizes = {"n": 77, "m": 2}
    args = cases.arguments(cases.ALL[name], sizes, np.random.default_rng(7))
    if name in cases.REDUCTIONS:
        args["return"] = np.zeros(1, np.float32)
    code = cases.compiled(name, isa)
    machine.agree(code.kernel, isa, args, code=code)


@ISAS
@pytest.mark.parametrize("name", cases.NORMS | cases.REDUCTIONS)
def test_hot_loops_neither_spill_nor_move(name: str, isa: Isa) -> None:
    """A tail runs at most once and computes its mask; every other loop is hot."""
    hot = [s for s in cases.compiled(name, isa).loop_stats() if not s.name.endswith("tail")]
    assert hot
    for loop in hot:
        assert (loop.spills, loop.moves) == (0, 0), loop


@ISAS
def test_dot_accumulates_in_place(isa: Isa) -> None:
    """Eight accumulators: load, multiply-add from memory; add, compare, jump."""
    loop = next(s for s in cases.compiled("vec_dot", isa).loop_stats() if s.name == "r0 x8")
    assert (loop.instructions, loop.fmas) == (8 * 2 + 3, 8)


@ISAS
def test_softmax_computes_exp_once(isa: Isa) -> None:
    """The sum's exp is stored on the way: exp, and so the rounding, stands in one pass only."""
    kernel = cases.compiled("softmax", isa).kernel
    loops = [s for s in walk(kernel.body) if isinstance(s, Loop) and s.name == "i1"]
    rounding = [any(isinstance(s, Inst) and s.op is K.VROUND for s in loop.body)
                for loop in loops]
    assert rounding == [False, True, False]


@ISAS
def test_independent_reductions_share_a_loop(isa: Isa) -> None:
    kernel = cases.compiled("moments", isa).kernel
    carried = [len(s.phis) for s in walk(kernel.body) if isinstance(s, Loop) and s.name == "i1"]
    assert carried == [2, 0]


def test_phases_follow_dependencies() -> None:
    """layer_norm: the mean, then the squares; the rows' binder is the lanes'."""
    trace = prepare(cases.layer_norm(), "i1")
    plan, _ = phases(trace, "i1")
    assert [(p.binder, len(p.reduces)) for p in plan] == [("i1", 1), ("i1", 1)]
    assert lane_of(cases.layer_norm()) == "i1"
    assert lane_of(cases.row_sum()) == ""
    assert lane_of(cases.column_sum()) == "i0"


def test_softmax_of_an_array_it_also_reads_later_is_not_kept() -> None:
    """out = softmax(x) + x needs x after the sum: in place, keeping exp in out would lose it."""
    trace = prepare(cases.softmax_plus(), "i1")
    plan, _ = phases(trace, "i1")
    assert [p.kept for p in plan] == [None, None]
    plan, final = phases(prepare(traces.softmax(), "i1"), "i1")
    assert [p.kept is None for p in plan] == [True, False]
    assert final.names("out") == ("out",)
