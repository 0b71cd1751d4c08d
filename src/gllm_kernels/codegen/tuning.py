"""The numbers a generator may choose freely: they change speed and never a result's meaning.

    c tile of mr rows x nr columns, kc deep; blocks of mc rows of A and nc columns of B; B is asked
    for `ahead` bytes before the tile reads it; so many `heights` of tiles, the tallest ones, divide
    rows evenly; `terms` products per sum in a round of the k loop
    up to `few` rows a B of contiguous terms is not packed, and every column is asked for
    `column_ahead` bytes before (0: what follows a group of columns is, as one stretch)
    up to `swept` rows a B of contiguous columns is not packed, unless it has so few elements that it
    is `near`; one tile of rows takes `sweep_width` columns of it at a time
    `prepacked`: B is given as panels; `pairs`: two bf16 terms share a lane (VDPBF16PS)
    threads share what is packed in tiles of `share` rows and columns
    `unroll` vectors per round of a row loop

Defaults come from the width of the vectors, the number of registers and the 2nd-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .isa.base import Isa
from .isa.detect import host
from .kernel import K


FAR = 2 << 20  # bytes of a 2nd-level cache in front of a slow 3rd level


@dataclass(frozen=True, slots=True)
class TuningParams:
    """Part of a kernel's cache key. A reduction keeps up to `accumulators` partial vectors."""

    mr: int
    nr: int
    kc: int
    mc: int
    nc: int
    ahead: int = 0
    few: int = 64
    column_ahead: int = 0
    swept: int = 112
    sweep_width: int = 512
    share: int = 512
    near: int = 5 << 16
    terms: int = 1
    heights: int = 2
    prepacked: bool = False
    pairs: bool = False
    unroll: int = 4
    accumulators: int = 8


def default_params(isa: Isa, l2: int = 1 << 20) -> TuningParams:
    """The widest tile whose accumulators, two columns of B and one of A fit the registers.

    32 registers: 14 x 2 accumulators + 2 + 1 = 31. 16 registers: 6 x 2 + 2 + 1 = 15. A block of B
    takes half of a 2nd-level cache of 2 MB, whose owners have a slow 3rd level (Intel's mesh), and
    is prefetched from there; behind a smaller one it may come from the 3rd, which is near (AMD).
    Columns of B from memory: on Intel a prefetch that misses keeps a line buffer until memory
    answers, so it stays close to the load and leaves the distance to the hardware; Zen 4 follows
    few streams, and none across a page, and reads one stretch at 30 instead of 20 GB/s.
    """
    mr = 14 if isa.vregs >= 32 else 6
    far = l2 >= FAR
    return TuningParams(mr=mr, nr=2 * isa.lanes, kc=512 if far else 1024, mc=2048,
                        nc=512 if far else 1024, ahead=4096 if far else 0,
                        column_ahead=512 if far else 0, sweep_width=4096 if far else 512,
                        pairs=K.VDOT2 in isa.rows)


@cache
def host_params(isa: Isa) -> TuningParams:
    """The defaults for the caches of this processor."""
    found = host().cache(2)
    return default_params(isa, found.bytes if found else 0)
