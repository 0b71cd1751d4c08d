"""`gllm-kernels run`: the prompt and its continuation on stdout, one line of figures on stderr."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from ..config import current
from ..errors import ShapeError
from ..model.llama import TINY, Llama
from .main import INTERRUPTED
from .progress import Progress

DEFAULT_PROMPT = "\ndef"
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "'": "'", '"': '"', "\\": "\\"}


def run(options: Namespace) -> int:
    prompt = read_prompt(options)
    with Progress("loading") as progress:
        llm = Llama(
            TINY if options.model is None else options.model,
            n_ctx=options.ctx_size,
            n_threads=options.threads,
            progress=progress.show,
        )
    pieces = llm.generate(
        prompt,
        max_tokens=options.n_predict,
        temp=options.temp,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repeat_penalty=options.repeat_penalty,
        seed=options.seed,
    )
    tell_threads(current().threads if options.threads is None else options.threads,
                 llm.stats.threads)  # fmt: skip
    status = 0
    try:
        write_all(chain([prompt] if options.display_prompt else [], pieces))
    except KeyboardInterrupt:
        status = INTERRUPTED
    print(llm.stats, file=sys.stderr)
    return status


def tell_threads(wanted: int, used: int) -> None:
    """More threads than CPUs would only wait for each other: fewer run, and that is said."""
    if wanted > used:
        print(f"gllm-kernels: {wanted} threads wanted, {used} used: more cannot run at once here",
              file=sys.stderr)  # fmt: skip


def write_all(pieces: Iterable[str]) -> None:
    """The pieces as they come; whatever ends them, the text ends its line: stderr may follow it."""
    last = ""
    try:
        for text in pieces:
            sys.stdout.write(text)
            sys.stdout.flush()
            last = text or last
    finally:
        if last and not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def read_prompt(options: Namespace) -> str:
    if options.file is not None:
        return read_file(options.file)
    if options.prompt is not None:
        return unescape(options.prompt) if options.escape else options.prompt
    if options.model is not None:
        raise ShapeError("no prompt: give one with -p TEXT or -f FILE")
    return DEFAULT_PROMPT


def read_file(name: str) -> str:
    """The text of a file without its last line end: a prompt goes on where the text stops."""
    if name == "-" and sys.stdin is None:
        raise ShapeError("-f -: stdin is closed; give the prompt with -p TEXT or -f FILE")
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ShapeError(f"{name}: byte {error.start} is not UTF-8; convert the file") from None


def unescape(text: str) -> str:
    r"""\n and its like -> the character; any other backslash stays."""

    def character(match: re.Match[str]) -> str:
        code = match.group(1)
        return ESCAPES[code] if code in ESCAPES else chr(int(code[1:], 16))

    return re.sub(r"\\([ntr'\"\\]|x[0-9a-fA-F]{2})", character, text)
