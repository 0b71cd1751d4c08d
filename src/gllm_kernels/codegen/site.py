"""What a product kernel and its epilogue know: one batch, some rows and columns, and the trace.

Drivers leave rows of finished sums in scratch, still in a near cache; the epilogue reads
them back a vector at a time, applies whatever the trace has on top of the Reduce, and stores. So it
has all registers to itself, however deep it is, and rows and columns that do not exist cost no
second copy of the micro-kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..dtypes import SIZE
from ..trace.affine import Affine
from .access import Env, integer, storage_of
from .contraction import Contraction, Factor
from .frame import begin, decode, units_of
from .isa.base import Isa
from .kernel import K, Kernel, KernelBuilder, Value
from .lower import hoist_stores, lower, lower_stores
from .tuning import TuningParams
from .work import TILE, WAITING_PITCH, bounded, evenly, tile_slot


@dataclass(frozen=True, slots=True)
class Site:
    """One batch; `rows` rows from `above` on, columns lo <= j < hi."""

    build: KernelBuilder
    product: Contraction
    isa: Isa
    batch: dict[str, Value]
    above: Value
    rows: Value
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


@dataclass(frozen=True, slots=True)
class Grid:
    """The tiles that units stand for, counted batch by batch, row by row: `down` x `across` of
    `tall` rows and `wide` columns."""

    m: Value
    n: Value
    tall: Value
    wide: Value
    down: Value
    across: Value

    @staticmethod
    def of(b: KernelBuilder, product: Contraction, params: TuningParams) -> Grid:
        """Packing wants large tiles, everything else narrow ones, that threads share evenly."""
        m, n = integer(b, product.m, {}), integer(b, product.n, {})
        many = bounded(b, m - max(params.few, params.swept), 0, 1)
        panels = -(-32 // params.nr) * params.nr
        down, tall = evenly(b, m, params.share)
        across, wide = evenly(b, n, many * (params.share - panels) + panels, panels)
        return Grid(m, n, tall, wide, down, across)

    def piece(self, b: KernelBuilder, first: Value, last: Value) -> tuple[Value, Value, Value]:
        """The largest rectangle of tiles that starts at `first` and ends by `last`: where the next
        one starts, how many tiles down and across."""
        row = first / self.across
        column, left = first - row * self.across, last - first
        whole = left / self.across * bounded(b, b.int(1) - column, 0, 1)
        some = bounded(b, whole, 0, 1)
        part = b.emit(K.IMIN, left, self.across - column)
        across = part + (self.across - part) * some
        down = b.emit(K.IMAX, whole, b.int(1))
        return first + down * across, down, across


@contextmanager
def sites(build: KernelBuilder, product: Contraction, isa: Isa,
          params: TuningParams) -> Iterator[Site]:
    """The tiles of the units [begin, end), batch by batch, each in up to three rectangles: the rest
    of a row of tiles, whole rows, the start of a row. Any cut of the units cuts the tiles."""
    b, grid = build, Grid.of(build, product, params)
    tiles, one = grid.down * grid.across, b.int(1)
    batches = integer(b, units_of(product.batch), {})
    units = grid.m * grid.n * batches
    each = b.emit(K.IMAX, units / b.emit(K.IMAX, tiles * batches, one), one)
    begin, end = (b.emit(K.IMIN, b.emit(unit) / each, tiles * batches) for unit in (K.BEGIN, K.END))
    with b.loop(begin / tiles, (end + tiles - 1) / tiles, 1, name="batch") as loop:
        batch = decode(b, product.batch, loop.iv) if product.batch else {}
        first = b.emit(K.IMAX, begin - loop.iv * tiles, b.int(0))
        last = b.emit(K.IMIN, end - loop.iv * tiles, tiles)
        with b.loop(0, 3, 1, first, name="piece") as part:
            after, down, across = grid.piece(b, part.phis[0], last)
            with b.when_less(part.phis[0], last):
                row = part.phis[0] / grid.across
                lo = (part.phis[0] - row * grid.across) * grid.wide
                above = row * grid.tall
                rows = b.emit(K.IMIN, down * grid.tall, grid.m - above)
                hi = b.emit(K.IMIN, lo + across * grid.wide, grid.n)
                yield Site(b, product, isa, batch, above, rows, lo, hi)
            part.yields(after)


@contextmanager
def row_sites(build: KernelBuilder, product: Contraction, isa: Isa) -> Iterator[Site]:
    """The units [begin, end) batch by batch, all columns: unit = row i of batch h, as h*m + i."""
    begin, end, n = build.emit(K.BEGIN), build.emit(K.END), integer(build, product.n, {})
    m = build.emit(K.IMAX, integer(build, product.m, {}), build.int(1))
    with build.loop(begin / m, (end + m - 1) / m, 1, name="batch") as loop:
        first = build.emit(K.IMAX, begin - loop.iv * m, build.int(0))
        rows = build.emit(K.IMIN, end - loop.iv * m, m) - first
        batch = decode(build, product.batch, loop.iv) if product.batch else {}
        yield Site(build, product, isa, batch, first, rows, build.int(0), n)


def epilogue(product: Contraction, isa: Isa) -> Kernel:
    """Store f(sums) for the rows and columns of a tile (`work.TILE`)."""
    b = begin(product.trace, isa)
    b.name = f"{product.trace.name}.epilogue"
    names = (*TILE, *(binder for binder, _ in product.batch))
    tile = {name: tile_slot(b, number) for number, name in enumerate(names)}
    batch = {binder: tile[binder] for binder, _ in product.batch}
    above = tile["above"] + tile["row"]
    site = Site(b, product, isa, batch, above, tile["rows"], tile["column"], tile["columns"])
    places = ("sums", "other")[: 1 + bool(product.other)]
    with b.loop(0, tile["rows"], 1, *(tile[p] for p in places), name="epilogue row") as row:
        env = _row_env(site, above + row.iv, site.lo)
        with b.loop(0, site.hi, b.lanes, name="epilogue") as column:
            _vector(site, env, row.phis, column.iv, site.lo + column.iv, site.hi - column.iv)
        pitches = tile["pitch"], WAITING_PITCH
        row.yields(*(place + pitch for place, pitch in zip(row.phis, pitches)))
    return b.build(Affine.const(1), 1, "tile")


def keep(isa: Isa) -> Kernel:
    """In place of an epilogue: the sums wait for those of the other product."""
    b = KernelBuilder("gemm.keep", isa.lanes, ())
    tile = {name: tile_slot(b, number) for number, name in enumerate(TILE)}
    with b.loop(0, tile["rows"], 1, tile["sums"], tile["other"], name="keep row") as row:
        source, target = row.phis
        with b.loop(0, tile["columns"], b.lanes, name="keep") as column:
            b.store(target, column.iv, b.load(source, column.iv))
        row.yields(source + tile["pitch"], target + WAITING_PITCH)
    return b.build(Affine.const(1), 1, "tile")


def _row_env(site: Site, i: Value, j: Value) -> Env:
    """Addresses and what all columns of a row share, before the loop over its columns."""
    trace, column = site.product.trace, site.product.column
    row = {site.product.row: i} if site.product.row else {}
    env = Env({**site.batch, **row, column: j}, column)
    return hoist_stores(site.build, trace, trace.stores, env)


def _vector(site: Site, row: Env, sources: Sequence[Value], offset: Value, j: Value,
            count: Value) -> None:
    """One vector of sums of each product: the value of a Reduce is its init plus the sum.

    Without mask registers a masked store is microcode on AMD (vmaskmovps to memory, 20 and more
    operations on Zen 2 to 4), so whole vectors are stored apart.
    """
    b, trace, other = site.build, site.product.trace, site.product.other
    env = row.at({site.product.column: j}, count=count)
    for position, source in zip((site.product.position, other and other.position), sources):
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
