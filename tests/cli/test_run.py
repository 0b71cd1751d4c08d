"""`gllm-kernels run` on the compiled engine: the same text whatever the number of threads."""

import os
import re
import subprocess
import sys

import pytest
from command import run

PROMPT = ("run", "-p", "def main(", "-n", 24)


@pytest.mark.parametrize("how", [("--temp", 0), ("--temp", 0.8, "-s", 5)])
def test_the_same_bits_twice_and_with_one_or_two_threads(how: tuple[object, ...]) -> None:
    runs = [run(*PROMPT, *how, "-t", threads, compiled=True) for threads in (1, 1, 2)]
    assert [done.returncode for done in runs] == [0, 0, 0], runs[0].stderr
    assert runs[0].stdout.startswith(b"def main(") and len(runs[0].stdout) > 24
    assert runs[0].stdout == runs[1].stdout == runs[2].stdout


def test_threads_by_cores_and_more_than_there_are() -> None:
    plain = run(*PROMPT, "--temp", 0, compiled=True)
    automatic = run(*PROMPT, "--temp", 0, "-t", 0, compiled=True, env={"GLLM_THREADS": "0"})
    assert automatic.stdout == plain.stdout and len(automatic.stderr.splitlines()) == 1
    for how in ({"GLLM_THREADS": "1024"}, {}):
        flags = () if how else ("-t", 1024)
        done = run(*PROMPT, "--temp", 0, *flags, compiled=True, env=how)
        note, figures = done.stderr.decode().splitlines()
        used = re.search(r"(\d+) threads?", figures)[1]
        assert note.startswith(f"gllm-kernels: 1024 threads wanted, {used} used")
        assert done.stdout == plain.stdout


WATCH = """
import sys
from pathlib import Path
import gllm_kernels
home = str(Path(gllm_kernels.__file__).parent)
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link")
def watch(event, found):
    target = str(found[0]) if found else ""
    written = event == "open" and (found[2] or 0) & 3  # O_RDONLY is 0
    if (written or event in WRITES) and target.startswith(home):
        print(event, target, file=sys.stderr)
sys.addaudithook(watch)
from gllm_kernels.cli.main import main
for line in (["run", "-p", "x", "-n", "2"], ["info"], ["plan"]):
    assert main(line) == 0
assert not open(home + "/__init__.py", "r+").close()
"""


def test_nothing_is_written_where_the_package_is_installed() -> None:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCH], env=environ, capture_output=True, text=True, check=True
    )
    figures, *written = done.stderr.splitlines()
    assert figures.startswith("load ")
    assert len(written) == 1 and written[0].endswith("__init__.py")  # the one made on purpose


def test_the_text_of_the_reference_engine() -> None:
    compiled, reference = (run(*PROMPT, "--temp", 0, compiled=c) for c in (True, False))
    assert compiled.stdout == reference.stdout


def test_the_last_line_has_figures() -> None:
    done = run(*PROMPT, "-s", 5, compiled=True)
    line = done.stderr.decode().splitlines()[-1]
    figures = re.fullmatch(
        r"load ([\d.]+) s \| compile ([\d.]+) s \| prefill ([\d.]+) t/s \(\d+ tokens\)"
        r" \| decode ([\d.]+) t/s \(\d+ tokens\) \| weights ([\d.]+) GB/s \| peak (\d+) MiB"
        r" \| \d+ threads? \| seed 5",
        line,
    )
    assert figures and all(float(figure) > 0 for figure in figures.groups()), line


@pytest.mark.parametrize("isa", ["avx512", "avx2", "scalar"])
def test_info_says_which_instruction_set_is_used(isa: str) -> None:
    text = run("info", compiled=True, env={"GLLM_ISA": isa}).stdout.decode()
    assert "unknown" not in text
    used = next(line for line in text.splitlines() if line.startswith("ISA used"))
    found = next(line for line in text.splitlines() if line.startswith("ISA found"))
    assert isa in used or isa not in found


@pytest.mark.parametrize("name", ["plan", "disasm"])
def test_looking_at_the_packaged_model(name: str) -> None:
    done = run(name, compiled=True)
    assert (done.returncode, done.stderr) == (0, b"")
    # the scalar ISA calls the object's own functions: it has a plan, and no kernels to show
    assert len(done.stdout) > 1000 or done.stdout == b"no kernels: ISA scalar\n"
