"""The catalogue, the sources and the committed object name the same operators."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gllm_kernels.errors import UnsupportedOpError
from gllm_kernels.scalar import CATALOG, ScalarOp, ScalarOpRegistry, library
from gllm_kernels.scalar.catalog import registry
from gllm_kernels.scalar.loader import OBJECTS, load_object

ROOT = Path(__file__).resolve().parents[2]
SOURCES = OBJECTS.parent


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_every_declaration_is_the_one_in_the_sources() -> None:
    text = _one_line("".join(p.read_text() for p in sorted(SOURCES.glob("*.c"))))
    for op in CATALOG:
        assert f"{op.declaration} {{" in text, op.name


def test_object_defines_exactly_the_catalogue() -> None:
    assert set(library().symbols) == {op.symbol for op in CATALOG}


def test_object_imports_only_mathematics() -> None:
    assert set(library().imports) == {"expf", "tanhf"}


def test_opaque_rows_give_a_reason() -> None:
    assert {op.name for op in CATALOG if op.opaque} == {"gather", "argmax"}


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnsupportedOpError, match="did you mean 'silu'"):
        CATALOG.lookup("sillu")
    with pytest.raises(UnsupportedOpError, match="known: .*vec_add"):
        CATALOG.lookup("qqqqqqqq")


def test_registering_twice() -> None:
    rows = registry(())
    mish = ScalarOp("mish", "void scalar_mish(const float *x, float *out, size_t n)", "x*tanh(..)")
    assert rows.register(mish) is mish and rows.register(mish) is mish
    assert "mish" in rows and len(rows) == 1 and "mish" not in CATALOG
    with pytest.raises(UnsupportedOpError, match="already registered"):
        rows.register(ScalarOp("mish", "void scalar_mish(float *x, size_t n)", "other"))
    assert isinstance(rows, ScalarOpRegistry)


def test_a_rebuilt_object_defines_the_same_functions(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "build_objects.py"), "--out", str(tmp_path)]
    done = subprocess.run([*command, "--only", "scalar"], capture_output=True, text=True)
    if "No such file" in done.stderr and "gcc" in done.stderr:
        pytest.skip("no C compiler")
    assert done.returncode == 0, done.stderr
    built = load_object(tmp_path / "x86_64.o")
    assert set(built.symbols) == set(library().symbols)
