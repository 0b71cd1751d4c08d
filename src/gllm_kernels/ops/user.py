"""Operators that users bring: a compiled function, or a few lines of C.

    mish = gk.register("libmish.so", "void mish(const float *x, float *out, size_t n)")
    mish(x)                                    g.op("mish", g.op("gemm", a, b))
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from pathlib import Path
from types import FunctionType, ModuleType

from ..codegen.isa.detect import current_isa
from ..codegen.lower import check_operations
from ..errors import CompileError, LiftError, ShapeError, UnsupportedOpError
from ..graph.registry import register_operator, traced_operator
from ..lift.signature import Signature, parse
from ..scalar.catalog import CATALOG, ScalarOp
from ..trace.ir import OpTrace
from ..trace.ir import Op as T
from ..trace.render import render
from ..trace.spec import immediate_symbols
from .op import Op

# loops must survive, nothing may be vectorised, no product may be contracted, NaN must count; a
# switch over data is comparisons, not a jump to an address; with SSE4.1 (2008) floor is one
# instruction instead of arithmetic on bits
C_FLAGS = ("-g", "-O1", "-msse4.1", "-fno-tree-vectorize", "-fno-jump-tables",
           "-ffp-contract=off", "-fPIC", "-shared")

_alive: list[object] = []  # libraries and code memory behind registered operators


def register(source: object, declaration: str, **defaults: float) -> Op:
    """Lift and verify a function; the operator is known by its C name from then on.

    `source` is the path of a .so or .o, a ctypes function, a numba cfunc, machine code as bytes,
    or (bytes, their address); `defaults` are of scalars: eps=1e-5. LiftError when the function
    cannot be expressed as a trace, UnsupportedOpError when it has no code for the ISA in force.
    """
    from ..lift.lifter import lift, subject_of

    signature = parse(declaration)
    check_names(signature, defaults)
    trace = lift(source, declaration)
    check_used(trace)
    if current_isa():
        check_operations(trace)
    address, owner = subject_of(source, signature).address()
    _alive.append(owner)
    formula = render(trace).splitlines()[1].strip()
    row = ScalarOp(signature.name, str(signature), formula, defaults=tuple(defaults.items()))
    return Op(register_operator(traced_operator(row, trace, address)))


def check_names(signature: Signature, defaults: dict[str, float]) -> None:
    """Names that a call could not tell apart, and defaults of what is no scalar."""
    scalars = [a.name for a in signature.of_kind("scalar")]
    for name, value in defaults.items():
        if name not in scalars or not isinstance(value, int | float):
            raise LiftError(f"{signature.symbol}: default {name}={value!r}; scalars that may have "
                            f"a number as their default are: {', '.join(scalars) or 'none'}")
    if signature.name in CATALOG:
        raise UnsupportedOpError(
            f"{signature.name!r} is an operator of the catalogue; give your function another name"
        )
    for arg in signature.arguments:
        if arg.name == "out" and (arg.kind != "pointer" or arg.const):
            raise LiftError(f"{signature.symbol}: only an output may be called out, by which a "
                            "call says where its result goes; give the argument another name")


def check_used(trace: OpTrace) -> None:
    """Every argument takes part: a call derives sizes from arrays, and an array from its uses."""
    used = {n.imm for n in trace.body if n.op is T.SCALAR} | {s.param for s in trace.stores}
    used |= {n.imm[0] for n in trace.body if n.op is T.LOAD}
    used = used.union(*map(immediate_symbols, trace.body), *(s.index.symbols for s in trace.stores),
                      *(e.symbols for s in trace.stores for _, e in s.domain))  # fmt: skip
    unused = [p.name for p in trace.params if p.name not in used]
    if unused:
        raise LiftError(
            f"{trace.name}: the function does not use {', '.join(unused)}; check the declaration "
            "against the C, and leave out arguments without a use"
        )


def compile_c(text: str, declaration: str, **defaults: float) -> Op:
    """Compile C text with the compiler in $CC, or cc, gcc, clang, and register the function."""
    parse(declaration)  # what is wrong with it is said before the compiler has its say
    with compiled(text) as library:
        return register(library, declaration, **defaults)


@contextmanager
def compiled(text: str) -> Iterator[Path]:
    """The library that the C compiler makes of a text."""
    written = source_bytes(text)
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="gllm-kernels-") as folder:
        source, library = Path(folder) / "op.c", Path(folder) / "op.so"
        source.write_bytes(written)
        done = subprocess.run([*compiler, *C_FLAGS, str(source), "-o", str(library), "-lm"],
                              capture_output=True, text=True)
        if done.returncode:
            raise CompileError(f"{compiler[0]} refused the source:\n{done.stderr.strip()}")
        if not library.exists():
            raise CompileError(f"{' '.join(compiler)} compiled nothing; set CC to a C compiler")
        yield library


def operator(source: FunctionType | str) -> Op | Callable[[FunctionType], Op]:
    """An operator written in Python, where numba is installed: a decorator in two forms.

    @gk.operator                                    one element: arrays, then scalars behind a *
    def leaky(x, *, slope=0.01): return x if x > 0 else slope * x

    @gk.operator("float total(const float *x, size_t n)")         the whole loop, on pointers
    def total(x, n): ...
    """
    if isinstance(source, str):
        parse(source)
        return lambda function: register(_python().compiled(_plain(function), source), source)
    declaration, defaults, loop = _python().elementwise(_plain(source))
    return register(_python().compiled(loop, declaration), declaration, **defaults)


def _python() -> ModuleType:
    try:
        return import_module(".python", __package__)
    except ImportError as missing:
        raise CompileError(
            f"gk.operator compiles Python with numba, which cannot be imported here ({missing}); "
            "run `pip install numba`, or bring C text (gk.compile_c) or a compiled function "
            "(gk.register)"
        ) from None


def _plain(function: object) -> FunctionType:
    function = getattr(function, "py_func", function)  # of a function that is under numba.njit
    if not isinstance(function, FunctionType):
        raise LiftError(f"gk.operator is given a {type(function).__name__}; wanted a function "
                        "`def f(x): ...`, or the C declaration of one as text")
    if function.__code__.co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR):
        raise LiftError(f"{function.__name__}: a generator or coroutine computes no element; "
                        "use return")
    return function


def source_bytes(text: str) -> bytes:
    if not isinstance(text, str):
        raise ShapeError(f"text={text!r}: expected C source as str, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        where = f"text: character {error.start}"
        raise ShapeError(f"{where} has no UTF-8; write it as an escape") from None


def find_compiler() -> list[str]:
    """The command line that starts a C compiler."""
    named = os.environ.get("CC", "").split()
    found = named or [c for c in ("cc", "gcc", "clang") if shutil.which(c)][:1]
    if not found or not shutil.which(found[0]):
        raise CompileError(f"no C compiler: {found[0] + ' is not' if found else 'cc, gcc, clang are not'}"
                           " on PATH; install one, set CC, or register a compiled .so or .o")
    return found
