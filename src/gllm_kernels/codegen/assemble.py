"""Machine IR -> bytes:  compile_kernel(kernel, isa) -> Code.

    push what must be saved, make room for the stack slots
    instructions; innermost loops start at multiples of 32
    undo, vzeroupper, ret
    constant pool, largest entries first; the code of routines

Instructions are encoded in one pass: constants are addressed relative to rip with 32 bits, which
are filled in when the pool's place is known; so are forward jumps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from iced_x86 import Encoder, Instruction, MemoryOperand, Register

from .code import Code, Piece
from .isa import x86
from .isa.base import DST, MEM, Fma, Ins, Isa
from .kernel import Kernel, Routine
from .legalise import legalise
from .machine import IN_MEMORY, Addr, Kind, MInst
from .regalloc import Allocation, allocate
from .select import select

ALIGN_LOOP = 32
# Intel SDM vol. 2, NOP: the recommended multi-byte forms.
NOPS = [b"", b"\x90", b"\x66\x90", b"\x0f\x1f\x00", b"\x0f\x1f\x40\x00", b"\x0f\x1f\x44\x00\x00",
        b"\x66\x0f\x1f\x44\x00\x00", b"\x0f\x1f\x80\x00\x00\x00\x00",
        b"\x0f\x1f\x84\x00\x00\x00\x00\x00", b"\x66\x0f\x1f\x84\x00\x00\x00\x00\x00"]
# Condition codes in the second byte of jcc: 8D = jge, 8E = jle, 8C = jl.
JL, JGE, JLE = 0x8C, 0x8D, 0x8E
# register file -> distance of its names from those of the allocator's class
WIDTH = {file: first - base for file, (first, base) in x86.FILES.items()}
SHORT = {long.code: short.code for long, short in x86.SHORT.items()}  # immediates of one byte
TAGS = {"fma": "f", "load": "l", "store": "s", "move": "m", "": ""}


def compile_kernel(kernel: Kernel, isa: Isa) -> Code:
    """Machine code of a kernel for one instruction set."""
    program = select(legalise(kernel, isa), isa)
    return Assembler(allocate(program, isa), isa, kernel).run()


@lru_cache(256)
def compile_routine(routine: Routine, isa: Isa) -> Code:
    """The code of a routine, compiled once however many kernels call it."""
    return compile_kernel(routine.kernel, isa)


class Assembler:
    """Emits one allocated program."""

    def __init__(self, allocation: Allocation, isa: Isa, kernel: Kernel) -> None:
        self.allocation, self.isa, self.kernel = allocation, isa, kernel
        self.register = allocation.register
        self.encoder, self.size = Encoder(64), 0
        self.pieces: list[Piece] = []
        self.pool: dict[tuple[int, ...] | Routine, int] = {}
        # end of field, of instruction, what it addresses
        self.fixups: list[tuple[int, int, tuple[int, ...] | Routine]] = []
        self.tops: dict[int, int] = {}
        self.forward: dict[int, int] = {}  # loop or branch -> end of its jump's field
        self.jumps: list[tuple[int, int]] = []
        self.loops = [-1]
        self.current = MInst(Kind.ENTRY)
        self.slot_at: dict[int, int] = {}
        used = {r for v, r in enumerate(self.register) if r in x86.SAVED}
        self.saved = tuple(r for r in x86.INTEGERS if r in used)
        self.frame = self.place_slots()

    def place_slots(self) -> int:
        """Offsets of the stack slots from rsp; vectors first."""
        offset = 0
        for slot, size in sorted(self.allocation.slots.items(), key=lambda item: -item[1]):
            self.slot_at[slot] = offset
            offset += size
        return offset + 7 & ~7

    def run(self) -> Code:
        self.current = MInst(Kind.ENTRY, op="entry")
        for register in self.saved:
            self.encode(Instruction.create_reg(x86.PUSH.code, register), "")
        if self.frame:
            self.encode(Instruction.create_reg_i32(x86.FRAME.code, Register.RSP, self.frame), "")
        for position, m in enumerate(self.allocation.program.code):
            self.current = m
            EMIT[m.kind](self, m, position)
        self.current = MInst(Kind.ENTRY, op="exit")
        if self.frame:
            self.encode(Instruction.create_reg_i32(x86.ADD_I.code, Register.RSP, self.frame), "")
        for register in reversed(self.saved):
            self.encode(Instruction.create_reg(x86.POP.code, register), "")
        # Leaving upper halves dirty makes the caller's SSE code slow (Intel optimization manual
        # section 15.3).
        self.encode(Instruction.create(x86.VZEROUPPER.code), "")
        self.encode(Instruction.create(x86.RETURN.code), "")
        return self.finish()

    def finish(self) -> Code:
        """Append the pool, fill in distances."""
        program, tags = self.allocation.program, "".join([p.tags for p in self.pieces])
        text = bytearray(self.encoder.take_buffer())
        end = len(text)
        routines = [entry for entry in self.pool if isinstance(entry, Routine)]
        constants = [entry for entry in self.pool if not isinstance(entry, Routine)]
        for words in sorted(constants, key=len, reverse=True):
            align = min(4 * len(words), 64)
            text += bytes(-len(text) % align)
            self.pool[words] = len(text)
            text += b"".join(w.to_bytes(4, "little") for w in words)
        called = tuple(compile_routine(routine, self.isa) for routine in routines)
        for routine, code in zip(routines, called, strict=True):
            text += bytes(-len(text) % 64)
            self.pool[routine] = len(text)
            text += code.bytes
        for field, next_, entry in self.fixups:
            text[field - 4 : field] = (self.pool[entry] - next_).to_bytes(4, "little", signed=True)
        for field, target in self.jumps:
            text[field - 4 : field] = (target - field).to_bytes(4, "little", signed=True)
        loops = tuple((n, program.names[n]) for n in sorted(program.innermost))
        return Code(self.kernel, self.isa, bytes(text), end, tuple(self.pieces), loops,
                    tags.count("x"), tags.count("m"), self.frame, called)

    # -- bytes -----------------------------------------------------------------------------------
    def note(self, tags: str) -> None:
        m = self.current
        self.pieces.append(Piece(self.size, m.op, m.origin, tags + "x" if m.spill else tags,
                                 self.loops[-1]))

    def encode(self, instruction: Instruction, tags: str) -> None:
        self.note(tags)
        self.size += self.encoder.encode(instruction, self.size)

    def raw(self, data: bytes) -> None:
        for byte in data:
            self.encoder.write_u8(byte)
        self.size += len(data)

    def jump(self, condition: int, target: int) -> None:
        """A jump forward whose distance is filled in by `land`."""
        self.note("")
        self.raw(bytes((0x0F, condition, 0, 0, 0, 0)))
        self.forward[target] = self.size

    def land(self, target: int) -> None:
        if target in self.forward:
            self.jumps.append((self.forward.pop(target), self.size))

    # -- operands --------------------------------------------------------------------------------
    def memory(self, addr: Addr) -> MemoryOperand:
        if addr.pool is not None:
            self.pool.setdefault(addr.pool, 0)
            return MemoryOperand(Register.RIP, displ=self.size + 0x1000, displ_size=8,
                                 is_broadcast=addr.broadcast)
        if addr.slot >= 0:
            return MemoryOperand(Register.RSP, displ=self.slot_at[addr.slot] + addr.disp,
                                 displ_size=1)
        base = self.register[addr.base] if addr.base >= 0 else Register.NONE
        index = self.register[addr.index] if addr.index >= 0 else Register.NONE
        if index >= Register.ZMM0 and self.isa.lanes == 8:  # of a gather
            index += WIDTH["y"]
        return MemoryOperand(base, index, addr.scale, addr.disp, int(addr.disp != 0),
                             addr.broadcast)

    def put(self, ins: Ins, dst: int, srcs: Sequence[int], addr: Addr | None, imm: int | None,
            tags: str | None = None) -> None:
        """Encode one instruction; `dst` and `srcs` are virtual registers."""
        operands, shape = [ins.code], ""
        for number, file in ins.operands:
            virtual = dst if number == DST else IN_MEMORY if number == MEM else srcs[number]
            if virtual == IN_MEMORY:
                operands.append(self.memory(addr))
                shape += "m"
            else:
                operands.append(self.register[virtual] + WIDTH[file])
                shape += "r"
        if imm is not None:
            operands.append(imm)
            shape += "i" if -1 << 31 <= imm < 1 << 31 else "I"
            if -128 <= imm < 128:
                operands[0] = SHORT.get(ins.code, ins.code)
        instruction = CREATE[shape](*operands)
        if ins.mask >= 0:
            instruction.op_mask = self.register[srcs[ins.mask]]
            instruction.zeroing_masking = ins.zeroing
        if tags is None:
            tags = TAGS[ins.kind]
            if "m" in shape and ins.kind not in ("load", "store"):
                tags = "l" if ins.kind == "move" else tags + "l" * (ins is not x86.LEA)
        self.encode(instruction, tags)
        if addr is not None and addr.pool is not None:
            where = self.size - (imm is not None or "VBLENDV" in ins.name)
            self.fixups.append((where, self.size, addr.pool))

    def move(self, dst: int, src: int, class_: str) -> None:
        ins = {"g": x86.MOV, "v": self.isa.move}.get(class_)
        self.put(ins if ins is not None else self.isa.mask_moves[0], dst, (src,), None, None)


# -- one function per kind of machine IR line ------------------------------------------------------
def emit_op(a: Assembler, m: MInst, position: int) -> None:
    tie = a.allocation.ties[position]
    if isinstance(m.ins, Fma):
        fused(a, m, tie)
        return
    dst = m.defs[0] if m.defs else IN_MEMORY
    srcs = m.srcs
    if m.ins.tie >= 0:
        if tie == 1:
            srcs = (srcs[1], srcs[0])
        elif tie == -1:
            if m.ins.code in UNTIED and (form := UNTIED[m.ins.code](m, dst)):
                a.put(*form)
                return
            a.move(dst, srcs[0], "g")
    a.put(m.ins, dst, srcs, m.mem, m.imm)


def untied_shift(m: MInst, dst: int) -> tuple:
    """a << i without overwriting a: lea up to 3, a product up to 30, else nothing."""
    if m.imm <= 3:
        return x86.LEA, dst, (), Addr(-1, m.srcs[0], 1 << m.imm, 0), None
    return (x86.IMUL_I, dst, m.srcs, None, 1 << m.imm) if m.imm <= 30 else ()


# Sums and products that cannot overwrite an argument have three-operand forms (sums of registers).
UNTIED: dict[int, Callable[[MInst, int], tuple]] = {
    x86.ADD.code: lambda m, dst: () if m.mem else (x86.LEA, dst, (), Addr(m.srcs[0], m.srcs[1]), None),
    x86.ADD_I.code: lambda m, dst: (x86.LEA, dst, (), Addr(m.srcs[0], -1, 1, m.imm), None),
    x86.SHL.code: untied_shift,
}


def fused(a: Assembler, m: MInst, tie: int) -> None:
    """Choose 132, 213 or 231 by the argument the result replaces (table in `isa.base.Fma`)."""
    dst, srcs, mem = m.defs[0], list(m.srcs), m.mem
    if tie == -1:
        at = srcs.index(IN_MEMORY) if IN_MEMORY in srcs and m.ins.f213 is not None else 2
        if srcs[at] == IN_MEMORY:  # a fresh load instead of a move
            ins = a.isa.broadcast if mem.broadcast or full_of_one(mem) else a.isa.load
            a.put(ins, dst, (), narrow(mem), None)
            mem = None
        else:
            a.move(dst, srcs[at], "v")
        srcs[at], tie = dst, at
    if tie == 2:
        one, other = (1, 0) if srcs[0] == IN_MEMORY else (0, 1)
        a.put(m.ins.f231, dst, (srcs[one], srcs[other]), mem, None)
        return
    factor = srcs[1 - tie]
    if factor == IN_MEMORY:
        a.put(m.ins.f132, dst, (srcs[2], factor), mem, None)
    else:
        a.put(m.ins.f213, dst, (factor, srcs[2]), mem, None)


def full_of_one(mem: Addr) -> bool:
    return isinstance(mem.pool, tuple) and len(set(mem.pool)) == 1


def narrow(mem: Addr) -> Addr:
    """The element a broadcast load reads, without the embedded-broadcast mark."""
    pool = mem.pool[:1] if full_of_one(mem) else mem.pool
    return mem._replace(pool=pool, broadcast=False)


def emit_copy(a: Assembler, m: MInst, position: int) -> None:
    """Parallel moves in an order that overwrites nothing still needed; cycles by exchange."""
    classes = a.allocation.program.classes
    pending = {}
    for dst, src in zip(m.defs, m.srcs, strict=True):
        if a.register[dst] != a.register[src]:
            pending[a.register[dst]] = (dst, src)
    while pending:
        sources = {a.register[src] for _, src in pending.values()}
        free = [r for r in pending if r not in sources]
        if free:
            dst, src = pending.pop(free[0])
            a.move(dst, src, classes[dst])
            continue
        register, (dst, src) = next(iter(pending.items()))
        exchange(a, dst, src, classes[dst])
        del pending[register]
        # what wanted `register` now finds it where src was
        for r, (d, s) in list(pending.items()):
            if a.register[s] == register:
                pending[r] = (d, src)
        pending = {r: p for r, p in pending.items() if r != a.register[p[1]]}


def exchange(a: Assembler, one: int, other: int, class_: str) -> None:
    if class_ == "g":
        a.put(x86.XCHG, one, (other,), None, None, "m")
        return
    ins = a.isa.mask_swap if class_ == "k" else a.isa.swap_registers
    for dst, src in ((one, other), (other, one), (one, other)):
        a.put(ins, dst, (dst, src), None, None, "m")


def emit_head(a: Assembler, m: MInst, position: int) -> None:
    if m.imm:
        a.jump(JGE, m.target)
    if m.target in a.allocation.program.innermost:
        pad = -a.size % ALIGN_LOOP
        while pad:
            a.note("n")
            a.raw(NOPS[min(pad, 9)])
            pad -= min(pad, 9)
    a.tops[m.target] = a.size
    a.loops.append(m.target)


def emit_back(a: Assembler, m: MInst, position: int) -> None:
    a.note("")
    near = a.tops[m.target] - (a.size + 2)
    if near >= -128:
        a.raw(bytes((JL - 0x10, near & 0xFF)))
    else:
        far = a.tops[m.target] - (a.size + 6)
        a.raw(bytes((0x0F, JL)) + far.to_bytes(4, "little", signed=True))
    a.loops.pop()
    a.land(m.target)


def emit_if(a: Assembler, m: MInst, position: int) -> None:
    a.jump(JLE if m.imm else JGE, m.target)


def emit_endif(a: Assembler, m: MInst, position: int) -> None:
    a.land(m.target)


def emit_entry(a: Assembler, m: MInst, position: int) -> None:
    """The arguments are where the caller put them."""


EMIT: dict[Kind, Callable[[Assembler, MInst, int], None]] = {
    Kind.OP: emit_op, Kind.COPY: emit_copy, Kind.HEAD: emit_head, Kind.BACK: emit_back,
    Kind.IF: emit_if, Kind.ENDIF: emit_endif, Kind.ENTRY: emit_entry,
}
# shape of the operands -> iced constructor
CREATE: dict[str, Callable[..., Instruction]] = {
    "r": Instruction.create_reg,
    "ri": Instruction.create_reg_i32,
    "rI": Instruction.create_reg_i64,
    "rr": Instruction.create_reg_reg,
    "rm": Instruction.create_reg_mem,
    "mr": Instruction.create_mem_reg,
    "m": Instruction.create_mem,
    "rri": Instruction.create_reg_reg_i32,
    "rmi": Instruction.create_reg_mem_i32,
    "rrr": Instruction.create_reg_reg_reg,
    "rmr": Instruction.create_reg_mem_reg,
    "rrm": Instruction.create_reg_reg_mem,
    "mri": Instruction.create_mem_reg_i32,
    "mrr": Instruction.create_mem_reg_reg,
    "rrri": Instruction.create_reg_reg_reg_i32,
    "rrmi": Instruction.create_reg_reg_mem_i32,
    "rrrr": Instruction.create_reg_reg_reg_reg,
    "rrmr": Instruction.create_reg_reg_mem_reg,
}
