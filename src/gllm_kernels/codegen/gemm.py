"""Matrix products: c[h, i, j] = f(sum[r<k](a[h, i, r] * b[h, r, j])) for a range of columns.

    few rows (A's rows contiguous): B streams past once                      gemv.stream
    else: A and B are packed, block by block                                 packed

The kernel itself only finds the operands of a batch and chooses a driver by the m of the call; the
drivers and what they call are shared by all products (`work`). What is on top of the sum is the
product's own routine, the epilogue. The bits of an element depend on m through the choice of the
driver and on nothing else: not on the tile, the block sizes, the range of units or the threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..trace.affine import Affine
from ..trace.ir import Op, OpTrace
from .access import integer, storage_of
from .contraction import Contraction, contraction_of
from .elementwise import check_in_place
from .frame import begin
from .gemv import few_rows, stream_bytes, stream_routine
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Mem, Routine, Value
from .pack import packing_of
from .packed import layout_of, packed_routine
from .rewrite import contract
from .site import Site, epilogue, sites
from .tuning import TuningParams
from .work import TILE, WORK, block

GRAIN = 128  # columns: whole panels and dot blocks; at 64 packing A anew costs 10 %, here 4


def generate(trace: OpTrace, isa: Isa, params: TuningParams) -> Kernel:
    """The kernel of a bound trace whose pattern is gemm or gemv."""
    check_in_place(trace)
    product = contraction_of(contract(trace))
    build = begin(product.trace, isa)
    with sites(build, product, isa) as site:
        _fill(site, params)
        for below, above, driver in drivers(product, isa, params):
            with _between(site, below, above):
                build.call(build.code(driver), block(build, "work"), site.lo, site.hi)
    return build.build(product.units, GRAIN, "column of the product, batch by batch",
                       Affine.const(scratch_bytes(product, isa, params)))


def drivers(product: Contraction, isa: Isa,
            params: TuningParams) -> list[tuple[int, int | None, Routine]]:
    """(below, above, driver): taken where below < m <= above."""
    stored, few = _stored(product), 0
    found = []
    if product.a.along:
        few = few_rows(product.b.along, params)
        single = product.m.constant == 1
        found.append((0, few, stream_routine(isa, product.b.along, stored, single)))
    if product.m.constant is not None and product.m.constant <= few:
        return found
    return [*found, (few, None, packed_routine(isa, params))]


@contextmanager
def _between(site: Site, below: int, above: int | None) -> Iterator[None]:
    """below < m <= above, as far as m is not known."""
    b, m = site.build, site.product.m.constant
    if m is not None and below < m and (above is None or m <= above):
        yield
    elif above is None:
        with b.when_less(below, site.m):
            yield
    else:
        with b.when_less(below, site.m), b.when_less(site.m, above + 1):
            yield


def scratch_bytes(product: Contraction, isa: Isa, params: TuningParams) -> int:
    """Of one thread; without a packed path only the sums of the streaming one."""
    rows = 1 if product.m.constant == 1 else max(few_rows(product.b.along, params), 1)
    least = stream_bytes(product.b.along, rows, isa)
    only = len(drivers(product, isa, params)) == 1 and product.a.along
    return least if only else max(least, layout_of(isa, params).total)


def _stored(product: Contraction) -> tuple[str, str]:
    """How the elements of A and B lie in memory."""
    a, b = (storage_of(product.trace, factor.param) for factor in (product.a, product.b))
    return a, b


def _fill(site: Site, params: TuningParams) -> None:
    """The work of this batch, and the batch for the epilogue."""
    b, p, product = site.build, params, site.product
    values = {name: site.start(factor) for name, factor in (("a", product.a), ("b", product.b))}
    for name, factor, width in (("a", product.a, p.mr), ("b", product.b, p.nr)):
        values |= {f"{name}_line": site.line(factor), f"{name}_depth": site.depth(factor)}
        how = packing_of(site.isa, site.storage(factor), factor.along, width, name == "b")
        values[f"pack_{name}"] = b.code(how.routine)
    values |= {"m": site.m, "k": site.k, "n": integer(b, product.n, {})} | _target(site)
    tile = block(b, "tile")
    routine = Routine(f"epilogue of {product.trace.name}", epilogue, (product, site.isa))
    values |= {"args": b.emit(K.ARGS), "tile": tile, "epilogue": b.code(routine)}
    b.fill(block(b, "work"), WORK, values)
    for number, (binder, _) in enumerate(product.batch):
        b.emit(K.ISTORE, tile, b.int(0), site.batch[binder], imm=Mem(1, 8 * (len(TILE) + number)))


def _target(site: Site) -> dict[str, Value]:
    """C[0, 0] and its rows; `direct` when the sums are the result as they are."""
    b, product = site.build, site.product
    store = product.trace.stores[0]
    size = 2 if storage_of(product.trace, store.param) != "float" else 4
    start = b.arg(store.param) + integer(b, store.index.without(product.row, product.column),
                                         site.batch) * size
    line = integer(b, store.index.coefficient(product.row), {}) * size
    return {"c": start, "c_line": line, "c_size": b.int(size),
            "direct": b.int(int(size == 4 and is_plain(product)))}


def is_plain(product: Contraction) -> bool:
    """c = sum and nothing more."""
    trace = product.trace
    init = trace.body[trace.body[product.position].args[0]]
    return (len(trace.stores) == 1 and trace.stores[0].value == product.position
            and init.op is Op.CONST and init.imm == 0)
