"""From a plan and its kernels to a program: every group's arguments become slots of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..codegen.kernel import Kernel
from ..dtypes import ITEMSIZE
from ..fusion.buffers import BufferPlan
from ..fusion.linear import BoundGroup, Pointer, linearise
from ..fusion.plan import FusionGroup, FusionPlan
from ..graph.view import View
from ..trace.affine import Affine
from ..trace.ir import OpTrace
from .direct import DirectCall
from .program import BufferSpec, FloatSlot, IntSlot, PointerSlot, Program, Slot, Step


@dataclass(frozen=True, slots=True)
class LoadedKernel:
    """A kernel and where its code is; `owner` keeps the memory."""

    kernel: Kernel
    address: int
    code: object
    owner: object


KernelSource = Callable[[OpTrace], LoadedKernel]


def link(plan: FusionPlan, buffers: BufferPlan, arrays: Mapping[str, np.ndarray],
         kernel_of: KernelSource) -> Program:
    """`arrays` are the weights and states; everything else is an input, an output or a slot."""
    return _Linker(plan, buffers, arrays, kernel_of).run()


@dataclass
class _Linker:
    plan: FusionPlan
    buffers: BufferPlan
    arrays: Mapping[str, np.ndarray]
    kernel_of: KernelSource
    table: list[BufferSpec] = field(default_factory=list)
    place: dict[str, int] = field(default_factory=dict)
    spares: dict[int, list[Affine]] = field(default_factory=dict)
    owners: list[object] = field(default_factory=list)

    def run(self) -> Program:
        self._tables()
        first_spare = len(self.table)
        steps = [step for group in self.plan.groups for step in self._steps(group, first_spare)]
        self.table += [BufferSpec(f"copy{n}", "internal", sizes[0], 8, also=tuple(sizes[1:]))
                       for n, sizes in self.spares.items()]
        return Program(tuple(steps), tuple(self.table), self._dims(), tuple(self.owners))

    def _tables(self) -> None:
        """Slots first, then every buffer that is not in one."""
        for number, sizes in enumerate(self.buffers.sizes):
            self.table.append(BufferSpec(f"slot{number}", "internal", sizes[0], also=sizes[1:]))
        self.place.update(self.buffers.slot)
        fused = {b.name for b in self.plan.dag.graph.buffers} - self._touched()
        for buffer in self.plan.dag.graph.buffers:
            if buffer.name in self.place or buffer.name in fused:
                continue
            array = self.arrays.get(buffer.name)
            self.place[buffer.name] = len(self.table)
            kind = "external" if array is None else "constant"
            self.table.append(BufferSpec(buffer.name, kind, itemsize=ITEMSIZE[buffer.dtype],
                                         array=array))

    def _touched(self) -> set[str]:
        """Buffers that some group reads or writes in memory."""
        names: set[str] = {view.buffer for _, view in self.plan.dag.graph.outputs}
        for group in self.plan.groups:
            if group.trace is not None:
                names |= {a.view.buffer for a in group.trace.accesses()}
            for node in (self.plan.dag.graph.nodes[i] for i in group.nodes if group.trace is None):
                names |= {v.buffer for _, v in node.inputs + node.outputs}
        return names

    def _steps(self, group: FusionGroup, first_spare: int) -> list[Step]:
        if group.trace is not None and self.plan.profile.isa != "scalar":
            return [self._kernel_step(linearise("kernel", group.trace), self.plan.name(group))]

        def spare(number: int, size: Affine) -> PointerSlot:
            sizes = self.spares.setdefault(number, [])
            sizes += [size] if size not in sizes else []
            return PointerSlot(first_spare + list(self.spares).index(number))

        node = self.plan.dag.graph.nodes[group.nodes[0]]
        return DirectCall(node, self._pointer, spare).steps()

    def _kernel_step(self, group: BoundGroup, name: str) -> Step:
        loaded = self.kernel_of(group.trace)
        self.owners.append(loaded.owner)
        values = dict(zip((p.name for p in group.trace.params), group.arguments))
        sizes = {name: v for name, v in values.items() if isinstance(v, Affine)}
        kernel = loaded.kernel
        slots = tuple(self._slot(values[p.name]) for p in kernel.params)
        return Step(loaded.address, slots, kernel.units.substitute(sizes), kernel.grain, name,
                    kernel.scratch.substitute(sizes))

    def _slot(self, value: Pointer | Affine | float) -> Slot:
        if isinstance(value, Pointer):
            size = ITEMSIZE[self.plan.dag.graph.buffer(value.buffer).dtype]
            return PointerSlot(self.place[value.buffer], value.offset, size)
        return IntSlot(value) if isinstance(value, Affine) else FloatSlot(value)

    def _pointer(self, view: View) -> PointerSlot:
        return PointerSlot(self.place[view.buffer], view.offset, ITEMSIZE[view.dtype])

    def _dims(self) -> tuple[str, ...]:
        graph = self.plan.dag.graph
        used = {s for b in graph.buffers for extent in b.shape for s in extent.symbols}
        used |= {s for node in graph.nodes for _, v in node.dims for s in v.symbols}
        views = [v for node in graph.nodes for _, v in node.inputs + node.outputs]
        used |= {s for v in views for a in (*v.shape, *v.strides, v.offset) for s in a.symbols}
        return tuple(sorted(used))
