"""Attention as one kernel: between guard pages with the interpreter's bits, and against float64."""

from __future__ import annotations

from dataclasses import replace

import attention_graphs as graphs
import machine
import numpy as np
import pytest
from attention_graphs import Form
from guard import guarded_copy

import gllm_kernels as gk
from gllm_kernels.codegen import prefill
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.generate import generate
from gllm_kernels.codegen.isa.avx2 import AVX2
from gllm_kernels.codegen.isa.avx512 import AVX512, AVX512_BF16
from gllm_kernels.codegen.isa.detect import host
from gllm_kernels.codegen.kernel import Inst, K, Loop, walk
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.fusion.linear import Pointer, linearise
from gllm_kernels.fusion.plan import plan_fusion
from gllm_kernels.fusion.profile import DeviceProfile
from gllm_kernels.graph.dag import build_dag
from gllm_kernels.trace.affine import Affine

HOST = pytest.mark.parametrize("isa", machine.ISAS, ids=lambda i: i.name)
EVERY = pytest.mark.parametrize("isa", (AVX2, AVX512), ids=lambda i: i.name)
PROFILE = DeviceProfile("avx512", 16, 32, 32 << 10, 1 << 20, 32 << 20, 2)
TOLERANCE = {"float32": (1e-5, 1e-5), "float16": (2e-3, 2e-3), "bfloat16": (2e-2, 2e-2)}


def bound(form):
    """The one group of the graph, as a kernel's trace and the values of its arguments."""
    plan = plan_fusion(build_dag(graphs.graph_of(form).finish()), PROFILE)
    (group,) = plan.groups
    return linearise("attention", group.trace)


def arguments(form, tokens, pos):
    """The trace, its arguments, and the mask, which is read on both sides of where its pointer is."""
    source, dims = bound(form), {"tokens": tokens, "pos": pos}
    arrays = graphs.operands(form, tokens) | {"mask": graphs.mask_of(form)}
    for name in "kv":  # what lies behind the last position is not to be read
        arrays[name] = arrays[name].copy()
        arrays[name][:, pos + tokens :] = np.nan
    found, mask = {}, guarded_copy(arrays.pop("mask"))
    for param, value in zip(source.trace.params, source.arguments):
        if isinstance(value, Pointer) and value.buffer in arrays:
            assert value.offset == Affine()
            found[param.name] = arrays[value.buffer]
        elif isinstance(value, Pointer) and value.buffer == "mask":
            found[param.name] = machine.address(mask) + 4 * value.offset.evaluate(dims)
        elif isinstance(value, Pointer):
            size = form.heads * form.group * tokens * form.columns
            found[param.name] = np.full(size, 7, STORED[param.ctype])
        else:
            found[param.name] = value.evaluate(dims) if isinstance(value, Affine) else value
    return source.trace, found, (mask,)


STORED = {"float": np.float32, "f16": np.float16, "bf16": graphs.TYPES["bfloat16"]}
FORMS = (Form(2, 2, 9), Form(1, 3, 16, window=5), Form(1, 1, 8, causal=False),
         Form(1, 1, 33, width=20, dtype="float16"), Form(1, 2, 16, dtype="bfloat16"))


@HOST
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_machine_code_has_the_bits_of_the_interpreter(form, isa):
    params = replace(default_params(isa), pairs=False)
    kernel = generate(bound(form).trace, isa, params)
    code = compile_kernel(kernel, isa)
    for tokens, pos in ((1, 0), (1, 20), (3, 15), (27, 2)):
        _, args, memory = arguments(form, tokens, pos)
        machine.agree(kernel, isa, args, code=code, memory=memory)


@HOST
def test_more_keys_than_a_block_and_more_rows_than_a_panel(isa):
    form = Form(1, 1, 8, context=300, window=150)
    kernel = generate(bound(form).trace, isa, default_params(isa))
    code = compile_kernel(kernel, isa)
    for tokens, pos in ((1, 200), (2, 200), (35, 110)):
        _, args, memory = arguments(form, tokens, pos)
        machine.agree(kernel, isa, args, code=code, memory=memory)


def layer_of(form, isa, threads=1):
    with gk.config(isa=isa.name):
        states = graphs.operands(form, 1)
        return gk.compile_graph(graphs.graph_of(form), threads=threads,
                                states={name: states[name] for name in "kv"})


def check(form, isa, calls, threads=1):
    layer = layer_of(form, isa, threads)
    assert len(layer.plan.groups) == 1
    for tokens, pos in calls:
        arrays = graphs.operands(form, tokens) | layer.states
        got = np.asarray(layer(q=arrays["q"], pos=pos)["y"], np.float64)
        relative, absolute = TOLERANCE[form.dtype]
        np.testing.assert_allclose(got, graphs.right(form, arrays, pos), relative, absolute)


CALLS = ((1, 0), (1, 95), (1, 299), (2, 3), (24, 200), (25, 0), (33, 126), (70, 250), (300, 0))


@HOST
@pytest.mark.parametrize("group", (1, 2, 3, 8))
@pytest.mark.parametrize("head", (32, 64, 80, 96, 128, 256))
def test_heads_of_every_size(head, group, isa):
    check(Form(2, group, head, context=320), isa, CALLS)


@HOST
@pytest.mark.parametrize("window", (1, 40, 200))
@pytest.mark.parametrize("dtype", graphs.TYPES)
def test_windows_in_every_type(dtype, window, isa):
    check(Form(1, 4, 64, context=320, window=window, dtype=dtype), isa, CALLS)


@HOST
@pytest.mark.parametrize("dtype", graphs.TYPES)
def test_other_widths_of_v_and_no_mask(dtype, isa):
    for width in (1, 24, 200):
        check(Form(2, 2, 40, width=width, context=320, dtype=dtype, causal=False), isa, CALLS)


@HOST
@pytest.mark.parametrize(("tokens", "pos"), ((1, 4096), (7, 2041), (1025, 0), (2048, 17)))
def test_long_contexts(tokens, pos, isa):
    check(Form(1, 2, 64, context=4097), isa, ((tokens, pos),))


@HOST
@pytest.mark.parametrize("form", (Form(3, 8, 64, context=700), Form(1, 20, 32, context=700)), ids=str)
def test_the_threads_do_not_change_a_bit(form, isa):
    arrays = graphs.operands(form, 300)
    for tokens in (1, 2, 24, 300):
        results = []
        for threads in (1, 2, 3):
            layer = layer_of(form, isa, threads)
            results.append(layer(q=np.ascontiguousarray(arrays["q"][:, :tokens]), pos=400)["y"])
        assert all(np.array_equal(results[0], other) for other in results[1:])


@HOST
def test_what_is_not_finite(isa):
    """What lies behind the last position is not read; a query that is NaN has no part in others."""
    form = Form(1, 2, 32, context=320)
    layer = layer_of(form, isa)
    layer.states["k"][:, 200:], layer.states["v"][:, 200:] = np.nan, np.inf
    for tokens, pos in ((1, 199), (5, 195), (40, 150)):
        q = graphs.operands(form, tokens)["q"]
        assert np.isfinite(layer(q=q, pos=pos)["y"][..., : 200 - pos, :]).all()
    q[:, 3] = np.nan
    got = np.asarray(layer(q=q, pos=150)["y"])
    assert np.isnan(got[..., 3, :]).all() and np.isfinite(got[..., [0, 2, 4, 39], :]).all()


@HOST
@pytest.mark.parametrize("tokens", (1, 5, 30))
def test_a_row_that_sees_nothing_is_nan_as_without_fusion(tokens, isa):
    layers = []
    for name in (isa.name, "scalar"):
        g = gk.CompilerGraph()
        q, k, v = (g.input(n, (s, 16)) for n, s in (("q", "tokens"), ("k", 200), ("v", 200)))
        scores = g.op("vec_add", g.op("gemm_bt", q, k), g.input("mask", ("tokens", 200)))
        g.output("y", g.op("gemm", g.op("softmax", scores), v))
        with gk.config(isa=name):
            layers.append(gk.compile_graph(g, threads=1))
    random = np.random.default_rng(0)
    arrays = {"q": random.standard_normal((tokens, 16), np.float32),
              "mask": np.where(random.random((tokens, 200)) < 0.5, -np.inf, 0).astype(np.float32)}
    arrays |= {n: random.standard_normal((200, 16), np.float32) for n in "kv"}
    for hidden in (slice(0, 150), slice(150, 200), slice(0, 200)):
        arrays["mask"][0, hidden] = -np.inf
        got, want = (np.asarray(layer(**arrays)["y"]) for layer in layers)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert np.isnan(want[0]).all() and np.isfinite(want[1:]).all()


SCORES = {
    "a cap": lambda g, s: g.op("vec_scale", g.op("tanh", g.op("vec_scale", s, s=0.1)), s=10.0),
    "a bias of each key": lambda g, s: g.op("vec_add", s, g.input("bias", (200,))),
    "a bias of each row": lambda g, s: g.op("vec_add", s, g.input("bias", ("tokens", 1))),
    "a factor": lambda g, s: g.op("vec_mul", s, g.input("bias", ("tokens", 200))),
}


@HOST
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("across", (False, True), ids=("v by rows", "v by columns"))
def test_any_function_of_the_scores_and_the_result(name, across, isa):
    g = gk.CompilerGraph()
    q, k = g.input("q", (3, "tokens", 16)), g.input("k", (200, 16))
    v = g.input("v", (24, 200)).permute(1, 0) if across else g.input("v", (200, 24))
    scores = SCORES[name](g, g.op("gemm_bt", q, k))
    g.output("y", g.op("silu", g.op("gemm", g.op("softmax", scores), v)))
    random = np.random.default_rng(0)
    for tokens in (1, 7, 37):
        arrays = {b.name: random.standard_normal(
            [s.evaluate({"tokens": tokens}) for s in b.shape], np.float32)
            for b in g.buffers.values() if b.kind == "input"}
        results = []
        for cap in (isa.name, "scalar"):
            with gk.config(isa=cap):
                layer = gk.compile_graph(g, threads=1)
            results.append(layer(**arrays)["y"])
            assert cap == "scalar" or len(layer.plan.groups) == 1
        np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


@HOST
def test_tiles_of_products_do_not_matter(isa):
    trace = bound(Form(1, 1, 16)).trace
    other = replace(default_params(isa), mr=4, nr=isa.lanes, terms=4)
    assert str(generate(trace, isa, other)) == str(generate(trace, isa, default_params(isa)))


@EVERY
def test_memory_of_a_thread(isa):
    """However long the context is: nothing between the operators, and scratch below 4 MB."""
    source = bound(Form(1, 1, 512))
    kernel = generate(source.trace, isa, default_params(isa))
    sizes = {p.name: v.evaluate({"tokens": 1 << 20, "pos": 0}) for p, v in zip(
        source.trace.params, source.arguments) if isinstance(v, Affine)}
    assert kernel.scratch.evaluate(sizes) < 4 << 20
    assert not layer_of(Form(2, 2, 64), machine.ISAS[0]).program.load()._owned


@EVERY
def test_hot_loops_neither_spill_nor_move(isa):
    kernel = generate(bound(Form(2, 2)).trace, isa, default_params(isa))
    hot = {"k", "dot k", "mix", "weights", "scores", "over", "scale"}
    loops = [loop for loop in compile_kernel(kernel, isa).loop_stats() if loop.name in hot]
    assert {loop.name for loop in loops} == hot
    assert all((loop.spills, loop.moves) == (0, 0) for loop in loops), loops


def test_a_panel_of_keys_fits_a_block():
    for isa in (AVX2, AVX512):
        assert prefill.KEYS % default_params(isa).mr == 0


@pytest.mark.skipif("avx512_bf16" not in host().features, reason="no AVX512_BF16")
@pytest.mark.parametrize("window", (0, 40))
@pytest.mark.parametrize(("head", "group"), ((33, 1), (64, 4), (128, 1)))
def test_pairs_of_bf16(head, group, window):
    form = Form(2, group, head, context=320, window=window, dtype="bfloat16")
    check(form, AVX512_BF16, CALLS)
    kernel = generate(bound(form).trace, AVX512_BF16, default_params(AVX512_BF16))
    pairs = [stmt for name in ("micro", "dot tiles") for stmt in multiplied(kernel, name)]
    assert set(pairs) == {K.VDOT2}


def multiplied(kernel, name):
    """What multiplies in the k loops of the routines of this name."""
    found = []
    for stmt in walk(kernel.body):
        if isinstance(stmt, Inst) and stmt.op is K.CODE:
            if stmt.imm.name.startswith(name):
                loops = [s for s in walk(stmt.imm.kernel.body) if isinstance(s, Loop)
                         and (s.name == "k" or s.name.startswith("dot k"))]
                found += [s.op for loop in loops for s in loop.body
                          if isinstance(s, Inst) and s.op in (K.VDOT2, K.VFMA)]
            found += multiplied(stmt.imm.kernel, name)
    return found
