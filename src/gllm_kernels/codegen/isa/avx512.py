"""AVX-512 (F, VL and BW): 16 lanes, 32 registers, eight mask registers, embedded broadcast."""

from __future__ import annotations

from ..kernel import K
from ..legalise import clamp_first
from .base import Fma, Ins, Isa, Step, row
from .x86 import (
    BF16_WORDS, BZHI, MOV_I32, NEAREST, SHARED, bf16_bits, rounding, swap_halves,
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
    K.BCAST:   row("EVEX_VBROADCASTSS_ZMM_K1Z_XMMM32", "d:z m", kind="load"),
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
}

AVX512 = Isa(
    name="avx512", lanes=16, vregs=32, mask_class="k",
    features=frozenset({"avx512f", "avx512vl", "avx512bw", "avx2", "fma", "bmi2", "f16c"}),
    rows=ROWS, tables={name: (word,) * 16 for name, word in BF16_WORDS.items()}, legal={K.FIRST: clamp_first},
    move=row("EVEX_VMOVAPS_ZMM_K1Z_ZMMM512", "d:z 0:z*", kind="move"),
    load=LOAD, store=STORE, broadcast=ROWS[K.BCAST],
    # 128-bit: clears the whole register, and is recognised as a zero idiom (shorter as VEX)
    zero=row("EVEX_VPXORD_ZMM_K1Z_ZMM_ZMMM512B32", "d:z d:z d:z"),
    permute_blocks=PERMIL, swap_registers=XOR,
    mask_moves=(row("VEX_KMOVW_KR_KM16", "d:k 0:k", kind="move"),
                row("VEX_KMOVW_KR_KM16", "d:k m", kind="load"),
                row("VEX_KMOVW_M16_KR", "m 0:k", kind="store")),
    mask_swap=row("VEX_KXORW_KR_KR_KR", "d:k 0:k 1:k"),
)
