"""Kernels and a JIT compiler for language models on CPUs, in pure Python.

    import gllm_kernels as gk

    gk.silu(x), gk.gemm(a, b), gk.rms_norm(x, w) ...    operators on numpy arrays
    gk.lift(source, declaration)                        compiled C function -> OpTrace
    gk.compile_graph(graph)                             operators -> fused machine code
    gk.Llama(path).generate(prompt)                     checkpoint -> text

Names are imported at first use: importing the package loads no stage, compiles nothing and starts
no thread.
"""

from importlib import import_module

# Bound here once, so that no later import of the submodule of that name takes the name over:
# `gk.lift` and `gk.config` are the functions, `from gllm_kernels.lift import ...` the modules.
from . import lift as _lift_package
from .config import config
from .errors import (
    CompileError,
    ConfigError,
    FormatError,
    GllmError,
    LiftError,
    MemoryPolicyError,
    ShapeError,
    UnsupportedOpError,
)

__version__ = "0.1.0"

_HOMES = {
    "CompilerGraph": "graph.ir",
    "DeviceProfile": "fusion.profile",
    "Llama": "model.llama",
    "Op": "ops.op",
    "OpTrace": "trace.ir",
    "compile_graph": "pipeline",
    "device": "pipeline",
}

__all__ = [
    "CompileError",
    "ConfigError",
    "FormatError",
    "GllmError",
    "LiftError",
    "MemoryPolicyError",
    "ShapeError",
    "UnsupportedOpError",
    "config",
    "lift",
    *_HOMES,
]


def lift(source: object, declaration: str) -> object:
    """The OpTrace of a compiled function; `source` is a path, a ctypes function or bytes."""
    return _lift_package.lift(source, declaration)


def __getattr__(name: str) -> object:
    """A public name from its module; every other one is an operator."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f".{_HOMES.get(name, 'ops')}", __name__)
    try:
        value = getattr(home, name)
    except AttributeError as unknown:
        raise AttributeError(f"module {__name__!r}: {unknown}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *import_module(".ops", __name__).__all__})
