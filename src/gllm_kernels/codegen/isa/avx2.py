"""AVX2 with FMA: 8 lanes, 16 registers, masks are vectors of all-ones lanes."""

from __future__ import annotations

from ..kernel import K
from ..legalise import clamp_first, load_by_element, scalef_by_multiplying, store_by_element
from .base import Fma, Ins, Isa, Step, row
from .x86 import BF16_WORDS, NEAREST, SHARED, bf16_bits, rounding, swap_halves

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


ADD, MAX, MIN = two("VADDPS", swap=True), two("VMAXPS"), two("VMINPS")
AND, OR, XOR = two("VANDPS", swap=True), two("VORPS", swap=True), two("VXORPS", swap=True)
# VPERM2F128 immediate: bits 1:0 choose the low half of a b, bits 5:4 the high half; 2 is b's low.
SHUF = two("VPERM2F128!_IMM8", encode=lambda imm: imm[0] | (2 + imm[1]) << 4)
PERMIL = one("VPERMILPS!_IMM8")
LOAD = row("VEX_VMOVUPS_YMM_YMMM256", "d:y m", kind="load")
STORE = row("VEX_VMOVUPS_YMMM256_YMM", "m 0:y", kind="store")
EXTRACT = row("VEX_VPEXTRW_R32M16_XMM_IMM8", "m 0:x", kind="store")
SPREAD = row("VEX_VBROADCASTSS_YMM_XMM", "d:y 0:x")
VMOVD = row("VEX_VMOVD_XMM_RM32", "d:x 0:e")
FILL = row("VEX_VPBROADCASTD_YMM_XMMM32", "d:y 0:x")
UNORDERED, SELECT = compare(3, swap=True), two("VBLENDVPS!_YMM", "d:y 2:y 1:y* 0:y")
WIDEN = shift("VPSLLD")
WORDS = bf16_bits("a", shift("VPSRLD"), AND, OR, two("VPADDD", swap=True), UNORDERED, SELECT)
FOLD = (two("VPERM2F128!_IMM8"), 1), (PERMIL, 0x4E), (PERMIL, 0xB1)

ROWS = SHARED | {
    K.LOAD:    LOAD,
    K.LOADM:   row("VEX_VMASKMOVPS_YMM_YMM_M256", "d:y 0:y m", kind="load"),
    K.BCAST:   row("VEX_VBROADCASTSS_YMM_M32", "d:y m", kind="load"),
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
}

AVX2 = Isa(
    name="avx2", lanes=8, vregs=16, mask_class="v",
    features=frozenset({"avx2", "fma", "bmi2", "f16c"}),
    rows=ROWS, tables={"lanes": tuple(range(8)), "ones": (0xFFFFFFFF,) * 8} | {
        name: (word,) * 8 for name, word in BF16_WORDS.items()},
    # masks of 16-bit elements are beyond vpmaskmov, which counts in 32 bits
    legal={K.FIRST: clamp_first, K.VSCALEF: scalef_by_multiplying,
           K.LOADM_F16: load_by_element, K.LOADM_BF16: load_by_element,
           K.STOREM_F16: store_by_element, K.STOREM_BF16: store_by_element},
    move=row("VEX_VMOVAPS_YMM_YMMM256", "d:y 0:y*", kind="move"),
    load=LOAD, store=STORE, broadcast=ROWS[K.BCAST],
    zero=row("VEX_VXORPS_XMM_XMM_XMMM128", "d:x d:x d:x"),  # clears the upper half too
    permute_blocks=PERMIL, swap_registers=XOR,
)
