"""Matrix products: c[h, i, j] = f(sum[r<k](a[h, i, r] * b[h, r, j])) for some of the tiles of c.

    B is near, its rows contiguous: A and B are read as they lie             small.small
    one row (contiguous): B streams past                                     gemv.stream
    B quantised: rows of A as bytes, B's panels as they lie                  quads.quads
    some rows, B's terms contiguous: B is read as it lies, lanes along r     dots.dots
    some rows, B's rows contiguous: B is read as it lies, lanes along j      sweep.swept
    else: A and B are packed, block by block                                 packed.packed

The kernel itself only finds the operands of a batch and chooses a driver by the m of the call; the
drivers and what they call are shared by all products (`work`). What is on top of the sum is the
product's own routine, the epilogue. The bits of an element depend on m through the choice of the
driver and on nothing else: not on the tile, the block sizes, the range of units or the threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..dtypes import SIZE
from ..errors import CompileError
from ..trace.affine import Affine
from ..trace.ir import Op, OpTrace
from .access import integer, storage_of
from .contraction import Contraction, Factor, contraction_of
from .dots import dots, dots_bytes, dots_routine
from .elementwise import check_in_place
from .frame import begin, reach
from .gemv import stream, stream_bytes, stream_routine
from .isa.base import Isa
from .kernel import K, Kernel, Routine, Value
from .pack import packing_of
from .packed import layout_of, packed, packed_routine, waiting_bytes
from .pairs import PAIRS
from .panels import LAYOUTS, Panels
from .quads import quads, quads_bytes, quads_routine
from .rewrite import contract
from .site import Site, epilogue, keep, sites
from .small import is_small, may_be_small, small_bytes, small_routine
from .sweep import offsets_of, swept, swept_routine
from .tuning import TuningParams
from .work import TILE, WAITING, WORK, block

GRAIN = 64  # elements, the columns of a matrix times a vector that are worth another thread


def generate(trace: OpTrace, isa: Isa, params: TuningParams) -> Kernel:
    """The kernel of a bound trace whose pattern is gemm or gemv."""
    check_in_place(trace)
    product = contraction_of(contract(trace))
    build = begin(product.trace, isa)
    with sites(build, product, isa, params) as site:
        _fill(site)
        with _unless_small(site, params):
            for below, above, driver in drivers(product, isa, params):
                with _between(site, below, above):
                    if driver.make in (packed, swept):
                        _fill_packing(site, params, driver.make is packed and _paired(product, params))
                    _drive(site, driver, params)
    return build.build(product.units, GRAIN, "element of the product",
                       scratch_bytes(product, isa, params))


def drivers(product: Contraction, isa: Isa,
            params: TuningParams) -> list[tuple[int, int | None, Routine]]:
    """(below, above, driver): taken where below < m <= above."""
    if params.prepacked:
        return [(0, None, packed_routine(isa, params))]
    stored, found = _stored(product), []
    if stored[1] in LAYOUTS:
        return [(0, None, quads_routine(isa, _whole(product, isa), stored[0]))]
    pairs = PAIRS if _paired(product, params) else "float"
    if product.a.along and params.few:
        found.append((0, 1, stream_routine(isa, product.b.along, stored, params.column_ahead)))
    low = len(found)
    if not product.b.along and params.swept > low:
        found.append((low, params.swept, swept_routine(isa, params, stored[1])))
    if product.b.along and product.a.along and params.few > low:
        how = (pairs, pairs) if pairs == PAIRS else stored
        found.append((low, params.few, dots_routine(isa, params, how)))
    found.append((found[-1][1] if found else 0, None, packed_routine(isa, params, pairs)))
    m = product.m.constant
    return [f for f in found if m is None or f[0] < m and (f[1] is None or m <= f[1])]


def _drive(site: Site, driver: Routine, params: TuningParams) -> None:
    """All columns at once; but of two products whose factors are read as they lie, some columns of
    the other one, then the same ones of this."""
    b, product = site.build, site.product
    work, code = block(b, "work"), b.code(driver)
    if not product.other:
        b.call(code, work, site.lo, site.hi)
        return
    area = b.emit(K.SCRATCH) + integer(b, _driver_bytes(product, site.isa, params), {})
    then = {"epilogue": _epilogue(site), **_second(site, product.b, "b")}
    last = {"keep": b.code(Routine("keep", keep, (site.isa,))), **_second(site, product.other.b, "other")}
    b.fill(work, WORK, {"twice": b.int(1), "waiting": area} | last)
    if driver.make is packed:
        b.call(code, work, site.lo, site.hi)
        return
    other = {"epilogue": last["keep"], **_second(site, product.other.b, "b")}
    with b.loop(site.lo, site.hi, WAITING, name="both") as j:
        end = b.emit(K.IMIN, site.hi, j.iv + WAITING)
        for factor in ({"waiting": area - j.iv * 4} | other, then):
            b.fill(work, WORK, factor)
            b.call(code, work, j.iv, end)


def _second(site: Site, factor: Factor, name: str) -> dict[str, Value]:
    """Where a second factor lies."""
    return {name: site.start(factor), f"{name}_line": site.line(factor),
            f"{name}_depth": site.depth(factor)}


@contextmanager
def _unless_small(site: Site, params: TuningParams) -> Iterator[None]:
    """Calls the driver of small products, or runs the body."""
    b, product = site.build, site.product
    if product.other or not may_be_small(product, params):
        yield
        return
    small = is_small(site, params)
    with b.when_less(0, small):
        b.call(b.code(small_routine(site.isa, params)), block(b, "work"), site.lo, site.hi)
    with b.when_less(small, 1):
        yield


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


def scratch_bytes(product: Contraction, isa: Isa, params: TuningParams) -> Affine:
    """Of one thread: what any of the drivers needs, and sums that wait."""
    return _driver_bytes(product, isa, params) + (waiting_bytes(params) if product.other else 0)


def _driver_bytes(product: Contraction, isa: Isa, params: TuningParams) -> Affine:
    needs = {stream: stream_bytes(product.b.along, isa), swept: offsets_of(isa, params)[-1],
             packed: layout_of(isa, params).total}
    made = {driver.make for _, _, driver in drivers(product, isa, params)}
    if quads in made:
        return quads_bytes(isa, _whole(product, isa), product.k)
    total = Affine.const(max([small_bytes(params), *(needs[make] for make in made if make in needs)]))
    return total + (dots_bytes(isa, params.few, product.k) if dots in made else Affine())


def _whole(product: Contraction, isa: Isa) -> Panels:
    """The layout of a quantised B; its terms are contiguous, and so must those of A be."""
    a, b = product.a, product.b
    if b.base.terms or not (a.along and b.along):
        raise CompileError(f"{product.trace.name}: {b.param} is quantised: only A @ B.T with all of "
                           "B, and A contiguous along its last axis, can be computed")
    panels = LAYOUTS[storage_of(product.trace, b.param)]
    if panels.lanes != isa.lanes:
        raise CompileError(f"{product.trace.name}: {b.param} was packed for vectors of {panels.lanes} "
                           f"lanes, {isa.name} has {isa.lanes}; pack it again under this instruction set")
    return panels


def _stored(product: Contraction) -> tuple[str, str]:
    """How the elements of A and B lie in memory."""
    a, b = (storage_of(product.trace, factor.param) for factor in (product.a, product.b))
    return a, b


def _paired(product: Contraction, params: TuningParams) -> bool:
    """Do two terms share a lane?"""
    return params.pairs and _stored(product) == ("bf16", "bf16")


def _fill_packing(site: Site, params: TuningParams, pairs: bool) -> None:
    """What packs A and B."""
    b, values = site.build, {}
    for name, factor, width in (("a", site.product.a, params.mr), ("b", site.product.b, params.nr)):
        storage = PAIRS if pairs else site.storage(factor)
        how = packing_of(site.isa, storage, factor.along, width, name == "b")
        values[f"pack_{name}"] = b.code(how.routine)
    b.fill(block(b, "work"), WORK, values)


def _fill(site: Site) -> None:
    """The work of this batch, and the batch for the epilogue."""
    b, product = site.build, site.product
    lines = {"a": site.line(product.a), "b": site.line(product.b)}
    values = {"a": site.start(product.a) + site.above * lines["a"], "b": site.start(product.b)}
    for name, factor in (("a", product.a), ("b", product.b)):
        values |= {f"{name}_line": lines[name], f"{name}_depth": site.depth(factor)}
    values |= {"m": site.rows, "k": site.k, "n": integer(b, product.n, {})} | _target(site)
    tile = block(b, "tile")
    values |= {"args": b.emit(K.ARGS), "tile": tile, "epilogue": _epilogue(site),
               "twice": b.int(0), "waiting": b.int(0)}
    b.fill(block(b, "work"), WORK, values)
    b.fill(tile, (*TILE, *(binder for binder, _ in product.batch)),
           {"above": site.above} | dict(site.batch))


def _epilogue(site: Site) -> Value:
    product = site.product
    return site.build.code(Routine(f"epilogue of {product.trace.name}", epilogue,
                                   (product, site.isa)))


def _target(site: Site) -> dict[str, Value]:
    """C[above, 0] and its rows, and what may be stored there."""
    b, product = site.build, site.product
    store = product.trace.stores[0]
    stored = storage_of(product.trace, store.param)
    size = SIZE[stored]
    start = b.arg(store.param) + integer(b, store.index.without(product.row, product.column),
                                         site.batch) * size
    line = integer(b, store.index.coefficient(product.row), {}) * size
    return {"c": start + site.above * line, "c_line": line, "c_size": b.int(size),
            "direct": b.int(int(stored == "float" and may_wait(product))),
            "plain": b.int(int(stored == "float" and is_plain(product)))}


def may_wait(product: Contraction) -> bool:
    """Sums without their last terms may stand in C meanwhile: nothing else is read there. An array
    that moves with row and column may be C's own memory, read where it is written."""
    trace = product.trace
    others = reach(trace, [s.value for s in trace.stores])
    both = {product.row, product.column}
    return len(trace.stores) == 1 and not any(
        trace.body[p].op is Op.LOAD and both <= trace.body[p].imm[1].symbols | {""}
        for p in others)


def is_plain(product: Contraction) -> bool:
    """c = sum and nothing more."""
    trace = product.trace
    init = trace.body[trace.body[product.position].args[0]]
    return (len(trace.stores) == 1 and trace.stores[0].value == product.position
            and init.op is Op.CONST and init.imm == 0)
