"""Operators in cache, and the cost of a call, against installed peers.

    python bench/ops.py                              one thread, 65 536 elements
    python bench/ops.py --elements 4096 --seconds 1 --isa avx512,avx2

Bytes read plus written, in GB/s; all candidates of a row take turns and the best round counts.
Every result is compared with the scalar function before it is timed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np

import gllm_kernels as gk
from gllm_kernels.codegen.isa.detect import host_isas

Run = Callable[[], object]
ROWS = 16
# operator: (arrays read and written, how torch says it)
# fmt: off
CASES: dict[str, tuple[int, Callable]] = {
    "vec_add":    (3, lambda t, f, x, y: lambda: t.add(x, y)),
    "exp":        (2, lambda t, f, x, y: lambda: t.exp(x)),
    "silu":       (2, lambda t, f, x, y: lambda: f.silu(x)),
    "gelu":       (2, lambda t, f, x, y: lambda: f.gelu(x, approximate="tanh")),
    "tanh":       (2, lambda t, f, x, y: lambda: t.tanh(x)),
    "softmax":    (2, lambda t, f, x, y: lambda: t.softmax(x, -1)),
    "rms_norm":   (2, lambda t, f, x, y: lambda: f.rms_norm(x, (x.shape[-1],), y[0], 1e-5)),
    "layer_norm": (2, lambda t, f, x, y: lambda: f.layer_norm(x, (x.shape[-1],), y[0], y[1])),
}
# fmt: on


def best(runs: dict[str, Run], seconds: float) -> dict[str, float]:
    """Seconds per call: the candidates take turns, the fastest round of each counts."""
    counts = {name: repeats(run) for name, run in runs.items()}
    found = dict.fromkeys(runs, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                run()
            found[name] = min(found[name], (time.perf_counter() - start) / counts[name])
    return found


def repeats(run: Run) -> int:
    """Calls that take about two milliseconds."""
    run()
    start = time.perf_counter()
    run()
    return max(1, int(2e-3 / max(time.perf_counter() - start, 1e-7)))


def ours(name: str, isa: str, arrays: list[np.ndarray]) -> Run:
    """Our operator, checked against the scalar function."""
    op, out = getattr(gk, name), np.empty_like(arrays[0])
    with gk.config(isa="scalar"):
        want = op(*arrays)

    def run() -> object:
        return op(*arrays, out=out)

    with gk.config(isa=isa, threads=1):
        np.testing.assert_allclose(run(), want, rtol=1e-4, atol=1e-5)
    return run


def arrays_of(name: str, elements: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (ROWS, elements // ROWS)
    x, y = (rng.standard_normal(shape, np.float32) for _ in range(2))
    return {"vec_add": [x, y], "rms_norm": [x, y[0]], "layer_norm": [x, y[0], y[1]]}.get(name, [x])


def torch_run(name: str, elements: int) -> dict[str, Run]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((ROWS, elements // ROWS), np.float32))
            for _ in range(2))
    return {"torch": CASES[name][1](torch, torch.nn.functional, x, y)}


def row(name: str, elements: int, isas: list[str], seconds: float) -> str:
    """GB/s of every candidate; each of ours runs under its own cap."""
    peers = torch_run(name, elements)
    times: dict[str, float] = {}
    for isa in isas:
        with gk.config(isa=isa, threads=1):
            found = best({isa: ours(name, isa, arrays_of(name, elements)), **peers}, seconds)
        times |= {n: min(t, times.get(n, t)) for n, t in found.items()}
    moved = CASES[name][0] * 4 * elements
    return "".join([f"{name:12}", *(f"{moved / times[n] / 1e9:10.1f}" for n in (*isas, *peers))])


def call_cost(seconds: float) -> str:
    """One call on 64 floats: all overhead."""
    a, b = np.ones(64, np.float32), np.ones(64, np.float32)
    found = best({"ours": lambda: gk.vec_add(a, b), "numpy": lambda: np.add(a, b)}, seconds)
    return (f"vec_add on 64 floats: {found['ours'] * 1e9:.0f} ns, np.add {found['numpy'] * 1e9:.0f} ns, "
            f"ratio {found['ours'] / found['numpy']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=1 << 16, help="per array (default: 65536)")
    parser.add_argument("--seconds", type=float, default=1.0, help="per row and ISA (default: 1)")
    parser.add_argument("--isa", default=",".join(i.name for i in host_isas()), help="which, in order")
    options = parser.parse_args()
    isas = options.isa.split(",")
    print("GB/s read + written, 1 thread".ljust(12))
    print("".join([" " * 12, *(f"{n:>10}" for n in (*isas, "torch"))]))
    for name in CASES:
        print(row(name, options.elements, isas, options.seconds), flush=True)
    print(call_cost(options.seconds))


if __name__ == "__main__":
    main()
