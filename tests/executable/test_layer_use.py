"""One compiled layer used from everywhere: several Python threads, a forked child, an exiting interpreter, an
interrupted call."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.graph.registry import operator_named

WIDTH = 96


def made() -> tuple[object, np.ndarray, np.ndarray]:
    """swiglu(x @ gate.T, x @ up.T) for any number of rows, and its weights."""
    random = np.random.default_rng(0)
    gate, up = (random.standard_normal((130, WIDTH), np.float32) / 10 for _ in range(2))
    graph = gk.CompilerGraph(operator_named)
    x = graph.input("x", ("rows", WIDTH))
    products = [graph.op("gemm_bt", x, graph.weight(n, w)) for n, w in (("gate", gate), ("up", up))]
    graph.output("y", graph.op("swiglu", *products))
    return gk.compile_graph(graph, threads=2), gate, up


def expected(x: np.ndarray, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    g = x.astype(np.float64) @ gate.T
    return g / (1 + np.exp(-g)) * (x.astype(np.float64) @ up.T)


def test_threads_share_a_layer() -> None:
    """Calls of different sizes take turns; every caller has results of its own."""
    layer, gate, up = made()
    wrong: list[int] = []

    def work(number: int) -> None:
        random = np.random.default_rng(number)
        for round_ in range(30):
            x = random.standard_normal((1 + (number * 7 + round_ * 3) % 40, WIDTH), np.float32)
            if not np.allclose(layer(x=x)["y"], expected(x, gate, up), atol=1e-4):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_layer() -> None:
    layer, gate, up = made()
    x = np.ones((33, WIDTH), np.float32)
    before = layer(x=x)["y"]
    busy = threading.Event()
    other = threading.Thread(target=lambda: [layer(x=x) for _ in range(200) if not busy.is_set()])
    other.start()  # it may hold the layer at the moment of the fork
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        os._exit(int(not np.array_equal(layer(x=x)["y"], before)))
    _, status = os.waitpid(child, 0)
    busy.set()
    other.join()
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(layer(x=x)["y"], before)


LEAVING = """
import sys, threading, numpy as np
sys.path[:0] = sys.argv[1:]
from test_layer_use import made, WIDTH
layer = made()[0]
x = np.ones((400, WIDTH), np.float32)
started = threading.Event()
def work():
    while True:
        layer(x=x)
        started.set()
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
started.wait()
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "import os; os._exit(0)"])
def test_the_interpreter_may_leave_while_a_layer_runs(end: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVING + end, os.path.dirname(__file__)],
                          capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_call_after_a_refused_one_is_right() -> None:
    layer, gate, up = made()
    x = np.ones((3, WIDTH), np.float32)
    with pytest.raises(gk.GllmError):
        layer(x=x[:, 1:])
    np.testing.assert_allclose(layer(x=x)["y"], expected(x, gate, up), atol=1e-4)
