"""The same function from every kind of source gives the same trace; errors show where and why."""

import ctypes
import os
import random
import shutil
import subprocess

import pytest

from gllm_kernels.errors import LiftError
from gllm_kernels.lift.elf import Image, Region, jump_slot, open_object
from gllm_kernels.lift.error import Refusal
from gllm_kernels.lift.lifter import (
    CATALOG_OBJECT,
    Subject,
    analyse,
    lift,
    subject_of,
)
from gllm_kernels.lift.nodes import Nodes
from gllm_kernels.lift.operands import RSP
from gllm_kernels.lift.signature import parse
from gllm_kernels.lift.state import RETURN, State
from gllm_kernels.scalar.catalog import CATALOG
from gllm_kernels.scalar.loader import load_object

COMPILER = shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="compiles C: neither gcc nor clang")
ADD, SILU = CATALOG.lookup("vec_add"), CATALOG.lookup("silu")
C = """
#include <math.h>
#include <stddef.h>
void scalar_silu(const float *x, float *out, size_t n)
{ for (size_t i = 0; i < n; i++) out[i] = x[i] / (1.0f + expf(-x[i])); }
"""


def from_catalogue(op):
    return lift(CATALOG_OBJECT, op.declaration)


def test_loaded_object_and_bytes_and_pointer():
    loaded = load_object(CATALOG_OBJECT)
    assert lift(loaded, SILU.declaration) == from_catalogue(SILU)
    assert lift(loaded.bytes(ADD.symbol), ADD.declaration) == from_catalogue(ADD)
    function = ctypes.CFUNCTYPE(None)(loaded.address(SILU.symbol))
    assert lift(function, SILU.declaration) == from_catalogue(SILU)


@needs_compiler
@pytest.mark.parametrize("flags", [["-fPIC", "-shared"], ["-fPIC", "-c"], ["-fno-plt", "-c"]])
def test_shared_library_and_object(tmp_path, flags):
    path = tmp_path / ("silu.o" if "-c" in flags else "silu.so")
    command = [COMPILER, "-O1", *flags, "-x", "c", "-", "-o", str(path), "-lm"]
    subprocess.run(command, input=C, text=True, check=True)
    assert lift(path, SILU.declaration) == from_catalogue(SILU)


@needs_compiler
def test_a_function_of_a_stripped_library_by_its_pointer(tmp_path):
    path = tmp_path / "silu.so"
    command = [COMPILER, "-O1", "-fPIC", "-shared", "-s", "-x", "c", "-", "-o", str(path), "-lm"]
    subprocess.run(command, input=C, text=True, check=True)
    assert lift(ctypes.CDLL(str(path)).scalar_silu, SILU.declaration) == from_catalogue(SILU)


def test_a_plt_entry_is_followed_to_its_slot():
    jump = b"\xff\x25" + (0x100).to_bytes(4, "little")
    assert jump_slot(jump, 0x1000) == 0x1106
    assert jump_slot(b"\xf3\x0f\x1e\xfa\xf2" + jump, 0x1000) == 0x110B
    assert jump_slot(b"\x90" * 16, 0x1000) is None
    image = Image([Region(0x1000, bytearray(jump), True)], slots={0x1106: "expf"})
    assert image.callee(0x1000) == "expf"


@pytest.mark.parametrize(
    ("source", "declaration", "message"),
    [
        (CATALOG_OBJECT, "void scalar_mish(float *x, size_t n)", "defines no function scalar_mish"),
        ("/nowhere/x.so", SILU.declaration, "x.so: cannot be read: No such file"),
        (CATALOG_OBJECT.parent / "traces_x86_64.json", SILU.declaration, "as an ELF file"),
        (42, SILU.declaration, "cannot lift a int; wanted the path"),
        (b"\x06", ADD.declaration, "no instruction can be decoded"),
        (b"\x0f\x0b", ADD.declaration, "instruction ud2 is not understood"),
        (b"\xc3", ADD.declaration, "the function writes nothing"),
        (b"\xbb\x00\x00\x00\x00\xc3", ADD.declaration, "returns without restoring rbx"),
        (b"\x50\xc3", ADD.declaration, "returns without restoring rsp"),
        # mov [rsp-0x100], rdi: a signal may overwrite it
        (b"\x48\x89\xbc\x24\x00\xff\xff\xff\xc3", ADD.declaration, "below rsp, which is not"),
        (b"\xcb", ADD.declaration, "instruction retf is not understood"),
        # lea eax, [rdi]; movss xmm0, [rax]: the upper half of an address is lost
        (b"\x8d\x07\xf3\x0f\x10\x00\xc3", "float f(const float *x)", "wrap around in 32 bits"),
        (b"\xeb\xfe", ADD.declaration, "instructions: a loop that does not end"),
    ],
)
def test_what_cannot_be_lifted_is_named(source, declaration, message):
    with pytest.raises(LiftError, match=message):
        lift(source, declaration)


@needs_compiler
@pytest.mark.parametrize("model", ["-mcmodel=small", "-mcmodel=large"])
def test_an_address_that_the_linker_fills_in_is_no_number(tmp_path, model):
    """The object holds zeros in its place."""
    text = """#include <stdint.h>
    extern const float table[];
    float f(float x) { return x * (float)(int)(uintptr_t)table; }"""
    path = tmp_path / "f.o"
    command = [COMPILER, "-O1", "-fno-pic", model, "-w", "-c", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=text, text=True, check=True)
    with pytest.raises(LiftError, match="no instruction can be decoded.*(.|\n)*with -fPIC"):
        lift(path, "float f(float x)")


def test_damaged_objects_are_read_or_refused(tmp_path):
    """Cut anywhere, or with wrong bytes in its header and tables: an image or a LiftError."""
    seed = int(os.environ.get("GLLM_TEST_SEED", "7"))
    whole, rng, path = CATALOG_OBJECT.read_bytes(), random.Random(seed), tmp_path / "x.o"
    outcomes = {"read": 0, "refused": 0}
    for turn in range(300):
        damaged = bytearray(whole if turn % 3 else whole[: rng.randrange(len(whole))])
        for _ in range(rng.randint(1, 12) if turn % 3 else 0):
            damaged[rng.choice((rng.randrange(64), -1 - rng.randrange(2000)))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            open_object(path)
            outcomes["read"] += 1
        except LiftError as error:
            assert str(path) in str(error), f"seed {seed}"
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("scalar_silu", "not a C function declaration"),
        ("short f(const float *x, size_t n)", "return type 'short'; wanted void, float"),
        ("void f(const float *x, short s)", "f: argument 'short s'; wanted `const float"),
        ("void f(float *x, size_t x)", "two arguments have the same name"),
    ],
)
def test_a_declaration_that_is_not_understood(declaration, message):
    with pytest.raises(LiftError, match=message):
        parse(declaration)


def test_a_declaration_in_another_spelling():
    spelled = "void  scalar_silu ( const float* restrict x,float*out , size_t n );"
    assert str(parse(spelled)) == SILU.declaration
    assert parse(spelled).name == "silu"


def test_a_wrong_declaration_is_refused():
    """The dimension is taken for an array, the array for a dimension."""
    with pytest.raises(LiftError):
        lift(CATALOG_OBJECT, "void scalar_silu(const float *x, size_t n, float *out)")
    with pytest.raises(LiftError, match="a store through out, which is declared const"):
        lift(CATALOG_OBJECT, "void scalar_silu(const float *x, const float *out, size_t n)")
    with pytest.raises(LiftError):
        lift(CATALOG_OBJECT, "float scalar_silu(const float *x, float *out, size_t n)")


def test_the_error_shows_the_instruction_registers_and_remedy():
    with pytest.raises(LiftError) as caught:
        lift(CATALOG_OBJECT, CATALOG.lookup("argmax").declaration)
    text = str(caught.value)
    assert text.startswith("scalar_argmax: rdx holds an integer that data chose\n")
    assert "change: return values, not positions or counts" in text
    assert "registers: rax = " in text
    arrow = next(k for k, line in enumerate(text.splitlines()) if "->" in line)
    assert "cmova" in text.splitlines()[arrow]
    assert set(text.splitlines()[arrow + 1].strip()) == {"^"}


def test_damaged_code_is_refused_or_lifted_but_never_crashes():
    seed = 7
    rng = random.Random(seed)
    refused = 0
    maps = [op for op in CATALOG if "size_t m" not in op.declaration and "rope" not in op.name]
    for _ in range(100):
        op = rng.choice(maps)
        image = open_object(CATALOG_OBJECT)
        entry = image.symbols[op.symbol]
        text = next(r for r in image.regions if r.base <= entry < r.base + len(r.data))
        text.data[entry - text.base + rng.randrange(40)] ^= 1 << rng.randrange(8)
        subject = Subject(image, entry, parse(op.declaration), lambda: (0, None))
        try:
            analyse(subject)
        except LiftError:
            refused += 1
    assert refused > 50, f"seed {seed}"


def test_a_call_wants_an_aligned_stack_and_may_overwrite_what_lies_below():
    state = State(Image(), parse(SILU.declaration), {"n": 3}, Nodes(), {})
    state.before_call(tail=True)
    with pytest.raises(Refusal, match="the stack is not aligned to 16 bytes at a call"):
        state.before_call(tail=False)
    state.r[RSP] = RETURN - 8
    state.stack = {RETURN - 8: (8, 1), RETURN - 16: (8, 2)}
    state.before_call(tail=False)
    assert state.stack == {RETURN - 8: (8, 1)}


def test_subject_keeps_the_entry_of_the_symbol():
    subject = subject_of(CATALOG_OBJECT, parse(SILU.declaration))
    assert subject.entry == subject.image.symbols["scalar_silu"]
