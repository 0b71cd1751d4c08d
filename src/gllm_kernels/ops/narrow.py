"""Python's numbers take the type of what they meet, as they do in numpy: float32.

    x * 0.5, 1 + exp(x), max(x, 0), s / n, s = 0; s += x[i]         no float64 comes in

numba types a float literal as float64, and int64 + float32 as float64. Before it types anything,
numbers and integers that meet a float32 become one. What np.float64 makes stays a double, and so
does all that it meets.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Iterable, Iterator
from functools import cache
from types import FunctionType, ModuleType

import numba
import numpy as np
from numba.core import ir, ir_utils, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.untyped_passes import IRProcessing

ARITHMETIC = "add sub mul truediv floordiv mod pow".split()
NUMBERS = {getattr(operator, p + n) for n in ARITHMETIC for p in ("", "i")}
NUMBERS |= {operator.neg, operator.pos}
COMPARISONS = {getattr(operator, n) for n in "lt le gt ge eq ne".split()}
POWERS = (operator.pow, operator.ipow)
INTEGRAL = (int, len, range, bool, round)  # what these return is no float
WIDE = (np.float64, np.double)


class Literals:
    """Which variables hold float32 (`real`), double (`wide`), arrays or truth values."""

    def __init__(self, blocks: Iterable[ir.Block], arguments: dict[str, object]) -> None:
        self.blocks = list(blocks)
        self.body = [s for b in self.blocks for s in b.body if isinstance(s, ir.Assign)]
        self.values = {s.target.name: s.value for s in self.body}
        self.arrays = {n for n, t in arguments.items() if _is_pointer(t)}
        self.real = {n for n, t in arguments.items() if t == types.float32}
        self.wide: set[str] = set()

    def narrow(self) -> None:
        """Float literals first, then what they reach, then the integers that meet it."""
        for s in self.body:
            if isinstance(s.value, ir.Global | ir.FreeVar):
                s.value.value = narrowed(s.value.value)
        doubles = {v.name for s in self.body if _is(s.value, "call")
                   and self._callee(s.value) in WIDE for v in s.value.args}  # fmt: skip
        for s in self.body:
            value = self._literal(s.value)
            if value.__class__ is float and s.target.name not in doubles:
                s.value = single(value, s.loc)
                self.real.add(s.target.name)
        while self._spread():
            pass
        for block in self.blocks:
            block.body = [new for s in block.body for new in self._converted(block, s)]

    def _literal(self, value: object) -> object:
        """The Python object behind a literal, a global, a closure's variable, `math.pi`."""
        if isinstance(value, ir.Const | ir.Global | ir.FreeVar):
            return value.value
        if isinstance(value, ir.Expr) and value.op == "getattr":
            module = self._literal(self.values.get(value.value.name))
            return getattr(module, value.attr, None) if isinstance(module, ModuleType) else None
        return None

    def _spread(self) -> bool:
        """One round of: what is computed from a float32 is one."""
        sets = self.real, self.wide, self.arrays
        before = [len(names) for names in sets]
        for s in self.body:
            kinds = self._is_real, self._is_wide, self._is_array
            for names, holds in zip(sets, kinds, strict=True):
                if holds(s.value):
                    names.add(s.target.name)
        return before != [len(names) for names in sets]

    def _is_array(self, value: object) -> bool:
        if isinstance(value, ir.Var):
            return value.name in self.arrays
        return _is(value, "call") and _meets(value, self.arrays)

    def _is_wide(self, value: object) -> bool:
        if isinstance(value, ir.Var):
            return value.name in self.wide
        made = _is(value, "call") and self._callee(value) in WIDE
        return made or (_is(value, *OPERATIONS) and _meets(value, self.wide))

    def _is_real(self, value: object) -> bool:
        if isinstance(value, ir.Var):
            return value.name in self.real
        if _is(value, "getitem", "static_getitem"):
            return value.value.name in self.arrays
        if _is(value, "call"):
            callee = self._callee(value)
            return callee is np.float32 or (callee not in INTEGRAL and _meets(value, self.real))
        number = _is(value, "cast") or (_is(value, *OPERATIONS) and value.fn in NUMBERS)
        return number and _meets(value, self.real)

    def _callee(self, call: ir.Expr) -> object:
        return self._literal(self.values.get(call.func.name))

    def _converted(self, block: ir.Block, s: ir.Stmt) -> Iterator[ir.Stmt]:
        """`s`, and before it np.float32(v) of each v that meets a float32 in it."""
        if isinstance(s, ir.Assign):
            literal = self._literal(s.value)
            if literal.__class__ is int and s.target.name in self.real:
                s.value = single(literal, s.loc)
            for name in {v.name for v in self._integers(s)}:
                kind, made = (block.scope.redefine(f"$single.{name}", s.loc) for _ in "12")
                yield ir.Assign(ir.Global("float32", np.float32, s.loc), kind, s.loc)
                call = ir.Expr.call(kind, (block.scope.get(name),), (), s.loc)
                yield ir.Assign(call, made, s.loc)
                s.value = ir_utils.replace_vars_inner(s.value, {name: made})
        yield s

    def _integers(self, s: ir.Assign) -> list[ir.Var]:
        """Operands of `s` that are no float32 and are to become one."""
        value = s.value
        if isinstance(value, ir.Var):
            return [value] if s.target.name in self.real and self._is_integer(value) else []
        if not _is(value, "call", *OPERATIONS) or not _meets(value, self.real):
            return []
        if _meets(value, self.wide):
            return []
        if value.op == "call":
            return [v for v in value.args if self._mixes(value) and self._is_integer(v)]
        operands = [value.lhs] if value.fn in POWERS else value.list_vars()
        mixed = value.fn in NUMBERS | COMPARISONS
        return [v for v in operands if mixed and self._is_integer(v)]

    def _mixes(self, call: ir.Expr) -> bool:
        """Whether a function brings its arguments to one type: max, min, and those of libm."""
        callee = self._callee(call)
        return callee in (builtins.max, builtins.min) or getattr(math, str(
            getattr(callee, "__name__", "")), None) is callee or isinstance(callee, np.ufunc)

    def _is_integer(self, v: ir.Var) -> bool:
        made = self.values.get(v.name)
        truth = _is(made, "binop") and made.fn in COMPARISONS
        return not truth and v.name not in self.real | self.wide | self.arrays


OPERATIONS = ("binop", "inplace_binop", "unary")


def narrowed(value: object) -> object:
    """A function that the operator calls, compiled by the same rules; anything else as it is."""
    function = value.py_func if isinstance(value, Dispatcher) else value
    return compiled_scalar(function) if isinstance(function, FunctionType) else value


@cache
def compiled_scalar(function: FunctionType) -> Dispatcher:
    """numba's function of floats: no check of divisors, numbers as in numpy."""
    return numba.njit(error_model="numpy", pipeline_class=SinglePrecision)(function)


def _is(value: object, *ops: str) -> bool:
    return isinstance(value, ir.Expr) and value.op in ops


def _meets(value: ir.Expr, names: set[str]) -> bool:
    return any(v.name in names for v in value.list_vars())


def single(value: float, where: ir.Loc) -> ir.Const:
    """A float32 literal; a number that is too large for one stays what it is."""
    with np.errstate(over="ignore"):
        narrow = np.float32(value)
    return ir.Const(narrow if np.isfinite(narrow) or not np.isfinite(value) else value, where)


def _is_pointer(kind: object) -> bool:
    return isinstance(kind, types.CPointer) and kind.dtype == types.float32


@register_pass(mutates_CFG=False, analysis_only=False)
class NarrowLiterals(FunctionPass):
    """Runs on numba's IR, before types are inferred."""

    _name = "gllm_kernels_narrow_literals"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: object) -> bool:
        arguments = dict(zip(state.func_ir.arg_names, state.args, strict=True))
        Literals(state.func_ir.blocks.values(), arguments).narrow()
        state.func_ir._definitions = ir_utils.build_definitions(state.func_ir.blocks)
        return True


class SinglePrecision(CompilerBase):
    """numba's usual passes with `NarrowLiterals` among the first."""

    def define_pipelines(self) -> list[PassManager]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(NarrowLiterals, IRProcessing)
        passes.finalize()
        return [passes]
