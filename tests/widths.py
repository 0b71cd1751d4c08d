"""The functions of widths.c: compiled, lifted, and called with random arguments of their types."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from gllm_kernels.dtypes import STORED
from gllm_kernels.lift import verify
from gllm_kernels.lift.lifter import lift
from gllm_kernels.trace.ir import OpTrace

SOURCE = Path(__file__).with_suffix(".c")
DECLARATIONS = {
    re.search(r"(\w+)\(", d)[1]: d
    for d in re.findall(r"^((?:void|float|double|int|int\d\d_t) \w+\(.*?\)) \{", SOURCE.read_text(),
                        re.MULTILINE)
}
SCALAR = {"gcc": ("-fno-tree-vectorize", "-fno-tree-slp-vectorize"),
          "clang": ("-fno-vectorize", "-fno-slp-vectorize")}
COMPILERS = [name for name in SCALAR if shutil.which(name)]
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 3e9, -3e9, 5e9, 1e19, -1e19,
                    2147483648.0, -2147483648.0, 2.5, -2.5, 0.5, 127.5, -128.5])
INTEGERS = {"k": 3, "z": 3}  # arguments that are numbers, not sizes


@cache
def library(compiler: str, *flags: str) -> str:
    path = f"{mkdtemp(prefix='widths')}/widths.so"
    subprocess.run([compiler, *flags, *SCALAR[compiler], "-ffp-contract=off", "-fno-jump-tables",
                    "-w", "-fPIC", "-shared", str(SOURCE), "-o", path, "-lm"], check=True)
    return path


@cache
def trace(name: str) -> OpTrace:
    return lift(library(COMPILERS[0], "-O1"), DECLARATIONS[name], verify=False)


def elements(rng: np.random.Generator, ctype: str, count: int) -> np.ndarray:
    """The whole range of an integer type; normal numbers and special ones."""
    dtype = STORED[ctype]
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, count, dtype=dtype, endpoint=True)
    values = rng.standard_normal(count) * 4
    with np.errstate(all="ignore"):
        return np.where(rng.random(count) < 0.1, rng.choice(SPECIAL, count), values).astype(dtype)


def arguments(of: OpTrace, sizes: dict[str, int], rng: np.random.Generator) -> dict:
    made: dict = {}
    for param in of.params:
        if param.role == "dim":
            made[param.name] = INTEGERS.get(param.name, sizes.get(param.name, 3))
    for param in of.params:
        if param.role == "scalar":
            made[param.name] = 0.37
        elif param.role != "dim":
            count = verify.reach(of, param.name, {k: v for k, v in made.items() if type(v) is int})
            made[param.name] = elements(rng, param.ctype, count)
    return made


def assert_equal(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """Integers to the bit; floats as closely as sums in another order are."""
    assert got.dtype == want.dtype, what
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)
