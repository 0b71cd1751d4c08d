"""Direct calls: the same answers natively and through ctypes, and no object that can hurt them."""

import ctypes
import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from gllm_kernels.errors import CompileError
from gllm_kernels.executable import abi as abi_module
from gllm_kernels.executable import function as function_module
from gllm_kernels.executable.function import (
    MOST_SCRATCH,
    Argument,
    ArraySpec,
    FastCall,
    FloatSpec,
    IntSpec,
    Result,
    call_mode,
)
from gllm_kernels.executable.program import FloatSlot, IntSlot
from gllm_kernels.executable.runtime import runtime
from gllm_kernels.executable.team import TEAM, process_team
from gllm_kernels.memory import place
from gllm_kernels.trace.affine import Affine

N, M, K = Affine.sym("n"), Affine.sym("m"), Affine.sym("k")
PROBE = (Argument("x"), Argument("out"), IntSlot(N), Argument("add"))


def probe(**options) -> FastCall:
    """out[i] = 2 * x[i] + add over arrays of one shape."""
    params = (
        ArraySpec("x", ("*n",)),
        FloatSpec("add"),
        ArraySpec("out", ("*n",), access="out", alias=options.pop("alias", False)),
    )
    address = runtime().address("gk_probe")
    return FastCall(address, params, PROBE, units=N, **{"result": "out", "name": "probe"} | options)


@pytest.fixture(params=["native", "portable"])
def make(request: pytest.FixtureRequest):
    return lambda spec: getattr(spec, request.param)()


def floats(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def test_this_interpreter_is_called_natively() -> None:
    assert call_mode() == "native"


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (2, 3), (2, 0, 3), (1, 2, 3, 4, 5)])
def test_computes_and_returns_the_named_argument(make, shape: tuple) -> None:
    x, out = floats(*shape), np.full(shape, -1, np.float32)
    assert make(probe())(x, 0.25, out) is out
    assert np.array_equal(out, 2 * x + np.float32(0.25))


def test_returns_none_without_a_result(make) -> None:
    x, out = floats(3), floats(3)
    assert make(probe(result=""))(x, 1.0, out) is None
    assert out.tolist() == [1, 3, 5]


def test_float_result_and_constant_slots(make) -> None:
    spec = FastCall(
        runtime().address("gk_probe_result"),
        (ArraySpec("x", ("n",)),),
        (IntSlot(N * N * 2 + N - 1), Result()),
        units=Affine.const(1),
        result="float",
    )
    value = make(spec)(floats(5))
    assert type(value) is float and value == 54
    out = floats(2)
    slots = (Argument("out"), Argument("out"), IntSlot(N), FloatSlot(0.5))
    spec = FastCall(runtime().address("gk_probe"), (ArraySpec("out", ("n",), access="inout"),),
                    slots, units=N, result="out")  # fmt: skip
    assert make(spec)(out).tolist() == [0.5, 2.5]


def test_dimensions_are_bound_once_and_compared_afterwards(make) -> None:
    params = (
        ArraySpec("x", ("*m", "n")),
        ArraySpec("w", ("n",)),
        ArraySpec("out", ("*m", "n"), access="out"),
    )
    slots = (IntSlot(M * 1000 + N), Result())
    spec = FastCall(runtime().address("gk_probe_result"), params, slots, Affine.const(1), "float")
    call = make(spec)
    assert call(floats(4, 3), floats(3), floats(4, 3)) == 4003
    assert call(floats(2, 4, 3), floats(3), floats(2, 4, 3)) == 8003
    assert call(floats(3), floats(3), floats(3)) == 1003
    for shapes in (
        [(4, 3), (4,), (4, 3)],
        [(4, 3), (3,), (3, 4)],
        [(2, 4, 3), (3,), (8, 3)],
        [(2, 4, 3), (3,), (4, 2, 3)],
        [(4, 3), (1, 3), (4, 3)],
        [(), (3,), (3,)],
    ):
        assert call(*map(lambda s: floats(*s), shapes)) is NotImplemented, shapes


def test_integer_arguments_are_dimensions(make) -> None:
    spec = FastCall(
        runtime().address("gk_probe_result"),
        (IntSpec("k"), ArraySpec("x", ("n",), dtype="int32")),
        (IntSlot(K * N), Result()),
        units=Affine.const(1),
        result="float",
    )
    call, x = make(spec), np.zeros(3, np.int32)
    assert call(5, x) == 15 and call(-5, x) == -15
    for wrong in (2**63, -(2**63) - 1, 10**30, 5.0, True, np.int64(5), None, "5"):
        assert call(wrong, x) is NotImplemented, wrong
    assert call(2**63 - 1, np.zeros(0, np.int32)) == 0
    assert call(5, np.zeros(3, np.float32)) is NotImplemented


class Sub(np.ndarray):
    pass


class Liar:
    __class__ = np.ndarray
    shape, dtype, ndim = (6,), np.dtype("f4"), 1


def hostile() -> list[object]:
    misaligned = np.zeros(25, np.uint8)[1:].view(np.float32)
    frozen = floats(6)
    frozen.flags.writeable = False
    return [
        None, 1, 1.0, "text", b"bytes", [1.0] * 6, (), {}, object(), type, np, np.ndarray, Liar(),
        np.float32(1), np.zeros(6), np.zeros(6, np.int32), np.zeros(6, np.float16),
        np.zeros(6, ">f4"), np.zeros(6, np.complex64), np.zeros(6, object), np.zeros(6, bool),
        np.zeros(6, [("a", "f4")]), np.zeros(12, np.float32)[::2], floats(6)[::-1],
        floats(2, 3).T, floats(6).view(Sub), np.ma.masked_array(floats(6)),
        misaligned, np.broadcast_to(np.float32(1), 6), memoryview(floats(6)),
        np.zeros(5, np.float32), np.zeros((6, 1), np.float32), np.zeros((), np.float32),
        floats(6).astype(np.dtype("f4", metadata={"a": 1})), np.zeros(6, "S4"), ctypes.c_float(1),
    ]  # fmt: skip


def test_hostile_arguments_are_answered_and_nothing_is_written(make) -> None:
    call, x, out = make(probe()), floats(6), np.full(6, -1, np.float32)
    for thing in hostile():
        assert call(thing, 0.5, out) is NotImplemented, thing
        assert call(x, 0.5, thing) is NotImplemented, thing
        if type(thing) is not float:
            assert call(x, thing, out) is NotImplemented, thing
    assert (out == -1).all()


def test_read_only_input_is_fine_and_read_only_output_is_not(make) -> None:
    call, frozen = make(probe()), floats(6)
    frozen.flags.writeable = False
    assert call(frozen, 0.0, floats(6)) is not NotImplemented
    assert call(floats(6), 0.0, frozen) is NotImplemented


def test_too_many_and_too_few_arguments(make) -> None:
    call, x = make(probe()), floats(6)
    for count in (0, 1, 2, 4, 50):
        assert call(*[x] * count) is NotImplemented
    with pytest.raises(TypeError):
        call(x, 1.0, out=x)


def test_overlap_is_refused_unless_it_is_the_same_memory(make) -> None:
    whole = floats(8)
    assert make(probe())(whole, 0.0, whole) is NotImplemented
    call = make(probe(alias=True))
    assert call(whole[:6], 0.0, whole[2:]) is NotImplemented
    assert call(whole[2:], 0.0, whole[:6]) is NotImplemented
    assert whole.tolist() == list(range(8))
    assert call(whole[:4], 0.0, whole[4:]).tolist() == [0, 2, 4, 6]
    assert call(whole, 1.0, whole) is whole


def test_same_beginning_is_not_the_same_memory(make) -> None:
    params = (ArraySpec("x", ("k",)), ArraySpec("out", ("n",), access="out", alias=True))
    slots = (Argument("x"), Argument("out"), IntSlot(N), FloatSlot(0.0))
    call = make(FastCall(runtime().address("gk_probe"), params, slots, N))
    whole = floats(8)
    assert call(whole, whole[:4]) is NotImplemented and call(whole[:4], whole) is NotImplemented
    assert call(whole, whole) is None


def test_extreme_floats(make) -> None:
    call, x, out = make(probe()), np.zeros(1, np.float32), np.zeros(1, np.float32)
    for value in (float("inf"), float("-inf"), 1e300, -0.0, 1e-320, 3.5):
        with np.errstate(over="ignore"):
            assert call(x, value, out)[0] == np.float32(value)
    assert np.isnan(call(x, float("nan"), out)[0])


@pytest.fixture(params=["scratch", "threads"])
def teamed(request: pytest.FixtureRequest) -> FastCall:
    """What needs the team of the process: more scratch than the stack has, or two threads."""
    needs = {"scratch": {"scratch": N * 64 + 9000}, "threads": {"alone": 5, "threads": 2, "grain": 2}}
    return probe(release_above=20, **needs[request.param])


def test_without_a_team_the_caller_is_asked_to_start_it(teamed: FastCall) -> None:
    call, out = teamed.native(), np.full(6, -1, np.float32)
    before, TEAM[0] = TEAM[0], 0
    try:
        assert call(floats(6), 0.0, out) is NotImplemented and (out == -1).all()
    finally:
        TEAM[0] = before
    assert teamed.portable()(floats(6), 0.0, out) is NotImplemented and (out == -1).all()


@pytest.mark.parametrize("n", [6, 7, 21, 1000])
def test_every_unit_once_in_a_team(teamed: FastCall, n: int) -> None:
    process_team().grow(2)
    call, x, out = teamed.native(), floats(n), np.full(n, -1, np.float32)
    for _ in range(20):
        assert call(x, 0.5, out) is out and np.array_equal(out, 2 * x + np.float32(0.5))


def test_more_threads_or_scratch_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    process_team()
    assert probe(alone=5, threads=1000).native()(floats(6), 0.0, floats(6)) is NotImplemented
    call = probe(scratch=N * (MOST_SCRATCH // 4)).native()
    assert call(floats(4), 0.0, floats(4)) is not NotImplemented
    assert call(floats(5), 0.0, floats(5)) is NotImplemented


def test_reference_counts_do_not_move(make) -> None:
    call, x, out, wrong = make(probe()), floats(6), floats(6), floats(5)
    add = 0.123
    watched = [x, out, wrong, add, x.dtype, None, NotImplemented]
    for _ in range(10):
        call(x, add, out)
    before = [sys.getrefcount(thing) for thing in watched]
    for _ in range(1000):
        call(x, add, out)
        call(x, add, wrong)
        call(None, add, out)
    after = [sys.getrefcount(thing) for thing in watched]
    assert all(abs(a - b) < 50 for a, b in zip(after, before, strict=True)), (before, after)


def test_the_function_owns_its_code() -> None:
    """Nothing but the function itself is kept; the kernel's block must survive with it."""
    block = place(16, lambda address: bytes.fromhex("488b4708c70000004040c3"))  # *args[1] = 3.0f
    spec = FastCall(block.address, (ArraySpec("x", ("n",)),), (IntSlot(N), Result()),
                    Affine.const(1), "float", keep=(block,))  # fmt: skip
    call = spec.native()
    del block, spec
    gc.collect()
    assert call(floats(2)) == 3.0
    assert "kernel" in repr(call)


# 1: mov rax, [rdi]; 2: cmp dword [rax], 0; je 2; ret
WAIT_FOR_FLAG = bytes.fromhex("488b0783380074fbc3")


def test_interpreter_lock_is_released_above_the_threshold(make) -> None:
    """The kernel waits for a flag that only another Python thread can set."""
    block = place(16, lambda address: WAIT_FOR_FLAG)
    spec = FastCall(block.address, (ArraySpec("flag", ("n",)),), (Argument("flag"),), N,
                    release_above=2, keep=(block,))  # fmt: skip
    flag, call = np.zeros(3, np.float32), make(spec)
    waiting = threading.Thread(target=call, args=(flag,), daemon=True)
    waiting.start()
    flag[0] = 1.0
    waiting.join(30)
    assert not waiting.is_alive()


def call_from_many_threads(call) -> None:
    failures = []

    def caller(seed: int) -> None:
        x, out = floats(seed + 3), np.empty(seed + 3, np.float32)
        for i in range(300):
            call(x, float(i), out)
            if not np.array_equal(out, 2 * x + i):
                failures.append(seed)

    callers = [threading.Thread(target=caller, args=(seed,)) for seed in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    assert not failures


def test_many_threads_at_once(make) -> None:
    call_from_many_threads(make(probe(release_above=0)))


@pytest.mark.parametrize("release_above", [0, 5, 1000])
def test_many_threads_share_the_scratch_of_the_team(release_above: int) -> None:
    process_team()
    spec = probe(release_above=release_above, scratch=Affine.const(9000))
    call_from_many_threads(spec.native())


def test_after_fork() -> None:
    call, x, out = probe().native(), floats(4), floats(4)
    child = os.fork()
    if child == 0:
        os._exit(0 if call(x, 1.0, out).tolist() == [1, 3, 5, 7] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_wrong_specs_name_what_is_wrong() -> None:
    address, x = runtime().address("gk_probe"), ArraySpec("x", ("n",))
    wrong = [
        (FastCall(address, (x,), (Argument("y"),), N), "no argument 'y'"),
        (FastCall(address, (x,), (), N, "out"), "no argument 'out'"),
        (FastCall(address, (x,), (), M), "m is no polynomial"),
        (FastCall(address, (x,), (IntSlot(N * N * N * N),), N), "degree 3"),
        (FastCall(address, (x,) * 13, (), N), "13 arguments"),
        (FastCall(address, (x,), (Argument("x"),) * 33, N), "33 slots"),
        (FastCall(address, (x,), (), N, scratch=M), "m is no polynomial"),
        (FastCall(address, (ArraySpec("x", ("n", "*m")),), (), N), "only the first dimension"),
        (FastCall(address, (ArraySpec("x", ("n",), access="rw"),), (), N), "access 'rw'"),
    ]
    for spec, message in wrong:
        for build in (spec.native, spec.portable):
            with pytest.raises(CompileError, match=message):
                build()


def test_unknown_layout_means_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever offset is wrong, the probe notices it."""
    right = abi_module._offsets()
    assert list(abi_module._differences(right)) == []
    for name in right:
        moved = dict(right) | {name: right[name] + 8}
        assert next(abi_module._differences(moved), None), name
    monkeypatch.setattr(function_module, "abi", lambda: "moved")
    call_mode.cache_clear()
    try:
        assert call_mode() == "ctypes: moved"
        call, out = probe().function(), floats(2)
        assert not isinstance(call, type(len)) and call(floats(2), 1.0, out) is out
        with pytest.raises(CompileError, match="no native calls here: moved"):
            probe().native()
    finally:
        call_mode.cache_clear()


def test_exit_with_live_functions() -> None:
    code = (
        "import numpy as np\n"
        "from tests_spec import probe\n"
        "call = probe().native(); x = np.zeros(3, 'f4'); keep = [call, x]\n"
        "print(call(x, 2.0, np.empty(3, 'f4')).tolist())\n"
    )
    folder = os.path.dirname(__file__)
    code = code.replace(
        "from tests_spec", f"import sys; sys.path.insert(0, {folder!r})\nfrom test_function"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[2.0, 2.0, 2.0]\n"), done.stderr


UNDER_MDWE = """
import ctypes
libc = ctypes.CDLL(None)
if libc.prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
    print("unsupported")
    raise SystemExit
import sys; sys.path.insert(0, {folder!r})
import numpy as np
from gllm_kernels.executable.team import Team
from gllm_kernels.executable.function import call_mode
from test_function import probe
from test_team import Table
Table(5, 50, 4).check(Team(3), 3)
print(call_mode(), probe().function()(np.ones(2, "f4"), 1.0, np.empty(2, "f4")).tolist())
"""


def test_team_and_calls_work_where_write_then_execute_is_refused() -> None:
    code = UNDER_MDWE.format(folder=os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.stdout == "unsupported\n":
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.stdout == "native [3.0, 3.0]\n", done.stderr
