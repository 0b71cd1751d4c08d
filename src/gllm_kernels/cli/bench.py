"""`gllm-kernels bench`: a table on stdout as it grows, progress on a terminal."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, BinaryIO, TextIO

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
    from ..debug.bench import Bench, Settings, cases_of, check_plot

    settings = Settings(**{name: getattr(options, name) for name in FIELDS})
    cases = cases_of(settings)
    with ExitStack() as stack:
        stack.enter_context(config(isa=options.isa) if options.isa else nullcontext())
        running = Bench(settings)
        if options.plot is not None:
            check_plot(cases, running.isa_name)
        # a file that cannot be written is said before anything is measured
        files = [stack.enter_context(open(name, mode)) if name is not None else None
                 for name, mode in ((options.json, "w"), (options.plot, "wb"))]
        return measured(running, cases, *files)


def measured(running: Bench, cases: list[Case], data: TextIO | None,
             picture: BinaryIO | None) -> int:
    """What was measured until an interrupt is written too."""
    from ..debug.bench import Table, as_json, roofline

    table, rows = Table(running, max(len(str(case)) for case in cases) + 1), []
    print(*table.head(), sep="\n", flush=True)
    try:
        for number, case in enumerate(cases, 1):
            rows.append(row_of(running, case, f"{number}/{len(cases)} {case}"))
            print(table.row(rows[-1]), flush=True)
        print(*table.tail(rows), sep="\n")
    finally:
        if data is not None:
            json.dump(as_json(running, rows), data, indent=1)
        if picture is not None:
            roofline(rows, picture)
    return WRONG if any(row.wrong for row in rows) else 0


def row_of(running: Bench, case: Case, word: str) -> Row:
    with Progress(word) as progress:
        return running.row(case, lambda share: progress.show(int(1000 * share), 1000))
