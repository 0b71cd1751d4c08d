"""Random products against the meaning of their traces: sizes, layouts, leading dimensions, epilogues,
types, tunings and ISAs, as machine code between guard pages, cut as one to four threads cut them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import machine
import ml_dtypes
import numpy as np
import products
import pytest
from guard import guarded_copy
from products import EPILOGUES, HEADS, Form

from gllm_kernels.codegen import gemm
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.isa.avx2 import AVX2
from gllm_kernels.codegen.isa.avx512 import AVX512, AVX512_BF16
from gllm_kernels.codegen.isa.detect import host
from gllm_kernels.executable.program import tile_sizes
from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.graph.registry import operator_named
from gllm_kernels.pipeline import compile_graph
from gllm_kernels.trace import interp as meaning
from gllm_kernels.trace.affine import Affine

ISAS = [isa for isa in (AVX512, AVX512_BF16, AVX2) if isa.features <= host().features]
STORED = {"float": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
ROUNDED = {"float": 0.0, "bf16": 2.0**-8, "f16": 2.0**-11}  # relative, by a store of the type
CASES = 12  # for each ISA and seed


def form_of(random):
    heads = random.choice((*HEADS, "one", "one"))
    named = [e for e in EPILOGUES if heads == "one" or e in ("plain", "scale_mask", "two_stores")]
    return Form(random.choice("nt"), random.choice("nt"), random.choice(named), heads,
                random.choice((0.0, 0.0, -1.5)))


def sizes_of(random, params):
    """Around the edges of vectors, tiles and blocks, and anywhere."""
    edges = (1, params.few, params.swept, params.mr, params.nr, params.mc, params.nc, params.kc)
    def size(most):
        near = random.choice(edges) * random.choice((1, 1, 2)) + random.randint(-1, 1)
        return max(0, min(most, random.choice((near, random.randint(0, most)))))
    return size(60), size(130), size(90)


def params_of(random, isa):
    params = products.small(isa)
    return replace(params, kc=random.choice((8, 16, 40, 1024)), mc=random.choice((1, 2, 3)) * params.mr,
                   nc=random.choice((1, 2, 3)) * params.nr, ahead=random.choice((0, 512)),
                   heights=random.choice((1, 2)), few=random.choice((0, 3, 20)),
                   swept=random.choice((0, 5, 30)), sweep_width=random.choice((512, 64)),
                   column_ahead=random.choice((0, 512)), share=random.choice((8, 33, 512)))


def stored(random, trace):
    """The trace with types of its own for a, b, c; `d` is stored as c."""
    types = {name: random.choice(tuple(STORED)) for name in "abc"}
    types = types if random.random() < 0.6 else dict.fromkeys("abc", "float")
    types["d"] = types["c"]
    params = tuple(replace(p, ctype=types[p.name]) if p.name in types else p for p in trace.params)
    return replace(trace, params=params), types


def close(got, want, type_, depth):
    """Sums of up to 90 products of normal numbers, in another order and once more rounded."""
    got, want = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=2 * ROUNDED[type_] + 2e-5, atol=1e-5 * (depth + 1))


def cuts(units, grain, threads):
    size = int(tile_sizes(np.array([units]), np.array([grain]), threads)[0])
    return [(at, min(at + size, units)) for at in range(0, units, size)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
def test_random_products(isa, seed):
    for case in range(CASES):
        random = Random(f"{isa.name} {seed} {case}")
        form, params = form_of(random), params_of(random, isa)
        trace, types = stored(random, products.trace_of(form))
        m, n, k = sizes_of(random, params)
        args = products.operands(form, m, n, k, seed=case, pad=random.choice((0, 1, 3, 16)))
        args |= {name: args[name].astype(STORED[types[name]]) for name in "abcd" if name in args}
        check(isa, gemm.generate(trace, isa, params), trace, args, types)


def check(isa, kernel, trace, args, types):
    code, want = compile_kernel(kernel, isa), copies(args, np.copy)
    meaning.run(trace, want)
    units = kernel.units.evaluate({n: v for n, v in args.items() if isinstance(v, int)})
    results = []
    for threads in (1, 2, 3, 4):
        at = ("start", "end")[threads % 2]
        got = copies(args, lambda a, at=at: guarded_copy(a, at))
        for begin, end in cuts(units, kernel.grain, threads):
            machine.call(code, got, begin, end)
        results.append({name: got[name] for name in trace.names("out", "inout")})
    for name, array in results[0].items():
        close(array, want[name], types[name], args["k"])
        assert all(array.tobytes() == other[name].tobytes() for other in results[1:])


def copies(args, copy):
    return {n: copy(v) if isinstance(v, np.ndarray) else v for n, v in args.items()}


SHAPES = [(1, 700, 300), (700, 1, 300), (1500, 40, 70), (40, 1500, 70), (517, 521, 1100), (9, 9, 9)]


@pytest.mark.parametrize("name", ("gemm", "gemm_bt"))
def test_the_bits_do_not_depend_on_the_number_of_threads(name):
    """With the team of the process: one column, one row, tall, wide and uneven products."""
    graph, m, n, k = CompilerGraph(), *map(Affine.sym, "mnk")
    x = graph.input("x", (m, k))
    w = graph.input("w", (k, n) if name == "gemm" else (n, k))
    graph.output("y", graph.op(operator_named("silu"), graph.op(operator_named(name), x, w)))
    layer, rng = compile_graph(graph), np.random.default_rng(0)
    for rows, columns, depth in SHAPES:
        left = rng.standard_normal((rows, depth), np.float32)
        right = rng.standard_normal((depth, columns), np.float32)
        given = right if name == "gemm" else np.ascontiguousarray(right.T)
        results = []
        for threads in (1, 2, 3, 4):
            layer.threads = threads
            results.append(layer(x=left, w=given)["y"].copy())
        exact = left.astype(np.float64) @ right
        np.testing.assert_allclose(results[0], exact / (1 + np.exp(-exact)), rtol=1e-4, atol=1e-4)
        assert all(np.array_equal(results[0], r) for r in results[1:])
