"""Where the code of a function is: an image of sections or segments with external names resolved.

    open_object(path) -> Image      .o (relocated here) and .so (segments and dynamic relocations)
    raw_image(bytes)                code without constants or calls
    live_image(address)             code in this process, read through its memory map

External functions get addresses of their own in a range that holds nothing else; a GOT slot of one
is a name too. Formulas: System V ABI, AMD64 supplement, section 4.4.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from ..errors import LiftError
from ..scalar.loader import UNREADABLE
from ..trace.interp import libm
from .calls import BULK, MATHS
from .lines import source_line

# where an object is laid out and a library begins: no number in a program that is an address by
# mistake, such as 0, lies there
BASE = 0x2000_0000
EXTERNAL = 0x4000_0000  # within reach of a 32-bit displacement from BASE
SLOTS = 0x5000_0000
ALLOC, WRITE = 2, 1  # SHF_*
PF_WRITE = 2
RELATIVE, SLOT = ("R_X86_64_PC32", "R_X86_64_PLT32"), (
    "R_X86_64_GOTPCREL", "R_X86_64_GOTPCRELX", "R_X86_64_REX_GOTPCRELX",
)  # fmt: skip
NUMBERS = {
    1: "R_X86_64_64", 2: "R_X86_64_PC32", 4: "R_X86_64_PLT32", 9: "R_X86_64_GOTPCREL",
    41: "R_X86_64_GOTPCRELX", 42: "R_X86_64_REX_GOTPCRELX",
}  # fmt: skip


@dataclass
class Region:
    """Bytes at an address; `fixed` when nothing can write them."""

    base: int
    data: bytearray
    fixed: bool


@dataclass
class Image:
    """Memory as the function sees it before it runs."""

    regions: list[Region] = field(default_factory=list)
    symbols: dict[str, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # address -> external function
    slots: dict[int, str] = field(default_factory=dict)  # GOT slot -> external function
    patched: set[int] = field(default_factory=set)  # addresses that hold a relocated value
    relocatable: bool = False  # an object file, which the system's loader does not load
    path: Path | None = None  # the file, which may have line numbers
    origin: int = 0  # where its code lies here, less where the file says

    def read(self, address: int, size: int) -> bytes:
        """Up to `size` bytes at `address`; fewer at the end of a region and before an address that
        the linker fills in, none outside."""
        if self.relocatable:
            size = next((k for k in range(size) if address + k in self.patched), size)
        for region in self.regions:
            offset = address - region.base
            if 0 <= offset < len(region.data):
                return bytes(region.data[offset : offset + size])
        return b""

    def constant(self, address: int, size: int) -> bytes | None:
        """Bytes that are the same on every call, or None."""
        for region in self.regions:
            offset = address - region.base
            if region.fixed and 0 <= offset <= len(region.data) - size:
                untouched = self.patched.isdisjoint(range(address - 7, address + size))
                return bytes(region.data[offset : offset + size]) if untouched else None
        return None

    def line(self, address: int) -> str:
        """The line of the source that the instruction at `address` came from; "" if unknown."""
        return source_line(self.path, address - self.origin) if self.path else ""

    def callee(self, address: int) -> str | None:
        """The external function at `address`, or behind the jump through a slot that is there."""
        if address in self.names:
            return self.names[address]
        slot = jump_slot(self.read(address, 16), address)
        return self.slot(slot) if slot is not None else None

    def slot(self, address: int) -> str | None:
        """The external function that the pointer at `address` leads to."""
        return self.slots.get(address)

    def external(self, name: str) -> int:
        """The address that stands for an external function."""
        name = name.split("@")[0]
        for address, known in self.names.items():
            if known == name:
                return address
        address = EXTERNAL + 16 * len(self.names)
        self.names[address] = name
        return address

    def slot_of(self, name: str) -> int:
        for address, known in self.slots.items():
            if known == name:
                return address
        address = SLOTS + 8 * len(self.slots)
        self.slots[address] = name
        return address


def jump_slot(code: bytes, address: int) -> int | None:
    """The slot of `jmp [rip+slot]`, after an optional endbr64 and bnd prefix."""
    start = 4 if code.startswith(b"\xf3\x0f\x1e\xfa") else 0
    start += code[start : start + 1] == b"\xf2"
    if code[start : start + 2] != b"\xff\x25":
        return None
    return address + start + 6 + int.from_bytes(code[start + 2 : start + 6], "little", signed=True)


def open_object(path: str | Path) -> Image:
    """The image of a relocatable object or a shared library."""
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise LiftError(f"{path}: is no regular file; give a .o or .so")
    try:
        elf = ELFFile(BytesIO(Path(path).read_bytes()))
        if elf["e_machine"] == "EM_X86_64" and elf.elfclass == 64:
            image = _relocatable(elf) if elf["e_type"] == "ET_REL" else _shared(elf)
            image.path = Path(path)
            return image
    except OSError as failure:
        raise LiftError(f"{path}: cannot be read: {failure.strerror}") from failure
    except UNREADABLE as failure:
        raise LiftError(
            f"{path}: cannot be read as an ELF file: {failure or type(failure).__name__}; "
            "give a .o or .so as a C compiler writes it"
        ) from failure
    raise LiftError(
        f"{path}: holds {elf.elfclass}-bit code of machine {elf['e_machine']}; compile it for "
        "64-bit x86-64, without -m32, -mx32 or a cross compiler"
    )


def _relocatable(elf: ELFFile) -> Image:
    image, place = Image(relocatable=True), BASE
    starts: dict[int, int] = {}
    for number, section in enumerate(elf.iter_sections()):
        if section["sh_flags"] & ALLOC and section["sh_size"]:
            place = -(-place // 64) * 64
            starts[number] = place
            image.origin = image.origin or (place if section.name == ".text" else 0)
            relro = section.name.startswith(".data.rel.ro")
            fixed = relro or not section["sh_flags"] & WRITE
            image.regions.append(Region(place, bytearray(section.data()), fixed))
            place += section["sh_size"]
    _define(image, elf.get_section_by_name(".symtab"), starts)
    for section in elf.iter_sections("SHT_RELA"):
        if section["sh_info"] in starts:
            for target, row in _entries(elf, section):
                _patch(image, starts, starts[section["sh_info"]], target, row)
    return image


def _define(image: Image, table, starts: dict[int, int] | None) -> None:
    for symbol in table.iter_symbols() if table else ():
        section = symbol["st_shndx"]
        if symbol["st_info"]["type"] == "STT_FUNC" and section != "SHN_UNDEF":
            base = starts[section] if starts is not None else BASE
            image.symbols[symbol.name] = base + symbol["st_value"]


def _entries(elf: ELFFile, section: RelocationSection) -> Iterator[tuple]:
    symbols = elf.get_section(section["sh_link"])
    return ((symbols.get_symbol(row["r_info_sym"]), row) for row in section.iter_relocations())


def _patch(image: Image, starts: dict[int, int], base: int, symbol, row) -> None:
    """Write the value of one relocation; what is not a displacement marks its bytes as unknown."""
    at, kind = base + row["r_offset"], NUMBERS.get(row["r_info_type"], "?")
    local = symbol["st_shndx"] in starts
    value = starts[symbol["st_shndx"]] + symbol["st_value"] if local else None
    if kind in SLOT and not local:
        value = image.slot_of(symbol.name)
    elif kind not in RELATIVE or (kind in SLOT and local):
        image.patched.update(range(at, at + 8))
        return
    elif value is None:
        value = image.external(symbol.name)
    _write(image, at, value + row["r_addend"] - at)


def _write(image: Image, at: int, displacement: int) -> None:
    for region in image.regions:
        if 0 <= at - region.base < len(region.data):
            start = at - region.base
            region.data[start : start + 4] = displacement.to_bytes(4, "little", signed=True)


def _shared(elf: ELFFile) -> Image:
    image = Image(origin=BASE)
    for segment in elf.iter_segments("PT_LOAD"):
        data = bytearray(segment.data())  # what the file does not hold is no constant
        fixed = not segment["p_flags"] & PF_WRITE
        image.regions.append(Region(BASE + segment["p_vaddr"], data, fixed))
    tables = [elf.get_section_by_name(n) for n in (".symtab", ".dynsym")]
    for table in tables:
        _define(image, table, None)
    for section in elf.iter_sections("SHT_RELA"):
        for symbol, row in _entries(elf, section) if section["sh_flags"] & ALLOC else ():
            at = BASE + row["r_offset"]
            image.patched.update(range(at, at + 8))
            if symbol.name:
                image.slots[at] = symbol.name.split("@")[0]
    return image


def raw_image(code: bytes) -> Image:
    """Code alone: no constants, no calls."""
    return Image([Region(BASE, bytearray(code), True)], {"": BASE})


class LiveImage(Image):
    """Code of this process. Constants are what lies in mappings that cannot be written."""

    def __init__(self, entry: int) -> None:
        super().__init__(names=dict(_maths()))
        self.maps = list(_maps())
        self.home = _origin(entry)[0]

    def read(self, address: int, size: int) -> bytes:
        for low, high, *_ in self.maps:
            if low <= address < high:
                return ctypes.string_at(address, min(size, high - address))
        return b""

    def executable(self, address: int) -> bool:
        return any(low <= address < high and runs for low, high, _, runs in self.maps)

    def constant(self, address: int, size: int) -> bytes | None:
        for low, high, writable, _ in self.maps:
            if low <= address <= high - size:
                half = size < 8 and self.read(int.from_bytes(self.read(address & -8, 8), "little"), 1)
                return None if writable or half else ctypes.string_at(address, size)
        return None

    def callee(self, address: int) -> str | None:
        return super().callee(address) or self._foreign(address)

    def slot(self, address: int) -> str | None:
        pointer = int.from_bytes(self.read(address, 8), "little")
        return self.names.get(pointer) or self._foreign(pointer)

    def _foreign(self, address: int) -> str | None:
        """The name of a function of another library: its code is not the function's own."""
        library, name = _origin(address)
        return name if library and library != self.home else None


def live_image(address: int, symbol: str) -> LiveImage:
    """The image of this process; `symbol` names the function at `address`."""
    image = LiveImage(address)
    image.symbols[symbol] = address
    return image


class _Origin(ctypes.Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = [("path", ctypes.c_char_p), ("base", ctypes.c_void_p),
                ("name", ctypes.c_char_p), ("start", ctypes.c_void_p)]  # fmt: skip


def _origin(address: int) -> tuple[int, str]:
    """(where the library that holds `address` begins, name of the function); (0, "") for none."""
    found = _Origin()
    if not ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(found)):
        return 0, ""
    exact = found.name and found.start == address
    return found.base or 0, found.name.decode() if exact else "a function of another library"


def _maps() -> Iterator[tuple[int, int, bool, bool]]:
    """(first address, last + 1, writable, executable) of every mapping that can be read."""
    try:
        text = Path("/proc/self/maps").read_text(encoding="ascii", errors="replace")
    except OSError as failure:
        raise LiftError(
            f"a function pointer needs the memory map of this process: {failure}; "
            "pass the path of its .so or .o instead"
        ) from failure
    for line in text.splitlines():
        span, mode = line.split()[:2]
        low, high = (int(x, 16) for x in span.split("-"))
        if mode[0] == "r":
            yield low, high, mode[1] == "w", mode[2] == "x"


@cache
def _maths() -> tuple[tuple[int, str], ...]:
    """Addresses of the maths functions; dlsym knows them where dladdr has no name (IFUNC)."""
    names = [*MATHS, *BULK]
    known = [n for n in names if hasattr(libm(), n)]
    return tuple((ctypes.cast(libm()[n], ctypes.c_void_p).value or 0, n) for n in known)
