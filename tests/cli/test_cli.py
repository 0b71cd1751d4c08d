"""The command line: what goes to stdout and stderr, exit statuses, and errors in one line."""

import io
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command import TESTS, failure, run, start

import gllm_kernels
from gllm_kernels.cli.progress import Progress
from gllm_kernels.cli.run import unescape
from gllm_kernels.config import describe

sys.path.append(str(TESTS / "model"))
from checkpoints import SMALL, random_tensors, write_checkpoint  # noqa: E402

SEEDED = ("run", "-p", "\\ndef", "-s", 1)


def test_the_text_is_all_there_is_on_stdout() -> None:
    done = run(*SEEDED, "-n", 12)
    text = done.stdout.decode()
    assert done.returncode == 0 and text.startswith("\ndef") and len(text) > 12
    (line,) = done.stderr.decode().splitlines()
    for part in ("load", "compile", "prefill", "decode", "t/s", "GB/s", "peak", "MiB", "seed 1"):
        assert part in line
    bare = run(*SEEDED, "-n", 12, "--no-display-prompt")
    assert "\ndef" + bare.stdout.decode() == text and text.endswith("\n")


def test_the_default_prompt_and_the_packaged_model() -> None:
    assert run("run", "-n", 8, "-s", 1).stdout == run(*SEEDED, "-n", 8).stdout


def test_seeds_and_greedy() -> None:
    texts = [run(*SEEDED[:3], "-n", 12, "-s", seed).stdout for seed in (1, 2)]
    assert texts[0] != texts[1]
    greedy = [run(*SEEDED[:3], "-n", 12, "--temp", 0, "-s", seed).stdout for seed in (1, 2)]
    assert greedy[0] == greedy[1]


def test_flags_of_llama_cpp_reach_the_sampler() -> None:
    plain = run(*SEEDED, "-n", 16, "--temp", 1.5, "--top-k", 0, "--top-p", 1, "--min-p", 0).stdout
    greedy = run(*SEEDED, "-n", 16, "--temp", 0).stdout
    base = ("--temp", 1.5, "--top-k", 0, "--top-p", 1, "--min-p", 0)
    assert plain != greedy
    for narrow in (("--top-k", 1), ("--top-p", 0), ("--min-p", 1)):
        assert run(*SEEDED, "--n-predict", 16, *base, *narrow).stdout == greedy
    assert run(*SEEDED, "-n", 24, "--temp", 0, "--repeat-penalty", 3).stdout != greedy


def test_prompts_from_files_and_stdin(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text('x = "é\\n"\n', encoding="utf-8")
    done = run("run", "-f", file, "-n", 0)
    assert done.stdout.decode() == 'x = "é\\n"\n'
    assert run("run", "-f", "-", "-n", 0, stdin=file.read_bytes()).stdout == done.stdout
    assert run("run", "-p", "a\\n", "--no-escape", "-n", 0).stdout == b"a\\n\n"


def test_the_text_ends_its_line_once() -> None:
    assert run("run", "-p", "a\\n", "-n", 0).stdout == b"a\n"
    assert run("run", "-p", "a", "-n", 0, "--no-display-prompt").stdout == b""
    merged = run("run", "-p", "a", "-n", 0, stderr=subprocess.STDOUT).stdout.decode().splitlines()
    assert merged[0] == "a" and merged[1].startswith("load ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-n", 5, "-c", 3), "stopped: context full"),
        (("-n", -1, "-c", 3), "stopped: context full"),
        (("-n", 2, "-c", 3), ""),
        (("-n", 1, "-c", 3), ""),
    ],
)
def test_the_figures_say_what_stopped_the_text(arguments: tuple[object, ...], reason: str) -> None:
    line = run("run", "-p", "x", "-s", 1, *arguments).stderr.decode().strip()
    assert line.endswith(reason or "seed 1") and ("stopped" in line) is bool(reason), line


def test_escapes() -> None:
    assert unescape(r"a\n\t\\n\'\"\x41\q\x4") == "a\n\t\\n'\"A\\q\\x4"


# --- errors -------------------------------------------------------------------------------------


def broken(kind: str, path: Path) -> Path:
    """A checkpoint with one defect."""
    tensors = random_tensors(SMALL)
    changes: dict[str, object] = {}
    if kind == "nan":
        tensors["model.norm.weight"][3] = float("nan")
    if kind == "shape":
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:5]
    if kind == "architecture":
        changes["architectures"] = ["OPTForCausalLM"]
    write_checkpoint(path, tensors, **changes)
    if kind == "truncated":
        weights = path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if kind == name:
            (path / name).unlink()
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", ["model.safetensors", "model.norm.weight", "value 3 is nan"]),
        ("shape", ["model.norm.weight", "[5]", "[72]"]),
        ("architecture", ["config.json", "OPTForCausalLM", "LlamaForCausalLM"]),
        ("truncated", ["model.safetensors", "fetch it again"]),
        ("config.json", ["config.json", "no such file"]),
        ("tokenizer.json", ["tokenizer.json", "no such file"]),
        ("model.safetensors", ["no *.safetensors"]),
    ],
)
def test_broken_checkpoints(tmp_path: Path, kind: str, words: list[str]) -> None:
    line = failure("run", "-m", broken(kind, tmp_path / "model"), "-p", "x")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["COMMAND", "--help"]),
        (("fly",), ["fly", "run"]),
        (("run", "-n", "many"), ["-n/--n-predict", "many", "gllm-kernels run --help"]),
        (("run", "--no-such-flag"), ["--no-such-flag"]),
        (("run", "-p", "a", "-f", "b"), ["not allowed with"]),
        (("run", "-p", ""), ["prompt is empty", "token"]),
        (("run", "-p", "x" * 5000), ["prompt needs room for", "n_ctx is 512", "shorten"]),
        (("run", "-c", "9999"), ["n_ctx=9999", "512"]),
        (("run", "-c", "-1"), ["n_ctx=-1"]),
        (("run", "-t", "-1"), ["n_threads=-1", "at least 0"]),
        (("run", "-n", "-2"), ["max_tokens=-2"]),
        (("run", "--temp", "-1"), ["temp=-1.0", "0 (greedy) or more"]),
        (("run", "--temp", "nan"), ["temp=nan", "finite"]),
        (("run", "--temp", "inf"), ["temp=inf", "finite"]),
        (("run", "--repeat-penalty", "inf"), ["repeat_penalty=inf", "finite"]),
        (("run", "--top-k", "-1"), ["top_k=-1"]),
        (("run", "--top-p", "1.5"), ["top_p=1.5"]),
        (("run", "-s", "-7"), ["seed=-7"]),
        (("run", "-f", "/no/such/file"), ["/no/such/file: No such file", "check the path"]),
        (("run", "-f", "/"), ["/: Is a directory; give a file"]),
        (("run", "-m", "/no/such/dir", "-p", "x"), ["/no/such/dir", "no such directory"]),
        (("run", "-m", "/no/such/dir"), ["no prompt", "-p TEXT"]),
        (("run", "-p", b"\xff".decode("utf-8", "surrogateescape")), ["lone surrogate", "UTF-8"]),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], words: list[str]) -> None:
    line = failure(*arguments)
    assert all(word in line for word in words), line


def test_wrong_settings_and_files_that_are_not_text(tmp_path: Path) -> None:
    line = failure("run", "-n", 1, env={"GLLM_THREADS": "many"}, compiled=True)
    assert "GLLM_THREADS" in line and "many" in line
    (tmp_path / "raw").write_bytes(b"ok\xff")
    assert "byte 2 is not UTF-8" in failure("run", "-f", tmp_path / "raw")


def test_verbose_shows_the_traceback() -> None:
    done = run("run", "-v", "-p", "")
    text = done.stderr.decode()
    assert done.returncode == 2 and "Traceback" in text and "ShapeError" in text
    assert text.splitlines()[-1].startswith("gllm-kernels: error: prompt is empty")


def test_interrupt() -> None:
    for _ in range(5):  # on a busy machine the text may end before the signal arrives
        process = start(*SEEDED, "--temp", 0)
        assert process.stdout.read(30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        if process.returncode:
            break
    assert process.returncode == 130
    assert b"Traceback" not in err and b"decode" in err.splitlines()[-1]


def test_a_reader_that_goes_away() -> None:
    process = start(*SEEDED, "--temp", 0)
    assert process.stdout.read(10)
    process.stdout.close()
    process.wait(timeout=60)
    assert process.returncode == 141 and process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout() -> None:
    with open("/dev/full", "w") as full:
        done = run(*SEEDED, "-n", 4, stdout=full)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert "stdout: No space left" in line and "write to another place" in line
    with open("/dev/full", "w") as full:
        done = run("run", "-p", "", stderr=full)
        assert (done.returncode, done.stdout) == (2, b"")
        assert run(*SEEDED, "-n", 4, stderr=full).returncode == 2  # no place for the figures


def closed(stream: int, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """A command that is started without one of its streams, as `>&-` in a shell does."""
    return run(*arguments, preexec_fn=lambda: os.close(stream))


def test_streams_that_are_closed() -> None:
    for arguments in ((*SEEDED, "-n", 2), ("info",), ("--help",)):
        done = closed(1, *arguments)
        (line,) = done.stderr.decode().splitlines()
        assert done.returncode == 2 and "stdout is closed; send it to" in line
    done = closed(0, "run", "-f", "-")
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b"") and "stdin is closed; give" in line
    assert closed(0, *SEEDED, "-n", 2).stdout == run(*SEEDED, "-n", 2).stdout
    assert closed(2, *SEEDED, "-n", 2).stdout == run(*SEEDED, "-n", 2).stdout
    assert closed(2, "run", "-p", "").returncode == 2


@pytest.mark.parametrize("error", ["OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))",
                                   "MemoryError('4 GiB refused')", "MemoryError()"])  # fmt: skip
def test_memory_that_is_refused(error: str) -> None:
    code = (
        "import errno, os, sys, gllm_kernels.cli.info as info\n"
        f"def refuse(options): raise {error}\n"
        "info.info = refuse\n"
        "from gllm_kernels.cli.main import main; sys.exit(main(['info']))"
    )
    done = python(code)
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 2 and any(w in line for w in ("allocate", "4 GiB", "out of memory"))
    assert "; free memory" in line and "ulimit -v" in line and "Errno" not in line


def python(code: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, *flags, "-c", code], env=environ, capture_output=True)


def test_an_interrupt_while_modules_are_imported() -> None:
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'gllm_kernels.cli.{}': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv[1:] = ['run']\n"
        "from gllm_kernels.__main__ import main; sys.exit(main())"
    )
    for module in ("main", "options", "run"):
        done = python(code.format(module))
        assert (done.returncode, done.stderr) == (130, b""), module


def test_text_beyond_the_terminals_alphabet(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("é 字", encoding="utf-8")
    done = run("run", "-f", tmp_path / "p", "-n", 0, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"? ?\n")


# --- help and info ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help")])
def test_help_lists_the_environment(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    text = done.stdout.decode()
    assert done.returncode == 0 and done.stderr == b""
    assert all(variable in text for variable, _, _ in describe())


def test_help_of_run_shows_the_defaults_of_llama_cpp() -> None:
    text = " ".join(run("run", "--help").stdout.decode().split())
    for flag in ("--temp", "--top-k", "--top-p", "--min-p", "--repeat-penalty", "-s N, --seed",
                 "-n N, --n-predict", "-c N, --ctx-size", "-t N, --threads", "-m MODEL, --model",
                 "-p TEXT, --prompt", "-f FILE, --file"):  # fmt: skip
        assert flag in text
    for default in ("0.8", "40", "0.95", "0.05", "1.0", "-1"):
        assert f"(default: {default})" in text


def test_version_is_the_projects() -> None:
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    assert gllm_kernels.__version__ == project["version"]
    assert run("--version").stdout.decode() == f"gllm-kernels {project['version']}\n"


def test_info_names_everything_a_bug_report_needs() -> None:
    done = run("info")
    rows = [line[:14].strip() for line in done.stdout.decode().splitlines()]
    assert done.returncode == 0 and done.stderr == b""
    assert rows == [
        "gllm-kernels", "Python", "packages", "system", "CPU", "ISA found", "ISA used", "features",
        "caches", "cores", "threads", "memory", "code memory", "calls", "settings",
    ]  # fmt: skip
    assert "isa='avx2'" in run("info", env={"GLLM_ISA": "avx2"}).stdout.decode()


def test_progress_is_for_terminals_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock = [0.0]
    monkeypatch.setattr("gllm_kernels.cli.progress.time.monotonic", lambda: clock[0])
    for stream, wait, shown in (
        (Terminal(), 1.0, True),
        (Terminal(), 0.4, False),
        (io.StringIO(), 9, False),
    ):
        monkeypatch.setattr("sys.stderr", stream)
        clock[0] = 0.0
        with Progress("loading") as progress:
            clock[0] = wait
            progress.show(50, 100)
        assert ("50 %" in stream.getvalue()) is shown
        assert stream.getvalue().endswith("\x1b[K") is shown


# --- import -------------------------------------------------------------------------------------

LAZY = """
import sys, threading, json
import gllm_kernels as gk
print(json.dumps([sorted(m for m in sys.modules), threading.active_count()]))
"""


def test_importing_loads_no_stage_and_starts_no_thread() -> None:
    done = python(LAZY)
    modules, threads = json.loads(done.stdout)
    ours = {name for name in modules if name.startswith("gllm_kernels")}
    assert ours == {
        "gllm_kernels",
        "gllm_kernels.config",
        "gllm_kernels.errors",
        "gllm_kernels.lift",
    }
    assert not {"numpy", "iced_x86", "elftools", "ctypes"} & set(modules)
    assert threads == 1


def test_names_of_the_package() -> None:
    import gllm_kernels.lift.signature  # noqa: F401  (a submodule import must not take the name)
    import gllm_kernels.model.llama as llama

    assert gllm_kernels.Llama is llama.Llama
    assert callable(gllm_kernels.lift) and callable(gllm_kernels.config)
    with gllm_kernels.config(isa="scalar") as settings:
        assert settings.isa == "scalar"
    assert {"silu", "gemm", "rms_norm", "Llama", "lift"} <= set(dir(gllm_kernels))
    with pytest.raises(AttributeError, match="no_such_name"):
        gllm_kernels.no_such_name  # noqa: B018
