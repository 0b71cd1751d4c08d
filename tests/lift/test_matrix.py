"""Every build of the catalogue lifts to the stored traces, whatever compiler, level and encoding."""

import importlib.util
import sys
from pathlib import Path

import pytest

from gllm_kernels.scalar.catalog import CATALOG

TOOL = Path(__file__).parents[2] / "tools" / "lift_matrix.py"
spec = importlib.util.spec_from_file_location("lift_matrix", TOOL)
matrix = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = matrix  # dataclasses look their module up there
spec.loader.exec_module(matrix)
OPS = [op for op in CATALOG if not op.opaque and op.name in matrix.stored_traces()]
# unrolled by 8 in both dimensions, whose classes of remainders take a minute: left to the tool
SLOW = {("clang -O3", "layer_norm"), ("clang -O3", "rms_norm")}


def slow(build, op):
    return any(build.name.startswith(name) and op.name == which for name, which in SLOW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("builds")


@pytest.mark.skipif(not list(matrix.builds()), reason="compiles C: neither gcc nor clang here")
@pytest.mark.parametrize("build", list(matrix.builds()), ids=lambda b: b.name)
def test_every_build_lifts_to_the_same_trace(build, folder):
    path = matrix.compiled(build, folder, matrix.catalogue_text())
    rows = {
        op.name: matrix.outcome(path, op.declaration, op.name) for op in OPS if not slow(build, op)
    }
    allowed = "=f" if build.variant == "fma" else "="
    assert {n: why for n, (mark, why) in rows.items() if mark not in allowed} == {}
