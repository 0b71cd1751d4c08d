"""Squares of lanes x lanes: turned over, and summed while they are turned.

    transpose(rows)[j][i] = rows[i][j]                 lanes = 16: 64 shuffles
    sum_each(rows)[i]     = sum over j of rows[i][j]   lanes = 16: 32 shuffles, 15 additions

`sum_each` adds in the order of HSUM: lanes half a vector apart first, neighbours last. It is the
transpose with an addition after every exchange, so every step leaves half as many vectors.
"""

from __future__ import annotations

from .kernel import K, KernelBuilder, Value


def transpose(b: KernelBuilder, rows: list[Value]) -> list[Value]:
    """4x4 within 128 bits by unpacking, then whole 128-bit blocks."""
    quads = [_four(b, rows[i:i + 4]) for i in range(0, b.lanes, 4)]
    out: list[Value] = [rows[0]] * b.lanes
    for c in range(4):
        for block, value in enumerate(_blocks(b, [quad[c] for quad in quads])):
            out[4 * block + c] = value
    return out


def _four(b: KernelBuilder, rows: list[Value]) -> list[Value]:
    """result[c] holds, in its 128-bit block B, element 4*B + c of the four rows."""
    low = [b.emit(K.UNPACKLO32, *rows[i:i + 2]) for i in (0, 2)]
    high = [b.emit(K.UNPACKHI32, *rows[i:i + 2]) for i in (0, 2)]
    return [b.emit(op, *pair) for pair in (low, high) for op in (K.UNPACKLO64, K.UNPACKHI64)]


EVEN, ODD = (0, 2, 0, 2), (1, 3, 1, 3)


def _blocks(b: KernelBuilder, quads: list[Value]) -> list[Value]:
    """result[B] = block B of every quad, side by side: a transpose of 128-bit blocks."""
    if len(quads) == 2:
        return [b.emit(K.SHUF128, *quads, imm=(i, i)) for i in (0, 1)]
    halves = {pick: [b.emit(K.SHUF128, *quads[i:i + 2], imm=pick) for i in (0, 2)]
              for pick in (EVEN, ODD)}
    return [b.emit(K.SHUF128, *halves[first], imm=second)
            for second in (EVEN, ODD) for first in (EVEN, ODD)]


def sum_each(b: KernelBuilder, rows: list[Value]) -> Value:
    """One vector with the sum of every row; what a row repeated costs is what one costs."""
    blocks = b.lanes // 4
    # lane 4*B + q of the result comes from block B of quarter q
    quarters = [[rows[4 * block + q] for block in range(blocks)] for q in range(4)]
    first, second, third, fourth = (_fold_blocks(b, quarter) for quarter in quarters)
    left, right = _fold_pairs(b, first, third), _fold_pairs(b, second, fourth)
    low, high = (b.emit(op, left, right) for op in (K.UNPACKLO32, K.UNPACKHI32))
    return _fold_pairs(b, low, high)


def _fold_blocks(b: KernelBuilder, rows: list[Value]) -> Value:
    """128-bit block B of the result: the four sums over all blocks of rows[B]."""
    if len(rows) == 2:
        return _sum(b, *(b.emit(K.SHUF128, *rows, imm=(i, i)) for i in (0, 1)))
    halves = [_sum(b, *(b.emit(K.SHUF128, *rows[i:i + 2], imm=pick)
                        for pick in ((0, 1, 0, 1), (2, 3, 2, 3)))) for i in (0, 2)]
    return _sum(b, *(b.emit(K.SHUF128, *halves, imm=pick) for pick in (EVEN, ODD)))


def _fold_pairs(b: KernelBuilder, x: Value, y: Value) -> Value:
    """Per 128 bits: x0+x2 x1+x3 y0+y2 y1+y3."""
    return _sum(b, b.emit(K.UNPACKLO64, x, y), b.emit(K.UNPACKHI64, x, y))


def _sum(b: KernelBuilder, x: Value, y: Value) -> Value:
    return b.emit(K.VADD, x, y)
