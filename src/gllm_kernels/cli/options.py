"""What can be typed: commands, options, and their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn, TypeAlias

from .. import __version__
from ..config import ISAS, describe
from ..errors import GllmError

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # the type has no public name
Command = Callable[[argparse.Namespace], int]


class UsageError(GllmError):
    """A command line that cannot be read."""


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """`options.command(options)` is what to run."""
    return parser().parse_args(arguments)


def command(module: str, name: str) -> Command:
    """A command whose module is imported when it runs: --help and typing errors stay quick."""

    def run(options: argparse.Namespace) -> int:
        return getattr(import_module(f".{module}", __package__), name)(options)

    return run


def environment() -> str:
    rows = [f"  {variable}={values}\n      {meaning}" for variable, values, meaning in describe()]
    return "\n".join(["environment:", *rows])


def parser() -> Parser:
    main = Parser(
        prog="gllm-kernels",
        description="Language models on CPUs, by code compiled from scalar C functions.",
        epilog=environment(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = main.add_subparsers(metavar="COMMAND", required=True)
    adders = (add_run, add_info, add_lift, add_plan, add_disasm, add_inspect, add_bench)
    for made in (main, *(add(commands) for add in adders)):
        made.add_argument(
            "-v", "--verbose", action="store_true", help="show the traceback of an error"
        )
    return main


def new(commands: Commands, name: str, summary: str, run: Command, epilog: str = "") -> Parser:
    made = commands.add_parser(
        name, help=summary, description=summary, epilog=epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.set_defaults(command=run)
    return made


# fmt: off
RUN_GROUPS = {  # flags, type, default, metavar, help; names and defaults as in llama.cpp
    "model": (
        (("-m", "--model"), str, None, "MODEL", "directory or .gguf file (default: the model of this package)"),
        (("-c", "--ctx-size"), int, 0, "N", "context in tokens; 0: as the model was trained"),
        (("-t", "--threads"), int, None, "N", "0: by cores and quota (default: GLLM_THREADS)"),
    ),
    "sampling": (
        (("-n", "--n-predict"), int, -1, "N", "tokens to generate; -1: until the context is full"),
        (("--temp",), float, 0.8, "X", "temperature; 0: greedy"),
        (("--top-k",), int, 40, "N", "keep the N likeliest tokens; 0: all"),
        (("--top-p",), float, 0.95, "X", "keep tokens up to this total probability; 1: all"),
        (("--min-p",), float, 0.05, "X", "drop tokens below X times the likeliest; 0: none"),
        (("--repeat-penalty",), float, 1.0, "X", "divide the odds of the last 64 tokens; 1: off"),
        (("-s", "--seed"), int, -1, "N", "seed of the sampling; -1: a random one"),
    ),
}
# fmt: on


def add_run(commands: Commands) -> Parser:
    made = new(commands, "run", "continue a text", command("run", "run"), environment())
    add_prompt(made.add_argument_group("prompt"))
    for title, rows in RUN_GROUPS.items():
        group = made.add_argument_group(title)
        for flags, kind, default, metavar, meaning in rows:
            shown = "" if default is None else f" (default: {default})"
            group.add_argument(
                *flags, type=kind, default=default, metavar=metavar, help=meaning + shown
            )
    return made


def add_prompt(group: argparse._ArgumentGroup) -> None:
    either = group.add_mutually_exclusive_group()
    either.add_argument("-p", "--prompt", metavar="TEXT", help="text to continue")
    either.add_argument("-f", "--file", metavar="FILE", help="file to continue; - is stdin")
    group.add_argument(
        "-e", "--escape", action=argparse.BooleanOptionalAction, default=True,
        help=r"read \n, \t, \r, \', \", \\, \xHH in TEXT as escapes (default: on)",
    )  # fmt: skip
    group.add_argument(
        "--display-prompt", action=argparse.BooleanOptionalAction, default=True,
        help="print the prompt before its continuation (default: on)",
    )  # fmt: skip


def add_info(commands: Commands) -> Parser:
    summary = "show what was found of this machine and what is used of it"
    return new(commands, "info", summary, command("info", "info"))


def add_lift(commands: Commands) -> Parser:
    summary = "show what a compiled C function computes"
    made = new(commands, "lift", summary, command("look", "lift"))
    made.add_argument(
        "file", metavar="FILE",
        help="shared library or object file; `catalogue` times the lifting of every operator, "
        "`formats` describes and measures every weight format",
    )  # fmt: skip
    made.add_argument(
        "declaration", metavar="DECLARATION", nargs="?",
        help="its C declaration: 'void mish(const float *x, float *out, size_t n)'; "
        "a decoder of weights is 'void decode(const uint8_t *block, float *out)'",
    )  # fmt: skip
    return made


def add_plan(commands: Commands) -> Parser:
    summary = "show what is fused in a model, and why"
    return add_model(new(commands, "plan", summary, command("look", "plan")))


def add_disasm(commands: Commands) -> Parser:
    summary = "show machine code beside the operations it came from"
    made = new(commands, "disasm", summary, command("look", "disasm"))
    add_model(made, operator=True)
    made.add_argument(
        "--loop", action="store_true",
        help="count what a round of every innermost loop executes, and what bounds it",
    )  # fmt: skip
    return made


def add_inspect(commands: Commands) -> Parser:
    summary = "show what a checkpoint holds: metadata, tensors, types"
    made = new(commands, "inspect", summary, command("look", "inspect"))
    made.add_argument(
        "model", metavar="MODEL", nargs="?",
        help="a GGUF file, or a directory with *.safetensors (default: the model of this package)",
    )  # fmt: skip
    return made


def add_model(made: Parser, operator: bool = False) -> Parser:
    flags, _, _, metavar, meaning = RUN_GROUPS["model"][0]
    either = made.add_mutually_exclusive_group()
    either.add_argument(*flags, metavar=metavar, help=meaning)
    either.add_argument(
        "--shape", choices=("llama-1b", "llama-7b", "llama-8b"), default="",
        help="one layer of this well-known shape instead of a checkpoint",
    )  # fmt: skip
    if operator:
        either.add_argument("--op", metavar="NAME", help="one operator instead: silu, gemm_bt")
    return made


# fmt: off
BENCH_OPTIONS = (  # flags, type, default, metavar, help
    ("--shapes", str, "", "LIST", "64x512x512,... gemm: MxNxK, gemv: NxK, ops: ROWSxCOLUMNS"),
    ("--types", str, "f32", "LIST", "f32,f16,bf16: how operands and results are stored; quantised: Q4_K,Q8_0,..."),
    ("--threads", int, 1, "N", "of ours and of the peers"),
    ("--seconds", float, 1.0, "X", "per row, all candidates together"),
    ("--json", str, None, "FILE", "write everything that was measured"),
    ("--plot", str, None, "FILE.png", "draw a roofline of the products (needs matplotlib)"),
)
# fmt: on


def add_bench(commands: Commands) -> Parser:
    summary = "measure operators against numpy, torch and the machine's own limits"
    made = new(commands, "bench", summary, command("bench", "bench"))
    made.add_argument(
        "kind", choices=("gemm", "gemv", "ops", "attention", "quantised", "all"),
        help="what is measured",
    )  # fmt: skip
    for flag, kind, default, metavar, meaning in BENCH_OPTIONS:
        shown = f" (default: {default})" if default else ""
        made.add_argument(flag, type=kind, default=default, metavar=metavar, help=meaning + shown)
    made.add_argument(
        "--preset", choices=("llama7b", "square", "skinny", "grid"), default="",
        help="well-known shapes (default: gemm square, gemv llama7b, ops 16x4096)",
    )  # fmt: skip
    made.add_argument(
        "--layout", choices=("nn", "nt"), default="",
        help="x @ W with W stored k x n, or x @ W.T with W stored n x k (default: gemm nn, gemv nt)",
    )  # fmt: skip
    made.add_argument(
        "--isa", choices=ISAS, default="", help="cap of the instruction set (default: GLLM_ISA)"
    )
    made.add_argument("--cold", action="store_true", help="products find their weights in memory")
    made.add_argument("--prepack", action="store_true", help="gemm: W packed once by gk.pack_b")
    made.add_argument(
        "--cpu-time", action="store_true",
        help="count this thread's time only, on a machine that others use too",
    )  # fmt: skip
    return made
