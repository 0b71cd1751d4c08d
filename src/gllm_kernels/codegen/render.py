"""A kernel as text: one statement a line, regions indented.

    %7 = vfma %3, %5, %6        ; silu
    for %9 in [%1, %2) step 16 carrying %10 = %7 -> %14:  # rows
"""

from __future__ import annotations

from collections.abc import Iterator

from ..trace.ir import bits_float
from .kernel import TABLE, VOID, If, Inst, K, Kernel, Loop, Mem, Stmt


def render(kernel: Kernel) -> str:
    """The whole kernel: signature, what a unit is, then the body."""
    params = ", ".join(f"{p.name}: {p.kind}" for p in kernel.params)
    head = [f"kernel {kernel.name}({params})  lanes={kernel.lanes}",
            f"  units = {kernel.units} {kernel.unit}s, grain {kernel.grain}, "
            f"scratch {kernel.scratch} bytes"]
    return "\n".join(head + list(lines(kernel.body, 1)))


def lines(body: tuple[Stmt, ...], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for stmt in body:
        if isinstance(stmt, Inst):
            yield pad + inst_text(stmt)
            continue
        yield pad + (loop_head(stmt) if isinstance(stmt, Loop) else if_head(stmt))
        yield from lines(stmt.body, depth + 1)
        if isinstance(stmt, Loop) and stmt.yields:
            yield f"{pad}  yield {names(stmt.yields)}"


def names(values: tuple[int, ...]) -> str:
    return ", ".join(f"%{v}" for v in values)


def loop_head(loop: Loop) -> str:
    carried = f" carrying {names(loop.phis)} = {names(loop.inits)} -> {names(loop.results)}"
    text = f"for %{loop.iv} in [%{loop.lo}, %{loop.hi}) step {loop.step}"
    return text + (carried if loop.phis else "") + ":" + (f"  # {loop.name}" if loop.name else "")


def if_head(stmt: If) -> str:
    return f"if %{stmt.lhs} < %{stmt.rhs}:"


def inst_text(inst: Inst) -> str:
    """`%dst = op args imm ; origin`."""
    result = "" if TABLE[inst.op].result == VOID else f"%{inst.dst} = "
    parts = [names(inst.args)] if inst.args else []
    if isinstance(inst.imm, Mem):
        parts = [address(inst), *([names(inst.args[2:])] if inst.args[2:] else [])]
    elif inst.imm is not None:
        parts.append(imm_text(inst))
    text = f"{result}{inst.op} {', '.join(parts)}".rstrip()
    return f"{text:<44} ; {inst.origin}" if inst.origin else text


def address(inst: Inst) -> str:
    imm, (base, index) = inst.imm, inst.args[:2]
    disp = f" {'+' if imm.disp > 0 else '-'} {abs(imm.disp)}" if imm.disp else ""
    level = f" t{imm.level}" if inst.op is K.PREFETCH else ""
    return f"[%{base} + %{index}*{imm.scale}{disp}]{level}"


def imm_text(inst: Inst) -> str:
    if inst.op is K.VCONST:
        return f"{inst.imm:#010x} ({bits_float(inst.imm):.9g})"
    return str(inst.imm)
