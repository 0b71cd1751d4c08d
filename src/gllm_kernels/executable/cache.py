"""Kernels by content: equal traces of different layers and graphs share one piece of code."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from ..codegen.assemble import compile_kernel
from ..codegen.code import Code
from ..codegen.generate import generate
from ..codegen.isa.base import Isa
from ..codegen.tuning import TuningParams, host_params
from ..memory import place_batch
from ..trace.ir import OpTrace
from .link import LoadedKernel

CAPACITY = 4096  # kernels; a model has about ten

Observe = Callable[[str, object], None]


class KernelCache:
    """Least recently used kernels go first; a program that runs one keeps it alive."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.lock = threading.Lock()
        self.kernels: OrderedDict[tuple, LoadedKernel] = OrderedDict()

    def get(self, trace: OpTrace, isa: Isa, params: TuningParams | None = None,
            observe: Observe | None = None) -> LoadedKernel:
        """The loaded kernel of a bound trace, compiled now if it is new."""
        params = params or host_params(isa)
        key = (trace, isa.name, params)
        with self.lock:
            if key not in self.kernels:
                self.kernels[key] = _load(trace, isa, params, observe)
            self.kernels.move_to_end(key)
            while len(self.kernels) > self.capacity:
                self.kernels.popitem(last=False)
            return self.kernels[key]

    def clear(self) -> None:
        """Forget everything; running programs keep what they use."""
        with self.lock:
            self.kernels.clear()


def _load(trace: OpTrace, isa: Isa, params: TuningParams, observe: Observe | None) -> LoadedKernel:
    kernel = generate(trace, isa, params)
    if observe:
        observe("kernel", kernel)
    code: Code = compile_kernel(kernel, isa)
    if observe:
        observe("asm", code)
    batch = place_batch([code.bytes])
    return LoadedKernel(kernel, batch.addresses[0], code, batch.block)


KERNELS = KernelCache()
