"""`gllm-kernels lift | plan | disasm`: what the compiler made of a function or a model."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..errors import UnsupportedOpError
from ..model.llama import TINY


def lift(options: Namespace) -> int:
    """lift.report(path, declaration) -> text"""
    print(tool("lift", "report")(Path(options.file), options.declaration))
    return 0


def plan(options: Namespace) -> int:
    """debug.plan(checkpoint directory) -> text"""
    print(tool("debug", "plan")(Path(options.model or TINY)))
    return 0


def disasm(options: Namespace) -> int:
    """debug.disasm(checkpoint directory) -> text"""
    print(tool("debug", "disasm")(Path(options.model or TINY)))
    return 0


def tool(package: str, name: str) -> Callable[..., object]:
    found = getattr(import_module(f"...{package}", __name__), name, None)
    if found is None:
        what = f"{package}.{name}"
        raise UnsupportedOpError(f"this build has no {what}; install a newer gllm-kernels")
    return found
