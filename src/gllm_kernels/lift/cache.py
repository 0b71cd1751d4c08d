"""Traces of users' functions, kept between processes in the user's cache directory.

    <cache>/<key>.json    {"asked": [[kind, place, size], ...], "answers": sha256, "trace": {...}}
    key                   sha256(kind, version, architecture, declaration, first bytes of the function)

A lift depends on what it asks the image, and on nothing else: an entry holds for a function whose
image answers every question as it did then, places being relative to the function. So the bytes of
the function, of what it calls and of its constants are all covered. Refusals are not kept: their
text shows addresses and source lines, and they are found in a millisecond.

What is read is not trusted: it must be the user's own file, in a directory that nobody else may
write, a well-formed trace of this declaration, and equal to the function in a few calls.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..config import current
from ..errors import GllmError
from ..trace.ir import OpTrace
from .elf import Image
from .signature import PREFIX, Signature
from .store import LIFTER_VERSION, Json, trace_of

T = TypeVar("T")
FIRST_BYTES = 64
MOST_BYTES, MOST_ENTRIES, MOST_QUESTIONS, LONGEST = 1 << 20, 512, 20_000, 64
OTHERS = stat.S_IWGRP | stat.S_IWOTH
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
QUESTIONS = ("read", "constant", "slot", "callee")
BAD = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError,
       OverflowError, GllmError)  # fmt: skip


@dataclass
class Watched:
    """An image that remembers what it was asked; every question is asked once."""

    image: Image
    entry: int
    asked: dict[tuple, object] = field(default_factory=dict)

    def ask(self, kind: str, place: int, *size: int) -> object:
        key = (kind, place, *size)
        if key not in self.asked:
            self.asked[key] = getattr(self.image, kind)(self.entry + place, *size)
        return self.asked[key]

    def read(self, address: int, size: int) -> bytes:
        return self.ask("read", address - self.entry, size)

    def constant(self, address: int, size: int) -> bytes | None:
        return self.ask("constant", address - self.entry, size)

    def slot(self, address: int) -> str | None:
        return self.ask("slot", address - self.entry)

    def callee(self, address: int) -> str | None:
        return self.ask("callee", address - self.entry)

    def line(self, address: int) -> str:
        return self.image.line(address)

    def answers(self) -> str:
        rows = sorted(self.asked.items(), key=repr)
        return hashlib.sha256(repr(rows).encode()).hexdigest()


def recall(
    image: Image, entry: int, signature: Signature, kind: str = "trace",
    read: Callable[[Json, Signature], T] | None = None,
) -> T | None:  # fmt: skip
    """The trace that was kept for this function, or what `read` makes of data of another kind; or
    None."""
    with _folder(make=False) as folder:
        if folder is None:
            return None
        name = _name(image, entry, signature, kind)
        try:
            data = _read(folder, name)
            if data is None or not _answered(data, Watched(image, entry)):
                return None
            return (read or _trace)(_whole(data["trace"]), signature)
        except BAD as failure:
            note(f"{name} in the cache of lifted functions is ignored: {failure or failure!r}")
            return None


def keep(watched: Watched, signature: Signature, trace: Json, kind: str = "trace") -> None:
    """Store a verified trace, as data; without a directory that can be written, nothing happens."""
    asked = [list(key) for key in watched.asked]
    data = {"asked": asked, "answers": watched.answers(), "trace": trace}
    text = json.dumps(data, separators=(",", ":")).encode()
    with _folder(make=True) as folder:
        if folder is None or len(text) > MOST_BYTES or len(asked) > MOST_QUESTIONS:
            return
        with suppress(OSError):
            _write(folder, _name(watched.image, watched.entry, signature, kind), text)
            _bound(folder)


def directory() -> Path | None:
    """Where traces are kept: GLLM_CACHE, or the user's cache directory; None when it is off."""
    named = current().cache
    if named == "off":
        return None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return Path(named) if named else None
    return Path(named) if named else Path(base) / "gllm-kernels" / "lifted"


# ---- what is in a file


def _name(image: Image, entry: int, signature: Signature, kind: str) -> str:
    first = image.read(entry, FIRST_BYTES).hex()
    head = f"{kind} {LIFTER_VERSION} {platform.machine()} {signature} {first}"
    return hashlib.sha256(head.encode()).hexdigest() + ".json"


def _answered(data: Json, watched: Watched) -> bool:
    """Whether the image answers as it did when the trace was made."""
    if len(data["asked"]) > MOST_QUESTIONS:
        raise ValueError(f"{len(data['asked'])} questions")
    for kind, place, *size in data["asked"]:
        numbers = [place, *size]
        sized = len(size) == (kind in ("read", "constant"))
        if kind not in QUESTIONS or not sized or any(type(x) is not int for x in numbers):
            raise ValueError(f"the question {[kind, *numbers]}")
        if any(not 0 < x <= LONGEST for x in size) or not 0 <= watched.entry + place < 1 << 64:
            raise ValueError(f"the question {[kind, *numbers]}")
        watched.ask(kind, place, *size)
    return watched.answers() == data["answers"]


def _whole(data: Json) -> Json:
    """All numbers of a trace are integers, also the bits of a float."""
    pending = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, bool | float):
            raise ValueError(f"the number {item}")
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return data


def _trace(data: Json, signature: Signature) -> OpTrace:
    """A trace, but not one of another function."""
    trace = trace_of(data)
    kinds = {"dim": ("dim",), "scalar": ("scalar",), "pointer": ("in", "out", "inout")}
    wanted = [(a.name, a.ctype) for a in signature.arguments]
    roles = zip(trace.params, signature.arguments, strict=False)
    same = [(p.name, p.ctype) for p in trace.params] == wanted
    if not same or any(p.role not in kinds[a.kind] for p, a in roles):
        raise ValueError("it is not a trace of this declaration")
    if type(trace.extent_limit) is not int:
        raise ValueError(f"the extent limit {trace.extent_limit!r}")
    if trace.name != signature.symbol.removeprefix(PREFIX):
        raise ValueError("it is the trace of another function")
    return trace


# ---- files


@contextmanager
def _folder(make: bool) -> Iterator[int | None]:
    """The directory, open, when it is the user's own; else None, with a note where it is not."""
    path, opened = directory(), None
    try:
        if path is not None:
            if make:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = os.open(path, FOLDER)
    except OSError:
        pass  # not there yet, or not for us: it works without
    try:
        yield opened if opened is not None and _own(opened, f"the directory {path}") else None
    finally:
        if opened is not None:
            os.close(opened)


def _own(opened: int, what: str) -> bool:
    found = os.fstat(opened)
    if found.st_uid == os.geteuid() and not found.st_mode & OTHERS:
        return True
    note(f"{what} is not used: it belongs to another user, or others may write it")
    return False


def _read(folder: int, name: str) -> Json | None:
    try:
        opened = os.open(name, FILE, dir_fd=folder)
    except FileNotFoundError:
        return None
    with open(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise ValueError("not a file")
        if not _own(opened, name):
            return None
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return json.loads(text)


def _write(folder: int, name: str, text: bytes) -> None:
    """All or nothing: into a new file, which then takes the name."""
    new = f"{name}.{os.getpid()}"
    mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(new, mode, 0o600, dir_fd=folder), "wb") as file:
        file.write(text)
    os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)


def _bound(folder: int) -> None:
    """Remove the oldest entries beyond a number."""
    names = os.listdir(folder)
    if len(names) > MOST_ENTRIES:
        age = {n: os.stat(n, dir_fd=folder, follow_symlinks=False).st_mtime_ns for n in names}
        for name in sorted(names, key=age.__getitem__)[: len(names) - MOST_ENTRIES]:
            os.unlink(name, dir_fd=folder)


def note(text: str) -> None:
    """Say why the cache is not used, and go on without it."""
    warnings.warn(text, RuntimeWarning, stacklevel=4)
