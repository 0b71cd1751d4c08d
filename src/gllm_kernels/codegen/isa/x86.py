"""What every x86-64 vector ISA shares: integer instructions and the System V registers.

AMD64 ABI 1.0 section 3.2: rdi, rsi, rdx, rcx carry the four arguments; rbx, rbp and r12..r15
belong to the caller. EVEX and VEX rows differ only in their encodings' names.
"""

from __future__ import annotations

from iced_x86 import Register

from ..kernel import K
from .base import Ins, Step, row

R = Register
# Order of preference: free ones first, then those that must be saved. rsp holds the frame.
INTEGERS = (R.RAX, R.RCX, R.RDX, R.RSI, R.RDI, R.R8, R.R9, R.R10, R.R11,
            R.RBX, R.RBP, R.R12, R.R13, R.R14, R.R15)
SAVED = frozenset({R.RBX, R.RBP, R.R12, R.R13, R.R14, R.R15})
MASKS = tuple(range(R.K1, R.K7 + 1))  # k0 means "no mask" in an encoding
ARGS, BEGIN, END, SCRATCH = R.RDI, R.RSI, R.RDX, R.RCX
# register file -> (first register of it, first register of the allocation class)
FILES = {"z": (R.ZMM0, R.ZMM0), "y": (R.YMM0, R.ZMM0), "x": (R.XMM0, R.ZMM0),
         "r": (R.RAX, R.RAX), "e": (R.EAX, R.RAX), "k": (R.K0, R.K0)}

MOV = row("MOV_R64_RM64", "d:r 0:r*", kind="move")
MOV_LOAD = row("MOV_R64_RM64", "d:r m", kind="load")
MOV_STORE = row("MOV_RM64_R64", "m 0:r", kind="store")
MOV_I32 = row("MOV_R32_IMM32", "d:e")
MOV_S32 = row("MOV_RM64_IMM32", "d:r")
MOV_I64 = row("MOV_R64_IMM64", "d:r")
LEA = row("LEA_R64_M", "d:r m")
ADD = row("ADD_R64_RM64", "d:r 1:r* =0", swap=True)
ADD_I = row("ADD_RM64_IMM32", "d:r =0")
SUB = row("SUB_R64_RM64", "d:r 1:r* =0")
AND = row("AND_R64_RM64", "d:r 1:r* =0", swap=True)
AND_I = row("AND_RM64_IMM32", "d:r =0")
IMUL = row("IMUL_R64_RM64", "d:r 1:r* =0", swap=True)
IMUL_I = row("IMUL_R64_RM64_IMM32", "d:r 0:r*")
SHL = row("SHL_RM64_IMM8", "d:r =0")
SHR = row("SHR_RM64_IMM8", "d:r =0")
CMP = row("CMP_R64_RM64", "0:r 1:r*")
CMP_I = row("CMP_RM64_IMM32", "0:r")
CMOVL = row("CMOVL_R64_RM64", "d:r 1:r* =0")
CMOVG = row("CMOVG_R64_RM64", "d:r 1:r* =0")
XOR32 = row("XOR_R32_RM32", "d:e d:e")  # writes the whole 64 bits
DIV = row("DIV_RM64", "0:r")
XCHG = row("XCHG_RM64_R64", "d:r 0:r")
BZHI = row("VEX_BZHI_R32_RM32_R32", "d:e 0:e 1:e")
MOVSXD = row("MOVSXD_R64_RM32", "d:r m", kind="load")
PREFETCH = tuple(row(f"PREFETCHT{level}_M8", "m") for level in range(3))
# the same with a sign-extended byte
SHORT = {ADD_I: row("ADD_RM64_IMM8", "d:r =0"), AND_I: row("AND_RM64_IMM8", "d:r =0"),
         CMP_I: row("CMP_RM64_IMM8", "0:r"),
         IMUL_I: row("IMUL_R64_RM64_IMM8", "d:r 0:r*")}
CALL = row("CALL_RM64", "0:r")
RETURN, VZEROUPPER = row("RETNQ", ""), row("VEX_VZEROUPPER", "")
PUSH, POP = row("PUSH_R64", "0:r"), row("POP_R64", "d:r")
FRAME = row("SUB_RM64_IMM32", "d:r =0")

SHARED: dict[K, Ins | tuple[Step, ...]] = {
    K.ILOAD32: MOVSXD, K.ILOAD: MOV_LOAD, K.ISTORE: MOV_STORE,
}
BF16_WORDS = {"one": 1, "half": 0x7FFF, "quiet": 0x400000}
BYTE_WORDS = {"low7": 0x7F7F7F7F, "bit0": 0x01010101, "words1": 0x00010001, "words128": 0x00800080}

# VCVTPS2PH immediate 0: nearest even, whatever MXCSR says (SDM vol. 2, VCVTPS2PH).
NEAREST = 0


def bf16_bits(x: str, shift: Ins, and_: Ins, or_: Ins, add: Ins, unordered: Ins,
              select: Ins) -> tuple[Step, ...]:
    """`bits`: the 16 high bits of `x` rounded to nearest even, in the low half of every lane.

    x + 0x7fff + (bit 16 of x) carries into bit 16 exactly when x must go up; a carry out of the
    largest number gives infinity. A NaN is not rounded, it keeps its sign and becomes quiet. (The
    instruction VCVTNEPS2BF16 takes denormals for zero, so a denormal bf16 would not survive it.)
    """
    return (Step("high", shift, (x,), 16), Step("odd", and_, ("high", "=one")),
            Step("near", add, (x, "=half")), Step("up", add, ("near", "odd")),
            Step("nan", unordered, (x, x)), Step("quiet", or_, (x, "=quiet")),
            Step("round", select, ("nan", "quiet", "up")), Step("bits", shift, ("round",), 16))


def dot_of_bytes(madd_bytes: Ins, madd_words: Ins, add: Ins, shift: Ins,
                 and_: Ins) -> dict[K, tuple[Step, ...]]:
    """Without VPDPBUSD: pairs of products in 16 bits, which 2*127*128 fits and 2*255*128 does not;
    so larger bytes are 128 times their upper bit and the rest."""
    def part(name: str, source: str, words: str) -> tuple[Step, ...]:
        return (Step(f"{name}1", madd_bytes, (source, "b")),
                Step(f"{name}2", madd_words, (f"{name}1", f"={words}")))

    small = (*part("x", "a", "words1"), Step("d", add, ("x2", "c")))
    low = (Step("low", and_, ("a", "=low7")), *part("x", "low", "words1"))
    high = (Step("h", shift, ("a",), 7), Step("high", and_, ("h", "=bit0")),
            *part("y", "high", "words128"))
    return {K.VDOT4: small,
            K.VDOT4U: (*low, *high, Step("z", add, ("x2", "y2")), Step("d", add, ("z", "c")))}


def rounding(mode: int | None) -> int:
    """The immediate of VROUNDPS and VRNDSCALEPS: nearest even unless told, no precision exception."""
    return 8 + (mode or 0)


def swap_halves(*pairs: tuple[Ins, int], op: Ins, spread: Ins | None = None) -> tuple[Step, ...]:
    """Halving tree in place: exchange halves, combine as op(other, own), so lane 0 is
    op(upper, lower) at every level. A sum is then the same in all lanes; where the operand order
    matters (max and min of NaN or zeros) lane 0 is spread at the end.
    """
    steps, value = [], "a"
    for number, (shuffle, imm) in enumerate(pairs):
        both = ("0" if len(shuffle.operands) == 2 else "01")
        steps.append(Step(f"s{number}", shuffle, (value,) * len(both), imm))
        last = number == len(pairs) - 1 and spread is None
        value, old = "d" if last else f"t{number}", value
        steps.append(Step(value, op, (f"s{number}", old)))
    if spread is not None:
        steps.append(Step("d", spread, (value,)))
    return tuple(steps)
