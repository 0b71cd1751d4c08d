"""Compile the C sources of `scalar/` into the relocatable objects that the package ships.

    python tools/build_objects.py [--cc gcc] [--out DIRECTORY] [--only scalar|blocks|runtime]

`x86_64.o` holds the operators: one compile of one text that includes every source in name order,
at -O1 without vectorisation, so that each function stays the plain loop its formula says.
`x86_64_blocks.o` holds the decoders of weight formats, compiled alike: whoever decodes no weights
does not map it. `x86_64_runtime.o` holds the run-time (thread team, calls, copies), which is never lifted, at -O2.
The same compiler gives the same bytes: no debug data, no paths, no time stamps.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

SCALAR = Path(__file__).resolve().parent.parent / "src" / "gllm_kernels" / "scalar"
BLOCKS = SCALAR / "blocks"

# -fPIC with hidden visibility leaves three relocation types: PC32 to constants and to own
# functions, PLT32 to libm, none absolute. No errno, so that sqrtf is one sqrtss.
COMMON_FLAGS = (
    "-std=gnu11 -march=x86-64 -mtune=generic -fPIC -fvisibility=hidden -ffp-contract=off "
    "-fno-math-errno -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables "
    "-fno-unwind-tables -fno-ident -fno-common -Wall -Wextra -Werror"
).split()
SCALAR_FLAGS = ["-O1", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"]
RUNTIME_FLAGS = ["-O2", "-fno-tree-vectorize", "-ffreestanding"]


@dataclass(frozen=True, slots=True)
class Target:
    """One shipped object: which sources, with which flags."""

    name: str
    sources: tuple[str, ...]
    flags: tuple[str, ...]
    folder: Path = SCALAR


def targets() -> dict[str, Target]:
    """The operators are every source but those of the run-time."""
    runtime = tuple(sorted(p.name for p in SCALAR.glob("runtime*.c")))
    scalar = tuple(sorted(p.name for p in SCALAR.glob("*.c") if p.name not in runtime))
    blocks = tuple(sorted(p.name for p in BLOCKS.glob("*.c")))
    return {
        "scalar": Target("x86_64.o", scalar, tuple(SCALAR_FLAGS)),
        "blocks": Target("x86_64_blocks.o", blocks, tuple(SCALAR_FLAGS), BLOCKS),
        "runtime": Target("x86_64_runtime.o", runtime, tuple(RUNTIME_FLAGS)),
    }


def digest(target: Target) -> str:
    """What the object carries to tell which sources it was compiled from."""
    headers = sorted(p.name for p in target.folder.glob("*.h"))
    content = b"".join((target.folder / name).read_bytes() for name in (*target.sources, *headers))
    return hashlib.sha256(content + " ".join(target.flags).encode()).hexdigest()


def build(target: Target, out: Path, cc: str = "gcc") -> Path:
    """Compile one target; the C text comes on standard input, so no path enters the object."""
    text = "".join(f'#include "{name}"\n' for name in target.sources)
    text += f'const char gk_sources[] = "{digest(target)}";\n'
    path = out / target.name
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = [*COMMON_FLAGS, *target.flags]
    command = [cc, *flags, "-I", str(target.folder), "-x", "c", "-c", "-o", str(path), "-"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return path


def sizes(path: Path) -> str:
    """`file: bytes, functions, bytes of code` of a built object."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        symbols = elf.get_section_by_name(".symtab").iter_symbols()
        functions = [s for s in symbols if s["st_info"]["type"] == "STT_FUNC"]
        code = sum(s["st_size"] for s in functions)
    return f"{path}: {path.stat().st_size} bytes, {len(functions)} functions, {code} bytes of code"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="gcc", help="C compiler (default gcc; clang works too)")
    parser.add_argument("--out", type=Path, default=SCALAR / "objects", help="output directory")
    parser.add_argument("--only", choices=tuple(targets()), help="build one object only")
    args = parser.parse_args()
    for key, target in targets().items():
        if args.only in (None, key):
            print(sizes(build(target, args.out, args.cc)))


if __name__ == "__main__":
    main()
