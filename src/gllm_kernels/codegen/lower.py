"""From values of a trace to values of a kernel, one vector at a time.

    lower(builder, trace, value, env) -> Value

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

from ..errors import CompileError, UnsupportedOpError
from ..trace.affine import Affine
from ..trace.ir import Op, OpTrace, Store, TraceOp
from ..trace.spec import free_symbols
from .access import Env, anchor, integer, lane_step, load, load_pair, place, store, store_pair
from .approx import erf, exp, exp2, expm1, log, log1p, log2, split_sign, tanh
from .kernel import DOWN, TO_ZERO, UP, K, KernelBuilder, Value
from .power import power
from .trig import cos, sin

SIGN = 0x80000000
# arrays that traces may read and fused code does not: `lift.data.ELEMENTS`
INTEGERS = frozenset(f"{u}int{n}_t" for u in ("", "u") for n in (8, 16, 32, 64)) | {
    "int", "unsigned", "long", "size_t", "short", "bool", "_Bool", "unsigned char", "signed char"}


def lower(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """body[value] at the lanes of `env`; new values are added to `env.values`."""
    if value not in env.values:
        node = trace.body[value]
        if node.op in LEAVES:
            with origin(builder, f"%{value} {node.op}"):
                env.values[value] = LEAVES[node.op](builder, trace, value, env)
        else:
            if node.op not in OPERATIONS:
                raise UnsupportedOpError(f"{trace.name}: no vector code for the operation {node.op}"
                                         f" (%{value}); operations are rows in codegen/lower.py")
            args = [lower(builder, trace, a, env) for a in node.args]
            with origin(builder, f"%{value} {node.op}"):
                env.values[value] = OPERATIONS[node.op](builder, *args)
    return env.values[value]


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
        wide = lane_step(trace, first.param, first.index, lane) == 2
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
            if node.op is not Op.CONST:
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


def step(builder: KernelBuilder, trace: OpTrace, reduce: int, acc: Value, env: Env) -> Value:
    """One step of a Reduce: acc' = op(acc, term) in the operand order of its kind.

    A product that is summed goes into the accumulator by FMA: one rounding less than the scalar
    function, and a product just beyond the range does not become infinite on the way.
    """
    node = trace.body[reduce]
    kind, term = node.imm[0], trace.body[node.args[1]]
    fused = kind in ("sum", "fma") and term.op is Op.MUL and node.args[1] not in env.values
    wanted = term.args if fused else node.args[1:]
    args = [lower(builder, trace, value, env) for value in wanted]
    with origin(builder, f"%{reduce} {kind}"):
        return builder.emit(K.VFMA, *args, acc) if fused else STEPS[kind](builder, acc, *args)


def _scalar(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    return builder.arg(trace.body[value].imm)


def _const(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    return builder.bits(trace.body[value].imm)


def _index(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """float(i*n + 3*lane): 32-bit integers, exact below 2^31 as in the source."""
    index: Affine = trace.body[value].imm
    first = index.substitute({env.lane: Affine.sym(env.lane) + env.shift}) if env.lane else index
    lanes = builder.emit(K.SPLAT, integer(builder, first, env.binders))
    if env.lane in index.symbols:
        step = index.coefficient(env.lane).constant
        lanes = builder.emit(K.VIADD, lanes, _lane_numbers(builder, trace, index, step))
    return builder.emit(K.VI2F, lanes)


def _lane_numbers(builder: KernelBuilder, trace: OpTrace, index: Affine,
                  step: int | None) -> Value:
    numbers = builder.emit(K.VLANES)
    if step == 1:
        return numbers
    if step is not None and step > 0 and step & (step - 1) == 0:
        return builder.emit(K.VSHL, numbers, imm=step.bit_length() - 1)
    raise CompileError(f"{trace.name}: float({index}) along the lanes needs a step that is a "
                       "power of two")


def _load(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """A load by step; both halves of an interleaved pair become known together."""
    param, index = trace.body[value].imm
    if trace.param(param).ctype in ("double", *INTEGERS):
        raise UnsupportedOpError(f"{trace.name}: no vector code for loads from {param}, an array of "
                                 f"{trace.param(param).ctype}; fused code reads arrays of float")
    pair = partners(trace, value, env.lane)
    if not pair:
        return load(builder, trace, param, index, env)
    even, odd = pair
    env.values[even], env.values[odd] = load_pair(builder, trace, *trace.body[even].imm, env)
    return env.values[value]


def partners(trace: OpTrace, value: int, lane: str) -> tuple[int, int] | None:
    """The loads at index and index + 1, stepping by 2, that `value` is one of."""
    param, index = trace.body[value].imm
    if lane_step(trace, param, index, lane) == 2:
        for other in (1, -1):
            node = TraceOp(Op.LOAD, (), (param, index + other))
            if node in trace.body:
                found = trace.body.index(node)
                return (value, found) if other == 1 else (found, value)
    return None


def _fma(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """a*b + c, and c - a*b where the factor is a negation nobody else has computed."""
    a, b, c = trace.body[value].args
    op = K.VFMA
    if trace.body[a].op is Op.NEG and a not in env.values:
        a, op = trace.body[a].args[0], K.VFNMA
    return builder.emit(op, *(lower(builder, trace, v, env) for v in (a, b, c)))


def _nest(builder: KernelBuilder, trace: OpTrace, value: int, env: Env) -> Value:
    """A Reduce whose terms differ from lane to lane: a loop, each lane in the scalar's order."""
    node = trace.body[value]
    _, binder, extent = node.imm
    init = lower(builder, trace, node.args[0], env)
    with builder.loop(0, integer(builder, extent, env.binders), 1, init, name=binder) as loop:
        inner = env.at({binder: loop.iv}, env.shift, env.count)
        loop.yields(step(builder, trace, value, loop.phis[0], inner))
    return loop.results[0]


def _plain(op: K, imm: object = None) -> Callable[..., Value]:
    return lambda builder, *args: builder.emit(op, *args, imm=imm)


def _round(builder: KernelBuilder, x: Value) -> Value:
    """trunc(x), and one further from zero where at least a half was cut off."""
    whole = builder.emit(K.VROUND, x, imm=TO_ZERO)
    size, _ = split_sign(builder, x - whole)
    unit = builder.emit(K.VOR, split_sign(builder, x)[1], builder.const(1.0))
    return _select(builder, builder.emit(K.VLE, builder.const(0.5), size), whole + unit, whole)


def _fmax(builder: KernelBuilder, a: Value, b: Value, op: K = K.VMAX) -> Value:
    """vmax gives b when either is NaN, which is right unless b is the NaN."""
    return _select(builder, builder.emit(K.VUNORD, b, b), a, builder.emit(op, a, b))


def _select(builder: KernelBuilder, mask: Value, a: Value, b: Value) -> Value:
    return builder.emit(K.SELECT, mask, a, b)


# fmt: off
LEAVES: dict[Op, Callable[..., Value]] = {
    Op.CONST: _const, Op.SCALAR: _scalar, Op.INDEX: _index, Op.LOAD: _load,
    Op.FMA: _fma, Op.REDUCE: _nest,
}

OPERATIONS: dict[Op, Callable[..., Value]] = {
    Op.NEG:   lambda b, x: b.emit(K.VXOR, x, b.bits(SIGN)),
    Op.ABS:   lambda b, x: b.emit(K.VAND, x, b.bits(SIGN - 1)),
    Op.SQRT:  _plain(K.VSQRT),   # correctly rounded, as sqrtss
    Op.EXP:   exp,
    Op.LOG:   log,
    Op.TANH:  tanh,
    Op.ERF:   erf,
    Op.SIN:   sin,
    Op.COS:   cos,
    Op.EXP2:  exp2,
    Op.LOG2:  log2,
    Op.LOG1P: log1p,
    Op.EXPM1: expm1,
    Op.POW:   power,
    Op.FLOOR: _plain(K.VROUND, DOWN),
    Op.CEIL:  _plain(K.VROUND, UP),
    Op.TRUNC: _plain(K.VROUND, TO_ZERO),
    Op.RINT:  _plain(K.VROUND),
    Op.ROUND: _round,
    Op.ADD:   _plain(K.VADD),
    Op.SUB:   _plain(K.VSUB),
    Op.MUL:   _plain(K.VMUL),
    Op.DIV:   _plain(K.VDIV),    # correctly rounded, as divss
    Op.MAX:   _plain(K.VMAX),
    Op.MIN:   _plain(K.VMIN),
    Op.FMAX:  _fmax,
    Op.FMIN:  lambda b, x, y: _fmax(b, x, y, K.VMIN),
    Op.LT:    _plain(K.VLT),
    Op.LE:    _plain(K.VLE),
    Op.EQ:    _plain(K.VEQ),
    Op.UNORD: _plain(K.VUNORD),
    Op.NOT:   _plain(K.MNOT),
    Op.AND:   _plain(K.MAND),
    Op.OR:    _plain(K.MOR),
    Op.SELECT: _select,
}

# acc, term -> acc'; the order of the operands is that of `trace.ir.REDUCERS`
STEPS: dict[str, Callable[..., Value]] = {
    "sum":     lambda b, acc, term: b.emit(K.VADD, acc, term),
    "prod":    lambda b, acc, term: b.emit(K.VMUL, acc, term),
    "max":     lambda b, acc, term: b.emit(K.VMAX, term, acc),
    "max_acc": lambda b, acc, term: b.emit(K.VMAX, acc, term),
    "min":     lambda b, acc, term: b.emit(K.VMIN, term, acc),
    "min_acc": lambda b, acc, term: b.emit(K.VMIN, acc, term),
    "fmax":    lambda b, acc, term: _fmax(b, term, acc),
    "fmin":    lambda b, acc, term: _fmax(b, term, acc, K.VMIN),
    "fma":     lambda b, acc, term: b.emit(K.VADD, acc, term),
}
# fmt: on
