"""Imports point only backwards along the line of the pipeline, and importing does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gllm_kernels

ROOT = Path(gllm_kernels.__file__).parent
LINE = ["errors", "memory", "dtypes", "config", "scalar", "trace", "lift", "quant", "graph",
        "fusion", "codegen", "executable", "pipeline", "ops", "model", "tune", "export", "debug",
        "cli", "__main__"]
MODULES = sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py") if p.parent != ROOT
                 or p.name != "__init__.py")


def imported(path: Path) -> list[str]:
    """The top-level folder or module of every import from this package."""
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parent.parts[: len(path.parent.parts) - (node.level - 1)]
        names = [node.module] if node.module else [alias.name for alias in node.names]
        found += [(*base, *name.split("."))[0] for name in names]
    return [name for name in found if name in LINE]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_what_lies_before_it(path):
    here = LINE.index(path.with_suffix("").parts[0])
    ahead = [name for name in imported(path) if LINE.index(name) > here]
    assert not ahead, f"{path} imports {ahead}, which lie further down the line"


SNIPPET = """
import sys, threading
import numpy
before = set(sys.modules)
import gllm_kernels
new = {m for m in set(sys.modules) - before if m.startswith(("gllm_kernels", "iced_x86", "ml_"))}
assert threading.active_count() == 1
print(sorted(new))
"""


def test_importing_loads_no_stage_and_starts_no_thread():
    done = subprocess.run([sys.executable, "-c", SNIPPET], capture_output=True, text=True, check=True)
    loaded = eval(done.stdout)
    heavy = ("iced_x86", "ml_dtypes", "gllm_kernels.codegen", "gllm_kernels.pipeline",
             "gllm_kernels.executable")
    assert not [m for m in loaded if m.startswith(heavy)], loaded


def test_operators_load_no_lifter():
    code = "import sys, gllm_kernels.ops; print('gllm_kernels.lift.lifter' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
