"""No wrong trace comes out, without help from the differential test; true operators lift."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gllm_kernels.errors import LiftError
from gllm_kernels.lift.lifter import lift

SOURCES = [Path(__file__).with_name(name) for name in ("adversarial.c", "narrow.c")]
FLAGS = ("-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-ffp-contract=off", "-w")
LEVELS = ("-O0", "-O1", "-O2", "-O3")
ROWS = re.findall(
    r"^// (accept|reject): (.*)\n(?:__attribute__.*\n)?((?:void|float|int64_t) \w+\(.*?\)) \{",
    "".join(path.read_text() for path in SOURCES),
    re.MULTILINE,
)
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
BUILDS = [(name, level) for name in COMPILERS for level in LEVELS]
# where a compiler keeps one loop per function: every operator lifts there
ACCEPTING = [b for b in BUILDS if b[0] == COMPILERS[0] and b[1] != "-O3"]
pytestmark = pytest.mark.skipif(not COMPILERS, reason="compiles C: neither gcc nor clang here")


def declared(label):
    rows = [(d.replace("float *const", "float *"), why) for kind, why, d in ROWS if kind == label]
    return [pytest.param(d, id=re.search(r"(\w+)\(", d)[1]) for d, _ in rows]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adversarial")
    paths = {}
    for compiler, level in BUILDS:
        paths[compiler, level] = folder / f"lib{compiler}{level}.so"
        command = [
            compiler,
            level,
            *(f if compiler == "gcc" else f.replace("-tree", "") for f in FLAGS),
            "-fPIC",
            "-shared",
            *map(str, SOURCES),
            "-o",
            str(paths[compiler, level]),
            "-lm",
        ]
        subprocess.run(command, check=True)
    return paths


def test_every_function_has_a_label():
    text = "".join(path.read_text() for path in SOURCES)
    defined = re.findall(r"^(?:void|float|int64_t) (\w+)\(", text, re.MULTILINE)
    assert len(defined) == len(ROWS) >= 30


@pytest.mark.parametrize("declaration", declared("reject"))
def test_rejected_at_every_level(declaration, libraries):
    for build in BUILDS:
        with pytest.raises(LiftError):
            trace = lift(libraries[build], declaration, verify=False)
            print(build, trace)


@pytest.mark.parametrize("declaration", declared("accept"))
def test_accepted_and_equal_at_every_level(declaration, libraries):
    for build in ACCEPTING:
        lift(libraries[build], declaration)
