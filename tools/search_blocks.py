#!/usr/bin/env python3
"""Search the neighbours of the analytic block sizes of large products on this machine.

    python tools/search_blocks.py [1024x1024x1024 ...] [--seconds 8]

Every candidate differs from `host_params` in one or two numbers, is checked against exact sums of
small integers, and takes turns with the others in one process. Prints the share of the measured FMA
peak, best first, and how far the analytic choice is behind.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from gllm_kernels.codegen.isa.detect import current_isa
from gllm_kernels.codegen.tuning import TuningParams, host_params
from gllm_kernels.config import config
from gllm_kernels.debug.bench.limits import limits_of
from gllm_kernels.debug.bench.timing import interleaved
from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.graph.registry import operator_named
from gllm_kernels.pipeline import compile_graph
from gllm_kernels.trace.affine import Affine

ANALYTIC = "analytic"


def neighbours(p: TuningParams) -> dict[str, TuningParams]:
    """The depth with a block of as many bytes, each other number alone."""
    changes = [{"kc": p.kc // 2, "nc": p.nc * 2}, {"kc": p.kc * 2, "nc": p.nc // 2},
               {"nc": p.nc * 3 // 2}, {"nc": p.nc // 2}, {"mc": p.mc // 2}, {"ahead": 0},
               {"ahead": 2048}, {"ahead": 4096}, {"terms": 2}, {"heights": 4}]
    found = {" ".join(f"{k}={v}" for k, v in c.items()): replace(p, **c) for c in changes}
    return {ANALYTIC: p} | {name: q for name, q in found.items() if q != p}


def compiled(params: TuningParams) -> object:
    graph, m, n, k = CompilerGraph(), *map(Affine.sym, "mnk")
    graph.output("c", graph.op(operator_named("gemm"), graph.input("a", (m, k)),
                               graph.input("b", (k, n))))
    return compile_graph(graph, params=params)


def search(shape: tuple[int, int, int], seconds: float) -> None:
    (m, n, k), isa, rng = shape, current_isa(), np.random.default_rng(0)
    a, b = (rng.integers(-3, 4, s).astype(np.float32) for s in ((m, k), (k, n)))
    want, runs = a @ b, {}
    for name, params in neighbours(host_params(isa)).items():
        c = np.empty((m, n), np.float32)
        runs[name] = partial(compiled(params), out={"c": c}, a=a, b=b)
        runs[name]()
        if not np.array_equal(c, want):
            sys.exit(f"{name}: wrong result")
    limits = limits_of(isa, "f32", 1, 1 << 26)
    times = interleaved(runs | {"peak": limits.peak}, seconds, time.thread_time)
    peak = limits.flops / times.pop("peak").best
    rates = {name: 2 * m * n * k / t.best / peak for name, t in times.items()}
    for name in sorted(rates, key=rates.get, reverse=True):
        print(f"{m}x{n}x{k}  {name:20} {rates[name]:6.1%} of {peak / 1e9:.0f} GFLOP/s")
    print(f"{m}x{n}x{k}  {ANALYTIC} / best = {rates[ANALYTIC] / max(rates.values()):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=["1024x1024x1024", "2048x2048x2048"])
    parser.add_argument("--seconds", type=float, default=8)
    given = parser.parse_args()
    with config(threads=1):
        for shape in given.shapes:
            search(tuple(map(int, shape.split("x"))), given.seconds)


if __name__ == "__main__":
    main()
