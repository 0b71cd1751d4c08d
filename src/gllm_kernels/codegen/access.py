"""Loads and stores of a trace as vectors: what an index means along the lanes.

    x[i0*s + i1 + 3]  at lane i1     base = x + 4*(i0*s), index = i1, disp = 12     step 1
    x[2*i1], x[2*i1 + 1]             two vectors, taken apart into even and odd     step 2
    w[i0]                            one element in all lanes                       step 0
    x[n - 1 - i1]                    one vector, its lanes in reverse               step -1
    x[5*i1]                          as many vectors as the step, sorted together   up to 8
    x[i1*n + i0]                     lane by lane                                   any other

The step is the coefficient of the lane's binder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..dtypes import SIZE
from ..errors import CompileError
from ..trace.affine import Affine
from ..trace.ir import OpTrace, Store
from ..trace.spec import types
from .kernel import STORAGE, K, KernelBuilder, Mem, Pair, Value


MOST_VECTORS = 8  # loading and sorting more costs as much as single elements
RETURNED = {"f32": "float", "f64": "double", "i32": "int32_t", "i64": "int64_t"}


@dataclass(frozen=True, slots=True)
class Env:
    """Where a body is evaluated: lane l stands at binders[lane] + shift + l.

    binders  binder -> integer Value; for `lane` the value without `shift`
    lane     the binder that runs along the lanes; "" when all lanes hold the same element
    shift    a constant: copies of an unrolled loop differ in nothing else
    count    how many lanes exist, an integer Value (may be <= 0 or >= lanes); None: all of them
    values   body position -> Value: what is known beforehand, and what has been lowered here
    """

    binders: Mapping[str, Value]
    lane: str = ""
    shift: int = 0
    count: Value | None = None
    values: dict[int, Value | Pair] = field(default_factory=dict)

    def at(self, binders: Mapping[str, Value], shift: int = 0, count: Value | None = None) -> Env:
        """Another point; what is known here is known there, and nothing flows back."""
        return replace(self, binders={**self.binders, **binders}, shift=shift, count=count,
                       values=dict(self.values))


@dataclass(frozen=True, slots=True)
class Place:
    """The address of lane 0: base + index*size + disp; `step` elements from lane to lane, None
    where that is no constant: then it is `stride` bytes.

    `storage` is the type of the elements in memory, `size` their bytes.
    """

    base: Value
    index: Value
    disp: int
    step: int | None
    storage: str = "float"
    stride: Value | None = None

    @property
    def size(self) -> int:
        return SIZE[self.storage]


def storage_of(trace: OpTrace, param: str) -> str:
    """How the elements of an array lie in memory; a returned number is stored as it is."""
    for candidate in trace.params:
        if candidate.name == param:
            return candidate.ctype
    kinds = [types(trace)[s.value] for s in trace.stores if s.param == param]
    return RETURNED[kinds[0]] if kinds else "float"


def integer(builder: KernelBuilder, value: Affine, binders: Mapping[str, Value]) -> Value:
    """The polynomial as an integer Value; symbols are binders or integer params."""
    total: Value | None = None
    for coef, mono in value.terms:
        term = _product(builder, coef, mono, binders)
        total = term if total is None else total + term
    return builder.int(0) if total is None else total


def _product(builder: KernelBuilder, coef: int, mono: tuple[str, ...],
             binders: Mapping[str, Value]) -> Value:
    term: Value | None = None
    for symbol in mono:
        factor = binders[symbol] if symbol in binders else builder.arg(symbol)
        term = factor if term is None else term * factor
    if term is None:
        return builder.int(coef)
    return term if coef == 1 else term * coef


def lane_step(trace: OpTrace, param: str, index: Affine, lane: str) -> int | None:
    """The coefficient of the lane's binder where it is a constant."""
    return index.coefficient(lane).constant if lane else 0


def place(builder: KernelBuilder, trace: OpTrace, param: str, index: Affine, env: Env) -> Place:
    """The address of lane 0. Call it before a loop opens to keep the base out of the loop."""
    step = lane_step(trace, param, index, env.lane)
    rest = index.without(env.lane)
    constant = sum(c for c, mono in rest.terms if not mono)
    offset = rest - constant
    base, storage = builder.arg(param), storage_of(trace, param)
    size = SIZE[storage]
    if step == 0:
        return Place(base, integer(builder, offset, env.binders), size * constant, 0, storage)
    if offset.terms:
        base = base + integer(builder, offset, env.binders) * size
    if step is None:
        apart = integer(builder, index.coefficient(env.lane), env.binders)
        base = base + apart * (env.shift * size)
        return Place(base, env.binders[env.lane] * apart, size * constant, None, storage,
                     apart * size)
    whole = step == 1 or (step == 2 and size < 8)  # a step of 2 is part of the address
    first = env.binders[env.lane] if whole else env.binders[env.lane] * step
    return Place(base, first, size * (constant + step * env.shift), step, storage)


def limit(builder: KernelBuilder, env: Env) -> Value | None:
    """The mask of the lanes that exist, or None for all."""
    return None if env.count is None else builder.emit(K.FIRST, env.count)


def halves(builder: KernelBuilder, env: Env) -> tuple[Value | None, Value | None]:
    """The masks of the lower and the upper half of the lanes, for lanes of 64 bits."""
    mask = limit(builder, env)
    if mask is None:
        return None, None
    return builder.emit(K.MLOW, mask), builder.emit(K.MHIGH, mask)


def load(builder: KernelBuilder, trace: OpTrace, param: str, index: Affine,
         env: Env) -> Value | Pair:
    """The vector param[index]; no element behind the last one is read."""
    at = place(builder, trace, param, index, env)
    if at.step == 0:
        one = builder.broadcast(at.base, at.index, at.size, at.disp, at.storage)
        return Pair(one, one) if at.size == 8 else one
    if at.size == 8:
        return _load_wide(builder, at, env) if at.step == 1 else _load_lanes(builder, at, env)
    if at.step == 1:
        mask = limit(builder, env)
        return builder.load(at.base, at.index, at.size, at.disp, mask, at.storage)
    if at.step == 2:
        return deinterleave(builder, *_two_vectors(builder, at, env, less=1))[0]
    if at.step is None or abs(at.step) > MOST_VECTORS:
        return _load_lanes(builder, at, env)
    return _load_rising(builder, at, env) if at.step > 0 else _load_falling(builder, at, env)


def _load_wide(builder: KernelBuilder, at: Place, env: Env) -> Pair:
    """Elements of 64 bits: two vectors."""
    far = at.disp + at.size * builder.lanes // 2
    low, high = halves(builder, env)
    return Pair(builder.load(at.base, at.index, at.size, at.disp, low, at.storage),
                builder.load(at.base, at.index, at.size, far, high, at.storage))


def _load_rising(builder: KernelBuilder, at: Place, env: Env) -> Value:
    """Every step-th element of `step` vectors in a row: vector v holds those of the lanes from
    ceil(v*lanes/step) on."""
    lanes, step = builder.lanes, at.step
    masks = [None] * (step - 1) + [builder.emit(K.FIRST, builder.int(lanes - step + 1))]
    if env.count is not None:
        spanned = env.count * step - (step - 1)
        masks = [builder.emit(K.FIRST, spanned - v * lanes) for v in range(step)]
    found: Value | None = None
    for v, mask in enumerate(masks):
        disp = at.disp + at.size * lanes * v
        vector = builder.load(at.base, at.index, at.size, disp, mask, at.storage)
        chosen = tuple((step * lane - v * lanes) % lanes for lane in range(lanes))
        vector = builder.emit(K.PERMUTE, vector, imm=chosen)
        before = builder.emit(K.FIRST, builder.int(-(-v * lanes // step)))
        found = vector if found is None else builder.emit(K.SELECT, before, found, vector)
    return found


def _load_falling(builder: KernelBuilder, at: Place, env: Env) -> Value:
    """The last lane's element comes first in memory: load upwards from there, then turn around."""
    last = _last_lane(builder, env)
    start = replace(at, base=at.base + last * (at.step * at.size), step=-at.step)
    if start.step == 1:
        vector = builder.load(start.base, start.index, at.size, at.disp, limit(builder, env),
                              at.storage)
    elif start.step == 2:
        vector = deinterleave(builder, *_two_vectors(builder, start, env, less=1, scale=1))[0]
    else:
        vector = _load_rising(builder, start, env)
    return _turned(builder, vector, env)


def _last_lane(builder: KernelBuilder, env: Env) -> Value:
    """The number of the last lane that exists."""
    if env.count is None:
        return builder.int(builder.lanes - 1)
    return builder.emit(K.IMIN, env.count, builder.int(builder.lanes)) - 1


def _turned(builder: KernelBuilder, vector: Value, env: Env) -> Value:
    """lane l = vector[last - l]"""
    if env.count is None:
        return builder.emit(K.PERMUTE, vector, imm=tuple(range(builder.lanes))[::-1])
    last = builder.emit(K.SPLAT, _last_lane(builder, env))
    return builder.emit(K.VPERM, vector, builder.emit(K.VISUB, last, builder.emit(K.VLANES)))


def _stride(builder: KernelBuilder, at: Place) -> Value:
    return builder.int(at.step * at.size) if at.stride is None else at.stride


def _load_lanes(builder: KernelBuilder, at: Place, env: Env) -> Value | Pair:
    """Lane by lane: each element in all lanes, kept in its own."""
    zero, lanes = builder.bits(0), builder.emit(K.VLANES)
    start = (zero, zero) if at.size == 8 else (zero,)
    with builder.loop(0, _last_lane(builder, env) + 1, 1, at.base, *start, name="lanes") as loop:
        base, *found = loop.phis
        one = builder.broadcast(base, at.index, at.size, at.disp, at.storage)
        own = builder.emit(K.VIEQ, lanes, builder.emit(K.SPLAT, loop.iv))
        if at.size == 8:
            parts = zip((K.MLOW, K.MHIGH), found, strict=True)
            kept = [builder.emit(K.SELECT64, builder.emit(m, own), one, f) for m, f in parts]
        else:
            kept = [builder.emit(K.SELECT, own, one, found[0])]
        loop.yields(base + _stride(builder, at), *kept)
    return Pair(*loop.results[1:]) if at.size == 8 else loop.results[1]


def load_pair(builder: KernelBuilder, trace: OpTrace, param: str, index: Affine,
              env: Env) -> tuple[Value, Value]:
    """The vectors param[index] and param[index + 1], where index steps by 2."""
    at = place(builder, trace, param, index, env)
    return deinterleave(builder, *_two_vectors(builder, at, env, less=0))


def _two_vectors(builder: KernelBuilder, at: Place, env: Env, less: int,
                 scale: int = 2) -> tuple[Value, Value]:
    low, high = _two_masks(builder, env, less)
    place, far = (at.base, at.index, scale * at.size), at.disp + at.size * builder.lanes
    return (builder.load(*place, at.disp, low, at.storage),
            builder.load(*place, far, high, at.storage))


def _two_masks(builder: KernelBuilder, env: Env, less: int) -> tuple[Value | None, Value | None]:
    """The elements of two vectors in a row that exist: 2*count - less altogether."""
    lanes = builder.lanes
    if env.count is None:
        last = builder.emit(K.FIRST, builder.int(lanes - less)) if less else None
        return None, last
    total = env.count * 2
    low = total - less if less else total
    return builder.emit(K.FIRST, low), builder.emit(K.FIRST, total - (less + lanes))


def anchor(builder: KernelBuilder, trace: OpTrace, param: str, index: Affine, env: Env,
           paired: bool) -> None:
    """Emit what an access needs and the lanes do not change: call it before their loop opens."""
    at = place(builder, trace, param, index, env)
    if at.step == 2 and not paired:
        _two_masks(builder, env, less=1)
    if at.step is not None and 2 < abs(at.step) <= MOST_VECTORS:
        for v in range(1, abs(at.step)):
            builder.emit(K.FIRST, builder.int(-(-v * builder.lanes // abs(at.step))))


def store(builder: KernelBuilder, trace: OpTrace, target: Store, env: Env,
          value: Value | Pair) -> None:
    """param[index] = value for the lanes that exist; lane 0 alone when no binder runs along them."""
    at = place(builder, trace, target.param, target.index, env)
    if at.step == 0 and env.lane:
        raise CompileError(f"{trace.name}: {target.param}[{target.index}] is stored for every "
                           f"{env.lane} at one place; an output needs a place for each")
    if at.step == 0:
        store_one(builder, at, value)
    elif at.step == 1 and isinstance(value, Pair):
        far, masks = at.disp + at.size * builder.lanes // 2, halves(builder, env)
        for half, disp, mask in zip((value.low, value.high), (at.disp, far), masks, strict=True):
            builder.store(at.base, at.index, half, at.size, disp, mask, at.storage)
    elif at.step == 1:
        mask = limit(builder, env)
        builder.store(at.base, at.index, value, at.size, at.disp, mask, at.storage)
    elif at.step == -1 and not isinstance(value, Pair):
        base = at.base - _last_lane(builder, env) * at.size
        builder.store(base, at.index, _turned(builder, value, env), at.size, at.disp,
                      limit(builder, env), at.storage)
    else:
        _store_lanes(builder, at, env, value)


def _store_lanes(builder: KernelBuilder, at: Place, env: Env, value: Value | Pair) -> None:
    """Lane by lane: each brought to lane 0 and stored from there."""
    index = at.index * 2 if at.step == 2 and at.size < 8 else at.index
    parts, wide = (value,), isinstance(value, Pair)
    if wide:
        parts = value.low, value.high
    count, own = _last_lane(builder, env) + 1, builder.lanes // len(parts)
    words = builder.emit(K.VAND, builder.emit(K.VLANES), builder.bits(1))
    for number, part in enumerate(parts):
        here = builder.emit(K.IMIN, count - number * own, builder.int(own)) if wide else count
        base = at.base + _stride(builder, at) * (number * own)
        with builder.loop(0, here, 1, base, name="lanes") as loop:
            lane = builder.emit(K.SPLAT, loop.iv * len(parts))
            lane = builder.emit(K.VIADD, lane, words) if wide else lane
            one = builder.emit(K.VPERM, part, lane)
            builder.emit(STORAGE[at.storage][K.STORE1], loop.phis[0], index, one,
                         imm=Mem(at.size, at.disp))
            loop.yields(loop.phis[0] + _stride(builder, at))


def store_one(builder: KernelBuilder, at: Place, value: Value | Pair) -> None:
    """Lane 0 to the address."""
    store1 = STORAGE[at.storage][K.STORE1]
    value = value.low if isinstance(value, Pair) else value
    builder.emit(store1, at.base, at.index, value, imm=Mem(at.size, at.disp))


def store_pair(builder: KernelBuilder, trace: OpTrace, target: Store, env: Env, even: Value,
               odd: Value) -> None:
    """param[index] = even and param[index + 1] = odd, where index steps by 2."""
    at = place(builder, trace, target.param, target.index, env)
    masks = _two_masks(builder, env, less=0)
    for number, vector in enumerate(interleave(builder, even, odd)):
        disp = at.disp + at.size * builder.lanes * number
        builder.store(at.base, at.index, vector, 2 * at.size, disp, masks[number], at.storage)


def deinterleave(builder: KernelBuilder, low: Value, high: Value) -> tuple[Value, Value]:
    """x0 x1 x2 x3 | x4 x5 x6 x7  ->  x0 x2 x4 x6 | x1 x3 x5 x7"""
    lanes = builder.lanes
    apart = (*range(0, lanes, 2), *range(1, lanes, 2))
    first, second = (builder.emit(K.PERMUTE, v, imm=apart) for v in (low, high))
    return _halves(builder, first, second)


def interleave(builder: KernelBuilder, even: Value, odd: Value) -> tuple[Value, Value]:
    """a0 a1 a2 a3 | b0 b1 b2 b3  ->  a0 b0 a1 b1 | a2 b2 a3 b3"""
    half = builder.lanes // 2
    together = tuple(lane // 2 + half * (lane % 2) for lane in range(builder.lanes))
    low, high = _halves(builder, even, odd)
    return (builder.emit(K.PERMUTE, low, imm=together),
            builder.emit(K.PERMUTE, high, imm=together))


def _halves(builder: KernelBuilder, a: Value, b: Value) -> tuple[Value, Value]:
    """The lower halves of a and b, and their upper halves."""
    blocks = builder.lanes // 4
    low = tuple(range(blocks // 2))
    high = tuple(range(blocks // 2, blocks))
    return (builder.emit(K.SHUF128, a, b, imm=low + low),
            builder.emit(K.SHUF128, a, b, imm=high + high))

