"""`lift`, `plan`, `disasm`, `info`: what they show, and one line with status 2 where they cannot."""

from pathlib import Path

import pytest
from command import failure, run

from gllm_kernels.lift.lifter import CATALOG_OBJECT
from gllm_kernels.scalar.catalog import CATALOG

SILU = "void scalar_silu(const float *x, float *out, size_t n)"


def test_lift_shows_what_the_function_computes() -> None:
    done = run("lift", CATALOG_OBJECT, SILU, compiled=True)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    for part in ("silu(in x, out out, dim n)", "exp(-x[i0])", "elementwise", "every bit equal"):
        assert part in text


def test_lift_catalogue_times_every_operator() -> None:
    done = run("lift", "catalogue", compiled=True)
    rows = [line.split()[0] for line in done.stdout.decode().splitlines()]
    assert (done.returncode, done.stderr) == (0, b"")
    assert rows == ["operator", *(op.name for op in CATALOG if not op.opaque), "median"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/no/such.o", SILU), ["/no/such.o", "No such file"]),
        ((CATALOG_OBJECT.parent, SILU), ["objects", "Is a directory"]),
        ((__file__, SILU), ["test_look.py", "cannot be read as an ELF file", "give a .o or .so"]),
        (("/dev/null", SILU), ["/dev/null", "is no regular file"]),
        ((CATALOG_OBJECT,), ["x86_64.o", "no DECLARATION", "void mish("]),
        ((CATALOG_OBJECT, ""), ["not a C function declaration: ''", "scalar_silu("]),
        ((CATALOG_OBJECT, SILU[:-1]), ["not a C function declaration", "scalar_silu("]),
        ((CATALOG_OBJECT, "char f(size_t n)"), ["return type 'char'", "wanted void, float"]),
        ((CATALOG_OBJECT, SILU.replace("silu", "mish")), ["no function scalar_mish", "it defines"]),
        (("catalogue", SILU), ["takes no DECLARATION", "./catalogue"]),
        ((), ["FILE", "gllm-kernels lift --help"]),
    ],
)
def test_what_lift_refuses(arguments: tuple[object, ...], words: list[str]) -> None:
    line = failure("lift", *arguments, compiled=True)
    assert all(word in line for word in words), line


def test_a_cut_object(tmp_path: Path) -> None:
    (tmp_path / "cut.o").write_bytes(CATALOG_OBJECT.read_bytes()[:5000])
    assert "cut.o: cannot be read as an ELF file" in failure(
        "lift", tmp_path / "cut.o", SILU, compiled=True
    )


def test_a_refusal_with_code_keeps_its_lines() -> None:
    done = run("lift", CATALOG_OBJECT, SILU.replace(", size_t n", ""), compiled=True)
    first, *rest = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b"")
    assert first.startswith("gllm-kernels: error: scalar_silu: rdx is read before it is written")
    for start in ("  expected: ", "  change: ", "    -> ", "                ^^^^", "  known: "):
        assert any(line.startswith(start) for line in rest), rest


@pytest.mark.parametrize("command", ["plan", "disasm"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-m", "/no/such/dir"), ["/no/such/dir: no such directory", "config.json"]),
        (("-m", __file__), ["test_look.py: is a file", "give a .gguf file, or the directory"]),
        (("-m", ""), ["config.json: no such file"]),
        (("-m",), ["-m/--model", "expected one argument", "--help"]),
        (("--shape", "llama-9b"), ["--shape", "llama-9b", "llama-7b"]),
        (("-m", "x", "--shape", "llama-7b"), ["--shape: not allowed with", "-m/--model"]),
        (("more",), ["unrecognized arguments: more"]),
    ],
)
def test_what_plan_and_disasm_refuse(
    command: str, arguments: tuple[str, ...], words: list[str]
) -> None:
    line = failure(command, *arguments, compiled=True)
    assert all(word in line for word in words), line


def test_run_takes_no_empty_path_for_the_packaged_model() -> None:
    assert "config.json: no such file" in failure("run", "-m", "", "-p", "x")


def test_the_plan_of_a_well_known_shape() -> None:
    done = run("plan", "--shape", "llama-7b", compiled=True)
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[0].startswith("profile ") and lines[-1].startswith("compiled in ")


@pytest.mark.parametrize("arguments", [("info",), ("plan",), ("disasm",), ("run", "-p", "x")])
def test_a_setting_that_does_not_exist(arguments: tuple[str, ...]) -> None:
    line = failure(*arguments, compiled=True, env={"GLLM_ISA": "bogus"})
    assert "GLLM_ISA='bogus': expected avx512|avx512bf16|avx2|scalar" in line
