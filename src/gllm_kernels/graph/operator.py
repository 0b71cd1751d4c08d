"""An operator as the graph sees it: its parameters, their shapes, and what it computes.

The shapes come from the trace's own indices; only an opaque operator (called, never lifted) states
them in its catalogue row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from ..dtypes import DTYPES, FLOATS
from ..errors import ShapeError, UnsupportedOpError
from ..trace.affine import Affine
from ..trace.ir import INDICES, Op, OpTrace, Param
from ..trace.pattern import ComputePattern, pattern_of
from ..trace.shapes import MOST_NUMBER, least_sizes, numbers, reaches

ANY_EXTENT = 1 << 31


@dataclass(frozen=True)
class Operator:
    """`trace` is None for an opaque operator. `shapes` are in the operator's own dimensions."""

    name: str
    symbol: str
    params: tuple[Param, ...]
    shapes: tuple[tuple[str, tuple[Affine, ...]], ...]
    trace: OpTrace | None = None
    defaults: tuple[tuple[str, float], ...] = ()
    result: str = ""  # ctype of the returned value, "" for none
    opaque: str = ""  # the reason when it is called, not lifted
    formula: str = ""
    indexes: tuple[tuple[str, str], ...] = ()  # integer array: the size its values stay below
    address: int = 0  # of the scalar function; 0: `symbol` in the object of the package

    @cached_property
    def _shape_of(self) -> dict[str, tuple[Affine, ...]]:
        return dict(self.shapes)

    def shape(self, param: str) -> tuple[Affine, ...]:
        return self._shape_of[param]

    def names(self, *roles: str) -> tuple[str, ...]:
        return tuple([p.name for p in self.params if p.role in roles])

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        return self.names("in", "inout")

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        found = self.names("out", "inout")
        return found + (("return",) if self.result else ())

    def check_scalars(self) -> None:
        """Numbers that are passed by value are float32."""
        for param in self.params:
            if param.role == "scalar" and param.ctype != "float":
                raise UnsupportedOpError(f"{self.name}: the scalar `{param.name}` is {param.ctype}; "
                                         f"scalars are passed as float: declare `float {param.name}`")

    def dtype(self, param: str) -> str:
        ctype = self.result
        if param != "return":
            ctype = next(p.ctype for p in self.params if p.name == param)
        if ctype not in DTYPES:
            raise UnsupportedOpError(f"{self.name}: `{param}` is {ctype}; arrays and results of "
                                     f"operators that run are {', '.join(DTYPES)}")
        return DTYPES[ctype]

    def takes(self, param: str, dtype: str) -> bool:
        """Whether an array of this type can be given: a float array may be stored in any."""
        wanted = self.dtype(param)
        return dtype == wanted or (wanted == "float32" and dtype in FLOATS)

    def takes_whole(self, param: str) -> bool:
        """Whether it may be a quantised weight: the second factor of a product, its terms contiguous."""
        if self.pattern is not ComputePattern.GEMM or param != self.inputs[-1] or len(self.inputs) != 2:
            return False
        (_, _, depth), = (node.imm for node in self.trace.body if node.op is Op.REDUCE)
        return self.shape(param)[-1] == depth

    def result_dtype(self, param: str, dtype: str) -> str:
        """How an output is stored where float arrays are `dtype`; a returned number stays one."""
        own = self.dtype(param)
        return dtype if own == "float32" and param != "return" else own

    def covers(self, param: str) -> bool:
        """Whether every element of an output is written."""
        return param in self._covered

    @cached_property
    def _covered(self) -> frozenset[str]:
        return frozenset(filter(self._stores_all, self.outputs))

    def _stores_all(self, param: str) -> bool:
        if self.trace is None or param == "return":
            return True
        total = Affine()
        for store in self.trace.stores:
            if store.param == param:
                total += prod((e for _, e in store.domain), start=Affine.const(1))
        return total == prod(self.shape(param), start=Affine.const(1))

    @cached_property
    def limit(self) -> int:
        """The largest dimension for which the source's index arithmetic is exact; 0: any."""
        limit = self.trace.extent_limit if self.trace else ANY_EXTENT
        return limit if limit < ANY_EXTENT else 0

    @cached_property
    def least(self) -> tuple[tuple[str, int], ...]:
        """Dimensions that may not be smaller than a number."""
        return least_sizes(self.trace) if self.trace else ()

    @cached_property
    def reaches(self) -> tuple[tuple[str, Affine, Affine], ...]:
        """Accesses whose strides may be too small for them."""
        return reaches(self.trace) if self.trace else ()

    @cached_property
    def numbers(self) -> tuple[Affine, ...]:
        """Bounds of the polynomials of sizes that are used as numbers."""
        return numbers(self.trace) if self.trace else ()

    @cached_property
    def pattern(self) -> ComputePattern:
        return ComputePattern.OPAQUE if self.trace is None else pattern_of(self.trace)

    @cached_property
    def is_flat(self) -> bool:
        """One dimension, every access at the loop's own position, the position itself unused: any
        rank and broadcasting go."""
        if self.pattern is not ComputePattern.ELEMENTWISE or len(_domain(self.trace)) != 1:
            return False
        if len(self.names("dim")) != 1:
            return False  # an integer that is no size
        binder = _domain(self.trace)[0][0]
        return not any(binder in o.imm.symbols for o in self.trace.body if o.op in INDICES)


def _domain(trace: OpTrace) -> tuple[tuple[str, Affine], ...]:
    return max((s.domain for s in trace.stores), key=len)


def solve_dims(op: Operator, sizes: dict[str, tuple[Affine, ...]],
               given: dict[str, Affine]) -> tuple[dict[str, Affine], list[Bound]]:
    """The operator's dimensions from the (trailing) shapes of its arrays.

    A size `n` or `2*d` binds or checks its dimension. A sum such as `pos + t` is a lower bound on
    the array: it comes back as a Bound, to be checked when the sizes are known.
    """
    env = dict(given)
    for name, have in sizes.items():
        for axis, (want, size) in enumerate(zip(op.shape(name), have)):
            if len(want.terms) == 1 and len(want.terms[0][1]) == 1:
                _bind(op, name, axis, want, size, env)
    bounds = [Bound(f"{op.name}: axis {axis} of `{name}`", want.substitute(env), size)
              for name, have in sizes.items()
              for axis, (want, size) in enumerate(zip(op.shape(name), have)) if len(want.terms) > 1]
    bounds += [Bound(f"{op.name}: size `{d}`", Affine.const(k), env[d])
               for d, k in op.least if d in env]
    bounds += [Bound(f"{op.name}: `{name}`", need.substitute(env), have.substitute(env))
               for name, need, have in op.reaches]
    missing = [d for d in op.names("dim") if d not in env]
    if missing:
        raise ShapeError(f"{op.name}: give `{missing[0]}=`; no array argument determines it")
    return env, bounds


def number_bounds(op: Operator, dims: dict[str, Affine]) -> list[Bound]:
    """Numbers made of sizes are computed in 32 bits; sizes that are known are checked here."""
    bounds = [Bound(f"{op.name}: {size}", size.substitute(dims), Affine.const(MOST_NUMBER), TOO_LARGE)
              for size in op.numbers]
    for bound in bounds:
        if bound.need.constant is not None:
            bound.check({})
    return [bound for bound in bounds if bound.need.constant is None]


TOO_FEW = "{what} has {have} elements, {need} are needed"
TOO_LARGE = ("{what} reaches {need}; numbers made of sizes and positions go up to {have}: multiply in "
             "float, or pass the number as a float argument")


@dataclass(frozen=True, slots=True)
class Bound:
    """`need <= have`, to hold for every call."""

    what: str
    need: Affine
    have: Affine
    text: str = TOO_FEW

    def check(self, dims: dict[str, int]) -> None:
        need, have = self.need.evaluate(dims), self.have.evaluate(dims)
        if need > have:
            raise ShapeError(self.text.format(what=self.what, have=have, need=need)
                             + f" ({self.need} with {dims or 'these sizes'})")


def _bind(op: Operator, name: str, axis: int, want: Affine, size: Affine,
          env: dict[str, Affine]) -> None:
    (coef, (dim,)), = want.terms
    if any(c % coef for c, _ in size.terms):
        raise ShapeError(f"{op.name}: axis {axis} of `{name}` has size {size}, which must be a "
                         f"multiple of {coef}")
    value = Affine(tuple((c // coef, m) for c, m in size.terms))
    if env.setdefault(dim, value) != value:
        raise ShapeError(f"{op.name}: axis {axis} of `{name}` has size {size}, wanted "
                         f"{want.substitute(env)} ({want} with {dim} = {env[dim]})")

