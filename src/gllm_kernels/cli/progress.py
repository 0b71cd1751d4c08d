"""A progress line on a terminal, once the wait is worth one."""

from __future__ import annotations

import sys
import time

WAIT_S = 0.5
STEP_S = 0.1
WIDTH = 30


class Progress:
    """`with Progress("loading") as p: p.show(done, total)`: nothing where stderr is no terminal."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._next = time.monotonic() + WAIT_S
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next or not total or not sys.stderr.isatty():
            return
        full = WIDTH * done // total
        line = f"\r{self._word} [{'#' * full}{'.' * (WIDTH - full)}] {100 * done // total:3d} %"
        print(line, end="", file=sys.stderr, flush=True)
        self._next, self._shown = now + STEP_S, True

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # ECMA-48 EL: erase the line
