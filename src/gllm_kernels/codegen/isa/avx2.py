"""AVX2 with FMA: 8 lanes, 16 registers, masks are vectors of all-ones lanes."""

from __future__ import annotations

from ..kernel import K
from ..legalise import clamp_first, scalef_by_multiplying
from ..narrow import MASKED_LOADS, MASKED_STORES, load_by_dwords, store_by_dwords
from ..wide import double_to_long, long_to_double, long_to_float, shift_sign
from .base import Fma, Ins, Isa, Step, row
from .x86 import (
    BF16_WORDS, BYTE_WORDS, NEAREST, SHARED, bf16_bits, dot_of_bytes, rounding, swap_halves,
)

# fmt: off


def two(name: str, form: str = "d:y 0:y 1:y*", **options: object) -> Ins:
    base, _, suffix = name.partition("!")
    return row(f"VEX_{base}_YMM_YMM_YMMM256{suffix}", form, **options)


def one(name: str, **options: object) -> Ins:
    base, _, suffix = name.partition("!")
    return row(f"VEX_{base}_YMM_YMMM256{suffix}", "d:y 0:y*", **options)


def shift(name: str) -> Ins:
    return row(f"VEX_{name}_YMM_YMM_IMM8", "d:y 0:y")


def fma(name: str) -> Fma:
    return Fma(two(f"{name}132PS", kind="fma"), two(f"{name}213PS", kind="fma"),
               two(f"{name}231PS", kind="fma"))


# VCMPPS predicates, SDM vol. 2 table 3-1: quiet forms.
def compare(predicate: int, **options: object) -> Ins:
    return two("VCMPPS!_IMM8", imm=predicate, **options)


def elements(suffix: str, size: int, extend: str) -> dict[K, object]:
    """Accesses of integers of 8 or 16 bits; the low bytes of every lane are gathered by a table."""
    part = ("XMMM64", "XMMM128")[size - 1]
    read, unit = f"VEX_{extend}_YMM_{part}", "BW"[size - 1]
    fill = row(f"VEX_VPBROADCAST{unit}_XMM_XMMM{8 * size}", "d:x m", kind="load")
    write = ("VEX_VMOVQ_XMMM64_XMM", "VEX_VMOVDQU_XMMM128_XMM")[size - 1]
    first = row(f"VEX_VPEXTR{unit}_R32M{8 * size}_XMM_IMM8", "m 0:x", imm=0, kind="store")
    return {
        K(f"load.{suffix}"): row(read, "d:y m", kind="load"),
        K(f"bcast.{suffix}"): (Step("x", fill), Step("d", row(read, "d:y 0:x"), ("x",))),
        K(f"store.{suffix}"): (*PACKING[size][:-1], Step("p", *PACKING[size][-1]),
                               Step("", row(write, "m 0:x", kind="store"), ("p",))),
        K(f"store1.{suffix}"): first,
        K(f"pack.{suffix}"): (*PACKING[size][:-1], Step("d", *PACKING[size][-1])),
        K(f"unpack.{suffix}"): row(read, "d:y 0:x"),
    }


TABLE = row("VEX_VMOVUPS_YMM_YMMM256", "d:y 0:y*", kind="load")
# within 128 bits by a table of bytes; then the first dword, or the first two, of each half
PACKING = {
    1: (Step("t", two("VPSHUFB"), ("a", "=bytes")), Step("i", TABLE, ("=quarters",)),
        (two("VPERMD"), ("i", "t"))),
    2: (Step("t", two("VPSHUFB"), ("a", "=words")),
        (row("VEX_VPERMQ_YMM_YMMM256_IMM8", "d:y 0:y"), ("t",), 8)),
}
ADD, MAX, MIN = two("VADDPS", swap=True), two("VMAXPS"), two("VMINPS")
AND, OR, XOR = two("VANDPS", swap=True), two("VORPS", swap=True), two("VXORPS", swap=True)
# VPERM2F128 immediate: bits 1:0 choose the low half of a b, bits 5:4 the high half; 2 is b's low.
SHUF = two("VPERM2F128!_IMM8", encode=lambda imm: imm[0] | (2 + imm[1]) << 4)
PERMIL = one("VPERMILPS!_IMM8")
LOAD = row("VEX_VMOVUPS_YMM_YMMM256", "d:y m", kind="load")
STORE = row("VEX_VMOVUPS_YMMM256_YMM", "m 0:y", kind="store")
EXTRACT = row("VEX_VPEXTRW_R32M16_XMM_IMM8", "m 0:x", kind="store")
ZERO = row("VEX_VXORPS_XMM_XMM_XMMM128", "d:x d:x d:x")  # clears the upper half too
SPREAD = row("VEX_VBROADCASTSS_YMM_XMM", "d:y 0:x")
VMOVD = row("VEX_VMOVD_XMM_RM32", "d:x 0:e")
FILL = row("VEX_VPBROADCASTD_YMM_XMMM32", "d:y 0:x")
UNORDERED, SELECT = compare(3, swap=True), two("VBLENDVPS!_YMM", "d:y 2:y 1:y* 0:y")
WIDEN = shift("VPSLLD")
MULU = two("VPMULUDQ", swap=True)
LONGS = row("VEX_VPMOVSXDQ_YMM_XMMM128", "d:y 0:x")
TO_F16 = row("VEX_VCVTPS2PH_XMMM128_YMM_IMM8", "d:x 0:y")
WORDS = bf16_bits("a", shift("VPSRLD"), AND, OR, two("VPADDD", swap=True), UNORDERED, SELECT)
FOLD = (two("VPERM2F128!_IMM8"), 1), (PERMIL, 0x4E), (PERMIL, 0xB1)

ROWS = SHARED | {
    K.LOAD:    LOAD,
    K.LOADM:   row("VEX_VMASKMOVPS_YMM_YMM_M256", "d:y 0:y m", kind="load"),
    K.BCAST:   row("VEX_VBROADCASTSS_YMM_M32", "d:y m", kind="load"),
    # as with masks in registers of their own: used up
    K.GATHER:  (Step("m", two("VPCMPEQD", "d:y d:y d:y")), Step("z", ZERO),
                Step("d", row("VEX_VPGATHERDD_YMM_VM32Y_YMM", "d:y m 1:y =0", kind="load"), ("z", "m"))),
    K.STORE:   STORE,
    K.STOREM:  row("VEX_VMASKMOVPS_M256_YMM_YMM", "m 0:y 1:y", kind="store"),
    K.STORE1:  row("VEX_VMOVSS_M32_XMM", "m 0:x", kind="store"),
    K.LOAD_F16:  row("VEX_VCVTPH2PS_YMM_XMMM128", "d:y m", kind="load"),
    K.BCAST_F16: (Step("x", row("VEX_VPBROADCASTW_XMM_XMMM16", "d:x m", kind="load")),
                  Step("d", row("VEX_VCVTPH2PS_YMM_XMMM128", "d:y 0:x"), ("x",))),
    K.STORE_F16: row("VEX_VCVTPS2PH_XMMM128_YMM_IMM8", "m 0:y", imm=NEAREST, kind="store"),
    K.STORE1_F16: (Step("x", row("VEX_VCVTPS2PH_XMMM64_XMM_IMM8", "d:x 0:x"), ("a",), NEAREST),
                   Step("", EXTRACT, ("x",), 0)),
    K.LOAD_BF16:  (Step("x", row("VEX_VPMOVZXWD_YMM_XMMM128", "d:y m", kind="load")),
                   Step("d", WIDEN, ("x",), 16)),
    K.BCAST_BF16: (Step("x", row("VEX_VPBROADCASTW_YMM_XMMM16", "d:y m", kind="load")),
                   Step("d", WIDEN, ("x",), 16)),
    # packing works within 128 bits: words 0 1 2 3 0 1 2 3 | 4 5 6 7 4 5 6 7, so quarters 0 and 2
    K.STORE_BF16: (*WORDS, Step("two", two("VPACKUSDW"), ("bits", "bits")),
                   Step("low", row("VEX_VPERMQ_YMM_YMMM256_IMM8", "d:y 0:y"), ("two",), 8),
                   Step("", row("VEX_VMOVDQU_XMMM128_XMM", "m 0:x", kind="store"), ("low",))),
    K.STORE1_BF16: (*WORDS, Step("", EXTRACT, ("bits",), 0)),
    K.SPLAT:   (Step("x", VMOVD, ("a",)), Step("d", FILL, ("x",))),
    K.VADD:    ADD,
    K.VSUB:    two("VSUBPS"),
    K.VMUL:    two("VMULPS", swap=True),
    K.VDIV:    two("VDIVPS"),
    K.VMAX:    MAX,
    K.VMIN:    MIN,
    K.VSQRT:   one("VSQRTPS"),
    K.VFMA:    fma("VFMADD"),
    K.VFNMA:   fma("VFNMADD"),
    K.VROUND:  one("VROUNDPS!_IMM8", encode=rounding),
    K.VAND:    AND,
    K.VOR:     OR,
    K.VXOR:    XOR,
    K.VANDN:   two("VANDNPS"),
    K.VSHL:    WIDEN,
    K.VSHR:    shift("VPSRLD"),
    K.VSAR:    shift("VPSRAD"),
    K.VIADD:   two("VPADDD", swap=True),
    K.VISUB:   two("VPSUBD"),
    K.VI2F:    one("VCVTDQ2PS"),
    K.VF2I:    one("VCVTPS2DQ"),
    # lane number < count (already in 0..8)
    K.FIRST:   (Step("x", VMOVD, ("a",)), Step("s", FILL, ("x",)),
                Step("d", two("VPCMPGTD"), ("s", "=lanes"))),
    K.VLT:     compare(17),
    K.VLE:     compare(18),
    K.VEQ:     compare(0, swap=True),
    K.VUNORD:  UNORDERED,
    K.MAND:    AND,
    K.MOR:     OR,
    K.MNOT:    (Step("d", XOR, ("a", "=ones")),),
    K.MBITS:   row("VEX_VMOVMSKPS_R32_YMM", "d:e 0:y"),
    K.SELECT:  SELECT,
    K.HSUM:    swap_halves(*FOLD, op=ADD),
    K.HMAX:    swap_halves(*FOLD, op=MAX, spread=SPREAD),
    K.HMIN:    swap_halves(*FOLD, op=MIN, spread=SPREAD),
    K.PERMUTE: two("VPERMPS"),  # source 0: lane numbers
    K.UNPACKLO32: two("VUNPCKLPS"),
    K.UNPACKHI32: two("VUNPCKHPS"),
    K.UNPACKLO64: two("VUNPCKLPD"),
    K.UNPACKHI64: two("VUNPCKHPD"),
    K.SHUF128: SHUF,
    K.VPERM:   two("VPERMPS", "d:y 1:y 0:y*"),
    **dot_of_bytes(two("VPMADDUBSW"), two("VPMADDWD"), two("VPADDD", swap=True), shift("VPSRLD"), AND),
    K.VBYTES:  two("VPSHUFB"),
    K.VIMUL:   two("VPMULLD", swap=True),
    K.VIMAX:   two("VPMAXSD", swap=True),
    K.VIMIN:   two("VPMINSD", swap=True),
    K.VIABS:   one("VPABSD"),
    K.VSHLV:   two("VPSLLVD"),
    K.VSHRV:   two("VPSRLVD"),
    K.VSARV:   two("VPSRAVD"),
    K.VF2IT:   one("VCVTTPS2DQ"),
    K.VILT:    two("VPCMPGTD", "d:y 1:y 0:y*"),
    K.VIEQ:    two("VPCMPEQD", swap=True),
    K.VHALF:   (*PACKING[2][:-1], Step("x", *PACKING[2][-1]),
                Step("d", row("VEX_VCVTPH2PS_YMM_XMMM128", "d:y 0:x"), ("x",))),
    K.VTOHALF: (Step("x", TO_F16, ("a",), NEAREST),
                Step("d", row("VEX_VPMOVZXWD_YMM_XMMM128", "d:y 0:x"), ("x",))),
    K.PACK_F16:    TO_F16.fixed(NEAREST),
    K.UNPACK_F16:  row("VEX_VCVTPH2PS_YMM_XMMM128", "d:y 0:x"),
    K.PACK_BF16:   (*WORDS, Step("two", two("VPACKUSDW"), ("bits", "bits")),
                    Step("d", row("VEX_VPERMQ_YMM_YMMM256_IMM8", "d:y 0:y"), ("two",), 8)),
    K.UNPACK_BF16: (Step("x", row("VEX_VPMOVZXWD_YMM_XMMM128", "d:y 0:x"), ("a",)),
                    Step("d", WIDEN, ("x",), 16)),
    **elements("i8", 1, "VPMOVSXBD"), **elements("u8", 1, "VPMOVZXBD"),
    **elements("i16", 2, "VPMOVSXWD"), **elements("u16", 2, "VPMOVZXWD"),
    K.LOADM_64:  row("VEX_VMASKMOVPD_YMM_YMM_M256", "d:y 0:y m", kind="load"),
    K.STOREM_64: row("VEX_VMASKMOVPD_M256_YMM_YMM", "m 0:y 1:y", kind="store"),
    K.BCAST_64:  row("VEX_VBROADCASTSD_YMM_M64", "d:y m", kind="load"),
    K.STORE1_64: row("VEX_VMOVSD_M64_XMM", "m 0:x", kind="store"),
    K.DADD:    two("VADDPD", swap=True),
    K.DSUB:    two("VSUBPD"),
    K.DMUL:    two("VMULPD", swap=True),
    K.DDIV:    two("VDIVPD"),
    K.DMAX:    two("VMAXPD"),
    K.DMIN:    two("VMINPD"),
    K.DSQRT:   one("VSQRTPD"),
    K.DFMA:    Fma(*(two(f"VFMADD{order}PD", kind="fma") for order in ("132", "213", "231"))),
    K.DROUND:  one("VROUNDPD!_IMM8", encode=rounding),
    K.DLT:     two("VCMPPD!_IMM8", imm=17),
    K.DLE:     two("VCMPPD!_IMM8", imm=18),
    K.DEQ:     two("VCMPPD!_IMM8", imm=0, swap=True),
    K.DUNORD:  two("VCMPPD!_IMM8", imm=3, swap=True),
    K.LADD:    two("VPADDQ", swap=True),
    K.LSUB:    two("VPSUBQ"),
    # (ah*2^32 + al) * (bh*2^32 + bl) = ((ah*bl + al*bh) << 32) + al*bl modulo 2^64
    K.LMUL:    (Step("ah", shift("VPSRLQ"), ("a",), 32), Step("bh", shift("VPSRLQ"), ("b",), 32),
                Step("p", MULU, ("ah", "b")), Step("q", MULU, ("a", "bh")),
                Step("r", two("VPADDQ"), ("p", "q")), Step("s", shift("VPSLLQ"), ("r",), 32),
                Step("t", MULU, ("a", "b")), Step("d", two("VPADDQ"), ("s", "t"))),
    K.LMULS:   two("VPMULDQ", swap=True),
    K.LMULU:   MULU,
    K.LSHL:    shift("VPSLLQ"),
    K.LSHR:    shift("VPSRLQ"),
    K.LSHLV:   two("VPSLLVQ"),
    K.LSHRV:   two("VPSRLVQ"),
    K.LLT:     two("VPCMPGTQ", "d:y 1:y 0:y*"),
    K.LEQ:     two("VPCMPEQQ", swap=True),
    K.SELECT64: SELECT,
    K.UPPER:   row("VEX_VEXTRACTF128_XMMM128_YMM_IMM8", "d:x 0:y", imm=1),
    K.JOIN:    row("VEX_VINSERTF128_YMM_YMM_XMMM128_IMM8", "d:y 0:y 1:x", imm=1),
    K.F2D:     row("VEX_VCVTPS2PD_YMM_XMMM128", "d:y 0:x"),
    K.D2F:     row("VEX_VCVTPD2PS_XMM_YMMM256", "d:x 0:y"),
    K.I2D:     row("VEX_VCVTDQ2PD_YMM_XMMM128", "d:y 0:x"),
    K.D2I:     row("VEX_VCVTTPD2DQ_XMM_YMMM256", "d:x 0:y"),
    K.I2L:     LONGS,
    K.U2L:     row("VEX_VPMOVZXDQ_YMM_XMMM128", "d:y 0:x"),
    K.L2I:     (Step("i", TABLE, ("=even",)), Step("d", two("VPERMD"), ("i", "a"))),
    K.MLOW:    LONGS,
    K.MHIGH:   (Step("x", row("VEX_VEXTRACTF128_XMMM128_YMM_IMM8", "d:x 0:y"), ("a",), 1),
                Step("d", LONGS, ("x",))),
    # words 0 2 | 4 6 of both within 128 bits, then quarters 0 2 1 3
    K.MJOIN:   (Step("x", two("VSHUFPS!_IMM8"), ("a", "b"), 0x88),
                Step("d", row("VEX_VPERMQ_YMM_YMMM256_IMM8", "d:y 0:y"), ("x",), 0xD8)),
}

AVX2 = Isa(
    name="avx2", lanes=8, vregs=16, mask_class="v",
    features=frozenset({"avx2", "fma", "bmi2", "f16c"}),
    rows=ROWS, tables={
        "lanes": tuple(range(8)), "ones": (0xFFFFFFFF,) * 8, "even": (0, 2, 4, 6) * 2,
        "quarters": (0, 4) * 4, "bytes": (0x0C080400, *(0x80808080,) * 3) * 2,
        "words": (0x05040100, 0x0D0C0908, *(0x80808080,) * 2) * 2} | {
        name: (word,) * 8 for name, word in (BF16_WORDS | BYTE_WORDS).items()},
    # masks of 8- and 16-bit elements are beyond vpmaskmov, which counts in 32 bits
    legal={K.FIRST: clamp_first, K.VSCALEF: scalef_by_multiplying,
           **dict.fromkeys(MASKED_LOADS, load_by_dwords),
           **dict.fromkeys(MASKED_STORES, store_by_dwords),
           K.LSAR: shift_sign, K.LSARV: shift_sign, K.L2D: long_to_double, K.L2F: long_to_float,
           K.D2L: double_to_long},
    move=row("VEX_VMOVAPS_YMM_YMMM256", "d:y 0:y*", kind="move"),
    load=LOAD, store=STORE, broadcast=ROWS[K.BCAST],
    zero=ZERO,
    permute_blocks=PERMIL, swap_registers=XOR,
)
