"""`gllm-kernels lift | plan | disasm | inspect`: what the compiler made of a function or a model, and what
a checkpoint holds."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..model.llama import TINY
from .options import UsageError

CATALOGUE, FORMATS = "catalogue", "formats"


def lift(options: Namespace) -> int:
    from ..lift.lifter import report, timing_table
    from ..quant.lift import is_decoder, report as block_report

    if options.file in (CATALOGUE, FORMATS):
        if options.declaration is not None:
            raise UsageError(
                f"`lift {options.file}` takes no DECLARATION; a file of that name is ./{options.file}"
            )
        print(timing_table()) if options.file == CATALOGUE else formats()
    elif options.declaration is None:
        raise UsageError(
            f"lift {options.file}: no DECLARATION; add the C declaration of the "
            "function: 'void mish(const float *x, float *out, size_t n)'"
        )
    elif is_decoder(options.declaration):
        print(block_report(Path(options.file), options.declaration))
    else:
        print(report(Path(options.file), options.declaration))
    return 0


def formats() -> None:
    from ..debug.formats import formats_table

    for line in formats_table():
        print(line, flush=True)


def plan(options: Namespace) -> int:
    from ..debug import plan

    print(plan(model(options), options.shape))
    return 0


def disasm(options: Namespace) -> int:
    from ..debug import disasm, loop_report

    show = loop_report if options.loop else disasm
    print(show(model(options), options.shape, options.op))
    return 0


def inspect(options: Namespace) -> int:
    from ..debug.inspect import inspect as report

    print(report(model(options)))
    return 0


def model(options: Namespace) -> Path:
    return Path(TINY if options.model is None else options.model)
