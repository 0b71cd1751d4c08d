"""Kernels without reductions: values, tails between guard pages, in place, structure."""

from __future__ import annotations

from itertools import product

import cases
import machine
import numpy as np
import pytest
import traces
from guard import guarded_copy

from gllm_kernels.codegen import interp
from gllm_kernels.codegen.elementwise import generate
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.errors import CompileError
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Store

ISAS = pytest.mark.parametrize("isa", machine.ISAS, ids=lambda isa: isa.name)
S = Affine.sym


@ISAS
@pytest.mark.parametrize("name", cases.FLAT)
def test_flat(name: str, isa: Isa) -> None:
    rng = np.random.default_rng(1)
    for n in cases.sizes_around(isa):
        sizes = {"n": n}
        cases.assert_kernel(name, isa, sizes, cases.arguments(cases.FLAT[name], sizes, rng))


@ISAS
@pytest.mark.parametrize("name", cases.FLAT)
def test_special_values(name: str, isa: Isa) -> None:
    """Every pair of special values, at every lane by an odd number of fillers."""
    pairs = np.array(list(product(cases.SPECIAL, repeat=2)), np.float32)
    pairs = np.concatenate([pairs, np.zeros((3, 2), np.float32), pairs])
    sizes = {"n": len(pairs)}
    args = cases.arguments(cases.FLAT[name], sizes, np.random.default_rng(2))
    arrays = [key for key, value in args.items() if isinstance(value, np.ndarray)]
    for key, column in zip(arrays, (0, 1), strict=False):
        args[key][: len(pairs)] = pairs[:, column]
    cases.assert_kernel(name, isa, sizes, args)


@ISAS
@pytest.mark.parametrize("name", ["pair_max", "pair_min"])
def test_ordered_choices_keep_the_sign_of_zero(name: str, isa: Isa) -> None:
    """The second operand wins between 0 and -0, bit for bit."""
    pairs = np.array(list(product(cases.SPECIAL, repeat=2)), np.float32)
    args = {"a": pairs[:, 0].copy(), "b": pairs[:, 1].copy(), "n": len(pairs),
            "out": np.ones(len(pairs), np.float32)}
    want = cases.results(cases.FLAT[name], args)
    machine.call(cases.compiled(name, isa), args)
    assert machine.same_bits(args["out"], want["out"])


@ISAS
@pytest.mark.parametrize("name", cases.ROWS)
@pytest.mark.parametrize("outer", [(1, 1), (2, 3), (0, 2)])
def test_rows(name: str, isa: Isa, outer: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    for n in cases.sizes_around(isa):
        sizes = {"m": outer[0], "t": outer[0], "h": outer[1], "n": n, "d": n, "ld": n + 3,
                 "pos": 2}
        cases.assert_kernel(name, isa, sizes, cases.arguments(cases.ROWS[name], sizes, rng))


@ISAS
def test_part_of_the_units(isa: Isa) -> None:
    """Tiles that start anywhere leave the other elements alone and give the same bits."""
    sizes, rng = {"n": 1000}, np.random.default_rng(4)
    args = cases.arguments(cases.FLAT["silu"], sizes, rng)
    whole, parts = cases.copied(args), cases.copied(args)
    code = cases.compiled("silu", isa)
    machine.call(code, whole)
    for begin, end in ((640, 1000), (0, 17), (17, 17), (17, 640)):
        machine.call(code, parts, begin, end)
    assert machine.same_bits(parts["out"], whole["out"])


@ISAS
@pytest.mark.parametrize("name", ["rope_with_pos", "rope_interleaved"])
def test_in_place(name: str, isa: Isa) -> None:
    """The output may be the input's own memory."""
    sizes = {"t": 3, "h": 2, "d": 37, "pos": 1}
    args = cases.arguments(cases.ROWS[name], sizes, np.random.default_rng(5))
    want = cases.results(cases.ROWS[name], args)
    args["out"] = args["x"]
    machine.call(cases.compiled(name, isa), args)
    np.testing.assert_allclose(args["out"], want["out"], rtol=1e-5, atol=1e-5)


@ISAS
@pytest.mark.parametrize("name", cases.FLAT | cases.ROWS)
def test_interpreter_and_machine_agree(name: str, isa: Isa) -> None:
    """Bit for bit, so that the numbers the interpreter gives hold for the machine."""
    sizes = {"n": 77, "m": 2, "t": 2, "h": 2, "d": 21, "ld": 80, "pos": 1}
    args = cases.arguments(cases.ALL[name], sizes, np.random.default_rng(6))
    machine.agree(cases.compiled(name, isa).kernel, isa, args, code=cases.compiled(name, isa))


@ISAS
@pytest.mark.parametrize("name", cases.FLAT | cases.ROWS)
def test_hot_loops_neither_spill_nor_move(name: str, isa: Isa) -> None:
    loops = cases.compiled(name, isa).loop_stats()
    assert loops
    for loop in loops:
        assert (loop.spills, loop.moves) == (0, 0), loop


@ISAS
@pytest.mark.parametrize(("name", "per_vector"), [
    ("vec_add", 3),    # load, add from memory, store
    ("vec_scale", 2),  # multiply from memory, store
    ("vec_axpy", 3),   # load, multiply-add from memory, store
    ("sqrt", 2),
])
def test_instructions_per_vector(name: str, per_vector: int, isa: Isa) -> None:
    """The unrolled loop: so many instructions per vector, and add, compare, jump."""
    unrolled = next(s for s in cases.compiled(name, isa).loop_stats() if s.name == "i0 x4")
    assert unrolled.instructions == 4 * per_vector + 3


@ISAS
def test_invariants_are_computed_before_the_loop(isa: Isa) -> None:
    """s[i] of a row is broadcast once: the loop loads x and w and nothing else."""
    unrolled = next(s for s in cases.compiled("row_bias", isa).loop_stats() if s.name == "i1 x4")
    assert (unrolled.loads, unrolled.stores, unrolled.fmas) == (8, 4, 4)


@ISAS
def test_an_empty_row_reads_nothing(isa: Isa) -> None:
    """s[i] has no memory behind it; without elements nobody needs it."""
    empty = guarded_copy(np.zeros(0, np.float32))
    args = {"x": empty, "w": empty, "s": empty, "out": empty, "m": 3, "n": 0, "ld": 0}
    machine.call(cases.compiled("row_bias", isa), args)


def copy_trace(index: Affine, target: Affine, role: str = "in x") -> OpTrace:
    b = BodyBuilder()
    value = b.add(Op.LOAD, imm=("x", index))
    out = "x" if role == "inout x" else "out"
    roles = (role, "dim n", "dim ld") if out == "x" else (role, "out out", "dim n", "dim ld")
    return OpTrace("copy", traces.params(*roles), tuple(b.body),
                   (Store(out, target, value, (("i0", S("n")),)),))


@pytest.mark.parametrize(("trace", "message"), [
    (copy_trace(S("i0"), Affine.const(3)), r"out\[3\] is stored for every i0 at one place"),
    (copy_trace(S("i0") + 1, S("i0"), "inout x"), "an array of its own"),
])
def test_refusals(trace: OpTrace, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        generate(trace, machine.ISAS[0], default_params(machine.ISAS[0]))


def test_interleaved_stores_are_whole_vectors() -> None:
    """out[2j], out[2j+1]: two contiguous stores per vector of pairs, no scatter."""
    isa = machine.ISAS[0]
    trace = cases.ROWS["rope_interleaved"]
    kernel = generate(trace, isa, default_params(isa))
    sizes = {"t": 1, "h": 1, "d": isa.lanes}
    args = cases.arguments(trace, sizes, np.random.default_rng(7))
    want = cases.results(trace, args)
    interp.run(kernel, args)
    np.testing.assert_allclose(args["out"], want["out"], rtol=1e-5, atol=1e-5)
    single = next(s for s in cases.compiled("rope_interleaved", isa).loop_stats()
                  if s.name == "i2")
    assert (single.loads, single.stores) == (4, 2)
