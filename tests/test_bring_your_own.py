"""The examples of docs/BRING_YOUR_OWN.md and of README.md, as they are printed there."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import gllm_kernels

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "BRING_YOUR_OWN.md").read_text(encoding="utf-8")
NEEDS = {"C": shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"),
         "Rust": shutil.which("rustc"), "Python": find_spec("numba")}  # fmt: skip
NEEDS |= dict.fromkeys(("16-bit arrays, speed", "A weight format"), NEEDS["C"])
BLOCK = re.compile(r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def sections():
    return dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


def run(command, folder, text=None):
    paths = os.pathsep.join([str(Path(gllm_kernels.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=folder, env=environment, input=text, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks(text):
    """(file, kind, text) of every fenced block."""
    return [m.group("file", "kind", "text") for m in BLOCK.finditer(text)]


@pytest.mark.parametrize("name", NEEDS)
def test_every_example_runs_as_it_is_printed(name, tmp_path):
    if not NEEDS[name]:
        pytest.skip(f"the example in {name}: its tool is not installed")
    found, python = blocks(sections()[name]), 0
    for file, kind, text in found:
        if file:
            (tmp_path / file).write_text(text)
        elif kind == "sh":
            run(["sh", "-e"], tmp_path, text)
        else:
            python += 1
            (tmp_path / "example.py").write_text(text)  # numba and tracebacks want a file
            printed = run([sys.executable, "example.py"], tmp_path)
            formulas = re.findall(r"^print\(\w+\) +# (.*)$", text, re.M)  # what a comment says it prints
            assert printed and all(f in printed for f in formulas)
    assert python == 1


@pytest.mark.skipif(not NEEDS["C"], reason="compiles C")
def test_the_error_on_the_page_is_the_one_that_is_raised(tmp_path):
    (wanted,) = [t for _, kind, t in blocks(sections()["What lifts"]) if kind == "text"]
    text = (
        "import gllm_kernels as gk\n"
        "d = 'void f(const float *x, float *out, size_t n)'\n"
        "text = '#include <stddef.h>\\n#include <math.h>\\n' + d + ' {\\n'\n"
        "text += '  for (size_t i = 0; i < n; i++)\\n    out[i] = x[i & 15];\\n}\\n'\n"
        "try: gk.compile_c(text, d)\n"
        "except gk.LiftError as error: print(error)\n"
    )
    printed = run([sys.executable, "-c", text], tmp_path)
    for line in wanted.splitlines():
        if "->" not in line and not re.match(r" +(\d|\^)", line) and "registers" not in line:
            assert line in printed


def test_the_readme_examples_run(tmp_path):
    """In one process, in order; the checkpoint is the one that ships with the package."""
    text = "\n".join(t for _, kind, t in blocks((ROOT / "README.md").read_text()) if kind == "python")
    tiny = Path(gllm_kernels.__file__).parent / "model" / "tiny"
    text = text.replace('"path/to/checkpoint"', repr(str(tiny)))
    given = "import ml_dtypes\nx16 = np.ones((32, 64), 'f2')\nw_bf16 = np.ones((48, 64), ml_dtypes.bfloat16)\n" \
            "y16, w = np.empty_like(x16), np.ones(64, 'f2')\n"
    text = text.replace("gk.silu(x16)", given + "gk.silu(x16)")
    if "compile_c" in text and not NEEDS["C"]:
        pytest.skip("compiles C")
    (tmp_path / "readme.py").write_text(text)
    run([sys.executable, "readme.py"], tmp_path)
