"""Which edges may be fused, and why not: one row per constraint and one row per rule.

A fused edge is a substitution: the consumer's load becomes the producer's body at the consumer's
coordinates. A value that others need as well is stored by the fused group too. Every row is a
function of one `Candidate` that returns a reason to refuse, or "". Fusing removes an edge for good
and never adds one, so planning ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from ..dtypes import ITEMSIZE
from ..errors import CompileError
from ..graph.bind import TensorStore, TensorTrace
from ..graph.dag import SemanticDAG, TensorEdge
from ..graph.view import size_of
from ..trace.affine import Affine
from ..trace.attention import attention_of
from ..trace.ir import Op
from ..trace.pattern import RANK, ComputePattern, pattern_of
from .beside import beside
from .cost import CROSSING, bytes_of, level, product_cycles
from .linear import linearise
from .profile import DeviceProfile
from .substitute import loads_of, substitute

HEAD_SIZE = 512  # elements: the blocks of one thread stay below 4 MB
CONTRACTIONS = (ComputePattern.GEMM, ComputePattern.GEMV)


class FusionMode(StrEnum):
    """How a producer's value reaches its consumer."""

    EPILOGUE = "epilogue"  # in the accumulators of a contraction
    LOOP = "loop"  # in registers, one loop nest for both
    SHARED_INPUT = "shared-input"  # in scratch, from a contraction of the same input
    ONLINE_SOFTMAX = "online-softmax"  # block by block of keys, with a running maximum and sum


@dataclass(frozen=True, slots=True)
class Candidate:
    """An edge under judgement: the producer's group and the consumer's own trace; `kept` are the
    stores of the group that others need once both are one, `source` is the edge into the
    producer's group from the one before it."""

    dag: SemanticDAG
    edge: TensorEdge
    producer: TensorTrace | None
    consumer: TensorTrace | None
    group: tuple[int, ...]
    kept: tuple[TensorStore, ...]
    profile: DeviceProfile
    source: Candidate | None = None

    def name(self, index: int) -> str:
        return self.dag.graph.nodes[index].name


@dataclass(frozen=True, slots=True)
class Rule:
    """`applies` decides on the two patterns, `refuse` on everything else."""

    mode: FusionMode
    applies: Callable[[ComputePattern, ComputePattern], bool]
    refuse: Callable[[Candidate], str]
    benefit: Callable[[Candidate], str]


# -- constraints that hold for every rule -----------------------------------------------------------
def _scalar(c: Candidate) -> str:
    return "the scalar ISA calls the operators' own functions" if c.profile.isa == "scalar" else ""


def _opaque(c: Candidate) -> str:
    for index in (c.edge.producer, c.edge.consumer):
        if c.dag.graph.nodes[index].op.trace is None:
            return f"{c.name(index)} is opaque: {c.dag.graph.nodes[index].op.opaque}"
    return ""


def _exact(c: Candidate) -> str:
    return "" if c.edge.exact else f"reads {c.edge.view}, which is not the view that was written"


def _one_place(c: Candidate) -> str:
    """All that the producer stores, it stores element by element at the same coordinates."""
    binders = sorted(b for b, _ in c.producer.domain)
    first = c.producer.stores[0].target.coords
    whole = sorted(map(str, first)) == binders
    same = all(s.target.coords == first and s.depth is None for s in c.producer.stores)
    return "" if whole and same else "the producer writes it in several pieces"


def _overwritten(c: Candidate) -> str:
    """A producer moves down to its consumer; nothing in between may write what it reads, or touch
    what it stores."""
    reads = {a.view.buffer for a in c.producer.accesses()}
    stored = {s.target.view.buffer for s in c.kept}
    between = range(min(c.group), c.edge.consumer)
    for node in (c.dag.graph.nodes[i] for i in between if i not in c.group):
        for views, buffers, what in ((node.outputs, reads, "writes"), (node.inputs, stored, "reads")):
            for view in (v for _, v in views if v.buffer in buffers):
                return f"{node.name} {what} {view.buffer} in between"
    return ""


def _clobbers(c: Candidate) -> str:
    """The group writes what the producer still reads, elsewhere than in its own round, or what is
    stored on the way."""
    for store in c.kept:
        for target in (s.target.view for s in c.consumer.stores):
            if target.buffer == store.target.view.buffer:
                return f"{c.name(c.edge.consumer)} writes {target}, which is stored on the way"
    written = [s.target for s in (*c.consumer.stores, *c.kept)]
    reduces = c.producer.reduces() or (c.kept and c.consumer.reduces())
    for read in c.producer.accesses()[: -len(c.producer.stores)]:
        for target in (t for t in written if t.view.buffer == read.view.buffer):
            if reduces or read.view != target.view:
                return f"{c.name(c.edge.consumer)} writes {target.view}, which {read.view} reads"
    return ""


CONSTRAINTS = (_scalar, _opaque, _exact, _one_place, _overwritten, _clobbers)


# -- rules ------------------------------------------------------------------------------------------
def own_position(trace: TensorTrace) -> tuple[Affine, ...]:
    """The coordinates of the loop's own round."""
    return tuple(Affine.sym(b) for b, _ in trace.domain)


def operands_of(trace: TensorTrace) -> int:
    """Distinct elements a trace loads per round."""
    return sum(1 for op in trace.body if op.op is Op.LOAD)


def _epilogue_registers(c: Candidate) -> str:
    """Accumulators fill all but a few registers; an epilogue gets what one row of the tile leaves."""
    extra = operands_of(c.consumer) - 1
    free = c.profile.vector_registers // 4
    if extra <= free:
        return ""
    return f"{extra} extra operands, {free} of {c.profile.vector_registers} registers are free"


def _recompute(c: Candidate) -> str:
    """A producer with reductions may be read at the loop's own position only."""
    coords = {a.coords for a in loads_of(c.consumer, c.edge)}
    if not c.producer.reduces() or coords <= {own_position(c.consumer)}:
        return ""
    return "its reductions would run again for every element of the consumer's row"


def _scores(c: Candidate) -> str:
    """The scores move down to the last product as well, past everything in between."""
    if c.source is None or c.source.producer is None:
        return "what the softmax reads is not computed by a kernel of this layer"
    if c.source.kept:
        return f"its scores stay in memory: others need {_names(c.source.kept)} too"
    moved = replace(c.source.edge, consumer=c.edge.consumer)
    reason = refusal(replace(c.source, edge=moved, consumer=c.consumer))
    return f"its scores stay in memory: {reason}" if reason else _not_attention(c)


def _not_attention(c: Candidate) -> str:
    """The chain as one trace must be what the kernel computes, and its heads fit scratch."""
    weights = substitute(c.source.producer, c.producer, [c.source.edge.view])
    bound = linearise("the chain", substitute(weights, c.consumer, [c.edge.view]))
    trace = bound.trace
    try:
        found = attention_of(trace)
    except CompileError as problem:
        return str(problem)
    if pattern_of(trace) is not ComputePattern.ATTENTION:
        return "its rows have no keys of their own"
    sizes = {p.name: value for p, value in zip(trace.params, bound.arguments)}
    for extent in (trace.body[found.product].imm[2], trace.stores[0].domain[-1][1]):
        size = extent.substitute(sizes).constant
        if size is None or size > HEAD_SIZE:
            return (f"rows of a head have {extent.substitute(sizes)} elements; scratch is for a "
                    f"known number up to {HEAD_SIZE}")
    return ""


def _stored_too(c: Candidate) -> str:
    """What others need must be computed in just the rounds of the consumer."""
    if not c.kept or own_position(c.consumer) in {a.coords for a in loads_of(c.consumer, c.edge)}:
        return ""
    consumer = c.name(c.edge.consumer)
    return f"others need {_names(c.kept)} too, and {consumer} has no round for each element"


def _names(stores: tuple[TensorStore, ...]) -> str:
    return ", ".join(sorted(s.target.view.buffer for s in stores))


def _not_beside(c: Candidate) -> str:
    """The consumer is the group of another product already, with everything it is read by."""
    if c.kept:
        return f"others need {_names(c.kept)} in memory"
    found = beside(c.producer, c.consumer, c.edge.view)
    return found if isinstance(found, str) else ""


def _shared(c: Candidate) -> str:
    """What is packed once, and what stays out of memory."""
    _, view = beside(c.producer, c.consumer, c.edge.view)
    size = size_of(view.shape) * ITEMSIZE[view.dtype]
    return f"{size} bytes of {view.buffer} packed once, {c.edge.bytes} bytes wait in scratch, not in memory"


def _saved(c: Candidate) -> str:
    return f"{c.edge.bytes} bytes stay in registers"


def _saved_online(c: Candidate) -> str:
    return f"{c.edge.bytes} bytes of weights stay in cache, block by block"


def _epilogue_saved(c: Candidate) -> str:
    return f"{_saved(c)}, {operands_of(c.consumer) - 1} extra operand(s)"


def _row_loop(pattern: ComputePattern) -> bool:
    return pattern not in CONTRACTIONS and pattern is not ComputePattern.OPAQUE


def _pointwise(pattern: ComputePattern) -> bool:
    return pattern in (ComputePattern.ELEMENTWISE, ComputePattern.INJECTIVE)


# fmt: off
RULES: tuple[Rule, ...] = (
    Rule(FusionMode.EPILOGUE, lambda p, c: p in CONTRACTIONS and _pointwise(c),
         lambda c: _recompute(c) or _epilogue_registers(c), _epilogue_saved),
    Rule(FusionMode.ONLINE_SOFTMAX, lambda p, c: (p, c) == (ComputePattern.NORM_LIKE, ComputePattern.GEMM),
         _scores, _saved_online),
    Rule(FusionMode.LOOP, lambda p, c: _row_loop(p) and _row_loop(c), _recompute, _saved),
)
# for what a node reads beside its latest producer
BESIDE: tuple[Rule, ...] = (
    Rule(FusionMode.SHARED_INPUT, lambda p, c: p in CONTRACTIONS and _pointwise(c),
         lambda c: _recompute(c) or _not_beside(c), _shared),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Verdict:
    """mode is None when the edge stays in memory."""

    mode: FusionMode | None
    reason: str


def refusal(candidate: Candidate) -> str:
    """The first constraint that fails, in words, or ""."""
    return next(filter(None, (constraint(candidate) for constraint in CONSTRAINTS)), "")


def judge(candidate: Candidate, rules: tuple[Rule, ...] = RULES, otherwise: str = "") -> Verdict:
    """The first rule whose patterns fit decides; a refusal is data."""
    reason = refusal(candidate)
    if reason:
        return Verdict(None, reason)
    patterns = [candidate.dag.op_class(index) for index in candidate.group]
    produced, consumed = max(patterns, key=RANK.index), candidate.dag.op_class(candidate.edge.consumer)
    for rule in rules:
        if rule.applies(produced, consumed):
            reason = _stored_too(candidate) or rule.refuse(candidate)
            if reason and consumed in CONTRACTIONS:
                reason = f"{reason}; {_in_memory(candidate)}"
            return Verdict(None, reason) if reason else Verdict(rule.mode, rule.benefit(candidate))
    reason = f"a {consumed} reads each element of a {produced} more than once"
    return Verdict(None, otherwise or f"{reason}; {_in_memory(candidate)}")


def _in_memory(c: Candidate) -> str:
    """What computing it as a whole costs. A product could compute what it packs, once for every block
    of columns; the trip through memory is all that would save, little beside the product itself."""
    if c.dag.op_class(c.edge.consumer) not in CONTRACTIONS:
        return f"{c.edge.bytes} bytes go through memory"
    price = CROSSING[level(bytes_of(c.edge.view.shape, c.edge.view.dtype), c.profile)]
    return (f"{c.edge.bytes} bytes in memory cost {price} cycles per 64 bytes, the product "
            f"{product_cycles(c.consumer, c.profile):.0f}")
