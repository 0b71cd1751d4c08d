"""Random graphs: fused and compiled for every instruction set, they equal the same graph run operator by
operator through the scalar functions, and do not depend on the number of threads."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from random_graph import random_graph

import gllm_kernels as gk
from gllm_kernels.codegen.isa import detect
from gllm_kernels.fusion.plan import plan_fusion
from gllm_kernels.fusion.profile import DeviceProfile
from gllm_kernels.fusion.rules import FusionMode
from gllm_kernels.graph.dag import build_dag

COUNT, BATCH = 300, 10
PROFILE = DeviceProfile("avx2", 8, 16, 32 << 10, 256 << 10, 8 << 20, 2)
CAPS = [isa.name for isa in detect.host_isas()]


def computed(seed: int, isa: str, threads: int) -> dict[str, np.ndarray]:
    """Outputs and states of a second call, at position 3."""
    graph, arrays, tokens = random_graph(seed)
    with gk.config(isa=isa):
        layer = gk.compile_graph(graph, threads=threads)
    place = {"pos": 3} if "pos" in layer.program.dims else {}
    layer(**arrays, **place)
    results = layer(**arrays, **place)
    return {**results, **layer.states}


def assert_close(got: np.ndarray, want: np.ndarray, halves: bool) -> None:
    got, want = (np.asarray(a, np.float64) for a in (got, want))
    assert got.shape == want.shape and np.isfinite(want).all()
    size = max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=size * (3e-2 if halves else 2e-4))


def test_the_seeds_see_every_mode_and_its_refusals() -> None:
    modes, text = Counter(), ""
    for seed in range(COUNT):
        plan = plan_fusion(build_dag(random_graph(seed)[0].finish()), PROFILE)
        modes.update(d.mode for d in plan.decisions)
        text += str(plan)
    assert set(modes) == {None, *FusionMode} and min(modes.values()) >= 10, modes
    for words in ("is stored too", "one loop of", "in between", "others need"):
        assert words in text, words


@pytest.mark.parametrize("first", range(0, COUNT, BATCH))
def test_random_graphs(first: int) -> None:
    for seed in range(first, first + BATCH):
        graph = random_graph(seed)[0]
        halves = any(b.dtype.endswith("16") for b in graph.buffers.values())
        want = computed(seed, "scalar", 1)
        for isa in CAPS:
            got = computed(seed, isa, 1)
            for name in want:
                assert_close(got[name], want[name], halves)
            other = computed(seed, isa, 2 + seed % 2)
            assert all(np.array_equal(got[n], other[n], equal_nan=True) for n in got), (seed, isa)
