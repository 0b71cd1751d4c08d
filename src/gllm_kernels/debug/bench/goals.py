"""What a row shall reach: a share of a limit, a ratio, or GB/s."""

from __future__ import annotations

from dataclasses import dataclass

from .attention import SHAPES
from .cases import GRID, PREPACKED, Case, Shape, cubes, mnk

LARGE = frozenset(cubes(1024, 2048, 4096))


@dataclass(frozen=True, slots=True)
class Goal:
    """`metric` of rows of these names and types, this layout and ISA: at least `least`."""

    names: str
    types: str
    layout: str
    isa: str  # "": any vector ISA
    cold: bool
    shapes: frozenset[Shape]
    metric: str
    least: float
    threads: int = 1


def rows(*sizes: int) -> frozenset[Shape]:
    return frozenset((m, 4096, 4096) for m in sizes)


IN_CACHE = frozenset({(16, 4096)})
# fmt: off
GOALS = (
    Goal("gemm", "f32", "nn", "avx512", False, LARGE, "peak", 0.94),
    Goal("gemm", "f32", "nn", "avx512", False, frozenset(cubes(1000)), "peak", 0.92),
    Goal("gemm", "f32", "nn", "avx2", False, LARGE | frozenset(cubes(1000)), "peak", 0.93),
    Goal("gemm", "bf16", "nn", "avx512bf16", False, LARGE, "peak", 0.92),
    Goal("gemm", "f32 bf16", "nn", "", False, frozenset(GRID), "ratio", 1.0),
    Goal("gemm", "f32", "nn", "", False, frozenset(cubes(2048)), "one", 1.9, threads=2),
    Goal("gemm gemv", "f32 bf16", "nt", "", True, rows(1, 2), "read", 0.90),
    Goal("gemm", "f32 bf16", "nt", "", True, rows(4), "read", 0.75),
    Goal("gemm", "f32 bf16", "nt", "", True, rows(16), "peak", 0.78),
    Goal("gemm", "f32 bf16", "nt", "", True, rows(64), "peak", 0.88),
    Goal(PREPACKED, "f32", "nn", "avx512", False, LARGE, "peak", 0.96),
    Goal(PREPACKED, "f32 bf16", "nt", "", True, rows(4), "read", 0.80),
    Goal(PREPACKED, "f32 bf16", "nt", "", True, rows(16), "peak", 0.85),
    Goal(PREPACKED, "f32 bf16", "nt", "", True, rows(64), "peak", 0.94),
    Goal("attention", "f32 bf16", "", "", False, frozenset(SHAPES[:2]), "torch", 1.3),
    Goal("attention", "f32 bf16", "", "", True, frozenset(SHAPES[2:]), "read", 0.85),
    *(Goal(name, "f32", "", "", False, IN_CACHE, metric, least)
      for name, rate, times in (("silu", 33, 1.7), ("gelu", 25, 5), ("exp", 45, 4),
                                ("softmax", 29, 2.3), ("rms_norm", 60, 3))
      for metric, least in (("GB/s", rate), ("torch", times))),
)
# fmt: on


def goals_of(case: Case, isa: str, cold: bool, threads: int) -> list[Goal]:
    shape = mnk(case.shape) if case.kind in ("gemm", "gemv") else case.shape
    return [g for g in GOALS if threads == g.threads and isa != "scalar" and case.name in g.names.split()
            and case.type in g.types.split() and case.layout == g.layout
            and g.isa in ("", isa) and g.cold == cold and shape in g.shapes]
