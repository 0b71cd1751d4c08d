"""Nothing a graph is asked to do reaches outside its buffers or changes what is still to be read."""

import numpy as np
import pytest

from gllm_kernels.errors import CompileError, ShapeError
from gllm_kernels.graph.ir import CompilerGraph
from gllm_kernels.pipeline import compile_graph

ROWS = np.arange(80, dtype=np.float32).reshape(10, 8)


def cache_layer(states):
    g = CompilerGraph()
    cache, x = g.state("kv", (10, 8)), g.input("x", ("r", 8))
    g.op("relu", x, out=cache.slice(0, "pos", "r"))
    g.output("y", g.op("gemm_bt", x, cache))
    return compile_graph(g, states=states)


def test_a_state_is_never_written_behind_its_end():
    memory = np.zeros((20, 8), np.float32)
    layer = cache_layer({"kv": memory[:10]})
    layer(x=ROWS[:3], pos=7)
    for pos in (8, 10**9):
        with pytest.raises(ShapeError, match=r"slice pos:pos \+ r of axis 0 has 10 elements"):
            layer(x=ROWS[:3], pos=pos)
    with pytest.raises(ShapeError, match="below"):
        layer(x=ROWS[:3], pos=2**62)
    assert not memory[10:].any()


@pytest.mark.parametrize("states", [
    np.zeros((9, 8), np.float32), np.zeros((10, 8)), np.zeros((10, 8), np.float32, order="F"), None,
    np.broadcast_to(np.float32(0), (10, 8)),
], ids=("shape", "dtype", "order", "none", "read-only"))
def test_a_state_of_another_kind_is_refused(states):
    with pytest.raises(ShapeError, match="state `kv`"):
        cache_layer({"kv": states})


@pytest.mark.parametrize("axis, start, length", [(1, 5, 9), (1, -1, 3), (0, -1, 1), (0, 4, 4),
                                                 (7, 0, 1)])
def test_slices_of_known_sizes_are_checked_at_once(axis, start, length):
    with pytest.raises(ShapeError):
        CompilerGraph().input("x", (5, 8)).slice(axis, start, length)


@pytest.mark.parametrize("axis, good, bad", [(0, 2, 3), (1, 6, 7)])
def test_dynamic_slices_are_checked_in_every_call(axis, good, bad):
    g = CompilerGraph()
    g.output("y", g.op("relu", g.input("x", ("r", 8)).slice(axis, "pos", 2)))
    layer = compile_graph(g)
    window = [slice(None)] * 2
    window[axis] = slice(good, good + 2)
    np.testing.assert_array_equal(layer(x=ROWS[:4], pos=good)["y"], ROWS[:4][tuple(window)])
    with pytest.raises(ShapeError, match="slice pos:pos"):
        layer(x=ROWS[:4], pos=bad)


@pytest.mark.parametrize("write", [
    lambda g, t: g.op("vec_add", t, t.permute(1, 0), out=t),
    lambda g, t: g.op("exp", t.slice(0, 0, 3), out=t.slice(0, 1, 3)),
    lambda g, t: g.op("vec_add", t, t.slice(0, 0, 1), out=t),
    lambda g, t: g.op("gemm", t, t, out=t),
], ids=("transposed", "shifted", "row", "product"))
def test_writing_over_an_input_is_refused(write):
    g = CompilerGraph()
    value = g.op("relu", g.input("x", (4, 4)))
    with pytest.raises(ShapeError, match="overlaps the input"):
        write(g, value)


def test_writing_the_same_view_and_apart_from_it_is_fine():
    g = CompilerGraph()
    t = g.op("relu", g.input("x", (4, 4)))
    g.op("vec_add", t, t, out=t)
    g.op("vec_scale", t.slice(0, 0, 2), s=3.0, out=t.slice(0, 2, 2))
    g.output("y", t)
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    want = 2 * x
    want[2:] = 3 * want[:2]
    np.testing.assert_array_equal(compile_graph(g)(x=x)["y"], want)


def test_a_fused_group_does_not_write_what_its_product_still_reads():
    g = CompilerGraph()
    x, s = g.input("x", (4, 4)), g.state("s", (4, 4))
    g.op("relu", g.op("gemm", x, s), out=s)
    g.output("y", g.op("vec_add", s, s))
    state = np.random.default_rng(0).standard_normal((4, 4), np.float32)
    want = np.maximum(np.eye(4, dtype=np.float32)[::-1] @ state, 0)
    got = compile_graph(g, states={"s": state})(x=np.eye(4, dtype=np.float32)[::-1].copy())["y"]
    np.testing.assert_allclose(got, 2 * want, rtol=1e-6)


def test_values_that_are_no_views_of_this_graph_are_refused():
    g, other = CompilerGraph(), CompilerGraph()
    with pytest.raises(ShapeError, match="wanted a view made by this graph, got ndarray"):
        g.op("silu", ROWS)
    with pytest.raises(ShapeError, match="belongs to no buffer of this graph"):
        g.op("silu", other.input("x", (3,)))


def test_names_of_arguments_are_checked():
    g = CompilerGraph()
    g.output("y", g.op("vec_scale", g.input("x", ("n",)), s="alpha"))
    layer = compile_graph(g)
    np.testing.assert_array_equal(layer(x=ROWS[1], alpha=0.5)["y"], ROWS[1] / 2)
    with pytest.raises(ShapeError, match="missing argument `alpha`; the layer takes x, alpha, n"):
        layer(x=ROWS[1])
    with pytest.raises(ShapeError, match="unknown argument `beta`"):
        layer(x=ROWS[1], alpha=1.0, beta=ROWS)
    with pytest.raises(ShapeError, match="no such output"):
        layer(x=ROWS[1], alpha=1.0, out={"z": ROWS[2]})


def test_results_may_not_share_memory_with_inputs():
    g = CompilerGraph()
    g.output("y", g.op("relu", g.input("x", ("n",))))
    x = ROWS[3].copy()
    with pytest.raises(ShapeError, match="shares memory with `x`"):
        compile_graph(g)(x=x, out={"y": x})


def test_indices_of_a_gather_are_looked_at():
    g = CompilerGraph()
    g.output("y", g.op("gather", g.input("table", ("v", 8)), g.input("ids", ("t",), "int32")))
    layer = compile_graph(g)
    np.testing.assert_array_equal(layer(table=ROWS, ids=np.array([9, 0], np.int32))["y"],
                                  ROWS[[9, 0]])
    for bad in (-1, 10, 2**31 - 1):
        with pytest.raises(ShapeError, match=r"`ids`\[1\] is .*0..9"):
            layer(table=ROWS, ids=np.array([3, bad], np.int32))


@pytest.mark.parametrize("kind", ["input", "weight"])
def test_calls_only_read_inputs_and_weights(kind):
    """Memory that may be read-only, mapped from a file, or given twice."""
    g = CompilerGraph()
    x = g.input("x", (4, 4))
    target = x if kind == "input" else g.weight("w", np.zeros((4, 4), np.float32))
    with pytest.raises(ShapeError, match=f"`out` lies in the {kind}"):
        g.op("silu", x, out=target)


@pytest.mark.parametrize("shape", [(-1, 2), (1.5, 2)])
def test_sizes_that_are_none(shape):
    with pytest.raises(ShapeError, match="no non-negative integer"):
        CompilerGraph().input("x", shape)


@pytest.mark.parametrize("threads", ["x", 1.5, -1, True])
def test_threads_that_are_none(threads):
    g = CompilerGraph()
    g.output("y", g.op("silu", g.input("x", (4, 4))))
    with pytest.raises(ShapeError, match="threads="):
        compile_graph(g, threads=threads)


def test_a_temporary_that_nobody_writes():
    g = CompilerGraph()
    g.output("y", g.op("silu", g.temp((4, 4))))
    with pytest.raises(CompileError, match="before it is written"):
        compile_graph(g)
