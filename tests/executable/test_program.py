"""Programs: slots follow dims and pointers, buffers grow, wrong programs are refused by name."""

import threading

import numpy as np
import pytest

from gllm_kernels.errors import CompileError, ShapeError
from gllm_kernels.executable.buffers import HUGE_PAGE, aligned_bytes
from gllm_kernels.executable.program import (
    BufferSpec,
    FloatSlot,
    IntSlot,
    PointerSlot,
    Program,
    Step,
    float_bits,
)
from gllm_kernels.executable.runtime import runtime
from gllm_kernels.executable.steps import ScalarCall, StridedCopy
from gllm_kernels.scalar import CATALOG, library
from gllm_kernels.trace.affine import Affine

T, P = Affine.sym("t"), Affine.sym("p")
X, H, W, Y = 0, 1, 2, 3


def number(value: int) -> Affine:
    return Affine.const(value)


def call(name: str, *arguments, **options) -> Step:
    address = library().address(CATALOG.lookup(name).symbol)
    return ScalarCall(address, arguments, name=name, **options).step()


def norm_then_add(weights: np.ndarray) -> Program:
    """y[t,8] = x + rms_norm(x, w), the norm in a buffer of the program's own."""
    d = number(weights.size)
    norm = call("rms_norm", PointerSlot(X), PointerSlot(W), PointerSlot(H), IntSlot(T), IntSlot(d),
                FloatSlot(1e-5))  # fmt: skip
    add = call("vec_add", PointerSlot(X), PointerSlot(H), PointerSlot(Y), IntSlot(T * d))
    buffers = (
        BufferSpec("x"),
        BufferSpec("h", "internal", T * d),
        BufferSpec("w", "constant", array=weights),
        BufferSpec("y"),
    )
    return Program((norm, add), buffers, ("t",))


def expected(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x + x * w / np.sqrt((x.astype(float) ** 2).mean(1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_slots_follow_dims_and_pointers(threads: int) -> None:
    w = np.arange(8, dtype=np.float32)
    program = norm_then_add(w)
    for rows in (3, 3, 1, 700, 2):
        x = np.random.default_rng(rows).standard_normal((rows, 8), np.float32)
        y = np.empty_like(x)
        program.run([x.ctypes.data, y.ctypes.data], {"t": rows}, threads)
        np.testing.assert_allclose(y, expected(x, w), rtol=1e-5, atol=1e-6)


def test_unchanged_call_is_not_evaluated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    program = norm_then_add(np.ones(8, np.float32))
    x, y = np.ones((2, 8), np.float32), np.empty((2, 8), np.float32)
    program.run([x.ctypes.data, y.ctypes.data], [2], 1)
    monkeypatch.setattr(program.load(), "_evaluate", None)
    x[:] = 3
    program.run([x.ctypes.data, y.ctypes.data], [2], 1)
    np.testing.assert_allclose(y, 4, rtol=1e-5)
    with pytest.raises(TypeError):
        program.run([x.ctypes.data, y.ctypes.data], [1], 1)


def test_internal_buffers_are_aligned_and_readable() -> None:
    program = norm_then_add(np.ones(8, np.float32))
    x, y = np.ones((2, 8), np.float32), np.empty((2, 8), np.float32)
    program.run([x.ctypes.data, y.ctypes.data], [2], 1)
    held = program.load().buffer("h")
    assert held.ctypes.data % 64 == 0
    np.testing.assert_allclose(held[:16], 1, rtol=1e-5)
    with pytest.raises(CompileError, match="no internal buffer 'x'"):
        program.load().buffer("x")


def test_offsets_are_polynomials_in_elements() -> None:
    """Append t rows of 4 at row p of a cache, through a copy."""
    copy = StridedCopy(
        PointerSlot(0), PointerSlot(1, P * 4), (T, number(4)), (number(4), number(1)),
        (number(4), number(1)),
    )  # fmt: skip
    program = Program((copy.step(),), (BufferSpec("rows"), BufferSpec("cache")), ("t", "p"))
    cache = np.zeros((10, 4), np.float32)
    for t, p in ((3, 0), (1, 3), (2, 4)):
        rows = np.full((t, 4), p + 1, np.float32)
        program.run([rows.ctypes.data, cache.ctypes.data], {"p": p, "t": t})
    assert cache[:, 2].tolist() == [1, 1, 1, 4, 5, 5, 0, 0, 0, 0]


@pytest.mark.parametrize("threads", [1, 2])
def test_copy_of_strided_views(threads: int) -> None:
    source = np.arange(3 * 4 * 5 * 6, dtype=np.float32).reshape(3, 4, 5, 6)
    views = [
        source.transpose(3, 1, 0, 2),
        source[::-1, :, ::2, ::-3],
        np.broadcast_to(source[0, 0, 0], (2, 3, 1, 2, 6)),
        source[0, 0, 0],
        source[:, 1:1],
    ]
    for view in views:
        out = np.full(view.shape, -1, np.float32)
        strides = [tuple(number(s // 4) for s in a.strides) for a in (view, out)]
        extents = tuple(number(n) for n in view.shape)
        copy = StridedCopy(PointerSlot(0), PointerSlot(1), extents, *strides, grain=3)
        program = Program((copy.step(),), (BufferSpec("from"), BufferSpec("to")))
        program.run([view.ctypes.data, out.ctypes.data], (), threads)
        assert np.array_equal(out, view)


def test_scalar_call_returns_floats_and_integers_per_unit() -> None:
    x = np.random.default_rng(1).standard_normal((6, 9)).astype(np.float32)
    best, peak = np.zeros(6, np.int64), np.zeros(6, np.float32)
    row = (number(36), number(0))
    steps = (
        call("argmax", PointerSlot(0), IntSlot(number(9)), returns="int64_t",
             result=PointerSlot(1), result_step=number(8), steps=row, units=T),
        call("vec_max", PointerSlot(0), IntSlot(number(9)), returns="float",
             result=PointerSlot(2), result_step=number(4), steps=row, units=T),
    )  # fmt: skip
    program = Program(steps, tuple(map(BufferSpec, ("x", "best", "peak"))), ("t",))
    program.run([x.ctypes.data, best.ctypes.data, peak.ctypes.data], [6], 2)
    assert np.array_equal(best, x.argmax(1)) and np.array_equal(peak, x.max(1))


def test_scalar_call_passes_stack_arguments() -> None:
    """rope_with_pos has four pointers and four integers: two of them go to the stack."""
    t, h, d, pos = 2, 3, 4, 5
    rng = np.random.default_rng(0)
    x = rng.standard_normal((t, h, 2 * d)).astype(np.float32)
    cos, sin = (rng.standard_normal((pos + t, d)).astype(np.float32) for _ in range(2))
    out = np.empty_like(x)
    slots = [PointerSlot(i) for i in range(4)] + [IntSlot(number(v)) for v in (t, h, d)]
    step = call("rope_with_pos", *slots, IntSlot(P))
    program = Program((step,), tuple(map(BufferSpec, ("x", "cos", "sin", "out"))), ("p",))
    program.run([a.ctypes.data for a in (x, cos, sin, out)], [pos])
    want = x[..., :d] * cos[pos:, None] - x[..., d:] * sin[pos:, None]
    np.testing.assert_allclose(out[..., :d], want, rtol=1e-5, atol=1e-6)


def test_scalar_call_passes_floats_in_order() -> None:
    x, y = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
    step = call("vec_axpy", FloatSlot(2.5), PointerSlot(0), PointerSlot(1), IntSlot(number(4)))
    Program((step,), (BufferSpec("x"), BufferSpec("y"))).run([x.ctypes.data, y.ctypes.data])
    assert y.tolist() == [1, 3.5, 6, 8.5]


def test_concurrent_runs_of_one_program() -> None:
    w = np.ones(8, np.float32)
    program, failures = norm_then_add(w), []

    def caller(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((seed + 1, 8), np.float32)
        y, want = np.empty_like(x), expected(x, w)
        for _ in range(100):
            program.run([x.ctypes.data, y.ctypes.data], [seed + 1], 2)
            if not np.allclose(y, want, rtol=1e-4, atol=1e-5):
                failures.append(seed)

    callers = [threading.Thread(target=caller, args=(seed,)) for seed in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    assert not failures


def test_times_per_step() -> None:
    program = norm_then_add(np.ones(8, np.float32))
    x, times = np.ones((2, 8), np.float32), np.zeros(3, np.int64)
    program.load().run([x.ctypes.data, x.ctypes.data], [2], 1, times)
    assert (np.diff(times) >= 0).all() and times.all()
    with pytest.raises(ShapeError, match=r"times: expected int64\[3\]"):
        program.load().run([x.ctypes.data, x.ctypes.data], [2], 1, times[:2])


def test_wrong_calls_name_what_is_wanted() -> None:
    program = norm_then_add(np.ones(8, np.float32))
    with pytest.raises(ShapeError, match=r"external buffers are \['x', 'y'\], got 1"):
        program.run([1], [2])
    with pytest.raises(ShapeError, match=r"dims are \('t',\), got 2"):
        program.run([1, 2], [2, 3])
    with pytest.raises(ShapeError, match=r"dims are \['t'\], got \['n'\]"):
        program.run([1, 2], {"n": 3})


def test_wrong_programs_name_the_step() -> None:
    code = runtime().address("gk_copy")
    wrong = [
        (Step(code, (IntSlot(P),), name="s"), "step 0 's': p uses"),
        (Step(code, (PointerSlot(4),), name="s"), "there is no buffer 4"),
        (Step(code, (), grain=0, name="s"), "grain 0"),
        (Step(0, (), name="s"), "code 0x0"),
    ]
    for step, message in wrong:
        with pytest.raises(CompileError, match=message):
            Program((step,), (BufferSpec("x"),), ("t",)).run([1], [1])
    with pytest.raises(CompileError, match="kind 'owned'"):
        Program((), (BufferSpec("x", "owned"),)).run()
    with pytest.raises(CompileError, match="a constant, and only that"):
        Program((), (BufferSpec("x", "constant"),)).run()


def test_wrong_steps() -> None:
    with pytest.raises(CompileError, match="15 integers"):
        ScalarCall(1, (IntSlot(T),) * 15).step()
    with pytest.raises(CompileError, match="returns 'short'"):
        ScalarCall(1, (), returns="short").step()
    with pytest.raises(CompileError, match="a result needs a place"):
        ScalarCall(1, (), returns="float").step()
    with pytest.raises(CompileError, match="rank 6"):
        StridedCopy(PointerSlot(0), PointerSlot(1), (T,) * 6, (T,) * 6, (T,) * 6).step()


def test_float_slots_hold_float32_bits() -> None:
    for value in (0.0, -0.0, 1e-5, float("inf"), -1.5):
        assert float_bits(value) == int(np.float32(value).view(np.uint32))


def test_big_buffers_lie_in_private_memory_that_may_become_huge_pages():
    big = aligned_bytes(3 * HUGE_PAGE)
    assert big.ctypes.data % HUGE_PAGE == 0
    found = [line for line in open("/proc/self/maps", encoding="ascii")
             if _inside(line, big.ctypes.data)]
    assert len(found) == 1 and found[0].split()[1] == "rw-p"


def _inside(line, address):
    first, last = (int(part, 16) for part in line.split()[0].split("-"))
    return first <= address < last
