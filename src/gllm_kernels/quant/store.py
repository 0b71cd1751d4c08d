"""Descriptions as data: those of the package are shipped beside its decoders.

The file holds one line of JSON per format, compressed, since codebooks repeat. `tools/build_formats.py`
writes it; a test lifts every decoder again and compares. In a line tables of codes, and codes that
differ in their place only, are written once.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from functools import cache
from typing import Any

from ..errors import FormatError
from ..scalar.loader import OBJECTS
from ..trace.ir import bits_double, double_bits
from .desc import Code, Leaf, Levels, QuantDesc, Scale, moved

STORED = OBJECTS / "formats_x86_64.xz"
Json = Any


@cache
def stored() -> dict[str, Json]:
    """The descriptions of the package by format name, not yet read."""
    try:
        return json.loads(lzma.decompress(STORED.read_bytes()))
    except (OSError, ValueError, lzma.LZMAError) as failure:
        raise FormatError(
            f"{STORED}: cannot be read as stored descriptions: {failure!r}; "
            "write it again with `python tools/build_formats.py`"
        ) from failure


@cache
def stored_desc(name: str) -> QuantDesc | None:
    """The description of a format of the package."""
    return desc_of(stored()[name]) if name in stored() else None


def write(descs: dict[str, QuantDesc]) -> bytes:
    """What the file holds."""
    text = ",\n".join(f"{json.dumps(n)}:{json.dumps(json_of(d), separators=(',', ':'))}"
                      for n, d in descs.items())  # fmt: skip
    return lzma.compress(f"{{{text}}}".encode(), preset=9)


def json_of(desc: QuantDesc) -> Json:
    """Lists, strings and integers. A lane is (kind, how many bits further), a kind a code."""
    kinds: dict[Code, int] = {}
    tables: dict[bytes, int] = {}
    lanes = []
    for code in desc.codes:
        first = _first(code)
        lanes.append([kinds.setdefault(moved(code, -first), len(kinds)), first])
    levels = desc.levels and [list(desc.levels.table), desc.levels.offset]
    return {
        "size": desc.size, "kinds": [_json_code(code, tables) for code in kinds], "lanes": lanes,
        "groups": list(desc.groups), "scales": [_json_scale(s, tables) for s in desc.scales],
        "zeros": [c and _json_code(c, tables) for c in desc.zeros],
        "offsets": [s and _json_scale(s, tables) for s in desc.offsets], "levels": levels,
        "tables": [table.hex() for table in tables],
    }  # fmt: skip


def desc_of(data: Json) -> QuantDesc:
    """The inverse of `json_of`."""
    tables = [bytes.fromhex(table) for table in data["tables"]]
    code = lambda row: row and _code(row, tables)
    kinds = [code(row) for row in data["kinds"]]
    levels = data["levels"] and Levels(tuple(data["levels"][0]), data["levels"][1])
    desc = QuantDesc(
        data["size"], tuple(moved(kinds[k], first) for k, first in data["lanes"]),
        tuple(data["groups"]), tuple(_scale(s, code) for s in data["scales"]),
        tuple(map(code, data["zeros"])),
        tuple(s and _scale(s, code) for s in data["offsets"]), levels,
    )  # fmt: skip
    return desc


def _first(code: Code) -> int:
    return code.fields[0][0] if code.fields else 0


def _json_code(code: Code, tables: dict[bytes, int]) -> Json:
    table = None if code.table is None else tables.setdefault(code.table, len(tables))
    sign = code.sign and [code.sign[0], list(code.sign[1])]
    return [list(map(list, code.fields)), code.off, code.umax, code.xor, table, sign]


def _code(row: Json, tables: list[bytes]) -> Code:
    fields, off, umax, xor, table, sign = row
    return Code(_fields(fields), off, umax, xor, None if table is None else tables[table],
                sign and (sign[0], tuple(sign[1])))  # fmt: skip


def _fields(rows: Json) -> tuple:
    return tuple((at, n, place) for at, n, place in rows)


def _json_scale(scale: Scale, tables: dict[bytes, int]) -> Json:
    leaves = [[leaf.kind, list(map(list, leaf.fields)), list(leaf.table)] for leaf in scale.leaves]
    return [double_bits(scale.const), scale.code and _json_code(scale.code, tables), leaves]


def _scale(row: Json, code: Callable[[Json], Code | None]) -> Scale:
    const, integer, leaves = row
    made = tuple(Leaf(kind, _fields(fields), tuple(table)) for kind, fields, table in leaves)
    return Scale(bits_double(const), code(integer), made)
