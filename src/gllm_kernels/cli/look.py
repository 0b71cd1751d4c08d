"""`gllm-kernels lift | plan | disasm`: what the compiler made of a function or a model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..model.llama import TINY


def lift(options: Namespace) -> int:
    from ..lift.lifter import report, timing_table

    catalogue = options.file == "catalogue"
    print(timing_table() if catalogue else report(Path(options.file), options.declaration))
    return 0


def plan(options: Namespace) -> int:
    from ..debug import plan

    print(plan(Path(options.model or TINY), options.shape))
    return 0


def disasm(options: Namespace) -> int:
    from ..debug import disasm

    print(disasm(Path(options.model or TINY), options.shape))
    return 0
