"""No floating-point arithmetic of the forward pass runs in numpy.

Every float array that Python can see during a forward pass (weights, tables, caches, logits) is
made untouchable: any numpy function on it, operators included, raises. And when the compiled
program does nothing, nothing else fills the logits.
"""

import numpy as np
import pytest

from gllm_kernels.executable import layer as layer_module
from gllm_kernels.executable.program import Program
from gllm_kernels.model.llama import TINY, Llama


class Untouchable(np.ndarray):
    """A float array whose elements only compiled code may use."""

    def __array_ufunc__(self, ufunc, method, *inputs, **named):
        raise AssertionError(f"numpy computed {ufunc.__name__} on a float array")

    def __array_function__(self, function, types, args, named):
        raise AssertionError(f"numpy called {function.__name__} on a float array")


@pytest.fixture
def llama(monkeypatch):
    model = Llama(TINY, n_ctx=64)
    engine = model._engine
    engine.layer(every_row=True)
    for compiled in engine.layers.values():
        for arrays in (compiled.constants, compiled.states):
            for name, array in arrays.items():
                arrays[name] = array.view(Untouchable)
    real = np.empty

    def empty(shape, dtype=float, **named):
        made = real(shape, dtype, **named)
        if made.dtype.kind != "f":
            return made
        made.fill(np.nan)
        return made.view(Untouchable)

    monkeypatch.setattr(layer_module.np, "empty", empty)
    return engine


TOKENS = np.array([5, 6, 7], np.int32)


@pytest.mark.parametrize("every_row", (False, True))
def test_numpy_touches_no_float_array(llama, every_row):
    prefill = llama.forward(TOKENS, 0, every_row)
    decode = llama.forward(TOKENS[:1], 3, every_row)
    for logits in (prefill, decode):
        assert type(logits) is Untouchable
        assert np.isfinite(logits.view(np.ndarray)).all()


def test_the_logits_come_from_the_program_alone(llama, monkeypatch):
    monkeypatch.setattr(Program, "run", lambda *args, **named: None)
    assert np.isnan(llama.forward(TOKENS, 0, True).view(np.ndarray)).all()


def test_an_untouchable_array_notices_arithmetic():
    array = np.ones(3, np.float32).view(Untouchable)
    for action in (lambda: array + 1, lambda: np.exp(array), lambda: array.view() * array,
                   lambda: np.dot(array, array), lambda: np.copy(array)):
        with pytest.raises(AssertionError):
            action()
