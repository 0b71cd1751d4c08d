"""From the C text of a new operator to fused machine code: where the milliseconds go.

    python bench/new_operator.py [--repeat 9] [--isa avx512,avx2]

mish, with other constants each time so that nothing is known yet, as the epilogue of a gemm
(64 x 512 x 256) and after an addition, each one kernel. "register" lifts, verifies and makes it
callable; "C to ..." is register and graph together, without the C compiler, which is shown apart.
The fastest of all rounds in ms, of the time of this process with --cpu (on a busy machine). The
results are compared with the C function.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["GLLM_CACHE"] = "off"

import numpy as np

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.lift.lifter import analyse, check_natively, subject_of
from gllm_kernels.lift.signature import parse
from gllm_kernels.ops.user import C_FLAGS, find_compiler

TEXT = """
#include <math.h>
#include <stddef.h>
void {name}(const float *x, float *out, size_t n)
{{ for (size_t i = 0; i < n; i++) out[i] = {scale}f * x[i] * tanhf(log1pf(expf(x[i]))); }}
"""
clock = time.process_time if "--cpu" in sys.argv else time.perf_counter
COLUMNS = ("compiler", "lift", "verify", "register", "gemm graph", "chain graph")


def compiled(number: int, folder: Path) -> tuple[Path, str, float]:
    """(library, declaration, ms of the C compiler)."""
    name = f"mish{number}"
    library = folder / f"{name}.so"
    text = TEXT.format(name=name, scale=1.0 + number / 64)
    start = clock()
    command = [*find_compiler(), *C_FLAGS, "-x", "c", "-", "-o", str(library), "-lm"]
    subprocess.run(command, input=text, text=True, check=True)
    ms = 1e3 * (clock() - start)
    return library, f"void {name}(const float *x, float *out, size_t n)", ms


def once(number: int, folder: Path) -> dict[str, float]:
    library, declaration, compiler = compiled(number, folder)
    marks = [clock()]
    subject = subject_of(library, parse(declaration))
    trace, _ = analyse(subject)
    marks.append(clock())
    check_natively(subject, trace)
    marks.append(clock())
    name = gk.register(
        library, declaration
    ).name  # lifts and verifies again, then makes it callable
    marks.append(clock())
    rng = np.random.default_rng(number)
    a, b = (rng.standard_normal(shape, np.float32) for shape in ((64, 256), (256, 512)))
    gemm = layer_of(name, a, b)
    marks.append(clock())
    chain = layer_of(name, a, None)
    marks.append(clock())
    check(gemm(x=a)["y"], library, name, a @ b)
    check(chain(x=a)["y"], library, name, a + a)
    assert len(gemm.plan.groups) == len(chain.plan.groups) == 1, "not fused"
    spent = [1e3 * (e - s) for s, e in zip(marks, marks[1:], strict=False)]
    return dict(zip(COLUMNS, (compiler, *spent), strict=True))


def layer_of(name: str, a: np.ndarray, b: np.ndarray | None) -> gk.CompiledLayer:
    """name(a @ b), or name(a + a)."""
    g = gk.CompilerGraph()
    x = g.input("x", a.shape)
    y = g.op("vec_add", x, x) if b is None else g.op("gemm", x, g.weight("w", b))
    g.output("y", g.op(name, y))
    return gk.compile_graph(g)


def check(got: np.ndarray, library: Path, name: str, x: np.ndarray) -> None:
    wanted = np.empty_like(x)
    function = ctypes.CDLL(str(library))[name]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, wanted)]
    function(*pointers, ctypes.c_size_t(x.size))
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--isa", default=",".join(i.name for i in host_isas()))
    options = parser.parse_args()
    print(
        f"{'ISA':8}" + "".join(f"{c:>13}" for c in COLUMNS) + f"{'C to gemm':>13}{'C to chain':>13}"
    )
    for turn, isa in enumerate(options.isa.split(",")):
        with gk.config(isa=isa), tempfile.TemporaryDirectory() as folder:
            first = turn * options.repeat
            rows = [once(first + k, Path(folder)) for k in range(options.repeat)]
            print_row(isa, rows)


def print_row(isa: str, rows: list[dict[str, float]]) -> None:
    totals = [min(r["register"] + r[graph] for r in rows) for graph in COLUMNS[-2:]]
    cells = [min(r[c] for r in rows) for c in COLUMNS] + totals
    print(f"{isa:8}" + "".join(f"{ms:13.1f}" for ms in cells))


if __name__ == "__main__":
    main()
