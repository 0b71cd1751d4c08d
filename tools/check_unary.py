#!/usr/bin/env python3
"""Measure the error of elementary functions over all 2^32 float32 inputs, in machine code.

    python tools/check_unary.py [exp log tanh ...] [--isa avx2] [--stride 1] [--pairs 24]

Prints a row of docs/ACCURACY.md per function: the largest error in ULP (distance to the next float32
at the exact result) and where it is. A row ends in WRONG where results are NaN, infinite or of the
wrong sign and must not be. The reference is float64. A stride of 1 takes a minute per function and
instruction set; 4096 takes a second. pow is measured on special values and 2^pairs drawn pairs.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.generate import generate
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.lift.store import stored_trace
from gllm_kernels.memory import place_batch
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Param, Store

CHUNK = 1 << 14  # the arrays of one step stay in the second-level cache
EXPONENT = 0x7FF << 52
Array = np.ndarray
Function = Callable[..., Array]
SPECIAL = (0.0, 1e-45, 1e-38, 2.0**-126, 0.3, 0.5, 1 - 2.0**-24, 1.0, 1 + 2.0**-23, 1.5, 2.0, 2.5,
           3.0, 88.0, 127.0, 128.0, 149.0, 150.0, 2.0**23 + 1, 2.0**24 - 1, 2.0**24, 1e30, 3.4e38,
           math.inf, math.nan)


def erf(x: Array) -> Array:
    """2/sqrt(pi) * x * (1 - x^2/3) for |x| < 2^-14, +-1 beyond 6, in between the C library's."""
    result = np.sign(x)  # NaN stays NaN
    near = np.abs(x) < 2.0**-14
    result[near] = 2 / math.sqrt(math.pi) * x[near] * (1 - x[near] * x[near] / 3)
    middle = ~near & (np.abs(x) < 6)
    result[middle] = [math.erf(v) for v in x[middle].tolist()]
    return result


def gelu(x: Array) -> Array:
    """x/2 * (1 + tanh(u)) without the cancellation."""
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return x / (1 + np.exp(-2 * u))


# fmt: off
REFERENCE: dict[str, Function] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log1p": np.log1p, "tanh": np.tanh, "erf": erf, "sin": np.sin, "cos": np.cos,
    "rsqrt": lambda x: 1 / np.sqrt(x), "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil,
    "trunc": np.trunc, "rint": np.rint, "round": lambda x: np.trunc(x + np.copysign(0.5, x)),
    "silu": lambda x: x / (1 + np.exp(-x)), "gelu": gelu, "pow": np.power,
}
# fmt: on
SYMMETRY = {"sin": -1, "cos": 1, "erf": -1, "tanh": -1}  # f(-x) = +-f(x)
# where the formula itself, in float32, loses digits: ULP count above this x, below only the distance
ULP_FROM = {"silu": -5.0, "gelu": -0.5}


@dataclass(frozen=True, slots=True)
class Finding:
    """The largest error, at least 1/2, and the input it occurs at; the number of results of the
    wrong kind; the largest distance |got - exact| / max(1, |exact|)."""

    ulp: float = 0.5
    at: tuple[float, ...] = ()
    wrong: int = 0
    distance: float = 0.0

    def worse(self, other: Finding) -> Finding:
        top = other if other.ulp > self.ulp else self
        return Finding(top.ulp, top.at, self.wrong + other.wrong,
                       max(self.distance, other.distance))


def trace_of(name: str) -> OpTrace:
    """out[i] = name(x[i]) or name(x[i], y[i]); silu and gelu as the catalogue has them."""
    if name in ULP_FROM:
        return stored_trace(name)
    body, i0, n = BodyBuilder(), Affine.sym("i0"), Affine.sym("n")
    names = ("x", "y") if name == "pow" else ("x",)
    args = [body.add(Op.LOAD, imm=(p, i0)) for p in names]
    if name == "rsqrt":
        value = body.add(Op.DIV, body.const(1.0), body.add(Op.SQRT, *args))
    else:
        value = body.add(Op(name), *args)
    params = (*(Param(p, "in") for p in names), Param("out", "out"), Param("n", "dim"))
    return OpTrace(name, params, tuple(body.body), (Store("out", i0, value, (("i0", n),)),))


def compiled(name: str, isa: Isa) -> Function:
    """The function as machine code on arrays."""
    kernel = generate(trace_of(name), isa, default_params(isa))
    batch = place_batch([compile_kernel(kernel, isa).bytes])
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                    ctypes.c_void_p])(batch.addresses[0])

    def function(*values: Array, keep: object = batch) -> Array:
        result = np.empty_like(values[0])
        args = np.array([*(v.ctypes.data for v in (*values, result)), result.size], np.int64)
        call(args.ctypes.data, 0, result.size, 0)
        return result

    return function


def errors(got: Array, exact: Array) -> Array:
    """|got - exact| in units of the last place of exact; denormals have the smallest normal's."""
    size = np.maximum(np.abs(exact), 2.0**-126)
    unit = (size.view(np.int64) & EXPONENT).view(np.float64)
    return np.abs(got - exact) / unit * 2.0**23


def reference(name: str, *inputs: Array) -> Array:
    """The exact result; where the second half of the inputs is that of -x, by symmetry."""
    half = inputs[0].size // 2
    if name in SYMMETRY and np.array_equal(inputs[0][half:], -inputs[0][:half]):
        first = REFERENCE[name](inputs[0][:half])
        return np.concatenate((first, SYMMETRY[name] * first))
    return REFERENCE[name](*inputs)


def examine(name: str, functions: list[Function], *inputs: Array) -> list[Finding]:
    """Compare each function with float64 at the same inputs.

    What has the bits of the nearest float32 is within 1/2 ULP; only the rest is looked at.
    """
    findings: list[Finding] = []
    with np.errstate(all="ignore"):
        exact = reference(name, *(x.astype(np.float64) for x in inputs))
        nearest = exact.astype(np.float32)
        np.copyto(nearest, np.nan, where=np.isnan(nearest))  # one NaN, that of the rows
        for function in functions:
            got = function(*inputs)
            rest = np.flatnonzero(got.view(np.uint32) != nearest.view(np.uint32))
            arrays = (got[rest], exact[rest], nearest[rest], *(x[rest] for x in inputs))
            findings.append(compare(name, *arrays) if rest.size else Finding())
    return findings


def compare(name: str, got: Array, exact: Array, nearest: Array, *inputs: Array) -> Finding:
    finite = np.isfinite(nearest) & np.isfinite(got)
    kind = finite | (got == nearest) | (np.isnan(nearest) & np.isnan(got))
    signs = (np.signbit(got) == np.signbit(nearest)) | np.isnan(nearest)
    exact = np.where(finite, exact, 1.0)
    error, distance = np.where(finite, errors(got, exact), 0.0), 0.0
    if name in ULP_FROM:
        error[~(inputs[0] >= ULP_FROM[name])] = 0.0
        far = np.abs(got - exact) / np.maximum(1.0, np.abs(exact))
        distance = float(np.where(finite, far, 0.0).max())
    worst = int(np.argmax(error))
    at = tuple(float(x[worst]) for x in inputs)
    return Finding(float(error[worst]), at, int(np.sum(~(kind & signs))), distance)


def every(stride: int) -> Iterator[tuple[Array]]:
    """All bit patterns, or every `stride`-th from 0 on; each beside its negative."""
    offsets = np.arange(0, CHUNK // 2 * stride, stride, dtype=np.uint64)
    for start in range(0, 1 << 31, CHUNK // 2 * stride):
        bits = (start + offsets).astype(np.uint32)
        yield (np.concatenate((bits, bits | np.uint32(1 << 31))).view(np.float32),)


def pairs(count: int, seed: int = 30) -> Iterator[tuple[Array, Array]]:
    """Special values with each other, then draws: any bits; any result in range; near 1; integers."""
    values = [s * v for v in SPECIAL for s in (1, -1)]
    grid = np.array(list(product(values, repeat=2)), np.float32)
    yield grid[:, 0].copy(), grid[:, 1].copy()
    rng = np.random.default_rng(seed)
    for _ in range(0, count, CHUNK):
        x, y = rng.integers(0, 1 << 32, (2, CHUNK), np.uint32).view(np.float32)
        part = CHUNK // 4
        one = int(np.float32(1).view(np.uint32))
        near = one + (rng.standard_normal(part) * 2.0 ** rng.uniform(2, 24, part)).astype(np.int64)
        x[part : 2 * part] = near.astype(np.uint32).view(np.float32)
        middle = slice(part, 3 * part)
        with np.errstate(all="ignore"):
            y[middle] = rng.uniform(-152, 130, 2 * part) / np.log2(np.abs(x[middle]))
            y[3 * part :] = np.rint(140 / np.log2(np.abs(x[3 * part :])) * rng.uniform(-1, 1, part))
        yield x, y


def survey(name: str, isas: list[Isa], inputs: Iterator[tuple[Array, ...]],
           progress: Callable[[int], None] = lambda count: None) -> list[Finding]:
    """The worst of each instruction set over all inputs."""
    functions, best = [compiled(name, isa) for isa in isas], [Finding()] * len(isas)
    for count, arrays in enumerate(inputs):
        best = [a.worse(b) for a, b in zip(best, examine(name, functions, *arrays), strict=True)]
        progress(count)
    return best


def row(name: str, inputs: str, found: list[Finding]) -> str:
    """One line of the table."""
    cells = []
    for f in found:
        at = ", ".join(f"{x:.9g}" for x in f.at)
        error = f"{f.ulp:.3f} at {at}" if f.at else "correctly rounded"
        beside = f"; distance {f.distance:.1e}" if name in ULP_FROM else ""
        cells.append(f"{error}{beside}{f' WRONG {f.wrong}' if f.wrong else ''}")
    bound = f" (ULP for x >= {ULP_FROM[name]:g})" if name in ULP_FROM else ""
    return f"| {name} | {inputs}{bound} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(REFERENCE), metavar="FUNCTION")
    parser.add_argument("--isa", default="")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=24)
    options = parser.parse_args()
    isas = [isa for isa in host_isas() if options.isa in ("", isa.name)]
    print(f"| function | inputs | {' | '.join(i.name for i in isas)} |\n|{'---|' * (2 + len(isas))}")
    every_one = "all 2^32" if options.stride == 1 else f"every {options.stride}th of 2^32"
    for name in options.names:
        whole = (1 << options.pairs if name == "pow" else (1 << 32) // options.stride) // CHUNK

        def progress(count: int, name: str = name, whole: int = whole) -> None:
            if count % 4096 == 0 and sys.stderr.isatty():
                print(f"\r{name} {100 * count // max(1, whole)}%", end="\r", file=sys.stderr)

        inputs = pairs(1 << options.pairs) if name == "pow" else every(options.stride)
        label = f"2^{options.pairs} pairs" if name == "pow" else every_one
        print(row(name, label, survey(name, isas, inputs, progress)), flush=True)


if __name__ == "__main__":
    main()
