"""docs/PIPELINE.md: one operator and one fused group, printed at every stage as they really are."""

from __future__ import annotations

from ..codegen.assemble import compile_kernel
from ..codegen.code import Code
from ..codegen.generate import generate
from ..codegen.isa.avx2 import AVX2
from ..codegen.tuning import default_params
from ..fusion.buffers import plan_buffers
from ..fusion.linear import linearise
from ..fusion.plan import FusionPlan, plan_fusion
from ..fusion.profile import DeviceProfile
from ..graph.dag import build_dag
from ..graph.ir import CompilerGraph
from ..graph.registry import operator_named
from ..lift.lifter import CATALOG_OBJECT, compiled, subject_of
from ..lift.signature import parse
from ..scalar.catalog import CATALOG
from ..scalar.sources import source_of
from ..trace.pattern import pattern_of
from .loops import loop_table

PROFILE = DeviceProfile("avx2", 8, 16, 32 << 10, 512 << 10, 16 << 20, 2)
COMMAND = "python tools/build_docs.py"

INTRO = f"""# The pipeline, printed

Every block below is what the compiler prints, for the AVX2 profile; `{COMMAND}` writes this page
and a test keeps it current.

    scalar -> lift -> trace -> graph -> fusion -> codegen -> executable -> ops -> model
"""


def pipeline_page() -> str:
    """The whole page, the same on every machine."""
    return "\n".join([INTRO, *operator_part("silu"), *group_part()])


def operator_part(name: str) -> list[str]:
    """C source, machine code of the object, trace, kernel, machine code written for it."""
    row, op = CATALOG.lookup(name), operator_named(name)
    graph = CompilerGraph()
    graph.output("y", graph.op(name, graph.input("x", ("n",))))
    plan = planned(graph)
    group = linearise("kernel", plan.groups[0].trace)
    kernel = generate(group.trace, AVX2, default_params(AVX2))
    return [
        f"## One operator: {name}\n",
        *block("1. scalar: the definition", source_of(name), "c"),
        *block("2. scalar: its compiled bytes, the compiler's input", listing_of(row.declaration)),
        *block("3. lift: the trace, in index notation", str(op.trace)),
        *block("4. trace: pattern and shapes, derived", derived(name)),
        *block("5. codegen: the kernel", str(kernel)),
        *block("6. codegen: the machine code", str(compile_kernel(kernel, AVX2))),
    ]


def group_part() -> list[str]:
    """A matrix product, an activation and a gate that become one kernel."""
    graph = CompilerGraph()
    x = graph.input("x", ("tokens", 256))
    gate, up = (graph.input(n, (512, 256)) for n in ("gate", "up"))
    hidden = graph.op("gemm_bt", x, up)
    graph.output("y", graph.op("swiglu", graph.op("gemm_bt", x, gate), hidden))
    plan = planned(graph)
    group = linearise("kernel", plan.groups[-1].trace)
    kernel = generate(group.trace, AVX2, default_params(AVX2))
    code = compile_kernel(kernel, AVX2)
    return [
        "## One fused group: swiglu(x @ gate.T, x @ up.T)\n",
        *block("1. graph: operators between views", str(plan.dag.graph)),
        *block("2. graph: definitions, uses, post-dominators", str(plan.dag)),
        *block("3. fusion: groups, and a reason for every edge", str(plan)),
        *block("4. fusion: memory of the temporaries", str(plan_buffers(plan))),
        *block("5. fusion: the group is one trace again", str(group.trace)),
        *block("6. codegen: its routines and their innermost loops, counted and bounded",
               loop_table(code.parts)),
        *block("7. codegen: the innermost loop of the micro-kernel", hot_loop(code)),
        *block("8. codegen: the epilogue, the only routine that knows the group", epilogue(code)),
    ]


def listing_of(declaration: str) -> str:
    """The instructions of a function in the object of the package, from its first one on."""
    listing = compiled(subject_of(CATALOG_OBJECT, parse(declaration))).listing()
    start = min(listing)
    return "\n".join(f"{at - start:4x}  {text}" for at, text in sorted(listing.items()))


def planned(graph: CompilerGraph) -> FusionPlan:
    return plan_fusion(build_dag(graph.finish()), PROFILE)


def block(title: str, text: str, language: str = "text") -> list[str]:
    return [f"### {title}\n", f"```{language}", text.rstrip(), "```\n"]


def derived(name: str) -> str:
    op = operator_named(name)
    shapes = [f"{param}: {' x '.join(map(str, shape))}" for param, shape in op.shapes]
    return "\n".join([f"pattern {pattern_of(op.trace)}", *shapes])


def epilogue(code: Code) -> str:
    return str(next(part.kernel for part in code.called if part.kernel.unit == "tile"))


def hot_loop(code: Code) -> str:
    """The loop with the most multiply-adds."""
    part, number = max(((part, number) for part in code.parts for number, _ in part.loops),
                       key=lambda at: at[0].stats_of(at[1], "").fmas)
    inside = {p.offset for p in part.pieces if p.loop == number}
    return "\n".join(f"{line.text:<58} ; {line.op:<8} {line.origin}".rstrip()
                     for line in part.listing if line.offset in inside)
