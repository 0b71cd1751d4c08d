"""One operator from each language goes everywhere: arrays, graphs, epilogues, fused chains, 16 bits."""

import math
import shutil
import subprocess
import sys
from importlib.util import find_spec

import ml_dtypes
import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.config import config

ISAS = [isa.name for isa in host_isas()] + ["scalar"]
ZIG = [sys.executable, "-m", "ziglang"]
ARGUMENTS = "(const float *x, const float *g, float *out, size_t n, float slope)"
SOURCES = {
    "c": "#include <math.h>\n#include <stddef.h>\nvoid gated_c" + ARGUMENTS + " {\n"
         "  for (size_t i = 0; i < n; i++)\n"
         "    out[i] = (x[i] > 0 ? x[i] : slope * x[i]) / (1.0f + expf(-g[i]));\n}\n",
    "rust": """
        #[no_mangle]
        pub unsafe extern "C" fn gated_rust(x: *const f32, g: *const f32, out: *mut f32, n: usize, slope: f32) {
            for i in 0..n {
                let v = *x.add(i);
                *out.add(i) = (if v > 0.0 { v } else { slope * v }) / (1.0 + (-*g.add(i)).exp());
            }
        }""",
    "zig": """
        export fn gated_zig(x: [*]const f32, g: [*]const f32, out: [*]f32, n: usize, slope: f32) void {
            for (0..n) |i| out[i] = (if (x[i] > 0) x[i] else slope * x[i]) / (1 + @exp(-g[i]));
        }""",
}  # fmt: skip
COMMANDS = {
    "c": ["gcc", "-O2", "-fno-tree-vectorize", "-shared", "-fPIC", "op.c", "-o", "op.so", "-lm"],
    "rust": "rustc --crate-type=cdylib -C opt-level=2 -C panic=abort -C no-vectorize-loops "
            "-C no-vectorize-slp op.rust -o op.so".split(),
    "zig": [*ZIG, "build-obj", "-OReleaseSmall", "-mcpu=x86_64", "-fPIC", "op.zig", "-femit-bin=op.o"],
}  # fmt: skip
PRESENT = {"c": shutil.which("gcc"), "rust": shutil.which("rustc"), "zig": find_spec("ziglang"),
           "python": find_spec("numba")}  # fmt: skip


def gated_python(x, g, *, slope):
    return (x if x > 0 else slope * x) / (1 + math.exp(-g))


@pytest.fixture(scope="module", params=PRESENT)
def op(request, tmp_path_factory):
    language = request.param
    if not PRESENT[language]:
        pytest.skip(f"brings an operator from {language}: its compiler is not installed")
    if language == "python":
        return gk.operator(gated_python)
    folder = tmp_path_factory.mktemp(language)
    (folder / f"op.{language}").write_text(SOURCES[language])
    subprocess.run(COMMANDS[language], cwd=folder, check=True, capture_output=True)
    made = next(folder.glob("op.*o"))
    return gk.register(made, f"void gated_{language}{ARGUMENTS}")


def formula(x, g, slope):
    x, g = x.astype(np.float64), g.astype(np.float64)
    return np.where(x > 0, x, slope * x) / (1 + np.exp(-g))


def test_every_language_gives_the_same_trace(op):
    text = str(op).splitlines()[1].strip()
    assert text == "out[i0] = (x[i0] if (0.0 < x[i0]) else slope*x[i0]) / (1.0 + exp(-g[i0]))  for i0 < n"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("isa", ISAS)
def test_on_arrays(op, isa, dtype):
    x, g = np.random.default_rng(0).standard_normal((2, 5, 33), np.float32).astype(dtype)
    with config(isa=isa):
        got = op(x, g, slope=0.25)
    near = 1e-5 if dtype is np.float32 else 1e-2
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got.astype(np.float64), formula(x, g, 0.25), rtol=near, atol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_fused_behind_a_product_and_before_a_sum(op, isa):
    rng = np.random.default_rng(1)
    a, b, gate = (rng.standard_normal(s, np.float32) for s in ((9, 40), (40, 35), (9, 35)))
    graph = gk.CompilerGraph()
    product = graph.op("gemm", graph.input("a", ("m", 40)), graph.weight("b", b))
    value = graph.op(op.name, product, graph.input("g", ("m", 35)), slope=0.5)
    graph.output("y", graph.op("silu", value))
    with config(isa=isa):
        layer = gk.compile_graph(graph)
        got = layer(a=a, g=gate)["y"]
    want = formula(a.astype(np.float64) @ b, gate, 0.5)
    np.testing.assert_allclose(got, want / (1 + np.exp(-want)), rtol=1e-4, atol=1e-4)
    assert isa == "scalar" or len(layer.program.steps) == 1
