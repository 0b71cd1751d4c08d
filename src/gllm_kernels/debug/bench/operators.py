"""Candidates of an operator: ours, torch's, numpy's where it has the whole of it in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ... import ops
from .cases import TYPES, Case
from .peers import Array, Candidate, Peers, tensor

EPS = 1e-5  # of the norms, ours and torch's


@dataclass(frozen=True, slots=True)
class Operator:
    """`inputs` x: rows x columns, w, b: one row; `numpy` takes float64."""

    arrays: int  # of the size of the output, read or written
    inputs: str
    numpy: Callable[..., Array]
    torch: Callable[..., object]  # (torch, its functional, tensors...)
    ufunc: str = ""


def centred(x: Array) -> Array:
    return x - x.mean(-1, keepdims=True)


def over_rms(x: Array) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


# fmt: off
OPERATORS: dict[str, Operator] = {
    "vec_add":    Operator(3, "xx", np.add, lambda t, f, x, y: t.add(x, y), "add"),
    "exp":        Operator(2, "x", np.exp, lambda t, f, x: t.exp(x), "exp"),
    "tanh":       Operator(2, "x", np.tanh, lambda t, f, x: t.tanh(x), "tanh"),
    "silu":       Operator(2, "x", lambda x: x / (1 + np.exp(-x)), lambda t, f, x: f.silu(x)),
    "gelu":       Operator(2, "x", gelu, lambda t, f, x: f.gelu(x, approximate="tanh")),
    "softmax":    Operator(2, "x", softmax, lambda t, f, x: t.softmax(x, -1)),
    "rms_norm":   Operator(2, "xw", lambda x, w: over_rms(x) * w,
                           lambda t, f, x, w: f.rms_norm(x, w.shape, w, EPS)),
    "layer_norm": Operator(2, "xwb", lambda x, w, b: over_rms(centred(x)) * w + b,
                           lambda t, f, x, w, b: f.layer_norm(x, w.shape, w, b, EPS)),
}
# fmt: on


def operator_candidates(case: Case, peers: Peers) -> tuple[dict[str, Candidate], Array]:
    """Who computes the operator, and what is right."""
    op, inputs = OPERATORS[case.name], arrays_of(case)
    found = {"ours": ours(case, inputs)}
    if op.ufunc and case.type == "f32":  # numpy's other types go element by element
        found["numpy"] = with_out(getattr(peers.numpy, op.ufunc), case, inputs)
    if peers.torch:
        found["torch"] = torch_candidate(op, inputs, peers.torch)
    return found, op.numpy(*(x.astype(np.float64) for x in inputs))


def arrays_of(case: Case) -> list[Array]:
    rng = np.random.default_rng(0)
    shapes = {"x": case.shape}
    return [rng.standard_normal(shapes.get(letter, case.shape[1:]), np.float32)
            .astype(TYPES[case.type]) for letter in OPERATORS[case.name].inputs]


def ours(case: Case, inputs: list[Array]) -> Candidate:
    return with_out(getattr(ops, case.name), case, inputs)


def with_out(function: Callable[..., object], case: Case, inputs: list[Array]) -> Candidate:
    out = np.full(case.shape, np.nan, TYPES[case.type])
    return Candidate(lambda: function(*inputs, out=out), lambda: out)


def torch_candidate(op: Operator, inputs: list[Array], torch: ModuleType) -> Candidate:
    """torch's functions make their result; most of them take no `out`."""
    given, functional = [tensor(torch, x) for x in inputs], torch.nn.functional

    def run() -> object:
        return op.torch(torch, functional, *given)

    return Candidate(run, lambda: run().float().numpy())
