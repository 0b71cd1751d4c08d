"""Settings: one table, read from the environment at first use, overridden in a `with` block.

    GLLM_ISA=avx2 python ...           with config(isa="avx2", threads=1): ...

`current()` gives the settings in force. An override belongs to the thread (or task) that made it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache

from .errors import ConfigError

ISAS = ("avx512", "avx512bf16", "avx2", "scalar")
STAGES = ("trace", "graph", "plan", "kernel", "asm")
MAX_THREADS = 1024


@dataclass(frozen=True, slots=True)
class Config:
    """The value of every setting; a field per row of `SETTINGS`."""

    isa: str = ""
    threads: int = 0
    dump: str = ""
    spec: int = 0
    time: bool = False
    cache: str = ""

    def dumps(self, stage: str, name: str = "") -> bool:
        """Should `stage` print what it made of `name`? `dump="kernel,asm:silu"`."""
        stages, _, wanted = self.dump.partition(":")
        return stage in stages.split(",") and wanted in name


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: a field of `Config`, how its text is read, and what it means."""

    name: str
    parse: Callable[[str], object]
    values: str
    meaning: str

    @property
    def variable(self) -> str:
        return "GLLM_" + self.name.upper()

    def read(self, value: object, source: str) -> object:
        """The checked value; `source` is what the user wrote it to."""
        try:
            return self.parse(str(value).strip())
        except ValueError:
            raise ConfigError(
                f"{source}={value!r}: expected {self.values} ({self.meaning})"
            ) from None


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in ("", *choices):
            raise ValueError(text)
        return text

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text or "0")
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


def _switch(text: str) -> bool:
    values = {"": False, "0": False, "False": False, "1": True, "True": True}
    if text not in values:
        raise ValueError(text)
    return values[text]


def _place(text: str) -> str:
    if text not in ("", "off") and not os.path.isabs(text):
        raise ValueError(text)
    return text


def _stages(text: str) -> str:
    listed = text.partition(":")[0]
    if text and not set(listed.split(",")) <= set(STAGES):
        raise ValueError(text)
    return text


# fmt: off
SETTINGS: tuple[Setting, ...] = (
    Setting("isa", _one_of(*ISAS), "|".join(ISAS),
            "the widest instruction set to use; default: the widest this CPU has"),
    Setting("threads", _integer(0, MAX_THREADS), f"0..{MAX_THREADS}",
            "threads of a program; 0: physical cores within affinity and cgroup quota"),
    Setting("dump", _stages, ",".join(STAGES) + "[:name]",
            "print what these stages make, of operators whose name contains the filter"),
    Setting("spec", _integer(0, 2), "0|1|2",
            "check every level between stages (1) and after every rule (2)"),
    Setting("time", _switch, "0|1", "print milliseconds per stage"),
    Setting("cache", _place, "off|an absolute path",
            "the directory that keeps lifted functions; default: gllm-kernels in the user's cache"),
)
# fmt: on

_ROWS = {row.name: row for row in SETTINGS}


def from_environment(environ: Mapping[str, str]) -> Config:
    """The settings that `environ` asks for."""
    given = {
        r.name: r.read(environ[r.variable], r.variable) for r in SETTINGS if r.variable in environ
    }
    return Config(**given)


@cache
def _base() -> Config:
    return from_environment(os.environ)


_override: ContextVar[Config | None] = ContextVar("gllm_config", default=None)


def current() -> Config:
    """The settings in force here."""
    return _override.get() or _base()


@contextmanager
def config(**settings: object) -> Iterator[Config]:
    """`with config(isa="avx2", threads=1):` settings for the block, on top of those in force."""
    checked = {name: _row(name).read(value, name) for name, value in settings.items()}
    token = _override.set(replace(current(), **checked))
    try:
        yield current()
    finally:
        _override.reset(token)


def _row(name: str) -> Setting:
    if name not in _ROWS:
        raise ConfigError(f"no setting {name!r}; settings are {', '.join(_ROWS)}")
    return _ROWS[name]


def describe() -> list[tuple[str, str, str]]:
    """Rows (variable, values, meaning) for --help."""
    return [(row.variable, row.values, row.meaning) for row in SETTINGS]
