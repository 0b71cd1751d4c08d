"""What a product kernel and its epilogue know: one batch, some columns, and the trace.

Drivers leave rows of finished sums in scratch, still in the 1st-level cache; the epilogue reads
them back a vector at a time, applies whatever the trace has on top of the Reduce, and stores. So it
has all registers to itself, however deep it is, and rows and columns that do not exist cost no
second copy of the micro-kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..dtypes import SIZE
from ..trace.affine import Affine
from .access import Env, integer, storage_of
from .contraction import Contraction, Factor
from .frame import begin, decode
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Value
from .lower import hoist_stores, lower, lower_stores
from .work import TILE, tile_slot


@dataclass(frozen=True, slots=True)
class Site:
    """`a` and `b` are the addresses of A[0, 0] and B[0, 0] of this batch; columns lo <= j < hi."""

    build: KernelBuilder
    product: Contraction
    isa: Isa
    batch: dict[str, Value]
    lo: Value
    hi: Value

    @property
    def m(self) -> Value:
        return integer(self.build, self.product.m, {})

    @property
    def k(self) -> Value:
        return integer(self.build, self.product.k, {})

    def start(self, factor: Factor) -> Value:
        """The address of line 0, depth 0 of a factor."""
        offset = integer(self.build, factor.base, self.batch)
        return self.build.arg(factor.param) + offset * self.size(factor)

    def line(self, factor: Factor) -> Value:
        """Bytes from line to line."""
        return integer(self.build, factor.line, {}) * self.size(factor)

    def depth(self, factor: Factor) -> Value:
        """Bytes from term to term of one sum."""
        return integer(self.build, factor.depth, {}) * self.size(factor)

    def storage(self, factor: Factor) -> str:
        """How the elements of a factor lie in memory."""
        return storage_of(self.product.trace, factor.param)

    def size(self, factor: Factor) -> int:
        """Bytes of an element."""
        return SIZE[self.storage(factor)]


@contextmanager
def sites(build: KernelBuilder, product: Contraction, isa: Isa,
          extent: Affine | None = None) -> Iterator[Site]:
    """The units [begin, end) batch by batch: unit = column j of batch h, counted as h*n + j; with
    another `extent` than n, what that is of."""
    begin, end = build.emit(K.BEGIN), build.emit(K.END)
    if not product.batch:
        yield Site(build, product, isa, {}, begin, end)
        return
    n = build.emit(K.IMAX, integer(build, extent or product.n, {}), build.int(1))
    with build.loop(begin / n, (end + n - 1) / n, 1, name="batch") as loop:
        lo = build.emit(K.IMAX, begin - loop.iv * n, build.int(0))
        hi = build.emit(K.IMIN, end - loop.iv * n, n)
        yield Site(build, product, isa, decode(build, product.batch, loop.iv), lo, hi)


def epilogue(product: Contraction, isa: Isa) -> Kernel:
    """Store f(sums) for the rows and columns of a tile (`work.TILE`)."""
    b = begin(product.trace, isa)
    b.name = f"{product.trace.name}.epilogue"
    names = (*TILE, *(binder for binder, _ in product.batch))
    tile = {name: tile_slot(b, number) for number, name in enumerate(names)}
    batch = {binder: tile[binder] for binder, _ in product.batch}
    site = Site(b, product, isa, batch, tile["column"], tile["columns"])
    with b.loop(0, tile["rows"], 1, tile["sums"], name="epilogue row") as row:
        env = _row_env(site, tile["row"] + row.iv, site.lo)
        with b.loop(0, site.hi, b.lanes, name="epilogue") as column:
            _vector(site, env, row.phis[0], column.iv, site.lo + column.iv, site.hi - column.iv)
        row.yields(row.phis[0] + tile["pitch"])
    return b.build(Affine.const(1), 1, "tile")


def _row_env(site: Site, i: Value, j: Value) -> Env:
    """Addresses and what all columns of a row share, before the loop over its columns."""
    trace, column = site.product.trace, site.product.column
    row = {site.product.row: i} if site.product.row else {}
    env = Env({**site.batch, **row, column: j}, column)
    return hoist_stores(site.build, trace, trace.stores, env)


def _vector(site: Site, row: Env, source: Value, offset: Value, j: Value, count: Value) -> None:
    """One vector of sums: the value of the Reduce is its init plus the sum.

    Without mask registers a masked store is microcode on AMD (vmaskmovps to memory, 20 and more
    operations on Zen 2 to 4), so whole vectors are stored apart.
    """
    b, trace, position = site.build, site.product.trace, site.product.position
    env = row.at({site.product.column: j}, count=count)
    total = b.load(source, offset)
    init = trace.body[position].args[0]
    if trace.body[init].imm != 0:
        total = lower(b, trace, init, env) + total
    env.values[position] = total
    if site.isa.mask_class == "k":
        lower_stores(b, trace, trace.stores, env)
        return
    for store in trace.stores:
        lower(b, trace, store.value, env)
    with b.when_less(b.lanes - 1, count):
        lower_stores(b, trace, trace.stores, replace(env, count=None))
    with b.when_less(count, b.lanes):
        lower_stores(b, trace, trace.stores, env)
