"""Traces kept between processes: found again, renewed when anything differs, never trusted."""

import ctypes
import json
import os
import shutil
import subprocess

import pytest

from gllm_kernels.config import config
from gllm_kernels.errors import LiftError
from gllm_kernels.lift import cache, lifter
from gllm_kernels.lift.lifter import CATALOG_OBJECT, lift
from gllm_kernels.lift.store import json_of, stored_trace
from gllm_kernels.scalar.catalog import CATALOG

SILU, ADD, MUL = (CATALOG.lookup(n).declaration for n in ("silu", "vec_add", "vec_mul"))
COMPILER = shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="compiles C: neither gcc nor clang")
TEXT = """
#include <stddef.h>
static __attribute__((noinline)) float inner(float a) { return a * %s; }
void f(const float *x, float *o, size_t n)
{ for (size_t i = 0; i < n; i++) o[i] = inner(x[i]) + %s; }
"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "kept"
    with config(cache=str(path)):
        yield path


@pytest.fixture
def lifts(monkeypatch):
    """The functions that were executed symbolically."""
    names, analyse = [], lifter.analyse

    def counted(subject):
        names.append(subject.signature.symbol)
        return analyse(subject)

    monkeypatch.setattr(lifter, "analyse", counted)
    return names


def entry(folder):
    (path,) = folder.iterdir()
    return path


def test_a_function_is_lifted_once(folder, lifts):
    first = lift(CATALOG_OBJECT, SILU)
    assert lift(CATALOG_OBJECT, SILU) == first == stored_trace("silu")
    assert lifts == ["scalar_silu"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert entry(folder).stat().st_mode & 0o777 == 0o600
    lift(CATALOG_OBJECT, SILU, verify=False)
    assert len(lifts) == 2


def test_it_can_be_off(folder, lifts):
    with config(cache="off"):
        lift(CATALOG_OBJECT, ADD)
    assert not folder.exists()


def test_a_refusal_is_found_again(folder, lifts):
    for _ in range(2):
        with pytest.raises(LiftError, match="declared const"):
            lift(CATALOG_OBJECT, SILU.replace("float *out", "const float *out"))
    assert len(lifts) == 2 and not folder.exists()


@needs_compiler
@pytest.mark.parametrize("level", ["-O0", "-O1"])
def test_what_a_function_calls_and_reads_is_part_of_it(folder, lifts, tmp_path, level):
    """The code of f is the same in all three libraries."""
    traces = []
    for number, values in enumerate((("3.0f", "8.0f"), ("5.0f", "8.0f"), ("3.0f", "9.0f"))):
        path = tmp_path / f"{number}.so"
        command = [
            COMPILER,
            level,
            "-fPIC",
            "-shared",
            "-fno-unroll-loops",
            "-x",
            "c",
            "-",
            "-o",
            path,
        ]
        subprocess.run(command, input=TEXT % values, text=True, check=True)
        traces += [lift(path, "void f(const float *x, float *o, size_t n)") for _ in range(2)]
    assert len(lifts) == 3 and len(set(traces)) == 3


def test_another_version_lifts_again(folder, lifts, monkeypatch):
    lift(CATALOG_OBJECT, ADD)
    monkeypatch.setattr(cache, "LIFTER_VERSION", -1)
    lift(CATALOG_OBJECT, ADD)
    assert len(lifts) == 2


def test_the_oldest_go(folder, monkeypatch):
    monkeypatch.setattr(cache, "MOST_ENTRIES", 2)
    for declaration in (SILU, ADD, MUL):
        lift(CATALOG_OBJECT, declaration)
    assert len(list(folder.iterdir())) == 2


def changed(**values):
    return lambda data: data | values


HOSTILE = {
    "no JSON": lambda data: b"\x00\xff",
    "too long": lambda data: b" " * (cache.MOST_BYTES + 1),
    "deep": lambda data: b"[" * 100_000,
    "a list": lambda data: [data],
    "no trace": lambda data: {k: v for k, v in data.items() if k != "trace"},
    "no questions": changed(asked=[]),
    "strange question": changed(asked=[["__class__", 0]]),
    "long question": changed(asked=[["read", 0, 1 << 40]]),
    "question as text": changed(asked=[["read", "0", "8"]]),
    "far question": changed(asked=[["read", 1 << 70, 8]]),
    "another function": changed(trace=json_of(stored_trace("silu"))),
    "another body": lambda d: d | {"trace": json_of(stored_trace("vec_mul")) | {"name": "vec_add"}},
    "a body of nothing": lambda d: d | {"trace": d["trace"] | {"body": []}},
    "a cycle": lambda d: d | {"trace": d["trace"] | {"body": [["add", [0, 0], None]]}},
    "unknown operation": lambda d: d | {"trace": d["trace"] | {"body": [["system", [], "ls"]]}},
    "text for a number": lambda d: d | {"trace": d["trace"] | {"extent_limit": "x"}},
    "a fraction": lambda d: d | {"trace": d["trace"] | {"extent_limit": 1e30}},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_hostile_contents_are_lifted_again(folder, lifts, kind):
    wanted = lift(CATALOG_OBJECT, ADD)
    path = entry(folder)
    data = HOSTILE[kind](json.loads(path.read_text()))
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    assert lift(CATALOG_OBJECT, ADD) == wanted
    assert len(lifts) == 2
    assert lift(CATALOG_OBJECT, ADD) == wanted
    assert len(lifts) == 2  # it was written anew


@pytest.mark.parametrize("change", ["folder", "file", "link", "pipe"])
def test_what_others_may_write_is_not_used(folder, lifts, tmp_path, change):
    lift(CATALOG_OBJECT, ADD)
    path = entry(folder)
    if change == "folder":
        folder.chmod(0o777)
    elif change == "file":
        path.chmod(0o666)
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere") if change == "link" else os.mkfifo(path)
    with pytest.warns(RuntimeWarning, match="is not used|is ignored"):
        lift(CATALOG_OBJECT, ADD)
    assert len(lifts) == 2


def test_without_a_directory_it_works(tmp_path, lifts):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with config(cache=str(blocked / "kept")):
        assert lift(CATALOG_OBJECT, ADD) == lift(CATALOG_OBJECT, ADD)
    assert len(lifts) == 2


@needs_compiler
def test_functions_by_pointer(folder, lifts, tmp_path):
    path = tmp_path / "f.so"
    command = [COMPILER, "-O1", "-fPIC", "-shared", "-x", "c", "-", "-o", path]
    subprocess.run(command, input=TEXT % ("3.0f", "8.0f"), text=True, check=True)
    function = ctypes.CDLL(str(path)).f
    declaration = "void f(const float *x, float *o, size_t n)"
    assert lift(function, declaration) == lift(function, declaration)
    assert len(lifts) == 1
