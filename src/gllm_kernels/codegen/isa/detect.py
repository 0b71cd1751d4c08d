"""What this processor can do: CPUID and XGETBV through a routine of our own, no library.

    host()          -> Host(vendor, features, caches)
    host_isas()     -> the vector ISAs this processor and its operating system support, widest first
    current_isa()   -> the one to compile for, honouring config's `isa`
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from functools import cache

from ...config import current
from ...errors import UnsupportedOpError
from ...memory import place_batch
from .avx2 import AVX2
from .avx512 import AVX512, AVX512_BF16, AVX512_FIRST
from .base import Isa

ISAS: tuple[Isa, ...] = (AVX512, AVX512_FIRST, AVX2)  # widest first; of a name the richest first
BY_NAME: tuple[Isa, ...] = (*ISAS, AVX512_BF16)  # what may be asked for

# void cpuid(uint32_t r[4]): r[0], r[2] in; eax, ebx, ecx, edx out. cpuid overwrites rbx, which
# belongs to the caller (AMD64 ABI 3.2.1).
CPUID = bytes.fromhex("53 8b07 8b4f08 0fa2 8907 895f04 894f08 89570c 5b c3".replace(" ", ""))
# uint64_t xcr0(void): xgetbv with ecx = 0, edx:eax -> rax
XGETBV = bytes.fromhex("31c9 0f01d0 48c1e220 4809d0 c3".replace(" ", ""))

# feature: (leaf, subleaf, register 0..3 = eax..edx, bit)      Intel SDM vol. 2, CPUID
# fmt: off
FEATURES: dict[str, tuple[int, int, int, int]] = {
    "sse4_2":      (1, 0, 2, 20),
    "fma":         (1, 0, 2, 12),
    "osxsave":     (1, 0, 2, 27),
    "avx":         (1, 0, 2, 28),
    "f16c":        (1, 0, 2, 29),
    "avx2":        (7, 0, 1, 5),
    "bmi2":        (7, 0, 1, 8),
    "avx512f":     (7, 0, 1, 16),
    "avx512dq":    (7, 0, 1, 17),
    "avx512bw":    (7, 0, 1, 30),
    "avx512dq":    (7, 0, 1, 17),
    "avx512vl":    (7, 0, 1, 31),
    "avx512vbmi":  (7, 0, 2, 1),
    "avx512_vnni": (7, 0, 2, 11),
    "avx512_bf16": (7, 1, 0, 5),
    "avx_vnni":    (7, 1, 0, 4),
}
# fmt: on
# Registers the operating system must save: XCR0 bits 1, 2 (xmm, ymm), 5..7 (k, zmm, zmm16..31).
YMM_STATE, ZMM_STATE = 0x6, 0xE6
NEEDS_YMM = frozenset({"fma", "avx", "f16c", "avx2", "avx_vnni"})

CACHE_LEAVES = {"AuthenticAMD": 0x8000001D, "HygonGenuine": 0x8000001D}  # others: leaf 4
DATA, UNIFIED = 1, 3  # cache type field


@dataclass(frozen=True, slots=True)
class Cache:
    """One level of data cache; `sharing` counts the hardware threads that share one."""

    level: int
    bytes: int
    ways: int
    line: int
    sharing: int


@dataclass(frozen=True, slots=True)
class Host:
    """The processor this runs on."""

    vendor: str
    brand: str
    features: frozenset[str]
    caches: tuple[Cache, ...]

    def cache(self, level: int) -> Cache | None:
        """The data or unified cache of a level."""
        return next((c for c in self.caches if c.level == level), None)


@cache
def host() -> Host:
    """Ask the processor, once."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return Host(platform.machine(), platform.machine(), frozenset(), ())
    batch = place_batch([CPUID, XGETBV])
    cpuid = Cpuid(batch.addresses[0])
    vendor = cpuid.text(0, (1, 3, 2))
    xcr0 = ctypes.CFUNCTYPE(ctypes.c_uint64)(batch.addresses[1])
    features = {name for name, where in FEATURES.items() if cpuid.bit(*where)}
    saved = xcr0() if "osxsave" in features else 0
    result = Host(vendor, brand(cpuid), usable(features, saved), caches(cpuid, vendor))
    del batch
    return result


@dataclass(frozen=True, slots=True)
class Cpuid:
    """Calls the routine at `address`."""

    address: int

    def __call__(self, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
        registers = (ctypes.c_uint32 * 4)(leaf, 0, subleaf, 0)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address)(ctypes.addressof(registers))
        return tuple(registers)

    def highest(self, leaf: int) -> int:
        """The last leaf of the basic (0) or extended (0x80000000) range."""
        return self(leaf & 0x80000000)[0]

    def bit(self, leaf: int, subleaf: int, register: int, bit: int) -> bool:
        # Leaf 7 says in eax how many subleaves it has; beyond them it repeats the last.
        if leaf > self.highest(leaf) or (leaf == 7 and subleaf > self(7)[0]):
            return False
        return bool(self(leaf, subleaf)[register] >> bit & 1)

    def text(self, leaf: int, order: tuple[int, ...] = (0, 1, 2, 3)) -> str:
        registers = self(leaf)
        raw = b"".join(registers[i].to_bytes(4, "little") for i in order)
        return raw.split(b"\0")[0].decode("ascii", "replace")


def brand(cpuid: Cpuid) -> str:
    if cpuid.highest(0x80000000) < 0x80000004:
        return ""
    return "".join(cpuid.text(leaf) for leaf in range(0x80000002, 0x80000005)).strip()


def usable(features: set[str], xcr0: int) -> frozenset[str]:
    """Only what the operating system saves on a context switch may be used."""
    ymm, zmm = xcr0 & YMM_STATE == YMM_STATE, xcr0 & ZMM_STATE == ZMM_STATE
    return frozenset(f for f in features
                     if (zmm or not f.startswith("avx512")) and (ymm or f not in NEEDS_YMM))


def caches(cpuid: Cpuid, vendor: str) -> tuple[Cache, ...]:
    """CPUID leaf 4 (Intel) or 8000001DH (AMD): one subleaf per cache until its type is 0."""
    leaf = CACHE_LEAVES.get(vendor, 4)
    if leaf > cpuid.highest(leaf):
        return ()
    found = []
    for subleaf in range(8):
        eax, ebx, ecx, _ = cpuid(leaf, subleaf)
        if eax & 31 == 0:
            break
        if eax & 31 not in (DATA, UNIFIED):
            continue
        line, parts, ways = (ebx & 0xFFF) + 1, (ebx >> 12 & 0x3FF) + 1, (ebx >> 22) + 1
        found.append(Cache(eax >> 5 & 7, line * parts * ways * (ecx + 1), ways, line,
                           (eax >> 14 & 0xFFF) + 1))
    return tuple(sorted(found, key=lambda c: c.level))


def host_isas() -> tuple[Isa, ...]:
    """Vector ISAs that run here, widest first, one of each name."""
    found: dict[str, Isa] = {}
    for isa in ISAS:
        if isa.features <= host().features:
            found.setdefault(isa.name, isa)
    return tuple(found.values())


def current_isa() -> Isa | None:
    """The vector ISA to compile for; None when config asks for `scalar`.

    `isa` is a cap by name: asking for one this processor lacks is an error, not a fallback.
    """
    wanted = current().isa
    if wanted == "scalar":
        return None
    available = host_isas()
    if not wanted and available:
        return available[0]
    chosen = isa_named(wanted)
    if chosen is None or not chosen.features <= host().features:
        raise UnsupportedOpError(refusal(wanted))
    return chosen


def current_isa_name() -> str:
    """The name of the ISA in force: avx512, avx2 or scalar."""
    isa = current_isa()
    return isa.name if isa else "scalar"


def isa_named(name: str) -> Isa | None:
    """The ISA of this name, whether or not this processor runs it; None for `scalar`."""
    named = [isa for isa in BY_NAME if isa.name == name]
    return next((isa for isa in named if isa.features <= host().features), named[-1] if named else None)


def refusal(wanted: str) -> str:
    """Why an ISA cannot be used here, and what can."""
    isa = isa_named(wanted) or AVX2
    lacking = ", ".join(sorted(isa.features - host().features))
    names = ", ".join([i.name for i in host_isas()] + ["scalar"])
    return (f"this processor ({host().brand or host().vendor}) cannot run {isa.name}: it lacks "
            f"{lacking}. Set GLLM_ISA (or config(isa=...)) to one of: {names}")
