"""Code memory: pages that are written once and then executed, never both at the same time.

    place(size, fill) -> CodeBlock      fill(address) gives the bytes for that address
    place_batch(images) -> CodeBatch    position-independent kernels side by side in one arena

First choice is an anonymous private map, RW while filling, then RX by mprotect: copy-on-write
keeps a forked child from touching the parent's code, and perf maps work. Where the kernel or a
policy refuses that (PR_SET_MDWE, SELinux deny_execmem), a memfd is mapped twice, RW and RX, and the
RW view is unmapped when the code is complete. Where that is refused too: MemoryPolicyError.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from .errors import MemoryPolicyError

Fill = Callable[[int], bytes]

_READ, _WRITE, _EXEC = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
_FAILED = ctypes.c_void_p(-1).value
_MADV_DONTFORK = 10  # linux/mman-common.h
_MFD_CLOEXEC, _MFD_EXEC = 1, 16  # linux/memfd.h; MFD_EXEC since Linux 6.3
_REFUSED = (errno.EACCES, errno.EPERM)

_VOID_P, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

# Without argument types ctypes passes a Python int as a 32-bit C int and cuts an address in half.
SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "mmap": (_VOID_P, (_VOID_P, _SIZE, _INT, _INT, _INT, ctypes.c_int64)),
    "mprotect": (_INT, (_VOID_P, _SIZE, _INT)),
    "munmap": (_INT, (_VOID_P, _SIZE)),
    "madvise": (_INT, (_VOID_P, _SIZE, _INT)),
    "memfd_create": (_INT, (ctypes.c_char_p, ctypes.c_uint)),
}


@cache
def _libc() -> ctypes.CDLL:
    """The C library of this process, with every function we call declared."""
    library = ctypes.CDLL(None, use_errno=True)
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, list(arguments)
    return library


@dataclass(frozen=True)
class CodeBlock:
    """Executable bytes at `address`, unmapped when the last reference to the block goes.

    Whoever calls the code keeps the block alive.
    """

    address: int
    size: int
    mode: str

    def bytes(self, offset: int = 0, size: int | None = None) -> bytes:
        """The code as it lies in memory, relocated."""
        return ctypes.string_at(self.address + offset, self.size if size is None else size)


@dataclass(frozen=True)
class CodeBatch:
    """Several kernels in one block: `addresses[i]` is where image i begins."""

    block: CodeBlock
    addresses: tuple[int, ...] = field(default=())


def place(size: int, fill: Fill) -> CodeBlock:
    """Executable memory of `size` bytes that holds `fill(address)`."""
    for name, write in _WRITERS:
        block = write(size, fill)
        if block is not None:
            return block
    raise MemoryPolicyError(
        f"the system refuses executable memory ({size} bytes): neither mprotect(PROT_EXEC) nor an "
        f"executable memfd is allowed. Likely: {_likely_policy()}. Relax that policy for this "
        "process, for instance systemd MemoryDenyWriteExecute=no or SELinux boolean deny_execmem=0"
    )


def place_batch(images: Sequence[bytes], align: int = 64) -> CodeBatch:
    """Put position-independent images side by side, each at a multiple of `align`."""
    offsets, end = [], 0
    for image in images:
        start = -(-end // align) * align
        offsets.append(start)
        end = start + len(image)
    text = bytearray(b"\xcc" * end)  # int3: a jump into the gaps traps
    for start, image in zip(offsets, images, strict=True):
        text[start : start + len(image)] = image
    block = place(max(end, 1), lambda address: bytes(text))
    return CodeBatch(block, tuple(block.address + start for start in offsets))


def memory_mode() -> str:
    """How code memory is obtained in this process: "anonymous", "memfd" or "refused: reason"."""
    try:
        return place(1, lambda address: b"\xc3").mode
    except MemoryPolicyError as refusal:
        return f"refused: {refusal}"


def _anonymous(size: int, fill: Fill) -> CodeBlock | None:
    """RW, then RX; None when the policy forbids the second step."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    length = _whole_pages(size)
    address = _map(length, _READ | _WRITE, flags, -1)
    if address is None:
        return None
    _store(address, size, fill(address))
    if _libc().mprotect(address, length, _READ | _EXEC):
        code = ctypes.get_errno()
        _libc().munmap(address, length)
        if code in _REFUSED:
            return None
        raise MemoryError(f"mprotect of {length} bytes of code: {os.strerror(code)}")
    return _owned(address, size, length, "anonymous")


def _memfd(size: int, fill: Fill) -> CodeBlock | None:
    """One memfd, a RX view to run and a RW view to write, which is gone before the code runs."""
    descriptor = _memfd_open()
    if descriptor < 0:
        return None
    try:
        length = _whole_pages(size)
        os.ftruncate(descriptor, length)
        run = _map(length, _READ | _EXEC, mmap.MAP_SHARED, descriptor)
        if run is None:
            return None
        view = _map(length, _READ | _WRITE, mmap.MAP_SHARED, descriptor)
        if view is None:
            _libc().munmap(run, length)
            return None
        # A child forked meanwhile must not be able to change this process's code.
        _libc().madvise(view, length, _MADV_DONTFORK)
        _store(view, size, fill(run))
        _libc().munmap(view, length)
        return _owned(run, size, length, "memfd")
    finally:
        os.close(descriptor)


_WRITERS: tuple[tuple[str, Callable[[int, Fill], CodeBlock | None]], ...] = (
    ("anonymous", _anonymous),
    ("memfd", _memfd),
)


def _memfd_open() -> int:
    """A descriptor, or -1; kernels before 6.3 do not know MFD_EXEC and say EINVAL."""
    try:
        create = _libc().memfd_create
    except AttributeError:
        return -1
    descriptor = create(b"gllm-kernels", _MFD_CLOEXEC | _MFD_EXEC)
    if descriptor < 0 and ctypes.get_errno() == errno.EINVAL:
        descriptor = create(b"gllm-kernels", _MFD_CLOEXEC)
    return descriptor


def _map(length: int, protection: int, flags: int, descriptor: int) -> int | None:
    """mmap; None when a policy refuses it."""
    address = _libc().mmap(None, length, protection, flags, descriptor, 0)
    if address != _FAILED:
        return address
    code = ctypes.get_errno()
    if code in _REFUSED:
        return None
    raise MemoryError(f"mmap of {length} bytes of code: {os.strerror(code)}")


def _store(address: int, size: int, content: bytes) -> None:
    if len(content) > size:
        raise ValueError(f"{len(content)} bytes of code do not fit the {size} reserved for them")
    ctypes.memmove(address, content, len(content))


def _owned(address: int, size: int, length: int, mode: str) -> CodeBlock:
    block = CodeBlock(address, size, mode)
    # Not at exit: a thread that is still running this code must not lose it.
    weakref.finalize(block, _libc().munmap, address, length).atexit = False
    return block


def _whole_pages(size: int) -> int:
    return max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE


def _likely_policy() -> str:
    """The policy that is visible from here, or the usual ones."""
    found = [text for path, wrong, text in _POLICIES if _read(path) not in ("", wrong)]
    return ", ".join(found) or "seccomp, PR_SET_MDWE or a hardened kernel"


_POLICIES: tuple[tuple[str, str, str], ...] = (
    ("/sys/fs/selinux/enforce", "0", "SELinux is enforcing (deny_execmem)"),
    ("/proc/sys/vm/memfd_noexec", "0", "vm.memfd_noexec is set"),
)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""
