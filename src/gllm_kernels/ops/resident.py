"""Blocks of a weight format as panels: what the description of a format says, put where kernels want it.

    recipe = recipe_of(desc, lanes)          the layout, and where its numbers come from
    filled(recipe, blocks, n, k)             the bytes of a matrix (n, k)

Blocks are taken apart as columns: row i holds byte i of all of them, so that one field of a format is
one operation of numpy for every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..codegen.pack import LINE
from ..codegen.panels import QUAD, Panels
from ..errors import UnsupportedOpError
from ..executable.buffers import aligned_bytes
from ..quant.desc import Code, Leaf, QuantDesc, Scale, moved

Array = npt.NDArray[np.generic]
GROUP, BLOCK = 32, 32  # values: the longest group, the shortest block
TABLE = 16  # entries of a table of codes
PLANES = ((1, (1,)), (3, (2,)), (7, (2, 1)), (15, (4,)), (31, (4, 1)), (63, (4, 2)), (255, (8,)))
CHUNK = 1 << 20  # values that are taken apart at a time
RANGES = ("u8", 0, 255), ("i8", -128, 127), ("i16", -32768, 32767)
DTYPES = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "f16": np.float16, "f32": np.float32}


@dataclass(frozen=True)
class Recipe:
    """How blocks become panels: the description, of blocks of at least BLOCK values."""

    panels: Panels
    desc: QuantDesc
    values: tuple[int, ...]  # of codes, ascending, where there is a table


# -- the layout ------------------------------------------------------------------------------------
def recipe_of(desc: QuantDesc, lanes: int) -> Recipe:
    """UnsupportedOpError where codes are no bytes, or groups no runs of values."""
    desc = glued(desc)
    if desc.levels is not None:
        raise UnsupportedOpError("its codes stand for floats, which no product of bytes can use")
    values = sorted({v for code in set(map(_kind, desc.codes)) for v in _values(code)})
    low, table = values[0], values[-1] - values[0] >= TABLE and len(values) <= TABLE
    span = TABLE - 1 if table else values[-1] - low
    planes = next((p for most, p in PLANES if span <= most), None)
    if planes is None:
        raise UnsupportedOpError(f"its codes reach from {low} to {values[-1]}, which is no byte")
    scale, leaf = _factor(desc.scales)
    offset, other = _offset(desc, scale, leaf)
    panels = Panels(lanes, planes, _group(desc), len(desc.codes), low, scale, offset, (leaf, other), table)
    return Recipe(panels, desc, tuple(values) if table else ())


def glued(desc: QuantDesc) -> QuantDesc:
    """Small blocks side by side, so that they are one of BLOCK values. Only what has no leaves can be: its scales are
    the same in all blocks."""
    count = -(-BLOCK // len(desc.codes))
    if count == 1:
        return desc
    if any(s.leaves or s.code for s in (*desc.scales, *filter(None, desc.offsets))):
        raise UnsupportedOpError(f"blocks of {len(desc.codes)} values with scales of their own")
    codes = tuple(moved(code, 8 * desc.size * block) for block in range(count) for code in desc.codes)
    return replace(desc, size=desc.size * count, codes=codes, groups=desc.groups * count)


def _kind(code: Code) -> Code:
    return replace(code, fields=(), sign=code.sign and (0, ()))


def _values(code: Code) -> Iterable[int]:
    plain = [code.off + v for v in (set(code.table) if code.table else range(code.umax + 1))]
    return [*plain, *(-v for v in plain)] if code.sign else plain


def _group(desc: QuantDesc) -> int:
    """The longest runs that share their numbers, and into which a block can be cut."""
    groups = np.array(desc.groups)
    if len(groups) % QUAD:
        raise UnsupportedOpError(f"a block of {len(groups)} values, which is no multiple of {QUAD}")
    for size in (GROUP, 16, 8, QUAD):
        if len(groups) % size == 0 and (groups.reshape(-1, size) == groups[::size, None]).all():
            return size
    raise UnsupportedOpError(f"neighbouring values have different scales: groups of less than {QUAD}")


def _factor(scales: Sequence[Scale | None]) -> tuple[str, str]:
    """(number of each group, leaf of the block)"""
    found = [s for s in scales if s is not None]
    shared = {(s.leaves, s.const) for s in found}
    if len(shared) > 1 or len(found) < len(scales):
        return "f32", ""
    (leaves, const), = shared
    exact = len(leaves) == 1 and leaves[0].kind == "f16" and abs(const) == 1
    leaf = "" if not leaves and const == 1 else "f16" if exact else "f32"
    return _integers(s.code for s in found), leaf


def _integers(codes: Iterable[Code | None]) -> str:
    codes = list(codes)
    if all(code is None for code in codes):
        return ""
    ranges = [(1, 1) if code is None else code.range for code in codes]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return next((name for name, least, most in RANGES if least <= low and high <= most), "f32")


def _offset(desc: QuantDesc, scale: str, leaf: str) -> tuple[str, str]:
    """scale * (q + zero) + offset: of zeros alone the leaf is that of the scale."""
    zeros, offsets = (any(x is not None for x in row) for row in (desc.zeros, desc.offsets))
    if not zeros:
        number, other = _factor(desc.offsets) if offsets else ("", "")
        return (number, other) if number else (other, "")
    return ("f32", "") if offsets or scale else (_integers(desc.zeros), leaf)


# -- the bytes -------------------------------------------------------------------------------------
def filled(recipe: Recipe, blocks: npt.NDArray[np.uint8], n: int, k: int) -> npt.NDArray[np.uint8]:
    """The panels of a matrix (n, k) whose blocks lie row by row."""
    p, desc = recipe.panels, recipe.desc
    panels, count = -(-n // p.lanes), k // p.block
    out = aligned_bytes(LINE + panels * count * p.panel_bytes)
    out[:LINE] = 0
    out[:LINE].reshape(-1, TABLE)[:, : len(recipe.values)] = np.array(recipe.values, np.int16) - p.low
    body, rows = out[LINE:].reshape(panels, -1), np.ascontiguousarray(blocks).reshape(n, count, desc.size)
    some = max(1, CHUNK // (p.lanes * k))
    for first in range(0, panels, some):
        part = body[first : first + some]
        lanes = np.zeros((len(part) * p.lanes, count, desc.size), np.uint8)
        given = rows[first * p.lanes : (first + some) * p.lanes]
        lanes[: len(given)] = given
        _fill(recipe, lanes.reshape(len(part), p.lanes, count, desc.size), part)
    return out


def first_broken(recipe: Recipe, blocks: npt.NDArray[np.uint8]) -> int | None:
    """The first block one of whose numbers is not finite."""
    scales = [s for s in dict.fromkeys((*recipe.desc.scales, *recipe.desc.offsets)) if s and s.leaves]
    leaves = list(dict.fromkeys(leaf for s in scales for leaf in s.leaves))
    some = max(1, CHUNK // recipe.desc.size)
    for first in range(0, len(blocks), some):
        columns = np.ascontiguousarray(blocks[first : first + some].T)
        for leaf in leaves:
            finite = np.isfinite(_leaf(leaf, columns))
            if not finite.all():
                return first + int(np.argmin(finite))
    return None


def _fill(recipe: Recipe, lanes: Array, body: npt.NDArray[np.uint8]) -> None:
    """Some panels: the planes of all blocks, then their numbers."""
    p, (panels, _, count, size) = recipe.panels, lanes.shape
    columns = np.ascontiguousarray(lanes.transpose(3, 0, 2, 1)).reshape(size, -1)
    planes, numbers = np.split(body, [count * p.plane_bytes], axis=1)
    _fill_planes(recipe, columns, planes.reshape(panels, count, p.plane_bytes))
    _fill_numbers(recipe, columns, numbers.reshape(panels, count, -1))


def _fill_planes(recipe: Recipe, columns: Array, planes: Array) -> None:
    p, low, at = recipe.panels, 0, 0
    codes, blocks = _codes(recipe, columns), planes.shape[:2]
    steps = planes.reshape(*blocks, p.steps, -1)
    for width in p.planes:
        vectors = p.quads * width // 8
        parts = codes if len(p.planes) == 1 else codes >> low & (1 << width) - 1
        parts = parts.reshape(p.steps, 8 // width, vectors, QUAD, *blocks, p.lanes)
        packed = parts[:, 0]
        for number in range(1, 8 // width):
            packed = packed | parts[:, number] << width * number
        size = vectors * QUAD * p.lanes
        # step, vector, code, panel, block, lane -> panel, block, step, vector, lane, code
        steps[..., at : at + size] = packed.transpose(3, 4, 0, 1, 5, 2).reshape(*blocks, p.steps, size)
        low, at = low + width, at + size


def _fill_numbers(recipe: Recipe, columns: Array, numbers: Array) -> None:
    """Leaves, then scale and offset of every group."""
    p, blocks = recipe.panels, numbers.shape[:2]

    def across(values: Array, number: str) -> Array:
        """(groups, blocks x lanes) -> (panels, blocks, groups, bytes of all lanes)"""
        made = np.atleast_2d(values).astype(DTYPES[number]).reshape(-1, *blocks, p.lanes)
        return np.ascontiguousarray(made.transpose(1, 2, 0, 3)).view(np.uint8)

    leaves = [across(of(recipe, columns), n) for of, n in zip((_leaf_of, _other_of), p.leaves) if n]
    groups = [across(of(recipe, columns), n) for of, n in ((_scales, p.scale), (_offsets, p.offset)) if n]
    parts = leaves + ([np.concatenate(groups, axis=3)] if groups else [])
    if parts:
        numbers[:] = np.concatenate([part.reshape(*blocks, -1) for part in parts], axis=2)


def _codes(recipe: Recipe, columns: Array) -> npt.NDArray[np.uint8]:
    """(values of a block, blocks): codes as they are stored."""
    stored = np.array(recipe.values) if recipe.values else np.arange(recipe.panels.low, recipe.panels.low + 256)
    return integers(recipe.desc.codes, columns, lambda q: np.searchsorted(stored, q).astype(np.uint8))


# -- integers and floats of blocks -----------------------------------------------------------------
def integers(codes: Sequence[Code], columns: Array, stored: Callable[[Array], Array] = np.int16) -> Array:
    """(codes, blocks): `stored` of the values. Codes that differ in their place only are read together."""
    out = np.empty((len(codes), columns.shape[1]), stored(np.zeros(1, np.int64)).dtype)
    kinds: dict[tuple, list[int]] = {}
    for lane, code in enumerate(codes):
        parts = tuple((count, place) for _, _, count, place in _parts(code))
        kinds.setdefault((_kind(code), parts, code.sign and len(code.sign[1])), []).append(lane)
    for lanes in kinds.values():
        out[lanes] = _alike([codes[lane] for lane in lanes], columns, stored)
    return out


def _alike(codes: Sequence[Code], columns: Array, stored: Callable[[Array], Array]) -> Array:
    first = codes[0]
    table = np.arange(first.umax + 1) if first.table is None else np.frombuffer(first.table, np.uint8)
    values = table.astype(np.int64) + first.off
    dtype = np.uint8 if len(values) <= 256 else np.uint16
    u = _gathered([_parts(code) for code in codes], columns, dtype)
    u = u ^ dtype(first.xor) if first.xor else u
    plain = stored(values)
    if first.sign is None:
        same = plain.dtype == np.uint8 and np.array_equal(plain, np.arange(len(plain)))
        return u if same else plain[u]
    odd = np.broadcast_to(np.array([[code.sign[0]] for code in codes], np.uint8), u.shape)
    for places in zip(*(code.sign[1] for code in codes)):
        at = np.array(places)
        odd = odd ^ columns[at // 8] >> (at % 8).astype(np.uint8)[:, None]
    return np.where(odd & 1, stored(-values)[u], plain[u])


def _parts(code: Code | Leaf) -> list[tuple[int, int, int, int]]:
    """(byte, shift, bits, place in u): the fields, cut where a byte ends."""
    parts = []
    for at, count, place in code.fields:
        while count:
            some = min(count, 8 - at % 8)
            parts.append((at // 8, at % 8, some, place))
            at, count, place = at + some, count - some, place + some
    return parts


def _gathered(parts: Sequence[Sequence[tuple[int, int, int, int]]], columns: Array, dtype: type) -> Array:
    u = np.zeros((len(parts), columns.shape[1]), dtype)
    for row in zip(*parts):
        at, shift, count, place = (np.array(x)[:, None] for x in zip(*row))
        bits = columns[at[:, 0]] >> shift.astype(np.uint8) & ((1 << count) - 1).astype(np.uint8)
        u |= bits.astype(dtype, copy=False) << place.astype(dtype)
    return u


def _scale(scale: Scale | None, columns: Array) -> Array:
    """leaves * code * const as float32, (blocks,)."""
    if scale is None:
        return np.zeros(columns.shape[1], np.float32)
    x = _product(scale, columns)
    return x if scale.code is None else x * integers([scale.code], columns)[0]


def _product(scale: Scale, columns: Array) -> Array:
    x = np.full(columns.shape[1], scale.const, np.float32)
    for leaf in scale.leaves:
        with np.errstate(invalid="ignore", over="ignore"):  # as in the decoder
            x *= _leaf(leaf, columns)
    return x


def _leaf(leaf: Leaf, columns: Array) -> npt.NDArray[np.float32]:
    word = _gathered([_parts(leaf)], columns, np.uint32)[0]
    if leaf.kind == "f16":
        return word.astype(np.uint16).view(np.float16).astype(np.float32)
    if leaf.kind == "table":
        return np.array(leaf.table, np.uint32)[word].view(np.float32)
    return (word << (16 if leaf.kind == "bf16" else 0)).astype(np.uint32).view(np.float32)


# -- the numbers of a layout -----------------------------------------------------------------------
def _by_group(recipe: Recipe, made: Sequence[Array]) -> Array:
    """Rows of the description's groups as those of the layout's."""
    return np.stack(made)[list(recipe.desc.groups[:: recipe.panels.group])]


def _scales(recipe: Recipe, columns: Array) -> Array:
    return _by_group(recipe, [_part(recipe.panels.scale, s, columns) for s in recipe.desc.scales])


def _part(number: str, scale: Scale | None, columns: Array) -> Array:
    """What a group's number holds: the code, or everything where there is no leaf for the block."""
    if number in ("f16", "f32"):
        return _scale(scale, columns)
    code = None if scale is None else scale.code
    return np.ones(columns.shape[1], np.int16) if code is None else integers([code], columns)[0]


def _offsets(recipe: Recipe, columns: Array) -> Array:
    desc, p = recipe.desc, recipe.panels
    if not any(zero is not None for zero in desc.zeros):
        return _by_group(recipe, [_part(p.offset, s, columns) for s in desc.offsets])
    none = np.zeros(columns.shape[1], np.int16)
    zeros = [none if z is None else integers([z], columns)[0] for z in desc.zeros]
    if p.leaves[1] or p.offset != "f32":
        return _by_group(recipe, zeros)
    rows = zip(desc.scales, zeros, desc.offsets)
    return _by_group(recipe, [_scale(s, columns) * z + _scale(o, columns) for s, z, o in rows])


def _leaf_of(recipe: Recipe, columns: Array) -> Array:
    return _product(recipe.desc.scales[0], columns)


def _other_of(recipe: Recipe, columns: Array) -> Array:
    """Zeros are multiples of what codes are."""
    zeros = any(zero is not None for zero in recipe.desc.zeros)
    return _product((recipe.desc.scales if zeros else recipe.desc.offsets)[0], columns)
