"""Judge every labelled function at every build, with the differential test switched off.

    python tools/judge.py [--builds PATTERN] [--functions PATTERN] [--why]

The label of a function stands in the line above it (tests/lift/*.c):

    accept   the right trace must come out where the compiler keeps one loop per function (LOOPS)
    reject   no trace may come out, at any build
    either   no trace, or the right one

A trace that comes out is right when the trace interpreter writes the same bits as the function, at
sizes beyond all that the lifter looks at. The table counts, per build: wrong traces, traces of
functions to be rejected, and functions lost; --why prints the reasons.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from gllm_kernels.errors import LiftError
from gllm_kernels.lift.lifter import analyse, subject_of
from gllm_kernels.lift.signature import parse
from gllm_kernels.lift.verify import _case, compare, native
from gllm_kernels.trace.ir import OpTrace

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "lift"
SOURCES = [FOLDER / f"{name}.c" for name in ("adversarial", "narrow", "holes", "sizes")]
ROW = re.compile(
    r"^// (accept|reject|either): (.*)\n(?:__attribute__.*\n|extern.*?; )?"
    r"((?:void|float|int64_t) (\w+)\(.*?\)) \{",
    re.MULTILINE,
)
LINE = re.compile(ROW.pattern + r".*\n", re.MULTILINE)
PLAIN = ("-ffp-contract=off", "-w", "-fPIC", "-shared")
NO_VECTORS = {
    "gcc": ("-fno-tree-vectorize", "-fno-tree-slp-vectorize"),
    "clang": ("-fno-vectorize", "-fno-slp-vectorize"),
}
LEVELS = ("-O0", "-O1", "-O2", "-O3")
# builds at which every `accept` function lifts: no loop is split or unrolled
LOOPS = (("gcc", "-O0"), ("gcc", "-O1"), ("gcc", "-O2"), ("clang", "-O0"), ("clang", "-O1"))
# beyond the lifter's 300 in one dimension, and beyond its pairs in several
LARGE = {0: ((),), 1: ((301,), (1000,), (2503,)), 2: ((41, 130), (130, 41), (7, 611)),
         3: ((9, 40, 70), (33, 7, 61), (5, 310, 3)),
         4: ((5, 9, 33, 40), (12, 5, 7, 50))}  # fmt: skip
Build = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled function."""

    label: str
    why: str
    declaration: str
    name: str


def rows() -> list[Row]:
    found = [ROW.findall(path.read_text()) for path in SOURCES]
    return [Row(k, w, d.replace("float *const", "float *"), n) for f in found for k, w, d, n in f]


def builds() -> list[Build]:
    return [(c, level) for c in NO_VECTORS if shutil.which(c) for level in LEVELS]


def compiled(folder: Path, wanted: dict[Build, list[Row]]) -> dict[Build, Path]:
    """One shared library per build with the functions that are judged there, compiled at once."""
    jobs, paths = [], {}
    for (compiler, level), chosen in wanted.items():
        paths[compiler, level] = path = folder / f"lib{compiler}{level}.so"
        flags = (
            compiler,
            level,
            *NO_VECTORS[compiler],
            *PLAIN,
            "-x",
            "c",
            "-",
            "-o",
            str(path),
            "-lm",
        )
        jobs.append(subprocess.Popen(flags, stdin=subprocess.PIPE, text=True))
        jobs[-1].stdin.write(text_of({row.name for row in chosen}))
        jobs[-1].stdin.close()
    if any(job.wait() for job in jobs):
        raise SystemExit("a labelled function does not compile")
    return paths


def text_of(names: set[str]) -> str:
    """The sources without the labelled functions that are not wanted."""

    def kept(found: re.Match) -> str:
        return found[0] if found[4] in names else ""

    return "\n".join(LINE.sub(kept, path.read_text()) for path in SOURCES)


def judged(path: Path, row: Row) -> tuple[str, str]:
    """("lifts" | "refused" | "wrong", the trace or the reason)."""
    subject = subject_of(path, parse(row.declaration))
    try:
        trace, _ = analyse(subject)
    except LiftError as error:
        return "refused", str(error)
    address, keep = subject.address()
    try:
        prove(trace, subject.signature, native(address, subject.signature))
    except LiftError as error:
        return "wrong", str(error)
    del keep
    return "lifts", str(trace)


def prove(trace: OpTrace, signature, function) -> None:
    """Every byte of every buffer, at sizes that the lifter has not seen."""
    rng = np.random.default_rng(1)
    dims = [a.name for a in signature.of_kind("dim")]
    for sizes in LARGE[len(dims)]:
        compare(_case(trace, dict(zip(dims, sizes, strict=True)), rng), signature, function)


def faults(row: Row, build: Build, mark: str) -> Iterator[str]:
    """What contradicts the label."""
    if mark == "wrong":
        yield "wrong"
    if mark == "lifts" and row.label == "reject":
        yield "accepted"
    if mark == "refused" and row.label == "accept":
        yield "lost" if build in LOOPS else "elsewhere"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--builds", default="*")
    parser.add_argument("--functions", default="*")
    parser.add_argument("--why", action="store_true")
    given = parser.parse_args()
    wanted = [b for b in builds() if fnmatch(" ".join(b), given.builds)]
    chosen = [r for r in rows() if fnmatch(r.name, given.functions)]
    print(
        f"{len(chosen)} functions: "
        + ", ".join(
            f"{sum(r.label == k for r in chosen)} {k}" for k in ("reject", "accept", "either")
        )
    )
    print(f"{'build':12}{'lift':>6}{'wrong':>7}{'accepted':>10}{'lost':>6}{'lost elsewhere':>16}")
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        for build, path in compiled(Path(folder), dict.fromkeys(wanted, chosen)).items():
            found: dict[str, list[str]] = {"lifts": []}
            for row in chosen:
                mark, text = judged(path, row)
                found["lifts"] += [row.name] * (mark == "lifts")
                for fault in faults(row, build, mark):
                    found.setdefault(fault, []).append(f"{row.name}: {text}")
            counts = [
                len(found.get(k, ())) for k in ("lifts", "wrong", "accepted", "lost", "elsewhere")
            ]
            print("{:12}{:6}{:7}{:10}{:6}{:16}".format(" ".join(build), *counts), flush=True)
            total += sum(counts[1:4])
            for fault in ("wrong", "accepted", "lost", "elsewhere") if given.why else ():
                print(
                    "".join(f"  {fault} {t.splitlines()[0]}\n" for t in found.get(fault, ())),
                    end="",
                )
    return int(total > 0)


if __name__ == "__main__":
    raise SystemExit(main())
