"""Run one command and turn whatever it raises into one line and an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from ..errors import GllmError
from .options import parse

DEFECT, FAILED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `gllm-kernels ARGUMENTS`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    verbose = "-v" in arguments or "--verbose" in arguments
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a C locale lacks letters
    try:
        options = parse(arguments)
        status = options.command(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (GllmError, OSError, MemoryError) as error:
        return report(error, f"error: {error or 'out of memory'}", FAILED, verbose)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (--verbose shows where)"
        return report(error, text, DEFECT, verbose)
    finally:
        settle_stdout()


def settle_stdout() -> None:
    """Drop what cannot be written: Python flushes stdout once more at exit, and would complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: Exception, text: str, status: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exception(error)
    # lines set in by four are an excerpt of code, which is none without its lines
    told = [line for line in text.splitlines() if not line.startswith("    ")]
    more = " (--verbose shows the code)" if len(told) < len(text.splitlines()) else ""
    print("gllm-kernels:", " ".join(" ".join(told).split()) + more, file=sys.stderr)
    return status
