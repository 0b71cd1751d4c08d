"""The loader maps good objects and refuses damaged, foreign and stateful ones by a typed error."""

import ctypes
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from gllm_kernels.errors import FormatError
from gllm_kernels.scalar import library, load_object
from gllm_kernels.scalar.loader import OBJECTS, load_bytes

GOOD = (OBJECTS / "x86_64.o").read_bytes()
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")


def compiled(directory: Path, text: str, *flags: str) -> Path:
    path = directory / "made.o"
    command = ["gcc", "-O1", "-fPIC", *flags, "-x", "c", "-c", "-o", str(path), "-"]
    subprocess.run(command, input=text.encode(), check=True)
    return path


def test_address_and_bytes_agree() -> None:
    code = library().bytes("scalar_vec_add")
    assert ctypes.string_at(library().address("scalar_vec_add"), len(code)) == code
    assert code.endswith(b"\xc3")


def test_unknown_function_suggests_the_nearest() -> None:
    with pytest.raises(FormatError, match="did you mean 'scalar_silu'"):
        library().address("scalar_silo")


@pytest.mark.parametrize("size", [0, 3, 16, 63, 64, 500, len(GOOD) - 1])
def test_truncated(size: int) -> None:
    with pytest.raises(FormatError):
        load_bytes(GOOD[:size])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        load_object(tmp_path / "absent.o")


def test_wrong_machine_and_wrong_kind() -> None:
    with pytest.raises(FormatError, match="EM_AARCH64.*expected x86-64"):
        load_bytes(GOOD[:18] + struct.pack("<H", 183) + GOOD[20:])
    with pytest.raises(FormatError, match="ET_DYN; expected a relocatable"):
        load_bytes(GOOD[:16] + struct.pack("<H", 3) + GOOD[18:])


def test_mutated_objects_raise_format_errors_or_load() -> None:
    chance = random.Random(5)
    for _ in range(200):
        damaged = bytearray(GOOD)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            loaded = load_bytes(bytes(damaged))
        except FormatError:
            continue
        for name in loaded.symbols:
            loaded.bytes(name)


@needs_gcc
def test_writable_data_is_refused(tmp_path: Path) -> None:
    path = compiled(tmp_path, "int calls; int count(void) { return ++calls; }")
    with pytest.raises(FormatError, match="writable data"):
        load_object(path)


@needs_gcc
def test_missing_symbol(tmp_path: Path) -> None:
    path = compiled(
        tmp_path, "float no_such_thing(float); float f(float x) { return no_such_thing(x) + 1; }"
    )
    with pytest.raises(FormatError, match="undefined symbol 'no_such_thing'"):
        load_object(path)


@needs_gcc
def test_unknown_relocation(tmp_path: Path) -> None:
    text = "static const float t[] = {1, 2, 3, 5}; float f(long i) { return t[i]; }"
    with pytest.raises(FormatError, match="unknown relocation type .* Compile with -fPIC"):
        load_object(compiled(tmp_path, text, "-fno-pic"))


@needs_gcc
@pytest.mark.parametrize("flags", [(), ("-fno-plt",), ("-ffunction-sections",)])
def test_constants_tables_and_imports_are_relocated(tmp_path: Path, flags: tuple) -> None:
    text = """
    #include <math.h>
    static float twice(float x) { return 2 * x; }
    static float thrice(float x) { return 3 * x; }
    static float (*const table[])(float) = {twice, thrice, expf};
    float pick(int i, float x) { return table[i](x) + logf(x) - logf(x); }
    """
    loaded = load_object(compiled(tmp_path, text, *flags))
    pick = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int, ctypes.c_float)(loaded.address("pick"))
    assert [pick(0, 1.0), pick(1, 1.0)] == [2, 3]
    assert pick(2, 1.0) == pytest.approx(2.7182817)
    assert set(loaded.imports) == {"expf", "logf"}
