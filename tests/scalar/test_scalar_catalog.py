"""The catalogue, the sources and the committed object name the same operators."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

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


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_objects", ROOT / "tools/build_objects.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_objects"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_committed_objects_are_compiled_from_these_sources() -> None:
    tool = _tool()
    for target in tool.targets().values():
        content = (OBJECTS / target.name).read_bytes()
        assert tool.digest(target).encode() in content, f"run tools/build_objects.py: {target.name}"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
@pytest.mark.parametrize("key", ["scalar", "blocks", "runtime"])
def test_a_rebuilt_object_is_deterministic_and_defines_the_same_functions(
    tmp_path: Path, key: str
) -> None:
    tool = _tool()
    target = tool.targets()[key]
    first, second = (tool.build(target, tmp_path / folder) for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert set(load_object(first).symbols) == set(load_object(OBJECTS / target.name).symbols)
