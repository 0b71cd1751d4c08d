#!/usr/bin/env python3
"""Measure the error of an elementary function over all 2^32 float32 inputs, in machine code.

    python tools/check_unary.py [exp log tanh] [--isa avx2] [--stride 1]

Prints the largest error in ULP (distance to the next float32 at the exact result), where it is, and
how many results are NaN, infinite or of the wrong sign where they must not be. The reference is
float64. A stride of 1 takes minutes per function; 4096 takes a second.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from gllm_kernels.codegen import approx
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.codegen.kernel import K, KernelBuilder, KParam
from gllm_kernels.memory import place_batch
from gllm_kernels.trace.affine import Affine

REFERENCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh,
}
EXPRESSION = {"exp": approx.exp, "log": approx.log, "tanh": approx.tanh}
CHUNK = 1 << 20
Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Finding:
    """The largest error, the input it occurs at, and the number of results of the wrong kind."""

    ulp: float
    at: float
    wrong: int


def unary(name: str, isa: Isa) -> Function:
    """The function as machine code: a multiple of `lanes` numbers in, as many out."""
    b = KernelBuilder(name, isa.lanes, (KParam("x", "ptr"), KParam("out", "ptr"),
                                        KParam("n", "i64")))
    x, out = b.arg("x"), b.arg("out")
    with b.loop(b.emit(K.BEGIN), b.emit(K.END), isa.lanes) as loop:
        b.store(out, loop.iv, EXPRESSION[name](b, b.load(x, loop.iv)))
        loop.yields()
    code = compile_kernel(b.build(Affine.sym("n"), isa.lanes), isa)
    batch = place_batch([code.bytes])
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                    ctypes.c_void_p])(batch.addresses[0])

    def function(values: np.ndarray, keep: object = batch) -> np.ndarray:
        result = np.empty_like(values)
        args = np.array([values.ctypes.data, result.ctypes.data, len(values)], np.int64)
        call(args.ctypes.data, 0, len(values), 0)
        return result

    return function


def errors(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|got - exact| in units of the last place of exact; denormals have the smallest normal's."""
    with np.errstate(divide="ignore"):
        exponent = np.clip(np.floor(np.log2(np.abs(exact))), -126, 127)
    return np.abs(got.astype(np.float64) - exact) / 2.0 ** (exponent - 23)


def examine(name: str, function: Function, bits: np.ndarray) -> Finding:
    """Compare with float64 at the given bit patterns (a multiple of the lanes)."""
    x = bits.view(np.float32)
    got = function(x)
    with np.errstate(all="ignore"):
        exact = REFERENCE[name](x.astype(np.float64))
        nearest = exact.astype(np.float32)
    finite = np.isfinite(nearest) & np.isfinite(got)
    same = np.where(np.isnan(nearest), np.isnan(got), got == nearest)
    signs = np.signbit(got) == np.signbit(nearest)
    wrong = int(np.sum(~finite & ~same) + np.sum(finite & ~signs))
    error = np.where(finite, errors(got, np.where(finite, exact, 1.0)), 0.0)
    worst = int(np.argmax(error))
    return Finding(float(error[worst]), float(x[worst]), wrong)


def survey(name: str, isa: Isa, stride: int) -> Finding:
    """The worst over every `stride`-th bit pattern."""
    function, best, wrong = unary(name, isa), Finding(0.0, 0.0, 0), 0
    for start in range(0, 1 << 32, CHUNK * stride):
        stop = min(1 << 32, start + CHUNK * stride)
        bits = np.arange(start, stop, stride, dtype=np.uint64).astype(np.uint32)
        found = examine(name, function, bits[: len(bits) & -64])
        wrong += found.wrong
        best = max(best, found, key=lambda f: f.ulp)
    return Finding(best.ulp, best.at, wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(REFERENCE), metavar="FUNCTION")
    parser.add_argument("--isa", default="")
    parser.add_argument("--stride", type=int, default=1)
    options = parser.parse_args()
    for name in options.names:
        for isa in host_isas():
            if options.isa in ("", isa.name):
                found = survey(name, isa, options.stride)
                print(f"{name} {isa.name}: {found.ulp:.3f} ULP at {found.at!r}, "
                      f"{found.wrong} of the wrong kind", flush=True)


if __name__ == "__main__":
    main()
