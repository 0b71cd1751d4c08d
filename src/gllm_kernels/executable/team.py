"""How many threads, and the team of them that walks a program's steps.

    threads = min(affinity, floor(cgroup quota), physical cores)      or what the user asked for

The team starts with the first program that wants more than one thread, is rebuilt in a forked
child, which inherits memory but no threads, and is joined at exit.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from ..config import current
from ..errors import ConfigError
from .buffers import ALIGN, aligned_bytes
from .runtime import runtime

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1e9  # more CPUs than any machine has


def thread_count(requested: int | None = None) -> int:
    """Threads of a program: as asked here or in the settings, never more than CPUs allowed."""
    wanted = current().threads if requested is None else requested
    if wanted < 0:
        raise ConfigError(f"threads={wanted}: expected 0 (automatic) or a positive number")
    return min(wanted, allowed_cpus()) if wanted else default_threads()


@cache
def default_threads() -> int:
    """min(affinity, floor(cgroup quota), physical cores), at least 1."""
    return max(1, min(allowed_cpus(), int(cgroup_quota()), physical_cores()))


def allowed_cpus() -> int:
    """CPUs that the scheduler may put this process on."""
    return len(os.sched_getaffinity(0))


def physical_cores(cpus: Path = _CPUS) -> int:
    """Distinct cores among the allowed CPUs: hyper-threads share the arithmetic units."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        topology = cpus / f"cpu{cpu}" / "topology"
        core = _text(topology / "core_id"), _text(topology / "physical_package_id")
        cores.add(core if all(core) else (str(cpu), "cpu"))
    return len(cores)


def cgroup_quota(root: Path = _CGROUP, membership: Path = Path("/proc/self/cgroup")) -> float:
    """CPUs' worth of time this process may use: the least along the chain of its cgroups."""
    limits = (_quota(folder) for folder in _cgroup_folders(root, _text(membership)))
    return min(limits, default=_UNLIMITED)


def _cgroup_folders(root: Path, membership: str) -> Iterator[Path]:
    """Every folder from the process's own cgroup up to the root, version 1 and 2."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            base = root if controllers == "" else root / "cpu"
            own = base / path.lstrip("/")
            yield own
            yield from (parent for parent in own.parents if parent.is_relative_to(base))


def _quota(folder: Path) -> float:
    """quota / period of one cgroup."""
    words = _text(folder / "cpu.max").split()
    words = words or [_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")]
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[1]):
        return _UNLIMITED
    return int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class _Job(ctypes.Structure):
    """`struct job` of scalar/runtime_team.c."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("steps", "count", "threads", "scratch", "scratch_stride", "times")
    )


class Team:
    """Threads that wait for programs; the caller is the first of them."""

    def __init__(self, threads: int = 1) -> None:
        self._memory = aligned_bytes(runtime().team_bytes)
        self._memory[:] = 0
        self._scratch = aligned_bytes(ALIGN)
        self._lock = threading.Lock()
        self.address = self._memory.ctypes.data
        self.size = 1
        weakref.finalize(self, _end, self._memory, os.getpid())
        self.grow(threads)

    def grow(self, threads: int) -> int:
        """Have at least `threads`; returns how many there are, fewer if the system refuses."""
        if threads > self.size:
            self.size = runtime().team_grow(self.address, threads)
        return self.size

    def scratch(self, stride: int, threads: int) -> np.ndarray:
        """Memory for `threads` scratch areas; whoever runs with it keeps the reference."""
        with self._lock:
            if self._scratch.size < stride * threads:
                self._scratch = aligned_bytes(stride * threads)
            return self._scratch

    def run(
        self, steps: int, count: int, threads: int = 1, scratch_bytes: int = 0, times: int = 0
    ) -> None:
        """Walk `count` rows {code, args, units, grain} at address `steps`."""
        threads = min(threads, self.grow(threads))
        stride = -(-max(scratch_bytes, 1) // ALIGN) * ALIGN
        scratch = self.scratch(stride, threads)
        job = _Job(steps, count, threads, scratch.ctypes.data, stride, times)
        runtime().run(self.address, ctypes.byref(job))

    def stop(self) -> None:
        """End and join the threads; the team can grow again."""
        runtime().team_stop(self.address)
        self.size = 1


def _end(memory: np.ndarray, owner: int) -> None:
    """The last reference to a team went, or the process exits: its parked threads must not wake
    in memory that is no longer theirs. A forked child has the memory but not the threads."""
    if os.getpid() == owner:
        runtime().team_stop(memory.ctypes.data)


_teams: list[Team] = []
_teams_lock = threading.Lock()
TEAM = np.zeros(1, np.int64)  # the address of the team, for native code; 0 where there is none
_shared = np.empty(0, np.uint8)


def process_team() -> Team:
    """The one team of this process, with no thread of its own until a program wants one."""
    if not _teams:
        with _teams_lock:
            if not _teams:
                _teams.append(Team())
                TEAM[0] = _teams[0].address
    return _teams[0]


def shared_scratch(size: int) -> np.ndarray:
    """At least so many bytes; whoever writes to them holds the lock of the process's team."""
    global _shared
    with _teams_lock:
        if _shared.size < size:
            _shared = aligned_bytes(size)
        return _shared


def _forget() -> None:
    """In a forked child: the threads did not come along, and a lock may be held by one of them."""
    global _teams_lock
    _teams_lock = threading.Lock()
    _teams.clear()
    TEAM[0] = 0


os.register_at_fork(after_in_child=_forget)
