"""What a well-formed trace is. `check(trace)` names the operation, its position, got and wanted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import CompileError
from .affine import Affine
from ..dtypes import arithmetic
from .ir import INDICES, INTEGERS, KINDS, REDUCERS, TABLE, Op, OpTrace, Store, TraceOp

# operand types where they are not numbers of one type
OPERANDS: dict[Op, tuple[str, ...]] = {
    Op.NOT: ("bool",),
    Op.AND: ("bool", "bool"),
    Op.OR: ("bool", "bool"),
    Op.SELECT: ("bool", "number", "number"),
    Op.WIDEN: ("f32 or int",),
    Op.NARROW: ("f64 or int",),
    Op.HALF: ("i32",), Op.BFLOAT: ("i32",), Op.TOHALF: ("f32",),
    Op.TOINT: ("float",), Op.TOLONG: ("float",),
    Op.EXTEND: ("i32",), Op.UNSIGNED: ("i32",), Op.LOW: ("i64",),
    Op.BITS: ("f32",), Op.BITS64: ("f64",), Op.REAL: ("i32",), Op.REAL64: ("i64",),
    **dict.fromkeys((Op.BITAND, Op.BITOR, Op.BITXOR, Op.SHL, Op.SHR, Op.SAR), ("int", "int")),
    **dict.fromkeys((Op.ADD, Op.SUB, Op.MUL, Op.MAX, Op.MIN, Op.LT, Op.LE, Op.EQ, Op.REDUCE),
                    ("number", "number")),
    Op.NEG: ("number",), Op.ABS: ("number",),
}
MEMBERS = {"float": ("f32", "f64"), "int": INTEGERS, "number": KINDS,
           "f32 or int": ("f32", *INTEGERS), "f64 or int": ("f64", *INTEGERS)}
ALIKE = ("float", "int", "number")  # operands of these are of one type
ROLES = ("in", "out", "inout", "dim", "scalar")
STRIDE = re.compile(r"(.+)\.s\d+")


def check(trace: OpTrace) -> OpTrace:
    """Return `trace`, or raise CompileError with the first thing that is wrong with it."""
    for problem in problems(trace):
        raise CompileError(f"{trace.name}: {problem}")
    return trace


def problems(trace: OpTrace) -> Iterator[str]:
    """Everything that is wrong, in the order of the text."""
    yield from _params(trace)
    yield from _binders(trace)
    kinds: list[str] = []
    for position, node in enumerate(trace.body):
        kinds.append(type_of(trace, node, [kinds[a] for a in node.args if a < len(kinds)]))
        where = f"body[{position}] {node.op}"
        for problem in (*_shape(trace, position, node, kinds), *_immediate(trace, node)):
            yield f"{where}: {problem}"
            return  # later checks rely on well-formed values
    free, kinds = free_symbols(trace), types(trace)
    for number, store in enumerate(trace.stores):
        for problem in _store(trace, store, free, kinds):
            yield f"stores[{number}] {store.param}: {problem}"


def free_symbols(trace: OpTrace) -> list[frozenset[str]]:
    """For every value, the symbols it depends on that no Reduce below it binds."""
    free: list[frozenset[str]] = []
    for node in trace.body:
        own = immediate_symbols(node)
        if node.op is Op.REDUCE:
            init, term = (free[a] for a in node.args)
            free.append(own | init | (term - {node.imm[1]}))
        else:
            free.append(own.union(*(free[a] for a in node.args)))
    return free


def symbols(trace: OpTrace) -> frozenset[str]:
    """Every symbol of an index, an extent or a value."""
    indices = [a for s in trace.stores for a in (s.index, *(e for _, e in s.domain))]
    own = frozenset().union(*map(immediate_symbols, trace.body))
    return own.union(*(a.symbols for a in indices))


def immediate_symbols(node: TraceOp) -> frozenset[str]:
    """Symbols in the index of a load, the value of an index, the extent of a reduce."""
    if node.op is Op.LOAD:
        return node.imm[1].symbols
    if node.op in INDICES:
        return node.imm.symbols
    return node.imm[2].symbols if node.op is Op.REDUCE else frozenset()


def _params(trace: OpTrace) -> Iterator[str]:
    names = [p.name for p in trace.params]
    for param in trace.params:
        if param.role not in ROLES:
            yield f"param {param.name}: got role {param.role!r}, wanted one of {', '.join(ROLES)}"
        if names.count(param.name) > 1:
            yield f"param {param.name}: declared more than once"


def _binders(trace: OpTrace) -> Iterator[str]:
    reduces = [n.imm[1] for n in trace.body if n.op is Op.REDUCE and _is_reduce(n.imm)]
    domain = {b for s in trace.stores for b, _ in s.domain}
    for binder in sorted({b for b in reduces if reduces.count(b) > 1}):
        yield f"binder {binder}: bound by more than one reduce"
    for binder in sorted(domain & set(reduces)):
        yield f"binder {binder}: bound by a reduce and by a store"
    for binder in sorted((domain | set(reduces)) & {p.name for p in trace.params}):
        yield f"binder {binder}: is also the name of a param"


_latest: tuple[OpTrace | None, list[str]] = None, []


def types(trace: OpTrace) -> list[str]:
    """f32, f64, i32, i64 or bool for every value; the latest trace's are kept, as a generator asks
    for every value anew."""
    global _latest
    known, found = _latest
    if known is not trace:
        found = []
        for node in trace.body:
            found.append(type_of(trace, node, [found[a] for a in node.args if a < len(found)]))
        _latest = trace, found
    return found


def type_of(trace: OpTrace, node: TraceOp, args: list[str]) -> str:
    result = TABLE[node.op].result
    if result == "same":
        return args[-1] if args else "f32"
    if result == "param":
        return kind_of(trace, node.imm[0] if isinstance(node.imm, tuple) else node.imm)
    return result


def kind_of(trace: OpTrace, param: object) -> str:
    """The type of an element of an array, or of a scalar."""
    ctype = next((p.ctype for p in trace.params if p.name == param), "float")
    return arithmetic(ctype)


def _shape(
    trace: OpTrace, position: int, node: TraceOp, kinds: list[str]
) -> Iterator[str]:
    wanted = OPERANDS.get(node.op, ("float",) * TABLE[node.op].arity)
    if len(node.args) != len(wanted):
        yield f"got {len(node.args)} operands, wanted {len(wanted)}"
        return
    found: set[str] = set()
    for number, (arg, kind) in enumerate(zip(node.args, wanted, strict=True)):
        if not 0 <= arg < position:
            yield f"operand {number} is position {arg}, wanted one below {position}"
        elif kinds[arg] not in MEMBERS.get(kind, (kind,)):
            yield f"operand {number} is {kinds[arg]}, wanted {kind}"
        elif kind in ALIKE:
            found.add(kinds[arg])
    if len(found) > 1:
        yield f"operands are {' and '.join(sorted(found))}, wanted one of them"


def _immediate(trace: OpTrace, node: TraceOp) -> Iterator[str]:
    rule = IMMEDIATES.get(node.op)
    if rule is None:
        if node.imm is not None:
            yield f"got immediate {node.imm!r}, wanted none"
    elif not rule(trace, node):
        yield f"got immediate {node.imm!r}, wanted {TABLE[node.op].imm}"


def _is_load(trace: OpTrace, node: TraceOp) -> bool:
    arrays = trace.names("in", "out", "inout")
    pair = isinstance(node.imm, tuple) and len(node.imm) == 2
    return pair and node.imm[0] in arrays and isinstance(node.imm[1], Affine)


def _is_reduce(imm: object) -> bool:
    triple = isinstance(imm, tuple) and len(imm) == 3
    return triple and imm[0] in REDUCERS and isinstance(imm[1], str) and isinstance(imm[2], Affine)


def _reduce(trace: OpTrace, node: TraceOp) -> bool:
    product = trace.body[node.args[1]].op is Op.MUL
    return _is_reduce(node.imm) and (node.imm[0] != "fma" or product)


IMMEDIATES = {
    Op.CONST: lambda trace, node: isinstance(node.imm, int) and 0 <= node.imm < 1 << 32,
    Op.CONST64: lambda trace, node: isinstance(node.imm, int) and 0 <= node.imm < 1 << 64,
    Op.INDEX64: lambda trace, node: isinstance(node.imm, Affine),
    Op.INDEXI: lambda trace, node: isinstance(node.imm, Affine),
    Op.INT: lambda trace, node: isinstance(node.imm, int) and -1 << 31 <= node.imm < 1 << 31,
    Op.LONG: lambda trace, node: isinstance(node.imm, int) and -1 << 63 <= node.imm < 1 << 63,
    Op.SCALAR: lambda trace, node: node.imm in trace.names("scalar"),
    Op.INDEX: lambda trace, node: isinstance(node.imm, Affine),
    Op.LOAD: _is_load,
    Op.REDUCE: _reduce,
}


def _store(
    trace: OpTrace, store: Store, free: list[frozenset[str]], kinds: list[str]
) -> Iterator[str]:
    if store.param == "return":
        if store.domain or store.index.terms:
            yield "a returned value has no domain and no index"
    elif store.param not in trace.names("out", "inout"):
        yield "is not an out or inout param"
    if not 0 <= store.value < len(trace.body):
        yield f"value is position {store.value}, wanted one below {len(trace.body)}"
        return
    wanted = KINDS if store.param == "return" else (kind_of(trace, store.param),)
    if kinds[store.value] not in wanted:
        yield f"value is {kinds[store.value]}, wanted {' or '.join(wanted)}"
    binders = [b for b, _ in store.domain]
    if len(set(binders)) < len(binders):
        yield f"binders {', '.join(binders)} are not distinct"
    known = set(binders)
    for symbol in sorted((free[store.value] | store.index.symbols) - known):
        if not is_size(trace, symbol):
            yield f"symbol {symbol} is neither a dimension, a stride nor a bound binder"
    for binder, extent in store.domain:
        for symbol in sorted(s for s in extent.symbols if not is_size(trace, s)):
            yield f"extent of {binder} depends on {symbol}, which is not a dimension"


def is_size(trace: OpTrace, symbol: str) -> bool:
    """Whether `symbol` is a dimension or the stride of a param ("x.s0")."""
    stride = STRIDE.fullmatch(symbol)
    params = {p.name: p.role for p in trace.params}
    return stride[1] in params if stride else params.get(symbol) == "dim"
