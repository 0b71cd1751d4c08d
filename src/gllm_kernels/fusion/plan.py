"""Phase 2: groups of nodes that become one kernel each, with a reason for every edge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..graph.bind import TensorStore, TensorTrace, bind
from ..graph.dag import SemanticDAG, TensorEdge
from ..graph.ir import Node
from ..graph.view import View
from .beside import beside
from .cost import Cut, cut_of
from .profile import DeviceProfile
from .rules import BESIDE, Candidate, FusionMode, Verdict, judge
from .substitute import substitute


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
        kept = f"; {edge.view.buffer} is stored too" if decision.mode and self.stores(edge) else ""
        return f"  {ends:44} {what}: {decision.reason}{kept}"

    def stores(self, edge: TensorEdge) -> bool:
        """Whether the group of a fused edge also stores what crosses it."""
        group = next(g for g in self.groups if edge.consumer in g.nodes)
        return any(s.target.view == edge.view for s in group.trace.stores)


def plan_fusion(dag: SemanticDAG, profile: DeviceProfile) -> FusionPlan:
    """Greedy in node order: a node joins the group of its latest producer if a rule allows it.

    The latest producer is the only safe host: everything else the node reads is computed before
    that group runs, so merging never closes a cycle.
    """
    cuts: dict[int, str] = {}
    while (planner := _planned(dag, profile, cuts)).cut:
        cuts[planner.cut.node] = planner.cut.reason
    return FusionPlan(dag, profile, tuple(planner.groups.values()), tuple(planner.decisions))


def _planned(dag: SemanticDAG, profile: DeviceProfile, cuts: dict[int, str]) -> _Planner:
    """Up to the end, or to a group that is cheaper in two: then all starts again, one cut ahead."""
    planner = _Planner(dag, profile, cuts)
    for node in dag.graph.nodes:
        planner.place(node)
        if planner.cut:
            break
    return planner


@dataclass
class _Planner:
    """Open groups by their last node, and for every node the last node of its group."""

    dag: SemanticDAG
    profile: DeviceProfile
    cuts: dict[int, str]  # nodes that join nothing, and why
    cut: Cut | None = None  # one more
    groups: dict[int, FusionGroup] = field(default_factory=dict)
    home: dict[int, int] = field(default_factory=dict)
    decisions: list[EdgeDecision] = field(default_factory=list)
    readers: dict[str, set[int]] = field(default_factory=dict)  # of temporaries

    def __post_init__(self) -> None:
        for edge in self.dag.edges:
            if edge.private:
                self.readers.setdefault(edge.view.buffer, set()).add(edge.consumer)

    def place(self, node: Node) -> None:
        own = FusionGroup((node.index,), None if node.op.trace is None else bind(node))
        edges = sorted(self.dag.into(node.index), key=lambda e: (-self.home[e.producer], e.param))
        if edges:
            own = self._join(edges, own)
        self.groups[node.index] = own
        self.home.update(dict.fromkeys(own.nodes, node.index))

    def _join(self, edges: list[TensorEdge], own: FusionGroup) -> FusionGroup:
        """Judge the edges from the latest group, refuse the others, merge when all may be fused."""
        latest = self.home[edges[0].producer]
        near = [e for e in edges if self.home[e.producer] == latest]
        candidate = self._with_source(self._candidate(edges[0], own))
        verdicts = {(e.producer, e.view): self._judge(replace(candidate, edge=e)) for e in near}
        refused = next((v for v in verdicts.values() if v.mode is None), None)
        if refused:
            apart = Verdict(None, f"the group of another operand stays apart: {refused.reason}")
            verdicts = {key: apart if v.mode else v for key, v in verdicts.items()}
            group = own
        else:
            mode = verdicts[edges[0].producer, edges[0].view].mode
            group = self._merged(candidate, [e.view for e in near], own, mode)
        for edge in edges:
            key = edge.producer, edge.view
            if key not in verdicts:
                verdicts[key], group = self._beside(edge, edges[0], group)
            self.decisions.append(EdgeDecision(edge, verdicts[key].mode, verdicts[key].reason))
        return group

    def _merged(self, candidate: Candidate, views: list[View], own: FusionGroup,
                mode: FusionMode) -> FusionGroup:
        host = self.groups.pop(self.home[candidate.edge.producer])
        if mode is FusionMode.ONLINE_SOFTMAX:
            host = self._with_scores(host, candidate.source.edge)
        if mode is FusionMode.LOOP:
            nodes = [self.dag.graph.nodes[n] for n in host.nodes + own.nodes]
            self.cut = cut_of(nodes, self.readers, self.profile)
        merged = substitute(host.trace, own.trace, views, candidate.kept)
        return FusionGroup(host.nodes + own.nodes, merged)

    def _beside(self, edge: TensorEdge, first: TensorEdge,
                group: FusionGroup) -> tuple[Verdict, FusionGroup]:
        """An operand from elsewhere: the sum of a product beside that of the group, or a load."""
        candidate = self._candidate(edge, group)
        latest = f"the node follows its latest producer, {self.name(first.producer)}"
        verdict = judge(candidate, BESIDE if len(group.nodes) > 1 else (),
                        f"{latest}; this operand comes from memory")
        if verdict.mode is None:
            return verdict, group
        host = self.groups.pop(self.home[edge.producer])
        trace, _ = beside(host.trace, group.trace, edge.view)
        return verdict, FusionGroup(host.nodes + group.nodes, trace)

    def _judge(self, candidate: Candidate) -> Verdict:
        verdict, cut = judge(candidate), self.cuts.get(candidate.edge.consumer)
        return Verdict(None, cut) if verdict.mode and cut else verdict

    def _with_scores(self, host: FusionGroup, edge: TensorEdge) -> FusionGroup:
        """The softmax's group behind that of its scores; the edge between them was refused."""
        scores = self.groups.pop(self.home[edge.producer])
        for number, made in enumerate(self.decisions):
            if (made.edge.producer, made.edge.view) == (edge.producer, edge.view):
                self.decisions[number] = replace(made, mode=FusionMode.ONLINE_SOFTMAX, reason=(
                    f"{edge.bytes} bytes of scores stay in cache, block by block"))
        return FusionGroup(scores.nodes + host.nodes,
                           substitute(scores.trace, host.trace, [edge.view]))

    def _with_source(self, candidate: Candidate) -> Candidate:
        """The candidate with the edge from the latest group before the producer's."""
        group = candidate.group
        edges = [e for n in group for e in self.dag.into(n) if e.producer not in group]
        if not edges or candidate.producer is None:
            return candidate
        edge = max(edges, key=lambda e: self.home[e.producer])
        before = self.groups[self.home[edge.producer]]
        stays = self._kept(before, {*before.nodes, *group})
        return replace(candidate, source=Candidate(self.dag, edge, before.trace, candidate.producer,
                                                   before.nodes, stays, self.profile))

    def _candidate(self, edge: TensorEdge, own: FusionGroup) -> Candidate:
        host = self.groups[self.home[edge.producer]]
        kept = self._kept(host, {*host.nodes, edge.consumer})
        return Candidate(self.dag, edge, host.trace, own.trace, host.nodes, kept, self.profile)

    def _kept(self, host: FusionGroup, members: set[int]) -> tuple[TensorStore, ...]:
        """What somebody else reads, or the caller."""
        stores = host.trace.stores if host.trace else ()
        return tuple(s for s in stores if self.readers.get(s.target.view.buffer, {-1}) - members)

    def name(self, index: int) -> str:
        return self.dag.graph.nodes[index].name
