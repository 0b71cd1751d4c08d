"""Phase 2: groups of nodes that become one kernel each, with a reason for every edge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..dtypes import ITEMSIZE
from ..graph.bind import TensorTrace, bind, instantiate
from ..graph.dag import SemanticDAG, TensorEdge
from ..graph.ir import Node
from ..trace.affine import Affine
from ..trace.ir import BodyBuilder, Op
from .profile import DeviceProfile
from .rules import Candidate, FusionMode, Verdict, judge, loads_of, refusal


@dataclass(frozen=True, slots=True)
class FusionGroup:
    """Nodes in order; `trace` is what they compute together, None for an opaque node."""

    nodes: tuple[int, ...]
    trace: TensorTrace | None


@dataclass(frozen=True, slots=True)
class EdgeDecision:
    edge: TensorEdge
    mode: FusionMode | None
    reason: str


@dataclass(frozen=True, slots=True)
class FusionPlan:
    """Groups in execution order, and the decision for every edge."""

    dag: SemanticDAG
    profile: DeviceProfile
    groups: tuple[FusionGroup, ...]
    decisions: tuple[EdgeDecision, ...]

    def name(self, group: FusionGroup) -> str:
        """The operators of a group: gemm_bt+vec_add."""
        return "+".join(self.dag.graph.nodes[i].op.name for i in group.nodes)

    def __str__(self) -> str:
        lines = [f"profile {self.profile}", "groups"]
        for number, group in enumerate(self.groups):
            names = " + ".join(self.dag.graph.nodes[i].name for i in group.nodes)
            lines.append(f"  {number:3} {names}")
        return "\n".join([*lines, "edges", *map(self._edge, self.decisions)])

    def _edge(self, decision: EdgeDecision) -> str:
        nodes, edge = self.dag.graph.nodes, decision.edge
        what = f"fused by {decision.mode}" if decision.mode else "not fused"
        ends = f"{nodes[edge.producer].name} -> {nodes[edge.consumer].name}.{edge.param}"
        return f"  {ends:44} {what}: {decision.reason}"


def plan_fusion(dag: SemanticDAG, profile: DeviceProfile) -> FusionPlan:
    """Greedy in node order: a node joins the group of its latest producer if a rule allows it.

    The latest producer is the only safe host: everything else the node reads is computed before
    that group runs, so merging never closes a cycle.
    """
    planner = _Planner(dag, profile)
    for node in dag.graph.nodes:
        planner.place(node)
    return FusionPlan(dag, profile, tuple(planner.groups.values()), tuple(planner.decisions))


@dataclass
class _Planner:
    """Open groups by their last node, and for every node the last node of its group."""

    dag: SemanticDAG
    profile: DeviceProfile
    groups: dict[int, FusionGroup] = field(default_factory=dict)
    home: dict[int, int] = field(default_factory=dict)
    decisions: list[EdgeDecision] = field(default_factory=list)

    def place(self, node: Node) -> None:
        own = FusionGroup((node.index,), None if node.op.trace is None else bind(node))
        edges = sorted(self.dag.into(node.index), key=lambda e: (-self.home[e.producer], e.param))
        if edges:
            own = self._join(edges, own)
        self.groups[node.index] = own
        self.home.update(dict.fromkeys(own.nodes, node.index))

    def _join(self, edges: list[TensorEdge], own: FusionGroup) -> FusionGroup:
        """Judge the edges from the latest producer, refuse the others, merge when allowed."""
        first = edges[0]
        host = self.groups[self.home[first.producer]]
        verdict = judge(self._candidate(first, own))
        for edge in edges:
            same = (edge.producer, edge.view) == (first.producer, first.view)
            made = verdict if same else Verdict(None, self._elsewhere(edge, first, own))
            self.decisions.append(EdgeDecision(edge, made.mode, made.reason))
        if verdict.mode is None:
            return own
        del self.groups[self.home[first.producer]]
        return FusionGroup(host.nodes + own.nodes, substitute(host.trace, own.trace, first))

    def _candidate(self, edge: TensorEdge, own: FusionGroup) -> Candidate:
        host = self.groups[self.home[edge.producer]]
        return Candidate(self.dag, edge, host.trace, own.trace, host.nodes, self.profile)

    def _elsewhere(self, edge: TensorEdge, first: TensorEdge, own: FusionGroup) -> str:
        latest = f"the node follows its latest producer, {self.name(first.producer)}"
        return refusal(self._candidate(edge, own)) or f"{latest}; this operand comes from memory"

    def name(self, index: int) -> str:
        return self.dag.graph.nodes[index].name


def substitute(producer: TensorTrace, consumer: TensorTrace, edge: TensorEdge) -> TensorTrace:
    """The consumer with every load of the edge's view replaced by the producer's body.

    t[i] = f(x[i]);  out[i] = g(t[i])   ->   out[i] = g(f(x[i]))
    """
    consumer = _unify(producer, consumer, edge)
    builder = BodyBuilder()
    binders = [str(coord) for coord in producer.stores[0].target.coords]
    place: list[int] = []
    made: dict[tuple[Affine, ...], int] = {}  # of equal elements: t[i] + t[i] computes t[i] once
    for position, op in enumerate(consumer.body):
        if op.op is Op.LOAD and op.imm.view == edge.view:
            if op.imm.coords not in made:
                env = dict(zip(binders, op.imm.coords))
                inner = instantiate(producer, builder, env, f".{position}")
                value = inner[producer.stores[0].value]
                made[op.imm.coords] = as_stored(builder, value, edge.view.dtype)
            place.append(made[op.imm.coords])
        else:
            args = tuple(place[a] for a in op.args)
            place.append(builder.add(op.op, *args, imm=op.imm))
    stores = tuple(replace(s, value=place[s.value]) for s in consumer.stores)
    sizes = dict(producer.sizes) | dict(consumer.sizes)
    return TensorTrace(consumer.domain, tuple(builder.body), stores, tuple(sizes.items()))


def as_stored(builder: BodyBuilder, value: int, dtype: str) -> int:
    """What would be read back: of an integer the low 8 or 16 bits, a float as it is."""
    bits = 8 * ITEMSIZE[dtype]
    if "int" not in dtype or bits >= 32:
        return value
    if dtype.startswith("u"):
        return builder.add(Op.BITAND, value, builder.add(Op.INT, imm=(1 << bits) - 1))
    count = builder.add(Op.INT, imm=32 - bits)
    return builder.add(Op.SAR, builder.add(Op.SHL, value, count), count)


def _unify(producer: TensorTrace, consumer: TensorTrace, edge: TensorEdge) -> TensorTrace:
    """The consumer with its sizes named as the producer names the same axes."""
    extents = dict(consumer.domain) | {op.imm[1]: op.imm[2] for op in consumer.reduces()}
    wanted = dict(producer.domain)
    same: dict[str, Affine] = {}
    for access in loads_of(consumer, edge):
        for coord, target in zip(access.coords, producer.stores[0].target.coords):
            have = extents.get(str(coord))
            if have is not None and len(have.symbols) == 1:
                same.setdefault(str(have), wanted[str(target)])
    return consumer.rename_sizes(same)
