"""The whole compiler on one page: a graph becomes a program, stage by stage.

    scalar -> lift -> trace          happened when the operators were registered
    graph -> dag -> plan -> buffers  what depends on what, what is fused and why, where values live
    kernel -> asm -> program         one kernel per distinct group, one table of steps
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from .codegen import spec as kernel_spec
from .codegen.isa import detect
from .codegen.tuning import TuningParams
from .config import current
from .errors import ShapeError
from .executable.buffers import aligned_zeros
from .executable.cache import KERNELS
from .executable.layer import CompiledLayer
from .executable.link import LoadedKernel, link
from .executable.team import thread_count
from .fusion import spec as plan_spec
from .fusion.buffers import plan_buffers
from .fusion.plan import plan_fusion
from .fusion.profile import DeviceProfile
from .graph import spec as graph_spec
from .graph.dag import build_dag
from .graph.ir import CompilerGraph, Graph
from .trace.ir import OpTrace

Observe = Callable[[str, object, float], None]  # (stage, what it made, milliseconds so far)


def device() -> DeviceProfile:
    """This machine, as far as the settings in force allow it to be used."""
    isa = detect.current_isa()
    l1d, l2, l3 = (cache.bytes if (cache := detect.host().cache(level)) else default
                   for level, default in ((1, 32 << 10), (2, 256 << 10), (3, 0)))
    if isa is None:
        return DeviceProfile("scalar", 1, 0, l1d, l2, l3, thread_count())
    return DeviceProfile(isa.name, isa.lanes, isa.vregs, l1d, l2, l3, thread_count())


@contextmanager
def collection_paused() -> Iterator[None]:
    """Compiling makes many small tuples and few cycles: collections would take a quarter of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@collection_paused()
def compile_graph(graph: CompilerGraph, profile: DeviceProfile | None = None,
                  states: MutableMapping[str, np.ndarray] | None = None,
                  threads: int | None = None, observe: Observe | None = None,
                  params: TuningParams | None = None) -> CompiledLayer:
    """Compile a graph for this machine, or for the instruction set of `profile`.

    `states` holds the arrays of the graph's states by name; missing ones are made, zero. `observe`
    is called after every stage; GLLM_DUMP and GLLM_TIME install one that prints. `params` replaces
    the tuning of all kernels.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 0):
        raise ShapeError(f"threads={threads!r}: expected an integer of at least 0, or None")
    watch = _Watch(observe or printer())
    profile = profile or device()
    source = watch("graph", graph_spec.check(graph.finish()))
    # who defines and who uses every tensor
    dag = watch("dag", build_dag(source))
    # which nodes become one kernel
    plan = watch("plan", plan_fusion(dag, profile))
    # where the temporaries live
    buffers = watch("buffers", plan_buffers(plan))
    states = prepare_states(source, {} if states is None else states)
    # one kernel for each distinct group, written and assembled
    isa = detect.isa_named(profile.isa)
    used: dict[OpTrace, LoadedKernel] = {}

    def kernel_of(trace: OpTrace) -> LoadedKernel:
        if trace not in used:
            used[trace] = KERNELS.get(trace, isa, params, watch)
        return used[trace]

    own = {name: states[name] for name in (b.name for b in source.buffers) if name in states}
    program = watch("program", link(plan, buffers, {**graph.arrays, **own}, kernel_of))
    kernels = tuple(used.values())
    return CompiledLayer(source, plan, program, graph.arrays, own, watch.ms, kernels, threads)


def prepare_states(graph: Graph, states: MutableMapping[str, np.ndarray]) -> MutableMapping:
    """Check the arrays given for the graph's states, and make those that are missing, zero.

    One mapping may serve several graphs: names that this graph has no state for are left alone.
    """
    for buffer in (b for b in graph.buffers if b.kind == "state"):
        if any(s.constant is None for s in buffer.shape):
            raise ShapeError(f"state `{buffer.name}` has a dynamic size; give it constant sizes")
        shape, dtype = tuple(s.constant for s in buffer.shape), np.dtype(buffer.dtype)
        array = states.setdefault(buffer.name, aligned_zeros(shape, dtype))
        if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (shape, dtype):
            got = f"{array.dtype}{array.shape}" if isinstance(array, np.ndarray) else repr(array)
            raise ShapeError(f"state `{buffer.name}` must be {dtype}{shape}, got {got}")
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise ShapeError(f"state `{buffer.name}` must be C-contiguous and writeable")
    return states


# what GLLM_SPEC=1 runs on a stage's result; graphs, traces and kernels are checked where they are made
CHECKS: dict[str, Callable[[object], object]] = {
    "plan": plan_spec.check, "kernel": kernel_spec.check,
}


@dataclass
class _Watch:
    """Checks what each stage made if asked to, tells the observer, and counts the time of neither."""

    observe: Observe | None
    ms: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    def __call__(self, stage: str, made: object) -> object:
        self.ms += (time.perf_counter() - self.since) * 1e3
        if current().spec and stage in CHECKS:
            CHECKS[stage](made)
        if self.observe:
            self.observe(stage, made, self.ms)
        self.since = time.perf_counter()
        return made


def printer() -> Observe | None:
    """What GLLM_DUMP and GLLM_TIME ask for, on stderr."""
    config = current()
    if not (config.dump or config.time):
        return None

    def show(stage: str, made: object, ms: float) -> None:
        if config.dumps(stage, str(getattr(made, "name", ""))):
            print(f"--- {stage}\n{made}", file=sys.stderr)
        if config.time:
            print(f"{stage:8} {ms:9.3f} ms", file=sys.stderr)

    return show
