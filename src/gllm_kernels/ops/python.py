"""Operators in Python: numba types the function, LLVM writes scalar code, the lifter reads it.

    function -> numba IR -> float32 (narrow) -> LLVM IR -> scalar x86-64 object -> register

numba's own code cannot be read: it is vectorised and unrolled as it was configured when it was
imported. So it stops after its LLVM IR, and that is compiled here, without vectorisers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from types import FunctionType

import llvmlite.binding as llvm
import numba
from numba.core import config as numba_config
from numba.core.compiler_lock import global_compiler_lock

from ..errors import CompileError, FormatError, LiftError
from ..lift.data import ELEMENTS
from ..lift.signature import Argument, Signature, parse
from ..scalar.loader import LoadedObject, load_bytes
from .narrow import SinglePrecision, compiled_scalar

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
# For this model LLVM knows no loop buffer, so it unrolls no loop whose length is not a constant,
# and it has no FMA into which products could be contracted.
CPU = "nocona"
REALS = {"float": "float32", "double": "float64"}


def elementwise(function: FunctionType) -> tuple[str, dict[str, float], Callable]:
    """(declaration, defaults, loop) of a function of one element.

    def f(x, *, a=1) -> void f(const float *x, float *out, size_t n, float a), and its loop
    """
    name = function.__name__
    arrays, scalars, defaults = _parameters(function)
    out, count, index = (_fresh(word, (*arrays, *scalars)) for word in ("out", "n", "i"))
    arguments = [f"const float *{x}" for x in arrays]
    arguments += [f"float *{out}", f"size_t {count}", *(f"float {a}" for a in scalars)]
    values = ", ".join([f"{x}[{index}]" for x in arrays] + list(scalars))
    text = (
        f"def {name}({', '.join((*arrays, out, count, *scalars))}):\n"
        f"    for {index} in range({count}):\n"
        f"        {out}[{index}] = {_fresh('element', (*arrays, *scalars))}({values})\n"
    )
    made = {_fresh("element", (*arrays, *scalars)): compiled_scalar(_positional(function))}
    exec(compile(text, f"<loop of {name}>", "exec"), made)  # names only, checked by Python itself
    return f"void {name}({', '.join(arguments)})", defaults, made[name]


def _parameters(function: FunctionType) -> tuple[list[str], list[str], dict[str, float]]:
    """Names of the arrays, names of the scalars (behind `*`), and what scalars default to."""
    name, rows = function.__name__, signature(function).parameters.values()
    wanted = f"write `def {name}(x, y, *, scale=1.0)`: arrays, then scalars behind a `*`"
    arrays = [p.name for p in rows if p.kind in POSITIONAL and p.default is Parameter.empty]
    scalars = {p.name: p.default for p in rows if p.kind is Parameter.KEYWORD_ONLY}
    if not name.isidentifier():
        raise LiftError(f"{name}: an operator needs a name; write `def name(x): ...`")
    if not arrays or len(arrays) + len(scalars) < len(rows):
        odd = [str(p) for p in rows if p.name not in arrays and p.name not in scalars]
        raise LiftError(f"{name}: {odd[0] if odd else 'no parameter'} is no array; {wanted}")
    for scalar, value in scalars.items():
        if value is not Parameter.empty and not isinstance(value, int | float):
            raise LiftError(f"{name}: the default of {scalar} is {value!r}; give a number")
    given = {n: float(v) for n, v in scalars.items() if v is not Parameter.empty}
    return arrays, list(scalars), given


def _fresh(word: str, taken: tuple[str, ...]) -> str:
    while word in taken:
        word += "_"
    return word


def _positional(function: FunctionType) -> FunctionType:
    """The same function, all of whose parameters are given by position."""
    code = function.__code__
    code = code.replace(co_argcount=code.co_argcount + code.co_kwonlyargcount,
                        co_posonlyargcount=0, co_kwonlyargcount=0)  # fmt: skip
    return FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)


def compiled(function: FunctionType, declaration: str) -> LoadedObject:
    """Scalar machine code of a whole-loop function with the C signature that is declared."""
    signed = parse(declaration)
    _check_settings()
    _check_parameters(function, signed)
    types = [_type(signed, a) for a in signed.arguments]
    result = getattr(numba.types, REALS.get(signed.result, "void"))
    try:
        with unoptimised():
            compiler = numba.cfunc(result(*types), error_model="numpy",
                                   pipeline_class=SinglePrecision)  # fmt: skip
            made = compiler(function)
    except Exception as error:  # numba has many, and not all of them are NumbaErrors
        raise CompileError(
            f"{signed.name}: numba refused the function:\n{_shortened(str(error) or repr(error))}\n"
            "use numbers, math.*, numpy's functions of one element, and functions of these"
        ) from None
    try:
        code = machine_code(made.inspect_llvm(), made.native_name, signed.symbol)
        return load_bytes(code, signed.name)
    except FormatError as error:
        raise CompileError(
            f"{signed.name}: the function may raise an exception, prints or makes an array, and "
            f"needs the Python runtime ({error}); leave out raise, assert, print, and new arrays"
        ) from None


def _check_settings() -> None:
    """numba reads its environment once, when it is imported."""
    settings = {"NUMBA_DISABLE_JIT": numba_config.DISABLE_JIT,
                "NUMBA_OPT=max": getattr(numba_config.OPT, "is_opt_max", False)}  # fmt: skip
    for name, present in settings.items():
        if present:
            raise CompileError(f"{name} is set, with which numba gives no scalar code; "
                               "start Python without it")


def _check_parameters(function: FunctionType, signed: Signature) -> None:
    have, want = list(signature(function).parameters), [a.name for a in signed.arguments]
    if function.__name__ not in (signed.symbol, signed.name):
        raise LiftError(f"{signed.symbol} is declared above `def {function.__name__}`; "
                        "use one name for both")
    if have != want:
        raise LiftError(f"{signed.symbol}: declared with ({', '.join(want)}) and defined with "
                        f"({', '.join(have)}); name the same parameters in the same order")


def _type(signed: Signature, argument: Argument) -> object:
    """numba's type of an argument. Sizes are signed: numba makes float64 of uint64 + int64."""
    kinds = dict(REALS)
    if argument.kind == "dim":
        return getattr(numba.types, f"int{argument.width}")
    if argument.ctype not in kinds and argument.ctype in ELEMENTS:
        size, low, _ = ELEMENTS[argument.ctype]
        kinds[argument.ctype] = f"{'int' if low else 'uint'}{8 * size}"
    if argument.ctype not in kinds:
        raise LiftError(f"{signed.symbol}: {argument.name} is {argument.ctype}, which numba lacks; "
                        f"in Python use {', '.join(kinds)}")
    element = getattr(numba.types, kinds[argument.ctype])
    return numba.types.CPointer(element) if argument.kind == "pointer" else element


@contextmanager
def unoptimised() -> Iterator[None]:
    """numba writes LLVM IR as it is, under its own lock."""
    with global_compiler_lock:
        before = numba_config.OPT
        numba_config.OPT = type(before)(0)
        try:
            yield
        finally:
            numba_config.OPT = before


def machine_code(text: str, entry: str, symbol: str) -> bytes:
    """A relocatable object with one function, `symbol`: all that it calls is inlined."""
    module = llvm.parse_assembly(text.replace(" noinline ", " alwaysinline "))
    for function in module.functions:
        if function.name == entry:
            function.name = symbol
        elif not function.is_declaration:
            function.linkage = "internal"
            function.add_function_attribute("alwaysinline")
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=CPU, opt=1, reloc="pic", codemodel="small")
    tuning = llvm.create_pipeline_tuning_options(speed_level=1)
    tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def _shortened(text: str, most: int = 12) -> str:
    """What numba says first: the reason and the line."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[:most])
