"""From a compiled function and its C declaration to a trace.

decode -> run at tiny sizes -> fold -> accept at every size that matters -> verify natively
"""

from __future__ import annotations

import ctypes
import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

from ..errors import LiftError
from ..memory import place
from ..scalar.catalog import CATALOG
from ..scalar.loader import OBJECTS, LoadedObject, load_object
from ..trace.ir import OpTrace
from ..trace.pattern import pattern_of
from ..trace.shapes import param_shape
from . import cache
from .accept import Acceptance, accept
from .data import ELEMENTS
from .elf import Image, live_image, open_object, raw_image
from .engine import execute
from .error import Refusal, lift_error
from .key import content_key
from .nodes import Nodes
from .program import Program, decode
from .samples import base_sizes
from .signature import Signature, parse
from .store import json_of
from .verify import native, verify
from .x86 import compile_program

Source = str | Path | bytes | LoadedObject | object
STARTUP = ("deregister_tm_clones", "register_tm_clones", "frame_dummy")  # of every library
MOST_NAMES = 20  # of functions in a message
TOO_DEEP = (
    "one value is a chain of more operations than can be followed",
    "sums, products, maxima and minima over dimensions",
    "a value that each element hands to the next has no formula in index notation",
)
FEW = 4  # calls that a kept trace is compared in: no elements, and some
CATALOG_OBJECT = OBJECTS / "x86_64.o"


@dataclass
class Subject:
    """A function to lift: where its code is, and how to call it (returns what keeps it alive)."""

    image: Image
    entry: int
    signature: Signature
    address: Callable[[], tuple[int, object]]


def lift(source: Source, declaration: str, verify: bool = True) -> OpTrace:
    """The trace of the function that `declaration` names in `source`.

    `source` is the path of a .so or .o, a ctypes function, a loaded object, or machine code as
    bytes. LiftError when the function is not expressible: never a wrong trace. What was lifted and
    verified once is kept in the user's cache directory, see `lift.cache`.
    """
    subject = subject_of(source, parse(declaration))
    if not verify:
        return analyse(subject)[0]
    kept = recalled(subject)
    if kept is not None:
        return kept
    watched = cache.Watched(subject.image, subject.entry)
    trace, _ = analyse(replace(subject, image=watched))
    check_natively(subject, trace)
    cache.keep(watched, subject.signature, json_of(trace))
    return trace


def recalled(subject: Subject) -> OpTrace | None:
    """The kept trace, if it is there and a few calls of the function agree with it."""
    trace = cache.recall(subject.image, subject.entry, subject.signature)
    if trace is None:
        return None
    try:
        check_natively(subject, trace, FEW)
    except cache.BAD as failure:
        cache.note(f"a kept trace of {trace.name} is ignored: {str(failure).splitlines()[0]}")
        return None
    return trace


def analyse(subject: Subject) -> tuple[OpTrace, Acceptance]:
    """Decode, execute, fold and accept; refusals become LiftErrors with a listing."""
    program: Program | None = None
    try:
        program = compiled(subject)
        return accept(program, subject.image, subject.signature)
    except Refusal as refusal:
        listing = program.listing() if program else {}
        raise lift_error(subject.signature.symbol, refusal, listing, subject.image.line) from None
    except RecursionError:
        raise lift_error(subject.signature.symbol, Refusal(*TOO_DEEP), {}, str) from None


def compiled(subject: Subject) -> Program:
    """The decoded program with the meaning of every instruction."""
    return compile_program(decode(subject.image, subject.entry), subject.image)


def check_natively(subject: Subject, trace: OpTrace, most: int | None = None) -> int:
    """Differential verification, by at most some calls; the number of calls compared."""
    address, keep = subject.address()
    count = verify(trace, subject.signature, native(address, subject.signature), most)
    del keep
    return count


def subject_of(source: Source, signature: Signature) -> Subject:
    """Find the function in any kind of source."""
    symbol = signature.symbol
    for arg in signature.of_kind("pointer"):
        if arg.ctype not in ELEMENTS:
            raise LiftError(f"{symbol}: {arg.name} is an array of {arg.ctype}; arrays here are of "
                            f"{', '.join(ELEMENTS)}, and a half is a uint16_t")
    if isinstance(source, bytes | bytearray):
        code = bytes(source)
        return Subject(raw_image(code), raw_image(code).symbols[""], signature, _placed(code))
    if isinstance(source, LoadedObject):
        return _live(source.address(symbol), signature, source)
    if isinstance(source, ctypes._CFuncPtr):
        return _live(ctypes.cast(source, ctypes.c_void_p).value, signature, source)
    if isinstance(getattr(source, "address", None), int):  # a numba cfunc
        return _live(source.address, signature, source)
    if isinstance(source, tuple) and [type(x) for x in source] == [bytes, int]:
        return _live(source[1], signature, source, source[0])
    if not isinstance(source, str | Path):
        raise LiftError(
            f"cannot lift a {type(source).__name__}; wanted the path of a .so or .o, a ctypes "
            "function, a numba cfunc, a loaded object, bytes, or (bytes, their address)"
        )
    image = open_object(source)
    if symbol not in image.symbols:
        raise LiftError(f"{source} defines no function {symbol}; {_known(symbol, image)}")
    return Subject(image, image.symbols[symbol], signature, _loaded(Path(source), symbol, image))


def _known(symbol: str, image: Image) -> str:
    """What a file defines: the name that is near, or those that are not the C library's."""
    near = [n for n in image.symbols if symbol in n]  # C++ writes _Z4mishPKfPfm
    near += difflib.get_close_matches(symbol, image.symbols, n=1, cutoff=0.8)
    names = [n for n in sorted(image.symbols) if not n.startswith("_") and n not in STARTUP]
    listed = ", ".join(names[:MOST_NAMES]) + ", ..." * (len(names) > MOST_NAMES)
    hint = ' In C++, declare it extern "C"' if near and near[0].startswith("_Z") else ""
    return f"did you mean {near[0]}?{hint}" if near else f"it defines: {listed or 'none'}"


def _live(address: int | None, signature: Signature, keep: object, code: bytes = b"") -> Subject:
    symbol = signature.symbol
    if not address:
        raise LiftError(f"{symbol}: the function pointer is null; give one that points to code")
    image = live_image(address, symbol)
    if not image.executable(address):
        raise LiftError(
            f"{symbol}: no code lies at {address:#x} in this process; keep the library or the "
            "object that owns the function alive, or give the path of its file"
        )
    if image.read(address, len(code)) != code:
        raise LiftError(
            f"{symbol}: the bytes at {address:#x} in this process are not those given; give the "
            "bytes alone where the code refers to nothing outside them, or the path of its file"
        )
    return Subject(image, address, signature, lambda: (address, keep))


def _placed(code: bytes) -> Callable[[], tuple[int, object]]:
    def address() -> tuple[int, object]:
        block = place(len(code), lambda _: code)
        return block.address, block

    return address


def _loaded(path: Path, symbol: str, image: Image) -> Callable[[], tuple[int, object]]:
    """Load a shared library with the system's loader, a relocatable object with our own."""

    def address() -> tuple[int, object]:
        if image.relocatable:
            loaded = load_object(path)
            return loaded.address(symbol), loaded
        try:
            library = ctypes.CDLL(str(path.resolve()))
            return ctypes.cast(library[symbol], ctypes.c_void_p).value or 0, library
        except OSError as failure:
            raise LiftError(f"{path}: cannot be loaded: {failure}; build it with -shared") from None
        except AttributeError:
            raise LiftError(
                f"{path}: {symbol} is local to the library; define it without `static`"
            ) from None

    return address


def catalogue_entries() -> dict[str, dict]:
    """What the store holds: every operator of the catalogue, lifted afresh and verified."""
    entries = {}
    for op in CATALOG:
        if not op.opaque:
            signature = parse(op.declaration)
            subject = subject_of(CATALOG_OBJECT, signature)
            trace, work = analyse(subject)
            check_natively(subject, trace)
            key = content_key(work.program, subject.image, signature)
            entries[op.name] = {
                "key": key, "declaration": str(signature), "trace": json_of(trace),
            }  # fmt: skip
    return entries


# ---- reports


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds: one symbolic execution, full acceptance, differential verification."""

    name: str
    execution: float
    acceptance: float
    verification: float
    runs: int
    calls: int


def time_lift(subject: Subject, repeat: int = 5) -> tuple[OpTrace, Timing]:
    """Lift and measure; one execution is decode, compile and run, its counters known.

    The best of `repeat`, because everything above it is the noise of a shared machine.
    """
    start = perf_counter()
    trace, work = analyse(subject)
    acceptance = perf_counter() - start
    start = perf_counter()
    calls = check_natively(subject, trace)
    verification = perf_counter() - start
    times = [_one_execution(subject, work) for _ in range(repeat)]
    rows = (min(times), acceptance, verification)
    return trace, Timing(trace.name, *(1e3 * t for t in rows), len(work.done), calls)


def _one_execution(subject: Subject, work: Acceptance) -> float:
    start = perf_counter()
    program = compiled(subject)
    sizes, _ = base_sizes(program, len(work.dims))
    execute(
        program, subject.image, subject.signature, work.named(sizes), Nodes(),
        work.learned.get(work.classes.of(sizes), {}), work.periods(sizes),
    )  # fmt: skip
    return perf_counter() - start


def report(source: Source, declaration: str) -> str:
    """Trace, pattern, array shapes and times, as the command line prints them."""
    trace, timing = time_lift(subject_of(source, parse(declaration)))
    shapes = [
        f"  {name}: {' x '.join(f'({d})' if ' ' in str(d) else str(d) for d in dims)}"
        for name in trace.names("in", "out", "inout")
        for dims in [param_shape(trace, name)]
    ]
    verified = f"{timing.verification:.1f} ms in {timing.calls} calls, every bit equal"
    lines = [
        str(trace),
        f"pattern: {pattern_of(trace)}",
        "shapes:",
        *shapes,
        f"one symbolic execution: {timing.execution:.2f} ms",
        f"full acceptance: {timing.acceptance:.1f} ms in {timing.runs} executions",
        f"differential verification: {verified}",
    ]
    return "\n".join(lines)


def timing_rows() -> Iterator[Timing]:
    """The catalogue, lifted from the committed object."""
    for op in CATALOG:
        if not op.opaque:
            yield time_lift(subject_of(CATALOG_OBJECT, parse(op.declaration)))[1]


def timing_table() -> str:
    """One line per operator of the catalogue, medians below."""
    rows = list(timing_rows())
    head = f"{'operator':28}{'execution ms':>13}{'acceptance ms':>15}{'verify ms':>11}{'runs':>6}"
    lines = [
        f"{r.name:28}{r.execution:13.2f}{r.acceptance:15.1f}{r.verification:11.1f}{r.runs:6d}"
        for r in rows
    ]
    middle = [median(getattr(r, k) for r in rows) for k in Timing.__slots__[1:4]]
    last = f"{'median':28}{middle[0]:13.2f}{middle[1]:15.1f}{middle[2]:11.1f}"
    return "\n".join([head, *lines, last])
