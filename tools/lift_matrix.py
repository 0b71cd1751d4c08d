"""Lift the catalogue from every build that the compilers here can make; print operators x builds.

    python tools/lift_matrix.py [--builds PATTERN] [--why]

    =   the same trace as from the committed object
    f   the same but for products that the compiler contracted into FMA
    !   another trace             -   refused (--why prints the reasons)
    .   not written in this language

gcc and clang, zig cc (C), rustc and zig (tests/lift/portable), each where it is installed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from gllm_kernels.errors import LiftError
from gllm_kernels.lift.lifter import lift
from gllm_kernels.lift.store import stored_trace, stored_traces
from gllm_kernels.scalar.catalog import CATALOG
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace
from gllm_kernels.trace.simplify import canonical, prune

ROOT = Path(__file__).resolve().parent.parent
SCALAR = ROOT / "src" / "gllm_kernels" / "scalar"
PORTABLE = ROOT / "tests" / "lift" / "portable"  # the catalogue in other languages
COMMON = "-std=gnu11 -shared -nostartfiles -Wl,-z,lazy -w -x c -".split()
NO_VECTORS = {
    "gcc": ["-fno-tree-vectorize", "-fno-tree-slp-vectorize"],
    "clang": ["-fno-vectorize", "-fno-slp-vectorize"],
    "rustc": "-C no-vectorize-loops -C no-vectorize-slp".split(),
}
ZIG = [sys.executable, "-m", "ziglang"]
# zig cc is a clang of its own version; linking with it would first build a C library
COMMANDS = {"gcc": ["gcc"], "clang": ["clang"], "zig cc": [*ZIG, "cc", "-mcpu=x86_64", "-fno-sanitize=all"]}
LEVELS = {
    "gcc": ("-O0", "-O1", "-O2", "-O3"), "clang": ("-O0", "-O1", "-O2", "-O3"),
    "zig cc": ("-O1", "-O2", "-O3"), "rustc": ("1", "2", "3", "s"),
    "zig": ("Debug", "ReleaseSafe", "ReleaseSmall", "ReleaseFast"),
}  # fmt: skip
VARIANTS = {
    "": ["-fPIC", "-ffp-contract=off"],
    "avx": ["-fPIC", "-ffp-contract=off", "-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    "fma": ["-fPIC", "-ffp-contract=fast", "-mavx2", "-mfma"],
    "errno": ["-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-plt"],
    "obj": ["-c", "-fno-pic", "-ffp-contract=off", "-fcf-protection"],
    "pic": ["-c", "-fPIC", "-ffp-contract=off"],
}
OBJECTS = ("obj", "pic")  # variants that are not linked
ALL = ("", "avx", "fma", "errno", "obj")
OFFERED = {"gcc": ALL, "clang": ALL, "zig cc": ("pic",), "rustc": ("",), "zig": ("",)}


@dataclass(frozen=True, slots=True)
class Build:
    """One compiler, level and variant; it may use FMA on its own where that is "fma"."""

    compiler: str
    level: str
    variant: str

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.compiler, self.level, self.variant)))

    @property
    def suffix(self) -> str:
        return ".o" if self.variant in OBJECTS or self.compiler == "zig" else ".so"

    def command(self, out: Path) -> list[str]:
        """Compiles the catalogue into `out`; C comes from standard input."""
        if self.compiler == "rustc":
            flags = ["-C", f"opt-level={self.level}", *NO_VECTORS["rustc"], "-C", "panic=abort"]
            source = str(PORTABLE / "catalogue.rs")
            return ["rustc", "--crate-type=cdylib", *flags, "-A", "warnings", source, "-o", str(out)]
        if self.compiler == "zig":
            source, flags = str(PORTABLE / "catalogue.zig"), ["-mcpu=x86_64", "-fPIC"]
            return [*ZIG, "build-obj", f"-O{self.level}", *flags, source, f"-femit-bin={out}"]
        family = "gcc" if self.compiler == "gcc" else "clang"
        flags = [*NO_VECTORS[family], *VARIANTS[self.variant], f"-I{SCALAR}"]
        shared = [f for f in COMMON if self.variant not in OBJECTS or f not in COMMON[1:4]]
        libm = [] if self.variant in OBJECTS else ["-lm"]
        return [*COMMANDS[self.compiler], self.level, *flags, *shared, "-o", str(out), *libm]


def installed(compiler: str) -> bool:
    if compiler.startswith("zig"):
        return find_spec("ziglang") is not None
    return shutil.which(compiler) is not None


def builds() -> Iterator[Build]:
    """Every build of the compilers that are installed."""
    for compiler, levels in LEVELS.items():
        if installed(compiler):
            yield from (Build(compiler, lv, v) for v in OFFERED[compiler] for lv in levels)


def compiled(build: Build, folder: Path) -> Path:
    """The library or object of one build."""
    out = folder / (build.name.replace(" ", "_") + build.suffix)
    subprocess.run(build.command(out), input=catalogue_text(), text=True, check=True, cwd=folder)
    return out


def catalogue_text() -> str:
    """All C sources of operators in one translation unit."""
    names = sorted(p.name for p in SCALAR.glob("*.c") if not p.name.startswith("runtime"))
    return "".join(f'#include "{name}"\n' for name in names)


def outcome(path: Path, declaration: str, name: str) -> tuple[str, str]:
    """A mark of the table and, where it is not "=", the reason."""
    wanted = stored_trace(name)
    try:
        found = lift(path, declaration, verify=False)
    except LiftError as refusal:
        lacks = f"defines no function scalar_{name};" in str(refusal)
        return (".", "") if lacks else ("-", str(refusal))
    if found == wanted:
        return "=", ""
    if uncontracted(found) == uncontracted(wanted):
        return "f", "contracts products"
    return "!", f"{found}\nwanted\n{wanted}"


def uncontracted(trace: OpTrace) -> OpTrace:
    """fma(a, b, c) -> a*b + c, also in sums: the trace before the compiler contracted it."""
    builder = BodyBuilder()
    place: list[int] = []
    for node in trace.body:
        args = tuple(place[a] for a in node.args)
        if node.op is Op.FMA:
            place.append(_parts(builder, *args))
        elif node.op is Op.REDUCE and node.imm[0] == "fma":
            place.append(builder.add(node.op, *args, imm=("sum", *node.imm[1:])))
        else:
            place.append(builder.add(node.op, *args, imm=node.imm))
    stores = tuple(replace(s, value=place[s.value]) for s in trace.stores)
    return canonical(prune(replace(trace, body=tuple(builder.body), stores=stores)))


def _parts(builder: BodyBuilder, a: int, b: int, c: int) -> int:
    """a*b + c, where a sign that FMA carries makes it a subtraction."""
    body = builder.body
    for x, y in ((a, b), (b, a)):
        if body[x].op is Op.NEG:
            return builder.add(Op.SUB, c, builder.add(Op.MUL, body[x].args[0], y))
    product = builder.add(Op.MUL, a, b)
    if body[c].op is Op.NEG:
        return builder.add(Op.SUB, product, body[c].args[0])
    return builder.add(Op.ADD, product, c)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--builds", default="*", help="only builds of these names, as a glob")
    parser.add_argument("--why", action="store_true", help="print the reason of every - and !")
    args = parser.parse_args()
    chosen = [b for b in builds() if fnmatch(b.name, args.builds)]
    ops = [op for op in CATALOG if op.name in stored_traces()]
    reasons = []
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':18}" + " ".join(f"{op.name[:9]:>9}" for op in ops))
        for build in chosen:
            path = compiled(build, Path(folder))
            rows = [outcome(path, op.declaration, op.name) for op in ops]
            print(f"{build.name:18}" + " ".join(f"{mark:>9}" for mark, _ in rows), flush=True)
            reasons += [
                f"{build.name} {op.name}: {why}"
                for op, (mark, why) in zip(ops, rows, strict=True) if mark in "-!"
            ]  # fmt: skip
    print("\n".join(reasons) if args.why else f"{len(reasons)} refused or different")
    sys.exit(bool(reasons))


if __name__ == "__main__":
    main()
