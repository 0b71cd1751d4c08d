"""Lift the catalogue from every build that the compilers here can make; print operators x builds.

    python tools/lift_matrix.py [--builds PATTERN] [--why]

    =   the same trace as from the committed object
    f   the same but for products that the compiler contracted into FMA
    !   another trace             -   refused (--why prints the reasons)
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
from pathlib import Path

from gllm_kernels.errors import LiftError
from gllm_kernels.lift.lifter import lift
from gllm_kernels.lift.store import stored_trace, stored_traces
from gllm_kernels.scalar.catalog import CATALOG
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace
from gllm_kernels.trace.simplify import canonical, prune

SCALAR = Path(__file__).resolve().parent.parent / "src" / "gllm_kernels" / "scalar"
COMMON = "-std=gnu11 -shared -nostartfiles -Wl,-z,lazy -w -x c -".split()
NO_VECTORS = {
    "gcc": ["-fno-tree-vectorize", "-fno-tree-slp-vectorize"],
    "clang": ["-fno-vectorize", "-fno-slp-vectorize"],
}
LEVELS = {"gcc": ("-O0", "-O1", "-O2", "-O3"), "clang": ("-O0", "-O1", "-O2", "-O3")}
VARIANTS = {
    "": ["-fPIC", "-ffp-contract=off"],
    "avx": ["-fPIC", "-ffp-contract=off", "-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    "fma": ["-fPIC", "-ffp-contract=fast", "-mavx2", "-mfma"],
    "errno": ["-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-plt"],
    "obj": ["-c", "-fno-pic", "-ffp-contract=off", "-fcf-protection"],
}


@dataclass(frozen=True, slots=True)
class Build:
    """One compiler, level and variant; `contracts` where it may use FMA on its own."""

    compiler: str
    level: str
    variant: str

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.compiler, self.level, self.variant)))

    def command(self, out: Path) -> list[str]:
        """Compiles standard input into `out`."""
        flags = [*NO_VECTORS[self.compiler], *VARIANTS[self.variant]]
        shared = [f for f in COMMON if self.variant != "obj" or f not in COMMON[1:4]]
        return [self.compiler, self.level, *flags, *shared, "-o", str(out), "-lm"]


def builds() -> Iterator[Build]:
    """Every build of the compilers that are installed."""
    for compiler, levels in LEVELS.items():
        if shutil.which(compiler):
            yield from (Build(compiler, lv, v) for v in VARIANTS for lv in levels)


def compiled(build: Build, folder: Path, text: str) -> Path:
    """The library or object of one build."""
    out = folder / (build.name.replace(" ", "_") + (".o" if build.variant == "obj" else ".so"))
    command = build.command(out)
    subprocess.run([*command, f"-I{SCALAR}"], input=text, text=True, check=True)
    return out


def catalogue_text() -> str:
    """All sources of operators in one translation unit."""
    names = sorted(p.name for p in SCALAR.glob("*.c") if not p.name.startswith("runtime"))
    return "".join(f'#include "{name}"\n' for name in names)


def outcome(path: Path, declaration: str, name: str) -> tuple[str, str]:
    """A mark of the table and, where it is not "=", the reason."""
    wanted = stored_trace(name)
    try:
        found = lift(path, declaration, verify=False)
    except LiftError as refusal:
        return "-", str(refusal)
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
        print(f"{'':16}" + " ".join(f"{op.name[:9]:>9}" for op in ops))
        for build in chosen:
            path = compiled(build, Path(folder), catalogue_text())
            rows = [outcome(path, op.declaration, op.name) for op in ops]
            print(f"{build.name:16}" + " ".join(f"{mark:>9}" for mark, _ in rows), flush=True)
            reasons += [
                f"{build.name} {op.name}: {why}"
                for op, (mark, why) in zip(ops, rows, strict=True) if mark in "-!"
            ]  # fmt: skip
    print("\n".join(reasons) if args.why else f"{len(reasons)} refused or different")
    sys.exit(bool(reasons))


if __name__ == "__main__":
    main()
