"""Products with quantised weights: x @ w.T for x of m rows and w of n rows of k values, beside torch on float32.

Blocks are random ones whose values are finite; a result is right when it is the product of the values
with x rounded as `codegen.quads` rounds it, to single precision.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ... import ops
from ...codegen.isa.detect import current_isa, current_isa_name
from ...errors import ConfigError
from ...ops.qtensor import recipe_for
from ...scalar.formats import FORMATS
from .cases import Case, Shape
from .peers import Array, Candidate, Peers, rotating, tensor

DEFAULT = "Q4_0,Q8_0,Q4_K,Q6_K"
SHAPES: tuple[Shape, ...] = tuple((m, 4096, 4096) for m in (1, 4, 8, 32, 128))


def quantised_case(format: str, shape: Shape) -> Case:
    """Bytes are those of the panels, or of the blocks where there are none."""
    row, isa, (m, n, k) = FORMATS.lookup(format), current_isa(), shape
    if k % max(32, row.values):
        raise ConfigError(f"{format}: K={k} must be a multiple of {max(32, row.values)}")
    block = recipe_for(format, isa.lanes).panels if isa else None
    bytes_ = n * k * row.size // row.values if block is None else (
        n * k * block.panel_bytes // (block.lanes * block.block))
    return Case("quantised", "matmul", format, "nt", shape, 2 * m * n * k, bytes_ + 4 * (m * k + m * n))


def quantised_candidates(case: Case, peers: Peers, cold: int) -> tuple[dict[str, Candidate], Array]:
    (m, n, k), rng = case.shape, np.random.default_rng(0)
    w, x = random_weights(case.type, n, k), rng.standard_normal((m, k), np.float32)
    values = w.dequantize()
    copies = [w, *(copied(w) for _ in range(-(-cold // case.bytes) - 1))]
    out = np.full((m, n), np.nan, np.float32)
    runs = [lambda w=w: ops.matmul(x, w, out=out) for w in copies]
    found = {"ours": Candidate(rotating(runs), lambda: out)}
    if peers.torch:
        left, target = tensor(peers.torch, x), np.full((m, n), np.nan, np.float32)
        right = [tensor(peers.torch, values.copy()) for _ in range(-(-cold // values.nbytes) or 1)]
        into = tensor(peers.torch, target)
        runs = [lambda r=r: peers.torch.matmul(left, r.T, out=into) for r in right]
        found["torch"] = Candidate(rotating(runs), lambda: target)
    return found, rounded(x, case.type) @ values.T.astype(np.float64)


def copied(w: ops.QTensor) -> ops.QTensor:
    """The same weights elsewhere in memory."""
    other, form = ops.QTensor(w.blocks, w.format, w.shape), w.resident()
    other.forms[current_isa_name()] = replace(form, panels=form.panels.copy())
    return other


def random_weights(format: str, n: int, k: int) -> ops.QTensor:
    """Random bytes; what decodes to something that is not finite or large is zero."""
    row = FORMATS.lookup(format)
    blocks = np.random.default_rng(1).integers(0, 256, (n * k // row.values, row.size), np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        blocks[~(np.abs(ops.dequantize(blocks, format)) < 1e3).all(axis=1)] = 0
    return ops.QTensor(blocks, format, (n, k))


def rounded(x: Array, format: str) -> Array:
    """The rows as products read them: signed bytes, and a step for each block."""
    isa = current_isa()
    if isa is None:
        return x.astype(np.float64)
    parts = x.reshape(len(x), -1, recipe_for(format, isa.lanes).panels.block)
    top = np.abs(parts).max(axis=2, keepdims=True)
    codes = np.rint(parts * (np.float32(127) / top))
    return (codes * (top * np.float32(1 / 127)).astype(np.float64)).reshape(x.shape)
