"""Settings: read from the environment, checked, overridden in a block and only there."""

import subprocess
import sys
import threading

import pytest

from gllm_kernels.config import SETTINGS, Config, config, current, describe, from_environment
from gllm_kernels.errors import ConfigError


def test_every_field_has_a_row_and_there_are_at_most_twelve() -> None:
    assert [row.name for row in SETTINGS] == list(Config.__dataclass_fields__)
    assert len(SETTINGS) <= 12
    assert {variable for variable, _, _ in describe()} >= {"GLLM_ISA", "GLLM_THREADS"}


def test_environment() -> None:
    given = {"GLLM_ISA": "avx2", "GLLM_THREADS": " 3", "GLLM_TIME": "1", "PATH": "/bin"}
    assert from_environment(given) == Config(isa="avx2", threads=3, time=True)
    assert from_environment({"GLLM_ISA": "", "GLLM_THREADS": ""}) == Config()


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("GLLM_ISA", "sse9", "avx512|avx512bf16|avx2|scalar"),
        ("GLLM_THREADS", "two", "0..1024"),
        ("GLLM_THREADS", "-1", "0..1024"),
        ("GLLM_SPEC", "3", "0|1|2"),
        ("GLLM_TIME", "yes", "0|1"),
        ("GLLM_DUMP", ":", "trace,graph,plan,kernel,asm[:name]"),
        ("GLLM_DUMP", ":silu", "trace,graph,plan,kernel,asm[:name]"),
        ("GLLM_DUMP", "kernl", "trace,graph,plan,kernel,asm"),
    ],
)
def test_wrong_values_name_variable_and_choices(variable: str, value: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment({variable: value})
    assert f"{variable}={value!r}" in str(caught.value) and wanted in str(caught.value)


def test_block_overrides_and_restores() -> None:
    before = current()
    with config(isa="avx2", threads=1) as outer:
        assert outer == current() and current().isa == "avx2"
        with config(threads=2):
            assert (current().isa, current().threads) == ("avx2", 2)
        assert current().threads == 1
    assert current() == before


def test_block_restores_after_an_error() -> None:
    before = current()
    with pytest.raises(KeyError), config(spec=2):
        raise KeyError
    assert current() == before


def test_wrong_override() -> None:
    with pytest.raises(ConfigError, match="no setting 'isas'"), config(isas="avx2"):
        pass
    with pytest.raises(ConfigError, match="threads=2.5"), config(threads=2.5):
        pass


def test_override_belongs_to_its_thread() -> None:
    seen = []
    with config(threads=7):
        other = threading.Thread(target=lambda: seen.append(current().threads))
        other.start()
        other.join()
    assert seen != [7] and len(seen) == 1


def test_dump_selects_stage_and_name() -> None:
    with config(dump="kernel,asm:silu") as settings:
        assert settings.dumps("kernel", "silu") and settings.dumps("asm", "silu_add")
        assert not settings.dumps("kernel", "gemm") and not settings.dumps("trace", "silu")
    assert not Config().dumps("trace")


def test_a_wrong_variable_stops_the_first_use() -> None:
    code = "from gllm_kernels.config import current; current()"
    env = {"GLLM_ISA": "best", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode and "GLLM_ISA='best'" in done.stderr
