"""From values of a trace to values of a kernel, one vector at a time.

    lower(builder, trace, value, env) -> Value, or a Pair where lanes have 64 bits

computes body[value] at the lanes that `env` describes: `env.values` already holds what is known (a
Reduce the caller has accumulated, an invariant computed before the loop) and receives everything
else, so shared subexpressions are computed once. It serves as epilogue lowering: put the
accumulator at the Reduce's position and lower what the store wants.

Operations map one to one and keep their operand order, so ordered max and min choose under NaN and
zeros as the scalar function does. exp, sin, pow and their like expand into their rows in `approx`,
`trig` and `power`. A product is rounded before it is added, except where the trace itself says fma:
see `rewrite.contract`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..dtypes import SIZE
from ..errors import CompileError, UnsupportedOpError
from ..trace.affine import Affine
from ..trace.ir import KINDS, REDUCERS, WIDTH, Op, OpTrace, Store, TraceOp, bits_float, double_bits
from ..trace.render import render_value
from ..trace.spec import free_symbols, types
from .access import (
    Env, anchor, integer, lane_step, load, load_pair, place, storage_of, store, store_pair,
)
from .approx import PLUS, erf, exp, exp2, exp_plus, expm1, log, log1p, log2, split_sign, tanh
from .kernel import DOWN, TO_ZERO, UP, K, KernelBuilder, Pair, Value
from .power import power
from .trig import cos, sin

Lanes = Value | Pair

def lower(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Lanes:
    """body[value] at the lanes of `env`; new values are added to `env.values`."""
    if value not in env.values:
        node = trace.body[value]
        if node.op in LEAVES:
            with origin(builder, f"%{value} {node.op}"):
                env.values[value] = LEAVES[node.op](builder, trace, value, env)
        else:
            operation = operation_of(trace, value)
            args = [lower(builder, trace, a, env) for a in node.args]
            with origin(builder, f"%{value} {node.op}"):
                env.values[value] = operation(builder, *args)
    return env.values[value]


def operation_of(trace: OpTrace, value: int) -> Callable[..., Lanes]:
    """The row for the operation and the type of its last operand."""
    node = trace.body[value]
    kind = types(trace)[node.args[-1]]
    if (node.op, kind) not in OPERATIONS:
        raise UnsupportedOpError(
            f"{trace.name}: no vector code for {node.op} of {kind}, in "
            f"{render_value(trace, value)}; {REMEDIES.get(kind, 'write it in float')}")
    return OPERATIONS[node.op, kind]


def check_operations(trace: OpTrace) -> None:
    """UnsupportedOpError for the first value that no vector code computes."""
    for value, node in enumerate(trace.body):
        if node.op not in LEAVES:
            operation_of(trace, value)


@contextmanager
def origin(builder: KernelBuilder, text: str) -> Iterator[None]:
    """What is emitted inside carries `text` in listings."""
    outer, builder.origin = builder.origin, text
    yield
    builder.origin = outer


def lower_stores(builder: KernelBuilder, trace: OpTrace, stores: Iterable[Store],
                 env: Env) -> None:
    """All values first, then all stores: an element may be read and written by one kernel."""
    targets = tuple(stores)
    for target in targets:
        lower(builder, trace, target.value, env)
    for first, second in paired(trace, targets, env.lane):
        value = env.values[first.value]
        with origin(builder, f"{first.param}[{first.index}]"):
            if second is None:
                store(builder, trace, first, env, value)
            else:
                store_pair(builder, trace, first, env, value, env.values[second.value])


def paired(trace: OpTrace, stores: tuple[Store, ...],
           lane: str) -> tuple[tuple[Store, Store | None], ...]:
    """Stores at index and index + 1 that step by 2 belong together."""
    left = list(stores)
    groups: list[tuple[Store, Store | None]] = []
    while left:
        first = left.pop(0)
        wide = (lane_step(trace, first.param, first.index, lane) == 2
                and SIZE[storage_of(trace, first.param)] < 8)
        near = [s for s in left if wide and s.param == first.param
                and (s.index - first.index).constant in (1, -1)]
        if near:
            left.remove(near[0])
            groups.append((first, near[0]) if near[0].index == first.index + 1
                          else (near[0], first))
        else:
            groups.append((first, None))
    return tuple(groups)


def hoist(builder: KernelBuilder, trace: OpTrace, roots: Iterable[int], env: Env) -> Env:
    """`env` with everything below `roots` that is the same in all lanes, computed here.

    Call it before the loop over the lanes opens; addresses are left behind for it as well.
    """
    free = free_symbols(trace)
    known = env.at({env.lane: builder.int(0)} if env.lane else {})
    pending, seen = list(roots), set()
    while pending:
        position = pending.pop()
        node = trace.body[position]
        if position in seen or position in known.values:
            continue
        seen.add(position)
        if env.lane not in free[position]:
            if node.op not in (Op.CONST, Op.INT):
                lower(builder, trace, position, known)
        elif node.op is Op.LOAD:
            anchor(builder, trace, *node.imm, known, bool(partners(trace, position, env.lane)))
        elif node.op is not Op.REDUCE:
            pending.extend(node.args)
    return known


def hoist_stores(builder: KernelBuilder, trace: OpTrace, stores: Iterable[Store],
                 env: Env) -> Env:
    """`hoist` for what the stores want, and their addresses."""
    targets = tuple(stores)
    known = hoist(builder, trace, (s.value for s in targets), env)
    for target in targets:
        place(builder, trace, target.param, target.index, known)
    return known


def step(builder: KernelBuilder, trace: OpTrace, reduce: int, acc: Lanes, env: Env) -> Lanes:
    """One step of a Reduce: acc' = op(acc, term) in the operand order of its kind.

    A product that is summed goes into the accumulator by FMA: one rounding less than the scalar
    function, and a product just beyond the range does not become infinite on the way.
    """
    node, type_ = trace.body[reduce], types(trace)[reduce]
    kind, term = node.imm[0], trace.body[node.args[1]]
    fused = (kind in ("sum", "fma") and term.op is Op.MUL and type_ in ("f32", "f64")
             and node.args[1] not in env.values)
    wanted = term.args if fused else node.args[1:]
    args = [lower(builder, trace, value, env) for value in wanted]
    with origin(builder, f"%{reduce} {kind}"):
        if fused:
            return OPERATIONS[Op.FMA, type_](builder, *args, acc)
        return combine(builder, kind, type_, acc, *args)


def combine(builder: KernelBuilder, kind: str, type_: str, acc: Lanes, term: Lanes) -> Lanes:
    """acc' = op(acc, term) in the operand order of the kind; what was left of an fma is its sum."""
    reducer = REDUCERS["sum" if kind == "fma" else kind]
    pair = (term, acc) if reducer.flipped else (acc, term)
    return OPERATIONS[reducer.op, type_](builder, *pair)


def literal(builder: KernelBuilder, value: float, type_: str) -> Lanes:
    """A number in all lanes."""
    if type_ == "f64":
        return builder.bits64(double_bits(value))
    if type_ == "i64":
        return builder.bits64(int(value))
    return builder.const(value) if type_ == "f32" else builder.bits(int(value))


def _scalar(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    name = trace.body[value].imm
    if trace.param(name).ctype == "double":
        raise UnsupportedOpError(f"{trace.name}: the scalar {name} is a double; vector code takes "
                                 f"scalars as float, declare it `float {name}`")
    return builder.arg(name)


def _const(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Lanes:
    node = trace.body[value]
    wide = node.op in (Op.CONST64, Op.LONG)
    return builder.bits64(node.imm) if wide else builder.bits(node.imm)


def _index(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Lanes:
    """float(i*n + 3*lane): 32-bit integers, exact below 2^31 as in the source."""
    lanes = _index_lanes(builder, trace, value, env)
    op = trace.body[value].op
    if op is Op.INDEX64:
        return split(builder, K.I2D, lanes)
    return lanes if op is Op.INDEXI else builder.emit(K.VI2F, lanes)


def _index_lanes(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    index: Affine = trace.body[value].imm
    first = index.substitute({env.lane: Affine.sym(env.lane) + env.shift}) if env.lane else index
    lanes = builder.emit(K.SPLAT, integer(builder, first, env.binders))
    if env.lane in index.symbols:
        step = index.coefficient(env.lane).constant
        lanes = builder.emit(K.VIADD, lanes, _lane_numbers(builder, trace, index, step))
    return lanes


def _lane_numbers(builder: KernelBuilder, trace: OpTrace, index: Affine,
                  step: int | None) -> Value:
    numbers = builder.emit(K.VLANES)
    if step == 1:
        return numbers
    if step is not None:
        return builder.emit(K.VIMUL, numbers, builder.bits(step))
    raise CompileError(f"{trace.name}: the number {index} along the lanes needs a constant step")


def _load(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """A load by step; both halves of an interleaved pair become known together."""
    param, index = trace.body[value].imm
    pair = partners(trace, value, env.lane)
    if not pair:
        return load(builder, trace, param, index, env)
    even, odd = pair
    env.values[even], env.values[odd] = load_pair(builder, trace, *trace.body[even].imm, env)
    return env.values[value]


def partners(trace: OpTrace, value: int, lane: str) -> tuple[int, int] | None:
    """The loads at index and index + 1, stepping by 2, that `value` is one of."""
    param, index = trace.body[value].imm
    if lane_step(trace, param, index, lane) == 2 and SIZE[storage_of(trace, param)] < 8:
        for other in (1, -1):
            node = TraceOp(Op.LOAD, (), (param, index + other))
            if node in trace.body:
                found = trace.body.index(node)
                return (value, found) if other == 1 else (found, value)
    return None


def _fma(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """a*b + c, and c - a*b where the factor is a negation nobody else has computed."""
    a, b, c = trace.body[value].args
    type_, op = types(trace)[value], Op.FMA
    if type_ == "f32" and trace.body[a].op is Op.NEG and a not in env.values:
        a, op = trace.body[a].args[0], Op.NEG
    return FUSED[op, type_](builder, *(lower(builder, trace, v, env) for v in (a, b, c)))


def _sum(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Lanes:
    """exp(x) + c of a positive constant, the exp of this one use, in fewer instructions."""
    args = trace.body[value].args
    for power, constant in (args, args[::-1]):
        if _adds_to_exp(trace, power, constant) and power not in env.values:
            x = trace.body[power].args[0]
            negated = trace.body[x].op is Op.NEG and x not in env.values
            x = trace.body[x].args[0] if negated else x
            more = bits_float(trace.body[constant].imm)
            return exp_plus(builder, lower(builder, trace, x, env), more, negated)
    return operation_of(trace, value)(builder, *(lower(builder, trace, a, env) for a in args))


def _adds_to_exp(trace: OpTrace, power: int, constant: int) -> bool:
    exp_, number = trace.body[power], trace.body[constant]
    if exp_.op is not Op.EXP or number.op is not Op.CONST or types(trace)[power] != "f32":
        return False
    others = sum(node.args.count(power) for node in trace.body) + sum(
        s.value == power for s in trace.stores)
    return others == 1 and PLUS <= bits_float(number.imm) < float("inf")


def _product(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Lanes:
    """Of 64 bits from factors of 32: one instruction."""
    operation = operation_of(trace, value)
    args = trace.body[value].args
    values = [lower(builder, trace, a, env) for a in args]
    if types(trace)[value] == "i64":
        for op, wide in ((K.LMULS, Op.EXTEND), (K.LMULU, Op.UNSIGNED)):
            if all(_is_half(trace.body[a], wide) for a in args):
                operation = _halved(_plain(op))
    return operation(builder, *values)


def _low(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """The low word of an integer; of a float32 converted to 64 bits without going there.

    Below 2^31 that is the conversion to 32 bits. From there on the fraction is shifted left by its
    exponent, and a count of 32 or more leaves nothing, as out of range and NaN (2^63) do.
    """
    source = trace.body[trace.body[value].args[0]]
    if source.op is not Op.TOLONG or types(trace)[source.args[0]] != "f32":
        return operation_of(trace, value)(builder, lower(builder, trace, trace.body[value].args[0], env))
    x, emit, bits = lower(builder, trace, source.args[0], env), builder.emit, builder.bits
    exponent = emit(K.VSHR, emit(K.VSHL, x, imm=1), imm=24)
    count = emit(K.VISUB, exponent, bits(150))
    fraction = emit(K.VOR, emit(K.VAND, x, bits(0x7FFFFF)), bits(0x800000))
    sign = emit(K.VSAR, x, imm=31)
    large = emit(K.VISUB, emit(K.VXOR, emit(K.VSHLV, fraction, count), sign), sign)
    return emit(K.SELECT, emit(K.VILT, count, bits(8)), emit(K.VF2IT, x), large)


def _is_half(node: TraceOp, wide: Op) -> bool:
    low, high = (-1 << 31, 1 << 31) if wide is Op.EXTEND else (0, 1 << 32)
    return node.op is wide or (node.op is Op.LONG and low <= node.imm < high)


def _nest(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """A Reduce whose terms differ from lane to lane: a loop, each lane in the scalar's order."""
    node = trace.body[value]
    _, binder, extent = node.imm
    init = lower(builder, trace, node.args[0], env)
    with builder.loop(0, integer(builder, extent, env.binders), 1, *flat((init,)),
                      name=binder) as loop:
        inner = env.at({binder: loop.iv}, env.shift, env.count)
        (acc,) = grouped(loop.phis, (init,))
        loop.yields(*flat((step(builder, trace, value, acc, inner),)))
    return grouped(loop.results, (init,))[0]


def flat(values: Iterable[Lanes]) -> tuple[Value, ...]:
    """What a loop carries: a pair as two values."""
    return tuple(v for x in values
                 for v in ((x.low, x.high) if isinstance(x, Pair) else (x,)))


def grouped(values: Iterable[Value], like: Iterable[Lanes]) -> tuple[Lanes, ...]:
    """The inverse of `flat`, for values of these shapes."""
    rest = iter(values)
    return tuple(Pair(next(rest), next(rest)) if isinstance(x, Pair) else next(rest) for x in like)


def _plain(op: K, imm: object = None) -> Callable[..., Value]:
    return lambda builder, *args: builder.emit(op, *args, imm=imm)


# ---- lanes of 64 bits

def _halved(operation: Callable[..., Value]) -> Callable[..., Pair]:
    """The operation on both halves of its operands."""
    return lambda builder, *args: Pair(operation(builder, *(a.low for a in args)),
                                       operation(builder, *(a.high for a in args)))


def _compared(op: K) -> Callable[..., Value]:
    """One mask for all lanes from a comparison of both halves."""
    return lambda builder, *args: builder.emit(
        K.MJOIN, builder.emit(op, *(a.low for a in args)), builder.emit(op, *(a.high for a in args)))


def split(builder: KernelBuilder, op: K, x: Value) -> Pair:
    """Lanes of 32 bits converted to 64."""
    return Pair(builder.emit(op, x), builder.emit(op, builder.emit(K.UPPER, x)))


def _split(op: K) -> Callable[..., Pair]:
    return lambda builder, x: split(builder, op, x)


def _joined(op: K) -> Callable[..., Value]:
    """Lanes of 64 bits converted to 32."""
    return lambda builder, x: builder.emit(K.JOIN, builder.emit(op, x.low), builder.emit(op, x.high))


def _select64(builder: KernelBuilder, mask: Value, a: Pair, b: Pair) -> Pair:
    return Pair(builder.emit(K.SELECT64, builder.emit(K.MLOW, mask), a.low, b.low),
                builder.emit(K.SELECT64, builder.emit(K.MHIGH, mask), a.high, b.high))


def _larger64(swap: bool) -> Callable[..., Pair]:
    """The larger (smaller) of integers."""
    def operation(builder: KernelBuilder, a: Pair, b: Pair) -> Pair:
        less = _compared(K.LLT)(builder, a, b)
        return _select64(builder, less, *((a, b) if swap else (b, a)))
    return operation


def _with_bits(op: K, bits: int) -> Callable[..., Pair]:
    return lambda builder, x: _halved(_plain(op))(builder, x, builder.bits64(bits))


def _negated64(builder: KernelBuilder, x: Pair) -> Pair:
    return _halved(_plain(K.LSUB))(builder, builder.bits64(0), x)


def _absolute64(builder: KernelBuilder, x: Pair) -> Pair:
    return _larger64(False)(builder, x, _negated64(builder, x))


def _shift(width: int, fixed: K, free: K) -> Callable[..., Lanes]:
    """By a constant as an immediate, else lane by lane; the count modulo the width."""
    def operation(builder: KernelBuilder, x: Value, count: Value) -> Value:
        known = builder.constants.get(count.id)
        if known is not None:
            return builder.emit(fixed, x, imm=known & (width - 1))
        mask = builder.bits(31) if width == 32 else builder.bits64(63).low
        return builder.emit(free, x, builder.emit(K.VAND, count, mask))
    return operation if width == 32 else _halved(operation)


# ---- float32

def _round(builder: KernelBuilder, x: Value) -> Value:
    """trunc(x), and one further from zero where at least a half was cut off."""
    whole = builder.emit(K.VROUND, x, imm=TO_ZERO)
    size, _ = split_sign(builder, x - whole)
    unit = builder.emit(K.VOR, split_sign(builder, x)[1], builder.const(1.0))
    return _select(builder, builder.emit(K.VLE, builder.const(0.5), size), whole + unit, whole)


def _fmax(op: K, unordered: K, select: K) -> Callable[..., Value]:
    """vmax gives b when either is NaN, which is right unless b is the NaN."""
    return lambda builder, a, b: builder.emit(
        select, builder.emit(unordered, b, b), a, builder.emit(op, a, b))


def _select(builder: KernelBuilder, mask: Value, a: Value, b: Value) -> Value:
    return builder.emit(K.SELECT, mask, a, b)


def _same(builder: KernelBuilder, x: Lanes) -> Lanes:
    """The same bits, read as another type."""
    return x


SIGN, SIGN64 = 1 << 31, 1 << 63
# fmt: off
LEAVES: dict[Op, Callable[..., Lanes]] = {
    Op.CONST: _const, Op.CONST64: _const, Op.INT: _const, Op.LONG: _const, Op.SCALAR: _scalar,
    Op.INDEX: _index, Op.INDEX64: _index, Op.INDEXI: _index, Op.LOAD: _load,
    Op.ADD: _sum, Op.FMA: _fma, Op.MUL: _product, Op.LOW: _low, Op.REDUCE: _nest,
}

# one instruction of the kernel, by the type of the operands
#                f32       f64       i32       i64
PLAIN: dict[Op, tuple[K | None, ...]] = {
    Op.SQRT:   (K.VSQRT,  K.DSQRT,  None,     None),     # correctly rounded, as sqrtss
    Op.ADD:    (K.VADD,   K.DADD,   K.VIADD,  K.LADD),
    Op.SUB:    (K.VSUB,   K.DSUB,   K.VISUB,  K.LSUB),
    Op.MUL:    (K.VMUL,   K.DMUL,   K.VIMUL,  K.LMUL),
    Op.DIV:    (K.VDIV,   K.DDIV,   None,     None),     # correctly rounded, as divss
    Op.MAX:    (K.VMAX,   K.DMAX,   K.VIMAX,  None),
    Op.MIN:    (K.VMIN,   K.DMIN,   K.VIMIN,  None),
    Op.BITAND: (None,     None,     K.VAND,   K.VAND),
    Op.BITOR:  (None,     None,     K.VOR,    K.VOR),
    Op.BITXOR: (None,     None,     K.VXOR,   K.VXOR),
}
COMPARED: dict[Op, tuple[K | None, ...]] = {
    Op.LT:     (K.VLT,    K.DLT,    K.VILT,   K.LLT),
    Op.LE:     (K.VLE,    K.DLE,    None,     None),
    Op.EQ:     (K.VEQ,    K.DEQ,    K.VIEQ,   K.LEQ),
    Op.UNORD:  (K.VUNORD, K.DUNORD, None,     None),
}
SHIFTS = {Op.SHL: (K.VSHL, K.VSHLV, K.LSHL, K.LSHLV), Op.SHR: (K.VSHR, K.VSHRV, K.LSHR, K.LSHRV),
          Op.SAR: (K.VSAR, K.VSARV, K.LSAR, K.LSARV)}
ROUNDED = {Op.FLOOR: DOWN, Op.CEIL: UP, Op.TRUNC: TO_ZERO, Op.RINT: None}

# (operation, type of its last operand) -> what it emits
OPERATIONS: dict[tuple[Op, str], Callable[..., Lanes]] = {
    (Op.NEG, "f32"):   lambda b, x: b.emit(K.VXOR, x, b.bits(SIGN)),
    (Op.NEG, "f64"):   _with_bits(K.VXOR, SIGN64),
    (Op.NEG, "i32"):   lambda b, x: b.emit(K.VISUB, b.bits(0), x),
    (Op.NEG, "i64"):   _negated64,
    (Op.ABS, "f32"):   lambda b, x: b.emit(K.VAND, x, b.bits(SIGN - 1)),
    (Op.ABS, "f64"):   _with_bits(K.VAND, SIGN64 - 1),
    (Op.ABS, "i32"):   _plain(K.VIABS),
    (Op.ABS, "i64"):   _absolute64,
    (Op.EXP, "f32"): exp, (Op.LOG, "f32"): log, (Op.TANH, "f32"): tanh, (Op.ERF, "f32"): erf,
    (Op.SIN, "f32"): sin, (Op.COS, "f32"): cos, (Op.EXP2, "f32"): exp2, (Op.LOG2, "f32"): log2,
    (Op.LOG1P, "f32"): log1p, (Op.EXPM1, "f32"): expm1, (Op.POW, "f32"): power,
    (Op.ROUND, "f32"): _round,
    (Op.FMA, "f32"):   _plain(K.VFMA),
    (Op.FMA, "f64"):   _halved(_plain(K.DFMA)),
    (Op.MAX, "i64"):   _larger64(False),
    (Op.MIN, "i64"):   _larger64(True),
    (Op.FMAX, "f32"):  _fmax(K.VMAX, K.VUNORD, K.SELECT),
    (Op.FMIN, "f32"):  _fmax(K.VMIN, K.VUNORD, K.SELECT),
    (Op.FMAX, "f64"):  _halved(_fmax(K.DMAX, K.DUNORD, K.SELECT64)),
    (Op.FMIN, "f64"):  _halved(_fmax(K.DMIN, K.DUNORD, K.SELECT64)),
    (Op.NOT, "bool"):  _plain(K.MNOT),
    (Op.AND, "bool"):  _plain(K.MAND),
    (Op.OR, "bool"):   _plain(K.MOR),
    (Op.SELECT, "f32"): _select, (Op.SELECT, "i32"): _select,
    (Op.SELECT, "f64"): _select64, (Op.SELECT, "i64"): _select64,
    (Op.WIDEN, "f32"): _split(K.F2D),
    (Op.WIDEN, "i32"): _split(K.I2D),
    (Op.WIDEN, "i64"): _halved(_plain(K.L2D)),
    (Op.NARROW, "f64"): _joined(K.D2F),
    (Op.NARROW, "i32"): _plain(K.VI2F),
    (Op.NARROW, "i64"): _joined(K.L2F),
    (Op.HALF, "i32"):   _plain(K.VHALF),
    (Op.TOHALF, "f32"): _plain(K.VTOHALF),
    (Op.BFLOAT, "i32"): _plain(K.VSHL, 16),
    (Op.TOINT, "f32"):  _plain(K.VF2IT),
    (Op.TOINT, "f64"):  _joined(K.D2I),
    (Op.TOLONG, "f32"): lambda b, x: _halved(_plain(K.D2L))(b, split(b, K.F2D, x)),
    (Op.TOLONG, "f64"): _halved(_plain(K.D2L)),
    (Op.EXTEND, "i32"): _split(K.I2L),
    (Op.UNSIGNED, "i32"): _split(K.U2L),
    (Op.LOW, "i64"):    _joined(K.L2I),
    (Op.BITS, "f32"): _same, (Op.REAL, "i32"): _same,
    (Op.BITS64, "f64"): _same, (Op.REAL64, "i64"): _same,
}
# fmt: on
for _column, _kind in enumerate(KINDS):
    _wide = WIDTH[_kind] == 64
    for _rows, _form in ((PLAIN, _halved if _wide else lambda f: f), (COMPARED, None)):
        for _op, _row in _rows.items():
            _k = _row[_column]
            if _k is not None and _form is not None:
                OPERATIONS[_op, _kind] = _form(_plain(_k))
            elif _k is not None:
                OPERATIONS[_op, _kind] = _compared(_k) if _wide else _plain(_k)
for _op, (_fixed, _free, _fixed64, _free64) in SHIFTS.items():
    OPERATIONS[_op, "i32"] = _shift(32, _fixed, _free)
    OPERATIONS[_op, "i64"] = _shift(64, _fixed64, _free64)
for _op, _mode in ROUNDED.items():
    OPERATIONS[_op, "f32"] = _plain(K.VROUND, _mode)
    OPERATIONS[_op, "f64"] = _halved(_plain(K.DROUND, _mode))
FUSED = {(Op.FMA, "f32"): OPERATIONS[Op.FMA, "f32"], (Op.FMA, "f64"): OPERATIONS[Op.FMA, "f64"],
         (Op.NEG, "f32"): _plain(K.VFNMA)}
REMEDIES = {"f64": "in double there are + - * /, sqrt, fma, rounding, comparisons, min and max; "
                   "write this part in float (expf, not exp), or run with GLLM_ISA=scalar"}
