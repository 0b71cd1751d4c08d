"""The line of the source that an instruction came from, where the file has line numbers (-g)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.elffile import ELFFile

from ..scalar.loader import UNREADABLE

MOST = 160  # characters of a line that are shown


def source_line(path: Path, address: int) -> str:
    """`op.c:5: out[i] = x[i & 15];`, or "" where nothing is known."""
    try:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            rows = sorted(_rows(elf, address), key=lambda row: row[0])
    except (OSError, *UNREADABLE):
        return ""
    before = [row for row in rows if row[0] <= address]
    if not before or not before[-1][2]:
        return ""
    _, file, line = before[-1]
    return f"{file.name}:{line}:{_text(file, line)}"


def _text(file: Path, line: int) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return f"  {lines[line - 1].strip()[:MOST]}" if 0 < line <= len(lines) else ""


def _rows(elf: ELFFile, address: int) -> Iterator[tuple[int, Path, int]]:
    """(address, file, line) of every row of the line table; line 0 where a sequence ends."""
    if not elf.has_dwarf_info():
        return
    dwarf = elf.get_dwarf_info()
    for unit in _units(dwarf, address):
        program = dwarf.line_program_for_CU(unit)
        for entry in program.get_entries() if program else ():
            state = entry.state
            if state is not None and state.end_sequence:
                yield state.address, Path(), 0
            elif state is not None and state.line:
                yield state.address, _file(unit, program, state.file), state.line


def _units(dwarf: DWARFInfo, address: int) -> Iterable[CompileUnit]:
    """The unit that holds `address`; all of them where the file has no table of that."""
    table = dwarf.get_aranges()
    if not table:
        return dwarf.iter_CUs()
    offset = table.cu_offset_at_addr(address)
    return () if offset is None else (dwarf.get_CU_at(offset),)


def _file(unit: CompileUnit, program: object, number: int) -> Path:
    """A file of the line table; DWARF 5 counts from 0, its directory 0 is that of the unit."""
    top = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
    folder = Path(top.value.decode(errors="replace") if top else "")
    header = program.header
    entry = header.file_entry[number - (header.version < 5)]
    folders = [d.decode(errors="replace") for d in header.include_directory]
    index = entry.dir_index - (header.version < 5)
    return folder / (folders[index] if 0 <= index < len(folders) else "") / entry.name.decode(
        errors="replace")  # fmt: skip
