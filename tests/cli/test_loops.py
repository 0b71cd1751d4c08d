"""`disasm --loop`: what loops execute per round, and what bounds them. Nothing is run or timed."""

import pytest
from command import failure, run

from gllm_kernels.codegen import micro
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.generate import generate
from gllm_kernels.codegen.isa.avx2 import AVX2
from gllm_kernels.codegen.isa.avx512 import AVX512
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.codegen.kernel import K, KernelBuilder, KParam
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.debug.loops import CLASSES, loop_table, loops_of
from gllm_kernels.graph.registry import operator_named
from gllm_kernels.trace.affine import Affine

EVERY = pytest.mark.parametrize("isa", (AVX2, AVX512), ids=lambda i: i.name)


def counted(**counts: int) -> dict[str, int]:
    return dict.fromkeys(CLASSES, 0) | counts


@pytest.mark.parametrize(
    ("isa", "tile", "counts", "bounds"),
    [
        # 6 rows x 2 vectors; a term loads 2 vectors and broadcasts 6 numbers
        (AVX2, "6x16", counted(fma=12, load=2 + 6, integer=3, other=1), (6.0, 4.0)),
        # 14 rows x 2 vectors; a load of 64 bytes takes a cycle, a broadcast half of one
        (AVX512, "14x32", counted(fma=28, load=2 + 14, integer=3, other=1), (28.0, 2 + 14 / 2)),
    ],
)
def test_the_standard_micro_kernels(isa, tile, counts, bounds) -> None:
    params = default_params(isa)
    assert f"{params.mr}x{params.nr}" == tile
    code = compile_kernel(micro.micro(isa, params, params.mr), isa)
    loop = next(found for found in loops_of(code) if found.name == "k")
    assert loop.counts == {name: count * (1 if name in ("integer", "other") else params.terms)
                           for name, count in counts.items()}  # fmt: skip
    assert (loop.fma_bound, loop.load_bound) == tuple(b * params.terms for b in bounds)
    # every accumulator takes one multiply-add per term: the FMA bound hides its latency
    assert (loop.chain, loop.chain_cycles) == (params.terms, 4.0 * params.terms)
    assert loop.bound == loop.fma_bound


@EVERY
@pytest.mark.parametrize("name", ("silu", "rms_norm", "softmax", "gemm", "gemm_bt", "gemv"))
def test_classes_agree_with_what_the_assembler_noted(name, isa) -> None:
    code = compile_kernel(generate(operator_named(name).trace, isa, default_params(isa)), isa)
    seen = 0
    for part in code.parts:
        for loop, stats in zip(loops_of(part), part.own_loops(), strict=True):
            assert loop.instructions == stats.instructions
            assert (loop.counts["fma"], loop.counts["store"]) == (stats.fmas, stats.stores)
            assert (loop.counts["move"], loop.counts["spill"]) == (stats.moves, stats.spills)
            assert loop.counts["load"] <= stats.loads
            assert loop.chain >= 1  # the counter of the loop
            seen += 1
    assert seen


def loop_of(isa, body, phis: int):
    """The report on a loop that carries `phis` vectors through `body`."""
    b = KernelBuilder("chain", isa.lanes, (KParam("x", "ptr"), KParam("n", "i64")))
    x = b.load(b.arg("x"), b.int(0))
    with b.loop(0, b.arg("n"), 1, *[b.const(float(i)) for i in range(phis)]) as loop:
        loop.yields(*body(b, x, *loop.phis))
    for i, value in enumerate(loop.results):
        b.store(b.arg("x"), b.int(0), value, disp=4 * isa.lanes * i)
    (found,) = loops_of(compile_kernel(b.build(Affine.const(1), 1), isa))
    return found


@EVERY
def test_chains_follow_values_from_round_to_round(isa) -> None:
    one = loop_of(isa, lambda b, x, p: [b.emit(K.VFMA, x, x, p)], 1)
    three = loop_of(isa, lambda b, x, p: [(p + x) * x + x], 1)
    assert (one.chain, one.chain_cycles) == (1, 4)
    assert three.chain in (2, 3) and three.chain_cycles >= 7  # product and sum may be fused
    side = loop_of(isa, lambda b, x, p: [p + (x * x + x)], 1)
    assert side.chain_cycles == 3  # what does not depend on the round before is no part of it


def test_the_table_has_a_row_per_loop_and_the_model() -> None:
    trace = operator_named("gemm_bt").trace
    code = compile_kernel(generate(trace, AVX2, default_params(AVX2)), AVX2)
    lines = loop_table(code.parts).splitlines()
    assert lines[0].startswith("avx2: per cycle 2 multiply-adds")
    assert len(lines) == 3 + sum(len(part.loops) for part in code.parts)


@pytest.mark.skipif(not host_isas(), reason="no vector instruction set, no kernels")
def test_the_command() -> None:
    done = run("disasm", "--loop", "--op", "gemm_bt", compiled=True, env={"GLLM_ISA": "avx2"})
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert "micro.6x16" in text and "dot k" in text and text.startswith("avx2: ")
    code = run("disasm", "--op", "silu", compiled=True, env={"GLLM_ISA": "avx2"}).stdout.decode()
    assert code.splitlines()[1].startswith("kernel for avx2") and "vfmadd" in code


def test_operators_that_do_not_exist() -> None:
    line = failure("disasm", "--op", "silo", compiled=True)
    assert "silo" in line and "silu" in line
    assert "not allowed with" in failure("disasm", "--op", "silu", "-m", "x", compiled=True)


def test_without_vectors_there_are_no_kernels() -> None:
    done = run("disasm", "--loop", "--op", "silu", compiled=True, env={"GLLM_ISA": "scalar"})
    assert (done.returncode, done.stdout) == (0, b"no kernels: ISA scalar\n")
