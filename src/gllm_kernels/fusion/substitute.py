"""A fused edge: the consumer's load becomes the producer's body at the consumer's coordinates.

    t[i] = f(x[i]);  out[i] = g(t[i])   ->   out[i] = g(f(x[i]))          and t[i] = f(x[i])
                                                                 where others read t too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..dtypes import ITEMSIZE
from ..graph.bind import Access, Coords, TensorStore, TensorTrace, instantiate
from ..graph.dag import TensorEdge
from ..graph.view import View
from ..trace.affine import Affine
from ..trace.ir import BodyBuilder, Op


def loads_of(trace: TensorTrace, edge: TensorEdge) -> list[Access]:
    """Where the consumer reads the edge's view."""
    return [op.imm for op in trace.body if op.op is Op.LOAD and op.imm.view == edge.view]


def substitute(producer: TensorTrace, consumer: TensorTrace, views: Sequence[View],
               kept: Sequence[TensorStore] = ()) -> TensorTrace:
    """The consumer with every load of the views replaced by the producer's body; what is kept is
    stored as well."""
    consumer = _unify(producer, consumer, views)
    builder, place = BodyBuilder(), []
    values = {s.target.view: s.value for s in producer.stores}
    binders = [str(coord) for coord in producer.stores[0].target.coords]
    made: dict[Coords, list[int]] = {}  # equal elements are computed once: t[i] + t[i]
    for position, op in enumerate(consumer.body):
        if op.op is Op.LOAD and op.imm.view in views:
            at = op.imm.coords
            if at not in made:
                env = dict(zip(binders, at))
                made[at] = instantiate(producer, builder, env, f".{position}")
            value = made[at][values[op.imm.view]]
            place.append(as_stored(builder, value, op.imm.view.dtype))
        else:
            args = tuple(place[a] for a in op.args)
            place.append(builder.add(op.op, *args, imm=op.imm))
    stores = tuple(replace(s, value=place[s.value]) for s in consumer.stores)
    own = tuple(Affine.sym(b) for b, _ in consumer.domain)
    stores += tuple(TensorStore(Access(s.target.view, own), made[own][s.value]) for s in kept)
    sizes = dict(producer.sizes) | dict(consumer.sizes)
    return TensorTrace(consumer.domain, tuple(builder.body), stores, tuple(sizes.items()))


def as_stored(builder: BodyBuilder, value: int, dtype: str) -> int:
    """What would be read back: of an integer the low 8 or 16 bits, a float as it is."""
    bits = 8 * ITEMSIZE[dtype]
    if "int" not in dtype or bits >= 32:
        return value
    if dtype.startswith("u"):
        return builder.add(Op.BITAND, value, builder.add(Op.INT, imm=(1 << bits) - 1))
    count = builder.add(Op.INT, imm=32 - bits)
    return builder.add(Op.SAR, builder.add(Op.SHL, value, count), count)


def _unify(producer: TensorTrace, consumer: TensorTrace, views: Sequence[View]) -> TensorTrace:
    """The consumer with its sizes named as the producer names the same axes."""
    extents = dict(consumer.domain) | {op.imm[1]: op.imm[2] for op in consumer.reduces()}
    wanted = dict(producer.domain)
    same: dict[str, Affine] = {}
    for access in (op.imm for op in consumer.body if op.op is Op.LOAD and op.imm.view in views):
        for coord, target in zip(access.coords, producer.stores[0].target.coords):
            have = extents.get(str(coord))
            if have is not None and len(have.symbols) == 1:
                same.setdefault(str(have), wanted[str(target)])
    return consumer.rename_sizes(same)
