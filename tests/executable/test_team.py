"""The thread team: every unit once, steps in order, with any number of threads, after fork too."""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gllm_kernels.config import config
from gllm_kernels.errors import ConfigError
from gllm_kernels.executable import team as team_module
from gllm_kernels.executable.runtime import runtime
from gllm_kernels.executable.team import Team, cgroup_quota, physical_cores, thread_count
from gllm_kernels.memory import CodeBlock, place


class Table:
    """`out[i] = 2 * in[i] + 1` again and again, each step reading what the one before wrote."""

    def __init__(self, count: int, n: int, grain: int) -> None:
        self.values = np.zeros((count + 1, n), np.float32)
        one = np.float32(1).view(np.int32)
        rows = [self.values[i].ctypes.data for i in range(count + 1)]
        self.args = np.array([[rows[i], rows[i + 1], n, one] for i in range(count)], np.int64)
        code = runtime().address("gk_probe")
        args = [self.args[i].ctypes.data for i in range(count)]
        self.steps = np.array([[code, a, n, grain] for a in args], np.int64)

    def check(self, team: Team, threads: int, times: int = 0) -> None:
        self.values[1:] = -1
        team.run(self.steps.ctypes.data, len(self.steps), threads, 64, times)
        exponents = np.arange(len(self.steps) + 1)
        assert np.array_equal(self.values[:, 0], 2.0**exponents - 1)
        assert (self.values == self.values[:, :1]).all()


@pytest.fixture
def team() -> Team:
    made = Team()
    yield made
    made.stop()


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize(("n", "grain"), [(1, 1), (7, 2), (64, 64), (100, 3)])
def test_every_unit_once_and_steps_in_order(team: Team, threads: int, n: int, grain: int) -> None:
    table = Table(20, n, grain)
    for _ in range(20):
        table.check(team, threads)


def test_no_steps_and_steps_without_units(team: Team) -> None:
    table = Table(3, 10, 2)
    table.steps[:, 2] = [0, -5, 0]
    for threads in (1, 2):
        team.run(table.steps.ctypes.data, 0, threads)
        team.run(table.steps.ctypes.data, 3, threads)
    assert not table.values.any()


def test_one_thread_starts_none(team: Team) -> None:
    before = len(os.listdir("/proc/self/task"))
    Table(2, 4, 1).check(team, 1)
    assert len(os.listdir("/proc/self/task")) == before
    Table(2, 4, 1).check(team, 3)
    assert len(os.listdir("/proc/self/task")) == before + 2
    team.stop()
    assert len(os.listdir("/proc/self/task")) == before


def test_team_grows_stops_and_starts_again(team: Team) -> None:
    table = Table(5, 50, 4)
    for threads in (2, 4, 2, 1, 3):
        table.check(team, threads)
    assert team.size == 4
    team.stop()
    assert team.size == 1
    table.check(team, 2)


def test_threads_end_with_the_last_reference_to_their_team() -> None:
    before = len(os.listdir("/proc/self/task"))
    made = Team(4)
    Table(3, 20, 2).check(made, 4)
    assert len(os.listdir("/proc/self/task")) == before + 3
    del made
    assert len(os.listdir("/proc/self/task")) == before


def test_concurrent_callers_take_turns(team: Team) -> None:
    tables = [Table(10, 40 + i, 4) for i in range(4)]
    failures = []

    def caller(table: Table) -> None:
        try:
            for _ in range(50):
                table.check(team, 3)
        except AssertionError as failure:
            failures.append(failure)

    callers = [threading.Thread(target=caller, args=(table,)) for table in tables]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in callers)


def test_forked_child_builds_its_own_team() -> None:
    table = Table(10, 100, 5)
    table.check(team_module.process_team(), 2)
    child = os.fork()
    if child == 0:
        try:
            table.check(team_module.process_team(), 3)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    table.check(team_module.process_team(), 2)


def test_times_are_one_reading_more_than_steps_and_increase(team: Team) -> None:
    for threads in (1, 2):
        times = np.zeros(6, np.int64)
        Table(5, 50, 4).check(team, threads, times.ctypes.data)
        assert (np.diff(times) >= 0).all() and times[0] > 0


def test_interpreter_exits_while_threads_are_parked() -> None:
    code = "from gllm_kernels.executable.team import process_team\nprint(process_team().grow(4))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr


def test_import_starts_no_thread_and_loads_no_object() -> None:
    code = (
        "import os, gllm_kernels.executable.team as t, gllm_kernels.executable.runtime as r\n"
        "print(len(os.listdir('/proc/self/task')), r.runtime.cache_info().currsize, len(t._teams))"
    )
    env = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "1 0 0\n", done.stderr


def machine_code(text: str) -> CodeBlock:
    code = bytes.fromhex(text)
    return place(len(code), lambda address: code)


def run_tiles(team: Team, block: CodeBlock, args: np.ndarray, tiles: int, threads: int) -> None:
    steps = np.array([[block.address, args.ctypes.data, tiles, 1]], np.int64)
    team.run(steps.ctypes.data, 1, threads, 64)


# A tile waits until as many tiles as the counter's goal run at once, then doubles its number:
#   mov rax,[rdi]; lock inc qword [rax]; again: pause; mov rcx,[rdi+24]; cmp [rax],rcx; jl again
#   mov rax,[rdi+8]; movss xmm0,[rax+rsi*4]; addss xmm0,xmm0
#   mov rax,[rdi+16]; movss [rax+rsi*4],xmm0; ret
MEET_AND_DOUBLE = (
    "488b07 f048ff00 f390 488b4f18 483908 7cf5488b4708 f30f1004b0 f30f58c0 488b4710 f30f1104b0 c3"
)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_run_at_once_and_keep_denormals(team: Team, threads: int) -> None:
    """A library built with -ffast-math sets flush-to-zero in the thread that loads it."""
    tiny, out = np.full(threads, 1e-40, np.float32), np.zeros(threads, np.float32)
    counter = np.zeros(1, np.int64)
    args = np.array([*(a.ctypes.data for a in (counter, tiny, out)), threads], np.int64)
    block, set_mode = machine_code(MEET_AND_DOUBLE), _mxcsr_setter()
    set_mode(0x9FC0)  # flush-to-zero and denormals-are-zero, inherited by new threads
    try:
        run_tiles(team, block, args, threads, threads)
    finally:
        set_mode(0x1F80)
    assert np.array_equal(out.view(np.int32), (tiny * 2).view(np.int32)) and out.all()


# mov rax,[rdi]; mov [rax+rsi*8],rcx; mov eax,3000; again: pause; dec eax; jne again; ret
STORE_SCRATCH = "488b07 48890cf0 b8b80b0000 f390 ffc8 75fa c3"


def test_only_as_many_threads_as_asked_and_each_with_its_own_scratch(team: Team) -> None:
    team.grow(6)
    block = machine_code(STORE_SCRATCH)
    for threads in (2, 3):
        seen = np.zeros(300, np.int64)
        run_tiles(team, block, np.array([seen.ctypes.data], np.int64), 300, threads)
        places = np.unique(seen)
        assert 1 <= len(places) <= threads and not (places % 64).any()
        assert places[-1] - places[0] <= 64 * (threads - 1)


def _mxcsr_setter() -> Callable[[int], None]:
    block = machine_code("57 0fae1424 5f c3")  # push rdi; ldmxcsr [rsp]; pop rdi; ret
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(block.address)
    return lambda value: block and function(value)


def test_thread_count_follows_settings_and_affinity() -> None:
    allowed = len(os.sched_getaffinity(0))
    assert 1 <= thread_count() <= allowed
    with config(threads=1):
        assert thread_count() == 1
    assert thread_count(1000) == allowed
    with pytest.raises(ConfigError, match="threads=-1"):
        thread_count(-1)


def test_quota_is_the_least_along_the_chain(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("0::/a/b\n")
    assert cgroup_quota(tmp_path, membership) >= 1024
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("765000 100000\n")
    assert cgroup_quota(tmp_path, membership) == 7.65
    (inner / "cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(tmp_path, membership) == 1.5


def test_quota_of_version_1(tmp_path: Path) -> None:
    own = tmp_path / "cpu" / "docker"
    own.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("5:memory:/other\n3:cpu,cpuacct:/docker\n")
    (own / "cpu.cfs_quota_us").write_text("250000")
    (own / "cpu.cfs_period_us").write_text("100000")
    assert cgroup_quota(tmp_path, membership) == 2.5
    (own / "cpu.cfs_quota_us").write_text("-1")
    assert cgroup_quota(tmp_path, membership) >= 1024


def test_hyper_threads_count_once(tmp_path: Path) -> None:
    for cpu in os.sched_getaffinity(0):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "core_id").write_text("3")
        (topology / "physical_package_id").write_text("0")
    assert physical_cores(tmp_path) == 1
    assert physical_cores(tmp_path / "absent") == len(os.sched_getaffinity(0))
