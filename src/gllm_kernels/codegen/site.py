"""Where a path of a matrix product works: one batch, some columns, and what becomes of the sums.

Every path leaves rows of finished sums in scratch, still in the 1st-level cache; `finish` reads
them back a vector at a time, applies whatever the trace has on top of the Reduce, and stores. The
epilogue so has all registers to itself, however deep it is, and rows and columns that do not exist
cost no second copy of the micro-kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..dtypes import SIZE
from .access import Env, integer, storage_of
from .contraction import Contraction, Factor
from .frame import decode
from .isa.base import Isa
from .kernel import K, KernelBuilder, Value
from .lower import hoist_stores, lower, lower_stores
from .tuning import TuningParams


@dataclass(frozen=True, slots=True)
class Site:
    """`a` and `b` are the addresses of A[0, 0] and B[0, 0] of this batch; columns lo <= j < hi."""

    build: KernelBuilder
    product: Contraction
    isa: Isa
    params: TuningParams
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

    @property
    def apart(self) -> bool:
        """Whether masked loads of a factor are slow, so that whole vectors want a loop without."""
        stored = {self.storage(self.product.a), self.storage(self.product.b)}
        return self.isa.mask_class != "k" and stored != {"float"}

    def scratch(self, offset: int) -> Value:
        return self.build.emit(K.SCRATCH) + offset


@contextmanager
def sites(build: KernelBuilder, product: Contraction, isa: Isa,
          params: TuningParams) -> Iterator[Site]:
    """The units [begin, end) batch by batch: unit = column j of batch h, counted as h*n + j."""
    begin, end = build.emit(K.BEGIN), build.emit(K.END)
    if not product.batch:
        yield Site(build, product, isa, params, {}, begin, end)
        return
    n = build.emit(K.IMAX, integer(build, product.n, {}), build.int(1))
    with build.loop(begin / n, (end + n - 1) / n, 1, name="batch") as loop:
        lo = build.emit(K.IMAX, begin - loop.iv * n, build.int(0))
        hi = build.emit(K.IMIN, end - loop.iv * n, n)
        yield Site(build, product, isa, params, decode(build, product.batch, loop.iv), lo, hi)


def finish(site: Site, source: Value, pitch: Value, i: Value, rows: Value, j: Value,
           columns: Value) -> None:
    """Store f(sums) for i <= row < i + rows, j <= column < j + columns; sums `pitch` bytes apart."""
    b = site.build
    with b.loop(0, rows, 1, source, name="epilogue row") as row:
        env = _row_env(site, i + row.iv, j)
        with b.loop(0, columns, b.lanes, name="epilogue") as column:
            _vector(site, env, row.phis[0], column.iv, j + column.iv, columns - column.iv)
        row.yields(row.phis[0] + pitch)


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
