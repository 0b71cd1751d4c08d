"""Run `gllm-kernels` as a process, with the compiled engine or with the reference one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
REFERENCE = (
    "import sys; sys.path.append({models!r})\n"
    "import reference, gllm_kernels.model.llama as llama\n"
    "llama.compiled = reference.build\n"
    "from gllm_kernels.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


def start(*arguments: object, compiled: bool = False, program: bool = False,
          **options: object) -> subprocess.Popen:  # fmt: skip
    """`program`: the arguments are Python's own."""
    code = REFERENCE.format(models=str(TESTS / "model"))
    head = [] if program else ["-m", "gllm_kernels"] if compiled else ["-c", code]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | options.pop("env", {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, *head, *map(str, arguments)], env=environ, **(pipes | options)
    )


def run(
    *arguments: object, stdin: bytes = b"", **options: object
) -> subprocess.CompletedProcess[bytes]:
    process = start(*arguments, **options)
    out, err = process.communicate(stdin, timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def failure(*arguments: object, status: int = 2, **options: object) -> str:
    """The one line of a command that fails; stdout stays empty."""
    done = run(*arguments, **options)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (status, b""), done
    assert len(lines) == 1 and lines[0].startswith("gllm-kernels: "), done
    return lines[0]
