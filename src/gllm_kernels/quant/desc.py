"""What kernels need to know of a weight format, derived from the machine code of its decoder.

    x[l]  = A[g] * (q[l] + Z[g]) + B[g]            g = groups[l]; with levels, A[g] * levels[q[l]] + B[g]
    q     = sign * (off + table[u ^ xor])          u = the fields of the code put together
    A, B  = leaf * leaf * ... * code * const       each product and sum rounded to float32

Bits are counted from the start of the block, the lowest of a byte first. A description is the same
for every compiler and flag, and its values have the bits of the decoder's, but for NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import numpy.typing as npt

LEAF_BITS = {"f16": 16, "bf16": 16, "f32": 32, "table": 8}
MOST_RUNS = 32  # of lanes that are printed
Field = tuple[int, int, int]  # (position in the block, number of bits, place in u)


def merged(pairs: Iterable[tuple[int, int]]) -> tuple[Field, ...]:
    """(position, place) of single bits as fields, the widest first."""
    fields: list[list[int]] = []
    for at, place in sorted(pairs, key=lambda pair: pair[1]):
        last = fields[-1] if fields else None
        if last and last[0] + last[1] == at and last[2] + last[1] == place:
            last[1] += 1
        else:
            fields.append([at, 1, place])
    return tuple(tuple(f) for f in sorted(fields, key=lambda f: (-f[1], f[2])))


@dataclass(frozen=True, slots=True)
class Code:
    """An integer of a few bits. `table` of 2^n bytes, or None for the identity; 0 <= table[u] <=
    umax <= 255. `sign` is (c, positions): negative where c xor the parity of these bits is 1."""

    fields: tuple[Field, ...]
    off: int = 0
    umax: int = 0
    xor: int = 0
    table: bytes | None = None
    sign: tuple[int, tuple[int, ...]] | None = None

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and largest value."""
        low, high = self.off + (min(self.table) if self.table else 0), self.off + self.umax
        return (min(low, -high), max(high, -low)) if self.sign else (low, high)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A float in the block: kind f16, bf16 or f32, or `table`: eight bits choose one of its floats
    (as bits)."""

    kind: str
    fields: tuple[Field, ...]
    table: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """leaf * leaf * ... * code * const"""

    const: float
    code: Code | None = None
    leaves: tuple[Leaf, ...] = ()


@dataclass(frozen=True, slots=True)
class Levels:
    """The float that a code stands for: a constant, or in the block, `offset` bytes from its start."""

    table: tuple[int, ...] = ()  # bits of floats
    offset: int = 0


@dataclass(frozen=True, slots=True)
class QuantDesc:
    """One block of a format: `len(codes)` values in `size` bytes. Hashable: its own cache key."""

    size: int
    codes: tuple[Code, ...]
    groups: tuple[int, ...]
    scales: tuple[Scale, ...]
    zeros: tuple[Code | None, ...]
    offsets: tuple[Scale | None, ...]
    levels: Levels | None = None

    def __str__(self) -> str:
        return "\n".join(rendered(self))

    @property
    def range(self) -> tuple[int, int]:
        """Of all codes."""
        ranges = [code.range for code in self.codes]
        return min(low for low, _ in ranges), max(high for _, high in ranges)


def checked(desc: QuantDesc) -> QuantDesc:
    """ValueError where the description reads outside of the block or of a table, or does not fit."""
    groups = len(desc.scales)
    if not desc.codes or {len(desc.zeros), len(desc.offsets)} != {groups}:
        raise ValueError("lanes and groups do not fit")
    if len(desc.groups) != len(desc.codes) or set(desc.groups) != set(range(groups)):
        raise ValueError("lanes of groups that are not there")
    scales = [s for s in (*desc.scales, *desc.offsets) if s]
    for code in (*desc.codes, *filter(None, desc.zeros), *(s.code for s in scales if s.code)):
        _check_fields(code.fields, desc.size, None if code.table is None else len(code.table))
        if not all(0 <= at < 8 * desc.size for at in (code.sign[1] if code.sign else ())):
            raise ValueError("a sign outside of the block")
    for leaf in (leaf for s in scales for leaf in s.leaves):
        if leaf.kind not in LEAF_BITS or (leaf.kind == "table") != bool(leaf.table):
            raise ValueError(f"a leaf of kind {leaf.kind}")
        _check_fields(leaf.fields, desc.size, len(leaf.table) or 1 << LEAF_BITS[leaf.kind])
    _check_levels(desc)
    return desc


def _check_fields(fields: tuple[Field, ...], size: int, entries: int | None) -> None:
    for at, count, place in fields:
        if not (0 <= at and 0 < count and at + count <= 8 * size and 0 <= place <= 31):
            raise ValueError(f"bits {at} to {at + count} of a block of {size} bytes")
        if 1 << place + count > (entries or 256):
            raise ValueError("an index beyond its table")


def _check_levels(desc: QuantDesc) -> None:
    low, high = desc.range
    if desc.levels is None:
        return
    inside = low >= 0 and 4 * high + 4 <= (4 * len(desc.levels.table) or desc.size - desc.levels.offset)
    if not inside or desc.levels.offset < 0:
        raise ValueError(f"levels that are looked up beyond the {desc.size} bytes of the block")


# ---- what it means, in numpy


def decoded(desc: QuantDesc, blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The values of blocks (n, size): (n, values), as the decoder computes them."""
    bits = np.unpackbits(blocks, axis=1, bitorder="little").astype(np.int32)
    groups = np.array(desc.groups)
    with np.errstate(all="ignore"):
        q = integers(desc.codes, bits)
        if desc.levels is None:
            q += integers(desc.zeros, bits)[:, groups]
        real = q.astype(np.float32) if desc.levels is None else _levels(desc.levels, q, blocks)
        x = _scales(desc.scales, bits)[:, groups] * real
        added = [g for g, scale in enumerate(desc.offsets) if scale is not None]
        if added:
            x = x + _scales(desc.offsets, bits)[:, groups]
    return x


def integers(codes: Iterable[Code | None], bits: npt.NDArray) -> npt.NDArray[np.int32]:
    """The values of codes: (n, codes)."""
    return np.stack([_integer(code, bits) for code in codes], 1)


def _integer(code: Code | None, bits: npt.NDArray) -> npt.NDArray[np.int32]:
    if code is None:
        return np.zeros(len(bits), np.int32)
    u = _gathered(code.fields, bits) ^ code.xor
    q = code.off + (u if code.table is None else np.frombuffer(code.table, np.uint8)[u].astype(np.int32))
    if code.sign is None:
        return q.astype(np.int32)
    flip, positions = code.sign
    return np.where((bits[:, list(positions)].sum(1) + flip) & 1, -q, q).astype(np.int32)


def _gathered(fields: tuple[Field, ...], bits: npt.NDArray) -> npt.NDArray:
    u = np.zeros(len(bits), np.int64)
    for at, count, place in fields:
        for k in range(count):
            u |= bits[:, at + k].astype(np.int64) << (place + k)
    return u


def _leaf(leaf: Leaf, bits: npt.NDArray) -> npt.NDArray[np.float32]:
    word = _gathered(leaf.fields, bits)
    if leaf.kind == "f16":
        return word.astype(np.uint16).view(np.float16).astype(np.float32)
    if leaf.kind == "table":
        return np.array(leaf.table, np.uint32)[word].view(np.float32)
    return (word << (16 if leaf.kind == "bf16" else 0)).astype(np.uint32).view(np.float32)


def _scales(scales: tuple[Scale | None, ...], bits: npt.NDArray) -> npt.NDArray[np.float32]:
    rows = []
    for scale in scales:
        x = np.ones(len(bits), np.float32)
        for leaf in scale.leaves if scale else ():
            x = x * _leaf(leaf, bits)
        if scale and scale.code:
            x = x * _integer(scale.code, bits).astype(np.float32)
        rows.append(x * np.float32(scale.const if scale else 0))
    return np.stack(rows, 1)


def _levels(levels: Levels, q: npt.NDArray, blocks: npt.NDArray) -> npt.NDArray[np.float32]:
    if levels.table:
        return np.array(levels.table, np.uint32)[q].view(np.float32)
    at = levels.offset + 4 * q[..., None] + np.arange(4)
    rows = np.arange(len(blocks))[:, None, None]
    return np.ascontiguousarray(blocks[rows, at]).view(np.float32)[..., 0]


# ---- print


def rendered(desc: QuantDesc) -> Iterator[str]:
    """One line per group, then one per run of lanes whose codes step evenly."""
    yield f"{len(desc.codes)} values in {desc.size} bytes, {len(desc.scales)} groups, q in " + (
        "[{}, {}]".format(*desc.range))
    for g, scale in enumerate(desc.scales):
        zero, offset = desc.zeros[g], desc.offsets[g]
        q = "levels[q]" if desc.levels else "q" if zero is None else f"(q + {_code(zero)})"
        text = f"group {g}: x = {_scale(scale)} * {q}"
        yield text if offset is None else f"{text} + {_scale(offset)}"
    if desc.levels:
        yield f"levels: {_floats(desc.levels.table) or f'f32 at byte {desc.levels.offset}'}"
    start, runs = 0, groupby(enumerate(_steps(desc.codes)), key=lambda row: row[1])
    for _, run in islice(runs, MOST_RUNS):
        end = start + len(list(run))
        step = f", {_stride(desc.codes[start : start + 2])} bits further each" if end - start > 1 else ""
        lanes = f"lanes {start}..{end - 1}" if step else f"lane {start}"
        yield f"{lanes}: q = {_code(desc.codes[start])}{step}"
        start = end
    if start < len(desc.codes):
        yield f"lanes {start}..{len(desc.codes) - 1}: alike"


def _stride(pair: tuple[Code, ...]) -> int:
    return pair[1].fields[0][0] - pair[0].fields[0][0] if pair[0].fields else 0


def _steps(codes: tuple[Code, ...]) -> list[int]:
    """For every lane the number of its run: lanes that differ by one shift of all positions."""
    numbers, number, stride = [], 0, None
    for before, code in zip((None, *codes), codes, strict=False):
        new = before and _stride((before, code))
        if before is not None and (stride not in (None, new) or moved(before, new) != code):
            number, stride = number + 1, None
        elif before is not None:
            stride = new
        numbers.append(number)
    return numbers


def moved(code: Code, by: int) -> Code:
    """The same code `by` bits further in the block."""
    fields = tuple((at + by, count, place) for at, count, place in code.fields)
    sign = code.sign and (code.sign[0], tuple(at + by for at in code.sign[1]))
    return Code(fields, code.off, code.umax, code.xor, code.table, sign)


def _fields(fields: tuple[Field, ...]) -> str:
    """bit:count, with <<place where it does not begin at 0."""
    return "|".join(f"{at}:{n}" + (f"<<{place}" if place else "") for at, n, place in fields)


def _code(code: Code) -> str:
    text = f"[{_fields(code.fields)}]" + (f"^{code.xor:#x}" if code.xor else "")
    if code.table is not None:
        shown = ",".join(map(str, code.table[:16])) + (",..." if len(code.table) > 16 else "")
        text = f"({shown}){text}"
    text = f"({text} {'-' if code.off < 0 else '+'} {abs(code.off)})" if code.off else text
    if code.sign:
        text += f" * (-1)^({' + '.join(map(str, (code.sign[0], *(f'[{p}]' for p in code.sign[1]))))})"
    return text


def _floats(table: tuple[int, ...]) -> str:
    shown = np.array(table[:16], np.uint32).view(np.float32)
    return ", ".join(f"{x:g}" for x in shown) + (", ..." if len(table) > 16 else "")


def _scale(scale: Scale) -> str:
    parts = [
        f"({_floats(leaf.table)})[{_fields(leaf.fields)}]" if leaf.table
        else f"{leaf.kind}[{_fields(leaf.fields)}]" for leaf in scale.leaves
    ]  # fmt: skip
    parts += [_code(scale.code)] if scale.code else []
    parts += [f"{scale.const:g}"] if scale.const != 1 or not parts else []
    return " * ".join(parts)
