"""Our own loader of relocatable objects: bytes of a `.o` in, callable functions out.

    load_object(path) -> LoadedObject      .address("scalar_silu"), .bytes("scalar_silu")

The sections that a program occupies (code, constants) are laid out in one read-only executable
block, followed by one jump and one pointer per imported function. An x86-64 call reaches
2 GiB, libm may lie anywhere: the jump is `jmp [rip+2]` and the pointer behind it.
Relocation formulas: System V ABI, AMD64 supplement, section 4.4 (S symbol, A addend, P place).
"""

from __future__ import annotations

import ctypes
import difflib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from ..errors import FormatError
from ..memory import CodeBlock, place

OBJECTS = Path(__file__).parent / "objects"

_ALLOC, _WRITE = 2, 1  # SHF_ALLOC, SHF_WRITE
_JUMP = b"\xff\x25\x02\x00\x00\x00\x66\x90"  # jmp [rip+2]; two bytes of padding; the pointer
_JUMP_SIZE = len(_JUMP) + 8
_FUNCTION = 2  # STT_FUNC
# Elf64_Sym and Elf64_Rela (System V gABI, chapter 4); read as arrays, because one by one they take
# longer than to compile a kernel
_SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("home", "<u2"),
                    ("value", "<u8"), ("size", "<u8")])
_RELOCATION = np.dtype([("offset", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])


@dataclass(frozen=True, slots=True)
class Symbol:
    """A defined function: offset in the block, and size."""

    offset: int
    size: int


@dataclass(frozen=True)
class LoadedObject:
    """Functions of one object, relocated and executable; keeps the code mapped."""

    path: str
    block: CodeBlock
    symbols: Mapping[str, Symbol]
    imports: Mapping[str, int]

    def address(self, name: str) -> int:
        """Where function `name` begins."""
        return self.block.address + self._symbol(name).offset

    def bytes(self, name: str) -> bytes:
        """The machine code of function `name`, relocated."""
        symbol = self._symbol(name)
        return self.block.bytes(symbol.offset, symbol.size)

    def _symbol(self, name: str) -> Symbol:
        if name in self.symbols:
            return self.symbols[name]
        near = difflib.get_close_matches(name, self.symbols, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it defines {', '.join(self.symbols)}"
        raise FormatError(f"{self.path} defines no function {name!r}; {hint}")


@dataclass(frozen=True, slots=True)
class _Place:
    """A relocation: what to patch, and the offset of its symbol in the block (None: imported)."""

    offset: int
    kind: int
    target: str
    local: int | None
    addend: int

    @property
    def key(self) -> tuple[str, int]:
        """One per symbol: two local symbols may share a name."""
        return self.target, -1 if self.local is None else self.local


@dataclass(frozen=True, slots=True)
class _Formula:
    name: str
    width: int
    value: Callable[[int, int, int], int]
    through: str = ""  # "jump" or "pointer": what S means for an imported symbol


def _absolute(s: int, a: int, p: int) -> int:
    return s + a


def _relative(s: int, a: int, p: int) -> int:
    return s + a - p


# fmt: off
_FORMULAS: dict[int, _Formula] = {
    1:  _Formula("R_X86_64_64", 8, _absolute),
    2:  _Formula("R_X86_64_PC32", 4, _relative, "jump"),
    4:  _Formula("R_X86_64_PLT32", 4, _relative, "jump"),
    9:  _Formula("R_X86_64_GOTPCREL", 4, _relative, "pointer"),
    24: _Formula("R_X86_64_PC64", 8, _relative),
    41: _Formula("R_X86_64_GOTPCRELX", 4, _relative, "pointer"),
    42: _Formula("R_X86_64_REX_GOTPCRELX", 4, _relative, "pointer"),
}
# fmt: on


# What pyelftools raises on tables that contradict each other, besides its own error.
UNREADABLE = (
    ELFError, struct.error, ValueError, LookupError, ArithmeticError,
    AttributeError, TypeError, AssertionError, MemoryError,
)  # fmt: skip


def load_object(path: str | Path) -> LoadedObject:
    """Read, check, relocate and map a relocatable x86-64 ELF object."""
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise FormatError(f"{path}: is no regular file")
    try:
        content = Path(path).read_bytes()
    except OSError as failure:
        raise FormatError(f"{path}: cannot be read: {failure.strerror}") from failure
    return load_bytes(content, str(path))


def load_bytes(content: bytes, path: str = "<bytes>") -> LoadedObject:
    """`load_object` of an object that is already in memory."""
    try:
        return _load(content, path)
    except UNREADABLE as failure:
        raise FormatError(f"{path}: damaged or truncated object file: {failure!r}") from failure


def _load(content: bytes, path: str) -> LoadedObject:
    elf = ELFFile(BytesIO(content))
    _check_header(elf, path)
    sections = _occupied(elf, content, path)
    starts, end = _layout(sections)
    symbols = _functions(elf, starts, sections, path)
    places = [row for s in elf.iter_sections("SHT_RELA") for row in _places(s, elf, starts, path)]
    imports = {row.target: _import(row.target, path) for row in places if row.local is None}
    slots = _slots(places, end)
    size = end + len(slots) * _JUMP_SIZE

    def fill(base: int) -> bytes:
        image = bytearray(size)
        for index, start in starts.items():
            image[start : start + len(sections[index])] = sections[index]
        for (name, local), slot in slots.items():
            pointer = imports[name] if local < 0 else base + local
            image[slot : slot + _JUMP_SIZE] = _JUMP + struct.pack("<Q", pointer)
        for row in places:
            _patch(image, row, base, slots, path)
        return bytes(image)

    return LoadedObject(path, place(size, fill), symbols, imports)


def _slots(places: list[_Place], end: int) -> dict[tuple[str, int], int]:
    """A jump and a pointer for each symbol that is imported or reached through a pointer."""
    keys = sorted({row.key for row in places if row.local is None or _is_pointer(row.kind)})
    return {key: end + i * _JUMP_SIZE for i, key in enumerate(keys)}


def _check_header(elf: ELFFile, path: str) -> None:
    machine, kind = elf["e_machine"], elf["e_type"]
    if machine != "EM_X86_64" or elf.elfclass != 64 or not elf.little_endian:
        raise FormatError(f"{path}: machine is {machine}, {elf.elfclass}-bit; expected x86-64")
    if kind != "ET_REL":
        raise FormatError(f"{path}: type is {kind}; expected a relocatable object (gcc -c)")


def _occupied(elf: ELFFile, content: bytes, path: str) -> dict[int, bytes]:
    """Contents of the sections that are mapped; a writable one would be hidden state."""
    found: dict[int, bytes] = {}
    for index, section in enumerate(elf.iter_sections()):
        if not section["sh_flags"] & _ALLOC or not section["sh_size"]:
            continue
        if section["sh_flags"] & _WRITE and not section.name.startswith(".data.rel.ro"):
            raise FormatError(
                f"{path}: section {section.name} holds {section['sh_size']} bytes of writable "
                "data; a function here keeps no state: pass it as an argument, or make it const"
            )
        found[index] = _content(section, len(content), path)
    return found


def _content(section: Section, file_size: int, path: str) -> bytes:
    end = section["sh_offset"] + section["sh_size"]
    if end > file_size:
        raise FormatError(
            f"{path}: truncated: section {section.name} ends at byte {end} of {file_size}"
        )
    return section.data()


def _layout(sections: Mapping[int, bytes]) -> tuple[dict[int, int], int]:
    """Where each section begins in the block (64-byte aligned), and where all end."""
    starts, end = {}, 0
    for index, content in sections.items():
        starts[index] = end
        end += -(-len(content) // 64) * 64
    return starts, end


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry of a symbol table; its section is 0 for an imported symbol."""

    name: str
    type: int
    home: int
    value: int
    size: int


def _symbols(elf: ELFFile, table: SymbolTableSection) -> list[_Row]:
    names = elf.get_section(table["sh_link"]).data()
    return [_Row(names[at : names.index(b"\0", at)].decode(), info & 15, home, value, size)
            for at, info, _, home, value, size in np.frombuffer(table.data(), _SYMBOL).tolist()]


def _functions(
    elf: ELFFile, starts: Mapping[int, int], sections: Mapping[int, bytes], path: str
) -> dict[str, Symbol]:
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return {}
    found = {}
    for row in _symbols(elf, table):
        if row.type != _FUNCTION or row.home not in starts:
            continue
        if row.value + row.size > len(sections[row.home]):
            raise FormatError(f"{path}: function {row.name!r} ends outside its section")
        found[row.name] = Symbol(starts[row.home] + row.value, row.size)
    return found


def _places(
    section: RelocationSection, elf: ELFFile, starts: Mapping[int, int], path: str
) -> list[_Place]:
    """The relocations of one section, their symbols resolved to offsets in the block."""
    if section["sh_info"] not in starts:
        return []  # of a section that is not mapped, such as debug data or unwind tables
    base = starts[section["sh_info"]]
    symbols = _symbols(elf, elf.get_section(section["sh_link"]))
    rows = []
    for offset, kind, number, addend in np.frombuffer(section.data(), _RELOCATION).tolist():
        symbol = symbols[number]
        name = symbol.name or f"section {symbol.home}"
        rows.append(_Place(base + offset, kind, name, _local(symbol, starts, path), addend))
    return rows


def _local(symbol: _Row, starts: Mapping[int, int], path: str) -> int | None:
    """Offset of a symbol in the block; None for an imported one."""
    if symbol.home == 0:
        return None
    if symbol.home not in starts:
        raise FormatError(
            f"{path}: symbol {symbol.name!r} lies in unmapped section {symbol.home}")
    return starts[symbol.home] + symbol.value


def _is_pointer(kind: int) -> bool:
    return kind in _FORMULAS and _FORMULAS[kind].through == "pointer"


def _patch(
    image: bytearray, row: _Place, base: int, slots: Mapping[tuple[str, int], int], path: str
) -> None:
    """Write one relocated value."""
    formula = _FORMULAS.get(row.kind)
    if formula is None:
        known = ", ".join(f.name for f in _FORMULAS.values())
        raise FormatError(
            f"{path}: unknown relocation type {row.kind} for {row.target!r} at {row.offset:#x}; "
            f"known: {known}. Compile with -fPIC"
        )
    if not 0 <= row.offset <= len(image) - formula.width:
        raise FormatError(f"{path}: relocation at {row.offset:#x} lies outside its section")
    symbol = _target(row, formula, base, slots)
    value = formula.value(symbol, row.addend, base + row.offset)
    limit = 1 << (8 * formula.width - 1)
    if formula.width == 4 and not -limit <= value < limit:
        raise FormatError(f"{path}: {row.target!r} is out of reach of a {formula.name} relocation")
    masked = value & (2 * limit - 1)
    image[row.offset : row.offset + formula.width] = masked.to_bytes(formula.width, "little")


def _target(row: _Place, formula: _Formula, base: int, slots: Mapping[tuple[str, int], int]) -> int:
    """The address that the formula calls S (or G for a pointer in the table)."""
    if formula.through == "pointer":
        return base + slots[row.key] + len(_JUMP)
    return base + (slots[row.key] if row.local is None else row.local)


@cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """Where imported functions may come from: libm first, then everything in the process."""
    found = []
    for name in ("libm.so.6", "libm.so", None):
        try:
            found.append(ctypes.CDLL(name))
        except OSError:
            continue
    return tuple(found)


def _import(name: str, path: str) -> int:
    """Address of a library function."""
    for library in _libraries():
        function = getattr(library, name, None) if name.isidentifier() else None
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value
    raise FormatError(
        f"{path}: undefined symbol {name!r} is in neither libm nor this process; define it in the "
        "same source or use a libm function"
    )
