"""Differential verification: the trace interpreter against the function itself.

Nothing of the lifter is used here but its result. Every byte of every buffer is compared, also
around the elements that the trace knows, bit for bit (any NaN equals any NaN), at sizes 0, 1, 2,
around lane counts, primes and one large, then with special values one at a time and with ties.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any

import numpy as np

from ..errors import LiftError
from ..trace.interp import run
from ..trace.ir import REALS, OpTrace
from ..trace.shapes import MOST_NUMBER, accesses, numbers, reached
from .data import ELEMENTS
from .signature import Signature

MARGIN = 256  # elements of canary before and after each array
# fmt: off
SIZES: dict[int, tuple[tuple[int, ...], ...]] = {
    0: ((),),
    1: tuple((n,) for n in (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65, 127, 257, 2053)),
    2: ((0, 3), (3, 0), (1, 1), (1, 2), (2, 1), (5, 7), (7, 16), (9, 17), (3, 33), (2, 257),
        (131, 2), (31, 67)),
    3: ((0, 2, 3), (2, 0, 3), (2, 3, 0), (1, 1, 1), (1, 2, 3), (3, 2, 1), (5, 7, 9), (4, 8, 16),
        (3, 17, 2), (2, 5, 65), (33, 2, 3), (13, 19, 31)),
    4: ((0, 2, 3, 4), (2, 3, 0, 4), (1, 1, 1, 0), (1, 1, 1, 1), (2, 3, 4, 5), (5, 3, 8, 2),
        (3, 2, 17, 9), (7, 5, 33, 31)),
}
SPECIALS = (
    "nan", "inf", "-inf", "-0.0", "0.0", "1e-45", "-1e-40", "1.1754944e-38", "3.4028235e38",
    "-3.4028235e38", "88.8", "-104.0",
)
# fmt: on
CTYPES = {
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "size_t": ctypes.c_size_t,
    "ptrdiff_t": ctypes.c_ssize_t,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "long": ctypes.c_long,
    "unsigned long": ctypes.c_ulong,
    "long long": ctypes.c_longlong,
    "unsigned long long": ctypes.c_ulonglong,
    "ssize_t": ctypes.c_ssize_t,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "unsigned": ctypes.c_uint,
    "unsigned int": ctypes.c_uint,
    "void": None,
}  # fmt: skip
Native = Callable[..., Any]
MOST_ELEMENTS = 1 << 18


def native(address: int, signature: Signature) -> Native:
    """The function at `address` as Python calls it."""
    kinds = [ctypes.c_void_p if a.kind == "pointer" else CTYPES[a.ctype]
             for a in signature.arguments]  # fmt: skip
    return ctypes.CFUNCTYPE(CTYPES[signature.result], *kinds)(address)


@dataclass
class Case:
    """One call: sizes, scalars and the arrays with their margins."""

    trace: OpTrace
    sizes: dict[str, int]
    scalars: dict[str, float]
    buffers: dict[str, np.ndarray]

    def body(self, name: str) -> np.ndarray:
        return self.buffers[name][MARGIN:-MARGIN]

    def text(self) -> str:
        return ", ".join(f"{n} = {s}" for n, s in self.sizes.items()) or "no sizes"


def verify(
    trace: OpTrace, signature: Signature, function: Native, most: int | None = None
) -> int:
    """The number of calls that were equal, of the first `most` or of all; a LiftError for the first
    that was not."""
    _check_distances(trace)
    _check_numbers(trace)
    count = 0
    for case in islice(cases(trace, signature), most):
        compare(case, signature, function)
        count += 1
    return count


def _check_distances(trace: OpTrace) -> None:
    """Arrays that are large where all sizes are small cannot be tried at twenty sizes."""
    for name in trace.names("in", "out", "inout"):
        needed = reach(trace, name, dict.fromkeys(trace.names("dim"), 2))
        if needed > MOST_ELEMENTS:
            raise LiftError(
                f"{trace.name}: `{name}` has {needed} elements where all sizes are 2; at most "
                f"{MOST_ELEMENTS} can be verified\n  change: pass a pointer to the first element"
            )


def _check_numbers(trace: OpTrace) -> None:
    """A number made of sizes that no size, or none that is tried, leaves in range."""
    dims = trace.names("dim")
    largest = max(map(max, SIZES.get(len(dims)) or ((3,),)), default=0) if dims else 0
    for value in numbers(trace):
        for size, limit in ((1, MOST_NUMBER), (largest, (1 << 63) - 1)):
            if value.evaluate(dict.fromkeys(dims, size)) > limit:
                raise LiftError(
                    f"{trace.name}: {value} is used as a number and exceeds {limit} where the sizes "
                    f"are {size}\n  change: multiply in float, or pass the number as a float argument"
                )


def cases(trace: OpTrace, signature: Signature) -> Iterator[Case]:
    """Random data at all sizes, then special values at a small one: one at a time, and ties."""
    rng = np.random.default_rng(len(trace.body))
    dims = [a.name for a in signature.of_kind("dim")]
    table = SIZES.get(len(dims)) or tuple((k % 3 + 1,) * len(dims) for k in range(6))
    for row in table:
        sizes = dict(zip(dims, row, strict=True))
        if not overlapping(trace, sizes):
            yield _case(trace, sizes, rng)
    some = [dict(zip(dims, row)) for row in permutations((3, 5, 4, 2, 3, 2)[:len(dims)])]
    small = next((sizes for sizes in some if not overlapping(trace, sizes)), some[0])
    for name in trace.names("in", "inout"):
        for special in SPECIALS:
            for place in (0, -1):
                case = _case(trace, small, rng)
                if case.body(name).size and case.body(name).dtype.kind == "f":
                    case.body(name)[place] = float(special)
                    yield case
    case = _case(trace, small, rng)
    for buffer in case.buffers.values():  # ties, and zeros of both signs
        if buffer.dtype.kind == "f":
            buffer[:] = rng.choice([-0.0, 0.0, 1.0, -1.0, 2.0], buffer.size)
    yield case


def overlapping(trace: OpTrace, sizes: dict[str, int]) -> bool:
    """Whether an element is written twice: a stride is smaller than its row, which is outside of
    the contract, because the order of writing is no part of a trace."""
    written: dict[str, list[np.ndarray]] = {}
    for store in trace.stores:
        extents = [max(0, e.evaluate(sizes)) for _, e in store.domain]
        mesh = np.ogrid[tuple(slice(0, e) for e in extents)] if extents else []
        env = sizes | dict(zip((b for b, _ in store.domain), mesh, strict=True))
        places = np.broadcast_to(store.index.evaluate(env), extents)
        written.setdefault(store.param, []).append(places.reshape(-1))
    rows = [np.concatenate(found) for found in written.values()]
    return any(len(np.unique(row)) < len(row) for row in rows)


def _case(trace: OpTrace, sizes: dict[str, int], rng: np.random.Generator) -> Case:
    buffers = {}
    for name in trace.names("in", "out", "inout"):
        length = reach(trace, name, sizes)
        buffers[name] = _random(rng, trace.param(name).ctype, length + 2 * MARGIN)
    scalars = {n: float(np.float32(rng.uniform(0.1, 2.0))) for n in trace.names("scalar")}
    return Case(trace, sizes, scalars, buffers)


def _random(rng: np.random.Generator, ctype: str, count: int) -> np.ndarray:
    """Values of both signs and several scales; integers over their whole range."""
    if ctype in REALS:
        values = rng.standard_normal(count) * 2.0 ** rng.integers(-3, 3)
        return values.astype(np.float32 if ctype == "float" else np.float64)
    size, low, high = ELEMENTS[ctype]
    kind = "i" if low else "u"
    return rng.integers(low, high, count, np.dtype(f"{kind}{size}"), endpoint=True)


def reach(trace: OpTrace, name: str, sizes: dict[str, int]) -> int:
    """1 + the largest element that the trace reads or writes."""
    return 1 + max((last for _, last in reached(accesses(trace, name), sizes)), default=-1)


def compare(case: Case, signature: Signature, function: Native) -> None:
    """Call both on copies of the same data; raise at the first difference."""
    ours = {n: b.copy() for n, b in case.buffers.items()}
    arrays = {n: b[MARGIN:-MARGIN] for n, b in ours.items()}
    wanted = run(case.trace, {**arrays, **case.sizes, **case.scalars})
    arguments = []
    for arg in signature.arguments:
        if arg.kind == "pointer":
            arguments.append(case.body(arg.name).ctypes.data)
        else:
            arguments.append({**case.sizes, **case.scalars}[arg.name])
    got = function(*arguments)
    for name, buffer in case.buffers.items():
        _equal(case, name, ours[name], buffer, -MARGIN)
    if wanted is not None:
        pair = (np.array([x], wanted.dtype) for x in (wanted, got))
        _equal(case, "the result", *pair, 0)


def _equal(case: Case, name: str, wanted: np.ndarray, got: np.ndarray, first: int) -> None:
    bits = np.dtype(f"u{wanted.itemsize}")
    same = wanted.view(bits) == got.view(bits)
    if wanted.dtype.kind == "f":
        same |= np.isnan(wanted) & np.isnan(got)
    if same.all():
        return
    place = int(np.argmin(same))
    where = name if name == "the result" else f"{name}[{place + first}]"
    raise LiftError(
        f"{case.trace.name}: the trace is not what the function computes: at {case.text()}, "
        f"{where} is {got[place]!r} and the trace says {wanted[place]!r}\n{case.trace}\n"
        "  change: this is an error of the lifter, please report it with the function"
    )
