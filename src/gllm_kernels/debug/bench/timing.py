"""Best and median of candidates that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from .peers import Run

ROUND_S = 2e-3  # a candidate's turn; shorter calls are repeated
ROUNDS = 3  # at least, however long one takes
Clock = Callable[[], float]
Observe = Callable[[float], None]  # the share that is done


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one call."""

    best: float
    median: float
    rounds: int


def interleaved(runs: Mapping[str, Run], seconds: float, clock: Clock,
                observe: Observe = lambda share: None) -> dict[str, Times]:
    """Every candidate once per round, in alternating order, for `seconds` altogether."""
    counts = {name: repeats(run) for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    start, order = time.perf_counter(), list(runs)
    while (spent := time.perf_counter() - start) < seconds or len(taken[order[0]]) < ROUNDS:
        observe(min(spent / seconds, 1.0))
        for name in order:
            taken[name].append(timed(runs[name], counts[name], clock))
        order.reverse()
    return {name: Times(min(found), median(found), len(found)) for name, found in taken.items()}


def timed(run: Run, count: int, clock: Clock) -> float:
    start = clock()
    for _ in range(count):
        run()
    return (clock() - start) / count


def repeats(run: Run) -> int:
    """Calls that take about a turn."""
    once = min(timed(run, 1, time.perf_counter) for _ in range(2))
    return max(1, int(ROUND_S / max(once, 1e-7)))
