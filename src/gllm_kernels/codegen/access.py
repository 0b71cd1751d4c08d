"""Loads and stores of a trace as vectors: what an index means along the lanes.

    x[i0*s + i1 + 3]  at lane i1     base = x + 4*(i0*s), index = i1, disp = 12     step 1
    x[2*i1], x[2*i1 + 1]             two vectors, taken apart into even and odd     step 2
    w[i0]                            one element in all lanes                       step 0

The step is the coefficient of the lane's binder, which must be one of these constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..dtypes import SIZE
from ..errors import CompileError
from ..trace.affine import Affine
from ..trace.ir import OpTrace, Store
from .kernel import STORAGE, K, KernelBuilder, Mem, Value


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
    values: dict[int, Value] = field(default_factory=dict)

    def at(self, binders: Mapping[str, Value], shift: int = 0, count: Value | None = None) -> Env:
        """Another point; what is known here is known there, and nothing flows back."""
        return replace(self, binders={**self.binders, **binders}, shift=shift, count=count,
                       values=dict(self.values))


@dataclass(frozen=True, slots=True)
class Place:
    """The address of lane 0: base + index*scale + disp; `step` elements from lane to lane.

    `storage` is the type of the elements in memory, `size` their bytes: the scale at step 1.
    """

    base: Value
    index: Value
    disp: int
    step: int
    storage: str = "float"

    @property
    def size(self) -> int:
        return SIZE[self.storage]


def storage_of(trace: OpTrace, param: str) -> str:
    """How the elements of an array lie in memory; a returned number is a float."""
    return next((p.ctype for p in trace.params if p.name == param), "float")


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


def lane_step(trace: OpTrace, param: str, index: Affine, lane: str) -> int:
    """The constant coefficient of the lane's binder: 0, 1 or 2."""
    step = index.coefficient(lane).constant if lane else 0
    if step not in (0, 1, 2):
        raise CompileError(
            f"{trace.name}: {param}[{index}] steps by {index.coefficient(lane)} elements along "
            f"{lane}, vectors need 1 (or 2, or 0); make {param} contiguous along its last axis"
        )
    return step


def place(builder: KernelBuilder, trace: OpTrace, param: str, index: Affine, env: Env) -> Place:
    """The address of lane 0. Call it before a loop opens to keep the base out of the loop."""
    step = lane_step(trace, param, index, env.lane)
    rest = index.without(env.lane)
    constant = sum(c for c, mono in rest.terms if not mono)
    offset = rest - constant
    base, storage = builder.arg(param), storage_of(trace, param)
    size = SIZE[storage]
    if not step:
        return Place(base, integer(builder, offset, env.binders), size * constant, 0, storage)
    if offset.terms:
        base = base + integer(builder, offset, env.binders) * size
    return Place(base, env.binders[env.lane], size * (constant + step * env.shift), step, storage)


def limit(builder: KernelBuilder, env: Env) -> Value | None:
    """The mask of the lanes that exist, or None for all."""
    return None if env.count is None else builder.emit(K.FIRST, env.count)


def load(builder: KernelBuilder, trace: OpTrace, param: str, index: Affine, env: Env) -> Value:
    """The vector param[index]; step 2 takes the even elements and reads none behind the last."""
    at = place(builder, trace, param, index, env)
    if at.step == 0:
        return builder.broadcast(at.base, at.index, at.size, at.disp, at.storage)
    if at.step == 1:
        mask = limit(builder, env)
        return builder.load(at.base, at.index, at.size, at.disp, mask, at.storage)
    return deinterleave(builder, *_two_vectors(builder, at, env, less=1))[0]


def load_pair(builder: KernelBuilder, trace: OpTrace, param: str, index: Affine,
              env: Env) -> tuple[Value, Value]:
    """The vectors param[index] and param[index + 1], where index steps by 2."""
    at = place(builder, trace, param, index, env)
    return deinterleave(builder, *_two_vectors(builder, at, env, less=0))


def _two_vectors(builder: KernelBuilder, at: Place, env: Env, less: int) -> tuple[Value, Value]:
    low, high = _two_masks(builder, env, less)
    place, far = (at.base, at.index, 2 * at.size), at.disp + at.size * builder.lanes
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
    if place(builder, trace, param, index, env).step == 2 and not paired:
        _two_masks(builder, env, less=1)


def store(builder: KernelBuilder, trace: OpTrace, target: Store, env: Env, value: Value) -> None:
    """param[index] = value for the lanes that exist; lane 0 alone when no binder runs along them."""
    at = place(builder, trace, target.param, target.index, env)
    if at.step == 1:
        mask = limit(builder, env)
        builder.store(at.base, at.index, value, at.size, at.disp, mask, at.storage)
    elif at.step == 0 and not env.lane:
        store_one(builder, at, value)
    else:
        raise CompileError(
            f"{trace.name}: the store {target.param}[{target.index}] steps by {at.step} elements "
            f"along {env.lane}; vectors need 1, or a second store at the index between"
        )


def store_one(builder: KernelBuilder, at: Place, value: Value) -> None:
    """Lane 0 to the address."""
    store1 = STORAGE[at.storage][K.STORE1]
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

