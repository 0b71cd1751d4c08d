"""Random C functions through the lifter: each lifts to what it computes, or is refused.

    python tools/fuzz_lift.py [--seed S] [--count N] [--jobs J] [--show]

The programs are those of seeds S .. S+N-1, each compiled as its seed says: `--seed 137 --count 1`
is one of them again. --show prints the text of each. Prints shares and reasons, and exits with 1
after any outcome but "lifted, same numbers" and "refused with a LiftError".
"""

from __future__ import annotations

import argparse
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
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        for done in pool.map(batch, batches(options.seed, options.count)):
            outcomes += done
            for outcome in done:
                if options.show or outcome.verdict not in GOOD:
                    print(outcome, flush=True)
    print(summary(outcomes))
    return any(o.verdict not in GOOD for o in outcomes)


if __name__ == "__main__":
    sys.exit(main())
