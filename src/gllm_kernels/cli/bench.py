"""`gllm-kernels bench`: a table on stdout as it grows, progress on a terminal."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..config import config
from .progress import Progress

if TYPE_CHECKING:
    from ..debug.bench import Bench, Case, Row

WRONG = 1
FIELDS = ("kind", "shapes", "preset", "types", "layout", "threads", "seconds", "cold", "prepack",
          "cpu_time")
# peers read these when they are imported, and that is when numpy is
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def bench(options: Namespace) -> int:
    os.environ |= dict.fromkeys(LIMITS, str(options.threads))
    from ..debug.bench import Settings, cases_of
    from ..debug.bench.plot import plotting

    settings = Settings(**{name: getattr(options, name) for name in FIELDS})
    cases = cases_of(settings)
    if options.plot is not None:
        plotting()
    with ExitStack() as stack:
        # a file that cannot be written is said before anything is measured
        output = stack.enter_context(open(options.json, "w")) if options.json is not None else None
        stack.enter_context(config(isa=options.isa) if options.isa else nullcontext())
        return measured(settings, cases, output, options.plot)


def measured(settings: object, cases: list[Case], output: TextIO | None, plot: str | None) -> int:
    from ..debug.bench import Bench, Table, as_json, roofline

    running = Bench(settings)
    table = Table(running, max(len(str(case)) for case in cases) + 1)
    print(*table.head(), sep="\n", flush=True)
    rows = []
    for number, case in enumerate(cases, 1):
        rows.append(row_of(running, case, f"{number}/{len(cases)} {case}"))
        print(table.row(rows[-1]), flush=True)
    print(*table.tail(rows), sep="\n")
    if output is not None:
        json.dump(as_json(running, rows), output, indent=1)
    if plot is not None:
        roofline(rows, Path(plot))
    return WRONG if any(row.wrong for row in rows) else 0


def row_of(running: Bench, case: Case, word: str) -> Row:
    with Progress(word) as progress:
        return running.row(case, lambda share: progress.show(int(1000 * share), 1000))
