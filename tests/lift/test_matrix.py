"""Every build of the catalogue lifts to the stored traces, whatever compiler, language and level.

What takes seconds per operator is left to `python tools/lift_matrix.py`.
"""

import importlib.util
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from gllm_kernels.scalar.catalog import CATALOG

TOOL = Path(__file__).parents[2] / "tools" / "lift_matrix.py"
spec = importlib.util.spec_from_file_location("lift_matrix", TOOL)
matrix = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = matrix  # dataclasses look their module up there
spec.loader.exec_module(matrix)
OPS = [op for op in CATALOG if not op.opaque and op.name in matrix.stored_traces()]
BY_COMMAND = ("rustc 2", "rustc 3", "zig Debug", "zig ReleaseFast", "zig cc -O1 pic", "zig cc -O3 pic")
BUILDS = [b for b in matrix.builds() if b.name not in BY_COMMAND]
# unrolled by 4 or 8 in two dimensions: seconds for the classes of their remainders; gemv in zig's
# safe mode clears its result in vectors
SLOW = {"zig cc*": "layer_norm rms_norm softmax rope*",
        "rustc*": "rope* *_norm softmax gemm_*", "zig ReleaseSafe": "gemv"}  # fmt: skip


def slow(build, op):
    return any(fnmatch(build.name, name) and any(fnmatch(op.name, o) for o in ops.split())
               for name, ops in SLOW.items())  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("builds")


@pytest.mark.skipif(not BUILDS, reason="no compiler here: gcc, clang, rustc, or zig (pip: ziglang)")
@pytest.mark.parametrize("build", BUILDS, ids=lambda b: b.name)
def test_every_build_lifts_to_the_same_trace(build, folder):
    path = matrix.compiled(build, folder)
    rows = {
        op.name: matrix.outcome(path, op.declaration, op.name) for op in OPS if not slow(build, op)
    }
    allowed = "=f" if build.variant == "fma" else "=." if build.compiler == "zig" else "="
    assert {n: why for n, (mark, why) in rows.items() if mark not in allowed} == {}
    assert sum(mark != "." for mark, _ in rows.values()) >= 14
