"""Random legal graphs over the catalogue: every value may be used again, viewed in another way, written into a
state, or stored in 16 bits. The same seed gives the same graph.

    graph, inputs = random_graph(7)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.graph.view import View
from gllm_kernels.trace.affine import Affine

WIDTHS = (1, 3, 8, 16, 17, 40, 64, 130)
TOKENS = (1, 2, 5, 17, 33)
LARGEST = 1e3  # of any value: differences stay far above what rounding does


@dataclass
class Value:
    """A view, and a size that its elements hardly exceed."""

    view: View
    bound: float

    @property
    def width(self) -> int:
        return self.view.shape[-1].constant


class Maker:
    """One random graph. `values` are two-dimensional, with rows of `tokens`."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.graph, self.arrays = CompilerGraph(), {}
        self.tokens = int(self.random.choice(TOKENS))
        self.values = [self.input() for _ in range(self.random.integers(1, 4))]
        self.loose: list[Value] = []  # what nobody has read yet

    def pick(self, width: int | None = None) -> Value:
        """One of the values, the late ones more often; of a width, made if there is none."""
        fit = [v for v in self.values if width in (None, v.width)]
        if not fit:
            return self.product(width)
        at = min(self.random.geometric(0.4), len(fit))
        found = fit[-at]
        self.loose = [v for v in self.loose if v is not found]
        return found

    def array(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape, np.float32)

    def dtype(self) -> str:
        return str(self.random.choice(("float32", "float32", "float32", "bfloat16", "float16")))

    def input(self) -> Value:
        name, width = f"x{len(self.arrays)}", int(self.random.choice(WIDTHS))
        self.arrays[name] = self.array(self.tokens, width)
        return Value(self.graph.input(name, ("tokens", width)), 4)

    def weight(self, *shape: int, dtype: str = "float32") -> View:
        array = self.array(*shape) / np.float32(math.sqrt(shape[-1] if len(shape) > 1 else 1))
        return self.graph.weight(f"w{len(self.graph.buffers)}", array.astype(np.dtype(dtype)))

    def keep(self, view: View, bound: float) -> Value:
        self.values.append(Value(view, bound))
        self.loose.append(self.values[-1])
        return self.values[-1]

    # -- one node each ------------------------------------------------------------------------------
    def unary(self) -> None:
        x, name = self.pick(), str(self.random.choice(("silu", "gelu", "relu", "tanh")))
        self.keep(self.graph.op(name, x.view), 1 if name == "tanh" else x.bound)

    def exponential(self) -> None:
        x = self.pick()
        if x.bound <= 4:
            self.keep(self.graph.op("exp", x.view), math.exp(x.bound))

    def binary(self) -> None:
        a = self.pick()
        b = self.pick(a.width)
        name = str(self.random.choice(("vec_add", "vec_sub", "vec_mul", "swiglu")))
        bound = a.bound + b.bound if name in ("vec_add", "vec_sub") else a.bound * b.bound
        if bound <= LARGEST:
            self.keep(self.graph.op(name, a.view, b.view), bound)

    def broadcast(self) -> None:
        a = self.pick()
        bias = self.weight(a.width)
        self.keep(self.graph.op("vec_add", a.view, bias), a.bound + 4)

    def scale(self) -> None:
        a, s = self.pick(), float(np.float32(self.random.uniform(-1, 1)))
        self.keep(self.graph.op("vec_scale", a.view, s=s), a.bound)

    def row(self) -> None:
        x = self.pick()
        name = str(self.random.choice(("softmax", "rms_norm", "layer_norm")))
        more = [self.weight(x.width) for _ in range(("softmax", "rms_norm", "layer_norm").index(name))]
        self.keep(self.graph.op(name, x.view, *more), 1 if name == "softmax" else 16)

    def product(self, width: int | None = None) -> Value:
        x, n = self.pick(), width or int(self.random.choice(WIDTHS))
        kind = self.random.integers(3)
        if kind == 0:
            made = self.graph.op("gemm", x.view, self.weight(x.width, n))
        elif kind == 1:
            made = self.graph.op("gemm_bt", x.view, self.weight(n, x.width, dtype=self.dtype()))
        else:
            made = self.graph.op("gemm_bias", x.view, self.weight(x.width, n), self.weight(n))
        return self.keep(made, min(LARGEST, 4 * x.bound * math.sqrt(x.width / n if kind != 1 else 1)))

    def gated(self) -> None:
        """Two products of one input that meet, one of them perhaps read again."""
        x, n = self.pick(), int(self.random.choice(WIDTHS))
        left, right = (self.graph.op("gemm_bt", x.view, self.weight(n, x.width)) for _ in range(2))
        bound = 4 * x.bound
        if bound * bound <= LARGEST:
            self.keep(self.graph.op("swiglu", left, right), bound * bound)
            if self.random.random() < 0.2:
                self.keep(left, bound)

    def long(self) -> None:
        """Values that wait until the last of many is known, twice."""
        start = self.pick()
        x, bias = start.view, self.weight(start.width)
        for _ in range(2):
            held = [x]
            for _ in range(int(self.random.integers(10, 15))):
                held.append(self.graph.op("vec_scale", self.graph.op("vec_add", held[-1], bias), s=0.7))
            x = held.pop()
            for value in held[1:]:
                x = self.graph.op("vec_scale", self.graph.op("vec_add", x, value), s=0.5)
        self.keep(x, start.bound + 16)

    def narrow(self) -> None:
        """A value in 16 bits, and back."""
        x, dtype = self.pick(), str(self.random.choice(("bfloat16", "float16")))
        half = self.graph.op("vec_scale", x.view, s=1.0, dtype=dtype)
        self.keep(self.graph.op("relu", half, dtype="float32"), x.bound)

    def heads(self) -> None:
        """Scores of every row against every row, by head: products over transposed views."""
        x = self.pick()
        count = next(c for c in (4, 2, 1) if x.width % c == 0)
        split = x.view.split(1, count, x.width // count).permute(1, 0, 2)
        scores = self.graph.op("vec_scale", self.graph.op("gemm_bt", split, split),
                               s=1 / (x.bound * x.bound))
        mixed = self.graph.temp(("tokens", x.width))
        out = mixed.split(1, count, x.width // count).permute(1, 0, 2)
        self.graph.op("gemm", self.graph.op("softmax", scores), split, out=out)
        self.keep(mixed, x.bound)

    def part(self) -> None:
        """Some of the columns, at any offset."""
        x = self.pick()
        start = int(self.random.integers(x.width))
        length = int(self.random.integers(1, x.width - start + 1))
        self.keep(self.graph.copy(x.view.slice(1, start, length)), x.bound)

    def remember(self) -> None:
        """Rows written into a state and read back with what was there before."""
        x = self.pick()
        state = self.graph.state(f"s{len(self.graph.buffers)}", (64, x.width))
        rows = state.slice(0, "pos", "tokens")
        self.graph.op("vec_scale", x.view, s=0.5, out=rows)
        self.keep(self.graph.op("relu", state.slice(0, 0, Affine.sym("pos") + Affine.sym("tokens"))
                                .slice(0, "pos", "tokens")), x.bound)

    def again(self) -> None:
        """A value written over itself: who read it before keeps what it was."""
        x = self.pick()
        if self.graph.buffers[x.view.buffer].kind == "temp":
            self.graph.op("vec_scale", x.view, s=0.5, out=x.view)
            self.loose = [x, *(v for v in self.loose if v is not x)]

    def finish(self) -> None:
        for number, value in enumerate(self.loose or self.values[-1:]):
            self.graph.output(f"y{number}", value.view)


STEPS: tuple[tuple[Callable[[Maker], object], float], ...] = (
    (Maker.unary, 4), (Maker.exponential, 1), (Maker.binary, 5), (Maker.broadcast, 2),
    (Maker.scale, 2), (Maker.row, 3), (Maker.product, 4), (Maker.narrow, 1), (Maker.heads, 1),
    (Maker.part, 1), (Maker.remember, 1), (Maker.again, 1), (Maker.gated, 1.5), (Maker.long, 0.3),
)


def random_graph(seed: int) -> tuple[CompilerGraph, dict[str, np.ndarray], int]:
    """A graph of 2 to 14 nodes or more, arrays for its inputs, and the number of its rows."""
    maker = Maker(seed)
    steps, weights = zip(*STEPS)
    share = np.array(weights) / sum(weights)
    for _ in range(maker.random.integers(2, 15)):
        steps[maker.random.choice(len(steps), p=share)](maker)
    maker.finish()
    return maker.graph, maker.arrays, maker.tokens
