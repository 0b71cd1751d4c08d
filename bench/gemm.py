"""Matrix products against the machine's own limits and against installed peers.

    python bench/gemm.py                        gemm and gemv, the best instruction set
    python bench/gemm.py --isa avx2 --sizes 512,1024 --seconds 2

One thread. GFLOP/s are shares of the FMA peak, GB/s shares of the read bandwidth; both limits are
generated loops measured in the same run. All candidates of a row take turns, and the best round
counts. Every product is compared with numpy before it is timed. On a machine that others use too,
--cpu-time counts only the time this thread was running.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

# peers must not use more threads than we do; they read this when they are imported
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np

from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.gemm import generate
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.codegen.kernel import K, Kernel, KernelBuilder, KParam, Mem
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.executable.buffers import aligned_bytes
from gllm_kernels.graph.registry import operator_named
from gllm_kernels.memory import place_batch
from gllm_kernels.trace.affine import Affine

COLD = 96 << 20  # bytes of weights that rotate: three times the 3rd-level cache of the machine
FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                            ctypes.c_void_p)
Run = Callable[[], object]


@dataclass
class Native:
    """A kernel as machine code of this process."""

    kernel: Kernel
    isa: Isa

    def __post_init__(self) -> None:
        start = time.perf_counter()
        code = compile_kernel(self.kernel, self.isa)
        self.compile_ms = (time.perf_counter() - start) * 1e3
        self.batch = place_batch([code.bytes])
        self.call = FUNCTION(self.batch.addresses[0])

    def bound(self, **arguments: np.ndarray | int) -> Run:
        """A call on all units with these arguments."""
        sizes = {n: v for n, v in arguments.items() if isinstance(v, int)}
        slots = np.array([_slot(arguments[p.name]) for p in self.kernel.params], np.int64)
        scratch = aligned_bytes(max(64, self.kernel.scratch.evaluate(sizes)))
        units, at = self.kernel.units.evaluate(sizes), [_slot(slots), _slot(scratch)]
        keep = (arguments, slots, scratch)
        return lambda _=keep: self.call(at[0], 0, units, at[1])


def _slot(value: np.ndarray | int) -> int:
    return value if isinstance(value, int) else value.__array_interface__["data"][0]


# -- the machine's limits --------------------------------------------------------------------------
def fma_loop(isa: Isa) -> Kernel:
    """12 or 28 independent accumulators: units*FMAS FMAs and nothing else."""
    b = KernelBuilder("fma_loop", isa.lanes, (KParam("out", "ptr"), KParam("n", "i64")))
    x, chains = b.load(b.arg("out"), b.int(0)), 28 if isa.vregs == 32 else 12
    with b.loop(0, b.arg("n"), 1, *[b.const(0.0)] * chains) as loop:
        loop.yields(*(b.emit(K.VFMA, x, x, acc) for acc in loop.phis))
    for i, acc in enumerate(loop.results):
        b.store(b.arg("out"), b.int(0), acc, disp=4 * isa.lanes * i)
    return b.build(Affine.const(1), 1)


def read_loop(isa: Isa) -> Kernel:
    """Read n*1 KB with a prefetch 4 KB ahead and keep the maximum."""
    b = KernelBuilder("read_loop", isa.lanes, (KParam("x", "ptr"), KParam("out", "ptr"),
                                               KParam("n", "i64")))
    vectors, step = 1024 // (4 * isa.lanes), 256
    hi = b.arg("n") * step
    with b.loop(0, hi, step, *[b.const(0.0)] * 8) as loop:
        acc = list(loop.phis)
        for line in range(0, 1024, 64):
            b.emit(K.PREFETCH, b.arg("x"), loop.iv, imm=Mem(4, 4096 + line, level=1))
        for v in range(vectors):
            acc[v % 8] = b.emit(K.VMAX, b.load(b.arg("x"), loop.iv, disp=4 * isa.lanes * v),
                                acc[v % 8])
        loop.yields(*acc)
    for i, value in enumerate(loop.results):
        b.store(b.arg("out"), b.int(0), value, disp=4 * isa.lanes * i)
    return b.build(Affine.const(1), 1)


# -- timing ----------------------------------------------------------------------------------------
@dataclass
class Clock:
    """What `best` reads; main chooses."""

    read: Callable[[], float] = time.perf_counter


CLOCK = Clock()


def best(runs: dict[str, Run], seconds: float) -> dict[str, float]:
    """Seconds of the fastest round of each, taking turns for `seconds` altogether."""
    times = dict.fromkeys(runs, float("inf"))
    stop = time.perf_counter() + seconds
    while True:
        for name, run in runs.items():
            start = CLOCK.read()
            run()
            times[name] = min(times[name], CLOCK.read() - start)
        if time.perf_counter() > stop:
            return times


def rotating(make: Callable[[int], Run], count: int) -> Run:
    """Calls make(0), make(1), ... in turn, so that each finds its operands cold."""
    runs, turn = [make(i) for i in range(count)], [0]

    def run() -> None:
        turn[0] = (turn[0] + 1) % count
        runs[turn[0]]()
    return run


def peers(a: np.ndarray, b: np.ndarray) -> dict[str, Run]:
    """a @ b by whoever is installed."""
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    found: dict[str, Run] = {"numpy": lambda: np.matmul(a, b, out=out)}
    try:
        import torch
    except ImportError:
        return found
    torch.set_num_threads(1)
    ta, tb, to = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(out.copy())
    return found | {"torch": lambda: torch.matmul(ta, tb, out=to)}


# -- rows ------------------------------------------------------------------------------------------
def native_product(name: str, isa: Isa) -> Native:
    return Native(generate(operator_named(name).trace, isa, default_params(isa)), isa)


def peak_run(isa: Isa) -> tuple[Run, float]:
    """A run of the FMA loop and its GFLOP."""
    rounds, chains = 500_000, 28 if isa.vregs == 32 else 12
    run = Native(fma_loop(isa), isa).bound(out=np.zeros(4096, np.float32), n=rounds)
    return run, 2e-9 * rounds * chains * isa.lanes


def gemm_row(name: str, isa: Isa, shape: tuple[int, int, int], seconds: float) -> str:
    """GFLOP/s of c = a @ b (gemm) or a @ b.T (gemm_bt), ours and the peers'."""
    m, n, k = shape
    rng = np.random.default_rng(0)
    a = rng.standard_normal((m, k), dtype=np.float32)
    b = rng.standard_normal((n, k) if name == "gemm_bt" else (k, n), dtype=np.float32)
    c = np.full((m, n), np.nan, np.float32)
    product = native_product(name, isa)
    copies = [b] if m > 32 else [b.copy() for _ in range(max(2, COLD // b.nbytes))]
    ours = rotating(lambda i: product.bound(a=a, b=copies[i], c=c, m=m, n=n, k=k), len(copies))
    ours()
    plain = b.T if name == "gemm_bt" else b
    np.testing.assert_allclose(c, a @ plain, rtol=1e-3, atol=1e-3)
    peak, work = peak_run(isa)
    runs = {"ours": ours, "peak": peak}
    for peer in ("numpy", "torch"):
        made = [peers(a, x.T if name == "gemm_bt" else x) for x in copies]
        if peer in made[0]:
            runs[peer] = rotating(lambda i, p=peer, rows=made: rows[i][p], len(copies))
    times = best(runs, seconds)
    fastest = min(times.pop("peak"), best({"peak": peak}, seconds / 8)["peak"])
    limit, flops = work / fastest, 2e-9 * m * n * k
    cells = [f"{who} {flops / t:6.1f} ({flops / t / limit:4.0%})" for who, t in times.items()]
    return (f"{name:8} {m:5} x {n:5} x {k:5}  {'  '.join(cells)}   peak {limit:.1f} GFLOP/s, "
            f"{b.nbytes / times['ours'] / 1e9:.1f} GB/s of B, compiled in {product.compile_ms:.0f} ms")


def gemv_row(isa: Isa, n: int, k: int, seconds: float) -> str:
    """GB/s of cold weights for y = W x, and of a plain read of the same memory."""
    rng = np.random.default_rng(0)
    count = max(2, COLD // (4 * n * k))
    weights = [rng.standard_normal((n, k), dtype=np.float32) for _ in range(count)]
    x, y = rng.standard_normal(k, dtype=np.float32), np.full(n, np.nan, np.float32)
    product, reader = native_product("gemv", isa), Native(read_loop(isa), isa)
    ours = rotating(lambda i: product.bound(a=weights[i], x=x, y=y, m=n, n=k), count)
    ours()
    np.testing.assert_allclose(y, weights[1] @ x, rtol=1e-3, atol=1e-3)
    out = np.empty(4096, np.float32)
    runs = {"ours": ours,
            "read": rotating(lambda i: reader.bound(x=weights[i], out=out, n=n * k // 256), count)}
    column = x.reshape(-1, 1)
    for peer in peers(weights[0], column):
        runs[peer] = rotating(lambda i, p=peer: peers(weights[i], column)[p], count)
    times = best(runs, seconds)
    size = weights[0].nbytes * 1e-9
    limit = size / times["read"]
    cells = [f"{who} {size / t:5.1f} ({size / t / limit:4.0%})" for who, t in times.items()]
    return f"gemv     {n:5} x {k:5}  {'  '.join(cells)}   GB/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", default="", help="avx2 or avx512; the best of the host by default")
    parser.add_argument("--sizes", default="256,512,1000,1024,2048", help="of square products")
    parser.add_argument("--rows", default="1,2,4,8,16,32,64", help="m of products with 4096 x 4096")
    parser.add_argument("--seconds", type=float, default=1.0, help="per row of the table")
    parser.add_argument("--cpu-time", action="store_true", help="count this thread's time only")
    options = parser.parse_args()
    CLOCK.read = time.thread_time if options.cpu_time else time.perf_counter
    found = [i for i in host_isas() if options.isa in ("", i.name)]
    if not found:
        parser.error(f"this CPU has {', '.join(i.name for i in host_isas())}, not {options.isa}")
    isa = found[0]
    print(f"{isa.name}, one thread")
    for size in filter(None, options.sizes.split(",")):
        print(gemm_row("gemm", isa, (int(size),) * 3, options.seconds), flush=True)
    for m in filter(None, options.rows.split(",")):
        for name in ("gemm_bt", "gemm"):
            print(gemm_row(name, isa, (int(m), 4096, 4096), options.seconds), flush=True)
    print(gemv_row(isa, 4096, 4096, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
