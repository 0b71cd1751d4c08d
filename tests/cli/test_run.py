"""`gllm-kernels run` on the compiled engine: the same text whatever the number of threads."""

import re

import pytest
from command import run

PROMPT = ("run", "-p", "def main(", "-n", 24)


@pytest.mark.parametrize("how", [("--temp", 0), ("--temp", 0.8, "-s", 5)])
def test_the_same_bits_twice_and_with_one_or_two_threads(how: tuple[object, ...]) -> None:
    runs = [run(*PROMPT, *how, "-t", threads, compiled=True) for threads in (1, 1, 2)]
    assert [done.returncode for done in runs] == [0, 0, 0], runs[0].stderr
    assert runs[0].stdout.startswith(b"def main(") and len(runs[0].stdout) > 24
    assert runs[0].stdout == runs[1].stdout == runs[2].stdout


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
