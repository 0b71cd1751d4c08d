"""Attention: softmax(f(q @ k.T)) @ v without a matrix of scores, for rows of any heads.

    few rows of a head, or one of each that shares its keys   keys and values as they lie   decode
    else                                                      packed, block by block        prefill

Both keep the largest score so far and the sum of the weights, and rescale o when a larger score
comes (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
"FlashAttention", 2022). Which of them a row takes depends on the rows of a head in the call.

A key that a query may not see, because what is added to its score is -inf, has the weight 0; those
behind the last that its neighbours see are not read. So where v is finite, the result of a row does
not depend on the rows beside it, hence not on the threads. A row that sees no key is NaN, as 0/0 is.
"""

from __future__ import annotations

from ..trace.attention import attention_of
from ..trace.ir import OpTrace
from .access import integer
from .contraction import Factor
from .decode import decode_bytes, decode_routine, decodes, range_, reader
from .elementwise import check_in_place
from .frame import begin
from .heads import Heads, heads_of
from .isa.base import Isa
from .kernel import K, Kernel, Mem, Routine
from .pack import packing_of
from .pairs import PAIRS
from .prefill import areas, attend, high, with_tiles
from .queries import finder, scores
from .site import Site, epilogue, row_sites
from .tuning import TuningParams
from .work import ATTEND, SCORES, TILE, block

GRAIN = 8  # rows; heads that share keys and values, when there is one row of each
FEW_ROWS = 24  # of a head, up to which packing its keys and values costs more than it saves
SEARCHES = ("finder", "range")  # for keys that something hides


def generate(trace: OpTrace, isa: Isa, params: TuningParams) -> Kernel:
    """The kernel of a bound trace whose pattern is attention; its units are rows of all heads. Few
    rows of a head are the affair of `decode`, one row with those of heads that share its keys."""
    check_in_place(trace)
    params = with_tiles(isa, params)
    heads, hides = heads_of(trace), bool(attention_of(trace).hides)
    depth, m, width = trace.body[heads.found.product].imm[2], heads.outer.m, heads.outer.n
    b, scratch, below = begin(trace, isa), areas(isa, params, depth, width)[-1], -1
    size = integer(b, m, {})
    if decodes(heads):
        scratch = scratch + decode_bytes(isa, depth, width)
        for some, above in {heads_of(trace, shared=True): 1, heads: FEW_ROWS}.items():
            with b.when_less(below, size), b.when_less(size, above + 1), (
                    row_sites(b, some.outer, isa)) as site:
                _fill(site, some, {"reader": (reader,), "range": (range_,)})
                stored = site.storage(some.outer.a), site.storage(some.k)
                _drive(site, decode_routine(isa, params, stored, hides))
            below = above
    with b.when_less(below, size), row_sites(b, heads.outer, isa) as site:
        factors = {"q": heads.outer.a, "k": heads.k, "v": heads.outer.b}
        pairs = params.pairs and all(site.storage(x) == "bf16" for x in factors.values())
        _fill(site, heads, {"scores": (scores, pairs), "finder": (finder,)})
        _fill_packing(site, factors, {"q": params.nr, "k": params.mr, "v": high(isa)}, pairs)
        _drive(site, Routine("attention", attend, (isa, params, hides, pairs)))
    rows = m
    for _, extent in heads.outer.batch:
        rows = rows * extent
    return b.build(rows, GRAIN, "row of a head", scratch)


def _drive(site: Site, routine: Routine) -> None:
    b = site.build
    b.call(b.code(routine), block(b, "attend"), site.above, site.above + site.rows)


def _fill_packing(site: Site, factors: dict[str, Factor], widths: dict[str, int],
                  pairs: bool) -> None:
    """What packs panels of q, which are whole vectors, of k and of v."""
    b, values = site.build, {}
    for name, factor in factors.items():
        stored = PAIRS if pairs else site.storage(factor)
        how = packing_of(site.isa, stored, factor.along, widths[name], name == "q")
        values[f"pack_{name}"] = b.code(how.routine)
    b.fill(block(b, "attend"), ATTEND, values)


def _fill(site: Site, heads: Heads, makers: dict[str, tuple]) -> None:
    """Where the operands of this batch are, and the routines that know the trace: (make, ...)."""
    b, outer, trace = site.build, heads.outer, heads.outer.trace
    depth = integer(b, trace.body[heads.found.product].imm[2], {})
    values = {"depth": depth, "width": integer(b, outer.n, {}), "keys": site.k}
    for name, factor in (("q", outer.a), ("k", heads.k), ("v", outer.b)):
        values |= {name: site.start(factor), f"{name}_line": site.line(factor),
                   f"{name}_depth": site.depth(factor)}
    tile, own = block(b, "tile"), block(b, "scores")
    values |= {name: b.code(Routine(f"{name} of {trace.name}", make, (heads, site.isa, *more)))
               for name, (make, *more) in makers.items()
               if heads.found.hides or name not in SEARCHES}
    last = b.code(Routine(f"epilogue of {trace.name}", epilogue, (outer, site.isa)))
    values |= {"args": b.emit(K.ARGS), "tile": tile, "own": own, "epilogue": last}
    b.fill(block(b, "attend"), ATTEND, values)
    b.fill(tile, TILE, {"above": b.int(0)})
    for at, slots in ((tile, TILE), (own, SCORES)):
        for number, (binder, _) in enumerate(outer.batch, len(slots)):
            b.emit(K.ISTORE, at, b.int(0), site.batch[binder], imm=Mem(1, 8 * number))
