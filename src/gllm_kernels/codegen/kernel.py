"""Kernel IR: structured loops over vector SSA values, between the trace and machine code.

    Kernel ::= name(params) { Stmt* }
    Stmt   ::= Inst(dst = op args, imm)
             | Loop(iv from lo below hi by step, carrying phis) { Stmt* yields }
             | If(lhs < rhs) { Stmt* }

A value is an integer id, defined once. Its type is I64 (counters, addresses, masks of sizes), VEC
(`lanes` 32-bit lanes, float or integer bits, or half as many of 64) or MASK (one bit per lane). A kernel knows nothing of
registers; `lanes` is the only thing it knows of the instruction set.

Every kernel has the signature  void kernel(const int64_t *args, int64_t begin, int64_t end,
void *scratch)  where `args` holds one 8-byte slot per param. So a kernel can call another: a
`Routine` is one that others call, with slots they wrote to scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ..trace.affine import Affine
from ..trace.ir import float_bits
from .operations import (  # noqa: F401  (known by this name)
    DOWN, FOLD, I64, MASK, NEUTRAL, SIDE_EFFECTS, STORAGE, STORES, TABLE,
    SUFFIXES, TO_ZERO, UP, VEC, VOID, WITHIN, WRITES, K, Row,
)

@dataclass(frozen=True, slots=True)
class Mem:
    """How an address is formed: base + index*scale + disp bytes; scale is 1, 2, 4 or 8."""

    scale: int = 4
    disp: int = 0
    level: int = 0


@dataclass(frozen=True, slots=True)
class Inst:
    """dst = op(args); `origin` says which trace value or stage asked for it."""

    dst: int
    op: K
    args: tuple[int, ...] = ()
    imm: object = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Loop:
    """for (iv = lo; iv < hi; iv += step): phis start as inits and take the yields each round.

    After the loop `results` hold the last phis. `lo`, `hi` and `inits` are values; `step` is a
    positive constant.
    """

    iv: int
    lo: int
    hi: int
    step: int
    inits: tuple[int, ...]
    phis: tuple[int, ...]
    body: tuple[Stmt, ...]
    yields: tuple[int, ...]
    results: tuple[int, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class If:
    """Run the body when lhs < rhs (signed)."""

    lhs: int
    rhs: int
    body: tuple[Stmt, ...]


Stmt = Inst | Loop | If


@dataclass(frozen=True, slots=True)
class KParam:
    """One slot of `args`. kind: ptr | i64 | f32."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A whole kernel. `units` and `scratch` are polynomials over its i64 params."""

    name: str
    lanes: int
    params: tuple[KParam, ...]
    body: tuple[Stmt, ...]
    units: Affine  # how many units a full call covers: begin, end lie in [0, units]
    grain: int  # units per tile handed to a thread; tiles start at multiples of it
    unit: str = "element"  # what one unit is, in words
    scratch: Affine = field(default_factory=Affine)  # bytes of scratch per thread

    def __str__(self) -> str:
        from .render import render

        return render(self)


@dataclass(frozen=True, slots=True)
class Routine:
    """A kernel that other kernels call: `make(*args)`. Equal routines are one piece of work."""

    name: str
    make: Callable[..., Kernel]
    args: tuple = ()

    @property
    def kernel(self) -> Kernel:
        return _made(self)

    def __str__(self) -> str:
        return self.name


@lru_cache(256)
def _made(routine: Routine) -> Kernel:
    return routine.make(*routine.args)


@dataclass(slots=True, eq=False)  # frozen costs a third of the time a generator takes
class Value:
    """A value under construction; arithmetic on it appends to its builder."""

    builder: KernelBuilder
    id: int
    type: str

    def __add__(self, other: Value | int | float) -> Value:
        return self.builder.binary(K.IADD, K.VADD, self, other)

    def __sub__(self, other: Value | int | float) -> Value:
        return self.builder.binary(K.ISUB, K.VSUB, self, other)

    def __mul__(self, other: Value | int | float) -> Value:
        return self.builder.binary(K.IMUL, K.VMUL, self, other)

    def __truediv__(self, other: Value | float) -> Value:
        return self.builder.binary(K.IDIV, K.VDIV, self, other)

    def __and__(self, other: Value | int) -> Value:
        return self.builder.binary(K.IAND, K.VAND, self, other)


@dataclass(frozen=True, slots=True)
class Pair:
    """`lanes` lanes of 64 bits: the lower half of them and the upper one."""

    low: Value
    high: Value


class LoopScope:
    """What `with builder.loop(...) as loop:` gives: `iv`, `phis`, `yields(...)`, later `results`."""

    def __init__(self, iv: Value, phis: tuple[Value, ...]) -> None:
        self.iv, self.phis = iv, phis
        self.yielded: tuple[Value, ...] = ()
        self.results: tuple[Value, ...] = ()

    def yields(self, *values: Value) -> None:
        self.yielded = values


class KernelBuilder:
    """Appends statements; `build` returns the frozen kernel.

    Integer, constant and argument leaves are hash-consed per open region, so asking twice for the
    same constant costs nothing.
    """

    def __init__(self, name: str, lanes: int, params: tuple[KParam, ...]) -> None:
        self.name, self.lanes, self.params = name, lanes, params
        self.regions: list[list[Stmt]] = [[]]
        self.known: dict[tuple, Value] = {}  # pure operations of the open regions
        self.scopes: list[list[tuple]] = [[]]  # which of them each region added
        self.integers: dict[int, int] = {}  # values of constants
        self.constants: dict[int, int] = {}  # bits of vector constants
        self.count = 0
        self.origin = ""

    # -- values ---------------------------------------------------------------------------------
    def fresh(self, type_: str) -> Value:
        self.count += 1
        return Value(self, self.count - 1, type_)

    def emit(self, op: K, *args: Value, imm: object = None) -> Value:
        """Append `op`; pure operations already available in an open region are reused."""
        ids = tuple([a.id for a in args])
        key = (op, ids, imm)
        if key in self.known:
            return self.known[key]
        value = self.fresh(TABLE[op].result)
        self.regions[-1].append(Inst(value.id, op, ids, imm, self.origin))
        if op not in IMPURE:
            self.known[key] = value
            self.scopes[-1].append(key)
        return value

    def binary(self, iop: K, vop: K, a: Value, b: Value | int | float) -> Value:
        if a.type != I64:
            return self.emit(vop, a, b if isinstance(b, Value) else self.const(float(b)))
        b = b if isinstance(b, Value) else self.int(int(b))
        known = self.integers.get(a.id), self.integers.get(b.id)
        if None not in known and iop in FOLD:
            return self.int(FOLD[iop](*known))
        if iop is K.IMUL and 0 in known:
            return self.int(0)
        if known[1] is not None and known[1] == NEUTRAL.get(iop):
            return a
        if known[0] is not None and known[0] == NEUTRAL.get(iop) and iop is not K.ISUB:
            return b
        return self.emit(iop, a, b)

    def int(self, value: int) -> Value:
        result = self.emit(K.ICONST, imm=value)
        self.integers[result.id] = value
        return result

    def const(self, value: float) -> Value:
        """A float32 in all lanes."""
        return self.bits(float_bits(value))

    def bits(self, value: int) -> Value:
        """32 bits in all lanes."""
        made = self.emit(K.VCONST, imm=value & 0xFFFFFFFF)
        self.constants[made.id] = value & 0xFFFFFFFF
        return made

    def bits64(self, value: int) -> Pair:
        """64 bits in all lanes."""
        both = self.emit(K.VCONST64, imm=value & 0xFFFFFFFFFFFFFFFF)
        self.constants[both.id] = value & 0xFFFFFFFFFFFFFFFF
        return Pair(both, both)

    def arg(self, name: str) -> Value:
        kind = next(p.kind for p in self.params if p.name == name)
        return self.emit(K.ARGF if kind == "f32" else K.ARG, imm=name)

    # -- memory ---------------------------------------------------------------------------------
    def load(self, base: Value, index: Value, scale: int = 4, disp: int = 0,
             mask: Value | None = None, storage: str = "float") -> Value:
        mem, ops = Mem(scale, disp), STORAGE[storage]
        if mask is None:
            return self.emit(ops[K.LOAD], base, index, imm=mem)
        return self.emit(ops[K.LOADM], base, index, mask, imm=mem)

    def broadcast(self, base: Value, index: Value, scale: int = 4, disp: int = 0,
                  storage: str = "float") -> Value:
        return self.emit(STORAGE[storage][K.BCAST], base, index, imm=Mem(scale, disp))

    def store(self, base: Value, index: Value, value: Value, scale: int = 4, disp: int = 0,
              mask: Value | None = None, storage: str = "float") -> None:
        mem, ops = Mem(scale, disp), STORAGE[storage]
        if mask is None:
            self.emit(ops[K.STORE], base, index, value, imm=mem)
        else:
            self.emit(ops[K.STOREM], base, index, mask, value, imm=mem)

    # -- calls ----------------------------------------------------------------------------------
    def code(self, routine: Routine) -> Value:
        """The address of a routine's code."""
        return self.emit(K.CODE, imm=routine)

    def fill(self, block: Value, names: tuple[str, ...], values: Mapping[str, Value]) -> None:
        """Write the slots of a block of arguments; `names` in order, those without a value stay."""
        for number, name in enumerate(names):
            if name in values:
                self.emit(K.ISTORE, block, self.int(0), values[name], imm=Mem(1, 8 * number))

    def call(self, code: Value, block: Value, begin: Value | None = None,
             end: Value | None = None) -> None:
        """code(block, begin, end, scratch); only memory comes back."""
        zero = self.int(0)
        self.emit(K.CALL, code, block, begin or zero, end or zero, self.emit(K.SCRATCH))

    # -- control --------------------------------------------------------------------------------
    @contextmanager
    def loop(self, lo: Value | int, hi: Value | int, step: int, *inits: Value,
             name: str = "") -> Iterator[LoopScope]:
        """`with b.loop(0, n, 16, acc) as l: l.yields(l.phis[0] + x)`; then `l.results[0]`."""
        lo = lo if isinstance(lo, Value) else self.int(lo)
        hi = hi if isinstance(hi, Value) else self.int(hi)
        scope = LoopScope(self.fresh(I64), tuple(self.fresh(v.type) for v in inits))
        self.push()
        yield scope
        body = self.pop()
        scope.results = tuple(self.fresh(v.type) for v in inits)
        ids = tuple(tuple(v.id for v in group)
                    for group in (inits, scope.phis, scope.yielded, scope.results))
        self.regions[-1].append(Loop(scope.iv.id, lo.id, hi.id, step, ids[0], ids[1], body,
                                     ids[2], ids[3], name))

    @contextmanager
    def when_less(self, lhs: Value | int, rhs: Value | int) -> Iterator[None]:
        lhs = lhs if isinstance(lhs, Value) else self.int(lhs)
        rhs = rhs if isinstance(rhs, Value) else self.int(rhs)
        self.push()
        yield
        body = self.pop()
        self.regions[-1].append(If(lhs.id, rhs.id, body))

    def push(self) -> None:
        self.regions.append([])
        self.scopes.append([])

    def pop(self) -> tuple[Stmt, ...]:
        for key in self.scopes.pop():
            del self.known[key]
        return tuple(self.regions.pop())

    def build(self, units: Affine, grain: int, unit: str = "element",
              scratch: Affine | None = None) -> Kernel:
        """The frozen kernel; `spec.check` says whether it is legal."""
        return Kernel(self.name, self.lanes, self.params, tuple(self.regions[0]), units, grain,
                      unit, scratch or Affine())


LOADS = frozenset(ops[op] for ops in STORAGE.values() for op in (K.LOAD, K.LOADM, K.BCAST)
                  ) | {K.ILOAD32, K.ILOAD, K.LOADW, K.GATHER}
IMPURE = SIDE_EFFECTS | LOADS  # asked for twice, these happen twice


def walk(body: tuple[Stmt, ...], found: list[Stmt] | None = None) -> list[Stmt]:
    """Every statement, outer ones before what they contain."""
    found = [] if found is None else found
    for stmt in body:
        found.append(stmt)
        if stmt.__class__ is not Inst:
            walk(stmt.body, found)
    return found


def with_body(kernel: Kernel, body: tuple[Stmt, ...]) -> Kernel:
    return replace(kernel, body=body)
