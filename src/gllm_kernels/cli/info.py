"""`gllm-kernels info`: the machine as this package sees it; paste it into a bug report."""

from __future__ import annotations

import os
import platform
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..config import current, describe

# fmt: off
PARTS = (
    "numpy", "iced-x86", "ml_dtypes", "safetensors", "pyelftools", "tokenizers",
)
# fmt: on


def info(options: Namespace) -> int:
    current()  # a wrong setting is an error here as everywhere; a fault of the machine is a row
    for label, value in ROWS.items():
        print(f"{label:14}{told(value)}")
    return 0


def told(value: Callable[[], object]) -> str:
    """The value, or why there is none: a machine with a fault is the one to report on."""
    try:
        return str(value())
    except Exception as error:
        return f"unknown: {type(error).__name__}: {error}"


def versions() -> str:
    return ", ".join(f"{name} {installed(name)}" for name in PARTS)


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def system() -> str:
    libc = " ".join(platform.libc_ver())
    return f"{platform.system()} {platform.release()} {platform.machine()}, {libc}"


def cpu() -> str:
    from ..codegen.isa.detect import host

    return f"{host().brand} ({host().vendor})"


def isa_found() -> str:
    from ..codegen.isa.detect import host_isas

    return ", ".join(isa.name for isa in host_isas()) or "none: scalar only"


def isa_used() -> str:
    from ..codegen.isa.detect import current_isa

    isa = current_isa()
    return f"{isa.name}: {isa.lanes} lanes, {isa.vregs} registers" if isa else "scalar"


def features() -> str:
    from ..codegen.isa.detect import host

    return " ".join(sorted(host().features)) or "none known here"


def caches() -> str:
    from ..codegen.isa.detect import host

    rows = [
        f"L{c.level} {c.bytes >> 10} KiB, {c.ways} ways, shared by {c.sharing}"
        for c in host().caches
    ]
    return "; ".join(rows)


def cores() -> str:
    from ..executable.team import allowed_cpus, cgroup_quota, physical_cores

    limit = cgroup_quota()
    quota = "none" if limit >= 1e9 else f"{limit:g} CPUs"
    allowed = f"{allowed_cpus()} of {os.cpu_count()} CPUs allowed"
    return f"{allowed}, {physical_cores()} physical cores, cgroup quota {quota}"


def threads() -> int:
    from ..executable.team import thread_count

    return thread_count()


def memory() -> str:
    sizes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{sizes / 2**30:.1f} GiB"


def code_memory() -> str:
    from ..memory import memory_mode

    return memory_mode()


def calls() -> str:
    from ..executable.function import call_mode

    return call_mode()


def settings() -> str:
    values = current()
    names = [variable.removeprefix("GLLM_").lower() for variable, _, _ in describe()]
    return ", ".join(f"{name}={getattr(values, name)!r}" for name in names)


ROWS: dict[str, Callable[[], object]] = {
    "gllm-kernels": lambda: f"{__version__}, {Path(__file__).parent.parent}",
    "Python": lambda: f"{platform.python_implementation()} {platform.python_version()}",
    "packages": versions,
    "system": system,
    "CPU": cpu,
    "ISA found": isa_found,
    "ISA used": isa_used,
    "features": features,
    "caches": caches,
    "cores": cores,
    "threads": threads,
    "memory": memory,
    "code memory": code_memory,
    "calls": calls,
    "settings": settings,
}
