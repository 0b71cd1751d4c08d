"""AVX-512 (F, VL, BW and DQ): 16 lanes, 32 registers, eight mask registers, embedded broadcast."""

from __future__ import annotations

from dataclasses import replace

from ..kernel import K
from ..legalise import clamp_first
from .base import Fma, Ins, Isa, Step, row
from .x86 import (
    BF16_WORDS, BYTE_WORDS, BZHI, MOV_I32, NEAREST, SHARED, bf16_bits, dot_of_bytes, rounding,
    swap_halves,
)

# fmt: off


def two(name: str, form: str = "d:z 0:z 1:z+", **options: object) -> Ins:
    """A three-operand row; `name` up to the operands, `_ER` where rounding can be embedded."""
    base, _, suffix = name.partition("!")
    return row(f"EVEX_{base}_ZMM_K1Z_ZMM_ZMMM512B32{suffix}", form, **options)


def one(name: str, **options: object) -> Ins:
    base, _, suffix = name.partition("!")
    return row(f"EVEX_{base}_ZMM_K1Z_ZMMM512B32{suffix}", "d:z 0:z+", **options)


def fma(name: str) -> Fma:
    return Fma(two(f"{name}132PS!_ER", "d:z 0:z 1:z+", kind="fma"),
               two(f"{name}213PS!_ER", "d:z 0:z 1:z+", kind="fma"),
               two(f"{name}231PS!_ER", "d:z 0:z 1:z+", kind="fma"))


# VCMPPS predicates, SDM vol. 2 table 3-1: quiet forms.
def compare(predicate: int, **options: object) -> Ins:
    return row("EVEX_VCMPPS_KR_K1_ZMM_ZMMM512B32_IMM8_SAE", "d:k 0:z 1:z+", imm=predicate,
               **options)


# ---- lanes of 64 bits: no embedded broadcast, a vector constant has 32 bits
def wide(name: str, form: str = "d:z 0:z 1:z*", **options: object) -> Ins:
    base, _, suffix = name.partition("!")
    return row(f"EVEX_{base}_ZMM_K1Z_ZMM_ZMMM512B64{suffix}", form, **options)


def wide_one(name: str, **options: object) -> Ins:
    base, _, suffix = name.partition("!")
    return row(f"EVEX_{base}_ZMM_K1Z_ZMMM512B64{suffix}", "d:z 0:z*", **options)


def wide_fma(name: str) -> Fma:
    return Fma(*(wide(f"{name}{order}PD!_ER", kind="fma") for order in ("132", "213", "231")))


def wide_compare(predicate: int, **options: object) -> Ins:
    return row("EVEX_VCMPPD_KR_K1_ZMM_ZMMM512B64_IMM8_SAE", "d:k 0:z 1:z*", imm=predicate, **options)


def bytewise(name: str) -> Ins:
    return row(f"EVEX_{name}_ZMM_K1Z_ZMM_ZMMM512", "d:z 0:z 1:z*")


def whole(name: str, form: str, **options: object) -> Ins:
    """A comparison of integers; "greater" with its operands exchanged is "less"."""
    return row(f"EVEX_VPCMP{name}", form, **options)


def elements(suffix: str, size: int, extend: str, pack: str) -> dict[K, object]:
    """Accesses of integers of 8 or 16 bits: masked conversions suppress faults as well."""
    part, letter = ("XMMM128", "x") if size == 1 else ("YMMM256", "y")
    read, write = f"EVEX_{extend}_ZMM_K1Z_{part}", f"EVEX_{pack}_{part}_K1Z_ZMM"
    fill = ("EVEX_VPBROADCASTB_XMM_K1Z_XMMM8", "EVEX_VPBROADCASTW_YMM_K1Z_XMMM16")[size - 1]
    first = row(f"EVEX_VPEXTR{'BW'[size - 1]}_R32M{8 * size}_XMM_IMM8", "m 0:x", imm=0,
                kind="store")
    return {
        K(f"load.{suffix}"): row(read, "d:z m", kind="load"),
        K(f"loadm.{suffix}"): row(read, "d:z m {0z}", kind="load"),
        K(f"bcast.{suffix}"): (Step("x", row(fill, f"d:{letter} m", kind="load")),
                               Step("d", row(read, f"d:z 0:{letter}"), ("x",))),
        K(f"store.{suffix}"): row(write, "m 0:z", kind="store"),
        K(f"storem.{suffix}"): row(write, "m 1:z {0}", kind="store"),
        K(f"store1.{suffix}"): first,
        K(f"pack.{suffix}"): row(write, f"d:{letter} 0:z"),
        K(f"unpack.{suffix}"): row(read, f"d:z 0:{letter}"),
    }


ADD, MAX, MIN = two("VADDPS!_ER", swap=True), two("VMAXPS!_SAE"), two("VMINPS!_SAE")
SHUF = two("VSHUFF32X4!_IMM8", encode=lambda imm: sum(n << 2 * i for i, n in enumerate(imm)))
PERMIL = one("VPERMILPS!_IMM8")
LOAD = row("EVEX_VMOVUPS_ZMM_K1Z_ZMMM512", "d:z m", kind="load")
STORE = row("EVEX_VMOVUPS_ZMMM512_K1Z_ZMM", "m 0:z", kind="store")
EXTRACT = row("EVEX_VPEXTRW_R32M16_XMM_IMM8", "m 0:x", kind="store")
HALF, WORD = "EVEX_VCVTPH2PS_ZMM_K1Z_YMMM256_SAE", "EVEX_VPMOVZXWD_ZMM_K1Z_YMMM256"
NARROW = "EVEX_VPMOVDW_YMMM256_K1Z_ZMM"
SPREAD = row("EVEX_VBROADCASTSS_ZMM_K1Z_XMMM32", "d:z 0:x")
SPLAT = row("EVEX_VPBROADCASTD_ZMM_K1Z_R32", "d:z 0:e")
XOR = two("VPXORD", swap=True)
ZERO = row("EVEX_VPXORD_ZMM_K1Z_ZMM_ZMMM512B32", "d:z d:z d:z")
KMOVW = row("VEX_KMOVW_KR_R32", "d:k 0:e")
BLOCKS = two("VSHUFF32X4!_IMM8")
UNORDERED, SELECT = compare(3, swap=True), two("VBLENDMPS", "d:z 2:z 1:z+ {0}")
WIDEN = one("VPSLLD!_IMM8")
ROUNDING = (one("VPSRLD!_IMM8"), two("VPANDD", swap=True), two("VPORD", swap=True),
            two("VPADDD", swap=True), UNORDERED, SELECT)
FOLD = (BLOCKS, 0x4E), (BLOCKS, 0xB1), (PERMIL, 0x4E), (PERMIL, 0xB1)

ROWS = SHARED | {
    K.LOAD:    LOAD,
    K.LOADM:   row("EVEX_VMOVUPS_ZMM_K1Z_ZMMM512", "d:z m {0z}", kind="load"),
    # a mask of 32 words; the count (already in 0..32) of low bits
    K.LOADW:   (Step("ones", MOV_I32, (), -1), Step("low", BZHI, ("ones", "a")),
                Step("k", row("VEX_KMOVD_KR_R32", "d:k 0:e"), ("low",)),
                Step("d", row("EVEX_VMOVDQU16_ZMM_K1Z_ZMMM512", "d:z m {0z}", kind="load"), ("k",))),
    K.BCAST:   row("EVEX_VBROADCASTSS_ZMM_K1Z_XMMM32", "d:z m", kind="load"),
    # the mask is used up; a destination of its own, because it must not be the index
    K.GATHER:  (Step("k", row("VEX_KXNORW_KR_KR_KR", "d:k d:k d:k")), Step("z", ZERO),
                Step("d", row("EVEX_VPGATHERDD_ZMM_K1_VM32Z", "d:z m {1} =0", kind="load"), ("z", "k"))),
    K.STORE:   STORE,
    K.STOREM:  row("EVEX_VMOVUPS_ZMMM512_K1Z_ZMM", "m 1:z {0}", kind="store"),
    K.STORE1:  row("EVEX_VMOVSS_M32_K1_XMM", "m 0:x", kind="store"),
    # masked memory operands of conversions suppress faults (SDM vol. 2, exception types E5, E6, E11)
    K.LOAD_F16:   row(HALF, "d:z m", kind="load"),
    K.LOADM_F16:  row(HALF, "d:z m {0z}", kind="load"),
    K.BCAST_F16:  (Step("x", row("EVEX_VPBROADCASTW_YMM_K1Z_XMMM16", "d:y m", kind="load")),
                   Step("d", row(HALF, "d:z 0:y"), ("x",))),
    K.STORE_F16:  row("EVEX_VCVTPS2PH_YMMM256_K1Z_ZMM_IMM8_SAE", "m 0:z", imm=NEAREST,
                      kind="store"),
    K.STOREM_F16: row("EVEX_VCVTPS2PH_YMMM256_K1Z_ZMM_IMM8_SAE", "m 1:z {0}", imm=NEAREST,
                      kind="store"),
    K.STORE1_F16: (Step("x", row("EVEX_VCVTPS2PH_XMMM64_K1Z_XMM_IMM8", "d:x 0:x"), ("a",), NEAREST),
                   Step("", EXTRACT, ("x",), 0)),
    K.LOAD_BF16:   (Step("x", row(WORD, "d:z m", kind="load")), Step("d", WIDEN, ("x",), 16)),
    K.LOADM_BF16:  (Step("x", row(WORD, "d:z m {0z}", kind="load"), ("a",)),
                    Step("d", WIDEN, ("x",), 16)),
    K.BCAST_BF16:  (Step("x", row("EVEX_VPBROADCASTW_ZMM_K1Z_XMMM16", "d:z m", kind="load")),
                    Step("d", WIDEN, ("x",), 16)),
    K.STORE_BF16:  (*bf16_bits("a", *ROUNDING), Step("", row(NARROW, "m 0:z", kind="store"), ("bits",))),
    K.STOREM_BF16: (*bf16_bits("b", *ROUNDING),
                    Step("", row(NARROW, "m 1:z {0}", kind="store"), ("a", "bits"))),
    K.STORE1_BF16: (*bf16_bits("a", *ROUNDING), Step("", EXTRACT, ("bits",), 0)),
    K.SPLAT:   SPLAT,
    K.VADD:    ADD,
    K.VSUB:    two("VSUBPS!_ER"),
    K.VMUL:    two("VMULPS!_ER", swap=True),
    K.VDIV:    two("VDIVPS!_ER"),
    K.VMAX:    MAX,
    K.VMIN:    MIN,
    K.VSQRT:   one("VSQRTPS!_ER"),
    K.VFMA:    fma("VFMADD"),
    K.VFNMA:   fma("VFNMADD"),
    K.VROUND:  one("VRNDSCALEPS!_IMM8_SAE", encode=rounding),
    K.VSCALEF: two("VSCALEFPS!_ER"),
    K.VAND:    two("VPANDD", swap=True),
    K.VOR:     two("VPORD", swap=True),
    K.VXOR:    XOR,
    K.VANDN:   two("VPANDND"),
    K.VSHL:    WIDEN,
    K.VSHR:    one("VPSRLD!_IMM8"),
    K.VSAR:    one("VPSRAD!_IMM8"),
    K.VIADD:   two("VPADDD", swap=True),
    K.VISUB:   two("VPSUBD"),
    K.VI2F:    one("VCVTDQ2PS!_ER"),
    K.VF2I:    one("VCVTPS2DQ!_ER"),
    # bits below the count (already in 0..16) of all ones
    K.FIRST:   (Step("ones", MOV_I32, (), -1), Step("low", BZHI, ("ones", "a")),
                Step("d", KMOVW, ("low",))),
    K.VLT:     compare(17),
    K.VLE:     compare(18),
    K.VEQ:     compare(0, swap=True),
    K.VUNORD:  UNORDERED,
    K.MAND:    row("VEX_KANDW_KR_KR_KR", "d:k 0:k 1:k"),
    K.MOR:     row("VEX_KORW_KR_KR_KR", "d:k 0:k 1:k"),
    K.MNOT:    row("VEX_KNOTW_KR_KR", "d:k 0:k"),
    K.MBITS:   row("VEX_KMOVW_R32_KR", "d:e 0:k"),
    K.SELECT:  SELECT,
    K.HSUM:    swap_halves(*FOLD, op=ADD),
    K.HMAX:    swap_halves(*FOLD, op=MAX, spread=SPREAD),
    K.HMIN:    swap_halves(*FOLD, op=MIN, spread=SPREAD),
    K.PERMUTE: two("VPERMPS"),  # source 0: lane numbers
    K.UNPACKLO32: two("VUNPCKLPS"),
    K.UNPACKHI32: two("VUNPCKHPS"),
    K.UNPACKLO64: row("EVEX_VUNPCKLPD_ZMM_K1Z_ZMM_ZMMM512B64", "d:z 0:z 1:z*"),
    K.UNPACKHI64: row("EVEX_VUNPCKHPD_ZMM_K1Z_ZMM_ZMMM512B64", "d:z 0:z 1:z*"),
    K.SHUF128: SHUF,
    K.VPERM:   two("VPERMPS", "d:z 1:z 0:z+"),
    **dot_of_bytes(bytewise("VPMADDUBSW"), bytewise("VPMADDWD"), two("VPADDD", swap=True),
                   one("VPSRLD!_IMM8"), two("VPANDD", swap=True)),
    K.VBYTES:  bytewise("VPSHUFB"),
    K.VIMUL:   two("VPMULLD", swap=True),
    K.VIMAX:   two("VPMAXSD", swap=True),
    K.VIMIN:   two("VPMINSD", swap=True),
    K.VIABS:   one("VPABSD"),
    K.VSHLV:   two("VPSLLVD"),
    K.VSHRV:   two("VPSRLVD"),
    K.VSARV:   two("VPSRAVD"),
    K.VF2IT:   one("VCVTTPS2DQ!_SAE"),
    K.VILT:    whole("GTD_KR_K1_ZMM_ZMMM512B32", "d:k 1:z 0:z+"),
    K.VIEQ:    whole("EQD_KR_K1_ZMM_ZMMM512B32", "d:k 0:z 1:z+", swap=True),
    K.VHALF:   (Step("x", row(NARROW, "d:y 0:z"), ("a",)), Step("d", row(HALF, "d:z 0:y"), ("x",))),
    K.VTOHALF: (Step("x", row("EVEX_VCVTPS2PH_YMMM256_K1Z_ZMM_IMM8_SAE", "d:y 0:z"), ("a",), NEAREST),
                Step("d", row(WORD, "d:z 0:y"), ("x",))),
    K.PACK_F16:    row("EVEX_VCVTPS2PH_YMMM256_K1Z_ZMM_IMM8_SAE", "d:y 0:z", imm=NEAREST),
    K.UNPACK_F16:  row(HALF, "d:z 0:y"),
    K.PACK_BF16:   (*bf16_bits("a", *ROUNDING), Step("d", row(NARROW, "d:y 0:z"), ("bits",))),
    K.UNPACK_BF16: (Step("x", row(WORD, "d:z 0:y"), ("a",)), Step("d", WIDEN, ("x",), 16)),
    **elements("i8", 1, "VPMOVSXBD", "VPMOVDB"), **elements("u8", 1, "VPMOVZXBD", "VPMOVDB"),
    **elements("i16", 2, "VPMOVSXWD", "VPMOVDW"), **elements("u16", 2, "VPMOVZXWD", "VPMOVDW"),
    K.LOADM_64:  row("EVEX_VMOVUPD_ZMM_K1Z_ZMMM512", "d:z m {0z}", kind="load"),
    K.STOREM_64: row("EVEX_VMOVUPD_ZMMM512_K1Z_ZMM", "m 1:z {0}", kind="store"),
    K.BCAST_64:  row("EVEX_VBROADCASTSD_ZMM_K1Z_XMMM64", "d:z m", kind="load"),
    K.STORE1_64: row("EVEX_VMOVSD_M64_K1_XMM", "m 0:x", kind="store"),
    K.DADD:    wide("VADDPD!_ER", swap=True),
    K.DSUB:    wide("VSUBPD!_ER"),
    K.DMUL:    wide("VMULPD!_ER", swap=True),
    K.DDIV:    wide("VDIVPD!_ER"),
    K.DMAX:    wide("VMAXPD!_SAE"),
    K.DMIN:    wide("VMINPD!_SAE"),
    K.DSQRT:   wide_one("VSQRTPD!_ER"),
    K.DFMA:    wide_fma("VFMADD"),
    K.DROUND:  wide_one("VRNDSCALEPD!_IMM8_SAE", encode=rounding),
    K.DLT:     wide_compare(17),
    K.DLE:     wide_compare(18),
    K.DEQ:     wide_compare(0, swap=True),
    K.DUNORD:  wide_compare(3, swap=True),
    K.LADD:    wide("VPADDQ", swap=True),
    K.LSUB:    wide("VPSUBQ"),
    K.LMUL:    wide("VPMULLQ", swap=True),
    K.LMULS:   wide("VPMULDQ", swap=True),
    K.LMULU:   wide("VPMULUDQ", swap=True),
    K.LSHL:    wide_one("VPSLLQ!_IMM8"),
    K.LSHR:    wide_one("VPSRLQ!_IMM8"),
    K.LSAR:    wide_one("VPSRAQ!_IMM8"),
    K.LSHLV:   wide("VPSLLVQ"),
    K.LSHRV:   wide("VPSRLVQ"),
    K.LSARV:   wide("VPSRAVQ"),
    K.LLT:     whole("GTQ_KR_K1_ZMM_ZMMM512B64", "d:k 1:z 0:z*"),
    K.LEQ:     whole("EQQ_KR_K1_ZMM_ZMMM512B64", "d:k 0:z 1:z*", swap=True),
    K.SELECT64: wide("VBLENDMPD", "d:z 2:z 1:z* {0}"),
    K.UPPER:   row("EVEX_VEXTRACTF64X4_YMMM256_K1Z_ZMM_IMM8", "d:y 0:z", imm=1),
    K.JOIN:    row("EVEX_VINSERTF64X4_ZMM_K1Z_ZMM_YMMM256_IMM8", "d:z 0:z 1:y", imm=1),
    K.F2D:     row("EVEX_VCVTPS2PD_ZMM_K1Z_YMMM256B32_SAE", "d:z 0:y"),
    K.D2F:     row("EVEX_VCVTPD2PS_YMM_K1Z_ZMMM512B64_ER", "d:y 0:z"),
    K.I2D:     row("EVEX_VCVTDQ2PD_ZMM_K1Z_YMMM256B32_ER", "d:z 0:y"),
    K.D2I:     row("EVEX_VCVTTPD2DQ_YMM_K1Z_ZMMM512B64_SAE", "d:y 0:z"),
    K.I2L:     row("EVEX_VPMOVSXDQ_ZMM_K1Z_YMMM256", "d:z 0:y"),
    K.U2L:     row("EVEX_VPMOVZXDQ_ZMM_K1Z_YMMM256", "d:z 0:y"),
    K.L2I:     row("EVEX_VPMOVQD_YMMM256_K1Z_ZMM", "d:y 0:z"),
    K.L2D:     wide_one("VCVTQQ2PD!_ER"),
    K.L2F:     row("EVEX_VCVTQQ2PS_YMM_K1Z_ZMMM512B64_ER", "d:y 0:z"),
    K.D2L:     wide_one("VCVTTPD2QQ!_SAE"),
    K.MLOW:    row("VEX_KMOVW_KR_KM16", "d:k 0:k"),  # 64-bit lanes look at 8 bits
    K.MHIGH:   row("VEX_KSHIFTRW_KR_KR_IMM8", "d:k 0:k", imm=8),
    K.MJOIN:   row("VEX_KUNPCKBW_KR_KR_KR", "d:k 1:k 0:k"),
}

AVX512_FIRST = Isa(  # processors before 2019
    name="avx512", lanes=16, vregs=32, mask_class="k",
    features=frozenset({"avx512f", "avx512vl", "avx512bw", "avx512dq", "avx2", "fma", "bmi2", "f16c"}),
    rows=ROWS, 
    tables={name: (word,) * 16 for name, word in (BF16_WORDS | BYTE_WORDS).items()}, legal={K.FIRST: clamp_first},
    move=row("EVEX_VMOVAPS_ZMM_K1Z_ZMMM512", "d:z 0:z*", kind="move"),
    load=LOAD, store=STORE, broadcast=ROWS[K.BCAST],
    # 128-bit: clears the whole register, and is recognised as a zero idiom (shorter as VEX)
    zero=ZERO,
    permute_blocks=PERMIL, swap_registers=XOR,
    mask_moves=(row("VEX_KMOVW_KR_KM16", "d:k 0:k", kind="move"),
                row("VEX_KMOVW_KR_KM16", "d:k m", kind="load"),
                row("VEX_KMOVW_M16_KR", "m 0:k", kind="store")),
    mask_swap=row("VEX_KXORW_KR_KR_KR", "d:k 0:k 1:k"),
)

VPDPBUSD = Fma(None, None, two("VPDPBUSD", kind="fma"), ordered=True)
AVX512 = replace(AVX512_FIRST, features=AVX512_FIRST.features | {"avx512_vnni"},
                 rows=ROWS | {K.VDOT4: VPDPBUSD, K.VDOT4U: VPDPBUSD})

# The same with products of bf16 pairs. By name only, as it takes denormals for zero, and a sum may
# depend on how many rows a product has.
AVX512_BF16 = replace(
    AVX512, name="avx512bf16", features=AVX512.features | {"avx512_bf16"},
    rows=AVX512.rows | {K.VDOT2: Fma(None, None, two("VDPBF16PS", kind="fma"))},
)
