"""The operations of a kernel: one name each, the types of its operands, and the meaning in words."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from enum import StrEnum

from ..dtypes import DTYPES

I64, VEC, MASK, VOID = "i64", "vec", "mask", "void"
DOWN, UP, TO_ZERO = 1, 2, 3  # the rounding modes of x86, SDM vol. 2 table 4-23


class K(StrEnum):
    """One name per kernel operation; types and meaning are in `TABLE`."""

    # integers
    ICONST = "iconst"
    ARG = "arg"
    BEGIN = "begin"
    END = "end"
    ARGS = "args"
    SCRATCH = "scratch"
    CODE = "code"
    IADD = "iadd"
    ISUB = "isub"
    IMUL = "imul"
    IAND = "iand"
    IMIN = "imin"
    IMAX = "imax"
    IDIV = "idiv"
    # memory
    LOAD = "load"
    LOADM = "loadm"
    LOADW = "loadw"
    BCAST = "bcast"
    GATHER = "gather"
    ILOAD32 = "iload32"
    ILOAD = "iload"
    ISTORE = "istore"
    CALL = "call"
    STORE = "store"
    STOREM = "storem"
    STORE1 = "store1"
    PREFETCH = "prefetch"
    # memory in types of 8, 16 and 64 bits
    LOAD_F16 = "load.f16"
    LOADM_F16 = "loadm.f16"
    BCAST_F16 = "bcast.f16"
    STORE_F16 = "store.f16"
    STOREM_F16 = "storem.f16"
    STORE1_F16 = "store1.f16"
    LOAD_BF16 = "load.bf16"
    LOADM_BF16 = "loadm.bf16"
    BCAST_BF16 = "bcast.bf16"
    STORE_BF16 = "store.bf16"
    STOREM_BF16 = "storem.bf16"
    STORE1_BF16 = "store1.bf16"
    LOAD_I8 = "load.i8"
    LOADM_I8 = "loadm.i8"
    BCAST_I8 = "bcast.i8"
    STORE_I8 = "store.i8"
    STOREM_I8 = "storem.i8"
    STORE1_I8 = "store1.i8"
    LOAD_U8 = "load.u8"
    LOADM_U8 = "loadm.u8"
    BCAST_U8 = "bcast.u8"
    STORE_U8 = "store.u8"
    STOREM_U8 = "storem.u8"
    STORE1_U8 = "store1.u8"
    LOAD_I16 = "load.i16"
    LOADM_I16 = "loadm.i16"
    BCAST_I16 = "bcast.i16"
    STORE_I16 = "store.i16"
    STOREM_I16 = "storem.i16"
    STORE1_I16 = "store1.i16"
    LOAD_U16 = "load.u16"
    LOADM_U16 = "loadm.u16"
    BCAST_U16 = "bcast.u16"
    STORE_U16 = "store.u16"
    STOREM_U16 = "storem.u16"
    STORE1_U16 = "store1.u16"
    LOADM_64 = "loadm.64"
    BCAST_64 = "bcast.64"
    STOREM_64 = "storem.64"
    STORE1_64 = "store1.64"
    PACK_F16 = "pack.f16"
    UNPACK_F16 = "unpack.f16"
    PACK_BF16 = "pack.bf16"
    UNPACK_BF16 = "unpack.bf16"
    PACK_I8 = "pack.i8"
    UNPACK_I8 = "unpack.i8"
    PACK_U8 = "pack.u8"
    UNPACK_U8 = "unpack.u8"
    PACK_I16 = "pack.i16"
    UNPACK_I16 = "unpack.i16"
    PACK_U16 = "pack.u16"
    UNPACK_U16 = "unpack.u16"
    # vectors
    VCONST = "vconst"
    VLANES = "vlanes"
    ARGF = "argf"
    SPLAT = "splat"
    VADD = "vadd"
    VSUB = "vsub"
    VMUL = "vmul"
    VDIV = "vdiv"
    VMAX = "vmax"
    VMIN = "vmin"
    VSQRT = "vsqrt"
    VFMA = "vfma"
    VFNMA = "vfnma"
    VDOT2 = "vdot2"
    VDOT4 = "vdot4"
    VDOT4U = "vdot4u"
    VBYTES = "vbytes"
    VROUND = "vround"
    VSCALEF = "vscalef"
    VAND = "vand"
    VOR = "vor"
    VXOR = "vxor"
    VANDN = "vandn"
    VSHL = "vshl"
    VSHR = "vshr"
    VSAR = "vsar"
    VIADD = "viadd"
    VISUB = "visub"
    VI2F = "vi2f"
    VF2I = "vf2i"
    VIMUL = "vimul"
    VIMAX = "vimax"
    VIMIN = "vimin"
    VIABS = "viabs"
    VSHLV = "vshlv"
    VSHRV = "vshrv"
    VSARV = "vsarv"
    VF2IT = "vf2it"
    VHALF = "vhalf"
    VTOHALF = "vtohalf"
    VILT = "vilt"
    VIEQ = "vieq"
    # lanes of 64 bits, half as many: floats (D) and integers (L)
    VCONST64 = "vconst64"
    DADD = "dadd"
    DSUB = "dsub"
    DMUL = "dmul"
    DDIV = "ddiv"
    DMAX = "dmax"
    DMIN = "dmin"
    DSQRT = "dsqrt"
    DFMA = "dfma"
    DROUND = "dround"
    DLT = "dlt"
    DLE = "dle"
    DEQ = "deq"
    DUNORD = "dunord"
    LADD = "ladd"
    LSUB = "lsub"
    LMUL = "lmul"
    LMULS = "lmuls"
    LMULU = "lmulu"
    LSHL = "lshl"
    LSHR = "lshr"
    LSAR = "lsar"
    LSHLV = "lshlv"
    LSHRV = "lshrv"
    LSARV = "lsarv"
    LLT = "llt"
    LEQ = "leq"
    SELECT64 = "select64"
    # between lanes of 32 and of 64 bits
    UPPER = "upper"
    JOIN = "join"
    F2D = "f2d"
    D2F = "d2f"
    I2D = "i2d"
    D2I = "d2i"
    I2L = "i2l"
    U2L = "u2l"
    L2I = "l2i"
    L2D = "l2d"
    L2F = "l2f"
    D2L = "d2l"
    MLOW = "mlow"
    MHIGH = "mhigh"
    MJOIN = "mjoin"
    # masks
    FIRST = "first"
    VLT = "vlt"
    VLE = "vle"
    VEQ = "veq"
    VUNORD = "vunord"
    MAND = "mand"
    MOR = "mor"
    MNOT = "mnot"
    MBITS = "mbits"
    SELECT = "select"
    # across lanes
    HSUM = "hsum"
    HMAX = "hmax"
    HMIN = "hmin"
    PERMUTE = "permute"
    VPERM = "vperm"
    UNPACKLO32 = "unpacklo32"
    UNPACKHI32 = "unpackhi32"
    UNPACKLO64 = "unpacklo64"
    UNPACKHI64 = "unpackhi64"
    SHUF128 = "shuf128"


@dataclass(frozen=True, slots=True)
class Row:
    """Types of arguments and result, and the meaning in words where the name does not say it."""

    args: tuple[str, ...]
    result: str
    meaning: str = ""


_MEM = (I64, I64)  # address = base + index*imm.scale + imm.disp

# fmt: off
TABLE: dict[K, Row] = {
    K.ICONST:   Row((), I64, "imm"),
    K.ARG:      Row((), I64, "args[imm], imm = param name"),
    K.BEGIN:    Row((), I64, "first unit of this call"),
    K.END:      Row((), I64, "one past the last unit"),
    K.ARGS:     Row((), I64, "address of the args of this call"),
    K.SCRATCH:  Row((), I64, "address of the thread's scratch memory"),
    K.CODE:     Row((), I64, "address of the code of imm, a Routine"),
    K.IADD:     Row((I64, I64), I64),
    K.ISUB:     Row((I64, I64), I64),
    K.IMUL:     Row((I64, I64), I64),
    K.IAND:     Row((I64, I64), I64),
    K.IMIN:     Row((I64, I64), I64, "signed"),
    K.IMAX:     Row((I64, I64), I64, "signed"),
    K.IDIV:     Row((I64, I64), I64, "both non-negative, rounds down"),
    K.LOAD:     Row(_MEM, VEC, "lanes consecutive 32-bit elements, unaligned"),
    K.LOADM:    Row((*_MEM, MASK), VEC, "as load; 0 and no access where the mask is off"),
    K.LOADW:    Row((*_MEM, I64), VEC, "16-bit words, so many as the count says; 0 and no access behind"),
    K.BCAST:    Row(_MEM, VEC, "one element in all lanes"),
    K.GATHER:   Row((I64, VEC), VEC, "32 bits at base + lane*imm.scale + imm.disp for every signed lane"),
    K.ILOAD32:  Row(_MEM, I64, "one int32, sign-extended"),
    K.ILOAD:    Row(_MEM, I64, "eight bytes"),
    K.ISTORE:   Row((*_MEM, I64), VOID, "eight bytes"),
    K.CALL:     Row((I64,) * 5, VOID, "code(args, begin, end, scratch)"),
    K.STORE:    Row((*_MEM, VEC), VOID),
    K.STOREM:   Row((*_MEM, MASK, VEC), VOID, "no access where the mask is off"),
    K.STORE1:   Row((*_MEM, VEC), VOID, "lane 0 only"),
    K.PREFETCH: Row(_MEM, VOID, "imm.level 0..2: keep in L1, L2, L3"),
    K.VCONST:   Row((), VEC, "imm = 32 bits in all lanes"),
    K.VLANES:   Row((), VEC, "integer lanes 0, 1, 2, ..."),
    K.ARGF:     Row((), VEC, "the float in args[imm], in all lanes"),
    K.SPLAT:    Row((I64,), VEC, "low 32 bits of an integer in all lanes"),
    K.VADD:     Row((VEC, VEC), VEC),
    K.VSUB:     Row((VEC, VEC), VEC),
    K.VMUL:     Row((VEC, VEC), VEC),
    K.VDIV:     Row((VEC, VEC), VEC),
    K.VMAX:     Row((VEC, VEC), VEC, "a > b ? a : b"),
    K.VMIN:     Row((VEC, VEC), VEC, "a < b ? a : b"),
    K.VSQRT:    Row((VEC,), VEC),
    K.VFMA:     Row((VEC, VEC, VEC), VEC, "a*b + c, rounded once"),
    K.VFNMA:    Row((VEC, VEC, VEC), VEC, "c - a*b, rounded once"),
    # VDPBF16PS takes denormals for zero, and in which order it rounds is the processor's affair
    K.VDOT2:    Row((VEC, VEC, VEC), VEC, "lanes are pairs of bf16: c + a.low*b.low + a.high*b.high"),
    K.VDOT4:    Row((VEC, VEC, VEC), VEC, "c + the 4 products of a's bytes, 0 to 127, and b's signed bytes"),
    K.VDOT4U:   Row((VEC, VEC, VEC), VEC, "as vdot4, a's bytes 0 to 255"),
    K.VBYTES:   Row((VEC, VEC), VEC, "byte i = a[b[i]] of the same 128 bits, 0 where b[i] >= 128; b[i] modulo 16"),
    K.VROUND:   Row((VEC,), VEC, "nearest integer, ties to even; imm = DOWN, UP, TO_ZERO: that way"),
    # b finite; where a is NaN b may be NaN too. vscalefps and its expansion differ for infinite b.
    K.VSCALEF:  Row((VEC, VEC), VEC, "a * 2**floor(b), denormals and overflow exact"),
    K.VAND:     Row((VEC, VEC), VEC, "bits"),
    K.VOR:      Row((VEC, VEC), VEC, "bits"),
    K.VXOR:     Row((VEC, VEC), VEC, "bits"),
    K.VANDN:    Row((VEC, VEC), VEC, "~a & b"),
    K.VSHL:     Row((VEC,), VEC, "integer lanes << imm"),
    K.VSHR:     Row((VEC,), VEC, "unsigned lanes >> imm"),
    K.VSAR:     Row((VEC,), VEC, "signed lanes >> imm"),
    K.VIADD:    Row((VEC, VEC), VEC, "integer lanes, wrapping"),
    K.VISUB:    Row((VEC, VEC), VEC, "integer lanes, wrapping"),
    K.VIMUL:    Row((VEC, VEC), VEC, "integer lanes, the low half"),
    K.VIMAX:    Row((VEC, VEC), VEC, "signed"),
    K.VIMIN:    Row((VEC, VEC), VEC, "signed"),
    K.VIABS:    Row((VEC,), VEC, "of the smallest integer: itself"),
    K.VSHLV:    Row((VEC, VEC), VEC, "integer lanes << b; b is unsigned, from 32 on: 0"),
    K.VSHRV:    Row((VEC, VEC), VEC, "unsigned lanes >> b, as vshlv"),
    K.VSARV:    Row((VEC, VEC), VEC, "signed lanes >> b, 0 <= b < 32"),
    K.VILT:     Row((VEC, VEC), MASK, "signed"),
    K.VIEQ:     Row((VEC, VEC), MASK),
    K.VF2IT:    Row((VEC,), VEC, "float to int32, towards zero; out of range: the smallest"),
    K.VHALF:    Row((VEC,), VEC, "float of the binary16 in the low half of each lane"),
    K.VTOHALF:  Row((VEC,), VEC, "the nearest binary16 in the low half, zeros above"),
    K.VI2F:     Row((VEC,), VEC, "int32 to float"),
    K.VF2I:     Row((VEC,), VEC, "float to int32, nearest even"),
    K.FIRST:    Row((I64,), MASK, "lanes < a; a <= 0: none, a >= lanes: all; imm: see WITHIN"),
    K.VLT:      Row((VEC, VEC), MASK, "ordered: false on NaN"),
    K.VLE:      Row((VEC, VEC), MASK),
    K.VEQ:      Row((VEC, VEC), MASK),
    K.VUNORD:   Row((VEC, VEC), MASK, "either is NaN"),
    K.MAND:     Row((MASK, MASK), MASK),
    K.MOR:      Row((MASK, MASK), MASK),
    K.MNOT:     Row((MASK,), MASK),
    K.VCONST64: Row((), VEC, "imm = 64 bits in all lanes of 64"),
    **{op: Row((VEC, VEC), VEC, f"as v{op.value[1:]}, on float64") for op in
       (K.DADD, K.DSUB, K.DMUL, K.DDIV, K.DMAX, K.DMIN)},
    **{op: Row((VEC, VEC), MASK, f"as v{op.value[1:]}, on float64; half as many bits") for op in
       (K.DLT, K.DLE, K.DEQ, K.DUNORD)},
    K.DSQRT:    Row((VEC,), VEC),
    K.DFMA:     Row((VEC, VEC, VEC), VEC, "a*b + c, rounded once"),
    K.DROUND:   Row((VEC,), VEC, "as vround"),
    K.LADD:     Row((VEC, VEC), VEC, "64-bit lanes, wrapping"),
    K.LSUB:     Row((VEC, VEC), VEC, "64-bit lanes, wrapping"),
    K.LMUL:     Row((VEC, VEC), VEC, "64-bit lanes, the low half"),
    K.LMULS:    Row((VEC, VEC), VEC, "product of the signed low halves of 64-bit lanes"),
    K.LMULU:    Row((VEC, VEC), VEC, "product of the unsigned low halves"),
    **{op: Row((VEC,), VEC, f"as vs{op.value[2:]}, on 64-bit lanes")
       for op in (K.LSHL, K.LSHR, K.LSAR)},
    **{op: Row((VEC, VEC), VEC, f"as vs{op.value[2:]}, on 64-bit lanes, any count")
       for op in (K.LSHLV, K.LSHRV)},
    K.LSARV:    Row((VEC, VEC), VEC, "signed 64-bit lanes >> b, 0 <= b < 64"),
    K.LLT:      Row((VEC, VEC), MASK, "signed"),
    K.LEQ:      Row((VEC, VEC), MASK),
    K.SELECT64: Row((MASK, VEC, VEC), VEC, "mask ? a : b, on 64-bit lanes"),
    K.UPPER:    Row((VEC,), VEC, "the upper half moved down"),
    K.JOIN:     Row((VEC, VEC), VEC, "the lower halves of a and b"),
    K.F2D:      Row((VEC,), VEC, "float64 of the floats in the lower half"),
    K.D2F:      Row((VEC,), VEC, "the nearest floats in the lower half"),
    K.I2D:      Row((VEC,), VEC, "float64 of the integers in the lower half"),
    K.D2I:      Row((VEC,), VEC, "as vf2it, of float64 to the lower half"),
    K.I2L:      Row((VEC,), VEC, "the lower half sign-extended to 64-bit lanes"),
    K.U2L:      Row((VEC,), VEC, "the lower half with zeros above"),
    K.L2I:      Row((VEC,), VEC, "the low words of 64-bit lanes in the lower half"),
    K.L2D:      Row((VEC,), VEC, "the nearest float64 of 64-bit integers"),
    K.L2F:      Row((VEC,), VEC, "the nearest floats of 64-bit integers, in the lower half"),
    K.D2L:      Row((VEC,), VEC, "as vf2it, of float64 to 64-bit lanes"),
    K.MLOW:     Row((MASK,), MASK, "of the lower half's lanes, for 64-bit lanes"),
    K.MHIGH:    Row((MASK,), MASK, "of the upper half's lanes, for 64-bit lanes"),
    K.MJOIN:    Row((MASK, MASK), MASK, "of two masks for 64-bit lanes, the lower first"),
    K.MBITS:    Row((MASK,), I64, "bit i is lane i"),
    K.SELECT:   Row((MASK, VEC, VEC), VEC, "mask ? a : b"),
    K.HSUM:     Row((VEC,), VEC, "sum over lanes (halving tree) in all lanes"),
    K.HMAX:     Row((VEC,), VEC, "halving tree of vmax(upper half, lower half), in all lanes"),
    K.HMIN:     Row((VEC,), VEC, "halving tree of vmin(upper half, lower half), in all lanes"),
    K.VPERM:    Row((VEC, VEC), VEC, "lane i = a[b[i] modulo lanes]"),
    K.PERMUTE:  Row((VEC,), VEC, "lane i = a[imm[i]], imm = tuple of lanes"),
    K.UNPACKLO32: Row((VEC, VEC), VEC, "per 128 bits: a0 b0 a1 b1"),
    K.UNPACKHI32: Row((VEC, VEC), VEC, "per 128 bits: a2 b2 a3 b3"),
    K.UNPACKLO64: Row((VEC, VEC), VEC, "per 128 bits: a01 b01"),
    K.UNPACKHI64: Row((VEC, VEC), VEC, "per 128 bits: a23 b23"),
    # imm = one block number per 128 bits: lanes 16 (i, j, k, l) -> a[i] a[j] b[k] b[l]; 8 (i, k)
    K.SHUF128:  Row((VEC, VEC), VEC, "first half of its 128-bit blocks: a's, second: b's, by imm"),
}
# fmt: on

WITHIN = "0..lanes"  # imm of a FIRST whose count is known to lie there

# integer arithmetic that `Value` operators do while a kernel is built
FOLD = {K.IADD: operator.add, K.ISUB: operator.sub, K.IMUL: operator.mul}
NEUTRAL = {K.IADD: 0, K.ISUB: 0, K.IMUL: 1}  # a + 0, 0 + a, a - 0, a * 1, 1 * a

# The same accesses of other elements, by the storage type of the array: loads widen to float32 or
# int32, stores round to nearest even or keep the low bits. Lanes of 64 bits come in two vectors.
_PLAIN = (K.LOAD, K.LOADM, K.BCAST, K.STORE, K.STOREM, K.STORE1)
_SUFFIX = {"float16": "f16", "bfloat16": "bf16", "int8": "i8", "uint8": "u8", "bool": "u8",
           "int16": "i16", "uint16": "u16", "float64": "64", "int64": "64", "uint64": "64"}


def _accesses(suffix: str) -> dict[K, K]:
    """Whole vectors of 64-bit lanes are loaded and stored as any other bits."""
    plain = {"": _PLAIN, "64": (K.LOAD, K.STORE)}.get(suffix, ())
    return {op: op if op in plain else K(f"{op}.{suffix}") for op in _PLAIN}


STORAGE: dict[str, dict[K, K]] = {
    ctype: _accesses(_SUFFIX.get(name, "")) for ctype, name in DTYPES.items()}
SUFFIXES = tuple(dict.fromkeys(_SUFFIX.values()))
TABLE |= {K(f"{op}.{s}"): replace(TABLE[op], meaning=f"as {op}, on {s}")
          for s in SUFFIXES for op in _PLAIN if f"{op}.{s}" in set(K)}
# a vector of elements of 8 or 16 bits side by side from its lowest bit on
TABLE |= {K(f"pack.{s}"): Row((VEC,), VEC, f"as store.{s}, to a vector")
          for s in SUFFIXES if s != "64"}
TABLE |= {K(f"unpack.{s}"): Row((VEC,), VEC, f"as load.{s}, from a vector")
          for s in SUFFIXES if s != "64"}

STORES = frozenset(ops[op] for ops in STORAGE.values() for op in (K.STORE, K.STOREM, K.STORE1))
WRITES = STORES | {K.ISTORE, K.CALL}  # a load behind one of these is not the load before it
SIDE_EFFECTS = WRITES | {K.PREFETCH}
