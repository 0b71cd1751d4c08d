"""Anything may be given to register and compile_c: an operator comes out, or an error of one kind.

A message says on its first line what is wrong and names what to give instead.
"""

import ctypes
import mmap
import shutil
import subprocess

import numpy as np
import pytest

import gllm_kernels as gk
from gllm_kernels.scalar.catalog import CATALOG
from gllm_kernels.scalar.loader import OBJECTS

COMPILER = shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="compiles C: neither gcc nor clang here")
C = """#include <stddef.h>
void shift(const float *x, float *out, size_t n) { for (size_t i = 0; i < n; i++) out[i] = x[i] + 1; }
static __attribute__((used, noinline)) void hidden(const float *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = x[i] + 2; }
void unused(const float *x, float *out, size_t n, size_t m) { for (size_t i = 0; i < n; i++) out[i] = x[i]; }
void silu(const float *x, float *out, size_t n) { for (size_t i = 0; i < n; i++) out[i] = x[i]; }
"""
ARGUMENTS = "(const float *x, float *out, size_t n)"
SHIFT = "void shift" + ARGUMENTS
Pointer = ctypes.CFUNCTYPE(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, flags in (("a.so", ["-shared"]), ("a.o", ["-c"])):
        command = [COMPILER, "-O1", "-fno-tree-vectorize", "-fPIC", *flags, "-x", "c", "-"]
        subprocess.run([*command, "-o", str(folder / name)], input=C, text=True, check=True)
    whole = (folder / "a.so").read_bytes()
    foreign = {"aarch64.so": (18, b"\xb7\x00"), "i386.so": (18, b"\x03\x00"), "x32.so": (4, b"\x01")}
    for name, (at, value) in foreign.items():
        (folder / name).write_bytes(whole[:at] + value + whole[at + len(value) :])
    (folder / "cut.so").write_bytes(whole[: len(whole) // 2])
    (folder / "text.so").write_text("int main;")
    (folder / "empty.so").touch()
    return folder


@pytest.mark.parametrize(("name", "message"), [
    ("aarch64.so", "machine EM_AARCH64; compile it for 64-bit x86-64"),
    ("i386.so", "machine EM_386; compile it for"),
    ("x32.so", "32-bit code|cannot be read as an ELF"),
    ("cut.so", "cannot be read as an ELF file"),
    ("text.so", "cannot be read as an ELF file"),
    ("empty.so", "cannot be read as an ELF file"),
    ("", "Is a directory"),
    ("none.so", "No such file"),
    ("nul\0.so", "cannot be read"),
])  # fmt: skip
def test_files_that_are_no_libraries(folder, name, message):
    with pytest.raises(gk.LiftError, match=message):
        gk.register(str(folder / name), SHIFT)


@pytest.mark.parametrize(("declaration", "message"), [
    ("void shitf" + ARGUMENTS, "defines no function shitf; did you mean shift?"),
    ("void zzz" + ARGUMENTS, "it defines: hidden, shift, silu, unused"),
    ("void hidden" + ARGUMENTS, "hidden is local to the library; define it without `static`"),
    ("void unused(const float *x, float *out, size_t n, size_t m)", "m is a size that decides nothing"),
    ("void shift(const float *x, float *out)", "rdx is read before it is written"),
    ("void shift(const float *x, size_t n, float *out)", "shift: "),
    ("float shift" + ARGUMENTS, "check the return type"),
    ("void shift(const foo *x, float *out, size_t n)", "x is an array of foo; arrays here are of float"),
    ("void shift(const float **x, float *out, size_t n)", r"argument 'const float \*\*x'; wanted"),
    ("void shift(const float *x, float *y, float out)", "only an output may be called out"),
    ("void shift(const float *x, float *x, size_t n)", "two arguments have the same name"),
    ("void shift(const float *x, float *out, size_t n", "not a C function declaration"),
    ("", "not a C function declaration"),
])  # fmt: skip
def test_declarations_that_do_not_fit(folder, declaration, message):
    with pytest.raises(gk.LiftError, match=message) as caught:
        gk.register(folder / "a.so", declaration)
    assert len(str(caught.value).splitlines()[0]) < 400


@pytest.mark.parametrize("declaration", [
    f'extern "C" void shift{ARGUMENTS};', f"static inline void shift{ARGUMENTS} {{",
    "void shift(float const x[], float out[], unsigned long long n)",
    f"void\nshift\n{ARGUMENTS} {{ return; }}", SHIFT.replace("float *", "float *restrict "),
])  # fmt: skip
def test_declarations_as_they_stand_in_sources(folder, declaration):
    got = gk.register(folder / "a.o", declaration)(np.arange(3, dtype=np.float32))
    np.testing.assert_array_equal(got, [1, 2, 3])


def test_defaults_are_of_scalars():
    text = C + "void grow(float *x, float by, size_t n) { for (size_t i = 0; i < n; i++) x[i] *= by; }"
    declaration = "void grow(float *x, float by, size_t n)"
    op = gk.compile_c(text, declaration, by=3)
    np.testing.assert_array_equal(op(np.ones(2, np.float32)), [3, 3])
    for wrong in ({"bye": 3}, {"n": 3}, {"by": "3"}):
        with pytest.raises(gk.LiftError, match="scalars that may have a number as their default are: by"):
            gk.compile_c(text, declaration, **wrong)


def test_names_of_the_catalogue_are_taken_and_ones_own_may_be_registered_again(folder):
    with pytest.raises(gk.UnsupportedOpError, match="'silu' is an operator of the catalogue; give"):
        gk.register(folder / "a.so", "void silu" + ARGUMENTS)
    with pytest.raises(gk.UnsupportedOpError, match="'gemm' is an operator of the catalogue"):
        gk.compile_c("", CATALOG.lookup("gemm").declaration)
    one, two = (gk.register(folder / name, SHIFT) for name in ("a.o", "a.so"))
    assert one.trace == two.trace and gk.Op.named("softmax").name == "softmax"


@pytest.mark.parametrize(("source", "message"), [
    (Pointer(), "the function pointer is null"), (Pointer(0), "the function pointer is null"),
    (Pointer(0x1234), "no code lies at 0x1234 in this process; keep the library"),
    (Pointer(id(object)), "no code lies at"), (Pointer(1 << 63), "no code lies at"),
    (Pointer(print), "call to a function of another library|is not understood|shift: "),
    (ctypes.CDLL(None).qsort, "shift: "), (ctypes.CDLL(None).printf, "shift: "),
    ((b"\xc3", 0), "is null"), ((b"\xc3", 123), "no code lies at 0x7b"), ((b"\xc3", -1), "no code lies"),
    (("a", 5), "cannot lift a tuple"), (0, "cannot lift a int"), (None, "cannot lift a NoneType"),
    (memoryview(b"\xc3"), "cannot lift a memoryview"), (ctypes.c_void_p(5), "cannot lift a c_void_p"),
    (b"", "no instruction can be decoded"), (b"\x90" * 5, "whole function from its first byte to its ret"),
    (bytes(5000), "shift: "), (b"\x90" * 1_000_000, "more than 20000 instructions"),
])  # fmt: skip
def test_pointers_and_bytes_that_are_no_functions(source, message):
    with pytest.raises(gk.LiftError, match=message):
        gk.register(source, SHIFT)


def test_bytes_with_the_address_where_they_lie():
    """Calls and constants outside the bytes are found from there; other bytes are refused."""
    op = CATALOG.lookup("silu")
    from gllm_kernels.lift import lift
    from gllm_kernels.scalar.loader import load_object

    loaded = load_object(OBJECTS / "x86_64.o")
    code, address = loaded.bytes(op.symbol), loaded.address(op.symbol)
    assert lift((code, address), op.declaration) == gk.silu.trace
    with pytest.raises(gk.LiftError, match="are not those given; give the bytes alone where"):
        lift((code[:-1] + b"\xcc", address), op.declaration)


def test_a_function_whose_memory_is_gone():
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    held = ctypes.c_char.from_buffer(memory)
    function = Pointer(ctypes.addressof(held))
    del held
    memory.close()
    with pytest.raises(gk.LiftError, match="no code lies at .* keep the library"):
        gk.register(function, SHIFT)


@pytest.mark.parametrize(("compiler", "message"), [
    ("false", "false refused the source"), ("true", "true compiled nothing; set CC to a C compiler"),
    ("/", "/ is not on PATH; install one, set CC"), ("'gcc", "'gcc is not on PATH"),
])  # fmt: skip
def test_compilers_that_are_none(monkeypatch, compiler, message):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(gk.CompileError, match=message):
        gk.compile_c(C, SHIFT)


def test_no_compiler_at_all(monkeypatch):
    monkeypatch.setenv("CC", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(gk.CompileError, match="cc, gcc, clang are not on PATH; install one, set CC, or"):
        gk.compile_c(C, SHIFT)


@pytest.mark.parametrize("address", (0, 0x1000, 0x2000))
def test_a_fixed_address_is_no_constant(address):
    text = C + f"void fixed{ARGUMENTS} {{ for (size_t i = 0; i < n; i++) out[i] = *(volatile float *){address}; }}"
    with pytest.raises(gk.LiftError, match="a load from a global variable"):
        gk.compile_c(text, "void fixed" + ARGUMENTS)


def test_what_is_no_file_is_not_read():
    with pytest.raises(gk.LiftError, match="/dev/zero: is no regular file"):
        gk.register("/dev/zero", SHIFT)


def test_an_element_far_away_is_refused_at_once():
    text = C + f"void far{ARGUMENTS} {{ for (size_t i = 0; i < n; i++) out[i] = x[i + 100000000]; }}"
    with pytest.raises(gk.LiftError, match="`x` has 100000002 elements where all sizes are 2"):
        gk.compile_c(text, "void far" + ARGUMENTS)
