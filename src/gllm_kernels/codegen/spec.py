"""What makes a kernel well formed: `check(kernel)` raises CompileError at the first breach.

    every value is defined once, before its uses, in an enclosing region   (SSA, dominance)
    arguments, phis and yields have the types `kernel.TABLE` states        (types, arity)
    immediates are in range and name existing params                       (imm)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import CompileError
from .kernel import (
    DOWN, I64, LOADS, SIDE_EFFECTS, TABLE, Routine, TO_ZERO, UP, WITHIN, If, Inst, K, Kernel, Loop, Mem, Stmt,
)

MAX_DISP = 1 << 31


def check(kernel: Kernel) -> None:
    """Raise CompileError naming the operation, its position, what it got and what was wanted."""
    if kernel.grain < 1:
        raise CompileError(f"kernel {kernel.name}: grain {kernel.grain}, wanted at least 1")
    names = [p.name for p in kernel.params]
    if len(set(names)) != len(names):
        raise CompileError(f"kernel {kernel.name}: parameter names repeat: {names}")
    integers = {p.name for p in kernel.params if p.kind == I64}
    for label, size in (("units", kernel.units), ("scratch", kernel.scratch)):
        if unknown := size.symbols - integers:
            raise CompileError(f"kernel {kernel.name}: {label} uses {sorted(unknown)}, which "
                               f"are not i64 params (these are {sorted(integers)})")
    Scope(kernel).body(kernel.body)


@dataclass
class Scope:
    """Types of the values visible at one point, and every id defined so far."""

    kernel: Kernel
    types: dict[int, str] = field(default_factory=dict)
    defined: set[int] = field(default_factory=set)
    position: int = 0

    def fail(self, what: str, text: str) -> None:
        raise CompileError(f"kernel {self.kernel.name}, statement {self.position}, {what}: {text}")

    def define(self, value: int, type_: str, what: str) -> None:
        if value in self.defined:
            self.fail(what, f"defines %{value} a second time")
        self.defined.add(value)
        self.types[value] = type_

    def use(self, value: int, wanted: str, what: str) -> None:
        if value not in self.types:
            where = "outside its region" if value in self.defined else "before its definition"
            self.fail(what, f"uses %{value} {where}")
        if self.types[value] != wanted:
            self.fail(what, f"%{value} is {self.types[value]}, wanted {wanted}")

    def body(self, body: tuple[Stmt, ...]) -> None:
        for stmt in body:
            VISIT[type(stmt)](self, stmt)
            self.position += 1

    def region(self, body: tuple[Stmt, ...]) -> dict[int, str]:
        """Check a nested body; its definitions end with it. Returns the types seen inside."""
        outer, self.types = self.types, dict(self.types)
        self.body(body)
        inner, self.types = self.types, outer
        return inner


def check_inst(scope: Scope, inst: Inst) -> None:
    row, what = TABLE[inst.op], f"{inst.op} (origin {inst.origin or '-'})"
    if len(inst.args) != len(row.args):
        scope.fail(what, f"{len(inst.args)} arguments, wanted {len(row.args)}")
    for number, (arg, wanted) in enumerate(zip(inst.args, row.args, strict=True)):
        scope.use(arg, wanted, f"{what} argument {number}")
    wanted = IMM.get(inst.op, no_imm)(scope.kernel, inst.imm)
    if wanted:
        scope.fail(what, f"immediate {inst.imm!r}, wanted {wanted}")
    scope.define(inst.dst, row.result, what)


def check_loop(scope: Scope, loop: Loop) -> None:
    what = f"loop {loop.name or '%' + str(loop.iv)}"
    counts = {len(g) for g in (loop.inits, loop.phis, loop.yields, loop.results)}
    if len(counts) != 1:
        scope.fail(what, f"{len(loop.inits)} inits, {len(loop.phis)} phis, {len(loop.yields)} "
                         f"yields, {len(loop.results)} results; wanted equal numbers")
    if loop.step < 1 or loop.step >= MAX_DISP:
        scope.fail(what, f"step {loop.step}, wanted 1 .. 2**31 - 1")
    scope.use(loop.lo, I64, f"{what} lower bound")
    scope.use(loop.hi, I64, f"{what} upper bound")
    types = [scope.types.get(v, "undefined") for v in loop.inits]
    for init, type_ in zip(loop.inits, types, strict=True):
        scope.use(init, type_, f"{what} init")
    outer, scope.types = scope.types, dict(scope.types)
    scope.define(loop.iv, I64, what)
    for phi, type_ in zip(loop.phis, types, strict=True):
        scope.define(phi, type_, what)
    scope.body(loop.body)
    for value, type_ in zip(loop.yields, types, strict=True):
        scope.use(value, type_, f"{what} yield")
    scope.types = outer
    for result, type_ in zip(loop.results, types, strict=True):
        scope.define(result, type_, what)


def check_if(scope: Scope, stmt: If) -> None:
    scope.use(stmt.lhs, I64, "if, left side")
    scope.use(stmt.rhs, I64, "if, right side")
    scope.region(stmt.body)


VISIT: dict[type, Callable] = {Inst: check_inst, Loop: check_loop, If: check_if}


# Each rule returns "" or what it wanted.
def no_imm(kernel: Kernel, imm: object) -> str:
    return "" if imm is None else "none"


def integer(low: int, high: int) -> Callable[[Kernel, object], str]:
    def rule(kernel: Kernel, imm: object) -> str:
        return "" if type(imm) is int and low <= imm < high else f"an int in [{low}, {high})"
    return rule


def param_of(*kinds: str) -> Callable[[Kernel, object], str]:
    def rule(kernel: Kernel, imm: object) -> str:
        names = [p.name for p in kernel.params if p.kind in kinds]
        return "" if imm in names else f"one of the params {names}"
    return rule


def routine(kernel: Kernel, imm: object) -> str:
    """What is called is well formed, too."""
    if not isinstance(imm, Routine):
        return "a Routine"
    check(imm.kernel)
    return ""


def mem(kernel: Kernel, imm: object) -> str:
    good = (isinstance(imm, Mem) and imm.scale in (1, 2, 4, 8) and 0 <= imm.level <= 2
            and -MAX_DISP <= imm.disp < MAX_DISP)
    return "" if good else "Mem(scale 1|2|4|8, 32-bit disp, level 0..2)"


def numbers(per: int, limit: int) -> Callable[[Kernel, object], str]:
    """A tuple of lanes // per numbers below lanes // limit."""
    def rule(kernel: Kernel, imm: object) -> str:
        count, top = kernel.lanes // per, kernel.lanes // limit
        good = (isinstance(imm, tuple) and len(imm) == count
                and all(type(i) is int and 0 <= i < top for i in imm))
        return "" if good else f"a tuple of {count} numbers in 0..{top - 1}"
    return rule


ROUNDINGS = (None, DOWN, UP, TO_ZERO)
_MEMORY = LOADS | SIDE_EFFECTS - {K.CALL}
IMM: dict[K, Callable[[Kernel, object], str]] = {
    K.ICONST: integer(-1 << 63, 1 << 63),
    K.ARG: param_of("ptr", "i64"),
    K.ARGF: param_of("f32"),
    K.CODE: routine,
    K.VCONST: integer(0, 1 << 32),
    K.VCONST64: integer(0, 1 << 64),
    **dict.fromkeys((K.LSHL, K.LSHR, K.LSAR), integer(0, 64)),
    K.VSHL: integer(0, 32),
    K.VSHR: integer(0, 32),
    K.VSAR: integer(0, 32),
    **dict.fromkeys((K.VROUND, K.DROUND), lambda kernel, imm:
                    "" if imm in ROUNDINGS else f"one of {ROUNDINGS}"),
    K.PERMUTE: numbers(1, 1),
    K.SHUF128: numbers(4, 4),
    K.FIRST: lambda kernel, imm: "" if imm in (None, WITHIN) else f"none or {WITHIN!r}",
    **dict.fromkeys(_MEMORY, mem),
}
