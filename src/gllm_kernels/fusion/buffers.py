"""Memory of the temporaries: lifetimes over the groups, coloured so that few slots hold them all."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.view import View
from ..trace.affine import Affine
from .plan import FusionGroup, FusionPlan


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A buffer is written first by group `first` and read last by group `last`."""

    buffer: str
    size: Affine  # elements
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """`slot[buffer]`; `sizes[slot]` holds every size the slot must fit, in elements."""

    lifetimes: tuple[Lifetime, ...]
    slot: tuple[tuple[str, int], ...]
    sizes: tuple[tuple[Affine, ...], ...]

    def __str__(self) -> str:
        slots = dict(self.slot)
        rows = [f"  {t.buffer:8} slot {slots[t.buffer]:3}  groups {t.first}..{t.last}  "
                f"{t.size} elements" for t in self.lifetimes]
        return "\n".join(["buffers", *rows])


def plan_buffers(plan: FusionPlan) -> BufferPlan:
    """Interval colouring in order of first use; a dying input may hold an output in place."""
    lives = lifetimes(plan)
    slot: dict[str, int] = {}
    sizes: list[list[Affine]] = []
    for life in lives:
        taken = {slot[o.buffer] for o in lives if o.buffer in slot and _conflict(plan, o, life)}
        found = _best(life.size, [s for s in range(len(sizes)) if s not in taken], sizes)
        if found == len(sizes):
            sizes.append([])
        if life.size not in sizes[found]:
            sizes[found].append(life.size)
        slot[life.buffer] = found
    return BufferPlan(lives, tuple(slot.items()), tuple(map(tuple, sizes)))


def lifetimes(plan: FusionPlan) -> tuple[Lifetime, ...]:
    """Temporaries that groups write, by first use. Values fused away never appear, and outputs are
    the caller's memory."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    outputs = {view.buffer for _, view in plan.dag.graph.outputs}
    for number, group in enumerate(plan.groups):
        reads, writes = touched(plan, group)
        for view in writes:
            first.setdefault(view.buffer, number)
        for view in reads + writes:
            last[view.buffer] = number
    graph = plan.dag.graph
    own = [b for b in first if graph.buffer(b).kind == "temp" and b not in outputs]
    return tuple(Lifetime(b, graph.buffer(b).size, first[b], last[b]) for b in own)


def touched(plan: FusionPlan, group: FusionGroup) -> tuple[list[View], list[View]]:
    """The views a group reads from and writes to memory."""
    if group.trace is None:
        node = plan.dag.graph.nodes[group.nodes[0]]
        return [v for _, v in node.inputs], [v for _, v in node.outputs]
    stored = [s.target.view for s in group.trace.stores]
    return [a.view for a in group.trace.accesses()[: -len(stored)]], stored


def _best(size: Affine, free: list[int], sizes: list[list[Affine]]) -> int:
    """A free slot that already fits, else any free one, else a new one."""
    fitting = [s for s in free if size in sizes[s]]
    return (fitting or free or [len(sizes)])[0]


def _conflict(plan: FusionPlan, old: Lifetime, new: Lifetime) -> bool:
    if old.last < new.first or new.last < old.first:
        return False
    return not (old.last == new.first and _in_place(plan.groups[new.first], old.buffer, new.buffer))


def _in_place(group: FusionGroup, dying: str, born: str) -> bool:
    """Every element is read, for the last time, in the round that writes its place."""
    if group.trace is None or group.trace.reduces():
        return False
    stores = group.trace.stores
    target = next(s.target for s in stores if s.target.view.buffer == born)
    reads = [a for a in group.trace.accesses()[: -len(stores)] if a.view.buffer == dying]
    return bool(reads) and all(
        a.coords == target.coords and a.view.strides == target.view.strides
        and a.view.dtype == target.view.dtype
        and a.view.offset == target.view.offset for a in reads)
