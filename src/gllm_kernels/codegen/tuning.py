"""The numbers a generator may choose freely: they change speed and never a result's meaning.

    c tile of mr rows x nr columns, kc deep; blocks of mc rows and nc columns; so many `heights` of
    tiles, the tallest ones, divide rows evenly; `terms` products per sum in a round of the k loop
    up to `few` rows a B of contiguous terms is not packed, up to `swept` rows one of contiguous
    columns; `prepacked`: B is given as panels; `pairs`: two bf16 terms share a lane (VDPBF16PS)
    `unroll` vectors per round of a row loop

Defaults come from the width of the vectors and the number of registers; measured ones replace them.
"""

from __future__ import annotations

from dataclasses import dataclass

from .isa.base import Isa
from .kernel import K


@dataclass(frozen=True, slots=True)
class TuningParams:
    """Part of a kernel's cache key. A reduction keeps up to `accumulators` partial vectors."""

    mr: int
    nr: int
    kc: int
    mc: int
    nc: int
    few: int = 64
    swept: int = 112
    terms: int = 1
    heights: int = 2
    prepacked: bool = False
    pairs: bool = False
    unroll: int = 4
    accumulators: int = 8


def default_params(isa: Isa) -> TuningParams:
    """The widest tile whose accumulators, two columns of B and one of A fit the registers.

    32 registers: 14 x 2 accumulators + 2 + 1 = 31. 16 registers: 6 x 2 + 2 + 1 = 15. A block of A
    takes a third of a 2nd-level cache of 1 MB; mc is a multiple of mr.
    """
    mr = 14 if isa.vregs >= 32 else 6
    panels = 6 if isa.vregs >= 32 else 12
    return TuningParams(mr=mr, nr=2 * isa.lanes, kc=1024, mc=panels * mr, nc=1024,
                        pairs=K.VDOT2 in isa.rows)
