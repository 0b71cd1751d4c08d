"""Code memory: executable, never writable and executable at once, also under MDWE and fork."""

import ast
import ctypes
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from gllm_kernels import memory
from gllm_kernels.errors import MemoryPolicyError

RETURN_42 = b"\xb8\x2a\x00\x00\x00\xc3"
SOURCES = Path(memory.__file__).parent


def run(address: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


def protection(address: int) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= address < high:
            return line.split()[1]
    return "unmapped"


@pytest.mark.parametrize("writer", [memory._anonymous, memory._memfd])
def test_code_runs_and_is_not_writable(writer) -> None:
    block = writer(len(RETURN_42), lambda address: RETURN_42)
    assert run(block.address) == 42
    assert protection(block.address)[:3] == "r-x"
    assert block.bytes() == RETURN_42


def test_nothing_is_writable_and_executable() -> None:
    blocks = [memory.place(6, lambda address: RETURN_42) for _ in range(3)]
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    for block in blocks:  # other libraries of the process may map what they like
        assert [mode for where, mode, *_ in maps if _holds(where, block.address)] == ["r-xp"]


def _holds(where: str, address: int) -> bool:
    first, last = (int(part, 16) for part in where.split("-"))
    return first <= address < last


def test_fill_receives_the_address_the_code_runs_at() -> None:
    seen = []
    block = memory.place(6, lambda address: seen.append(address) or RETURN_42)
    assert seen == [block.address]


def test_batch_is_one_aligned_arena() -> None:
    batch = memory.place_batch([RETURN_42, b"\xc3" * 65, RETURN_42])
    assert [a - batch.block.address for a in batch.addresses] == [0, 64, 192]
    assert run(batch.addresses[0]) == run(batch.addresses[2]) == 42


def test_block_is_unmapped_with_its_last_reference() -> None:
    block = memory.place(6, lambda address: RETURN_42)
    address, gone = block.address, weakref.ref(block)
    del block
    gc.collect()
    assert gone() is None and protection(address) == "unmapped"


def test_too_much_code_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        memory.place(3, lambda address: RETURN_42)


def test_every_c_function_has_argument_types() -> None:
    library = memory._libc()
    for name, (_, arguments) in memory.SIGNATURES.items():
        assert len(getattr(library, name).argtypes) == len(arguments) > 0
        assert getattr(library, name).restype is not None


def test_no_source_misspells_argtypes() -> None:
    """ctypes ignores an unknown attribute such as `argtype`, and pointers are then cut to 32 bits."""
    allowed = {"argtypes", "restype", "errcheck"}
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                similar = node.attr.startswith(("argty", "restyp", "arg_ty", "res_ty"))
                assert not similar or node.attr in allowed, f"{path}:{node.lineno}"


UNDER_MDWE = """
import ctypes, errno, mmap
from gllm_kernels import memory
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    print("unsupported")
else:
    block = memory.place(6, lambda address: bytes.fromhex("b82a000000c3"))
    run = ctypes.CFUNCTYPE(ctypes.c_int)(block.address)
    print(memory.memory_mode(), block.mode, run())
"""


def test_memfd_is_used_where_write_then_execute_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", UNDER_MDWE], capture_output=True, text=True)
    if done.stdout.strip() == "unsupported":
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.stdout.split() == ["memfd", "memfd", "42"], done.stderr


def test_refusal_names_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_WRITERS", (("anonymous", lambda size, fill: None),))
    with pytest.raises(MemoryPolicyError, match="Likely: .*(SELinux|seccomp|memfd_noexec)"):
        memory.place(6, lambda address: RETURN_42)
    assert memory.memory_mode().startswith("refused: ")


@pytest.mark.parametrize("writer", [memory._anonymous, memory._memfd])
def test_child_runs_the_code_and_may_place_its_own(writer) -> None:
    block = writer(6, lambda address: RETURN_42)
    child = os.fork()
    if child == 0:
        own = writer(6, lambda address: RETURN_42.replace(b"\x2a", b"\x07"))
        os._exit(run(block.address) + run(own.address))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 49
    assert run(block.address) == 42
