"""The micro-kernel: sums of height x nr elements of C in registers, over the depth of a block.

    target[i][j] = source[i][j] + sum[r<depth](a[r][i] * b[r][j])        i < height, j < nr

Both operands are packed panels: a term is `height` floats of `a` and nr floats of `b`. Rows of
`source`, `target` and of `coming`, which is prefetched, are their pitches apart; a pitch of 0
repeats a row.
"""

from __future__ import annotations

from ..trace.affine import Affine
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import LINE, multiples
from .pairs import multiply
from .tuning import TuningParams
from .work import MICRO, routine_builder


def heights(params: TuningParams) -> tuple[int, ...]:
    """Tiles of these heights exist: rows are divided evenly, not into full tiles and a rest."""
    step = height_step(params)
    return tuple(range(params.mr - (params.heights - 1) * step, params.mr + 1, step))


def height_step(params: TuningParams) -> int:
    """Rows from one height to the next."""
    return 1 if params.mr <= 8 else 2


def micro_routine(isa: Isa, params: TuningParams, height: int, storage: str) -> Routine:
    return Routine(f"micro {height}x{params.nr} {storage}", micro, (isa, params, height, storage))


def micro(isa: Isa, params: TuningParams, height: int, storage: str = "float") -> Kernel:
    """`tiles` tiles, each `..._next` bytes behind the one before."""
    b = routine_builder(f"micro.{height}x{params.nr}", isa, MICRO)
    moving = ("a", "b", "source", "target", "coming")
    inits = [b.arg(name) for name in moving]
    with b.loop(0, b.arg("tiles"), 1, *inits, name="tiles") as tile:
        _tile(b, params, height, dict(zip(moving, tile.phis, strict=True)), storage)
        tile.yields(*(at + b.arg(f"{name}_next")
                      for name, at in zip(moving, tile.phis, strict=True)))
    return b.build(Affine.const(1), 1, "call")


def _tile(b: KernelBuilder, params: TuningParams, height: int, at: dict[str, Value],
          storage: str) -> None:
    """height*nr/lanes accumulators; a term is nr/lanes loads, `height` broadcasts and an FMA for
    each accumulator."""
    vectors, terms, nr = params.nr // b.lanes, params.terms, params.nr
    with b.loop(0, height, 1, at["coming"], name="coming") as row:
        for disp in range(0, 4 * nr, LINE):
            b.emit(K.PREFETCH, row.phis[0], b.int(0), imm=Mem(1, disp))
        row.yields(row.phis[0] + b.arg("coming_pitch"))
    sums = [b.load(base, index, scale, 4 * b.lanes * v)
            for base, (index, scale) in _rows(b, at["source"], "source_pitch", height)
            for v in range(vectors)]
    end = at["a"] + b.arg("depth") * (4 * height)
    with b.loop(at["a"], end, 4 * height * terms, at["b"], *sums, name="k") as loop:
        line, *acc = loop.phis
        for term in range(terms):
            acc = _term(b, params, (loop.iv, line), term, acc, storage)
        loop.yields(line + 4 * nr * terms, *acc)
    results = iter(loop.results[1:])
    for base, (index, scale) in _rows(b, at["target"], "target_pitch", height):
        for v in range(vectors):
            b.store(base, index, next(results), scale, 4 * b.lanes * v)


def _rows(b: KernelBuilder, base: Value, pitch: str,
          height: int) -> list[tuple[Value, tuple[Value, int]]]:
    """(base, (index, scale)) of every row."""
    step, rows = b.arg(pitch), []
    offsets = multiples(b, step)
    for row in range(height):
        base = base + step * 4 if row and row % 4 == 0 else base
        rows.append((base, offsets[row % 4]))
    return rows


def _term(b: KernelBuilder, params: TuningParams, at: tuple[Value, Value], term: int,
          acc: list[Value], storage: str) -> list[Value]:
    """acc[row, column] += a[row] * b[column] for one of the terms behind `at`."""
    vectors, out = params.nr // b.lanes, []
    zero, height = b.int(0), len(acc) // vectors
    first = 4 * params.nr * term
    for disp in range(first, first + 4 * params.nr, LINE) if params.ahead else ():
        b.emit(K.PREFETCH, at[1], zero, imm=Mem(1, disp + params.ahead))
    right = [b.load(at[1], zero, disp=first + 4 * b.lanes * v) for v in range(vectors)]
    for row in range(height):
        left = b.broadcast(at[0], zero, disp=4 * (height * term + row))
        out += [multiply(b, storage, left, value, acc[row * vectors + v])
                for v, value in enumerate(right)]
    return out
