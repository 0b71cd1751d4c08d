"""No wrong trace comes out, without help from the differential test; true operators lift."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gllm_kernels.errors import LiftError
from gllm_kernels.lift.lifter import lift

SOURCE = Path(__file__).with_name("adversarial.c")
FLAGS = ("-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-ffp-contract=off", "-w")
LEVELS = ("-O0", "-O1", "-O2")
ROWS = re.findall(
    r"^// (accept|reject): (.*)\n(?:__attribute__.*\n)?((?:void|float|int64_t) \w+\(.*?\)) \{",
    SOURCE.read_text(),
    re.MULTILINE,
)
COMPILER = shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="compiles C: neither gcc nor clang here")


def declared(label):
    rows = [(d.replace("float *const", "float *"), why) for kind, why, d in ROWS if kind == label]
    return [pytest.param(d, id=re.search(r"(\w+)\(", d)[1]) for d, _ in rows]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adversarial")
    paths = {}
    for level in LEVELS:
        paths[level] = folder / f"lib{level}.so"
        command = [
            COMPILER,
            level,
            *FLAGS,
            "-fPIC",
            "-shared",
            str(SOURCE),
            "-o",
            str(paths[level]),
            "-lm",
        ]
        subprocess.run(command, check=True)
    return paths


def test_every_function_has_a_label():
    defined = re.findall(r"^(?:void|float|int64_t) (\w+)\(", SOURCE.read_text(), re.MULTILINE)
    assert len(defined) == len(ROWS) >= 30


@pytest.mark.parametrize("declaration", declared("reject"))
def test_rejected_at_every_level(declaration, libraries):
    for level in LEVELS:
        with pytest.raises(LiftError):
            trace = lift(libraries[level], declaration, verify=False)
            print(level, trace)


@pytest.mark.parametrize("declaration", declared("accept"))
def test_accepted_and_equal_at_every_level(declaration, libraries):
    for level in LEVELS:
        lift(libraries[level], declaration)
