"""Vector code for integers, booleans, doubles and steps through memory, between guard pages."""

import machine
import numpy as np
import pytest
import widths
from guard import guarded_copy
from machine import ISAS

from gllm_kernels.codegen import interp, spec
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.generate import generate
from gllm_kernels.codegen.kernel import Inst, K, Loop, walk
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.errors import UnsupportedOpError
from gllm_kernels.trace import interp as meaning
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Param, Store

pytestmark = pytest.mark.skipif(not widths.COMPILERS, reason="no C compiler here")
each_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 70, 129)
INTERPRETED = 20  # above that a kernel has nothing new


def results(trace, given):
    """What the trace says that the arrays, and "return", hold."""
    after = {n: a.copy() if isinstance(a, np.ndarray) else a for n, a in given.items()}
    with np.errstate(all="ignore"):
        returned = meaning.run(trace, after)
    return after if returned is None else after | {"return": np.array([returned])}


@each_isa
@pytest.mark.parametrize("name", sorted(widths.DECLARATIONS))
def test_machine_code_is_the_trace(name, isa):
    trace = widths.trace(name)
    kernel = generate(trace, isa, default_params(isa))
    spec.check(kernel)
    code, rng = compile_kernel(kernel, isa), np.random.default_rng(len(name))
    for n in SIZES:
        given = widths.arguments(trace, {"n": n}, rng)
        want = results(trace, given)
        empty = {"return": np.zeros(1, want["return"].dtype)} if "return" in want else {}
        for at in ("end", "start"):
            got = {n: guarded_copy(a, at) if isinstance(a, np.ndarray) else a
                   for n, a in {**given, **empty}.items()}
            machine.call(code, got)
            check(got, want, f"{name} on {isa.name}, n = {n}, {at}")
        if n <= INTERPRETED:
            got = {n: np.copy(a) if isinstance(a, np.ndarray) else a
                   for n, a in {**given, **empty}.items()}
            interp.run(kernel, got)
            check(got, want, f"{name} interpreted, n = {n}")


def check(got, want, what):
    for name, array in want.items():
        if isinstance(array, np.ndarray):
            widths.assert_equal(got[name], array, f"{what}: {name}")


def loops_of(name, isa):
    kernel = generate(widths.trace(name), isa, default_params(isa))
    return {s.name: [i.op for i in s.body if isinstance(i, Inst)]
            for s in walk(kernel.body) if isinstance(s, Loop)}


@each_isa
def test_quantising_is_vectors_from_load_to_store(isa):
    """One load of floats, one rounding conversion, one store of bytes for all lanes; no loop over
    single elements anywhere."""
    for name in ("quant", "quantf", "dynq"):
        loops = loops_of(name, isa)
        inner = next(ops for key, ops in loops.items() if K.STORE_I8 in ops)
        assert inner.count(K.STORE_I8) == inner.count(K.LOAD)
        assert not any(key == "lanes" for key in loops), name
        stored = [s.op for s in walk(generate(widths.trace(name), isa, default_params(isa)).body)
                  if isinstance(s, Inst)]
        assert K.STORE1_I8 not in stored


@each_isa
def test_dequantising_widens_in_the_load(isa):
    inner = next(ops for ops in loops_of("deq", isa).values() if K.LOAD_I8 in ops)
    assert inner.count(K.LOAD_I8) == inner.count(K.VI2F) == inner.count(K.STORE)


@each_isa
def test_steps_use_whole_vectors(isa):
    """x[n-1-i] one load and one permutation, x[3*i] three loads; far steps go lane by lane."""
    assert "lanes" not in loops_of("rev", isa) and "lanes" not in loops_of("step3", isa)
    assert "lanes" in loops_of("step12", isa) and "lanes" in loops_of("transp", isa)


@each_isa
@pytest.mark.parametrize("op", (Op.EXP, Op.LOG, Op.TANH, Op.POW, Op.SIN))
def test_functions_without_double_code_are_refused_by_name(op, isa):
    b = BodyBuilder()
    x = b.add(Op.LOAD, imm=("weights", Affine.sym("i0")))
    value = b.add(op, *(x, x) if op is Op.POW else (x,))
    params = (Param("weights", "in", "double"), Param("out", "out", "double"), Param("n", "dim", "size_t"))
    trace = OpTrace("mine", params, tuple(b.body),
                    (Store("out", Affine.sym("i0"), value, (("i0", Affine.sym("n")),)),))
    with pytest.raises(UnsupportedOpError, match=rf"mine: no vector code for {op} of f64.*weights\[i0\]"):
        generate(trace, isa, default_params(isa))
