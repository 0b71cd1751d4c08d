"""Tiles are multiples of the grain, as large as the threads' balance allows, and change no bit."""

import ctypes

import numpy as np
import pytest

from gllm_kernels.executable.program import ONE_TILE, TILES, Program, Step, tile_sizes
from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.graph.registry import operator_named
from gllm_kernels.pipeline import compile_graph
from gllm_kernels.trace.affine import Affine

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


def tiles_of(units: int, grain: int, threads: int) -> list[tuple[int, int]]:
    """What a program of one step hands out, in order of begin."""
    seen: list[tuple[int, int]] = []
    code = KERNEL(lambda args, begin, end, scratch: seen.append((begin, end)))
    address = ctypes.cast(code, ctypes.c_void_p).value or 0
    step = Step(address, (), Affine.sym("n"), grain, "record")
    Program((step,), (), ("n",), keep=(code,)).run([], [units], threads)
    return sorted(seen)


@pytest.mark.parametrize("units", [1, 128, 129, 5000])
@pytest.mark.parametrize("grain", [1, 128, ONE_TILE])
def test_one_thread_makes_one_call(units: int, grain: int) -> None:
    assert tiles_of(units, grain, 1) == [(0, units)]


@pytest.mark.parametrize("units", [1, 127, 128, 1025, 5000, 100_000])
@pytest.mark.parametrize("threads", [2, 3])
def test_tiles_cover_all_units_at_multiples_of_the_grain(units: int, threads: int) -> None:
    tiles = tiles_of(units, 128, threads)
    assert [begin for begin, _ in tiles] == [0, *(end for _, end in tiles[:-1])]
    assert tiles[-1][1] == units
    assert all(begin % 128 == 0 for begin, _ in tiles)
    assert len(tiles) == min(-(-units // 128), len(tiles)) <= TILES * threads
    if units >= 128 * TILES * threads:
        assert len(tiles) > threads * TILES / 2


def test_the_size_of_a_tile_follows_threads_and_dims() -> None:
    units, grains = np.array([0, 100, 4096, 4097]), np.array([128, 128, 128, 128])
    assert tile_sizes(units, grains, 1).tolist() == [128, 128, 4096, 4224]
    assert tile_sizes(units, grains, 2).tolist() == [128, 128, 512, 640]


@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_any_number_of_threads_gives_the_same_bits(tokens: int) -> None:
    random = np.random.default_rng(tokens)
    graph = CompilerGraph(operator_named)
    x = graph.input("x", ("tokens", 70))
    first = random.standard_normal((4133, 70), np.float32)
    second = random.standard_normal((600, 4133), np.float32)
    hidden = graph.op("silu", graph.op("gemm_bt", x, graph.weight("first", first)))
    graph.output("y", graph.op("gemm_bt", hidden, graph.weight("second", second)))
    layer = compile_graph(graph)
    values, results = random.standard_normal((tokens, 70), np.float32), []
    for threads in (1, 2, 3, 1):
        layer.threads = threads
        results.append(layer(x=values)["y"].copy())
    gates = values @ first.T
    np.testing.assert_allclose(
        results[0], (gates / (1 + np.exp(-gates))) @ second.T, rtol=1e-3, atol=1e-2)
    assert all(np.array_equal(results[0], r) for r in results[1:])
