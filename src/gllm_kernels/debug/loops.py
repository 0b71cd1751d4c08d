"""What an innermost loop executes per round, and what that costs at least.

    FMA bound    multiply-adds / (multiply-adds per cycle)
    load bound   loads of up to 32 bytes / 2 + loads of 64 bytes * (cycles of one)
    chain        the longest dependence that a round hands to the next: instructions, cycles

The loop is decoded from its bytes, so this is about the code that runs and not about what the
generator meant. Every instruction is of one class; an FMA that reads memory is an FMA, and a load
for the load bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from iced_x86 import (
    Decoder, FlowControl, Instruction, InstructionInfoFactory, MemorySizeExt, OpAccess, Register,
    RegisterExt,
)

from ..codegen.code import Code, Piece

CLASSES = ("fma", "load", "store", "integer", "move", "spill", "other")
# tags of a piece in the order in which they decide
BY_TAG = (("x", "spill"), ("f", "fma"), ("l", "load"), ("s", "store"), ("m", "move"))
READS = frozenset((OpAccess.READ, OpAccess.READ_WRITE, OpAccess.COND_READ,
                   OpAccess.READ_COND_WRITE))
WRITES = frozenset((OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE,
                    OpAccess.READ_COND_WRITE))
ROUNDS = 8  # half of them until the longest chain leads, half to see how fast it grows


@dataclass(frozen=True, slots=True)
class Ports:
    """Per cycle: multiply-adds of a whole vector, loads of a whole vector, narrower loads.

    `latency`: cycles of a multiply-add; of another vector instruction that depends on the round
    before, `vector`; of an integer one, 1.
    """

    fma: float
    wide: float
    narrow: float
    latency: int
    vector: int


# fmt: off
MODELS = {  # AMD 57647 (Zen 4 optimization guide) 2.11, 2.12; Intel's clients are alike at 256 bits
    "avx2":   Ports(fma=2, wide=2, narrow=2, latency=4, vector=3),
    "avx512": Ports(fma=1, wide=1, narrow=2, latency=4, vector=3),  # 512 bits in two halves
}
MODELS["avx512bf16"] = MODELS["avx512"]
# fmt: on


@dataclass(frozen=True, slots=True)
class Loop:
    """One innermost loop of one kernel or routine."""

    kernel: str
    name: str
    counts: dict[str, int]  # by class
    fma_bound: float
    load_bound: float
    chain: float  # instructions from a round to the next
    chain_cycles: float

    @property
    def instructions(self) -> int:
        return sum(self.counts.values())

    @property
    def bound(self) -> float:
        return max(self.fma_bound, self.load_bound, self.chain_cycles)


@dataclass(frozen=True, slots=True)
class Node:
    """One instruction of a loop: what it needs, what it makes, how long that takes."""

    kind: str
    loads: tuple[int, ...]  # bytes of each
    reads: frozenset[object]
    writes: frozenset[object]
    latency: int


def loops_of(code: Code) -> list[Loop]:
    """Of this code alone, in its order."""
    return [loop_of(code, number, name) for number, name in code.loops]


def loop_of(code: Code, number: int, name: str) -> Loop:
    ports = MODELS[code.isa.name]
    nodes = [node_of(piece, instruction, ports) for piece, instruction in inside(code, number)]
    counts = dict.fromkeys(CLASSES, 0)
    for node in nodes:
        counts[node.kind] += 1
    wide = code.isa.vector_bytes
    cycles = sum(1 / (ports.wide if size >= wide else ports.narrow)
                 for node in nodes for size in node.loads)
    return Loop(code.kernel.name, name or "-", counts, counts["fma"] / ports.fma, cycles,
                carried(nodes, [1] * len(nodes)), carried(nodes, [n.latency for n in nodes]))


def inside(code: Code, number: int) -> Iterator[tuple[Piece, Instruction]]:
    """The instructions of a loop, decoded."""
    ends = [p.offset for p in code.pieces[1:]] + [code.pool]
    for piece, end in zip(code.pieces, ends, strict=True):
        if piece.loop == number:
            for instruction in Decoder(64, code.bytes[piece.offset : end], ip=piece.offset):
                yield piece, instruction


def node_of(piece: Piece, instruction: Instruction, ports: Ports) -> Node:
    info = factory().info(instruction)
    reads = {file_of(u.register) for u in info.used_registers() if u.access in READS}
    writes = {file_of(u.register) for u in info.used_registers() if u.access in WRITES}
    loads = []
    for used in info.used_memory():
        slot = [("slot", used.displacement)] if used.base == Register.RSP else []
        if used.access in READS:
            loads.append(MemorySizeExt.size(used.memory_size))
            reads.update(slot)
        if used.access in WRITES:
            writes.update(slot)
    kind = class_of(piece, instruction, reads | writes)
    if kind == "load" and not loads:
        kind = "other"  # a prefetch
    # a plain move is renamed away; exchanges are made of operations that read what they write
    latency = {"fma": ports.latency, "integer": 1, "move": int(bool(reads & writes))}
    return Node(kind, tuple(loads), frozenset(reads), frozenset(writes),
                latency.get(kind, ports.vector))


@cache
def factory() -> InstructionInfoFactory:
    return InstructionInfoFactory()


def file_of(register: int) -> int:
    """ymm3 is the lower half of zmm3."""
    return RegisterExt.full_register(register)


def class_of(piece: Piece, instruction: Instruction, used: set[object]) -> str:
    tagged = next((name for tag, name in BY_TAG if tag in piece.tags), "")
    if tagged:
        return tagged
    jumps = instruction.flow_control != FlowControl.NEXT
    registers = {r for r in used if isinstance(r, int)}
    only_integers = registers and all(RegisterExt.is_gpr(r) for r in registers)
    # a prefetch uses integer registers too, but makes none
    made = instruction.op_count and instruction.op0_register != Register.NONE
    return "integer" if only_integers and made and not jumps else "other"


def carried(nodes: list[Node], cost: list[int]) -> float:
    """Growth per round of the longest path: depth[out] = max(depth[in]) + cost."""
    depth: dict[object, float] = {}
    longest = [0.0]
    for _ in range(ROUNDS):
        for node, own in zip(nodes, cost, strict=True):
            at = max((depth.get(r, 0.0) for r in node.reads), default=0.0) + own
            depth |= dict.fromkeys(node.writes, at)
        longest.append(max(depth.values(), default=0.0))
    return (longest[-1] - longest[ROUNDS // 2]) / (ROUNDS - ROUNDS // 2)


def loop_table(parts: Iterable[Code]) -> str:
    """A row per loop; the model of its bounds in front."""
    found = [(code, loop) for code in parts for loop in loops_of(code)]
    names = dict.fromkeys(code.isa.name for code, _ in found)
    head = (f"{'code':18}{'loop':18}{'instr':>6}" + "".join(f"{n:>8}" for n in CLASSES)
            + f"{'FMA':>8}{'loads':>7}{'chain':>7}{'cycles':>8}  bound")
    return "\n".join([*(model_line(name) for name in names), "", head,
                      *(line_of(loop) for _, loop in found)])


def model_line(isa: str) -> str:
    p = MODELS[isa]
    return (f"{isa}: per cycle {p.fma:g} multiply-adds, {p.wide:g} loads of a vector, {p.narrow:g} "
            f"narrower ones; latency {p.latency} of a multiply-add, {p.vector} of other vector "
            "instructions, 1 of integer ones; bounds in cycles per round, chain in instructions")


def line_of(loop: Loop) -> str:
    counts = "".join(f"{loop.counts[name]:8}" for name in CLASSES)
    bounds = {"FMA": loop.fma_bound, "loads": loop.load_bound, "chain": loop.chain_cycles}
    most = max(bounds, key=lambda name: bounds[name]) if loop.bound else "-"
    return (f"{loop.kernel:18}{loop.name:18}{loop.instructions:6}{counts}{loop.fma_bound:8.1f}"
            f"{loop.load_bound:7.1f}{loop.chain:7.1f}{loop.chain_cycles:8.1f}  {most}")
