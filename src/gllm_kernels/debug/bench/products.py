"""Candidates of a product: our public operators, numpy (OpenBLAS), torch (MKL, oneDNN).

Operands are integers in -4..4: every sum below 2^24 is exact in float32 in any order, so a product
is right to the bit or wrong, and one lost or doubled term shows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ... import ops
from .cases import PREPACKED, TYPES, Case, mnk
from .peers import Array, Candidate, Peers, rotating, tensor

PANEL = 1024  # columns of the reference at a time: float64 is twice as large

Product = Callable[[Array, Array | ops.PackedB, Array], object]
PUBLIC = {("gemm", "nn"): "gemm", ("gemm", "nt"): "matmul",
          ("gemv", "nn"): "gemm", ("gemv", "nt"): "gemv",
          (PREPACKED, "nn"): PREPACKED, (PREPACKED, "nt"): PREPACKED}


def product_candidates(case: Case, peers: Peers,
                       cold: int) -> tuple[dict[str, Candidate], Array]:
    """Who computes the product, and what is right. `cold` bytes of weights rotate (0: one set)."""
    a, b = operands(case)
    copies = [b, *(b.copy() for _ in range(-(-cold // b.nbytes) - 1))]
    found = {"ours": candidate(case, a, our_copies(case, copies), our_product(case))}
    if peers.numpy and case.type == "f32":  # other types have no BLAS behind them
        found["numpy"] = candidate(case, a, copies, numpy_product(case))
    if peers.torch:
        found["torch"] = torch_candidate(case, a, copies, peers)
    return found, reference(case, a, b)


def operands(case: Case) -> tuple[Array, Array]:
    """x or A, and the weights as they are stored."""
    (m, n, k), rng = mnk(case.shape), np.random.default_rng(0)
    shapes = (k,) if case.kind == "gemv" else (m, k), (n, k) if case.layout == "nt" else (k, n)
    a, b = (rng.integers(-4, 5, shape, np.int8).astype(TYPES[case.type]) for shape in shapes)
    return a, b


def blank(case: Case) -> Array:
    """A result that is wrong until it is written."""
    m, n, _ = mnk(case.shape)
    return np.full((n,) if case.kind == "gemv" else (m, n), np.nan, TYPES[case.type])


def our_copies(case: Case, copies: list[Array]) -> list[Array | ops.PackedB]:
    """As they are, or packed beforehand."""
    if case.name != PREPACKED:
        return copies
    return [ops.pack_b(b, transposed=case.layout == "nt") for b in copies]


def candidate(case: Case, a: Array, copies: list[Array | ops.PackedB],
              product: Product) -> Candidate:
    c = blank(case)
    return Candidate(rotating([lambda b=b: product(a, b, c) for b in copies]), lambda: c)


def our_product(case: Case) -> Product:
    """The operator that users call; gemv takes the matrix first."""
    op = getattr(ops, PUBLIC[case.name, case.layout])
    if PUBLIC[case.name, case.layout] == "gemv":
        return lambda a, b, c: op(b, a, out=c)
    return lambda a, b, c: op(a, b, out=c)


def numpy_product(case: Case) -> Product:
    if case.layout == "nt":
        return lambda a, b, c: np.matmul(a, b.T, out=c)
    return lambda a, b, c: np.matmul(a, b, out=c)


def torch_candidate(case: Case, a: Array, copies: list[Array], peers: Peers) -> Candidate:
    torch, left, out = peers.torch, tensor(peers.torch, a), blank(case)
    right, target = [tensor(torch, b) for b in copies], tensor(torch, out)
    if (case.layout == "nt") != (case.kind == "gemv"):
        right = [b.T for b in right]  # torch.mv takes the matrix first
    if case.kind == "gemv":
        runs = [lambda b=b: torch.mv(b, left, out=target) for b in right]
    else:
        runs = [lambda b=b: torch.matmul(left, b, out=target) for b in right]
    return Candidate(rotating(runs), lambda: out)


def reference(case: Case, a: Array, b: Array) -> Array:
    """The product in float64."""
    right = b.T if case.layout == "nt" else b
    left = a.astype(np.float64)
    parts = [left @ right[:, j : j + PANEL].astype(np.float64)
             for j in range(0, right.shape[1], PANEL)]
    return np.concatenate(parts, axis=-1)
