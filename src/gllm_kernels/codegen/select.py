"""Kernel -> machine IR: which instructions, and what they take from memory directly.

The kernel is walked backwards, so an instruction is chosen when its users are known: what nobody
asked for is never emitted, and a user may take over its argument's work:

    load used once, no store between           -> memory operand of its user
    one element in all lanes, used once        -> embedded broadcast
    vector constant                            -> memory operand (pool behind the code)
    i + c, i * {1, 2, 4, 8}, p + i             -> part of the address
    integer constants                          -> immediates

An argument or integer constant that an outer region defined is loaded again in the region that uses
it (for a loop without loops: in front of it). So it is alive for a moment only, and loops that call
and so can keep little in registers have nothing to spill.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..errors import CompileError, UnsupportedOpError
from .isa import x86
from .isa.base import Fma, Ins, Isa, Step
from .kernel import (
    I64,
    LOADS,
    MASK,
    SIDE_EFFECTS,
    STORES,
    TABLE,
    VEC,
    VOID,
    WRITES,
    If,
    Inst,
    K,
    Kernel,
    Loop,
    Stmt,
    walk,
)
from .machine import IN_MEMORY, Addr, Kind, MInst, Program
from .scalars import (
    SCALAR,
    argument_load,
    code_load,
    constant_load,
    fits,
    integer_add,
    load_integer,
)

OP = Kind.OP


def select(kernel: Kernel, isa: Isa) -> Program:
    """Machine IR of a legalised kernel."""
    statements = walk(kernel.body)
    ops = {s.op for s in statements if s.__class__ is Inst}
    if missing := sorted(ops - isa.rows.keys() - SCALAR.keys()):
        raise UnsupportedOpError(f"kernel {kernel.name}: {isa.name} has no row for "
                                 f"{', '.join(missing)} (codegen/isa/{isa.name}.py)")
    if kernel.lanes != isa.lanes:
        raise CompileError(f"kernel {kernel.name} is written for {kernel.lanes} lanes, "
                           f"{isa.name} has {isa.lanes}")
    return Selector(kernel, isa, count_uses(statements)).run()


def count_uses(statements: list[Stmt]) -> dict[int, int]:
    """How often each value is used by something that matters."""
    uses: defaultdict[int, int] = defaultdict(int)
    for stmt in statements:
        if stmt.__class__ is not Inst:
            loop = stmt.__class__ is Loop
            for v in ((stmt.lo, stmt.hi, *stmt.inits, *stmt.yields) if loop
                      else (stmt.lhs, stmt.rhs)):
                uses[v] += 1
    for stmt in reversed(statements):
        if stmt.__class__ is Inst and (stmt.dst in uses or stmt.op in SIDE_EFFECTS):
            for v in stmt.args:
                uses[v] += 1
    return uses


class Selector:
    """State of one backward walk; `out` is in reverse order until the end."""

    def __init__(self, kernel: Kernel, isa: Isa, uses: dict[int, int]) -> None:
        self.kernel, self.isa, self.uses = kernel, isa, uses
        self.program = Program(kernel, [], [])
        self.slots = {p.name: 8 * i for i, p in enumerate(kernel.params)}
        self.defs: dict[int, Inst] = {}
        self.place: dict[int, tuple[int, int]] = {}  # value -> (region, stores seen before it)
        self.classes: dict[int, str] = {}  # register class of every value
        self.class_of = {I64: "g", MASK: isa.mask_class, VEC: "v", VOID: ""}
        self.regs: dict[int, int] = {}  # values somebody asked for -> virtual register
        self.entry: dict[int, int] = {}  # machine register of an argument -> virtual register
        self.again: dict[int, dict[int, int]] = {}  # region -> {leaf of an outer one: register}
        self.host: list[int] = [0]  # region -> where its leaves are loaded
        self.tables: dict[tuple[int, ...], int] = {}  # vectors loaded once at the start
        self.floating: list[Inst] = []  # leaves inside the current loop, if it has no loops
        self.loops, self.regions, self.epoch = 0, 0, 0
        self.region = 0
        self.done: set[int] = set()
        self.inst: Inst | None = None
        self.out: list[MInst] = []

    def run(self) -> Program:
        self.survey(self.kernel.body, 0)
        self.body(self.kernel.body)
        self.inst = None
        for words, reg in self.tables.items():
            self.emit(MInst(Kind.OP, self.isa.load, (reg,), (), Addr(pool=words), op="vconst",
                            free=True))
        if self.entry:
            fixed = tuple(self.program.fresh("g") for _ in self.entry)
            self.program.fixed |= dict(zip(fixed, self.entry, strict=True))
            self.emit(MInst(Kind.ENTRY, None, fixed, op="entry"),
                      MInst(Kind.COPY, None, tuple(self.entry.values()), fixed, op="entry"))
        self.program.code = self.out[::-1]
        return self.program

    # -- what there is ---------------------------------------------------------------------------
    def survey(self, body: tuple[Stmt, ...], region: int) -> None:
        """Definitions, types, and where each value stands relative to stores."""
        for stmt in body:
            if stmt.__class__ is Inst:
                self.defs[stmt.dst] = stmt
                self.classes[stmt.dst] = self.class_of[TABLE[stmt.op].result]
                if stmt.op in WRITES:
                    self.epoch += 1
                self.place[stmt.dst] = (region, self.epoch)
                continue
            self.regions += 1
            flat = stmt.__class__ is Loop and all(s.__class__ is Inst and s.op is not K.CALL
                                                  for s in stmt.body)
            self.host.append(self.host[region] if flat else self.regions)
            if isinstance(stmt, Loop):
                classes = [self.classes[v] for v in stmt.inits]
                self.classes[stmt.iv] = "g"
                self.classes.update(zip(stmt.phis + stmt.results, classes * 2, strict=True))
            self.place[id(stmt)] = (self.regions, self.epoch)
            self.survey(stmt.body, self.regions)

    # -- emission --------------------------------------------------------------------------------
    def emit(self, *sequence: MInst) -> None:
        """Append in program order (the list is reversed as a whole)."""
        self.out.extend(reversed(sequence))

    def op(self, ins: Ins | Fma, dst: int | None, *srcs: int, mem: Addr | None = None,
           imm: int | None = None, free: bool = False) -> MInst:
        inst, defs = self.inst, () if dst is None else (dst,)
        if inst is None:
            return MInst(OP, ins, defs, srcs, mem, imm, "", "", -1, free)
        return MInst(OP, ins, defs, srcs, mem, imm, inst.origin, inst.op, -1, free)

    def temp(self, class_: str = "g") -> int:
        return self.program.fresh(class_)

    def need(self, value: int) -> int:
        """The register a value will be in; asking makes its definition emit code."""
        inst, known = self.defs.get(value), self.regs
        if inst is not None and inst.op in AGAIN:
            host = self.host[self.region]
            if host != self.host[self.place[value][0]]:
                known = self.again.setdefault(host, {})
        reg = known.get(value)
        if reg is None:
            reg = known[value] = self.program.fresh(self.classes[value])
        return reg

    def load_again(self) -> None:
        """At the start of a region: the leaves of outer ones that it uses."""
        for value, reg in self.again.pop(self.region, {}).items():
            self.inst = self.defs[value]
            self.emit(AGAIN[self.inst.op](self, self.inst, reg))
        self.inst = None

    def entered(self, register: int) -> int:
        """The virtual register holding what the caller passed in a machine register."""
        if register not in self.entry:
            self.entry[register] = self.temp()
        return self.entry[register]

    def table(self, words: tuple[int, ...]) -> int:
        """A vector constant loaded once, at the start of the kernel."""
        if words not in self.tables:
            self.tables[words] = self.temp("v")
        return self.tables[words]

    # -- statements, backwards -------------------------------------------------------------------
    def body(self, body: tuple[Stmt, ...]) -> None:
        for stmt in reversed(body):
            if stmt.__class__ is not Inst:
                self.nested(stmt)
            elif (stmt.dst in self.regs and stmt.dst not in self.done) or stmt.op in SIDE_EFFECTS:
                self.inst = stmt
                self.visit(stmt)

    def visit(self, inst: Inst) -> None:
        if inst.op not in SCALAR:
            self.vector(inst)
        elif inst.op in LEAVES and self.host[self.region] != self.region:
            self.floating.append(inst)
        else:
            SCALAR[inst.op](self, inst)

    def nested(self, stmt: Loop | If) -> None:
        if isinstance(stmt, Loop):
            around, self.floating = self.floating, []
            self.loop(stmt)
            outer = self.region
            for leaf in self.floating:
                self.inst, self.region = leaf, self.place[leaf.dst][0]
                SCALAR[leaf.op](self, leaf)
            self.floating, self.region = around, outer
        else:
            self.branch(stmt)

    def loop(self, loop: Loop) -> None:
        """inits -> phis; compare; HEAD; body; step; yields -> phis; compare; BACK."""
        number, self.loops = self.loops, self.loops + 1
        program, self.inst, outer = self.program, None, self.region
        program.names[number] = loop.name or f"loop %{loop.iv}"
        phis = [self.need(v) for v in (loop.iv, *loop.phis)]
        for result, phi in zip(loop.results, phis[1:], strict=True):
            if result in self.regs:
                program.results.append((self.regs[result], phi, number))
        step = self.temp()
        limit = self.constant(loop.hi)
        self.emit(self.compare(phis[0], loop.hi), MInst(Kind.BACK, target=number, op="loop"))
        before: list[MInst] = []
        yields = (step, *(self.nearby(v, before) for v in loop.yields))
        self.emit(*before, MInst(Kind.COPY, None, tuple(phis), yields, target=number, op="loop"))
        self.region = self.place[id(loop)][0]
        sums = self.own_sums(loop)
        self.sink(i for i in sums if self.constant(i.args[1]) is not None)
        self.emit(MInst(Kind.OP, x86.ADD_I, (step,), (phis[0],), imm=loop.step, op="loop"))
        self.sink(i for i in sums if self.constant(i.args[1]) is None)
        inside = self.loops
        self.body(loop.body)
        calls = any(s.__class__ is Inst and s.op is K.CALL for s in loop.body)
        if self.loops == inside and not calls:  # there is no loop further in
            program.innermost.add(number)
        self.load_again()
        self.region = outer
        low = self.constant(loop.lo)
        known = low is not None and limit is not None and low < limit
        guard = () if known else (self.compare(phis[0], loop.hi),)
        before = []
        inits = tuple(self.nearby(v, before) for v in (loop.lo, *loop.inits))
        self.emit(*before, MInst(Kind.COPY, None, tuple(phis), inits, target=number, op="loop"),
                  *guard, MInst(Kind.HEAD, target=number, imm=int(not known), op="loop"))

    def own_sums(self, loop: Loop) -> list[Inst]:
        """Yields that are phi + x and used for nothing else, latest first. They are computed at the
        end of the body, when the phi has died; x + constant last, as others may read that phi.
        """
        found = []
        for phi, value in zip(loop.phis, loop.yields, strict=True):
            inst = self.defs.get(value)
            if (inst and inst.op is K.IADD and inst.args[0] == phi and self.uses[value] == 1
                    and self.here(value)):
                found.append(inst)
        return sorted(found, key=lambda inst: -inst.dst)

    def sink(self, sums: Iterable[Inst]) -> None:
        for inst in sums:
            self.inst = inst
            integer_add(self, inst)
            self.done.add(inst.dst)
        self.inst = None

    def branch(self, stmt: If) -> None:
        number, self.loops = self.loops, self.loops + 1
        outer, self.inst, self.region = self.region, None, self.place[id(stmt)][0]
        self.emit(MInst(Kind.ENDIF, target=number, op="if"))
        self.body(stmt.body)
        self.load_again()
        self.region = outer
        lhs, rhs = stmt.lhs, stmt.rhs
        flip = self.constant(lhs) is not None
        self.emit(self.compare(self.need(rhs if flip else lhs), lhs if flip else rhs),
                  MInst(Kind.IF, target=number, imm=int(flip), op="if"))

    def compare(self, reg: int, value: int) -> MInst:
        """Flags of register - value."""
        known = self.constant(value)
        if known is not None and fits(known):
            return self.op(x86.CMP_I, None, reg, imm=known)
        return self.op(x86.CMP, None, reg, self.need(value))

    # -- integers and addresses ------------------------------------------------------------------
    def constant(self, value: int) -> int | None:
        inst = self.defs.get(value)
        return inst.imm if inst is not None and inst.op is K.ICONST else None

    def plus_constant(self, value: int) -> tuple[int, int] | None:
        """(x, c) when the value is x + c."""
        inst = self.defs.get(value)
        if inst is None or inst.op not in (K.IADD, K.ISUB) or value in self.done:
            return None
        known = self.constant(inst.args[1])
        if known is not None:
            return inst.args[0], known if inst.op is K.IADD else -known
        known = self.constant(inst.args[0])
        return (inst.args[1], known) if inst.op is K.IADD and known is not None else None

    def times_constant(self, value: int) -> tuple[int, int]:
        """(x, s) when the value is x * s with s in 2, 4, 8, computed here; else (value, 1)."""
        inst = self.defs.get(value)
        if inst is not None and inst.op is K.IMUL and self.here(value):
            known = self.constant(inst.args[1])
            if known in (2, 4, 8):
                return inst.args[0], known
        return value, 1

    def dies(self, value: int) -> bool:
        """Made in this region and not asked for by anything later."""
        return self.here(value) and value not in self.regs

    def here(self, value: int) -> bool:
        place = self.place.get(value)
        return place is not None and place[0] == self.region

    def address(self, inst: Inst) -> Addr:
        mem = inst.imm
        return self.form(inst.args[0], inst.args[1], mem.scale, mem.disp)

    def form(self, base: int, index: int | None, scale: int, disp: int) -> Addr:
        """base + index*scale + disp with constants and small products folded in."""
        while index is not None:
            known, sum_ = self.constant(index), self.plus_constant(index)
            if known is not None and fits(disp + known * scale):
                disp, index = disp + known * scale, None
            elif sum_ and fits(disp + sum_[1] * scale):
                index, disp = sum_[0], disp + sum_[1] * scale
            else:
                break
        if index is not None:
            inner, factor = self.times_constant(index)
            if scale * factor <= 8:
                index, scale = inner, scale * factor
        while (sum_ := self.plus_constant(base)) and fits(disp + sum_[1]):
            base, disp = sum_[0], disp + sum_[1]
        inst = self.defs.get(base)
        if (index is None and inst is not None and inst.op is K.IADD and self.here(base)
                and self.uses[base] == 1 and base not in self.done):
            base, index = inst.args
            index, scale = self.times_constant(index)
        reg = -1 if index is None else self.need(index)
        return Addr(self.need(base), reg, scale if reg >= 0 else 1, disp)

    # -- vectors ---------------------------------------------------------------------------------
    def foldable(self, value: int, ins: Ins) -> Addr | None:
        """The memory operand that can stand for a value here, if any."""
        inst = self.defs.get(value)
        if inst is None or value in self.regs and inst.op is not K.VCONST:
            return None
        if inst.op in (K.LOAD, K.BCAST):
            same = self.place[value] == self.place_now()
            if not same or self.uses[value] != 1:
                return None
            if inst.op is K.LOAD:
                return self.address(inst)
            return self.address(inst)._replace(broadcast=True) if ins.broadcast else None
        if inst.op is K.VCONST:
            return self.pooled(inst.imm, ins)
        return Addr(pool=tuple(range(self.isa.lanes))) if inst.op is K.VLANES else None

    def place_now(self) -> tuple[int, int]:
        region, epoch = self.place[self.inst.dst]
        return region, epoch - (self.inst.op in WRITES)

    def pooled(self, word: int, ins: Ins) -> Addr:
        if ins.broadcast:
            return Addr(pool=(word,), broadcast=True)
        return Addr(pool=(word,) * self.isa.lanes)

    def rank(self, value: int) -> int:
        """Which argument gains most from the memory operand: loads, then constants."""
        inst = self.defs.get(value)
        return 0 if inst is None else RANK.get(inst.op, 0)

    def vector(self, inst: Inst) -> None:
        shape = self.isa.rows[inst.op]
        if inst.op in MEMORY:
            self.memory(inst, shape)
        elif isinstance(shape, Fma):
            self.fused(inst, shape)
        elif inst.op is K.PERMUTE:
            self.permute(inst, shape)
        elif isinstance(shape, tuple):
            self.steps(inst, shape, inst.args)
        else:
            self.simple(inst, shape)

    def memory(self, inst: Inst, ins: Ins | tuple[Step, ...]) -> None:
        """Loads and stores that stand alone."""
        addr = self.address(inst)
        if isinstance(ins, tuple):
            self.steps(inst, ins, inst.args[2:], addr)
            return
        srcs = tuple(self.need(v) for v in inst.args[2:])
        dst = None if inst.op in SIDE_EFFECTS else self.need(inst.dst)
        self.emit(self.op(ins, dst, *srcs, mem=addr, imm=ins.imm))

    def simple(self, inst: Inst, ins: Ins) -> None:
        args, mem = inst.args, None
        orders = [args]
        if ins.swap and ins.mem == 1:
            orders = [args, args[::-1]]
            if self.rank(args[0]) > self.rank(args[1]):
                orders.reverse()
        for order in orders:
            mem = self.foldable(order[ins.mem], ins) if self.once(order, ins.mem) else None
            if mem is not None:
                args = order
                break
        imm = ins.imm if ins.imm is not None else inst.imm
        srcs = [IN_MEMORY if mem is not None and i == ins.mem else self.need(v)
                for i, v in enumerate(args)]
        self.emit(self.op(ins, self.need(inst.dst), *srcs, mem=mem,
                          imm=ins.encode(imm) if ins.encode else imm))

    def once(self, args: tuple[int, ...], position: int) -> bool:
        """Only a source that appears once can be replaced by memory."""
        return position >= 0 and args.count(args[position]) == 1

    def fused(self, inst: Inst, forms: Fma) -> None:
        """One argument may come from memory; further constants are loaded just before."""
        args, mem, folded = inst.args, None, -1
        for i in sorted(forms.factors, key=lambda i: (-self.rank(args[i]), -i)):
            mem = self.foldable(args[i], forms.f231) if self.once(args, i) else None
            if mem is not None:
                folded = i
                break
        before: list[MInst] = []
        srcs = tuple(IN_MEMORY if i == folded else self.nearby(value, before)
                     for i, value in enumerate(args))
        self.emit(*before, self.op(forms, self.need(inst.dst), *srcs, mem=mem))

    def nearby(self, value: int, before: list[MInst]) -> int:
        """The register of a value; a constant is loaded afresh into one that then dies."""
        inst = self.defs.get(value)
        if inst is None or inst.op not in (K.VCONST, K.ICONST):
            return self.need(value)
        if inst.op is K.ICONST:
            reg = self.temp("g")
            before.append(load_integer(self, reg, inst.imm))
        else:
            reg = self.temp("v")
            before.append(self.constant_load(reg, inst.imm))
        return reg

    def constant_load(self, dst: int, word: int) -> MInst:
        if word == 0:
            return self.op(self.isa.zero, dst, free=True)
        return self.op(self.isa.broadcast, dst, mem=Addr(pool=(word,)), free=True)

    def permute(self, inst: Inst, ins: Ins) -> None:
        """Within 128 bits by immediate where all blocks agree, else by a table of lanes."""
        lanes = inst.imm
        low = lanes[:4]
        if all(lane < 4 for lane in low) and all(
                lane == low[i % 4] + i // 4 * 4 for i, lane in enumerate(lanes)):
            ins = self.isa.permute_blocks
            imm = sum(lane << 2 * i for i, lane in enumerate(low))
            mem = self.foldable(inst.args[0], ins)
            src = IN_MEMORY if mem is not None else self.need(inst.args[0])
            self.emit(self.op(ins, self.need(inst.dst), src, mem=mem, imm=imm))
            return
        mem = self.foldable(inst.args[0], ins)
        src = IN_MEMORY if mem is not None else self.need(inst.args[0])
        self.emit(self.op(ins, self.need(inst.dst), self.table(tuple(lanes)), src, mem=mem))

    def steps(self, inst: Inst, steps: tuple[Step, ...], args: tuple[int, ...],
              addr: Addr | None = None) -> None:
        """An expansion: names become registers, `d` the result; `addr` is what `m` operands are."""
        names = dict(zip("abc", (self.need(v) for v in args), strict=False))
        names["d"] = -1 if inst.op in STORES else self.need(inst.dst)
        sequence = []
        for step in steps:
            mem, srcs = addr if step.ins.addressed else None, []
            for name in step.srcs:
                if name[0] == "=":
                    mem = Addr(pool=self.isa.tables[name[1:]])
                srcs.append(IN_MEMORY if name[0] == "=" else names[name])
            if step.dst and step.dst not in names:
                names[step.dst] = self.temp(FILE_CLASS[step.ins.operands[0][1]])
            imm = step.imm if step.imm is not None else step.ins.imm
            dst = names[step.dst] if step.dst else None
            sequence.append(self.op(step.ins, dst, *srcs, mem=mem, imm=imm))
        self.emit(*sequence)


AGAIN = {K.ARG: argument_load, K.ICONST: constant_load, K.CODE: code_load}
RANK = {K.LOAD: 2, K.BCAST: 2, K.VCONST: 1, K.VLANES: 1}
FILE_CLASS = {"z": "v", "y": "v", "x": "v", "r": "g", "e": "g", "k": "k"}
MEMORY = LOADS | STORES | {K.ISTORE}
LEAVES = frozenset({K.ICONST, K.ARG, K.CODE, K.ARGF, K.VCONST, K.VCONST64, K.VLANES,
                    K.BEGIN, K.END, K.SCRATCH, K.ARGS})
