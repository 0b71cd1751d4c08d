"""Lift random programs and compare each trace with the function, at sizes of our own.

Nothing of the lifter's own verification is used: the calls, the data, the sizes and the guard
pages are made here. Every program of a batch is compiled into one library; a child process lifts
and runs them, so that a crash or a hang is an outcome too.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from programs import HEADER, Program, program

sys.path.append(str(Path(__file__).resolve().parents[2]))
from guard import guarded  # noqa: E402

from gllm_kernels.errors import LiftError  # noqa: E402
from gllm_kernels.lift.elf import open_object  # noqa: E402
from gllm_kernels.lift.lifter import Subject, analyse, check_natively  # noqa: E402
from gllm_kernels.lift.signature import parse  # noqa: E402
from gllm_kernels.trace.interp import run  # noqa: E402
from gllm_kernels.trace.ir import OpTrace  # noqa: E402

BATCH = 25  # programs of one library; they share a build
PATIENCE = 180.0  # seconds for one program on a busy machine, before it counts as a hang
GOOD = ("lifted", "refused")
SCALAR = {
    "gcc": "-fno-tree-vectorize -fno-tree-slp-vectorize",
    "clang": "-fno-vectorize -fno-slp-vectorize",
}
LEVELS = ("-O0", "-O1", "-O1", "-O2", "-O2", "-O3", "-Os")
# fmt: off
MORE = ("", "", "", "-mfma -ffp-contract=fast", "-mavx2 -mfma -mbmi2 -ffp-contract=off",
        "-fno-math-errno -fno-trapping-math", "-fno-plt", "-msse4.1", "-fcf-protection",
        "-march=haswell", "-fno-omit-frame-pointer", "-funroll-loops")
CTYPES = {
    "size_t": ctypes.c_size_t, "int": ctypes.c_int, "int64_t": ctypes.c_int64,
    "unsigned": ctypes.c_uint, "long": ctypes.c_long, "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32, "float": ctypes.c_float, "double": ctypes.c_double, "void": None,
}
DTYPES = {"float": np.float32, "double": np.float64, "int8_t": np.int8, "uint8_t": np.uint8,
          "int32_t": np.int32}
SPECIAL = (float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1e-45, -1e-40, 1.1754944e-38,
           3.4028235e38, 88.8, -104.0, 1.0)
# fmt: on


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one program. verdict: lifted | refused | wrong | error | crash | hang."""

    seed: int
    build: str
    verdict: str
    reason: str
    twist: str
    ms: float = 0.0

    def __str__(self) -> str:
        made = program(self.seed)
        head = f"{self.verdict}: seed {self.seed} ({self.twist or 'no twist'}), {self.build}"
        return f"{head}\n{self.reason}\n{made.text}"


# ---- building


@cache
def compilers() -> tuple[str, ...]:
    return tuple(c for c in ("gcc", "clang") if shutil.which(c))


def build_of(seed: int) -> str:
    """The command line of the batch that this seed is in."""
    rng = Random(f"build {seed // BATCH}")
    compiler = rng.choice(compilers())
    return f"{compiler} {rng.choice(LEVELS)} {SCALAR[compiler]} {rng.choice(MORE)}".strip()


def compiled(seeds: list[int], build: str, folder: Path) -> Path:
    """One library with the functions of all seeds."""
    return linked(HEADER + "".join(program(s).text for s in seeds), build, folder)


def linked(text: str, build: str, folder: Path) -> Path:
    library = folder / "batch.so"
    command = [*build.split(), "-w", "-fPIC", "-shared", "-x", "c", "-", "-o", str(library), "-lm"]
    done = subprocess.run(command, input=text, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{build}: {done.stderr}\n{text}")
    return library


# ---- comparing


def native(made: Program, address: int) -> Callable:
    """The function as Python calls it."""
    head, _, arguments = made.declaration.partition("(")
    kinds = [ctypes.c_void_p if "*" in a else CTYPES[a.split()[0]]
             for a in arguments.rstrip(")").split(", ")]  # fmt: skip
    return ctypes.CFUNCTYPE(CTYPES[head.split()[0]], *kinds)(address)


def cases(made: Program, rng: np.random.Generator) -> Iterator[dict[str, int]]:
    """Sizes: none and few, some at random, and both sides of every number in the text."""
    count = sum(d != "ld" for d in made.dims)
    most = {1: 2100, 2: 6000, 3: 8000}[count]
    near = sorted({max(0, c + d) for c in made.corners for d in (-1, 0, 1, 2)})
    near += [2 * c + 1 for c in made.corners]
    table = [(n,) * count for n in (0, 1, 2)]
    table += [tuple(rng.integers(0, 9, count)) for _ in range(4)]
    table += [tuple(rng.integers(1, {1: 70, 2: 24, 3: 12}[count], count)) for _ in range(4)]
    for place in range(count):
        for far in (*near, *rng.integers(60, 400, 1)):
            sizes = list(rng.integers(1, 4, count))
            sizes[place] = far
            table.append(tuple(sizes))
    if count > 1 and near:
        table += [tuple(rng.choice(near, count)) for _ in range(3)]
    for sizes in dict.fromkeys(table):
        if np.prod([max(1, s) for s in sizes]) <= most:
            named = dict(zip(made.dims, map(int, sizes), strict=False))
            yield named | (
                {"ld": named["n"] + int(rng.integers(0, 4))} if "ld" in made.dims else {}
            )


def values(rng: np.random.Generator, ctype: str, count: int, mode: int) -> np.ndarray:
    """mode 0: random, 1: with special values, 2: few different values and many ties."""
    dtype = np.dtype(DTYPES[ctype])
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        low, high = (info.min, info.max) if mode else (max(info.min, -100), 100)
        return rng.integers(low, high, count, dtype, endpoint=True)
    if mode == 2:
        return rng.choice([-1.0, -0.0, 0.0, 1.0, 2.0], count).astype(dtype)
    found = (rng.standard_normal(count) * 2.0 ** rng.integers(-3, 4)).astype(dtype)
    if mode == 1:
        places = rng.permutation(count)[: max(1, min(len(SPECIAL), count // 2))]
        with np.errstate(all="ignore"):
            found[places] = rng.permutation(SPECIAL)[: len(places)]
    return found


def difference(made: Program, trace: OpTrace, function: Callable, seen: set) -> str:
    """The first difference between trace and function, or ""."""
    rng = np.random.default_rng(int(made.name[1:]))
    for number, sizes in enumerate(cases(made, rng)):
        key = tuple(sizes[d] for d in made.dims)
        if max(key) > trace.extent_limit or (key in seen and number % 2):
            continue
        if _writes_twice(trace, sizes):
            continue  # rows longer than their stride: outside of the contract
        found = _one_case(made, trace, function, sizes, number % 3, rng)
        if found:
            return f"at {sizes}: {found}\n{trace}"
    return ""


def _writes_twice(trace: OpTrace, sizes: dict[str, int]) -> bool:
    places: Counter = Counter()
    for store in trace.stores:
        for at in np.ndindex(*(max(0, e.evaluate(sizes)) for _, e in store.domain)):
            env = sizes | dict(zip((b for b, _ in store.domain), at, strict=True))
            places[store.param, store.index.evaluate(env)] += 1
        if len(trace.stores) == 1 and len(store.domain) < 2:
            return False
    return max(places.values(), default=1) > 1


def _one_case(
    made: Program, trace: OpTrace, function: Callable, sizes: dict[str, int], mode: int,
    rng: np.random.Generator,
) -> str:  # fmt: skip
    theirs, ours = {}, {}
    for name, ctype, lengths in made.arrays:
        length = max([1, *(eval(text, {}, sizes) for text in lengths)])
        data = values(rng, ctype, length, mode)
        theirs[name] = guarded(length, data.dtype, rng.choice(("start", "end")), data)
        ours[name] = data.copy()
    scalars = {
        s: float(values(rng, "float", 1, mode * int(rng.integers(0, 2)))[0]) for s in made.scalars
    }
    try:
        wanted = run(trace, {**ours, **sizes, **scalars})
    except IndexError as error:
        return f"the trace reads beyond an array: {error}"
    names = re.findall(r"(\w+)[,)]", made.declaration.partition("(")[2])
    given = {n: a.ctypes.data for n, a in theirs.items()} | sizes | scalars
    got = function(*(given[n] for n in names))
    for name, array in theirs.items():
        place = _unequal(ours[name], array)
        if place is not None:
            return f"{name}[{place}] is {array[place]!r}, the trace says {ours[name][place]!r}"
    if (
        wanted is not None
        and _unequal(np.array([wanted]), np.array([got], wanted.dtype)) is not None
    ):
        return f"the result is {got!r}, the trace says {wanted!r}"
    return ""


def _unequal(wanted: np.ndarray, got: np.ndarray) -> int | None:
    bits = np.dtype(f"u{wanted.itemsize}")
    same = wanted.view(bits) == got.view(bits)
    if wanted.dtype.kind == "f":
        same |= np.isnan(wanted) & np.isnan(got)
    return None if same.all() else int(np.argmin(same))


# ---- one program


opened = cache(open_object)
loaded = cache(ctypes.CDLL)


def subject_in(library: Path, made: Program) -> Subject:
    """What `subject_of` finds, with the library read once."""
    image = opened(library)
    function = loaded(str(library))[made.name]
    address = ctypes.cast(function, ctypes.c_void_p).value
    entry = image.symbols[made.name]
    return Subject(image, entry, parse(made.declaration), lambda: (address, function))


def judged(seed: int, build: str, library: Path) -> Outcome:
    """Lift without the differential test, then look at the trace twice."""
    made, start = program(seed), time.process_time()

    def outcome(verdict: str, reason: str) -> Outcome:
        return Outcome(seed, build, verdict, reason, made.twist, ms)

    subject = subject_in(library, made)
    try:
        trace, work = analyse(subject)
    except LiftError as error:
        ms = 1e3 * (time.process_time() - start)
        return outcome("refused", str(error))
    ms = 1e3 * (time.process_time() - start)
    address, _keep = subject.address()
    found = difference(made, trace, native(made, address), set(work.done))
    try:
        check_natively(subject, trace)
        caught = "not seen by the differential test"
    except LiftError as error:
        caught = f"seen by the differential test: {str(error).splitlines()[0]}"
        found = found or "equal at the sizes of the fuzzer"
    return outcome("wrong", f"{found}\n{caught}") if found else outcome("lifted", "")


def _child(seeds: list[int], build: str, library: Path, pipe) -> None:
    for seed in seeds:
        try:
            pipe.send(judged(seed, build, library))
        except Exception:
            pipe.send(Outcome(seed, build, "error", traceback.format_exc(), program(seed).twist))


def batch(seeds: list[int]) -> list[Outcome]:
    """The outcomes of some seeds with one build; a child that dies is replaced."""
    build, outcomes = build_of(seeds[0]), []
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(seeds, build, Path(folder))
        while len(outcomes) < len(seeds):
            outcomes += _some(seeds[len(outcomes) :], build, library)
    return outcomes


def _some(seeds: list[int], build: str, library: Path) -> Iterator[Outcome]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(seeds, build, library, theirs))
    child.start()
    theirs.close()
    for seed in seeds:
        try:
            if not ours.poll(PATIENCE):
                child.kill()
                yield Outcome(seed, build, "hang", f"{PATIENCE:.0f} s", program(seed).twist)
                break
            yield ours.recv()
        except EOFError:
            child.join()
            yield Outcome(seed, build, "crash", f"exit code {child.exitcode}", program(seed).twist)
            break
    child.join()


def batches(first: int, count: int) -> Iterator[list[int]]:
    """Seeds from `first` on, cut where the build changes."""
    seeds = range(first, first + count)
    for number in range(first // BATCH, (first + count - 1) // BATCH + 1):
        yield [s for s in seeds if s // BATCH == number]


# ---- reports

def reason_of(outcome: Outcome) -> str:
    """The kind of a refusal: its first line without names and numbers."""
    text = outcome.reason.splitlines()[0].partition(": ")[2]
    text = re.sub(r"^at [^:]*: ", "", text)
    text = re.sub(r"^(.*?)(: | - |, which ).*", r"\1", text)
    return re.sub(r"\b([a-z]\w*\[\d+\]|\d+)", "#", text)


def summary(outcomes: list[Outcome]) -> str:
    """Shares and reasons."""
    total = len(outcomes)
    verdicts = Counter(o.verdict for o in outcomes)
    lines = [f"{total} programs: " + ", ".join(f"{n} {v}" for v, n in verdicts.most_common())]
    for label, some in (("without a twist", [o for o in outcomes if not o.twist]),
                        ("with a twist", [o for o in outcomes if o.twist])):  # fmt: skip
        lifted = sum(o.verdict == "lifted" for o in some)
        lines.append(
            f"{label}: {lifted} of {len(some)} lift ({100 * lifted / max(1, len(some)):.1f} %)"
        )
    lines += _reasons([o for o in outcomes if o.verdict == "refused"])
    times = sorted(o.ms for o in outcomes) or [0.0]
    lines.append(f"one lift: median {times[total // 2]:.1f} ms, longest {times[-1]:.0f} ms")
    return "\n".join(lines)


def _reasons(refused: list[Outcome]) -> Iterator[str]:
    for kind, some in (("without a twist", False), ("with a twist", True)):
        counted = Counter(reason_of(o) for o in refused if bool(o.twist) is some)
        yield f"refused {kind}:"
        yield from (f"  {number:6d}  {reason}" for reason, number in counted.most_common(30))
