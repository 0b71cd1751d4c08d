"""Run one command and turn whatever it raises into one line and an exit status."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from ..errors import GllmError
from .options import UsageError, parse

DEFECT, FAILED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
# fmt: off
REMEDIES = {  # what the system refuses: what to do about it
    errno.ENOMEM: "free memory, allow more (ulimit -v), or need less: a shorter context (-c), "
                  "fewer threads (-t), a smaller model",
    errno.ENOSPC: "free space, or write to another place",
    errno.EISDIR: "give a file",
    errno.ENOENT: "check the path",
    errno.EACCES: "check its permissions",
}
# fmt: on


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `gllm-kernels ARGUMENTS`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        check_streams()
        options = parse(arguments)
        status = options.command(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except GllmError as error:
        return report(error, f"error: {error}", FAILED, verbose)
    except (OSError, MemoryError) as error:
        return report(error, f"error: {refusal(error)}", FAILED, verbose)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (--verbose shows where)"
        return report(error, text, DEFECT, verbose)
    finally:
        settle_stdout()


def check_streams() -> None:
    """Python has None for a stream that was closed before it started."""
    if sys.stderr is None:
        # print(file=None) writes to stdout, where nothing but the text belongs
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        raise UsageError("stdout is closed; send it to a terminal, a file or /dev/null")
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a C locale lacks letters


def refusal(error: OSError | MemoryError) -> str:
    """Where, what, remedy. An OSError without a file is of stdout, or of no place at all."""
    if isinstance(error, MemoryError):
        return f"{str(error) or 'out of memory'}; {REMEDIES[errno.ENOMEM]}"
    stdout = "stdout" if error.errno == errno.ENOSPC else None
    where = error.filename if error.filename is not None else stdout
    what = error.strerror or str(error)
    remedy = REMEDIES.get(error.errno or 0)
    return (f"{where}: " if where else "") + what + (f"; {remedy}" if remedy else "")


def settle_stdout() -> None:
    """Drop what cannot be written: Python flushes stdout once more at exit, and would complain."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: Exception, text: str, status: int, verbose: bool) -> int:
    # lines set in by four are an excerpt of code: such a text keeps its lines, any other is one line
    excerpt = any(line.startswith("    ") for line in text.splitlines())
    with suppress(OSError):  # a full disk behind stderr too: the status is all that is left
        if verbose:
            traceback.print_exception(error)
        print("gllm-kernels:", text if excerpt else " ".join(text.split()), file=sys.stderr)
    return status
