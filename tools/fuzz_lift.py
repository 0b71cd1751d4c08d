"""Random C functions through the lifter: each lifts to what it computes, or is refused.

    python tools/fuzz_lift.py [--seed S] [--count N] [--jobs J] [--show]

The programs are those of seeds S .. S+N-1, each compiled as its seed says: `--seed 137 --count 1`
is one of them again. --show prints the text of each. Prints shares and reasons, also when it is
interrupted, and exits with 1 after any outcome but "lifted, same numbers" and "refused with a
LiftError".
"""

from __future__ import annotations

import argparse
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lift" / "fuzz"))
from check import GOOD, Outcome, batch, batches, summary  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        try:
            for done in pool.map(batch, batches(options.seed, options.count)):
                outcomes += done
                show(done, options.show, len(outcomes))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
    print(summary(outcomes))
    return len(outcomes) < options.count or any(o.verdict not in GOOD for o in outcomes)


def show(done: list[Outcome], everything: bool, count: int) -> None:
    """The programs whose outcome is not good, or all; a line for every 1000."""
    for outcome in done:
        if everything or outcome.verdict not in GOOD:
            print(outcome, flush=True)
    if count // 1000 > (count - len(done)) // 1000:
        print(f"{count} programs", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
