"""Operators that users bring: a compiled function, or a few lines of C.

    mish = gk.register("libmish.so", "void mish(const float *x, float *out, size_t n)")
    mish(x)                                    g.op("mish", g.op("gemm", a, b))
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

from ..errors import CompileError, LiftError, ShapeError
from ..graph.registry import register_operator, traced_operator
from ..lift.signature import parse
from ..scalar.catalog import ScalarOp
from ..trace.render import render
from .op import Op

# loops must survive, nothing may be vectorised, no product may be contracted, NaN must count
C_FLAGS = ("-g", "-O1", "-fno-tree-vectorize", "-ffp-contract=off", "-fPIC", "-shared")

_alive: list[object] = []  # libraries and code memory behind registered operators


def register(source: object, declaration: str, **defaults: float) -> Op:
    """Lift and verify a function; the operator is known by its C name from then on.

    `source` is the path of a .so or .o, a ctypes function, or machine code as bytes. LiftError
    when the function cannot be expressed as a trace.
    """
    from ..lift.lifter import lift, subject_of

    signature = parse(declaration)
    trace = lift(source, declaration)
    address, owner = subject_of(source, signature).address()
    _alive.append(owner)
    formula = render(trace).splitlines()[1].strip()
    row = ScalarOp(signature.name, str(signature), formula, defaults=tuple(defaults.items()))
    return Op(register_operator(traced_operator(row, trace, address)))


def compile_c(text: str, declaration: str) -> Op:
    """Compile C text with the compiler in $CC, or cc, gcc, clang, and register the function."""
    parse(declaration)  # what is wrong with it is said before the compiler has its say
    written = source_bytes(text)
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="gllm-kernels-") as folder:
        source, library = Path(folder) / "op.c", Path(folder) / "op.so"
        source.write_bytes(written)
        done = subprocess.run([*compiler, *C_FLAGS, str(source), "-o", str(library), "-lm"],
                              capture_output=True, text=True)
        if done.returncode:
            raise CompileError(f"{compiler[0]} refused the source:\n{done.stderr.strip()}")
        return register(library, declaration)


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
